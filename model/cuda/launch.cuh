/* How a kernel is written so that one source runs on a GPU and, in the tests, on a CPU (tests/cuda_emulation):
 *
 *     template <typename T> __global__ void __launch_bounds__(256) scale(const T *x, T *y, int64_t count) {
 *         LAM_SHARED(float, tile, [8][33]);               // not initialised
 *         ...
 *     }
 *     LAM_LAUNCH((scale<T>), blocks, 256, 0, lam_cuda_stream(), x, y, count);
 *
 * Launches go through LAM_LAUNCH, shared memory through LAM_SHARED and LAM_DYNAMIC_SHARED, inline PTX through ptx.cuh.
 * A launch that fails is remembered by the kernel's name, and the node, copy or step that it belongs to returns the error. */
#ifndef LAMELLA_MODEL_CUDA_LAUNCH_CUH
#define LAMELLA_MODEL_CUDA_LAUNCH_CUH

#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <stdint.h>

#ifdef LAM_CUDA_EMULATION
#include "emulation.h" /* defines the three macros for the host */
#else
#define LAM_SHARED(type, name, dimensions) __shared__ type name dimensions
#define LAM_DYNAMIC_SHARED(type, name) extern __shared__ __align__(128) type name[]
#define LAM_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                                           \
    do {                                                                                                     \
        LAM_KERNEL_NAME(kernel)<<<(grid), (block), (shared_bytes), (stream)>>>(__VA_ARGS__);                 \
        lam_cuda_launched(cudaGetLastError(), #kernel);                                                      \
    } while (0)
#define LAM_KERNEL_NAME(kernel) LAM_WITHOUT_PARENTHESES kernel
#define LAM_WITHOUT_PARENTHESES(...) __VA_ARGS__
#endif

/* Keeps the first error until lam_cuda_take_error. */
void lam_cuda_launched(cudaError_t error, const char *what);
/* The stream that the kernels of the graph go to that is running or being captured. */
cudaStream_t lam_cuda_stream(void);

/* ---- storage types ---- */

__host__ __device__ __forceinline__ float lam_load(const float *p) { return *p; }
__host__ __device__ __forceinline__ float lam_load(const __nv_bfloat16 *p) { return __bfloat162float(*p); }
__host__ __device__ __forceinline__ void lam_store(float *p, float value) { *p = value; }
/* To the nearest, ties to even. */
__host__ __device__ __forceinline__ void lam_store(__nv_bfloat16 *p, float value) {
    *p = __float2bfloat16_rn(value);
}

/* Blocks of `each` that cover `count`. */
static inline int64_t lam_blocks(int64_t count, int64_t each) { return (count + each - 1) / each; }

#endif
