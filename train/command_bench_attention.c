/* `lamella bench attention`: the fused kernels alone, forward and backward, beside what limits them. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "base/records.h"
#include "base/threads.h"
#include "model/estimate.h"
#include "model/graph.h"
#include "train/attention_timer.h"
#include "train/bench_estimate.h"
#include "train/commands.h"
#include "train/device.h"

typedef struct question {
    const lam_arguments *arguments;
    lam_attention_shape shape;
    bool bf16;
} question;

static double forward_flops(const lam_attention_shape *s) {
    return 4 * (double)(s->batch * s->heads * s->queries) * (double)(s->queries * s->head_dim);
}

static lam_json *record_of(const question *q, const char *bench, int what) {
    lam_json *record = lam_json_object();
    lam_json_set_text(record, "bench", bench);
    lam_json_set_text(record, "pass", what == LAM_TIME_FORWARD ? "forward" : "backward");
    lam_json_set_int(record, "batch", q->shape.batch);
    lam_json_set_int(record, "tokens", q->shape.queries);
    lam_json_set_int(record, "heads", q->shape.heads);
    lam_json_set_int(record, "head_dim", q->shape.head_dim);
    lam_json_set_text(record, "precision", lam_option_text(q->arguments, "precision"));
    return record;
}

static lam_status print_record(lam_json *record) {
    lam_status status = lam_records_print(record, false);
    lam_json_free(record);
    return status;
}

/* ---- on paper ---- */

static lam_status print_estimate(const question *q) {
    const char *gpu = lam_option_text(q->arguments, "gpu");
    const lam_attention_shape *s = &q->shape;
    bool json = lam_option_json(q->arguments);
    const int64_t largest = 128; /* head_dim of the kernels (model/cuda/attention.cu) */
    LAM_REQUIRE(s->head_dim <= largest, LAM_ERROR_USAGE, "--head-dim %" PRId64 ": a GPU takes %" PRId64 " at most",
                s->head_dim, largest);
    if (!json)
        printf("attention, %" PRId64 " samples of %" PRId64 " tokens, %" PRId64 " heads of %" PRId64
               ", %s, on paper for one %s\n",
               s->batch, s->queries, s->heads, s->head_dim, q->bf16 ? "bf16" : "f32", gpu);
    for (int what = LAM_TIME_FORWARD; what <= LAM_TIME_BACKWARD; what++) {
        lam_op_estimate e = lam_estimate_attention(lam_device_limits_find(gpu), s, q->bf16, what);
        double flops = (what + 1) * forward_flops(s);
        if (!json) {
            printf(
                "%-8s %8.3f ms (at limits %.3f), %6.1f TFLOP/s; %.2f GFLOP with the scores computed again, %.3f "
                "G exponentials, %.3f GB\n",
                what == LAM_TIME_FORWARD ? "forward" : "backward", e.seconds * 1e3, e.bound_seconds * 1e3,
                flops / e.seconds / 1e12, e.flops / 1e9, e.exponentials / 1e9, e.bytes / 1e9);
            continue;
        }
        lam_json *record = record_of(q, "attention_estimate", what);
        lam_json_set_text(record, "device", "cuda");
        lam_json_set_text(record, "gpu", gpu);
        lam_json_set_float(record, "ms", e.seconds * 1e3);
        lam_json_set_float(record, "bound_ms", e.bound_seconds * 1e3);
        lam_json_set_float(record, "gflops_per_s", flops / e.seconds / 1e9);
        lam_json_set_float(record, "limit_gflops_per_s", flops / e.bound_seconds / 1e9);
        lam_json_set_float(record, "gflop", e.flops / 1e9);
        lam_json_set_float(record, "gigaexponentials", e.exponentials / 1e9);
        lam_json_set_float(record, "gb", e.bytes / 1e9);
        LAM_TRY(print_record(record));
    }
    return LAM_OK;
}

/* ---- measured ---- */

/* Of the same work at what limits it: on the CPU the product beside it, on a known GPU what the estimate says; 0: not known. */
static double limit_of(const lam_attention_timer *t, int what) {
    const lam_attention_shape *s = &t->shape;
    if (t->seconds[LAM_TIME_PRODUCT][0] > 0) {
        double width = (double)t->width;
        return 6 * (double)(s->batch * s->queries) * width * width / t->seconds[LAM_TIME_PRODUCT][0];
    }
    const lam_device_limits *known = lam_device_limits_find(lam_backend_device(t->backend));
    if (!known) return 0;
    return (what + 1) * forward_flops(s) / lam_estimate_attention(known, s, t->bf16, what).bound_seconds;
}

static void print_head(const question *q, const lam_attention_timer *t, const char *device) {
    printf("attention, %" PRId64 " samples of %" PRId64 " tokens, %" PRId64 " heads of %" PRId64 ", %s, ",
           t->shape.batch, t->shape.queries, t->shape.heads, t->shape.head_dim,
           lam_option_text(q->arguments, "precision"));
    if (t->packed)
        printf("cpu %s, %d threads; a product of these tokens: %.1f GFLOP/s\n", lam_isa_name(), lam_threads(),
               limit_of(t, LAM_TIME_FORWARD) / 1e9);
    else
        printf("%s\n", device);
}

