#include "model/nets/mae_vit.h"

#include <math.h>
#include <stdio.h>

#include "model/ops.h"

#define LAYERNORM_EPS 1e-6
#define TOKEN_INIT 0.02

static int64_t patches_of(const lam_mae_vit_config *c) {
    return (c->image_size / c->patch_size) * (c->image_size / c->patch_size);
}
static int64_t patch_length(const lam_mae_vit_config *c) {
    return c->patch_size * c->patch_size * c->in_channels;
}
static int64_t kept_of(const lam_mae_vit_config *c) {
    return (int64_t)((double)patches_of(c) * (1.0 - c->mask_ratio));
}
static int64_t mlp_of(int64_t asked, int64_t width) { return asked ? asked : 4 * width; }

lam_status lam_mae_vit_check(const lam_mae_vit_config *c) {
    LAM_REQUIRE(c->patch_size >= 1 && c->image_size >= c->patch_size && c->image_size % c->patch_size == 0,
                LAM_ERROR_CONFIG, "model.patch_size is %lld: it must divide model.image_size, %lld",
                (long long)c->patch_size, (long long)c->image_size);
    LAM_REQUIRE(c->in_channels >= 1, LAM_ERROR_CONFIG, "model.in_channels is %lld: at least 1 is needed",
                (long long)c->in_channels);
    LAM_REQUIRE(c->num_heads >= 1 && c->embed_dim % c->num_heads == 0 && c->embed_dim % 4 == 0,
                LAM_ERROR_CONFIG,
                "model.embed_dim is %lld: it must be a multiple of 4 and of model.num_heads, %lld",
                (long long)c->embed_dim, (long long)c->num_heads);
    LAM_REQUIRE(
        c->decoder_num_heads >= 1 && c->decoder_embed_dim % c->decoder_num_heads == 0 &&
            c->decoder_embed_dim % 4 == 0,
        LAM_ERROR_CONFIG,
        "model.decoder_embed_dim is %lld: it must be a multiple of 4 and of model.decoder_num_heads, %lld",
        (long long)c->decoder_embed_dim, (long long)c->decoder_num_heads);
    LAM_REQUIRE(c->depth >= 1 && c->decoder_depth >= 1, LAM_ERROR_CONFIG,
                "model.depth and model.decoder_depth must be at least 1");
    LAM_REQUIRE(c->mask_ratio > 0 && c->mask_ratio < 1 && kept_of(c) >= 1, LAM_ERROR_CONFIG,
                "model.mask_ratio is %g: of %lld patches at least one must be kept and one masked",
                c->mask_ratio, (long long)patches_of(c));
    return LAM_OK;
}

/* ---- parameters ---- */

typedef struct registry {
    lam_parameters *parameters;
    lam_status status;
} registry;

static void add(registry *r, const char *prefix, const char *name, int rank, const int64_t *shape,
                lam_init init, double scale, bool decay) {
    char full[160];
    snprintf(full, sizeof full, "%s%s", prefix, name);
    if (r->status == LAM_OK)
        r->status = lam_parameters_add(r->parameters, full, rank, shape, init, scale, decay);
}

static void add_linear(registry *r, const char *prefix, const char *name, int64_t out, int64_t in) {
    char full[96];
    snprintf(full, sizeof full, "%s.weight", name);
    add(r, prefix, full, 2, (int64_t[]){out, in}, LAM_INIT_XAVIER_UNIFORM, 0, true);
    snprintf(full, sizeof full, "%s.bias", name);
    add(r, prefix, full, 1, (int64_t[]){out}, LAM_INIT_ZERO, 0, false);
}

static void add_norm(registry *r, const char *prefix, const char *name, int64_t width) {
    char full[96];
    snprintf(full, sizeof full, "%s.weight", name);
    add(r, prefix, full, 1, (int64_t[]){width}, LAM_INIT_ONE, 0, false);
    snprintf(full, sizeof full, "%s.bias", name);
    add(r, prefix, full, 1, (int64_t[]){width}, LAM_INIT_ZERO, 0, false);
}

