#include "eval/jobs.h"

#include <stdio.h>

#include "base/threads.h"

lam_status lam_jobs_run(lam_jobs *jobs, int64_t count, int64_t pieces, lam_job job, void *context) {
    int threads = lam_threads();
    int64_t at_once = count < threads ? count : threads, within = pieces < threads ? pieces : threads;
    lam_status result = LAM_OK;
    char message[512] = ""; /* of the job that failed first: messages are a thread's own */
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) if (at_once >= within)
    for (int64_t i = 0; i < count; i++) {
        lam_status status;
#pragma omp atomic read
        status = result;
        if (status != LAM_OK) continue;
        status = job(context, i);
#pragma omp critical(lam_jobs)
        {
            if (status != LAM_OK && result == LAM_OK) {
                snprintf(message, sizeof message, "%s", lam_last_error());
#pragma omp atomic write
                result = status;
            }
            lam_progress_update(jobs->progress, ++jobs->done, NULL);
        }
    }
    LAM_REQUIRE(result == LAM_OK, result, "%s", message);
    return LAM_OK;
}
