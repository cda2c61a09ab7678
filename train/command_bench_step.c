#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/files.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/records.h"
#include "train/bench_compare.h"
#include "train/bench_estimate.h"
#include "train/bench_network.h"
#include "train/commands.h"
#include "train/device.h"

/* ---- text ---- */

static double number(const lam_json *object, const char *key) {
    return lam_json_float(lam_json_get(object, key), 0);
}
static const char *text(const lam_json *object, const char *key) {
    return lam_json_text(lam_json_get(object, key), "");
}

static void print_limits(const lam_json *record) {
    const lam_json *libraries = lam_json_get(record, "limit_libraries");
    if (!lam_json_get(record, "limit_gflops_per_s")) {
        printf("limits: not known of this GPU\n");
        return;
    }
    if (lam_json_get(record, "gpu")) {
        printf("limits: products %.0f TFLOP/s, memory %.0f GB/s\n", number(record, "limit_gflops_per_s") / 1e3,
               number(record, "memory_gb_per_s"));
        return;
    }
    printf("limits: products %.1f GFLOP/s, fastest", number(record, "limit_gflops_per_s"));
    for (size_t i = 0; i < lam_json_size(libraries); i++)
        printf("%s %s for %.0f %%", i ? "," : "", text(lam_json_at(libraries, i), "name"),
               100 * number(lam_json_at(libraries, i), "share"));
    printf("; memory %.1f GB/s\n", number(record, "memory_gb_per_s"));
}

static void print_memory(const lam_json *record) {
    const lam_json *memory = lam_json_get(record, "memory_MiB");
    printf(
        "memory, MiB: weights %.1f, packed %.1f, gradients %.1f, optimizer %.1f, activations %.1f, their "
        "gradients %.1f, workspace %.1f, inputs %.1f, together in an arena of %.1f; peak of the process %.0f\n",
        number(memory, "weights"), number(memory, "packed"), number(memory, "gradients"),
        number(memory, "optimizer"), number(memory, "activations"), number(memory, "activation_gradients"),
        number(memory, "workspace"), number(memory, "inputs"), number(memory, "arena"),
        number(record, "peak_MiB"));
}

static void print_operations(const lam_json *record) {
    const lam_json *list = lam_json_get(record, "operations");
    printf("\n%-20s %-9s %7s %11s %9s %10s %9s %10s\n", "operation", "", "calls", "ms a step", "% of it",
           "GFLOP/s", "GB/s", "% of limit");
    for (size_t i = 0; i < lam_json_size(list); i++) {
        const lam_json *o = lam_json_at(list, i);
        char products[24] = "-", share[24] = "-";
        if (number(o, "gflops_per_s") > 0)
            snprintf(products, sizeof products, "%.1f", number(o, "gflops_per_s"));
        if (lam_json_get(o, "share_of_limit"))
            snprintf(share, sizeof share, "%.0f", 100 * number(o, "share_of_limit"));
        printf("%-20s %-9s %7.0f %11.2f %9.1f %10s %9.1f %10s\n", text(o, "op"), text(o, "pass"),
               number(o, "calls"), number(o, "ms"), 100 * number(o, "share_of_step"), products,
               number(o, "gb_per_s"), share);
    }
    printf(
        "%% of limit: where there are GFLOP/s of that of the products, else of that of memory; above 100: read from a cache\n");
}

static void print_step(const lam_json *record) {
    const lam_json *spread = lam_json_get(record, "spread");
    char device[160];
    if (lam_json_get(record, "gpu"))
        snprintf(device, sizeof device, "%s", text(record, "gpu"));
    else
        snprintf(device, sizeof device, "cpu %s, %.0f threads", text(record, "isa"), number(record, "threads"));
    char share[40] = "";
    if (lam_json_get(record, "share_of_limit"))
        snprintf(share, sizeof share, ", %.0f %% of the limit", 100 * number(record, "share_of_limit"));
    printf("step of %s, batch %.0f, %s, %s: %.2f crops/s (%.2f to %.2f), %.1f ms, %.1f GFLOP/s%s\n",
           text(record, "model"), number(record, "batch"), text(record, "precision"), device,
           number(record, "crops_per_s"), lam_json_float(lam_json_at(spread, 0), 0),
           lam_json_float(lam_json_at(spread, 1), 0), number(record, "step_ms"), number(record, "gflops_per_s"),
           share);
    if (number(record, "kept_share") < 1)
        printf(
            "%.1f %% of the products of the whole network are done: the others count in no loss or are the same "
            "for all samples%s\n",
            100 * number(record, "kept_share"),
            number(record, "drop_path") > 0 ? ", or their branch is dropped" : "");
    print_limits(record);
    print_memory(record);
    print_operations(record);
}

/* ---- the command ---- */

