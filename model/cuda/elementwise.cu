/* GELU, sums and products of elements, bias, branches of kept samples: the CUDA versions of model/cpu/elementwise.inc.h.
 *
 * Bound by bytes: gelu 2 a element and storage byte (read x, write y), gelu_slope 3, multiply, accumulate and add 3,
 * add_bias 2, depth_add 3, its gradient 2. GELU takes about 40 instructions an element, which bfloat16 on the fastest memory just hides.
 * A thread takes 16 bytes, or a warp a row; blocks of 256 threads, no shared memory, at most 48 registers.
 *
 * The normal distribution function is the approximation of model/cpu/elementary.inc.h, so that both backends err alike. */
#include <type_traits>

#include "model/cuda/elementary.cuh"
#include "model/cuda/placed.cuh"
#include "model/cuda/vector.cuh"

namespace {

enum { THREADS = 256 };

/* Elements from `first` on, V of them or, in the last thread, what is left: f(i) for each start of a vector of `Width`. */
template <typename T, int V, typename F> __device__ __forceinline__ void each_vector(int64_t count, F f) {
    int64_t first = ((int64_t)blockIdx.x * THREADS + threadIdx.x) * V;
    if (first + V <= count)
        f(first, std::integral_constant<int, V>());
    else
        for (int64_t i = first; i < count; i++) f(i, std::integral_constant<int, 1>());
}

template <typename T, int V>
__global__ void __launch_bounds__(THREADS) gelu_kernel(const T *x, T *y, int64_t count) {
    each_vector<T, V>(count, [=](int64_t i, auto width) {
        constexpr int N = decltype(width)::value;
        float value[N], unused;
        lam_read<T, N>(x + i).unpack(value);
#pragma unroll
        for (int k = 0; k < N; k++) value[k] *= lam_normal_cdf(value[k], &unused);
        lam_pack<T, N>(value).write(y + i);
    });
}

template <typename T, int V>
__global__ void __launch_bounds__(THREADS) gelu_slope_kernel(T *x, T *y, int64_t count) {
    each_vector<T, V>(count, [=](int64_t i, auto width) {
        constexpr int N = decltype(width)::value;
        float value[N], slope[N];
        lam_read<T, N>(x + i).unpack(value);
#pragma unroll
        for (int k = 0; k < N; k++) value[k] = lam_gelu(value[k], &slope[k]);
        lam_pack<T, N>(value).write(y + i);
        lam_pack<T, N>(slope).write(x + i);
    });
}

/* out = a * b, or a + b; out may be a. */
template <typename T, int V, bool PRODUCT>
__global__ void __launch_bounds__(THREADS) combine(const T *a, const T *b, T *out, int64_t count) {
    each_vector<T, V>(count, [=](int64_t i, auto width) {
        constexpr int N = decltype(width)::value;
        float value[N], other[N];
        lam_read<T, N>(a + i).unpack(value);
        lam_read<T, N>(b + i).unpack(other);
#pragma unroll
        for (int k = 0; k < N; k++) value[k] = PRODUCT ? value[k] * other[k] : value[k] + other[k];
        lam_pack<T, N>(value).write(out + i);
    });
}

template <typename T, int V>
__global__ void __launch_bounds__(LAM_ROW_THREADS, 4)
    add_bias_kernel(T *y, const float *bias, int64_t rows, int64_t width, int64_t stride) {
    int64_t row = lam_row_of_warp();
    if (row >= rows) return;
    for (int64_t i = threadIdx.x % 32 * V; i < width; i += 32 * V) {
        T *at = y + row * stride + i;
        float value[V], more[V];
        lam_read<T, V>(at).unpack(value);
        lam_read_floats<V>(bias + i, more);
#pragma unroll
        for (int k = 0; k < V; k++) value[k] += more[k];
        lam_pack<T, V>(value).write(at);
    }
}

template <int V> unsigned blocks_of(int64_t count) { return (unsigned)lam_blocks(count, THREADS * V); }

template <typename T> void gelu(const void *x, void *y, int64_t count) {
    if (count < 1) return;
    lam_with_vectors<T>(lam_fits<T>(0, x, y), [&](auto V) {
        LAM_LAUNCH((gelu_kernel<T, V>), blocks_of<V>(count), THREADS, 0, lam_cuda_stream(), (const T *)x,
                   (T *)y, count);
    });
}

template <typename T> void gelu_slope(void *x, void *y, int64_t count) {
    if (count < 1) return;
    lam_with_vectors<T>(lam_fits<T>(0, x, y), [&](auto V) {
        LAM_LAUNCH((gelu_slope_kernel<T, V>), blocks_of<V>(count), THREADS, 0, lam_cuda_stream(), (T *)x,
                   (T *)y, count);
    });
}

template <typename T, bool PRODUCT> void combined(const void *a, const void *b, void *out, int64_t count) {
    if (count < 1) return;
    lam_with_vectors<T>(lam_fits<T>(0, a, b, out), [&](auto V) {
        LAM_LAUNCH((combine<T, V, PRODUCT>), blocks_of<V>(count), THREADS, 0, lam_cuda_stream(), (const T *)a,
                   (const T *)b, (T *)out, count);
    });
}
template <typename T> void multiply(const void *by, void *x, int64_t count) {
    combined<T, true>(x, by, x, count);
}
template <typename T> void accumulate(void *to, const void *from, int64_t count) {
    combined<T, false>(to, from, to, count);
}
template <typename T> void add(const void *a, const void *b, void *sum, int64_t count) {
    combined<T, false>(a, b, sum, count);
}

template <typename T> void add_bias(void *y, const float *bias, int64_t rows, int64_t width, int64_t stride) {
    if (rows < 1 || width < 1) return;
    lam_with_vectors<T>(lam_fits<T>(width, y, bias) && stride % lam_vector<T> == 0, [&](auto V) {
        LAM_LAUNCH((add_bias_kernel<T, V>), lam_row_blocks(rows), LAM_ROW_THREADS, 0, lam_cuda_stream(),
                   (T *)y, bias, rows, width, stride);
    });
}

/* ---- stochastic depth ---- */

template <typename T, int V>
__global__ void __launch_bounds__(LAM_ROW_THREADS, 4)
    depth_add_kernel(const T *x, const T *r, T *sum, int64_t rows, int64_t width,
                     const lam_sample_places places) {
    int64_t row = lam_row_of_warp();
    if (row >= rows) return;
    int64_t r_row = lam_place_of_row(places.r, places.tokens, row);
    float scale = lam_scale_of(places);
    for (int64_t i = threadIdx.x % 32 * V; i < width; i += 32 * V) {
        lam_raw<T, V> raw = lam_read<T, V>(x + row * width + i);
        if (r_row >= 0) raw = lam_scaled_sum<T, V>(raw, lam_read<T, V>(r + r_row * width + i), scale);
        raw.write(sum + row * width + i);
    }
}

template <typename T, int V>
__global__ void __launch_bounds__(LAM_ROW_THREADS, 4)
    depth_add_backward_kernel(const T *d, T *dr, bool add, int64_t rows, int64_t width,
                              const lam_sample_places places, const lam_zero_tail tail) {
    LAM_SHARED(int, partial, [32]);
    if (blockIdx.x < tail.blocks) return lam_write_zeros<T, V>(tail, dr, partial);
    int64_t row = lam_row_of_warp(tail.blocks);
    if (row >= rows) return;
    int64_t r_row = lam_place_of_row(places.r, places.tokens, row);
    if (r_row < 0) return;
    float scale = lam_scale_of(places);
    for (int64_t i = threadIdx.x % 32 * V; i < width; i += 32 * V) {
        float value[V];
        lam_read<T, V>(d + row * width + i).unpack(value);
#pragma unroll
        for (int k = 0; k < V; k++) value[k] *= scale;
        lam_write_or_add<T, V>(dr + r_row * width + i, value, add);
    }
}

template <typename T>
void depth_add(const void *x, const void *r, void *sum, int64_t rows, int64_t width,
               const lam_sample_places *places) {
    if (rows < 1) return;
    lam_with_vectors<T>(lam_fits<T>(width, x, r, sum), [&](auto V) {
        LAM_LAUNCH((depth_add_kernel<T, V>), lam_row_blocks(rows), LAM_ROW_THREADS, 0, lam_cuda_stream(),
                   (const T *)x, (const T *)r, (T *)sum, rows, width, *places);
    });
}

template <typename T>
void depth_add_backward(const void *d, void *dr, bool add, int64_t rows, int64_t width,
                        const lam_sample_places *places) {
    if (rows < 1) return;
    lam_zero_tail tail = {};
    if (!add)
        tail = lam_zeros_behind(places->r, places->r_rows, rows / places->tokens, places->tokens, width);
    unsigned blocks = tail.blocks + lam_row_blocks(rows);
    lam_with_vectors<T>(lam_fits<T>(width, d, dr), [&](auto V) {
        LAM_LAUNCH((depth_add_backward_kernel<T, V>), blocks, LAM_ROW_THREADS, 0, lam_cuda_stream(),
                   (const T *)d, (T *)dr, add, rows, width, *places, tail);
    });
}

template <typename T> void fill(lam_kernels *table) {
    table->gelu = gelu<T>;
    table->gelu_slope = gelu_slope<T>;
    table->multiply = multiply<T>;
    table->accumulate = accumulate<T>;
    table->add = add<T>;
    table->add_bias = add_bias<T>;
    table->depth_add = depth_add<T>;
    table->depth_add_backward = depth_add_backward<T>;
}

} // namespace

void lam_cuda_fill_elementwise(lam_kernels *f32, lam_kernels *bf16) {
    fill<float>(f32);
    fill<__nv_bfloat16>(bf16);
}
