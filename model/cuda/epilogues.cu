/* What follows or goes before a product where cuBLASLt does not fuse it: bias, GELU, its slope, sums of columns.
 *
 * All are bound by the bytes that they move; the slope's 20 instructions an element take half of the time of its bytes on an
 * H200. Blocks of 256 threads that move 16 bytes a thread, tensor and access where addresses allow, element by element where they
 * do not.
 *
 * Sums of columns: a thread has 16 bytes of every 16th row of its block's part, 6 rows at once (2 where the slope has two
 * tensors to read), so that four blocks of a multiprocessor have 64 KiB and more under way; a grid of one such wave. 8 KiB of
 * shared memory; registers: at most 64. cuBLASLt's own sums (BGRADB, DGELU_BGRAD) are kernels of their own on Hopper too, at
 * half of that speed.
 *
 * GELU: Hendrycks & Gimpel 2016; the tanh form by a sigmoid, 0.5 (1 + tanh u) = 1 / (1 + exp(-2 u)). */
#include "model/cuda/products.h"
#include "model/cuda/ptx.cuh"
#include "model/cuda/vector.cuh"

namespace {

constexpr int threads = 256;

/* ---- GELU ---- */

/* 2 u = h (a + b h^2), u = sqrt(2 / pi) (h + 0.044715 h^3) */
constexpr float gelu_a = 1.5957691216057308f, gelu_b = 0.071354816f, minus_log2_e = -1.4426950408889634f;

/* 1 / (1 + exp(-2 u)) */
__device__ __forceinline__ float sigmoid_2u(float h, float square) {
    return lam_reciprocal(1.0f + lam_exp2(h * fmaf(minus_log2_e * gelu_b, square, minus_log2_e * gelu_a)));
}

__device__ __forceinline__ float gelu_of(float h, __nv_bfloat16) { return h * sigmoid_2u(h, h * h); }
__device__ __forceinline__ float gelu_of(float h, float) {
    return 0.5f * h * (1.0f + erff(0.70710678118654752f * h));
}

/* s + h s (1 - s) d(2 u)/dh; the far ends, where s is 0 or 1, must not give infinity times 0: beyond 10 it is what it is
 * there. */
__device__ __forceinline__ float gelu_slope_of(float h, __nv_bfloat16) {
    h = lam_smaller(lam_larger(h, -10.0f), 10.0f);
    float square = h * h, s = sigmoid_2u(h, square), inner = fmaf(3.0f * gelu_b, square, gelu_a);
    return fmaf(h * s * (1.0f - s), inner, s);
}
__device__ __forceinline__ float gelu_slope_of(float h, float) {
    float cdf = 0.5f * (1.0f + erff(0.70710678118654752f * h));
    return cdf + h * 0.39894228040143268f * exp2f(-0.72134752044448170f * h * h);
}

template <typename T, int V>
__global__ void __launch_bounds__(threads) gelu(const T *h, T *y, int64_t count) {
    int64_t first = ((int64_t)blockIdx.x * threads + threadIdx.x) * V;
    if (first >= count) return;
    float value[V];
    lam_read<T, V>(h + first).unpack(value);
#pragma unroll
    for (int i = 0; i < V; i++) value[i] = gelu_of(value[i], T());
    lam_pack<T, V>(value).write(y + first);
}

template <typename T> void launch_gelu(const T *h, T *y, int64_t count) {
    lam_with_vectors<T>(lam_fits<T>(count, h, y), [&](auto V) {
        LAM_LAUNCH((gelu<T, V>), (unsigned)lam_blocks(count, threads * V), threads, 0, lam_cuda_stream(), h,
                   y, count);
    });
}

/* ---- bias ---- */

/* One row a block and grid row; the product is added to it then, so that the sum is rounded once, as it is when fused (twice
 * where there is an addend: an operand that cuBLASLt has no kernel for is too rare to keep it apart). */
template <typename T>
__global__ void __launch_bounds__(threads)
    fill_rows(const T *bias, const T *addend, T *c, int64_t rows, int64_t columns, int64_t ldc) {
    int64_t column = (int64_t)blockIdx.x * threads + threadIdx.x;
    if (column >= columns) return;
    float value = lam_load(bias + column);
    for (int64_t row = blockIdx.y; row < rows; row += gridDim.y)
        lam_store(c + row * ldc + column, addend ? lam_load(addend + row * ldc + column) + value : value);
}

/* ---- sums of columns ---- */

constexpr int least_rows = 64, resident = 4; /* of a part; blocks a multiprocessor */

/* A block has `lanes` vectors of columns, and `groups` rows at a time. */
template <int V> constexpr int lanes = V > 1 ? 16 : 64;
template <int V> constexpr int groups = threads / lanes<V>;

/* partial[part][column] = the sum over the part's rows: of every group's rows in turn, then of the groups. With SLOPE a becomes
 * a gelu'(h) first, and the sums are those of what is stored. */
template <typename T, int V, bool SLOPE>
__global__ void __launch_bounds__(threads, resident)
    column_sums(const T *h, T *a, int64_t rows, int64_t columns, int64_t lda, int64_t rows_a_part,
                float *partial) {
    constexpr int at_once = SLOPE ? 2 : 6;
    LAM_SHARED(float, fold, [groups<V>][lanes<V> * V]);
    int lane = (int)threadIdx.x % lanes<V>, group = (int)threadIdx.x / lanes<V>;
    int64_t column = ((int64_t)blockIdx.x * lanes<V> + lane) * V, first = (int64_t)blockIdx.y * rows_a_part,
            end = first + rows_a_part < rows ? first + rows_a_part : rows;
    float sum[V] = {0};
    const int64_t step = groups<V> * lda, start = (first + group) * lda + column;
    T *at = a + start;
    const T *by = h + (SLOPE ? start : 0);
    int32_t left = column < columns ? (int32_t)(end - first) - group : 0; /* rows from this one on */
    for (; left > 0; left -= groups<V> * at_once, at += at_once * step, by += at_once * step) {
        lam_raw<T, V> raw[at_once] = {}, inner[SLOPE ? at_once : 1] = {};
#pragma unroll
        for (int k = 0; k < at_once; k++) {
            if (k * groups<V> >= left) continue;
            raw[k] = lam_read<T, V>(at + k * step);
            if constexpr (SLOPE) inner[k] = lam_read<T, V>(by + k * step);
        }
#pragma unroll
        for (int k = 0; k < at_once; k++) {
            float value[V];
            raw[k].unpack(value);
            if constexpr (SLOPE) {
                float slope[V];
                inner[k].unpack(slope);
#pragma unroll
                for (int i = 0; i < V; i++) value[i] *= gelu_slope_of(slope[i], T());
                raw[k] = lam_pack<T, V>(value);
                if (k * groups<V> < left) raw[k].write(at + k * step);
                raw[k].unpack(value);
            }
#pragma unroll
            for (int i = 0; i < V; i++) sum[i] += value[i]; /* zeros behind the part */
        }
    }
#pragma unroll
    for (int i = 0; i < V; i++) fold[group][lane * V + i] = sum[i];
    __syncthreads();
    column = (int64_t)blockIdx.x * lanes<V> * V + threadIdx.x;
    if (threadIdx.x >= lanes<V> * V || column >= columns) return;
    float all = 0;
#pragma unroll
    for (int i = 0; i < groups<V>; i++) all += fold[i][threadIdx.x];
    partial[(int64_t)blockIdx.y * columns + column] = all;
}

enum { TABLES = 2 };
struct partial_tables {
    lam_cuda_partials table[TABLES];
};

/* 32 columns a block, a table a row of blocks. */
__global__ void __launch_bounds__(32 * LAM_SUM_WARPS) fold_sums(const partial_tables tables) {
    LAM_SHARED(float, fold, [LAM_SUM_WARPS * 32]);
    const lam_cuda_partials &t = tables.table[blockIdx.y];
    int64_t column = (int64_t)blockIdx.x * 32 + threadIdx.x % 32;
    float sum = lam_sum_of_rows(t.from + column, t.rows, t.columns, column < t.columns, fold);
    if (threadIdx.x >= 32 || column >= t.columns) return;
    column += t.first;
    for (int k = 0; k < LAM_CUDA_SUMS && column >= 0; column -= t.sums.columns[k++])
        if (column < t.sums.columns[k] && t.sums.to[k])
            t.sums.to[k][column] = t.sums.add[k] ? t.sums.to[k][column] + sum : sum;
}

bool is_wanted(const lam_cuda_sums &sums) {
    bool any = false;
    for (int k = 0; k < LAM_CUDA_SUMS; k++) any |= sums.to[k] && sums.columns[k] > 0;
    return any;
}

} // namespace

