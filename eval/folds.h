/* Folds for cross-validation: stratified by class, and whole groups on one side; the same again inside a training part
 * (where a setting is chosen), and nested shares of a training part (learning curves).
 *
 *     LAM_TRY(lam_folds_stratified(label, classes, group, groups, n, folds, seed, fold));
 *     lam_design design = {.n = n, .classes = classes, .groups = groups, .folds = folds, ...};
 *     LAM_TRY(lam_design_split(&design, f, 1.0, train, &n_train, test, &n_test));
 *
 * Every draw is a function of the seed and of the number of the group or fold. */
#ifndef LAMELLA_EVAL_FOLDS_H
#define LAMELLA_EVAL_FOLDS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* fold [n] 0..folds-1. group [n] 0..groups-1 (each row its own group: groups = n, group[i] = i). Groups are dealt in the
 * order of falling size (ties by a seeded hash) to the fold where the shares of the classes end most even. Fewer groups
 * with rows than folds: LAM_ERROR_INPUT. */
lam_status lam_folds_stratified(const int64_t *label, int64_t classes, const int64_t *group, int64_t groups,
                                int64_t n, int64_t folds, uint64_t seed, int64_t *fold);

/* taken [n]: the rows of max(1, round(share * G)) of the G groups that have rows. Each group counts for its most frequent
 * class; within a class groups come in seeded order, and the classes are interleaved evenly, so that every share holds
 * them as the whole does, and a smaller share lies within a larger one. */
lam_status lam_folds_share(const int64_t *label, int64_t classes, const int64_t *group, int64_t groups,
                           int64_t n, double share, uint64_t seed, bool *taken);

/* Rows, what is known of them beside the features, and their folds; all borrowed. */
typedef struct lam_design {
    int64_t n, classes, groups, folds;
    const int64_t *label, *group, *fold; /* [n] */
    const bool *used;                    /* [n] rows that count at all, or NULL: all */
    int64_t inner_folds;                 /* at most; inside the training part of a fold */
    uint64_t seed;
} lam_design;

/* How a fold went. */
typedef struct lam_fold_score {
    double score;    /* balanced accuracy, or R^2; NaN where it is not defined */
    double accuracy; /* NaN of a regression */
    double setting;  /* C or alpha as used */
    int64_t n_train, n_test;
} lam_fold_score;

/* train and test [room for n each]: rows of the design in rising order; of the training part the share (0, 1]. */
lam_status lam_design_split(const lam_design *design, int64_t f, double share, int64_t *train,
                            int64_t *n_train, int64_t *test, int64_t *n_test);
/* inner [n_train] 0..*folds - 1 for the training rows of fold f: min(inner_folds, groups there) folds that keep groups
 * whole. A single group: LAM_ERROR_INPUT. */
lam_status lam_design_inner(const lam_design *design, int64_t f, const int64_t *train, int64_t n_train,
                            int64_t *inner, int64_t *folds);

#ifdef __cplusplus
}
#endif
#endif
