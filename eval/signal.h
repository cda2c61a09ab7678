/* The signal of a perturbation among its replicates (Celik et al. 2024, EFAAR): do they point the same way?
 *
 *     lam_replicates r;
 *     LAM_TRY(lam_replicates_make(&r, x, rows, columns, codes, groups));         // codes [rows], -1: no replicate
 *     LAM_TRY(lam_consistency(&r, LAM_CONSISTENCY_COSINE, value));              // [groups]
 *     LAM_TRY(lam_consistency_permutation(&r, LAM_CONSISTENCY_COSINE, NULL, 0, 5000, seed, value, p));
 *     lam_replicates_free(&r);
 *
 * x and what is passed in is borrowed. Results depend on no number of threads. */
#ifndef LAMELLA_EVAL_SIGNAL_H
#define LAMELLA_EVAL_SIGNAL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/rng.h"
#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lam_replicates {
    const double *x; /* [rows, columns], finite */
    int64_t rows, columns, groups;
    int64_t *start, *row; /* the rows of group g, rising: row[start[g]] to row[start[g + 1] - 1] */
    double *length;       /* [rows] |row|; 0: zeros, whose cosine to every row is 0 */
} lam_replicates;

lam_status lam_replicates_make(lam_replicates *out, const double *x, int64_t rows, int64_t columns,
                               const int64_t *codes, int64_t groups);
void lam_replicates_free(lam_replicates *r);
/* |row| without overflow or underflow of the squares; NaN or infinite where a value is. */
double lam_row_length(const double *row, int64_t columns);

typedef enum lam_consistency_measure {
    LAM_CONSISTENCY_COSINE, /* mean cosine over the pairs of replicates: large where they agree */
    LAM_CONSISTENCY_ANGLE   /* mean arccos of it, in radians: small where they agree */
} lam_consistency_measure;

/* value [groups]; NaN where a group has fewer than two rows. The mean cosine comes from |sum of the n unit rows|^2, less the rows' own
 * squares, over n (n - 1): the sum over all pairs in n steps, to about 1e-16. */
lam_status lam_consistency(const lam_replicates *r, lam_consistency_measure measure, double *value);

/* p [groups] against `draws` sets of as many rows, drawn without replacement from the rows of all groups;
 * batch [rows] 0..batches-1: each set takes as many rows from each batch as the group has there; NULL: one
 * batch. Cosine: (1 + #{null >= value}) / (1 + draws). Angle: #{null < value} / draws, which may be 0, as
 * published. Groups with the same numbers of rows share their null, which depends on the seed, those numbers
 * and the rows alone. */
lam_status lam_consistency_permutation(const lam_replicates *r, lam_consistency_measure measure,
                                       const int64_t *batch, int64_t batches, int64_t draws, uint64_t seed,
                                       const double *value, double *p);

/* p [count] of values against a null: 1 - searchsorted(null, value, side) / size, as published; may be 0.
 * side left: the share of the null >= value; right: > value. NaN in `null` is dropped (`kept` of it are left;
 * where 0, every p is NaN), NaN in `value` stays. */
lam_status lam_null_p(const double *null, int64_t null_count, const double *value, int64_t count, bool right,
                      double *p, int64_t *kept);

#define LAM_COSINE_SAMPLE 1000000 /* pairs of each kind; more are sampled */

/* Cosines of pairs of the same group, and of pairs of different groups: all of them up to LAM_COSINE_SAMPLE, else as many draws with
 * replacement. The caller frees both. */
lam_status lam_pair_cosines(const lam_replicates *r, uint64_t seed, double **same, int64_t *same_count,
                            double **different, int64_t *different_count);

/* out [count]: different numbers of 0..pool-1, rising (Floyd's algorithm). taken [pool] is false before and after. */
void lam_draw_distinct(lam_rng *rng, int64_t pool, int64_t count, int64_t *out, bool *taken);

#ifdef __cplusplus
}
#endif
#endif