static void add_block(registry *r, const char *stack, int64_t layer, int64_t width, int64_t mlp) {
    char prefix[64];
    snprintf(prefix, sizeof prefix, "%s.%lld.", stack, (long long)layer);
    add_norm(r, prefix, "layernorm_before", width);
    add_linear(r, prefix, "attention.attention.query", width, width);
    add_linear(r, prefix, "attention.attention.key", width, width);
    add_linear(r, prefix, "attention.attention.value", width, width);
    add_linear(r, prefix, "attention.output.dense", width, width);
    add_norm(r, prefix, "layernorm_after", width);
    add_linear(r, prefix, "intermediate.dense", mlp, width);
    add_linear(r, prefix, "output.dense", width, mlp);
}

lam_status lam_mae_vit_parameters(lam_parameters *parameters, const lam_mae_vit_config *c) {
    LAM_TRY(lam_mae_vit_check(c));
    registry r = {parameters, LAM_OK};
    int64_t d = c->embed_dim, dd = c->decoder_embed_dim, tokens = 1 + patches_of(c), patch = c->patch_size;
    add(&r, "vit.embeddings.", "cls_token", 3, (int64_t[]){1, 1, d}, LAM_INIT_NORMAL, TOKEN_INIT, true);
    add(&r, "vit.embeddings.", "position_embeddings", 3, (int64_t[]){1, tokens, d}, LAM_INIT_FROZEN, 0,
        false);
    add(&r, "vit.embeddings.", "patch_embeddings.projection.weight", 4,
        (int64_t[]){d, c->in_channels, patch, patch}, LAM_INIT_XAVIER_UNIFORM, 0, true);
    add(&r, "vit.embeddings.", "patch_embeddings.projection.bias", 1, (int64_t[]){d}, LAM_INIT_ZERO, 0,
        false);
    for (int64_t i = 0; i < c->depth; i++) add_block(&r, "vit.encoder.layer", i, d, mlp_of(c->mlp_dim, d));
    add_norm(&r, "vit.", "layernorm", d);
    add_linear(&r, "decoder.", "decoder_embed", dd, d);
    add(&r, "decoder.", "mask_token", 3, (int64_t[]){1, 1, dd}, LAM_INIT_NORMAL, TOKEN_INIT, true);
    add(&r, "decoder.", "decoder_pos_embed", 3, (int64_t[]){1, tokens, dd}, LAM_INIT_FROZEN, 0, false);
    for (int64_t i = 0; i < c->decoder_depth; i++)
        add_block(&r, "decoder.decoder_layers", i, dd, mlp_of(c->decoder_mlp_dim, dd));
    add_norm(&r, "decoder.", "decoder_norm", dd);
    add_linear(&r, "decoder.", "decoder_pred", patch_length(c), dd);
    return r.status;
}

/* [sin(w) cos(w) sin(h) cos(h)], omega_i = 10000^(-i / (D/4)), cls row zero; He et al.'s order (trap T10). */
static void fill_table(float *table, int64_t width, int64_t grid) {
    int64_t quarter = width / 4;
    for (int64_t i = 0; i < width; i++) table[i] = 0;
    for (int64_t y = 0; y < grid; y++)
        for (int64_t x = 0; x < grid; x++) {
            float *row = table + (1 + y * grid + x) * width;
            for (int64_t i = 0; i < quarter; i++) {
                double omega = pow(10000.0, -(double)i / (double)quarter);
                row[i] = (float)sin((double)x * omega);
                row[quarter + i] = (float)cos((double)x * omega);
                row[2 * quarter + i] = (float)sin((double)y * omega);
                row[3 * quarter + i] = (float)cos((double)y * omega);
            }
        }
}

void lam_mae_vit_fill_positions(lam_parameters *p, const lam_mae_vit_config *c) {
    int64_t grid = c->image_size / c->patch_size;
    fill_table(p->weights + lam_parameters_find(p, "vit.embeddings.position_embeddings")->offset,
               c->embed_dim, grid);
    fill_table(p->weights + lam_parameters_find(p, "decoder.decoder_pos_embed")->offset, c->decoder_embed_dim,
               grid);
}

/* ---- graph ---- */

static lam_tensor *named(lam_graph *g, const char *prefix, const char *name) {
    char full[160];
    snprintf(full, sizeof full, "%s%s", prefix, name);
    return lam_parameter(g, full);
}

static lam_tensor *linear(lam_graph *g, lam_tensor *x, const char *prefix, const char *name) {
    char weight[96], bias[96];
    snprintf(weight, sizeof weight, "%s.weight", name);
    snprintf(bias, sizeof bias, "%s.bias", name);
    return lam_linear(g, x, named(g, prefix, weight), named(g, prefix, bias));
}

