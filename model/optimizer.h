/* Update rules as single passes over ranges of the flat arenas, and what guards them.
 * One call updates elements [begin, end) of the arenas; ranges may be split in any way with the same bits.
 * `decay` per element comes from the registry (lam_parameters_entry.decay); padding is not touched. */
#ifndef LAMELLA_MODEL_OPTIMIZER_H
#define LAMELLA_MODEL_OPTIMIZER_H

#include <stdint.h>

#include "base/status.h"
#include "model/parameters.h"

#ifdef __cplusplus
extern "C" {
#endif

/* AdamW (Loshchilov & Hutter 2019): w *= 1 - lr*wd; m = b1 m + (1-b1) g; v = b2 v + (1-b2) g^2;
 * w -= lr * (m / (1-b1^t)) / (sqrt(v / (1-b2^t)) + eps). t counts from 1. `gradient_scale` multiplies g
 * first. */
typedef struct lam_adamw {
    double lr, beta1, beta2, eps, weight_decay, gradient_scale;
    int64_t t;
} lam_adamw;
void lam_adamw_step(const lam_adamw *rule, const lam_parameters *parameters, float *m, float *v,
                    int64_t begin, int64_t end);

/* Lion (Chen et al. 2023): w *= 1 - lr*wd; w -= lr * sign(b1 m + (1-b1) g); m = b2 m + (1-b2) g; sign(0) = 0.
 */
typedef struct lam_lion {
    double lr, beta1, beta2, weight_decay, gradient_scale;
} lam_lion;
void lam_lion_step(const lam_lion *rule, const lam_parameters *parameters, float *m, int64_t begin,
                   int64_t end);

/* Sum of squares in double over [begin, end) in fixed blocks (the same for any number of threads); NaN or
 * infinity in the input makes it non-finite. */
double lam_sum_of_squares(const float *values, int64_t begin, int64_t end);
/* Name of the first parameter with a non-finite value in `values` (laid out as the gradients); NULL: all
 * finite. */
const char *lam_first_non_finite(const lam_parameters *parameters, const float *values);

#ifdef __cplusplus
}
#endif
#endif
