/* Rows of a varying count on a device: the host does not know the count, so that a recording holds the work for a few numbers of
 * rows, and a replay does the smallest that is large enough. Rows beyond the count are zero (lam_sample_places). */
#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "model/graph_state.h"

enum { BUCKETS = 4 };

/* The count that all activations of the node are bounded by. NULL: some are not, or not by the same. */
static lam_tensor *count_of(const lam_node *node) {
    lam_tensor *count = node->output_count ? node->outputs[0]->bound : NULL;
    for (int k = 0; k < node->output_count; k++)
        if (node->outputs[k]->bound != count) return NULL;
    for (int k = 0; k < node->input_count; k++)
        if (!node->inputs[k]->parameter && node->inputs[k]->bound != count) return NULL;
    return count;
}

int64_t lam_same_rows_end(const lam_graph *graph, int64_t i, lam_tensor **count) {
    int64_t end = i;
    *count = count_of(graph->nodes[i]);
    while (*count && end < graph->node_count && count_of(graph->nodes[end]) == *count) end++;
    return end;
}

/* Around what is expected, in standard deviations; the last is the maximum. Returns how many differ. */
static int fill_limits(const lam_tensor *count, int64_t maximum, int64_t limits[BUCKETS]) {
    static const double deviations[BUCKETS - 1] = {-0.5, 0.5, 2};
    int used = 0;
    for (int k = 0; k < BUCKETS; k++) {
        int64_t limit = k < BUCKETS - 1 ? (int64_t)ceil(count->likely + deviations[k] * count->spread) : maximum;
        if (limit > maximum) limit = maximum;
        if (limit < 1 || (used && limits[used - 1] == limit)) continue;
        limits[used++] = limit;
    }
    return used;
}

/* Who has written and summed which gradient. */
typedef struct notes {
    bool *tensors, *summed, *parameters;
} notes;

static void take_notes(const lam_graph *graph, notes *n) {
    for (int64_t i = 0; i < graph->tensor_count; i++) {
        n->tensors[i] = graph->tensors[i]->gradient_written;
        n->summed[i] = graph->tensors[i]->gradient_summed;
    }
    memcpy(n->parameters, graph->parameters->unwritten, (size_t)graph->parameters->entries * sizeof(bool));
}

static void go_back_to(lam_graph *graph, const notes *n) {
    for (int64_t i = 0; i < graph->tensor_count; i++) {
        graph->tensors[i]->gradient_written = n->tensors[i];
        graph->tensors[i]->gradient_summed = n->summed[i];
    }
    memcpy(graph->parameters->unwritten, n->parameters, (size_t)graph->parameters->entries * sizeof(bool));
}

static lam_status run_each(lam_graph *graph, lam_tensor *count, const notes *before,
                           lam_status (*run)(lam_graph *, int64_t, int64_t), int64_t begin, int64_t end) {
    int64_t limits[BUCKETS];
    int used = fill_limits(count, graph->nodes[begin]->outputs[0]->shape[0], limits);
    LAM_TRY(graph->backend->choose(count->data, limits, used));
    for (int k = 0; k < used; k++) {
        LAM_TRY(graph->backend->choice(k));
        count->bucket = limits[k];
        go_back_to(graph, before);
        LAM_TRY(run(graph, begin, end));
    }
    return LAM_OK;
}

lam_status lam_run_in_buckets(lam_graph *graph, lam_tensor *count,
                              lam_status (*run)(lam_graph *, int64_t, int64_t), int64_t begin, int64_t end) {
    notes before = {NULL, NULL, NULL};
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_alloc_array((void **)&before.tensors, graph->tensor_count, sizeof(bool)), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&before.summed, graph->tensor_count, sizeof(bool)), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&before.parameters, graph->parameters->entries, sizeof(bool)), done);
    take_notes(graph, &before);
    status = run_each(graph, count, &before, run, begin, end);
    count->bucket = 0;
    if (graph->backend->chosen() != LAM_OK && status == LAM_OK) status = LAM_ERROR_EXTERNAL;
done:
    lam_free(before.tensors);
    lam_free(before.summed);
    lam_free(before.parameters);
    return status;
}
