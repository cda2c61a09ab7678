/* Recall of known relationships (Celik et al. 2024, EFAAR): the null is every pair i < j of the map, a known pair is recovered
 * where its cosine's rank is extreme: right rank <= l or left rank >= r, ranks as numpy's searchsorted over the null divided by
 * its size (ties conservative). Ranks are exact in float64: query values come from the same tiles as the null, and no N x N matrix
 * is stored.
 *
 *     LAM_TRY(lam_recall_rank(x, genes, columns, pairs, count, &ranks));
 *     bool recovered = ranks.right[k] <= 0.05 || ranks.left[k] >= 0.95;
 */
#ifndef LAMELLA_EVAL_RECALL_H
#define LAMELLA_EVAL_RECALL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lam_pair {
    int32_t i, j; /* rows of the map, i < j */
} lam_pair;

#define LAM_RECALL_BINS 100 /* of the histograms, over -1..1 */

typedef struct lam_ranks {
    double *cosine, *left,
        *right; /* [count]: searchsorted left and right over the null, divided by its size */
    int64_t null_size;
    int64_t null_histogram[LAM_RECALL_BINS];
} lam_ranks;
void lam_ranks_free(lam_ranks *ranks);

/* x [rows, columns], every row finite and not all zero (LAM_ERROR_INPUT names the row). */
lam_status lam_recall_rank(const double *x, int64_t rows, int64_t columns, const lam_pair *pairs,
                           int64_t count, lam_ranks *ranks);

/* Weighted shares of recovered pairs under `draws` bootstrap samples of the genes: multinomial weights w, pair weight w_i w_j, thresholds
 * held. share [draws]; the draws depend on (seed, draw) alone, so two maps get the same ones. NaN where no pair has weight. */
lam_status lam_recall_bootstrap(const lam_pair *pairs, const bool *recovered, int64_t count, int64_t rows,
                                int64_t draws, uint64_t seed, double *share);
/* Interval of the finite values between the given quantiles (linear between order statistics); sorts `values`. */
void lam_interval(double *values, int64_t count, double from, double to, double *low, double *high);

#ifdef __cplusplus
}
#endif
#endif
