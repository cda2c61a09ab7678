/* The channel-agnostic masked autoencoder of Kraus et al. 2024 (OpenPhenom): each channel of a crop gives tokens of its own,
 * through one projection and one table of positions, to the encoder of mae_vit_parallel.c; so the encoder takes any number of
 * channels in any order. Only the decoder knows which channel is which, from a token a channel. Two decoders: `cross` is
 * the published one, in which tokens look at all channels once and go through the ordinary blocks of their channel; `shared`
 * has one stack of ordinary blocks over the tokens of all channels.
 *
 * Traps: tokens stand channel by channel, and inside a channel row by row; pixels inside a patch are row, column. Kept tokens
 * are drawn from those of all channels together. The published decoder's cross attention has 8 heads whatever the width, no
 * residual around it, no cls token among its keys, q and kv without bias, and no norm behind the blocks. Channels that a
 * sample lacks are no keys and no targets; what their rows hold is not used. decoder.placeholder of the checkpoints is zero
 * and not kept. */
#include <stdio.h>

#include "model/nets/parts.h"

#define CROSS_HEADS 8

static int64_t known_channels(const lam_mae_config *c) {
    return c->channel_tokens ? c->channel_tokens : c->in_channels;
}
static int64_t token_of(const lam_mae_config *c, int64_t channel) {
    return c->channel_token ? c->channel_token[channel] : channel;
}
static int64_t patch_length(const lam_mae_config *c) { return c->patch_size * c->patch_size; }

static lam_status check(const lam_mae_config *c) {
    LAM_REQUIRE(c->decoder != LAM_DECODER_CROSS || c->decoder_embed_dim % CROSS_HEADS == 0, LAM_ERROR_CONFIG,
                "model.decoder_embed_dim is %lld: the cross decoder needs a multiple of %d",
                (long long)c->decoder_embed_dim, CROSS_HEADS);
    LAM_REQUIRE(
        c->decoder != LAM_DECODER_CROSS || c->channels_per_step == 0, LAM_ERROR_CONFIG,
        "model.channels_per_step is %lld: the cross decoder has blocks of their own for every channel and "
        "needs them all; take model.decoder: shared",
        (long long)c->channels_per_step);
    LAM_REQUIRE(!c->learned_positions, LAM_ERROR_CONFIG,
                "model.positions: mae_channel_agnostic knows places by sines and cosines alone; take sincos");
    return LAM_OK;
}

/* ---- parameters ---- */

static lam_status parameters(lam_parameters *p, const lam_mae_config *c) {
    lam_registry r = {p, LAM_OK};
    int64_t dd = c->decoder_embed_dim, hidden = lam_mae_decoder_mlp_dim(c);
    const char *decoder = "decoder.";
    lam_parallel_encoder_add(&r, c, 1);
    lam_registry_projection(&r, "", "encoder_decoder_proj", dd, c->embed_dim, true);
    lam_registry_add(&r, decoder, "mask_token", 3, (int64_t[]){1, 1, dd}, LAM_INIT_NORMAL, LAM_TOKEN_INIT,
                     true);
    lam_registry_positions(&r, c, decoder, "pos_embeddings", 1 + lam_mae_patches(c), dd);
    char name[96];
    for (int64_t m = 0; m < known_channels(c); m++) {
        snprintf(name, sizeof name, "modality_tokens.%lld", (long long)m);
        lam_registry_add(&r, decoder, name, 3, (int64_t[]){1, 1, dd}, LAM_INIT_NORMAL, LAM_TOKEN_INIT, true);
    }
    if (c->decoder == LAM_DECODER_CROSS) {
        lam_registry_norm(&r, decoder, "context_norm", dd);
        lam_registry_norm(&r, decoder, "query_norm", dd);
        lam_registry_projection(&r, decoder, "cross_attention.q", dd, dd, false);
        lam_registry_projection(&r, decoder, "cross_attention.kv", 2 * dd, dd, false);
        lam_registry_projection(&r, decoder, "cross_attention.proj", dd, dd, true);
        lam_registry_norm(&r, decoder, "out_norm", dd);
        lam_registry_projection(&r, decoder, "mlp.fc1", hidden, dd, true);
        lam_registry_projection(&r, decoder, "mlp.fc2", dd, hidden, true);
        for (int64_t m = 0; m < known_channels(c); m++) {
            snprintf(name, sizeof name, "decoder.decoders.%lld.", (long long)m);
            lam_sequential_blocks_add(&r, name, c->decoder_depth, dd, hidden);
        }
    } else {
        lam_sequential_blocks_add(&r, "decoder.blocks.", c->decoder_depth, dd, hidden);
        lam_registry_norm(&r, decoder, "norm", dd);
    }
    lam_registry_projection(&r, "", "decoder_pred", patch_length(c), dd, true);
    return r.status;
}

