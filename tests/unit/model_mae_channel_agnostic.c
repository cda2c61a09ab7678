/* The channel-agnostic network: published outputs of its encoder, decoder and loss, gradients of the whole net, and what its
 * name promises: other channels than in training, in any order, and channels that are missing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "mae_check.h"
#include "model/nets/parts.h"
#include "model/ops.h"
#include "tests/unit/device.h"

/* ---- published numbers ---- */

static const lam_mae_config golden_config = {.kind = LAM_MAE_CHANNEL_AGNOSTIC,
                                             .image_size = 32,
                                             .patch_size = 8,
                                             .in_channels = 4,
                                             .embed_dim = 64,
                                             .depth = 3,
                                             .num_heads = 2,
                                             .decoder_embed_dim = 16,
                                             .decoder_depth = 1,
                                             .decoder_num_heads = 2,
                                             .mask_ratio = 0.75,
                                             .pixel_type = LAM_U8,
                                             .normalize = LAM_NORMALIZE_CROP};

/* fixed: the 256 values of mlp_bias stand before the zeros of q, k, v, as in newer timm. */
static void load_encoder(net *n, lam_safetensors *file, bool fixed) {
    for (int64_t e = 0; e < n->parameters->entries; e++) {
        const lam_parameter_entry *entry = &n->parameters->entry[e];
        if (strncmp(entry->name, "encoder.", 8) != 0) continue;
        float *to = n->parameters->weights + entry->offset;
        char name[200];
        snprintf(name, sizeof name, "param.%s", entry->name);
        char *bias = strstr(name, "in_proj.bias");
        if (bias) strcpy(bias, "mlp_bias");
        int64_t count;
        double *golden = read_golden(file, name, &count);
        if (bias) {
            assert_int_equal(count + 192, entry->count);
            memset(to, 0, (size_t)entry->count * sizeof *to);
            to += fixed ? 0 : 192;
        } else if (entry->init == LAM_INIT_FROZEN && strstr(name, "pos_embed")) {
            assert_int_equal(count, 97 * 64); /* ours is that of one channel */
            for (int64_t k = 0; k < 17 * 64; k++) assert_true(fabs((double)to[k] - golden[k]) < 1e-7);
            count = 0;
        } else {
            assert_int_equal(count, entry->count);
        }
        for (int64_t k = 0; k < count; k++) to[k] = (float)golden[k];
        lam_free(golden);
    }
}

static void golden_encoder_once(void) {
    lam_safetensors *file = open_golden("vit_parallel_block.safetensors");
    net n = make_encoder(&golden_config, 2, 3, false);
    assert_int_equal(n.encoder.tokens_per_channel, 16);
    int64_t count;
    double *pixels = read_golden(file, "input.pixels", &count);
    for (int64_t i = 0; i < count; i++)
        ((uint8_t *)lam_tensor_data(n.encoder.input.pixels))[i] = (uint8_t)pixels[i];
    lam_free(pixels);
    for (int c = 0; c < 4; c++) values(n.encoder.input.scale)[c] = 1.0f / 255.0f;
    for (int i = 0; i < 8; i++) values(n.encoder.input.present)[i] = 1;
    load_encoder(&n, file, false);
    ok(lam_graph_forward(n.graph));
    const float *tokens = values(n.encoder.tokens);
    compare(file, "output.tokens", tokens, 2 * 65 * 64, 1e-5);
    float predict[2 * 64] = {0}, channelwise[2 * 256] = {0};
    for (int b = 0; b < 2; b++)
        for (int t = 0; t < 64; t++)
            for (int d = 0; d < 64; d++) {
                predict[b * 64 + d] += tokens[(b * 65 + 1 + t) * 64 + d] / 64;
                channelwise[b * 256 + t / 16 * 64 + d] += tokens[(b * 65 + 1 + t) * 64 + d] / 16;
            }
    compare(file, "output.predict", predict, 2 * 64, 1e-5);
    compare(file, "output.channelwise", channelwise, 2 * 256, 1e-5);
    load_encoder(&n, file, true);
    ok(lam_graph_forward(n.graph));
    tokens = values(n.encoder.tokens);
    compare(file, "output.tokens_fixed_bias", tokens, 2 * 65 * 64, 1e-5);
    drop(&n);
    lam_safetensors_close(file);
}
static void golden_encoder(void **state) { (void)state, on_every_isa(golden_encoder_once); }

