/* Independent pieces of work over OpenMP's threads, with the first failure and its message brought back.
 *
 *     lam_jobs jobs = {.progress = lam_progress_start("probe", folds, "folds")};
 *     LAM_TRY(lam_jobs_run(&jobs, folds, pieces, fit_fold, &context));
 *
 * A job may itself work in parallel over fixed pieces of its data: then it runs on all threads where the jobs are run
 * one after another, and on one where the jobs fill the threads. Results must not depend on which. */
#ifndef LAMELLA_EVAL_JOBS_H
#define LAMELLA_EVAL_JOBS_H

#include <stdint.h>

#include "base/log.h"
#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lam_jobs {
    lam_progress *progress; /* NULL: none is shown */
    int64_t done;           /* jobs that ended, over all runs */
} lam_jobs;

typedef lam_status (*lam_job)(void *context, int64_t index);

/* job(context, 0 .. count - 1), in any order. `pieces`: how many threads one job can use; the wider of the two ways is
 * taken. After a failure no further job starts; its status comes back. */
lam_status lam_jobs_run(lam_jobs *jobs, int64_t count, int64_t pieces, lam_job job, void *context);

#ifdef __cplusplus
}
#endif
#endif
