/* The masked autoencoder of He et al. 2022 (facebook / Hugging Face ViTMAE) for any number of channels.
 *
 * Traps: cls first, and it has a position (zeros); positions are [sin(w) cos(w) sin(h) cos(h)]; the encoder sees the kept
 * tokens in the order of rising noise; pixel order in a patch is row, column, channel fastest; LayerNorm eps 1e-6; erf GELU;
 * int(N * (1 - mask_ratio)) tokens are kept; the loss counts masked patches only; norm_pix uses the unbiased variance +
 * 1e-6. cls_token and mask_token do get weight decay (they are not 1-D). */
#include <stdio.h>

#include "model/nets/parts.h"

static int64_t patch_length(const lam_mae_config *c) {
    return c->patch_size * c->patch_size * c->in_channels;
}

static void add_block(lam_registry *r, const char *stack, int64_t layer, int64_t width, int64_t mlp) {
    char prefix[64];
    snprintf(prefix, sizeof prefix, "%s.%lld.", stack, (long long)layer);
    lam_registry_norm(r, prefix, "layernorm_before", width);
    static const char *const qkv_names[] = {"attention.attention.query", "attention.attention.key",
                                            "attention.attention.value"};
    lam_registry_qkv(r, prefix, qkv_names, width);
    lam_registry_linear(r, prefix, "attention.output.dense", width, width);
    lam_registry_norm(r, prefix, "layernorm_after", width);
    lam_registry_linear(r, prefix, "intermediate.dense", mlp, width);
    lam_registry_linear(r, prefix, "output.dense", width, mlp);
}

static lam_status parameters(lam_parameters *p, const lam_mae_config *c) {
    lam_registry r = {p, LAM_OK};
    int64_t d = c->embed_dim, dd = c->decoder_embed_dim, tokens = 1 + lam_mae_patches(c),
            patch = c->patch_size;
    lam_registry_add(&r, "vit.embeddings.", "cls_token", 3, (int64_t[]){1, 1, d}, LAM_INIT_NORMAL,
                     LAM_TOKEN_INIT, true);
    lam_registry_positions(&r, c, "vit.embeddings.", "position_embeddings", tokens, d);
    lam_registry_add(&r, "vit.embeddings.", "patch_embeddings.projection.weight", 4,
                     (int64_t[]){d, c->in_channels, patch, patch}, LAM_INIT_XAVIER_UNIFORM, 0, true);
    lam_registry_add(&r, "vit.embeddings.", "patch_embeddings.projection.bias", 1, (int64_t[]){d},
                     LAM_INIT_ZERO, 0, false);
    for (int64_t i = 0; i < c->depth; i++) add_block(&r, "vit.encoder.layer", i, d, lam_mae_mlp_dim(c));
    lam_registry_norm(&r, "vit.", "layernorm", d);
    lam_registry_linear(&r, "decoder.", "decoder_embed", dd, d);
    lam_registry_add(&r, "decoder.", "mask_token", 3, (int64_t[]){1, 1, dd}, LAM_INIT_NORMAL, LAM_TOKEN_INIT,
                     true);
    lam_registry_positions(&r, c, "decoder.", "decoder_pos_embed", tokens, dd);
    for (int64_t i = 0; i < c->decoder_depth; i++)
        add_block(&r, "decoder.decoder_layers", i, dd, lam_mae_decoder_mlp_dim(c));
    lam_registry_norm(&r, "decoder.", "decoder_norm", dd);
    lam_registry_linear(&r, "decoder.", "decoder_pred", patch_length(c), dd);
    return r.status;
}

static void fill_positions(lam_parameters *p, const lam_mae_config *c) {
    lam_fill_sincos(p, c, "vit.embeddings.position_embeddings", LAM_SINCOS_COLUMN_FIRST);
    lam_fill_sincos(p, c, "decoder.decoder_pos_embed", LAM_SINCOS_COLUMN_FIRST);
}

