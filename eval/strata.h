/* Recall by chromosome arm: pairs of genes on one arm apart from pairs on two, for a cut on an arm makes its genes alike (Lazar et
 * al. 2024) and related genes often lie together. Thresholds are those of the whole null.
 *
 *     LAM_TRY(lam_strata_shares(&directions, &problem, arm, shares));
 *     shares[LAM_STRATUM_WITHIN] ...
 */
#ifndef LAMELLA_EVAL_STRATA_H
#define LAMELLA_EVAL_STRATA_H

#include <stdint.h>

#include "base/status.h"
#include "eval/recall.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum lam_stratum { LAM_STRATUM_WITHIN, LAM_STRATUM_BETWEEN, LAM_STRATA } lam_stratum;

typedef struct lam_stratum_share {
    int64_t pairs;
    int64_t hits[LAM_ORDER_MAXIMUM / 2][LAM_RECALL_SIDES]; /* of the thresholds of the problem */
} lam_stratum_share;

/* arm [rows of the map]: 0, 1, ...; -1 unknown: its pairs are in no stratum. known [sources][LAM_STRATA]: of each source's pairs;
 * null [LAM_STRATA]: of all pairs of the map, exact in float64. */
lam_status lam_strata_shares(const lam_directions *directions, const lam_recall_problem *problem,
                             const int32_t *arm, lam_stratum_share *known, lam_stratum_share *null);

#ifdef __cplusplus
}
#endif
#endif
