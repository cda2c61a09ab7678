/* Do compounds lie near, or opposite to, the knock-outs of the genes that they act on? Ranking of genes by |cosine| to a
 * compound, as the compound-gene benchmark of EFAAR does it (RxRx3-core: Kraus et al., arXiv 2503.20158, 2025).
 *
 *     lam_compound one = {.rows = rows, .doses = 3, .active = active, .active_count = 2, .pool = pool, .pool_count = 40};
 *     LAM_TRY(lam_compound_gene(&u, &one, 1, 100, 0, LAM_TIES_NEGATIVES_FIRST, scores));
 *
 * For each seed and compound max(2 actives, 20) negatives are drawn without replacement from its pool (all where the
 * pool is smaller). Genes are scored by |cosine| to each dose, and by the largest over the doses. AP = sum(precision x
 * label) / sum(label); AUC with ties half. The baseline scores the same genes by U(0, 1).
 *
 * Of a table of activities (nM) the strongest value of a pair counts: up to LAM_ACTIVE_NM the gene is active, up to
 * LAM_INACTIVE_NM it is left out, and all other genes that the table and the file share are the compound's pool, whether
 * measured with it or not. */
#ifndef LAMELLA_EVAL_COMPOUND_GENE_H
#define LAMELLA_EVAL_COMPOUND_GENE_H

#include <stdint.h>

#include "base/status.h"
#include "eval/average_precision.h"
#include "eval/cosine.h"

#ifdef __cplusplus
extern "C" {
#endif

#define LAM_ACTIVE_NM 1000.0    /* a gene is a target up to here */
#define LAM_INACTIVE_NM 10000.0 /* and may be a negative above; in between it is left out */

typedef struct lam_compound {
    const int64_t *rows; /* [doses] of the compound, in u */
    int64_t doses;
    const int64_t *active, *pool; /* rows of genes in u: the targets, and what negatives are drawn from */
    int64_t active_count, pool_count;
} lam_compound;

typedef enum lam_compound_measure {
    LAM_COMPOUND_AP,
    LAM_COMPOUND_AUC,
    LAM_COMPOUND_RANDOM_AP,
    LAM_COMPOUND_RANDOM_AUC,
    LAM_COMPOUND_MEASURES
} lam_compound_measure;

/* scores [sum over compounds of (doses + 1), seeds, LAM_COMPOUND_MEASURES], compound by compound: its doses and then
 * their maximum. Each compound needs at least one active and one gene in its pool (LAM_ERROR_INTERNAL otherwise). Draws
 * are functions of (seed + s, compound); results do not depend on the number of threads. */
lam_status lam_compound_gene(const lam_directions *u, const lam_compound *compounds, int64_t count,
                             int64_t seeds, uint64_t seed, lam_ties ties, double *scores);

/* The q-quantile of the finite values, linear between order statistics as numpy's; NaN where there is none. Sorts. */
double lam_quantile(double *values, int64_t count, double q);

#ifdef __cplusplus
}
#endif
#endif
