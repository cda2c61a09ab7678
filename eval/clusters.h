/* Clusters of genes (complexes, pathways) on a map: are their cosines among themselves others than those to the rest of the map
 * (EFAAR's cluster benchmark), and are the genes nearest to one gene rich in a cluster?
 *
 *     lam_cluster_test test;
 *     LAM_TRY(lam_cluster_compare(&directions, rows, count, &test));
 *     lam_enrichment e = lam_cluster_enrichment(rows, count, nearest, drawn, population);
 */
#ifndef LAMELLA_EVAL_CLUSTERS_H
#define LAMELLA_EVAL_CLUSTERS_H

#include <stdint.h>

#include "base/status.h"
#include "eval/cosine.h"
#include "eval/statistics.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lam_cluster_test {
    double within_mean,
        between_mean;        /* of the cosines of pairs in the cluster, and of one in it and one not */
    lam_test_result ks, cvm; /* of the first against the second */
} lam_cluster_test;

/* rows [count], rising, each once; at least two of them and one row outside, else LAM_ERROR_INPUT. The cosines of the cluster with
 * every other row are held in memory: 24 bytes each while they are tested. Threading: a function of its arguments. */
lam_status lam_cluster_compare(const lam_directions *directions, const int32_t *rows, int64_t count,
                               lam_cluster_test *out);

typedef struct lam_enrichment {
    int64_t hits;   /* drawn rows that are in the cluster */
    double p;       /* P(X >= hits), hypergeometric */
    double jaccard; /* hits / size of the union */
} lam_enrichment;
/* As EFAAR: the population is the whole map, the query itself included. drawn [count_drawn] in any order,
 * each once, of `population` rows. */
lam_enrichment lam_cluster_enrichment(const int32_t *rows, int64_t count, const int32_t *drawn,
                                      int64_t count_drawn, int64_t population);

#ifdef __cplusplus
}
#endif
#endif
