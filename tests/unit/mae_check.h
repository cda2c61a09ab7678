/* What the tests of the masked autoencoders share: a net with its graph, golden tensors, the numbers of mae_golden.json, and
 * the check of all gradients of a net. Include after cmocka.h. */
#ifndef LAMELLA_TESTS_MAE_CHECK_H
#define LAMELLA_TESTS_MAE_CHECK_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/files.h"
#include "base/json.h"
#include "base/memory.h"
#include "base/rng.h"
#include "base/safetensors.h"
#include "model/nets/mae.h"
#include "model/nets/parts.h"
#include "tests/unit/device.h"
#include "tests/unit/golden_file.h"

static inline void ok(lam_status status) {
    if (status != LAM_OK) fail_msg("%s", lam_last_error());
}

typedef struct net {
    lam_mae_config config;
    lam_parameters *parameters;
    lam_graph *graph;
    lam_mae_io io;
    lam_mae_encoder_io encoder;
    int64_t batch;
} net;

static inline net make_parameters(const lam_mae_config *config, int64_t batch) {
    net n = {.config = *config, .batch = batch};
    ok(lam_parameters_create(&n.parameters));
    ok(lam_mae_parameters(n.parameters, config));
    ok(lam_parameters_layout(n.parameters, 1));
    lam_mae_fill_positions(n.parameters, config);
    ok(lam_graph_create(&n.graph, n.parameters, test_backend()));
    return n;
}

static inline void build_training(net *n) {
    ok(lam_mae_build(n->graph, &n->config, n->batch, &n->io));
    ok(lam_graph_differentiate(n->graph, n->io.loss));
    ok(lam_graph_plan(n->graph));
    for (int64_t b = 0; b < n->batch; b++)
        ((float *)lam_tensor_data(n->io.sample_weight))[b] = 1.0f / (float)n->batch;
    if (n->io.drop_scale) *(float *)lam_tensor_data(n->io.drop_scale) = 1;
}

static inline net make(const lam_mae_config *config, int64_t batch) {
    net n = make_parameters(config, batch);
    build_training(&n);
    return n;
}

static inline net make_encoder(const lam_mae_config *config, int64_t batch, int64_t block, bool hidden) {
    net n = make_parameters(config, batch);
    ok(lam_mae_build_encoder(n.graph, config, batch, block, hidden, &n.encoder));
    ok(lam_graph_plan(n.graph));
    return n;
}

static inline void drop(net *n) {
    lam_graph_free(n->graph);
    lam_parameters_free(n->parameters);
}

/* Forward and backward, from gradients of 0. */
static inline void run_step(const net *n) {
    lam_parameters_zero_gradients(n->parameters);
    ok(lam_graph_forward(n->graph));
    ok(lam_graph_backward(n->graph));
}

static inline float *values(lam_tensor *tensor) { return lam_tensor_data(tensor); }

static inline float *weight(const net *n, const char *name) {
    const lam_parameter_entry *entry = lam_parameters_find(n->parameters, name);
    if (!entry) fail_msg("no parameter %s", name);
    return n->parameters->weights + entry->offset;
}

/* Larger weights than the initial ones, so that every path carries a signal. Position tables stay. */
static inline void stir(net *n, double deviation) {
    lam_rng r = lam_rng_stream(5, LAM_RNG_TEST, 1);
    for (int64_t e = 0; e < n->parameters->entries; e++) {
        const lam_parameter_entry *entry = &n->parameters->entry[e];
        if (entry->init == LAM_INIT_FROZEN) continue;
        for (int64_t k = 0; k < entry->count; k++)
            n->parameters->weights[entry->offset + k] += (float)(deviation * lam_rng_normal(&r));
    }
}

static inline void copy_weights(net *to, const net *from) {
    for (int64_t i = 0; i < to->parameters->entries; i++) {
        const lam_parameter_entry *entry = &to->parameters->entry[i],
                                  *other = lam_parameters_find(from->parameters, entry->name);
        if (other && other->count == entry->count)
            memcpy(to->parameters->weights + entry->offset, from->parameters->weights + other->offset,
                   (size_t)entry->count * sizeof(float));
    }
}

