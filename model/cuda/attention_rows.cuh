/* Rows of heads in shared memory and, as the fragments of mma.sync, in registers (attention.cuh). */
#ifndef LAMELLA_MODEL_CUDA_ATTENTION_ROWS_CUH
#define LAMELLA_MODEL_CUDA_ATTENTION_ROWS_CUH

#include "model/cuda/attention.cuh"

namespace lam_attention_parts {

/* ---- in shared memory ---- */

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

/* ---- in registers ---- */

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

/* Of each value the sum of two lanes whose numbers differ in `bit`: of one half of them in the one, of the other in the
 * other, the first N / 2 then. */
template <int N, int ROOM> __device__ __forceinline__ void halve(float (&x)[ROOM], int lane, int bit) {
    const bool upper = (lane & bit) != 0;
#pragma unroll
    for (int k = 0; k < N / 2; k++) {
        const float own = upper ? x[k + N / 2] : x[k], other = upper ? x[k] : x[k + N / 2];
        x[k] = own + __shfl_xor_sync(ALL, other, bit);
    }
}

/* to[column] = the sum over the unit's rows of factor * sums; factor 0: the row takes no part. */
template <int WIDTH, int TILES>
__device__ __forceinline__ void sum_unit(const float (&sums)[TILES][WIDTH / 8][4],
                                         const float (&factor)[TILES][2], float *to, int head_dim) {
    /* Values of a lane, of the same columns in the eight lanes that differ in the bits 4, 8, 16. */
    const int N = WIDTH / 4;
    const bool THRICE = N % 8 == 0;
    const int lane = lane_anew(), t = lane & 3;
    float x[N];
#pragma unroll
    for (int n = 0; n < N; n++) {
        x[n] = 0;
#pragma unroll
        for (int m = 0; m < TILES; m++)
#pragma unroll
            for (int half = 0; half < 2; half++)
                x[n] = fmaf(factor[m][half], sums[m][n / 2][2 * half + n % 2], x[n]);
    }
    halve<N>(x, lane, 16);
    halve<N / 2>(x, lane, 8);
    if (THRICE)
        halve<N / 4>(x, lane, 4);
    else
#pragma unroll
        for (int k = 0; k < N / 4; k++) x[k] += __shfl_xor_sync(ALL, x[k], 4);
    const int first = (lane & 16 ? N / 2 : 0) + (lane & 8 ? N / 4 : 0) + (THRICE && (lane & 4) ? N / 8 : 0);
#pragma unroll
    for (int k = 0; k < (THRICE ? N / 8 : N / 4); k++) {
        const int column = (first + k) / 2 * 8 + 2 * t + (first + k) % 2;
        if (column < head_dim && (THRICE || !(lane & 4))) to[column] = x[k];
    }
}

} // namespace lam_attention_parts

#endif
