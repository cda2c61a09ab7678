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

enum { LAM_ZERO_THREADS = 256 };
const int64_t LAM_ZERO_BLOCKS = 264;

/* Each block counts the kept samples for itself. */
template <typename T, int V>
__global__ void __launch_bounds__(LAM_ZERO_THREADS)
    lam_zero_unplaced_kernel(T *to, const int32_t *place, int64_t samples, int64_t sample, int64_t count) {
    LAM_SHARED(int, partial, [32]);
    int kept = 0;
    for (int64_t b = threadIdx.x; b < samples; b += LAM_ZERO_THREADS) kept += place[b] >= 0;
    kept = lam_block_sum(kept, partial);
    const float zeros[V] = {0};
    for (int64_t i = kept * sample + ((int64_t)blockIdx.x * LAM_ZERO_THREADS + threadIdx.x) * V; i < count;
         i += (int64_t)gridDim.x * LAM_ZERO_THREADS * V)
        lam_pack<T, V>(zeros).write(to + i);
}

/* Zeros in the rows behind those of the placed samples, up to `rows`; place NULL or rows 0: there are none. */
template <typename T>
static inline void lam_zero_unplaced(T *to, const int32_t *place, int64_t rows, int64_t samples,
                                     int64_t tokens, int64_t width) {
    if (!place || rows < 1) return;
    constexpr int V = lam_vector<T>;
    int64_t blocks = lam_blocks(rows * width, LAM_ZERO_THREADS * V);
    unsigned grid = (unsigned)(blocks < LAM_ZERO_BLOCKS ? blocks : LAM_ZERO_BLOCKS);
    if (lam_fits<T>(width, to))
        LAM_LAUNCH((lam_zero_unplaced_kernel<T, V>), grid, LAM_ZERO_THREADS, 0, lam_cuda_stream(), to, place,
                   samples, tokens * width, rows * width);
    else
        LAM_LAUNCH((lam_zero_unplaced_kernel<T, 1>), grid, LAM_ZERO_THREADS, 0, lam_cuda_stream(), to, place,
                   samples, tokens * width, rows * width);
}

#endif
