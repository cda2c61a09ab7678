/* `lamella bench attention`: the fused kernel alone, forward and backward, beside the speed of a plain product. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/bf16.h"
#include "base/gemm.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/records.h"
#include "base/rng.h"
#include "base/threads.h"
#include "model/cpu/kernels.h"
#include "model/graph.h"
#include "train/commands.h"

#define MAXIMUM_ROUNDS 100000

/* The limit is the product that makes qkv of the same tokens: [batch tokens, width] by [width, 3 width], in the same type. */
typedef struct attention_bench {
    lam_attention_shape shape;
    bool bf16;
    int64_t width;
    void *qkv, *d_qkv, *out, *d_out, *workspace, *packed;
    float *weights, *lse;
    double *seconds[3]; /* [rounds] of forward, backward, product */
    int64_t rounds;
} attention_bench;

enum { FORWARD, BACKWARD, PRODUCT };

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static lam_status random_tensor(const attention_bench *b, void **out, int64_t count, uint64_t stream) {
    LAM_TRY(lam_alloc_array(out, count, b->bf16 ? sizeof(uint16_t) : sizeof(float)));
    lam_rng r = lam_rng_stream(1, LAM_RNG_TEST, stream);
    for (int64_t i = 0; i < count; i++) {
        float x = (float)(4 * lam_rng_uniform(&r) - 2);
        if (b->bf16)
            ((uint16_t *)*out)[i] = lam_bf16_from_float(x);
        else
            ((float *)*out)[i] = x;
    }
    return LAM_OK;
}

static lam_status open_bench(attention_bench *b, const lam_arguments *a) {
    lam_attention_shape *s = &b->shape;
    s->batch = lam_option_int(a, "batch");
    s->queries = s->keys = lam_option_int(a, "tokens");
    s->heads = lam_option_int(a, "heads");
    s->head_dim = lam_option_int(a, "head-dim");
    b->width = s->out_stride = s->heads * s->head_dim;
    s->q_stride = s->kv_stride = 3 * b->width;
    b->bf16 = !strcmp(lam_option_text(a, "precision"), "bf16");
    LAM_TRY(lam_isa_select());
    const lam_kernels *kernels = lam_kernels_current(b->bf16);
    int64_t tokens = s->batch * s->queries;
    size_t forward = kernels->attention_workspace(s, false), backward = kernels->attention_workspace(s, true);
    LAM_TRY(random_tensor(b, &b->qkv, tokens * 3 * b->width, 0));
    LAM_TRY(random_tensor(b, &b->d_qkv, tokens * 3 * b->width, 1));
    LAM_TRY(random_tensor(b, &b->out, tokens * b->width, 2));
    LAM_TRY(random_tensor(b, &b->d_out, tokens * b->width, 3));
    LAM_TRY(lam_alloc_array((void **)&b->lse, tokens * s->heads, sizeof(float)));
    LAM_TRY(lam_alloc(&b->workspace, (size_t)lam_threads() * (forward > backward ? forward : backward)));
    LAM_TRY(lam_alloc_array((void **)&b->weights, 3 * b->width * b->width, sizeof(float)));
    for (int64_t i = 0; i < 3 * b->width * b->width; i++) b->weights[i] = 0.01f * (float)(i % 97 - 48);
    lam_gemm_type type = b->bf16 ? LAM_GEMM_BF16 : LAM_GEMM_F32;
    size_t bytes = lam_gemm_packed_bytes(type, b->width, 3 * b->width);
    LAM_REQUIRE(bytes > 0, LAM_ERROR_EXTERNAL, "bench attention: oneDNN has no product of this width");
    LAM_TRY(lam_alloc(&b->packed, bytes));
    lam_gemm_weights weights = {
        .in = b->width, .parts = 1, .part = {{.out = 3 * b->width, .data = b->weights}}};
    LAM_TRY(lam_gemm_pack(type, &weights, b->packed, NULL));
    for (int k = 0; k < 3; k++)
        LAM_TRY(lam_alloc_array((void **)&b->seconds[k], MAXIMUM_ROUNDS, sizeof(double)));
    return LAM_OK;
}

static void close_bench(attention_bench *b) {
    void *const all[] = {b->qkv, b->d_qkv, b->out, b->d_out, b->workspace, b->packed, b->weights, b->lse};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) lam_free(all[i]);
    for (int k = 0; k < 3; k++) lam_free(b->seconds[k]);
}

static char *part_of(const attention_bench *b, void *qkv, int64_t part) {
    return (char *)qkv + (size_t)(part * b->width) * (b->bf16 ? sizeof(uint16_t) : sizeof(float));
}

