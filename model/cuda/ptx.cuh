/* Instructions that CUDA C++ has no name for: the only file with inline PTX, and with a second body for the
 * host, which the tests run (tests/cuda_emulation). Layouts: PTX ISA 8.8, "Warp-level matrix instructions"; g =
 * lane / 4, t = lane % 4.
 *
 * A matrix of 8 x 8 elements of 16 bits is one register: lane holds row g, columns 2t and 2t + 1 (in the lower
 * half 2t). mma 16 x 8 x 16, D = A B + C with A [16, 16], B [16, 8], C and D [16, 8] float:
 *
 *     A, 4 registers   rows g, g + 8, g, g + 8; columns 2t, 2t + 1, of the last two 8 + 2t, 9 + 2t
 *     B, 2 registers   rows 2t, 2t + 1, of the second 8 + 2t, 9 + 2t; column g
 *     C, 4 floats      row g, columns 2t, 2t + 1; row g + 8, the same columns
 *
 * so that C of one product, rounded and packed in pairs, is A of another. All lanes of the warp take part in
 * each. */
#ifndef LAMELLA_MODEL_CUDA_PTX_CUH
#define LAMELLA_MODEL_CUDA_PTX_CUH

#include "model/cuda/launch.cuh"

#ifndef LAM_CUDA_EMULATION

/* An address in shared memory. */
typedef uint32_t lam_shared;
__device__ __forceinline__ lam_shared lam_shared_at(const void *p) {
    return (uint32_t)__cvta_generic_to_shared(p);
}

/* Matrices of 8 rows of 16 bytes in shared memory, each 16-byte aligned: lanes 8 i to 8 i + 7 give the rows of
 * matrix i. `count` is 2 or 4; fewer than 4: what the other lanes give is not used. `turned`: transposed, which
 * makes B of what is stored by columns of B. */
template <int count, bool turned>
__device__ __forceinline__ void lam_load_matrices(uint32_t (&to)[count], lam_shared row) {
    static_assert(count == 2 || count == 4, "matrices at a time");
    if constexpr (count == 4 && turned)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                     : "r"(row)
                     : "memory");
    else if constexpr (count == 4)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                     : "r"(row)
                     : "memory");
    else if constexpr (turned)
        asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                     : "=r"(to[0]), "=r"(to[1])
                     : "r"(row)
                     : "memory");
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                     : "=r"(to[0]), "=r"(to[1])
                     : "r"(row)
                     : "memory");
}

/* d = a b + c in bfloat16 with sums in float; d may be c. The order of the sums is not documented. */
__device__ __forceinline__ void lam_multiply(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                                             const float (&c)[4]) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%10, %11, %12, %13};"
        : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "f"(c[0]), "f"(c[1]), "f"(c[2]),
          "f"(c[3]));
}

/* The same over 8 columns of A and rows of B, the first registers of each. */
__device__ __forceinline__ void lam_multiply_half(float (&d)[4], const uint32_t (&a)[2], uint32_t b,
                                                  const float (&c)[4]) {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%7, %8, %9, %10};"
        : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(b), "f"(c[0]), "f"(c[1]), "f"(c[2]), "f"(c[3]));
}

/* Global to shared memory behind the thread's back; both aligned to `bytes`, 4 or 16. Not present: zeros, and
 * `from` must be a valid address all the same. */
template <int bytes>
__device__ __forceinline__ void lam_copy_later(lam_shared to, const void *from, bool present) {
    static_assert(bytes == 4 || bytes == 16, "bytes of a copy");
    if constexpr (bytes == 16)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from),
                     "r"(present ? 16 : 0)
                     : "memory");
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(from), "r"(present ? 4 : 0)
                     : "memory");
}
/* Closes a group of the thread's copies. */
__device__ __forceinline__ void lam_copies_close(void) {
    asm volatile("cp.async.commit_group;" ::: "memory");
}
/* Waits until at most `groups` of the thread's groups are under way; other threads see the bytes behind a
 * barrier. */
template <int groups> __device__ __forceinline__ void lam_copies_wait(void) {
    asm volatile("cp.async.wait_group %0;" ::"n"(groups) : "memory");
}

/* x, of which the compiler does not know that it is x: what follows from it is computed again rather than kept
 * in registers over a loop that needs them. */
__device__ __forceinline__ int lam_anew(int x) {
    asm volatile("" : "+r"(x));
    return x;
}

