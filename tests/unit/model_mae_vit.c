/* The masked autoencoder against golden tensors of an independent implementation (float64, transformers), and
 * a gradient check of the whole net at toy size. Bounds: those measured for float32, about ten times. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "base/rng.h"
#include "base/safetensors.h"
#include "mae_check.h"
#include "model/nets/mae.h"
#include "model/nets/parts.h"
#include "model/optimizer.h"

static net make_as(const lam_mae_config *config, int64_t batch, lam_dtype activation) {
    net n = make_parameters(config, batch);
    lam_graph_set_activation(n.graph, activation);
    build_training(&n);
    return n;
}

/* Position tables are ours: the file's must equal them. */
static void check_tables(const net *n, lam_safetensors *file) {
    for (int64_t e = 0; e < n->parameters->entries; e++) {
        const lam_parameter_entry *entry = &n->parameters->entry[e];
        if (entry->init != LAM_INIT_FROZEN) continue;
        char name[200];
        int64_t count;
        snprintf(name, sizeof name, "param.%s", entry->name);
        double *golden = read_golden(file, name, &count);
        assert_int_equal(count, entry->count);
        for (int64_t k = 0; k < count; k++)
            assert_true(fabs((double)n->parameters->weights[entry->offset + k] - golden[k]) < 1e-7);
        lam_free(golden);
    }
}

static void check_golden(const lam_mae_config *config, int64_t batch, const char *file_name,
                         const char *gradient_file_name) {
    lam_safetensors *file = open_golden(file_name), *gradients = open_golden(gradient_file_name);
    net n = make(config, batch);
    load_weights(&n, file);
    check_tables(&n, file);
    read_into(file, "input.pixel_values", n.io.input.pixels);
    read_into(file, "input.noise", n.io.noise);
    compare_step(&n, file, gradients);
    int64_t count;
    double *golden = read_golden(file, "output.mask", &count);
    for (int64_t i = 0; i < count; i++)
        assert_true((double)((float *)lam_tensor_data(n.io.mask))[i] == golden[i]);
    lam_free(golden);
    golden = read_golden(file, "output.ids_restore", &count);
    for (int64_t i = 0; i < count; i++)
        assert_int_equal(((int32_t *)lam_tensor_data(n.io.ids_restore))[i], (int32_t)golden[i]);
    lam_free(golden);
    drop(&n);
    lam_safetensors_close(file);
    lam_safetensors_close(gradients);
}

static const lam_mae_config rgb = {.image_size = 32,
                                   .patch_size = 8,
                                   .in_channels = 3,
                                   .embed_dim = 48,
                                   .depth = 2,
                                   .num_heads = 3,
                                   .decoder_embed_dim = 32,
                                   .decoder_depth = 2,
                                   .decoder_num_heads = 4,
                                   .mask_ratio = 0.75,
                                   .norm_pix_loss = true,
                                   .pixel_type = LAM_F32,
                                   .noise_input = true};
static const lam_mae_config six = {.image_size = 48,
                                   .patch_size = 16,
                                   .in_channels = 6,
                                   .embed_dim = 64,
                                   .depth = 3,
                                   .num_heads = 4,
                                   .mlp_dim = 128,
                                   .decoder_embed_dim = 48,
                                   .decoder_depth = 1,
                                   .decoder_num_heads = 3,
                                   .decoder_mlp_dim = 96,
                                   .mask_ratio = 0.75,
                                   .pixel_type = LAM_F32,
                                   .noise_input = true};

static void golden_rgb_once(void) {
    lam_mae_config all = rgb;
    all.predict_visible = true;
    check_golden(&rgb, 3, "vit_mae_rgb.safetensors", "vit_mae_rgb.safetensors");
    check_golden(&all, 3, "vit_mae_rgb.safetensors", "vit_mae_rgb.safetensors");
}
static void golden_six_once(void) {
    lam_mae_config all = six;
    all.predict_visible = true;
    check_golden(&six, 2, "vit_mae_6ch.safetensors", "vit_mae_6ch_grad.safetensors");
    check_golden(&all, 2, "vit_mae_6ch.safetensors", "vit_mae_6ch_grad.safetensors");
}
static void golden_rgb(void **state) { (void)state, on_every_isa(golden_rgb_once); }
static void golden_six(void **state) { (void)state, on_every_isa(golden_six_once); }

static void compare_tensor(lam_safetensors *file, const char *name, const lam_tensor *tensor, double bound) {
    float *values;
    ok(lam_alloc_array((void **)&values, lam_tensor_count(tensor), sizeof *values));
    lam_tensor_read(tensor, values);
    compare(file, name, values, lam_tensor_count(tensor), bound);
    lam_free(values);
}

