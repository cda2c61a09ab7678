/* What the network sees: standardised patches, masks, draws; against the published numbers and plain
 * formulas. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/files.h"
#include "base/json.h"
#include "base/memory.h"
#include "base/rng.h"
#include "model/nets/mae.h"
#include "model/ops.h"
#include "tests/unit/device.h"
#include "tests/unit/golden_file.h"

static void ok(lam_status status) {
    if (status != LAM_OK) fail_msg("%s", lam_last_error());
}

static lam_json *golden(void) {
    char path[1024], *bytes;
    size_t size;
    lam_json *json;
    golden_file(path, "mae_golden.json");
    ok(lam_file_read(path, &bytes, &size));
    ok(lam_json_parse(&json, bytes, size, "mae_golden.json"));
    lam_free(bytes);
    return json;
}

static double number(const lam_json *array, size_t i) { return lam_json_float(lam_json_at(array, i), NAN); }

static lam_parameters *no_parameters(void) {
    lam_parameters *p;
    ok(lam_parameters_create(&p));
    ok(lam_parameters_layout(p, 0));
    return p;
}

/* ---- published numbers ---- */

static void golden_standardisation(void **state) {
    (void)state;
    lam_json *json = golden(), *part = lam_json_get(json, "self_standardize"),
             *pixels = lam_json_get(part, "pixels_uint8_shape_1_2_4_4"), *out = lam_json_get(part, "out");
    assert_int_equal(lam_json_size(out), 32);
    lam_parameters *p = no_parameters();
    lam_graph *g;
    ok(lam_graph_create(&g, p, test_backend()));
    lam_tensor *x = lam_input(g, "x", LAM_U8, 4, (int64_t[]){1, 2, 4, 4}),
               *scale = lam_input(g, "scale", LAM_F32, 1, (int64_t[]){2}),
               *present = lam_input(g, "present", LAM_F32, 2, (int64_t[]){1, 2});
    lam_standardise how = {.patch_size = 2, .by_crop = true, .scale = scale, .present = present};
    lam_tensor *y = lam_keep(g, lam_patches(g, x, &how), "y"),
               *z = lam_keep(g, lam_gather_patches(g, y, NULL, 2), "z");
    ok(lam_graph_plan(g));
    for (size_t i = 0; i < 32; i++) ((uint8_t *)lam_tensor_data(x))[i] = (uint8_t)number(pixels, i);
    for (int c = 0; c < 2; c++)
        ((float *)lam_tensor_data(scale))[c] = 1.0f / 255.0f, ((float *)lam_tensor_data(present))[c] = 1;
    ok(lam_graph_forward(g));
    for (int64_t c = 0; c < 2; c++)
        for (int64_t row = 0; row < 4; row++)
            for (int64_t col = 0; col < 4; col++) {
                double expected = number(out, (size_t)(c * 16 + row * 4 + col));
                int64_t n = row / 2 * 2 + col / 2, inside = row % 2 * 2 + col % 2;
                assert_true(fabs((double)((float *)lam_tensor_data(y))[n * 8 + inside * 2 + c] - expected) <
                            1e-6); /* channel fastest */
                assert_true(fabs((double)((float *)lam_tensor_data(z))[n * 8 + c * 4 + inside] - expected) <
                            1e-6); /* channel slowest */
            }
    lam_graph_free(g);
    lam_parameters_free(p);
    lam_json_free(json);
}

static void golden_mask(void **state) {
    (void)state;
    lam_json *json = golden(), *part = lam_json_get(json, "masking"), *noise = lam_json_get(part, "noise");
    int64_t tokens = (int64_t)lam_json_size(noise), keep = lam_json_int(lam_json_get(part, "len_keep"), 0);
    lam_parameters *p = no_parameters();
    lam_graph *g;
    ok(lam_graph_create(&g, p, test_backend()));
    lam_tensor *x = lam_input(g, "noise", LAM_F32, 2, (int64_t[]){2, tokens}), *kept, *restore, *mask;
    lam_mask_plan(g, x, keep, &kept, &restore, &mask);
    lam_keep(g, kept, "kept");
    lam_keep(g, restore, "restore");
    lam_keep(g, mask, "mask");
    ok(lam_graph_plan(g));
    for (int64_t i = 0; i < tokens; i++) {
        ((float *)lam_tensor_data(x))[i] = (float)number(noise, (size_t)i);
        ((float *)lam_tensor_data(x))[tokens + i] = 0.5f; /* ties: by index */
    }
    ok(lam_graph_forward(g));
    for (int64_t i = 0; i < keep; i++) {
        assert_int_equal(((int32_t *)lam_tensor_data(kept))[i],
                         (int)number(lam_json_get(part, "kept_token_ids"), (size_t)i));
        assert_int_equal(((int32_t *)lam_tensor_data(kept))[keep + i], (int)i);
    }
    for (int64_t i = 0; i < tokens; i++) {
        assert_int_equal(((int32_t *)lam_tensor_data(restore))[i],
                         (int)number(lam_json_get(part, "ind_restore"), (size_t)i));
        assert_true((double)((float *)lam_tensor_data(mask))[i] ==
                    number(lam_json_get(part, "mask"), (size_t)i));
        assert_int_equal(((int32_t *)lam_tensor_data(restore))[tokens + i], (int)i);
        assert_true(((float *)lam_tensor_data(mask))[tokens + i] == (i < keep ? 0.0f : 1.0f));
    }
    lam_graph_free(g);
    lam_parameters_free(p);
    lam_json_free(json);
}

