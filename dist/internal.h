/* What the two kinds of lam_dist share. */
#ifndef LAMELLA_DIST_INTERNAL_H
#define LAMELLA_DIST_INTERNAL_H

#include "dist/dist.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum lam_mpi_operation { LAM_MPI_SUM_F64, LAM_MPI_MAX_I64 } lam_mpi_operation;

lam_status lam_mpi_open(int *rank, int *world_size, int *local_rank, const char **library);
void lam_mpi_close(void);
lam_status lam_mpi_all_reduce(lam_mpi_operation operation, void *values, int64_t count);
lam_status lam_mpi_start_sum_f32(float *values, int64_t count);
lam_status lam_mpi_wait(void);
lam_status lam_mpi_broadcast(void *bytes, size_t size, int root);
lam_status lam_mpi_gather(int rank, int world_size, const void *bytes, const int64_t *sizes, void *all);
lam_status lam_mpi_barrier(void);

/* A thread that ends the process when one collective waits too long. */
lam_status lam_watchdog_start(int rank);
void lam_watchdog_stop(void);
void lam_watchdog_enter(const char *collective);
void lam_watchdog_leave(void);

#ifdef __cplusplus
}
#endif
#endif
