/* The masked autoencoders: one configuration, one set of inputs and outputs, one entry a network; each network is one file
 * beside this one and is chosen by `kind`.
 *
 *     lam_parameters_create(&p); lam_mae_parameters(p, &config); lam_parameters_layout(p, seed);
 *     lam_mae_fill_positions(p, &config);
 *     lam_graph_create(&g, p, lam_backend_cpu());
 *     lam_mae_io io;
 *     lam_mae_build(g, &config, batch, &io); lam_graph_differentiate(g, io.loss); lam_graph_plan(g);
 *
 * Names of parameters are those of the published checkpoints of each network. */
#ifndef LAMELLA_MODEL_NETS_MAE_H
#define LAMELLA_MODEL_NETS_MAE_H

#include <stdbool.h>
#include <stdint.h>

#include "model/graph.h"
#include "model/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum lam_normalize { LAM_NORMALIZE_CROP, LAM_NORMALIZE_PLATE, LAM_NORMALIZE_DATASET } lam_normalize;

typedef enum lam_mae_kind {
    LAM_MAE_VIT,             /* He et al. 2022, Hugging Face ViTMAE: mae_vit.c */
    LAM_MAE_VIT_PARALLEL,    /* Kraus et al. 2024: mae_vit_parallel.c */
    LAM_MAE_CHANNEL_AGNOSTIC /* Kraus et al. 2024, OpenPhenom: mae_channel_agnostic.c */
} lam_mae_kind;

#define LAM_MAX_CHANNELS 1024

typedef enum lam_decoder { LAM_DECODER_CROSS, LAM_DECODER_SHARED } lam_decoder;

typedef struct lam_mae_config {
    lam_mae_kind kind;
    int64_t image_size, patch_size, in_channels; /* pixels */
    int64_t embed_dim, depth, num_heads;
    int64_t mlp_dim; /* hidden width; 0: 4 * embed_dim */
    int64_t decoder_embed_dim, decoder_depth, decoder_num_heads, decoder_mlp_dim;
    double mask_ratio;
    double drop_path; /* 0..0.9: drop rate of the encoder's last block, falling linearly to 0 at its first */
    lam_masking masking;
    double decode_ratio;    /* share of the hidden tokens that are decoded and count in the loss; 0: all */
    bool learned_positions; /* N(0, 0.02^2) at the start, without weight decay; else sin-cos tables, frozen */
    bool norm_pix_loss;
    /* mae_channel_agnostic alone. Its weights do not depend on in_channels: the encoder takes any channels. */
    lam_decoder decoder;
    int64_t
        channels_per_step;  /* drawn from in_channels for each step, the same ones for all samples; 0: all */
    int64_t channel_tokens; /* channels that the decoder knows; 0: in_channels */
    const int32_t *channel_token; /* [in_channels] which of them each channel is; borrowed; NULL: in order */
    lam_fourier_form fourier;
    double fourier_alpha;    /* loss = (1 - alpha) L_MAE + alpha L_FT (Kraus et al. 2024: 0.01) */
    bool fourier_squared;    /* squares of differences of amplitudes, else their absolute values */
    double layer_norm_eps;   /* of mae_vit, whose published files differ in it; 0: 1e-6, as all others have */
    lam_dtype pixel_type;    /* LAM_U8, LAM_U16; LAM_F32: pixels are taken as they are, no standardisation */
    lam_normalize normalize; /* CROP: each crop and channel by itself, biased variance + 1e-5; else mean and
                                rstd are inputs */
    int transform; /* 0 none, 1 sqrt(x), 2 log(1 + 1023 x)/log(1024), of x = pixel * scale (data/shard.h) */
    bool
        noise_input; /* the caller fills io.noise, whose lowest are visible (golden tests); else lam_mask_noise draws it */
    bool
        predict_visible; /* predictions of visible tokens too, which count in no loss: to compare them with other programs' */
    uint64_t seed;
} lam_mae_config;

/* What the caller fills in of a batch of crops, before each forward. */
typedef struct lam_mae_pixels {
    lam_tensor *pixels;      /* [B, C, S, S] pixel_type */
    lam_tensor *scale;       /* [C] F32: 1 / (2^bits - 1); NULL for F32 pixels */
    lam_tensor *mean, *rstd; /* [B, C] F32 for PLATE and DATASET; NULL otherwise */
    lam_tensor *present; /* [B, C] F32 1 or 0: channels that are absent become 0 after standardisation, with
                            mae_channel_agnostic they are not there at all; NULL for F32 pixels, but not there */
} lam_mae_pixels;