static void golden_decoder_once(void) {
    lam_json *json = golden_numbers(), *golden = lam_json_get(json, "camae_decoder");
    lam_mae_config config = {.kind = LAM_MAE_CHANNEL_AGNOSTIC,
                             .image_size = 4,
                             .patch_size = 2,
                             .in_channels = 2,
                             .embed_dim = 4,
                             .depth = 1,
                             .num_heads = 1,
                             .decoder_embed_dim = 16,
                             .decoder_depth = 1,
                             .decoder_num_heads = 2,
                             .mask_ratio = 0.75,
                             .pixel_type = LAM_F32};
    net n = make_parameters(&config, 1);
    uint32_t state = (uint32_t)lam_json_int(lam_json_get(golden, "lcg_seed"), 0);
    const lam_json *order = lam_json_get(golden, "param_order");
    for (size_t i = 0; i < lam_json_size(order); i++) {
        char name[128];
        snprintf(name, sizeof name, "decoder.%s", lam_json_text(lam_json_at(lam_json_at(order, i), 0), ""));
        bool is_norm = strstr(name, "norm") && strstr(name, "weight");
        float *to = weight(&n, name);
        for (int64_t k = 0; k < lam_parameters_find(n.parameters, name)->count; k++)
            to[k] = (float)(0.5 * (next_uniform(&state) - 0.5) + is_norm);
    }
    lam_tensor *x = lam_input(n.graph, "x", LAM_F32, 3, (int64_t[]){1, 3, 16}),
               *restore = lam_input(n.graph, "restore", LAM_I32, 2, (int64_t[]){1, 8}),
               *present = lam_input(n.graph, "present", LAM_F32, 2, (int64_t[]){1, 2});
    lam_mae_plan plan = {.ids_restore = restore};
    lam_tensor *y = lam_keep(n.graph, lam_channel_decoder(n.graph, &config, x, &plan, present, NULL), "y");
    ok(lam_graph_plan(n.graph));
    for (size_t i = 0; i < 48; i++) values(x)[i] = (float)number(lam_json_get(golden, "x"), i);
    for (size_t i = 0; i < 8; i++)
        ((int32_t *)lam_tensor_data(restore))[i] = (int32_t)number(lam_json_get(golden, "ind_restore"), i);
    values(present)[0] = values(present)[1] = 1;
    ok(lam_graph_forward(n.graph));
    /* The published decoder gives cls back as it got it; nothing uses it, and here it is not there. */
    compare_numbers(lam_json_get(golden, "y"), 16, values(y), 8 * 16, 1e-6);
    drop(&n);
    lam_json_free(json);
}
static void golden_decoder(void **state) { (void)state, on_every_isa(golden_decoder_once); }

/* The whole net with the cross decoder, float64 of timm's blocks, mask and gradients included. */
static void golden_network_once(void) {
    check_golden_network(LAM_MAE_CHANNEL_AGNOSTIC, "mae_channel_agnostic.safetensors");
}
static void golden_network(void **state) { (void)state, on_every_isa(golden_network_once); }