/* The published table has rows first; He et al. and the checkpoints have columns first: the halves change
 * places. */
static void golden_positions(void **state) {
    (void)state;
    lam_json *json = golden(), *table = lam_json_get(json, "sincos_D8_L2_cls");
    lam_mae_config config = {.image_size = 8,
                             .patch_size = 4,
                             .in_channels = 1,
                             .embed_dim = 8,
                             .depth = 1,
                             .num_heads = 1,
                             .decoder_embed_dim = 8,
                             .decoder_depth = 1,
                             .decoder_num_heads = 1,
                             .mask_ratio = 0.5,
                             .pixel_type = LAM_F32};
    lam_parameters *p;
    ok(lam_parameters_create(&p));
    ok(lam_mae_parameters(p, &config));
    ok(lam_parameters_layout(p, 0));
    lam_mae_fill_positions(p, &config);
    const float *ours = p->weights + lam_parameters_find(p, "vit.embeddings.position_embeddings")->offset;
    assert_int_equal(lam_json_size(table), 40);
    for (size_t i = 0; i < 40; i++)
        assert_true(fabs((double)ours[i / 8 * 8 + (i + 4) % 8] - number(table, i)) < 1e-6);
    lam_parameters_free(p);
    lam_json_free(json);
}

/* ---- formulas ---- */

static double transformed(double x, int transform) {
    return transform == 1 ? sqrt(x) : transform == 2 ? log(1 + 1023 * x) / log(1024) : x;
}

enum { B = 2, C = 3, S = 6, P = 3, N = 4 };

static void check_patches(lam_dtype type, int transform, bool by_crop, int64_t only) {
    lam_parameters *p = no_parameters();
    lam_graph *g;
    ok(lam_graph_create(&g, p, test_backend()));
    lam_standardise how = {.patch_size = P, .transform = transform, .by_crop = by_crop};
    lam_tensor *x = lam_input(g, "x", type, 4, (int64_t[]){B, C, S, S});
    how.scale = lam_input(g, "scale", LAM_F32, 1, (int64_t[]){C});
    how.present = lam_input(g, "present", LAM_F32, 2, (int64_t[]){B, C});
    if (!by_crop) {
        how.mean = lam_input(g, "mean", LAM_F32, 2, (int64_t[]){B, C});
        how.rstd = lam_input(g, "rstd", LAM_F32, 2, (int64_t[]){B, C});
    }
    how.only_channel = only == -2 ? NULL : lam_input(g, "only", LAM_I64, 1, (int64_t[]){1});
    lam_tensor *y = lam_keep(g, lam_patches(g, x, &how), "y");
    ok(lam_graph_plan(g));
    double limit = type == LAM_U8 ? 255 : 4095;
    int64_t pixel[B * C * S * S];
    for (int64_t i = 0; i < B * C * S * S; i++) {
        pixel[i] = i * i * 2654435761LL % (int64_t)(limit + 1);
        if (i / (S * S) == 4) pixel[i] = 17; /* a constant channel */
        if (type == LAM_U8)
            ((uint8_t *)lam_tensor_data(x))[i] = (uint8_t)pixel[i];
        else
            ((uint16_t *)lam_tensor_data(x))[i] = (uint16_t)pixel[i];
    }
    for (int c = 0; c < C; c++) ((float *)lam_tensor_data(how.scale))[c] = (float)(1 / limit);
    for (int i = 0; i < B * C; i++) {
        ((float *)lam_tensor_data(how.present))[i] = i == 3 ? 0.0f : 1.0f;
        if (by_crop) continue;
        ((float *)lam_tensor_data(how.mean))[i] = 0.1f * (float)i;
        ((float *)lam_tensor_data(how.rstd))[i] = 1.0f + (float)i;
    }
    if (how.only_channel) *(int64_t *)lam_tensor_data(how.only_channel) = only;
    ok(lam_graph_forward(g));
    for (int64_t i = 0; i < B * C; i++) {
        double mean = 0, variance = 0, rstd;
        const int64_t *from = pixel + i * S * S;
        for (int k = 0; k < S * S; k++) mean += transformed((double)from[k] / limit, transform) / (S * S);
        for (int k = 0; k < S * S; k++)
            variance += pow(transformed((double)from[k] / limit, transform) - mean, 2) / (S * S);
        rstd = 1 / sqrt(variance + 1e-5);
        if (!by_crop) mean = 0.1 * (double)i, rstd = 1 + (double)i;
        int64_t b = i / C, c = i % C;
        bool zero = i == 3 || (only >= 0 && only != c);
        for (int64_t row = 0; row < S; row++)
            for (int64_t col = 0; col < S; col++) {
                double expected =
                    zero ? 0 : (transformed((double)from[row * S + col] / limit, transform) - mean) * rstd;
                int64_t n = row / P * (S / P) + col / P, inside = row % P * P + col % P;
                double got = (double)((float *)lam_tensor_data(y))[((b * N + n) * P * P + inside) * C + c];
                if (!(fabs(got - expected) < 3e-5))
                    fail_msg("type %d transform %d crop %d: %g, not %g", (int)type, transform, by_crop, got,
                             expected);
            }
    }
    lam_graph_free(g);
    lam_parameters_free(p);
}