/* In bfloat16, against float64. The bounds are 2.5 times the errors of PyTorch 2.15 with the model of transformers 5.24 in
 * bfloat16: latent 7.4e-3, logits 7.2e-3, loss 8.8e-4, the worst gradient 2.9e-2. */
static void golden_bf16_once(void) {
    lam_safetensors *file = open_golden("vit_mae_rgb.safetensors");
    net n = make_as(&rgb, 3, LAM_BF16);
    load_weights(&n, file);
    read_into(file, "input.pixel_values", n.io.input.pixels);
    read_into(file, "input.noise", n.io.noise);
    ok(lam_graph_forward(n.graph));
    compare_tensor(file, "output.latent", n.io.latent, 2.5 * 7.4e-3);
    compare_logits(&n, file, 2.5 * 7.2e-3);
    compare_tensor(file, "output.loss", n.io.loss, 2.5 * 8.8e-4);
    run_step(&n);
    for (int64_t i = 0; i < n.parameters->entries; i++) {
        const lam_parameter_entry *entry = &n.parameters->entry[i];
        char name[200];
        snprintf(name, sizeof name, "grad.%s", entry->name);
        if (entry->init != LAM_INIT_FROZEN && !is_key_bias(entry->name))
            compare(file, name, n.parameters->gradients + entry->offset, entry->count, 2.5 * 2.9e-2);
    }
    drop(&n);
    lam_safetensors_close(file);
}
static void golden_bf16(void **state) { (void)state, on_every_isa(golden_bf16_once); }

static void golden_training_once(void) {
    lam_safetensors *start = open_golden("vit_mae_rgb.safetensors"),
                    *file = open_golden("vit_mae_train.safetensors");
    net n = make(&rgb, 3);
    load_weights(&n, start);
    read_into(start, "input.pixel_values", n.io.input.pixels);
    int64_t count, tokens = lam_tensor_count(n.io.noise);
    double *noise = read_golden(file, "noise", &count), *losses = read_golden(file, "losses", &count);
    lam_optimizer_state optimizer;
    ok(lam_optimizer_open(&optimizer, lam_optimizer_find("adamw"), n.parameters));
    for (int64_t step = 0; step < 10; step++) {
        for (int64_t i = 0; i < tokens; i++)
            ((float *)lam_tensor_data(n.io.noise))[i] = (float)noise[step * tokens + i];
        run_step(&n);
        double loss = (double)*(float *)lam_tensor_data(n.io.loss);
        assert_true(fabs(loss - losses[step]) <= 1e-6 * losses[step]);
        lam_update update = {.lr = 1e-3,
                             .beta1 = 0.9,
                             .beta2 = 0.95,
                             .eps = 1e-8,
                             .weight_decay = 0.05,
                             .gradient_scale = 1,
                             .t = step + 1};
        ok(lam_optimizer_step(&optimizer, n.parameters, &update, 0, n.parameters->trainable));
    }
    for (int64_t i = 0; i < n.parameters->entries; i++) {
        const lam_parameter_entry *entry = &n.parameters->entry[i];
        char name[200];
        snprintf(name, sizeof name, "final.%s", entry->name);
        if (!is_key_bias(entry->name))
            compare(file, name, n.parameters->weights + entry->offset, entry->count, 2e-4);
    }
    lam_optimizer_close(&optimizer);
    lam_free(noise);
    lam_free(losses);
    drop(&n);
    lam_safetensors_close(start);
    lam_safetensors_close(file);
}
static void golden_training(void **state) { (void)state, on_every_isa(golden_training_once); }

/* Odd sizes on purpose: 9 tokens, head width 6, three channels of uint16. */
static const lam_mae_config odd = {.image_size = 15,
                                   .patch_size = 5,
                                   .in_channels = 3,
                                   .embed_dim = 12,
                                   .depth = 3,
                                   .num_heads = 2,
                                   .decoder_embed_dim = 20,
                                   .decoder_depth = 1,
                                   .decoder_num_heads = 4,
                                   .mask_ratio = 0.5,
                                   .norm_pix_loss = true,
                                   .pixel_type = LAM_U16,
                                   .normalize = LAM_NORMALIZE_CROP,
                                   .transform = 1,
                                   .seed = 3};

