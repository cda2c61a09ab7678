/* Attention against its formulas in float64, forward and backward, on every instruction set or on the device that
 * LAMELLA_TEST_DEVICE names, and for both storage types: sizes that divide no vector, tile or block, masks, strides, queries of
 * another number than keys. In bfloat16 the error may be twice that of the same formulas with p, ds and the results rounded,
 * which is the least that the format costs. */
#include <math.h>
#include <omp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bf16.h"
#include "base/rng.h"
#include "base/threads.h"
#include "model/internal.h"
#include "model/ops.h"
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

static const attention_case cases[] = {
    {"head_dim 5", 2, 67, 67, 2, 5, 0, 1, NO_MASK, false, false},
    {"one token", 2, 1, 1, 3, 4, 0, 1, NO_MASK, false, false},
    {"three tokens", 1, 3, 3, 2, 32, 2, 1, NO_MASK, true, false},
    {"decoder", 1, 257, 257, 2, 32, 0, 1.5, NO_MASK, false, false},
    {"encoder", 1, 65, 65, 2, 64, 0, 1, NO_MASK, false, false},
    {"two blocks of keys", 1, 40, 385, 1, 64, 6, 1.5, NO_MASK, true, false},
    {"four blocks of keys", 1, 33, 1025, 1, 8, 0, 3, NO_MASK, false, false},
    {"wide heads", 1, 19, 35, 2, 80, 0, 1, NO_MASK, false, false},
    {"cross", 2, 48, 17, 2, 16, 3, 1, NO_MASK, false, false},
    {"cross, few queries", 2, 3, 130, 2, 20, 0, 2, NO_MASK, true, false},
    {"sharp", 1, 70, 70, 1, 24, 0, 4, NO_MASK, false, false},
    {"some keys", 2, 67, 67, 2, 12, 1, 1, SOME_KEYS, false, false},
    {"some keys, many blocks", 1, 21, 700, 1, 16, 0, 1, SOME_KEYS, true, false},
    {"one key", 5, 31, 70, 1, 9, 0, 1, ONE_KEY, false, false},
    {"no key", 2, 66, 33, 2, 11, 0, 1, NO_KEY_IN_SAMPLE_0, false, false},
    {"no key, added", 2, 5, 33, 2, 11, 2, 1, NO_KEY_IN_SAMPLE_0, true, false},
    {"normed, one token", 2, 1, 1, 3, 4, 0, 1, NO_MASK, false, true},
    {"normed, head_dim 5", 2, 67, 67, 2, 5, 1, 1, NO_MASK, false, true},
    {"normed, head_dim 32", 1, 50, 50, 3, 32, 0, 1, SOME_KEYS, true, true},
    {"normed, head_dim 64", 2, 65, 65, 2, 64, 0, 1, NO_MASK, false, true},
    {"normed, head_dim 80", 1, 65, 65, 1, 80, 8, 1.5, SOME_KEYS, false, true},
    {"normed, no key", 2, 33, 33, 2, 24, 0, 1, NO_KEY_IN_SAMPLE_0, false, true},
};

/* What else the kernels of a device tell apart: head_dim by the width of a kernel and whether it is whole vectors; rows that fill
 * 8, 16, 32 or 64 or one more; sequences that fit into shared memory and that do not; heads that share a block, blocks that share
 * a head, both sides of the backward pass in shared memory at once or in turn; scores that need the online softmax. With a norm,
 * whether attention takes it, both passes or the backward one alone (385 tokens of head_dim 64). */
