/* Sums between devices, by NCCL, in the CUDA module (dist/nccl.cu): the module hands out this table, so that neither the
 * command nor dist/ is linked with NCCL. One communicator a process.
 *
 *     lam_nccl_id id;
 *     if (rank == 0) LAM_TRY(nccl->make_id(&id));
 *     LAM_TRY(lam_dist_broadcast(dist, &id, sizeof id, 0));
 *     LAM_TRY(nccl->open(&id, rank, world_size));
 *     LAM_TRY(nccl->start_sum_f32(gradients, count, stream)); // behind what the device was given so far, beside what it is given next
 *     LAM_TRY(nccl->wait(stream));                          // what is given from here on is done after the sums
 *     LAM_TRY(nccl->check());                               // LAM_ERROR_EXTERNAL where a rank or a link is gone
 *
 * The values are device memory; `stream` is the CUDA stream that the other work goes to (lam_backend_stream); the sums may be recorded (model/backend.h). Errors of NCCL are LAM_ERROR_EXTERNAL. */
#ifndef LAMELLA_DIST_NCCL_H
#define LAMELLA_DIST_NCCL_H

#include <stdint.h>

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lam_nccl_id {
    char bytes[128];
} lam_nccl_id;

typedef struct lam_nccl {
    lam_status (*make_id)(lam_nccl_id *id);
    lam_status (*open)(const lam_nccl_id *id, int rank, int world_size);
    void (*close)(void);
    /* In place, the same bits on every rank. */
    lam_status (*start_sum_f32)(float *values, int64_t count, void *stream);
    lam_status (*start_sum_f64)(double *values, int64_t count, void *stream);
    lam_status (*wait)(void *stream);
    lam_status (*check)(void);
    const char *(*library)(void); /* "NCCL 2.28.3" */
} lam_nccl;

typedef const lam_nccl *lam_nccl_table_function(void); /* the module exports it as lam_nccl_table */

#ifdef __cplusplus
}
#endif
#endif
