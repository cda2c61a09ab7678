/* GELU, bias, addition. */
#include "model/cpu/elementary.inc.h"

static void NAME(gelu)(const float *x, float *y, int64_t count) {
#pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < count; i++) y[i] = x[i] * normal_cdf(x[i]);
}

static void NAME(gelu_backward)(const float *x, float *d, int64_t count) {
#pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < count; i++)
        d[i] *= normal_cdf(x[i]) + x[i] * 0.39894228040143268f * fast_exp(-0.5f * x[i] * x[i]);
}

static void NAME(accumulate)(float *to, const float *from, int64_t count) {
#pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < count; i++) to[i] += from[i];
}

static void NAME(add_bias)(float *y, const float *bias, int64_t rows, int64_t width, int64_t stride) {
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < rows; r++) {
        float *row = y + r * stride;
#pragma omp simd
        for (int64_t i = 0; i < width; i++) row[i] += bias[i];
    }
}