static const attention_case device_cases[] = {
    {"head_dim 1", 1, 17, 33, 2, 1, 0, 1, NO_MASK, false, false},
    {"head_dim 8", 2, 16, 15, 2, 8, 0, 1, NO_MASK, false, false},
    {"head_dim 16", 2, 33, 65, 2, 16, 0, 1, NO_MASK, true, false},
    {"head_dim 32, two tokens", 2, 2, 2, 2, 32, 0, 1, NO_MASK, false, false},
    {"head_dim 33", 1, 64, 50, 1, 33, 0, 1, NO_MASK, false, false},
    {"head_dim 64", 1, 50, 64, 2, 64, 0, 1, NO_MASK, true, false},
    {"head_dim 80", 1, 65, 127, 1, 80, 0, 1, NO_MASK, false, false},
    {"head_dim 104", 1, 129, 65, 2, 104, 0, 1, NO_MASK, false, false},
    {"head_dim 104, odd stride", 1, 20, 40, 1, 104, 1, 1, NO_MASK, true, false},
    {"head_dim 128", 1, 50, 129, 1, 128, 0, 1, NO_MASK, true, false},
    {"head_dim 128, streamed", 1, 33, 460, 1, 128, 0, 1, SOME_KEYS, false, false},
    {"heads share a block", 16, 17, 17, 8, 32, 0, 1, NO_MASK, false, false},
    {"heads share a block, masked", 16, 9, 49, 8, 16, 0, 1, SOME_KEYS, true, false},
    {"a block a head", 6, 65, 65, 8, 64, 0, 1, NO_MASK, false, false},
    {"a block a head, cross", 4, 193, 97, 8, 32, 0, 1, NO_MASK, false, false},
    {"cross 7 65", 2, 7, 65, 2, 32, 0, 1, NO_MASK, false, false},
    {"cross 193 257", 1, 193, 257, 1, 64, 0, 2, SOME_KEYS, false, false},
    {"385 tokens", 1, 385, 385, 1, 32, 0, 1, NO_MASK, false, false},
    {"1025 tokens", 1, 1025, 1025, 1, 32, 0, 1, NO_MASK, false, false},
    {"streamed, masked", 1, 130, 1500, 1, 16, 0, 2, SOME_KEYS, false, false},
    {"one key, whole vectors", 5, 31, 70, 1, 16, 0, 1, ONE_KEY, false, false},
    {"sides in turn", 3, 120, 120, 8, 128, 0, 1, NO_MASK, false, false},
    {"online", 1, 40, 160, 1, 16, 0, 12, NO_MASK, false, false},
    {"online, masked", 1, 33, 70, 1, 80, 0, 8, SOME_KEYS, false, false},
    {"normed, one token of whole vectors", 3, 1, 1, 2, 8, 0, 1, NO_MASK, false, true},
    {"normed, heads share a block", 16, 17, 17, 8, 64, 0, 1, NO_MASK, false, true},
    {"normed, heads share a block, masked", 16, 9, 9, 8, 40, 0, 1, SOME_KEYS, true, true},
    {"normed, blocks share a head", 1, 257, 257, 1, 64, 0, 1, SOME_KEYS, false, true},
    {"normed, sides in turn", 2, 290, 290, 2, 48, 0, 1, NO_MASK, true, true},
    {"normed, head_dim 104", 2, 65, 65, 2, 104, 0, 1, NO_MASK, true, true},
    {"normed, head_dim 104, odd stride", 1, 20, 20, 1, 104, 1, 1, SOME_KEYS, true, true},
    {"normed, head_dim 128", 1, 50, 50, 1, 128, 0, 1, SOME_KEYS, true, true},
    {"normed, 385 tokens", 1, 385, 385, 1, 64, 0, 1, NO_MASK, true, true},
    {"normed, 1025 tokens", 1, 1025, 1025, 1, 64, 0, 1, NO_MASK, false, true},
    {"normed, one key", 5, 31, 31, 1, 16, 0, 1, ONE_KEY, false, true},
    {"normed, online", 1, 130, 130, 1, 64, 0, 6, NO_MASK, false, true},
    {"normed, online, heads share a block", 16, 17, 17, 8, 64, 0, 6, NO_MASK, false, true},
    {"normed, online, masked", 1, 70, 70, 1, 80, 0, 5, SOME_KEYS, false, true},
};

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

