/* How much batch is left in embeddings: how well a linear classifier tells from a control which batch (plate) it came from.
 *
 *     LAM_TRY(lam_batch_left(x, rows, columns, controls, batch, batches, &left));
 *     // left.accuracy 0.05 among 20 batches: none; 1: all of it
 *
 * Linear discriminant analysis with equal priors (Hastie, Tibshirani and Friedman 2009, 4.3) in five folds; the measure is balanced
 * accuracy, the mean over batches of the share of their rows that are told right; chance is 1 / batches. Exactly:
 * - Rows: the controls, or every row where none are named. Batches with one row are left out; of a large batch the
 *   max(5, 10000 / batches) rows with the smallest lam_mix64(row number) are taken.
 * - Columns are centred and scaled on these rows (ddof 0); columns that do not vary (by less than 1e-12 of the one that
 *   varies most) count nothing.
 * - The r-th row of a batch, in the order of lam_mix64(row number), is in fold r mod 5.
 * - S: covariance within batches of the training rows (divided by their count), shrunk: 0.9 S + 0.1 trace(S) / d I.
 * - A row goes to the batch c with the largest x S^-1 m_c - m_c S^-1 m_c / 2, m_c its mean over training rows; of equals the first. Where
 *   no row differs from its batch's mean, S is I.
 * Where the means of batches were taken off on these very rows, the training rows of a batch lie opposite to its test rows, and the
 * measure falls below chance: no batch is left in the means.
 * Linear maps of all rows hardly change the measure; taking off the means of batches does: it says what is left for a classifier, not
 * how much it weighs in a cosine. Rows that are not independent (crops of one well) make it too large: aggregate them first.
 * The result does not depend on the number of threads. */
#ifndef LAMELLA_EVAL_BATCH_LEFT_H
#define LAMELLA_EVAL_BATCH_LEFT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lam_batch_score {
    int64_t rows, batches; /* that were told apart */
    double accuracy;       /* balanced; NaN where fewer than two batches have two rows */
} lam_batch_score;

/* x [rows, columns] finite; controls [rows] or NULL; batch [rows] 0..batches-1. */
lam_status lam_batch_left(const double *x, int64_t rows, int64_t columns, const bool *controls,
                          const int64_t *batch, int64_t batches, lam_batch_score *out);

#ifdef __cplusplus
}
#endif
#endif
