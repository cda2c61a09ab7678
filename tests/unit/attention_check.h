/* What the tests of attention share: a case against its formulas in float64, forward and backward, on every instruction set or
 * on the device that LAMELLA_TEST_DEVICE names, and for both storage types. In bfloat16 the error may be twice that of the same
 * formulas with p, ds and the results rounded, which is the least that the format costs. Include after cmocka.h. */
#ifndef LAMELLA_TESTS_ATTENTION_CHECK_H
#define LAMELLA_TESTS_ATTENTION_CHECK_H

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "base/bf16.h"
#include "base/rng.h"
#include "base/threads.h"
#include "model/internal.h"
#include "tests/unit/device.h"

#define GUARD 7.0f /* what lies between the rows and must stay */

typedef enum mask_kind { NO_MASK, SOME_KEYS, ONE_KEY, NO_KEY_IN_SAMPLE_0 } mask_kind;

typedef struct attention_case {
    const char *name;
    int64_t batch, queries, keys, heads, head_dim,
        gap;      /* gap: elements between the rows of a tensor, beside stride_of's */
    double scale; /* of q and k: how sharp the softmax is */
    mask_kind mask;
    bool add;
    bool
        normed; /* queries = keys; q, k and v are parts of one tensor; `scale` is that of the norm's weights */
} attention_case;

/* q, k, v, out and gradients as the kernel sees them; what they are in float64 comes beside. */
enum { Q, K, V, OUT, D_OUT, DQ, DK, DV, TENSORS };
static const bool by_keys[TENSORS] = {[K] = true, [V] = true, [DK] = true, [DV] = true};

typedef struct problem {
    const attention_case *c;
    bool bf16;
    void *data[TENSORS];
    double *exact[TENSORS], *rounded[TENSORS], *before[TENSORS];
    float *mask;
    float *norm;                             /* [qw, qb, kw, kb][head_dim] */
    double *exact_weights, *rounded_weights; /* gradients of the above */
    float *weights;                          /* as the kernel has them */
} problem;

#define NORM_EPS 1e-3
#define WEIGHTS_BEFORE 0.25f /* which the gradients are added to */

static inline int64_t rows_of(const attention_case *c, int t) {
    return c->batch * (by_keys[t] ? c->keys : c->queries);
}
static inline int64_t width_of(const attention_case *c) { return c->heads * c->head_dim; }
/* With a norm, where t lies in the tensor of q, k and v or in that of their gradients; else 0. */
static inline int part_of(const attention_case *c, int t) {
    return c->normed && (t == K || t == DK) ? 1 : c->normed && (t == V || t == DV) ? 2 : 0;
}
static inline bool has_parts(const attention_case *c, int t) { return c->normed && t != OUT && t != D_OUT; }
/* Queries, keys and results lie in tensors of different widths. */
static inline int64_t stride_of(const attention_case *c, int t) {
    if (has_parts(c, t)) return 3 * width_of(c) + c->gap;
    return width_of(c) + c->gap + (by_keys[t] ? 8 : t == OUT || t == D_OUT ? 16 : 0);
}

/* Elements of a row that are t's own with what lies behind it. */
static inline int64_t own_of(const attention_case *c, int t) {
    return part_of(c, t) ? width_of(c) : stride_of(c, t);
}

static inline double stored(bool bf16, double x) {
    return bf16 ? (double)lam_bf16_to_float(lam_bf16_from_float((float)x)) : (double)(float)x;
}
static inline double get(const problem *p, int t, int64_t i) {
    return p->bf16 ? (double)lam_bf16_to_float(((uint16_t *)p->data[t])[i])
                   : (double)((float *)p->data[t])[i];
}
static inline void put(const problem *p, int t, int64_t i, double x) {
    if (p->bf16)
        ((uint16_t *)p->data[t])[i] = lam_bf16_from_float((float)x);
    else
        ((float *)p->data[t])[i] = (float)x;
}

/* ---- the formulas; `coarse` rounds what a bfloat16 kernel rounds ---- */

