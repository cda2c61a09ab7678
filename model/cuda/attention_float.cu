/* Attention in float32: the reference. Bound by shared memory (about one load a multiplication); 128 threads,
 * at most 168 registers, (2 * 32 + 2 * 8) (head_dim + 1) floats of shared memory. A block has 32 rows of queries
 * (or keys), four lanes a row; the other side passes in tiles of 8 rows. Each lane takes two of the 8 scores of
 * its row and every fourth column of the results. */
#include "model/cuda/attention_rows.cuh"
#include "model/cuda/backend.cuh"

namespace lam_attention_parts {
namespace {

const int OWN = 32, OTHER = 8, COLUMNS = 32; /* head_dim <= 4 COLUMNS */

struct float_arguments {
    lam_attention_shape s;
    lam_attention_tensors t;
    float *out, *lse, *dots;
    float scale;
};

/* Rows first to first + count of a head into [count][head_dim + 1]; 0 from row `end` on and where `mask` has 0. */
__device__ __forceinline__ void bring_floats_of(float *to, const void *from, int64_t stride, int64_t first,
                                                int count, int64_t end, int head_dim, const float *mask) {
    for (int i = threadIdx.x; i < count * head_dim; i += THREADS) {
        int64_t row = first + i / head_dim;
        int column = i % head_dim;
        bool present = row < end && (!mask || mask[row] != 0);
        to[i / head_dim * (head_dim + 1) + column] =
            present ? ((const float *)from)[row * stride + column] : 0;
    }
}

__device__ __forceinline__ float dot_of(const float *a, const float *b, int count) {
    float sum = 0;
    for (int i = 0; i < count; i++) sum = fmaf(a[i], b[i], sum);
    return sum;
}

/* sums[i] += weight of each of the 8 rows times its column 4 i + lane; a lane has the weights of rows 2 lane
 * and 2 lane + 1. */
__device__ __forceinline__ void add_rows(float (&sums)[COLUMNS], const float (&weights)[2], const float *rows,
                                         int head_dim) {
    const int sub = threadIdx.x & 3, first = threadIdx.x & 28;
#pragma unroll
    for (int j = 0; j < OTHER; j++) {
        float weight = __shfl_sync(ALL, weights[j % 2], first + j / 2);
#pragma unroll
        for (int i = 0; i < COLUMNS; i++)
            if (4 * i + sub < head_dim)
                sums[i] = fmaf(weight, rows[j * (head_dim + 1) + 4 * i + sub], sums[i]);
    }
}

__device__ __forceinline__ void store_row(float *row, const float (&sums)[COLUMNS], float factor,
                                          int head_dim, bool add) {
    const int sub = threadIdx.x & 3;
#pragma unroll
    for (int i = 0; i < COLUMNS; i++)
        if (4 * i + sub < head_dim) row[4 * i + sub] = (add ? row[4 * i + sub] : 0) + factor * sums[i];
}

/* A block's sample, head and first row. */
struct position {
    int64_t sample, head, first;
};
__device__ __forceinline__ position position_of(const float_arguments &a, int64_t rows) {
    int64_t parts = (rows + OWN - 1) / OWN, head = blockIdx.x / parts;
    return {head / a.s.heads, head % a.s.heads, blockIdx.x % parts * OWN};
}

__global__ void __launch_bounds__(THREADS, 3) attention_forward_float(const float_arguments a) {
    LAM_DYNAMIC_SHARED(float, memory);
    const int hd = (int)a.s.head_dim, wide = hd + 1, r = threadIdx.x >> 2, sub = threadIdx.x & 3;
    const position at = position_of(a, a.s.queries);
    const int64_t keys = at.sample * a.s.keys * a.s.kv_stride + at.head * hd, row = at.first + r,
                  queries = at.sample * a.s.queries;
    const float *mask = a.s.key_mask ? a.s.key_mask + at.sample * a.s.keys : NULL;
    float *q = memory, *k = q + OWN * wide, *v = k + OTHER * wide;
    float sums[COLUMNS] = {}, largest = -INFINITY, sum = 0;
    bring_floats_of(q, (const float *)a.t.q + queries * a.s.q_stride + at.head * hd, a.s.q_stride, at.first,
                    OWN, a.s.queries, hd, NULL);
    for (int64_t start = 0; start < a.s.keys; start += OTHER) {
        __syncthreads();
        bring_floats_of(k, (const float *)a.t.k + keys, a.s.kv_stride, start, OTHER, a.s.keys, hd, mask);
        bring_floats_of(v, (const float *)a.t.v + keys, a.s.kv_stride, start, OTHER, a.s.keys, hd, mask);
        __syncthreads();
        float p[2], most = largest;
#pragma unroll
        for (int j = 0; j < 2; j++) {
            int64_t key = start + 2 * sub + j;
            bool seen = key < a.s.keys && (!mask || mask[key] != 0);
            /* Rounded before the largest is subtracted, so that the largest gives exactly 1. */
            p[j] = seen ? __fmul_rn(dot_of(q + r * wide, k + (2 * sub + j) * wide, hd), a.scale * LOG2_E)
                        : -INFINITY;
            most = fmaxf(most, p[j]);
        }
        most = largest_of_row(most);
        float reference = most == -INFINITY ? 0 : most, factor = exp2f(largest - reference);
        largest = most;
        sum *= factor;
#pragma unroll
        for (int i = 0; i < COLUMNS; i++) sums[i] *= factor;
        for (int j = 0; j < 2; j++) sum += p[j] = exp2f(p[j] - reference);
        add_rows(sums, p, v, hd);
    }
    sum = sum_of_row(sum);
    const bool none = sum == 0; /* no key was seen */
    if (row >= a.s.queries) return;
    if (sub == 0)
        a.lse[(at.sample * a.s.heads + at.head) * a.s.queries + row] = none ? 0 : largest + log2f(sum);
    store_row(a.out + (queries + row) * a.s.out_stride + at.head * hd, sums, none ? 0 : 1 / sum, hd, false);
}

__device__ __forceinline__ float probability_float(float score, float scale, float lse) {
    float x = __fmul_rn(score, scale * LOG2_E) - lse;
    return exp2f(x > 0 ? 0 : x);
}

/* Gradients of queries, if wanted, and d_out . out. */
__global__ void __launch_bounds__(THREADS, 3) attention_queries_float(const float_arguments a) {
    LAM_DYNAMIC_SHARED(float, memory);
    const int hd = (int)a.s.head_dim, wide = hd + 1, r = threadIdx.x >> 2, sub = threadIdx.x & 3;
    const position at = position_of(a, a.s.queries);
    const int64_t keys = at.sample * a.s.keys * a.s.kv_stride + at.head * hd, row = at.first + r,
                  queries = at.sample * a.s.queries,
                  statistic = (at.sample * a.s.heads + at.head) * a.s.queries + row;
    const float *mask = a.s.key_mask ? a.s.key_mask + at.sample * a.s.keys : NULL;
    const bool own = row < a.s.queries;
    float *q = memory, *d_out = q + OWN * wide, *k = d_out + OWN * wide, *v = k + OTHER * wide;
    float sums[COLUMNS] = {}, dot = 0, lse = own ? a.t.lse[statistic] : 0;
    bring_floats_of(q, (const float *)a.t.q + queries * a.s.q_stride + at.head * hd, a.s.q_stride, at.first,
                    OWN, a.s.queries, hd, NULL);
    bring_floats_of(d_out, (const float *)a.t.d_out + queries * a.s.out_stride + at.head * hd, a.s.out_stride,
                    at.first, OWN, a.s.queries, hd, NULL);
    __syncthreads();
    const float *out = (const float *)a.t.out + (queries + row) * a.s.out_stride + at.head * hd;
    for (int i = sub; own && i < hd; i += 4) dot = fmaf(out[i], d_out[r * wide + i], dot);
    dot = sum_of_row(dot);
    if (own && sub == 0) a.dots[statistic] = dot;
    if (!a.t.dq) return;
    for (int64_t start = 0; start < a.s.keys; start += OTHER) {
        __syncthreads();
        bring_floats_of(k, (const float *)a.t.k + keys, a.s.kv_stride, start, OTHER, a.s.keys, hd, mask);
        bring_floats_of(v, (const float *)a.t.v + keys, a.s.kv_stride, start, OTHER, a.s.keys, hd, mask);
        __syncthreads();
        float ds[2];
#pragma unroll
        for (int j = 0; j < 2; j++) {
            int64_t key = start + 2 * sub + j;
            const float *k_row = k + (2 * sub + j) * wide, *v_row = v + (2 * sub + j) * wide;
            bool seen = key < a.s.keys && (!mask || mask[key] != 0);
            ds[j] = seen ? probability_float(dot_of(q + r * wide, k_row, hd), a.scale, lse) *
                               (dot_of(d_out + r * wide, v_row, hd) - dot)
                         : 0;
        }
        add_rows(sums, ds, k, hd);
    }
    if (own)
        store_row((float *)a.t.dq + (queries + row) * a.s.q_stride + at.head * hd, sums, a.scale, hd,
                  a.t.add_q);
}

/* Gradients of keys and values. */
__global__ void __launch_bounds__(THREADS, 3) attention_keys_float(const float_arguments a) {
    LAM_DYNAMIC_SHARED(float, memory);
    const int hd = (int)a.s.head_dim, wide = hd + 1, r = threadIdx.x >> 2, sub = threadIdx.x & 3;
    const position at = position_of(a, a.s.keys);
    const int64_t keys = at.sample * a.s.keys * a.s.kv_stride + at.head * hd, row = at.first + r,
                  queries = at.sample * a.s.queries,
                  statistic = (at.sample * a.s.heads + at.head) * a.s.queries;
    const float *mask = a.s.key_mask ? a.s.key_mask + at.sample * a.s.keys : NULL;
    const bool own = row < a.s.keys, seen = own && (!mask || mask[row] != 0);
    float *k = memory, *v = k + OWN * wide, *q = v + OWN * wide, *d_out = q + OTHER * wide;
    float dk[COLUMNS] = {}, dv[COLUMNS] = {};
    bring_floats_of(k, (const float *)a.t.k + keys, a.s.kv_stride, at.first, OWN, a.s.keys, hd, mask);
    bring_floats_of(v, (const float *)a.t.v + keys, a.s.kv_stride, at.first, OWN, a.s.keys, hd, mask);
    for (int64_t start = 0; start < a.s.queries; start += OTHER) {
        __syncthreads();
        bring_floats_of(q, (const float *)a.t.q + queries * a.s.q_stride + at.head * hd, a.s.q_stride, start,
                        OTHER, a.s.queries, hd, NULL);
        bring_floats_of(d_out, (const float *)a.t.d_out + queries * a.s.out_stride + at.head * hd,
                        a.s.out_stride, start, OTHER, a.s.queries, hd, NULL);
        __syncthreads();
        float p[2], ds[2];
#pragma unroll
        for (int j = 0; j < 2; j++) {
            int64_t query = start + 2 * sub + j;
            bool present = seen && query < a.s.queries;
            const float *q_row = q + (2 * sub + j) * wide, *d_row = d_out + (2 * sub + j) * wide;
            p[j] = present ? probability_float(dot_of(k + r * wide, q_row, hd), a.scale,
                                               a.t.lse[statistic + query])
                           : 0;
            ds[j] = present ? p[j] * (dot_of(v + r * wide, d_row, hd) - a.dots[statistic + query]) : 0;
        }
        add_rows(dv, p, d_out, hd);
        add_rows(dk, ds, q, hd);
    }
    if (!own) return;
#pragma unroll
    for (int i = 0; i < COLUMNS; i++)
        if (!seen) dk[i] = dv[i] = 0; /* not 0 times what a query may be that is no number */
    store_row((float *)a.t.dk + keys + row * a.s.kv_stride, dk, a.scale, hd, a.t.add_kv);
    store_row((float *)a.t.dv + keys + row * a.s.kv_stride, dv, 1, hd, a.t.add_kv);
}

unsigned blocks_of(const lam_attention_shape *s, int64_t rows) {
    return (unsigned)(s->batch * s->heads * lam_blocks(rows, OWN));
}

size_t bytes_of(const lam_attention_shape *s, int own, int other) {
    return (size_t)(own * OWN + other * OTHER) * (size_t)(s->head_dim + 1) * sizeof(float);
}

} // namespace

void forward_float(const lam_attention_shape *shape, const void *q, const void *k, const void *v, void *out,
                   float *lse, void *workspace) {
    if (shape->norm.on) return forward_apart<float>(shape, q, v, out, lse, workspace);
    float_arguments a = {};
    a.s = *shape;
    a.t.q = q, a.t.k = k, a.t.v = v;
    a.out = (float *)out, a.lse = lse;
    a.scale = 1 / sqrtf((float)shape->head_dim);
    LAM_LAUNCH((attention_forward_float), blocks_of(shape, shape->queries), THREADS, bytes_of(shape, 1, 2),
               lam_cuda_stream(), a);
}

void backward_float(const lam_attention_shape *shape, const lam_attention_tensors *tensors, void *workspace) {
    if (shape->norm.on) return backward_apart<float>(shape, tensors, workspace);
    float_arguments a = {};
    a.s = *shape;
    a.t = *tensors;
    a.dots = (float *)workspace;
    a.scale = 1 / sqrtf((float)shape->head_dim);
    LAM_LAUNCH((attention_queries_float), blocks_of(shape, shape->queries), THREADS, bytes_of(shape, 2, 2),
               lam_cuda_stream(), a);
    if (!tensors->dk) return;
    LAM_LAUNCH((attention_keys_float), blocks_of(shape, shape->keys), THREADS, bytes_of(shape, 2, 2),
               lam_cuda_stream(), a);
}

} // namespace lam_attention_parts
