#include "model/nets/parts.h"

#include <math.h>
#include <stdio.h>

int64_t lam_mae_kept(const lam_mae_config *c, int64_t tokens) {
    return (int64_t)((double)tokens * (1.0 - c->mask_ratio));
}

void lam_registry_add(lam_registry *r, const char *prefix, const char *name, int rank, const int64_t *shape,
                      lam_init init, double scale, bool decay) {
    char full[160];
    snprintf(full, sizeof full, "%s%s", prefix, name);
    if (r->status == LAM_OK)
        r->status = lam_parameters_add(r->parameters, full, rank, shape, init, scale, decay);
}

void lam_registry_linear(lam_registry *r, const char *prefix, const char *name, int64_t out, int64_t in) {
    char full[96];
    snprintf(full, sizeof full, "%s.weight", name);
    lam_registry_add(r, prefix, full, 2, (int64_t[]){out, in}, LAM_INIT_XAVIER_UNIFORM, 0, true);
    snprintf(full, sizeof full, "%s.bias", name);
    lam_registry_add(r, prefix, full, 1, (int64_t[]){out}, LAM_INIT_ZERO, 0, false);
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

lam_tensor *lam_named(lam_graph *g, const char *prefix, const char *name) {
    char full[160];
    snprintf(full, sizeof full, "%s%s", prefix, name);
    return lam_parameter(g, full);
}

lam_tensor *lam_named_linear(lam_graph *g, lam_tensor *x, const char *prefix, const char *name) {
    char weight[96], bias[96];
    snprintf(weight, sizeof weight, "%s.weight", name);
    snprintf(bias, sizeof bias, "%s.bias", name);
    return lam_linear(g, x, lam_named(g, prefix, weight), lam_named(g, prefix, bias));
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

static lam_mae_pixels input(lam_graph *g, const lam_mae_config *c, int64_t batch, lam_standardise how) {
    lam_mae_pixels in = {0};
    int64_t channels = c->in_channels;
    in.pixels =
        lam_input(g, "pixels", c->pixel_type, 4, (int64_t[]){batch, channels, c->image_size, c->image_size});
    if (c->pixel_type != LAM_F32) {
        how.scale = in.scale = lam_input(g, "scale", LAM_F32, 1, (int64_t[]){channels});
        if (c->normalize != LAM_NORMALIZE_CROP) {
            how.mean = in.mean = lam_input(g, "mean", LAM_F32, 2, (int64_t[]){batch, channels});
            how.rstd = in.rstd = lam_input(g, "rstd", LAM_F32, 2, (int64_t[]){batch, channels});
        }
    }
    if (c->pixel_type != LAM_F32 || how.by_channel)
        how.present = in.present = lam_input(g, "present", LAM_F32, 2, (int64_t[]){batch, channels});
    how.patch_size = c->patch_size;
    how.transform = c->transform;
    how.by_crop = c->normalize == LAM_NORMALIZE_CROP;
    in.patches = lam_patches(g, in.pixels, &how);
    return in;
}

lam_mae_pixels lam_mae_input(lam_graph *g, const lam_mae_config *c, int64_t batch, lam_tensor *only_channel) {
    return input(g, c, batch, (lam_standardise){.only_channel = only_channel});
}

lam_mae_pixels lam_mae_channel_input(lam_graph *g, const lam_mae_config *c, int64_t batch,
                                     lam_tensor *channel_ids) {
    return input(g, c, batch, (lam_standardise){.by_channel = true, .channel_ids = channel_ids});
}

lam_tensor *lam_mae_noise(lam_graph *g, const lam_mae_config *c, int64_t batch, int64_t tokens,
                          lam_mae_io *io) {
    if (!c->noise_input || c->drop_path > 0) {
        io->step = lam_input(g, "step", LAM_I64, 1, (int64_t[]){1});
        io->sample_ids = lam_input(g, "sample_ids", LAM_I64, 1, (int64_t[]){batch});
    }
    if (c->drop_path > 0) io->drop_scale = lam_input(g, "drop_scale", LAM_F32, 1, (int64_t[]){1});
    io->noise = c->noise_input
                    ? lam_input(g, "noise", LAM_F32, 2, (int64_t[]){batch, tokens})
                    : lam_keep(g, lam_uniform_noise(g, io->step, io->sample_ids, tokens, c->seed), "noise");
    return io->noise;
}

lam_tensor *lam_stream_norm(lam_graph *g, lam_stream *s, lam_depth next, lam_tensor *w, lam_tensor *b) {
    lam_tensor *h;
    if (s->depth.place || next.place)
        h = lam_depth_layernorm(g, s->x, s->r, s->depth, next, w, b, LAM_LAYERNORM_EPS, &s->x);
    else if (s->r)
        h = lam_add_layernorm(g, s->x, s->r, w, b, LAM_LAYERNORM_EPS, &s->x);
    else
        h = lam_layernorm(g, s->x, w, b, LAM_LAYERNORM_EPS);
    s->r = NULL;
    s->depth = next;
    return h;
}

lam_depth lam_mae_depth(lam_graph *g, const lam_mae_config *c, const lam_mae_io *io, int64_t block,
                        int64_t branch) {
    double rate = lam_mae_drop_rate(c, block);
    if (!io || rate == 0) return (lam_depth){0};
    return lam_depth_plan(g, io->step, io->sample_ids, io->drop_scale, branch, rate, c->seed);
}

double lam_block_flops(double depth, double tokens, double width, double hidden) {
    return depth * (8 * tokens * width * width + 4 * tokens * width * hidden + 4 * tokens * tokens * width);
}
