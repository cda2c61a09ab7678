/* Attention on tensor cores: what its kernels share. Method: Dao 2023, FlashAttention-2; mma.sync, so for every
 * architecture from sm_80 on. 128 threads a block, registers: at most 255 registers, at most 128, 168 and 255
 * forward of head_dim to 32, 64 and more (4, 3, 2 blocks a multiprocessor), 168 and 255 backward of head_dim to
 * 32 and more (3, 2 blocks). head_dim is filled with zeros up to WIDTH, a multiple of 16.
 *
 * A warp works by itself on units of 32 rows of queries (for the gradients of keys and values: of keys; 16 rows
 * where registers are short), held in registers as left operands; the rows on the other side come through shared
 * memory and are the right operands.
 *
 *     resident   all rows of the other side of a head lie in shared memory, and warps take the head's units in
 *                turn with no barrier after the first; a block may hold several heads, so that short sequences
 *                keep all warps busy. Where both sides fit, one launch does the backward pass and reads each
 *                row from memory once; where they fit together, all rows are on their way from its beginning.
 *     streamed   longer rows pass through a ring of stages of 64 rows, which all warps of a block follow with a
 *                unit each
 *
 * The backward pass goes over the scores twice, once for the gradients of queries and once for those of keys
 * and values: no sum crosses warps, nothing is added to memory, and the same bits come out every time. Where q, k and
 * v come from a linear map with biases, whose gradients are the sums of dq, dk and dv over all rows, each unit adds up
 * its own rows at its end and writes one row of a table, which is folded afterwards: 12 bytes an element of a row in
 * 32 rows, where reading the gradients again takes 192.
 *
 * A norm of q and k (LayerNorm of each head) is an option of the kernels for resident rows: those are
 * normalised in shared memory when they have arrived, units in registers when they are loaded, once more in the
 * backward pass; a unit's gradients go through the norm at its end, where they are summed for the norm's
 * weights, too. Nothing normalised is in memory. There are kernels of WIDTH 64, for all narrower heads, and
 * 112. For head_dim 64 it takes about 150 instructions of a warp for 8 rows and 450 for a unit, backward 1,500
 * more for a unit. At 65 tokens that is 22,000 a head in the backward pass, 5,500 clocks, and memory takes
 * 3,600, where with a norm apart it takes 7,200; at 257 tokens 27,000 clocks against 30,000; forward memory is
 * the bound. Rows that are streamed would be normalised by each block, at 1,025 tokens by nine, for more
 * instructions than their scores take: there, for heads above 112 or of no whole vectors, and in float32,
 * kernels of their own come before and behind (attention_norm.cu), by way of the workspace.
 *
 * Counts by score block, 16 x 8 scores of a warp, for head_dim 32 (64), instructions in the machine code for sm_90a.
 * A multiprocessor quarter issues one instruction a clock, an mma takes it 4 clocks on Hopper at best (8 on Ampere),
 * 32 exponentials 8 clocks; shared memory gives 128 bytes a clock to all four:
 *
 *                         mma          its clocks   exponentials   instructions   shared memory, clocks of four
 *     forward             4.5 (8.5)    18 (34)      28 (32)        22 (25)        512 (1,024) bytes, 16 (32)
 *     queries' gradients  6 (12)       24 (48)      32             28 (37)        768 (1,536) bytes, 24 (48)
 *     keys' and values'   8 (16)       32 (64)      32             36 (48)        1,024 (2,048) bytes, 32 (64)
 *
 * so exponentials bound head_dim 32: of 16 the forward pass leaves two to the multipliers (Cody & Waite 1980,
 * and a polynomial, as FlashAttention-4 does). With units of 16 rows shared memory would be read twice as often
 * and be the bound. A head of 257 x 257 scores is 561 blocks of each kind, 12,600 instructions forward. What is
 * not in the loops over scores must stay small beside that: ncu found 15,800 instructions a head there in a version
 * that brought a vector of 16 bytes by 43 instructions, and four fifths of the time of its units' loads spent
 * waiting for one after the other. Hence bring_rows' fixed columns, load_unit's loads without a branch between
 * them, blocks by [part, heads, sample] in place of divisions, and softmax without the largest score.
 *
 * Rows are counted in 16 on the units' side and in 8 on the other: of the products' work is useful at 65, 257,
 * 385, 1,025 and 6,145 tokens 73, 92.0, 94.5, 97.9 and 99.6 % (with tiles of 64: 26, 64, 74, 89, 98; of 128:
 * 26, 45, 56, 79, 96). The query of the class token is thus a unit of 16 rows: 9 blocks at 65 tokens and
 * head_dim 64, about 200 instructions of a warp, where multiplying it out in float takes 850; 65 tokens are
 * bound by memory besides (33 KB a head, 1,800 clocks of a multiprocessor's share at 4.3 TB/s, against 400 of
 * the above). At 257 tokens and head_dim 32 memory takes 5/6 of the time of the above forward and 4/5 backward
 * (more than all of it if the two passes read for themselves), which is why rows are read once. */
