#include <math.h>
#include <string.h>

#include "model/cpu/kernels.h"
#include "model/optimizers/rules.h"

static double risen(double t, double warmup) { return t < warmup ? t / warmup : 1; }

/* rate_t^2 / sum_{i<=t} rate_i^2 in closed form, so that nothing but t needs to be stored: the first m = floor(warmup)
 * rates rise as i / warmup, the others are equal. */
static double share_of(double t, double warmup) {
    double m = fmin(t, floor(warmup)), rising = m > 0 ? m * (m + 1) * (2 * m + 1) / (6 * warmup * warmup) : 0;
    return risen(t, warmup) * risen(t, warmup) / (rising + t - m);
}

static double rate(const lam_update *u) { return u->lr * risen((double)u->t, u->warmup); }

static void start(const lam_parameters *p, float *const *arena) {
    memcpy(arena[0], p->weights, (size_t)p->trainable * sizeof(float));
}

static lam_status step(const lam_update *u, const lam_update_range *r) {
    double lr = rate(u) * r->entry->lr_scale, share = share_of((double)u->t, u->warmup);
    lam_schedule_free_terms terms = {
        .decay = (float)lam_update_decay(u, r->entry),
        .beta2 = (float)u->beta2,
        .eps = (float)u->eps,
        .inverse_root_correction2 = (float)(1.0 / sqrt(1.0 - pow(u->beta2, (double)u->t))),
        .gradient_scale = (float)u->gradient_scale,
        .share = (float)share,
        .lr = (float)lr,
        .trained_step = (float)(lr * (1.0 - u->beta1 * (1.0 - share))),
    };
    lam_kernels_current(false)->optimizer->schedule_free(r->weights, r->gradients, r->arena[0], r->arena[1],
                                                         r->count, &terms);
    return LAM_OK;
}

static void averaged(const lam_parameters *p, float *const *arena, double beta1, float *out) {
    lam_kernels_current(false)->optimizer->schedule_free_average(p->weights, arena[0], out, p->trainable,
                                                                 (float)(1.0 / beta1 - 1.0));
}

const lam_optimizer lam_optimizer_schedule_free = {.name = "schedulefree",
                                                   .arenas = 2,
                                                   .arena_names = {"z", "exp_avg_sq"},
                                                   .start = start,
                                                   .step = step,
                                                   .averaged = averaged,
                                                   .trained_name = "y",
                                                   .rate = rate};
