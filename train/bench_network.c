#include "train/bench_network.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/rng.h"

#define IMAGE_SIZE 256

/* Of the updates: any would cost the same. */
#define LR 1e-4
#define BETA1 0.9
#define BETA2 0.95
#define EPS 1e-8
#define WEIGHT_DECAY 0.05

/* Dosovitskiy et al. 2021, table 1; Zhai et al. 2022, table 2 (g: their G, as in Kenyon-Dean et al. 2024). */
static const struct size {
    char name;
    int64_t dim, depth, heads, mlp_dim; /* mlp_dim 0: 4 x dim */
} sizes[] = {{'t', 192, 12, 3, 0},   {'s', 384, 12, 6, 0},   {'b', 768, 12, 12, 0},
             {'l', 1024, 24, 16, 0}, {'h', 1280, 32, 16, 0}, {'g', 1664, 48, 16, 8192}};

static const struct family {
    const char *prefix;
    lam_mae_kind kind;
} families[] = {{"ca-", LAM_MAE_CHANNEL_AGNOSTIC}, {"p-", LAM_MAE_VIT_PARALLEL}, {"", LAM_MAE_VIT}};

static const struct size *size_of(char name) {
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (sizes[i].name == name) return &sizes[i];
    return NULL;
}

static int64_t patch_of(const char *text) {
    static const char *const patches[] = {"8", "14", "16", "32"};
    for (size_t i = 0; i < sizeof patches / sizeof *patches; i++)
        if (!strcmp(text, patches[i])) return strtoll(text, NULL, 10);
    return 0;
}

lam_status lam_bench_model(const char *name, lam_mae_config *model) {
    const struct family *family = families;
    while (strncmp(name, family->prefix, strlen(family->prefix)) != 0) family++;
    const char *rest = name + strlen(family->prefix);
    const struct size *size = size_of(*rest);
    int64_t patch = size ? patch_of(rest + 1) : 0;
    LAM_REQUIRE(patch, LAM_ERROR_USAGE, "there is no model '%s': %s", name, LAM_BENCH_MODELS);
    *model = (lam_mae_config){.kind = family->kind,
                              .image_size = IMAGE_SIZE / patch * patch,
                              .patch_size = patch,
                              .in_channels = 6,
                              .embed_dim = size->dim,
                              .depth = size->depth,
                              .num_heads = size->heads,
                              .mlp_dim = size->mlp_dim,
                              .decoder_embed_dim = 512,
                              .decoder_depth = 8,
                              .decoder_num_heads = 16,
                              .mask_ratio = 0.75,
                              .decoder = LAM_DECODER_SHARED,
                              .pixel_type = LAM_U8,
                              .normalize = LAM_NORMALIZE_CROP,
                              .seed = 1};
    return LAM_OK;
}

static void fill_inputs(const lam_bench_network *n) {
    lam_rng rng = lam_rng_stream(1, LAM_RNG_TEST, 0);
    const lam_mae_pixels *in = &n->io.input;
    uint8_t *pixels = lam_tensor_data(in->pixels);
    for (int64_t i = 0; i < lam_tensor_count(in->pixels); i++) pixels[i] = (uint8_t)lam_rng_below(&rng, 256);
    float *scale = lam_tensor_data(in->scale), *present = lam_tensor_data(in->present),
          *weight = lam_tensor_data(n->io.sample_weight);
    int64_t *ids = lam_tensor_data(n->io.sample_ids);
    if (n->io.drop_scale) *(float *)lam_tensor_data(n->io.drop_scale) = 1;
    for (int64_t c = 0; c < n->model.in_channels; c++) scale[c] = 1.0f / 255;
    for (int64_t i = 0; i < n->batch * n->model.in_channels; i++) present[i] = 1;
    for (int64_t i = 0; i < n->batch; i++) {
        ids[i] = i;
        weight[i] = 1.0f / (float)n->batch;
    }
}

static lam_status open_update(lam_bench_network *n, lam_dtype activation, bool autotune) {
    n->update_bytes = lam_optimizer_bytes(n->optimizer.optimizer, n->parameters);
    if (n->backend == lam_backend_cpu()) return LAM_OK;
    lam_device_step_options options = {.backend = n->backend,
                                       .parameters = n->parameters,
                                       .graphs = &n->graph,
                                       .io = &n->io,
                                       .graph_count = 1,
                                       .optimizer = n->optimizer.optimizer,
                                       .bf16 = activation == LAM_BF16,
                                       .autotune = autotune};
    n->update_bytes = lam_device_step_bytes(&options);
    LAM_TRY(lam_device_step_open(&n->device, &options));
    return lam_device_step_push(n->device, n->optimizer.arena, NULL, 0, 0, 0);
}