static void golden_loss(void **state) {
    (void)state;
    lam_json *json = golden_numbers(), *golden = lam_json_get(json, "mae_loss_ca_p4_c2");
    lam_parameters *p;
    lam_graph *g;
    ok(lam_parameters_create(&p));
    ok(lam_parameters_layout(p, 0));
    ok(lam_graph_create(&g, p, test_backend()));
    lam_standardise how = {.patch_size = 4, .by_channel = true};
    lam_tensor *a = lam_input(g, "a", LAM_F32, 4, (int64_t[]){1, 2, 16, 16}),
               *b = lam_input(g, "b", LAM_F32, 4, (int64_t[]){1, 2, 16, 16}),
               *mask = lam_input(g, "mask", LAM_F32, 2, (int64_t[]){1, 32}),
               *weights = lam_input(g, "weight", LAM_F32, 1, (int64_t[]){1}), *sample_loss;
    lam_tensor *loss = lam_keep(g,
                                lam_masked_loss(g, lam_gather_patches(g, lam_patches(g, a, &how), NULL, 1),
                                                lam_patches(g, b, &how), mask, weights, false, &sample_loss),
                                "loss");
    ok(lam_graph_plan(g));
    uint32_t state_of = (uint32_t)lam_json_int(lam_json_get(golden, "lcg_seed"), 0);
    for (int i = 0; i < 512; i++) values(a)[i] = (float)(next_uniform(&state_of) - 0.5);
    for (int i = 0; i < 512; i++) values(b)[i] = (float)(next_uniform(&state_of) - 0.5);
    for (int n = 0; n < 32; n++) values(mask)[n] = n % 4 ? 1.0f : 0.0f;
    values(weights)[0] = 1;
    ok(lam_graph_forward(g));
    double expected = lam_json_float(lam_json_get(golden, "recon_mse_masked"), NAN);
    assert_true(fabs((double)values(loss)[0] - expected) < 1e-7 * expected * 10);
    lam_graph_free(g);
    lam_parameters_free(p);
    lam_json_free(json);
}

/* ---- toys ---- */

/* Odd sizes on purpose: 9 patches, heads 6 wide. */
static lam_mae_config toy(int64_t channels, lam_decoder decoder) {
    return (lam_mae_config){.kind = LAM_MAE_CHANNEL_AGNOSTIC,
                            .image_size = 15,
                            .patch_size = 5,
                            .in_channels = channels,
                            .embed_dim = 12,
                            .depth = 2,
                            .num_heads = 2,
                            .mlp_dim = 20,
                            .decoder_embed_dim = 16,
                            .decoder_depth = 2,
                            .decoder_num_heads = 4,
                            .mask_ratio = 0.6,
                            .norm_pix_loss = true,
                            .pixel_type = LAM_U16,
                            .normalize = LAM_NORMALIZE_PLATE,
                            .transform = 1,
                            .decoder = decoder,
                            .channel_tokens = 4,
                            .seed = 3};
}

/* Pixels, scale, mean of place `c` are those of channel from[c]. */
static void fill(const lam_mae_pixels *in, const int32_t *from) {
    int64_t batch = lam_tensor_dim(in->pixels, 0), channels = lam_tensor_dim(in->pixels, 1);
    for (int64_t b = 0; b < batch; b++)
        for (int64_t c = 0; c < channels; c++) {
            lam_rng r = lam_rng_stream(5, LAM_RNG_TEST, (uint64_t)(100 * b + from[c]));
            uint16_t *to = (uint16_t *)lam_tensor_data(in->pixels) + (b * channels + c) * 225;
            for (int i = 0; i < 225; i++) to[i] = (uint16_t)lam_rng_below(&r, 4096);
            values(in->scale)[c] = 1.0f / (4095.0f - 100 * (float)from[c]);
            values(in->mean)[b * channels + c] = 0.5f + 0.05f * (float)from[c];
            values(in->rstd)[b * channels + c] = 4.0f - (float)from[c];
            values(in->present)[b * channels + c] = 1;
        }
}

static const int32_t all[] = {0, 1, 2, 3};

static void fill_training(net *n, const int32_t *from) {
    fill(&n->io.input, from);
    fill_draws(n, 11);
}

static void gradients_of(lam_decoder decoder, int64_t channels_per_step, const char *const *without) {
    lam_mae_config config = toy(3, decoder);
    static const int32_t token[] = {3, 0, 2};
    config.channels_per_step = channels_per_step;
    config.channel_token = token;
    net n = make(&config, 3);
    fill_training(&n, all);
    values(n.io.sample_weight)[1] = 0.7f;
    values(n.io.input.present)[1 * 3 + 0] = values(n.io.input.present)[1 * 3 + 2] = 0;
    stir(&n, 0.2);
    char not_drawn[64];
    const char *drawn_without[] = {"decoder.modality_tokens.1", not_drawn, NULL};
    if (channels_per_step) {
        ok(lam_graph_forward(n.graph));
        const int32_t *ids = lam_tensor_data(n.io.channel_ids);
        snprintf(not_drawn, sizeof not_drawn, "decoder.modality_tokens.%d", token[3 - ids[0] - ids[1]]);
        without = drawn_without;
    }
    check_gradients(&n, without);
    drop(&n);
}

