/* Sums over the threads of a warp and of a block: the same order, so the same bits, every run. */
#ifndef LAMELLA_MODEL_CUDA_SUMS_CUH
#define LAMELLA_MODEL_CUDA_SUMS_CUH

#include "model/cuda/launch.cuh"

#define LAM_WHOLE_WARP 0xffffffffu

/* Every lane gets the sum. */
template <typename V> __device__ __forceinline__ V lam_warp_sum(V value) {
    for (int offset = 16; offset > 0; offset /= 2) value += __shfl_xor_sync(LAM_WHOLE_WARP, value, offset);
    return value;
}

/* Every thread gets the sum. partial: shared memory of 32 values; blockDim.x is a multiple of 32. */
template <typename V> __device__ __forceinline__ V lam_block_sum(V value, V *partial) {
    value = lam_warp_sum(value);
    __syncthreads(); /* an earlier sum may still be read */
    if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = value;
    __syncthreads();
    V sum = partial[0];
    for (unsigned warp = 1; warp < blockDim.x / 32; warp++) sum += partial[warp];
    return sum;
}

#endif
