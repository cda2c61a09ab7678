/* The encoder of parallel blocks: the published outputs of one block with its bias at both places, gradients of the whole
 * net, what is drawn at the start, embeddings. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "mae_check.h"
#include "model/nets/parts.h"

/* The block's input becomes tokens through a patch projection that is the identity: 2 x 2 pixels of 2 channels are 8 values. */
static const lam_mae_config one_block = {.kind = LAM_MAE_VIT_PARALLEL,
                                         .image_size = 4,
                                         .patch_size = 2,
                                         .in_channels = 2,
                                         .embed_dim = 8,
                                         .depth = 1,
                                         .num_heads = 2,
                                         .decoder_embed_dim = 8,
                                         .decoder_depth = 1,
                                         .decoder_num_heads = 1,
                                         .mask_ratio = 0.5,
                                         .pixel_type = LAM_F32};

static void golden_block_once(void) {
    lam_json *json = golden_numbers(), *golden = lam_json_get(json, "parallel_scaling_block");
    const char *const outputs[] = {"y_timm_le_1_0_24", "y_timm_ge_1_0_25"};
    for (int layout = 0; layout < 2; layout++) {
        net n = make_parameters(&one_block, 1);
        uint32_t state = (uint32_t)lam_json_int(lam_json_get(golden, "lcg_seed"), 0);
        const lam_json *order = lam_json_get(golden, "param_order");
        float *in_proj_bias = weight(&n, "encoder.vit_backbone.blocks.0.in_proj.bias");
        for (size_t i = 0; i < lam_json_size(order); i++) {
            const char *name = lam_json_text(lam_json_at(lam_json_at(order, i), 0), "");
            char full[128];
            snprintf(full, sizeof full, "encoder.vit_backbone.blocks.0.%s", name);
            bool is_bias = !strcmp(name, "mlp_bias"),
                 one = strstr(name, "norm.weight") || strstr(name, "gamma");
            /* 24 zeros of q, k, v come before the MLP's 32 in old timm, after them in new. */
            float *to = is_bias ? in_proj_bias + (layout == 0 ? 24 : 0) : weight(&n, full);
            int64_t count = is_bias ? 32 : lam_parameters_find(n.parameters, full)->count;
            for (int64_t k = 0; k < count; k++) to[k] = (float)(next_uniform(&state) - 0.5 + one);
        }
        float *projection = weight(&n, "encoder.vit_backbone.patch_embed.proj.weight");
        for (int i = 0; i < 64; i++) projection[i] = i % 9 == 0 ? 1.0f : 0.0f;
        memset(weight(&n, "encoder.vit_backbone.pos_embed"), 0, 5 * 8 * sizeof(float));

        lam_tensor *patches = lam_input(n.graph, "patches", LAM_F32, 3, (int64_t[]){1, 2, 8});
        lam_tensor *y = lam_parallel_encoder(n.graph, &n.config, NULL, patches, NULL, NULL, 1, false, NULL);
        lam_keep(n.graph, y, "y");
        ok(lam_graph_plan(n.graph));
        const lam_json *x = lam_json_get(golden, "x");
        for (size_t i = 0; i < 24; i++)
            *(i < 8 ? weight(&n, "encoder.vit_backbone.cls_token") + i : values(patches) + i - 8) =
                (float)number(x, i);
        ok(lam_graph_forward(n.graph));
        compare_numbers(lam_json_get(golden, outputs[layout]), 0, values(y), 24, 1e-6);
        drop(&n);
    }
    lam_json_free(json);
}
static void golden_block(void **state) { (void)state, on_every_isa(golden_block_once); }

/* The whole net of timm's blocks in float64, mask and gradients included. */
static void golden_network_once(void) {
    check_golden_network(LAM_MAE_VIT_PARALLEL, "mae_vit_parallel.safetensors");
}
static void golden_network(void **state) { (void)state, on_every_isa(golden_network_once); }

static const lam_mae_config toy = {.kind = LAM_MAE_VIT_PARALLEL,
                                   .image_size = 15,
                                   .patch_size = 5,
                                   .in_channels = 3,
                                   .embed_dim = 12,
                                   .depth = 2,
                                   .num_heads = 2,
                                   .mlp_dim = 20,
                                   .decoder_embed_dim = 20,
                                   .decoder_depth = 2,
                                   .decoder_num_heads = 4,
                                   .mask_ratio = 0.5,
                                   .norm_pix_loss = true,
                                   .pixel_type = LAM_U16,
                                   .normalize = LAM_NORMALIZE_CROP,
                                   .transform = 1,
                                   .seed = 3};

static void fill_training(net *n) {
    fill_pixels(&n->io.input);
    fill_draws(n, 11);
}

static void gradients(void **state) {
    (void)state;
    net n = make(&toy, 3);
    fill_training(&n);
    values(n.io.sample_weight)[1] = 0.7f;
    stir(&n, 0.2);
    check_gradients(&n, NULL);
    drop(&n);
}

static void drop_path(void **state) {
    (void)state;
    check_drop_path(&toy, fill_training);
    lam_mae_config config = toy;
    config.drop_path = 0.5;
    net n = make(&config, 3);
    fill_training(&n);
    stir(&n, 0.2);
    check_gradients(&n, NULL);
    drop(&n);
}