static void check_each_gradient(lam_mae_config config) {
    net n = make(&config, 3);
    fill_pixels(&n.io.input);
    fill_draws(&n, 12); /* no branch is dropped by all */
    values(n.io.sample_weight)[1] = 0.7f;
    stir(&n, 0.2);
    check_gradients(&n, NULL);
    if (config.drop_path > 0) { /* something was dropped */
        float loss = *(float *)lam_tensor_data(n.io.loss);
        *(float *)lam_tensor_data(n.io.drop_scale) = 0;
        ok(lam_graph_forward(n.graph));
        assert_true(fabsf(loss - *(float *)lam_tensor_data(n.io.loss)) > 1e-3f);
    }
    drop(&n);
}

static void gradient_check(void **state) {
    (void)state;
    lam_mae_config config = odd;
    check_each_gradient(config);
    config.drop_path = 0.5;
    check_each_gradient(config);
}

static void gradients_of_options(void **state) {
    (void)state;
    lam_mae_config config = odd;
    config.masking = LAM_MASKING_BLOCK;
    config.learned_positions = true;
    check_each_gradient(config);
    config.decode_ratio = 0.5; /* 3 of 5 */
    check_each_gradient(config);
    config.fourier_alpha = 0.3;
    config.fourier_squared = true; /* differences along a direction see the kinks of absolute values */
    for (int form = LAM_FOURIER_IMAGE; form <= LAM_FOURIER_RECURSION; form++) {
        config.decode_ratio = form == LAM_FOURIER_RECURSION ? 1 : 0.5;
        config.norm_pix_loss = form == LAM_FOURIER_IMAGE;
        config.fourier = (lam_fourier_form)form;
        check_each_gradient(config);
    }
}

static void fill_odd(net *n) {
    for (int64_t i = 0; i < lam_tensor_count(n->io.input.pixels); i++)
        ((uint16_t *)lam_tensor_data(n->io.input.pixels))[i] = (uint16_t)(i * 7919 % 4001);
    for (int64_t c = 0; c < 3; c++) ((float *)lam_tensor_data(n->io.input.scale))[c] = 1.0f / 4095.0f;
    for (int64_t i = 0; i < 3 * n->batch; i++) ((float *)lam_tensor_data(n->io.input.present))[i] = 1;
    for (int64_t i = 0; i < n->batch; i++) ((int64_t *)lam_tensor_data(n->io.sample_ids))[i] = i;
    *(int64_t *)lam_tensor_data(n->io.step) = 1;
}

static void hidden_alone(void **state) {
    (void)state;
    lam_mae_config config = odd;
    check_hidden_alone(&config, 3, fill_odd);
    check_hidden_alone(&config, 1, fill_odd); /* shares nothing */
    config.decode_ratio = 0.5;
    check_hidden_alone(&config, 3, fill_odd);
    config.decode_ratio = 0;
    config.fourier_alpha = 0.3;
    for (int form = LAM_FOURIER_IMAGE; form <= LAM_FOURIER_PATCH; form++) {
        config.fourier = (lam_fourier_form)form;
        check_hidden_alone(&config, 3, fill_odd);
    }
}

/* Where every hidden token is decoded, the order of ranks gives what the order of places gives; where half are, the logits are
 * 0 elsewhere, the loss counts those alone, and the encoder saw the same. */
static void partial_decoding(void **state) {
    (void)state;
    lam_mae_config config = odd;
    net whole = make(&config, 2);
    config.decode_ratio = 0.5;
    net half = make(&config, 2);
    fill_odd(&whole);
    fill_odd(&half);
    ok(lam_graph_forward(whole.graph));
    ok(lam_graph_forward(half.graph));
    assert_memory_equal(lam_tensor_data(whole.io.mask), lam_tensor_data(half.io.mask), 18 * sizeof(float));
    assert_memory_equal(lam_tensor_data(whole.io.latent), lam_tensor_data(half.io.latent),
                        (size_t)lam_tensor_count(half.io.latent) * sizeof(float));
    assert_ptr_equal(whole.io.loss_mask, whole.io.mask);
    const float *mask = lam_tensor_data(half.io.mask), *loss_mask = lam_tensor_data(half.io.loss_mask),
                *logits = lam_tensor_data(half.io.logits), *target = lam_tensor_data(half.io.target);
    for (int64_t b = 0; b < 2; b++) {
        double sum = 0;
        int64_t decoded = 0;
        for (int64_t n = 9 * b; n < 9 * (b + 1); n++) {
            assert_true(loss_mask[n] <= mask[n]);
            double mean = 0, squares = 0, error = 0;
            for (int64_t k = 75 * n; k < 75 * (n + 1); k++) mean += (double)target[k] / 75;
            for (int64_t k = 75 * n; k < 75 * (n + 1); k++) squares += pow((double)target[k] - mean, 2);
            for (int64_t k = 75 * n; k < 75 * (n + 1); k++) {
                if (mask[n] > loss_mask[n]) assert_true(logits[k] == 0.0f);
                error +=
                    pow((double)logits[k] - ((double)target[k] - mean) / sqrt(squares / 74 + 1e-6), 2) / 75;
            }
            if (loss_mask[n] == 0.0f) continue;
            decoded++;
            sum += error;
        }
        assert_int_equal(decoded, 3);
        double loss = (double)((float *)lam_tensor_data(half.io.sample_loss))[b];
        assert_true(fabs(loss - sum / 3) < 1e-5 * loss);
    }
    assert_true(lam_mae_step_flops(&half.config) < lam_mae_step_flops(&whole.config));
    drop(&whole);
    drop(&half);
}

