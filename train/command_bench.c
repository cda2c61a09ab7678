#include "train/commands.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/log.h"
#include "base/memory.h"
#include "base/rng.h"
#include "base/threads.h"
#include "data/loader.h"
#include "model/optimizer.h"
#include "train/limit.h"

typedef struct preset {
    const char *name;
    int64_t dim, depth, heads, patch;
} preset;

static const preset presets[] = {{"t16", 192, 12, 3, 16},   {"t8", 192, 12, 3, 8},    {"s16", 384, 12, 6, 16},
                                 {"s8", 384, 12, 6, 8},     {"b16", 768, 12, 12, 16}, {"b8", 768, 12, 12, 8},
                                 {"l16", 1024, 24, 16, 16}, {"l8", 1024, 24, 16, 8}};

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double peak_mebibytes(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)usage.ru_maxrss / 1024;
}

/* ---- step ---- */

typedef struct step_bench {
    lam_mae_config model;
    lam_parameters *parameters;
    lam_graph *graph;
    lam_mae_io io;
    lam_optimizer_state optimizer;
    int64_t batch, updates;
} step_bench;

static lam_status open_step(step_bench *b, const char *name, bool bf16, lam_recompute recompute,
                            double drop_path) {
    const preset *p = NULL;
    bool parallel = !strncmp(name, "p-", 2), by_channel = !strncmp(name, "ca-", 3);
    for (size_t i = 0; i < sizeof presets / sizeof presets[0]; i++) {
        if (!strcmp(presets[i].name, name + (parallel ? 2 : by_channel ? 3 : 0))) p = &presets[i];
    }
    LAM_REQUIRE(p, LAM_ERROR_USAGE,
                "--model %s: take one of t16, t8, s16, s8, b16, b8, l16, l8, alone or behind p- or ca-",
                name);
    b->model = (lam_mae_config){.kind = parallel     ? LAM_MAE_VIT_PARALLEL
                                        : by_channel ? LAM_MAE_CHANNEL_AGNOSTIC
                                                     : LAM_MAE_VIT,
                                .image_size = 256,
                                .patch_size = p->patch,
                                .in_channels = 6,
                                .embed_dim = p->dim,
                                .depth = p->depth,
                                .num_heads = p->heads,
                                .decoder_embed_dim = 512,
                                .decoder_depth = 8,
                                .decoder_num_heads = 16,
                                .mask_ratio = 0.75,
                                .drop_path = drop_path,
                                .pixel_type = LAM_U8,
                                .normalize = LAM_NORMALIZE_CROP,
                                .seed = 1};
    LAM_TRY(lam_isa_select());
    LAM_TRY(lam_parameters_create(&b->parameters));
    LAM_TRY(lam_mae_parameters(b->parameters, &b->model));
    LAM_TRY(lam_parameters_layout(b->parameters, 1));
    lam_mae_fill_positions(b->parameters, &b->model);
    LAM_TRY(lam_optimizer_open(&b->optimizer, lam_optimizer_find("adamw"), b->parameters));
    LAM_TRY(lam_graph_create(&b->graph, b->parameters, LAM_BACKEND_CPU));
    if (bf16) lam_graph_set_activation(b->graph, LAM_BF16);
    lam_graph_set_recompute(b->graph, recompute);
    LAM_TRY(lam_mae_build(b->graph, &b->model, b->batch, &b->io));
    LAM_TRY(lam_graph_differentiate(b->graph, b->io.loss));
    LAM_TRY(lam_graph_plan(b->graph));
    lam_rng rng = lam_rng_stream(1, LAM_RNG_TEST, 0);
    uint8_t *pixels = lam_tensor_data(b->io.pixels);
    for (int64_t i = 0; i < lam_tensor_count(b->io.pixels); i++)
        pixels[i] = (uint8_t)lam_rng_below(&rng, 256);
    float *scale = lam_tensor_data(b->io.scale), *present = lam_tensor_data(b->io.present),
          *weight = lam_tensor_data(b->io.sample_weight);
    int64_t *ids = lam_tensor_data(b->io.sample_ids);
    if (b->io.drop_scale) *(float *)lam_tensor_data(b->io.drop_scale) = 1;
    for (int64_t c = 0; c < b->model.in_channels; c++) scale[c] = 1.0f / 255;
    for (int64_t i = 0; i < b->batch * b->model.in_channels; i++) present[i] = 1;
    for (int64_t i = 0; i < b->batch; i++) {
        ids[i] = i;
        weight[i] = 1.0f / (float)b->batch;
    }
    return LAM_OK;
}

static void close_step(step_bench *b) {
    lam_graph_free(b->graph);
    lam_parameters_free(b->parameters);
    lam_optimizer_close(&b->optimizer);
}

