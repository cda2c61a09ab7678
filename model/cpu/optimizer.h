/* The kernels of the update rules, compiled once for each instruction set from optimizer.inc.h; formulas are in
 * model/optimizer.h. Every element is computed from its own neighbours in the arenas only, so that a range may be
 * split anywhere; only lamb_block sums. */
#ifndef LAMELLA_MODEL_CPU_OPTIMIZER_H
#define LAMELLA_MODEL_CPU_OPTIMIZER_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* inverse_root_correction2 = 1 / sqrt(1 - beta2^t), in all of them. */
typedef struct lam_adamw_terms {
    float decay_factor, beta1, beta2, eps, step_size, inverse_root_correction2, gradient_scale;
} lam_adamw_terms;

typedef struct lam_lion_terms {
    float decay_factor, beta1, beta2, lr, gradient_scale;
} lam_lion_terms;

typedef struct lam_lamb_terms {
    float decay, beta1, beta2, eps, inverse_correction1, inverse_root_correction2, gradient_scale;
} lam_lamb_terms;

typedef struct lam_schedule_free_terms {
    float decay, beta2, eps, inverse_root_correction2, gradient_scale;
    float share; /* of z in the average x */
    float lr;
    float trained_step; /* lr (1 - beta1 (1 - share)): how far y goes with z */
} lam_schedule_free_terms;

typedef struct lam_optimizer_kernels {
    void (*adamw)(float *w, const float *g, float *m, float *v, int64_t count, const lam_adamw_terms *terms);
    void (*lion)(float *w, const float *g, float *m, int64_t count, const lam_lion_terms *terms);
    /* Moments of one block, on the calling thread; squares = sums of w^2 and of r^2, in an order that only `count`
     * decides, where r is the direction that lamb_apply goes. */
    void (*lamb_block)(const float *w, const float *g, float *m, float *v, int64_t count,
                       const lam_lamb_terms *terms, double squares[2]);
    void (*lamb_apply)(float *w, const float *m, const float *v, int64_t count, const lam_lamb_terms *terms,
                       float step);
    void (*schedule_free)(float *y, const float *g, float *z, float *v, int64_t count,
                          const lam_schedule_free_terms *terms);
    /* x = y + ratio (y - z) */
    void (*schedule_free_average)(const float *y, const float *z, float *x, int64_t count, float ratio);
    /* m = momentum m + (1 - momentum) g; u = momentum m + (1 - momentum) g, g times gradient_scale first */
    void (*nesterov)(const float *g, float *m, float *u, int64_t count, float momentum, float gradient_scale);
    /* to = factor from + step direction; `to` may be `from` */
    void (*scale_and_add)(float *to, const float *from, const float *direction, int64_t count, float factor,
                          float step);
    /* to = factor from */
    void (*scale)(float *to, const float *from, int64_t count, float factor);
    /* average += share (w - average) */
    void (*average)(float *average, const float *w, int64_t count, float share);
} lam_optimizer_kernels;

#ifdef __cplusplus
}
#endif
#endif