/* Pixels of 12 bits; one channel of one sample is not there. */
static inline void fill_pixels(const lam_mae_pixels *in) {
    lam_rng r = lam_rng_stream(5, LAM_RNG_TEST, 0);
    for (int64_t i = 0; i < lam_tensor_count(in->pixels); i++)
        ((uint16_t *)lam_tensor_data(in->pixels))[i] = (uint16_t)lam_rng_below(&r, 4096);
    for (int64_t c = 0; c < lam_tensor_count(in->scale); c++) values(in->scale)[c] = 1.0f / 4095.0f;
    for (int64_t i = 0; i < lam_tensor_count(in->present); i++) values(in->present)[i] = i == 4 ? 0.0f : 1.0f;
}

/* What draws depend on, where anything is drawn. */
static inline void fill_draws(const net *n, int64_t step) {
    for (int64_t b = 0; b < n->batch && n->io.sample_ids; b++)
        ((int64_t *)lam_tensor_data(n->io.sample_ids))[b] = 7 * b;
    if (n->io.step) *(int64_t *)lam_tensor_data(n->io.step) = step;
}

/* Elements of all parameters whose name begins with `prefix`. */
static inline int64_t count_parameters(const lam_mae_config *config, const char *prefix) {
    lam_parameters *p;
    int64_t count = 0;
    ok(lam_parameters_create(&p));
    ok(lam_mae_parameters(p, config));
    for (int64_t e = 0; e < p->entries; e++)
        if (!strncmp(p->entry[e].name, prefix, strlen(prefix))) count += p->entry[e].count;
    lam_parameters_free(p);
    return count;
}

/* ---- golden ---- */

static inline double relative(const float *got, const double *golden, int64_t count) {
    double error = 0, norm = 0;
    for (int64_t i = 0; i < count; i++) {
        if (!isfinite(got[i])) return INFINITY;
        error += ((double)got[i] - golden[i]) * ((double)got[i] - golden[i]);
        norm += golden[i] * golden[i];
    }
    return sqrt(error / norm);
}

static inline lam_safetensors *open_golden(const char *name) {
    char path[1024];
    golden_file(path, name);
    lam_safetensors *file;
    ok(lam_safetensors_open(&file, path));
    return file;
}

static inline double *read_golden(lam_safetensors *file, const char *name, int64_t *count) {
    const lam_safetensors_entry *entry = lam_safetensors_find(file, name);
    if (!entry) fail_msg("no tensor %s", name);
    double *golden;
    ok(lam_alloc_array((void **)&golden, entry->count, sizeof *golden));
    ok(lam_safetensors_read_f64(file, entry, golden));
    *count = entry->count;
    return golden;
}

static inline void compare(lam_safetensors *file, const char *name, const float *got, int64_t expected,
                           double bound) {
    int64_t count;
    double *golden = read_golden(file, name, &count);
    assert_int_equal(count, expected);
    double error = relative(got, golden, count);
    if (!(error <= bound)) fail_msg("%s: relative error %.3g, bound %.3g", name, error, bound);
    lam_free(golden);
}

static inline void read_into(lam_safetensors *file, const char *name, lam_tensor *tensor) {
    int64_t count;
    double *golden = read_golden(file, name, &count);
    assert_int_equal(count, lam_tensor_count(tensor));
    for (int64_t i = 0; i < count; i++) values(tensor)[i] = (float)golden[i];
    lam_free(golden);
}

/* All parameters but position tables, which are ours. */
static inline void load_weights(const net *n, lam_safetensors *file) {
    for (int64_t e = 0; e < n->parameters->entries; e++) {
        const lam_parameter_entry *entry = &n->parameters->entry[e];
        if (entry->init == LAM_INIT_FROZEN) continue;
        char name[200];
        int64_t count;
        snprintf(name, sizeof name, "param.%s", entry->name);
        double *golden = read_golden(file, name, &count);
        assert_int_equal(count, entry->count);
        for (int64_t k = 0; k < count; k++) n->parameters->weights[entry->offset + k] = (float)golden[k];
        lam_free(golden);
    }
}

/* A constant added to all keys of a head changes no softmax: these have no true gradient. */
static inline bool is_key_bias(const char *name) {
    return strstr(name, "k_norm.bias") || strstr(name, "attention.attention.key.bias");
}

/* Logits of all tokens with predict_visible, else of the hidden ones, and 0 for the others. */
static inline void compare_logits(const net *n, lam_safetensors *file, double bound) {
    int64_t count, tokens = lam_tensor_count(n->io.mask);
    double *golden = read_golden(file, "output.logits", &count);
    float *got;
    assert_int_equal(count, lam_tensor_count(n->io.logits));
    ok(lam_alloc_array((void **)&got, count, sizeof *got));
    lam_tensor_read(n->io.logits, got);
    for (int64_t i = 0; i < count && lam_mae_hidden_alone(&n->config); i++)
        if (values(n->io.mask)[i / (count / tokens)] == 0) {
            golden[i] = 0;
            assert_true(got[i] == 0);
        }
    double error = relative(got, golden, count);
    if (!(error <= bound)) fail_msg("logits: relative error %.3g, bound %.3g", error, bound);
    lam_free(golden);
    lam_free(got);
}

