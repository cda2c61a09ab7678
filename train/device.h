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
#define LAM_AUTOTUNE_OPTION {"autotune", LAM_OPTION_FLAG, NULL, NULL, \
    "on a GPU: time the algorithms of each matrix product at the start and take the fastest", .required = false}

/* clang-format on */

typedef struct lam_device {
    const lam_backend *backend;
    bool autotune;
} lam_device;

/* local_rank: which GPU of the host. Asked for and not there: the error of lam_backend_open. */
lam_status lam_device_open(const lam_arguments *arguments, int local_rank, lam_device *device);
/* For commands with LAM_AUTOTUNE_OPTION; LAM_ERROR_USAGE where it is asked of the CPU. */
lam_status lam_device_open_to_train(const lam_arguments *arguments, int local_rank, lam_device *device);
/* "cpu, avx512, 2 threads" or "cuda, NVIDIA H200, CUDA 13.0". */
void lam_device_describe(const lam_backend *backend, char *text, size_t size);

#ifdef __cplusplus
}
#endif
#endif
