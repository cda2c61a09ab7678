/* When each tensor of a graph is used, what is computed again instead of kept, and when gradients are final. */
#include "model/graph_state.h"

#include "base/memory.h"

bool lam_runs_backward(const lam_graph *graph, const lam_node *node) {
    if (!graph->loss || !node->op->backward) return false;
    for (int i = 0; i < node->output_count; i++)
        if (node->outputs[i]->requires_gradient) return true;
    return false;
}

static void max_into(int64_t *value, int64_t other) {
    if (other > *value) *value = other;
}

static void min_into(int64_t *value, int64_t other) {
    if (*value < 0 || other < *value) *value = other;
}

static void read_in_backward(lam_tensor *t, int64_t time) {
    max_into(&t->last_backward_use, time);
    min_into(&t->first_backward_use, time);
}

/* Whoever uses a tensor of bounded rows reads their count. */
static void use_bound(const lam_tensor *t, int64_t time, bool backward, int64_t backward_time) {
    if (!t->bound) return;
    max_into(&t->bound->last_forward_use, time);
    if (backward) read_in_backward(t->bound, backward_time);
}

static void find_uses(lam_graph *graph) {
    int64_t n = graph->node_count;
    for (int64_t i = 0; i < graph->tensor_count; i++) {
        lam_tensor *t = graph->tensors[i];
        t->last_forward_use = t->last_backward_use = t->first_gradient_use = t->first_backward_use = -1;
    }
    for (int64_t i = 0; i < n; i++) {
        lam_node *node = graph->nodes[i];
        int64_t backward_time = 2 * n - 1 - i;
        bool backward = lam_runs_backward(graph, node);
        for (int k = 0; k < node->input_count; k++) {
            lam_tensor *t = node->inputs[k];
            max_into(&t->last_forward_use, i);
            use_bound(t, i, backward, backward_time);
            if (!backward) continue;
            if (node->op->backward_reads_inputs >> k & 1u) read_in_backward(t, backward_time);
            if (t->requires_gradient) min_into(&t->first_gradient_use, backward_time);
        }
        for (int k = 0; k < node->output_count; k++) {
            use_bound(node->outputs[k], i, backward, backward_time);
            if (backward && node->op->backward_reads_outputs >> k & 1u)
                read_in_backward(node->outputs[k], backward_time);
        }
    }
}

static bool leaves_block(const lam_graph *graph, const lam_node *producer, const lam_tensor *t) {
    for (int64_t i = 0; i < graph->node_count; i++)
        for (int k = 0; k < graph->nodes[i]->input_count; k++)
            if (graph->nodes[i]->inputs[k] == t && graph->nodes[i]->block != producer->block) return true;
    return false;
}

int64_t lam_again_time(const lam_graph *graph, int64_t number) {
    for (int64_t i = graph->node_count - 1; i >= 0 && number > 0; i--)
        if (graph->nodes[i]->block == number && graph->nodes[i]->recomputed)
            return 2 * graph->node_count - 1 - i;
    return -1;
}

/* Marks what is recomputed, and lets what that reads, or writes once more, live until then. The last block is not recomputed:
 * all of it is alive when its backward pass begins. */
static void mark_recomputed(lam_graph *graph, lam_recompute what) {
    int64_t n = graph->node_count;
    for (int64_t i = 0; i < graph->tensor_count; i++) graph->tensors[i]->recomputed = false;
    for (int64_t i = 0; i < n; i++) graph->nodes[i]->recomputed = false;
    if (!graph->loss) return;
    for (int64_t i = 0; i < n && what == LAM_RECOMPUTE_NORM_GELU; i++) {
        lam_node *node = graph->nodes[i];
        if (!node->op->again || !lam_runs_backward(graph, node)) continue; /* what it needs is kept for its backward pass */
        bool again = true; /* from what is itself computed again nothing is */
        for (int k = 0; k < node->input_count; k++)
            again &= !((node->op->again_inputs >> k & 1u) && node->inputs[k]->recomputed);
        for (int k = 0; k < node->output_count; k++)
            node->outputs[k]->recomputed = again && (node->op->again_outputs >> k & 1u) &&
                                           !node->outputs[k]->kept_forward &&
                                           node->outputs[k]->first_backward_use >= 0;
    }
    for (int64_t i = 0; i < n && what == LAM_RECOMPUTE_BLOCK; i++) {
        lam_node *node = graph->nodes[i];
        node->recomputed = node->block > 0 && node->block < graph->blocks && lam_runs_backward(graph, node);
        for (int k = 0; k < node->output_count && node->recomputed; k++)
            node->outputs[k]->recomputed =
                !node->outputs[k]->kept_forward && !leaves_block(graph, node, node->outputs[k]);
    }
    for (int64_t i = 0; i < n; i++) {
        lam_node *node = graph->nodes[i];
        if (!node->recomputed) continue;
        int64_t time = lam_again_time(graph, node->block);
        for (int k = 0; k < node->input_count; k++)
            if (!node->inputs[k]->recomputed) read_in_backward(node->inputs[k], time);
        for (int k = 0; k < node->output_count; k++)
            if (!node->outputs[k]->recomputed) read_in_backward(node->outputs[k], time);
    }
}

