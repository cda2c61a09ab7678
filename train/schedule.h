/* Learning rate and first momentum coefficient of a step.
 *
 *     lam_schedule s = {LAM_SCHEDULE_ONECYCLE, .steps = 100, .warmup = 0.1, .lr = 1e-4, .beta1 = 0.9};
 *     lam_schedule_at(&s, step, &lr, &beta1);       // step counts from 0
 *
 * COSINE (He et al. 2022): linear from 0 over the first warmup * steps steps, then half a cosine to min_lr; beta1 stays.
 * ONECYCLE (Smith 2018, as PyTorch's OneCycleLR with cosine annealing and cycled momentum): with e = warmup * steps - 1
 * and l = steps - 1, the rate goes from lr/25 at 0 by half a cosine to lr at e, then to lr/25e4 at l; beta1 goes
 * from 0.95 to 0.85 and back along the same curve.
 * CONSTANT: linear warm-up, then lr. */
#ifndef LAMELLA_TRAIN_SCHEDULE_H
#define LAMELLA_TRAIN_SCHEDULE_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum lam_schedule_kind {
    LAM_SCHEDULE_COSINE,
    LAM_SCHEDULE_ONECYCLE,
    LAM_SCHEDULE_CONSTANT
} lam_schedule_kind;

typedef struct lam_schedule {
    lam_schedule_kind kind;
    int64_t steps; /* of the whole run */
    double warmup; /* share of the steps */
    double lr, min_lr, beta1;
} lam_schedule;

void lam_schedule_at(const lam_schedule *schedule, int64_t step, double *lr, double *beta1);

#ifdef __cplusplus
}
#endif
#endif
