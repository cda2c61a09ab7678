/* Recall of known relationships (Celik et al. 2024, EFAAR): the null is every pair i < j of the map, a known pair is recovered
 * where its cosine's rank is extreme: right rank <= l or left rank >= r, ranks as numpy's searchsorted over the null divided by
 * its size (ties conservative). Both conditions are comparisons with one order statistic of the null each, exact in float64.
 *
 *     lam_tails tails = {.left = 0.05, .right = 0.95};
 *     LAM_TRY(lam_recall_cuts(&directions, &tails, 1, NULL));
 *     LAM_TRY(lam_recall_cosines(&directions, pairs, count, cosine));
 *     lam_recall_problem problem = {&known, 1, &tails, 1};
 *     double share[LAM_RECALL_SIDES];
 *     lam_recall_shares(&problem, share);
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

typedef enum lam_recall_side {
    LAM_RECALL_BOTH, /* EFAAR's */
    LAM_RECALL_LEFT,
    LAM_RECALL_RIGHT,
    LAM_RECALL_SIDES
} lam_recall_side;

static inline bool lam_recovered(const lam_tails *tails, lam_recall_side side, double cosine) {
    return (side != LAM_RECALL_RIGHT && cosine < tails->below) ||
           (side != LAM_RECALL_LEFT && cosine > tails->above);
}

/* Sets below and above of `count` tails; histogram: of the null (of a sample where it is large), or NULL. */
lam_status lam_recall_cuts(const lam_directions *directions, lam_tails *tails, int count,
                           lam_cosine_histogram *histogram);
/* cosine [count] of the pairs. */
void lam_recall_cosines(const lam_directions *directions, const lam_pair *pairs, int64_t count,
                        double *cosine);

/* The known pairs of one source, at least one. */
typedef struct lam_known {
    const lam_pair *pairs;
    const double *cosine;
    int64_t count;
} lam_known;

/* What is scored: every source at every pair of tails on every side; results stand in that order, the sides innermost. */
typedef struct lam_recall_problem {
    const lam_known *known;
    int64_t sources;
    const lam_tails *tails;
    int thresholds; /* at most LAM_ORDER_MAXIMUM / 2 */
} lam_recall_problem;
int64_t lam_recall_results(const lam_recall_problem *problem); /* sources x thresholds x LAM_RECALL_SIDES */

/* share [results] of the pairs that are recovered. */
void lam_recall_shares(const lam_recall_problem *problem, double *share);

/* The same under `draws` bootstrap samples of the genes: multinomial weights w, pair weight w_i w_j, thresholds held. share
 * [results, draws]; the draws depend on (seed, draw) alone, so two maps get the same ones. NaN where no pair has weight. */
lam_status lam_recall_bootstrap(const lam_recall_problem *problem, int64_t rows, int64_t draws, uint64_t seed,
                                double *share);
/* What the spread of such draws is to be multiplied with. residual [count]: of each pair what it adds to the numerator minus the
 * observed share (of a difference of two maps likewise), so that it sums to 0. Pairs that share a gene depend on each other; the
 * variance of the share under sampling of genes is V = sum over pairs p, q with a common gene of r_p r_q / count^2 (Fafchamps and
 * Gubert 2007; Aronow, Samii and Assenova 2015), while weights w_i w_j give each pair's own square three times: V + 2 sum r_p^2 /
 * count^2, too wide wherever genes have few known partners. What is sampled is genes: dependence of pairs without a common gene, as
 * of the whole of a complex that moves together, is not in it (differences of two maps on the same pairs
 * suffer little). Returns sqrt(V / that), V at least that of independent pairs; work [rows] is overwritten. */
double lam_recall_spread(const lam_pair *pairs, const double *residual, int64_t count, int64_t rows,
                         double *work);
/* Interval of the finite values between the given quantiles (linear between order statistics); sorts `values`. */
void lam_interval(double *values, int64_t count, double from, double to, double *low, double *high);

/* The labels of the rows that `labelled` [rows] marks (NULL: of all) are shuffled among them `permutations` times, the null stays:
 * where the map holds compounds beside genes only genes may change places, or p tells that genes are no
 * compounds. p [results] = (1 + k) / (1 + permutations), k the shuffles that recover as many pairs or more
 * (Phipson and Smyth 2010). */
lam_status lam_recall_permutation(const lam_directions *directions, const lam_recall_problem *problem,
                                  const bool *labelled, int64_t permutations, uint64_t seed, double *p);

#ifdef __cplusplus
}
#endif
#endif