/* Whose gradient may take the place of the data: nobody reads them after the gradient's first writer. */
static void mark_in_place(lam_graph *graph) {
    for (int64_t i = 0; i < graph->tensor_count; i++) graph->tensors[i]->gradient_in_place = false;
    for (int64_t i = 0; i < graph->node_count; i++) {
        const lam_node *node = graph->nodes[i];
        int64_t time = 2 * graph->node_count - 1 - i;
        if (!lam_runs_backward(graph, node)) continue;
        for (int k = 0; k < node->input_count; k++) {
            lam_tensor *t = node->inputs[k];
            if (node->op->gradients_in_place >> k & 1u && t->producer && !t->kept && t->requires_gradient &&
                t->first_gradient_use == time && t->last_backward_use == time)
                t->gradient_in_place = true;
        }
    }
}

static bool is_taken_once(const lam_node *node, const lam_tensor *t) {
    int times = 0;
    for (int k = 0; k < node->input_count; k++) times += node->inputs[k] == t;
    return times == 1;
}

/* Whose gradient begins as that of what they are a part of: along a residual stream one stretch of memory serves, which ends
 * with the stream's first tensor. Tensors lie in the order in which they were made, so an end is known before it is passed on. */
static void mark_shared(lam_graph *graph) {
    for (int64_t i = 0; i < graph->tensor_count; i++) graph->tensors[i]->gradient_of = NULL;
    for (int64_t i = 0; i < graph->node_count; i++) {
        const lam_node *node = graph->nodes[i];
        if (!lam_runs_backward(graph, node)) continue;
        for (int k = 0; k < node->input_count; k++) {
            lam_tensor *t = node->inputs[k], *sum = node->outputs[0];
            if (node->op->gradients_pass >> k & 1u && t->producer && t->requires_gradient && !t->gradient_in_place &&
                t->first_gradient_use == 2 * graph->node_count - 1 - i && is_taken_once(node, t) &&
                (sum->first_gradient_use >= 0 || sum == graph->loss))
                t->gradient_of = sum;
        }
    }
    for (int64_t i = 0; i < graph->tensor_count; i++) graph->tensors[i]->gradient_end = -1;
    for (int64_t i = 0; i < graph->node_count; i++) {
        const lam_node *node = graph->nodes[i];
        for (int k = 0; k < node->output_count; k++) {
            lam_tensor *t = node->outputs[k];
            max_into(&t->gradient_end, 2 * graph->node_count - 1 - i);
            if (t->gradient_of) max_into(&t->gradient_of->gradient_end, t->gradient_end);
        }
    }
}

void lam_graph_find_lifetimes(lam_graph *graph, lam_recompute what) {
    find_uses(graph);
    mark_recomputed(graph, what);
    mark_in_place(graph);
    mark_shared(graph);
}

lam_status lam_graph_find_final_gradients(lam_graph *graph) {
    lam_parameters *p = graph->parameters;
    LAM_TRY(lam_alloc_array((void **)&graph->final_at, p->entries, sizeof *graph->final_at));
    for (int64_t e = 0; e < p->entries; e++) {
        graph->final_at[e] = -1;
        for (int64_t i = graph->node_count - 1; i >= 0; i--)
            for (int k = 0; k < graph->nodes[i]->input_count && lam_runs_backward(graph, graph->nodes[i]);
                 k++)
                if (graph->nodes[i]->inputs[k]->parameter == &p->entry[e]) graph->final_at[e] = i;
    }
    return LAM_OK;
}
