/* Alignment of embeddings on controls (EFAAR, Celik et al. 2024; formulas of its efaar.py, Apache-2.0).
 *
 *     lam_alignment how = {.method = LAM_ALIGN_TVN, .controls = controls, .batch = batch, .batches = batches};
 *     LAM_TRY(lam_align(&how, x, rows, &columns, NULL));      // in place; columns may become fewer
 *
 * center, centerscale: minus the mean (and divided by the deviation, ddof 0, constant columns by 1) of the controls, or of all
 * rows where no controls are named; of each batch where batches are named.
 * The others take every row for a control where none are named.
 * pca-cs: principal components of all controls, then centre and scale on the controls of each batch.
 * tvn: centre and scale on all controls; components of the controls; centre and scale again (whitening); with batches
 * CORAL: X_b S_b^(-1/2), S_b = covariance(controls of b, ddof 1) + I/2. TVN does not take off the means of batches (trap T6).
 * spherize: ZCA-cor whitening (Kessy, Lewin and Strimmer, Am. Stat. 72, 2018; as pycytominer's Spherize(method="ZCA-cor",
 * epsilon=R)): with Z the n controls centred and scaled on themselves (ddof 0) and Z = U diag(s) V^T,
 * z W, W = sqrt(n - 1) V diag(1 / (s + R)) V^T. On all controls at once, whatever the batches.
 * With batch_center the mean of the controls of its batch is taken off each row before pca-cs, tvn or spherize: components and
 * covariances are then those within batches.
 * With shrinkage, tvn whitens by (1 - s) S + s mu I instead of S, the covariance of the controls (mu: its mean variance; s: as
 * given, or by Ledoit and Wolf, J. Multivariate Anal. 88, 2004): with few controls for the dimensions S alone is mostly noise.
 * With groups, tvn takes the variation among replicates for the typical one: S, and the scale before it, are of the controls minus
 * the mean of their group (divided by rows - groups), as within-class covariance normalisation does (Hatch et al., Interspeech
 * 2006). Every gene has replicates; a screen has few controls.
 * Guards, each with one line: components without variance among the controls are dropped (fewer controls than dimensions; spherize,
 * which keeps every dimension, scales them like the weakest that has some); columns that do not vary are centred and not scaled;
 * batches with too few controls are an error that names them. A component's sign is that its largest coefficient is positive.
 * The result does not depend on the number of threads. */
#ifndef LAMELLA_EVAL_ALIGN_H
#define LAMELLA_EVAL_ALIGN_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "eval/transform.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum lam_align_method {
    LAM_ALIGN_NONE,
    LAM_ALIGN_CENTER,
    LAM_ALIGN_CENTERSCALE,
    LAM_ALIGN_PCA_CS,
    LAM_ALIGN_TVN,
    LAM_ALIGN_SPHERIZE
} lam_align_method;

typedef struct lam_alignment {
    lam_align_method method;
    const bool *controls; /* [rows]; NULL: every row */
    const int64_t *batch; /* [rows] 0..batches-1; NULL: one batch */
    int64_t batches;
    const char *const *batch_names; /* for messages; may be NULL */
    bool batch_center;              /* of pca-cs, tvn and spherize */
    int64_t components;             /* of pca-cs and tvn that are kept, most variance first; 0: all */
    double
        variance; /* instead of a count, 0..1: the fewest components with more than this share of the controls' variance; 0: all */
    bool shrinkage; /* of tvn */
    double share;   /* s of the shrinkage, above 0 up to 1; 0: Ledoit and Wolf's */
    const int64_t *
        group; /* of tvn: [rows] 0..groups-1, which rows are replicates of each other; NULL: none. Not with batches */
    int64_t groups;
    double regularization; /* R of spherize, >= 0 */
} lam_alignment;

/* Ledoit and Wolf's share s of the identity, 0..1, for n centred rows of d columns with covariance S (divided by n):
 * s = min(1, sum_k |x_k x_k^T - S|^2 / (n f) / |S - mu I|^2), Frobenius norms; f their degrees of freedom: n, or n minus the groups
 * whose means were taken off (two replicates are one independent difference, so that n rows of pairs tell as much as n / 2). */
double lam_ledoit_wolf(const double *x, int64_t d, int64_t n, int64_t freedom, const double *covariance);

/* Fits on x [rows, columns], which stays as it is. LAM_ERROR_INPUT: too few controls; LAM_ERROR_NUMERIC: controls that do not vary. */
lam_status lam_align_fit(const lam_alignment *how, const double *x, int64_t rows, int64_t columns,
                         lam_transform *out);

/* Fits and applies: x [rows, *columns] is aligned in place; with fewer components its rows become shorter. out may be NULL. */
lam_status lam_align(const lam_alignment *how, double *x, int64_t rows, int64_t *columns, lam_transform *out);

#ifdef __cplusplus
}
#endif
#endif