static inline void oracle_query(const problem *p, bool coarse, const double *queries, const double *keys,
                                double **to, int64_t b, int64_t h, int64_t i, double *prob) {
    const attention_case *c = p->c;
    int64_t w = width_of(c), hd = c->head_dim, row = (b * c->queries + i) * w + h * hd;
    const double *q = queries + row, *d_out = p->exact[D_OUT] + row;
    double largest = -HUGE_VAL, sum = 0, dot = 0, root = sqrt((double)hd);
    for (int64_t j = 0; j < c->keys; j++) {
        const double *k = keys + (b * c->keys + j) * w + h * hd;
        prob[j] = 0;
        for (int64_t e = 0; e < hd; e++) prob[j] += q[e] * k[e] / root;
        if (p->mask && p->mask[b * c->keys + j] == 0) prob[j] = -HUGE_VAL;
        largest = fmax(largest, prob[j]);
    }
    for (int64_t e = 0; e < hd; e++) to[OUT][row + e] = to[DQ][row + e] = 0;
    if (largest == -HUGE_VAL) return;
    for (int64_t j = 0; j < c->keys; j++) sum += prob[j] = exp(prob[j] - largest);
    /* What a device rounds, and adds up, are not ratios to the largest, as long as float holds them. */
    const bool on_cpu = test_backend() == lam_backend_cpu();
    const double reference = !on_cpu && fabs(largest) < 60 ? exp(largest) : 1;
    if (coarse && !on_cpu) {
        sum = 0;
        for (int64_t j = 0; j < c->keys; j++) sum += stored(true, prob[j] * reference) / reference;
    }
    for (int64_t j = 0; j < c->keys; j++) {
        const double *v = p->exact[V] + (b * c->keys + j) * w + h * hd;
        double weight = coarse ? stored(true, prob[j] * reference) / reference : prob[j];
        for (int64_t e = 0; e < hd; e++) to[OUT][row + e] += weight / sum * v[e];
    }
    for (int64_t e = 0; e < hd; e++) {
        if (coarse) to[OUT][row + e] = stored(true, to[OUT][row + e]);
        dot += to[OUT][row + e] * d_out[e];
    }
    for (int64_t j = 0; j < c->keys; j++) {
        int64_t other = (b * c->keys + j) * w + h * hd;
        double dp = 0, weight = prob[j] / sum;
        for (int64_t e = 0; e < hd; e++) dp += d_out[e] * p->exact[V][other + e];
        double ds = weight * (dp - dot);
        if (coarse) {
            weight = stored(true, weight);
            ds = stored(true, ds);
        }
        for (int64_t e = 0; e < hd; e++) {
            to[DQ][row + e] += ds / root * keys[other + e];
            to[DK][other + e] += ds / root * q[e];
            to[DV][other + e] += weight * d_out[e];
        }
    }
}

/* Head by head: what is normalised, or its gradient d turned into that of x, with the sums for the weights. */
static inline void oracle_norm(const problem *p, int part, const double *x, double *y, double *d,
                               double *d_weights) {
    const attention_case *c = p->c;
    const int64_t hd = c->head_dim;
    const float *w = p->norm + 2 * part * hd, *b = w + hd;
    for (int64_t at = 0; at < rows_of(c, Q) * c->heads; at++) {
        double mean = 0, variance = 0, shift = 0, slope = 0;
        const double *row = x + at * hd;
        for (int64_t e = 0; e < hd; e++) mean += row[e] / (double)hd;
        for (int64_t e = 0; e < hd; e++) variance += (row[e] - mean) * (row[e] - mean) / (double)hd;
        double rstd = 1 / sqrt(variance + NORM_EPS);
        for (int64_t e = 0; e < hd && y; e++)
            y[at * hd + e] = (row[e] - mean) * rstd * (double)w[e] + (double)b[e];
        for (int64_t e = 0; e < hd && d; e++) {
            double up = d[at * hd + e], hat = (row[e] - mean) * rstd;
            d_weights[2 * part * hd + e] += up * hat;
            d_weights[(2 * part + 1) * hd + e] += up;
            shift += up * (double)w[e] / (double)hd;
            slope += up * (double)w[e] * hat / (double)hd;
        }
        for (int64_t e = 0; e < hd && d; e++)
            d[at * hd + e] = (d[at * hd + e] * (double)w[e] - shift - (row[e] - mean) * rstd * slope) * rstd;
    }
}

