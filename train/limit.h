/* The speed of matrix products on this machine now, as the limit that a step is compared with. */
#ifndef LAMELLA_TRAIN_LIMIT_H
#define LAMELLA_TRAIN_LIMIT_H

#include <stdint.h>

#include "base/status.h"
#include "model/nets/mae.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Floating-point operations a second of the products of one training step of `batch` crops (encoder and decoder:
 * qkv, projection, the two of the MLP; forward, gradient of input, gradient of weights), each run for its share of
 * `seconds`, weighted by its count. */
lam_status lam_gemm_limit(const lam_mae_config *model, int64_t batch, double seconds, double *flops_per_s);

#ifdef __cplusplus
}
#endif
#endif
