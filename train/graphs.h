/* The graphs of a training run: one a distinct number of visible patches, all in one arena.
 *
 * With model.mask_ratio_end the mask ratio goes from model.mask_ratio to it in LAM_MASK_LEVELS equal stretches of the run,
 * evenly spaced, first and last included; without it there is one graph. */
#ifndef LAMELLA_TRAIN_GRAPHS_H
#define LAMELLA_TRAIN_GRAPHS_H

#include "model/nets/mae.h"
#include "train/config.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { LAM_MASK_LEVELS = 5 };

/* Of a step (from 0 on) of `steps`: the stretch it is in, and the mask ratio of a stretch. */
int64_t lam_mask_level(int64_t step, int64_t steps);
double lam_mask_level_ratio(double first, double last, int64_t level);

typedef struct lam_graphs {
    int64_t count;
    lam_graph *graph[LAM_MASK_LEVELS]; /* [0]: of model.mask_ratio */
    lam_mae_io io[LAM_MASK_LEVELS];
    lam_mae_config model[LAM_MASK_LEVELS];
    int64_t of_level[LAM_MASK_LEVELS]; /* index of a stretch's graph */
} lam_graphs;

/* Builds, differentiates and plans; the parameters are borrowed. */
lam_status lam_graphs_open(lam_graphs *graphs, lam_parameters *parameters, const lam_backend *backend,
                           const lam_settings *settings, int64_t batch, int64_t optimizer_bytes);
void lam_graphs_close(lam_graphs *graphs);
/* As lam_graph_op_times, over all of them. */
int64_t lam_graphs_op_times(const lam_graphs *graphs, lam_op_time *times, int64_t maximum);

#ifdef __cplusplus
}
#endif
#endif
