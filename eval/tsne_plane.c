/* The two first principal components. */
#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "base/rng.h"
#include "eval/tsne.h"

#define ITERATIONS 500
#define STILL 1e-26 /* squared change of the direction */

static void normalise(double *v, int64_t n) {
    double squares = 0;
    for (int64_t j = 0; j < n; j++) squares += v[j] * v[j];
    double factor = squares > 0 ? 1 / sqrt(squares) : 0;
    for (int64_t j = 0; j < n; j++) v[j] *= factor;
}

static void project(const double *x, int64_t n, int64_t d, const double *direction, double *score) {
    for (int64_t i = 0; i < n; i++) {
        score[i] = 0;
        for (int64_t j = 0; j < d; j++) score[i] += x[i * d + j] * direction[j];
    }
}

/* Power iteration on the covariance; the start is fixed, so the picture is the same every time. */
static void first_component(const double *x, int64_t n, int64_t d, int number, double *direction,
                            double *next, double *score) {
    lam_rng r = lam_rng_stream(1, LAM_RNG_SPLIT, (uint64_t)number);
    for (int64_t j = 0; j < d; j++) direction[j] = lam_rng_normal(&r);
    normalise(direction, d);
    for (int iteration = 0; iteration < ITERATIONS; iteration++) {
        project(x, n, d, direction, score);
        memset(next, 0, (size_t)d * sizeof *next);
        for (int64_t i = 0; i < n; i++)
            for (int64_t j = 0; j < d; j++) next[j] += score[i] * x[i * d + j];
        normalise(next, d);
        double change = 0;
        for (int64_t j = 0; j < d; j++) change += (next[j] - direction[j]) * (next[j] - direction[j]);
        memcpy(direction, next, (size_t)d * sizeof *next);
        if (change < STILL) break;
    }
    project(x, n, d, direction, score);
}

lam_status lam_principal_plane(const double *x, int64_t n, int64_t d, double *y) {
    double *centred = NULL, *direction = NULL, *next = NULL, *score = NULL;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_alloc_array((void **)&centred, n * d, sizeof *centred), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&direction, d, sizeof *direction), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&next, d, sizeof *next), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&score, n, sizeof *score), done);
    for (int64_t j = 0; j < d; j++) {
        double mean = 0;
        for (int64_t i = 0; i < n; i++) mean += x[i * d + j] / (double)n;
        for (int64_t i = 0; i < n; i++) centred[i * d + j] = x[i * d + j] - mean;
    }
    for (int component = 0; component < 2; component++) {
        first_component(centred, n, d, component, direction, next, score);
        for (int64_t i = 0; i < n; i++) {
            y[2 * i + component] = score[i];
            for (int64_t j = 0; j < d; j++) centred[i * d + j] -= score[i] * direction[j];
        }
    }
done:
    lam_free(centred);
    lam_free(direction);
    lam_free(next);
    lam_free(score);
    return status;
}
