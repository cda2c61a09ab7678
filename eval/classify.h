/* Classes read out of features in folds: logistic regression, with C chosen on inner folds of the training part where
 * several are given, or k nearest neighbours.
 *
 *     lam_classifier model = {.c = c, .c_count = 3, .balanced = true};
 *     LAM_TRY(lam_classify(&design, x, d, &model, 1.0, &jobs, scores, predicted));
 *
 * Nothing of a test fold is seen in fitting, standardising or choosing. */
#ifndef LAMELLA_EVAL_CLASSIFY_H
#define LAMELLA_EVAL_CLASSIFY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "eval/folds.h"
#include "eval/jobs.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lam_classifier {
    int64_t neighbours; /* k; 0: logistic regression */
    const double *
        c; /* [c_count] rising; several: the one with the best mean balanced accuracy on inner folds, of equal
                         * ones the smallest */
    int64_t c_count;
    bool balanced; /* every class of the training part counts the same */
} lam_classifier;

/* A logistic regression as fitted: coefficients [classes, d + 1] of standardised columns. */
typedef struct lam_linear {
    double *mean, *scale, *coefficients, c;
} lam_linear;

/* Fits the training part (its share) of fold f. The caller frees with lam_linear_free. */
lam_status lam_classify_fit(const lam_design *design, const double *x, int64_t d, const lam_classifier *model,
                            double share, int64_t f, lam_linear *out);
void lam_linear_free(lam_linear *linear);

/* scores [folds]; predicted [n] (all rows are in some test fold). x [n, d], finite. One job a fold.
 * design->used is NULL. */
lam_status lam_classify(const lam_design *design, const double *x, int64_t d, const lam_classifier *model,
                        double share, lam_jobs *jobs, lam_fold_score *scores, int64_t *predicted);

/* Mean over the classes present of the share that is predicted right (scikit-learn's balanced_accuracy_score), and the
 * plain share; NaN without rows. label, predicted [n]. */
lam_status lam_balanced_accuracy(const int64_t *label, const int64_t *predicted, int64_t n, int64_t classes,
                                 double *balanced, double *plain);

#ifdef __cplusplus
}
#endif
#endif
