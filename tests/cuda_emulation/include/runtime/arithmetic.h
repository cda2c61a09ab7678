/* Loads, bits, arithmetic. */
#ifndef LAMELLA_CUDA_EMULATION_RUNTIME_ARITHMETIC_H
#define LAMELLA_CUDA_EMULATION_RUNTIME_ARITHMETIC_H

#include <math.h>
#include <stdint.h>

template <typename T> static inline T __ldg(const T *p) { return *p; }
template <typename T> static inline T __ldcs(const T *p) { return *p; }
template <typename T> static inline T __ldcg(const T *p) { return *p; }
template <typename T> static inline T __ldca(const T *p) { return *p; }
template <typename T> static inline void __stcs(T *p, T value) { *p = value; }
template <typename T> static inline void __stcg(T *p, T value) { *p = value; }

static inline unsigned __float_as_uint(float value) {
    unsigned bits;
    __builtin_memcpy(&bits, &value, 4);
    return bits;
}
static inline float __uint_as_float(unsigned bits) {
    float value;
    __builtin_memcpy(&value, &bits, 4);
    return value;
}
static inline int __float_as_int(float value) {
    int bits;
    __builtin_memcpy(&bits, &value, 4);
    return bits;
}
static inline float __int_as_float(int bits) {
    float value;
    __builtin_memcpy(&value, &bits, 4);
    return value;
}
static inline long long __double_as_longlong(double value) {
    long long bits;
    __builtin_memcpy(&bits, &value, 8);
    return bits;
}
static inline double __longlong_as_double(long long bits) {
    double value;
    __builtin_memcpy(&value, &bits, 8);
    return value;
}

static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
static inline int __clz(int x) { return x ? __builtin_clz(static_cast<unsigned>(x)) : 32; }
static inline int __clzll(long long x) {
    return x ? __builtin_clzll(static_cast<unsigned long long>(x)) : 64;
}
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline int __ffsll(long long x) { return __builtin_ffsll(x); }
static inline unsigned __brev(unsigned x) {
    unsigned y = 0;
    for (int i = 0; i < 32; i++) y |= (x >> i & 1u) << (31 - i);
    return y;
}
static inline unsigned __umulhi(unsigned a, unsigned b) {
    return static_cast<unsigned>(static_cast<uint64_t>(a) * b >> 32);
}
static inline int __mulhi(int a, int b) { return static_cast<int>(static_cast<int64_t>(a) * b >> 32); }
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return static_cast<unsigned long long>(static_cast<unsigned __int128>(a) * b >> 64);
}
static inline unsigned __byte_perm(unsigned x, unsigned y, unsigned s) {
    uint64_t both = static_cast<uint64_t>(y) << 32 | x;
    unsigned result = 0;
    for (int i = 0; i < 4; i++) {
        unsigned pick = s >> 4 * i, byte = static_cast<unsigned>(both >> 8 * (pick & 7u)) & 0xffu;
        if (pick & 8u) byte = byte & 0x80u ? 0xffu : 0;
        result |= byte << 8 * i;
    }
    return result;
}
static inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
    return static_cast<unsigned>((static_cast<uint64_t>(high) << 32 | low) << (shift & 31u) >> 32);
}
static inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
    return static_cast<unsigned>((static_cast<uint64_t>(high) << 32 | low) >> (shift & 31u));
}

static inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
static inline double rsqrt(double x) { return 1.0 / sqrt(x); }
/* Macros, because the C library has functions of these names. */
#define __expf expf
#define __exp10f exp10f
#define __logf logf
#define __log2f log2f
#define __log10f log10f
#define __sinf sinf
#define __cosf cosf
#define __tanf tanf
#define __powf powf
static inline float __fdividef(float x, float y) { return x / y; }
static inline float __fadd_rn(float x, float y) { return x + y; }
static inline float __fsub_rn(float x, float y) { return x - y; }
static inline float __fmul_rn(float x, float y) { return x * y; }
static inline float __fdiv_rn(float x, float y) { return x / y; }
static inline float __fmaf_rn(float x, float y, float z) { return fmaf(x, y, z); }
static inline float __fsqrt_rn(float x) { return sqrtf(x); }
static inline float __frcp_rn(float x) { return 1.0f / x; }
static inline float __frsqrt_rn(float x) { return static_cast<float>(1.0 / sqrt(static_cast<double>(x))); }
static inline double __dadd_rn(double x, double y) { return x + y; }
static inline double __dsub_rn(double x, double y) { return x - y; }
static inline double __dmul_rn(double x, double y) { return x * y; }
static inline double __ddiv_rn(double x, double y) { return x / y; }
static inline double __dsqrt_rn(double x) { return sqrt(x); }
static inline double __fma_rn(double x, double y, double z) { return fma(x, y, z); }
static inline float __saturatef(float x) { return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f; }
static inline float __int2float_rn(int x) { return static_cast<float>(x); }
static inline float __uint2float_rn(unsigned x) { return static_cast<float>(x); }
static inline float __ll2float_rn(long long x) { return static_cast<float>(x); }
static inline float __double2float_rn(double x) { return static_cast<float>(x); }
static inline int __float2int_rn(float x) { return static_cast<int>(lrintf(x)); }
static inline int __float2int_rz(float x) { return static_cast<int>(x); }
static inline int __float2int_rd(float x) { return static_cast<int>(floorf(x)); }
static inline unsigned __float2uint_rn(float x) { return static_cast<unsigned>(llrintf(x)); }
static inline unsigned __float2uint_rz(float x) { return static_cast<unsigned>(x); }
/* Exact at multiples of a half, as the device's are. */
static inline void sincospi(double x, double *sine, double *cosine) {
    double turns = x - 2.0 * rint(x * 0.5);
    double quarter = rint(turns * 2.0), rest = (turns - quarter * 0.5) * 3.14159265358979323846;
    double s = sin(rest), c = cos(rest);
    switch (static_cast<int>(quarter) & 3) {
    case 0: *sine = s, *cosine = c; break;
    case 1: *sine = c, *cosine = -s; break;
    case 2: *sine = -s, *cosine = -c; break;
    default: *sine = -c, *cosine = s; break;
    }
}
static inline void sincospif(float x, float *sine, float *cosine) {
    double s, c;
    sincospi(x, &s, &c);
    *sine = static_cast<float>(s), *cosine = static_cast<float>(c);
}
static inline float sinpif(float x) {
    float s, c;
    sincospif(x, &s, &c);
    return s;
}
static inline float cospif(float x) {
    float s, c;
    sincospif(x, &s, &c);
    return c;
}
static inline double sinpi(double x) {
    double s, c;
    sincospi(x, &s, &c);
    return s;
}
static inline double cospi(double x) {
    double s, c;
    sincospi(x, &s, &c);
    return c;
}
static inline float normcdff(float x) { return 0.5f * erfcf(-x * 0.70710678118654752440f); }

/* The toolkit's overloads and no more, so that what is ambiguous there is ambiguous here. */
#define LAM_EMULATED_MIN_MAX(type)                                                                           \
    static inline type min(type a, type b) { return b < a ? b : a; }                                         \
    static inline type max(type a, type b) { return a < b ? b : a; }
LAM_EMULATED_MIN_MAX(int)
LAM_EMULATED_MIN_MAX(unsigned)
LAM_EMULATED_MIN_MAX(long)
LAM_EMULATED_MIN_MAX(unsigned long)
LAM_EMULATED_MIN_MAX(long long)
LAM_EMULATED_MIN_MAX(unsigned long long)
static inline unsigned min(int a, unsigned b) { return min(static_cast<unsigned>(a), b); }
static inline unsigned min(unsigned a, int b) { return min(a, static_cast<unsigned>(b)); }
static inline unsigned max(int a, unsigned b) { return max(static_cast<unsigned>(a), b); }
static inline unsigned max(unsigned a, int b) { return max(a, static_cast<unsigned>(b)); }
static inline float min(float a, float b) { return fminf(a, b); }
static inline float max(float a, float b) { return fmaxf(a, b); }
static inline double min(double a, double b) { return fmin(a, b); }
static inline double max(double a, double b) { return fmax(a, b); }
static inline double min(float a, double b) { return fmin(static_cast<double>(a), b); }
static inline double min(double a, float b) { return fmin(a, static_cast<double>(b)); }
static inline double max(float a, double b) { return fmax(static_cast<double>(a), b); }
static inline double max(double a, float b) { return fmax(a, static_cast<double>(b)); }

/* Fails the launch, as an illegal instruction does. */
void __trap(void);

#endif
