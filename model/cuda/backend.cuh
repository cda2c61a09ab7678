/* What the files of this folder share: each fills its part of the tables of backend.cu. */
#ifndef LAMELLA_MODEL_CUDA_BACKEND_CUH
#define LAMELLA_MODEL_CUDA_BACKEND_CUH

#include "model/cuda/launch.cuh"
#include "model/internal.h"

/* Kernels with the contracts of model/cpu/kernels.h on device memory, float32 and bfloat16. */
typedef void lam_cuda_fill(lam_kernels *f32, lam_kernels *bf16);
lam_cuda_fill lam_cuda_fill_elementwise, lam_cuda_fill_norm, lam_cuda_fill_tokens, lam_cuda_fill_partial,
    lam_cuda_fill_channels, lam_cuda_fill_parallel, lam_cuda_fill_attention;

/* Operations whose host function on the CPU does more than call kernels; tables end with an entry without name. */
extern const lam_op_functions lam_cuda_linear_ops[], lam_cuda_patches_ops[], lam_cuda_mask_ops[], lam_cuda_loss_ops[],
    lam_cuda_fourier_ops[], lam_cuda_depth_ops[];

#endif