static lam_tensor *norm_before(lam_graph *g, lam_stream *s, lam_depth next, const char *prefix) {
    return lam_stream_norm(g, s, next, lam_named(g, prefix, "layernorm_before.weight"),
                           lam_named(g, prefix, "layernorm_before.bias"));
}

static lam_tensor *qkv(lam_graph *g, lam_tensor *h, const char *prefix) {
    return lam_linear_qkv(g, h, lam_named(g, prefix, "attention.attention.query.weight"),
                          lam_named(g, prefix, "attention.attention.query.bias"),
                          lam_named(g, prefix, "attention.attention.key.weight"),
                          lam_named(g, prefix, "attention.attention.key.bias"),
                          lam_named(g, prefix, "attention.attention.value.weight"),
                          lam_named(g, prefix, "attention.attention.value.bias"));
}

/* What attention takes from tokens x, the first block's, by themselves. */
static lam_tensor *first_qkv(lam_graph *g, const lam_mae_config *c, lam_tensor *x, const char *prefix) {
    lam_stream s = {.x = x, .eps = c->layer_norm_eps};
    return qkv(g, norm_before(g, &s, (lam_depth){0}, prefix), prefix);
}

/* Attention over the normed tokens h with the hidden ones alone as queries. */
static lam_tensor *attend_from_hidden(lam_graph *g, lam_tensor *h, const lam_mae_plan *plan,
                                      const char *prefix, int64_t heads) {
    lam_tensor *q = lam_named_linear(g, lam_mae_hidden(g, plan, h), prefix, "attention.attention.query");
    lam_tensor *kv = lam_linear_kv(g, h, lam_named(g, prefix, "attention.attention.key.weight"),
                                   lam_named(g, prefix, "attention.attention.key.bias"),
                                   lam_named(g, prefix, "attention.attention.value.weight"),
                                   lam_named(g, prefix, "attention.attention.value.bias"));
    return lam_cross_attention(g, q, kv, heads, NULL);
}

/* A stack of pre-norm blocks; each has two branches, which drop apart (io: the encoder in training; NULL: nothing is
 * dropped). plan: the decoder's, whose first and last block may do less; NULL: all blocks work on all tokens. Returns the
 * normalised end of the stack, without `last_norm` the sum itself, or with `hidden` the hidden units of the last block's MLP. */
static lam_tensor *blocks(lam_graph *g, const lam_mae_config *c, const lam_mae_io *io, lam_tensor *x,
                          const char *stack, int64_t depth, int64_t heads, bool hidden,
                          const char *last_norm_prefix, const char *last_norm, lam_tensor **every,
                          const lam_mae_plan *plan) {
    lam_stream s = {.x = x, .eps = c->layer_norm_eps, .drops = io && c->drop_path > 0};
    char prefix[64], weight[64], bias[64];
    for (int64_t i = 0; i < depth; i++) {
        snprintf(prefix, sizeof prefix, "%s.%lld.", stack, (long long)i);
        lam_graph_block_begin(g);
        bool apart = lam_mae_begins_apart(plan, i, depth), ends = lam_mae_ends_hidden(plan, i, depth);
        lam_tensor *h = apart ? lam_merge_tokens(g, first_qkv(g, c, plan->visible, prefix),
                                                 first_qkv(g, c, plan->masked, prefix), plan->ids_restore)
                              : norm_before(g, &s, lam_mae_depth(g, c, io, i, 2 * i), prefix);
        if (every && !hidden && i) every[i - 1] = lam_keep(g, s.x, "block");
        h = ends ? attend_from_hidden(g, h, plan, prefix, heads)
                 : lam_attention(g, apart ? h : qkv(g, h, prefix), heads, NULL);
        if (ends) s.x = lam_mae_hidden(g, plan, s.x);
        lam_stream_branch(&s, lam_named_linear_add(g, h, prefix, "attention.output.dense", lam_stream_residual(&s)));
        h = lam_stream_norm(g, &s, lam_mae_depth(g, c, io, i, 2 * i + 1),
                            lam_named(g, prefix, "layernorm_after.weight"),
                            lam_named(g, prefix, "layernorm_after.bias"));
        h = lam_linear_gelu(g, h, lam_named(g, prefix, "intermediate.dense.weight"),
                            lam_named(g, prefix, "intermediate.dense.bias"));
        if (hidden && i == depth - 1) return h;
        if (every && hidden) every[i] = lam_keep(g, h, "hidden");
        lam_stream_branch(&s, lam_named_linear_add(g, h, prefix, "output.dense", lam_stream_residual(&s)));
        lam_graph_block_end(g);
    }
    if (!last_norm) return lam_stream_sum(g, &s);
    snprintf(weight, sizeof weight, "%s.weight", last_norm);
    snprintf(bias, sizeof bias, "%s.bias", last_norm);
    return lam_stream_norm(g, &s, (lam_depth){0}, lam_named(g, last_norm_prefix, weight),
                           lam_named(g, last_norm_prefix, bias));
}

