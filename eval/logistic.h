/* Multinomial logistic regression with an L2 penalty: scikit-learn's objective, C sum_i w_i loss_i + |W|^2 / 2 with the
 * intercepts free, minimised by L-BFGS (liblbfgs).
 *
 *     LAM_TRY(lam_logistic_fit(x, n, d, label, weight, classes, 1.0, coefficients));    // [classes, d + 1]
 *     lam_logistic_predict(x, n, d, coefficients, classes, predicted);
 */
#ifndef LAMELLA_EVAL_LOGISTIC_H
#define LAMELLA_EVAL_LOGISTIC_H

#include <stdint.h>

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* x [n, d] standardised by the caller; label [n] 0..classes-1; weight [n]; coefficients [classes, d + 1], intercept last.
 * LAM_ERROR_NUMERIC where the minimum is not reached. One thread; calls on several threads are independent. */
lam_status lam_logistic_fit(const double *x, int64_t n, int64_t d, const int64_t *label, const double *weight,
                            int64_t classes, double c, double *coefficients);
void lam_logistic_predict(const double *x, int64_t n, int64_t d, const double *coefficients, int64_t classes,
                          int64_t *predicted);

#ifdef __cplusplus
}
#endif
#endif
