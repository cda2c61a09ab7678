#include "model/nets/parts.h"

#include <math.h>
#include <stdio.h>

int64_t lam_mae_kept(const lam_mae_config *c, int64_t tokens) {
    int64_t places = lam_mae_patches(c), channels = tokens / places, kept;
    switch (c->masking) {
    case LAM_MASKING_BLOCK:
    case LAM_MASKING_PER_CHANNEL: return channels * (int64_t)((double)places * (1.0 - c->mask_ratio));
    case LAM_MASKING_WHOLE_CHANNEL:
        kept = (int64_t)((double)channels * (1.0 - c->mask_ratio));
        return places * (kept < 1 ? 1 : kept > channels - 1 ? channels - 1 : kept);
    default: return (int64_t)((double)tokens * (1.0 - c->mask_ratio));
    }
}

int64_t lam_mae_channels_seen(const lam_mae_config *c) {
    return c->channels_per_step ? c->channels_per_step : c->in_channels;
}

int64_t lam_mae_decoded(const lam_mae_config *c, int64_t tokens) {
    if (c->decode_ratio == 0) return tokens;
    int64_t kept = lam_mae_kept(c, tokens),
            hidden = (int64_t)((double)(tokens - kept) * c->decode_ratio + 0.5);
    return kept + (hidden < 1 ? 1 : hidden);
}

void lam_registry_add(lam_registry *r, const char *prefix, const char *name, int rank, const int64_t *shape,
                      lam_init init, double scale, bool decay) {
    char full[160];
    snprintf(full, sizeof full, "%s%s", prefix, name);
    if (r->status == LAM_OK)
        r->status = lam_parameters_add(r->parameters, full, rank, shape, init, scale, decay);
}

static void add_weight(lam_registry *r, const char *prefix, const char *name, int64_t out, int64_t in) {
    char full[96];
    snprintf(full, sizeof full, "%s.weight", name);
    lam_registry_add(r, prefix, full, 2, (int64_t[]){out, in}, LAM_INIT_XAVIER_UNIFORM, 0, true);
}

static void add_bias(lam_registry *r, const char *prefix, const char *name, int64_t out) {
    char full[96];
    snprintf(full, sizeof full, "%s.bias", name);
    lam_registry_add(r, prefix, full, 1, (int64_t[]){out}, LAM_INIT_ZERO, 0, false);
}

void lam_registry_linear(lam_registry *r, const char *prefix, const char *name, int64_t out, int64_t in) {
    add_weight(r, prefix, name, out, in);
    add_bias(r, prefix, name, out);
}

void lam_registry_qkv(lam_registry *r, const char *prefix, const char *const names[3], int64_t width) {
    for (int k = 2; k >= 0; k--) add_weight(r, prefix, names[k], width, width);
    for (int k = 2; k >= 0; k--) add_bias(r, prefix, names[k], width);
}

void lam_registry_projection(lam_registry *r, const char *prefix, const char *name, int64_t out, int64_t in,
                             bool bias) {
    char full[96];
    snprintf(full, sizeof full, "%s.weight", name);
    lam_registry_add(r, prefix, full, 2, (int64_t[]){out, in}, LAM_INIT_NORMAL, LAM_TOKEN_INIT, true);
    snprintf(full, sizeof full, "%s.bias", name);
    if (bias) lam_registry_add(r, prefix, full, 1, (int64_t[]){out}, LAM_INIT_ZERO, 0, false);
}

void lam_registry_norm(lam_registry *r, const char *prefix, const char *name, int64_t width) {
    char full[96];
    snprintf(full, sizeof full, "%s.weight", name);
    lam_registry_add(r, prefix, full, 1, (int64_t[]){width}, LAM_INIT_ONE, 0, false);
    snprintf(full, sizeof full, "%s.bias", name);
    lam_registry_add(r, prefix, full, 1, (int64_t[]){width}, LAM_INIT_ZERO, 0, false);
}

void lam_registry_positions(lam_registry *r, const lam_mae_config *c, const char *prefix, const char *name,
                            int64_t rows, int64_t width) {
    lam_registry_add(r, prefix, name, 3, (int64_t[]){1, rows, width},
                     c->learned_positions ? LAM_INIT_NORMAL : LAM_INIT_FROZEN, LAM_TOKEN_INIT, false);
}

