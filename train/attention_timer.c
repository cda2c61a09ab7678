#include "train/attention_timer.h"

#include <stdlib.h>

#include "base/bf16.h"
#include "base/gemm.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/rng.h"
#include "model/cpu/kernels.h"

#define MOST_ROUNDS 100000
#define ROW_SECONDS 5e-3 /* a wait for the device takes up to a hundredth of it */
#define MOST_CALLS 256

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static bool on_host(const lam_attention_timer *t) { return t->backend == lam_backend_cpu(); }

/* ---- tensors ---- */

static lam_status random_tensor(const lam_attention_timer *t, void **out, int64_t count, uint64_t stream) {
    size_t bytes = (size_t)count * (t->bf16 ? sizeof(uint16_t) : sizeof(float));
    void *host = NULL;
    LAM_TRY(lam_backend_allocate(t->backend, out, bytes));
    LAM_TRY(lam_alloc(&host, bytes));
    lam_rng r = lam_rng_stream(1, LAM_RNG_TEST, stream);
    for (int64_t i = 0; i < count; i++) {
        float x = (float)(4 * lam_rng_uniform(&r) - 2);
        if (t->bf16)
            ((uint16_t *)host)[i] = lam_bf16_from_float(x);
        else
            ((float *)host)[i] = x;
    }
    lam_status status = lam_backend_write(t->backend, *out, host, bytes);
    lam_free(host);
    return status;
}

static lam_status pack_product(lam_attention_timer *t) {
    lam_gemm_type type = t->bf16 ? LAM_GEMM_BF16 : LAM_GEMM_F32;
    float *values = NULL;
    size_t bytes = lam_gemm_packed_bytes(type, t->width, 3 * t->width);
    LAM_REQUIRE(bytes > 0, LAM_ERROR_EXTERNAL, "bench attention: oneDNN has no product of this width");
    LAM_TRY(lam_alloc(&t->packed, bytes));
    LAM_TRY(lam_alloc_array((void **)&values, 3 * t->width * t->width, sizeof *values));
    for (int64_t i = 0; i < 3 * t->width * t->width; i++) values[i] = 0.01f * (float)(i % 97 - 48);
    lam_gemm_weights weights = {.in = t->width, .parts = 1, .part = {{.out = 3 * t->width, .data = values}}};
    lam_status status = lam_gemm_pack(type, &weights, t->packed, NULL);
    lam_free(values);
    return status;
}

lam_status lam_attention_timer_open(lam_attention_timer *t, const lam_backend *backend,
                                    const lam_attention_shape *shape, bool bf16) {
    *t = (lam_attention_timer){.backend = backend, .shape = *shape, .bf16 = bf16, .calls = {1, 1}};
    lam_attention_shape *s = &t->shape;
    s->keys = s->queries;
    t->width = s->out_stride = s->heads * s->head_dim;
    s->q_stride = s->kv_stride = 3 * t->width;
    LAM_TRY(lam_isa_select());
    const lam_kernels *kernels = lam_backend_kernels(backend, bf16);
    LAM_REQUIRE(!kernels->attention_head_dim || s->head_dim <= kernels->attention_head_dim, LAM_ERROR_USAGE,
                "--head-dim %lld: a GPU takes %lld at most", (long long)s->head_dim,
                (long long)kernels->attention_head_dim);
    int64_t tokens = s->batch * s->queries;
    size_t forward = kernels->attention_workspace(s, false), backward = kernels->attention_workspace(s, true),
           each = forward > backward ? forward : backward;
    LAM_TRY(random_tensor(t, &t->qkv, tokens * 3 * t->width, 0));
    LAM_TRY(random_tensor(t, &t->d_qkv, tokens * 3 * t->width, 1));
    LAM_TRY(random_tensor(t, &t->out, tokens * t->width, 2));
    LAM_TRY(random_tensor(t, &t->d_out, tokens * t->width, 3));
    LAM_TRY(lam_backend_allocate(backend, &t->lse, (size_t)(tokens * s->heads) * sizeof(float)));
    LAM_TRY(lam_backend_allocate(backend, &t->workspace, each));
    for (int k = 0; k < LAM_TIMES; k++)
        LAM_TRY(lam_alloc_array((void **)&t->seconds[k], MOST_ROUNDS, sizeof(double)));
    return on_host(t) ? pack_product(t) : LAM_OK;
}

void lam_attention_timer_close(lam_attention_timer *t) {
    for (int k = 0; k < 2; k++) lam_backend_forget(t->backend, t->row[k]);
    void *const all[] = {t->qkv, t->d_qkv, t->out, t->d_out, t->lse, t->workspace};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) lam_backend_release(t->backend, all[i]);
    for (int k = 0; k < LAM_TIMES; k++) lam_free(t->seconds[k]);
    lam_free(t->packed);
}

/* ---- calls ---- */