/* Learned tables on another grid, against torch.nn.functional.interpolate (bicubic, align_corners and antialias false); frozen
 * ones are those of the new grid. */
static void other_crop_sizes(void **state) {
    (void)state;
    static const double three[] = {-0.372377596315, -0.086564906491, 0.267892902572,  -0.42530568161,
                                   -0.004112082939, 0.130104349169,  -0.176208473712, 0.33379028007,
                                   -0.272219214109, -0.00495049505,  0.349507314013,  -0.343691270169,
                                   0.187916002972,  -0.140005339268, -0.094594062271, 0.415404691511,
                                   -0.209148773433, 0.076663916392},
                        larger_grid[] = {-0.599497525707, -0.099216171617, -0.046368992368, -0.19196919692,
                                         0.419020435753,  -0.362595233048, 0.173664548891,  -0.546061973819,
                                         -0.017557712803, -0.060076320132, -0.102172717272, 0.484914192374,
                                         -0.426516089109, 0.022827282728,  -0.281530399134, -0.069925742574,
                                         0.002620281559,  -0.230364182252, 0.289736102517,  -0.37308053722,
                                         0.215162824876,  -0.231435643564, 0.01173271624,   -0.030785891089};
    float from[17 * 2], to[37 * 2];
    from[0] = 5, from[1] = 6;
    for (int i = 0; i < 32; i++) from[2 + i] = (float)((double)(i * 7919 % 101) / 101 - 0.5);
    lam_positions_resample(from, 4, to, 3, 2);
    assert_true(to[0] == 5.0f && to[1] == 6.0f);
    for (int i = 0; i < 18; i++) assert_true(fabs((double)to[2 + i] - three[i]) < 1e-7);
    lam_positions_resample(from, 4, to, 6, 2);
    for (int i = 0; i < 24; i++) assert_true(fabs((double)to[2 + i] - larger_grid[i]) < 1e-7);
    assert_true(fabs((double)to[73] - 0.089315181518) < 1e-7);
    lam_positions_resample(from, 4, to, 4, 2);
    assert_memory_equal(from, to, sizeof from);

    for (int learned = 0; learned < 2; learned++) {
        lam_mae_config config = odd;
        config.learned_positions = learned;
        net n = make(&config, 1);
        config.image_size = 25;
        net larger = make(&config, 1);
        for (int64_t i = 0; i < n.parameters->count; i++) n.parameters->weights[i] += 1;
        ok(lam_mae_resize(larger.parameters, &config, n.parameters, &n.config));
        const lam_parameter_entry *a = lam_parameters_find(n.parameters, "decoder.decoder_pos_embed"),
                                  *b = lam_parameters_find(larger.parameters, "decoder.decoder_pos_embed"),
                                  *w = lam_parameters_find(n.parameters, "decoder.decoder_pred.weight"),
                                  *v = lam_parameters_find(larger.parameters, "decoder.decoder_pred.weight");
        assert_memory_equal(n.parameters->weights + w->offset, larger.parameters->weights + v->offset,
                            (size_t)w->count * sizeof(float));
        float *expected = malloc((size_t)b->count * sizeof(float));
        assert_int_equal(b->count, 26 * 20);
        if (learned)
            lam_positions_resample(n.parameters->weights + a->offset, 3, expected, 5, 20);
        else
            lam_sincos_table(expected, 20, 5, LAM_SINCOS_COLUMN_FIRST);
        assert_memory_equal(expected, larger.parameters->weights + b->offset,
                            (size_t)b->count * sizeof(float));
        free(expected);
        drop(&n);
        drop(&larger);
    }
}

