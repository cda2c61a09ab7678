/* One training run on one rank: what it holds, a step, a validation.
 *
 * Every rank computes the gradient of its rows with the weight 1 / (valid rows of the global batch); gradients are summed over
 * micro-batches and ranks, so that the run does not depend on either but for rounding. */
#ifndef LAMELLA_TRAIN_TRAINER_H
#define LAMELLA_TRAIN_TRAINER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/lock.h"
#include "data/loader.h"
#include "dist/dist.h"
#include "train/checkpoint.h"
#include "train/device.h"
#include "train/device_step.h"
#include "train/graphs.h"
#include "train/metrics.h"
#include "train/network.h"
#include "train/split.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lam_trainer {
    lam_dist *dist; /* borrowed */
    const lam_backend *backend;
    bool autotune;
    int rank, world_size;
    lam_shards *shards; /* owned, as everything below */
    lam_network *network;
    lam_settings *settings; /* of the network */
    lam_feeder feeder;
    lam_split split;
    lam_loader *loader, *validation;
    lam_graphs graphs;
    lam_mae_config model; /* of the last step: its mask ratio */
    lam_optimizer_state optimizer;
    float *average; /* of the weights, with optim.ema; else NULL */
    lam_run_state state;
    int64_t steps, steps_per_epoch, micro_batch;
    int64_t saved;          /* step of the newest checkpoint; 0: none */
    int64_t damaged;        /* samples of this rank's finished steps */
    int64_t sent;           /* gradients whose sum over the ranks has been started in this step */
    lam_status sent_status; /* of the first start that failed */
    lam_batch *pictured;    /* rank 0: crops that are drawn at every picture */
    int64_t picture_crops;
    lam_device_step *device; /* the step on another device; NULL: on the CPU */
    struct lam_given_step {
        int64_t rows;
        double data_wait_ms, start;
    } given[2];         /* to the device and not finished, in order */
    int64_t given_count;
    bool stop_next; /* a rank was told to stop when the step behind the given ones was to begin */
    lam_lock *lock; /* rank 0: of the run folder, from lam_run_begin on */
} lam_trainer;

/* Takes over `config` in every case. fresh: train.init is going to be read, so it is looked at before memory is planned; a run
 * that is resumed may do without it. */
lam_status lam_trainer_open(lam_trainer *trainer, lam_dist *dist, const lam_device *device, lam_config *config,
                            bool fresh);
void lam_trainer_close(lam_trainer *trainer);
/* Of the rule's arenas and of the average of weights. */
int64_t lam_trainer_optimizer_bytes(const lam_trainer *trainer);
/* Weights, arenas, average and counts between the host and the device; nothing on the CPU. Pushed before the first step, pulled
 * before what is on the host is used. */
lam_status lam_trainer_push(lam_trainer *trainer);
lam_status lam_trainer_pull(lam_trainer *trainer);

/* Something that comes every so many steps comes after `step` of them; every 0: never. */
static inline bool lam_is_due(int64_t step, int64_t every) { return every > 0 && step % every == 0; }

typedef struct lam_step_result {
    double loss, gradient_norm, lr;
    int64_t rows; /* valid, over all ranks */
    bool skipped;
    bool stop, within; /* a rank was told to stop: no step was done; it was begun */
    double data_wait_ms, seconds;
} lam_step_result;
/* One step at state.step (on a device the next one is given to it before this one is waited for, where nothing is due in
 * between): loads, computes, updates, counts. Where a rank is told to stop, before it or between its
 * micro-batches, all ranks give the step up: the state is that of the last finished step, and the loader must be sought anew. */
lam_status lam_trainer_step(lam_trainer *trainer, lam_step_result *result);
/* Mean loss over the validation images: fixed crops, fixed masks of model.mask_ratio. */
lam_status lam_trainer_validate(lam_trainer *trainer, double *loss);
/* Rank 0: the pictured crops at the present weights. */
lam_status lam_trainer_draw(lam_trainer *trainer, const char *path);

#ifdef __cplusplus
}
#endif
#endif
