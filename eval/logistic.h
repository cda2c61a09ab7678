/* Logistic regression with an L2 penalty, scikit-learn's LogisticRegression: C sum_i w_i loss_i + |W|^2 / 2 with the
 * intercepts free, minimised by L-BFGS (liblbfgs).
 *
 *     lam_standardised rows = {x, d, train, n_train, mean, scale};
 *     LAM_TRY(lam_logistic_fit(&rows, label, weight, classes, 1.0, coefficients));    // [classes, d + 1]
 *     LAM_TRY(lam_logistic_predict(&test_rows, coefficients, classes, predicted));
 *
 * Three classes or more: multinomial loss, a row of W a class. Two: scikit-learn penalises the one vector w that tells
 * them apart; here W = (-w/2, w/2), and the penalty |W|^2 is the same |w|^2 / 2. Sums run over fixed pieces of the rows in
 * a fixed order: the result does not depend on the number of threads. Calls on several threads are independent. */
#ifndef LAMELLA_EVAL_LOGISTIC_H
#define LAMELLA_EVAL_LOGISTIC_H

#include <stdint.h>

#include "base/status.h"
#include "eval/standardise.h"

#ifdef __cplusplus
extern "C" {
#endif

/* How many threads a fit of n rows can use. */
int64_t lam_logistic_pieces(int64_t n);
/* label [n] 0..classes-1 and weight [n] of the rows of the view in its order; coefficients [classes, d + 1], intercept
 * last. They are read as the start (zeros, or the solution for a near C) and replaced. A class without rows gets the
 * intercept -infinity: it is never predicted. Where classes are separable and C is huge
 * the minimum is far: after 5000 iterations the point reached is taken. LAM_ERROR_NUMERIC where liblbfgs fails otherwise. */
lam_status lam_logistic_fit(const lam_standardised *rows, const int64_t *label, const double *weight,
                            int64_t classes, double c, double *coefficients);
/* predicted [n]: the class of the largest score, the first of equal ones. */
lam_status lam_logistic_predict(const lam_standardised *rows, const double *coefficients, int64_t classes,
                                int64_t *predicted);

#ifdef __cplusplus
}
#endif
#endif
