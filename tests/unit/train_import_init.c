/* Weights that a training begins with: another recipe is told, what the file lacks is drawn. */
#include "train/import.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "foreign_set.h"

/* A recipe that differs in one key from the weights: told by its name and both values, before a weight is read. */
static void begin_with_another_recipe(void **state) {
    (void)state;
    set *truth = golden("vit_mae_rgb.safetensors");
    lam_network *network = import(truth);
    lam_mae_config *m = &network->settings.model, recipe = *m;
    must(lam_import_weights_check(network, in("model.pth")));
    for (int key = 0;; key++) {
        const char *message = NULL;
        *m = recipe;
        switch (key) {
        case 0: m->num_heads = 6, message = "train.init: model.num_heads is 6, in "; break;
        case 1: m->depth = 1, message = "model.depth is 1, in "; break;
        case 2: m->layer_norm_eps = 1e-5, message = "model.layer_norm_eps is 1e-05, in "; break;
        case 3: m->learned_positions = true, message = "model.positions is learned, in "; break;
        case 4: m->embed_dim = 24, message = "model.embed_dim is 24, in "; break;
        case 5: m->mlp_dim = 96, message = "model.mlp_dim is 96, in "; break;
        case 6: m->in_channels = 5, message = "the data have 5 channels, "; break;
        case 7: m->patch_size = 16, message = "model.patch_size is 16, in "; break;
        case 8: m->kind = LAM_MAE_VIT_PARALLEL, message = "model.name is mae_vit_parallel, in "; break;
        case 9: m->decoder_depth = 1, message = "model.decoder_depth is 1, in "; break;
        case 10: m->decoder_num_heads = 2, message = "model.decoder_num_heads is 2, in "; break;
        case 11: m->decoder_embed_dim = 16, message = "model.decoder_embed_dim is 16, in "; break;
        default: break;
        }
        if (!message) break;
        assert_int_equal(lam_import_weights_check(network, in("model.pth")), LAM_ERROR_CONFIG);
        if (!strstr(lam_last_error(), message)) fail_msg("'%s' lacks '%s'", lam_last_error(), message);
    }
    /* Positions that were learned are none of sines and cosines. */
    int table = find(truth, "vit.embeddings.position_embeddings");
    truth->values[table][48 * 5 + 3] += 0.25f;
    must(lam_torch_write(in("learned.pth"), truth->tensor, truth->count, false));
    assert_int_equal(lam_import_weights_check(network, in("learned.pth")), LAM_ERROR_CONFIG);
    assert_non_null(strstr(lam_last_error(), "model.positions is sincos, in "));
    truth->values[table][48 * 5 + 3] -= 0.25f;
    /* What no network here has stays no part of one. */
    add(truth, "vit.encoder.layer.0.layer_scale", 1, (int64_t[]){1}, (float[]){1});
    must(lam_torch_write(in("scaled.pth"), truth->tensor, truth->count, false));
    assert_int_equal(lam_import_weights(network, in("scaled.pth")), LAM_ERROR_INPUT);
    assert_non_null(strstr(lam_last_error(), "which no network here has"));
    /* Nothing says the heads: the recipe does. */
    write_config("{}");
    m->num_heads = 6;
    must(lam_import_weights_check(network, in("model.pth")));
    write_config(rgb_config);
    lam_network_free(&network);
    free_set(truth);
}

static void weights_to_begin_with(void **state) {
    (void)state;
    set *truth = golden("vit_mae_rgb.safetensors"), *s = golden("vit_mae_rgb.safetensors");
    uint64_t seed = 7;
    drop_named(s, "decoder.");
    must(lam_torch_write(in("encoder.pth"), s->tensor, s->count, true));
    lam_network *network = NULL, *drawn = NULL;
    must(lam_torch_write(in("model.pth"), truth->tensor, truth->count, true));
    must(lam_import_network(&network, in("model.pth"), &seed));
    must(lam_import_network(&drawn, in("model.pth"), &seed));
    const lam_parameter_entry *norm = lam_parameters_find(network->parameters, "vit.layernorm.weight");
    assert_true(network->parameters->weights[norm->offset] == 1.0f); /* drawn, not read */
    must(lam_import_weights(network, in("encoder.pth")));
    expect_same(network, truth, false);
    for (int64_t i = 0; i < drawn->parameters->entries; i++) {
        const lam_parameter_entry *e = &drawn->parameters->entry[i];
        if (!strncmp(e->name, "decoder.", 8))
            assert_memory_equal(network->parameters->weights + e->offset,
                                drawn->parameters->weights + e->offset, (size_t)e->count * sizeof(float));
    }
    must(lam_import_weights(network, in("model.pth")));
    expect_same(network, truth, true);
    drop_named(s, "layer.0.layernorm_after");
    must(lam_torch_write(in("encoder.pth"), s->tensor, s->count, true));
    assert_int_equal(lam_import_weights(network, in("encoder.pth")), LAM_ERROR_INPUT);
    assert_non_null(strstr(lam_last_error(), "train.init"));
    lam_network_free(&drawn);
    lam_network_free(&network);
    free_set(s);
    free_set(truth);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(begin_with_another_recipe),
        cmocka_unit_test(weights_to_begin_with),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