static void fill_positions(lam_parameters *p, const lam_mae_config *c) {
    lam_parallel_encoder_fill(p, c);
    lam_fill_sincos(p, c, "decoder.pos_embeddings", LAM_SINCOS_ROW_FIRST);
}

/* ---- decoders ---- */

static lam_tensor *channel_tokens(lam_graph *g, const lam_mae_config *c) {
    lam_tensor *tokens[LAM_MAX_CHANNELS];
    for (int64_t k = 0; k < c->in_channels; k++) {
        char name[64];
        snprintf(name, sizeof name, "modality_tokens.%lld", (long long)token_of(c, k));
        tokens[k] = lam_named(g, "decoder.", name);
    }
    return lam_concat_tokens(g, tokens, c->in_channels);
}

/* x [B, C*N, Dd], keys [B, C*N]. All queries look at the same keys, so those of all channels go together. */
static lam_tensor *cross(lam_graph *g, lam_tensor *x, lam_tensor *keys) {
    const char *decoder = "decoder.";
    lam_tensor *kv = lam_linear(g, lam_named_norm(g, x, decoder, "context_norm"),
                                lam_named(g, decoder, "cross_attention.kv.weight"), NULL),
               *q = lam_linear(g, lam_named_norm(g, x, decoder, "query_norm"),
                               lam_named(g, decoder, "cross_attention.q.weight"), NULL);
    lam_tensor *y = lam_named_linear(g, lam_cross_attention(g, q, kv, CROSS_HEADS, keys), decoder,
                                     "cross_attention.proj");
    lam_tensor *h =
        lam_linear_gelu(g, lam_named_norm(g, y, decoder, "out_norm"), lam_named(g, decoder, "mlp.fc1.weight"),
                        lam_named(g, decoder, "mlp.fc1.bias"));
    return lam_named_linear_add(g, h, decoder, "mlp.fc2", y);
}

static lam_tensor *cross_decoder(lam_graph *g, const lam_mae_config *c, lam_tensor *x, lam_tensor *keys) {
    int64_t tokens = lam_mae_patches(c);
    lam_tensor *y = cross(g, x, keys), *channels[LAM_MAX_CHANNELS];
    for (int64_t k = 0; k < c->in_channels; k++) {
        char blocks[64];
        snprintf(blocks, sizeof blocks, "decoder.decoders.%lld.", (long long)token_of(c, k));
        lam_stream s = lam_sequential_blocks(g, lam_token_rows(g, y, k * tokens, tokens), blocks,
                                             c->decoder_depth, c->decoder_num_heads, NULL, NULL);
        channels[k] = lam_stream_sum(g, &s);
    }
    return lam_concat_tokens(g, channels, c->in_channels);
}

/* x [B, 1 + C*N, Dd], keys [B, 1 + C*N]. */
static lam_tensor *shared_decoder(lam_graph *g, const lam_mae_config *c, const lam_mae_plan *plan,
                                  lam_tensor *x, lam_tensor *keys) {
    lam_stream s =
        lam_sequential_blocks(g, x, "decoder.blocks.", c->decoder_depth, c->decoder_num_heads, keys, plan);
    x = lam_stream_norm(g, &s, (lam_depth){0}, lam_named(g, "decoder.", "norm.weight"),
                        lam_named(g, "decoder.", "norm.bias"));
    return plan->hidden_alone ? x : lam_drop_cls(g, x);
}

lam_tensor *lam_channel_decoder(lam_graph *g, const lam_mae_config *c, lam_tensor *latent,
                                const lam_mae_plan *plan, lam_tensor *present, lam_tensor *channel_ids) {
    bool cls = c->decoder == LAM_DECODER_SHARED;
    lam_tensor *x = lam_unshuffle_channels(g, latent, lam_named(g, "decoder.", "mask_token"),
                                           lam_named(g, "decoder.", "pos_embeddings"), plan->ids_restore,
                                           channel_tokens(g, c), channel_ids, cls);
    lam_tensor *keys = lam_channel_keys(g, present, NULL, lam_mae_patches(c), cls);
    return cls ? shared_decoder(g, c, plan, x, keys) : cross_decoder(g, c, x, keys);
}

/* ---- the network ---- */

