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
/* The probability that a sample drops a branch of encoder block `block`: linspace(0, drop_path, depth). */
static inline double lam_mae_drop_rate(const lam_mae_config *c, int64_t block) {
    return c->depth > 1 ? c->drop_path * (double)block / (double)(c->depth - 1) : 0;
}
/* Channels that a step sees: those that channels_per_step draws, else all. */
int64_t lam_mae_channels_seen(const lam_mae_config *config);
/* Visible tokens of `tokens` in all: int(tokens * (1 - mask_ratio)), of the places of each channel with BLOCK and PER_CHANNEL,
 * of the channels (one at least visible and one hidden) with WHOLE_CHANNEL. */
int64_t lam_mae_kept(const lam_mae_config *config, int64_t tokens);
/* Tokens that are decoded: the visible ones and the share decode_ratio of the hidden ones, one at least. */
int64_t lam_mae_decoded(const lam_mae_config *config, int64_t tokens);

/* ---- parameters: the first failure is kept and returned at the end ---- */

typedef struct lam_registry {
    lam_parameters *parameters;
    lam_status status;
} lam_registry;
void lam_registry_add(lam_registry *r, const char *prefix, const char *name, int rank, const int64_t *shape,
                      lam_init init, double scale, bool decay);
void lam_registry_linear(lam_registry *r, const char *prefix, const char *name, int64_t out, int64_t in);
/* Three of them of one input. Their weights follow one another in the arena, which lies in backward order, and their biases, so
 * that one product serves all three. */
void lam_registry_qkv(lam_registry *r, const char *prefix, const char *const names[3], int64_t width);
/* As timm starts a vision transformer: N(0, 0.02) cut at 2, which is never reached; biases 0, or none at all. */
void lam_registry_projection(lam_registry *r, const char *prefix, const char *name, int64_t out, int64_t in,
                             bool bias);
void lam_registry_norm(lam_registry *r, const char *prefix, const char *name, int64_t width);

/* A position table [1, rows, width]: frozen, for fill_positions; or learned. */
void lam_registry_positions(lam_registry *r, const lam_mae_config *config, const char *prefix,
                            const char *name, int64_t rows, int64_t width);

/* Rows of [sin(first) cos(first) sin(second) cos(second)] of `grid` x `grid` places, omega_i = 10000^(-i / (width/4)); row 0
 * (cls) is zero. COLUMN_FIRST: first is the column (He et al.); ROW_FIRST: the row (Kraus et al.; trap T10). */
typedef enum lam_sincos_order { LAM_SINCOS_COLUMN_FIRST, LAM_SINCOS_ROW_FIRST } lam_sincos_order;
void lam_sincos_table(float *table, int64_t width, int64_t grid, lam_sincos_order order);
/* Fills the parameter `name` with that table where it is frozen. */
void lam_fill_sincos(lam_parameters *parameters, const lam_mae_config *config, const char *name,
                     lam_sincos_order order);

/* A table [1 + from_grid^2, width] at another grid: row 0 (cls) is copied, the others are interpolated, bicubic with
 * a = -0.75, corners not aligned, values beyond the edge those at the edge (torch.nn.functional.interpolate). */
void lam_positions_resample(const float *from, int64_t from_grid, float *to, int64_t to_grid, int64_t width);

/* ---- graph ---- */

lam_tensor *lam_named(lam_graph *g, const char *prefix, const char *name);
lam_tensor *lam_named_linear(lam_graph *g, lam_tensor *x, const char *prefix, const char *name);
/* The same, added to `residual` (NULL: to nothing). */
lam_tensor *lam_named_linear_add(lam_graph *g, lam_tensor *x, const char *prefix, const char *name,
                                 lam_tensor *residual);

lam_tensor *lam_named_rows(lam_graph *g, const char *prefix, const char *name, int64_t first, int64_t count);
lam_tensor *lam_named_norm(lam_graph *g, lam_tensor *x, const char *prefix, const char *name);

/* Patches [B, N, P*P*C], standardised; sets the inputs that they come from. only_channel NULL: all take part. */
lam_tensor *lam_mae_input(lam_graph *g, const lam_mae_config *c, int64_t batch, lam_tensor *only_channel,
                          lam_mae_pixels *in);
/* Tokens of each channel by themselves: patches [B, K*N, P*P] of the channels channel_ids [K] (NULL: all); `present` is an
 * input for F32 pixels too. */
