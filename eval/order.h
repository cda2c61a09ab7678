/* Exact order statistics of the cosines of all pairs i < j, without storing or sorting them: a sample brackets each one,
 * one pass of float32 tiles counts what lies below and keeps what lies inside, of which float64 decides whatever the bound
 * on float32 leaves open. The result is that of sorting every float64 cosine, on any number of threads.
 *
 *     const int64_t ranks[2] = {7226, 137319};
 *     lam_order_options options = lam_order_defaults(rows * (rows - 1) / 2);
 *     LAM_TRY(lam_order_statistics(&directions, ranks, 2, &options, values, NULL));
 */
#ifndef LAMELLA_EVAL_ORDER_H
#define LAMELLA_EVAL_ORDER_H

#include "base/status.h"
#include "eval/cosine.h"

#ifdef __cplusplus
extern "C" {
#endif

#define LAM_ORDER_MAXIMUM 32   /* statistics of one call */
#define LAM_HISTOGRAM_BINS 100 /* over -1..1 */

typedef struct lam_order_options {
    int64_t sample; /* pairs drawn for the brackets; a map of no more pairs is sorted at once */
    double sigmas;  /* half width of a bracket in standard errors of the sample; a miss costs one more pass */
    int64_t
        kept; /* pairs kept in memory (12 bytes each); where more lie in the brackets, further passes narrow these */
} lam_order_options;
/* For a map of so many pairs: one pass up to some 200,000 rows, in 200 MB at most; two passes beyond. */
lam_order_options lam_order_defaults(int64_t pairs);

/* The sampled pairs (all pairs of a small map) as a histogram. */
typedef struct lam_cosine_histogram {
    int64_t pairs, count[LAM_HISTOGRAM_BINS];
} lam_cosine_histogram;
int lam_histogram_bin(double cosine);

/* ranks [count]: 0-based, rising not needed; values [count]; histogram may be NULL. At least two rows. */
lam_status lam_order_statistics(const lam_directions *directions, const int64_t *ranks, int count,
                                const lam_order_options *options, double *values,
                                lam_cosine_histogram *histogram);

#ifdef __cplusplus
}
#endif
#endif