/* One of each; the product first, because it overwrites nothing that the others read but d_qkv. */
static lam_status one_round(const attention_bench *b, double seconds[3]) {
    const lam_kernels *kernels = lam_kernels_current(b->bf16);
    const lam_attention_shape *s = &b->shape;
    lam_gemm_operands product = {.m = s->batch * s->queries,
                                 .n = 3 * b->width,
                                 .k = b->width,
                                 .a = b->d_out,
                                 .lda = b->width,
                                 .packed = b->packed,
                                 .c = b->d_qkv,
                                 .ldc = 3 * b->width};
    lam_attention_tensors t = {.q = b->qkv,
                               .k = part_of(b, b->qkv, 1),
                               .v = part_of(b, b->qkv, 2),
                               .out = b->out,
                               .d_out = b->d_out,
                               .lse = b->lse,
                               .dq = b->d_qkv,
                               .dk = part_of(b, b->d_qkv, 1),
                               .dv = part_of(b, b->d_qkv, 2)};
    double start = lam_now();
    LAM_TRY(lam_gemm_packed(b->bf16 ? LAM_GEMM_BF16 : LAM_GEMM_F32, &product));
    double made = lam_now();
    kernels->attention(s, t.q, t.k, t.v, b->out, b->lse, b->workspace);
    double forward = lam_now();
    kernels->attention_backward(s, &t, b->workspace);
    seconds[PRODUCT] = made - start;
    seconds[FORWARD] = forward - made;
    seconds[BACKWARD] = lam_now() - forward;
    return LAM_OK;
}

static lam_status measure(attention_bench *b, double limit_seconds) {
    double once[3], begin;
    LAM_TRY(one_round(b, once)); /* caches and code are warm after it */
    begin = lam_now();
    do {
        LAM_TRY(one_round(b, once));
        for (int k = 0; k < 3; k++) b->seconds[k][b->rounds] = once[k];
    } while (++b->rounds < 3 || (b->rounds < MAXIMUM_ROUNDS && lam_now() - begin < limit_seconds));
    for (int k = 0; k < 3; k++) qsort(b->seconds[k], (size_t)b->rounds, sizeof(double), by_value);
    return LAM_OK;
}

static lam_status print(const lam_arguments *a, const attention_bench *b) {
    const lam_attention_shape *s = &b->shape;
    double n = (double)(s->batch * s->queries), width = (double)b->width;
    double forward_flops = 4 * n * (double)s->keys * width,
           limit = 6 * n * width * width / b->seconds[PRODUCT][0];
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    if (!lam_option_json(a))
        printf("attention, %" PRId64 " samples of %" PRId64 " tokens, %" PRId64 " heads of %" PRId64
               ", %s, cpu %s, %d threads; a product of these tokens: %.1f GFLOP/s\n",
               s->batch, s->queries, s->heads, s->head_dim, lam_option_text(a, "precision"), lam_isa_name(),
               lam_threads(), limit / 1e9);
    for (int k = FORWARD; k <= BACKWARD; k++) {
        double flops = (k + 1) * forward_flops, median = b->seconds[k][b->rounds / 2], rate = flops / median,
               best = flops / b->seconds[k][0], worst = flops / b->seconds[k][b->rounds - 1];
        if (lam_option_json(a)) {
            lam_json *record = lam_json_object(), *spread = lam_json_array();
            lam_json_append_float(spread, worst / 1e9);
            lam_json_append_float(spread, best / 1e9);
            lam_json_set_text(record, "bench", "attention");
            lam_json_set_text(record, "pass", k == FORWARD ? "forward" : "backward");
            lam_json_set_int(record, "batch", s->batch);
            lam_json_set_int(record, "tokens", s->queries);
            lam_json_set_int(record, "heads", s->heads);
            lam_json_set_int(record, "head_dim", s->head_dim);
            lam_json_set_text(record, "precision", lam_option_text(a, "precision"));
            lam_json_set_text(record, "device", "cpu");
            lam_json_set_text(record, "isa", lam_isa_name());
            lam_json_set_int(record, "threads", lam_threads());
            lam_json_set_float(record, "seconds", median);
            lam_json_set_float(record, "gflops_per_s", rate / 1e9);
            lam_json_set(record, "spread", spread);
            lam_json_set_float(record, "limit_gflops_per_s", limit / 1e9);
            lam_json_set_float(record, "share_of_limit", rate / limit);
            lam_json_set_float(record, "peak_MiB", (double)usage.ru_maxrss / 1024);
            lam_status status = lam_records_print(record, false);
            lam_json_free(record);
            LAM_TRY(status);
        } else
            printf("%-8s %8.3f ms, %7.1f GFLOP/s (%.1f to %.1f), %3.0f %% of the product's\n",
                   k == FORWARD ? "forward" : "backward", median * 1e3, rate / 1e9, worst / 1e9, best / 1e9,
                   100 * rate / limit);
    }
    return LAM_OK;
}

static lam_status bench_attention(const lam_arguments *a) {
    attention_bench b = {.bf16 = false};
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(open_bench(&b, a), done);
    LAM_TRY_GOTO(measure(&b, lam_option_float(a, "seconds")), done);
    status = print(a, &b);
done:
    close_bench(&b);
    return status;
}

static const lam_option options[] = {
    {"batch", LAM_OPTION_INT, "N", "8", "samples at once", .minimum = 1, .maximum = 65536},
    {"tokens", LAM_OPTION_INT, "N", "257", "queries and keys of a sample", .minimum = 1, .maximum = 65536},
    {"heads", LAM_OPTION_INT, "N", "16", "side by side", .minimum = 1, .maximum = 1024},
    {"head-dim", LAM_OPTION_INT, "N", "32", "elements of a head", .minimum = 1, .maximum = 1024},
    {"precision", LAM_OPTION_CHOICE, "f32|bf16", "f32", "type of queries, keys, values and results",
     .required = false},
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
    "lamella bench attention --tokens 257 --heads 16 --head-dim 32 --precision bf16",
    bench_attention};
