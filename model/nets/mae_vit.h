/* The masked autoencoder of He et al. 2022 (facebook/Hugging Face ViTMAE) for any number of channels.
 *
 * Traps: cls first, and it has a position (zeros); positions are [sin(w) cos(w) sin(h) cos(h)]; the encoder
 * sees the kept tokens in the order of rising noise; pixel order in a patch is row, column, channel fastest;
 * LayerNorm eps 1e-6; erf GELU; int(N * (1 - mask_ratio)) tokens are kept; the loss counts masked patches
 * only; norm_pix uses the unbiased variance + 1e-6. cls_token and mask_token do get weight decay (they are
 * not 1-D).
 *
 *     lam_parameters_create(&p); lam_mae_vit_parameters(p, &config); lam_parameters_layout(p, seed);
 *     lam_mae_vit_fill_positions(p, &config);
 *     lam_graph_create(&g, p, LAM_BACKEND_CPU);
 *     lam_mae_vit_io io;
 *     lam_mae_vit_build(g, &config, batch, &io); lam_graph_differentiate(g, io.loss); lam_graph_plan(g);
 *
 * Names of parameters are those of the published checkpoints (vit.embeddings.cls_token,
 * vit.encoder.layer.0....). */
#ifndef LAMELLA_MODEL_NETS_MAE_VIT_H
#define LAMELLA_MODEL_NETS_MAE_VIT_H

#include <stdbool.h>
#include <stdint.h>

#include "model/graph.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum lam_normalize { LAM_NORMALIZE_CROP, LAM_NORMALIZE_PLATE, LAM_NORMALIZE_DATASET } lam_normalize;

typedef struct lam_mae_vit_config {
    int64_t image_size, patch_size, in_channels; /* pixels */
    int64_t embed_dim, depth, num_heads;
    int64_t mlp_dim; /* hidden width; 0: 4 * embed_dim */
    int64_t decoder_embed_dim, decoder_depth, decoder_num_heads, decoder_mlp_dim;
    double mask_ratio;
    bool norm_pix_loss;
    lam_dtype pixel_type;    /* LAM_U8, LAM_U16; LAM_F32: pixels are taken as they are, no standardisation */
    lam_normalize normalize; /* CROP: each crop and channel by itself, biased variance + 1e-5; else mean and
                                rstd are inputs */
    int transform; /* 0 none, 1 sqrt(x), 2 log(1 + 1023 x)/log(1024), of x = pixel * scale (data/shard.h) */
    bool noise_input; /* the caller fills io.noise (golden tests); else Philox(seed, LAM_RNG_MASK) at
                         (step, sample id, token / 4) */
    uint64_t seed;
} lam_mae_vit_config;

typedef struct lam_mae_vit_io {
    /* inputs: the caller fills them before each forward */
    lam_tensor *pixels;      /* [B, C, S, S] pixel_type */
    lam_tensor *scale;       /* [C] F32: 1 / (2^bits - 1); NULL for F32 pixels */
    lam_tensor *mean, *rstd; /* [B, C] F32 for PLATE and DATASET; NULL otherwise */
    lam_tensor *present; /* [B, C] F32 1 or 0: channels that are absent become 0 after standardisation; NULL
                            for F32 pixels */
    lam_tensor *noise;   /* [B, N] F32: an input with noise_input, else drawn on the device */
    lam_tensor *step;    /* [1] I64: counts the masks; NULL with noise_input */
    lam_tensor *sample_ids;    /* [B] I64; NULL with noise_input */
    lam_tensor *sample_weight; /* [B] F32: loss = sum_b weight_b * loss_b; 1/B each is the plain mean, 0 takes
                                  a row out */
    /* outputs, readable after forward */
    lam_tensor *loss;        /* [1] F32 */
    lam_tensor *sample_loss; /* [B] F32: mean over the masked patches of the mean square over a patch */
    lam_tensor *latent;      /* [B, 1 + K, D] after vit.layernorm */
    lam_tensor *logits;      /* [B, N, P*P*C] prediction, cls dropped */
    lam_tensor *mask;        /* [B, N] F32, 1 = masked */
    lam_tensor *ids_restore; /* [B, N] I32 */
    lam_tensor *target;      /* [B, N, P*P*C] standardised patches (before norm_pix) */
} lam_mae_vit_io;

lam_status
lam_mae_vit_check(const lam_mae_vit_config *config); /* LAM_ERROR_CONFIG names the key and what is allowed */
lam_status lam_mae_vit_parameters(lam_parameters *parameters, const lam_mae_vit_config *config);
void lam_mae_vit_fill_positions(lam_parameters *parameters, const lam_mae_vit_config *config);
lam_status lam_mae_vit_build(lam_graph *graph, const lam_mae_vit_config *config, int64_t batch,
                             lam_mae_vit_io *io);

/* The encoder alone, nothing masked, tokens in image order: for embeddings. No gradients. */
typedef struct lam_mae_vit_encoder_io {
    lam_tensor *pixels, *scale, *mean, *rstd, *present; /* as above */
    lam_tensor *only_channel; /* [1] I64: -1 all; c: every other channel is 0 after standardisation
                                 (embeddings by channel) */
    lam_tensor *tokens; /* [B, 1 + N, D] after block `block` (1..depth); block == depth adds vit.layernorm;
                           with `hidden` [B, 1 + N, mlp_dim]: the hidden units of that block's MLP, after GELU */
} lam_mae_vit_encoder_io;
lam_status lam_mae_vit_build_encoder(lam_graph *graph, const lam_mae_vit_config *config, int64_t batch,
                                     int64_t block, bool hidden, lam_mae_vit_encoder_io *io);

/* Floating-point operations of one training step on one crop: 3 x forward; matrix products only. */
double lam_mae_vit_step_flops(const lam_mae_vit_config *config);

#ifdef __cplusplus
}
#endif
#endif
