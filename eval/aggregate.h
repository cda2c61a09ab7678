/* Rows of one label become one row, labels in sorted order.
 *
 *     LAM_TRY(lam_aggregate_by(e, (const char *const[]){"guide", "gene"}, 2, LAM_AGGREGATE_MEAN));
 *
 * Of each feature: mean; median (of an even count the mean of the middle two); robust: Tukey's biweight location (Mosteller and
 * Tukey, Data Analysis and Regression, 1977, ch. 10; as Beers, Flynn and Gebhardt, Astron. J. 100, 1990, eq. 5, compute it), one step
 * from the median M with the plain median absolute deviation MAD:
 *     u = (x - M) / (6 MAD),  w = (1 - u^2)^2 where |u| < 1, else 0,  M + sum w (x - M) / sum w;  M where MAD is 0.
 * The result does not depend on the number of threads. */
#ifndef LAMELLA_EVAL_AGGREGATE_H
#define LAMELLA_EVAL_AGGREGATE_H

#include <stdint.h>

#include "base/embeddings.h"
#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

#define LAM_AGGREGATE_MAX 16 /* columns of lam_aggregate_by */

typedef enum lam_aggregate_method {
    LAM_AGGREGATE_MEAN,
    LAM_AGGREGATE_MEDIAN,
    LAM_AGGREGATE_ROBUST
} lam_aggregate_method;

/* codes [rows] 0..groups-1, every group with at least one row; x finite. out [groups, columns], counts [groups]; both by the caller. */
lam_status lam_aggregate(const double *x, int64_t rows, int64_t columns, const int64_t *codes, int64_t groups,
                         lam_aggregate_method method, double *out, int64_t *counts);

/* Columns by[0..count) of the metadata in this order: {guide, gene} is first by (gene, guide), then by gene alone, so that every guide of
 * a gene weighs the same. The metadata become the last column and `count` (rows, or guides, of each row); the index is the last column.
 * Rows where the last column is empty are left out, with one line. */
lam_status lam_aggregate_by(lam_embeddings *e, const char *const *by, int count, lam_aggregate_method method);

/* Rows of e that `keep` [rows] marks stay; its arrays keep their size. */
lam_status lam_keep_rows(lam_embeddings *e, const bool *keep);

#ifdef __cplusplus
}
#endif
#endif