static void patches(void **state) {
    (void)state;
    for (int transform = 0; transform < 3; transform++)
        for (int by_crop = 0; by_crop < 2; by_crop++) {
            check_patches(LAM_U8, transform, by_crop, -2);
            check_patches(LAM_U16, transform, by_crop, -1);
            check_patches(LAM_U16, transform, by_crop, 1);
        }
}

static void noise(void **state) {
    (void)state;
    lam_parameters *p = no_parameters();
    lam_graph *g;
    ok(lam_graph_create(&g, p, test_backend()));
    lam_tensor *step = lam_input(g, "step", LAM_I64, 1, (int64_t[]){1}),
               *ids = lam_input(g, "ids", LAM_I64, 1, (int64_t[]){3});
    lam_mask how = {LAM_MASKING_RANDOM, 7, 1, 3, 42};
    lam_tensor *y = lam_keep(g, lam_mask_noise(g, step, ids, &how), "noise");
    ok(lam_graph_plan(g));
    *(int64_t *)lam_tensor_data(step) = 1234;
    memcpy(lam_tensor_data(ids), (int64_t[]){5, 6000000000LL, 0}, 3 * sizeof(int64_t));
    ok(lam_graph_forward(g));
    for (int64_t b = 0; b < 3; b++)
        for (int64_t n = 0; n < 7; n++) {
            float u[4];
            lam_rng_uniform4(lam_rng_key(42, LAM_RNG_MASK), 1234,
                             (uint64_t)((int64_t *)lam_tensor_data(ids))[b], (uint32_t)(n / 4), u);
            assert_true(((float *)lam_tensor_data(y))[b * 7 + n] == u[n % 4]);
        }
    lam_graph_free(g);
    lam_parameters_free(p);
}

/* Tokens or hidden units of a block, for pixels that count up. Caller frees. */
static float *encode(lam_parameters *p, const lam_mae_config *config, int64_t block, bool hidden,
                     int64_t width) {
    lam_graph *g;
    lam_mae_encoder_io io;
    ok(lam_graph_create(&g, p, test_backend()));
    ok(lam_mae_build_encoder(g, config, 1, block, hidden, &io));
    ok(lam_graph_plan(g));
    for (int i = 0; i < 288; i++) ((uint8_t *)lam_tensor_data(io.input.pixels))[i] = (uint8_t)(i * 97 % 256);
    for (int c = 0; c < 2; c++) {
        ((float *)lam_tensor_data(io.input.scale))[c] = 1.0f / 255.0f;
        ((float *)lam_tensor_data(io.input.present))[c] = 1;
    }
    *(int64_t *)lam_tensor_data(io.only_channel) = -1;
    ok(lam_graph_forward(g));
    assert_int_equal(lam_tensor_dim(io.tokens, 2), width);
    float *out = malloc((size_t)(10 * width) * sizeof(float));
    memcpy(out, lam_tensor_data(io.tokens), (size_t)(10 * width) * sizeof(float));
    lam_graph_free(g);
    return out;
}

