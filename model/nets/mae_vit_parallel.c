/* The masked autoencoder of Kraus et al. 2024 (Masked Autoencoders for Microscopy are Scalable Learners of Cellular Biology)
 * and Kenyon-Dean et al. 2024 (ViTally Consistent): an encoder whose blocks compute attention and MLP side by side, with
 * normalised queries and keys and LayerScale; a decoder of ordinary blocks. Names of parameters are those of its checkpoints.
 *
 * Traps: one matrix in_proj makes [mlp | q | k | v] from the normalised stream, in this order. Its bias is one plain vector
 * here: published checkpoints keep mlp values that an old timm put after 3 D zeros, so that they reach q, k and v (an importer
 * writes zeros ++ mlp_bias); newer timm puts them on the MLP alone (mlp_bias ++ zeros). LayerNorm of q and k is by head, its
 * weights are shared by the heads. There is no norm behind the last block, neither for the decoder nor for embeddings:
 * fc_norm is in the checkpoints, untrained, and used by nothing. Positions are [sin(h) cos(h) sin(w) cos(w)], those of cls are
 * zero. Pixel order of the target is row, column, channel fastest. */
#include <stdio.h>

#include "model/nets/parts.h"

#define ENCODER "encoder.vit_backbone."
#define LAYER_SCALE_INIT 1e-4

/* ---- the encoder ---- */

void lam_parallel_encoder_add(lam_registry *r, const lam_mae_config *c, int64_t channels) {
    int64_t d = c->embed_dim, mlp = lam_mae_mlp_dim(c), head_dim = d / c->num_heads;
    lam_registry_add(r, ENCODER, "cls_token", 3, (int64_t[]){1, 1, d}, LAM_INIT_NORMAL, LAM_TOKEN_INIT, true);
    lam_registry_positions(r, c, ENCODER, "pos_embed", 1 + lam_mae_patches(c), d);
    lam_registry_add(r, ENCODER, "patch_embed.proj.weight", 4,
                     (int64_t[]){d, channels, c->patch_size, c->patch_size}, LAM_INIT_NORMAL, LAM_TOKEN_INIT,
                     true);
    lam_registry_add(r, ENCODER, "patch_embed.proj.bias", 1, (int64_t[]){d}, LAM_INIT_ZERO, 0, false);
    for (int64_t i = 0; i < c->depth; i++) {
        char block[64];
        snprintf(block, sizeof block, ENCODER "blocks.%lld.", (long long)i);
        lam_registry_norm(r, block, "in_norm", d);
        lam_registry_projection(r, block, "in_proj", mlp + 3 * d, d, true);
        lam_registry_norm(r, block, "q_norm", head_dim);
        lam_registry_norm(r, block, "k_norm", head_dim);
        lam_registry_projection(r, block, "attn_out_proj", d, d, true);
        lam_registry_projection(r, block, "mlp_out_proj", d, mlp, true);
        lam_registry_add(r, block, "ls.gamma", 1, (int64_t[]){d}, LAM_INIT_CONSTANT, LAYER_SCALE_INIT, false);
    }
    lam_registry_add(r, ENCODER, "fc_norm.weight", 1, (int64_t[]){d}, LAM_INIT_FROZEN, 0, false);
    lam_registry_add(r, ENCODER, "fc_norm.bias", 1, (int64_t[]){d}, LAM_INIT_FROZEN, 0, false);
}

void lam_parallel_encoder_fill(lam_parameters *p, const lam_mae_config *c) {
    lam_fill_sincos(p, c, ENCODER "pos_embed", LAM_SINCOS_ROW_FIRST);
    float *fc_norm = p->weights + lam_parameters_find(p, ENCODER "fc_norm.weight")->offset;
    for (int64_t i = 0; i < c->embed_dim; i++) fc_norm[i] = 1;
}

/* residual + gamma (attention(h) + mlp(h)), where h is the normalised stream; residual NULL: none. */
static lam_tensor *branches(lam_graph *g, const lam_mae_config *c, lam_tensor *h, lam_tensor *keys,
                            const char *block, bool hidden, lam_tensor **every, lam_tensor *residual) {
    int64_t d = c->embed_dim, mlp = lam_mae_mlp_dim(c);
    lam_tensor *m = lam_linear_gelu(g, h, lam_named_rows(g, block, "in_proj.weight", 0, mlp),
                                    lam_named_rows(g, block, "in_proj.bias", 0, mlp));
    if (every) *every = lam_keep(g, m, "hidden");
    if (hidden) return m;
    lam_tensor *qkv = lam_linear(g, h, lam_named_rows(g, block, "in_proj.weight", mlp, 3 * d),
                                 lam_named_rows(g, block, "in_proj.bias", mlp, 3 * d));
    const lam_qk_norm norm = {lam_named(g, block, "q_norm.weight"), lam_named(g, block, "q_norm.bias"),
                              lam_named(g, block, "k_norm.weight"), lam_named(g, block, "k_norm.bias"),
                              LAM_LAYERNORM_EPS};
    return lam_parallel_projection(
        g, lam_normed_attention(g, qkv, c->num_heads, keys, &norm),
        lam_named(g, block, "attn_out_proj.weight"), lam_named(g, block, "attn_out_proj.bias"), m,
        lam_named(g, block, "mlp_out_proj.weight"), lam_named(g, block, "mlp_out_proj.bias"),
        lam_named(g, block, "ls.gamma"), residual);
}