static lam_tensor *embed(lam_graph *g, lam_tensor *patches, lam_tensor *ids_keep, int64_t channels) {
    const char *prefix = "vit.embeddings.";
    lam_tensor *x = lam_named_linear(g, lam_gather_patches(g, patches, ids_keep, channels), prefix,
                                     "patch_embeddings.projection");
    return lam_embed_tokens(g, x, lam_named(g, prefix, "cls_token"),
                            lam_named(g, prefix, "position_embeddings"), ids_keep);
}

static void build(lam_graph *g, const lam_mae_config *c, int64_t batch, lam_mae_io *io) {
    lam_tensor *patches = lam_mae_input(g, c, batch, NULL, &io->input);
    io->target = lam_keep_forward(g, patches, "target");
    lam_mae_plan plan = lam_mae_masked(g, c, batch, lam_mae_patches(c), io);
    io->sample_weight = lam_input(g, "sample_weight", LAM_F32, 1, (int64_t[]){batch});

    lam_tensor *x = embed(g, patches, plan.ids_keep, c->in_channels);
    x = blocks(g, c, io, x, "vit.encoder.layer", c->depth, c->num_heads, false, "vit.", "layernorm", NULL,
               NULL);
    io->latent = lam_keep(g, x, "latent");
    x = lam_named_linear(g, x, "decoder.", "decoder_embed");
    lam_tensor *mask_token = lam_named(g, "decoder.", "mask_token"),
               *position = lam_named(g, "decoder.", "decoder_pos_embed");
    x = lam_mae_decoder_tokens(g, &plan, x, mask_token, position);
    x = blocks(g, c, NULL, x, "decoder.decoder_layers", c->decoder_depth, c->decoder_num_heads, false,
               "decoder.", "decoder_norm", NULL, &plan);
    if (!plan.hidden_alone) x = lam_drop_cls(g, x);
    x = lam_mae_prediction(g, &plan, x, "decoder.", "decoder_pred");
    lam_mae_predicted(g, c, x, patches, io);
}

static void build_encoder(lam_graph *g, const lam_mae_config *c, int64_t batch, int64_t block, bool hidden,
                          lam_mae_encoder_io *io) {
    io->only_channel = lam_input(g, "only_channel", LAM_I64, 1, (int64_t[]){1});
    lam_tensor *patches = lam_mae_input(g, c, batch, io->only_channel, &io->input);
    lam_tensor *x = embed(g, patches, NULL, c->in_channels);
    x = blocks(g, c, NULL, x, "vit.encoder.layer", block, c->num_heads, hidden, "vit.",
               block == c->depth ? "layernorm" : NULL, io->every, NULL);
    io->tokens = lam_keep(g, x, "tokens");
}

const lam_mae_net lam_mae_vit = {.name = "mae_vit",
                                 .parameters = parameters,
                                 .fill_positions = fill_positions,
                                 .build = build,
                                 .build_encoder = build_encoder,
                                 .step_flops = lam_mae_flops};
