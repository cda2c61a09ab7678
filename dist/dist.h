/* Who am I, and collectives on flat ranges of host memory. One rank without MPI's launcher is "self": MPI is initialised
 * only where a launcher is seen in the environment (mpirun, srun --mpi=pmix).
 *
 *     lam_dist *d;
 *     LAM_TRY(lam_dist_open(&d));
 *     LAM_TRY(lam_dist_start_sum_f32(d, gradients, count)); // in place, the same bits on every rank
 *     LAM_TRY(lam_dist_wait(d));
 *     LAM_TRY(lam_dist_agree(d, status));                  // every rank returns the worst status
 *     lam_dist_close(&d);
 *
 * Errors of MPI become LAM_ERROR_EXTERNAL. A watchdog names rank and collective where one waits longer than
 * LAMELLA_COLLECTIVE_TIMEOUT seconds (default 600) and ends the process. */
#ifndef LAMELLA_DIST_DIST_H
#define LAMELLA_DIST_DIST_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lam_dist lam_dist;

lam_status lam_dist_open(lam_dist **out);
void lam_dist_close(lam_dist **dist);
int lam_dist_rank(const lam_dist *dist);
int lam_dist_world_size(const lam_dist *dist);
const char *lam_dist_library(const lam_dist *dist); /* "self" or MPI's version line */

/* Starts a sum and returns; `values` belong to it until lam_dist_wait, which ends all that were started. Every rank starts
 * the same ranges in the same order, before and after other collectives as it likes. */
lam_status lam_dist_start_sum_f32(lam_dist *dist, float *values, int64_t count);
lam_status lam_dist_wait(lam_dist *dist);
lam_status lam_dist_sum_f64(lam_dist *dist, double *values, int64_t count);
lam_status lam_dist_max_i64(lam_dist *dist, int64_t *values, int64_t count);
lam_status lam_dist_broadcast(lam_dist *dist, void *bytes, size_t size, int root);
/* Rank r's part of `sizes[r]` bytes goes to rank 0's `all` (concatenated; NULL on other ranks). sizes known to all. */
lam_status lam_dist_gather(lam_dist *dist, const void *bytes, const int64_t *sizes, void *all);
lam_status lam_dist_barrier(lam_dist *dist);
/* Around a wait of another kind for other ranks, so that the watchdog sees it. */
void lam_dist_begin_wait(lam_dist *dist, const char *what);
void lam_dist_end_wait(lam_dist *dist);
/* Which of the ranks on this host, from 0 on. */
int lam_dist_local_rank(const lam_dist *dist);
/* Every rank gives its status and returns the first failing rank's (by rank), with its message. A rank never stays
 * behind in a collective because another failed. */
lam_status lam_dist_agree(lam_dist *dist, lam_status status);

#ifdef __cplusplus
}
#endif
#endif
