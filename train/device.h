/* --device of the commands that compute with a network. Without it: cuda where a GPU can be used, else the CPU; what is taken is
 * said by the command. */
#ifndef LAMELLA_TRAIN_DEVICE_H
#define LAMELLA_TRAIN_DEVICE_H

#include "base/cli.h"
#include "model/backend.h"

#ifdef __cplusplus
extern "C" {
#endif

/* clang-format off */
#define LAM_DEVICE_OPTION {"device", LAM_OPTION_CHOICE, "cpu|cuda", NULL, \
    "where to compute; without it cuda where a GPU can be used", .required = false}
/* clang-format on */

/* local_rank: which GPU of the host. Asked for and not there: the error of lam_backend_open. */
lam_status lam_device_open(const lam_arguments *arguments, int local_rank, const lam_backend **backend);
/* "cpu, avx512, 2 threads" or "cuda, NVIDIA H200, CUDA 13.0". */
void lam_device_describe(const lam_backend *backend, char *text, size_t size);

#ifdef __cplusplus
}
#endif
#endif
