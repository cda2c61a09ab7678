/* Attention in bfloat16, backward (attention.cuh; Dao 2023, FlashAttention-2, algorithm 2, without its atomic
 * sums). */
#include "model/cuda/attention_heads.cuh"
#include "model/cuda/attention_pass.cuh"
#include "model/cuda/backend.cuh"
#include "model/cuda/vector.cuh"

namespace lam_attention_parts {
namespace {

template <int WIDTH> struct backward_sizes {
    static const int QUERY_TILES = WIDTH <= 80 ? 2 : 1,
                     KEY_TILES = WIDTH <= 64 ? 2 : 1; /* of 16 rows in a unit */
    static const int STAGES = 2;
    static const int BLOCKS = WIDTH <= 32 ? 3 : 2;
};

/* C of a product. */
struct quad {
    float x[4];
};

/* sums = left rows^T over the width, of 8 N rows on the other side; START: 0 only that, 1 plus start[m], 2 plus
 * start[n]. */
template <int WIDTH, int ROOM, int TILES, int N, int START, typename Q>
__device__ __forceinline__ void multiply_rows(float (&sums)[TILES][N][4],
                                              const uint32_t (&left)[ROOM][WIDTH / 16][4], lam_shared rows,
                                              const Q &start) {
    rows += lane_of_rows<WIDTH>();
#pragma unroll
    for (int c = 0; c < WIDTH / 16; c++) {
        uint32_t b[4];
        if constexpr (N == 2) {
            rows_16<WIDTH>(b, rows, c);
        } else {
            uint32_t half[2];
            rows_8<WIDTH>(half, rows, c);
            b[0] = half[0], b[1] = half[1], b[2] = b[3] = 0;
        }
#pragma unroll
        for (int m = 0; m < TILES; m++)
#pragma unroll
            for (int n = 0; n < N; n++)
                if (c)
                    lam_multiply(sums[m][n], left[m][c], b[2 * n], b[2 * n + 1], sums[m][n]);
                else
                    lam_multiply(sums[m][n], left[m][c], b[2 * n], b[2 * n + 1],
                                 start[START == 1   ? m
                                       : START == 2 ? n
                                                    : 0]
                                     .x);
    }
}

/* sums += weights rows, the weights [16 TILES][8 N]. */
template <int WIDTH, int ROOM, int TILES, int N>
__device__ __forceinline__ void multiply_columns(float (&sums)[ROOM][WIDTH / 8][4],
                                                 const float (&weights)[TILES][N][4], lam_shared rows) {
    uint32_t w[TILES][2 * N];
    rows += N == 2 ? lane_of_columns<WIDTH>() : lane_of_rows<WIDTH>();
#pragma unroll
    for (int m = 0; m < TILES; m++)
#pragma unroll
        for (int i = 0; i < 2 * N; i++)
            w[m][i] = packed(weights[m][i / 2][i % 2 * 2], weights[m][i / 2][i % 2 * 2 + 1]);
#pragma unroll
    for (int c = 0; c < WIDTH / 16; c++) {
        uint32_t b[2 * N];
        if constexpr (N == 2)
            columns_16<WIDTH>(b, rows, c);
        else
            columns_8<WIDTH>(b, rows, c);
#pragma unroll
        for (int m = 0; m < TILES; m++)
#pragma unroll
            for (int i = 0; i < 2; i++)
                if constexpr (N == 2)
                    lam_multiply(sums[m][2 * c + i], w[m], b[2 * i], b[2 * i + 1], sums[m][2 * c + i]);
                else
                    lam_multiply_half(sums[m][2 * c + i], w[m], b[i], sums[m][2 * c + i]);
    }
}

/* No probability is above 1, however large the scores and their rounding. */
__device__ __forceinline__ float probability(float score, float scale, float lse) {
    return lam_exp2(lam_smaller(fmaf(score, scale, -lse), 0));
}

/* dq += ds k over 8 N keys; a key that does not take part is a row of zeros. less: minus d_out . out of the
 * rows. */
template <int WIDTH, int ROOM, int TILES, int N>
__device__ __forceinline__ void
to_queries(const uint32_t (&q)[ROOM][WIDTH / 16][4], const uint32_t (&d_out)[ROOM][WIDTH / 16][4],
           lam_shared k, lam_shared v, const float (&lse)[ROOM][2], const quad (&less)[ROOM], float scale,
           float (&dq)[ROOM][WIDTH / 8][4]) {
    const quad zero[1] = {};
    float s[TILES][N][4], ds[TILES][N][4];
    multiply_rows<WIDTH, ROOM, TILES, N, 0>(s, q, k, zero);
    multiply_rows<WIDTH, ROOM, TILES, N, 1>(ds, d_out, v, less);
#pragma unroll
    for (int m = 0; m < TILES; m++)
#pragma unroll
        for (int n = 0; n < N; n++)
#pragma unroll
            for (int e = 0; e < 4; e++) ds[m][n][e] *= probability(s[m][n][e], scale, lse[m][e / 2]);
    multiply_columns<WIDTH, ROOM, TILES, N>(dq, ds, k);
}

/* dv += p^T d_out, dk += ds^T q over 8 N queries; what lies behind the last query is 0. less: minus d_out .
 * out, each pair of queries twice, as C of a product has it. */
template <int WIDTH, int ROOM, int TILES, int N>
__device__ __forceinline__ void to_keys(const uint32_t (&k)[ROOM][WIDTH / 16][4],
                                        const uint32_t (&v)[ROOM][WIDTH / 16][4], lam_shared q,
                                        lam_shared d_out, const float *lse, const float *less, float scale,
                                        float (&dk)[ROOM][WIDTH / 8][4], float (&dv)[ROOM][WIDTH / 8][4]) {
    const int t = threadIdx.x & 3;
    const quad zero[1] = {};
    quad start[N];
    float p[TILES][N][4], ds[TILES][N][4];
#pragma unroll
    for (int n = 0; n < N; n++) {
        const float4 c = *(const float4 *)(less + 16 * n + 4 * t);
        start[n].x[0] = c.x, start[n].x[1] = c.y, start[n].x[2] = c.z, start[n].x[3] = c.w;
    }
    multiply_rows<WIDTH, ROOM, TILES, N, 0>(p, k, q, zero);
    multiply_rows<WIDTH, ROOM, TILES, N, 2>(ds, v, d_out, start);
#pragma unroll
    for (int n = 0; n < N; n++) {
        float2 of = *(const float2 *)(lse + 8 * n + 2 * t);
#pragma unroll
        for (int m = 0; m < TILES; m++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                p[m][n][e] = probability(p[m][n][e], scale, e % 2 ? of.y : of.x);
                ds[m][n][e] *= p[m][n][e];
            }
    }
    multiply_columns<WIDTH, ROOM, TILES, N>(dv, p, d_out);
    multiply_columns<WIDTH, ROOM, TILES, N>(dk, ds, q);
}

/* Whether the queries of the sample see a key at all: all lanes ask for the same, mostly once. A vote would take
 * registers that the kernels do not have. */
__device__ __forceinline__ bool sees_a_key(const arguments &a) {
    if (!a.key_mask) return true;
    const float *mask = a.key_mask + sample_of(a) * a.keys;
    int key = 0;
#pragma unroll 1
    while (key < a.keys && mask[key] == 0) key++;
    return key < a.keys;
}

/* Gradients of queries; minus d_out . out of each query, which with lse goes to `floats` where the other pass has
 * them in shared memory. */
template <int WIDTH, bool VECTORS, bool NORM, int UNDER_WAY>
__device__ __forceinline__ void queries_pass(const arguments &a, unsigned char *memory, float *floats) {
    const int TILES = backward_sizes<WIDTH>::QUERY_TILES, STAGES = backward_sizes<WIDTH>::STAGES;
    const int keys = a.dq ? a.keys : 0; /* 0: only `less` is wanted */
    uint32_t q[TILES][WIDTH / 16][4], d_out[TILES][WIDTH / 16][4];
    float lse[TILES][2], dq[TILES][WIDTH / 8][4];
    quad less[TILES];
    auto open = [&](const unit &u, int end) {
        const int lane = lane_anew(), g = lane >> 2, t = lane & 3, head = u.head, row = u.row;
        const int64_t first_row = sample_of(a) * a.queries;
        const int64_t column = head * a.head_dim;
        const int64_t rows = (sample_of(a) * a.heads + head) * a.queries;
        uint32_t out[TILES][WIDTH / 16][4];
        if (!sees_a_key(a)) end = 0; /* else dq were 0 times what may be no number */
        load_unit<WIDTH, VECTORS, TILES>(d_out, a.d_out + first_row * a.out_stride + column, a.out_stride,
                                         row, end, a.head_dim, NULL);
        load_unit<WIDTH, VECTORS, TILES>(out, a.out + first_row * a.out_stride + column, a.out_stride, row,
                                         end, a.head_dim, NULL);
#pragma unroll
        for (int m = 0; m < TILES; m++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const int number = row + 16 * m + 8 * half + g;
                lse[m][half] = number < end ? a.lse[rows + number] : 0;
            }
        load_unit<WIDTH, VECTORS, TILES>(q, a.q + first_row * a.q_stride + column, a.q_stride, row, end,
                                         a.head_dim, NULL);
        if (NORM) normalise_unit<WIDTH, TILES>(q, a.norm, 0, a.head_dim);
#pragma unroll
        for (int m = 0; m < TILES; m++) {
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const int number = row + 16 * m + 8 * half + g;
                float sum = 0;
#pragma unroll
                for (int c = 0; c < WIDTH / 16; c++)
#pragma unroll
                    for (int i = half; i < 4; i += 2)
                        sum -= low_of(out[m][c][i]) * low_of(d_out[m][c][i]) +
                               high_of(out[m][c][i]) * high_of(d_out[m][c][i]);
                sum = sum_of_row(sum);
                less[m].x[2 * half] = sum, less[m].x[2 * half + 1] = twin_of(sum);
                if (t == 0 && floats) {
                    const int room = a.by_keys.room, rows_here = (a.queries + 7) / 8 * 8,
                              at = u.own * rows_here + number;
                    if (number < rows_here && end) {
                        float *pair = floats + room + at / 2 * 4 + at % 2;
                        floats[at] = lse[m][half], pair[0] = sum, pair[2] = sum;
                    }
                } else if (t == 0 && number < end) {
                    a.less[rows + number] = sum;
                }
            }
#pragma unroll
            for (int c = 0; c < WIDTH / 8; c++)
#pragma unroll
                for (int e = 0; e < 4; e++) dq[m][c][e] = 0;
        }
        return row < end;
    };
    auto step = [&](int at, int, int left, bool whole) {
        whole = TILES == 1 || whole;
        lam_shared k = lam_shared_at(memory) + at * layout<WIDTH>::ROW_BYTES;
        const int side = a.by_queries.side;
        if (whole) {
#pragma unroll 1
            for (; left > 8; left -= 16, k += 16 * layout<WIDTH>::ROW_BYTES)
                to_queries<WIDTH, TILES, TILES, 2>(q, d_out, k, k + side, lse, less, a.exponent, dq);
            if (left > 0)
                to_queries<WIDTH, TILES, TILES, 1>(q, d_out, k, k + side, lse, less, a.exponent, dq);
        } else {
#pragma unroll 1
            for (; left > 0; left -= 8, k += 8 * layout<WIDTH>::ROW_BYTES)
                to_queries<WIDTH, TILES, 1, 1>(q, d_out, k, k + side, lse, less, a.exponent, dq);
        }
    };
    auto close = [&](const unit &u) {
        if (!a.dq) return;
        const int head = u.head, row = u.row;
        const int64_t first_row = sample_of(a) * a.queries;
        bool present[TILES][2];
        float factor[TILES][2];
#pragma unroll
        for (int m = 0; m < TILES; m++)
#pragma unroll
            for (int half = 0; half < 2; half++) present[m][half] = true, factor[m][half] = a.scale;
        if constexpr (NORM) {
            int64_t further;
            float *to = sums_norm_of(a, a.by_queries, 0, row / (16 * TILES), head, further);
            load_unit<WIDTH, VECTORS, TILES>(q, a.q + first_row * a.q_stride + head * a.head_dim, a.q_stride,
                                             row, sees_a_key(a) ? a.queries : 0, a.head_dim, NULL);
            through_norm<WIDTH, TILES>(dq, q, present, a.scale, a.norm, 0, a.head_dim, to, further, factor);
        }
        store_unit<WIDTH, VECTORS, TILES>(dq, factor, present,
                                          a.dq + first_row * a.q_stride + head * a.head_dim, a.q_stride, row,
                                          a.queries, a.head_dim, a.add_q);
        if (!a.sums_q) return; /* behind the last query dq is 0 */
        const int64_t number = sample_of(a) * a.by_queries.units + row / (16 * TILES);
        sum_unit<WIDTH, TILES>(dq, factor, a.sums_q + (number * a.heads + head) * a.head_dim, a.head_dim);
    };
    pass<WIDTH, VECTORS, TILES, STAGES, true, UNDER_WAY>(
        a, a.by_queries, memory, a.queries, keys, open, step, close,
        arrival_of<WIDTH, true, NORM>(a, a.by_queries, memory));
}

/* Where a unit's sums of dk go; those of dv lie heads * head_dim behind. */
__device__ __forceinline__ float *sums_kv_of(const arguments &a, int unit, int head) {
    const int64_t number = sample_of(a) * a.by_keys.units + unit;
    return a.sums_kv + (number * 2 * a.heads + head) * a.head_dim;
}

/* Gradients of keys and values. */
template <int WIDTH, bool VECTORS, bool NORM>
__device__ __forceinline__ void keys_pass(const arguments &a, unsigned char *memory) {
    const int TILES = backward_sizes<WIDTH>::KEY_TILES, STAGES = backward_sizes<WIDTH>::STAGES;
    uint32_t k[TILES][WIDTH / 16][4], v[TILES][WIDTH / 16][4];
    float dk[TILES][WIDTH / 8][4], dv[TILES][WIDTH / 8][4];
    auto open = [&](const unit &u, int end) {
        const int head = u.head, row = u.row;
        const int64_t first_row = sample_of(a) * a.keys;
        const float *mask = a.key_mask ? a.key_mask + first_row : NULL;
        const int64_t at = first_row * a.kv_stride + head * a.head_dim;
        const int number = row + lane_anew() % (16 * TILES);
        load_unit<WIDTH, VECTORS, TILES>(k, a.k + at, a.kv_stride, row, end, a.head_dim, mask);
        if (NORM) normalise_unit<WIDTH, TILES>(k, a.norm, 1, a.head_dim);
        load_unit<WIDTH, VECTORS, TILES>(v, a.v + at, a.kv_stride, row, end, a.head_dim, mask);
#pragma unroll
        for (int m = 0; m < TILES; m++)
#pragma unroll
            for (int c = 0; c < WIDTH / 8; c++)
#pragma unroll
                for (int e = 0; e < 4; e++) dk[m][c][e] = dv[m][c][e] = 0;
        return (bool)__any_sync(ALL, number < end && (!mask || mask[number] != 0));
    };
    auto step = [&](int at, int, int left, bool whole) {
        const float *floats = (const float *)(memory + a.floats), *lse = floats + at,
                    *less = floats + a.by_keys.room + 2 * at;
        whole = TILES == 1 || whole;
        lam_shared q = lam_shared_at(memory) + at * layout<WIDTH>::ROW_BYTES;
        const int side = a.by_keys.side;
        if (whole) {
#pragma unroll 1
            for (; left > 8; left -= 16, q += 16 * layout<WIDTH>::ROW_BYTES, lse += 16, less += 32)
                to_keys<WIDTH, TILES, TILES, 2>(k, v, q, q + side, lse, less, a.exponent, dk, dv);
            if (left > 0) to_keys<WIDTH, TILES, TILES, 1>(k, v, q, q + side, lse, less, a.exponent, dk, dv);
        } else {
#pragma unroll 1
            for (; left > 0; left -= 8, q += 8 * layout<WIDTH>::ROW_BYTES, lse += 8, less += 16)
                to_keys<WIDTH, TILES, 1, 1>(k, v, q, q + side, lse, less, a.exponent, dk, dv);
        }
    };
    auto close = [&](const unit &u) {
        const int g = lane_anew() >> 2, head = u.head, row = u.row;
        const int64_t first_row = sample_of(a) * a.keys;
        const float *mask = a.key_mask ? a.key_mask + first_row : NULL;
        const int64_t at = first_row * a.kv_stride + head * a.head_dim;
        bool present[TILES][2];
        float factor[TILES][2], one[TILES][2];
#pragma unroll
        for (int m = 0; m < TILES; m++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                int number = row + 16 * m + 8 * half + g;
                present[m][half] = !mask || (number < a.keys && mask[number] != 0);
                if (NORM) present[m][half] = present[m][half] && number < a.keys;
                factor[m][half] = a.scale;
                one[m][half] = !NORM || present[m][half] ? 1 : 0;
            }
        if constexpr (NORM) { /* values first, which leaves registers */
            store_unit<WIDTH, VECTORS, TILES>(dv, one, present, a.dv + at, a.kv_stride, row, a.keys,
                                              a.head_dim, a.add_kv);
            float *sums = sums_kv_of(a, row / (16 * TILES), head);
            if (a.sums_kv) sum_unit<WIDTH, TILES>(dv, one, sums + (int64_t)a.heads * a.head_dim, a.head_dim);
            int64_t further;
            float *to = sums_norm_of(a, a.by_keys, 1, row / (16 * TILES), head, further);
            load_unit<WIDTH, VECTORS, TILES>(k, a.k + at, a.kv_stride, row, a.keys, a.head_dim, mask);
            through_norm<WIDTH, TILES>(dk, k, present, a.scale, a.norm, 1, a.head_dim, to, further, factor);
            store_unit<WIDTH, VECTORS, TILES>(dk, factor, present, a.dk + at, a.kv_stride, row, a.keys,
                                              a.head_dim, a.add_kv);
            if (a.sums_kv) sum_unit<WIDTH, TILES>(dk, factor, sums, a.head_dim);
            return;
        }
        store_unit<WIDTH, VECTORS, TILES>(dk, factor, present, a.dk + at, a.kv_stride, row, a.keys,
                                          a.head_dim, a.add_kv);
        store_unit<WIDTH, VECTORS, TILES>(dv, one, present, a.dv + at, a.kv_stride, row, a.keys, a.head_dim,
                                          a.add_kv);
        if (!a.sums_kv) return;
#pragma unroll
        for (int m = 0; m < TILES; m++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                if (present[m][half] && row + 16 * m + 8 * half + g < a.keys) continue;
                factor[m][half] = one[m][half] = 0;
            }
        float *sums = sums_kv_of(a, row / (16 * TILES), head);
        sum_unit<WIDTH, TILES>(dk, factor, sums, a.head_dim);
        sum_unit<WIDTH, TILES>(dv, one, sums + (int64_t)a.heads * a.head_dim, a.head_dim);
    };
    pass<WIDTH, VECTORS, TILES, STAGES, false, 0>(a, a.by_keys, memory, a.keys, a.queries, open, step, close,
                                                  arrival_of<WIDTH, false, NORM>(a, a.by_keys, memory));
}

/* Both passes of the block's heads, where all their rows fit into shared memory; those of the second lie apart from
 * those of the first, and come with them, where there is room for both. */
template <int WIDTH, bool VECTORS, bool NORM>
__global__ void __launch_bounds__(THREADS, backward_sizes<WIDTH>::BLOCKS)
    attention_backward(const arguments a) {
    LAM_DYNAMIC_SHARED(unsigned char, memory);
    unsigned char *second = memory + a.apart;
    if (a.dq) bring_heads<WIDTH, VECTORS, true>(a, a.by_queries, memory, true);
    if (a.apart)
        bring_heads<WIDTH, VECTORS, false>(a, a.by_keys, second, false);
    else
        lam_copies_close();
    queries_pass<WIDTH, VECTORS, NORM, 1>(a, memory, (float *)(second + a.floats));
    if (!a.apart) {
        __syncthreads(); /* the memory has been read */
        bring_heads<WIDTH, VECTORS, false>(a, a.by_keys, second, false);
    }
    keys_pass<WIDTH, VECTORS, NORM>(a, second);
}
template <int WIDTH, bool VECTORS>
__global__ void __launch_bounds__(THREADS, backward_sizes<WIDTH>::BLOCKS)
    attention_backward_queries(const arguments a) {
    LAM_DYNAMIC_SHARED(unsigned char, memory);
    if (a.by_queries.resident && a.dq) bring_heads<WIDTH, VECTORS, true>(a, a.by_queries, memory, true);
    queries_pass<WIDTH, VECTORS, false, 0>(a, memory, NULL);
}
template <int WIDTH, bool VECTORS>
__global__ void __launch_bounds__(THREADS, backward_sizes<WIDTH>::BLOCKS)
    attention_backward_keys(const arguments a) {
    LAM_DYNAMIC_SHARED(unsigned char, memory);
    if (a.by_keys.resident) bring_heads<WIDTH, VECTORS, false>(a, a.by_keys, memory, true);
    keys_pass<WIDTH, VECTORS, false>(a, memory);
}

/* The next table of the workspace: a row for each unit of each sample. */
float *table_of(lam_cuda_partials *sums, int64_t rows, float **room) {
    if (!sums->columns) return NULL;
    float *table = *room;
    sums->from = table, sums->rows = rows;
    *room += rows * sums->columns;
    return table;
}

template <int WIDTH> need need_of_keys(const arguments &a) {
    typedef backward_sizes<WIDTH> z;
    return {a.keys,
            16 * z::KEY_TILES,
            a.queries,
            z::STAGES,
            layout<WIDTH>::ROW_BYTES,
            FLOATS * (int)sizeof(float),
            0,
            z::BLOCKS};
}

/* Both passes in one launch of grid by_queries; q_bytes, k_bytes: what each has in shared memory. */
template <int WIDTH, bool VECTORS, bool NORM>
void launch_both(arguments a, const lam_attention_shape *s, size_t q_bytes, size_t k_bytes, size_t room) {
    static const bool allowed = allow_shared((const void *)attention_backward<WIDTH, VECTORS, NORM>);
    (void)allowed;
    const division &by_q = a.by_queries, &by_k = a.by_keys;
    const bool apart = q_bytes + k_bytes <= room;
    const int both = by_q.side > by_k.side ? 2 * by_q.side : 2 * by_k.side;
    a.apart = apart ? (int)q_bytes : 0;
    a.floats = apart ? 2 * by_k.side : both; /* not where keys and values are still read */
    const size_t bytes = (size_t)(a.apart + a.floats) + (size_t)by_k.room * FLOATS * sizeof(float);
    for_samples(a, by_q, s->batch, [&](dim3 grid, const arguments &part) {
        LAM_LAUNCH((attention_backward<WIDTH, VECTORS, NORM>), grid, THREADS, bytes, lam_cuda_stream(), part);
    });
}

/* `sums` behind the workspace's other part. */
template <int WIDTH, bool VECTORS>
void launch(arguments a, const lam_attention_shape *s, lam_cuda_partials *sums_q, lam_cuda_partials *sums_kv,
            float *sums) {
    typedef backward_sizes<WIDTH> z;
    const need q = {a.queries, 16 * z::QUERY_TILES, a.keys, z::STAGES, layout<WIDTH>::ROW_BYTES, 0, 0,
                    z::BLOCKS},
               k = need_of_keys<WIDTH>(a);
    static const bool allowed = allow_shared((const void *)attention_backward_queries<WIDTH, VECTORS>) &&
                                allow_shared((const void *)attention_backward_keys<WIDTH, VECTORS>);
    (void)allowed;
    const division &by_q = a.by_queries = divide(a, s->batch, q), &by_k = a.by_keys = divide(a, s->batch, k);
    a.sums_q = table_of(sums_q, s->batch * by_q.units, &sums);
    a.sums_kv = table_of(sums_kv, s->batch * by_k.units, &sums);
    const size_t q_bytes = shared_bytes(by_q, q), k_bytes = shared_bytes(by_k, k);
    if (a.dq && a.dk && by_q.units_a_block == by_q.units && by_k.units_a_block == by_k.units &&
        by_q.resident && by_k.resident && by_q.heads_a_block == by_k.heads_a_block)
        return launch_both<WIDTH, VECTORS, false>(a, s, q_bytes, k_bytes, room_of_block(q));
    for_samples(a, by_q, s->batch, [&](dim3 grid, const arguments &part) {
        LAM_LAUNCH((attention_backward_queries<WIDTH, VECTORS>), grid, THREADS, q_bytes, lam_cuda_stream(),
                   part);
    });
    if (!a.dk) return;
    a.floats = 2 * by_k.side;
    for_samples(a, by_k, s->batch, [&](dim3 grid, const arguments &part) {
        LAM_LAUNCH((attention_backward_keys<WIDTH, VECTORS>), grid, THREADS, k_bytes, lam_cuda_stream(),
                   part);
    });
}

/* With the norm of whole heads, of which a block has all units: as many queries as keys, so that both passes are divided alike. */
template <int WIDTH>
void launch_norm(arguments a, const lam_attention_shape *s, const lam_attention_tensors *t,
                 lam_cuda_partials *sums_q, lam_cuda_partials *sums_kv, float *sums) {
    static_assert(backward_sizes<WIDTH>::QUERY_TILES == backward_sizes<WIDTH>::KEY_TILES,
                  "units of queries and of keys have as many rows");
    const need n = need_of_keys<WIDTH>(a);
    division d = divide(a, s->batch, n);
    d.units_a_block = d.units, d.parts = 1;
    a.by_queries = a.by_keys = d;
    const int64_t of_a_part = (int64_t)d.units * a.heads * a.head_dim, of_a_sample = 4 * of_a_part;
    a.sums_norm = sums, a.sums_norm_sample = of_a_sample;
    sums += s->batch * of_a_sample;
    a.sums_q = table_of(sums_q, s->batch * d.units, &sums);
    a.sums_kv = table_of(sums_kv, s->batch * d.units, &sums);
    need q = n;
    q.extra = 0;
    launch_both<WIDTH, true, true>(a, s, shared_bytes(d, q), shared_bytes(d, n), room_of_block(n));
    /* All samples' into the first one's, then over its units and heads. */
    lam_sum_rows(a.sums_norm + of_a_sample, s->batch - 1, of_a_sample, of_a_sample, a.sums_norm);
    lam_sum_partials(a.sums_norm, 4, (int64_t)d.units * a.heads, a.head_dim,
                     {{t->dw[0], t->db[0], t->dw[1], t->db[1]}});
}

} // namespace

