/* Attention on tensor cores: what its kernels share. Method: Dao 2023, FlashAttention-2; mma.sync, so for every
 * architecture from sm_80 on. 128 threads a block, registers: at most 255 registers, at most 128, 168 and 255
 * forward of head_dim to 32, 64 and more (4, 3, 2 blocks a multiprocessor), 168 and 255 backward of head_dim to
 * 32 and more (3, 2 blocks). head_dim is filled with zeros up to WIDTH, a multiple of 16.
 *
 * A warp works by itself on `units` of 32 rows of queries (for the gradients of keys and values: of keys; 16
 * rows where registers are short), held in registers as left operands; the rows on the other side come through
 * shared memory and are the right operands.
 *
 *     resident   all rows of the other side of a head lie in shared memory, and warps take the head's units in
 *                turn with no barrier after the first; a block may hold several heads, so that short sequences
 *                keep all warps busy. Where both sides fit, one launch does the backward pass and reads each
 *                row from memory once.
 *     streamed   longer rows pass through a ring of stages of 64 rows, which all warps of a block follow with a
 *                unit each
 *
 * The backward pass goes over the scores twice, once for the gradients of queries and once for those of keys
 * and values: no sum crosses warps, nothing is added to memory, and the same bits come out every time. In one
 * pass, the gradients of queries would be summed over warps through shared memory, which is the scarcest thing
 * here.
 *
 * Counts by score block, 16 x 8 scores of a warp, for head_dim 32 (64). A multiprocessor quarter issues one
 * instruction a clock, an mma takes it 4 clocks on Hopper (8 on Ampere), 32 exponentials 8 clocks; shared
 * memory gives 128 bytes a clock to all four:
 *
 *                         mma      its clocks   exponentials   instructions   shared memory, clocks of four
 *     forward             4 (8)    16 (32)      30 (32)        28 (34)        512 (1,024) bytes, 16 (32)
 *     queries' gradients  6 (12)   24 (48)      32             29 (38)        768 (1,536) bytes, 24 (48)
 *     keys' and values'   8 (16)   32 (64)      32             34 (46)        1,024 (2,048) bytes, 32 (64)
 *     both in one pass    10       40           32             48             2,300 bytes, 72 against 56
 *
 * so exponentials bound head_dim 32: of 16 the forward pass leaves one to the multipliers (Cody & Waite 1980,
 * and a polynomial, as FlashAttention-4 does). With units of 16 rows shared memory would be read twice as often
 * and be the bound. Instructions are counted in the machine code for sm_90a.
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
    int parts, groups;        /* blocks that share a head, groups of heads of a block */
    int room, side;           /* rows and bytes of each of the two sides in shared memory */
    int stage_mask;           /* rows of a stage less 1; all where there are no stages */
    bool resident;
};

struct arguments {
    int queries, keys, heads, head_dim;
    int64_t q_stride, kv_stride, out_stride;
    const float *key_mask;
    bool vectors;          /* rows of heads are 16-byte aligned and whole vectors */
    float scale, exponent; /* 1 / sqrt(head_dim), that times log2(e) */
    const bf16 *q, *k, *v, *out, *d_out;
    float *lse, *less; /* [batch, heads, queries]; less: minus d_out . out */
    bf16 *result, *dq, *dk, *dv;
    bool add_q, add_kv;
    division by_queries, by_keys;
};

/* Entries; model/cpu/kernels.h. */
void forward(const lam_attention_shape *shape, const void *q, const void *k, const void *v, void *out,
             float *lse, void *workspace);
void backward(const lam_attention_shape *shape, const lam_attention_tensors *tensors, void *workspace);
void forward_float(const lam_attention_shape *shape, const void *q, const void *k, const void *v, void *out,
                   float *lse, void *workspace);
void backward_float(const lam_attention_shape *shape, const lam_attention_tensors *tensors, void *workspace);

/* ---- host ---- */

static inline int round_up(int64_t count, int unit) { return (int)((count + unit - 1) / unit * unit); }