static char *part_of(const lam_attention_timer *t, void *qkv, int64_t part) {
    return (char *)qkv + (size_t)(part * t->width) * (t->bf16 ? sizeof(uint16_t) : sizeof(float));
}

static void call(const lam_attention_timer *t, int what) {
    const lam_kernels *kernels = lam_backend_kernels(t->backend, t->bf16);
    lam_attention_tensors all = {.q = t->qkv,
                                 .k = part_of(t, t->qkv, 1),
                                 .v = part_of(t, t->qkv, 2),
                                 .out = t->out,
                                 .d_out = t->d_out,
                                 .lse = t->lse,
                                 .dq = t->d_qkv,
                                 .dk = part_of(t, t->d_qkv, 1),
                                 .dv = part_of(t, t->d_qkv, 2)};
    if (what == LAM_TIME_FORWARD)
        kernels->attention(&t->shape, all.q, all.k, all.v, t->out, t->lse, t->workspace);
    else
        kernels->attention_backward(&t->shape, &all, t->workspace);
}

/* Overwrites nothing that the others read but d_qkv. */
static lam_status multiply(const lam_attention_timer *t) {
    lam_gemm_operands product = {.m = t->shape.batch * t->shape.queries,
                                 .n = 3 * t->width,
                                 .k = t->width,
                                 .a = t->d_out,
                                 .lda = t->width,
                                 .packed = t->packed,
                                 .c = t->d_qkv,
                                 .ldc = 3 * t->width};
    return lam_gemm_packed(t->bf16 ? LAM_GEMM_BF16 : LAM_GEMM_F32, &product);
}

/* ---- rounds ---- */

static lam_status wait(const lam_attention_timer *t) {
    LAM_TRY(lam_backend_mark(t->backend, 0));
    LAM_TRY(lam_backend_await(t->backend, 0));
    return lam_backend_error(t->backend);
}

static lam_status record(lam_attention_timer *t, int what) {
    lam_backend_forget(t->backend, t->row[what]);
    t->row[what] = NULL;
    LAM_TRY(lam_backend_record(t->backend));
    for (int64_t i = 0; i < t->calls[what]; i++) call(t, what);
    return lam_backend_recorded(t->backend, &t->row[what]);
}

static lam_status replay(const lam_attention_timer *t, int what, double *seconds) {
    double start = lam_now();
    LAM_TRY(lam_backend_replay(t->backend, t->row[what]));
    LAM_TRY(wait(t));
    *seconds = (lam_now() - start) / (double)t->calls[what];
    return LAM_OK;
}

/* Forward first: backward reads what it leaves. A row is as long as makes the wait for it small. */
static lam_status prepare(lam_attention_timer *t) {
    for (int what = 0; what < 2; what++) {
        double seconds;
        call(t, what); /* what is loaded or chosen at the first call */
        LAM_TRY(wait(t));
        LAM_TRY(record(t, what));
        LAM_TRY(replay(t, what, &seconds));
        double calls = ROW_SECONDS / seconds;
        t->calls[what] = calls < 1 ? 1 : calls > MOST_CALLS ? MOST_CALLS : (int64_t)calls;
        if (t->calls[what] == 1) continue;
        LAM_TRY(record(t, what));
        LAM_TRY(replay(t, what, &seconds));
    }
    return LAM_OK;
}

static lam_status one_round(const lam_attention_timer *t, double seconds[LAM_TIMES]) {
    if (!on_host(t)) {
        for (int what = 0; what < 2; what++) LAM_TRY(replay(t, what, &seconds[what]));
        seconds[LAM_TIME_PRODUCT] = 0;
        return LAM_OK;
    }
    double start = lam_now();
    LAM_TRY(multiply(t));
    double made = lam_now();
    call(t, LAM_TIME_FORWARD);
    double forward = lam_now();
    call(t, LAM_TIME_BACKWARD);
    seconds[LAM_TIME_PRODUCT] = made - start;
    seconds[LAM_TIME_FORWARD] = forward - made;
    seconds[LAM_TIME_BACKWARD] = lam_now() - forward;
    return LAM_OK;
}

lam_status lam_attention_timer_run(lam_attention_timer *t, double limit) {
    double once[LAM_TIMES];
    if (on_host(t))
        LAM_TRY(one_round(t, once)); /* caches and code are warm after it */
    else
        LAM_TRY(prepare(t));
    double begin = lam_now();
    do {
        LAM_TRY(one_round(t, once));
        for (int k = 0; k < LAM_TIMES; k++) t->seconds[k][t->rounds] = once[k];
    } while (++t->rounds < 3 || (t->rounds < MOST_ROUNDS && lam_now() - begin < limit));
    for (int k = 0; k < LAM_TIMES; k++) qsort(t->seconds[k], (size_t)t->rounds, sizeof(double), by_value);
    return LAM_OK;
}