typedef struct lam_mae_io {
    /* inputs: the caller fills them before each forward */
    lam_mae_pixels input;
    lam_tensor *noise; /* [B, N] F32: an input with noise_input, else drawn on the device */
    lam_tensor
        *step; /* [1] I64: counts masks, drops and draws of channels; NULL where none of these is drawn */
    lam_tensor *sample_ids; /* [B] I64; NULL with noise_input and drop_path 0 */
    lam_tensor *drop_scale; /* [1] F32, factor of drop_path: 1 in training, 0 to keep all; NULL: no drops */
    lam_tensor *sample_weight; /* [B] F32: loss = sum_b weight_b * loss_b; 1/B each is the plain mean, 0 takes
                                  a row out */
    /* outputs, readable after forward */
    lam_tensor *loss; /* [1] F32 */
    lam_tensor *
        sample_loss; /* [B] F32: of each row: mean over the masked patches of the mean square over a patch, mixed with
                                the Fourier loss */
    lam_tensor
        *latent; /* [B, 1 + K, D] what the decoder gets: after vit.layernorm (mae_vit), else without a norm */
    lam_tensor
        *logits; /* [B, N, P*P*C] prediction, cls dropped, 0 where none is needed; until the backward pass */
    lam_tensor *mask;        /* [B, N] F32, 1 = masked */
    lam_tensor *loss_mask;   /* [B, N] F32, 1 = masked and decoded; `mask` itself where all are */
    lam_tensor *ids_restore; /* [B, N] I32 */
    lam_tensor *target; /* [B, N, P*P*C] standardised patches (before norm_pix); until the backward pass */
    /* mae_channel_agnostic: N above is K * tokens_per_channel, channel by channel, and the rows of logits and target have P*P
     * elements, for the K channels that the step sees. */
    int64_t tokens_per_channel; /* 0: a token holds all channels */
    lam_tensor *channel_ids;    /* [K] I32, ascending; NULL: all */
} lam_mae_io;

/* LAM_ERROR_CONFIG names the key and what is allowed: in training, and where nothing is masked or decoded. */
lam_status lam_mae_check(const lam_mae_config *config);
lam_status lam_mae_check_encoder(const lam_mae_config *config);
lam_status lam_mae_parameters(lam_parameters *parameters, const lam_mae_config *config);
void lam_mae_fill_positions(lam_parameters *parameters, const lam_mae_config *config);
lam_status lam_mae_build(lam_graph *graph, const lam_mae_config *config, int64_t batch, lam_mae_io *io);

/* The encoder alone, nothing masked, tokens in image order: for embeddings. No gradients. */
typedef struct lam_mae_encoder_io {
    lam_mae_pixels input;
    lam_tensor *only_channel;   /* [1] I64: -1 all; c: every other channel is 0 after standardisation
                                 (embeddings by channel); NULL where channels have tokens of their own */
    int64_t tokens_per_channel; /* then N = C * tokens_per_channel, channel by channel; else 0 */
    lam_tensor *
        tokens; /* [B, 1 + N, D] after block `block` (1..depth); block == depth adds vit.layernorm (mae_vit alone);
                           with `hidden` [B, 1 + N, mlp_dim]: the hidden units of that block's MLP, after GELU */
    lam_tensor **
        every; /* with lam_mae_build_every_block: [depth], what `tokens` would be for each block; else NULL */
} lam_mae_encoder_io;
lam_status lam_mae_build_encoder(lam_graph *graph, const lam_mae_config *config, int64_t batch, int64_t block,
                                 bool hidden, lam_mae_encoder_io *io);

/* The weights of a network for crops of `from_config` as those of the same network for crops of another size: position tables
 * change, everything else is copied. Sin-cos tables are computed for the new grid, not interpolated: a patch is as large on
 * the sample as before, so that neighbours stay one step apart, and where the crop is smaller the table is a window of the
 * one in training. Learned tables have values at their own grid only: bicubic interpolation, as published for fine-tuning
 * (Dosovitskiy et al. 2021, section 3.2). `to` has been laid out. */
lam_status lam_mae_resize(lam_parameters *to, const lam_mae_config *to_config, const lam_parameters *from,
                          const lam_mae_config *from_config);

/* All blocks at once: fills every[0..depth), of the caller, and io->tokens, the last of them. */
lam_status lam_mae_build_every_block(lam_graph *graph, const lam_mae_config *config, int64_t batch,
                                     bool hidden, lam_tensor **every, lam_mae_encoder_io *io);

/* Floating-point operations of one training step on one crop: 3 x forward; matrix products only; as if no branch were
 * dropped, visible tokens were predicted too, and no sample shared work with others. */
double lam_mae_step_flops(const lam_mae_config *config);
/* Share of them that is expected to be done, `batch` crops together. */
double lam_mae_kept_share(const lam_mae_config *config, int64_t batch);

/* "mae_vit", ...: the choices of model.name. LAM_ERROR_CONFIG where there is no network of that name. */
const char *lam_mae_name(lam_mae_kind kind);
lam_status lam_mae_kind_of(const char *name, lam_mae_kind *kind);

/* What a network's file gives; the functions above check what all have in common and call it. */
typedef struct lam_mae_net {
    const char *name;
    bool channel_tokens; /* a token holds one channel: channels one after the other, [B, C*N, P*P] */
    lam_status (*check)(const lam_mae_config *config); /* what is its own; NULL: nothing */
    lam_status (*parameters)(lam_parameters *parameters, const lam_mae_config *config);
    void (*fill_positions)(lam_parameters *parameters, const lam_mae_config *config);
    void (*build)(lam_graph *graph, const lam_mae_config *config, int64_t batch, lam_mae_io *io);
    void (*build_encoder)(lam_graph *graph, const lam_mae_config *config, int64_t batch, int64_t block,
                          bool hidden, lam_mae_encoder_io *io);
    double (*step_flops)(const lam_mae_config *config);
} lam_mae_net;
extern const lam_mae_net lam_mae_vit, lam_mae_vit_parallel, lam_mae_channel_agnostic;

#ifdef __cplusplus
}
#endif
#endif
