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
#include "model/nets/mae.h"
#include "model/optimizer.h"

static void ok(lam_status status) {
    if (status != LAM_OK) fail_msg("%s", lam_last_error());
}

typedef struct net {
    lam_mae_config config;
    lam_parameters *parameters;
    lam_graph *graph;
    lam_mae_io io;
    int64_t batch;
} net;

static net make(const lam_mae_config *config, int64_t batch) {
    net n = {.config = *config, .batch = batch};
    ok(lam_parameters_create(&n.parameters));
    ok(lam_mae_parameters(n.parameters, config));
    ok(lam_parameters_layout(n.parameters, 1));
    lam_mae_fill_positions(n.parameters, config);
    ok(lam_graph_create(&n.graph, n.parameters, LAM_BACKEND_CPU));
    ok(lam_mae_build(n.graph, config, batch, &n.io));
    ok(lam_graph_differentiate(n.graph, n.io.loss));
    ok(lam_graph_plan(n.graph));
    for (int64_t b = 0; b < batch; b++)
        ((float *)lam_tensor_data(n.io.sample_weight))[b] = 1.0f / (float)batch;
    return n;
}

static void drop(net *n) {
    lam_graph_free(n->graph);
    lam_parameters_free(n->parameters);
}

static lam_safetensors *open_golden(const char *name) {
    char path[1024];
    snprintf(path, sizeof path, "%s/%s", LAM_TEST_GOLDEN, name);
    lam_safetensors *file;
    ok(lam_safetensors_open(&file, path));
    return file;
}

static double *read_golden(lam_safetensors *file, const char *name, int64_t *count) {
    const lam_safetensors_entry *entry = lam_safetensors_find(file, name);
    if (!entry) fail_msg("no tensor %s", name);
    double *values;
    ok(lam_alloc_array((void **)&values, entry->count, sizeof *values));
    ok(lam_safetensors_read_f64(file, entry, values));
    *count = entry->count;
    return values;
}

static double relative(const float *values, const double *golden, int64_t count) {
    double error = 0, norm = 0;
    for (int64_t i = 0; i < count; i++) {
        if (!isfinite(values[i])) return INFINITY;
        error += ((double)values[i] - golden[i]) * ((double)values[i] - golden[i]);
        norm += golden[i] * golden[i];
    }
    return sqrt(error / norm);
}

static void compare(lam_safetensors *file, const char *name, const float *values, int64_t expected,
                    double bound) {
    int64_t count;
    double *golden = read_golden(file, name, &count);
    assert_int_equal(count, expected);
    double error = relative(values, golden, count);
    if (!(error <= bound)) fail_msg("%s: relative error %.3g, bound %.3g", name, error, bound);
    lam_free(golden);
}

static void fill(lam_safetensors *file, const char *name, lam_tensor *tensor) {
    int64_t count;
    double *golden = read_golden(file, name, &count);
    assert_int_equal(count, lam_tensor_count(tensor));
    for (int64_t i = 0; i < count; i++) ((float *)lam_tensor_data(tensor))[i] = (float)golden[i];
    lam_free(golden);
}

static void load_weights(net *n, lam_safetensors *file) {
    for (int64_t i = 0; i < n->parameters->entries; i++) {
        const lam_parameter_entry *entry = &n->parameters->entry[i];
        char name[200];
        snprintf(name, sizeof name, "param.%s", entry->name);
        int64_t count;
        double *golden = read_golden(file, name, &count);
        assert_int_equal(count, entry->count);
        float *to = n->parameters->weights + entry->offset;
        for (int64_t k = 0; k < count; k++) {
            /* Position tables are ours: the file's must equal them. */
            if (entry->init == LAM_INIT_FROZEN) assert_true(fabs((double)to[k] - golden[k]) < 1e-7);
            to[k] = (float)golden[k];
        }
        lam_free(golden);
    }
}

static bool is_key_bias(const char *name) { return strstr(name, "attention.attention.key.bias") != NULL; }