lam_tensor *lam_mae_channel_input(lam_graph *g, const lam_mae_config *c, int64_t batch,
                                  lam_tensor *channel_ids, lam_mae_pixels *in);

typedef struct lam_mae_plan {
    lam_tensor *ids_keep; /* [B, K] visible tokens by rising noise */
    lam_tensor *
        ids_decoded; /* [B, R] with decode_ratio: these and the hidden ones that are decoded; NULL: all are */
    lam_tensor *ids_restore; /* [B, N] */
    lam_tensor *visible,
        *masked; /* tokens that the decoder begins with, [B, 1 + K, Dd] and, the same for all samples,
                                     [1, N, Dd]: what its first block does to each token by itself is done on these; NULL
                                     where that saves little, with decode_ratio, with tokens of channels */
    int64_t kept, hidden; /* tokens that are visible, and hidden ones that are decoded */
    bool hidden_alone;    /* lam_mae_hidden_alone */
} lam_mae_plan;
/* Noise of `tokens` tokens (a multiple of the places: of as many channels) whose lam_mae_kept lowest are visible: an input, or
 * drawn as the configuration says; sets io's noise, step, sample_ids and drop_scale. */
lam_tensor *lam_mae_noise(lam_graph *g, const lam_mae_config *c, int64_t batch, int64_t tokens,
                          lam_mae_io *io);
/* What follows from it; sets ids_restore, mask and loss_mask, too. */
lam_mae_plan lam_mae_masked(lam_graph *g, const lam_mae_config *c, int64_t batch, int64_t tokens,
                            lam_mae_io *io);

/* The configured loss, F32: the masked mean square of prediction and target [B, N, P*P*C] or [B, C*N, P*P], mixed with a
 * Fourier loss. loss_mask, sample_weight: of io. */
lam_tensor *lam_mae_loss(lam_graph *g, const lam_mae_config *c, lam_tensor *prediction, lam_tensor *target,
                         lam_tensor *loss_mask, lam_tensor *sample_weight, lam_tensor **sample_loss);

/* x [B, 1 + K, Dd] with mask tokens among them, as the decoder wants them: all tokens in their places, or by rank those that the
 * plan decodes. Sets plan->visible and plan->masked where
 * working on them apart pays. */
lam_tensor *lam_mae_decoder_tokens(lam_graph *g, lam_mae_plan *plan, lam_tensor *x, lam_tensor *mask_token,
                                   lam_tensor *position);
/* Block `block` of a decoder of `depth` blocks may work on plan->visible and plan->masked before its attention. */
bool lam_mae_begins_apart(const lam_mae_plan *plan, int64_t block, int64_t depth);
/* Its last block goes on with the hidden tokens alone. */
bool lam_mae_ends_hidden(const lam_mae_plan *plan, int64_t block, int64_t depth);
/* No loss reads what is predicted for visible tokens, so that the last decoder block need not compute them: they are keys and
 * values there, and nothing else. False where they count, or with predict_visible. */
bool lam_mae_hidden_alone(const lam_mae_config *config);
/* The hidden tokens that are decoded, by rank, of the decoder's x [B, 1 + N or R, Dd] -> [B, hidden, Dd]. */
lam_tensor *lam_mae_hidden(lam_graph *g, const lam_mae_plan *plan, lam_tensor *x);
/* Predictions [B, N, L], 0 where nothing is predicted, by the linear map `name` of the decoder's last tokens. */
lam_tensor *lam_mae_prediction(lam_graph *g, const lam_mae_plan *plan, lam_tensor *x, const char *prefix,
                               const char *name);
/* Sets logits, loss and sample_loss of io, which are kept, from the prediction. */
void lam_mae_predicted(lam_graph *g, const lam_mae_config *c, lam_tensor *prediction, lam_tensor *target,
                       lam_mae_io *io);

/* The residual stream x of a stack of pre-norm blocks. A block is, for each of its branches,
 *
 *     lam_depth depth = lam_mae_depth(g, c, io, block, branch);
 *     lam_tensor *h = lam_stream_norm(g, &stream, depth, w, b);
 *     lam_stream_branch(&stream, lam_named_linear_add(g, h, prefix, name, lam_stream_residual(&stream)));
 *
 * and lam_stream_norm with (lam_depth){0}, or lam_stream_sum where no norm follows, ends the stack. The product that ends a
 * branch adds the stream to it; where branches drop, they travel apart as r, and each addition is fused with the LayerNorm that
 * follows it, which knows the samples. */
