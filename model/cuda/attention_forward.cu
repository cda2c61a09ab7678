/* Attention in bfloat16, forward (attention.cuh; Dao 2023, FlashAttention-2). */
#include "model/cuda/attention.cuh"
#include "model/cuda/backend.cuh"

namespace lam_attention_parts {
namespace {

/* Rows of 16 in a unit, stages of the ring, and blocks that registers leave on a multiprocessor. */
template <int WIDTH> struct forward_sizes {
    static const int TILES = WIDTH <= 96 ? 2 : 1;
    static const int AT_ONCE = WIDTH <= 64 ? 2 : 4; /* blocks of 8 keys that are looked at together */
    static const int STAGES = WIDTH <= 64 ? 3 : 2;
    static const int BLOCKS = WIDTH <= 32 ? 4 : WIDTH <= 64 ? 3 : 2;
    static const int POLYNOMIAL = WIDTH <= 32 ? 2 : 0; /* exponentials of 16 that the multipliers compute */
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
    float less[TILES][4]; /* minus the reference, a score of the row that is at most SUM_MOST too small; as C of a product */
    float sum[TILES][2];
};

/* 8 N keys of which `visible` says which take part (bit 0 the first; WHOLE: all do). The scores come out of the product with
 * the reference subtracted already. Their largest is looked for only in a unit's first block and when a sum shows that the
 * reference has become too small; then the block is computed again. */
template <int WIDTH, int ROOM, int TILES, int N, bool WHOLE>
__device__ __forceinline__ void attend(const uint32_t (&q)[ROOM][WIDTH / 16][4], const bf16 *k, const bf16 *v,
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
                    rows_16<WIDTH>(b, k + n * 8 * layout<WIDTH>::STRIDE, c);
                } else {
                    uint32_t half[2];
                    rows_8<WIDTH>(half, k, c);
                    b[0] = half[0], b[1] = half[1], b[2] = b[3] = 0;
                }
#pragma unroll
                for (int m = 0; m < TILES; m++)
#pragma unroll
                    for (int i = 0; i < 2 && n + i < N; i++)
                        lam_multiply(s[m][n + i], q[m][c], b[2 * i], b[2 * i + 1], c ? s[m][n + i] : r.less[m]);
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
                    for (int n = 0; n < N; n++) most = fmaxf(most, fmaxf(s[m][n][2 * half], s[m][n][2 * half + 1]));
                    most = largest_of_row(most);
                    if (!first) most = fmaxf(most, 0);
                    float factor = first ? 1 : lam_exp2(-most * scale);
                    r.sum[m][half] *= factor;
#pragma unroll
                    for (int c = 0; c < WIDTH / 8; c++) r.out[m][c][2 * half] *= factor, r.out[m][c][2 * half + 1] *= factor;
#pragma unroll
                    for (int n = 0; n < N; n++) s[m][n][2 * half] -= most, s[m][n][2 * half + 1] -= most;
                    r.less[m][2 * half] -= most;
                    r.less[m][2 * half + 1] = r.less[m][2 * half];
                }
        float largest = 0;
#pragma unroll
        for (int m = 0; m < TILES; m++) {
            sum[m][0] = sum[m][1] = 0;
#pragma unroll
            for (int n = 0; n < N; n++)
#pragma unroll
                for (int e = 0; e < 4; e++) {
                    const int SHARE = forward_sizes<WIDTH>::POLYNOMIAL, at = (m * N + n) * 4 + e;
                    float x = s[m][n][e] * scale;
                    bool by_polynomial = at * SHARE / 16 != (at + 1) * SHARE / 16;
                    s[m][n][e] = by_polynomial ? exp2_polynomial(x) : lam_exp2(x);
                    sum[m][e / 2] += s[m][n][e];
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
                for (int i = 0; i < 4; i++) p[m][i] = packed(s[m][n + i / 2][i % 2 * 2], s[m][n + i / 2][i % 2 * 2 + 1]);
#pragma unroll
            for (int c = 0; c < WIDTH / 16; c++) {
                uint32_t b[4];
                columns_16<WIDTH>(b, v + n * 8 * layout<WIDTH>::STRIDE, c);
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
            columns_8<WIDTH>(b, v, c);
#pragma unroll
            for (int m = 0; m < TILES; m++)
#pragma unroll
                for (int i = 0; i < 2; i++) lam_multiply_half(r.out[m][2 * c + i], p[m], b[i], r.out[m][2 * c + i]);
        }
    }
}

/* 32 keys, or as many as there are. */
template <int WIDTH, int ROOM, int TILES>
__device__ __forceinline__ void attend_32(const uint32_t (&q)[ROOM][WIDTH / 16][4], const bf16 *k, const bf16 *v,
                                          uint32_t visible, float scale, running<WIDTH, ROOM> &r, bool &first) {
    const int N = forward_sizes<WIDTH>::AT_ONCE;
    if (visible == ALL) {
#pragma unroll 1
        for (int n = 0; n < 4; n += N) {
            const int at = n * 8 * layout<WIDTH>::STRIDE;
            attend<WIDTH, ROOM, TILES, N, true>(q, k + at, v + at, visible, scale, r, first);
            first = false;
        }
        return;
    }
#pragma unroll 1
    for (; visible; visible >>= 8, k += 8 * layout<WIDTH>::STRIDE, v += 8 * layout<WIDTH>::STRIDE)
        if (visible & 0xffu) {
            attend<WIDTH, ROOM, TILES, 1, false>(q, k, v, visible, scale, r, first);
            first = false;
        }
}

template <int WIDTH>
__global__ void __launch_bounds__(THREADS, forward_sizes<WIDTH>::BLOCKS) attention_forward(const arguments a) {
    LAM_DYNAMIC_SHARED(unsigned char, memory);
    const int TILES = forward_sizes<WIDTH>::TILES, STAGES = forward_sizes<WIDTH>::STAGES, STRIDE = layout<WIDTH>::STRIDE;
    const division d = a.by_queries;
    const int warp = threadIdx.x >> 5;
    const int parts = (d.units + d.units_a_block - 1) / d.units_a_block, groups = a.heads / d.heads_a_block;
    const int part = blockIdx.x % parts, head = blockIdx.x / parts % groups * d.heads_a_block,
              sample = blockIdx.x / parts / groups;
    const int head_rows = (a.keys + 7) / 8 * 8, tiles = (a.keys + STAGE_ROWS - 1) / STAGE_ROWS;
    const float *mask = a.key_mask ? a.key_mask + (int64_t)sample * a.keys : NULL;
    const bf16 *k = a.k + sample * (a.keys * a.kv_stride) + head * a.head_dim,
               *v = a.v + sample * (a.keys * a.kv_stride) + head * a.head_dim;
    bf16 *k_rows = (bf16 *)memory,
         *v_rows = k_rows + (d.resident ? d.heads_a_block * head_rows : STAGES * STAGE_ROWS) * STRIDE;
    uint32_t *words = NULL;
    if (mask) {
        words = (uint32_t *)(v_rows + (v_rows - k_rows));
        visible_keys(words, mask, a.keys);
    }
    if (d.resident) {
        for (int h = 0; h < d.heads_a_block; h++) {
            bring_rows<WIDTH>(k_rows + h * head_rows * STRIDE, k + h * a.head_dim, a.kv_stride, 0, head_rows, a.keys, a, mask);
            bring_rows<WIDTH>(v_rows + h * head_rows * STRIDE, v + h * a.head_dim, a.kv_stride, 0, head_rows, a.keys, a, mask);
        }
        lam_copies_close();
    }
    const int first_unit = part * d.units_a_block,
              units = d.units - first_unit < d.units_a_block ? d.units - first_unit : d.units_a_block;
    /* Every warp comes to the barriers, also one without a unit; where rows are streamed, there is at most one a warp. */
    for (int u = warp; u < max(units * d.heads_a_block, WARPS); u += WARPS) {
        const bool works = u < units * d.heads_a_block;
        const int own = works ? u / units : 0, row = (first_unit + u - own * units) * 16 * TILES, end = works ? a.queries : 0;
        uint32_t q[TILES][WIDTH / 16][4];
        running<WIDTH, TILES> r = {};
        bool first = true;
        if (!d.resident)
            for (int i = 0; i < STAGES - 1; i++) {
                if (i < tiles) {
                    int rows = min(STAGE_ROWS, head_rows - i * STAGE_ROWS);
                    bring_rows<WIDTH>(k_rows + i * STAGE_ROWS * STRIDE, k, a.kv_stride, i * STAGE_ROWS, rows, a.keys, a, mask);
                    bring_rows<WIDTH>(v_rows + i * STAGE_ROWS * STRIDE, v, a.kv_stride, i * STAGE_ROWS, rows, a.keys, a, mask);
                }
                lam_copies_close();
            }
        load_unit<WIDTH, TILES>(q, a.q + sample * (a.queries * a.q_stride) + (head + own) * a.head_dim, a.q_stride, row, end, a,
                                NULL);
        if (d.resident && u < WARPS) { /* the first time */
            lam_copies_wait<0>();
            __syncthreads();
        }
        for (int i = 0; i < tiles; i++) {
            int slot = d.resident ? i : i % STAGES;
            if (!d.resident) {
                lam_copies_wait<STAGES - 2>();
                __syncthreads();
                int next = i + STAGES - 1;
                if (next < tiles) {
                    int rows = min(STAGE_ROWS, head_rows - next * STAGE_ROWS), to = next % STAGES * STAGE_ROWS * STRIDE;
                    bring_rows<WIDTH>(k_rows + to, k, a.kv_stride, next * STAGE_ROWS, rows, a.keys, a, mask);
                    bring_rows<WIDTH>(v_rows + to, v, a.kv_stride, next * STAGE_ROWS, rows, a.keys, a, mask);
                }
                lam_copies_close();
            }
            if (!works) continue;
            const int at = (own * head_rows + slot * STAGE_ROWS) * STRIDE;
#pragma unroll 1
            for (int j = 0; j < STAGE_ROWS && i * STAGE_ROWS + j < a.keys; j += 32) {
                uint32_t visible = visible_from(words, i * STAGE_ROWS + j, a.keys);
                const bf16 *k_block = k_rows + at + j * STRIDE, *v_block = v_rows + at + j * STRIDE;
                if (TILES == 1 || row + 16 < a.queries)
                    attend_32<WIDTH, TILES, TILES>(q, k_block, v_block, visible, a.scale * LOG2_E, r, first);
                else
                    attend_32<WIDTH, TILES, 1>(q, k_block, v_block, visible, a.scale * LOG2_E, r, first);
            }
        }
        if (!works) continue;
        const int g = lam_anew(threadIdx.x) >> 2 & 7;
        bool present[TILES][2];
        float factor[TILES][2];
#pragma unroll
        for (int m = 0; m < TILES; m++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                float sum = sum_of_row(r.sum[m][half]);
                int number = row + 16 * m + 8 * half + g;
                present[m][half] = !first; /* no key was seen */
                factor[m][half] = 1 / sum;
                if ((threadIdx.x & 3) == 0 && number < a.queries)
                    a.lse[((int64_t)sample * a.heads + head + own) * a.queries + number] =
                        first ? 0 : log2f(sum) - r.less[m][2 * half] * (a.scale * LOG2_E);
            }
        store_unit<WIDTH, TILES>(r.out, factor, present,
                                 a.result + sample * (a.queries * a.out_stride) + (head + own) * a.head_dim, a.out_stride, row,
                                 a.queries, a, false);
    }
}

template <int WIDTH> void launch(arguments a, const lam_attention_shape *s) {
    typedef forward_sizes<WIDTH> z;
    const size_t words = s->key_mask ? (size_t)lam_blocks(s->keys, 32) * sizeof(uint32_t) : 0;
    const size_t row = 2 * layout<WIDTH>::STRIDE * sizeof(bf16), head = (size_t)round_up(a.keys, 8) * row;
    static const bool allowed = allow_shared((const void *)attention_forward<WIDTH>);
    (void)allowed;
    a.by_queries = divide(a, s->batch, a.queries, 16 * z::TILES, head, words, z::BLOCKS);
    const division &d = a.by_queries;
    const size_t bytes = words + (d.resident ? (size_t)d.heads_a_block * head : z::STAGES * STAGE_ROWS * row);
    LAM_LAUNCH((attention_forward<WIDTH>), blocks_of(a, s->batch, d), THREADS, bytes, lam_cuda_stream(), a);
}

} // namespace

void forward(const lam_attention_shape *shape, const void *q, const void *k, const void *v, void *out, float *lse,
             void *workspace) {
    (void)workspace;
    arguments a = arguments_of(shape, q, k, v);
    a.result = (bf16 *)out, a.lse = lse;
    a.vectors = a.vectors && is_aligned(out, shape->out_stride);
    with_width(shape->head_dim, [&](auto width) { launch<decltype(width)::value>(a, shape); });
}

} // namespace lam_attention_parts
