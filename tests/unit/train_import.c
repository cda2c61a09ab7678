/* Weights of other programs: every naming gives the same parameters, bit for bit. */
#include "train/import.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "foreign_set.h"
#include "train/export.h"

/* ---- namings ---- */

static void in_memory(set *s) {
    rename_all(s, "vit.encoder.layer.", "vit.layers.");
    rename_all(s, "attention.attention.query", "attention.q_proj");
    rename_all(s, "attention.attention.key", "attention.k_proj");
    rename_all(s, "attention.attention.value", "attention.v_proj");
    rename_all(s, "attention.output.dense", "attention.o_proj");
    rename_all(s, "intermediate.dense", "mlp.fc1");
    rename_all(s, "output.dense", "mlp.fc2");
}

static void as_saved_by_5(set *s) {
    rename_all(s, "decoder.decoder_layers.", "decoder.decoder_encoder.layer.");
}

/* q, k, v of a block become attn.qkv. */
static void fuse(set *s, const char *block, const char *end) {
    static const char *const parts[] = {"query", "key", "value"};
    char name[160];
    float joined[3 * 48 * 48];
    int64_t count = 0, shape[2] = {0, 0};
    int rank = 0;
    for (int part = 0; part < 3; part++) {
        snprintf(name, sizeof name, "%sattention.attention.%s.%s", block, parts[part], end);
        int i = find(s, name);
        assert_true(i >= 0);
        rank = s->tensor[i].rank;
        int64_t n = s->shape[i][0] * (rank == 2 ? s->shape[i][1] : 1);
        memcpy(joined + count, s->values[i], (size_t)n * sizeof(float));
        count += n;
        shape[0] += s->shape[i][0];
        shape[1] = s->shape[i][1];
        drop(s, i);
    }
    snprintf(name, sizeof name, "%sattn.qkv.%s", block, end);
    add(s, name, rank, shape, joined);
}

static void as_timm(set *s) {
    char block[64];
    for (int i = 0; i < 2; i++) {
        for (int decoder = 0; decoder < 2; decoder++) {
            snprintf(block, sizeof block, "%s.%d.", decoder ? "decoder.decoder_layers" : "vit.encoder.layer",
                     i);
            fuse(s, block, "weight");
            fuse(s, block, "bias");
        }
    }
    rename_all(s, "vit.embeddings.cls_token", "cls_token");
    rename_all(s, "vit.embeddings.position_embeddings", "pos_embed");
    rename_all(s, "vit.embeddings.patch_embeddings.projection", "patch_embed.proj");
    rename_all(s, "vit.encoder.layer.", "blocks.");
    rename_all(s, "vit.layernorm", "norm");
    rename_all(s, "decoder.decoder_layers.", "decoder_blocks.");
    rename_all(s, "decoder.", "");
    rename_all(s, "layernorm_before", "norm1");
    rename_all(s, "layernorm_after", "norm2");
    rename_all(s, "attention.output.dense", "attn.proj");
    rename_all(s, "intermediate.dense", "mlp.fc1");
    rename_all(s, "output.dense", "mlp.fc2");
}

static void prefixed(set *s) {
    for (int i = 0; i < s->count; i++) {
        char name[160];
        snprintf(name, sizeof name, "module.%.140s", s->name[i]);
        memcpy(s->name[i], name, sizeof name);
    }
}

static void as_published(set *s) { (void)s; }

static void every_naming(void **state) {
    (void)state;
    void (*const namings[])(set *) = {as_published, in_memory, as_saved_by_5, as_timm, prefixed};
    set *truth = golden("vit_mae_rgb.safetensors");
    for (size_t i = 0; i < sizeof namings / sizeof *namings; i++) {
        set *s = golden("vit_mae_rgb.safetensors");
        namings[i](s);
        lam_network *network = import(s);
        expect_same(network, truth, true);
        const lam_mae_config *m = &network->settings.model;
        assert_int_equal(m->kind, LAM_MAE_VIT);
        assert_true(m->embed_dim == 48 && m->depth == 2 && m->num_heads == 3 && m->mlp_dim == 192);
        assert_true(m->decoder_embed_dim == 32 && m->decoder_depth == 2 && m->decoder_num_heads == 4);
        assert_true(m->image_size == 32 && m->patch_size == 8 && m->in_channels == 3 && m->norm_pix_loss);
        assert_true(network->unnamed && !network->no_decoder && !m->learned_positions);
        lam_network_free(&network);
        free_set(s);
    }
    free_set(truth);
}

