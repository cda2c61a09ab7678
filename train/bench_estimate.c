#include "train/bench_estimate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/estimate.h"
#include "train/bench_network.h"

enum {
    MOST_ROWS = 128,
    ADAMW_FLOATS = 8 /* an element: the gradient for the norm, then four read and three written */
};

typedef struct paper {
    lam_mae_config model;
    lam_parameters *parameters;
    lam_graph *graph;
    lam_mae_io io;
    lam_memory_report memory;
    double elements; /* of all parameters */
    bool bf16;
    lam_op_estimate rows[MOST_ROWS];
    int64_t count;
} paper;

/* Neither weights nor activations have memory: a network of any size at any batch can be looked at. */
static lam_status build(paper *p, const lam_bench_settings *s, const lam_device_limits *limits) {
    lam_recompute what = lam_bench_recompute(s->recompute);
    LAM_TRY(lam_bench_model(s->model, &p->model));
    p->model.drop_path = s->drop_path;
    p->bf16 = s->bf16;
    LAM_TRY(lam_parameters_create(&p->parameters));
    LAM_TRY(lam_mae_parameters(p->parameters, &p->model));
    for (int64_t i = 0; i < p->parameters->entries; i++) p->elements += (double)p->parameters->entry[i].count;
    LAM_TRY(lam_graph_create(&p->graph, p->parameters, lam_backend_cpu()));
    lam_graph_set_activation(p->graph, s->bf16 ? LAM_BF16 : LAM_F32);
    lam_graph_set_recompute(p->graph, what);
    LAM_TRY(lam_mae_build(p->graph, &p->model, s->batch, &p->io));
    LAM_TRY(lam_graph_differentiate(p->graph, p->io.loss));
    LAM_TRY(lam_graph_measure(p->graph, what, &p->memory));
    double copied;
    p->count = lam_graph_estimate(p->graph, limits, p->rows, MOST_ROWS - 1, &copied);
    p->rows[p->count++] = lam_estimate_update(limits, ADAMW_FLOATS * sizeof(float) * p->elements + copied);
    return LAM_OK;
}

static int longest_first(const void *a, const void *b) {
    double x = ((const lam_op_estimate *)a)->seconds, y = ((const lam_op_estimate *)b)->seconds;
    return (x < y) - (x > y);
}

static void set_operations(lam_json *record, const paper *p) {
    lam_json *list = lam_json_array();
    for (int64_t i = 0; i < p->count; i++) {
        const lam_op_estimate *e = &p->rows[i];
        lam_json *o = lam_json_object();
        lam_json_set_text(o, "op", e->op);
        lam_json_set_text(o, "pass",
                          !strcmp(e->op, "optimizer") ? "update"
                          : e->again                  ? "again"
                          : e->backward               ? "backward"
                                                      : "forward");
        lam_json_set_int(o, "calls", e->calls);
        lam_json_set_float(o, "ms", e->seconds * 1e3);
        lam_json_set_float(o, "bound_ms", e->bound_seconds * 1e3);
        lam_json_set_float(o, "gflop", e->flops / 1e9);
        lam_json_set_float(o, "gigaexponentials", e->exponentials / 1e9);
        lam_json_set_float(o, "gb", e->bytes / 1e9);
        lam_json_append(list, o);
    }
    lam_json_set(record, "operations", list);
}

static void set_times(lam_json *record, const paper *p, const lam_bench_settings *s,
                      const lam_device_limits *limits) {
    double seconds = 0, bound = 0, products = 0, attention = 0, flops = lam_mae_step_flops(&p->model),
           kept = lam_mae_kept_share(&p->model, s->batch),
           limit = s->bf16 ? limits->bf16_flops_per_s : limits->f32_flops_per_s;
    for (int64_t i = 0; i < p->count; i++) {
        const lam_op_estimate *e = &p->rows[i];
        seconds += e->seconds;
        bound += e->bound_seconds;
        if (e->exponentials > 0)
            attention += e->seconds;
        else if (e->flops > 0)
            products += e->seconds;
    }
    double crops = (double)s->batch / seconds;
    lam_json_set_float(record, "step_ms", seconds * 1e3);
    lam_json_set_float(record, "bound_ms", bound * 1e3);
    lam_json_set_float(record, "crops_per_s", crops);
    lam_json_set_float(record, "gflops_per_crop", flops / 1e9);
    lam_json_set_float(record, "kept_share", kept);
    lam_json_set_float(record, "gflops_per_s", crops * flops * kept / 1e9);
    lam_json_set_float(record, "limit_gflops_per_s", limit / 1e9);
    lam_json_set_float(record, "share_of_limit", crops * flops / limit);
    lam_json_set_float(record, "products_ms", products * 1e3);
    lam_json_set_float(record, "attention_ms", attention * 1e3);
    lam_json_set_float(record, "other_ms", (seconds - products - attention) * 1e3);
}

