/* A graph from inside: what has been built, when each part of it is used, where each part lies. graph.c builds and runs it,
 * lifetimes.c and plan.c make the plan; no other file includes this one (operations see model/internal.h).
 *
 *     lam_graph_find_lifetimes(graph, what);     // times of every tensor and node: model/internal.h says how they count
 *     ...                                        // plan.c: a place in the arena for every stretch of time
 *     lam_graph_use_places(graph);               // before each forward pass */
#ifndef LAMELLA_MODEL_GRAPH_STATE_H
#define LAMELLA_MODEL_GRAPH_STATE_H

#include "base/memory.h"
#include "model/internal.h"

#ifdef __cplusplus
extern "C" {
#endif

struct lam_graph {
    lam_parameters *parameters;
    const lam_backend *backend;
    lam_arena memory; /* tensors and nodes */
    lam_tensor **tensors;
    lam_node **nodes;
    int64_t tensor_count, tensor_capacity, node_count, node_capacity;
    lam_tensor *loss;
    lam_status status;
    char message[1024];
    void *arena;                      /* NULL: another graph of lam_graph_plan_together owns it */
    struct lam_block *planned_blocks; /* while it is planned (plan.c) */
    int64_t planned_count;
    lam_memory_report report;
    lam_gradient_hook hook;
    void *hook_context;
    int64_t bucket;
    int64_t *final_at; /* [entries] backward node index after which the parameter's gradient is final; -1:
                          unused */
    void *staging; /* pinned: what the inputs' `host` point into; NULL on the CPU */
    void *incoming; /* on the device: where the inputs arrive */
    size_t staging_bytes;
    bool planned, profile, poison, hold_weights, recording;
    lam_dtype activation;
    lam_rounding rounding;
    lam_recompute recompute;
    int64_t blocks, open_block; /* blocks so far; the one being built, 0: none */
};

/* The node has a step in the backward pass. */
bool lam_runs_backward(const lam_graph *graph, const lam_node *node);
/* Sets first and last uses of all tensors, and what is recomputed; what that reads, or writes once more, is used until then. */
void lam_graph_find_lifetimes(lam_graph *graph, lam_recompute what);
/* When block `number` runs again: at the backward time of its last node. -1: it does not. */
int64_t lam_again_time(const lam_graph *graph, int64_t number);
/* Fills final_at, which the graph owns. LAM_ERROR_MEMORY. */
lam_status lam_graph_find_final_gradients(lam_graph *graph);
/* Of node i, the end (exclusive) of the run of nodes from i on that work on rows of the same varying count; i: it has none. */
int64_t lam_same_rows_end(const lam_graph *graph, int64_t i, lam_tensor **count);
/* Records what `run` gives to the device for each bucket of rows of `count`, as alternatives of one of which a replay does. The
 * graph's notes of who has written which gradient begin and end the same in each. */
lam_status lam_run_in_buckets(lam_graph *graph, lam_tensor *count, lam_status (*run)(lam_graph *, int64_t, int64_t),
                              int64_t begin, int64_t end);
/* Everything at its place of the forward pass. */
void lam_graph_use_places(lam_graph *graph);

#ifdef __cplusplus
}
#endif
#endif