/* 2^x to 2 units in the last place; what is subnormal is 0. */
__device__ __forceinline__ float lam_exp2(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* 1 / x to a unit in the last place; what is subnormal is 0. */
__device__ __forceinline__ float lam_reciprocal(float x) {
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* The smaller, the larger; NaN where one is NaN. */
__device__ __forceinline__ float lam_smaller(float a, float b) {
    float y;
    asm("min.NaN.f32 %0, %1, %2;" : "=f"(y) : "f"(a), "f"(b));
    return y;
}
__device__ __forceinline__ float lam_larger(float a, float b) {
    float y;
    asm("max.NaN.f32 %0, %1, %2;" : "=f"(y) : "f"(a), "f"(b));
    return y;
}

#else

typedef uintptr_t lam_shared;
static inline lam_shared lam_shared_at(const void *p) { return reinterpret_cast<uintptr_t>(p); }

template <int count, bool turned> static inline void lam_load_matrices(uint32_t (&to)[count], lam_shared at) {
    const void *row = reinterpret_cast<const void *>(at);
    static_assert(count == 2 || count == 4, "matrices at a time");
    const unsigned lane = lam_emulated_lane(), g = lane / 4, t = lane % 4;
    if (lane < 8 * count) lam_emulated_access(row, 16, false);
    const void *const *rows = static_cast<const void *const *>(
        lam_emulated_exchange(0xffffffffu, &row, sizeof row, turned ? "ldmatrix.trans" : "ldmatrix"));
    for (int i = 0; i < count; i++) {
        uint16_t pair[2];
        for (unsigned e = 0; e < 2; e++)
            memcpy(&pair[e],
                   static_cast<const char *>(rows[8 * i + (turned ? 2 * t + e : g)]) +
                       2 * (turned ? g : 2 * t + e),
                   2);
        to[i] = pair[0] | static_cast<uint32_t>(pair[1]) << 16;
    }
}

/* What an mma adds. The order is not documented: forwards with c first, backwards with c last, or as tensor
 * cores are known to do, every addend cut to 24 bits below the largest and the sum cut once more. */
static inline float lam_emulated_sum(const float *products, int count, float c) {
    const int order = lam_emulated_sum_order();
    float sum = c, largest = fabsf(c);
    if (order == 0) {
        for (int i = 0; i < count; i++) sum += products[i];
        return sum;
    }
    if (order == 1) {
        sum = 0;
        for (int i = count; i-- > 0;) sum += products[i];
        return sum + c;
    }
    for (int i = 0; i < count; i++) {
        sum += products[i];
        largest = fmaxf(largest, fabsf(products[i]));
    }
    if (largest == 0 || !isfinite(sum) || !isfinite(largest)) return sum;
    const double unit = ldexp(1, ilogbf(largest) - 23);
    double cut = trunc(static_cast<double>(c) / unit);
    for (int i = 0; i < count; i++) cut += trunc(static_cast<double>(products[i]) / unit);
    float near = static_cast<float>(cut * unit);
    return fabs(static_cast<double>(near)) > fabs(cut * unit) ? nextafterf(near, 0) : near;
}

struct lam_emulated_operands {
    uint32_t a[4], b[2];
};

static inline float lam_emulated_half(uint32_t pair, int half) {
    return lam_bf16_to_float(static_cast<uint16_t>(half ? pair >> 16 : pair & 0xffffu));
}

static inline void lam_emulated_multiply(float (&d)[4], const lam_emulated_operands &mine,
                                         const float (&c)[4], int halves, const char *what) {
    const unsigned lane = lam_emulated_lane(), g = lane / 4, t = lane % 4;
    const lam_emulated_operands *all = static_cast<const lam_emulated_operands *>(
        lam_emulated_exchange(0xffffffffu, &mine, sizeof mine, what));
    const float before[4] = {c[0], c[1], c[2], c[3]};
    for (unsigned e = 0; e < 4; e++) {
        float products[16];
        unsigned column = 2 * t + e % 2;
        for (int k = 0; k < 8 * halves; k++) {
            unsigned other = static_cast<unsigned>(k % 8) / 2;
            products[k] =
                lam_emulated_half(all[4 * g + other].a[k / 8 * 2 + static_cast<int>(e / 2)], k % 2) *
                lam_emulated_half(all[4 * column + other].b[k / 8], k % 2);
        }
        d[e] = lam_emulated_sum(products, 8 * halves, before[e]);
    }
}

static inline void lam_multiply(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                                const float (&c)[4]) {
    lam_emulated_multiply(d, {{a[0], a[1], a[2], a[3]}, {b0, b1}}, c, 2, "mma.m16n8k16");
}
static inline void lam_multiply_half(float (&d)[4], const uint32_t (&a)[2], uint32_t b, const float (&c)[4]) {
    lam_emulated_multiply(d, {{a[0], a[1], 0, 0}, {b, 0}}, c, 1, "mma.m16n8k8");
}

template <int bytes> static inline void lam_copy_later(lam_shared to, const void *from, bool present) {
    static_assert(bytes == 4 || bytes == 16, "bytes of a copy");
    lam_emulated_copy_later(reinterpret_cast<void *>(to), from, bytes, present ? bytes : 0);
}
static inline void lam_copies_close(void) { lam_emulated_copies_commit(); }
template <int groups> static inline void lam_copies_wait(void) { lam_emulated_copies_wait(groups); }

static inline int lam_anew(int x) { return x; }

/* Without the flush of subnormal numbers a kernel could depend on what a GPU does not give. */
static inline float lam_exp2(float x) {
    float y = exp2f(x);
    return y < 1.17549435e-38f ? 0 : y;
}
static inline float lam_reciprocal(float x) {
    float y = 1.0f / x;
    return fabsf(y) < 1.17549435e-38f ? 0 : y;
}
static inline float lam_smaller(float a, float b) { return a != a || b != b ? NAN : a < b ? a : b; }
static inline float lam_larger(float a, float b) { return a != a || b != b ? NAN : a > b ? a : b; }

#endif
#endif
