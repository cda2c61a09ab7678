/* LayerNorm with the addition before it, and its gradient: the CUDA versions of model/cpu/norm.inc.h.
 *
 * Bound by bytes, each read or written once: forward x, y, with an addition r and s too (2 or 4 an element and storage byte);
 * backward s, dy, ds, dx, with an addition dr too (4 or 5; 3 where nothing else has given s a gradient), and two or three rows of
 * float32 partial sums for each block of rows.
 *
 * Forward: a warp a row, 4 rows a block, the row in registers: up to 64 floats a lane, so widths to 2,048, odd ones to 512; 128
 * registers, for float32 rows over 1,024 at most 168 registers. Mean first, then squares about it: no cancellation (Chan, Golub & LeVeque
 * 1983). Wider rows: a block of 256 threads a row, which is read again from the caches; at most 128 registers.
 * Backward: a block takes rounds of rows, ROWS for each group of threads that has all columns of a row, 16 bytes a thread, and
 * the sums of its columns in registers; ROWS rows at once pay one barrier. As many groups as 256 threads make, two blocks a
 * multiprocessor: 72 KiB of loads under way, of which half would do. The grid is one such wave, and the rounds are dealt out in
 * turn, so that all end together. Up to 256 threads and 128 registers, or 1,024 and 64; 33 KiB of shared memory. Beyond the
 * columns of 1,024 threads a loop, with the column sums in memory. */
#include "model/cuda/placed.cuh"
#include "model/cuda/products.h"
#include "model/cuda/vector.cuh"