static void check_golden(const lam_mae_config *config, int64_t batch, const char *file_name,
                         const char *gradient_file_name) {
    lam_safetensors *file = open_golden(file_name), *gradients = open_golden(gradient_file_name);
    net n = make(config, batch);
    load_weights(&n, file);
    fill(file, "input.pixel_values", n.io.pixels);
    fill(file, "input.noise", n.io.noise);
    lam_parameters_zero_gradients(n.parameters);
    ok(lam_graph_forward(n.graph));
    ok(lam_graph_backward(n.graph));
    int64_t count;
    double *golden = read_golden(file, "output.mask", &count);
    for (int64_t i = 0; i < count; i++)
        assert_true((double)((float *)lam_tensor_data(n.io.mask))[i] == golden[i]);
    lam_free(golden);
    golden = read_golden(file, "output.ids_restore", &count);
    for (int64_t i = 0; i < count; i++)
        assert_int_equal(((int32_t *)lam_tensor_data(n.io.ids_restore))[i], (int32_t)golden[i]);
    lam_free(golden);
    compare(file, "output.latent", lam_tensor_data(n.io.latent), lam_tensor_count(n.io.latent), 1e-5);
    compare(file, "output.logits", lam_tensor_data(n.io.logits), lam_tensor_count(n.io.logits), 1e-5);
    compare(file, "output.loss", lam_tensor_data(n.io.loss), 1, 1e-6);
    for (int64_t i = 0; i < n.parameters->entries; i++) {
        const lam_parameter_entry *entry = &n.parameters->entry[i];
        if (entry->init == LAM_INIT_FROZEN) continue;
        const float *gradient = n.parameters->gradients + entry->offset;
        char name[200];
        snprintf(name, sizeof name, "grad.%s", entry->name);
        if (is_key_bias(entry->name)) /* softmax ignores it: the true gradient is zero */
            for (int64_t k = 0; k < entry->count; k++) assert_true(fabsf(gradient[k]) < 1e-6f);
        else
            compare(gradients, name, gradient, entry->count, 2e-5);
    }
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

/* Every instruction set that this CPU has. */
static void on_every_isa(void (*test)(void)) {
    static const char *const names[] = {"baseline", "avx2", "avx512"};
    int ran = 0;
    for (int i = 0; i < 3; i++) {
        setenv("LAMELLA_ISA", names[i], 1);
        if (lam_isa_select() != LAM_OK) continue;
        assert_string_equal(lam_isa_name(), names[i]);
        test();
        ran++;
    }
    unsetenv("LAMELLA_ISA");
    ok(lam_isa_select());
    assert_true(ran >= 1);
}

static void golden_rgb_once(void) {
    check_golden(&rgb, 3, "vit_mae_rgb.safetensors", "vit_mae_rgb.safetensors");
}
static void golden_six_once(void) {
    check_golden(&six, 2, "vit_mae_6ch.safetensors", "vit_mae_6ch_grad.safetensors");
}
static void golden_rgb(void **state) { (void)state, on_every_isa(golden_rgb_once); }
static void golden_six(void **state) { (void)state, on_every_isa(golden_six_once); }

static void golden_training_once(void) {
    lam_safetensors *start = open_golden("vit_mae_rgb.safetensors"),
                    *file = open_golden("vit_mae_train.safetensors");
    net n = make(&rgb, 3);
    load_weights(&n, start);
    fill(start, "input.pixel_values", n.io.pixels);
    int64_t count, tokens = lam_tensor_count(n.io.noise);
    double *noise = read_golden(file, "noise", &count), *losses = read_golden(file, "losses", &count);
    lam_optimizer_state optimizer;
    ok(lam_optimizer_open(&optimizer, lam_optimizer_find("adamw"), n.parameters));
    for (int64_t step = 0; step < 10; step++) {
        for (int64_t i = 0; i < tokens; i++)
            ((float *)lam_tensor_data(n.io.noise))[i] = (float)noise[step * tokens + i];
        lam_parameters_zero_gradients(n.parameters);
        ok(lam_graph_forward(n.graph));
        ok(lam_graph_backward(n.graph));
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

/* Central differences of the loss along random directions, every parameter tensor by itself. Odd sizes on
 * purpose: 9 tokens, head width 6, three channels of uint16. */
static void check_gradients(double drop_path) {
    lam_mae_config config = {.image_size = 15,
                             .patch_size = 5,
                             .in_channels = 3,
                             .embed_dim = 12,
                             .depth = 3,
                             .num_heads = 2,
                             .decoder_embed_dim = 20,
                             .decoder_depth = 1,
                             .decoder_num_heads = 4,
                             .mask_ratio = 0.5,
                             .drop_path = drop_path,
                             .norm_pix_loss = true,
                             .pixel_type = LAM_U16,
                             .normalize = LAM_NORMALIZE_CROP,
                             .transform = 1,
                             .seed = 3};
    net n = make(&config, 3);
    lam_rng r = lam_rng_stream(5, LAM_RNG_TEST, 0);
    uint16_t *pixels = lam_tensor_data(n.io.pixels);
    for (int64_t i = 0; i < lam_tensor_count(n.io.pixels); i++) pixels[i] = (uint16_t)lam_rng_below(&r, 4096);
    for (int64_t c = 0; c < 3; c++) ((float *)lam_tensor_data(n.io.scale))[c] = 1.0f / 4095.0f;
    for (int64_t i = 0; i < 9; i++) ((float *)lam_tensor_data(n.io.present))[i] = i == 4 ? 0.0f : 1.0f;
    for (int64_t i = 0; i < 3; i++) ((int64_t *)lam_tensor_data(n.io.sample_ids))[i] = 7 * i;
    *(int64_t *)lam_tensor_data(n.io.step) = 12;
    if (drop_path > 0) *(float *)lam_tensor_data(n.io.drop_scale) = 1; /* no branch is dropped by all */
    ((float *)lam_tensor_data(n.io.sample_weight))[1] = 0.7f;
    /* Larger weights than the initial ones, so that every path carries a signal. */
    for (int64_t i = 0; i < n.parameters->trainable; i++)
        n.parameters->weights[i] += (float)(0.2 * lam_rng_normal(&r));
    lam_parameters_zero_gradients(n.parameters);
    ok(lam_graph_forward(n.graph));
    ok(lam_graph_backward(n.graph));
    for (int64_t e = 0; e < n.parameters->entries; e++) {
        const lam_parameter_entry *entry = &n.parameters->entry[e];
        if (entry->init == LAM_INIT_FROZEN || is_key_bias(entry->name)) continue;
        float *w = n.parameters->weights + entry->offset, *g = n.parameters->gradients + entry->offset;
        double norm = 0, numeric;
        for (int64_t k = 0; k < entry->count; k++) norm += (double)g[k] * (double)g[k];
        norm = sqrt(norm);
        assert_true(norm > 0);
        /* Along the gradient itself: the derivative is its norm. */
        double step = 2e-3, loss[2];
        float *kept;
        ok(lam_alloc_array((void **)&kept, entry->count, sizeof *kept));
        memcpy(kept, w, (size_t)entry->count * sizeof *kept);
        for (int side = 0; side < 2; side++) {
            for (int64_t k = 0; k < entry->count; k++)
                w[k] = kept[k] + (float)((side ? -step : step) * (double)g[k] / norm);
            ok(lam_graph_forward(n.graph));
            loss[side] = 0;
            for (int64_t b = 0; b < 3; b++)
                loss[side] += (double)((float *)lam_tensor_data(n.io.sample_weight))[b] *
                              (double)((float *)lam_tensor_data(n.io.sample_loss))[b];
        }
        memcpy(w, kept, (size_t)entry->count * sizeof *kept);
        lam_free(kept);
        numeric = (loss[0] - loss[1]) / (2 * step);
        if (fabs(numeric - norm) > 2e-2 * norm + 3e-4)
            fail_msg("%s: gradient %.6g, differences %.6g", entry->name, norm, numeric);
    }
    if (drop_path > 0) { /* something was dropped */
        float loss = *(float *)lam_tensor_data(n.io.loss);
        *(float *)lam_tensor_data(n.io.drop_scale) = 0;
        ok(lam_graph_forward(n.graph));
        assert_true(fabsf(loss - *(float *)lam_tensor_data(n.io.loss)) > 1e-3f);
    }
    drop(&n);
}

static void gradient_check(void **state) {
    (void)state;
    check_gradients(0);
    check_gradients(0.5);
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
    uint8_t *pixels = lam_tensor_data(n.io.pixels);
    for (int64_t i = 0; i < lam_tensor_count(n.io.pixels); i++) pixels[i] = (uint8_t)(i * 37 % 251);
    for (int i = 0; i < 2; i++) ((float *)lam_tensor_data(n.io.scale))[i] = 1.0f / 255.0f;
    for (int i = 0; i < 4; i++) {
        ((float *)lam_tensor_data(n.io.present))[i] = 1;
        ((float *)lam_tensor_data(n.io.mean))[i] = 0.5f;
        ((float *)lam_tensor_data(n.io.rstd))[i] = i < 2 ? 4.0f : NAN;
    }
    int64_t *ids = lam_tensor_data(n.io.sample_ids);
    float *weight = lam_tensor_data(n.io.sample_weight), *noise = lam_tensor_data(n.io.noise), first[16],
          *loss = lam_tensor_data(n.io.loss);
    *(int64_t *)lam_tensor_data(n.io.step) = 5;
    ids[0] = 12, ids[1] = 99, weight[0] = 1, weight[1] = 0;
    ok(lam_graph_forward(n.graph));
    assert_true(isfinite(*loss));
    assert_true(*loss == ((float *)lam_tensor_data(n.io.sample_loss))[0]);
    memcpy(first, noise, sizeof first);
    ids[0] = 99, ids[1] = 12;
    ok(lam_graph_forward(n.graph));
    assert_memory_equal(first, noise + 16, sizeof first);
    *(int64_t *)lam_tensor_data(n.io.step) = 6;
    ok(lam_graph_forward(n.graph));
    assert_memory_not_equal(first, noise + 16, sizeof first);
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
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_rgb),        cmocka_unit_test(golden_six),
        cmocka_unit_test(golden_training),   cmocka_unit_test(gradient_check),
        cmocka_unit_test(weights_and_draws), cmocka_unit_test(bad_configurations)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