static void recompute(void **state) {
    (void)state;
    lam_mae_config dropping = toy;
    dropping.drop_path = 0.5;
    check_recompute(&toy, 3, fill_training);
    check_recompute(&dropping, 3, fill_training);
}

static void hidden_alone(void **state) {
    (void)state;
    check_hidden_alone(&toy, 3, fill_training);
}

static void bfloat16(void **state) {
    (void)state;
    check_bfloat16(&toy, 3, fill_training);
}

static void flops(void **state) {
    (void)state;
    check_flops(&toy);
}

/* The numbers of the start, and the names of the published checkpoints. */
static void start(void **state) {
    (void)state;
    lam_mae_config config = toy;
    config.embed_dim = 384, config.num_heads = 6, config.depth = 1, config.mlp_dim = 0;
    net n = make_parameters(&config, 1);
    const float *gamma = weight(&n, "encoder.vit_backbone.blocks.0.ls.gamma"),
                *in_proj = weight(&n, "encoder.vit_backbone.blocks.0.in_proj.weight"),
                *bias = weight(&n, "encoder.vit_backbone.blocks.0.in_proj.bias");
    double squares = 0;
    for (int64_t i = 0; i < 2688 * 384; i++) squares += (double)in_proj[i] * (double)in_proj[i];
    assert_true(fabs(sqrt(squares / (2688 * 384)) - 0.02) < 1e-4);
    for (int i = 0; i < 384; i++) assert_true(gamma[i] == 1e-4f);
    for (int i = 0; i < 2688; i++) assert_true(bias[i] == 0);
    assert_int_equal(lam_parameters_find(n.parameters, "encoder.vit_backbone.blocks.0.in_proj.bias")->count,
                     2688);
    assert_int_equal(lam_parameters_find(n.parameters, "encoder.vit_backbone.blocks.0.q_norm.weight")->count,
                     64);
    assert_true(weight(&n, "encoder.vit_backbone.fc_norm.weight")[383] == 1);
    drop(&n);
}

/* Counts of the published constructors, whose blocks have biases of 4 D values where ours have 7 D. */
static void sizes(void **state) {
    (void)state;
    static const struct {
        int64_t patch, dim, depth, heads, mlp, count;
    } published[] = {{16, 384, 12, 6, 0, 21968256},
                     {16, 768, 12, 12, 0, 86400768},
                     {8, 768, 12, 12, 0, 86105856},
                     {16, 1024, 24, 16, 0, 304057344},
                     {8, 1024, 24, 16, 0, 303664128}};
    lam_mae_config config = {.kind = LAM_MAE_VIT_PARALLEL,
                             .image_size = 256,
                             .in_channels = 6,
                             .decoder_embed_dim = 512,
                             .decoder_depth = 8,
                             .decoder_num_heads = 16,
                             .mask_ratio = 0.75,
                             .pixel_type = LAM_U8};
    for (size_t i = 0; i < sizeof published / sizeof *published; i++) {
        config.patch_size = published[i].patch;
        config.embed_dim = published[i].dim;
        config.depth = published[i].depth;
        config.num_heads = published[i].heads;
        assert_int_equal(count_parameters(&config, "encoder.") - 3 * config.embed_dim * config.depth,
                         published[i].count);
    }
    config.embed_dim = 1664, config.depth = 48, config.num_heads = 16, config.mlp_dim = 8192;
    assert_in_range(count_parameters(&config, "") / 1000000, 1855, 1875); /* G/8: "1,860 M" */
}

/* A block that is not the last gives the stream as it is there: the stream of a net of that depth. */
static void embeddings(void **state) {
    (void)state;
    lam_mae_config shallow = toy;
    shallow.depth = 1;
    net deep = make_encoder(&toy, 2, 1, false), flat = make_encoder(&shallow, 2, 1, false),
        units = make_encoder(&toy, 2, 2, true);
    stir(&deep, 0.2);
    copy_weights(&flat, &deep);
    copy_weights(&units, &deep);
    for (net *n = &deep; n; n = n == &deep ? &flat : n == &flat ? &units : NULL) {
        fill_pixels(&n->encoder.input);
        *(int64_t *)lam_tensor_data(n->encoder.only_channel) = -1;
        ok(lam_graph_forward(n->graph));
    }
    assert_int_equal(lam_tensor_count(deep.encoder.tokens), 2 * 10 * 12);
    assert_memory_equal(values(deep.encoder.tokens), values(flat.encoder.tokens),
                        2 * 10 * 12 * sizeof(float));
    assert_int_equal(lam_tensor_count(units.encoder.tokens), 2 * 10 * 20);
    drop(&deep);
    drop(&flat);
    drop(&units);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_block), cmocka_unit_test(golden_network), cmocka_unit_test(gradients),
        cmocka_unit_test(drop_path),    cmocka_unit_test(recompute),      cmocka_unit_test(bfloat16),
        cmocka_unit_test(flops),        cmocka_unit_test(start),          cmocka_unit_test(sizes),
        cmocka_unit_test(embeddings),   cmocka_unit_test(hidden_alone)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