static void an_encoder_alone(void **state) {
    (void)state;
    set *truth = golden("vit_mae_rgb.safetensors"), *s = golden("vit_mae_rgb.safetensors");
    drop_named(s, "decoder.");
    rename_all(s, "vit.", "");
    lam_network *network = import(s), *again = NULL;
    assert_true(network->no_decoder);
    expect_same(network, truth, false);
    must(lam_make_folders(in("encoder")));
    must(lam_export_huggingface(network, in("encoder")));
    must(lam_import_network(&again, in("encoder/model.safetensors"), NULL));
    assert_true(again->no_decoder && again->settings.model.num_heads == 3);
    expect_same(again, truth, false);
    lam_network_free(&again);
    lam_network_free(&network);
    free_set(s);
    free_set(truth);
}

static void learned_positions(void **state) {
    (void)state;
    set *s = golden("vit_mae_rgb.safetensors");
    int table = find(s, "vit.embeddings.position_embeddings");
    assert_true(table >= 0);
    s->values[table][48 * 5 + 3] += 0.25f;
    lam_network *network = import(s);
    assert_true(network->settings.model.learned_positions);
    expect_same(network, s, true);
    lam_network_free(&network);
    free_set(s);
}

/* ---- parallel blocks ---- */

static void parallel_blocks(void **state) {
    (void)state;
    set *truth = golden("vit_parallel_block.safetensors");
    int bias = find(truth, "encoder.vit_backbone.blocks.1.mlp_bias");
    assert_true(bias >= 0 && truth->shape[bias][0] == 256);
    static const char *const says[] = {"{}", "{\"bias_layout\": \"timm_legacy\"}",
                                       "{\"bias_layout\": \"legacy\"}", "{\"bias_layout\": \"fixed\"}"};
    for (int c = 0; c < 4; c++) {
        bool fixed = c == 3;
        write_config(says[c]);
        lam_network *network = import(truth), *again = NULL;
        const lam_mae_config *m = &network->settings.model;
        assert_int_equal(m->kind, LAM_MAE_CHANNEL_AGNOSTIC); /* its table is repeated for 6 channels */
        assert_true(m->embed_dim == 64 && m->depth == 3 && m->num_heads == 2 && m->mlp_dim == 256);
        assert_true(m->image_size == 32 && m->patch_size == 8 && network->no_decoder);
        assert_int_equal(network->settings.bias_layout, fixed ? LAM_BIAS_FIXED : LAM_BIAS_LEGACY);
        const lam_parameter_entry *p =
            lam_parameters_find(network->parameters, "encoder.vit_backbone.blocks.1.in_proj.bias");
        const float *values = network->parameters->weights + p->offset;
        assert_int_equal(p->count, 7 * 64);
        assert_memory_equal(values + (fixed ? 0 : 192), truth->values[bias], 256 * sizeof(float));
        for (int i = 0; i < 192; i++) assert_true(values[(fixed ? 256 : 0) + i] == 0.0f);
        must(lam_make_folders(in("phenom")));
        assert_int_equal(
            lam_export_openphenom(network, in("phenom"), fixed ? LAM_BIAS_LEGACY : LAM_BIAS_FIXED),
            LAM_ERROR_INPUT);
        assert_non_null(strstr(lam_last_error(), "--bias-layout"));
        must(lam_export_openphenom(network, in("phenom"), fixed ? LAM_BIAS_FIXED : LAM_BIAS_LEGACY));
        must(lam_import_network(&again, in("phenom/pytorch_model.bin"), NULL));
        assert_int_equal(again->parameters->entries, network->parameters->entries);
        for (int64_t i = 0; i < again->parameters->entries; i++) {
            const lam_parameter_entry *e = &again->parameters->entry[i];
            if (strncmp(e->name, "encoder.", 8) != 0) continue;
            assert_memory_equal(again->parameters->weights + e->offset,
                                network->parameters->weights + e->offset, (size_t)e->count * sizeof(float));
        }
        assert_int_equal(lam_export_huggingface(network, in("phenom")), LAM_ERROR_INPUT);
        lam_network_free(&again);
        lam_network_free(&network);
    }
    free_set(truth);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_naming),
        cmocka_unit_test(an_encoder_alone),
        cmocka_unit_test(learned_positions),
        cmocka_unit_test(parallel_blocks),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
