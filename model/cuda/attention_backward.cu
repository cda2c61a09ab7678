/* Attention in bfloat16, backward (attention.cuh; Dao 2023, FlashAttention-2, algorithm 2, without its atomic sums). */
#include "model/cuda/attention.cuh"
#include "model/cuda/backend.cuh"

namespace lam_attention_parts {
namespace {

template <int WIDTH> struct backward_sizes {
    static const int QUERY_TILES = WIDTH <= 64 ? 2 : 1, KEY_TILES = WIDTH <= 64 ? 2 : 1; /* of 16 rows in a unit */
    static const int STAGES = 2;
    static const int BLOCKS = WIDTH <= 32 ? 3 : 2;
};

/* Of 8 N rows on the other side, right operands of products over the width: sums[m][n] = start[m or n] + left right^T. */
template <int WIDTH, int ROOM, int TILES, int N>
__device__ __forceinline__ void multiply_rows(float (&sums)[TILES][N][4], const uint32_t (&left)[ROOM][WIDTH / 16][4],
                                              const bf16 *rows) {
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
            for (int n = 0; n < N; n++) lam_multiply(sums[m][n], left[m][c], b[2 * n], b[2 * n + 1], sums[m][n]);
    }
}

/* sums += weights rows, the weights [16 TILES][8 N]. */
template <int WIDTH, int ROOM, int TILES, int N>
__device__ __forceinline__ void multiply_columns(float (&sums)[ROOM][WIDTH / 8][4], const float (&weights)[TILES][N][4],
                                                 const bf16 *rows) {
    uint32_t w[TILES][2 * N];
#pragma unroll
    for (int m = 0; m < TILES; m++)
#pragma unroll
        for (int i = 0; i < 2 * N; i++) w[m][i] = packed(weights[m][i / 2][i % 2 * 2], weights[m][i / 2][i % 2 * 2 + 1]);
#pragma unroll
    for (int c = 0; c < WIDTH / 16; c++) {
        uint32_t b[2 * N];
        if constexpr (N == 2) columns_16<WIDTH>(b, rows, c);
        else columns_8<WIDTH>(b, rows, c);
#pragma unroll
        for (int m = 0; m < TILES; m++)
#pragma unroll
            for (int i = 0; i < 2; i++)
                if constexpr (N == 2) lam_multiply(sums[m][2 * c + i], w[m], b[2 * i], b[2 * i + 1], sums[m][2 * c + i]);
                else lam_multiply_half(sums[m][2 * c + i], w[m], b[i], sums[m][2 * c + i]);
    }
}

/* No probability is above 1, however large the scores and their rounding. */
__device__ __forceinline__ float probability(float score, float scale, float lse) {
    return lam_exp2(lam_smaller(fmaf(score, scale, -lse), 0));
}

/* dq += ds k over 8 N keys; a key that does not take part is a row of zeros. */
template <int WIDTH, int ROOM, int TILES, int N>
__device__ __forceinline__ void to_queries(const uint32_t (&q)[ROOM][WIDTH / 16][4], const uint32_t (&d_out)[ROOM][WIDTH / 16][4],
                                           const bf16 *k, const bf16 *v, const float (&lse)[ROOM][2],
                                           const float (&dot)[ROOM][2], float scale, float (&dq)[ROOM][WIDTH / 8][4]) {
    float s[TILES][N][4], ds[TILES][N][4];
#pragma unroll
    for (int m = 0; m < TILES; m++)
#pragma unroll
        for (int n = 0; n < N; n++)
#pragma unroll
            for (int e = 0; e < 4; e++) s[m][n][e] = 0, ds[m][n][e] = -dot[m][e / 2];
    multiply_rows<WIDTH, ROOM, TILES, N>(s, q, k);
    multiply_rows<WIDTH, ROOM, TILES, N>(ds, d_out, v);
#pragma unroll
    for (int m = 0; m < TILES; m++)
#pragma unroll
        for (int n = 0; n < N; n++)
#pragma unroll
            for (int e = 0; e < 4; e++) ds[m][n][e] *= probability(s[m][n][e], scale, lse[m][e / 2]);
    multiply_columns<WIDTH, ROOM, TILES, N>(dq, ds, k);
}

/* dv += p^T d_out, dk += ds^T q over 8 N queries; what lies behind the last query is 0. */
template <int WIDTH, int ROOM, int TILES, int N>
__device__ __forceinline__ void to_keys(const uint32_t (&k)[ROOM][WIDTH / 16][4], const uint32_t (&v)[ROOM][WIDTH / 16][4],
                                        const bf16 *q, const bf16 *d_out, const float *lse, const float *dots, float scale,
                                        float (&dk)[ROOM][WIDTH / 8][4], float (&dv)[ROOM][WIDTH / 8][4]) {
    const int t = threadIdx.x & 3;
    float p[TILES][N][4], ds[TILES][N][4];
#pragma unroll
    for (int n = 0; n < N; n++) {
        float2 dot = *(const float2 *)(dots + 8 * n + 2 * t);
#pragma unroll
        for (int m = 0; m < TILES; m++)
#pragma unroll
            for (int e = 0; e < 4; e++) p[m][n][e] = 0, ds[m][n][e] = -(e % 2 ? dot.y : dot.x);
    }
    multiply_rows<WIDTH, ROOM, TILES, N>(p, k, q);
    multiply_rows<WIDTH, ROOM, TILES, N>(ds, v, d_out);
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

/* What comes through shared memory in a pass: k and v, or q and d_out with two floats a row. */
struct other_side {
    const bf16 *first, *second; /* of the block's first head */
    int64_t first_stride, second_stride;
    const float *lse, *dots;
    int count;
    const float *mask;
    bf16 *to;   /* first, then second */
    int room;   /* rows of each */
    float *floats;
};

/* Rows of head h of the block into rows `at` of the memory. */
template <int WIDTH>
__device__ __forceinline__ void bring(const other_side &o, const arguments &a, int h, int first, int rows, int at) {
#pragma unroll 1
    for (int side = 0; side < 2; side++)
        bring_rows<WIDTH>(o.to + (side * o.room + at) * layout<WIDTH>::STRIDE, (side ? o.second : o.first) + h * a.head_dim,
                          side ? o.second_stride : o.first_stride, first, rows, o.count, a, o.mask);
    if (!o.lse) return;
#pragma unroll 1
    for (int side = 0; side < 2; side++)
        bring_floats(o.floats + side * o.room + at, (side ? o.dots : o.lse) + (int64_t)h * o.count, first, rows, o.count);
}

/* Goes over the units of a block: open(head, row, works), then step(rows in memory, first row, rows) for each stage, then
 * close. A step with whole rows of 16 and the rest. */
template <int WIDTH, int ROWS, typename O, typename S, typename C>
__device__ __forceinline__ void pass(const other_side &o, const arguments &a, const division &d, int part, O open, S step,
                                     C close) {
    const int STAGES = backward_sizes<WIDTH>::STAGES;
    const int warp = threadIdx.x >> 5, head_rows = (o.count + 7) / 8 * 8, stages = (o.count + STAGE_ROWS - 1) / STAGE_ROWS;
    const int first_unit = part * d.units_a_block, units = min(d.units - first_unit, d.units_a_block);
    if (d.resident) {
#pragma unroll 1
        for (int h = 0; h < d.heads_a_block; h++) bring<WIDTH>(o, a, h, 0, head_rows, h * head_rows);
        lam_copies_close();
    }
    /* Every warp comes to the barriers, also one without a unit; where rows are streamed, there is at most one a warp. */
#pragma unroll 1
    for (int u = warp; u < max(units * d.heads_a_block, WARPS); u += WARPS) {
        const bool works = u < units * d.heads_a_block;
        const int own = works ? u / units : 0, row = (first_unit + u - own * units) * ROWS;
        open(own, row, works);
        if (d.resident && u < WARPS) { /* the first time */
            lam_copies_wait<0>();
            __syncthreads();
        }
#pragma unroll 1
        for (int i = d.resident ? 0 : 1 - STAGES; i < stages; i++) {
            if (!d.resident) {
                int next = i + STAGES - 1;
                if (i >= 0) {
                    lam_copies_wait<STAGES - 2>();
                    __syncthreads();
                }
                if (next < stages)
                    bring<WIDTH>(o, a, 0, next * STAGE_ROWS, min(STAGE_ROWS, head_rows - next * STAGE_ROWS),
                                 next % STAGES * STAGE_ROWS);
                lam_copies_close();
                if (i < 0) continue;
            }
            if (works)
                step(own * head_rows + (d.resident ? i : i % STAGES) * STAGE_ROWS, row, min(STAGE_ROWS, o.count - i * STAGE_ROWS));
        }
        if (works) close(own, row);
    }
}

/* Gradients of queries; d_out . out of each query. */
template <int WIDTH>
__device__ __forceinline__ void queries_pass(const arguments &a, bf16 *memory, int sample, int head, int part) {
    const int TILES = backward_sizes<WIDTH>::QUERY_TILES, STRIDE = layout<WIDTH>::STRIDE, STAGES = backward_sizes<WIDTH>::STAGES;
    const division &d = a.by_queries;
    const float scale = a.scale * LOG2_E;
    const int64_t keys = sample * (a.keys * a.kv_stride) + head * a.head_dim;
    other_side o = {};
    o.first = a.k + keys, o.second = a.v + keys;
    o.first_stride = o.second_stride = a.kv_stride;
    o.count = a.dq ? a.keys : 0; /* 0: only d_out . out is wanted */
    o.mask = a.key_mask ? a.key_mask + (int64_t)sample * a.keys : NULL;
    o.to = memory;
    o.room = d.resident ? d.heads_a_block * ((o.count + 7) / 8 * 8) : STAGES * STAGE_ROWS;
    uint32_t q[TILES][WIDTH / 16][4], d_out[TILES][WIDTH / 16][4];
    float lse[TILES][2], dot[TILES][2], dq[TILES][WIDTH / 8][4];
    auto open = [&](int own, int row, bool works) {
        const int lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3, end = works ? a.queries : 0;
        const int64_t at = (int64_t)sample * a.queries, column = (head + own) * a.head_dim;
        const int64_t rows = ((int64_t)sample * a.heads + head + own) * a.queries;
        load_unit<WIDTH, TILES>(d_out, a.d_out + at * a.out_stride + column, a.out_stride, row, end, a, NULL);
#pragma unroll
        for (int m = 0; m < TILES; m++) {
            uint32_t out[1][WIDTH / 16][4];
            load_unit<WIDTH, 1>(out, a.out + at * a.out_stride + column, a.out_stride, row + 16 * m, end, a, NULL);
#pragma unroll
            for (int half = 0; half < 2; half++) {
                float sum = 0;
                int number = row + 16 * m + 8 * half + g;
#pragma unroll
                for (int c = 0; c < WIDTH / 16; c++)
#pragma unroll
                    for (int i = half; i < 4; i += 2)
                        sum += low_of(out[0][c][i]) * low_of(d_out[m][c][i]) + high_of(out[0][c][i]) * high_of(d_out[m][c][i]);
                dot[m][half] = sum_of_row(sum);
                lse[m][half] = number < end ? a.lse[rows + number] : 0;
                if (t == 0 && number < end) a.dots[rows + number] = dot[m][half];
            }
#pragma unroll
            for (int c = 0; c < WIDTH / 8; c++)
#pragma unroll
                for (int e = 0; e < 4; e++) dq[m][c][e] = 0;
        }
        load_unit<WIDTH, TILES>(q, a.q + at * a.q_stride + column, a.q_stride, row, end, a, NULL);
    };
    auto step = [&](int at, int row, int rows) {
        const bf16 *k = o.to + at * STRIDE, *v = k + o.room * STRIDE;
        const bool whole = TILES == 1 || row + 16 < a.queries;
#pragma unroll 1
        for (; rows > 0; rows -= 16, k += 16 * STRIDE, v += 16 * STRIDE)
            if (whole && rows > 8) to_queries<WIDTH, TILES, TILES, 2>(q, d_out, k, v, lse, dot, scale, dq);
            else if (whole) to_queries<WIDTH, TILES, TILES, 1>(q, d_out, k, v, lse, dot, scale, dq);
            else if (rows > 8) to_queries<WIDTH, TILES, 1, 2>(q, d_out, k, v, lse, dot, scale, dq);
            else to_queries<WIDTH, TILES, 1, 1>(q, d_out, k, v, lse, dot, scale, dq);
    };
    auto close = [&](int own, int row) {
        if (!a.dq) return;
        bool present[TILES][2];
        float factor[TILES][2];
#pragma unroll
        for (int m = 0; m < TILES; m++)
#pragma unroll
            for (int half = 0; half < 2; half++) present[m][half] = true, factor[m][half] = a.scale;
        store_unit<WIDTH, TILES>(dq, factor, present,
                                 a.dq + sample * (a.queries * a.q_stride) + (head + own) * a.head_dim, a.q_stride, row, a.queries, a,
                                 a.add_q);
    };
    pass<WIDTH, 16 * TILES>(o, a, d, part, open, step, close);
}

/* Gradients of keys and values. */
template <int WIDTH>
__device__ __forceinline__ void keys_pass(const arguments &a, bf16 *memory, int sample, int head, int part) {
    const int TILES = backward_sizes<WIDTH>::KEY_TILES, STRIDE = layout<WIDTH>::STRIDE, STAGES = backward_sizes<WIDTH>::STAGES;
    const division &d = a.by_keys;
    const float scale = a.scale * LOG2_E;
    other_side o = {};
    o.first = a.q + sample * (a.queries * a.q_stride) + head * a.head_dim;
    o.second = a.d_out + sample * (a.queries * a.out_stride) + head * a.head_dim;
    o.first_stride = a.q_stride, o.second_stride = a.out_stride;
    o.lse = a.lse + ((int64_t)sample * a.heads + head) * a.queries;
    o.dots = a.dots + ((int64_t)sample * a.heads + head) * a.queries;
    o.count = a.queries;
    o.to = memory;
    o.room = d.resident ? d.heads_a_block * ((o.count + 7) / 8 * 8) : STAGES * STAGE_ROWS;
    o.floats = (float *)(memory + 2 * o.room * STRIDE);
    const float *mask = a.key_mask ? a.key_mask + (int64_t)sample * a.keys : NULL;
    uint32_t k[TILES][WIDTH / 16][4], v[TILES][WIDTH / 16][4];
    float dk[TILES][WIDTH / 8][4], dv[TILES][WIDTH / 8][4];
    bool works_on;
    auto open = [&](int own, int row, bool works) {
        const int64_t at = sample * (a.keys * a.kv_stride) + (head + own) * a.head_dim;
        const int lane = threadIdx.x & 31, number = row + lane, end = works ? a.keys : 0;
        /* Of 32 keys; with TILES 1 the upper 16 belong to another unit. */
        works_on = __any_sync(ALL, lane < 16 * TILES && number < end && (!mask || mask[number] != 0));
        load_unit<WIDTH, TILES>(k, a.k + at, a.kv_stride, row, end, a, mask);
        load_unit<WIDTH, TILES>(v, a.v + at, a.kv_stride, row, end, a, mask);
#pragma unroll
        for (int m = 0; m < TILES; m++)
#pragma unroll
            for (int c = 0; c < WIDTH / 8; c++)
#pragma unroll
                for (int e = 0; e < 4; e++) dk[m][c][e] = dv[m][c][e] = 0;
    };
    auto step = [&](int at, int row, int rows) {
        if (!works_on) return;
        const bf16 *q = o.to + at * STRIDE, *d_out = q + o.room * STRIDE;
        const float *lse = o.floats + at, *dots = lse + o.room;
        const bool whole = TILES == 1 || row + 16 < a.keys;
#pragma unroll 1
        for (; rows > 0; rows -= 16, q += 16 * STRIDE, d_out += 16 * STRIDE, lse += 16, dots += 16)
            if (whole && rows > 8) to_keys<WIDTH, TILES, TILES, 2>(k, v, q, d_out, lse, dots, scale, dk, dv);
            else if (whole) to_keys<WIDTH, TILES, TILES, 1>(k, v, q, d_out, lse, dots, scale, dk, dv);
            else if (rows > 8) to_keys<WIDTH, TILES, 1, 2>(k, v, q, d_out, lse, dots, scale, dk, dv);
            else to_keys<WIDTH, TILES, 1, 1>(k, v, q, d_out, lse, dots, scale, dk, dv);
    };
    auto close = [&](int own, int row) {
        const int g = lam_anew(threadIdx.x) >> 2 & 7;
        const int64_t at = sample * (a.keys * a.kv_stride) + (head + own) * a.head_dim;
        bool present[TILES][2];
        float factor[TILES][2], one[TILES][2];
#pragma unroll
        for (int m = 0; m < TILES; m++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                int number = row + 16 * m + 8 * half + g;
                present[m][half] = !mask || (number < a.keys && mask[number] != 0);
                factor[m][half] = a.scale;
                one[m][half] = 1;
            }
        store_unit<WIDTH, TILES>(dk, factor, present, a.dk + at, a.kv_stride, row, a.keys, a, a.add_kv);
        store_unit<WIDTH, TILES>(dv, one, present, a.dv + at, a.kv_stride, row, a.keys, a, a.add_kv);
    };
    pass<WIDTH, 16 * TILES>(o, a, d, part, open, step, close);
}

enum { BY_QUERIES = 1, BY_KEYS = 2 };

/* Both passes of the block's heads, when all their rows fit into shared memory, or one. */
template <int WIDTH>
__global__ void __launch_bounds__(THREADS, backward_sizes<WIDTH>::BLOCKS) attention_backward(const arguments a, int passes) {
    LAM_DYNAMIC_SHARED(unsigned char, memory);
    const division &d = passes & BY_QUERIES ? a.by_queries : a.by_keys;
    const int parts = (d.units + d.units_a_block - 1) / d.units_a_block, groups = a.heads / d.heads_a_block;
    const int part = blockIdx.x % parts, head = blockIdx.x / parts % groups * d.heads_a_block,
              sample = blockIdx.x / parts / groups;
    if (passes & BY_QUERIES) queries_pass<WIDTH>(a, (bf16 *)memory, sample, head, part);
    if (passes == (BY_QUERIES | BY_KEYS)) __syncthreads(); /* dots are written, the memory is read */
    if (passes & BY_KEYS) keys_pass<WIDTH>(a, (bf16 *)memory, sample, head, part);
}

template <int WIDTH> void launch(arguments a, const lam_attention_shape *s) {
    typedef backward_sizes<WIDTH> z;
    const size_t row = 2 * layout<WIDTH>::STRIDE * sizeof(bf16), floats = 2 * sizeof(float);
    const size_t of_keys = (size_t)round_up(a.keys, 8) * row, of_queries = (size_t)round_up(a.queries, 8) * (row + floats);
    static const bool allowed = allow_shared((const void *)attention_backward<WIDTH>);
    (void)allowed;
    a.by_queries = divide(a, s->batch, a.queries, 16 * z::QUERY_TILES, of_keys, 0, z::BLOCKS);
    a.by_keys = divide(a, s->batch, a.keys, 16 * z::KEY_TILES, of_queries, 0, z::BLOCKS);
    division &q = a.by_queries, &k = a.by_keys;
    const size_t q_bytes = q.resident ? (size_t)q.heads_a_block * of_keys : z::STAGES * STAGE_ROWS * row,
                 k_bytes = k.resident ? (size_t)k.heads_a_block * of_queries : z::STAGES * STAGE_ROWS * (row + floats);
    const bool whole = q.resident && k.resident && q.units_a_block == q.units && k.units_a_block == k.units;
    if (a.dk && whole && q.heads_a_block == k.heads_a_block) {
        LAM_LAUNCH((attention_backward<WIDTH>), blocks_of(a, s->batch, q), THREADS, q_bytes > k_bytes ? q_bytes : k_bytes,
                   lam_cuda_stream(), a, BY_QUERIES | BY_KEYS);
        return;
    }
    LAM_LAUNCH((attention_backward<WIDTH>), blocks_of(a, s->batch, q), THREADS, q_bytes, lam_cuda_stream(), a, BY_QUERIES);
    if (!a.dk) return;
    LAM_LAUNCH((attention_backward<WIDTH>), blocks_of(a, s->batch, k), THREADS, k_bytes, lam_cuda_stream(), a, BY_KEYS);
}

} // namespace

void backward(const lam_attention_shape *shape, const lam_attention_tensors *tensors, void *workspace) {
    const lam_attention_tensors *t = tensors;
    arguments a = arguments_of(shape, t->q, t->k, t->v);
    a.out = (const bf16 *)t->out, a.d_out = (const bf16 *)t->d_out;
    a.lse = (float *)t->lse, a.dots = (float *)workspace;
    a.dq = (bf16 *)t->dq, a.dk = (bf16 *)t->dk, a.dv = (bf16 *)t->dv;
    a.add_q = t->add_q, a.add_kv = t->add_kv;
    a.vectors = a.vectors && is_aligned(t->out, shape->out_stride) && is_aligned(t->d_out, shape->out_stride) &&
                is_aligned(t->dq, shape->q_stride) && is_aligned(t->dk, shape->kv_stride) &&
                is_aligned(t->dv, shape->kv_stride);
    with_width(shape->head_dim, [&](auto width) { launch<decltype(width)::value>(a, shape); });
}

} // namespace lam_attention_parts