/* A stack of pre-norm blocks. The residual stream x and the last branch r travel apart, so that each addition
 * is fused with the LayerNorm that follows it. Returns the normalised end of the stack, or with `hidden` the hidden
 * units of the last block's MLP. */
static lam_tensor *blocks(lam_graph *g, lam_tensor *x, const char *stack, int64_t depth, int64_t heads,
                          bool hidden, const char *last_norm_prefix, const char *last_norm,
                          lam_tensor **unnormalised) {
    lam_tensor *r = NULL;
    char prefix[64], weight[64], bias[64];
    for (int64_t i = 0; i < depth; i++) {
        snprintf(prefix, sizeof prefix, "%s.%lld.", stack, (long long)i);
        lam_tensor *w = named(g, prefix, "layernorm_before.weight"),
                   *b = named(g, prefix, "layernorm_before.bias");
        lam_tensor *h = r ? lam_add_layernorm(g, x, r, w, b, LAYERNORM_EPS, &x)
                          : lam_layernorm(g, x, w, b, LAYERNORM_EPS);
        h = lam_linear_qkv(g, h, named(g, prefix, "attention.attention.query.weight"),
                           named(g, prefix, "attention.attention.query.bias"),
                           named(g, prefix, "attention.attention.key.weight"),
                           named(g, prefix, "attention.attention.key.bias"),
                           named(g, prefix, "attention.attention.value.weight"),
                           named(g, prefix, "attention.attention.value.bias"));
        r = linear(g, lam_attention(g, h, heads), prefix, "attention.output.dense");
        h = lam_add_layernorm(g, x, r, named(g, prefix, "layernorm_after.weight"),
                              named(g, prefix, "layernorm_after.bias"), LAYERNORM_EPS, &x);
        h = lam_linear_gelu(g, h, named(g, prefix, "intermediate.dense.weight"),
                            named(g, prefix, "intermediate.dense.bias"));
        if (hidden && i == depth - 1) return h;
        r = linear(g, h, prefix, "output.dense");
    }
    if (!last_norm) return *unnormalised = lam_add(g, x, r);
    snprintf(weight, sizeof weight, "%s.weight", last_norm);
    snprintf(bias, sizeof bias, "%s.bias", last_norm);
    return lam_add_layernorm(g, x, r, named(g, last_norm_prefix, weight), named(g, last_norm_prefix, bias),
                             LAYERNORM_EPS, unnormalised);
}

/* The pixels and what their standardisation needs, as inputs; the patches [B, N, P*P*C]. */
static lam_tensor *input_patches(lam_graph *g, const lam_mae_vit_config *c, int64_t batch,
                                 lam_tensor **pixels, lam_tensor **scale, lam_tensor **mean,
                                 lam_tensor **rstd, lam_tensor **present, lam_tensor *only_channel) {
    int64_t channels = c->in_channels;
    *scale = *mean = *rstd = *present = NULL;
    *pixels =
        lam_input(g, "pixels", c->pixel_type, 4, (int64_t[]){batch, channels, c->image_size, c->image_size});
    if (c->pixel_type != LAM_F32) {
        *scale = lam_input(g, "scale", LAM_F32, 1, (int64_t[]){channels});
        *present = lam_input(g, "present", LAM_F32, 2, (int64_t[]){batch, channels});
        if (c->normalize != LAM_NORMALIZE_CROP) {
            *mean = lam_input(g, "mean", LAM_F32, 2, (int64_t[]){batch, channels});
            *rstd = lam_input(g, "rstd", LAM_F32, 2, (int64_t[]){batch, channels});
        }
    }
    lam_standardise how = {c->patch_size, c->transform, c->normalize == LAM_NORMALIZE_CROP,
                           *scale,        *mean,        *rstd,
                           *present,      only_channel};
    return lam_patches(g, *pixels, &how);
}

static lam_tensor *embed(lam_graph *g, lam_tensor *patches, lam_tensor *ids_keep, int64_t channels) {
    const char *prefix = "vit.embeddings.";
    lam_tensor *x =
        linear(g, lam_gather_patches(g, patches, ids_keep, channels), prefix, "patch_embeddings.projection");
    return lam_embed_tokens(g, x, named(g, prefix, "cls_token"), named(g, prefix, "position_embeddings"),
                            ids_keep);
}