static inline void oracle(const problem *p, bool coarse, double **to, double *d_weights) {
    const attention_case *c = p->c;
    double *normed[2] = {NULL, NULL};
    const double *scored[2] = {p->exact[Q], p->exact[K]};
    for (int part = 0; part < 2 && c->normed; part++) {
        const int64_t count = rows_of(c, Q) * width_of(c);
        scored[part] = normed[part] = malloc((size_t)count * sizeof(double));
        oracle_norm(p, part, p->exact[part ? K : Q], normed[part], NULL, NULL);
        for (int64_t i = 0; i < count && coarse; i++) normed[part][i] = stored(true, normed[part][i]);
    }
    double *prob = malloc((size_t)c->keys * sizeof *prob);
    for (int t = DK; t <= DV; t++)
        for (int64_t i = 0; i < rows_of(c, t) * width_of(c); i++) to[t][i] = 0;
    for (int64_t b = 0; b < c->batch; b++)
        for (int64_t h = 0; h < c->heads; h++)
            for (int64_t i = 0; i < c->queries; i++)
                oracle_query(p, coarse, scored[0], scored[1], to, b, h, i, prob);
    for (int part = 0; part < 2 && c->normed; part++) {
        oracle_norm(p, part, p->exact[part ? K : Q], NULL, to[part ? DK : DQ], d_weights);
        free(normed[part]);
    }
    for (int t = DQ; t <= DV; t++)
        for (int64_t i = 0; i < rows_of(c, t) * width_of(c); i++) {
            to[t][i] += p->before[t][i];
            if (coarse) to[t][i] = stored(true, to[t][i]);
        }
    free(prob);
}

/* ---- a problem and its answers ---- */

static inline void fill_mask(problem *p, lam_rng *r) {
    const attention_case *c = p->c;
    if (c->mask == NO_MASK) return;
    p->mask = malloc((size_t)(c->batch * c->keys) * sizeof(float));
    for (int64_t b = 0; b < c->batch; b++)
        for (int64_t j = 0; j < c->keys; j++)
            p->mask[b * c->keys + j] = c->mask == SOME_KEYS                      ? lam_rng_uniform(r) < 0.4
                                       : c->mask == NO_KEY_IN_SAMPLE_0 && b == 0 ? 0
                                       : c->mask == ONE_KEY                      ? j == (5 * b + 3) % c->keys
                                                                                 : j % 2 == 0;
}

/* Everything that the kernel must write is NaN before (or, to be added to, random), everything between rows GUARD. */
static inline void reset_outputs(problem *p) {
    int64_t w = width_of(p->c);
    for (int t = 0; t < TENSORS; t++) {
        if (t != OUT && t < DQ) continue;
        int64_t stride = stride_of(p->c, t);
        for (int64_t r = 0; r < rows_of(p->c, t); r++)
            for (int64_t e = 0; e < own_of(p->c, t); e++)
                put(p, t, r * stride + e,
                    e >= w                 ? (double)GUARD
                    : t >= DQ && p->c->add ? p->before[t][r * w + e]
                                           : (double)NAN);
    }
}

/* What the mask hides is NaN: keys and values, and queries that see no key with the gradients of their results. */
static inline void put_hidden(problem *p) {
    const attention_case *c = p->c;
    for (int64_t b = 0; b < c->batch && p->mask; b++) {
        bool seen = false;
        for (int64_t j = 0; j < c->keys; j++) seen |= p->mask[b * c->keys + j] != 0;
        for (int t = Q; t <= D_OUT; t++)
            for (int64_t r = 0, rows = by_keys[t] ? c->keys : c->queries; r < rows && t != OUT; r++)
                for (int64_t e = 0; e < width_of(c) && (by_keys[t] ? p->mask[b * rows + r] == 0 : !seen); e++)
                    put(p, t, (b * rows + r) * stride_of(c, t) + e, (double)NAN);
    }
}

