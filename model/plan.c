/* The plan of a graph: each stretch of memory that a step needs gets its place in one arena. */
#include "model/graph_state.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

#define FOREVER INT64_MAX

typedef enum owner { OWNER_ACTIVATION, OWNER_GRADIENT, OWNER_WORKSPACE, OWNER_INPUT } owner;

/* A stretch of the arena, alive from time `first` to `last`. */
typedef struct lam_block {
    size_t bytes, offset;
    int64_t first, last;
    owner owner;
    void **where; /* gets the address */
} block;

static int larger_first(const void *a, const void *b) {
    const block *x = *(block *const *)a, *y = *(block *const *)b;
    if (x->bytes != y->bytes) return x->bytes < y->bytes ? 1 : -1;
    return x < y ? -1 : x > y; /* same array: keeps the order */
}

static int by_offset(const void *a, const void *b) {
    const block *x = *(block *const *)a, *y = *(block *const *)b;
    return (x->offset > y->offset) - (x->offset < y->offset);
}

/* Greedy by size: each block takes the lowest gap between blocks that live at the same time (Pisarchyk & Lee
 * 2020, Efficient memory management for deep neural net inference: greedy by size). */
static lam_status place(block *blocks, int64_t count, size_t *total) {
    block **order = NULL, **overlapping = NULL;
    lam_status status = LAM_OK;
    *total = 0;
    LAM_TRY_GOTO(lam_alloc_array((void **)&order, count, sizeof *order), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&overlapping, count, sizeof *overlapping), done);
    for (int64_t i = 0; i < count; i++) order[i] = &blocks[i];
    if (count) qsort(order, (size_t)count, sizeof *order, larger_first);
    for (int64_t i = 0; i < count; i++) {
        int64_t others = 0;
        for (int64_t j = 0; j < i; j++)
            if (order[j]->first <= order[i]->last && order[i]->first <= order[j]->last)
                overlapping[others++] = order[j];
        if (others) qsort(overlapping, (size_t)others, sizeof *overlapping, by_offset);
        size_t at = 0;
        for (int64_t j = 0; j < others; j++) {
            if (overlapping[j]->offset >= at + order[i]->bytes) break;
            size_t end = overlapping[j]->offset + overlapping[j]->bytes;
            if (end > at) at = end;
        }
        order[i]->offset = at;
        if (at + order[i]->bytes > *total) *total = at + order[i]->bytes;
    }
done:
    lam_free(order);
    lam_free(overlapping);
    return status;
}

static size_t aligned(const lam_backend *backend, size_t bytes) {
    return (bytes + backend->alignment - 1) & ~(backend->alignment - 1);
}

static void add_block(block *blocks, int64_t *count, size_t bytes, int64_t first, int64_t last, owner who,
                      void **where) {
    if (bytes) blocks[(*count)++] = (block){bytes, 0, first, last, who, where};
}

static int64_t later(int64_t a, int64_t b) { return a > b ? a : b; }

static int64_t birth(const lam_graph *graph, const lam_tensor *t) {
    int64_t born = 0;
    while (graph->nodes[born] != t->producer) born++;
    return born;
}

static void collect_tensor(lam_graph *graph, lam_tensor *t, block *blocks, int64_t *count) {
    size_t bytes = (size_t)t->count * lam_dtype_bytes(t->dtype);
    if (t->is_input) {
        add_block(blocks, count, bytes, 0, FOREVER, OWNER_INPUT, &t->places[0]);
        return;
    }
    int64_t born = birth(graph, t), backward = 2 * graph->node_count - 1 - born;
    int64_t last = later(born, t->last_forward_use),
            last_backward = t->gradient_in_place ? t->gradient_end : t->last_backward_use;
    if (t->recomputed) {
        int64_t again =
            t->producer->recomputed ? lam_again_time(graph, t->producer->block) : t->first_backward_use;
        add_block(blocks, count, bytes, again, later(again, last_backward), OWNER_ACTIVATION, &t->places[1]);
    } else {
        last = later(last, last_backward);
    }
    if (t->kept_forward) last = later(last, graph->node_count - 1);
    add_block(blocks, count, bytes, born, t->kept ? FOREVER : last, OWNER_ACTIVATION, &t->places[0]);
    if (graph->loss && t->requires_gradient && !t->gradient_in_place && !t->gradient_of &&
        (t->first_gradient_use >= 0 || t == graph->loss))
        add_block(blocks, count, bytes, t == graph->loss ? backward : t->first_gradient_use, t->gradient_end,
                  OWNER_GRADIENT, &t->gradient);
}

