/* How a training step is planned: the type of its activations, and what its backward pass recomputes.
 *
 *     LAM_TRY(lam_graph_create(&graph, ...));
 *     lam_step_plan_start(graph, settings);                 // before the network is built
 *     ... build, differentiate ...
 *     LAM_TRY(lam_step_plan_finish(&graph, 1, settings, optimizer_bytes, backend, batch)); // chooses and plans */
#ifndef LAMELLA_TRAIN_STEP_PLAN_H
#define LAMELLA_TRAIN_STEP_PLAN_H

#include "train/config.h"

#ifdef __cplusplus
extern "C" {
#endif

void lam_step_plan_start(lam_graph *graph, const lam_settings *settings);

/* For graphs that are run in turn and share their memory. Without a budget what train.recompute says; with
 * train.memory_budget the first of none, norm_gelu, block, from train.recompute on, with which weights, gradients, what the
 * update keeps (optimizer_bytes) and the step together fit: the first is the fastest. LAM_ERROR_CONFIG where none does: the
 * message says what the smallest needs. On a device its free memory is a budget, too, with LAM_ERROR_MEMORY and how many of the
 * `batch` crops of the graphs would fit. */
lam_status lam_step_plan_finish(lam_graph *const *graphs, int64_t count, const lam_settings *settings,
                                int64_t optimizer_bytes, const lam_backend *backend, int64_t batch);

/* "8GiB", "500 MiB", "1.5GB", a unit always: bytes; LAM_ERROR_CONFIG names the key. */
lam_status lam_bytes_parse(const char *text, const char *key, int64_t *bytes);

#ifdef __cplusplus
}
#endif
#endif
