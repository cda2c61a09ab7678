/* The registry of parameters: name, shape, initialisation, decay flag, learning-rate scale; laid out in flat
 * arenas.
 *
 *     lam_parameters *p;
 *     LAM_TRY(lam_parameters_create(&p));
 *     LAM_TRY(lam_parameters_add(p, "decoder.mask_token", 3, (int64_t[]){1, 1, 512}, LAM_INIT_NORMAL, 0.02,
 * true)); LAM_TRY(lam_parameters_layout(p, seed));       // allocates weights and gradients, draws the
 * weights
 *
 * Arenas hold the parameters in backward order (last registered first), each aligned to 16 elements; the
 * padding is zero and stays zero. Optimiser, clipping, all-reduce and checkpoints are single passes over
 * ranges. Frozen parameters (position tables) have no gradient and lie at the end, outside [0, trainable). */
#ifndef LAMELLA_MODEL_PARAMETERS_H
#define LAMELLA_MODEL_PARAMETERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum lam_init {
    LAM_INIT_ZERO,
    LAM_INIT_ONE,
    LAM_INIT_CONSTANT,       /* scale */
    LAM_INIT_NORMAL,         /* N(0, scale^2) */
    LAM_INIT_XAVIER_UNIFORM, /* U(-a, a), a = sqrt(6 / (fan_in + fan_out)), of [out, rest] */
    LAM_INIT_FROZEN          /* filled by the net (position tables); never updated */
} lam_init;

typedef struct lam_parameter_entry {
    char *name;
    int rank;
    int64_t shape[4];
    int64_t count, offset; /* elements */
    lam_init init;
    double init_scale;
    bool decay;      /* weight decay applies */
    double lr_scale; /* 1 unless layer-wise decay */
} lam_parameter_entry;

typedef struct lam_parameters {
    int64_t entries, capacity;
    lam_parameter_entry *entry; /* in order of registration */
    int64_t count;              /* elements of the weight arena, padded */
    int64_t trainable;          /* elements of the gradient arena: [0, trainable) of the weights */
    float *weights, *gradients; /* on the host */
    const struct lam_backend *backend; /* where graphs work with them; NULL: no graph yet */
    float *device_weights, *device_gradients; /* there; on the CPU the same memory */
    bool *unwritten;           /* of each entry: its gradient counts as zero, whatever the arena holds */
    struct lam_packed *packed; /* copies of weights in forms that products want */
} lam_parameters;

lam_status lam_parameters_create(lam_parameters **out);
lam_status lam_parameters_add(lam_parameters *parameters, const char *name, int rank, const int64_t *shape,
                              lam_init init, double init_scale, bool decay);
/* Element k of a parameter depends on (seed, its name, k) only: adding a parameter changes no other. */
lam_status lam_parameters_layout(lam_parameters *parameters, uint64_t seed);
const lam_parameter_entry *lam_parameters_find(const lam_parameters *parameters,
                                               const char *name); /* NULL: absent */
/* From here on every gradient counts as zero; nothing is written: the first who adds to one writes it instead, and
 * lam_graph_backward ends with lam_parameters_settle_gradients. */
void lam_parameters_zero_gradients(lam_parameters *parameters);
/* true: nobody has written the gradient of this entry since, the caller writes all of it now. */
bool lam_parameters_claim_gradient(lam_parameters *parameters, const lam_parameter_entry *entry);
/* Writes zeros where nobody has written: the gradient of one entry; all in [begin, end). */
void lam_parameters_settle_gradient(lam_parameters *parameters, const lam_parameter_entry *entry);
void lam_parameters_settle_gradients(lam_parameters *parameters, int64_t begin, int64_t end);
/* Room for a form of the weights at `key`: the same room for the same key and form, made at the first call, owned by the
 * registry. The caller fills it. */
lam_status lam_parameters_reserve(lam_parameters *parameters, const void *key, int form, size_t bytes,
                                  void **room);
/* Arenas on another device, if it is one. One registry works on one backend. */
lam_status lam_parameters_place(lam_parameters *parameters, const struct lam_backend *backend);
/* Weights from the host to the device; weights, or gradients, back. Nothing to do on the CPU. */
lam_status lam_parameters_push(lam_parameters *parameters);
lam_status lam_parameters_pull(lam_parameters *parameters);
lam_status lam_parameters_pull_gradients(lam_parameters *parameters);
void lam_parameters_free(lam_parameters *parameters);

#ifdef __cplusplus
}
#endif
#endif
