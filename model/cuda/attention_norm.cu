/* LayerNorm of the heads of q and k in kernels of its own, before and behind attention, where attention does not do it itself
 * (attention_heads.cuh): what is normalised, and its gradients, pass through the workspace.
 *
 * Bound by bytes, each read or written once: 2 an element of q and k and storage byte, the gradient 3. A head has a group of
 * 4 to 32 lanes, 16 bytes a lane, which keep it in registers; heads that do not fit (odd ones) a warp, which reads them again
 * from the caches. Backward: a block of 256 threads 8 rows and more, sums of dw and db in registers, then in 8 KiB of shared
 * memory group by group in order, then lam_sum_partials. */
#include "model/cuda/attention.cuh"
#include "model/cuda/vector.cuh"

namespace lam_attention_parts {
namespace {

enum { NORM_THREADS = 256 };

/* x, y, dy, dx: q and k of tokens, [rows, 2, heads, head_dim], rows `stride` apart. */
template <typename T> struct head_pass {
    const T *x;
    lam_attention_norm norm;
    T *y;
    float *mean, *rstd; /* [rows, 2, heads]; NULL: not wanted */
    int64_t rows, heads, head_dim, stride;
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

__device__ __forceinline__ bool group_any(bool value, int lanes) {
    const int lane = (int)threadIdx.x & 31;
    return __ballot_sync(LAM_WHOLE_WARP, value) >> lane / lanes * lanes & LAM_WHOLE_WARP >> (32 - lanes);
}

/* A group of `lanes` threads a head; the heads of q and k of all rows in the order of memory. V = 1: `lanes` is 32 and the head
 * is read again for each pass. */
template <typename T, int V>
__global__ void __launch_bounds__(NORM_THREADS) head_norm_kernel(const head_pass<T> n, int lanes) {
    int64_t all = n.heads * 2, head = (int64_t)blockIdx.x * (NORM_THREADS / lanes) + (int)threadIdx.x / lanes,
            row = lam_quotient(head, all), h = head - row * all, d = n.head_dim;
    int64_t first = (int64_t)((int)threadIdx.x % lanes) * V, step = (int64_t)lanes * V;
    bool there = row < n.rows;
    int part = h >= n.heads;
    const T *from = n.x + row * n.stride + h * d;
    T *to = n.y + row * n.stride + h * d;
    float value[V] = {0}, sum = 0, squares = 0, share = 1.0f / (float)d;
    if (there)
        for (int64_t i = first; i < d; i += step) {
            lam_read<T, V>(from + i).unpack(value);
#pragma unroll
            for (int k = 0; k < V; k++) sum += value[k];
        }
    float mean = group_sum(sum, lanes) * share;
    if (there)
        for (int64_t i = first; i < d; i += step) {
            if constexpr (V == 1) lam_read<T, V>(from + i).unpack(value);
#pragma unroll
            for (int k = 0; k < V; k++) squares = fmaf(value[k] - mean, value[k] - mean, squares);
        }
    float rstd = rsqrtf(fmaf(group_sum(squares, lanes), share, n.norm.eps));
    if (!there) return;
    if (n.mean && first == 0) {
        n.mean[head] = mean;
        n.rstd[head] = rstd;
    }
    for (int64_t i = first; i < d; i += step) {
        float w[V], b[V];
        if constexpr (V == 1) lam_read<T, V>(from + i).unpack(value);
        lam_read_floats<V>(of(n.norm.w, part) + i, w);
        lam_read_floats<V>(of(n.norm.b, part) + i, b);
#pragma unroll
        for (int k = 0; k < V; k++) value[k] = fmaf((value[k] - mean) * rstd, w[k], b[k]);
        lam_pack<T, V>(value).write(to + i);
    }
}

template <typename T> struct head_backward_pass {
    const T *x, *dy;
    lam_attention_norm norm;
    const float *mean, *rstd;
    T *dx;
    bool add;
    float *partial; /* [w of q, b of q, w of k, b of k][blocks][head_dim] */
    int64_t rows, heads, head_dim, stride, each;
};

template <typename T, int V>
__global__ void __launch_bounds__(NORM_THREADS, 3)
    head_norm_backward_kernel(const head_backward_pass<T> n, int lanes) {
    LAM_SHARED(float, sums, [NORM_THREADS * V]);
    int64_t d = n.head_dim, heads = n.heads, begin = blockIdx.x * n.each,
            end = begin + n.each < n.rows ? begin + n.each : n.rows;
    int group = (int)threadIdx.x / lanes, groups = NORM_THREADS / lanes;
    int64_t i = (int64_t)((int)threadIdx.x % lanes) * V;
    bool inside = i < d;
    for (int part = 0; part < 2; part++) {
        float w[V] = {0}, sum_w[V] = {0}, sum_b[V] = {0}, share = 1.0f / (float)d;
        if (inside) lam_read_floats<V>(of(n.norm.w, part) + i, w);
        int64_t count = (end - begin) * heads;
        for (int64_t first = 0; first < count; first += groups) { /* all groups, for the sums over lanes */
            int64_t at = first + group, row = begin + lam_quotient(at, heads),
                    h = part * heads + lam_remainder(at, heads), head = row * n.stride + h * d,
                    scale_at = row * 2 * heads + h;
            bool there = at < count;
            float value[V] = {0}, up[V] = {0}, mean = 0, rstd = 0, a = 0, b = 0;
            bool some = false;
            if (there) {
                mean = n.mean[scale_at];
                rstd = n.rstd[scale_at];
            }
            if (there && inside) {
                lam_read<T, V>(n.x + head + i).unpack(value);
                lam_read<T, V>(n.dy + head + i).unpack(up);
#pragma unroll
                for (int k = 0; k < V; k++) some |= up[k] != 0;
            }
            if (!group_any(some, lanes)) { /* what the mask hides has no gradient, whatever it is */
                mean = rstd = 0;
#pragma unroll
                for (int k = 0; k < V; k++) value[k] = 0;
            }
            if (there && inside) {
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
            lam_write_or_add<T, V>(n.dx + head + i, value, n.add);
        }
        for (int which = 0; which < 2; which++) {
            __syncthreads(); /* the last sums have been read */
#pragma unroll
            for (int k = 0; k < V; k++) sums[threadIdx.x * V + k] = which ? sum_b[k] : sum_w[k];
            __syncthreads();
            for (int64_t c = threadIdx.x; c < d; c += NORM_THREADS) {
                float total = 0;
                for (int other = 0; other < groups; other++) total += sums[other * lanes * V + c];
                n.partial[((2 * part + which) * (int64_t)gridDim.x + blockIdx.x) * d + c] = total;
            }
        }
    }
}

/* Heads of any size: a warp a head, the block's sums in its rows of `partial`, which warp after warp adds to. */
template <typename T>
__global__ void __launch_bounds__(32) head_norm_backward_any(const head_backward_pass<T> n) {
    int64_t d = n.head_dim, heads = n.heads, begin = blockIdx.x * n.each,
            end = begin + n.each < n.rows ? begin + n.each : n.rows, lane = threadIdx.x;
    for (int part = 0; part < 2; part++) {
        float *sum_w = n.partial + (2 * part * (int64_t)gridDim.x + blockIdx.x) * d,
              *sum_b = sum_w + gridDim.x * d;
        const float *w = of(n.norm.w, part);
        for (int64_t i = lane; i < d; i += 32) sum_w[i] = sum_b[i] = 0;
        for (int64_t at = 0; at < (end - begin) * heads; at++) {
            int64_t row = begin + at / heads, h = part * heads + at % heads, head = row * n.stride + h * d,
                    scale_at = row * 2 * heads + h;
            const T *x = n.x + head, *dy = n.dy + head;
            T *dx = n.dx + head;
            float mean = n.mean[scale_at], rstd = n.rstd[scale_at], a = 0, b = 0;
            bool some = false; /* as above */
            for (int64_t i = lane; i < d; i += 32) some |= lam_load(dy + i) != 0;
            some = __any_sync(LAM_WHOLE_WARP, some);
            for (int64_t i = lane; i < d && !some && !n.add; i += 32) lam_store(dx + i, 0);
            for (int64_t i = lane; i < d && some; i += 32) {
                float hat = (lam_load(x + i) - mean) * rstd, up = lam_load(dy + i);
                a += up * w[i];
                b = fmaf(up * w[i], hat, b);
                sum_w[i] = fmaf(up, hat, sum_w[i]);
                sum_b[i] += up;
            }
            a = lam_warp_sum(a) / (float)d;
            b = lam_warp_sum(b) / (float)d;
            for (int64_t i = lane; i < d && some; i += 32) {
                float value[1] = {(lam_load(dy + i) * w[i] - a - (lam_load(x + i) - mean) * rstd * b) * rstd};
                lam_write_or_add<T, 1>(dx + i, value, n.add);
            }
        }
    }
}

/* Lanes for a head in vectors, a power of two; 0: it does not fit a warp so. */
template <typename T, typename... P> int lanes_of(const lam_attention_shape *s, const P *...pointers) {
    int64_t vectors = s->head_dim / lam_vector<T>;
    if (vectors > 32 || s->q_stride % lam_vector<T> || !lam_fits<T>(s->head_dim, pointers...)) return 0;
    int lanes = 4;
    while (lanes < vectors) lanes *= 2;
    return lanes;
}

int64_t rows_of(const lam_attention_shape *s) { return s->batch * s->queries; }

template <typename T>
void normalise(const lam_attention_shape *s, const T *x, T *y, float *mean, float *rstd) {
    constexpr int V = lam_vector<T>;
    const lam_attention_norm &w = s->norm;
    const head_pass<T> n = {x, w, y, mean, rstd, rows_of(s), s->heads, s->head_dim, s->q_stride};
    const int lanes = lanes_of<T>(s, x, y, w.w[0], w.w[1], w.b[0], w.b[1]);
    const unsigned blocks = (unsigned)lam_blocks(n.rows * n.heads * 2, NORM_THREADS / (lanes ? lanes : 32));
    if (lanes)
        LAM_LAUNCH((head_norm_kernel<T, V>), blocks, NORM_THREADS, 0, lam_cuda_stream(), n, lanes);
    else
        LAM_LAUNCH((head_norm_kernel<T, 1>), blocks, NORM_THREADS, 0, lam_cuda_stream(), n, 32);
}

template <typename T>
void normalise_backward(const lam_attention_shape *s, const lam_attention_tensors *t, const T *dy,
                        const float *mean, const float *rstd, float *partial) {
    constexpr int V = lam_vector<T>;
    const int64_t rows = rows_of(s), each = lam_rows_a_block(rows), blocks = lam_blocks(rows, each);
    const T *x = (const T *)t->q;
    T *dx = (T *)t->dq;
    const head_backward_pass<T> n = {x,       dy,   s->norm,  mean,        rstd,        dx,  t->add_q,
                                     partial, rows, s->heads, s->head_dim, s->q_stride, each};
    const int lanes = lanes_of<T>(s, x, dy, dx, n.norm.w[0], n.norm.w[1]);
    if (lanes)
        LAM_LAUNCH((head_norm_backward_kernel<T, V>), (unsigned)blocks, NORM_THREADS, 0, lam_cuda_stream(), n,
                   lanes);
    else
        LAM_LAUNCH((head_norm_backward_any<T>), (unsigned)blocks, 32, 0, lam_cuda_stream(), n);
    lam_sum_partials(partial, 4, blocks, s->head_dim, {{t->dw[0], t->db[0], t->dw[1], t->db[1]}});
}

/* The workspace; in bytes from its beginning. Backward it begins with what attention itself needs. */
struct room {
    size_t y, dy, mean, rstd, partial, all;
};
size_t whole(size_t bytes) { return (bytes + 255) / 256 * 256; }
room room_of(const lam_attention_shape *s, bool backward, size_t element) {
    const size_t tensor = whole((size_t)(rows_of(s) * s->q_stride) * element),
                 moments = whole((size_t)(2 * rows_of(s) * s->heads) * sizeof(float));
    room r = {};
    r.y = backward ? less_bytes(s) : 0;
    r.dy = r.y + tensor;
    r.mean = r.dy + tensor;
    r.rstd = r.mean + moments;
    r.partial = r.rstd + moments;
    r.all = backward ? r.partial +
                           whole((size_t)(4 * lam_column_partials(rows_of(s)) * s->head_dim) * sizeof(float))
                     : r.dy;
    return r;
}

} // namespace

size_t apart_bytes(const lam_attention_shape *shape, bool backward, size_t element) {
    return room_of(shape, backward, element).all;
}

template <typename T>
void forward_apart(const lam_attention_shape *shape, const void *q, const void *v, void *out, float *lse,
                   void *workspace) {
    const int64_t width = shape->heads * shape->head_dim;
    lam_attention_shape plain = *shape;
    plain.norm.on = false;
    T *y = (T *)workspace;
    if (shape->batch < 1) return;
    normalise<T>(shape, (const T *)q, y, NULL, NULL);
    if constexpr (sizeof(T) == sizeof(float))
        forward_float(&plain, y, y + width, v, out, lse, NULL);
    else
        forward(&plain, y, y + width, v, out, lse, NULL);
}

template <typename T>
void backward_apart(const lam_attention_shape *shape, const lam_attention_tensors *tensors, void *workspace) {
    const int64_t width = shape->heads * shape->head_dim;
    const room r = room_of(shape, true, sizeof(T));
    char *memory = (char *)workspace;
    T *y = (T *)(memory + r.y), *dy = (T *)(memory + r.dy);
    float *mean = (float *)(memory + r.mean), *rstd = (float *)(memory + r.rstd);
    lam_attention_shape plain = *shape;
    lam_attention_tensors t = *tensors;
    plain.norm.on = false;
    t.q = y, t.k = y + width, t.dq = dy, t.dk = dy + width;
    if (shape->batch < 1) return;
    normalise<T>(shape, (const T *)tensors->q, y, mean, rstd);
    if (t.add_kv) /* dv is added to, and with it what is then added to nothing */
        lam_cuda_launched(cudaMemsetAsync(dy, 0, r.mean - r.dy, lam_cuda_stream()), "gradients of attention");
    t.add_q = t.add_kv;
    if constexpr (sizeof(T) == sizeof(float))
        backward_float(&plain, &t, workspace);
    else
        backward(&plain, &t, workspace);
    normalise_backward<T>(shape, tensors, dy, mean, rstd, (float *)(memory + r.partial));
}

template void forward_apart<float>(const lam_attention_shape *, const void *, const void *, void *, float *,
                                   void *);
template void forward_apart<bf16>(const lam_attention_shape *, const void *, const void *, void *, float *,
                                  void *);
template void backward_apart<float>(const lam_attention_shape *, const lam_attention_tensors *, void *);
template void backward_apart<bf16>(const lam_attention_shape *, const lam_attention_tensors *, void *);

} // namespace lam_attention_parts