void lam_sincos_table(float *table, int64_t width, int64_t grid, lam_sincos_order order) {
    int64_t quarter = width / 4;
    for (int64_t i = 0; i < width; i++) table[i] = 0;
    for (int64_t y = 0; y < grid; y++)
        for (int64_t x = 0; x < grid; x++) {
            float *row = table + (1 + y * grid + x) * width;
            double first = (double)(order == LAM_SINCOS_COLUMN_FIRST ? x : y),
                   second = (double)(order == LAM_SINCOS_COLUMN_FIRST ? y : x);
            for (int64_t i = 0; i < quarter; i++) {
                double omega = pow(10000.0, -(double)i / (double)quarter);
                row[i] = (float)sin(first * omega);
                row[quarter + i] = (float)cos(first * omega);
                row[2 * quarter + i] = (float)sin(second * omega);
                row[3 * quarter + i] = (float)cos(second * omega);
            }
        }
}

void lam_fill_sincos(lam_parameters *p, const lam_mae_config *c, const char *name, lam_sincos_order order) {
    const lam_parameter_entry *entry = lam_parameters_find(p, name);
    if (entry->init == LAM_INIT_FROZEN)
        lam_sincos_table(p->weights + entry->offset, entry->shape[entry->rank - 1],
                         c->image_size / c->patch_size, order);
}

lam_tensor *lam_named(lam_graph *g, const char *prefix, const char *name) {
    char full[160];
    snprintf(full, sizeof full, "%s%s", prefix, name);
    return lam_parameter(g, full);
}

lam_tensor *lam_named_linear(lam_graph *g, lam_tensor *x, const char *prefix, const char *name) {
    return lam_named_linear_add(g, x, prefix, name, NULL);
}

lam_tensor *lam_named_linear_add(lam_graph *g, lam_tensor *x, const char *prefix, const char *name,
                                 lam_tensor *residual) {
    char weight[96], bias[96];
    snprintf(weight, sizeof weight, "%s.weight", name);
    snprintf(bias, sizeof bias, "%s.bias", name);
    lam_tensor *w = lam_named(g, prefix, weight), *b = lam_named(g, prefix, bias);
    return residual ? lam_linear_add(g, x, w, b, residual) : lam_linear(g, x, w, b);
}

lam_tensor *lam_named_rows(lam_graph *g, const char *prefix, const char *name, int64_t first, int64_t count) {
    char full[160];
    snprintf(full, sizeof full, "%s%s", prefix, name);
    return lam_parameter_rows(g, full, first, count);
}

lam_tensor *lam_named_norm(lam_graph *g, lam_tensor *x, const char *prefix, const char *name) {
    char weight[96], bias[96];
    snprintf(weight, sizeof weight, "%s.weight", name);
    snprintf(bias, sizeof bias, "%s.bias", name);
    return lam_layernorm(g, x, lam_named(g, prefix, weight), lam_named(g, prefix, bias), LAM_LAYERNORM_EPS);
}

static lam_tensor *patches_of(lam_graph *g, const lam_mae_config *c, int64_t batch, lam_standardise how,
                              lam_mae_pixels *in) {
    int64_t channels = c->in_channels;
    in->pixels =
        lam_input(g, "pixels", c->pixel_type, 4, (int64_t[]){batch, channels, c->image_size, c->image_size});
    if (c->pixel_type != LAM_F32) {
        how.scale = in->scale = lam_input(g, "scale", LAM_F32, 1, (int64_t[]){channels});
        if (c->normalize != LAM_NORMALIZE_CROP) {
            how.mean = in->mean = lam_input(g, "mean", LAM_F32, 2, (int64_t[]){batch, channels});
            how.rstd = in->rstd = lam_input(g, "rstd", LAM_F32, 2, (int64_t[]){batch, channels});
        }
    }
    if (c->pixel_type != LAM_F32 || how.by_channel)
        how.present = in->present = lam_input(g, "present", LAM_F32, 2, (int64_t[]){batch, channels});
    how.patch_size = c->patch_size;
    how.transform = c->transform;
    how.by_crop = c->normalize == LAM_NORMALIZE_CROP;
    return lam_patches(g, in->pixels, &how);
}

lam_tensor *lam_mae_input(lam_graph *g, const lam_mae_config *c, int64_t batch, lam_tensor *only_channel,
                          lam_mae_pixels *in) {
    return patches_of(g, c, batch, (lam_standardise){.only_channel = only_channel}, in);
}

lam_tensor *lam_mae_channel_input(lam_graph *g, const lam_mae_config *c, int64_t batch,
                                  lam_tensor *channel_ids, lam_mae_pixels *in) {
    return patches_of(g, c, batch, (lam_standardise){.by_channel = true, .channel_ids = channel_ids}, in);
}

