/* Update rules over the flat arenas, the average of weights, and what guards an update.
 *
 *     lam_optimizer_state state;
 *     LAM_TRY(lam_optimizer_open(&state, lam_optimizer_find("adamw"), parameters));   // weights are the first ones
 *     lam_update update = {.lr = 1e-3, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .gradient_scale = 1, .t = 1};
 *     LAM_TRY(lam_optimizer_step(&state, parameters, &update, 0, parameters->trainable));
 *     lam_optimizer_close(&state);
 *
 * One table entry a rule; nothing else knows a rule by name. In all of them g is the gradient times gradient_scale,
 * lr the rate times lr_scale of the parameter, wd the decay, or 0 where the registry says no decay; m, v start at 0.
 *
 * adamw (Loshchilov & Hutter 2019, arXiv 1711.05101):
 *     w *= 1 - lr wd;  m = b1 m + (1-b1) g;  v = b2 v + (1-b2) g^2
 *     w -= lr (m / (1-b1^t)) / (sqrt(v / (1-b2^t)) + eps)
 * lion (Chen et al. 2023, arXiv 2302.06675); sign(0) = 0:
 *     w *= 1 - lr wd;  w -= lr sign(b1 m + (1-b1) g);  m = b2 m + (1-b2) g
 * lamb (You et al. 2020, arXiv 1904.00962, algorithm 2, phi the identity): m, v as adamw;
 *     r = (m / (1-b1^t)) / (sqrt(v / (1-b2^t)) + eps) + wd w;  w -= lr (|w| / |r|) r
 *   The norms are those of a whole parameter; where one is 0, and for parameters without decay (biases and norms, as in the
 *   authors' code), the ratio is 1.
 * muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon; scale and decay of Liu et al. 2025, arXiv 2502.16982):
 *     m = momentum m + (1-momentum) g;  u = momentum m + (1-momentum) g
 *     w *= 1 - lr wd;  w -= lr 0.2 sqrt(max(rows, columns)) orthogonalised(u)
 *   for the hidden matrices (model/places.h: q, k, v apart even where they share a tensor), adamw with the same lr for
 *   everything else. The factor gives the update the root mean square that adamw's has, so that one lr serves both.
 *   The products that make it orthogonal are float32; on a GPU, in a training in bfloat16, bfloat16 as in the post.
 * schedulefree (Defazio et al. 2024, arXiv 2405.15682, algorithm 1, with the bias correction and the weights of the
 *   authors' package 1.4: v is corrected as in adamw, and z has the weight of its rate squared). The gradient is
 *   taken at y, which the weight arena holds; x is what inference uses; z, x, y start equal:
 *     rate = lr min(1, t / warmup);  v = b2 v + (1-b2) g^2;  d = g / (sqrt(v / (1-b2^t)) + eps) + wd y
 *     z -= rate d;  c = rate_t^2 / sum_{i<=t} rate_i^2;  x = (1-c) x + c z;  y = (1-b1) z + b1 x
 *   x is not stored: x = y + (1/b1 - 1) (y - z).
 *
 * A step is a single pass over [begin, end) of the arenas. adamw, lion and schedulefree give the same bits however the
 * arenas are split into ranges. lamb needs the norms of a parameter and muon whole matrices (`whole`): their
 * ranges may end between parameters only. Norms are sums over fixed blocks: no rule depends on the number of threads,
 * but for muon's products, which keep to what base/gemm.h promises (the same bits for the same number of threads).
 * Padding is not touched, frozen parameters neither. */
#ifndef LAMELLA_MODEL_OPTIMIZER_H
#define LAMELLA_MODEL_OPTIMIZER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "model/parameters.h"

#ifdef __cplusplus
extern "C" {
#endif

#define LAM_OPTIMIZER_ARENAS 2

/* What one update is made with. A rule reads what its formula names. */
typedef struct lam_update {
    double lr, beta1, beta2, eps, weight_decay;
    double momentum;       /* muon */
    double warmup;         /* schedulefree: updates over which the rate rises */
    double gradient_scale; /* multiplies the gradient first */
    int64_t t;             /* counts updates from 1 */
} lam_update;

/* The part of one parameter that lies in the range of a step. */
typedef struct lam_update_range {
    const lam_parameter_entry *entry;
    float *weights;
    const float *gradients;
    float *arena[LAM_OPTIMIZER_ARENAS];
    int64_t count;
    float *workspace;
} lam_update_range;

typedef struct lam_optimizer {
    const char *name;
    int arenas;                                    /* of state, each [trainable] as the gradients */
    const char *arena_names[LAM_OPTIMIZER_ARENAS]; /* in checkpoints */
    bool whole;                                    /* ranges may end between parameters only */
    bool (*uses)(const lam_parameter_entry *,
                 int arena);                      /* whether the arena holds anything of it; NULL: always */
    int64_t (*workspace)(const lam_parameters *); /* floats; NULL: none */
    void (*start)(const lam_parameters *, float *const *arena); /* from the first weights; NULL: all zero */
    lam_status (*step)(const lam_update *, const lam_update_range *);
    /* For a rule that trains at other weights than those that inference uses (schedulefree: y and x), else NULL: the
     * latter, written to out [trainable]. beta1 must not vary and not be 0; the rate follows no schedule. */
    void (*averaged)(const lam_parameters *, float *const *arena, double beta1, float *out);
    const char *trained_name;           /* in checkpoints, of the former; NULL without `averaged` */
    double (*rate)(const lam_update *); /* the rate that is used; NULL: lr */
} lam_optimizer;

/* "adamw", "lion", "lamb", "muon", "schedulefree"; NULL: none of that name. */
const lam_optimizer *lam_optimizer_find(const char *name);

/* A rule with its arenas; they are the caller's to store and to read back. */
typedef struct lam_optimizer_state {
    const lam_optimizer *optimizer;
    float *arena[LAM_OPTIMIZER_ARENAS]; /* NULL from optimizer->arenas on */
    float *workspace;
} lam_optimizer_state;

/* After a failure lam_optimizer_close is due as well. */
lam_status lam_optimizer_open(lam_optimizer_state *state, const lam_optimizer *optimizer,
                              const lam_parameters *parameters);
void lam_optimizer_close(lam_optimizer_state *state);
/* Of a rule's arenas and workspace. */
int64_t lam_optimizer_bytes(const lam_optimizer *optimizer, const lam_parameters *parameters);
/* LAM_ERROR_INTERNAL where a range cuts a parameter that the rule needs whole; LAM_ERROR_EXTERNAL as base/gemm.h. */
lam_status lam_optimizer_step(const lam_optimizer_state *state, const lam_parameters *parameters,
                              const lam_update *update, int64_t begin, int64_t end);
double lam_optimizer_rate(const lam_optimizer *optimizer, const lam_update *update);

/* Exponential moving average of weights without the share of the first ones (corrected as the moments of Kingma & Ba
 * 2015, arXiv 1412.6980, section 3): after update t,
 *     average_t = sum_{i<=t} decay^(t-i) w_i / sum_{i<=t} decay^(t-i)
 * as average += (1 - decay) / (1 - decay^t) (w - average), over [begin, end) of [trainable], split in any way. */
void lam_average_step(float *average, const lam_parameters *parameters, double decay, int64_t t,
                      int64_t begin, int64_t end);

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