static void collect_node(lam_graph *graph, int64_t i, block *blocks, int64_t *count) {
    lam_node *node = graph->nodes[i];
    bool backward = lam_runs_backward(graph, node);
    int64_t end = 2 * graph->node_count - 1 - i;
    if (node->recomputed) {
        int64_t again = lam_again_time(graph, node->block);
        add_block(blocks, count, node->saved_bytes, i, i, OWNER_ACTIVATION, &node->saved_places[0]);
        add_block(blocks, count, node->saved_bytes, again, end, OWNER_ACTIVATION, &node->saved_places[1]);
        add_block(blocks, count, node->forward_workspace_bytes, again, again, OWNER_WORKSPACE,
                  &node->workspace_places[1]);
    } else {
        add_block(blocks, count, node->saved_bytes, i, backward ? end : i, OWNER_ACTIVATION,
                  &node->saved_places[0]);
    }
    add_block(blocks, count, node->forward_workspace_bytes, i, i, OWNER_WORKSPACE,
              &node->workspace_places[0]);
    if (backward)
        add_block(blocks, count, node->backward_workspace_bytes, end, end, OWNER_WORKSPACE,
                  &node->backward_workspace);
}

/* Every stretch of memory that a step needs, with its life. The caller frees *blocks. */
static lam_status collect(lam_graph *graph, lam_recompute what, block **blocks, int64_t *count) {
    *count = 0;
    LAM_TRY(
        lam_alloc_array((void **)blocks, 3 * graph->tensor_count + 5 * graph->node_count, sizeof **blocks));
    lam_graph_find_lifetimes(graph, what);
    for (int64_t i = 0; i < graph->node_count; i++)
        if (graph->nodes[i]->run.sizes) graph->nodes[i]->run.sizes(graph->nodes[i]);
    for (int64_t i = 0; i < graph->tensor_count; i++)
        if (!graph->tensors[i]->parameter) collect_tensor(graph, graph->tensors[i], *blocks, count);
    for (int64_t i = 0; i < graph->node_count; i++) collect_node(graph, i, *blocks, count);
    for (int64_t i = 0; i < *count; i++) (*blocks)[i].bytes = aligned(graph->backend, (*blocks)[i].bytes);
    return LAM_OK;
}

static bool packed_before(const lam_graph *graph, int64_t i) {
    const lam_node *node = graph->nodes[i];
    for (int64_t k = 0; k < i && node->packed_bytes[0]; k++) {
        const lam_node *other = graph->nodes[k];
        bool same = other->input_count == node->input_count &&
                    other->packed_bytes[0] == node->packed_bytes[0] &&
                    other->packed_bytes[1] == node->packed_bytes[1];
        for (int input = 1; same && input < node->input_count; input++) /* activations differ between two nodes */
            same = other->inputs[input]->data == node->inputs[input]->data || !node->inputs[input]->parameter;
        if (same) return true;
    }
    return false;
}

static void report_memory(const lam_graph *graph, const block *blocks, int64_t count, size_t total,
                          lam_memory_report *report) {
    *report = (lam_memory_report){.total = total};
    size_t *owners[] = {&report->activations, &report->activation_gradients, &report->workspace,
                        &report->inputs};
    for (int64_t i = 0; i < count; i++) *owners[blocks[i].owner] += blocks[i].bytes;
    report->weights = (size_t)graph->parameters->count * sizeof(float);
    for (int64_t i = 0; i < graph->node_count; i++) {
        const lam_node *node = graph->nodes[i];
        if (packed_before(graph, i)) continue;
        report->packed +=
            node->packed_bytes[0] + (lam_runs_backward(graph, node) ? node->packed_bytes[1] : 0);
    }
    report->gradients = graph->loss ? (size_t)graph->parameters->trainable * sizeof(float) : 0;
}

lam_status lam_graph_measure(lam_graph *graph, lam_recompute what, lam_memory_report *report) {
    if (graph->status != LAM_OK) LAM_FAIL(graph->status, "the network cannot be built: %s", graph->message);
    LAM_REQUIRE(!graph->planned, LAM_ERROR_INTERNAL, "the graph is planned already");
    block *blocks = NULL;
    int64_t count = 0;
    size_t total = 0;
    lam_status status = collect(graph, what, &blocks, &count);
    if (status == LAM_OK) status = place(blocks, count, &total);
    if (status == LAM_OK) report_memory(graph, blocks, count, total, report);
    lam_free(blocks);
    return status;
}

void lam_graph_use_places(lam_graph *graph) {
    for (int64_t i = 0; i < graph->tensor_count; i++)
        if (!graph->tensors[i]->parameter) graph->tensors[i]->data = graph->tensors[i]->places[0];
    for (int64_t i = 0; i < graph->node_count; i++) {
        graph->nodes[i]->saved = graph->nodes[i]->saved_places[0];
        graph->nodes[i]->forward_workspace = graph->nodes[i]->workspace_places[0];
    }
}