static int64_t rows_of(const attention_case *c, int t) {
    return c->batch * (by_keys[t] ? c->keys : c->queries);
}
static int64_t width_of(const attention_case *c) { return c->heads * c->head_dim; }
/* With a norm, where t lies in the tensor of q, k and v or in that of their gradients; else 0. */
static int part_of(const attention_case *c, int t) {
    return c->normed && (t == K || t == DK) ? 1 : c->normed && (t == V || t == DV) ? 2 : 0;
}
static bool has_parts(const attention_case *c, int t) { return c->normed && t != OUT && t != D_OUT; }
/* Queries, keys and results lie in tensors of different widths. */
static int64_t stride_of(const attention_case *c, int t) {
    if (has_parts(c, t)) return 3 * width_of(c) + c->gap;
    return width_of(c) + c->gap + (by_keys[t] ? 8 : t == OUT || t == D_OUT ? 16 : 0);
}

/* Elements of a row that are t's own with what lies behind it. */
static int64_t own_of(const attention_case *c, int t) {
    return part_of(c, t) ? width_of(c) : stride_of(c, t);
}

static double stored(bool bf16, double x) {
    return bf16 ? (double)lam_bf16_to_float(lam_bf16_from_float((float)x)) : (double)(float)x;
}
static double get(const problem *p, int t, int64_t i) {
    return p->bf16 ? (double)lam_bf16_to_float(((uint16_t *)p->data[t])[i])
                   : (double)((float *)p->data[t])[i];
}
static void put(const problem *p, int t, int64_t i, double x) {
    if (p->bf16)
        ((uint16_t *)p->data[t])[i] = lam_bf16_from_float((float)x);
    else
        ((float *)p->data[t])[i] = (float)x;
}

/* ---- the formulas; `coarse` rounds what a bfloat16 kernel rounds ---- */