#ifndef LAMELLA_MODEL_CUDA_ATTENTION_CUH
#define LAMELLA_MODEL_CUDA_ATTENTION_CUH

#include "model/cpu/attention.h"
#include "model/cuda/launch.cuh"
#include "model/cuda/products.h"
#include "model/cuda/ptx.cuh"

namespace lam_attention_parts {

typedef __nv_bfloat16 bf16;

const int WARPS = 4, THREADS = 32 * WARPS;
const int STAGE_ROWS = 64;
const float LOG2_E = 1.44269504088896341f;
const unsigned ALL = 0xffffffffu;

/* Of a pass over one side of the heads. Blocks: [parts, groups of heads, samples]. */
struct division {
    int units, units_a_block; /* of a head */
    int heads_a_block;        /* 1 where rows are streamed */
    int parts, groups;        /* blocks that share a head, groups of heads of a block */
    int room, side;           /* rows and bytes of each of the two sides in shared memory */
    bool resident;
};

struct arguments {
    int queries, keys, heads, head_dim;
    int64_t q_stride, kv_stride, out_stride;
    const float *key_mask;
    int64_t first_sample;  /* of the launch */
    bool vectors;          /* rows of heads are 16-byte aligned and whole vectors */
    float scale, exponent; /* 1 / sqrt(head_dim), that times log2(e) */
    const bf16 *q, *k, *v, *out, *d_out;
    float *lse, *less; /* [batch, heads, queries]; less: minus d_out . out */
    bf16 *result, *dq, *dk, *dv;
    bool add_q, add_kv;
    /* NULL, or for each unit the sums over its rows: [batch, units of a head, heads, head_dim] of dq, [batch, units, 2, heads,
     * head_dim] of dk and dv. */
    float *sums_q, *sums_kv;
    lam_attention_norm norm;
    /* Sums of units for the gradients of the norm's weights: by sample, sums_norm_sample apart, those of q and of k, each [w and b,
     * units of a head, heads, head_dim]. */
    float *sums_norm;
    int64_t sums_norm_sample;
    int apart,
        floats; /* in shared memory: where the second pass's rows begin, 0 or behind those of the first; and
                          from there its lse and less */
    division by_queries, by_keys;
};

/* Entries; model/cpu/kernels.h. */
void forward(const lam_attention_shape *shape, const void *q, const void *k, const void *v, void *out,
             float *lse, void *workspace);
void backward(const lam_attention_shape *shape, const lam_attention_tensors *tensors, void *workspace);
/* With the sums over all rows of dq and of dk and dv, where `columns` of the one or the other is not 0; `sums` and `first` say
 * where they go. Gradients are written then, not added. */
void backward_with_sums(const lam_attention_shape *shape, const lam_attention_tensors *tensors,
                        void *workspace, lam_cuda_partials *q, lam_cuda_partials *kv);
/* What the workspace has before the sums of units. */
size_t less_bytes(const lam_attention_shape *shape);
void forward_float(const lam_attention_shape *shape, const void *q, const void *k, const void *v, void *out,
                   float *lse, void *workspace);
void backward_float(const lam_attention_shape *shape, const lam_attention_tensors *tensors, void *workspace);

/* With a norm that they do not take, in kernels before and behind the same without one; `element`: its bytes. */
template <typename T>
void forward_apart(const lam_attention_shape *shape, const void *q, const void *v, void *out, float *lse,
                   void *workspace);
template <typename T>
void backward_apart(const lam_attention_shape *shape, const lam_attention_tensors *tensors, void *workspace);
size_t apart_bytes(const lam_attention_shape *shape, bool backward, size_t element);
/* Whether the kernels for bfloat16 take the norm: of the shape alone, but for its batch and the mask. */
bool forward_takes_norm(const lam_attention_shape *shape);
bool backward_takes_norm(const lam_attention_shape *shape);
/* Of the workspace, behind less_bytes. */
size_t sums_norm_bytes(const lam_attention_shape *shape);

/* ---- host ---- */

static inline int round_up(int64_t count, int unit) { return (int)((count + unit - 1) / unit * unit); }

/* The narrowest width of kernels that holds a head: call(width_of<WIDTH, VECTORS>()). Without whole vectors there is
 * the widest only. */
template <int width, bool vectors> struct width_of {
    static const int WIDTH = width;
    static const bool VECTORS = vectors;
};
template <typename F> void with_width(const arguments &a, F call) {
    if (!a.vectors)
        call(width_of<128, false>());
    else if (a.head_dim <= 16)
        call(width_of<16, true>());
    else if (a.head_dim <= 32)
        call(width_of<32, true>());
    else if (a.head_dim <= 64)
        call(width_of<64, true>());
    else if (a.head_dim <= 80)
        call(width_of<80, true>());
    else if (a.head_dim <= 112)
        call(width_of<112, true>());
    else
        call(width_of<128, true>());
}

/* The same with a norm, of whole vectors. */
const int NORM_WIDTH = 112;
template <typename F> void with_norm_width(int64_t head_dim, F call) {
    if (head_dim <= 64)
        call(width_of<64, true>());
    else
        call(width_of<NORM_WIDTH, true>());
}
static inline bool is_for_norm(const lam_attention_shape *s) {
    return s->head_dim % 8 == 0 && s->head_dim <= NORM_WIDTH && s->q_stride % 8 == 0 &&
           s->out_stride % 8 == 0;
}

static inline bool is_aligned(const void *tensor, int64_t stride) {
    return (uintptr_t)tensor % 16 == 0 && stride % 8 == 0;
}

arguments arguments_of(const lam_attention_shape *shape, const void *q, const void *k, const void *v);
/* What a pass needs to be shared out. */
struct need {
    int count, rows;    /* on the units' side, in a unit */
    int others, stages; /* rows on the other side; stages of the ring */
    int row_bytes,
        extra; /* shared memory of a row of each of the two on the other side, of both of them besides */
    size_t block_bytes; /* of a block besides */
    int blocks;         /* that registers leave on a multiprocessor */
};
/* Bytes of shared memory that a block may have so that as many fit as registers leave. */
size_t room_of_block(const need &n);
division divide(const arguments &a, int64_t batch, const need &n);
size_t shared_bytes(const division &d, const need &n);
/* Samples that one launch takes at most. */
int64_t most_samples(void);
/* The launches of a pass: launch(grid, the arguments of it). */
template <typename F> void for_samples(arguments a, const division &d, int64_t batch, F launch) {
    for (; a.first_sample < batch; a.first_sample += most_samples())
        launch(dim3((unsigned)d.parts, (unsigned)d.groups,
                    (unsigned)min(batch - a.first_sample, most_samples())),
               a);
}
/* Lets a kernel have as much dynamic shared memory as there is. */
bool allow_shared(const void *kernel);

/* ---- rows in shared memory ---- */

/* Vectors of 8 elements lie so that neither 8 rows' vectors of one place nor a row's neighbours meet in a bank:
 * exchanged by the row's number where a row is a power of two of vectors, else rows are one vector apart. */
template <int WIDTH> struct layout {
    static const int VECTORS = WIDTH / 8;
    static const bool EXCHANGED = (VECTORS & (VECTORS - 1)) == 0;
    static const int STRIDE = EXCHANGED ? WIDTH : WIDTH + 8, ROW_BYTES = 2 * STRIDE;
    /* Bytes from the beginning, which is 128-byte aligned. */
    static __device__ __forceinline__ int place(int row, int vector) {
        if (!EXCHANGED) return row * ROW_BYTES + vector * 16;
        return row * ROW_BYTES + (vector ^ (VECTORS >= 8   ? row & 7
                                            : VECTORS == 4 ? row >> 1 & 3
                                                           : row >> 2 & 1)) *
                                     16;
    }
    /* 2 `pair` vectors further in a row whose vector 0 or 1 lies at `at`. */
    static __device__ __forceinline__ lam_shared further(lam_shared at, int pair) {
        if (!EXCHANGED) return at + 32 * pair;
        return (at ^ 32 * (pair & 3)) + 128 * (pair >> 2);
    }
};

/* What a lane adds to the address of 16 rows (a multiple of 8 rows from the beginning) when their matrices are
 * loaded: for rows, lanes 0 to 7 have vector 0 of rows 0 to 7, 8 to 15 vector 1, the rest the same of rows 8 to
 * 15; for columns, lanes 0 to 15 have vector 0 of rows 0 to 15, the rest vector 1. */
template <int WIDTH> __device__ __forceinline__ int lane_of_rows(void) {
    const int lane = threadIdx.x & 31;
    return layout<WIDTH>::place((lane & 7) + (lane >> 4) * 8, lane >> 3 & 1);
}
template <int WIDTH> __device__ __forceinline__ int lane_of_columns(void) {
    const int lane = threadIdx.x & 31;
    return layout<WIDTH>::place(lane & 15, lane >> 4);
}

/* Right operands: of B[k][n] = element 16 pair + k of row n, `at` from lane_of_rows, columns 0 to 7 in b[0],
 * b[1], 8 to 15 in b[2], b[3]; of 8 rows b[0], b[1]. */
template <int WIDTH> __device__ __forceinline__ void rows_16(uint32_t (&b)[4], lam_shared at, int pair) {
    lam_load_matrices<4, false>(b, layout<WIDTH>::further(at, pair));
}
template <int WIDTH> __device__ __forceinline__ void rows_8(uint32_t (&b)[2], lam_shared at, int pair) {
    lam_load_matrices<2, false>(b, layout<WIDTH>::further(at, pair));
}
/* Of B[k][n] = element 16 pair + n of row k, `at` from lane_of_columns: columns 0 to 7 in b[0], b[1], 8 to 15
 * in b[2], b[3]; of 8 rows, `at` from lane_of_rows: b[0], b[1]. */
template <int WIDTH> __device__ __forceinline__ void columns_16(uint32_t (&b)[4], lam_shared at, int pair) {
    lam_load_matrices<4, true>(b, layout<WIDTH>::further(at, pair));
}
template <int WIDTH> __device__ __forceinline__ void columns_8(uint32_t (&b)[2], lam_shared at, int pair) {
    lam_load_matrices<2, true>(b, layout<WIDTH>::further(at, pair));
}

/* Two elements of a row, the first even: 0 behind `end`. */
template <bool VECTORS> __device__ __forceinline__ uint32_t pair_of(const bf16 *row, int at, int end) {
    if (VECTORS) return at < end ? *(const uint32_t *)(row + at) : 0;
    uint32_t low = at < end ? __bfloat16_as_ushort(row[at]) : 0,
             high = at + 1 < end ? __bfloat16_as_ushort(row[at + 1]) : 0;
    return low | high << 16;
}

/* Rows first to first + rows of a head into shared memory, by all threads of the block, each its vector of every
 * STEP-th row; 0 where `mask` has 0, from row `end` on, and behind head_dim. Arrives when the group of copies that
 * the caller closes has. */
template <int WIDTH, bool VECTORS, int AT_ONCE>
__device__ __forceinline__ void bring_rows(unsigned char *to, const bf16 *from, int64_t stride, int first,
                                           int rows, int end, int head_dim, const float *mask) {
    typedef layout<WIDTH> l;
    const int STEP = THREADS / l::VECTORS;
    static_assert(!l::EXCHANGED || STEP % 8 == 0, "a thread's vectors lie in one place of their rows");
    const int thread = lam_anew((int)threadIdx.x), vector = thread % l::VECTORS, row = thread / l::VECTORS;
    if (row >= STEP) return;
    lam_shared target = lam_shared_at(to) + l::place(row, vector);
    const bf16 *source = from + (first + row) * stride + vector * 8;
    const bool column = vector * 8 < head_dim;
#pragma unroll AT_ONCE
    for (int r = row; r < rows; r += STEP) {
        bool present = column && first + r < end && (!mask || mask[first + r] != 0);
        if (VECTORS) {
            lam_copy_later<16>(target, present ? source : from, present);
        } else {
            int left = present ? head_dim - vector * 8 : 0;
            *(uint4 *)(to + l::place(r, vector)) =
                make_uint4(pair_of<false>(source, 0, left), pair_of<false>(source, 2, left),
                           pair_of<false>(source, 4, left), pair_of<false>(source, 6, left));
        }
        source += STEP * stride, target += STEP * l::ROW_BYTES;
    }
}

const int FLOATS = 3; /* of a row of queries */

/* The same for lse and, twice by pairs of rows, for `less`; `room` floats, then 2 room. */
__device__ __forceinline__ void bring_floats(float *to, int room, int at, const float *lse, const float *less,
                                             int first, int rows, int end) {
#pragma unroll 1
    for (int i = lam_anew((int)threadIdx.x); i < FLOATS * rows; i += THREADS) {
        int row = i < rows ? i : (i - rows) / 4 * 2 + (i - rows) % 2;
        bool present = first + row < end;
        lam_copy_later<4>(lam_shared_at(to + (i < rows ? at + i : room + 2 * at + i - rows)),
                          (i < rows ? lse : less) + (present ? first + row : 0), present);
    }
}

/* ---- fragments ---- */

/* What the loops over scores do not need is computed anew where it is needed, since they leave no register for it. */
__device__ __forceinline__ int64_t sample_of(const arguments &a) {
    return a.first_sample + lam_anew((int)blockIdx.z);
}
__device__ __forceinline__ int lane_anew(void) { return lam_anew((int)threadIdx.x) & 31; }

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
template <int WIDTH, bool VECTORS, int TILES>
__device__ __forceinline__ void load_unit(uint32_t (&to)[TILES][WIDTH / 16][4], const bf16 *from,
                                          int64_t stride, int first, int end, int head_dim,
                                          const float *mask) {
    const int lane = lane_anew(), g = lane >> 2, t = lane & 3;
#pragma unroll
    for (int m = 0; m < TILES; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int number = first + 16 * m + 8 * half + g;
            const bool present = number < end && (!mask || mask[number] != 0);
            const bf16 *row = from + (present ? number * stride : 0);
            const int columns = present ? head_dim : 0;
#pragma unroll
            for (int j = 0; j < WIDTH / 8; j++)
                to[m][j / 2][half + j % 2 * 2] = pair_of<VECTORS>(row, 8 * j + 2 * t, columns);
        }
}

/* The way back: factor * sums of each row; `add`: +=. Rows that are not `present` become 0 (add: stay). */
template <int WIDTH, bool VECTORS, int TILES>
__device__ __forceinline__ void store_unit(const float (&sums)[TILES][WIDTH / 8][4],
                                           const float (&factor)[TILES][2], const bool (&present)[TILES][2],
                                           bf16 *to, int64_t stride, int first, int end, int head_dim,
                                           bool add) {
    const int lane = lane_anew(), g = lane >> 2, t = lane & 3;
#pragma unroll
    for (int m = 0; m < TILES; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int number = first + 16 * m + 8 * half + g;
            bf16 *row = to + number * stride;
            const bool seen = present[m][half];
            const int columns = number < end && (seen || !add) ? head_dim : 0;
            const float by = factor[m][half];
#pragma unroll
            for (int j = 0; j < WIDTH / 8; j++) {
                const int column = 8 * j + 2 * t;
                float x = seen ? by * sums[m][j][2 * half] : 0, y = seen ? by * sums[m][j][2 * half + 1] : 0;
                if (column >= columns) continue;
                if (VECTORS) {
                    uint32_t *at = (uint32_t *)(row + column);
                    if (add) x += low_of(*at), y += high_of(*at);
                    *at = packed(x, y);
                } else {
                    lam_store(row + column, add ? lam_load(row + column) + x : x);
                    if (column + 1 < columns)
                        lam_store(row + column + 1, add ? lam_load(row + column + 1) + y : y);
                }
            }
        }
}

/* x in a register of its own: for a C of products that holds a value twice. Of a mere copy the compiler knows
 * that it is one, keeps one register, and copies anew before each product. */
__device__ __forceinline__ float twin_of(float x) { return __shfl_sync(ALL, x, threadIdx.x & 31); }

/* The four lanes that share a row. */
__device__ __forceinline__ float sum_of_row(float x) {
    x += __shfl_xor_sync(ALL, x, 1);
    return x + __shfl_xor_sync(ALL, x, 2);
}
__device__ __forceinline__ float largest_of_row(float x) {
    x = fmaxf(x, __shfl_xor_sync(ALL, x, 1));
    return fmaxf(x, __shfl_xor_sync(ALL, x, 2));
}

/* ---- LayerNorm of heads ---- */

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

/* ---- which keys are visible ---- */

/* One bit a key, by all threads of the block; a barrier must follow. */
__device__ __forceinline__ void visible_keys(uint32_t *words, const float *mask, int keys) {
    for (int i = threadIdx.x; i < (keys + 31) / 32 * 32; i += THREADS) {
        uint32_t word = __ballot_sync(ALL, i < keys && mask[i] != 0);
        if ((threadIdx.x & 31) == 0) words[i / 32] = word;
    }
}
__device__ __forceinline__ uint32_t first_keys(int count) { return count >= 32 ? ALL : (1u << count) - 1u; }

/* ---- a pass ---- */

/* Rows of keys and values, or of queries and d_out with lse and less unless those are there already, into rows `at`
 * of the memory. */
template <int WIDTH, bool VECTORS, bool KEYS, int AT_ONCE>
__device__ __forceinline__ void bring(const arguments &a, const division &d, unsigned char *memory, int head,
                                      int first, int rows, int at, bool floats) {
    const int count = KEYS ? a.keys : a.queries;
    const int64_t sample = sample_of(a);
#pragma unroll 1
    for (int side = 0; side < 2; side++) {
        const bf16 *from = KEYS ? (side ? a.v : a.k) : side ? a.d_out : a.q;
        const int64_t stride = KEYS ? a.kv_stride : side ? a.out_stride : a.q_stride;
        bring_rows<WIDTH, VECTORS, AT_ONCE>(memory + side * d.side + at * layout<WIDTH>::ROW_BYTES,
                                            from + sample * (count * stride) + head * a.head_dim, stride,
                                            first, rows, count, a.head_dim,
                                            KEYS && a.key_mask ? a.key_mask + sample * a.keys : NULL);
    }
    if (KEYS || !floats) return;
    const int64_t statistics = (sample * a.heads + head) * count;
    bring_floats((float *)(memory + 2 * d.side), d.room, at, a.lse + statistics, a.less + statistics, first,
                 rows, count);
}

/* The block's heads, where their rows are resident. */
template <int WIDTH, bool VECTORS, bool KEYS>
__device__ __forceinline__ void bring_heads(const arguments &a, const division &d, unsigned char *memory,
                                            bool floats) {
    const int count = KEYS ? a.keys : a.queries, rows = (count + 7) / 8 * 8;
#pragma unroll 1
    for (int h = 0; h < d.heads_a_block; h++)
        bring<WIDTH, VECTORS, KEYS, 4>(a, d, memory, blockIdx.y * d.heads_a_block + h, 0, rows, h * rows,
                                       floats);
    lam_copies_close();
}

/* What a warp does at a time. */
struct unit {
    int head, own, row; /* own: the head's number in the block; row: the first */
    bool there;         /* else the warp only comes to the barriers */
};
/* The block's number-th, of ROWS rows. */
template <int ROWS> __device__ __forceinline__ unit unit_of(const division &d, int number) {
    const int first = lam_anew((int)blockIdx.x) * d.units_a_block,
              units = min(d.units - first, d.units_a_block);
    unit r = {};
    while (r.own < d.heads_a_block && number >= units) number -= units, r.own++;
    r.there = r.own < d.heads_a_block;
    if (!r.there) r.own = 0;
    r.head = lam_anew((int)blockIdx.y) * d.heads_a_block + r.own;
    r.row = (first + number) * ROWS;
    return r;
}

/* Goes over the units of a block, of 16 TILES rows, against `count` rows of keys and values (KEYS) or of
 * queries: for each open(unit, end of the rows), then, if that says that there is something to do, step(row in the
 * memory, row of the head, rows, whether the unit has more than 16 rows) for each stage, at last close(unit).
 * Resident rows have been brought by bring_heads; UNDER_WAY groups of copies need not have arrived; `arrived` is called for the
 * others. `own_count`: rows on the units' side. */
template <int WIDTH, bool VECTORS, int TILES, int STAGES, bool KEYS, int UNDER_WAY, typename O, typename S,
          typename C, typename A>
__device__ __forceinline__ void pass(const arguments &a, const division &d, unsigned char *memory,
                                     int own_count, int count, O open, S step, C close, A arrived) {
    const int rows = (count + 7) / 8 * 8;
    const bool resident = A::RESIDENT || d.resident;
    const int stage = resident ? rows : STAGE_ROWS;
    /* The same in all lanes, for the compiler too. */
    for (int number = __shfl_sync(ALL, threadIdx.x >> 5, 0);; number += WARPS) {
        const unit now = unit_of<16 * TILES>(d, number);
        if (!now.there && number >= WARPS) return;
        if (!resident)
#pragma unroll 1
            for (int s = 0; s < STAGES - 1; s++) {
                if (s * STAGE_ROWS < count)
                    bring<WIDTH, VECTORS, KEYS, 1>(a, d, memory, blockIdx.y, s * STAGE_ROWS,
                                                   min(STAGE_ROWS, rows - s * STAGE_ROWS), s * STAGE_ROWS,
                                                   true);
                lam_copies_close();
            }
        const bool works = open(now, now.there ? own_count : 0);
        int at = now.own * rows;
#pragma unroll 1
        for (int first = 0; first < count; first += stage) {
            if (resident) {
                if (number < WARPS) { /* the first time */
                    lam_copies_wait<UNDER_WAY>();
                    __syncthreads();
                    arrived();
                }
            } else {
                const int next = first + (STAGES - 1) * STAGE_ROWS;
                lam_copies_wait<STAGES - 2>();
                __syncthreads();
                if (next < count)
                    bring<WIDTH, VECTORS, KEYS, 1>(a, d, memory, blockIdx.y, next,
                                                   min(STAGE_ROWS, rows - next),
                                                   next / STAGE_ROWS % STAGES * STAGE_ROWS, true);
                lam_copies_close();
                at = first / STAGE_ROWS % STAGES * STAGE_ROWS;
            }
            if (works) step(at, first, min(stage, count - first), now.row + 16 < own_count);
        }
        const unit then = unit_of<16 * TILES>(d, lam_anew(number));
        if (then.there) close(then);
        if (!then.there || !resident) return; /* where rows are streamed, a warp has at most one unit */
    }
}

} // namespace lam_attention_parts

#endif