/* Latent, logits, loss and all gradients of a step. The bounds are those measured for float32, about ten times. */
static inline void compare_step(const net *n, lam_safetensors *file, lam_safetensors *gradients) {
    ok(lam_graph_forward(n->graph));
    compare(file, "output.latent", values(n->io.latent), lam_tensor_count(n->io.latent), 1e-5);
    compare_logits(n, file, 1e-5);
    compare(file, "output.loss", values(n->io.loss), 1, 1e-6);
    run_step(n);
    for (int64_t e = 0; e < n->parameters->entries; e++) {
        const lam_parameter_entry *entry = &n->parameters->entry[e];
        if (entry->init == LAM_INIT_FROZEN) continue;
        const float *gradient = n->parameters->gradients + entry->offset;
        char name[200];
        snprintf(name, sizeof name, "grad.%s", entry->name);
        if (is_key_bias(name))
            for (int64_t k = 0; k < entry->count; k++) assert_true(fabsf(gradient[k]) < 1e-6f);
        else
            compare(gradients, name, gradient, entry->count, 2e-5);
    }
}

/* A whole net against a file: parameters, pixels, noise; latent, logits, loss and all gradients. The files of both networks of
 * parallel blocks are of this size. */
static inline void check_golden_network(lam_mae_kind kind, const char *name) {
    lam_mae_config config = {.kind = kind,
                             .image_size = 12,
                             .patch_size = 4,
                             .in_channels = 3,
                             .embed_dim = 16,
                             .depth = 2,
                             .num_heads = 2,
                             .mlp_dim = 24,
                             .decoder_embed_dim = 16,
                             .decoder_depth = 2,
                             .decoder_num_heads = 4,
                             .mask_ratio = 0.6,
                             .pixel_type = LAM_F32,
                             .noise_input = true};
    lam_safetensors *file = open_golden(name);
    for (int visible = 0; visible < 2; visible++) {
        config.predict_visible = visible;
        net n = make(&config, 2);
        load_weights(&n, file);
        read_into(file, "input.pixel_values", n.io.input.pixels);
        read_into(file, "input.noise", n.io.noise);
        for (int64_t k = 0; n.io.input.present && k < lam_tensor_count(n.io.input.present); k++)
            values(n.io.input.present)[k] = 1;
        compare_step(&n, file, file);
        drop(&n);
    }
    lam_safetensors_close(file);
}

static inline lam_json *golden_numbers(void) {
    char path[1024], *bytes;
    size_t size;
    lam_json *json;
    golden_file(path, "mae_golden.json");
    ok(lam_file_read(path, &bytes, &size));
    ok(lam_json_parse(&json, bytes, size, "mae_golden.json"));
    lam_free(bytes);
    return json;
}

static inline double number(const lam_json *array, size_t i) {
    return lam_json_float(lam_json_at(array, i), NAN);
}

static inline void compare_numbers(const lam_json *golden, size_t first, const float *got, int64_t count,
                                   double bound) {
    double *numbers;
    ok(lam_alloc_array((void **)&numbers, count, sizeof *numbers));
    for (int64_t i = 0; i < count; i++) numbers[i] = number(golden, first + (size_t)i);
    double error = relative(got, numbers, count);
    if (!(error <= bound)) fail_msg("relative error %.3g, bound %.3g", error, bound);
    lam_free(numbers);
}

/* The generator that the inputs of mae_golden.json were made with: uniform on [0, 1). */
static inline double next_uniform(uint32_t *state) {
    *state = 1664525u * *state + 1013904223u;
    return (double)*state / 4294967296.0;
}

/* ---- every instruction set that this CPU has ---- */

