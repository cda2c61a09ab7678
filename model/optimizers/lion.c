#include "model/cpu/kernels.h"
#include "model/optimizers/rules.h"

static lam_status step(const lam_update *u, const lam_update_range *r) {
    double lr = lam_update_lr(u, r->entry);
    lam_lion_terms terms = {.decay_factor = (float)(1.0 - lr * lam_update_decay(u, r->entry)),
                            .beta1 = (float)u->beta1,
                            .beta2 = (float)u->beta2,
                            .lr = (float)lr,
                            .gradient_scale = (float)u->gradient_scale};
    lam_kernels_current(false)->optimizer->lion(r->weights, r->gradients, r->arena[0], r->count, &terms);
    return LAM_OK;
}

const lam_optimizer lam_optimizer_lion = {
    .name = "lion", .arenas = 1, .arena_names = {"exp_avg"}, .step = step};