static void gradients(void **state) {
    (void)state;
    gradients_of(LAM_DECODER_SHARED, 0, (const char *const[]){"decoder.modality_tokens.1", NULL});
    gradients_of(LAM_DECODER_SHARED, 2, NULL);
    char names[32][96];
    const char *without[32];
    int count = 0;
    snprintf(names[count++], sizeof *names, "decoder.modality_tokens.1");
    static const char *const parts[] = {"norm1.weight",  "norm1.bias",       "attn.qkv.weight",
                                        "attn.qkv.bias", "attn.proj.weight", "attn.proj.bias",
                                        "norm2.weight",  "norm2.bias",       "mlp.fc1.weight",
                                        "mlp.fc1.bias",  "mlp.fc2.weight",   "mlp.fc2.bias"};
    for (int block = 0; block < 2; block++)
        for (int k = 0; k < 12; k++)
            snprintf(names[count++], sizeof *names, "decoder.decoders.1.%d.%s", block, parts[k]);
    for (int k = 0; k < count; k++) without[k] = names[k];
    without[count] = NULL;
    gradients_of(LAM_DECODER_CROSS, 0, without);
}

static void fill_three(net *n) {
    fill_training(n, all);
    values(n->io.input.present)[4] = 0;
}

/* Key masks go with the samples that keep a block. */
static void drop_path(void **state) {
    (void)state;
    lam_mae_config config = toy(3, LAM_DECODER_SHARED);
    check_drop_path(&config, fill_three);
}

static void recompute(void **state) {
    (void)state;
    for (int decoder = 0; decoder < 2; decoder++) {
        lam_mae_config config = toy(3, (lam_decoder)decoder);
        config.drop_path = 0.5;
        check_recompute(&config, 3, fill_three);
    }
}

static void hidden_alone(void **state) {
    (void)state;
    lam_mae_config config = toy(3, LAM_DECODER_SHARED);
    check_hidden_alone(&config, 3, fill_three);
}

static void bfloat16(void **state) {
    (void)state;
    for (int decoder = 0; decoder < 2; decoder++) {
        lam_mae_config config = toy(3, (lam_decoder)decoder);
        check_bfloat16(&config, 3, fill_three);
    }
}

static void flops(void **state) {
    (void)state;
    lam_mae_config config = toy(3, LAM_DECODER_CROSS);
    check_flops(&config);
    config.decoder = LAM_DECODER_SHARED;
    check_flops(&config);
    config.channels_per_step = 2;
    check_flops(&config);
}

/* ---- other channels than in training ---- */

/* Encoder tokens of the channels `from`, with the weights of `trained`; the caller frees. */
static float *encode(const net *trained, const int32_t *from, int64_t channels, int64_t missing) {
    lam_mae_config config = toy(channels, LAM_DECODER_SHARED);
    net n = make_encoder(&config, 2, 2, false);
    copy_weights(&n, trained);
    fill(&n.encoder.input, from);
    if (missing >= 0)
        values(n.encoder.input.present)[missing] = values(n.encoder.input.present)[channels + missing] = 0;
    ok(lam_graph_forward(n.graph));
    int64_t count = lam_tensor_count(n.encoder.tokens);
    assert_int_equal(count, 2 * (1 + 9 * channels) * 12);
    float *tokens;
    ok(lam_alloc_array((void **)&tokens, count, sizeof *tokens));
    memcpy(tokens, values(n.encoder.tokens), (size_t)count * sizeof *tokens);
    drop(&n);
    return tokens;
}