lam_status lam_mae_vit_build(lam_graph *g, const lam_mae_vit_config *c, int64_t batch, lam_mae_vit_io *io) {
    LAM_TRY(lam_mae_vit_check(c));
    *io = (lam_mae_vit_io){0};
    int64_t tokens = patches_of(c);
    lam_tensor *target =
        input_patches(g, c, batch, &io->pixels, &io->scale, &io->mean, &io->rstd, &io->present, NULL);
    io->target = lam_keep(g, target, "target");
    if (c->noise_input) {
        io->noise = lam_input(g, "noise", LAM_F32, 2, (int64_t[]){batch, tokens});
    } else {
        io->step = lam_input(g, "step", LAM_I64, 1, (int64_t[]){1});
        io->sample_ids = lam_input(g, "sample_ids", LAM_I64, 1, (int64_t[]){batch});
        io->noise = lam_keep(g, lam_uniform_noise(g, io->step, io->sample_ids, tokens, c->seed), "noise");
    }
    io->sample_weight = lam_input(g, "sample_weight", LAM_F32, 1, (int64_t[]){batch});
    lam_tensor *ids_keep;
    lam_mask_plan(g, io->noise, kept_of(c), &ids_keep, &io->ids_restore, &io->mask);
    lam_keep(g, io->mask, "mask");
    lam_keep(g, io->ids_restore, "ids_restore");

    lam_tensor *unnormalised, *x = embed(g, target, ids_keep, c->in_channels);
    x = blocks(g, x, "vit.encoder.layer", c->depth, c->num_heads, false, "vit.", "layernorm", &unnormalised);
    io->latent = lam_keep(g, x, "latent");
    x = linear(g, x, "decoder.", "decoder_embed");
    x = lam_unshuffle(g, x, named(g, "decoder.", "mask_token"), named(g, "decoder.", "decoder_pos_embed"),
                      io->ids_restore);
    x = blocks(g, x, "decoder.decoder_layers", c->decoder_depth, c->decoder_num_heads, false, "decoder.",
               "decoder_norm", &unnormalised);
    x = linear(g, lam_drop_cls(g, x), "decoder.", "decoder_pred");
    io->logits = lam_keep(g, x, "logits");
    io->loss = lam_keep(
        g, lam_masked_loss(g, x, target, io->mask, io->sample_weight, c->norm_pix_loss, &io->sample_loss),
        "loss");
    lam_keep(g, io->sample_loss, "sample_loss");
    return LAM_OK;
}

lam_status lam_mae_vit_build_encoder(lam_graph *g, const lam_mae_vit_config *c, int64_t batch, int64_t block,
                                     bool hidden, lam_mae_vit_encoder_io *io) {
    LAM_TRY(lam_mae_vit_check(c));
    LAM_REQUIRE(block >= 1 && block <= c->depth, LAM_ERROR_USAGE,
                "block %lld does not exist: the network has blocks 1 to %lld", (long long)block,
                (long long)c->depth);
    *io = (lam_mae_vit_encoder_io){0};
    io->only_channel = lam_input(g, "only_channel", LAM_I64, 1, (int64_t[]){1});
    lam_tensor *patches = input_patches(g, c, batch, &io->pixels, &io->scale, &io->mean, &io->rstd,
                                        &io->present, io->only_channel);
    lam_tensor *unnormalised, *x = embed(g, patches, NULL, c->in_channels);
    x = blocks(g, x, "vit.encoder.layer", block, c->num_heads, hidden, "vit.",
               block == c->depth ? "layernorm" : NULL, &unnormalised);
    io->tokens = lam_keep(g, x, "tokens");
    return LAM_OK;
}

double lam_mae_vit_step_flops(const lam_mae_vit_config *c) {
    double n = (double)patches_of(c), k = (double)kept_of(c) + 1, m = n + 1, length = (double)patch_length(c),
           d = (double)c->embed_dim, dd = (double)c->decoder_embed_dim,
           h = (double)mlp_of(c->mlp_dim, c->embed_dim),
           hd = (double)mlp_of(c->decoder_mlp_dim, c->decoder_embed_dim);
    double encoder = (double)c->depth * (8 * k * d * d + 4 * k * d * h + 4 * k * k * d);
    double decoder = (double)c->decoder_depth * (8 * m * dd * dd + 4 * m * dd * hd + 4 * m * m * dd);
    return 3 * (encoder + decoder + 2 * (k - 1) * length * d + 2 * k * d * dd + 2 * n * dd * length);
}
