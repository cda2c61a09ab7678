/* Checkpoints of a run folder: written beside, synced, renamed; `latest` moved last.
 *
 *     RUN/checkpoints/step_00001000/{model.safetensors,optimizer.safetensors,state.json}
 *     RUN/checkpoints/step_00001000/ema.safetensors   with optim.ema: as model.safetensors, the average of the weights
 *     RUN/checkpoints/latest        "step_00001000"
 *
 * A folder counts only without ".partial" in its name and with files that have the hashes of its state.json. */
#ifndef LAMELLA_TRAIN_CHECKPOINT_H
#define LAMELLA_TRAIN_CHECKPOINT_H

#include <stdbool.h>
#include <stdint.h>

#include "train/network.h"
#include "train/run_state.h"

#ifdef __cplusplus
extern "C" {
#endif

/* `average`: of the weights, [trainable]; NULL: none is kept. model.safetensors holds the weights that inference uses; where
 * the rule trains at others, those are in optimizer.safetensors, and the gradients are lost. */
lam_status lam_checkpoint_write(const char *run, const lam_network *network,
                                const lam_optimizer_state *optimizer, const float *average,
                                const lam_run_state *state, int64_t epoch);
/* After the checkpoint of `step`, which stays: removes older ones but for the newest keep_last (that of `step` counted) and
 * those of steps divisible by keep_every (0: none); what killed writes left, and what was set aside. */
lam_status lam_checkpoint_prune(const char *run, int64_t step, int64_t keep_last, int64_t keep_every);
/* A run goes on from `step`: `latest` names it, and newer checkpoints (damaged, or of a run that was taken back) are set
 * aside as step_N.aside, so that none counts as this run's until lam_checkpoint_prune removes them. */
lam_status lam_checkpoint_go_on_from(const char *run, int64_t step);
/* Newest valid checkpoint of a run; *folder NULL where the run has none at all. A damaged one is passed over with a
 * warning; damaged ones only: LAM_ERROR_FORMAT. Caller frees. */
lam_status lam_checkpoint_find(const char *run, char **folder);
/* Weights (those to train on with), arenas and average as they were when it was written. An average that the checkpoint
 * lacks begins with its weights, with a warning. LAM_ERROR_CONFIG where another rule wrote it. */
lam_status lam_checkpoint_read(const char *folder, lam_network *network, const lam_optimizer_state *optimizer,
                               float *average, lam_run_state *state);
/* model.safetensors of a run folder (its latest), of a step folder, of the file RUN/checkpoints/latest, or the file itself.
 * `average`: ema.safetensors instead; LAM_ERROR_INPUT where there is none, LAM_ERROR_USAGE for a file. Caller frees. */
lam_status lam_checkpoint_weights(const char *path, bool average, char **file);
/* xxh64 (seed 0) of a whole file. */
lam_status lam_file_hash(const char *path, uint64_t *hash);

#ifdef __cplusplus
}
#endif
#endif