/* Tokens of channel `c` (-1: cls) of sample b are those of channel `d` in the other encoding. */
static void same_tokens(const float *x, int64_t channels, int64_t c, const float *y, int64_t others,
                        int64_t d) {
    for (int64_t b = 0; b < 2; b++) {
        int64_t count = c < 0 ? 12 : 9 * 12, at = c < 0 ? 0 : (1 + 9 * c) * 12,
                to = c < 0 ? 0 : (1 + 9 * d) * 12;
        double other[9 * 12];
        for (int64_t i = 0; i < count; i++) other[i] = (double)y[b * (1 + 9 * others) * 12 + to + i];
        double error = relative(x + b * (1 + 9 * channels) * 12 + at, other, count);
        if (!(error < 1e-5)) fail_msg("channel %d and %d differ by %g", (int)c, (int)d, error);
    }
}

static void other_channels(void **state) {
    (void)state;
    lam_mae_config config = toy(2, LAM_DECODER_CROSS);
    net trained = make_parameters(&config, 1);
    stir(&trained, 0.3);
    static const int32_t three[] = {0, 1, 2}, turned[] = {2, 0, 1}, two[] = {0, 2},
                         fourteen[] = {0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1};
    float *x = encode(&trained, three, 3, -1), *y = encode(&trained, turned, 3, -1);
    for (int c = -1; c < 3; c++) same_tokens(x, 3, c, y, 3, c < 0 ? c : (c + 1) % 3);
    double other[9 * 12];
    for (int i = 0; i < 9 * 12; i++) other[i] = (double)y[12 + i];
    assert_true(relative(x + 12, other, 9 * 12) > 1e-2); /* the check can fail */
    /* A channel that is missing leaves the others as they are without it; what its pixels are does not matter. */
    float *without = encode(&trained, two, 2, -1), *missing = encode(&trained, three, 3, 1);
    same_tokens(missing, 3, -1, without, 2, -1);
    same_tokens(missing, 3, 0, without, 2, 0);
    same_tokens(missing, 3, 2, without, 2, 1);
    for (int i = 0; i < 9 * 12; i++) other[i] = (double)missing[12 + i];
    assert_true(relative(x + 12, other, 9 * 12) > 1e-3);
    /* More channels than the published table has places for. */
    float *many = encode(&trained, fourteen, 14, -1);
    for (int i = 0; i < 2 * (1 + 9 * 14) * 12; i++) assert_true(isfinite(many[i]));
    lam_free(x);
    lam_free(y);
    lam_free(without);
    lam_free(missing);
    lam_free(many);
    drop(&trained);
}

/* One step of a sample with channels {0, 2} of three, once as three of which one is missing, once as two; noise of the tokens
 * that are there is the same. Loss and gradients agree. */
static void missing_in_training_with(lam_decoder decoder) {
    lam_mae_config whole = toy(3, decoder), part = toy(2, decoder);
    static const int32_t two[] = {0, 2};
    whole.noise_input = part.noise_input = true;
    part.channel_token = two;
    net x = make(&whole, 1), y = make(&part, 1);
    stir(&x, 0.2);
    copy_weights(&y, &x);
    fill_training(&x, all);
    fill_training(&y, two);
    values(x.io.input.present)[1] = 0;
    lam_rng r = lam_rng_stream(6, LAM_RNG_TEST, 0);
    for (int n = 0; n < 27; n++) values(x.io.noise)[n] = (float)lam_rng_uniform(&r);
    for (int n = 0; n < 18; n++) values(y.io.noise)[n] = values(x.io.noise)[n < 9 ? n : n + 9];
    run_step(&x);
    run_step(&y);
    int masked = 0;
    for (int n = 0; n < 27; n++) masked += values(x.io.mask)[n] != 0.0f;
    assert_int_equal(masked, 11); /* of 18, 7 are kept */
    for (int n = 9; n < 18; n++) assert_true(values(x.io.mask)[n] == 0.0f);
    assert_true(fabsf(values(x.io.loss)[0] - values(y.io.loss)[0]) < 1e-6f * values(y.io.loss)[0]);
    for (int64_t e = 0; e < x.parameters->entries; e++) {
        const lam_parameter_entry *entry = &x.parameters->entry[e];
        if (entry->init == LAM_INIT_FROZEN) continue;
        const float *gx = x.parameters->gradients + entry->offset,
                    *gy = y.parameters->gradients + entry->offset;
        double difference = 0, norm = 0;
        for (int64_t k = 0; k < entry->count; k++) {
            difference += pow((double)gx[k] - (double)gy[k], 2);
            norm += pow((double)gy[k], 2);
        }
        if (!(sqrt(difference) <= 2e-5 * sqrt(norm) + 1e-7))
            fail_msg("%s: gradients differ by %g of %g", entry->name, sqrt(difference), sqrt(norm));
    }
    drop(&x);
    drop(&y);
}