static void oracle_query(const problem *p, bool coarse, const double *queries, const double *keys,
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
static void oracle_norm(const problem *p, int part, const double *x, double *y, double *d,
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

static void oracle(const problem *p, bool coarse, double **to, double *d_weights) {
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

static void fill_mask(problem *p, lam_rng *r) {
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
static void reset_outputs(problem *p) {
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

static problem open_problem(const attention_case *c, bool bf16) {
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
    return p;
}

static void close_problem(problem *p) {
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

static lam_attention_shape shape_of(const problem *p) {
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

static size_t tensor_bytes(const problem *p, int t) {
    return (size_t)(rows_of(p->c, t) * stride_of(p->c, t)) * (p->bf16 ? 2 : 4);
}

static void *on_device(const void *host, size_t bytes) {
    const lam_backend *device = test_backend();
    void *memory = NULL;
    assert_int_equal(device->allocate(&memory, bytes), LAM_OK);
    if (host) assert_int_equal(device->write(memory, host, bytes), LAM_OK);
    return memory;
}

/* Both passes with scratch full of NaN. */
static void run(problem *p, int threads, bool with_dq, bool with_dkv) {
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

static double distance(const problem *p, int t, const double *from) {
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

static void check_problem(problem *p, const char *isa) {
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
static void check_weights(const problem *p, const char *isa) {
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
static bool select_isa(const char *isa) {
    if (on_cuda()) return strcmp(isa, "baseline") == 0;
    setenv("LAMELLA_ISA", isa, 1);
    lam_status status = lam_isa_select();
    unsetenv("LAMELLA_ISA");
    return status == LAM_OK;
}

static void check(const attention_case *c, const char *isa, bool bf16) {
    if (!is_chosen_case(c->name)) return;
    problem p = open_problem(c, bf16);
    reset_outputs(&p);
    run(&p, 1, true, true);
    check_problem(&p, isa);
    check_weights(&p, isa);
    close_problem(&p);
}

static void check_all(const char *isa, bool bf16) {
    if (!select_isa(isa)) skip();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) check(&cases[i], isa, bf16);
    for (size_t i = 0; on_cuda() && i < sizeof device_cases / sizeof *device_cases; i++)
        check(&device_cases[i], "device", bf16);
    assert_int_equal(lam_isa_select(), LAM_OK);
}

static void test_f32(void **state) { check_all(*state, false); }
static void test_bf16(void **state) { check_all(*state, true); }

/* The same bits from one thread, from two, and when only a part of the gradients is asked for. */
static void test_threads(void **state) {
    const char *isa = *state;
    if (!select_isa(isa)) skip();
    static const attention_case all[] = {{"threads", 3, 45, 77, 3, 12, 0, 1, SOME_KEYS, false, false},
                                         {"threads, normed", 3, 45, 45, 3, 16, 0, 1, SOME_KEYS, false, true}};
    for (int k = 0; k < 4; k++) {
        const attention_case c = all[k / 2];
        const bool bf16 = k % 2;
        problem p = open_problem(&c, bf16), other = open_problem(&c, bf16), part = open_problem(&c, bf16);
        reset_outputs(&p);
        reset_outputs(&other);
        run(&p, 1, true, true);
        run(&other, 2, true, true);
        run(&part, 2, true, c.normed);
        run(&part, 2, c.normed, true);
        assert_memory_equal(p.weights, other.weights, 4 * (size_t)c.head_dim * sizeof(float));
        for (int t = OUT; t < TENSORS; t++) {
            size_t bytes = tensor_bytes(&p, t);
            if (part_of(&c, t)) continue;
            assert_memory_equal(p.data[t], other.data[t], bytes);
            assert_memory_equal(p.data[t], part.data[t], bytes);
        }
        close_problem(&p);
        close_problem(&other);
        close_problem(&part);
    }
    assert_int_equal(lam_isa_select(), LAM_OK);
}

/* Scores so large that their rounding is larger than the differences the softmax asks for give probabilities all the same; what is
 * no number is not hidden. */
static void test_extremes(void **state) {
    const char *isa = *state;
    if (!select_isa(isa)) skip();
    static const double scales[] = {1e3, 3e4, 7e4, 1e6};
    for (int bf16 = 0; bf16 < 2; bf16++)
        for (size_t n = 0; n < sizeof scales / sizeof *scales; n++) {
            const attention_case c = {"extremes", 1, 19, 37, 1, 20, 0, scales[n], NO_MASK, false, false};
            int64_t stride = stride_of(&c, OUT), out = rows_of(&c, OUT) * stride,
                    queries = rows_of(&c, DQ) * stride_of(&c, DQ), keys = rows_of(&c, V) * stride_of(&c, V);
            double most_v = 0, most_d = 0;
            problem p = open_problem(&c, bf16);
            for (int64_t i = 0; i < keys; i++) most_v = fmax(most_v, fabs(get(&p, V, i)));
            for (int64_t i = 0; i < out; i++) most_d = fmax(most_d, fabs(get(&p, D_OUT, i)));
            reset_outputs(&p);
            run(&p, 2, true, true);
            for (int64_t i = 0; i < out; i++) assert_true(fabs(get(&p, OUT, i)) <= 1.01 * most_v);
            for (int64_t i = 0; i < queries; i++) assert_true(isfinite(get(&p, DQ, i)));
            for (int64_t i = 0; i < keys; i++) {
                assert_true(isfinite(get(&p, DK, i)));
                assert_true(fabs(get(&p, DV, i)) <= 1.01 * 19 * most_d);
            }
            put(&p, Q, 0, NAN);
            run(&p, 2, true, true);
            assert_true(isnan(get(&p, OUT, 0)) && isfinite(get(&p, OUT, stride)));
            close_problem(&p);
        }
    assert_int_equal(lam_isa_select(), LAM_OK);
}

/* ---- the operations in a graph ---- */

static lam_tensor *parameter_twice(lam_graph *g, const char *name, const char *zero) {
    return lam_add(g, lam_parameter(g, name), lam_parameter(g, zero));
}

/* loss = mean over samples' elements of (cross_attention(x, kv) + x)^2: x has two consumers, the batch is bounded to 2 of 3. */
static void test_graph(void **state) {
    (void)state;
    const attention_case c = {"graph", 3, 5, 7, 2, 3, 0, 1, SOME_KEYS, false, false};
    const int64_t w = width_of(&c), actual = 2;
    problem p = open_problem(&c, false);
    lam_parameters *parameters;
    lam_graph *g;
    assert_int_equal(lam_parameters_create(&parameters), LAM_OK);
    const int64_t q_shape[] = {c.batch, c.queries, w}, kv_shape[] = {c.batch, c.keys, 2 * w};
    static const char *const names[] = {"q", "q0", "kv", "kv0"};
    for (int k = 0; k < 4; k++)
        assert_int_equal(
            lam_parameters_add(parameters, names[k], 3, k < 2 ? q_shape : kv_shape, LAM_INIT_ZERO, 0, true),
            LAM_OK);
    assert_int_equal(lam_parameters_layout(parameters, 1), LAM_OK);
    float *q = parameters->weights + lam_parameters_find(parameters, "q")->offset,
          *kv = parameters->weights + lam_parameters_find(parameters, "kv")->offset;
    for (int64_t i = 0; i < c.batch * c.queries * w; i++) q[i] = (float)p.exact[Q][i];
    for (int64_t r = 0; r < c.batch * c.keys; r++)
        for (int64_t e = 0; e < w; e++) {
            kv[r * 2 * w + e] = (float)p.exact[K][r * w + e];
            kv[(r * 2 + 1) * w + e] = (float)p.exact[V][r * w + e];
        }
    setenv("LAMELLA_POISON", "1", 1);
    assert_int_equal(lam_graph_create(&g, parameters, test_backend()), LAM_OK);
    unsetenv("LAMELLA_POISON");
    lam_tensor *count = lam_input(g, "count", LAM_I64, 1, (int64_t[]){1}),
               *mask = lam_input(g, "mask", LAM_F32, 2, (int64_t[]){c.batch, c.keys}),
               *target = lam_input(g, "target", LAM_F32, 3, q_shape),
               *removed = lam_input(g, "removed", LAM_F32, 2, q_shape),
               *weight = lam_input(g, "weight", LAM_F32, 1, q_shape), *sample_loss;
    lam_tensor *x = parameter_twice(g, "q", "q0"), *y;
    lam_graph_bound_rows(g, x, count);
    y = lam_keep(g, lam_cross_attention(g, x, parameter_twice(g, "kv", "kv0"), c.heads, mask), "y");
    lam_tensor *loss = lam_masked_loss(g, lam_add(g, y, x), target, removed, weight, false, &sample_loss);
    assert_int_equal(lam_graph_differentiate(g, loss), LAM_OK);
    if (lam_graph_plan(g) != LAM_OK) fail_msg("%s", lam_last_error());
    *(int64_t *)lam_tensor_data(count) = actual;
    memcpy(lam_tensor_data(mask), p.mask, (size_t)(c.batch * c.keys) * sizeof(float));
    memset(lam_tensor_data(target), 0, (size_t)lam_tensor_count(target) * sizeof(float));
    for (int64_t i = 0; i < c.batch * c.queries; i++) ((float *)lam_tensor_data(removed))[i] = 1;
    for (int64_t b = 0; b < c.batch; b++) ((float *)lam_tensor_data(weight))[b] = b < actual ? 1 : 0;
    lam_parameters_zero_gradients(parameters);
    assert_int_equal(lam_graph_forward(g), LAM_OK);
    assert_int_equal(lam_graph_backward(g), LAM_OK);

    for (int64_t i = 0; i < c.batch * c.queries * w; i++)
        p.exact[D_OUT][i] = 2 * (p.exact[OUT][i] + p.exact[Q][i]) / (double)(c.queries * w);
    oracle(&p, false, p.exact, NULL);
    const float *dq = parameters->gradients + lam_parameters_find(parameters, "q")->offset,
                *dkv = parameters->gradients + lam_parameters_find(parameters, "kv")->offset,
                *out = lam_tensor_data(y);
    for (int64_t i = 0; i < actual * c.queries * w; i++) {
        assert_true(fabs((double)out[i] - p.exact[OUT][i]) < 1e-5);
        assert_true(fabs((double)dq[i] - p.exact[DQ][i] - p.exact[D_OUT][i]) < 1e-5);
    }
    for (int64_t i = 0; i < actual * c.keys * w; i++) {
        int64_t at = i / w * 2 * w + i % w;
        assert_true(fabs((double)dkv[at] - p.exact[DK][i]) < 1e-5);
        assert_true(fabs((double)dkv[at + w] - p.exact[DV][i]) < 1e-5);
    }
    for (int64_t i = actual * c.queries * w; !on_cuda() && i < c.batch * c.queries * w; i++)
        assert_true(isnan(out[i]));
    lam_graph_free(g);
    lam_parameters_free(parameters);
    close_problem(&p);
}

static void expect_failure(lam_dtype activation, const int64_t *q, const int64_t *kv, int64_t heads,
                           const int64_t *mask, const char *what) {
    lam_parameters *parameters;
    lam_graph *g;
    assert_int_equal(lam_parameters_create(&parameters), LAM_OK);
    assert_int_equal(lam_graph_create(&g, parameters, test_backend()), LAM_OK);
    lam_graph_set_activation(g, activation);
    lam_tensor *a = lam_input(g, "q", LAM_F32, 3, q), *b = kv ? lam_input(g, "kv", LAM_F32, 3, kv) : NULL,
               *m = mask ? lam_input(g, "mask", LAM_F32, 2, mask) : NULL;
    assert_null(b ? lam_cross_attention(g, a, b, heads, m) : lam_attention(g, a, heads, m));
    assert_int_not_equal(lam_graph_plan(g), LAM_OK);
    if (!strstr(lam_last_error(), what)) fail_msg("no word about \"%s\" in: %s", what, lam_last_error());
    lam_graph_free(g);
    lam_parameters_free(parameters);
}

static void test_shapes(void **state) {
    (void)state;
    const int64_t qkv[] = {2, 5, 18}, q[] = {2, 5, 6}, kv[] = {2, 7, 12}, narrow[] = {2, 7, 6},
                  fewer[] = {1, 7, 12}, mask[] = {2, 6};
    expect_failure(LAM_F32, qkv, NULL, 4, NULL, "a width of 6 cannot be split into 4 heads");
    expect_failure(LAM_F32, qkv, NULL, 0, NULL, "0 heads");
    expect_failure(LAM_F32, q, narrow, 2, NULL, "[2, keys, 12]");
    expect_failure(LAM_F32, q, fewer, 2, NULL, "[2, keys, 12]");
    expect_failure(LAM_F32, q, kv, 2, mask, "key mask must be F32 [2, 7]");
    expect_failure(LAM_BF16, q, kv, 2, NULL, "type of activations");
}

int main(void) {
    lam_threads_set(2);
#define ON(isa)                                                                                              \
    {"f32 on " isa, test_f32, NULL, NULL, (void *)(uintptr_t)isa},                                           \
        {"bf16 on " isa, test_bf16, NULL, NULL, (void *)(uintptr_t)isa},                                     \
        {"threads on " isa, test_threads, NULL, NULL, (void *)(uintptr_t)isa}, {                             \
        "extremes on " isa, test_extremes, NULL, NULL, (void *)(uintptr_t)isa                                \
    }
    const struct CMUnitTest tests[] = {
        ON("baseline"),
        ON("avx2"),
        ON("avx512"),
        ON("avx512_bf16"),
        ON("amx"),
        cmocka_unit_test(test_graph),
        cmocka_unit_test(test_shapes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