lam_tensor *lam_parallel_encoder(lam_graph *g, const lam_mae_config *c, const lam_mae_io *io,
                                 lam_tensor *patches, lam_tensor *ids_keep, lam_tensor *keys, int64_t depth,
                                 bool hidden, lam_tensor **every) {
    lam_stream s = {.x = lam_embed_tokens(g, lam_named_linear(g, patches, ENCODER, "patch_embed.proj"),
                                          lam_named(g, ENCODER, "cls_token"),
                                          lam_named(g, ENCODER, "pos_embed"), ids_keep),
                    .drops = io && c->drop_path > 0};
    for (int64_t i = 0; i < depth; i++) {
        char block[64];
        snprintf(block, sizeof block, ENCODER "blocks.%lld.", (long long)i);
        lam_graph_block_begin(g);
        lam_depth kept = lam_mae_depth(g, c, io, i, i); /* attention and MLP of a block drop together */
        lam_tensor *h = lam_stream_norm(g, &s, kept, lam_named(g, block, "in_norm.weight"),
                                        lam_named(g, block, "in_norm.bias"));
        if (every && !hidden && i) every[i - 1] = lam_keep(g, s.x, "block");
        h = branches(g, c, h, keys ? lam_depth_gather(g, keys, kept) : NULL, block, hidden && i == depth - 1,
                     every && hidden ? every + i : NULL, lam_stream_residual(&s));
        lam_graph_block_end(g);
        if (hidden && i == depth - 1) return h;
        lam_stream_branch(&s, h);
    }
    return lam_stream_sum(g, &s);
}

/* ---- ordinary blocks ---- */

void lam_sequential_blocks_add(lam_registry *r, const char *prefix, int64_t depth, int64_t width,
                               int64_t mlp) {
    for (int64_t i = 0; i < depth; i++) {
        char block[96];
        snprintf(block, sizeof block, "%s%lld.", prefix, (long long)i);
        lam_registry_norm(r, block, "norm1", width);
        lam_registry_projection(r, block, "attn.qkv", 3 * width, width, true);
        lam_registry_projection(r, block, "attn.proj", width, width, true);
        lam_registry_norm(r, block, "norm2", width);
        lam_registry_projection(r, block, "mlp.fc1", mlp, width, true);
        lam_registry_projection(r, block, "mlp.fc2", width, mlp, true);
    }
}

/* Attention whose queries are the hidden tokens alone, the weights' first third for the queries. */
static lam_tensor *attend_from_hidden(lam_graph *g, lam_tensor *h, const lam_mae_plan *plan,
                                      const char *block, int64_t heads, lam_tensor *keys) {
    int64_t width = h ? lam_tensor_dim(h, 2) : 0;
    lam_tensor *q = lam_linear(g, lam_mae_hidden(g, plan, h),
                               lam_named_rows(g, block, "attn.qkv.weight", 0, width),
                               lam_named_rows(g, block, "attn.qkv.bias", 0, width)),
               *kv = lam_linear(g, h, lam_named_rows(g, block, "attn.qkv.weight", width, 2 * width),
                                lam_named_rows(g, block, "attn.qkv.bias", width, 2 * width));
    return lam_cross_attention(g, q, kv, heads, keys);
}

lam_stream lam_sequential_blocks(lam_graph *g, lam_tensor *x, const char *prefix, int64_t depth,
                                 int64_t heads, lam_tensor *keys, const lam_mae_plan *plan) {
    lam_stream s = {.x = x};
    for (int64_t i = 0; i < depth; i++) {
        char block[96];
        snprintf(block, sizeof block, "%s%lld.", prefix, (long long)i);
        lam_graph_block_begin(g);
        lam_tensor *h;
        if (lam_mae_begins_apart(plan, i, depth)) {
            lam_tensor *visible = lam_named_norm(g, plan->visible, block, "norm1"),
                       *masked = lam_named_norm(g, plan->masked, block, "norm1");
            h = lam_merge_tokens(g, lam_named_linear(g, visible, block, "attn.qkv"),
                                 lam_named_linear(g, masked, block, "attn.qkv"), plan->ids_restore);
            h = lam_attention(g, h, heads, keys);
        } else {
            h = lam_stream_norm(g, &s, (lam_depth){0}, lam_named(g, block, "norm1.weight"),
                                lam_named(g, block, "norm1.bias"));
            h = lam_mae_ends_hidden(plan, i, depth)
                    ? attend_from_hidden(g, h, plan, block, heads, keys)
                    : lam_attention(g, lam_named_linear(g, h, block, "attn.qkv"), heads, keys);
        }
        if (lam_mae_ends_hidden(plan, i, depth)) s.x = lam_mae_hidden(g, plan, s.x);
        lam_stream_branch(&s, lam_named_linear_add(g, h, block, "attn.proj", lam_stream_residual(&s)));
        h = lam_stream_norm(g, &s, (lam_depth){0}, lam_named(g, block, "norm2.weight"),
                            lam_named(g, block, "norm2.bias"));
        h = lam_linear_gelu(g, h, lam_named(g, block, "mlp.fc1.weight"), lam_named(g, block, "mlp.fc1.bias"));
        lam_stream_branch(&s, lam_named_linear_add(g, h, block, "mlp.fc2", lam_stream_residual(&s)));
        lam_graph_block_end(g);
    }
    return s;
}