static void missing_in_training(void **state) {
    (void)state;
    missing_in_training_with(LAM_DECODER_SHARED);
    missing_in_training_with(LAM_DECODER_CROSS);
}

/* A row without any channel, as those behind the end of a batch are, must not spoil the others. */
static void no_channel(void **state) {
    (void)state;
    for (int decoder = 0; decoder < 2; decoder++) {
        lam_mae_config config = toy(3, (lam_decoder)decoder);
        net n = make(&config, 2), one = make(&config, 1);
        copy_weights(&one, &n);
        fill_training(&n, all);
        fill_training(&one, all);
        for (int c = 0; c < 3; c++) values(n.io.input.present)[3 + c] = 0;
        values(n.io.sample_weight)[0] = 1;
        values(n.io.sample_weight)[1] = 0;
        run_step(&n);
        ok(lam_graph_forward(one.graph));
        assert_true(values(n.io.loss)[0] == values(one.io.loss)[0]);
        for (int64_t i = 0; i < n.parameters->trainable; i++)
            assert_true(isfinite(n.parameters->gradients[i]));
        drop(&n);
        drop(&one);
    }
}

/* ---- channels drawn for a step ---- */

static void drawn_channels_with(lam_fourier_form fourier) {
    lam_mae_config config = toy(4, LAM_DECODER_SHARED);
    config.fourier = fourier;
    config.fourier_alpha = fourier == LAM_FOURIER_NONE ? 0 : 0.3;
    config.channels_per_step = 2;
    config.noise_input = true;
    net n = make(&config, 2);
    stir(&n, 0.2);
    fill_training(&n, all);
    for (int i = 0; i < 36; i++) values(n.io.noise)[i] = (float)(i * 37 % 101);
    assert_int_equal(lam_tensor_count(n.io.logits), 2 * 18 * 25);
    int times[4] = {0}, pairs[4][4] = {{0}}, kinds = 0;
    for (int64_t step = 0; step < 40; step++) {
        *(int64_t *)lam_tensor_data(n.io.step) = step;
        ok(lam_graph_forward(n.graph));
        const int32_t *ids = lam_tensor_data(n.io.channel_ids);
        assert_true(ids[0] >= 0 && ids[0] < ids[1] && ids[1] < 4);
        times[ids[0]]++, times[ids[1]]++;
        kinds += pairs[ids[0]][ids[1]]++ == 0;
        if (step % 8) continue;
        /* The same as the network of these channels alone. */
        lam_mae_config two = toy(2, LAM_DECODER_SHARED);
        two.noise_input = true;
        two.fourier = fourier;
        two.fourier_alpha = config.fourier_alpha;
        two.channel_token = (const int32_t[]){ids[0], ids[1]};
        net m = make(&two, 2);
        copy_weights(&m, &n);
        fill_training(&m, two.channel_token);
        memcpy(values(m.io.noise), values(n.io.noise), 36 * sizeof(float));
        ok(lam_graph_forward(m.graph));
        assert_true(values(m.io.loss)[0] == values(n.io.loss)[0]);
        drop(&m);
    }
    assert_int_equal(kinds, 6);
    for (int c = 0; c < 4; c++) assert_in_range(times[c], 10, 30);
    drop(&n);
}

static void drawn_channels(void **state) {
    (void)state;
    drawn_channels_with(LAM_FOURIER_NONE);
    drawn_channels_with(LAM_FOURIER_IMAGE);
    drawn_channels_with(LAM_FOURIER_PATCH);
    drawn_channels_with(LAM_FOURIER_RECURSION);
}

