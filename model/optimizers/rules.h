/* What the rules share and what the table lists; model/optimizer.c and the rules include it, and their tests. */
#ifndef LAMELLA_MODEL_OPTIMIZERS_RULES_H
#define LAMELLA_MODEL_OPTIMIZERS_RULES_H

#include "model/optimizer.h"

#ifdef __cplusplus
extern "C" {
#endif

extern const lam_optimizer lam_optimizer_adamw, lam_optimizer_lion, lam_optimizer_lamb, lam_optimizer_muon,
    lam_optimizer_schedule_free;

static inline double lam_update_lr(const lam_update *update, const lam_parameter_entry *entry) {
    return update->lr * entry->lr_scale;
}
static inline double lam_update_decay(const lam_update *update, const lam_parameter_entry *entry) {
    return entry->decay ? update->weight_decay : 0;
}

/* The step of adamw, which others use for part of the parameters. */
lam_status lam_adamw_step(const lam_update *update, const lam_update_range *range);

/* x [rows, columns] = U diag(s) V^T becomes U diag(p(s / |x|)) V^T, |x| the Frobenius norm and p five times
 * s -> 3.4445 s - 4.7750 s^3 + 2.0315 s^5 (Jordan et al. 2024: a Newton-Schulz step whose coefficients favour the slope at 0
 * over convergence to 1). Singular values above 0.0016 |x| come to lie between 0.68 and 1.21, smaller ones grow up to
 * 485-fold; zeros stay zeros. `workspace`: lam_newton_schulz_workspace floats. */
#define LAM_MUON_A 3.4445f
#define LAM_MUON_B (-4.7750f)
#define LAM_MUON_C 2.0315f
#define LAM_MUON_STEPS 5
lam_status lam_newton_schulz(float *x, int64_t rows, int64_t columns, float *workspace);
int64_t lam_newton_schulz_workspace(int64_t rows, int64_t columns);

#ifdef __cplusplus
}
#endif
#endif