void lam_cuda_fold_partials(const lam_cuda_partials *tables, int count) {
    partial_tables all = {};
    int64_t columns = 0;
    for (int k = 0; k < count; k++) {
        all.table[k] = tables[k];
        columns = tables[k].columns > columns ? tables[k].columns : columns;
    }
    if (columns < 1) return;
    LAM_LAUNCH((fold_sums), dim3((unsigned)lam_blocks(columns, 32), (unsigned)count), 32 * LAM_SUM_WARPS, 0,
               lam_cuda_stream(), all);
}

void lam_cuda_fold_sums(const float *partial, int64_t parts, int64_t columns, const lam_cuda_sums *sums) {
    const lam_cuda_partials table = {partial, parts, columns, 0, *sums};
    lam_cuda_fold_partials(&table, 1);
}

namespace {

template <typename T, int V, bool SLOPE>
void launch_sums(const T *h, T *a, int64_t rows, int64_t columns, int64_t lda, const lam_cuda_sums &sums) {
    size_t bytes;
    float *partial = (float *)lam_cuda_workspace(&bytes); /* between two products, of nobody else */
    int64_t tiles = lam_blocks(columns, lanes<V> * V), room = (int64_t)(bytes / sizeof(float)) / columns,
            parts = lam_cuda_properties()->multiProcessorCount * resident / tiles;
    parts = parts < lam_blocks(rows, least_rows) ? parts : lam_blocks(rows, least_rows);
    parts = parts < room ? parts : room;
    parts = parts > 1 || rows < 1 ? parts : 1;
    if (parts > 0)
        LAM_LAUNCH((column_sums<T, V, SLOPE>), dim3((unsigned)tiles, (unsigned)parts), threads, 0,
                   lam_cuda_stream(), h, a, rows, columns, lda, lam_blocks(rows, parts), partial);
    if (is_wanted(sums)) lam_cuda_fold_sums(partial, parts, columns, &sums);
}

/* h NULL: no slope. */
template <typename T>
void sum_columns(const void *h, void *a, int64_t rows, int64_t columns, int64_t lda,
                 const lam_cuda_sums &sums) {
    const T *inner = (const T *)h;
    T *outer = (T *)a;
    lam_with_vectors<T>(columns % lam_vector<T> == 0 && lam_fits<T>(lda, inner, outer), [&](auto V) {
        h ? launch_sums<T, V, true>(inner, outer, rows, columns, lda, sums)
          : launch_sums<T, V, false>(inner, outer, rows, columns, lda, sums);
    });
}

} // namespace

