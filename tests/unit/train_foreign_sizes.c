/* Weights of other programs that would compute something else, or that contradict the files beside them, are
 * refused. */
#include "train/foreign_sizes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "foreign_set.h"

static void refuse(const set *s, const char *what) {
    lam_network *network = NULL;
    must(lam_torch_write(in("model.pth"), s->tensor, s->count, false));
    lam_status status = lam_import_network(&network, in("model.pth"), NULL);
    if (status != LAM_ERROR_INPUT && status != LAM_ERROR_CONFIG) fail_msg("accepted: %s", what);
    if (!strstr(lam_last_error(), what)) fail_msg("'%s' lacks '%s'", lam_last_error(), what);
}

static void what_cannot_be_computed(void **state) {
    (void)state;
    static const float few[64] = {1};
    static const struct {
        const char *drop, *add, *config, *message;
    } cases[] = {
        {"layer.1.layernorm_after.bias", NULL, rgb_config, "vit.encoder.layer.1.layernorm_after.bias"},
        {"cls_token", NULL, rgb_config, "no network that is known"},
        {"patch_embeddings", NULL, rgb_config, "patch_embeddings.projection.weight"},
        {"decoder_norm", NULL, rgb_config, "decoder.decoder_norm.weight"},
        {NULL, "vit.encoder.layer.0.layer_scale", rgb_config, "which no network here has"},
        {NULL, NULL, "{}", "put a config.json"},
        {NULL, NULL, "{\"num_attention_heads\": 5}", "model.num_heads"},
        {NULL, NULL, "{\"num_attention_heads\": 3, \"hidden_act\": \"relu\"}", "hidden_act is \"relu\""},
        {"layer.1.layernorm_after.weight", "vit.encoder.layer.1.layernorm_after.weight", rgb_config,
         "another shape"},
        {"position", "vit.embeddings.position_embeddings", rgb_config, "no square image"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        set *s = golden("vit_mae_rgb.safetensors");
        bool table = cases[i].add && strstr(cases[i].add, "position");
        if (cases[i].drop) drop_named(s, cases[i].drop);
        if (cases[i].add)
            add(s, cases[i].add, table ? 3 : 1, table ? (int64_t[]){1, 4, 16} : (int64_t[]){64}, few);
        write_config(cases[i].config);
        refuse(s, cases[i].message);
        free_set(s);
    }
    write_config(rgb_config);
}

/* A value that cannot be is told with its file and key, never replaced by a default. */
static void what_files_beside_say(void **state) {
    (void)state;
    static const char heads[] = "\"num_attention_heads\": 3, \"decoder_num_attention_heads\": 4";
    static const char statistics[] = "\"image_mean\": [0.5, 0.5, 0.5], \"image_std\": [0.5, 0.5, 0.5]";
    static const struct {
        const char *file, *with, *value, *message;
    } cases[] = {
        {"config.json", "", "\"num_attention_heads\": 2.5",
         "num_attention_heads is 2.5, due is a whole number from 1 to 1024"},
        {"config.json", "", "\"num_attention_heads\": -3", "num_attention_heads is -3, due"},
        {"config.json", "", "\"num_attention_heads\": \"3\"", "num_attention_heads is \"3\", due"},
        {"config.json", "", "\"num_attention_heads\": [3]", "num_attention_heads is a list of 1, due"},
        {"config.json", heads, "\"layer_norm_eps\": 0.5",
         "layer_norm_eps is 0.5, due is a number from 1e-15"},
        {"config.json", heads, "\"mask_ratio\": 1.5", "mask_ratio is 1.5, due"},
        {"config.json", heads, "\"norm_pix_loss\": \"yes\"",
         "norm_pix_loss is \"yes\", due is true or false"},
        {"config.json", heads, "\"norm_pix_loss\": 1", "norm_pix_loss is 1, due is true or false"},
        {"config.json", heads, "\"hidden_act\": true", "hidden_act is true, due is gelu"},
        {"config.json", heads, "\"hidden_size\": 64", "hidden_size is 64, the tensors of"},
        {"config.json", heads, "\"num_hidden_layers\": 12", "num_hidden_layers is 12, the tensors of"},
        {"config.json", heads, "\"bias_layout\": \"new\"",
         "bias_layout is \"new\", due is timm_legacy|legacy|fixed"},
        {"preprocessor_config.json", "", "\"image_mean\": [0.5], \"image_std\": [0.5]",
         "image_mean is a list of 1, due is a list of 3"},
        {"preprocessor_config.json", "", "\"image_mean\": 0.5, \"image_std\": 0.5",
         "image_mean is 0.5, due is a list"},
        {"preprocessor_config.json", "", "\"image_mean\": [0.5, 0.5, 0.5]",
         "has image_mean without image_std"},
        {"preprocessor_config.json", "", "\"image_mean\": [0.5, 0.5, 0.5], \"image_std\": [0.5, -0.5, 0.5]",
         "image_std[1] is -0.5, due"},
        {"preprocessor_config.json", "", "\"image_mean\": [0.5, 0.5, 0.5], \"image_std\": [0.5, 0.5, 0]",
         "image_std[2] is 0, due"},
        {"preprocessor_config.json", "", "\"image_mean\": [0.5, \"x\", 0.5], \"image_std\": [0.5, 0.5, 0.5]",
         "image_mean[1] is \"x\", due is a number"},
        {"preprocessor_config.json", statistics, "\"do_normalize\": \"false\"",
         "do_normalize is \"false\", due"},
        {"preprocessor_config.json", statistics, "\"rescale_factor\": 2", "rescale_factor is 2, due"},
        {"preprocessor_config.json", statistics, "\"rescale_factor\": 0.3",
         "rescale_factor is 0.3, due is one over"},
        {"preprocessor_config.json", statistics, "\"rescale_factor\": null", NULL},
    };
    set *truth = golden("vit_mae_rgb.safetensors");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[512];
        int n = snprintf(text, sizeof text, "{%s%s%s}", cases[i].with, *cases[i].with ? ", " : "",
                         cases[i].value);
        write_config(rgb_config);
        must(lam_file_write(in(cases[i].file), text, (size_t)n));
        if (cases[i].message) {
            refuse(truth, cases[i].message);
            if (!strstr(lam_last_error(), in(cases[i].file)) || strstr(lam_last_error(), "command line"))
                fail_msg("'%s' does not name the file", lam_last_error());
        } else {
            lam_network *network = import(truth);
            assert_true(network->channel_bits[0] == 8 && network->channel_mean[2] == 0.5);
            lam_network_free(&network);
        }
        must(lam_remove_tree(in("preprocessor_config.json")));
    }
    write_config(rgb_config);
    free_set(truth);
}

