/* Attention in bfloat16, forward (attention.cuh has the counts).
 *
 * The online softmax has no maximum in its way: the scores come out of the product with a reference subtracted,
 * the row's largest score of the unit's first keys, by starting the sums at minus the reference. As long as no
 * sum of probabilities says that a score lies far above it, it stays, for softmax(s) = softmax(s - c); else the
 * block is computed again, and what was summed is scaled (FlashAttention-4 also lets its reference lag behind).
 * The reference is itself a score, so that its probability is 1 however large the scores are. */
#include "model/cuda/attention.cuh"
#include "model/cuda/backend.cuh"

namespace lam_attention_parts {
namespace {

/* Rows of 16 in a unit, stages of the ring, and blocks that registers leave on a multiprocessor. */
template <int WIDTH> struct forward_sizes {
    static const int TILES = WIDTH <= 112 ? 2 : 1;
    static const int AT_ONCE = WIDTH == 64 || WIDTH == 112 ? 2 : 4; /* blocks of 8 keys in one step */
    static const int STAGES = WIDTH <= 64 ? 3 : 2;
    static const int BLOCKS = WIDTH <= 32 ? 4 : WIDTH <= 64 ? 3 : 2;
    static const int POLYNOMIAL = WIDTH <= 32 ? 1 : 0; /* exponentials of 16 that the multipliers compute */
};

const float SUM_MOST = 65536; /* of a lane's probabilities of a row and block; more: the reference rises */

/* 2^x for x <= 127 by a polynomial on [-1/2, 1/2], relative error 7.5e-5 (minimax); below 2^-126 it is 2^-126. */
__device__ __forceinline__ float exp2_polynomial(float x) {
    const float ROUND = 12582912; /* 1.5 * 2^23: what is added to it is rounded to a whole number */
    x = lam_smaller(lam_larger(x, -126), 127);
    float shifted = x + ROUND, f = x - (shifted - ROUND);
    float y = fmaf(fmaf(fmaf(0.0551716691f, f, 0.2426111222f), f, 0.6932609854f), f, 0.9999280735f);
    return y * __uint_as_float((__float_as_uint(shifted) << 23) + 0x3f800000u);
}

/* Of a unit: sums of p v and of p, p = 2^(scale (score + less)). */
template <int WIDTH, int TILES> struct running {
    float out[TILES][WIDTH / 8][4];
    float less[TILES][4]; /* minus the reference of each row, as C of a product */
    float sum[TILES][2];
};

/* 8 N keys of which `visible` says which take part (bit 0 the first; WHOLE: all do). The scores come out of the
 * product with the reference subtracted already. Their largest is looked for only in a unit's first block and
 * when a sum shows that the reference has become too small; then the block is computed again. */
template <int WIDTH, int ROOM, int TILES, int N, bool WHOLE>
__device__ __forceinline__ void attend(const uint32_t (&q)[ROOM][WIDTH / 16][4], lam_shared k, lam_shared v,
                                       uint32_t visible, float scale, running<WIDTH, ROOM> &r, bool first) {
    const int t = threadIdx.x & 3;
    float s[TILES][N][4], sum[TILES][2];
    for (bool raise = first;; raise = true) {
#pragma unroll
        for (int n = 0; n < N; n += 2)
#pragma unroll
            for (int c = 0; c < WIDTH / 16; c++) {
                uint32_t b[4];
                if constexpr (N > 1) {
                    rows_16<WIDTH>(b, k + lane_of_rows<WIDTH>() + n * 8 * layout<WIDTH>::ROW_BYTES, c);
                } else {
                    uint32_t half[2];
                    rows_8<WIDTH>(half, k + lane_of_rows<WIDTH>(), c);
                    b[0] = half[0], b[1] = half[1], b[2] = b[3] = 0;
                }
#pragma unroll
                for (int m = 0; m < TILES; m++)
#pragma unroll
                    for (int i = 0; i < 2 && n + i < N; i++)
                        lam_multiply(s[m][n + i], q[m][c], b[2 * i], b[2 * i + 1],
                                     c ? s[m][n + i] : r.less[m]);
            }
        if (!WHOLE)
#pragma unroll
            for (int m = 0; m < TILES; m++)
#pragma unroll
                for (int n = 0; n < N; n++)
#pragma unroll
                    for (int e = 0; e < 4; e++)
                        if (!(visible >> (8 * n + 2 * t + e % 2) & 1)) s[m][n][e] = -INFINITY;
        if (raise)
#pragma unroll
            for (int m = 0; m < TILES; m++)
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    float most = -INFINITY;
#pragma unroll
                    for (int n = 0; n < N; n++)
                        most = fmaxf(most, fmaxf(s[m][n][2 * half], s[m][n][2 * half + 1]));
                    most = largest_of_row(most);
                    if (!first) most = fmaxf(most, 0);
                    float factor = first ? 1 : lam_exp2(-most * scale);
                    r.sum[m][half] *= factor;
#pragma unroll
                    for (int c = 0; c < WIDTH / 8; c++)
                        r.out[m][c][2 * half] *= factor, r.out[m][c][2 * half + 1] *= factor;
#pragma unroll
                    for (int n = 0; n < N; n++) s[m][n][2 * half] -= most, s[m][n][2 * half + 1] -= most;
                    r.less[m][2 * half] -= most;
                    r.less[m][2 * half + 1] = twin_of(r.less[m][2 * half]);
                }
        float largest = 0;
#pragma unroll
        for (int m = 0; m < TILES; m++) {
#pragma unroll
            for (int n = 0; n < N; n++)
#pragma unroll
                for (int e = 0; e < 4; e++) {
                    const int SHARE = forward_sizes<WIDTH>::POLYNOMIAL, at = (m * N + n) * 4 + e;
                    float x = s[m][n][e] * scale;
                    bool by_polynomial = at * SHARE / 16 != (at + 1) * SHARE / 16;
                    s[m][n][e] = by_polynomial ? exp2_polynomial(x) : lam_exp2(x);
                    sum[m][e / 2] = n || e % 2 ? sum[m][e / 2] + s[m][n][e] : s[m][n][e];
                }
            largest = fmaxf(largest, fmaxf(sum[m][0], sum[m][1]));
        }
        if (raise || !__any_sync(ALL, largest > SUM_MOST)) break;
    }
#pragma unroll
    for (int m = 0; m < TILES; m++) r.sum[m][0] += sum[m][0], r.sum[m][1] += sum[m][1];
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
            for (int c = 0; c < WIDTH / 16; c++) {
                uint32_t b[4];
                columns_16<WIDTH>(b, v + lane_of_columns<WIDTH>() + n * 8 * layout<WIDTH>::ROW_BYTES, c);
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
        for (int c = 0; c < WIDTH / 16; c++) {
            uint32_t b[2];
            columns_8<WIDTH>(b, v + lane_of_rows<WIDTH>(), c);
#pragma unroll
            for (int m = 0; m < TILES; m++)
#pragma unroll
                for (int i = 0; i < 2; i++)
                    lam_multiply_half(r.out[m][2 * c + i], p[m], b[i], r.out[m][2 * c + i]);
        }
    }
}

/* 32 keys, or as many as there are. */
template <int WIDTH, int ROOM, int TILES>
__device__ __forceinline__ void attend_32(const uint32_t (&q)[ROOM][WIDTH / 16][4], lam_shared k,
                                          lam_shared v, uint32_t visible, float scale,
                                          running<WIDTH, ROOM> &r, bool &first) {
    const int N = forward_sizes<WIDTH>::AT_ONCE, EIGHT = 8 * layout<WIDTH>::ROW_BYTES;
    if (visible == ALL) {
#pragma unroll 1
        for (int n = 0; n < 4; n += N) {
            attend<WIDTH, ROOM, TILES, N, true>(q, k + n * EIGHT, v + n * EIGHT, visible, scale, r, first);
            first = false;
        }
        return;
    }
#pragma unroll 1
    for (; visible; visible >>= 8, k += EIGHT, v += EIGHT)
        if (visible & 0xffu) {
            attend<WIDTH, ROOM, TILES, 1, false>(q, k, v, visible, scale, r, first);
            first = false;
        }
}

template <int WIDTH>
__global__ void __launch_bounds__(THREADS, forward_sizes<WIDTH>::BLOCKS)
    attention_forward(const arguments a) {
    LAM_DYNAMIC_SHARED(unsigned char, memory);
    const int TILES = forward_sizes<WIDTH>::TILES, STAGES = forward_sizes<WIDTH>::STAGES;
    const division &d = a.by_queries;
    uint32_t *words = (uint32_t *)(memory + 2 * d.side);
    if (a.key_mask) visible_keys(words, a.key_mask + (int64_t)unit_of(d, 0, 0).sample * a.keys, a.keys);
    uint32_t q[TILES][WIDTH / 16][4];
    running<WIDTH, TILES> r;
    bool first;
    auto open = [&](const unit &u) {
        r = {};
        first = true;
        load_unit<WIDTH, TILES>(q, a.q + u.sample * (a.queries * a.q_stride) + u.head * a.head_dim,
                                a.q_stride, u.row, u.works ? a.queries : 0, a, NULL);
        return u.works;
    };
    auto step = [&](int &at, int &left, bool whole) {
#pragma unroll 1
        do {
            const lam_shared k = lam_shared_at(memory) + at * layout<WIDTH>::ROW_BYTES;
            const uint32_t visible =
                a.key_mask ? __shfl_sync(ALL, words[(a.keys - left) / 32], 0) : first_keys(left);
            if (TILES == 1 || whole)
                attend_32<WIDTH, TILES, TILES>(q, k, k + d.side, visible, a.exponent, r, first);
            else
                attend_32<WIDTH, TILES, 1>(q, k, k + d.side, visible, a.exponent, r, first);
            at += 32, left -= 32;
        } while (goes_on(d, a.keys, left));
    };
    auto close = [&](const unit &u) {
        const int g = lam_anew((int)threadIdx.x) >> 2 & 7;
        bool present[TILES][2];
        float factor[TILES][2];
#pragma unroll
        for (int m = 0; m < TILES; m++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                float sum = sum_of_row(r.sum[m][half]);
                int number = u.row + 16 * m + 8 * half + g;
                present[m][half] = !first; /* no key was seen */
                factor[m][half] = 1 / sum;
                if ((threadIdx.x & 3) == 0 && number < a.queries)
                    a.lse[((int64_t)u.sample * a.heads + u.head) * a.queries + number] =
                        first ? 0 : log2f(sum) - r.less[m][2 * half] * a.exponent;
            }
        store_unit<WIDTH, TILES>(r.out, factor, present,
                                 a.result + u.sample * (a.queries * a.out_stride) + u.head * a.head_dim,
                                 a.out_stride, u.row, a.queries, a, false);
    };
    pass<WIDTH, TILES, STAGES, true>(a, d, memory, a.queries, a.keys, open, step, close);
}

template <int WIDTH> void launch(arguments a, const lam_attention_shape *s) {
    typedef forward_sizes<WIDTH> z;
    const size_t words = s->key_mask ? (size_t)lam_blocks(s->keys, 32) * sizeof(uint32_t) : 0;
    const need n = {a.queries, 16 * z::TILES, a.keys,   z::STAGES, layout<WIDTH>::ROW_BYTES,
                    0,         words,         z::BLOCKS};
    static const bool allowed = allow_shared((const void *)attention_forward<WIDTH>);
    (void)allowed;
    a.by_queries = divide(a, s->batch, n);
    LAM_LAUNCH((attention_forward<WIDTH>), blocks_of(s->batch, a.by_queries), THREADS,
               shared_bytes(a.by_queries, n), lam_cuda_stream(), a);
}

} // namespace

void forward(const lam_attention_shape *shape, const void *q, const void *k, const void *v, void *out,
             float *lse, void *workspace) {
    (void)workspace;
    arguments a = arguments_of(shape, q, k, v);
    a.result = (bf16 *)out, a.lse = lse;
    a.vectors = a.vectors && is_aligned(out, shape->out_stride);
    with_width(shape->head_dim, [&](auto width) { launch<decltype(width)::value>(a, shape); });
}

} // namespace lam_attention_parts