void lam_cuda_gelu(const void *h, void *y, int64_t count, lam_dtype type) {
    if (count < 1) return;
    if (type == LAM_BF16)
        launch_gelu((const __nv_bfloat16 *)h, (__nv_bfloat16 *)y, count);
    else
        launch_gelu((const float *)h, (float *)y, count);
}

void lam_cuda_fill_rows(const void *bias, const void *addend, void *c, int64_t rows, int64_t columns, int64_t ldc,
                        lam_dtype type) {
    if (rows < 1 || columns < 1) return;
    dim3 grid((unsigned)lam_blocks(columns, threads), (unsigned)(rows < 4096 ? rows : 4096));
    if (type == LAM_BF16)
        LAM_LAUNCH((fill_rows<__nv_bfloat16>), grid, threads, 0, lam_cuda_stream(),
                   (const __nv_bfloat16 *)bias, (const __nv_bfloat16 *)addend, (__nv_bfloat16 *)c, rows, columns, ldc);
    else
        LAM_LAUNCH((fill_rows<float>), grid, threads, 0, lam_cuda_stream(), (const float *)bias,
                   (const float *)addend, (float *)c, rows, columns, ldc);
}

void lam_cuda_gelu_slope(const void *h, void *d, int64_t rows, int64_t columns, const lam_cuda_sums *sums,
                         lam_dtype type) {
    if (rows < 1 && !is_wanted(*sums)) return;
    if (type == LAM_BF16)
        sum_columns<__nv_bfloat16>(h, d, rows, columns, columns, *sums);
    else
        sum_columns<float>(h, d, rows, columns, columns, *sums);
}

void lam_cuda_column_sums(const void *a, int64_t rows, int64_t columns, int64_t lda,
                          const lam_cuda_sums *sums, lam_dtype type) {
    if (!is_wanted(*sums)) return;
    if (type == LAM_BF16)
        sum_columns<__nv_bfloat16>(NULL, const_cast<void *>(a), rows, columns, lda, *sums);
    else
        sum_columns<float>(NULL, const_cast<void *>(a), rows, columns, lda, *sums);
}