static inline void on_every_isa(void (*test)(void)) {
    static const char *const names[] = {"amx", "avx512_bf16", "avx512", "avx2", "baseline"};
    int ran = 0;
    for (int i = 0; i < 5; i++) {
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

/* ---- gradients of a whole net ---- */

static inline double weighted_loss(const net *n) {
    double loss = 0;
    ok(lam_graph_forward(n->graph));
    for (int64_t b = 0; b < n->batch; b++)
        loss += (double)values(n->io.sample_weight)[b] * (double)values(n->io.sample_loss)[b];
    return loss;
}

/* What backward recomputes instead of keeping changes no bit of the loss and of the gradients. `fill` sets the inputs. */
static inline void check_recompute(const lam_mae_config *config, int64_t batch, void (*fill)(net *n)) {
    static const lam_recompute modes[] = {LAM_RECOMPUTE_NONE, LAM_RECOMPUTE_NORM_GELU, LAM_RECOMPUTE_BLOCK};
    float *expected = NULL, loss = 0;
    for (int mode = 0; mode < 3; mode++) {
        net n = make_parameters(config, batch);
        lam_graph_set_recompute(n.graph, modes[mode]);
        build_training(&n);
        stir(&n, 0.2);
        fill(&n);
        run_step(&n);
        size_t bytes = (size_t)n.parameters->trainable * sizeof(float);
        if (mode == 0) {
            ok(lam_alloc((void **)&expected, bytes));
            memcpy(expected, n.parameters->gradients, bytes);
            loss = values(n.io.loss)[0];
        }
        assert_true(values(n.io.loss)[0] == loss);
        assert_memory_equal(n.parameters->gradients, expected, bytes);
        drop(&n);
    }
    lam_free(expected);
}

/* What visible tokens would be predicted as changes neither loss nor gradients; left out, it takes no work. */
static inline void check_hidden_alone(const lam_mae_config *config, int64_t batch, void (*fill)(net *n)) {
    lam_mae_config all = *config;
    all.predict_visible = true;
    net n = make(config, batch), m = make(&all, batch);
    assert_true(lam_mae_hidden_alone(config) && !lam_mae_hidden_alone(&all));
    assert_true(lam_mae_kept_share(config, batch) < lam_mae_kept_share(&all, batch));
    stir(&n, 0.2);
    copy_weights(&m, &n);
    fill(&n);
    fill(&m);
    run_step(&n);
    run_step(&m);
    assert_true(fabsf(values(n.io.loss)[0] - values(m.io.loss)[0]) <= 1e-6f * values(m.io.loss)[0]);
    double difference = 0, norm = 0;
    for (int64_t i = 0; i < n.parameters->trainable; i++) {
        difference += pow((double)n.parameters->gradients[i] - (double)m.parameters->gradients[i], 2);
        norm += pow((double)m.parameters->gradients[i], 2);
    }
    if (!(sqrt(difference / norm) < 1e-5 && norm > 0)) fail_msg("gradients: %g", sqrt(difference / norm));
    drop(&n);
    drop(&m);
}

/* Of a net of two blocks, whose second one drops: a sample that drops it has the stream that one block gives, the others add
 * 1 / (1 - rate) times what the block adds without drops; with drop_scale 0 nothing drops. `fill` sets the inputs. */
static inline void check_drop_path(const lam_mae_config *config, void (*fill)(net *n)) {
    enum { SAMPLES = 3 };
    lam_mae_config dropping = *config, one = *config;
    dropping.drop_path = 0.5, one.depth = 1;
    net n = make(&dropping, SAMPLES), whole = make(config, SAMPLES), part = make(&one, SAMPLES);
    stir(&n, 0.2);
    copy_weights(&whole, &n);
    copy_weights(&part, &n);
    int64_t count = lam_tensor_count(n.io.latent), dropped = 0, kept = 0;
    for (int64_t step = 0; step < 8; step++) {
        for (net *m = &n; m; m = m == &n ? &whole : m == &whole ? &part : NULL) {
            fill(m);
            *(int64_t *)lam_tensor_data(m->io.step) = step;
            ok(lam_graph_forward(m->graph));
        }
        for (int64_t b = 0; b < SAMPLES; b++) {
            double without[2] = {0, 0}, norm = 0;
            for (int64_t i = b * count / SAMPLES; i < (b + 1) * count / SAMPLES; i++) {
                double x = (double)values(part.io.latent)[i], y = (double)values(whole.io.latent)[i],
                       got = (double)values(n.io.latent)[i];
                without[0] += pow(got - x, 2);
                without[1] += pow(got - (x + 2 * (y - x)), 2);
                norm += x * x;
            }
            bool is_dropped = without[0] < 1e-10 * norm, is_kept = without[1] < 1e-10 * norm;
            if (is_dropped == is_kept) fail_msg("step %d, sample %d is neither", (int)step, (int)b);
            dropped += is_dropped, kept += is_kept;
        }
    }
    assert_true(dropped >= 4 && kept >= 4);
    values(n.io.drop_scale)[0] = 0;
    ok(lam_graph_forward(n.graph));
    assert_true(fabsf(values(n.io.loss)[0] - values(whole.io.loss)[0]) < 1e-6f * values(whole.io.loss)[0]);
    drop(&n);
    drop(&whole);
    drop(&part);
}

/* The gradient in bfloat16, which keeps 8 bits: some hundred roundings on the way add up like a random walk. */
static inline void check_bfloat16(const lam_mae_config *config, int64_t batch, void (*fill)(net *n)) {
    net n = make(config, batch), half = make_parameters(config, batch);
    lam_graph_set_activation(half.graph, LAM_BF16);
    build_training(&half);
    stir(&n, 0.2);
    copy_weights(&half, &n);
    double difference = 0, norm = 0;
    for (net *m = &n; m; m = m == &n ? &half : NULL) {
        fill(m);
        run_step(m);
    }
    float loss = values(n.io.loss)[0];
    assert_true(fabsf(values(half.io.loss)[0] - loss) < 1e-2f * loss);
    for (int64_t i = 0; i < n.parameters->trainable; i++) {
        difference += pow((double)n.parameters->gradients[i] - (double)half.parameters->gradients[i], 2);
        norm += pow((double)n.parameters->gradients[i], 2);
    }
    double error = sqrt(difference / norm);
    if (!(error < 3e-2 && error > 1e-4)) fail_msg("gradients in bfloat16 are off by %g", error);
    drop(&n);
    drop(&half);
}

/* lam_mae_step_flops is three times what the operations count in a forward pass on one crop. */
static inline void check_flops(const lam_mae_config *config) {
    net n = make(config, 2);
    lam_op_time times[64];
    double flops = 0, expected = lam_mae_step_flops(config) * lam_mae_kept_share(config, 2);
    lam_graph_profile(n.graph, true);
    ok(lam_graph_forward(n.graph));
    int64_t count = lam_graph_op_times(n.graph, times, 64);
    for (int64_t i = 0; i < count; i++) flops += times[i].flops;
    if (!(fabs(1.5 * flops - expected) < 1e-9 * expected))
        fail_msg("%s: %g operations a step, the graph has %g", lam_mae_name(config->kind), expected,
                 1.5 * flops);
    drop(&n);
}

/* Central differences of the loss along the gradient of every parameter by itself: the derivative is the gradient's norm.
 * Parameters that `without` names (a list that ends with NULL, may be NULL) must have none, biases of keys rounding alone. */
static inline void check_gradients(net *n, const char *const *without) {
    run_step(n);
    for (int64_t e = 0; e < n->parameters->entries; e++) {
        const lam_parameter_entry *entry = &n->parameters->entry[e];
        if (entry->init == LAM_INIT_FROZEN) continue;
        float *w = n->parameters->weights + entry->offset, *g = n->parameters->gradients + entry->offset,
              *kept;
        double norm = 0, step = 2e-3, loss[2];
        for (int64_t k = 0; k < entry->count; k++) norm += (double)g[k] * (double)g[k];
        norm = sqrt(norm);
        if (is_key_bias(entry->name)) {
            if (!(norm < 1e-5)) fail_msg("%s: gradient %.6g", entry->name, norm);
            continue;
        }
        bool none = false;
        for (const char *const *name = without; name && *name; name++) none |= !strcmp(*name, entry->name);
        if (none != (norm == 0)) fail_msg("%s: gradient %.6g", entry->name, norm);
        if (none) continue;
        ok(lam_alloc_array((void **)&kept, entry->count, sizeof *kept));
        memcpy(kept, w, (size_t)entry->count * sizeof *kept);
        for (int side = 0; side < 2; side++) {
            for (int64_t k = 0; k < entry->count; k++)
                w[k] = kept[k] + (float)((side ? -step : step) * (double)g[k] / norm);
            loss[side] = weighted_loss(n);
        }
        memcpy(w, kept, (size_t)entry->count * sizeof *kept);
        lam_free(kept);
        double numeric = (loss[0] - loss[1]) / (2 * step);
        if (!(fabs(numeric - norm) <= 2e-2 * norm + 3e-4))
            fail_msg("%s: gradient %.6g, differences %.6g", entry->name, norm, numeric);
    }
}

#endif
