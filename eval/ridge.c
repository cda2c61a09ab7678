#include "eval/ridge.h"

#include <float.h>
#include <stdbool.h>
#include <string.h>

#include "base/memory.h"
#include "eval/linalg.h"

#define BLOCK LAM_STANDARDISED_BLOCK

void lam_ridge_free(lam_ridge *r) {
    lam_free(r->basis);
    lam_free(r->values);
    lam_free(r->projected);
    lam_free(r->y_mean);
    memset(r, 0, sizeof *r);
}

static int64_t block_rows(const lam_standardised *rows, int64_t first) {
    return rows->n - first < BLOCK ? rows->n - first : BLOCK;
}

/* out [count, targets]: rows of y less the training means. */
static void centred(const lam_standardised *rows, int64_t first, int64_t count, const double *y,
                    int64_t targets, const double *mean, double *out) {
    for (int64_t i = 0; i < count; i++)
        for (int64_t t = 0; t < targets; t++)
            out[i * targets + t] = y[rows->rows[first + i] * targets + t] - mean[t];
}

/* V and L of X^T X [d, d], and V^T X^T y. */
static lam_status by_columns(lam_ridge *r, const lam_standardised *rows, const double *y) {
    double *x = NULL, *z = NULL, *products = NULL;
    lam_status status = LAM_OK;
    int64_t d = r->d, t = r->targets;
    LAM_TRY_GOTO(lam_alloc_array((void **)&x, BLOCK * d, sizeof *x), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&z, BLOCK * t, sizeof *z), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&products, d * t, sizeof *products), done);
    for (int64_t first = 0; first < rows->n; first += BLOCK) {
        int64_t n = block_rows(rows, first);
        lam_standardised_block(rows, first, n, x);
        centred(rows, first, n, y, t, r->y_mean, z);
        lam_gemm_f64(true, false, d, d, n, x, d, x, d, 1.0, r->basis, d);
        lam_gemm_f64(true, false, d, t, n, x, d, z, t, 1.0, products, t);
    }
    LAM_TRY_GOTO(lam_eigen_symmetric(r->basis, d, r->values), done);
    lam_gemm_f64(false, false, d, t, d, r->basis, d, products, t, 0.0, r->projected, t);
done:
    lam_free(x);
    lam_free(z);
    lam_free(products);
    return status;
}

/* U and L of X X^T [n, n]: the basis is U^T X, the projection U^T y. */
static lam_status by_rows(lam_ridge *r, const lam_standardised *rows, const double *y) {
    double *x = NULL, *z = NULL, *gram = NULL;
    lam_status status = LAM_OK;
    int64_t n = rows->n, d = r->d, t = r->targets;
    LAM_TRY_GOTO(lam_alloc_array((void **)&x, n * d, sizeof *x), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&z, n * t, sizeof *z), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&gram, n * n, sizeof *gram), done);
    lam_standardised_block(rows, 0, n, x);
    centred(rows, 0, n, y, t, r->y_mean, z);
    lam_gemm_f64(false, true, n, n, d, x, d, x, d, 0.0, gram, n);
    LAM_TRY_GOTO(lam_eigen_symmetric(gram, n, r->values), done);
    lam_gemm_f64(false, false, n, d, n, gram, n, x, d, 0.0, r->basis, d);
    lam_gemm_f64(false, false, n, t, n, gram, n, z, t, 0.0, r->projected, t);
done:
    lam_free(x);
    lam_free(z);
    lam_free(gram);
    return status;
}

lam_status lam_ridge_decompose(lam_ridge *r, const lam_standardised *rows, const double *y, int64_t targets) {
    int64_t d = rows->d, n = rows->n;
    *r = (lam_ridge){.d = d, .rank = n < d ? n : d, .targets = targets};
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_alloc_array((void **)&r->basis, r->rank * d, sizeof(double)), failed);
    LAM_TRY_GOTO(lam_alloc_array((void **)&r->values, r->rank, sizeof(double)), failed);
    LAM_TRY_GOTO(lam_alloc_array((void **)&r->projected, r->rank * targets, sizeof(double)), failed);
    LAM_TRY_GOTO(lam_alloc_array((void **)&r->y_mean, targets, sizeof(double)), failed);
    for (int64_t i = 0; i < n; i++)
        for (int64_t t = 0; t < targets; t++) r->y_mean[t] += y[rows->rows[i] * targets + t];
    for (int64_t t = 0; t < targets; t++) r->y_mean[t] /= (double)n;
    LAM_TRY_GOTO(n < d ? by_rows(r, rows, y) : by_columns(r, rows, y), failed);
    for (int64_t k = 0; k < r->rank; k++)
        if (r->values[k] < 0) r->values[k] = 0; /* by rounding */
    return LAM_OK;
