/* Ridge regression of many targets at once: for each target |y - X w - b|^2 + alpha |w|^2 with the intercept free,
 * scikit-learn's Ridge on columns made standard by the training rows.
 *
 *     LAM_TRY(lam_ridge_decompose(&r, &train_rows, y, targets));      // one eigendecomposition
 *     LAM_TRY(lam_ridge_errors(&r, &test_rows, y, alpha, 7, sse));    // serves every target and every alpha
 *     lam_ridge_free(&r);
 *
 * With V L V^T = X^T X, w = V (L + alpha)^-1 V^T X^T y; where X has fewer rows than columns the same from X X^T. On one
 * thread the result is the same bits; calls on several threads are independent. */
#ifndef LAMELLA_EVAL_RIDGE_H
#define LAMELLA_EVAL_RIDGE_H

#include <stdint.h>

#include "base/status.h"
#include "eval/standardise.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lam_ridge {
    int64_t d, rank, targets;
    double *basis;     /* [rank, d]: w = basis^T (projected / (values + alpha)) */
    double *values;    /* [rank] eigenvalues, none below 0 */
    double *projected; /* [rank, targets] */
    double *y_mean;    /* [targets] of the training rows: the intercepts, as the columns of X have mean 0 */
} lam_ridge;

/* y [any, targets]: row rows->rows[i] belongs to row i of the view. Frees nothing of *out; LAM_ERROR_NUMERIC by LAPACK. */
lam_status lam_ridge_decompose(lam_ridge *out, const lam_standardised *rows, const double *y,
                               int64_t targets);
void lam_ridge_free(lam_ridge *ridge);

/* coefficients [targets, d + 1], intercept last; alpha [targets], above 0. */
lam_status lam_ridge_coefficients(const lam_ridge *ridge, const double *alpha, double *coefficients);
/* sse [count, targets]: sums over the rows of the squared error of each target, for alpha [count, targets]. */
lam_status lam_ridge_errors(const lam_ridge *ridge, const lam_standardised *rows, const double *y,
                            const double *alpha, int64_t count, double *sse);

/* total [targets]: sums of squares about the mean over the rows listed, so that R^2 = 1 - sse / total (scikit-learn's
 * r2_score); 0 where the target is constant there to rounding, and R^2 is not defined. */
lam_status lam_ridge_totals(const double *y, int64_t targets, const int64_t *rows, int64_t n, double *total);

#ifdef __cplusplus
}
#endif
#endif