static void print_line(const lam_attention_timer *t, int what, double rate, double worst, double best) {
    double limit = limit_of(t, what);
    printf("%-8s %8.3f ms, %7.1f GFLOP/s (%.1f to %.1f)", what == LAM_TIME_FORWARD ? "forward" : "backward",
           t->seconds[what][t->rounds / 2] * 1e3, rate / 1e9, worst / 1e9, best / 1e9);
    if (limit > 0) printf(", %3.0f %% of %s", 100 * rate / limit, t->packed ? "the product's" : "the limit");
    printf("\n");
}

static lam_status print_measured(const question *q, const lam_attention_timer *t) {
    char device[160];
    double peak = lam_peak_mebibytes();
    lam_device_describe(t->backend, device, sizeof device);
    if (!lam_option_json(q->arguments)) print_head(q, t, device);
    for (int what = LAM_TIME_FORWARD; what <= LAM_TIME_BACKWARD; what++) {
        double flops = (what + 1) * forward_flops(&t->shape), median = t->seconds[what][t->rounds / 2],
               rate = flops / median, best = flops / t->seconds[what][0],
               worst = flops / t->seconds[what][t->rounds - 1], limit = limit_of(t, what);
        if (!lam_option_json(q->arguments)) {
            print_line(t, what, rate, worst, best);
            continue;
        }
        lam_json *record = record_of(q, "attention", what), *spread = lam_json_array();
        lam_json_append_float(spread, worst / 1e9);
        lam_json_append_float(spread, best / 1e9);
        lam_json_set_text(record, "device", lam_backend_name(t->backend));
        if (!t->packed) lam_json_set_text(record, "gpu", lam_backend_device(t->backend));
        lam_json_set_text(record, "isa", lam_isa_name());
        lam_json_set_int(record, "threads", lam_threads());
        lam_json_set_float(record, "seconds", median);
        lam_json_set_float(record, "gflops_per_s", rate / 1e9);
        lam_json_set(record, "spread", spread);
        if (limit > 0) {
            lam_json_set_float(record, "limit_gflops_per_s", limit / 1e9);
            lam_json_set_float(record, "share_of_limit", rate / limit);
        }
        lam_json_set_float(record, "peak_MiB", peak);
        LAM_TRY(print_record(record));
    }
    return LAM_OK;
}

static lam_status bench_attention(const lam_arguments *a) {
    lam_device device;
    question q = {.arguments = a,
                  .shape = {.batch = lam_option_int(a, "batch"),
                            .queries = lam_option_int(a, "tokens"),
                            .keys = lam_option_int(a, "tokens"),
                            .heads = lam_option_int(a, "heads"),
                            .head_dim = lam_option_int(a, "head-dim")},
                  .bf16 = !strcmp(lam_option_text(a, "precision"), "bf16")};
    LAM_TRY(lam_bench_estimate_options(a));
    if (lam_option_flag(a, "estimate")) return print_estimate(&q);
    LAM_TRY(lam_device_open(a, 0, &device));
    lam_attention_timer timer;
    lam_status status = lam_attention_timer_open(&timer, device.backend, &q.shape, q.bf16);
    if (status == LAM_OK) status = lam_attention_timer_run(&timer, lam_option_float(a, "seconds"));
    if (status == LAM_OK) status = print_measured(&q, &timer);
    lam_attention_timer_close(&timer);
    return status;
}

static const lam_option options[] = {
    {"batch", LAM_OPTION_INT, "N", "8", "samples at once", .minimum = 1, .maximum = 65536},
    {"tokens", LAM_OPTION_INT, "N", "257", "queries and keys of a sample", .minimum = 1, .maximum = 65536},
    {"heads", LAM_OPTION_INT, "N", "16", "side by side", .minimum = 1, .maximum = 1024},
    {"head-dim", LAM_OPTION_INT, "N", "32", "elements of a head", .minimum = 1, .maximum = 1024},
    {"precision", LAM_OPTION_CHOICE, "f32|bf16", "f32", "type of queries, keys, values and results",
     .required = false},
    LAM_DEVICE_OPTION,
    LAM_ESTIMATE_OPTIONS,
    {"seconds", LAM_OPTION_FLOAT, "S", "2",
     "rounds are timed for; the median counts, and of the product the best", .minimum = 0, .maximum = 3600},
    {.name = NULL}};

const lam_command lam_command_bench_attention = {
    "bench attention",
    "speed of attention, forward and backward, and that of a plain product beside it",
    "",
    0,
    0,
    options,
    "lamella bench attention --tokens 257 --heads 16 --head-dim 32 --precision bf16\n"
    "lamella bench attention --tokens 257 --heads 16 --head-dim 32 --precision bf16 --batch 256 --estimate",
    bench_attention};
