/* What attention is made of: elementary functions of vectors, turning of blocks, and products of small matrices in register
 * tiles. Included once an instruction set.
 *
 * The operands of a product are 4-byte words along the dimension that is summed over: a float, or, where the CPU multiplies
 * bfloat16, two of them (`pairs`). Words are handled as floats and never computed with. */
#ifndef LAMELLA_MODEL_CPU_ATTENTION_TILES
#define LAMELLA_MODEL_CPU_ATTENTION_TILES

#include <immintrin.h>

typedef int32_t integers __attribute__((vector_size(VF * 4), aligned(4), may_alias));

static inline int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }
static inline vector load(const float *from) { return *(const vector *)from; }
static inline void store(float *to, vector x) { *(vector *)to = x; }
static inline vector all_of(float x) { return x - (vector){0}; }

static inline vector larger(vector a, vector b) {
#if VF == 16
    return (vector)_mm512_max_ps((__m512)a, (__m512)b);
#elif VF == 8
    return (vector)_mm256_max_ps((__m256)a, (__m256)b);
#else
    return (vector)_mm_max_ps((__m128)a, (__m128)b);
#endif
}

static inline vector smaller(vector a, vector b) {
#if VF == 16
    return (vector)_mm512_min_ps((__m512)a, (__m512)b);
#elif VF == 8
    return (vector)_mm256_min_ps((__m256)a, (__m256)b);
#else
    return (vector)_mm_min_ps((__m128)a, (__m128)b);
#endif
}

/* 2^x for x <= 0; 1.2e-38 below -126 (products with smaller numbers are slow), 1 above 0, where the rounding of large scores may
 * carry x; NaN of NaN, which minimum and maximum give where it comes second. 2^n times a polynomial of the rest r, of least
 * relative error with p(0) = 1: 1.7e-7 for float results; 1.0e-4 where the result is rounded to bfloat16 (a relative 2e-3). */
static inline __attribute__((always_inline)) vector exp2_of(vector x, bool coarse) {
    x = smaller(all_of(0.0f), larger(all_of(-126.0f), x));
    /* Where it is rounded down, the instruction that takes n off and that which scales leave it to each other. */
#if VF == 16
    vector r = (vector)_mm512_reduce_ps((__m512)x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC), p;
    if (coarse) {
        p = 0.077067039907f * r + 0.22764499485f;
        p = p * r + 0.69511675835f;
    } else {
        p = 0.0018671300495f * r + 0.0090170307085f;
        p = p * r + 0.055799912661f;
        p = p * r + 0.24016444385f;
        p = p * r + 0.69315129519f;
    }
    p = p * r + 1.0f;
    return (vector)_mm512_scalef_ps((__m512)p, (__m512)x);
#else
    vector n = x + 12582912.0f, r = x - (n - 12582912.0f), p; /* n: the nearest integer, in the low bits */
    if (coarse) {
        p = 0.055008929222f * r + 0.24221095443f;
        p = p * r + 0.69328290224f;
    } else {
        p = 0.0013264727313f * r + 0.0096715129912f;
        p = p * r + 0.055507335812f;
        p = p * r + 0.24022242427f;
        p = p * r + 0.69314700365f;
    }
    p = p * r + 1.0f;
    return (vector)((integers)p + ((integers)n << 23));
#endif
}

/* ---- turning: to[j][i] = from[i][j] of 4-byte words, VF x VF at a time through registers ---- */

#define LOWER(i, d) ((i) & (d) ? VF + (i) - (d) : (i))
#define UPPER(i, d) ((i) & (d) ? VF + (i) : (i) + (d))
#define FOUR(f, i, d) f(i, d), f((i) + 1, d), f((i) + 2, d), f((i) + 3, d)
#if VF == 16
#define EVERY(f, d) FOUR(f, 0, d), FOUR(f, 4, d), FOUR(f, 8, d), FOUR(f, 12, d)
#elif VF == 8
#define EVERY(f, d) FOUR(f, 0, d), FOUR(f, 4, d)
#else
#define EVERY(f, d) FOUR(f, 0, d)
#endif
/* Rows r and r + d exchange their halves of the blocks of 2 d. */
#define EXCHANGE(x, d)                                                                                       \
    _Pragma("GCC unroll 16") for (int r = 0; r < VF; r++) {                                                  \
        if (r & (d)) continue;                                                                               \
        vector low = x[r], high = x[r + (d)];                                                                \
        x[r] = __builtin_shufflevector(low, high, EVERY(LOWER, d));                                          \
        x[r + (d)] = __builtin_shufflevector(low, high, EVERY(UPPER, d));                                    \
    }