failed:
    lam_ridge_free(r);
    return status;
}

static void shrunk(const lam_ridge *r, const double *alpha, double *out) {
    for (int64_t k = 0; k < r->rank; k++)
        for (int64_t t = 0; t < r->targets; t++)
            out[k * r->targets + t] = r->projected[k * r->targets + t] / (r->values[k] + alpha[t]);
}

lam_status lam_ridge_coefficients(const lam_ridge *r, const double *alpha, double *coefficients) {
    double *part;
    LAM_TRY(lam_alloc_array((void **)&part, r->rank * r->targets, sizeof *part));
    shrunk(r, alpha, part);
    lam_gemm_f64(true, false, r->targets, r->d, r->rank, part, r->targets, r->basis, r->d, 0.0, coefficients,
                 r->d + 1);
    for (int64_t t = 0; t < r->targets; t++) coefficients[t * (r->d + 1) + r->d] = r->y_mean[t];
    lam_free(part);
    return LAM_OK;
}

lam_status lam_ridge_errors(const lam_ridge *r, const lam_standardised *rows, const double *y,
                            const double *alpha, int64_t count, double *sse) {
    double *x = NULL, *z = NULL, *guess = NULL, *part = NULL;
    lam_status status = LAM_OK;
    int64_t t = r->targets;
    LAM_TRY_GOTO(lam_alloc_array((void **)&x, BLOCK * r->d, sizeof *x), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&z, BLOCK * r->rank, sizeof *z), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&guess, BLOCK * t, sizeof *guess), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&part, r->rank * t, sizeof *part), done);
    memset(sse, 0, (size_t)(count * t) * sizeof *sse);
    for (int64_t first = 0; first < rows->n; first += BLOCK) {
        int64_t n = block_rows(rows, first);
        lam_standardised_block(rows, first, n, x);
        lam_gemm_f64(false, true, n, r->rank, r->d, x, r->d, r->basis, r->d, 0.0, z, r->rank);
        for (int64_t a = 0; a < count; a++) {
            shrunk(r, alpha + a * t, part);
            lam_gemm_f64(false, false, n, t, r->rank, z, r->rank, part, t, 0.0, guess, t);
            for (int64_t i = 0; i < n; i++)
                for (int64_t k = 0; k < t; k++) {
                    double error = y[rows->rows[first + i] * t + k] - guess[i * t + k] - r->y_mean[k];
                    sse[a * t + k] += error * error;
                }
        }
    }
done:
    lam_free(x);
    lam_free(z);
    lam_free(guess);
    lam_free(part);
    return status;
}

lam_status lam_ridge_totals(const double *y, int64_t targets, const int64_t *rows, int64_t n, double *total) {
    double *mean;
    LAM_TRY(lam_alloc_array((void **)&mean, targets, sizeof *mean));
    memset(total, 0, (size_t)targets * sizeof *total);
    for (int64_t i = 0; i < n; i++)
        for (int64_t t = 0; t < targets; t++) mean[t] += y[rows[i] * targets + t] / (double)n;
    for (int64_t i = 0; i < n; i++)
        for (int64_t t = 0; t < targets; t++) {
            double from_mean = y[rows[i] * targets + t] - mean[t];
            total[t] += from_mean * from_mean;
        }
    for (int64_t t = 0; t < targets; t++) {
        double rounding = (double)n * mean[t] * DBL_EPSILON;
        if (total[t] <= (double)n * rounding * rounding) total[t] = 0;
    }
    lam_free(mean);
    return LAM_OK;
}
