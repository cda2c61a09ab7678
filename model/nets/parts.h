/* What the networks are put together from: parameters under a prefix, position tables, the way from pixels to patches, a
 * stack of pre-norm blocks, counts of work. Only networks include it.
 *
 * Names: "<prefix><name>.weight" and "<prefix><name>.bias". */
#ifndef LAMELLA_MODEL_NETS_PARTS_H
#define LAMELLA_MODEL_NETS_PARTS_H

#include "model/nets/mae.h"
#include "model/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

#define LAM_LAYERNORM_EPS 1e-6
#define LAM_TOKEN_INIT 0.02 /* deviation of cls and mask tokens at the start */

static inline int64_t lam_mae_patches(const lam_mae_config *c) {
    return (c->image_size / c->patch_size) * (c->image_size / c->patch_size);
}
static inline int64_t lam_mae_mlp_dim(const lam_mae_config *c) {
    return c->mlp_dim ? c->mlp_dim : 4 * c->embed_dim;
}
static inline int64_t lam_mae_decoder_mlp_dim(const lam_mae_config *c) {
    return c->decoder_mlp_dim ? c->decoder_mlp_dim : 4 * c->decoder_embed_dim;
}
/* int(tokens * (1 - mask_ratio)) */
int64_t lam_mae_kept(const lam_mae_config *config, int64_t tokens);

/* ---- parameters: the first failure is kept and returned at the end ---- */

typedef struct lam_registry {
    lam_parameters *parameters;
    lam_status status;
} lam_registry;
void lam_registry_add(lam_registry *r, const char *prefix, const char *name, int rank, const int64_t *shape,
                      lam_init init, double scale, bool decay);
void lam_registry_linear(lam_registry *r, const char *prefix, const char *name, int64_t out, int64_t in);
void lam_registry_norm(lam_registry *r, const char *prefix, const char *name, int64_t width);

/* Rows of [sin(first) cos(first) sin(second) cos(second)] of `grid` x `grid` places, omega_i = 10000^(-i / (width/4)); row 0
 * (cls) is zero. COLUMN_FIRST: first is the column (He et al.); ROW_FIRST: the row (Kraus et al.; trap T10). */
typedef enum lam_sincos_order { LAM_SINCOS_COLUMN_FIRST, LAM_SINCOS_ROW_FIRST } lam_sincos_order;
void lam_sincos_table(float *table, int64_t width, int64_t grid, lam_sincos_order order);

/* ---- graph ---- */

lam_tensor *lam_named(lam_graph *g, const char *prefix, const char *name);
lam_tensor *lam_named_linear(lam_graph *g, lam_tensor *x, const char *prefix, const char *name);

typedef struct lam_mae_pixels {
    lam_tensor *pixels, *scale, *mean, *rstd, *present; /* inputs, as in lam_mae_io */
    lam_tensor *patches;                                /* [B, N, P*P*C] standardised */
} lam_mae_pixels;
lam_mae_pixels lam_mae_input(lam_graph *g, const lam_mae_config *c, int64_t batch, lam_tensor *only_channel);

/* The noise that the masks follow: an input, or Philox draws of io->step and io->sample_ids; sets all three of io. */
lam_tensor *lam_mae_noise(lam_graph *g, const lam_mae_config *c, int64_t batch, int64_t tokens,
                          lam_mae_io *io);

/* ---- work of one forward pass on one crop, matrix products only ---- */

/* `depth` blocks of `width` with MLPs of `hidden` over `tokens` tokens. */
double lam_block_flops(double depth, double tokens, double width, double hidden);

#ifdef __cplusplus
}
#endif
#endif