static inline problem open_problem(const attention_case *c, bool bf16) {
    problem p = {.c = c, .bf16 = bf16};
    int64_t w = width_of(c);
    lam_rng r = lam_rng_stream(11, LAM_RNG_TEST, 0);
    for (int t = 0; t < TENSORS; t++) {
        int64_t stride = stride_of(c, t);
        size_t count = (size_t)(rows_of(c, t) * w);
        const int part = part_of(c, t);
        p.data[t] = part ? (char *)p.data[t - part] + (size_t)(part * w) * (bf16 ? 2 : 4)
                         : malloc((size_t)(rows_of(c, t) * stride) * sizeof(float));
        p.exact[t] = calloc(count, sizeof(double));
        p.rounded[t] = calloc(count, sizeof(double));
        p.before[t] = calloc(count, sizeof(double));
        double scale = (t == Q || t == K) && !c->normed ? c->scale : 1;
        for (size_t i = 0; i < count && (t < OUT || t == D_OUT); i++)
            p.rounded[t][i] = p.exact[t][i] = stored(bf16, scale * (2 * lam_rng_uniform(&r) - 1));
        for (size_t i = 0; i < count && c->add && t >= DQ; i++)
            p.before[t][i] = stored(bf16, 0.2 * lam_rng_uniform(&r));
        for (int64_t k = 0; k < rows_of(c, t); k++)
            for (int64_t e = 0; e < own_of(c, t); e++)
                put(&p, t, k * stride + e, e < w ? p.exact[t][k * w + e] : (double)GUARD);
    }
    fill_mask(&p, &r);
    const size_t weights = 4 * (size_t)c->head_dim;
    p.norm = malloc(weights * sizeof(float));
    p.weights = malloc(weights * sizeof(float));
    p.exact_weights = calloc(weights, sizeof(double));
    p.rounded_weights = calloc(weights, sizeof(double));
    for (size_t i = 0; i < weights; i++) {
        const double u = 2 * lam_rng_uniform(&r) - 1;
        p.norm[i] = (float)(i / (size_t)c->head_dim % 2 ? 0.3 * u : c->scale * (1 + 0.3 * u));
    }
    oracle(&p, false, p.exact, p.exact_weights);
    oracle(&p, bf16, p.rounded, p.rounded_weights);
    put_hidden(&p);
    return p;
}

static inline void close_problem(problem *p) {
    for (int t = 0; t < TENSORS; t++) {
        if (!part_of(p->c, t)) free(p->data[t]);
        free(p->exact[t]);
        free(p->rounded[t]);
        free(p->before[t]);
    }
    free(p->mask);
    free(p->norm);
    free(p->weights);
    free(p->exact_weights);
    free(p->rounded_weights);
}

static inline lam_attention_shape shape_of(const problem *p) {
    const attention_case *c = p->c;
    return (lam_attention_shape){.batch = c->batch,
                                 .queries = c->queries,
                                 .keys = c->keys,
                                 .heads = c->heads,
                                 .head_dim = c->head_dim,
                                 .q_stride = stride_of(c, Q),
                                 .kv_stride = stride_of(c, K),
                                 .out_stride = stride_of(c, OUT),
                                 .norm = {.on = c->normed, .eps = (float)NORM_EPS},
                                 .key_mask = p->mask};
}

static inline size_t tensor_bytes(const problem *p, int t) {
    return (size_t)(rows_of(p->c, t) * stride_of(p->c, t)) * (p->bf16 ? 2 : 4);
}

static inline void *on_device(const void *host, size_t bytes) {
    const lam_backend *device = test_backend();
    void *memory = NULL;
    assert_int_equal(device->allocate(&memory, bytes), LAM_OK);
    if (host) assert_int_equal(device->write(memory, host, bytes), LAM_OK);
    return memory;
}

