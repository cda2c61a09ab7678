/* Agglomerative clustering with average linkage (UPGMA; Sokal and Michener 1958) and the order of its leaves.
 *
 *     LAM_TRY(lam_hierarchy_average(distance, n, merges));        // n (n - 1) / 2 distances, n - 1 merges
 *     LAM_TRY(lam_hierarchy_leaves(merges, n, order));            // rows of a heat map, like beside like
 *
 * The nearest-neighbour chain (Murtagh 1983; Muellner, Modern hierarchical, agglomerative clustering algorithms, 2011, figure 6)
 * takes time and memory O(n^2). Ties are broken and merges are numbered as scipy's linkage(method='average') and leaves_list do,
 * so that merges and order are theirs. For a chosen set of some ten to some thousand rows, not for all rows of a map. */
#ifndef LAMELLA_EVAL_HIERARCHY_H
#define LAMELLA_EVAL_HIERARCHY_H

#include <stdint.h>

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Clusters 0..n-1 are the rows; merge k makes cluster n + k. left < right. */
typedef struct lam_merge {
    int64_t left, right, size; /* size: rows in the new cluster */
    double distance;           /* rises from merge to merge */
} lam_merge;

/* distance [n (n - 1) / 2]: (0,1), (0,2), ... (1,2), ... as scipy's pdist; it is overwritten. n >= 1. LAM_ERROR_NUMERIC where one is
 * NaN. merges [n - 1]. */
lam_status lam_hierarchy_average(double *distance, int64_t n, lam_merge *merges);

/* order [n]: the leaves from left to right. */
lam_status lam_hierarchy_leaves(const lam_merge *merges, int64_t n, int64_t *order);

#ifdef __cplusplus
}
#endif
#endif