/* A row of weight 0 changes nothing, whatever it holds; the draws depend on (step, sample id) alone. */
static void weights_and_draws(void **state) {
    (void)state;
    lam_mae_config config = {.image_size = 16,
                             .patch_size = 4,
                             .in_channels = 2,
                             .embed_dim = 16,
                             .depth = 1,
                             .num_heads = 2,
                             .decoder_embed_dim = 16,
                             .decoder_depth = 1,
                             .decoder_num_heads = 2,
                             .mask_ratio = 0.75,
                             .pixel_type = LAM_U8,
                             .normalize = LAM_NORMALIZE_PLATE,
                             .seed = 9};
    net n = make(&config, 2);
    uint8_t *pixels = lam_tensor_data(n.io.input.pixels);
    for (int64_t i = 0; i < lam_tensor_count(n.io.input.pixels); i++) pixels[i] = (uint8_t)(i * 37 % 251);
    for (int i = 0; i < 2; i++) ((float *)lam_tensor_data(n.io.input.scale))[i] = 1.0f / 255.0f;
    for (int i = 0; i < 4; i++) {
        ((float *)lam_tensor_data(n.io.input.present))[i] = 1;
        ((float *)lam_tensor_data(n.io.input.mean))[i] = 0.5f;
        ((float *)lam_tensor_data(n.io.input.rstd))[i] = i < 2 ? 4.0f : NAN;
    }
    int64_t *ids = lam_tensor_data(n.io.sample_ids);
    float *weight = lam_tensor_data(n.io.sample_weight), first[16];
    *(int64_t *)lam_tensor_data(n.io.step) = 5;
    ids[0] = 12, ids[1] = 99, weight[0] = 1, weight[1] = 0;
    ok(lam_graph_forward(n.graph));
    float loss = *(float *)lam_tensor_data(n.io.loss);
    assert_true(isfinite(loss));
    assert_true(loss == ((float *)lam_tensor_data(n.io.sample_loss))[0]);
    memcpy(first, lam_tensor_data(n.io.noise), sizeof first);
    ids[0] = 99, ids[1] = 12;
    ok(lam_graph_forward(n.graph));
    assert_memory_equal(first, (float *)lam_tensor_data(n.io.noise) + 16, sizeof first);
    *(int64_t *)lam_tensor_data(n.io.step) = 6;
    ok(lam_graph_forward(n.graph));
    assert_memory_not_equal(first, (float *)lam_tensor_data(n.io.noise) + 16, sizeof first);
    drop(&n);
}

static void bad_configurations(void **state) {
    (void)state;
    lam_mae_config config = rgb;
    config.patch_size = 7;
    assert_int_equal(lam_mae_check(&config), LAM_ERROR_CONFIG);
    assert_non_null(strstr(lam_last_error(), "model.patch_size"));
    config = rgb;
    config.num_heads = 5;
    assert_int_equal(lam_mae_check(&config), LAM_ERROR_CONFIG);
    config = rgb;
    config.mask_ratio = 0.99;
    assert_int_equal(lam_mae_check(&config), LAM_ERROR_CONFIG);
    const struct {
        lam_masking masking;
        double decode_ratio, alpha;
        lam_fourier_form fourier;
        const char *key;
    } bad[] = {{LAM_MASKING_PER_CHANNEL, 1, 0, LAM_FOURIER_NONE, "model.masking"},
               {LAM_MASKING_WHOLE_CHANNEL, 1, 0, LAM_FOURIER_NONE, "model.masking"},
               {LAM_MASKING_RANDOM, 1.5, 0, LAM_FOURIER_NONE, "model.decode_ratio"},
               {LAM_MASKING_RANDOM, 0.5, 0.01, LAM_FOURIER_RECURSION, "model.decode_ratio"},
               {LAM_MASKING_RANDOM, 1, 1, LAM_FOURIER_IMAGE, "model.fourier_alpha"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        config = rgb;
        config.masking = bad[i].masking;
        config.decode_ratio = bad[i].decode_ratio;
        config.fourier = bad[i].fourier;
        config.fourier_alpha = bad[i].alpha;
        assert_int_equal(lam_mae_check(&config), LAM_ERROR_CONFIG);
        assert_non_null(strstr(lam_last_error(), bad[i].key));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_rgb),        cmocka_unit_test(golden_six),
        cmocka_unit_test(golden_bf16),       cmocka_unit_test(golden_training),
        cmocka_unit_test(gradient_check),    cmocka_unit_test(gradients_of_options),
        cmocka_unit_test(hidden_alone),      cmocka_unit_test(partial_decoding),
        cmocka_unit_test(other_crop_sizes),  cmocka_unit_test(weights_and_draws),
        cmocka_unit_test(bad_configurations)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