/* Both passes with scratch full of NaN. */
static inline void run(problem *p, int threads, bool with_dq, bool with_dkv) {
    const attention_case *c = p->c;
    const lam_backend *device = test_backend();
    const lam_kernels *kernels = device->kernels(p->bf16);
    lam_attention_shape s = shape_of(p);
    omp_set_num_threads(threads);
    size_t forward = kernels->attention_workspace(&s, false),
           backward = kernels->attention_workspace(&s, true),
           bytes = (size_t)threads * (forward > backward ? forward : backward),
           lse_bytes = (size_t)(c->batch * c->heads * c->queries) * sizeof(float);
    assert_int_equal(forward % 64 + backward % 64, 0);
    void *data[TENSORS], *nan = malloc(bytes > lse_bytes ? bytes : lse_bytes);
    memset(nan, 0xff, bytes > lse_bytes ? bytes : lse_bytes);
    for (int t = 0; t < TENSORS; t++)
        data[t] = part_of(c, t) ? (char *)data[t - part_of(c, t)] +
                                      ((char *)p->data[t] - (char *)p->data[t - part_of(c, t)])
                                : on_device(p->data[t], tensor_bytes(p, t));
    const int64_t hd = c->head_dim;
    const size_t weight_bytes = 4 * (size_t)hd * sizeof(float);
    float *weights[4], *d_weights[4]; /* each aligned */
    for (int k = 0; k < 4; k++) {
        for (int64_t e = 0; e < hd; e++) p->weights[k * hd + e] = WEIGHTS_BEFORE;
        weights[k] = on_device(p->norm + k * hd, weight_bytes / 4);
        d_weights[k] = on_device(p->weights + k * hd, weight_bytes / 4);
    }
    for (int part = 0; part < 2; part++)
        s.norm.w[part] = weights[2 * part], s.norm.b[part] = weights[2 * part + 1];
    void *workspace = on_device(nan, bytes);
    float *lse = on_device(nan, lse_bytes);
    if (p->mask) s.key_mask = on_device(p->mask, (size_t)(c->batch * c->keys) * sizeof(float));
    kernels->attention(&s, data[Q], data[K], data[V], data[OUT], lse, workspace);
    assert_int_equal(device->write(workspace, nan, bytes), LAM_OK);
    lam_attention_tensors t = {.q = data[Q],
                               .k = data[K],
                               .v = data[V],
                               .out = data[OUT],
                               .d_out = data[D_OUT],
                               .lse = lse,
                               .dq = with_dq ? data[DQ] : NULL,
                               .dk = with_dkv ? data[DK] : NULL,
                               .dv = with_dkv ? data[DV] : NULL,
                               .add_q = c->add,
                               .add_kv = c->add,
                               .dw = {d_weights[0], d_weights[2]},
                               .db = {d_weights[1], d_weights[3]}};
    kernels->attention_backward(&s, &t, workspace);
    omp_set_num_threads(lam_threads());
    if (device->error() != LAM_OK) fail_msg("%s: %s", c->name, lam_last_error());
    for (int k = 0; k < TENSORS; k++) {
        if (part_of(c, k)) continue;
        assert_int_equal(device->read(p->data[k], data[k], tensor_bytes(p, k)), LAM_OK);
        device->release(data[k]);
    }
    for (int k = 0; k < 4; k++) {
        assert_int_equal(device->read(p->weights + k * hd, d_weights[k], weight_bytes / 4), LAM_OK);
        device->release(weights[k]);
        device->release(d_weights[k]);
    }
    device->release(workspace);
    device->release(lse);
    if (p->mask) device->release((void *)(uintptr_t)s.key_mask);
    free(nan);
}

static inline double distance(const problem *p, int t, const double *from) {
    int64_t stride = stride_of(p->c, t), w = width_of(p->c);
    double d = 0, n = 0;
    for (int64_t r = 0; r < rows_of(p->c, t); r++)
        for (int64_t e = 0; e < w; e++) {
            double x = p->exact[t][r * w + e], y = from ? from[r * w + e] : get(p, t, r * stride + e);
            d += (y - x) * (y - x);
            n += x * x;
        }
    return n > 0 ? sqrt(d / n) : sqrt(d);
}

static inline void check_problem(problem *p, const char *isa) {
    static const char *const names[] = {[OUT] = "out", [DQ] = "dq", [DK] = "dk", [DV] = "dv"};
    int64_t w = width_of(p->c);
    for (int t = OUT; t < TENSORS; t++) {
        if (t == D_OUT) continue;
        int64_t stride = stride_of(p->c, t);
        /* Scores are rounded by their size; normalised values have three times the variance of those that are drawn. */
        double squares = p->c->scale * p->c->scale * (p->c->normed ? 3 : 1), size = fmax(1, squares / 20);
        /* Gradients before the norm are those behind it by its weights and reciprocal deviations. */
        const double by = p->c->normed && t != OUT ? 2 * p->c->scale : 1;
        /* The p of the backward pass come from a normaliser that was rounded once more. */
        double error = distance(p, t, NULL), least = distance(p, t, p->rounded[t]),
               allowed = p->bf16    ? 2 * least + 1e-6 * by
                         : t == OUT ? 1e-6 * size
                                    : 1.5e-6 * size * by;
        if (!(error <= allowed))
            fail_msg("%s, %s, %s: %s is off by %g, allowed %g", p->c->name, isa, p->bf16 ? "bf16" : "f32",
                     names[t], error, allowed);
        for (int64_t r = 0; r < rows_of(p->c, t); r++)
            for (int64_t e = has_parts(p->c, t) ? 3 * w : w; e < own_of(p->c, t); e++)
                if (get(p, t, r * stride + e) != (double)GUARD)
                    fail_msg("%s, %s: %s is written beside its rows", p->c->name, isa, names[t]);
    }
}

