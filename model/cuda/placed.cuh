/* Stochastic depth: rows of samples that a tensor holds only in part (lam_sample_places, model/cpu/kernels.h). */
#ifndef LAMELLA_MODEL_CUDA_PLACED_CUH
#define LAMELLA_MODEL_CUDA_PLACED_CUH

#include "model/cuda/vector.cuh"

/* lam_placed_row on the device. */
__device__ __forceinline__ int64_t lam_place_of_row(const int32_t *place, int64_t tokens, int64_t row) {
    if (!place) return row;
    int64_t sample = lam_quotient(row, tokens);
    int32_t at = place[sample];
    return at < 0 ? -1 : at * tokens + (row - sample * tokens);
}

__device__ __forceinline__ float lam_scale_of(const lam_sample_places &places) {
    return places.r_scale ? *places.r_scale : 1.0f;
}

/* x + scale r, rounded as it is stored. */
template <typename T, int V>
__device__ __forceinline__ lam_raw<T, V> lam_scaled_sum(lam_raw<T, V> x, lam_raw<T, V> r, float scale) {
    float value[V], other[V];
    x.unpack(value);
    r.unpack(other);
#pragma unroll
    for (int k = 0; k < V; k++) value[k] = fmaf(scale, other[k], value[k]);
    return lam_pack<T, V>(value);
}

/* Zeros behind the rows of the placed samples: the first `blocks` blocks of a kernel write them, and its other blocks are counted
 * from there. */
struct lam_zero_tail {
    const int32_t *place;
    int64_t samples, sample, count; /* elements of a sample and of the tensor */
    unsigned blocks;
};

/* Of a tensor of `rows` rows; place NULL or rows 0: none. */
static inline lam_zero_tail lam_zeros_behind(const int32_t *place, int64_t rows, int64_t samples,
                                             int64_t tokens, int64_t width) {
    const int64_t most = 64, elements = 8192; /* blocks; what is worth one */
    if (!place || rows < 1) return lam_zero_tail{};
    int64_t blocks = lam_blocks(rows * width, elements);
    return lam_zero_tail{place, samples, tokens * width, rows * width,
                         (unsigned)(blocks < most ? blocks : most)};
}

/* By one of those blocks, which counts the samples for itself. partial: shared memory of 32 values. */
template <typename T, int V>
__device__ __forceinline__ void lam_write_zeros(const lam_zero_tail &tail, T *to, int *partial) {
    int kept = 0;
    for (int64_t b = threadIdx.x; b < tail.samples; b += blockDim.x) kept += tail.place[b] >= 0;
    kept = lam_block_sum(kept, partial);
    const float zeros[V] = {0};
    for (int64_t i = kept * tail.sample + ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * V;
         i < tail.count; i += (int64_t)tail.blocks * blockDim.x * V)
        lam_pack<T, V>(zeros).write(to + i);
}

#endif
