/* LayerNorm of the heads of q and k within attention (attention.cuh): an option of the kernels for resident rows.
 * Those are normalised in shared memory when they have arrived, units in registers when they are loaded, once more
 * in the backward pass; a unit's gradients go through the norm at its end, where they are summed for the norm's
 * weights, too. Nothing normalised is in memory. There are kernels of WIDTH 64, for all narrower heads, and
 * 112. For head_dim 64 it takes about 150 instructions of a warp for 8 rows and 450 for a unit, backward 1,500
 * more for a unit. At 65 tokens that is 22,000 a head in the backward pass, 5,500 clocks, and memory takes
 * 3,600, where with a norm apart it takes 7,200; at 257 tokens 27,000 clocks against 30,000; forward memory is
 * the bound. Rows that are streamed would be normalised by each block, at 1,025 tokens by nine, for more
 * instructions than their scores take: there, for heads above 112 or of no whole vectors, and in float32,
 * kernels of their own come before and behind (attention_norm.cu), by way of the workspace. */
#ifndef LAMELLA_MODEL_CUDA_ATTENTION_HEADS_CUH
#define LAMELLA_MODEL_CUDA_ATTENTION_HEADS_CUH

#include "model/cuda/attention_rows.cuh"

namespace lam_attention_parts {

/* Mean and reciprocal deviation of a row of a unit. */
struct moments {
    float mean, rstd;
};
template <int WIDTH>
__device__ __forceinline__ moments moments_of(const uint32_t (&x)[WIDTH / 16][4], int half, int head_dim,
                                              float eps) {
    const float share = 1.0f / (float)head_dim;
    float sum = 0, squares = 0;
#pragma unroll
    for (int j = 0; j < WIDTH / 8; j++) {
        const uint32_t pair = x[j / 2][half + j % 2 * 2];
        sum += low_of(pair) + high_of(pair);
    }
    const float mean = sum_of_row(sum) * share;
#pragma unroll
    for (int j = 0; j < WIDTH / 8; j++) {
        const uint32_t pair = x[j / 2][half + j % 2 * 2];
        const float low = low_of(pair) - mean, high = high_of(pair) - mean;
        if (8 * j < head_dim) squares = fmaf(low, low, fmaf(high, high, squares));
    }
    return {mean, rsqrtf(fmaf(sum_of_row(squares), share, eps))};
}

__device__ __forceinline__ uint32_t normalised(uint32_t pair, const moments &of, const float2 &w,
                                               const float2 &b) {
    return packed(fmaf((low_of(pair) - of.mean) * of.rstd, w.x, b.x),
                  fmaf((high_of(pair) - of.mean) * of.rstd, w.y, b.y));
}

/* The rows of a unit, of queries (0) or keys (1), as load_unit has left them; rows that are not there become something. */
template <int WIDTH, int TILES>
__device__ __forceinline__ void normalise_unit(uint32_t (&x)[TILES][WIDTH / 16][4],
                                               const lam_attention_norm &norm, int part, int head_dim) {
    const float *w = norm.w[part] + 2 * (lane_anew() & 3), *b = norm.b[part] + 2 * (lane_anew() & 3);
    moments of[TILES][2];
#pragma unroll
    for (int m = 0; m < TILES; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) of[m][half] = moments_of<WIDTH>(x[m], half, head_dim, norm.eps);
#pragma unroll
    for (int j = 0; j < WIDTH / 8; j++) {
        if (8 * j >= head_dim) continue;
        const float2 w_here = *(const float2 *)(w + 8 * j), b_here = *(const float2 *)(b + 8 * j);
#pragma unroll
        for (int m = 0; m < TILES; m++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                uint32_t &pair = x[m][j / 2][half + j % 2 * 2];
                pair = normalised(pair, of[m][half], w_here, b_here);
            }
    }
}

/* `heads` times `rows` rows in shared memory, `rows` a multiple of 8, by all threads of the block, four a row; rows of a head from
 * `count` on and where `mask` has 0 stay 0. Barriers must come before and behind. One loop, and vectors that are read again:
 * the registers are short where this comes. */
template <int WIDTH>
__device__ __forceinline__ void normalise_rows(unsigned char *memory, int heads, int rows, int count,
                                               const float *mask, const lam_attention_norm &norm, int part,
                                               int head_dim) {
    typedef layout<WIDTH> l;
    const int EACH = (l::VECTORS + 3) / 4; /* vectors of a thread: every fourth */
    const int thread = lam_anew((int)threadIdx.x), t = thread & 3;
    const float share = 1.0f / (float)head_dim;
#pragma unroll 1
    for (int r = thread >> 2; r < heads * rows; r += THREADS / 4) {
        uint4 x[EACH];
        float sum = 0, squares = 0;
#pragma unroll
        for (int e = 0; e < EACH; e++) {
            const int vector = t + 4 * e;
            x[e] = make_uint4(0, 0, 0, 0);
            if (8 * vector < head_dim) x[e] = *(const uint4 *)(memory + l::place(r, vector));
            const uint32_t pairs[4] = {x[e].x, x[e].y, x[e].z, x[e].w};
#pragma unroll
            for (int i = 0; i < 4; i++) sum += low_of(pairs[i]) + high_of(pairs[i]);
        }
        const float mean = sum_of_row(sum) * share;
#pragma unroll
        for (int e = 0; e < EACH; e++) {
            const uint32_t pairs[4] = {x[e].x, x[e].y, x[e].z, x[e].w};
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const float low = low_of(pairs[i]) - mean, high = high_of(pairs[i]) - mean;
                if (8 * (t + 4 * e) < head_dim) squares = fmaf(low, low, fmaf(high, high, squares));
            }
        }
        const moments of = {mean, rsqrtf(fmaf(sum_of_row(squares), share, norm.eps))};
        int number = r;
        while (number >= rows) number -= rows;
        if (number >= count || (mask && mask[number] == 0)) continue;
#pragma unroll
        for (int e = 0; e < EACH; e++) {
            const int vector = t + 4 * e;
            if (8 * vector >= head_dim) continue;
            uint4 *at = (uint4 *)(memory + l::place(r, vector));
            const uint4 again = *at;
            const uint32_t pairs[4] = {again.x, again.y, again.z, again.w};
            uint32_t y[4];
#pragma unroll
            for (int i = 0; i < 4; i++)
                y[i] = normalised(pairs[i], of, *(const float2 *)(norm.w[part] + 8 * vector + 2 * i),
                                  *(const float2 *)(norm.b[part] + 8 * vector + 2 * i));
            *at = make_uint4(y[0], y[1], y[2], y[3]);
        }
    }
}

