/* What follows a product where cuBLASLt does not fuse it: bias, GELU, its slope, sums of columns.
 *
 * All are bound by the bytes that they move. Blocks of 256 threads, no shared memory but for column_sums (1 KiB), at most 32
 * registers a thread, so that the memory's latency is covered by 2,048 threads a multiprocessor. Elementwise kernels move 16
 * bytes a thread and tensor where addresses allow, element by element where they do not.
 *
 * GELU: Hendrycks & Gimpel 2016; the tanh form by a sigmoid, 0.5 (1 + tanh u) = 1 / (1 + exp(-2 u)). */
#include "model/cuda/backend.cuh"
#include "model/cuda/products.h"

namespace {

constexpr int threads = 256;

template <typename T> struct __align__(16) packet { T element[16 / sizeof(T)]; };

bool is_aligned(const void *p) { return (uintptr_t)p % 16 == 0; }

/* ---- GELU ---- */

/* 1 / (1 + exp(-2 u)) and d(2 u)/dh, u = sqrt(2 / pi) (h + 0.044715 h^3). */
__device__ __forceinline__ float sigmoid_2u(float h, float *slope) {
    const float a = 1.5957691216057308f, b = 0.071354816f; /* 2 sqrt(2 / pi), 0.044715 of it */
    float square = h * h;
    *slope = a + 3.0f * b * square;
    return 1.0f / (1.0f + exp2f(-1.4426950408889634f * h * (a + b * square)));
}

__device__ __forceinline__ float gelu_of(float h, __nv_bfloat16) {
    float unused;
    return h * sigmoid_2u(h, &unused);
}
__device__ __forceinline__ float gelu_of(float h, float) {
    return 0.5f * h * (1.0f + erff(0.70710678118654752f * h));
}

/* s + h s (1 - s) d(2 u)/dh; the far ends, where s is 0 or 1, must not give infinity times 0. */
__device__ __forceinline__ float gelu_slope_of(float h, __nv_bfloat16) {
    float inner, s = sigmoid_2u(h, &inner);
    return fabsf(h) > 10.0f ? s : s + h * s * (1.0f - s) * inner;
}
__device__ __forceinline__ float gelu_slope_of(float h, float) {
    float cdf = 0.5f * (1.0f + erff(0.70710678118654752f * h));
    return cdf + h * 0.39894228040143268f * exp2f(-0.72134752044448170f * h * h);
}

template <typename T>
__global__ void __launch_bounds__(threads) gelu(const T *h, T *y, int64_t count, bool by_packets) {
    constexpr int width = 16 / sizeof(T);
    int64_t first = ((int64_t)blockIdx.x * threads + threadIdx.x) * width;
    if (by_packets && first + width <= count) {
        packet<T> from = *(const packet<T> *)(h + first), to;
#pragma unroll
        for (int i = 0; i < width; i++) lam_store(&to.element[i], gelu_of(lam_load(&from.element[i]), T()));
        *(packet<T> *)(y + first) = to;
        return;
    }
    for (int64_t i = first; i < first + width && i < count; i++)
        lam_store(y + i, gelu_of(lam_load(h + i), T()));
}

template <typename T>
__global__ void __launch_bounds__(threads) gelu_slope(const T *h, T *d, int64_t count, bool by_packets) {
    constexpr int width = 16 / sizeof(T);
    int64_t first = ((int64_t)blockIdx.x * threads + threadIdx.x) * width;
    if (by_packets && first + width <= count) {
        packet<T> by = *(const packet<T> *)(h + first), x = *(const packet<T> *)(d + first);
#pragma unroll
        for (int i = 0; i < width; i++)
            lam_store(&x.element[i], lam_load(&x.element[i]) * gelu_slope_of(lam_load(&by.element[i]), T()));
        *(packet<T> *)(d + first) = x;
        return;
    }
    for (int64_t i = first; i < first + width && i < count; i++)
        lam_store(d + i, lam_load(d + i) * gelu_slope_of(lam_load(h + i), T()));
}

unsigned blocks_of(int64_t count, lam_dtype type) {
    return (unsigned)lam_blocks(count, (int64_t)threads * (type == LAM_BF16 ? 8 : 4));
}

/* ---- bias ---- */

/* One row a block and grid row; the product is added to it then, so that the sum is rounded once, as it is when fused. */
template <typename T>
__global__ void __launch_bounds__(threads)
    fill_rows(const T *bias, T *c, int64_t rows, int64_t columns, int64_t ldc) {
    int64_t column = (int64_t)blockIdx.x * threads + threadIdx.x;
    if (column >= columns) return;
    T value = bias[column];
    for (int64_t row = blockIdx.y; row < rows; row += gridDim.y) c[row * ldc + column] = value;
}

/* ---- sums of columns ---- */

constexpr int lanes = 32, sum_rows = threads / lanes, most_parts = 64;

/* partial[part][column] = the sum over the part's rows; eight rows at a time, folded in the order of the rows' number modulo
 * 8. */
template <typename T>
__global__ void __launch_bounds__(threads)
    column_sums(const T *a, int64_t rows, int64_t columns, int64_t lda, int64_t rows_a_part, float *partial) {
    LAM_SHARED(float, fold, [sum_rows][lanes]);
    int lane = (int)threadIdx.x % lanes, group = (int)threadIdx.x / lanes;
    int64_t column = (int64_t)blockIdx.x * lanes + lane, first = (int64_t)blockIdx.y * rows_a_part,
            end = first + rows_a_part < rows ? first + rows_a_part : rows;
    float sum = 0;
    if (column < columns)
        for (int64_t row = first + group; row < end; row += sum_rows) sum += lam_load(a + row * lda + column);
    fold[group][lane] = sum;
    __syncthreads();
    if (group > 0 || column >= columns) return;
    sum = 0;
    for (int i = 0; i < sum_rows; i++) sum += fold[i][lane];
    partial[(int64_t)blockIdx.y * columns + column] = sum;
}

__global__ void __launch_bounds__(threads)
    fold_sums(const float *partial, int64_t parts, int64_t columns, float *sums, bool add) {
    int64_t column = (int64_t)blockIdx.x * threads + threadIdx.x;
    if (column >= columns) return;
    float sum = 0;
    for (int64_t part = 0; part < parts; part++) sum += partial[part * columns + column];
    sums[column] = add ? sums[column] + sum : sum;
}

} // namespace