bool backward_takes_norm(const lam_attention_shape *shape) {
    bool takes = false;
    const arguments a = arguments_of(shape, NULL, NULL, NULL);
    with_norm_width(shape->head_dim, [&](auto width) {
        takes = divide(a, 1, need_of_keys<decltype(width)::WIDTH>(a)).resident;
    });
    return takes && is_for_norm(shape);
}

size_t sums_norm_bytes(const lam_attention_shape *shape) {
    int64_t units = lam_blocks(shape->keys, 16);
    return ((size_t)(4 * shape->batch * units * shape->heads * shape->head_dim) * sizeof(float) + 255) / 256 *
           256;
}

void backward_with_sums(const lam_attention_shape *shape, const lam_attention_tensors *tensors,
                        void *workspace, lam_cuda_partials *sums_q, lam_cuda_partials *sums_kv) {
    const lam_attention_tensors *t = tensors;
    if (shape->norm.on && !backward_takes_norm(shape)) return backward_apart<bf16>(shape, tensors, workspace);
    arguments a = arguments_of(shape, t->q, t->k, t->v);
    a.out = (const bf16 *)t->out, a.d_out = (const bf16 *)t->d_out;
    a.lse = (float *)t->lse, a.less = (float *)workspace;
    a.dq = (bf16 *)t->dq, a.dk = (bf16 *)t->dk, a.dv = (bf16 *)t->dv;
    a.add_q = t->add_q, a.add_kv = t->add_kv;
    a.vectors = a.vectors && is_aligned(t->out, shape->out_stride) &&
                is_aligned(t->d_out, shape->out_stride) && is_aligned(t->dq, shape->q_stride) &&
                is_aligned(t->dk, shape->kv_stride) && is_aligned(t->dv, shape->kv_stride);
    float *sums = (float *)((char *)workspace + less_bytes(shape));
    if (shape->norm.on)
        with_norm_width(a.head_dim, [&](auto width) {
            launch_norm<decltype(width)::WIDTH>(a, shape, t, sums_q, sums_kv, sums);
        });
    else
        with_width(a, [&](auto width) {
            launch<decltype(width)::WIDTH, decltype(width)::VECTORS>(a, shape, sums_q, sums_kv, sums);
        });
    const lam_cuda_partials tables[] = {*sums_q, *sums_kv};
    lam_cuda_fold_partials(tables, 2);
}

void backward(const lam_attention_shape *shape, const lam_attention_tensors *tensors, void *workspace) {
    lam_cuda_partials none = {};
    backward_with_sums(shape, tensors, workspace, &none, &none);
}

} // namespace lam_attention_parts
