/* Numbers read out of features in folds: ridge regression of many targets, alpha of each chosen on inner folds of the
 * training part where several are given.
 *
 *     LAM_TRY(lam_regress(&design, x, d, &targets, alpha, 7, 1.0, &jobs, &result));
 *
 * Targets with the same missing rows share a decomposition. Nothing of a test fold is seen in fitting, standardising or
 * choosing. */
#ifndef LAMELLA_EVAL_REGRESS_H
#define LAMELLA_EVAL_REGRESS_H

#include <stdint.h>

#include "base/status.h"
#include "eval/folds.h"
#include "eval/jobs.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lam_targets {
    int64_t n, count;
    const double *y; /* [n, count]; NaN: missing, the row does not count for this target */
} lam_targets;

/* All [folds, targets]. R^2 of a fold is 1 - sse / total, NaN where total is 0: no test rows, or a constant target. */
typedef struct lam_regression {
    double *sse, *total, *alpha;
    int64_t *n_train, *n_test;
} lam_regression;

/* *out: allocated here, freed with lam_regression_free, also after a failure. alpha [alphas] rising, above 0; of several
 * the one with the best mean R^2 over the inner folds, of equal ones the largest. design->used is not read: the missing
 * values say which rows count. LAM_ERROR_INPUT where a fold leaves fewer than two rows to train on. */
lam_status lam_regress(const lam_design *design, const double *x, int64_t d, const lam_targets *targets,
                       const double *alpha, int64_t alphas, double share, lam_jobs *jobs,
                       lam_regression *out);
void lam_regression_free(lam_regression *regression);
/* How many jobs a call of lam_regress counts: folds of every pattern of missing rows. */
lam_status lam_regress_jobs(const lam_design *design, const lam_targets *targets, int64_t *jobs);

#ifdef __cplusplus
}
#endif
#endif
