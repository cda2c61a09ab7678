/* Rows of a matrix as a linear model sees them: chosen rows, each column less its mean and divided by its deviation,
 * made block by block so that no copy of the matrix is kept.
 *
 *     LAM_TRY(lam_standardise_fit(x, d, train, n_train, mean, scale));        // of the training rows alone
 *     lam_standardised rows = {x, d, train, n_train, mean, scale};
 *     lam_standardised_block(&rows, first, count, block);                     // [count, d]
 *
 * As scikit-learn's StandardScaler: deviation with divisor n; a column that is constant to rounding is only centred. */
#ifndef LAMELLA_EVAL_STANDARDISE_H
#define LAMELLA_EVAL_STANDARDISE_H

#include <stdint.h>

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

#define LAM_STANDARDISED_BLOCK 512 /* rows a caller works on at once */

typedef struct lam_standardised {
    const double *x; /* [any, d] */
    int64_t d;
    const int64_t *rows; /* [n] which rows of x */
    int64_t n;
    const double *mean, *scale; /* [d] */
} lam_standardised;

/* mean [d] and scale [d] of the n >= 1 rows of x that `rows` lists. */
void lam_standardise_fit(const double *x, int64_t d, const int64_t *rows, int64_t n, double *mean,
                         double *scale);
/* out [count, d]: rows first .. first + count - 1 of the view. */
void lam_standardised_block(const lam_standardised *view, int64_t first, int64_t count, double *out);

#ifdef __cplusplus
}
#endif
#endif