static void build(lam_graph *g, const lam_mae_config *c, int64_t batch, lam_mae_io *io) {
    int64_t places = lam_mae_patches(c), tokens = lam_mae_channels_seen(c) * places;
    lam_tensor *noise = lam_mae_noise(g, c, batch, tokens, io);
    lam_mae_plan plan = {.hidden_alone = lam_mae_hidden_alone(c)};
    if (c->channels_per_step) {
        if (!io->step) io->step = lam_input(g, "step", LAM_I64, 1, (int64_t[]){1});
        io->channel_ids = lam_keep(
            g, lam_draw_channels(g, io->step, c->in_channels, c->channels_per_step, c->seed), "channel_ids");
    }
    lam_tensor *patches = lam_mae_channel_input(g, c, batch, io->channel_ids, &io->input);
    io->tokens_per_channel = places;
    io->target = lam_keep_forward(g, patches, "target");
    io->sample_weight = lam_input(g, "sample_weight", LAM_F32, 1, (int64_t[]){batch});
    lam_tensor *present =
        c->channels_per_step ? lam_select_channels(g, io->input.present, io->channel_ids) : io->input.present;
    /* Masks of places or channels keep whole ones: the share that leaves just so many of all tokens. */
    double hidden = c->masking == LAM_MASKING_RANDOM
                        ? c->mask_ratio
                        : 1 - ((double)lam_mae_kept(c, tokens) + 0.5) / (double)tokens;
    lam_channel_mask_plan(g, noise, present, hidden, &plan.ids_keep, &io->ids_restore, &io->mask);
    plan.ids_restore = io->ids_restore;
    plan.kept = plan.ids_keep ? lam_tensor_dim(plan.ids_keep, 1) : 0;
    plan.hidden = tokens - plan.kept; /* those of absent channels too, which are no targets */
    io->loss_mask = lam_keep(g, io->mask, "mask");
    lam_keep(g, io->ids_restore, "ids_restore");

    lam_tensor *x = lam_parallel_encoder(
        g, c, io, lam_gather_patches(g, patches, plan.ids_keep, 1), plan.ids_keep,
        lam_channel_keys(g, present, plan.ids_keep, places, true), c->depth, false, NULL);
    io->latent = lam_keep(g, x, "latent");
    x = lam_named_linear(g, x, "", "encoder_decoder_proj");
    x = lam_channel_decoder(g, c, x, &plan, present, io->channel_ids);
    lam_mae_predicted(g, c, lam_mae_prediction(g, &plan, x, "", "decoder_pred"), patches, io);
}

static void build_encoder(lam_graph *g, const lam_mae_config *c, int64_t batch, int64_t block, bool hidden,
                          lam_mae_encoder_io *io) {
    lam_tensor *patches = lam_mae_channel_input(g, c, batch, NULL, &io->input);
    io->tokens_per_channel = lam_mae_patches(c);
    lam_tensor *x = lam_parallel_encoder(
        g, c, NULL, lam_gather_patches(g, patches, NULL, 1), NULL,
        lam_channel_keys(g, io->input.present, NULL, io->tokens_per_channel, true), block, hidden, io->every);
    io->tokens = lam_keep(g, x, "tokens");
}

static double step_flops(const lam_mae_config *c) {
    double channels = (double)lam_mae_channels_seen(c), patches = (double)lam_mae_patches(c),
           n = channels * patches,
           k = (double)lam_mae_kept(c, lam_mae_channels_seen(c) * lam_mae_patches(c)) + 1,
           length = (double)patch_length(c), d = (double)c->embed_dim, dd = (double)c->decoder_embed_dim,
           depth = (double)c->decoder_depth, hidden = (double)lam_mae_decoder_mlp_dim(c);
    double encoder = lam_block_flops((double)c->depth, k, d, (double)lam_mae_mlp_dim(c));
    double decoder =
        c->decoder == LAM_DECODER_SHARED
            ? lam_block_flops(depth, n + 1, dd, hidden)
            : lam_block_flops(1, n, dd, hidden) + channels * lam_block_flops(depth, patches, dd, hidden);
    return 3 * (encoder + decoder + 2 * (k - 1) * length * d + 2 * k * d * dd + 2 * n * dd * length);
}

const lam_mae_net lam_mae_channel_agnostic = {.name = "mae_channel_agnostic",
                                              .channel_tokens = true,
                                              .check = check,
                                              .parameters = parameters,
                                              .fill_positions = fill_positions,
                                              .build = build,
                                              .build_encoder = build_encoder,
                                              .step_flops = step_flops};