namespace {

enum { FORWARD_WARPS = 4, WIDE_THREADS = 256, BACKWARD_ROWS = 3 };

template <typename T> struct forward_pass {
    const T *x, *r;
    const float *w, *b;
    T *s, *y;
    float *mean, *rstd;
    int64_t rows, width;
    float eps;
    lam_sample_places places;
    lam_zero_tail tail; /* of y */
};

/* The one formula of the output, so that what is computed again has the same bits. */
__device__ __forceinline__ float normalised(float value, float mean, float rstd, float w, float b) {
    return fmaf((value - mean) * rstd, w, b);
}

/* N vectors a lane. */
template <typename T, int V, int N>
__global__ void __launch_bounds__(32 * FORWARD_WARPS, N *V > 32 ? 3 : 4)
    layernorm_rows(const forward_pass<T> n) {
    LAM_SHARED(int, partial, [32]);
    if (blockIdx.x < n.tail.blocks) return lam_write_zeros<T, V>(n.tail, n.y, partial);
    int lane = (int)threadIdx.x % 32;
    int64_t row = (int64_t)(blockIdx.x - n.tail.blocks) * FORWARD_WARPS + threadIdx.x / 32, width = n.width;
    if (row >= n.rows) return;
    lam_raw<T, V> raw[N] = {};
#pragma unroll
    for (int k = 0; k < N; k++) {
        int64_t i = (k * 32 + lane) * V;
        if (i < width) raw[k] = lam_read<T, V>(n.x + row * width + i);
    }
    if (n.r) {
        int64_t r_row = lam_place_of_row(n.places.r, n.places.tokens, row);
        if (r_row >= 0) {
            lam_raw<T, V> other[N] = {};
#pragma unroll
            for (int k = 0; k < N; k++) {
                int64_t i = (k * 32 + lane) * V;
                if (i < width) other[k] = lam_read<T, V>(n.r + r_row * width + i);
            }
            float scale = lam_scale_of(n.places);
#pragma unroll
            for (int k = 0; k < N; k++) raw[k] = lam_scaled_sum<T, V>(raw[k], other[k], scale);
        }
#pragma unroll
        for (int k = 0; k < N; k++) {
            int64_t i = (k * 32 + lane) * V;
            if (i < width) raw[k].write(n.s + row * width + i);
        }
    }
    int64_t y_row = lam_place_of_row(n.places.y, n.places.tokens, row);
    if (y_row < 0) return;
    float value[N][V], sum = 0, squares = 0;
#pragma unroll
    for (int k = 0; k < N; k++) {
        raw[k].unpack(value[k]); /* zeros beyond the row */
#pragma unroll
        for (int j = 0; j < V; j++) sum += value[k][j];
    }
    float mean = lam_warp_sum(sum) / (float)width;
#pragma unroll
    for (int k = 0; k < N; k++) {
        if ((k * 32 + lane) * V >= width) continue;
#pragma unroll
        for (int j = 0; j < V; j++) squares = fmaf(value[k][j] - mean, value[k][j] - mean, squares);
    }
    float rstd = 1.0f / sqrtf(lam_warp_sum(squares) / (float)width + n.eps);
    if (lane == 0) {
        n.mean[row] = mean;
        n.rstd[row] = rstd;
    }
#pragma unroll
    for (int k = 0; k < N; k++) {
        int64_t i = (k * 32 + lane) * V;
        if (i >= width) continue;
        float w[V], b[V];
        lam_read_floats<V>(n.w + i, w);
        lam_read_floats<V>(n.b + i, b);
#pragma unroll
        for (int j = 0; j < V; j++) value[k][j] = normalised(value[k][j], mean, rstd, w[j], b[j]);
        lam_pack<T, V>(value[k]).write(n.y + y_row * width + i);
    }
}

/* Every thread reads what it has written itself. */
template <typename T, int V>
__global__ void __launch_bounds__(WIDE_THREADS, 2) layernorm_wide(const forward_pass<T> n) {
    LAM_SHARED(float, partial, [32]);
    LAM_SHARED(int, counts, [32]);
    if (blockIdx.x < n.tail.blocks) return lam_write_zeros<T, V>(n.tail, n.y, counts);
    int64_t row = blockIdx.x - n.tail.blocks, width = n.width, first = (int64_t)threadIdx.x * V,
            step = WIDE_THREADS * V;
    const T *from = n.x + row * width;
    if (n.r) {
        int64_t r_row = lam_place_of_row(n.places.r, n.places.tokens, row);
        T *to = n.s + row * width;
        float scale = lam_scale_of(n.places);
        for (int64_t i = first; i < width; i += step) {
            lam_raw<T, V> raw = lam_read<T, V>(from + i);
            if (r_row >= 0) raw = lam_scaled_sum<T, V>(raw, lam_read<T, V>(n.r + r_row * width + i), scale);
            raw.write(to + i);
        }
        from = to;
    }
    int64_t y_row = lam_place_of_row(n.places.y, n.places.tokens, row);
    if (y_row < 0) return; /* the whole block */
    float value[V], sum = 0, squares = 0;
    for (int64_t i = first; i < width; i += step) {
        lam_read<T, V>(from + i).unpack(value);
#pragma unroll
        for (int j = 0; j < V; j++) sum += value[j];
    }
    float mean = lam_block_sum(sum, partial) / (float)width;
    for (int64_t i = first; i < width; i += step) {
        lam_read<T, V>(from + i).unpack(value);
#pragma unroll
        for (int j = 0; j < V; j++) squares = fmaf(value[j] - mean, value[j] - mean, squares);
    }
    float rstd = 1.0f / sqrtf(lam_block_sum(squares, partial) / (float)width + n.eps);
    if (threadIdx.x == 0) {
        n.mean[row] = mean;
        n.rstd[row] = rstd;
    }
    for (int64_t i = first; i < width; i += step) {
        float w[V], b[V];
        lam_read<T, V>(from + i).unpack(value);
        lam_read_floats<V>(n.w + i, w);
        lam_read_floats<V>(n.b + i, b);
#pragma unroll
        for (int j = 0; j < V; j++) value[j] = normalised(value[j], mean, rstd, w[j], b[j]);
        lam_pack<T, V>(value).write(n.y + y_row * width + i);
    }
}

/* y from x, the sum, and mean and rstd. */
template <typename T, int V>
__global__ void __launch_bounds__(LAM_ROW_THREADS, 4) layernorm_again_kernel(const forward_pass<T> n) {
    LAM_SHARED(int, partial, [32]);
    if (blockIdx.x < n.tail.blocks) return lam_write_zeros<T, V>(n.tail, n.y, partial);
    int64_t row = lam_row_of_warp(n.tail.blocks), width = n.width;
    if (row >= n.rows) return;
    int64_t y_row = lam_place_of_row(n.places.y, n.places.tokens, row);
    if (y_row < 0) return;
    float mean = n.mean[row], rstd = n.rstd[row];
    for (int64_t i = threadIdx.x % 32 * V; i < width; i += 32 * V) {
        float value[V], w[V], b[V];
        lam_read<T, V>(n.x + row * width + i).unpack(value);
        lam_read_floats<V>(n.w + i, w);
        lam_read_floats<V>(n.b + i, b);
#pragma unroll
        for (int j = 0; j < V; j++) value[j] = normalised(value[j], mean, rstd, w[j], b[j]);
        lam_pack<T, V>(value).write(n.y + y_row * width + i);
    }
}

/* ---- backward ---- */

template <typename T> struct backward_pass {
    const T *s, *dy, *ds;
    const float *w, *mean, *rstd;
    T *dx, *dr;
    bool add_x, add_r;
    float *partial;               /* [blocks, 2 or 3, width]: of w, of b, of dx */
    int32_t tables;
    int64_t rows, width, each;    /* rows a block, where it takes all of its columns in turn */
    int64_t blocks;
    int32_t group; /* threads that have a row, else */
    lam_sample_places places;
    lam_zero_tail tail; /* of dr */
};

/* V columns of a row: dx and dr from what reaches the sum, which it may change. */
template <typename T, int V>
__device__ __forceinline__ void pass_on(const backward_pass<T> &n, int64_t row, int64_t width, int64_t column,
                                        float scale, float (&value)[V]) {
    if (n.dr) {
        int64_t r_row = lam_place_of_row(n.places.r, n.places.tokens, row);
        if (r_row >= 0) {
            float scaled[V];
#pragma unroll
            for (int j = 0; j < V; j++) scaled[j] = scale * value[j];
            lam_write_or_add<T, V>(n.dr + r_row * width + column, scaled, n.add_r);
        }
    }
    if (n.dx) lam_write_or_add<T, V>(n.dx + row * width + column, value, n.add_x);
}

/* V columns of a block's sums. */
template <typename T, int V>
__device__ __forceinline__ void write_sums(const backward_pass<T> &n, int64_t block, int64_t column, const float (&w)[V],
                                           const float (&b)[V], const float (&d)[V]) {
    float *to = n.partial + block * n.tables * n.width + column;
    lam_write_floats<V>(to, w);
    lam_write_floats<V>(to + n.width, b);
    if (n.tables > 2) lam_write_floats<V>(to + 2 * n.width, d);
}

template <typename T, int V, int ROWS, int THREADS, int BLOCKS>
__global__ void __launch_bounds__(THREADS, BLOCKS) layernorm_backward_rows(const backward_pass<T> n) {
    LAM_SHARED(float2, sums, [2][32][ROWS]);
    const bool SHORT = THREADS > 256; /* of registers: the sums of dx lie in shared memory */
    LAM_SHARED(float4, fold4, [(SHORT ? 1 : 3) * THREADS * V / 4]);
    LAM_SHARED(int, counts, [32]);
    if (blockIdx.x < n.tail.blocks) return lam_write_zeros<T, V>(n.tail, n.dr, counts);
    int group = (int)threadIdx.x / n.group, groups = (int)blockDim.x / n.group;
    int64_t block = blockIdx.x - n.tail.blocks, width = n.width,
            column = (int64_t)((int)threadIdx.x - group * n.group) * V, end = n.rows;
    bool inside = column < width;
    float *own = reinterpret_cast<float *>(fold4) + threadIdx.x * V;
    int warp = (int)threadIdx.x / 32, warps = n.group / 32, first_warp = group * warps;
    float w[V] = {0}, sum_w[V] = {0}, sum_b[V] = {0}, sum_d[V] = {0}, r_scale = lam_scale_of(n.places),
          share = 1.0f / (float)width;
    if (inside) lam_read_floats<V>(n.w + column, w);
    if (SHORT) lam_write_floats<V>(own, sum_d);
    int buffer = 0;
    for (int64_t begin = block * groups * ROWS; begin < end; begin += n.blocks * groups * ROWS, buffer ^= 1) {
        int64_t row = begin + group * ROWS;
        lam_raw<T, V> x[ROWS] = {}, d[ROWS] = {}, extra[ROWS] = {};
        float mean[ROWS] = {0}, rstd[ROWS] = {0}; /* rstd 0: not normalised */
#pragma unroll
        for (int k = 0; k < ROWS; k++) {
            if (row + k >= end) continue;
            int64_t y_row = lam_place_of_row(n.places.y, n.places.tokens, row + k);
            if (y_row >= 0) {
                mean[k] = n.mean[row + k];
                rstd[k] = n.rstd[row + k];
            }
            if (!inside) continue;
            if (y_row >= 0) {
                x[k] = lam_read<T, V>(n.s + (row + k) * width + column);
                d[k] = lam_read<T, V>(n.dy + y_row * width + column);
            }
            if (n.ds) extra[k] = lam_read<T, V>(n.ds + (row + k) * width + column);
        }
        float2 total[ROWS];
#pragma unroll
        for (int k = 0; k < ROWS; k++) {
            float value[V], up[V];
            x[k].unpack(value);
            d[k].unpack(up); /* zeros outside */
            total[k] = make_float2(0, 0);
#pragma unroll
            for (int j = 0; j < V; j++) {
                float hat = (value[j] - mean[k]) * rstd[k], g = up[j] * w[j];
                total[k].x += g;
                total[k].y = fmaf(g, hat, total[k].y);
                sum_w[j] = fmaf(up[j], hat, sum_w[j]);
                sum_b[j] += up[j];
            }
            total[k].x = lam_warp_sum(total[k].x);
            total[k].y = lam_warp_sum(total[k].y);
        }
        if (warps > 1) { /* the other buffer may still be read */
            if (threadIdx.x % 32 == 0)
#pragma unroll
                for (int k = 0; k < ROWS; k++) sums[buffer][warp][k] = total[k];
            __syncthreads();
#pragma unroll
            for (int k = 0; k < ROWS; k++) total[k] = sums[buffer][first_warp][k];
            for (int other = first_warp + 1; other < first_warp + warps; other++)
#pragma unroll
                for (int k = 0; k < ROWS; k++) {
                    total[k].x += sums[buffer][other][k].x;
                    total[k].y += sums[buffer][other][k].y;
                }
        }
#pragma unroll
        for (int k = 0; k < ROWS; k++) {
            if (!inside || row + k >= end) continue;
            float value[V], up[V], more[V], a = total[k].x * share, b = total[k].y * share;
            x[k].unpack(value);
            d[k].unpack(up);
            extra[k].unpack(more);
#pragma unroll
            for (int j = 0; j < V; j++)
                value[j] = fmaf(up[j] * w[j] - a - (value[j] - mean[k]) * rstd[k] * b, rstd[k], more[j]);
            pass_on<T, V>(n, row + k, width, column, r_scale, value);
#pragma unroll
            for (int j = 0; j < V; j++) sum_d[j] = (SHORT ? own[j] : sum_d[j]) + value[j];
            if (SHORT) lam_write_floats<V>(own, sum_d);
        }
    }
    if (SHORT || groups == 1) {
        if (SHORT) lam_read_floats<V>(own, sum_d);
        if (inside) write_sums<T, V>(n, block, column, sum_w, sum_b, sum_d);
        return;
    }
    lam_write_floats<V>(own, sum_w);
    lam_write_floats<V>(own + THREADS * V, sum_b);
    lam_write_floats<V>(own + 2 * THREADS * V, sum_d);
    __syncthreads();
    for (int i = (int)threadIdx.x; i < n.tables * width; i += (int)blockDim.x) {
        const int table = i / (int)width;
        const float *from = reinterpret_cast<float *>(fold4) + table * THREADS * V + (i - table * (int)width);
        float all = from[0];
        for (int other = 1; other < groups; other++) all += from[other * n.group * V];
        n.partial[block * n.tables * width + i] = all;
    }
}

/* A thread has the same columns of every row, and their sums in memory. */
template <typename T, int V>
__global__ void __launch_bounds__(WIDE_THREADS, 2) layernorm_backward_wide(const backward_pass<T> n) {
    LAM_SHARED(float, partial, [32]);
    LAM_SHARED(int, counts, [32]);
    if (blockIdx.x < n.tail.blocks) return lam_write_zeros<T, V>(n.tail, n.dr, counts);
    int64_t block = blockIdx.x - n.tail.blocks, width = n.width, begin = (int64_t)threadIdx.x * V,
            step = WIDE_THREADS * V, first = block * n.each,
            end = first + n.each < n.rows ? first + n.each : n.rows;
    float *sums_w = n.partial + block * n.tables * width, *sums_b = sums_w + width, *sums_d = sums_b + width;
    float r_scale = lam_scale_of(n.places), share = 1.0f / (float)width;
#pragma unroll 1
    for (int64_t i = begin; i < width; i += step) {
        const float zeros[V] = {0};
        lam_write_floats<V>(sums_w + i, zeros);
        lam_write_floats<V>(sums_b + i, zeros);
        if (n.tables > 2) lam_write_floats<V>(sums_d + i, zeros);
    }
    for (int64_t row = first; row < end; row++) {
        int64_t y_row = lam_place_of_row(n.places.y, n.places.tokens, row);
        const T *s = n.s + row * width, *dy = n.dy + y_row * width;
        float mean = 0, rstd = 0, a = 0, b = 0, value[V] = {0}, up[V] = {0}, w[V] = {0}, more[V] = {0};
        if (y_row >= 0) {
            mean = n.mean[row];
            rstd = n.rstd[row];
#pragma unroll 1
            for (int64_t i = begin; i < width; i += step) {
                float sum_w[V], sum_b[V];
                lam_read<T, V>(s + i).unpack(value);
                lam_read<T, V>(dy + i).unpack(up);
                lam_read_floats<V>(n.w + i, w);
                lam_read_floats<V>(sums_w + i, sum_w);
                lam_read_floats<V>(sums_b + i, sum_b);
#pragma unroll
                for (int j = 0; j < V; j++) {
                    float hat = (value[j] - mean) * rstd, g = up[j] * w[j];
                    a += g;
                    b = fmaf(g, hat, b);
                    sum_w[j] = fmaf(up[j], hat, sum_w[j]);
                    sum_b[j] += up[j];
                }
                lam_write_floats<V>(sums_w + i, sum_w);
                lam_write_floats<V>(sums_b + i, sum_b);
            }
            a = lam_block_sum(a, partial) * share;
            b = lam_block_sum(b, partial) * share;
        }
#pragma unroll 1
        for (int64_t i = begin; i < width; i += step) {
            if (y_row >= 0) {
                lam_read<T, V>(s + i).unpack(value);
                lam_read<T, V>(dy + i).unpack(up);
                lam_read_floats<V>(n.w + i, w);
            }
            if (n.ds) lam_read<T, V>(n.ds + row * width + i).unpack(more);
            float sum[V];
#pragma unroll
            for (int j = 0; j < V; j++)
                sum[j] = fmaf(up[j] * w[j] - a - (value[j] - mean) * rstd * b, rstd, more[j]);
            pass_on<T, V>(n, row, width, i, r_scale, sum);
            if (n.tables > 2) {
                float before[V];
                lam_read_floats<V>(sums_d + i, before);
#pragma unroll
                for (int j = 0; j < V; j++) before[j] += sum[j];
                lam_write_floats<V>(sums_d + i, before);
            }
        }
    }
}

/* ---- on the host ---- */

lam_sample_places or_all(const lam_sample_places *places) {
    if (places) return *places;
    lam_sample_places all = {};
    all.tokens = 1;
    return all;
}

lam_zero_tail tail_of_y(const lam_sample_places &kept, int64_t rows, int64_t width) {
    return lam_zeros_behind(kept.y, kept.y_rows, rows / kept.tokens, kept.tokens, width);
}

template <typename T, int V, int N> void launch_rows(const forward_pass<T> &n) {
    LAM_LAUNCH((layernorm_rows<T, V, N>), n.tail.blocks + (unsigned)lam_blocks(n.rows, FORWARD_WARPS),
               32 * FORWARD_WARPS, 0, lam_cuda_stream(), n);
}

template <typename T, int V> void launch_forward(const forward_pass<T> &n) {
    if (n.width <= 256) return launch_rows<T, V, 8 / V>(n);
    if (n.width <= 512) return launch_rows<T, V, 16 / V>(n);
    if constexpr (V > 1) {
        if (n.width <= 1024) return launch_rows<T, V, 32 / V>(n);
        if (n.width <= 2048) return launch_rows<T, V, 64 / V>(n);
    }
    LAM_LAUNCH((layernorm_wide<T, V>), n.tail.blocks + (unsigned)n.rows, WIDE_THREADS, 0, lam_cuda_stream(),
               n);
}

template <typename T>
void layernorm(const void *x, const void *r, const float *w, const float *b, void *s, void *y, float *mean,
               float *rstd, int64_t rows, int64_t width, float eps, const lam_sample_places *places) {
    lam_sample_places kept = or_all(places);
    forward_pass<T> n = {(const T *)x,
                         (const T *)r,
                         w,
                         b,
                         (T *)s,
                         (T *)y,
                         mean,
                         rstd,
                         rows,
                         width,
                         eps,
                         kept,
                         tail_of_y(kept, rows, width)};
    if (rows < 1) return;
    lam_with_vectors<T>(lam_fits<T>(width, x, r, w, b, s, y), [&](auto V) { launch_forward<T, V>(n); });
}

template <typename T>
void layernorm_again(const void *s, const float *w, const float *b, void *y, const float *mean,
                     const float *rstd, int64_t rows, int64_t width, const lam_sample_places *places) {
    lam_sample_places kept = or_all(places);
    forward_pass<T> n = {};
    n.x = (const T *)s;
    n.w = w;
    n.b = b;
    n.y = (T *)y;
    n.mean = const_cast<float *>(mean);
    n.rstd = const_cast<float *>(rstd);
    n.rows = rows;
    n.width = width;
    n.places = kept;
    n.tail = tail_of_y(kept, rows, width);
    unsigned blocks = n.tail.blocks + lam_row_blocks(rows);
    if (rows < 1) return;
    lam_with_vectors<T>(lam_fits<T>(width, s, w, b, y), [&](auto V) {
        LAM_LAUNCH((layernorm_again_kernel<T, V>), blocks, LAM_ROW_THREADS, 0, lam_cuda_stream(), n);
    });
}

/* How many blocks have written partial sums. */
template <typename T, int V> int64_t launch_backward(backward_pass<T> n) {
    const int64_t processors = lam_cuda_properties()->multiProcessorCount,
                  threads = lam_blocks(lam_blocks(n.width, V), 32) * 32,
                  groups = threads <= 256 ? 256 / threads : 1;
    n.each = lam_rows_a_block(n.rows);
    n.blocks = lam_blocks(n.rows, n.each);
    if (threads <= 1024) {
        int64_t rounds = lam_blocks(n.rows, threads <= 256 ? BACKWARD_ROWS * groups : 1),
                wave = threads <= 256 ? 2 * processors : processors;
        n.blocks = n.blocks < rounds ? n.blocks : rounds;
        n.blocks = n.blocks < wave ? n.blocks : wave;
    }
    n.group = (int32_t)threads;
    unsigned blocks = n.tail.blocks + (unsigned)n.blocks;
    if (threads <= 256)
        LAM_LAUNCH((layernorm_backward_rows<T, V, BACKWARD_ROWS, 256, 2>), blocks,
                   (unsigned)(threads * groups), 0, lam_cuda_stream(), n);
    else if (threads <= 1024)
        LAM_LAUNCH((layernorm_backward_rows<T, V, 1, 1024, 1>), blocks, (unsigned)threads, 0,
                   lam_cuda_stream(), n);
    else
        LAM_LAUNCH((layernorm_backward_wide<T, V>), blocks, WIDE_THREADS, 0, lam_cuda_stream(), n);
    return n.blocks;
}

/* sums: of w and b, and of dx where there is a third. */
template <typename T>
void backward(const void *s, const float *w, const float *mean, const float *rstd, const void *dy, const void *ds,
              void *dx, bool add_x, void *dr, bool add_r, const lam_cuda_sums &sums, float *partial, int64_t rows,
              int64_t width, const lam_sample_places *places) {
    lam_sample_places kept = or_all(places);
    backward_pass<T> n = {};
    n.s = (const T *)s;
    n.dy = (const T *)dy;
    n.ds = (const T *)ds;
    n.w = w;
    n.mean = mean;
    n.rstd = rstd;
    n.dx = (T *)dx;
    n.dr = (T *)dr;
    n.add_x = add_x;
    n.add_r = add_r;
    n.rows = rows;
    n.width = width;
    n.places = kept;
    if (dr && !add_r) n.tail = lam_zeros_behind(kept.r, kept.r_rows, rows / kept.tokens, kept.tokens, width);
    n.partial = partial;
    n.tables = sums.to[2] ? 3 : 2;
    int64_t blocks = 0;
    if (rows > 0)
        lam_with_vectors<T>(lam_fits<T>(width, s, dy, ds, dx, dr, w, partial),
                            [&](auto V) { blocks = launch_backward<T, V>(n); });
    lam_cuda_fold_sums(partial, blocks, n.tables * width, &sums);
}

template <typename T>
void layernorm_backward(const void *s, const float *w, const float *mean, const float *rstd, const void *dy,
                        const void *ds, void *dx, bool add_x, void *dr, bool add_r, float *dw, float *db,
                        float *partial, int64_t rows, int64_t width, const lam_sample_places *places) {
    backward<T>(s, w, mean, rstd, dy, ds, dx, add_x, dr, add_r, {{dw, db}, {width, width}, {true, true}}, partial,
                rows, width, places);
}

template <typename T> void fill(lam_kernels *table) {
    table->layernorm = layernorm<T>;
    table->layernorm_again = layernorm_again<T>;
    table->layernorm_backward = layernorm_backward<T>;
}

/* ---- layernorm: x, w, b. Where a linear map of one part makes x and no earlier node reads it, dx is whole behind this backward pass, and
 * the sums of its columns, the gradient of the map's bias, are made here ---- */

void sizes(lam_node *node) {
    const lam_tensor *x = node->inputs[0];
    int64_t width = lam_tensor_width(x), rows = x->count / width;
    node->backward_workspace_bytes = (size_t)(3 * lam_column_partials(rows) * width) * sizeof(float);
}

lam_status backward_op(lam_node *node) {
    lam_tensor **in = node->inputs, *x = in[0], *y = node->outputs[0];
    int64_t width = lam_tensor_width(x);
    const float *mean = (const float *)node->saved, *rstd = mean + x->count / width;
    bool add;
    void *dx = lam_gradient_target(x, &add);
    lam_cuda_sums sums = {{}, {width, width, width}, {}};
    for (int k = 0; k < 2; k++) sums.to[k] = lam_weight_gradient_target(in[1 + k], &sums.add[k]);
    if (lam_cuda_sums_to_take(node, x) == 1) {
        lam_cuda_sums map = lam_cuda_take_sums(x->producer);
        sums.to[2] = map.to[0], sums.add[2] = map.add[0];
    }
    (x->dtype == LAM_BF16 ? backward<__nv_bfloat16> : backward<float>)(
        x->data, (const float *)in[1]->data, mean, rstd, y->gradient, add ? dx : NULL, dx, false, NULL, false, sums,
        (float *)node->backward_workspace, lam_tensor_rows(x), width, NULL);
    return LAM_OK;
}

} // namespace

const lam_op_functions lam_cuda_norm_ops[] = {{"layernorm", sizes, NULL, backward_op, NULL, NULL},
                                              {NULL, NULL, NULL, NULL, NULL, NULL}};

void lam_cuda_fill_norm(lam_kernels *f32, lam_kernels *bf16) {
    fill<float>(f32);
    fill<__nv_bfloat16>(bf16);
}