/* The narrowest width of kernels that holds a head: call(width_of<WIDTH>()). */
template <int width> struct width_of { static const int value = width; };
template <typename F> void with_width(int64_t head_dim, F call) {
    if (head_dim <= 16)
        call(width_of<16>());
    else if (head_dim <= 32)
        call(width_of<32>());
    else if (head_dim <= 64)
        call(width_of<64>());
    else if (head_dim <= 80)
        call(width_of<80>());
    else if (head_dim <= 112)
        call(width_of<112>());
    else
        call(width_of<128>());
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
division divide(const arguments &a, int64_t batch, const need &n);
size_t shared_bytes(const division &d, const need &n);
unsigned blocks_of(int64_t batch, const division &d);
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

/* Elements of one row that may not be aligned, 0 behind its end. */
__device__ __forceinline__ uint32_t pair_of(const bf16 *row, int at, int end) {
    uint32_t low = at < end ? __bfloat16_as_ushort(row[at]) : 0,
             high = at + 1 < end ? __bfloat16_as_ushort(row[at + 1]) : 0;
    return low | high << 16;
}

/* Rows first to first + rows of a head into shared memory, by all threads of the block; 0 where `mask` has 0,
 * from row `end` on, and behind head_dim. Arrives when the group of copies that the caller closes has. */
template <int WIDTH>
__device__ __forceinline__ void bring_rows(unsigned char *to, const bf16 *from, int64_t stride, int first,
                                           int rows, int end, const arguments &a, const float *mask) {
    typedef layout<WIDTH> l;
    for (int i = threadIdx.x; i < rows * l::VECTORS; i += THREADS) {
        int r = i / l::VECTORS, vector = i % l::VECTORS, row = first + r;
        bool present = row < end && vector * 8 < a.head_dim && (!mask || mask[row] != 0);
        unsigned char *target = to + l::place(r, vector);
        const bf16 *source = from + (present ? row * stride + vector * 8 : 0);
        if (a.vectors) {
            lam_copy_later<16>(lam_shared_at(target), source, present);
        } else {
            int left = present ? a.head_dim - vector * 8 : 0;
            *(uint4 *)target = make_uint4(pair_of(source, 0, left), pair_of(source, 2, left),
                                          pair_of(source, 4, left), pair_of(source, 6, left));
        }
    }
}

const int FLOATS = 3; /* of a row of queries */

/* The same for lse and, twice by pairs of rows, for `less`; `room` floats, then 2 room. */
__device__ __forceinline__ void bring_floats(float *to, int room, int at, const float *lse, const float *less,
                                             int first, int rows, int end) {
    for (int i = threadIdx.x; i < FLOATS * rows; i += THREADS) {
        int row = i < rows ? i : (i - rows) / 4 * 2 + (i - rows) % 2;
        bool present = first + row < end;
        lam_copy_later<4>(lam_shared_at(to + (i < rows ? at + i : room + 2 * at + i - rows)),
                          (i < rows ? lse : less) + (present ? first + row : 0), present);
    }
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
__device__ __forceinline__ void load_unit(uint32_t (&to)[TILES][WIDTH / 16][4], const bf16 *from,
                                          int64_t stride, int first, int end, const arguments &a,
                                          const float *mask) {
    const int lane = lam_anew((int)threadIdx.x), g = lane >> 2 & 7, t = lane & 3;
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
                        to[m][WIDTH / 16 - 1][half + 2 * j] =
                            column < columns ? *(const uint32_t *)(row + column) : 0;
                    }
            } else {
#pragma unroll
                for (int j = 0; j < WIDTH / 8; j++)
                    to[m][j / 2][half + j % 2 * 2] = pair_of(row, 8 * j + 2 * t, columns);
            }
        }
}

