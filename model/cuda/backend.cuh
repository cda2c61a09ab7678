/* What the files of this folder share: each fills its part of the tables of backend.cu. */
#ifndef LAMELLA_MODEL_CUDA_BACKEND_CUH
#define LAMELLA_MODEL_CUDA_BACKEND_CUH

#include "model/cuda/launch.cuh"
#include "model/internal.h"

/* Kernels with the contracts of model/cpu/kernels.h on device memory, float32 and bfloat16. */
typedef void lam_cuda_fill(lam_kernels *f32, lam_kernels *bf16);
lam_cuda_fill lam_cuda_fill_elementwise, lam_cuda_fill_norm, lam_cuda_fill_tokens, lam_cuda_fill_partial,
    lam_cuda_fill_channels, lam_cuda_fill_attention;

/* Operations whose host function on the CPU does more than call kernels; tables end with an entry without name. */
extern const lam_op_functions lam_cuda_linear_ops[], lam_cuda_patches_ops[], lam_cuda_mask_ops[], lam_cuda_loss_ops[],
    lam_cuda_fourier_ops[], lam_cuda_depth_ops[], lam_cuda_attention_ops[], lam_cuda_norm_ops[];

/* The step that the graph was told (lam_graph_set_step), in device memory: what is captured reads it there. */
const int64_t *lam_cuda_step(void);
/* Scratch of products on lam_cuda_stream(), device memory. */
void *lam_cuda_workspace(size_t *bytes);
const cudaDeviceProp *lam_cuda_properties(void);

/* Of lam_backend. */
lam_status lam_cuda_prepare(lam_node *const *nodes, int64_t count, bool recording);

/* c = op(a) op(b) + beta c, float32, row-major, m x n and inner dimension k, as lam_gemm_f32 (base/gemm.h) on device memory. */
lam_status lam_cuda_product_f32(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, const float *a,
                                int64_t lda, const float *b, int64_t ldb, float beta, float *c, int64_t ldc);

#endif
