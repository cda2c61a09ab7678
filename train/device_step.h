/* A training step on a device of its own memory: forward, backward, sums over ranks, guard, clipping, rule and average are
 * recorded once for each kind of micro-batch (of which graph; the first of a step; the last) and replayed, so that the host gives
 * a step to the device and goes on. What a step came to is read when it has arrived.
 *
 *     LAM_TRY(lam_device_step_open(&step, &options));
 *     LAM_TRY(lam_device_step_push(step, arenas, average, &counts));   // weights are pushed by lam_parameters_push
 *     for each micro-batch: fill the inputs of graph k, LAM_TRY(lam_device_step_give(step, k, first, last, &terms));
 *     LAM_TRY(lam_device_step_outcome(step, &outcome));                 // of the oldest step that has not been asked for
 *     LAM_TRY(lam_device_step_pull(step, arenas, average));
 *
 * With several ranks gradients are summed bucket by bucket behind the backward pass (dist/nccl.h). At most two steps may be
 * given whose outcome has not been asked for. */
#ifndef LAMELLA_TRAIN_DEVICE_STEP_H
#define LAMELLA_TRAIN_DEVICE_STEP_H

#include "dist/dist.h"
#include "model/cuda/update.h"
#include "train/graphs.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Gradients are summed over ranks behind the backward pass, on every device, in ranges of fixed bounds: a rank that failed before
 * it had any gradient starts the same ones. */
enum { LAM_SUM_BUCKET = 1 << 22 };
/* The end of the range that begins at `sent`; 0 where gradients are not there to it yet, or at all. end: they are to here. */
static inline int64_t lam_sum_bucket_end(const lam_parameters *p, int64_t sent, int64_t end) {
    int64_t next = sent + LAM_SUM_BUCKET < p->trainable ? sent + LAM_SUM_BUCKET : p->trainable;
    return sent < end && next <= end ? next : 0;
}

typedef struct lam_device_step lam_device_step;

typedef struct lam_device_step_options {
    const lam_backend *backend; /* all of these are borrowed */
    lam_dist *dist;             /* NULL: one rank */
    lam_parameters *parameters;
    lam_graph *const *graphs;
    const lam_mae_io *io; /* of each graph */
    int64_t graph_count;  /* at most LAM_MASK_LEVELS */
    const lam_optimizer *optimizer;
    bool average;
    const lam_cuda_range *held;
    int64_t held_count;
    bool bf16;     /* the products of the update are, where the rule has any */
    bool autotune; /* algorithms of products are timed before the first step of a graph */
} lam_device_step_options;

/* Of device memory that the update of such a step keeps, tables of its graphs aside. */
int64_t lam_device_step_bytes(const lam_device_step_options *options);
/* Collective where there are several ranks. */
lam_status lam_device_step_open(lam_device_step **out, const lam_device_step_options *options);
void lam_device_step_close(lam_device_step **step);
lam_status lam_device_step_push(lam_device_step *step, float *const *arenas, const float *average, int64_t updates,
                                int64_t skipped, int64_t skipped_in_row);
/* Waits for what was given. */
lam_status lam_device_step_pull(lam_device_step *step, float *const *arenas, float *average);
/* Which algorithms the products take, as text for a checkpoint (caller frees; NULL: nothing chosen yet), and back, before the
 * first step is given: what another GPU or library wrote is not used. */
lam_status lam_device_step_plans(const lam_device_step *step, char **text);
lam_status lam_device_step_use_plans(lam_device_step *step, const char *text);
/* terms: read with `first`. */
lam_status lam_device_step_give(lam_device_step *step, int64_t graph, bool first, bool last,
                                const lam_cuda_update_input *terms);
lam_status lam_device_step_outcome(lam_device_step *step, lam_cuda_update_outcome *outcome);
/* An update by itself with the gradients that are there, waited for, while no step is under way: for benchmarks. */
lam_status lam_device_step_time_update(lam_device_step *step, const lam_cuda_update_input *terms, double *seconds);

#ifdef __cplusplus
}
#endif
#endif
