#include "eval/standardise.h"

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

void lam_standardise_fit(const double *x, int64_t d, const int64_t *rows, int64_t n, double *mean,
                         double *scale) {
    memset(mean, 0, (size_t)d * sizeof *mean);
    memset(scale, 0, (size_t)d * sizeof *scale);
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < d; j++) mean[j] += x[rows[i] * d + j];
    for (int64_t j = 0; j < d; j++) mean[j] /= (double)n;
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < d; j++) {
            double from_mean = x[rows[i] * d + j] - mean[j];
            scale[j] += from_mean * from_mean;
        }
    for (int64_t j = 0; j < d; j++) {
        /* scikit-learn's bound on the variance that rounding alone makes of a constant column. */
        double variance = scale[j] / (double)n, rounding = (double)n * mean[j] * DBL_EPSILON;
        bool constant = variance <= (double)n * DBL_EPSILON * variance + rounding * rounding;
        scale[j] = constant ? 1 : sqrt(variance);
    }
}

void lam_standardised_block(const lam_standardised *view, int64_t first, int64_t count, double *out) {
    int64_t d = view->d;
    for (int64_t i = 0; i < count; i++) {
        const double *from = view->x + view->rows[first + i] * d;
        for (int64_t j = 0; j < d; j++) out[i * d + j] = (from[j] - view->mean[j]) / view->scale[j];
    }
}