lam_tensor *lam_mae_noise(lam_graph *g, const lam_mae_config *c, int64_t batch, int64_t tokens,
                          lam_mae_io *io) {
    lam_mask how = {c->masking, tokens / lam_mae_patches(c), c->image_size / c->patch_size,
                    lam_mae_kept(c, tokens), c->seed};
    if (!c->noise_input || c->drop_path > 0) {
        io->step = lam_input(g, "step", LAM_I64, 1, (int64_t[]){1});
        io->sample_ids = lam_input(g, "sample_ids", LAM_I64, 1, (int64_t[]){batch});
    }
    if (c->drop_path > 0) io->drop_scale = lam_input(g, "drop_scale", LAM_F32, 1, (int64_t[]){1});
    io->noise = c->noise_input ? lam_input(g, "noise", LAM_F32, 2, (int64_t[]){batch, tokens})
                               : lam_keep(g, lam_mask_noise(g, io->step, io->sample_ids, &how), "noise");
    return io->noise;
}

lam_tensor *lam_stream_residual(const lam_stream *s) { return s->drops ? NULL : s->x; }

void lam_stream_branch(lam_stream *s, lam_tensor *result) {
    if (s->drops)
        s->r = result;
    else
        s->x = result;
}

lam_tensor *lam_stream_norm(lam_graph *g, lam_stream *s, lam_depth next, lam_tensor *w, lam_tensor *b) {
    lam_tensor *h;
    double eps = s->eps > 0 ? s->eps : LAM_LAYERNORM_EPS;
    if (s->r || next.place)
        h = lam_depth_layernorm(g, s->x, s->r, s->depth, next, w, b, eps, &s->x);
    else
        h = lam_layernorm(g, s->x, w, b, eps);
    s->r = NULL;
    s->depth = next;
    return h;
}

lam_tensor *lam_stream_sum(lam_graph *g, const lam_stream *s) {
    if (!s->r) return s->x;
    return s->depth.place ? lam_depth_add(g, s->x, s->r, s->depth) : lam_add(g, s->x, s->r);
}

lam_depth lam_mae_depth(lam_graph *g, const lam_mae_config *c, const lam_mae_io *io, int64_t block,
                        int64_t branch) {
    double rate = lam_mae_drop_rate(c, block);
    if (!io || rate == 0) return (lam_depth){0};
    return lam_depth_plan(g, io->step, io->sample_ids, io->drop_scale, branch, rate, c->seed);
}

lam_mae_plan lam_mae_masked(lam_graph *g, const lam_mae_config *c, int64_t batch, int64_t tokens,
                            lam_mae_io *io) {
    int64_t kept = lam_mae_kept(c, tokens), decoded = lam_mae_decoded(c, tokens);
    lam_mae_plan plan = {.kept = kept, .hidden = decoded - kept, .hidden_alone = lam_mae_hidden_alone(c)};
    lam_mae_noise(g, c, batch, tokens, io);
    lam_mask_plan(g, io->noise, kept, &plan.ids_keep, &io->ids_restore, &io->mask);
    plan.ids_restore = io->ids_restore;
    lam_keep(g, io->mask, "mask");
    lam_keep(g, io->ids_restore, "ids_restore");
    io->loss_mask = io->mask;
    if (decoded < tokens) {
        lam_decode_plan(g, io->ids_restore, kept, decoded, &plan.ids_decoded, &io->loss_mask);
        lam_keep(g, io->loss_mask, "loss_mask");
    }
    return plan;
}

lam_tensor *lam_mae_loss(lam_graph *g, const lam_mae_config *c, lam_tensor *prediction, lam_tensor *target,
                         lam_tensor *loss_mask, lam_tensor *sample_weight, lam_tensor **sample_loss) {
    lam_tensor *loss =
        lam_masked_loss(g, prediction, target, loss_mask, sample_weight, c->norm_pix_loss, sample_loss);
    if (c->fourier == LAM_FOURIER_NONE) return loss;
    lam_fourier how = {c->fourier, c->fourier_squared, c->norm_pix_loss, c->patch_size,
                       lam_mae_channels_seen(c)};
    lam_tensor *fourier_samples,
        *fourier = lam_fourier_loss(g, prediction, target, loss_mask, sample_weight, &how, &fourier_samples);
    double alpha = c->fourier_alpha;
    *sample_loss = lam_mix(g, *sample_loss, 1 - alpha, fourier_samples, alpha);
    return lam_mix(g, loss, 1 - alpha, fourier, alpha);
}

/* Rows that work on shared tokens takes off, of 8 rows one at least: merging costs about a sixteenth. */
static bool sharing_pays(int64_t batch, int64_t tokens, int64_t hidden) {
    return 8 * (batch * hidden - tokens) > batch * tokens;
}

double lam_block_flops(double depth, double tokens, double width, double hidden) {
    return depth * (8 * tokens * width * width + 4 * tokens * width * hidden + 4 * tokens * tokens * width);
}

