/* Average precision of rankings: of every row over the rows that its metadata call positives and negatives, the mean of
 * a group, and how often rankings at random reach it (Kalinin et al., "A versatile information retrieval framework for
 * evaluating profile strength and similarity", 2024; the definitions are those of its program copairs, BSD-3).
 *
 *     LAM_TRY(lam_average_precision_rows(&u, &positive, &negative, LAM_TIES_NEGATIVES_FIRST, scores));
 *     LAM_TRY(lam_average_precision_groups(scores, gene, rows, genes, 10000, seed, groups));
 *
 * AP = 1/n sum_k k / rank_k: the n positives in the order of falling cosine, rank_k the place of the k-th among
 * positives and negatives. Which of two rows is nearer is decided in float64.
 *
 * Ties. Rows with exactly the same cosine stand in an order that no ranking has earned. Here the negatives come first,
 * so that a network whose embeddings are all the same scores worst. copairs (0.5) sorts positives and negatives in this
 * order by a stable sort of float32 cosines: there the positives come first, LAM_TIES_POSITIVES_FIRST. */
#ifndef LAMELLA_EVAL_AVERAGE_PRECISION_H
#define LAMELLA_EVAL_AVERAGE_PRECISION_H

#include <stdint.h>

#include "base/status.h"
#include "eval/cosine.h"
#include "eval/rules.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum lam_ties { LAM_TIES_NEGATIVES_FIRST, LAM_TIES_POSITIVES_FIRST } lam_ties;

typedef struct lam_ranked {
    double score;
    bool positive;
} lam_ranked;
/* Sorts `items` by falling score, ties as said, and returns their average precision; NaN without a positive. */
double lam_average_precision(lam_ranked *items, int64_t count, lam_ties ties);
/* Area under the ROC curve = P(a positive scores above a negative), a tie counts half; NaN without both. Sorts. */
double lam_roc_auc(lam_ranked *items, int64_t count);

typedef struct lam_row_score {
    double average_precision; /* NaN without a positive or without a negative: there is nothing to rank */
    int64_t positives, negatives;
} lam_row_score;

/* scores [rows of u]. The rules' queries must be the same; no pair may hold in both rules. Rows that are no queries:
 * NaN, 0, 0. Results do not depend on the number of threads. */
lam_status lam_average_precision_rows(const lam_directions *u, const lam_rule *positive,
                                      const lam_rule *negative, lam_ties ties, lam_row_score *scores);

typedef struct lam_group_score {
    int64_t rows;        /* with an average precision; 0: the rest is NaN */
    double mean, chance; /* of their average precisions; and of the same in rankings at random */
    double p;
} lam_group_score;

/* group [rows] 0..groups-1, -1: of none. p = (1 + #{null >= mean}) / (1 + permutations), the null of a group: the mean
 * over its rows of the AP of a random ranking of as many positives and negatives. As in copairs there is one random
 * ranking for each pair of numbers, so rows with the same numbers share it: replicates rank each other and are not
 * independent. copairs counts null > mean, which makes p far too small where an AP has few values (1 positive, 1
 * negative: 1/(1 + P) in place of 1/2); ties count here, as in copairs' p of single rows and by Phipson and Smyth
 * (2010). Draws are functions of (seed, numbers, draw). */
lam_status lam_average_precision_groups(const lam_row_score *scores, const int64_t *group, int64_t rows,
                                        int64_t groups, int64_t permutations, uint64_t seed,
                                        lam_group_score *out);

#ifdef __cplusplus
}
#endif
#endif