/* The weights' gradients as one vector: that of the bias of keys is 0, since it moves all scores of a row alike. */
static inline void check_weights(const problem *p, const char *isa) {
    double off = 0, least = 0, norm = 0;
    for (int64_t i = 0; i < 4 * p->c->head_dim; i++) {
        double exact = p->exact_weights[i],
               got = p->c->normed ? (double)p->weights[i] - (double)WEIGHTS_BEFORE : exact;
        off += (got - exact) * (got - exact);
        least += (p->rounded_weights[i] - exact) * (p->rounded_weights[i] - exact);
        norm += exact * exact;
    }
    double error = norm > 0 ? sqrt(off / norm) : sqrt(off),
           allowed = p->bf16 ? 2 * sqrt(least / fmax(norm, 1e-30)) + 1e-5 : 1e-5;
    if (!(error <= allowed))
        fail_msg("%s, %s, %s: gradients of the norm's weights are off by %g, allowed %g", p->c->name, isa,
                 p->bf16 ? "bf16" : "f32", error, allowed);
}

/* On a device there is one instruction set. */
static inline bool select_isa(const char *isa) {
    if (on_cuda()) return strcmp(isa, "baseline") == 0;
    setenv("LAMELLA_ISA", isa, 1);
    lam_status status = lam_isa_select();
    unsetenv("LAMELLA_ISA");
    return status == LAM_OK;
}

static inline void check(const attention_case *c, const char *isa, bool bf16) {
    if (!is_chosen_case(c->name)) return;
    problem p = open_problem(c, bf16);
    reset_outputs(&p);
    run(&p, 1, true, true);
    check_problem(&p, isa);
    check_weights(&p, isa);
    close_problem(&p);
}

/* A table for every instruction set, and another besides on a device. */
static inline void check_all(const attention_case *cases, size_t count, const attention_case *device_cases,
                             size_t device_count, const char *isa, bool bf16) {
    if (!select_isa(isa)) skip();
    for (size_t i = 0; i < count; i++) check(&cases[i], isa, bf16);
    for (size_t i = 0; on_cuda() && i < device_count; i++) check(&device_cases[i], "device", bf16);
    assert_int_equal(lam_isa_select(), LAM_OK);
}

/* The same bits from one thread, from two, and when only a part of the gradients is asked for. */
static inline void check_threads(const attention_case *c, const char *isa) {
    if (!select_isa(isa)) skip();
    for (int bf16 = 0; bf16 < 2; bf16++) {
        problem p = open_problem(c, bf16), other = open_problem(c, bf16), part = open_problem(c, bf16);
        reset_outputs(&p);
        reset_outputs(&other);
        run(&p, 1, true, true);
        run(&other, 2, true, true);
        run(&part, 2, true, c->normed);
        run(&part, 2, c->normed, true);
        assert_memory_equal(p.weights, other.weights, 4 * (size_t)c->head_dim * sizeof(float));
        for (int t = OUT; t < TENSORS; t++) {
            size_t bytes = tensor_bytes(&p, t);
            if (part_of(c, t)) continue;
            assert_memory_equal(p.data[t], other.data[t], bytes);
            assert_memory_equal(p.data[t], part.data[t], bytes);
        }
        close_problem(&p);
        close_problem(&other);
        close_problem(&part);
    }
    assert_int_equal(lam_isa_select(), LAM_OK);
}

/* A test of an instruction set, which its state names. */
#define ON(isa, test)                                                                                        \
    { #test " on " isa, test, NULL, NULL, (void *)(uintptr_t)isa }
#define ON_ALL(test)                                                                                         \
    ON("baseline", test), ON("avx2", test), ON("avx512", test), ON("avx512_bf16", test), ON("amx", test)
#define COUNT(table) (sizeof(table) / sizeof *(table))

#endif
