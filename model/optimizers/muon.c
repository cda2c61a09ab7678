#include <math.h>

#include "base/gemm.h"
#include "model/cpu/kernels.h"
#include "model/optimizers/rules.h"
#include "model/places.h"

int64_t lam_newton_schulz_workspace(int64_t rows, int64_t columns) {
    int64_t side = rows < columns ? rows : columns;
    return rows * columns + 3 * side * side;
}

/* x = a x + b (x x^T) x + c (x x^T)^2 x, with the products on the shorter side. */
static lam_status quintic(float *x, float *next, int64_t rows, int64_t columns, float *workspace) {
    const lam_optimizer_kernels *kernels = lam_kernels_current(false)->optimizer;
    bool tall = rows > columns;
    int64_t side = tall ? columns : rows, length = tall ? rows : columns, square = side * side;
    float *gram = workspace, *scaled = gram + square, *polynomial = scaled + square;
    LAM_TRY(lam_gemm_f32(tall, !tall, side, side, length, x, columns, x, columns, 0, gram, side));
    kernels->scale(scaled, gram, square, LAM_MUON_C);
    kernels->scale(polynomial, gram, square, LAM_MUON_B);
    LAM_TRY(lam_gemm_f32(false, false, side, side, side, scaled, side, gram, side, 1, polynomial, side));
    kernels->scale(next, x, rows * columns, LAM_MUON_A);
    return tall ? lam_gemm_f32(false, false, rows, columns, columns, x, columns, polynomial, columns, 1, next,
                               columns)
                : lam_gemm_f32(false, false, rows, columns, rows, polynomial, rows, x, columns, 1, next,
                               columns);
}

lam_status lam_newton_schulz(float *x, int64_t rows, int64_t columns, float *workspace) {
    const lam_optimizer_kernels *kernels = lam_kernels_current(false)->optimizer;
    int64_t count = rows * columns;
    float *from = x, *to = workspace;
    double norm = sqrt(lam_sum_of_squares(x, 0, count));
    kernels->scale(x, x, count, norm > 0 ? (float)(1 / norm) : 0);
    for (int i = 0; i < LAM_MUON_STEPS; i++) {
        LAM_TRY(quintic(from, to, rows, columns, workspace + count));
        float *swap = from;
        from = to;
        to = swap;
    }
    kernels->scale(x, from, count, 1);
    return LAM_OK;
}

static lam_status step(const lam_update *u, const lam_update_range *r) {
    int64_t rows[LAM_MATRIX_PARTS], columns, at = 0;
    int parts = lam_parameter_matrices(r->entry, rows, &columns);
    if (parts == 0) return lam_adamw_step(u, r);
    const lam_optimizer_kernels *kernels = lam_kernels_current(false)->optimizer;
    double lr = lam_update_lr(u, r->entry);
    float decay = (float)(1 - lr * lam_update_decay(u, r->entry));
    float *direction = r->workspace, *scratch = direction + r->count;
    kernels->nesterov(r->gradients, r->arena[0], direction, r->count, (float)u->momentum,
                      (float)u->gradient_scale);
    for (int k = 0; k < parts; k++) {
        int64_t count = rows[k] * columns, longer = rows[k] > columns ? rows[k] : columns;
        LAM_TRY(lam_newton_schulz(direction + at, rows[k], columns, scratch));
        kernels->scale_and_add(r->weights + at, r->weights + at, direction + at, count, decay,
                               (float)(-lr * 0.2 * sqrt((double)longer)));
        at += count;
    }
    return LAM_OK;
}

static int64_t workspace(const lam_parameters *p) {
    int64_t most = 0;
    for (int64_t i = 0; i < p->entries; i++) {
        int64_t rows[LAM_MATRIX_PARTS], columns;
        int parts = lam_parameter_matrices(&p->entry[i], rows, &columns);
        for (int k = 0; k < parts; k++) {
            int64_t floats = p->entry[i].count + lam_newton_schulz_workspace(rows[k], columns);
            if (floats > most) most = floats;
        }
    }
    return most;
}

/* A matrix has a momentum and no second moment. */
static bool uses(const lam_parameter_entry *entry, int arena) {
    int64_t rows[LAM_MATRIX_PARTS], columns;
    return arena == 0 || lam_parameter_matrices(entry, rows, &columns) == 0;
}

const lam_optimizer lam_optimizer_muon = {.name = "muon",
                                          .arenas = 2,
                                          .arena_names = {"exp_avg", "exp_avg_sq"},
                                          .whole = true,
                                          .uses = uses,
                                          .workspace = workspace,
                                          .step = step};