/* Without attention the hidden units of block 2 are GELU(W LayerNorm(x) + b) of the tokens x after block 1. */
static void hidden_units(lam_parameters *p, const lam_mae_config *config) {
    float *tokens = encode(p, config, 1, false, 16), *hidden = encode(p, config, 2, true, 64);
    const float *w =
        p->weights + lam_parameters_find(p, "vit.encoder.layer.1.intermediate.dense.weight")->offset;
    for (int t = 0; t < 10; t++) {
        const float *x = tokens + t * 16;
        double mean = 0, variance = 0;
        for (int i = 0; i < 16; i++) mean += (double)x[i] / 16;
        for (int i = 0; i < 16; i++) variance += ((double)x[i] - mean) * ((double)x[i] - mean) / 16;
        for (int k = 0; k < 64; k++) {
            double sum = 0; /* fresh weights: LayerNorm's are 1 and 0, biases are 0 */
            for (int i = 0; i < 16; i++)
                sum += (double)w[k * 16 + i] * ((double)x[i] - mean) / sqrt(variance + 1e-6);
            assert_true(fabs(0.5 * sum * (1 + erf(sum / sqrt(2))) - (double)hidden[t * 64 + k]) < 1e-5);
        }
    }
    free(tokens);
    free(hidden);
}

/* With the output of attention switched off tokens do not mix: what the encoder computes for a patch is then
 * what the masked network computes for it where it keeps it. */
static void encoder(void **state) {
    (void)state;
    lam_mae_config config = {.image_size = 12,
                             .patch_size = 4,
                             .in_channels = 2,
                             .embed_dim = 16,
                             .depth = 3,
                             .num_heads = 2,
                             .decoder_embed_dim = 8,
                             .decoder_depth = 1,
                             .decoder_num_heads = 1,
                             .mask_ratio = 0.5,
                             .pixel_type = LAM_U8,
                             .seed = 2};
    lam_parameters *p;
    ok(lam_parameters_create(&p));
    ok(lam_mae_parameters(p, &config));
    ok(lam_parameters_layout(p, 6));
    lam_mae_fill_positions(p, &config);
    for (int64_t e = 0; e < p->entries; e++) /* no output of attention: tokens do not mix */
        if (strstr(p->entry[e].name, "attention.output.dense.weight"))
            memset(p->weights + p->entry[e].offset, 0, (size_t)p->entry[e].count * sizeof(float));
    lam_graph *g, *h;
    lam_mae_io io;
    lam_mae_encoder_io encoder_io;
    ok(lam_graph_create(&g, p, test_backend()));
    ok(lam_graph_create(&h, p, test_backend()));
    ok(lam_mae_build(g, &config, 1, &io));
    ok(lam_mae_build_encoder(h, &config, 1, 3, false, &encoder_io));
    ok(lam_graph_plan(g));
    ok(lam_graph_plan(h));
    for (int i = 0; i < 288; i++) ((uint8_t *)lam_tensor_data(io.input.pixels))[i] = (uint8_t)(i * 97 % 256);
    memcpy(lam_tensor_data(encoder_io.input.pixels), lam_tensor_data(io.input.pixels), 288);
    for (int c = 0; c < 2; c++) {
        ((float *)lam_tensor_data(io.input.scale))[c] =
            ((float *)lam_tensor_data(encoder_io.input.scale))[c] = 1.0f / 255.0f;
        ((float *)lam_tensor_data(io.input.present))[c] =
            ((float *)lam_tensor_data(encoder_io.input.present))[c] = 1;
    }
    *(int64_t *)lam_tensor_data(encoder_io.only_channel) = -1;
    ok(lam_graph_forward(g));
    ok(lam_graph_forward(h));
    const float *latent = lam_tensor_data(io.latent), *tokens = lam_tensor_data(encoder_io.tokens);
    const int32_t *restore = lam_tensor_data(io.ids_restore);
    assert_int_equal(lam_tensor_dim(encoder_io.tokens, 1), 10);
    int compared = 0;
    for (int64_t n = 0; n < 9; n++) {
        if (restore[n] >= 4) continue;
        for (int64_t i = 0; i < 16; i++)
            assert_true(fabsf(latent[(1 + restore[n]) * 16 + i] - tokens[(1 + n) * 16 + i]) < 1e-5f);
        compared++;
    }
    assert_int_equal(compared, 4);
    float all = tokens[16];
    *(int64_t *)lam_tensor_data(encoder_io.only_channel) = 0;
    ok(lam_graph_forward(h));
    tokens = lam_tensor_data(encoder_io.tokens);
    assert_true(tokens[16] != all);
    lam_graph_free(g);
    lam_graph_free(h);
    ok(lam_graph_create(&h, p, test_backend()));
    ok(lam_graph_create(&h, p, test_backend()));
    assert_int_equal(lam_mae_build_encoder(h, &config, 1, 4, false, &encoder_io), LAM_ERROR_USAGE);
    lam_graph_free(h);
    hidden_units(p, &config);
    lam_parameters_free(p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_standardisation),
        cmocka_unit_test(golden_mask),
        cmocka_unit_test(golden_positions),
        cmocka_unit_test(patches),
        cmocka_unit_test(noise),
        cmocka_unit_test(encoder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