/* ---- backward ---- */

/* Of the second or the first of a pair. */
__device__ __forceinline__ float hat_of(uint32_t pair, bool second, const moments &of) {
    return fmaf(second ? high_of(pair) : low_of(pair), of.rstd, of.mean);
}

/* d, `scale` times the gradients of a unit's normalised rows, become, `factor` times, those of the rows themselves, x, which are loaded
 * once more; rows that are not `present` have none. to: where the unit's sums for the weights go, those of b `further` behind those
 * of w. */
template <int WIDTH, int TILES>
__device__ __forceinline__ void
through_norm(float (&d)[TILES][WIDTH / 8][4], const uint32_t (&x)[TILES][WIDTH / 16][4],
             const bool (&present)[TILES][2], float scale, const lam_attention_norm &norm, int part,
             int head_dim, float *to, int64_t further, float (&factor)[TILES][2]) {
    const float *w = norm.w[part] + 2 * (lane_anew() & 3);
    const float share = 1.0f / (float)head_dim;
    moments of[TILES][2];
    float shift[TILES][2], slope[TILES][2], by_hat[TILES][WIDTH / 8][4];
#pragma unroll
    for (int m = 0; m < TILES; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            of[m][half] = moments_of<WIDTH>(x[m], half, head_dim, norm.eps);
            of[m][half].mean *= -of[m][half].rstd; /* hat = x rstd + that */
            shift[m][half] = slope[m][half] = 0;
            factor[m][half] = scale;
        }
#pragma unroll
    for (int j = 0; j < WIDTH / 8; j++) {
        const float2 w_here = 8 * j < head_dim ? *(const float2 *)(w + 8 * j) : make_float2(0, 0);
#pragma unroll
        for (int m = 0; m < TILES; m++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                const int half = e / 2;
                const float hat = hat_of(x[m][j / 2][half + j % 2 * 2], e % 2, of[m][half]);
                if (!present[m][half]) d[m][j][e] = 0;
                const float g = d[m][j][e] * (e % 2 ? w_here.y : w_here.x);
                by_hat[m][j][e] = d[m][j][e] * hat;
                shift[m][half] += g;
                slope[m][half] = fmaf(g, hat, slope[m][half]);
            }
    }
    sum_unit<WIDTH, TILES>(d, factor, to + further, head_dim);
    sum_unit<WIDTH, TILES>(by_hat, factor, to, head_dim);
#pragma unroll
    for (int m = 0; m < TILES; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            shift[m][half] = sum_of_row(shift[m][half]) * share;
            slope[m][half] = sum_of_row(slope[m][half]) * share;
            factor[m][half] = scale * of[m][half].rstd;
        }
#pragma unroll
    for (int j = 0; j < WIDTH / 8; j++) {
        const float2 w_here = 8 * j < head_dim ? *(const float2 *)(w + 8 * j) : make_float2(0, 0);
#pragma unroll
        for (int m = 0; m < TILES; m++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                const int half = e / 2;
                const float hat = hat_of(x[m][j / 2][half + j % 2 * 2], e % 2, of[m][half]);
                d[m][j][e] = fmaf(-hat, slope[m][half],
                                  fmaf(d[m][j][e], e % 2 ? w_here.y : w_here.x, -shift[m][half]));
            }
    }
}

/* Where a unit's sums for the weights of the norm of queries (0) or keys (1) go, those of the bias `further` behind. */
__device__ __forceinline__ float *sums_norm_of(const arguments &a, const division &d, int part, int unit,
                                               int head, int64_t &further) {
    further = (int64_t)d.units * a.heads * a.head_dim;
    return a.sums_norm + sample_of(a) * a.sums_norm_sample + 2 * part * further +
           ((int64_t)unit * a.heads + head) * a.head_dim;
}

/* ---- in a pass ---- */

/* What a pass does with resident rows when they have arrived. */
struct as_they_are {
    static const bool RESIDENT = false; /* they may be, or not */
    __device__ __forceinline__ void operator()(void) const {}
};
template <int WIDTH, bool KEYS> struct normalised_rows {
    static const bool RESIDENT = true;
    const arguments &a;
    const division &d;
    unsigned char *memory;
    __device__ __forceinline__ void operator()(void) const {
        const int count = KEYS ? a.keys : a.queries;
        normalise_rows<WIDTH>(memory, d.heads_a_block, (count + 7) / 8 * 8, count,
                              KEYS && a.key_mask ? a.key_mask + sample_of(a) * count : NULL, a.norm, KEYS,
                              a.head_dim);
        __syncthreads();
    }
};
template <int WIDTH, bool KEYS, bool NORM>
__device__ __forceinline__ auto arrival_of(const arguments &a, const division &d, unsigned char *memory) {
    if constexpr (NORM)
        return normalised_rows<WIDTH, KEYS>{a, d, memory};
    else
        return as_they_are{};
}

} // namespace lam_attention_parts

#endif