typedef struct lam_stream {
    lam_tensor *x, *r; /* r NULL: none is pending */
    double eps;        /* of the norms; 0: LAM_LAYERNORM_EPS */
    bool drops;        /* some of the branches may drop */
    lam_depth depth;   /* the samples of r */
} lam_stream;
/* What the product that ends a branch adds to its result; NULL: nothing. */
lam_tensor *lam_stream_residual(const lam_stream *stream);
/* Takes that result. */
void lam_stream_branch(lam_stream *stream, lam_tensor *result);
/* x + r, normalised for the samples that keep the next branch, whose plan is `next`. The first branch keeps all. */
lam_tensor *lam_stream_norm(lam_graph *g, lam_stream *stream, lam_depth next, lam_tensor *w, lam_tensor *b);
/* x + r; x where no branch is pending. */
lam_tensor *lam_stream_sum(lam_graph *g, const lam_stream *stream);
/* Who keeps branch number `branch` (counted over the encoder: each one drops by itself) of encoder block `block`. Everyone,
 * at no cost, where its rate is 0 or io is NULL (a decoder, an encoder that is not trained). */
lam_depth lam_mae_depth(lam_graph *g, const lam_mae_config *c, const lam_mae_io *io, int64_t block,
                        int64_t branch);

/* ---- what mae_channel_agnostic.c has in common with mae_vit_parallel.c, which defines it ---- */

/* "encoder.vit_backbone.*" for patches of `channels` channels, and its frozen part. */
void lam_parallel_encoder_add(lam_registry *r, const lam_mae_config *config, int64_t channels);
void lam_parallel_encoder_fill(lam_parameters *parameters, const lam_mae_config *config);
/* patches [B, K, channels*P*P] as lam_gather_patches gives them, ids_keep [B, K] (NULL: all), keys [B, 1 + K] (NULL: all)
 * -> the residual stream [B, 1 + K, D] after `depth` blocks, no norm; with `hidden` the hidden units of the last block's MLP,
 * after GELU. io: of a network in training, whose blocks drop; NULL: nothing is dropped. */
lam_tensor *lam_parallel_encoder(lam_graph *g, const lam_mae_config *config, const lam_mae_io *io,
                                 lam_tensor *patches, lam_tensor *ids_keep, lam_tensor *keys, int64_t depth,
                                 bool hidden, lam_tensor **every);
/* Blocks one after another, attention before MLP, under "<prefix><i>.": norm1, attn.qkv, attn.proj, norm2, mlp.fc1,
 * mlp.fc2. The last branch is still to be added. */
void lam_sequential_blocks_add(lam_registry *r, const char *prefix, int64_t depth, int64_t width,
                               int64_t mlp);
/* plan: of a decoder, whose first and last block may do less; NULL: all blocks work on all tokens. */
lam_stream lam_sequential_blocks(lam_graph *g, lam_tensor *x, const char *prefix, int64_t depth,
                                 int64_t heads, lam_tensor *keys, const lam_mae_plan *plan);
/* The decoder of mae_channel_agnostic.c without decoder_pred: latent [B, 1 + K', Dd], ids_restore of the plan [B, K*N],
 * present [B, K], channel_ids [K] (NULL: all) -> the tokens that lam_mae_prediction takes. */
lam_tensor *lam_channel_decoder(lam_graph *g, const lam_mae_config *config, lam_tensor *latent,
                                const lam_mae_plan *plan, lam_tensor *present, lam_tensor *channel_ids);

/* ---- work of one forward pass on one crop, matrix products only ---- */

/* `depth` blocks of `width` with MLPs of `hidden` over `tokens` tokens. */
double lam_block_flops(double depth, double tokens, double width, double hidden);
/* lam_mae_step_flops of networks whose tokens hold all channels. */
double lam_mae_flops(const lam_mae_config *config);
/* What the decoder's first and last block need not do of them, `batch` crops together: `tokens` places of `length` values. */
double lam_mae_saved_flops(const lam_mae_config *config, int64_t batch, int64_t tokens, int64_t length);

#ifdef __cplusplus
}
#endif
#endif
