/* What kernels that are bound by bytes share: accesses of 16 bytes, rows given to warps, column sums.
 *
 *     constexpr int V = lam_vector<T>;                          // 4 floats or 8 bfloat16
 *     float value[V];
 *     lam_read<T, V>(x + i).unpack(value);                      // x + i aligned to 16 bytes
 *     lam_pack<T, V>(value).write(y + i);                       // rounded to the nearest
 *
 * Every kernel is a template over V: lam_vector<T> where width and pointers allow it (lam_fits), else 1:
 *
 *     lam_with_vectors<T>(lam_fits<T>(width, x, y), [&](auto V) {
 *         LAM_LAUNCH((kernel<T, V>), (unsigned)lam_blocks(count, 256 * V), 256, 0, lam_cuda_stream(), x, y, count);
 *     }); */
#ifndef LAMELLA_MODEL_CUDA_VECTOR_CUH
#define LAMELLA_MODEL_CUDA_VECTOR_CUH

#include <string.h>

#include <type_traits>

#include "model/cuda/backend.cuh"
#include "model/cuda/sums.cuh"

template <typename T> constexpr int lam_vector = 16 / (int)sizeof(T);

/* ---- 16 bytes or one element, as they lie in memory ---- */

template <typename T, int V> struct lam_raw {
    T bits;
    __device__ __forceinline__ void unpack(float (&value)[1]) const { value[0] = lam_load(&bits); }
    __device__ __forceinline__ void write(T *to) const { *to = bits; }
};
template <> struct lam_raw<float, 4> {
    float4 bits;
    __device__ __forceinline__ void unpack(float (&value)[4]) const {
        value[0] = bits.x;
        value[1] = bits.y;
        value[2] = bits.z;
        value[3] = bits.w;
    }
    __device__ __forceinline__ void write(float *to) const { *reinterpret_cast<float4 *>(to) = bits; }
};
template <> struct lam_raw<__nv_bfloat16, 8> {
    uint4 bits;
    __device__ __forceinline__ void unpack(float (&value)[8]) const {
        const unsigned words[4] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
        for (int k = 0; k < 4; k++) {
            value[2 * k] = __uint_as_float(words[k] << 16);
            value[2 * k + 1] = __uint_as_float(words[k] & 0xffff0000u);
        }
    }
    __device__ __forceinline__ void write(__nv_bfloat16 *to) const { *reinterpret_cast<uint4 *>(to) = bits; }
};

template <typename T, int V> __device__ __forceinline__ lam_raw<T, V> lam_read(const T *from) {
    lam_raw<T, V> raw;
    if constexpr (V == 1)
        raw.bits = *from;
    else
        raw.bits = *reinterpret_cast<const decltype(raw.bits) *>(from);
    return raw;
}

__device__ __forceinline__ unsigned lam_pair(float low, float high) {
    __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    unsigned word;
    memcpy(&word, &pair, sizeof word);
    return word;
}

template <typename T, int V> __device__ __forceinline__ lam_raw<T, V> lam_pack(const float (&value)[V]) {
    lam_raw<T, V> raw;
    if constexpr (V == 1)
        lam_store(&raw.bits, value[0]);
    else if constexpr (V == 4)
        raw.bits = make_float4(value[0], value[1], value[2], value[3]);
    else
        raw.bits = make_uint4(lam_pair(value[0], value[1]), lam_pair(value[2], value[3]),
                              lam_pair(value[4], value[5]), lam_pair(value[6], value[7]));
    return raw;
}

/* V float32, which are 16 bytes, 32 or an element. */
template <int V> __device__ __forceinline__ void lam_read_floats(const float *from, float (&value)[V]) {
    if constexpr (V == 1) {
        value[0] = *from;
    } else {
#pragma unroll
        for (int k = 0; k < V; k += 4) {
            float4 four = *reinterpret_cast<const float4 *>(from + k);
            value[k] = four.x;
            value[k + 1] = four.y;
            value[k + 2] = four.z;
            value[k + 3] = four.w;
        }
    }
}
template <int V> __device__ __forceinline__ void lam_write_floats(float *to, const float (&value)[V]) {
    if constexpr (V == 1) {
        *to = value[0];
    } else {
#pragma unroll
        for (int k = 0; k < V; k += 4)
            *reinterpret_cast<float4 *>(to + k) =
                make_float4(value[k], value[k + 1], value[k + 2], value[k + 3]);
    }
}

/* to (+)= value, rounded once. */
template <typename T, int V>
__device__ __forceinline__ void lam_write_or_add(T *to, float (&value)[V], bool add) {
    if (add) {
        float old[V];
        lam_read<T, V>(to).unpack(old);
#pragma unroll
        for (int k = 0; k < V; k++) value[k] += old[k];
    }
    lam_pack<T, V>(value).write(to);
}

static inline bool lam_is_aligned(const void *p) { return (uintptr_t)p % 16 == 0; } /* NULL is */
/* Whether rows of `width` elements of type T from these pointers on consist of whole vectors. */
template <typename T, typename... P> static inline bool lam_fits(int64_t width, const P *...pointers) {
    return width % lam_vector<T> == 0 && (lam_is_aligned(pointers) && ... && true);
}

/* call(V), V of std::integral_constant: a vector's elements where they fit, else one at a time. */
template <typename T, typename F> static inline void lam_with_vectors(bool fit, F call) {
    if (fit)
        call(std::integral_constant<int, lam_vector<T>>());
    else
        call(std::integral_constant<int, 1>());
}

/* ---- rows ---- */

enum { LAM_ROW_THREADS = 256, LAM_ROW_WARPS = LAM_ROW_THREADS / 32 }; /* a warp a row */

