/* GELU, bias, addition, over the storage type `real`. */
#ifndef GELU_BLOCK
#include <immintrin.h>

#define GELU_BLOCK 64

/* Both aligned to 64 bytes, as `bytes` is. */
static inline void stream_block(const void *from, void *to, size_t bytes) {
    for (size_t i = 0; i < bytes / sizeof(__m128i); i++)
        _mm_stream_si128((__m128i *)to + i, _mm_load_si128((const __m128i *)from + i));
}
#endif

static void NAME(gelu)(const void *x_, void *y_, int64_t count) {
    const real *x = x_;
    real *y = y_;
#pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < count; i++) {
        float value = get(x[i]), unused;
        y[i] = put(value * normal_cdf_exp(value, &unused));
    }
}

/* gelu(x) past the caches, in blocks: a layer's worth is read after all of it was written, and lines that are not fetched first
 * take a third off the traffic. */
static void NAME(gelu_slope)(void *x_, void *y_, int64_t count) {
    real *x = x_, *y = y_;
#pragma omp parallel
    {
#pragma omp for schedule(static) nowait
        for (int64_t first = 0; first < count; first += GELU_BLOCK) {
            int64_t block = count - first < GELU_BLOCK ? count - first : GELU_BLOCK;
            _Alignas(64) real result[GELU_BLOCK];
#pragma omp simd
            for (int64_t i = 0; i < block; i++) {
                float value = get(x[first + i]), e, cdf = normal_cdf_exp(value, &e);
                result[i] = put(value * cdf);
                x[first + i] = put(cdf + value * 0.39894228040143268f * e);
            }
            if (block < GELU_BLOCK)
                memcpy(y + first, result, (size_t)block * sizeof *y);
            else
                stream_block(result, y + first, sizeof result);
        }
        _mm_sfence(); /* before others read */
    }
}

static void NAME(multiply)(const void *by_, void *x_, int64_t count) {
    const real *by = by_;
    real *x = x_;
#pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < count; i++) x[i] = put(get(x[i]) * get(by[i]));
}

static void NAME(fill)(void *to, int byte, size_t bytes) { memset(to, byte, bytes); }
static void NAME(copy)(void *to, const void *from, size_t bytes) { memcpy(to, from, bytes); }
static void NAME(set)(float *to, float value) { *to = value; }

static void NAME(accumulate)(void *to_, const void *from_, int64_t count) {
    real *to = to_;
    const real *from = from_;
#pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < count; i++) to[i] = put(get(to[i]) + get(from[i]));
}

static void NAME(add)(const void *a_, const void *b_, void *sum_, int64_t count) {
    const real *a = a_, *b = b_;
    real *sum = sum_;
#pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < count; i++) sum[i] = put(get(a[i]) + get(b[i]));
}

static void NAME(add_bias)(void *y_, const float *bias, int64_t rows, int64_t width, int64_t stride) {
    real *y = y_;
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < rows; r++) {
        real *row = y + r * stride;
#pragma omp simd
        for (int64_t i = 0; i < width; i++) row[i] = put(get(row[i]) + bias[i]);
    }
}

static void NAME(depth_add)(const void *x, const void *r, void *sum, int64_t rows, int64_t width,
                            const lam_sample_places *places) {
    float scale = places->r_scale ? *places->r_scale : 1.0f;
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; row++) {
        const real *from = (const real *)x + row * width;
        int64_t at = lam_placed_row(places->r, places->tokens, row);
        real *to = (real *)sum + row * width;
        if (at < 0) {
            memcpy(to, from, (size_t)width * sizeof *to);
            continue;
        }
        const real *branch = (const real *)r + at * width;
#pragma omp simd
        for (int64_t i = 0; i < width; i++) to[i] = put(get(from[i]) + scale * get(branch[i]));
    }
}

static void NAME(depth_add_backward)(const void *d, void *dr, bool add, int64_t rows, int64_t width,
                                     const lam_sample_places *places) {
    float scale = places->r_scale ? *places->r_scale : 1.0f;
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; row++) {
        int64_t at = lam_placed_row(places->r, places->tokens, row);
        if (at < 0) continue;
        const real *from = (const real *)d + row * width;
        real *to = (real *)dr + at * width;
#pragma omp simd
        for (int64_t i = 0; i < width; i++) to[i] = put((add ? get(to[i]) : 0.0f) + scale * get(from[i]));
    }
}