static inline void turn_block(const float *from, int64_t from_stride, float *to, int64_t to_stride) {
    vector x[VF];
#pragma GCC unroll 16
    for (int r = 0; r < VF; r++) x[r] = load(from + r * from_stride);
#if VF > 8
    EXCHANGE(x, 8)
#endif
#if VF > 4
    EXCHANGE(x, 4)
#endif
    EXCHANGE(x, 2)
    EXCHANGE(x, 1)
#pragma GCC unroll 16
    for (int r = 0; r < VF; r++) store(to + r * to_stride, x[r]);
}

/* rows and columns are multiples of VF. */
static void turn(const float *from, int64_t from_stride, int64_t rows, int64_t columns, float *to,
                 int64_t to_stride) {
    for (int64_t i = 0; i < rows; i += VF)
        for (int64_t j = 0; j < columns; j += VF)
            turn_block(from + i * from_stride + j, from_stride, to + j * to_stride + i, to_stride);
}

/* ---- rows that are needed later ---- */

/* The rows of a head lie far apart, where no hardware prefetcher looks. Those of the next head are asked for while this one is
 * computed, a few a tile, so that they are in the second-level cache when its turn comes. */
#define MAXIMUM_PARTS 8
typedef struct upcoming {
    struct {
        const char *row;
        int64_t stride, rows;
    } parts[MAXIMUM_PARTS];
    int part, count;
    int64_t row_bytes;
} upcoming;

static inline void ask_for(upcoming *u, int rows) {
    for (; rows > 0 && u->part < u->count; rows--) {
        const char *row = u->parts[u->part].row;
        for (int64_t i = 0; i < u->row_bytes; i += 64) __builtin_prefetch(row + i, 0, 2);
        u->parts[u->part].row += u->parts[u->part].stride;
        if (--u->parts[u->part].rows <= 0) u->part++;
    }
}

/* ---- products ---- */

#define ROWS LAM_TILE_ROWS /* of a tile; with its two vectors of columns it fills the registers */

static inline __attribute__((always_inline)) vector multiply_add(bool pairs, float a, vector b, vector sum) {
#ifdef __AVX512BF16__
    if (pairs) return (vector)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_ps(a), (__m512bh)b);
#endif
    (void)pairs;
    return sum + a * b;
}

/* What becomes of a sum x on its way out of the registers: itself, 2^(x * scale - of_column), or p (x - of_column), where p lies
 * as C does. */
typedef struct finish {
    enum { AS_IT_IS, POWERS, WEIGHTED } kind;
    float scale;
    const float *of_column, *p;
} finish;

static inline __attribute__((always_inline)) vector finished(const finish *f, vector x, int64_t at,
                                                             int64_t column) {
    if (f->kind == POWERS) return exp2_of(x * f->scale - load(f->of_column + column), false);
    if (f->kind == WEIGHTED) return load(f->p + at) * (x - load(f->of_column + column));
    return x;
}

/* One tile: C [rows, wide vectors] (+)= A B, where word i of row r of A is at a[r * row_stride + i * step] and B has rows of
 * ldb words. */
static inline __attribute__((always_inline)) void tile(bool pairs, int rows, int wide, const float *a,
                                                       int64_t row_stride, int64_t step, int64_t k,
                                                       const float *b, int64_t ldb, float *c, int64_t ldc,
                                                       bool add, const finish *f) {
    vector sum[ROWS][2];
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++)
        for (int w = 0; w < wide; w++) sum[r][w] = add ? load(c + r * ldc + w * VF) : (vector){0};
    for (int64_t i = 0; i < k; i++) {
        vector b0 = load(b), b1 = wide > 1 ? load(b + VF) : b0;
#pragma GCC unroll 16
        for (int r = 0; r < rows; r++) {
            sum[r][0] = multiply_add(pairs, a[r * row_stride], b0, sum[r][0]);
            if (wide > 1) sum[r][1] = multiply_add(pairs, a[r * row_stride], b1, sum[r][1]);
        }
        a += step;
        b += ldb;
    }
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++)
        for (int w = 0; w < wide; w++)
            store(c + r * ldc + w * VF, finished(f, sum[r][w], r * ldc + w * VF, w * VF));
}