void lam_cuda_gelu(const void *h, void *y, int64_t count, lam_dtype type) {
    if (count < 1) return;
    bool by_packets = is_aligned(h) && is_aligned(y);
    if (type == LAM_BF16)
        LAM_LAUNCH((gelu<__nv_bfloat16>), blocks_of(count, type), threads, 0, lam_cuda_stream(),
                   (const __nv_bfloat16 *)h, (__nv_bfloat16 *)y, count, by_packets);
    else
        LAM_LAUNCH((gelu<float>), blocks_of(count, type), threads, 0, lam_cuda_stream(), (const float *)h,
                   (float *)y, count, by_packets);
}

void lam_cuda_gelu_slope(const void *h, void *d, int64_t count, lam_dtype type) {
    if (count < 1) return;
    bool by_packets = is_aligned(h) && is_aligned(d);
    if (type == LAM_BF16)
        LAM_LAUNCH((gelu_slope<__nv_bfloat16>), blocks_of(count, type), threads, 0, lam_cuda_stream(),
                   (const __nv_bfloat16 *)h, (__nv_bfloat16 *)d, count, by_packets);
    else
        LAM_LAUNCH((gelu_slope<float>), blocks_of(count, type), threads, 0, lam_cuda_stream(),
                   (const float *)h, (float *)d, count, by_packets);
}

void lam_cuda_fill_rows(const void *bias, void *c, int64_t rows, int64_t columns, int64_t ldc,
                        lam_dtype type) {
    if (rows < 1 || columns < 1) return;
    dim3 grid((unsigned)lam_blocks(columns, threads), (unsigned)(rows < 4096 ? rows : 4096));
    if (type == LAM_BF16)
        LAM_LAUNCH((fill_rows<__nv_bfloat16>), grid, threads, 0, lam_cuda_stream(),
                   (const __nv_bfloat16 *)bias, (__nv_bfloat16 *)c, rows, columns, ldc);
    else
        LAM_LAUNCH((fill_rows<float>), grid, threads, 0, lam_cuda_stream(), (const float *)bias, (float *)c,
                   rows, columns, ldc);
}

void lam_cuda_fold_sums(const float *partial, int64_t parts, int64_t columns, float *sums, bool add) {
    LAM_LAUNCH((fold_sums), (unsigned)lam_blocks(columns, threads), threads, 0, lam_cuda_stream(), partial,
               parts, columns, sums, add);
}

void lam_cuda_column_sums(const void *a, int64_t rows, int64_t columns, int64_t lda, float *sums, bool add,
                          lam_dtype type) {
    size_t bytes;
    float *partial = (float *)lam_cuda_workspace(&bytes); /* between two products, of nobody else */
    int64_t parts = lam_blocks(rows, 64), room = (int64_t)(bytes / sizeof(float)) / columns;
    parts = parts > most_parts ? most_parts : parts;
    parts = parts > room ? room : parts;
    if (parts > 0) {
        int64_t rows_a_part = lam_blocks(rows, parts);
        dim3 grid((unsigned)lam_blocks(columns, lanes), (unsigned)parts);
        if (type == LAM_BF16)
            LAM_LAUNCH((column_sums<__nv_bfloat16>), grid, threads, 0, lam_cuda_stream(),
                       (const __nv_bfloat16 *)a, rows, columns, lda, rows_a_part, partial);
        else
            LAM_LAUNCH((column_sums<float>), grid, threads, 0, lam_cuda_stream(), (const float *)a, rows,
                       columns, lda, rows_a_part, partial);
    }
    lam_cuda_fold_sums(partial, parts, columns, sums, add);
}