/* Room for weights that operations prepare; graphs over the same parameters share it. */
static lam_status reserve_packed(lam_graph *graph) {
    for (int64_t i = 0; i < graph->node_count; i++) {
        lam_node *node = graph->nodes[i];
        node->packed_before = packed_before(graph, i);
        for (int backward = 0; backward < (lam_runs_backward(graph, node) ? 2 : 1); backward++) {
            if (!node->packed_bytes[backward]) continue;
            LAM_TRY(lam_parameters_reserve(graph->parameters, node->inputs[1]->data, backward,
                                           node->packed_bytes[backward], &node->packed[backward]));
        }
    }
    return LAM_OK;
}

static lam_status lay_out(lam_graph *graph) {
    if (graph->status != LAM_OK) LAM_FAIL(graph->status, "the network cannot be built: %s", graph->message);
    LAM_REQUIRE(graph->node_count > 0 && !graph->planned, LAM_ERROR_INTERNAL,
                "the graph is empty or planned already");
    LAM_TRY(collect(graph, graph->recompute, &graph->planned_blocks, &graph->planned_count));
    return place(graph->planned_blocks, graph->planned_count, &graph->report.total);
}

/* Where callers write the inputs, and where these arrive on the device. */
static lam_status reserve_staging(lam_graph *graph) {
    const lam_backend *on = graph->backend;
    if (on->on_host) return LAM_OK;
    for (int64_t i = 0; i < graph->tensor_count; i++)
        if (graph->tensors[i]->is_input)
            graph->staging_bytes +=
                aligned(on, (size_t)graph->tensors[i]->count * lam_dtype_bytes(graph->tensors[i]->dtype));
    if (!graph->staging_bytes) return LAM_OK;
    LAM_TRY(on->allocate_pinned(&graph->staging, graph->staging_bytes));
    memset(graph->staging, 0, graph->staging_bytes);
    LAM_TRY(on->allocate(&graph->incoming, graph->staging_bytes));
    size_t at = 0;
    for (int64_t i = 0; i < graph->tensor_count; i++) {
        lam_tensor *t = graph->tensors[i];
        if (!t->is_input) continue;
        t->host = (char *)graph->staging + at;
        at += aligned(on, (size_t)t->count * lam_dtype_bytes(t->dtype));
    }
    return LAM_OK;
}

static lam_status settle(lam_graph *graph, void *arena, size_t total) {
    for (int64_t i = 0; i < graph->planned_count; i++)
        *graph->planned_blocks[i].where = (char *)arena + graph->planned_blocks[i].offset;
    for (int64_t i = 0; i < graph->tensor_count; i++) {
        lam_tensor *t = graph->tensors[i];
        if (t->gradient_in_place) t->gradient = t->places[t->recomputed];
    }
    for (int64_t i = graph->tensor_count - 1; i >= 0; i--) { /* a sum is made after its parts */
        lam_tensor *t = graph->tensors[i];
        if (t->gradient_of) t->gradient = t->gradient_of->gradient;
    }
    report_memory(graph, graph->planned_blocks, graph->planned_count, total, &graph->report);
    LAM_TRY(lam_graph_find_final_gradients(graph));
    LAM_TRY(reserve_packed(graph));
    LAM_TRY(reserve_staging(graph));
    lam_graph_use_places(graph);
    graph->planned = true;
    return LAM_OK;
}

lam_status lam_graph_plan(lam_graph *graph) { return lam_graph_plan_together(&graph, 1); }

lam_status lam_graph_plan_together(lam_graph *const *graphs, int64_t count) {
    size_t total = 0;
    lam_status status = LAM_OK;
    for (int64_t i = 0; i < count; i++) {
        LAM_TRY_GOTO(lay_out(graphs[i]), done);
        if (graphs[i]->report.total > total) total = graphs[i]->report.total;
    }
    status = graphs[0]->backend->allocate(&graphs[0]->arena, total);
    for (int64_t i = 0; i < count && status == LAM_OK; i++) status = settle(graphs[i], graphs[0]->arena, total);
    if (status == LAM_ERROR_MEMORY)
        lam_fail_context(status,
                         "the step needs %.1f MiB of activations, and its inputs: a smaller batch (train.micro_batch, "
                         "--batch of bench and embed) needs less",
                         (double)total / 1048576.0);
done:
    for (int64_t i = 0; i < count; i++) {
        lam_free(graphs[i]->planned_blocks);
        graphs[i]->planned_blocks = NULL;
    }
    return status;
}

void lam_graph_memory(const lam_graph *graph, lam_memory_report *report) { *report = graph->report; }
