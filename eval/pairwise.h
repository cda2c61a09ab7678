/* Sums of a distance or an angle over pairs of rows, tile by tile through float64 matrix products.
 *
 *     lam_pair_space space = {.x = x, .columns = columns, .origin = mean, .measure = LAM_PAIR_DISTANCE};
 *     LAM_TRY(lam_alloc_array((void **)&work, lam_pair_work(columns), sizeof *work));       // one a thread
 *     lam_pair_sums(&space, rows, 200, rows, 900, true, sums, work);       // sums [200], of the pairs i < j
 *
 * Distances are |x|^2 + |y|^2 - 2 x y under the root, with the rows counted from `origin` (any point among them, so that a common
 * offset costs no digits); where that leaves less than 1e-4 of its terms the difference is squared itself. So a distance
 * has relative error below columns * 1e-11, equal rows are 0 apart, and the order of summation is fixed: results do not depend
 * on threads. Angles are arccos of the product of unit rows, in radians, as good as arccos is near 0: 2e-8. */
#ifndef LAMELLA_EVAL_PAIRWISE_H
#define LAMELLA_EVAL_PAIRWISE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/log.h"
#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

#define LAM_PAIR_BLOCK 256 /* rows of a tile */

typedef enum lam_pair_measure { LAM_PAIR_DISTANCE, LAM_PAIR_ANGLE } lam_pair_measure;

typedef struct lam_pair_space {
    const double *x; /* [rows, columns] */
    int64_t columns;
    const double *origin; /* of distances: [columns] */
    const double *length; /* of angles: [rows], |row|; 0: a row of zeros, at a right angle to every row */
    lam_pair_measure measure;
} lam_pair_space;

int64_t lam_pair_work(int64_t columns); /* doubles of scratch that a thread needs */

/* sums [count_a]: over j of `b`, of i of `a` (count_a at most LAM_PAIR_BLOCK), both lists of rows of x. triangle: `b` begins with the
 * rows of `a`, and only pairs with place i < place j count. */
void lam_pair_sums(const lam_pair_space *space, const int64_t *a, int64_t count_a, const int64_t *b,
                   int64_t count_b, bool triangle, double *sums, double *work);
/* The values themselves, out [count_a, stride]. */
void lam_pair_values(const lam_pair_space *space, const int64_t *a, int64_t count_a, const int64_t *b,
                     int64_t count_b, double *out, int64_t stride, double *work);

/* Over the pairs i < j of `rows` [n], on the calling thread. */
double lam_pair_sum_within(const lam_pair_space *space, const int64_t *rows, int64_t n, double *work);
/* within [groups]: the same sums over the pairs i < j of the rows of each group, row[start[g]] to row[start[g + 1] - 1]. */
lam_status lam_pair_sums_within(const lam_pair_space *space, const int64_t *start, const int64_t *row,
                                int64_t groups, double *within);
/* between [groups]: sums over i of a group and j of `others`; progress: counts rows, or NULL. */
lam_status lam_pair_sums_between(const lam_pair_space *space, const int64_t *start, const int64_t *row,
                                 int64_t groups, const int64_t *others, int64_t other_count, double *between,
                                 lam_progress *progress);

#ifdef __cplusplus
}
#endif
#endif
