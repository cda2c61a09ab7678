/* What masked_loss and fourier_loss share: scales of target patches, and the loss of a batch from those of its samples. */
#ifndef LAMELLA_MODEL_CUDA_LOSS_CUH
#define LAMELLA_MODEL_CUDA_LOSS_CUH

#include "model/cuda/launch.cuh"

/* mean, rstd [rows] of the rows of target [rows, length]: lam_target_scales on the device. */
void lam_cuda_target_scales(const float *target, int64_t rows, int64_t length, float *mean, float *rstd);

/* sample_loss[b] = sum of errors[b, parts] / counts[b] (NULL: 1); loss = sum of weight[b] sample_loss[b], where a sample of
 * weight 0 does not count, whatever it has computed. mask [batch, parts]: counts[b] is the number of masked parts, at least 1;
 * NULL: 1. weighted: workspace [batch]. */
void lam_cuda_sum_losses(const double *errors, const float *mask, const float *weight, double *weighted,
                         float *sample_loss, float *loss, int64_t batch, int64_t parts);

#endif