static lam_status one_step(step_bench *b) {
    *(int64_t *)lam_tensor_data(b->io.step) = b->updates++;
    lam_parameters_zero_gradients(b->parameters);
    LAM_TRY(lam_graph_forward(b->graph));
    LAM_TRY(lam_graph_backward(b->graph));
    lam_update update = {.lr = 1e-4,
                         .beta1 = 0.9,
                         .beta2 = 0.95,
                         .eps = 1e-8,
                         .weight_decay = 0.05,
                         .gradient_scale = 1,
                         .t = b->updates};
    return lam_optimizer_step(&b->optimizer, b->parameters, &update, 0, b->parameters->trainable);
}

static void print_op_times(const lam_graph *graph, int64_t steps) {
    enum { MAXIMUM = 64 };
    lam_op_time times[MAXIMUM];
    int64_t count = lam_graph_op_times(graph, times, MAXIMUM);
    printf("\n%-20s %-9s %8s %10s %10s\n", "operation", "", "calls", "ms a step", "GFLOP/s");
    for (int64_t i = 0; i < count; i++)
        printf("%-20s %-9s %8" PRId64 " %10.2f %10.1f\n", times[i].op,
               times[i].backward ? "backward" : "forward", times[i].calls / steps,
               times[i].seconds * 1e3 / (double)steps,
               times[i].seconds > 0 ? times[i].flops / times[i].seconds / 1e9 : 0);
}

static lam_status print_step(const lam_arguments *a, const step_bench *b, double *rates, int64_t steps,
                             double limit) {
    double flops = lam_mae_step_flops(&b->model), kept = lam_mae_kept_share(&b->model);
    qsort(rates, (size_t)steps, sizeof *rates, compare);
    double rate = rates[steps / 2], speed = rate * flops * kept;
    lam_memory_report m;
    lam_graph_memory(b->graph, &m);
    int64_t moments = lam_optimizer_bytes(b->optimizer.optimizer, b->parameters);
    if (!lam_option_json(a)) {
        printf(
            "step of %s, batch %" PRId64
            ", f32, cpu %s, %d threads: %.2f crops/s (%.2f to %.2f), %.1f GFLOP/s, %.0f %% of products at %.1f\n",
            lam_option_text(a, "model"), b->batch, lam_isa_name(), lam_threads(), rate, rates[0],
            rates[steps - 1], speed / 1e9, 100 * speed / limit, limit / 1e9);
        if (kept < 1) printf("drop path %g: %.1f %% of the work is done\n", b->model.drop_path, 100 * kept);
        printf(
            "memory, MiB: weights %.1f, packed %.1f, gradients %.1f, optimizer %.1f, activations %.1f, their gradients %.1f, workspace %.1f, inputs "
            "%.1f, together in an arena of %.1f; peak of the process %.0f\n",
            (double)m.weights / 1048576, (double)m.packed / 1048576, (double)m.gradients / 1048576,
            (double)moments / 1048576, (double)m.activations / 1048576,
            (double)m.activation_gradients / 1048576, (double)m.workspace / 1048576,
            (double)m.inputs / 1048576, (double)m.total / 1048576, peak_mebibytes());
        print_op_times(b->graph, steps);
        return LAM_OK;
    }
    printf(
        "{\"bench\": \"step\", \"model\": \"%s\", \"batch\": %" PRId64
        ", \"precision\": \"%s\", \"device\": \"cpu\", \"isa\": \"%s\", "
        "\"threads\": %d, \"crops_per_s\": %.4f, \"spread\": [%.4f, %.4f], \"gflops_per_crop\": %.3f, \"kept_share\": %.4f, \"gflops_per_s\": %.2f, "
        "\"limit_gflops_per_s\": %.2f, \"share_of_limit\": %.4f, \"peak_MiB\": %.1f, \"activations_MiB\": %.1f}\n",
        lam_option_text(a, "model"), b->batch, lam_option_text(a, "precision"), lam_isa_name(), lam_threads(),
        rate, rates[0], rates[steps - 1], flops / 1e9, kept, speed / 1e9, limit / 1e9, speed / limit,
        peak_mebibytes(), (double)m.activations / 1048576);
    return LAM_OK;
}

static lam_recompute recompute_of(const char *name) {
    return !strcmp(name, "block")       ? LAM_RECOMPUTE_BLOCK
           : !strcmp(name, "norm_gelu") ? LAM_RECOMPUTE_NORM_GELU
                                        : LAM_RECOMPUTE_NONE;
}

