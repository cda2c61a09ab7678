/* How far a perturbation is from the controls: the energy distance 2 E|x - y| - E|x - x'| - E|y - y'| between its replicates x and
 * control rows y, means over all pairs, a row with itself included (V-statistic; Szekely and Rizzo, J. Stat. Plan. Inference 143, 2013).
 *
 *     LAM_TRY(lam_energy_distances(&r, controls, count, 5, value));          // [groups]
 *     LAM_TRY(lam_energy_shuffle(&r, controls, count, 10, 5000, seed, p));    // [groups]
 *
 * Accuracy of the distances: eval/pairwise.h. Results do not depend on the number of threads. */
#ifndef LAMELLA_EVAL_ENERGY_H
#define LAMELLA_EVAL_ENERGY_H

#include "base/status.h"
#include "eval/signal.h"

#ifdef __cplusplus
extern "C" {
#endif

#define LAM_ENERGY_ROWS                                                                                      \
    1000 /* controls that are compared with, and replicates of a perturbation in a shuffle */

/* At most LAM_ENERGY_ROWS of `rows` [count], drawn by the seed, rising; `chosen` has room for LAM_ENERGY_ROWS. */
lam_status lam_energy_sample(const int64_t *rows, int64_t count, uint64_t seed, int64_t *chosen,
                             int64_t *chosen_count);

/* value [groups]; NaN where a group has fewer than `minimum` rows. controls [count]: rows of r->x, at least one. */
lam_status lam_energy_distances(const lam_replicates *r, const int64_t *controls, int64_t count,
                                int64_t minimum, double *value);

/* p [groups] = (1 + #{shuffled >= observed}) / (1 + draws) under exchange of the labels "replicate" and
 * "control" within the rows of both, sizes kept; of more than LAM_ENERGY_ROWS replicates that many are drawn.
 * Ties to 1e-12 of E|x - y| count as larger. NaN where a group has fewer than `minimum` rows. Memory of a
 * thread: (controls + LAM_ENERGY_ROWS)^2 distances at most. */
lam_status lam_energy_shuffle(const lam_replicates *r, const int64_t *controls, int64_t count,
                              int64_t minimum, int64_t draws, uint64_t seed, double *p);

#ifdef __cplusplus
}
#endif
#endif