static lam_status save(const lam_json *record, const char *path) {
    char *bytes = NULL;
    LAM_TRY(lam_json_dump(record, true, &bytes));
    lam_status status = lam_file_write(path, bytes, strlen(bytes));
    lam_free(bytes);
    return status;
}

static lam_status bench_step(const lam_arguments *a) {
    const char *to = lam_option_text(a, "save"), *against = lam_option_text(a, "against");
    lam_bench_settings settings = {.start = lam_now(),
                                   .model = lam_option_text(a, "model"),
                                   .batch = lam_option_int(a, "batch"),
                                   .gpu = lam_option_text(a, "gpu"),
                                   .warmup = lam_option_int(a, "warmup"),
                                   .steps = lam_option_int(a, "steps"),
                                   .bf16 = !strcmp(lam_option_text(a, "precision"), "bf16"),
                                   .recompute = lam_option_text(a, "recompute"),
                                   .drop_path = lam_option_float(a, "drop-path"),
                                   .limit_seconds = lam_option_float(a, "limit-seconds")};
    lam_json *record = NULL, *before = NULL, *comparison = NULL;
    lam_status status = LAM_OK;
    LAM_TRY(lam_bench_estimate_options(a));
    if (lam_option_flag(a, "estimate")) {
        LAM_REQUIRE(!to && !against, LAM_ERROR_USAGE, "bench step: --estimate measures nothing to save or compare");
        LAM_REQUIRE(!lam_option_flag(a, "autotune"), LAM_ERROR_USAGE, "bench step: --estimate measures nothing to --autotune by");
        LAM_TRY(lam_bench_estimate(&settings, &record));
        status = LAM_OK;
        if (lam_option_json(a))
            status = lam_records_print(record, false);
        else
            lam_bench_print_estimate(record);
        lam_json_free(record);
        return status;
    }
    lam_device device;
    LAM_TRY(lam_device_open_to_train(a, 0, &device));
    settings.backend = device.backend;
    settings.autotune = device.autotune;
    if (to) LAM_TRY_GOTO(lam_require_new_file(to, lam_option_force(a)), done);
    if (against) LAM_TRY_GOTO(lam_bench_read(against, &settings, &before), done);
    LAM_TRY_GOTO(lam_bench_measure(&settings, &record), done);
    if (to) LAM_TRY_GOTO(save(record, to), done);
    if (before) comparison = lam_bench_compare(against, before, record);
    if (lam_option_json(a)) {
        if (comparison) lam_json_set(record, "comparison", comparison);
        comparison = NULL;
        status = lam_records_print(record, false);
    } else {
        print_step(record);
        if (comparison) lam_bench_print_comparison(comparison);
    }
done:
    lam_json_free(comparison);
    lam_json_free(before);
    lam_json_free(record);
    return status;
}

static const lam_option options[] = {
    {"model", LAM_OPTION_TEXT, "NAME", "s16", LAM_BENCH_MODELS, .required = false},
    {"batch", LAM_OPTION_INT, "N", "8", "crops at once", .minimum = 1, .maximum = 65536},
    {"precision", LAM_OPTION_CHOICE, "f32|bf16", "f32", "type of the activations", .required = false},
    {"recompute", LAM_OPTION_CHOICE, "none|norm_gelu|block", "none",
     "what the backward pass computes again instead of keeping it", .required = false},
    LAM_DEVICE_OPTION,
    LAM_AUTOTUNE_OPTION,
    LAM_ESTIMATE_OPTIONS,
    {"warmup", LAM_OPTION_INT, "N", "1", "steps before those that are timed", .minimum = 1, .maximum = 100000},
    {"steps", LAM_OPTION_INT, "N", "5", "that are timed; medians count", .minimum = 1, .maximum = 100000},
    {"drop-path", LAM_OPTION_FLOAT, "RATE", "0", "stochastic depth of the encoder", .minimum = 0,
     .maximum = 0.9},
    {"limit-seconds", LAM_OPTION_FLOAT, "S", "2", "spent on the limits of the machine, at least",
     .minimum = 0.001, .maximum = 3600},
    {"save", LAM_OPTION_TEXT, "FILE.json", NULL, "write the result there", .required = false},
    {"against", LAM_OPTION_TEXT, "FILE.json", NULL,
     "a saved result of the same step (model, batch, precision, recompute, drop path, threads): before and after, by operation",
     .required = false},
    {.name = NULL}};

const lam_command lam_command_bench_step = {
    "bench step",
    "speed of a training step by operation, the limits of this machine, and their ratio",
    "",
    0,
    0,
    options,
    "lamella bench step --model s16 --batch 8 --save before.json\n"
    "lamella bench step --model s16 --batch 8 --against before.json\n"
    "lamella bench step --device cuda --model l16 --batch 256 --precision bf16 --estimate",
    bench_step};