/* ---- the network ---- */

static int64_t patch_length(const lam_mae_config *c) {
    return c->patch_size * c->patch_size * c->in_channels;
}

static lam_status parameters(lam_parameters *p, const lam_mae_config *c) {
    lam_registry r = {p, LAM_OK};
    int64_t dd = c->decoder_embed_dim;
    lam_parallel_encoder_add(&r, c, c->in_channels);
    lam_registry_projection(&r, "", "encoder_decoder_proj", dd, c->embed_dim, true);
    lam_registry_add(&r, "decoder.", "mask_token", 3, (int64_t[]){1, 1, dd}, LAM_INIT_NORMAL, LAM_TOKEN_INIT,
                     true);
    lam_registry_positions(&r, c, "decoder.", "pos_embeddings", 1 + lam_mae_patches(c), dd);
    lam_sequential_blocks_add(&r, "decoder.blocks.", c->decoder_depth, dd, lam_mae_decoder_mlp_dim(c));
    lam_registry_norm(&r, "decoder.", "norm", dd);
    lam_registry_projection(&r, "", "decoder_pred", patch_length(c), dd, true);
    return r.status;
}

static void fill_positions(lam_parameters *p, const lam_mae_config *c) {
    lam_parallel_encoder_fill(p, c);
    lam_fill_sincos(p, c, "decoder.pos_embeddings", LAM_SINCOS_ROW_FIRST);
}

static void build(lam_graph *g, const lam_mae_config *c, int64_t batch, lam_mae_io *io) {
    lam_tensor *patches = lam_mae_input(g, c, batch, NULL, &io->input);
    io->target = lam_keep_forward(g, patches, "target");
    lam_mae_plan plan = lam_mae_masked(g, c, batch, lam_mae_patches(c), io);
    io->sample_weight = lam_input(g, "sample_weight", LAM_F32, 1, (int64_t[]){batch});

    lam_tensor *x =
        lam_parallel_encoder(g, c, io, lam_gather_patches(g, patches, plan.ids_keep, c->in_channels),
                             plan.ids_keep, NULL, c->depth, false, NULL);
    io->latent = lam_keep(g, x, "latent");
    x = lam_named_linear(g, x, "", "encoder_decoder_proj");
    lam_tensor *mask_token = lam_named(g, "decoder.", "mask_token"),
               *position = lam_named(g, "decoder.", "pos_embeddings");
    x = lam_mae_decoder_tokens(g, &plan, x, mask_token, position);
    lam_stream s =
        lam_sequential_blocks(g, x, "decoder.blocks.", c->decoder_depth, c->decoder_num_heads, NULL, &plan);
    x = lam_stream_norm(g, &s, (lam_depth){0}, lam_named(g, "decoder.", "norm.weight"),
                        lam_named(g, "decoder.", "norm.bias"));
    if (!plan.hidden_alone) x = lam_drop_cls(g, x);
    lam_mae_predicted(g, c, lam_mae_prediction(g, &plan, x, "", "decoder_pred"), patches, io);
}

static void build_encoder(lam_graph *g, const lam_mae_config *c, int64_t batch, int64_t block, bool hidden,
                          lam_mae_encoder_io *io) {
    io->only_channel = lam_input(g, "only_channel", LAM_I64, 1, (int64_t[]){1});
    lam_tensor *patches = lam_mae_input(g, c, batch, io->only_channel, &io->input);
    lam_tensor *x = lam_parallel_encoder(g, c, NULL, lam_gather_patches(g, patches, NULL, c->in_channels),
                                         NULL, NULL, block, hidden, io->every);
    io->tokens = lam_keep(g, x, "tokens");
}

const lam_mae_net lam_mae_vit_parallel = {.name = "mae_vit_parallel",
                                          .parameters = parameters,
                                          .fill_positions = fill_positions,
                                          .build = build,
                                          .build_encoder = build_encoder,
                                          .step_flops = lam_mae_flops};