/* With one channel, the shared decoder and no channel token it is the other network of this encoder. */
static void one_channel(void **state) {
    (void)state;
    lam_mae_config config = toy(1, LAM_DECODER_SHARED), other = config;
    other.kind = LAM_MAE_VIT_PARALLEL;
    net x = make(&config, 2), y = make(&other, 2);
    stir(&x, 0.2);
    memset(weight(&x, "decoder.modality_tokens.0"), 0, 16 * sizeof(float));
    copy_weights(&y, &x);
    fill_training(&x, all);
    fill_training(&y, all);
    ok(lam_graph_forward(x.graph));
    ok(lam_graph_forward(y.graph));
    double logits[2 * 9 * 25];
    for (int i = 0; i < 2 * 9 * 25; i++) logits[i] = (double)values(y.io.logits)[i];
    assert_true(relative(values(x.io.logits), logits, 2 * 9 * 25) < 1e-6);
    assert_true(fabsf(values(x.io.loss)[0] - values(y.io.loss)[0]) < 1e-6f);
    drop(&x);
    drop(&y);
}

/* OpenPhenom's 178,045,568 elements: its tables of positions are repeated for 11 and 6 channels, its placeholder is kept, its
 * blocks have biases of 4 D values. */
static void size_of_openphenom(void **state) {
    (void)state;
    lam_mae_config config = {.kind = LAM_MAE_CHANNEL_AGNOSTIC,
                             .image_size = 256,
                             .patch_size = 16,
                             .in_channels = 6,
                             .embed_dim = 384,
                             .depth = 12,
                             .num_heads = 6,
                             .decoder_embed_dim = 512,
                             .decoder_depth = 8,
                             .decoder_num_heads = 16,
                             .mask_ratio = 0.75,
                             .pixel_type = LAM_U8};
    assert_int_equal(count_parameters(&config, "") + 10 * 256 * 384 + 5 * 256 * 512 + 512 - 3 * 384 * 12,
                     178045568);
}

static void bad_configurations(void **state) {
    (void)state;
    lam_mae_config config = toy(3, LAM_DECODER_CROSS);
    config.decoder_embed_dim = 20;
    assert_int_equal(lam_mae_check(&config), LAM_ERROR_CONFIG);
    assert_non_null(strstr(lam_last_error(), "model.decoder_embed_dim"));
    config = toy(3, LAM_DECODER_CROSS);
    config.channels_per_step = 2;
    assert_int_equal(lam_mae_check(&config), LAM_ERROR_CONFIG);
    assert_non_null(strstr(lam_last_error(), "model.decoder: shared"));
    config = toy(3, LAM_DECODER_SHARED);
    config.masking = LAM_MASKING_WHOLE_CHANNEL;
    config.channels_per_step = 2;
    assert_int_equal(lam_mae_check(&config), LAM_OK);
    config.channels_per_step = 1;
    assert_int_equal(lam_mae_check(&config), LAM_ERROR_CONFIG);
    assert_non_null(strstr(lam_last_error(), "model.channels_per_step is 1"));
    config = toy(LAM_MAX_CHANNELS + 1, LAM_DECODER_SHARED);
    assert_int_equal(lam_mae_check(&config), LAM_ERROR_CONFIG);
    assert_non_null(strstr(lam_last_error(), "model.in_channels"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_encoder),    cmocka_unit_test(golden_decoder),
        cmocka_unit_test(golden_loss),       cmocka_unit_test(golden_network),
        cmocka_unit_test(drop_path),         cmocka_unit_test(recompute),
        cmocka_unit_test(bfloat16),          cmocka_unit_test(flops),
        cmocka_unit_test(hidden_alone),      cmocka_unit_test(gradients),
        cmocka_unit_test(other_channels),    cmocka_unit_test(missing_in_training),
        cmocka_unit_test(no_channel),        cmocka_unit_test(drawn_channels),
        cmocka_unit_test(one_channel),       cmocka_unit_test(size_of_openphenom),
        cmocka_unit_test(bad_configurations)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
