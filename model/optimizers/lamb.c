#include <math.h>

#include "model/cpu/kernels.h"
#include "model/optimizers/rules.h"

/* Blocks of this size are summed by themselves, then in their order, whichever thread had them. */
enum { BLOCK = 1 << 15, GROUP = 64 };

static void moments_and_squares(const lam_update_range *r, const lam_lamb_terms *terms, double squares[2]) {
    const lam_optimizer_kernels *kernels = lam_kernels_current(false)->optimizer;
    squares[0] = squares[1] = 0;
    for (int64_t start = 0; start < r->count; start += (int64_t)GROUP * BLOCK) {
        double sums[GROUP][2];
        int64_t blocks = (r->count - start + BLOCK - 1) / BLOCK;
        if (blocks > GROUP) blocks = GROUP;
#pragma omp parallel for schedule(static)
        for (int64_t b = 0; b < blocks; b++) {
            int64_t at = start + b * BLOCK, count = r->count - at < BLOCK ? r->count - at : BLOCK;
            kernels->lamb_block(r->weights + at, r->gradients + at, r->arena[0] + at, r->arena[1] + at, count,
                                terms, sums[b]);
        }
        for (int64_t b = 0; b < blocks; b++) squares[0] += sums[b][0], squares[1] += sums[b][1];
    }
}

static lam_status step(const lam_update *u, const lam_update_range *r) {
    double t = (double)u->t, squares[2];
    lam_lamb_terms terms = {.decay = (float)lam_update_decay(u, r->entry),
                            .beta1 = (float)u->beta1,
                            .beta2 = (float)u->beta2,
                            .eps = (float)u->eps,
                            .inverse_correction1 = (float)(1.0 / (1.0 - pow(u->beta1, t))),
                            .inverse_root_correction2 = (float)(1.0 / sqrt(1.0 - pow(u->beta2, t))),
                            .gradient_scale = (float)u->gradient_scale};
    moments_and_squares(r, &terms, squares);
    bool trusted = r->entry->decay && squares[0] > 0 && squares[1] > 0;
    double ratio = trusted ? sqrt(squares[0] / squares[1]) : 1;
    lam_kernels_current(false)->optimizer->lamb_apply(r->weights, r->arena[0], r->arena[1], r->count, &terms,
                                                      (float)(lam_update_lr(u, r->entry) * ratio));
    return LAM_OK;
}

const lam_optimizer lam_optimizer_lamb = {
    .name = "lamb", .arenas = 2, .arena_names = {"exp_avg", "exp_avg_sq"}, .whole = true, .step = step};
