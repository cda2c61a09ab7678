/* What the attention kernels share: their arguments, how rows of a head come into fragments and shared memory, and back.
 *
 * Warps work by themselves on `units` of 16 or 32 rows of queries (or, for the gradients of keys and values, of keys), held in
 * registers as the left operands of mma; the rows on the other side come in stages through shared memory and are the right
 * operands. Two ways:
 *
 *     resident   all rows of the other side of a head lie in shared memory, and warps take the head's units in turn with no
 *                barrier after the first; a block may hold several heads, so that short sequences keep all warps busy
 *     streamed   longer rows pass through a ring of stages of 64 rows, which all warps of a block follow with a unit each
 *
 * head_dim is filled with zeros up to WIDTH, a multiple of 16. */
#ifndef LAMELLA_MODEL_CUDA_ATTENTION_CUH
#define LAMELLA_MODEL_CUDA_ATTENTION_CUH

#include "model/cpu/attention.h"
#include "model/cuda/launch.cuh"
#include "model/cuda/ptx.cuh"

namespace lam_attention_parts {

typedef __nv_bfloat16 bf16;

const int WARPS = 4, THREADS = 32 * WARPS;
const int STAGE_ROWS = 64;
const float LOG2_E = 1.44269504088896341f;
const unsigned ALL = 0xffffffffu;

/* Of a pass over one side of the heads. */
struct division {
    int units, units_a_block; /* of a head */
    int heads_a_block;        /* 1 where rows are streamed */
    bool resident;
};

struct arguments {
    int queries, keys, heads, head_dim;
    int64_t q_stride, kv_stride, out_stride;
    const float *key_mask;
    bool vectors; /* rows of heads are 16-byte aligned and whole vectors */
    float scale;  /* 1 / sqrt(head_dim) */
    const bf16 *q, *k, *v, *out, *d_out;
    float *lse, *dots; /* [batch, heads, queries]; dots: d_out . out */
    bf16 *result, *dq, *dk, *dv;
    bool add_q, add_kv;
    division by_queries, by_keys;
};

/* Entries; model/cpu/kernels.h. */
void forward(const lam_attention_shape *shape, const void *q, const void *k, const void *v, void *out, float *lse,
             void *workspace);
void backward(const lam_attention_shape *shape, const lam_attention_tensors *tensors, void *workspace);
void forward_float(const lam_attention_shape *shape, const void *q, const void *k, const void *v, void *out, float *lse,
                   void *workspace);
void backward_float(const lam_attention_shape *shape, const lam_attention_tensors *tensors, void *workspace);

/* ---- host ---- */

static inline int round_up(int64_t count, int unit) { return (int)((count + unit - 1) / unit * unit); }

/* The narrowest width of kernels that holds a head: call(width_of<WIDTH>()). */
template <int width> struct width_of { static const int value = width; };
template <typename F> void with_width(int64_t head_dim, F call) {
    if (head_dim <= 16) call(width_of<16>());
    else if (head_dim <= 32) call(width_of<32>());
    else if (head_dim <= 64) call(width_of<64>());
    else if (head_dim <= 80) call(width_of<80>());
    else if (head_dim <= 112) call(width_of<112>());
    else call(width_of<128>());
}

static inline bool is_aligned(const void *tensor, int64_t stride) { return (uintptr_t)tensor % 16 == 0 && stride % 8 == 0; }

arguments arguments_of(const lam_attention_shape *shape, const void *q, const void *k, const void *v);
/* How units of `rows` of `count` are shared out. head_bytes: shared memory of the other side of a head; block_bytes: what a block
 * has besides; blocks: that registers leave on a multiprocessor. */
division divide(const arguments &a, int64_t batch, int count, int rows, size_t head_bytes, size_t block_bytes, int blocks);
unsigned blocks_of(const arguments &a, int64_t batch, const division &d);
/* Lets a kernel have as much dynamic shared memory as there is. */
bool allow_shared(const void *kernel);

/* ---- rows in shared memory ---- */

/* Vectors of 8 elements lie so that neither 8 rows' vectors of one place nor a row's neighbours meet in a bank: exchanged by
 * the row's number where a row is a power of two of vectors, else one vector apart. */
template <int WIDTH> struct layout {
    static const int VECTORS = WIDTH / 8;
    static const bool EXCHANGED = (VECTORS & (VECTORS - 1)) == 0;
    static const int STRIDE = EXCHANGED ? WIDTH : WIDTH + 8;
    static __device__ __forceinline__ int place(int row, int vector) {
        if (!EXCHANGED) return row * STRIDE + vector * 8;
        return row * STRIDE + (vector ^ (VECTORS >= 8 ? row & 7 : VECTORS == 4 ? row >> 1 & 3 : row >> 2 & 1)) * 8;
    }
    /* Of rows behind `first`, a multiple of 8: what a lane adds to the rows and vectors that it is asked for. */
    static __device__ __forceinline__ const bf16 *at(const bf16 *first, int row, int vector) {
        return first + place(row, vector);
    }
};

/* Right operands out of rows: B[k][n] is element k of row n (16 rows, 16 elements from vector 2 `pair`: columns 0 to 7 in
 * b[0], b[1], 8 to 15 in b[2], b[3]), or of 8 rows. */
template <int WIDTH> __device__ __forceinline__ void rows_16(uint32_t (&b)[4], const bf16 *first, int pair) {
    const int lane = threadIdx.x & 31;
    lam_load_matrices<4, false>(b, layout<WIDTH>::at(first, (lane & 7) + (lane >> 4) * 8, 2 * pair + (lane >> 3 & 1)));
}
template <int WIDTH> __device__ __forceinline__ void rows_8(uint32_t (&b)[2], const bf16 *first, int pair) {
    const int lane = threadIdx.x & 31;
    lam_load_matrices<2, false>(b, layout<WIDTH>::at(first, lane & 7, 2 * pair + (lane >> 3 & 1)));
}
/* B[k][n] is element n of row k: columns 16 `pair` to 16 pair + 7 in b[0], b[1] (of 8 rows b[0]), the next 8 in b[2], b[3]
 * (b[1]). */
template <int WIDTH> __device__ __forceinline__ void columns_16(uint32_t (&b)[4], const bf16 *first, int pair) {
    const int lane = threadIdx.x & 31;
    lam_load_matrices<4, true>(b, layout<WIDTH>::at(first, lane & 15, 2 * pair + (lane >> 4)));
}
template <int WIDTH> __device__ __forceinline__ void columns_8(uint32_t (&b)[2], const bf16 *first, int pair) {
    const int lane = threadIdx.x & 31;
    lam_load_matrices<2, true>(b, layout<WIDTH>::at(first, lane & 7, 2 * pair + (lane >> 3 & 1)));
}

/* Elements of one row that may not be aligned, 0 behind its end. */
__device__ __forceinline__ uint32_t pair_of(const bf16 *row, int at, int end) {
    uint32_t low = at < end ? __bfloat16_as_ushort(row[at]) : 0, high = at + 1 < end ? __bfloat16_as_ushort(row[at + 1]) : 0;
    return low | high << 16;
}

/* Rows first to first + rows of a head into shared memory, by all threads of the block; 0 where `mask` has 0, from row `end` on,
 * and behind head_dim. Arrives when the group of copies that the caller closes has. */
template <int WIDTH>
__device__ __forceinline__ void bring_rows(bf16 *to, const bf16 *from, int64_t stride, int first, int rows, int end,
                                           const arguments &a, const float *mask) {
    typedef layout<WIDTH> l;
    for (int i = threadIdx.x; i < rows * l::VECTORS; i += THREADS) {
        int r = i / l::VECTORS, vector = i % l::VECTORS, row = first + r;
        bool present = row < end && vector * 8 < a.head_dim && (!mask || mask[row] != 0);
        bf16 *target = to + l::place(r, vector);
        const bf16 *source = from + (present ? row * stride + vector * 8 : 0);
        if (a.vectors) {
            lam_copy_later<16>(target, source, present);
        } else {
            int left = present ? a.head_dim - vector * 8 : 0;
            uint4 words = make_uint4(pair_of(source, 0, left), pair_of(source, 2, left), pair_of(source, 4, left),
                                     pair_of(source, 6, left));
            *(uint4 *)target = words;
        }
    }
}

/* The same for one float a row. */
__device__ __forceinline__ void bring_floats(float *to, const float *from, int first, int rows, int end) {
    for (int i = threadIdx.x; i < rows; i += THREADS)
        lam_copy_later<4>(to + i, from + (first + i < end ? first + i : 0), first + i < end);
}

/* ---- fragments ---- */

/* Four lanes of a row hold four words each; word j of lane t becomes word t of lane j. */
__device__ __forceinline__ void turn_words(uint32_t (&w)[4]) {
    const bool odd = threadIdx.x & 1, upper = threadIdx.x & 2;
#pragma unroll
    for (int i = 0; i < 4; i += 2) {
        uint32_t other = __shfl_xor_sync(ALL, odd ? w[i] : w[i + 1], 1);
        w[i] = odd ? other : w[i];
        w[i + 1] = odd ? w[i + 1] : other;
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
        uint32_t other = __shfl_xor_sync(ALL, upper ? w[i] : w[i + 2], 2);
        w[i] = upper ? other : w[i];
        w[i + 2] = upper ? w[i + 2] : other;
    }
}

__device__ __forceinline__ uint32_t packed(float low, float high) {
    union {
        __nv_bfloat162 pair;
        uint32_t word;
    } both;
    both.pair = __floats2bfloat162_rn(low, high);
    return both.word;
}
__device__ __forceinline__ float low_of(uint32_t pair) { return __uint_as_float(pair << 16); }
__device__ __forceinline__ float high_of(uint32_t pair) { return __uint_as_float(pair & 0xffff0000u); }

/* Left operands: 16 TILES rows of a head from row `first`; 0 from row `end` on and where `mask` has 0. */
template <int WIDTH, int TILES>
__device__ __forceinline__ void load_unit(uint32_t (&to)[TILES][WIDTH / 16][4], const bf16 *from, int64_t stride,
                                          int first, int end, const arguments &a, const float *mask) {
    const int g = threadIdx.x >> 2 & 7, t = threadIdx.x & 3;
#pragma unroll
    for (int m = 0; m < TILES; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int number = first + 16 * m + 8 * half + g;
            bool present = number < end && (!mask || mask[number] != 0);
            const bf16 *row = from + (present ? number * stride : 0);
            int columns = present ? a.head_dim : 0;
            if (a.vectors) {
#pragma unroll
                for (int c = 0; c < WIDTH / 32; c++) {
                    uint4 v = make_uint4(0, 0, 0, 0);
                    if (32 * c + 8 * t < columns) v = *(const uint4 *)(row + 32 * c + 8 * t);
                    uint32_t w[4] = {v.x, v.y, v.z, v.w};
                    turn_words(w);
#pragma unroll
                    for (int j = 0; j < 4; j++) to[m][2 * c + j / 2][half + j % 2 * 2] = w[j];
                }
                if (WIDTH % 32)
#pragma unroll
                    for (int j = 0; j < 2; j++) {
                        int column = WIDTH / 32 * 32 + 8 * j + 2 * t;
                        to[m][WIDTH / 16 - 1][half + 2 * j] = column < columns ? *(const uint32_t *)(row + column) : 0;
                    }
            } else {
#pragma unroll
                for (int j = 0; j < WIDTH / 8; j++) to[m][j / 2][half + j % 2 * 2] = pair_of(row, 8 * j + 2 * t, columns);
            }
        }
}

/* The way back: factor * sums of each row; `add`: +=. Rows that are not `present` become 0 (add: stay). */
template <int WIDTH, int TILES>
__device__ __forceinline__ void store_unit(const float (&sums)[TILES][WIDTH / 8][4], const float (&factor)[TILES][2],
                                           const bool (&present)[TILES][2], bf16 *to, int64_t stride, int first, int end,
                                           const arguments &a, bool add) {
    const int lane = lam_anew(threadIdx.x), g = lane >> 2 & 7, t = lane & 3;
#pragma unroll
    for (int m = 0; m < TILES; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int number = first + 16 * m + 8 * half + g;
            bf16 *row = to + number * stride;
            bool seen = present[m][half];
            int columns = number < end && (seen || !add) ? a.head_dim : 0;
            float by = factor[m][half];
#pragma unroll
            for (int c = 0; c < (WIDTH + 31) / 32; c++) {
                uint32_t w[4] = {0, 0, 0, 0};
#pragma unroll
                for (int j = 0; j < 4; j++)
                    if (4 * c + j < WIDTH / 8 && seen)
                        w[j] = packed(by * sums[m][4 * c + j][2 * half], by * sums[m][4 * c + j][2 * half + 1]);
                if (c < WIDTH / 32 && a.vectors && !add) {
                    turn_words(w);
                    if (32 * c + 8 * t < columns)
                        *(uint4 *)(row + 32 * c + 8 * t) = make_uint4(w[0], w[1], w[2], w[3]);
                    continue;
                }
#pragma unroll
                for (int j = 0; j < 4; j++) {
                    int column = 32 * c + 8 * j + 2 * t;
                    if (4 * c + j >= WIDTH / 8 || column >= columns) continue;
                    if (a.vectors) {
                        uint32_t *at = (uint32_t *)(row + column);
                        if (add)
                            w[j] = packed(low_of(*at) + by * sums[m][4 * c + j][2 * half],
                                          high_of(*at) + by * sums[m][4 * c + j][2 * half + 1]);
                        *at = w[j];
                    } else {
                        for (int e = 0; e < 2 && column + e < columns; e++) {
                            float x = seen ? by * sums[m][4 * c + j][2 * half + e] : 0;
                            lam_store(row + column + e, add ? lam_load(row + column + e) + x : x);
                        }
                    }
                }
            }
        }
}

/* The four lanes that share a row. */
__device__ __forceinline__ float sum_of_row(float x) {
    x += __shfl_xor_sync(ALL, x, 1);
    return x + __shfl_xor_sync(ALL, x, 2);
}
__device__ __forceinline__ float largest_of_row(float x) {
    x = fmaxf(x, __shfl_xor_sync(ALL, x, 1));
    return fmaxf(x, __shfl_xor_sync(ALL, x, 2));
}

/* ---- which keys are visible ---- */

/* One bit a key, by all threads of the block; a barrier must follow. */
__device__ __forceinline__ void visible_keys(uint32_t *words, const float *mask, int keys) {
    for (int i = threadIdx.x; i < (keys + 31) / 32 * 32; i += THREADS) {
        uint32_t word = __ballot_sync(ALL, i < keys && mask[i] != 0);
        if ((threadIdx.x & 31) == 0) words[i / 32] = word;
    }
}
/* Of keys first (a multiple of 32) to first + 31. */
__device__ __forceinline__ uint32_t visible_from(const uint32_t *words, int first, int keys) {
    if (words) return words[first / 32];
    return first + 32 <= keys ? ALL : (1u << (keys - first)) - 1u;
}

} // namespace lam_attention_parts

#endif