static void set_memory(lam_json *record, const paper *p, const lam_device_limits *limits) {
    lam_json *memory = lam_json_object();
    const double packed = p->bf16 ? 2 * p->elements : 0; /* weights once more */
    lam_json_set_float(memory, "weights", 4 * p->elements / 0x1p20);
    lam_json_set_float(memory, "gradients", 4 * p->elements / 0x1p20);
    lam_json_set_float(memory, "optimizer", 8 * p->elements / 0x1p20);
    lam_json_set_float(memory, "activations", (double)p->memory.activations / 0x1p20);
    lam_json_set_float(memory, "activation_gradients", (double)p->memory.activation_gradients / 0x1p20);
    lam_json_set_float(memory, "arena", (double)p->memory.total / 0x1p20);
    lam_json_set_float(memory, "packed", packed / 0x1p20);
    lam_json_set_float(memory, "together", (16 * p->elements + packed + (double)p->memory.total) / 0x1p20);
    lam_json_set_float(memory, "of", limits->memory_bytes / 0x1p20);
    lam_json_set(record, "memory_MiB", memory);
}

lam_status lam_bench_estimate_options(const lam_arguments *a) {
    const bool estimate = lam_option_flag(a, "estimate");
    LAM_REQUIRE(estimate || !lam_option_given(a, "gpu"), LAM_ERROR_USAGE,
                "--gpu says whose limits an estimate takes; add --estimate");
    LAM_REQUIRE(!estimate || !lam_option_given(a, "device") || !strcmp(lam_option_text(a, "device"), "cuda"),
                LAM_ERROR_USAGE, "--estimate is for a GPU; leave out --device cpu");
    return LAM_OK;
}

lam_status lam_bench_estimate(const lam_bench_settings *s, lam_json **record) {
    paper p = {0};
    const lam_device_limits *limits = lam_device_limits_find(s->gpu);
    lam_status status = build(&p, s, limits);
    if (status == LAM_OK) {
        qsort(p.rows, (size_t)p.count, sizeof *p.rows, longest_first);
        *record = lam_json_object();
        lam_json_set_text(*record, "bench", "estimate");
        lam_json_set_text(*record, "model", s->model);
        lam_json_set_int(*record, "batch", s->batch);
        lam_json_set_text(*record, "precision", s->bf16 ? "bf16" : "f32");
        lam_json_set_text(*record, "recompute", s->recompute);
        lam_json_set_float(*record, "drop_path", s->drop_path);
        lam_json_set_text(*record, "device", "cuda");
        lam_json_set_text(*record, "gpu", s->gpu);
        set_times(*record, &p, s, limits);
        set_memory(*record, &p, limits);
        set_operations(*record, &p);
    }
    lam_graph_free(p.graph);
    lam_parameters_free(p.parameters);
    return status;
}

static double number(const lam_json *object, const char *key) {
    return lam_json_float(lam_json_get(object, key), 0);
}

void lam_bench_print_estimate(const lam_json *record) {
    const lam_json *list = lam_json_get(record, "operations"), *memory = lam_json_get(record, "memory_MiB");
    printf("step of %s, batch %.0f, %s, on paper for one %s: %.0f crops/s, %.2f ms (every operation at its limit: "
           "%.2f), %.0f %% of %.0f TFLOP/s\n",
           lam_json_text(lam_json_get(record, "model"), ""), number(record, "batch"),
           lam_json_text(lam_json_get(record, "precision"), ""), lam_json_text(lam_json_get(record, "gpu"), ""),
           number(record, "crops_per_s"), number(record, "step_ms"), number(record, "bound_ms"), 100 * number(record, "share_of_limit"),
           number(record, "limit_gflops_per_s") / 1e3);
    printf("products %.2f ms, attention %.2f, everything else %.2f (%.0f %%)\n", number(record, "products_ms"),
           number(record, "attention_ms"), number(record, "other_ms"),
           100 * number(record, "other_ms") / number(record, "step_ms"));
    const bool fits = number(memory, "together") <= number(memory, "of");
    printf("memory, MiB: weights %.0f, packed %.0f, gradients %.0f, optimizer %.0f, arena of a step %.0f, together %.0f of "
           "%.0f%s\n",
           number(memory, "weights"), number(memory, "packed"), number(memory, "gradients"),
           number(memory, "optimizer"), number(memory, "arena"), number(memory, "together"), number(memory, "of"),
           fits ? "" : ": it does not fit; take a smaller --batch, or --recompute norm_gelu or block");
    printf("\n%-20s %-9s %7s %10s %10s %10s %10s %10s\n", "operation", "", "calls", "ms", "at limits", "GFLOP",
           "G exp", "GB");
    for (size_t i = 0; i < lam_json_size(list); i++) {
        const lam_json *o = lam_json_at(list, i);
        printf("%-20s %-9s %7.0f %10.3f %10.3f %10.1f %10.2f %10.3f\n", lam_json_text(lam_json_get(o, "op"), ""),
               lam_json_text(lam_json_get(o, "pass"), ""), number(o, "calls"), number(o, "ms"),
               number(o, "bound_ms"), number(o, "gflop"), number(o, "gigaexponentials"), number(o, "gb"));
    }
}