/* The config.json of other weights is told by each size that it says; a decoder that the file lacks may have any. */
static void sizes_of_other_weights(void **state) {
    (void)state;
    static const float zeros[16 * 64];
    enum { RGB, BLOCK, WITH_DECODER }; /* WITH_DECODER: enough tensors of one to tell its sizes */
    static const char vit[] = "\"num_attention_heads\": 3, \"decoder_num_attention_heads\": 4, ";
    static const struct {
        int kind;
        const char *says, *wrong; /* NULL: it is taken */
    } cases[] = {
        {RGB,
         "\"decoder_hidden_size\": 32, \"decoder_num_hidden_layers\": 2, \"decoder_intermediate_size\": 128",
         NULL},
        {RGB, "\"decoder_hidden_size\": 512", "decoder_hidden_size is 512"},
        {RGB, "\"decoder_num_hidden_layers\": 8", "decoder_num_hidden_layers is 8"},
        {RGB, "\"decoder_intermediate_size\": 64", "decoder_intermediate_size is 64"},
        {BLOCK,
         "\"embed_dim\": 64, \"depth\": 3, \"patch_size\": 8, \"image_size\": 32, \"num_attention_heads\": 2",
         NULL},
        {BLOCK, "\"embed_dim\": 384", "embed_dim is 384"},
        {BLOCK, "\"depth\": 12", "depth is 12"},
        {BLOCK, "\"patch_size\": 16", "patch_size is 16"},
        {BLOCK, "\"image_size\": 256", "image_size is 256"},
        {BLOCK, "\"num_attention_heads\": 4", "num_attention_heads is 4"},
        {BLOCK, "\"decoder_embed_dim\": 512, \"decoder_depth\": 8", NULL},
        {WITH_DECODER, "\"decoder_embed_dim\": 512", "decoder_embed_dim is 512"},
        {WITH_DECODER, "\"decoder_depth\": 8", "decoder_depth is 8"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[256];
        set *s = golden(cases[i].kind == RGB ? "vit_mae_rgb.safetensors" : "vit_parallel_block.safetensors");
        if (cases[i].kind == WITH_DECODER) {
            add(s, "encoder_decoder_proj.weight", 2, (int64_t[]){16, 64}, zeros);
            add(s, "decoder.decoders.0.0.mlp.fc2.weight", 2, (int64_t[]){16, 64}, zeros);
            add(s, "decoder.mlp.fc2.weight", 2, (int64_t[]){16, 64}, zeros);
        }
        snprintf(text, sizeof text, "{%s%s}", cases[i].kind == RGB ? vit : "", cases[i].says);
        write_config(text);
        if (cases[i].wrong) {
            refuse(s, cases[i].wrong);
            assert_non_null(strstr(lam_last_error(), in("config.json")));
            assert_non_null(strstr(lam_last_error(), "model.pth make it "));
            assert_non_null(strstr(lam_last_error(), "put theirs in its place"));
        } else {
            lam_network *network = import(s);
            lam_network_free(&network);
        }
        free_set(s);
    }
    write_config(rgb_config);
}

/* Shapes whose product is nothing may have any dimensions; sums and products of them must not be made. */
static void impossible_dimensions(void **state) {
    (void)state;
    static const char header[] =
        "{\"cls_token\":{\"dtype\":\"F32\",\"shape\":[0,1,9223372036854775807],\"data_offsets\":[0,0]},"
        "\"pos_embed\":{\"dtype\":\"F32\",\"shape\":[0,9223372036854775807,1],\"data_offsets\":[0,0]},"
        "\"patch_embed.proj.weight\":{\"dtype\":\"F32\",\"shape\":[0,1,9223372036854775807,9223372036854775807],"
        "\"data_offsets\":[0,0]},"
        "\"blocks.0.mlp.fc2.weight\":{\"dtype\":\"F32\",\"shape\":[0,9223372036854775807],\"data_offsets\":[0,0]}}";
    char file[sizeof header + 8] = {0};
    size_t length = sizeof header - 1;
    lam_network *network = NULL;
    memcpy(file, &length, sizeof length);
    memcpy(file + 8, header, length);
    must(lam_file_write(in("huge.safetensors"), file, 8 + length));
    write_config("{\"num_attention_heads\": 3}");
    assert_int_equal(lam_import_network(&network, in("huge.safetensors"), NULL), LAM_ERROR_INPUT);
    assert_non_null(strstr(lam_last_error(), "tensor cls_token should have 3 dimensions, none of them 0"));
    write_config(rgb_config);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_cannot_be_computed),
        cmocka_unit_test(what_files_beside_say),
        cmocka_unit_test(sizes_of_other_weights),
        cmocka_unit_test(impossible_dimensions),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