static lam_status bench_step(const lam_arguments *a) {
    step_bench b = {.batch = lam_option_int(a, "batch")};
    int64_t steps = lam_option_int(a, "steps");
    double *rates = NULL, limit = 0;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_alloc_array((void **)&rates, steps, sizeof(double)), done);
    LAM_TRY_GOTO(open_step(&b, lam_option_text(a, "model"), !strcmp(lam_option_text(a, "precision"), "bf16"),
                           recompute_of(lam_option_text(a, "recompute")), lam_option_float(a, "drop-path")),
                 done);
    LAM_TRY_GOTO(one_step(&b), done); /* caches and code are warm after it */
    LAM_TRY_GOTO(lam_gemm_limit(&b.model, b.batch, 2, &limit), done);
    lam_graph_profile(b.graph, true);
    for (int64_t i = 0; i < steps; i++) {
        double start = lam_now();
        LAM_TRY_GOTO(one_step(&b), done);
        rates[i] = (double)b.batch / (lam_now() - start);
    }
    status = print_step(a, &b, rates, steps, limit);
done:
    close_step(&b);
    lam_free(rates);
    return status;
}

/* ---- loader ---- */

static lam_status bench_loader(const lam_arguments *a, const char *path) {
    lam_shards *shards = NULL;
    lam_loader *loader = NULL;
    const lam_batch *batch = NULL;
    int64_t steps = lam_option_int(a, "steps"), rows = 0, size = lam_option_int(a, "crop-size");
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_shards_open(&shards, path), done);
    lam_loader_config config = {.global_batch = lam_option_int(a, "batch"),
                                .crop_size = size,
                                .crops_per_image = 1,
                                .seed = 1,
                                .world_size = 1,
                                .threads = lam_threads(),
                                .flips = true,
                                .rotations = true};
    LAM_TRY_GOTO(lam_loader_open(&loader, shards, &config), done);
    LAM_TRY_GOTO(lam_loader_next(loader, &batch), done);
    double start = lam_now();
    for (int64_t i = 0; i < steps; i++) {
        LAM_TRY_GOTO(lam_loader_next(loader, &batch), done);
        for (int64_t r = 0; r < batch->rows; r++) rows += batch->valid[r] != 0;
    }
    double seconds = lam_now() - start, crops = (double)rows / seconds;
    double bytes =
        crops * (double)(lam_shards_channels(shards) * size * size) * (double)lam_shards_pixel_type(shards);
    if (lam_option_json(a))
        printf("{\"bench\": \"loader\", \"batch\": %" PRId64 ", \"crop_size\": %" PRId64
               ", \"threads\": %d, \"device\": \"cpu\", "
               "\"crops_per_s\": %.2f, \"bytes_per_s\": %.0f, \"peak_MiB\": %.1f}\n",
               config.global_batch, size, lam_threads(), crops, bytes, peak_mebibytes());
    else
        printf("loader: %.1f crops/s of %" PRId64 " pixels, %.1f MB/s of pixels, %d threads\n", crops, size,
               bytes / 1e6, lam_threads());
done:
    lam_loader_close(&loader);
    lam_shards_close(&shards);
    return status;
}

static lam_status run_loader(const lam_arguments *a) { return bench_loader(a, lam_positional(a, 0)); }

static const lam_option step_options[] = {
    {"model", LAM_OPTION_TEXT, "NAME", "s16",
     "t16, t8, s16, s8, b16, b8, l16 or l8 (mae_vit), p-s16 (mae_vit_parallel), ca-s16 (mae_channel_agnostic); 6 channels of 256 pixels",
     .required = false},
    {"batch", LAM_OPTION_INT, "N", "8", "crops at once", .minimum = 1, .maximum = 65536},
    {"precision", LAM_OPTION_CHOICE, "f32|bf16", "f32", "type of the activations", .required = false},
    {"recompute", LAM_OPTION_CHOICE, "none|norm_gelu|block", "none",
     "what the backward pass computes again instead of keeping it", .required = false},
    {"steps", LAM_OPTION_INT, "N", "5", "that are timed; the median counts", .minimum = 1,
     .maximum = 1000000},
    {"drop-path", LAM_OPTION_FLOAT, "RATE", "0", "stochastic depth of the encoder", .minimum = 0,
     .maximum = 0.9},
    {.name = NULL}};

const lam_command lam_command_bench_step = {
    "bench step",
    "speed of a training step, the limit of this machine, and their ratio",
    "",
    0,
    0,
    step_options,
    "lamella bench step --model s16 --batch 8",
    bench_step};

static const lam_option loader_options[] = {
    {"batch", LAM_OPTION_INT, "N", "8", "crops at once", .minimum = 1, .maximum = 65536},
    {"steps", LAM_OPTION_INT, "N", "5", "batches that are timed", .minimum = 1, .maximum = 1000000},
    {"crop-size", LAM_OPTION_INT, "PIXELS", "64", "side of a crop", .minimum = 1, .maximum = 8192},
    {.name = NULL}};

const lam_command lam_command_bench_loader = {
    "bench loader", "speed at which batches of crops come from shards", "SHARDS",  1, 1,
    loader_options, "lamella bench loader shards --crop-size 64",       run_loader};
