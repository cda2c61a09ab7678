/* The parallel block: LayerNorm of queries and keys head by head, weights with LayerScale in them: the CUDA versions of
 * model/cpu/parallel.inc.h.
 *
 * Bound by bytes, each read or written once: head_norm 2 an element of q, k and v and storage byte, its gradient 3 for q and k
 * and 2 for v; scale_rows 8 bytes a weight, its gradient 16.
 * A head has a group of 4 to 32 lanes, 16 bytes a lane, which keep it in registers; heads that do not fit (odd, or over 32
 * vectors) a warp, which reads them again from the caches. Backward: a block of 256 threads 8 rows and more, sums of dw and db
 * in registers, then in 8 KiB of shared memory group by group in order, then lam_sum_partials. At most 80 registers. */
#include "model/cuda/vector.cuh"

namespace {

enum { THREADS = 256 };

template <typename T> struct head_pass {
    const T *x;
    lam_head_norm_weights weights;
    T *y;
    float *mean, *rstd;
    int64_t rows, heads, head_dim;
    float eps;
};

/* Of queries or keys; an index that is not known would move the arguments to memory. */
__device__ __forceinline__ const float *of(const float *const (&both)[2], int part) {
    return part ? both[1] : both[0];
}

/* Over the lanes of a group: 4, 8, 16 or 32 of them, which lie side by side. */
__device__ __forceinline__ float group_sum(float value, int lanes) {
    for (int offset = lanes / 2; offset > 0; offset /= 2)
        value += __shfl_xor_sync(LAM_WHOLE_WARP, value, offset);
    return value;
}

/* A group of `lanes` threads a head; the heads of q, k and v of all rows in the order of memory. V = 1: `lanes` is 32 and the
 * head is read again for each pass. */
template <typename T, int V>
__global__ void __launch_bounds__(THREADS) head_norm_kernel(const head_pass<T> n, int lanes) {
    int64_t all = n.heads * 3, head = (int64_t)blockIdx.x * (THREADS / lanes) + (int)threadIdx.x / lanes,
            row = lam_quotient(head, all), h = head - row * all, d = n.head_dim;
    int64_t first = (int64_t)((int)threadIdx.x % lanes) * V, step = (int64_t)lanes * V;
    bool there = row < n.rows;
    int part = h >= 2 * n.heads ? 2 : h >= n.heads;
    const T *from = n.x + head * d;
    T *to = n.y + head * d;
    float value[V] = {0}, sum = 0, squares = 0;
    if (there && part < 2)
        for (int64_t i = first; i < d; i += step) {
            lam_read<T, V>(from + i).unpack(value);
#pragma unroll
            for (int k = 0; k < V; k++) sum += value[k];
        }
    float mean = group_sum(sum, lanes) / (float)d;
    if (there && part < 2)
        for (int64_t i = first; i < d; i += step) {
            if constexpr (V == 1) lam_read<T, V>(from + i).unpack(value);
#pragma unroll
            for (int k = 0; k < V; k++) squares = fmaf(value[k] - mean, value[k] - mean, squares);
        }
    float rstd = 1.0f / sqrtf(group_sum(squares, lanes) / (float)d + n.eps);
    if (!there) return;
    if (part < 2 && first == 0) {
        n.mean[row * 2 * n.heads + h] = mean;
        n.rstd[row * 2 * n.heads + h] = rstd;
    }
    for (int64_t i = first; i < d; i += step) {
        if (part == 2) {
            lam_read<T, V>(from + i).write(to + i);
            continue;
        }
        float w[V], b[V];
        if constexpr (V == 1) lam_read<T, V>(from + i).unpack(value);
        lam_read_floats<V>(of(n.weights.w, part) + i, w);
        lam_read_floats<V>(of(n.weights.b, part) + i, b);
#pragma unroll
        for (int k = 0; k < V; k++) value[k] = fmaf((value[k] - mean) * rstd, w[k], b[k]);
        lam_pack<T, V>(value).write(to + i);
    }
}

template <typename T> struct head_backward_pass {
    const T *x, *dy;
    lam_head_norm_weights weights;
    const float *mean, *rstd;
    T *dx;
    bool add;
    float *partial; /* [w of q, b of q, w of k, b of k][blocks][head_dim] */
    int64_t rows, heads, head_dim, each;
};

/* V elements of v, which pass as they are; of rows [first, end). */
template <typename T, int V>
__device__ __forceinline__ void pass_values(const head_backward_pass<T> &n, int64_t first, int64_t end) {
    int64_t width = n.heads * n.head_dim, vectors = width / V;
    for (int64_t at = threadIdx.x; at < (end - first) * vectors; at += THREADS) {
        int64_t row = lam_quotient(at, vectors),
                i = (first + row) * 3 * width + 2 * width + (at - row * vectors) * V;
        float value[V];
        lam_read<T, V>(n.dy + i).unpack(value);
        lam_write_or_add<T, V>(n.dx + i, value, n.add);
    }
}

template <typename T, int V>
__global__ void __launch_bounds__(THREADS, 3)
    head_norm_backward_kernel(const head_backward_pass<T> n, int lanes) {
    LAM_SHARED(float, sums, [THREADS * V]);
    int64_t d = n.head_dim, heads = n.heads, begin = blockIdx.x * n.each,
            end = begin + n.each < n.rows ? begin + n.each : n.rows;
    int group = (int)threadIdx.x / lanes, groups = THREADS / lanes;
    int64_t i = (int64_t)((int)threadIdx.x % lanes) * V;
    bool inside = i < d;
    for (int part = 0; part < 2; part++) {
        float w[V] = {0}, sum_w[V] = {0}, sum_b[V] = {0}, share = 1.0f / (float)d;
        if (inside) lam_read_floats<V>(of(n.weights.w, part) + i, w);
        int64_t count = (end - begin) * heads;
        for (int64_t first = 0; first < count; first += groups) { /* all groups, for the sums over lanes */
            int64_t at = first + group, row = begin + lam_quotient(at, heads), h = lam_remainder(at, heads),
                    head = (row * 3 + part) * heads + h, scale_at = (row * 2 + part) * heads + h;
            bool there = at < count;
            float value[V] = {0}, up[V] = {0}, mean = 0, rstd = 0, a = 0, b = 0;
            if (there) {
                mean = n.mean[scale_at];
                rstd = n.rstd[scale_at];
            }
            if (there && inside) {
                lam_read<T, V>(n.x + head * d + i).unpack(value);
                lam_read<T, V>(n.dy + head * d + i).unpack(up);
#pragma unroll
                for (int k = 0; k < V; k++) {
                    float hat = (value[k] - mean) * rstd, g = up[k] * w[k];
                    a += g;
                    b = fmaf(g, hat, b);
                    sum_w[k] = fmaf(up[k], hat, sum_w[k]);
                    sum_b[k] += up[k];
                }
            }
            a = group_sum(a, lanes) * share;
            b = group_sum(b, lanes) * share;
            if (!there || !inside) continue;
#pragma unroll
            for (int k = 0; k < V; k++) value[k] = (up[k] * w[k] - a - (value[k] - mean) * rstd * b) * rstd;
            lam_write_or_add<T, V>(n.dx + head * d + i, value, n.add);
        }
        for (int which = 0; which < 2; which++) {
            __syncthreads(); /* the last sums have been read */
#pragma unroll
            for (int k = 0; k < V; k++) sums[threadIdx.x * V + k] = which ? sum_b[k] : sum_w[k];
            __syncthreads();
            for (int64_t c = threadIdx.x; c < d; c += THREADS) {
                float total = 0;
                for (int other = 0; other < groups; other++) total += sums[other * lanes * V + c];
                n.partial[((2 * part + which) * (int64_t)gridDim.x + blockIdx.x) * d + c] = total;
            }
        }
    }
    pass_values<T, V>(n, begin, end);
}

/* Heads of any size: a warp a head, the block's sums in its rows of `partial`, which warp after warp adds to. */
template <typename T>
__global__ void __launch_bounds__(32) head_norm_backward_any(const head_backward_pass<T> n) {
    int64_t d = n.head_dim, heads = n.heads, begin = blockIdx.x * n.each,
            end = begin + n.each < n.rows ? begin + n.each : n.rows, lane = threadIdx.x, width = heads * d;
    for (int part = 0; part < 2; part++) {
        float *sum_w = n.partial + (2 * part * (int64_t)gridDim.x + blockIdx.x) * d,
              *sum_b = sum_w + gridDim.x * d;
        const float *w = of(n.weights.w, part);
        for (int64_t i = lane; i < d; i += 32) sum_w[i] = sum_b[i] = 0;
        for (int64_t at = 0; at < (end - begin) * heads; at++) {
            int64_t row = begin + at / heads, h = at % heads, scale_at = (row * 2 + part) * heads + h;
            const T *x = n.x + ((row * 3 + part) * heads + h) * d,
                    *dy = n.dy + ((row * 3 + part) * heads + h) * d;
            T *dx = n.dx + ((row * 3 + part) * heads + h) * d;
            float mean = n.mean[scale_at], rstd = n.rstd[scale_at], a = 0, b = 0;
            for (int64_t i = lane; i < d; i += 32) {
                float hat = (lam_load(x + i) - mean) * rstd, up = lam_load(dy + i);
                a += up * w[i];
                b = fmaf(up * w[i], hat, b);
                sum_w[i] = fmaf(up, hat, sum_w[i]);
                sum_b[i] += up;
            }
            a = lam_warp_sum(a) / (float)d;
            b = lam_warp_sum(b) / (float)d;
            for (int64_t i = lane; i < d; i += 32) {
                float value[1] = {(lam_load(dy + i) * w[i] - a - (lam_load(x + i) - mean) * rstd * b) * rstd};
                lam_write_or_add<T, 1>(dx + i, value, n.add);
            }
        }
    }
    for (int64_t at = lane; at < (end - begin) * width; at += 32) {
        int64_t i = (begin + at / width) * 3 * width + 2 * width + at % width;
        float value[1] = {lam_load(n.dy + i)};
        lam_write_or_add<T, 1>(n.dx + i, value, n.add);
    }
}

template <int V>
__global__ void __launch_bounds__(LAM_ROW_THREADS, 4)
    scale_rows_kernel(const float *w, const float *scale, float *scaled, int64_t rows, int64_t width) {
    int64_t row = lam_row_of_warp();
    if (row >= rows) return;
    float factor = scale[row];
    for (int64_t i = threadIdx.x % 32 * V; i < width; i += 32 * V) {
        float value[V];
        lam_read_floats<V>(w + row * width + i, value);
#pragma unroll
        for (int k = 0; k < V; k++) value[k] *= factor;
        lam_write_floats<V>(scaled + row * width + i, value);
    }
}

template <int V>
__global__ void __launch_bounds__(LAM_ROW_THREADS, 4)
    scale_rows_backward_kernel(const float *w, const float *scale, const float *product, float *dw,
                               float *d_scale, int64_t rows, int64_t width) {
    int64_t row = lam_row_of_warp();
    if (row >= rows) return;
    float factor = scale[row], sum = 0;
    for (int64_t i = threadIdx.x % 32 * V; i < width; i += 32 * V) {
        float weight[V], from[V], to[V];
        lam_read_floats<V>(w + row * width + i, weight);
        lam_read_floats<V>(product + row * width + i, from);
        lam_read_floats<V>(dw + row * width + i, to);
#pragma unroll
        for (int k = 0; k < V; k++) {
            sum = fmaf(weight[k], from[k], sum);
            to[k] = fmaf(factor, from[k], to[k]);
        }
        lam_write_floats<V>(dw + row * width + i, to);
    }
    sum = lam_warp_sum(sum);
    if (threadIdx.x % 32 == 0) d_scale[row] += sum;
}

/* ---- on the host ---- */

/* Lanes for a head in vectors, a power of two; 0: it does not fit a warp so. */
template <typename T, typename... P> int lanes_of(int64_t head_dim, const P *...pointers) {
    int64_t vectors = head_dim / lam_vector<T>;
    if (vectors > 32 || !lam_fits<T>(head_dim, pointers...)) return 0;
    int lanes = 4;
    while (lanes < vectors) lanes *= 2;
    return lanes;
}

template <typename T>
void head_norm(const void *x, const lam_head_norm_weights *weights, void *y, float *mean, float *rstd,
               int64_t rows, int64_t heads, int64_t head_dim, float eps) {
    constexpr int V = lam_vector<T>;
    if (rows < 1) return;
    head_pass<T> n = {(const T *)x, *weights, (T *)y, mean, rstd, rows, heads, head_dim, eps};
    int lanes = lanes_of<T>(head_dim, x, y, weights->w[0], weights->w[1], weights->b[0], weights->b[1]);
    unsigned blocks = (unsigned)lam_blocks(rows * heads * 3, THREADS / (lanes ? lanes : 32));
    if (lanes)
        LAM_LAUNCH((head_norm_kernel<T, V>), blocks, THREADS, 0, lam_cuda_stream(), n, lanes);
    else
        LAM_LAUNCH((head_norm_kernel<T, 1>), blocks, THREADS, 0, lam_cuda_stream(), n, 32);
}

template <typename T>
void head_norm_backward(const void *x, const lam_head_norm_weights *weights, const float *mean,
                        const float *rstd, const void *dy, void *dx, bool add,
                        const lam_head_norm_gradients *gradients, float *partial, int64_t rows, int64_t heads,
                        int64_t head_dim) {
    constexpr int V = lam_vector<T>;
    if (rows < 1) return;
    int64_t each = lam_rows_a_block(rows), blocks = lam_blocks(rows, each);
    head_backward_pass<T> n = {(const T *)x, (const T *)dy, *weights, mean,  rstd,     (T *)dx,
                               add,          partial,       rows,     heads, head_dim, each};
    int lanes = lanes_of<T>(head_dim, x, dy, dx, weights->w[0], weights->w[1]);
    if (lanes)
        LAM_LAUNCH((head_norm_backward_kernel<T, V>), (unsigned)blocks, THREADS, 0, lam_cuda_stream(), n,
                   lanes);
    else
        LAM_LAUNCH((head_norm_backward_any<T>), (unsigned)blocks, 32, 0, lam_cuda_stream(), n);
    lam_sum_partials(partial, 4, blocks, head_dim,
                     {{gradients->w[0], gradients->b[0], gradients->w[1], gradients->b[1]}});
}

void scale_rows(const float *w, const float *scale, float *scaled, int64_t rows, int64_t width) {
    if (lam_fits<float>(width, w, scaled))
        LAM_LAUNCH((scale_rows_kernel<4>), lam_row_blocks(rows), LAM_ROW_THREADS, 0, lam_cuda_stream(), w,
                   scale, scaled, rows, width);
    else
        LAM_LAUNCH((scale_rows_kernel<1>), lam_row_blocks(rows), LAM_ROW_THREADS, 0, lam_cuda_stream(), w,
                   scale, scaled, rows, width);
}

void scale_rows_backward(const float *w, const float *scale, const float *product, float *dw, float *d_scale,
                         int64_t rows, int64_t width) {
    if (lam_fits<float>(width, w, product, dw))
        LAM_LAUNCH((scale_rows_backward_kernel<4>), lam_row_blocks(rows), LAM_ROW_THREADS, 0,
                   lam_cuda_stream(), w, scale, product, dw, d_scale, rows, width);
    else
        LAM_LAUNCH((scale_rows_backward_kernel<1>), lam_row_blocks(rows), LAM_ROW_THREADS, 0,
                   lam_cuda_stream(), w, scale, product, dw, d_scale, rows, width);
}

template <typename T> void fill(lam_kernels *table) {
    table->head_norm = head_norm<T>;
    table->head_norm_backward = head_norm_backward<T>;
    table->scale_rows = scale_rows;
    table->scale_rows_backward = scale_rows_backward;
}

} // namespace

void lam_cuda_fill_parallel(lam_kernels *f32, lam_kernels *bf16) {
    fill<float>(f32);
    fill<__nv_bfloat16>(bf16);
}