lam_status lam_bench_network_open(lam_bench_network *n, const lam_backend *backend, bool autotune, const char *name,
                                  int64_t batch, lam_dtype activation, lam_recompute recompute, double drop_path) {
    *n = (lam_bench_network){.batch = batch, .backend = backend};
    LAM_TRY(lam_bench_model(name, &n->model));
    n->model.drop_path = drop_path;
    LAM_TRY(lam_isa_select());
    LAM_TRY(lam_parameters_create(&n->parameters));
    LAM_TRY(lam_mae_parameters(n->parameters, &n->model));
    LAM_TRY(lam_parameters_layout(n->parameters, 1));
    lam_mae_fill_positions(n->parameters, &n->model);
    LAM_TRY(lam_optimizer_open(&n->optimizer, lam_optimizer_find("adamw"), n->parameters));
    LAM_TRY(lam_graph_create(&n->graph, n->parameters, backend));
    lam_graph_set_activation(n->graph, activation);
    lam_graph_set_recompute(n->graph, recompute);
    LAM_TRY(lam_mae_build(n->graph, &n->model, n->batch, &n->io));
    LAM_TRY(lam_graph_differentiate(n->graph, n->io.loss));
    LAM_TRY(lam_graph_plan(n->graph));
    fill_inputs(n);
    return open_update(n, activation, autotune);
}

void lam_bench_network_close(lam_bench_network *n) {
    lam_device_step_close(&n->device);
    lam_graph_free(n->graph);
    lam_parameters_free(n->parameters);
    lam_optimizer_close(&n->optimizer);
}

static lam_status step(lam_bench_network *n) {
    *(int64_t *)lam_tensor_data(n->io.step) = n->updates++;
    lam_parameters_zero_gradients(n->parameters);
    LAM_TRY(lam_graph_forward(n->graph));
    LAM_TRY(lam_graph_backward(n->graph));
    double start = lam_now();
    lam_update update = {.lr = LR,
                         .beta1 = BETA1,
                         .beta2 = BETA2,
                         .eps = EPS,
                         .weight_decay = WEIGHT_DECAY,
                         .gradient_scale = 1,
                         .t = n->updates};
    LAM_TRY(lam_optimizer_step(&n->optimizer, n->parameters, &update, 0, n->parameters->trainable));
    n->update_seconds = lam_now() - start;
    return LAM_OK;
}

static lam_cuda_update_input terms_of(const lam_bench_network *n) {
    return (lam_cuda_update_input){.lr = LR,
                                   .beta1 = BETA1,
                                   .beta2 = BETA2,
                                   .eps = EPS,
                                   .weight_decay = WEIGHT_DECAY,
                                   .rows = n->batch};
}

static lam_status give(lam_bench_network *n) {
    lam_cuda_update_input terms = terms_of(n);
    *(int64_t *)lam_tensor_data(n->io.step) = n->updates++;
    return lam_device_step_give(n->device, 0, true, true, &terms);
}

lam_status lam_bench_network_steps(lam_bench_network *n, int64_t steps, double *seconds) {
    double start = lam_now();
    if (n->device) LAM_TRY(give(n));
    for (int64_t i = 0; i < steps; i++) {
        if (!n->device) {
            LAM_TRY(step(n));
        } else {
            lam_cuda_update_outcome outcome;
            if (i + 1 < steps) LAM_TRY(give(n));
            LAM_TRY(lam_device_step_outcome(n->device, &outcome));
            LAM_REQUIRE(!outcome.skipped_now, LAM_ERROR_NUMERIC, "step %lld: loss %g, gradient norm %g",
                        (long long)i, outcome.loss, outcome.gradient_norm);
        }
        double now = lam_now();
        seconds[i] = now - start;
        start = now;
    }
    return LAM_OK;
}

lam_status lam_bench_network_profile(lam_bench_network *n) {
    lam_parameters_zero_gradients(n->parameters);
    LAM_TRY(lam_graph_forward(n->graph));
    LAM_TRY(lam_graph_backward(n->graph));
    lam_cuda_update_input terms = terms_of(n);
    return n->device ? lam_device_step_time_update(n->device, &terms, &n->update_seconds) : LAM_OK;
}
