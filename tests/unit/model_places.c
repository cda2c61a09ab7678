/* Where parameters lie, by their names in the published checkpoints, and what layer-wise decay makes of it. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "model/nets/mae.h"
#include "model/places.h"

static void ok(lam_status status) {
    if (status != LAM_OK) fail_msg("%s", lam_last_error());
}

enum { DEPTH = 12 };

static void layers(void **state) {
    (void)state;
    static const struct {
        const char *name;
        int64_t layer;
    } cases[] = {{"vit.embeddings.cls_token", 0},
                 {"vit.embeddings.position_embeddings", 0},
                 {"vit.embeddings.patch_embeddings.projection.weight", 0},
                 {"vit.encoder.layer.0.attention.attention.query.weight", 1},
                 {"vit.encoder.layer.11.output.dense.bias", DEPTH},
                 {"vit.layernorm.weight", DEPTH + 1},
                 {"decoder.mask_token", DEPTH + 1},
                 {"decoder.decoder_embed.weight", DEPTH + 1},
                 {"decoder.decoder_layers.3.output.dense.weight", DEPTH + 1},
                 {"decoder.decoder_pred.bias", DEPTH + 1},
                 {"encoder.vit_backbone.cls_token", 0},
                 {"encoder.vit_backbone.pos_embed", 0},
                 {"encoder.vit_backbone.patch_embed.proj.bias", 0},
                 {"encoder.vit_backbone.blocks.4.in_proj.weight", 5},
                 {"encoder.vit_backbone.blocks.10.ls.gamma", 11},
                 {"encoder.vit_backbone.fc_norm.weight", DEPTH + 1},
                 {"encoder_decoder_proj.weight", DEPTH + 1},
                 {"decoder.blocks.0.mlp_bias", DEPTH + 1}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int64_t layer = lam_parameter_layer(cases[i].name, DEPTH);
        if (layer != cases[i].layer)
            fail_msg("%s: layer %lld, not %lld", cases[i].name, (long long)layer, (long long)cases[i].layer);
    }
}

static lam_parameters *network(void) {
    lam_mae_config config = {.image_size = 16,
                             .patch_size = 8,
                             .in_channels = 2,
                             .embed_dim = 8,
                             .depth = 3,
                             .num_heads = 2,
                             .decoder_embed_dim = 12,
                             .decoder_depth = 1,
                             .decoder_num_heads = 2,
                             .mask_ratio = 0.5,
                             .pixel_type = LAM_U8};
    lam_parameters *p;
    ok(lam_parameters_create(&p));
    ok(lam_mae_parameters(p, &config));
    return p;
}

static void layer_decay(void **state) {
    (void)state;
    lam_parameters *p = network();
    lam_layer_decay(p, 3, 0.65);
    static const struct {
        const char *name;
        double scale;
    } cases[] = {{"vit.embeddings.cls_token", 0.65 * 0.65 * 0.65 * 0.65},
                 {"vit.encoder.layer.0.output.dense.weight", 0.65 * 0.65 * 0.65},
                 {"vit.encoder.layer.2.output.dense.weight", 0.65},
                 {"vit.layernorm.bias", 1},
                 {"decoder.decoder_layers.0.output.dense.weight", 1}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_true(fabs(lam_parameters_find(p, cases[i].name)->lr_scale - cases[i].scale) < 1e-15);
    lam_layer_decay(p, 3, 1);
    for (int64_t i = 0; i < p->entries; i++) assert_true(p->entry[i].lr_scale == 1);
    lam_parameters_free(p);
}

/* Six matrices a block, and the one between encoder and decoder. */
static void matrices(void **state) {
    (void)state;
    lam_parameters *p = network();
    int64_t rows[LAM_MATRIX_PARTS], columns, found = 0;
    for (int64_t i = 0; i < p->entries; i++) {
        const lam_parameter_entry *e = &p->entry[i];
        int parts = lam_parameter_matrices(e, rows, &columns);
        found += parts;
        bool out = strstr(e->name, "patch_embed") || strstr(e->name, "pred") || strstr(e->name, "token") ||
                   strstr(e->name, "norm") || strstr(e->name, "bias") || strstr(e->name, "position") ||
                   strstr(e->name, "pos_embed");
        if (parts != !out) fail_msg("%s: %d matrices", e->name, parts);
        if (parts) assert_true(rows[0] == e->shape[0] && columns == e->shape[1]);
    }
    assert_int_equal(found, 4 * 6 + 1);
    lam_parameters_free(p);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(layers), cmocka_unit_test(layer_decay),
                                       cmocka_unit_test(matrices)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
