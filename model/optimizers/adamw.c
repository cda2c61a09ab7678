#include <math.h>

#include "model/cpu/kernels.h"
#include "model/optimizers/rules.h"

lam_status lam_adamw_step(const lam_update *u, const lam_update_range *r) {
    double lr = lam_update_lr(u, r->entry), t = (double)u->t;
    lam_adamw_terms terms = {
        .decay_factor = (float)(1.0 - lr * lam_update_decay(u, r->entry)),
        .beta1 = (float)u->beta1,
        .beta2 = (float)u->beta2,
        .eps = (float)u->eps,
        .step_size = (float)(lr / (1.0 - pow(u->beta1, t))),
        .inverse_root_correction2 = (float)(1.0 / sqrt(1.0 - pow(u->beta2, t))),
        .gradient_scale = (float)u->gradient_scale,
    };
    lam_kernels_current(false)->optimizer->adamw(r->weights, r->gradients, r->arena[0], r->arena[1], r->count,
                                                 &terms);
    return LAM_OK;
}

const lam_optimizer lam_optimizer_adamw = {
    .name = "adamw", .arenas = 2, .arena_names = {"exp_avg", "exp_avg_sq"}, .step = lam_adamw_step};
