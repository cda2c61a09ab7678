/* Checkpoints of a run folder: written beside, synced, renamed; `latest` moved last.
 *
 *     RUN/checkpoints/step_00001000/{model.safetensors,optimizer.safetensors,state.json}
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

typedef struct lam_optimizer_state {
    float *m, *v; /* [trainable] as the gradients; v NULL: the rule has one moment */
} lam_optimizer_state;

lam_status lam_checkpoint_write(const char *run, const lam_network *network,
                                const lam_optimizer_state *optimizer, const lam_run_state *state,
                                int64_t epoch);
/* After the checkpoint of `step`, which stays: removes older ones but for the newest keep_last (that of `step` counted) and
 * those of steps divisible by keep_every (0: none); what killed writes left, and what was set aside. */
lam_status lam_checkpoint_prune(const char *run, int64_t step, int64_t keep_last, int64_t keep_every);
/* A run goes on from `step`: `latest` names it, and newer checkpoints (damaged, or of a run that was taken back) are set
 * aside as step_N.aside, so that none counts as this run's until lam_checkpoint_prune removes them. */
lam_status lam_checkpoint_go_on_from(const char *run, int64_t step);
/* Newest valid checkpoint of a run; *folder NULL where the run has none at all. A damaged one is passed over with a
 * warning; damaged ones only: LAM_ERROR_FORMAT. Caller frees. */
lam_status lam_checkpoint_find(const char *run, char **folder);
lam_status lam_checkpoint_read(const char *folder, lam_network *network, lam_optimizer_state *optimizer,
                               lam_run_state *state);
/* model.safetensors of a run folder (its latest), of a step folder, of the file RUN/checkpoints/latest, or the file itself.
 * Caller frees. */
lam_status lam_checkpoint_model(const char *path, char **file);
/* xxh64 (seed 0) of a whole file. */
lam_status lam_file_hash(const char *path, uint64_t *hash);

#ifdef __cplusplus
}
#endif
#endif