static inline __attribute__((always_inline)) void tile_of(bool pairs, int64_t rows, int wide, const float *a,
                                                          int64_t row_stride, int64_t step, int64_t k,
                                                          const float *b, int64_t ldb, float *c, int64_t ldc,
                                                          bool add, const finish *f) {
    switch (rows) {
#define TILE(n)                                                                                              \
    case n: tile(pairs, n, wide, a, row_stride, step, k, b, ldb, c, ldc, add, f); break;
        TILE(1)
        TILE(2)
        TILE(3)
        TILE(4)
        TILE(5)
        TILE(6)
#if ROWS > 6
        TILE(7)
        TILE(8)
        TILE(9)
        TILE(10)
        TILE(11)
        TILE(12)
        TILE(13)
        TILE(14)
#endif
#undef TILE
    default: break;
    }
}

/* C [m, n] (+)= A [m, k] B [k, n], n a multiple of VF; the rows are shared out evenly over as few tiles as hold them. */
static inline __attribute__((always_inline)) void multiply(bool pairs, const float *a, int64_t row_stride,
                                                           int64_t step, int64_t m, int64_t k, const float *b,
                                                           int64_t ldb, int64_t n, float *c, int64_t ldc,
                                                           bool add, const finish *f, upcoming *later) {
    int64_t tiles = (m + ROWS - 1) / ROWS, rows = m / tiles, more = m % tiles; /* tiles with one row more */
    for (int64_t j = 0; j < n; j += 2 * VF)
        for (int64_t t = 0, i = 0; t < tiles; t++) {
            int64_t some = rows + (t < more);
            ask_for(later, 4);
            const float *from = a + i * row_stride;
            float *to = c + i * ldc + j;
            finish here = *f;
            if (f->kind != AS_IT_IS) here.of_column += j;
            if (f->kind == WEIGHTED) here.p += i * ldc + j;
            if (n - j > VF)
                tile_of(pairs, some, 2, from, row_stride, step, k, b + j, ldb, to, ldc, add, &here);
            else
                tile_of(pairs, some, 1, from, row_stride, step, k, b + j, ldb, to, ldc, add, &here);
            i += some;
        }
}

static inline __attribute__((always_inline)) void
multiply_rows(bool pairs, const float *a, int64_t row_stride, int64_t m, int64_t k, const float *b,
              int64_t ldb, int64_t n, float *c, int64_t ldc, bool add, const finish *f, upcoming *later) {
    if (row_stride == 32) /* known strides need no registers */
        multiply(pairs, a, 32, 1, m, k, b, ldb, n, c, ldc, add, f, later);
    else if (row_stride == 64)
        multiply(pairs, a, 64, 1, m, k, b, ldb, n, c, ldc, add, f, later);
    else
        multiply(pairs, a, row_stride, 1, m, k, b, ldb, n, c, ldc, add, f, later);
}

/* A stored by rows, and A stored turned (word i of row r at a[i * step + r]). */
#define PRODUCTS(type, pairs)                                                                                \
    static void multiply_rows_##type(const float *a, int64_t row_stride, int64_t m, int64_t k,               \
                                     const float *b, int64_t ldb, int64_t n, float *c, int64_t ldc,          \
                                     bool add, upcoming *later) {                                            \
        multiply_rows(pairs, a, row_stride, m, k, b, ldb, n, c, ldc, add, &(finish){AS_IT_IS}, later);       \
    }                                                                                                        \
    static void multiply_turned_##type(const float *a, int64_t step, int64_t m, int64_t k, const float *b,   \
                                       int64_t ldb, int64_t n, float *c, int64_t ldc, bool add,              \
                                       upcoming *later) {                                                    \
        multiply(pairs, a, 1, step, m, k, b, ldb, n, c, ldc, add, &(finish){AS_IT_IS}, later);               \
    }
PRODUCTS(float, false)

/* p [m, n] = 2^(A B * scale - of_column). */
static void powers_of_product(const float *a, int64_t row_stride, int64_t m, int64_t k, const float *b,
                              int64_t ldb, int64_t n, float *p, int64_t ldp, float scale,
                              const float *of_column, upcoming *later) {
    multiply_rows(false, a, row_stride, m, k, b, ldb, n, p, ldp, false,
                  &(finish){POWERS, scale, of_column, NULL}, later);
}

/* C [m, n] = p (A B - of_column). */
static void weighted_product(const float *a, int64_t row_stride, int64_t m, int64_t k, const float *b,
                             int64_t ldb, int64_t n, float *c, int64_t ldc, const float *p,
                             const float *of_column, upcoming *later) {
    multiply_rows(false, a, row_stride, m, k, b, ldb, n, c, ldc, false, &(finish){WEIGHTED, 1, of_column, p},
                  later);
}

#endif