static inline unsigned lam_row_blocks(int64_t rows) { return (unsigned)lam_blocks(rows, LAM_ROW_WARPS); }
/* Counts of rows are below 2^32, and a quotient of 64 bits takes longer than a row. */
__device__ __forceinline__ int64_t lam_quotient(int64_t rows, int64_t by) {
    return (uint32_t)rows / (uint32_t)by;
}
__device__ __forceinline__ int64_t lam_remainder(int64_t rows, int64_t by) {
    return (uint32_t)rows % (uint32_t)by;
}
/* Of the warp; the last block may have warps without a row. The first `others` blocks do something else. */
__device__ __forceinline__ int64_t lam_row_of_warp(unsigned others = 0) {
    return (int64_t)(blockIdx.x - others) * LAM_ROW_WARPS + threadIdx.x / 32;
}

/* By one warp: to (+)= from, to = zeros. */
template <typename T, int V>
__device__ __forceinline__ void lam_row_pass(const T *from, T *to, int64_t width, bool add) {
    for (int64_t i = threadIdx.x % 32 * V; i < width; i += 32 * V) {
        lam_raw<T, V> raw = lam_read<T, V>(from + i);
        if (add) {
            float value[V];
            raw.unpack(value);
            lam_write_or_add<T, V>(to + i, value, true);
        } else {
            raw.write(to + i);
        }
    }
}
template <typename T, int V> __device__ __forceinline__ void lam_row_zero(T *to, int64_t width) {
    const float zeros[V] = {0};
    for (int64_t i = threadIdx.x % 32 * V; i < width; i += 32 * V) lam_pack<T, V>(zeros).write(to + i);
}

/* ---- column sums ---- */

/* Sums over all rows take two stages: blocks of rows, each into a row of partial sums, then lam_sum_rows. At most
 * LAM_COLUMN_PARTIALS blocks, which fill every GPU, of at least 8 rows: lam_column_partials is what the operations reserve. */
static inline int64_t lam_rows_a_block(int64_t rows) {
    int64_t each = lam_blocks(rows, LAM_COLUMN_PARTIALS);
    return each < LAM_COLUMN_PARTIAL_ROWS ? LAM_COLUMN_PARTIAL_ROWS : each;
}

/* Where sums go, NULL: not wanted. */
struct lam_sum_targets {
    float *out[4];
};
enum { LAM_SUM_WARPS = 16, LAM_SUM_ROWS = 16 }; /* of a block; of a warp at once */

/* The sum over r < rows of x[r * stride], `inside` telling whether the lane's column x is one, in the lanes of warp 0 of a block of
 * 16 warps: those take rows r, r + 16, ..., and then the warps in order. fold: [16][32] in shared memory. */
template <typename T>
static __device__ __forceinline__ float lam_sum_of_rows(const T *x, int64_t rows, int64_t stride, bool inside,
                                                        float *fold) {
    const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
    float sum = 0;
    for (int64_t first = warp; first < rows && inside; first += LAM_SUM_WARPS * LAM_SUM_ROWS) {
        float value[LAM_SUM_ROWS]; /* under way together: the time is that of the way */
#pragma unroll
        for (int k = 0; k < LAM_SUM_ROWS; k++) {
            int64_t r = first + k * LAM_SUM_WARPS;
            value[k] = r < rows ? lam_load(x + r * stride) : 0.0f;
        }
#pragma unroll
        for (int k = 0; k < LAM_SUM_ROWS; k++) sum += value[k];
    }
    fold[32 * warp + lane] = sum;
    __syncthreads();
    if (!warp)
        for (int other = 1; other < LAM_SUM_WARPS; other++) sum += fold[32 * other + lane];
    return sum;
}

/* out[k][i] += sum over r < rows of x[k * apart + r * stride + i], i < width, k = blockIdx.y: 32 columns a block. */
template <typename T>
__global__ void __launch_bounds__(32 * LAM_SUM_WARPS)
    lam_sum_rows_kernel(const T *x, int64_t apart, int64_t rows, int64_t stride, int64_t width,
                        const lam_sum_targets targets) {
    LAM_SHARED(float, fold, [LAM_SUM_WARPS * 32]);
    const int k = (int)blockIdx.y;
    const int64_t column = (int64_t)blockIdx.x * 32 + threadIdx.x % 32;
    float *out = k < 2 ? (k ? targets.out[1] : targets.out[0]) : (k > 2 ? targets.out[3] : targets.out[2]);
    if (!out) return;
    float sum = lam_sum_of_rows(x + k * apart + column, rows, stride, column < width, fold);
    if (threadIdx.x < 32 && column < width) out[column] += sum;
}

template <typename T>
static inline void lam_sum_rows(const T *x, int64_t rows, int64_t stride, int64_t width, float *out) {
    if (rows < 1 || width < 1) return;
    LAM_LAUNCH((lam_sum_rows_kernel<T>), (unsigned)lam_blocks(width, 32), 32 * LAM_SUM_WARPS, 0,
               lam_cuda_stream(), x, (int64_t)0, rows, stride, width, lam_sum_targets{{out}});
}

/* The same of `tables` tables [rows, width] one behind the other. */
static inline void lam_sum_partials(const float *partial, int tables, int64_t rows, int64_t width,
                                    const lam_sum_targets &targets) {
    if (rows < 1 || width < 1) return;
    LAM_LAUNCH((lam_sum_rows_kernel<float>), dim3((unsigned)lam_blocks(width, 32), (unsigned)tables),
               32 * LAM_SUM_WARPS, 0, lam_cuda_stream(), partial, rows * width, rows, width, width, targets);
}

#endif
