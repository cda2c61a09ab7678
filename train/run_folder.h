/* A run folder from a start or a resume to its metrics file.
 *
 * Without --resume a folder that holds a run is an error; with --force that run is removed. With --resume the newest valid
 * checkpoint is read by rank 0 and given to all; a folder without one starts fresh. One training at a time: rank 0 holds
 * the lock of RUN/lock (base/lock.h) from lam_run_begin until the trainer is closed. */
#ifndef LAMELLA_TRAIN_RUN_FOLDER_H
#define LAMELLA_TRAIN_RUN_FOLDER_H

#include "train/trainer.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lam_start {
    bool resume, strict, force;
    const char *command_line;
} lam_start;

/* Whether a run may begin or go on in the folder `run`, before anything costly is done; lam_run_begin asks again under its lock.
 * LAM_ERROR_USAGE: it holds a run, and `start` neither resumes nor forces. */
lam_status lam_run_look(const char *run, const lam_start *start);
/* Collective. Trainer's weights, moments and state are those of the checkpoint, where there is one; rank 0 has `metrics`
 * open behind the checkpoint's last line, and the first line written where the run is new. */
lam_status lam_run_begin(lam_trainer *trainer, const lam_start *start, double limit_flops_per_s,
                         lam_metrics **metrics);
/* Collective: rank 0 writes and prunes. */
lam_status lam_run_checkpoint(lam_trainer *trainer, lam_metrics *metrics);

#ifdef __cplusplus
}
#endif
#endif
