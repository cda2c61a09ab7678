/* Attention in bfloat16, forward (attention.cuh has the counts).
 *
 * Softmax needs no maximum: softmax(s) = softmax(s - c) for every c, and float holds 2^-126 to 2^127, so that scores
 * are taken as they are, without a look for the largest and without scaling what was summed. Where the sum of a row
 * shows that its scores are too far from 0 for that, its unit is computed once more by the online softmax, with the
 * largest score so far subtracted, which is exact for scores of any size. */
#include "model/cuda/attention_heads.cuh"
#include "model/cuda/attention_pass.cuh"
#include "model/cuda/backend.cuh"

namespace lam_attention_parts {
namespace {

/* Rows of 16 in a unit, stages of the ring, and blocks that registers leave on a multiprocessor. */
template <int WIDTH, bool VECTORS> struct forward_sizes {
    static const int TILES = WIDTH <= 112 ? 2 : 1;
    static const int AT_ONCE = WIDTH == 64 || WIDTH == 112 ? 2 : 4; /* blocks of 8 keys in one step */
    static const int STAGES = WIDTH <= 64 ? 3 : 2;
    static const int BLOCKS = WIDTH <= 32 ? 4 : WIDTH <= 64 ? 3 : 2;
    static const int POLYNOMIAL = WIDTH <= 32 ? 2 : 0; /* exponentials of 16 that the multipliers compute */
};

const float SUM_MOST = 1.2676506e30f, SUM_LEAST = 7.8886091e-31f; /* 2^100, 2^-100 */

/* Which keys are visible, one bit a key, by all threads of the block; a barrier must follow. */
__device__ __forceinline__ void visible_keys(uint32_t *words, const float *mask, int keys) {
    for (int i = threadIdx.x; i < (keys + 31) / 32 * 32; i += THREADS) {
        uint32_t word = __ballot_sync(ALL, i < keys && mask[i] != 0);
        if ((threadIdx.x & 31) == 0) words[i / 32] = word;
    }
}
__device__ __forceinline__ uint32_t first_keys(int count) { return count >= 32 ? ALL : (1u << count) - 1u; }

/* 2^x for x <= 127 by a polynomial on [-1/2, 1/2], relative error 7.5e-5 (minimax); below 2^-126 it is 2^-126. */
__device__ __forceinline__ float exp2_polynomial(float x) {
    const float ROUND = 12582912; /* 1.5 * 2^23: what is added to it is rounded to a whole number */
    x = lam_smaller(lam_larger(x, -126), 127);
    float shifted = x + ROUND, f = x - (shifted - ROUND);
    float y = fmaf(fmaf(fmaf(0.0551716691f, f, 0.2426111222f), f, 0.6932609854f), f, 0.9999280735f);
    return y * __uint_as_float((__float_as_uint(shifted) << 23) + 0x3f800000u);
}

/* Of a unit: sums of p v and, as a product with ones, of p as it is rounded for that, so that the weights of a row
 * add up to 1 and a row that sees one key gets its value. */
template <int WIDTH, int TILES> struct running {
    float out[TILES][WIDTH / 8][4];
    float sum[TILES][4]; /* the same in all columns */
};
const uint32_t ONES = 0x3f803f80u;

/* 8 N keys of which `visible` says which take part (bit 0 the first; WHOLE: all do), p = 2^(scale score). */
template <int WIDTH, bool VECTORS, int ROOM, int TILES, int N, bool WHOLE>
__device__ __forceinline__ void attend(const uint32_t (&q)[ROOM][WIDTH / 16][4], lam_shared k, lam_shared v,
                                       uint32_t visible, float scale, running<WIDTH, ROOM> &r) {
    const int t = threadIdx.x & 3;
    const float zero[4] = {};
    float s[TILES][N][4];
#pragma unroll
    for (int n = 0; n < N; n += 2)
#pragma unroll
        for (int c = 0; c < WIDTH / 16; c++) {
            uint32_t b[4];
            if constexpr (N > 1) {
                rows_16<WIDTH>(b, k + n * 8 * layout<WIDTH>::ROW_BYTES, c);
            } else {
                uint32_t half[2];
                rows_8<WIDTH>(half, k, c);
                b[0] = half[0], b[1] = half[1], b[2] = b[3] = 0;
            }
#pragma unroll
            for (int m = 0; m < TILES; m++)
#pragma unroll
                for (int i = 0; i < 2 && n + i < N; i++)
                    if (c)
                        lam_multiply(s[m][n + i], q[m][c], b[2 * i], b[2 * i + 1], s[m][n + i]);
                    else
                        lam_multiply(s[m][n + i], q[m][c], b[2 * i], b[2 * i + 1], zero);
        }
#pragma unroll
    for (int m = 0; m < TILES; m++)
#pragma unroll
        for (int n = 0; n < N; n++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                const int SHARE = forward_sizes<WIDTH, VECTORS>::POLYNOMIAL, at = (m * N + n) * 4 + e;
                const bool by_polynomial = WHOLE && at * SHARE / 16 != (at + 1) * SHARE / 16;
                float x = s[m][n][e] * scale;
                x = by_polynomial ? exp2_polynomial(x) : lam_exp2(x);
                if (!WHOLE && !(visible >> (8 * n + 2 * t + e % 2) & 1)) x = 0;
                s[m][n][e] = x;
            }
    if constexpr (N > 1) {
#pragma unroll
        for (int n = 0; n < N; n += 2) {
            uint32_t p[TILES][4];
#pragma unroll
            for (int m = 0; m < TILES; m++)
#pragma unroll
                for (int i = 0; i < 4; i++)
                    p[m][i] = packed(s[m][n + i / 2][i % 2 * 2], s[m][n + i / 2][i % 2 * 2 + 1]);
#pragma unroll
            for (int m = 0; m < TILES; m++) lam_multiply(r.sum[m], p[m], ONES, ONES, r.sum[m]);
#pragma unroll
            for (int c = 0; c < WIDTH / 16; c++) {
                uint32_t b[4];
                columns_16<WIDTH>(b, v + n * 8 * layout<WIDTH>::ROW_BYTES, c);
#pragma unroll
                for (int m = 0; m < TILES; m++)
#pragma unroll
                    for (int i = 0; i < 2; i++)
                        lam_multiply(r.out[m][2 * c + i], p[m], b[2 * i], b[2 * i + 1], r.out[m][2 * c + i]);
            }
        }
    } else {
        uint32_t p[TILES][2];
#pragma unroll
        for (int m = 0; m < TILES; m++)
#pragma unroll
            for (int i = 0; i < 2; i++) p[m][i] = packed(s[m][0][2 * i], s[m][0][2 * i + 1]);
#pragma unroll
        for (int m = 0; m < TILES; m++) lam_multiply_half(r.sum[m], p[m], ONES, r.sum[m]);
#pragma unroll
        for (int c = 0; c < WIDTH / 16; c++) {
            uint32_t b[2];
            columns_8<WIDTH>(b, v, c);
#pragma unroll
            for (int m = 0; m < TILES; m++)
#pragma unroll
                for (int i = 0; i < 2; i++)
                    lam_multiply_half(r.out[m][2 * c + i], p[m], b[i], r.out[m][2 * c + i]);
        }
    }
}

/* `count` keys of which key `first` of the head lies in row `at` of the memory; bits of the visible keys lie behind
 * both sides. */
template <int WIDTH, bool VECTORS, int ROOM, int TILES>
__device__ __forceinline__ void attend_all(const arguments &a, const uint32_t (&q)[ROOM][WIDTH / 16][4],
                                           const unsigned char *memory, int side, int at, int first,
                                           int count, running<WIDTH, ROOM> &r) {
    const int N = forward_sizes<WIDTH, VECTORS>::AT_ONCE, EIGHT = 8 * layout<WIDTH>::ROW_BYTES;
    const lam_shared rows = lam_shared_at(memory) + at * layout<WIDTH>::ROW_BYTES;
    lam_shared k = rows + lane_of_rows<WIDTH>(), v = rows + side + lane_of_columns<WIDTH>();
    for (;;) {
        int whole = count >> 5; /* words in a row whose keys are all visible */
        uint32_t visible = first_keys(count & 31);
        if (a.key_mask) {
            const uint32_t *words = (const uint32_t *)(memory + 2 * side);
            whole = 0;
            while (32 * whole < count && (visible = __shfl_sync(ALL, words[(first >> 5) + whole], 0)) == ALL)
                whole++;
        }
#pragma unroll 1
        for (int n = whole * (4 / N); n > 0; n--) {
            attend<WIDTH, VECTORS, ROOM, TILES, N, true>(q, k, v, ALL, a.exponent, r);
            k += N * EIGHT, v += N * EIGHT;
        }
        first += 32 * whole, count -= 32 * whole;
        if (count <= 0) return;
            /* Eight keys at a time are read as rows are, keys and values alike. */
#pragma unroll 1
        for (int n = 0; n < 4 && visible >> (8 * n); n++)
            if (visible >> (8 * n) & 0xffu)
                attend<WIDTH, VECTORS, ROOM, TILES, 1, false>(q, k + n * EIGHT, k + side + n * EIGHT,
                                                              visible >> (8 * n), a.exponent, r);
        first += 32, count -= 32, k += 4 * EIGHT, v += 4 * EIGHT;
        if (count <= 0) return;
    }
}

/* The online softmax over all keys, 8 at a time, from memory of the device, with a norm from `rows`, the head's in shared memory,
 * which nothing else has normalised: slow, seldom wanted. most: the row's largest score; whether a key takes part. */
template <int WIDTH, bool VECTORS, bool NORM, int TILES>
__device__ __forceinline__ bool attend_online(const arguments &a, const uint32_t (&q)[TILES][WIDTH / 16][4],
                                              lam_shared rows, int head, running<WIDTH, TILES> &r,
                                              float (&most)[TILES][2]) {
    const int64_t at = sample_of(a) * (a.keys * a.kv_stride) + head * a.head_dim;
    const float *mask = a.key_mask ? a.key_mask + sample_of(a) * a.keys : NULL;
    const float zero[4] = {};
    unsigned seen = 0;
    r = {};
#pragma unroll
    for (int m = 0; m < TILES; m++) most[m][0] = most[m][1] = -INFINITY;
#pragma unroll 1
    for (int key = 0; key < a.keys; key += 8) {
        const int lane = lane_anew(), g = lane >> 2, t = lane & 3;
        const bool present = key + g < a.keys && (!mask || mask[key + g] != 0);
        const unsigned visible = __ballot_sync(ALL, present); /* bit 4 i: key i */
        const bf16 *row = a.k + at + (present ? (key + g) * a.kv_stride : 0);
        float s[TILES][4];
        seen |= visible;
#pragma unroll
        for (int c = 0; c < WIDTH / 16; c++) {
            uint32_t b[2];
            if constexpr (NORM) {
                rows_8<WIDTH>(b, rows + key * layout<WIDTH>::ROW_BYTES + lane_of_rows<WIDTH>(), c);
            } else {
                b[0] = pair_of<VECTORS>(row, 16 * c + 2 * t, present ? a.head_dim : 0);
                b[1] = pair_of<VECTORS>(row, 16 * c + 8 + 2 * t, present ? a.head_dim : 0);
            }
#pragma unroll
            for (int m = 0; m < TILES; m++)
                if (c)
                    lam_multiply(s[m], q[m][c], b[0], b[1], s[m]);
                else
                    lam_multiply(s[m], q[m][c], b[0], b[1], zero);
        }
        uint32_t p[TILES][2];
#pragma unroll
        for (int m = 0; m < TILES; m++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const bool low = visible >> (8 * t) & 1, high = visible >> (8 * t + 4) & 1;
                float x = low ? s[m][2 * half] : -INFINITY, y = high ? s[m][2 * half + 1] : -INFINITY;
                const float largest = fmaxf(most[m][half], largest_of_row(fmaxf(x, y)));
                const float factor =
                    largest > most[m][half] ? lam_exp2((most[m][half] - largest) * a.exponent) : 1;
                most[m][half] = largest;
                x = low ? lam_exp2((x - largest) * a.exponent) : 0;
                y = high ? lam_exp2((y - largest) * a.exponent) : 0;
                r.sum[m][2 * half] *= factor, r.sum[m][2 * half + 1] *= factor;
#pragma unroll
                for (int j = 0; j < WIDTH / 8; j++)
                    r.out[m][j][2 * half] *= factor, r.out[m][j][2 * half + 1] *= factor;
                p[m][half] = packed(x, y);
            }
#pragma unroll
        for (int m = 0; m < TILES; m++) lam_multiply_half(r.sum[m], p[m], ONES, r.sum[m]);
        if constexpr (NORM) {
#pragma unroll
            for (int c = 0; c < WIDTH / 16; c++) {
                uint32_t b[2];
                columns_8<WIDTH>(
                    b, rows + a.by_queries.side + key * layout<WIDTH>::ROW_BYTES + lane_of_rows<WIDTH>(), c);
#pragma unroll
                for (int m = 0; m < TILES; m++)
#pragma unroll
                    for (int i = 0; i < 2; i++)
                        lam_multiply_half(r.out[m][2 * c + i], p[m], b[i], r.out[m][2 * c + i]);
            }
            continue;
        }
        const int first = key + 2 * t, one = visible >> (8 * t) & 1, two = visible >> (8 * t + 4) & 1;
        const bf16 *value = a.v + at + (one ? first * a.kv_stride : 0),
                   *next = a.v + at + (two ? (first + 1) * a.kv_stride : 0);
#pragma unroll
        for (int j = 0; j < WIDTH / 8; j++) {
            const int column = 8 * j + g;
            const bool inside = column < a.head_dim;
            const uint32_t low = inside && one ? __bfloat16_as_ushort(value[column]) : 0,
                           high = inside && two ? __bfloat16_as_ushort(next[column]) : 0;
#pragma unroll
            for (int m = 0; m < TILES; m++)
                lam_multiply_half(r.out[m][j], p[m], low | high << 16, r.out[m][j]);
        }
    }
    return seen;
}

template <int WIDTH, bool VECTORS, bool NORM>
__global__ void __launch_bounds__(THREADS, forward_sizes<WIDTH, VECTORS>::BLOCKS)
    attention_forward(const arguments a) {
    LAM_DYNAMIC_SHARED(unsigned char, memory);
    const int TILES = forward_sizes<WIDTH, VECTORS>::TILES, STAGES = forward_sizes<WIDTH, VECTORS>::STAGES;
    const division &d = a.by_queries;
    if (d.resident) bring_heads<WIDTH, VECTORS, true>(a, d, memory, false);
    if (a.key_mask)
        visible_keys((uint32_t *)(memory + 2 * d.side), a.key_mask + sample_of(a) * a.keys, a.keys);
    uint32_t q[TILES][WIDTH / 16][4];
    running<WIDTH, TILES> r;
    auto open = [&](const unit &u, int end) {
        r = {};
        load_unit<WIDTH, VECTORS, TILES>(q,
                                         a.q + sample_of(a) * (a.queries * a.q_stride) + u.head * a.head_dim,
                                         a.q_stride, u.row, end, a.head_dim, NULL);
        if (NORM) normalise_unit<WIDTH, TILES>(q, a.norm, 0, a.head_dim);
        return u.row < end;
    };
    auto step = [&](int at, int first, int count, bool whole) {
        if (TILES == 1 || whole)
            attend_all<WIDTH, VECTORS, TILES, TILES>(a, q, memory, d.side, at, first, count, r);
        else
            attend_all<WIDTH, VECTORS, TILES, 1>(a, q, memory, d.side, at, first, count, r);
    };
    auto close = [&](const unit &u) {
        const int lane = lane_anew(), g = lane >> 2, head = u.head, row = u.row;
        const int64_t sample = sample_of(a);
        float most[TILES][2];
        bool bad = false, seen = true;
#pragma unroll
        for (int m = 0; m < TILES; m++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                most[m][half] = 0;
                /* What is no number stays so. */
                bad |= row + 16 * m + 8 * half + g < a.queries &&
                       (r.sum[m][2 * half] <= SUM_LEAST || r.sum[m][2 * half] >= SUM_MOST);
            }
        if (__any_sync(ALL, bad))
            seen = attend_online<WIDTH, VECTORS, NORM, TILES>(
                a, q, lam_shared_at(memory) + u.own * ((a.keys + 7) / 8 * 8) * layout<WIDTH>::ROW_BYTES, head,
                r, most);
        bool present[TILES][2];
        float factor[TILES][2];
#pragma unroll
        for (int m = 0; m < TILES; m++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const int number = row + 16 * m + 8 * half + g;
                present[m][half] = seen;
                factor[m][half] = 1 / r.sum[m][2 * half];
                if ((lane & 3) == 0 && number < a.queries)
                    a.lse[(sample * a.heads + head) * a.queries + number] =
                        seen ? log2f(r.sum[m][2 * half]) + most[m][half] * a.exponent : 0;
            }
        store_unit<WIDTH, VECTORS, TILES>(r.out, factor, present,
                                          a.result + sample * (a.queries * a.out_stride) + head * a.head_dim,
                                          a.out_stride, row, a.queries, a.head_dim, false);
    };
    pass<WIDTH, VECTORS, TILES, STAGES, true, 0>(a, d, memory, a.queries, a.keys, open, step, close,
                                                 arrival_of<WIDTH, true, NORM>(a, d, memory));
}

template <int WIDTH, bool VECTORS> need need_of(const arguments &a, bool masked) {
    typedef forward_sizes<WIDTH, VECTORS> z;
    const size_t words = masked ? (size_t)lam_blocks(a.keys, 32) * sizeof(uint32_t) : 0;
    return {a.queries, 16 * z::TILES, a.keys, z::STAGES, layout<WIDTH>::ROW_BYTES, 0, words, z::BLOCKS};
}

template <int WIDTH, bool VECTORS, bool NORM> void launch(arguments a, const lam_attention_shape *s) {
    const need n = need_of<WIDTH, VECTORS>(a, s->key_mask);
    static const bool allowed = allow_shared((const void *)attention_forward<WIDTH, VECTORS, NORM>);
    (void)allowed;
    a.by_queries = divide(a, s->batch, n);
    for_samples(a, a.by_queries, s->batch, [&](dim3 grid, const arguments &part) {
        LAM_LAUNCH((attention_forward<WIDTH, VECTORS, NORM>), grid, THREADS, shared_bytes(a.by_queries, n),
                   lam_cuda_stream(), part);
    });
}

} // namespace

bool forward_takes_norm(const lam_attention_shape *shape) {
    bool takes = false;
    const arguments a = arguments_of(shape, NULL, NULL, NULL);
    with_norm_width(shape->head_dim, [&](auto width) {
        takes = divide(a, 1, need_of<decltype(width)::WIDTH, true>(a, true)).resident;
    });
    return takes && is_for_norm(shape);
}

void forward(const lam_attention_shape *shape, const void *q, const void *k, const void *v, void *out,
             float *lse, void *workspace) {
    if (shape->norm.on && !forward_takes_norm(shape))
        return forward_apart<bf16>(shape, q, v, out, lse, workspace);
    arguments a = arguments_of(shape, q, k, v);
    a.result = (bf16 *)out, a.lse = lse;
    a.vectors = a.vectors && is_aligned(out, shape->out_stride);
    if (shape->norm.on)
        with_norm_width(a.head_dim,
                        [&](auto width) { launch<decltype(width)::WIDTH, true, true>(a, shape); });
    else
        with_width(a, [&](auto width) {
            launch<decltype(width)::WIDTH, decltype(width)::VECTORS, false>(a, shape);
        });
}

} // namespace lam_attention_parts