double lam_mae_flops(const lam_mae_config *c) {
    int64_t tokens = lam_mae_patches(c);
    double n = (double)lam_mae_decoded(c, tokens), k = (double)lam_mae_kept(c, tokens) + 1, m = n + 1,
           length = (double)(c->patch_size * c->patch_size * c->in_channels), d = (double)c->embed_dim,
           dd = (double)c->decoder_embed_dim;
    double encoder = lam_block_flops((double)c->depth, k, d, (double)lam_mae_mlp_dim(c));
    double decoder = lam_block_flops((double)c->decoder_depth, m, dd, (double)lam_mae_decoder_mlp_dim(c));
    return 3 * (encoder + decoder + 2 * (k - 1) * length * d + 2 * k * d * dd + 2 * n * dd * length);
}

double lam_mae_saved_flops(const lam_mae_config *c, int64_t batch, int64_t tokens, int64_t length) {
    bool alone = lam_mae_hidden_alone(c),
         apart = c->kind != LAM_MAE_CHANNEL_AGNOSTIC && lam_mae_decoded(c, tokens) == tokens &&
                 (c->decoder_depth > 1 || !alone) &&
                 sharing_pays(batch, tokens, tokens - lam_mae_kept(c, tokens));
    double decoded = (double)lam_mae_decoded(c, tokens), kept = (double)lam_mae_kept(c, tokens),
           dd = (double)c->decoder_embed_dim, hidden = (double)lam_mae_decoder_mlp_dim(c), saved = 0;
    double row = 4 * dd * dd + 4 * dd * hidden + 4 * (decoded + 1) * dd; /* all of a block but k and v */
    if (alone) saved += (kept + 1) * row + 2 * kept * dd * (double)length;
    if (apart) saved += (decoded - kept - decoded / (double)batch) * 6 * dd * dd; /* q, k and v */
    return 3 * saved;
}

lam_tensor *lam_mae_decoder_tokens(lam_graph *g, lam_mae_plan *plan, lam_tensor *x, lam_tensor *mask_token,
                                   lam_tensor *position) {
    if (plan->ids_decoded) return lam_append_masked(g, x, mask_token, position, plan->ids_decoded);
    lam_tensor *visible = lam_append_masked(g, x, mask_token, position, plan->ids_keep),
               *masked = lam_masked_tokens(g, mask_token, position);
    if (visible && masked &&
        sharing_pays(lam_tensor_dim(visible, 0), plan->kept + plan->hidden, plan->hidden)) {
        plan->visible = visible;
        plan->masked = masked;
    }
    return lam_merge_tokens(g, visible, masked, plan->ids_restore);
}

bool lam_mae_begins_apart(const lam_mae_plan *plan, int64_t block, int64_t depth) {
    return plan && plan->masked && block == 0 && !lam_mae_ends_hidden(plan, block, depth);
}

bool lam_mae_ends_hidden(const lam_mae_plan *plan, int64_t block, int64_t depth) {
    return plan && plan->hidden_alone && block == depth - 1;
}

bool lam_mae_hidden_alone(const lam_mae_config *c) {
    bool stack_of_all = c->kind != LAM_MAE_CHANNEL_AGNOSTIC || c->decoder == LAM_DECODER_SHARED;
    return stack_of_all && !c->predict_visible && c->fourier != LAM_FOURIER_RECURSION;
}

lam_tensor *lam_mae_hidden(lam_graph *g, const lam_mae_plan *plan, lam_tensor *x) {
    return plan->ids_decoded ? lam_token_rows(g, x, 1 + plan->kept, plan->hidden)
                             : lam_rank_tokens(g, x, plan->ids_restore, plan->kept, plan->hidden);
}

lam_tensor *lam_mae_prediction(lam_graph *g, const lam_mae_plan *plan, lam_tensor *x, const char *prefix,
                               const char *name) {
    lam_tensor *y = lam_named_linear(g, x, prefix, name);
    if (plan->hidden_alone) return lam_restore_tokens(g, y, plan->ids_restore, plan->kept);
    return plan->ids_decoded ? lam_restore_tokens(g, y, plan->ids_restore, 0) : y;
}

void lam_mae_predicted(lam_graph *g, const lam_mae_config *c, lam_tensor *prediction, lam_tensor *target,
                       lam_mae_io *io) {
    io->logits = lam_keep_forward(g, prediction, "logits");
    io->loss = lam_keep(
        g, lam_mae_loss(g, c, prediction, target, io->loss_mask, io->sample_weight, &io->sample_loss),
        "loss");
    lam_keep(g, io->sample_loss, "sample_loss");
}
