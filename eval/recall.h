/* Recall of known relationships (Celik et al. 2024, EFAAR): the null is every pair i < j of the map, a known pair is recovered
 * where its cosine's rank is extreme: right rank <= l or left rank >= r, ranks as numpy's searchsorted over the null divided by
 * its size (ties conservative). Both conditions are comparisons with one order statistic of the null each, exact in float64.
 *
 *     lam_tails tails = {.left = 0.05, .right = 0.95};
 *     LAM_TRY(lam_recall_cuts(&directions, &tails, 1, NULL));
 *     LAM_TRY(lam_recall_cosines(&directions, pairs, count, cosine));
 *     bool recovered = lam_recovered(&tails, cosine[k]);
 */
#ifndef LAMELLA_EVAL_RECALL_H
#define LAMELLA_EVAL_RECALL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "eval/order.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lam_pair {
    int32_t i, j; /* rows of the map, i < j */
} lam_pair;

typedef struct lam_tails {
    double left, right;  /* shares of the null, 0 < left < right < 1 */
    double below, above; /* recovered: cosine < below or cosine > above */
} lam_tails;
static inline bool lam_recovered(const lam_tails *tails, double cosine) {
    return cosine < tails->below || cosine > tails->above;
}
/* Sets below and above of `count` tails; histogram: of the null (of a sample where it is large), or NULL. */
lam_status lam_recall_cuts(const lam_directions *directions, lam_tails *tails, int count,
                           lam_cosine_histogram *histogram);
/* cosine [count] of the pairs. */
void lam_recall_cosines(const lam_directions *directions, const lam_pair *pairs, int64_t count,
                        double *cosine);

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