/* The way back: factor * sums of each row; `add`: +=. Rows that are not `present` become 0 (add: stay). */
template <int WIDTH, int TILES>
__device__ __forceinline__ void store_unit(const float (&sums)[TILES][WIDTH / 8][4],
                                           const float (&factor)[TILES][2], const bool (&present)[TILES][2],
                                           bf16 *to, int64_t stride, int first, int end, const arguments &a,
                                           bool add) {
    const int lane = lam_anew((int)threadIdx.x), g = lane >> 2 & 7, t = lane & 3;
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
                        w[j] =
                            packed(by * sums[m][4 * c + j][2 * half], by * sums[m][4 * c + j][2 * half + 1]);
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

/* What a warp does at a time. All that the loops over stages do not need is computed anew where it is needed,
 * since they leave no register for it. */
struct unit {
    int sample, head, row; /* the first */
    int own;               /* head of the block */
    bool works;            /* there is such a unit */
};
/* The block's u-th, of `rows` rows. */
__device__ __forceinline__ unit unit_of(const division &d, int rows, int u) {
    const int block = lam_anew((int)blockIdx.x), first = block % d.parts * d.units_a_block;
    const int units = min(d.units - first, d.units_a_block);
    unit r = {};
    r.works = u < units * d.heads_a_block;
    r.own = r.works ? u / units : 0;
    r.sample = block / d.parts / d.groups;
    r.head = block / d.parts % d.groups * d.heads_a_block + r.own;
    r.row = (first + u - r.own * units) * rows;
    return r;
}

/* Rows of keys and values, or of queries and d_out with lse and less, into rows `at` of the memory. */
template <int WIDTH, bool KEYS>
__device__ __forceinline__ void bring(const arguments &a, const division &d, unsigned char *memory, int own,
                                      int first, int rows, int at) {
    const unit block = unit_of(d, 0, 0);
    const int count = KEYS ? a.keys : a.queries, head = block.head + own;
#pragma unroll 1
    for (int side = 0; side < 2; side++) {
        const bf16 *from = KEYS ? (side ? a.v : a.k) : side ? a.d_out : a.q;
        const int64_t stride = KEYS ? a.kv_stride : side ? a.out_stride : a.q_stride;
        bring_rows<WIDTH>(memory + side * d.side + at * layout<WIDTH>::ROW_BYTES,
                          from + block.sample * (count * stride) + head * a.head_dim, stride, first, rows,
                          count, a, KEYS && a.key_mask ? a.key_mask + (int64_t)block.sample * a.keys : NULL);
    }
    if (KEYS) return;
    const int64_t statistics = ((int64_t)block.sample * a.heads + head) * count;
    bring_floats((float *)(memory + 2 * d.side), d.room, at, a.lse + statistics, a.less + statistics, first,
                 rows, count);
}

/* Whether there is more to do in the stage when `left` of `count` rows are left. */
__device__ __forceinline__ bool goes_on(const division &d, int count, int left) {
    return left > 0 && ((count - left) & d.stage_mask);
}

/* Goes over the units of a block, of 16 TILES rows, against `count` rows of keys and values (KEYS) or of
 * queries: for each open, then, if that says that there is something to do, step(row in the memory, rows left,
 * whether the unit has more than 16 rows) for each stage, which advances the first two as long as it goes on,
 * at last close. `own_count`: rows on the units' side. */
template <int WIDTH, int TILES, int STAGES, bool KEYS, typename O, typename S, typename C>
__device__ __forceinline__ void pass(const arguments &a, const division &d, unsigned char *memory,
                                     int own_count, int count, O open, S step, C close) {
    const int warp = __shfl_sync(ALL, threadIdx.x >> 5, 0),
              rows = (count + 7) / 8 * 8; /* the same in all lanes, for the compiler too */
    if (d.resident) {
#pragma unroll 1
        for (int h = 0; h < d.heads_a_block; h++) bring<WIDTH, KEYS>(a, d, memory, h, 0, rows, h * rows);
        lam_copies_close();
    }
    /* Every warp comes to the barriers, also one without a unit; where rows are streamed, there is at most one
     * a warp. */
#pragma unroll 1
    for (int u = warp; u < max(d.units_a_block * d.heads_a_block, WARPS); u += WARPS) {
        unit now = unit_of(d, 16 * TILES, u);
        const bool whole = now.row + 16 < own_count;
        int at = now.own * rows, left = lam_anew(count) + (d.resident ? 0 : (STAGES - 1) * STAGE_ROWS);
        const bool works = open(now);
        if (d.resident && u < WARPS) { /* the first time */
            lam_copies_wait<0>();
            __syncthreads();
        }
#pragma unroll 1
        while (left > 0) {
            if (!d.resident) {
                /* Before the first stage, as many as the ring holds but one are sent for. */
                const int first = count - left, next = first + (STAGES - 1) * STAGE_ROWS;
                if (first >= 0) {
                    lam_copies_wait<STAGES - 2>();
                    __syncthreads();
                }
                if (next < count)
                    bring<WIDTH, KEYS>(a, d, memory, 0, next, min(STAGE_ROWS, rows - next),
                                       next / STAGE_ROWS % STAGES * STAGE_ROWS);
                lam_copies_close();
                at = first / STAGE_ROWS % STAGES * STAGE_ROWS;
                if (first < 0) {
                    left -= STAGE_ROWS;
                    continue;
                }
            }
            if (works)
                step(at, left, whole);
            else
                left -= STAGE_ROWS;
        }
        now = unit_of(d, 16 * TILES, lam_anew(u));
        if (now.works) close(now);
    }
}

} // namespace lam_attention_parts

#endif
