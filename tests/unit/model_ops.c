/* Every operation against its formula in float64, its gradients against central differences of that formula,
 * at sizes that divide no vector and no block, on every instruction set of this CPU, for activations in float32 and in
 * bfloat16. The bound in bfloat16 is 2.5 times the error of rounding the exact result, for every time that the value is stored
 * on its way. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bf16.h"
#include "base/gemm.h"
#include "base/memory.h"
#include "base/rng.h"
#include "model/graph.h"
#include "model/ops.h"
#include "tests/unit/activation.h"

#define MAX_ARGUMENTS 7
#define SAMPLES 60 /* elements of an argument that are differenced */
#define EPS 1e-6

typedef struct argument {
    const char *name;
    int64_t shape[3];
    double scale, shift; /* values: shift + scale * U(-1, 1) */
} argument;

typedef struct op_case {
    const char *name;
    argument arguments[MAX_ARGUMENTS];
    int count;
    int64_t result[3];
    lam_tensor *(*build)(lam_graph *g, lam_tensor **a, lam_tensor *ids);
    void (*oracle)(double **a, const int64_t *shape, double *y); /* shape: of argument 0 */
    int64_t id_shape[2];
    const int32_t *ids;
    bool norm_pix;
    int more_activations; /* arguments that are activations, beside the first */
    int more_stores;      /* of values on the way to the result, beside the result itself */
} op_case;

/* ---- formulas ---- */

static void ref_linear(const double *x, const double *w, const double *b, int64_t rows, int64_t in,
                       int64_t out, double *y, int64_t stride) {
    for (int64_t r = 0; r < rows; r++)
        for (int64_t o = 0; o < out; o++) {
            double sum = b[o];
            for (int64_t i = 0; i < in; i++) sum += x[r * in + i] * w[o * in + i];
            y[r * stride + o] = sum;
        }
}

static void ref_layernorm(const double *x, const double *w, const double *b, int64_t rows, int64_t d,
                          double *y) {
    for (int64_t r = 0; r < rows; r++) {
        double mean = 0, variance = 0;
        for (int64_t i = 0; i < d; i++) mean += x[r * d + i] / (double)d;
        for (int64_t i = 0; i < d; i++) variance += (x[r * d + i] - mean) * (x[r * d + i] - mean) / (double)d;
        for (int64_t i = 0; i < d; i++)
            y[r * d + i] = (x[r * d + i] - mean) / sqrt(variance + EPS) * w[i] + b[i];
    }
}

static void ref_attention(const double *qkv, int64_t batch, int64_t tokens, int64_t width, int64_t heads,
                          double *y) {
    int64_t hd = width / heads, stride = 3 * width;
    double *p = malloc((size_t)tokens * sizeof *p);
    for (int64_t b = 0; b < batch; b++)
        for (int64_t h = 0; h < heads; h++)
            for (int64_t i = 0; i < tokens; i++) {
                const double *q = qkv + (b * tokens + i) * stride + h * hd;
                double largest = -1e300, sum = 0;
                for (int64_t j = 0; j < tokens; j++) {
                    const double *k = qkv + (b * tokens + j) * stride + width + h * hd;
                    p[j] = 0;
                    for (int64_t c = 0; c < hd; c++) p[j] += q[c] * k[c] / sqrt((double)hd);
                    largest = fmax(largest, p[j]);
                }
                for (int64_t j = 0; j < tokens; j++) sum += p[j] = exp(p[j] - largest);
                for (int64_t c = 0; c < hd; c++) {
                    double value = 0;
                    for (int64_t j = 0; j < tokens; j++)
                        value += p[j] / sum * qkv[(b * tokens + j) * stride + 2 * width + h * hd + c];
                    y[(b * tokens + i) * width + h * hd + c] = value;
                }
            }
    free(p);
}

/* ---- cases ---- */

static lam_tensor *build_linear(lam_graph *g, lam_tensor **a, lam_tensor *ids) {
    return (void)ids, lam_linear(g, a[0], a[1], a[2]);
}
static void oracle_linear(double **a, const int64_t *s, double *y) {
    ref_linear(a[0], a[1], a[2], s[0] * s[1], s[2], 11, y, 11);
}

/* 1,041 rows: enough for packed weights in float32. */
static void oracle_linear_packed(double **a, const int64_t *s, double *y) {
    ref_linear(a[0], a[1], a[2], s[0] * s[1], s[2], 6, y, 6);
}

static lam_tensor *build_no_bias(lam_graph *g, lam_tensor **a, lam_tensor *ids) {
    return (void)ids, lam_linear(g, a[0], a[1], NULL);
}
static void oracle_no_bias(double **a, const int64_t *s, double *y) {
    double *zero = calloc(11, sizeof *zero);
    ref_linear(a[0], a[1], zero, s[0] * s[1], s[2], 11, y, 11);
    free(zero);
}

static lam_tensor *build_gelu(lam_graph *g, lam_tensor **a, lam_tensor *ids) {
    return (void)ids, lam_linear_gelu(g, a[0], a[1], a[2]);
}
static void oracle_gelu(double **a, const int64_t *s, double *y) {
    ref_linear(a[0], a[1], a[2], s[0] * s[1], s[2], 19, y, 19);
    for (int64_t i = 0; i < s[0] * s[1] * 19; i++) y[i] *= 0.5 * (1 + erf(y[i] / sqrt(2.0)));
}

static lam_tensor *build_qkv(lam_graph *g, lam_tensor **a, lam_tensor *ids) {
    return (void)ids, lam_linear_qkv(g, a[0], a[1], a[2], a[3], a[4], a[5], a[6]);
}
static void oracle_qkv(double **a, const int64_t *s, double *y) {
    for (int part = 0; part < 3; part++)
        ref_linear(a[0], a[1 + 2 * part], a[2 + 2 * part], s[0] * s[1], s[2], s[2], y + part * s[2],
                   3 * s[2]);
}

static lam_tensor *build_layernorm(lam_graph *g, lam_tensor **a, lam_tensor *ids) {
    return (void)ids, lam_layernorm(g, a[0], a[1], a[2], EPS);
}
static void oracle_layernorm(double **a, const int64_t *s, double *y) {
    ref_layernorm(a[0], a[1], a[2], s[0] * s[1], s[2], y);
}

static lam_tensor *build_add_layernorm(lam_graph *g, lam_tensor **a, lam_tensor *ids) {
    (void)ids;
    lam_tensor *sum, *y = lam_add_layernorm(g, a[0], a[1], a[2], a[3], EPS, &sum);
    return lam_add(g, y, sum);
}
static void oracle_add_layernorm(double **a, const int64_t *s, double *y) {
    int64_t count = s[0] * s[1] * s[2];
    double *sum = calloc((size_t)count, sizeof *sum);
    for (int64_t i = 0; i < count; i++) sum[i] = a[0][i] + a[1][i];
    ref_layernorm(sum, a[2], a[3], s[0] * s[1], s[2], y);
    for (int64_t i = 0; i < count; i++) y[i] += sum[i];
    free(sum);
}

/* One tensor with two consumers: its gradient is a sum. */
static lam_tensor *build_fan_out(lam_graph *g, lam_tensor **a, lam_tensor *ids) {
    (void)ids;
    lam_tensor *x = lam_add(g, a[0], a[0]);
    return lam_add(g, lam_linear(g, x, a[1], a[2]), x);
}
static void oracle_fan_out(double **a, const int64_t *s, double *y) {
    int64_t count = s[0] * s[1] * s[2];
    double *x = calloc((size_t)count, sizeof *x);
    for (int64_t i = 0; i < count; i++) x[i] = 2 * a[0][i];
    ref_linear(x, a[1], a[2], s[0] * s[1], s[2], s[2], y, s[2]);
    for (int64_t i = 0; i < count; i++) y[i] += x[i];
    free(x);
}

static lam_tensor *build_attention1(lam_graph *g, lam_tensor **a, lam_tensor *ids) {
    return (void)ids, lam_attention(g, lam_add(g, a[0], a[1]), 1, NULL);
}
static lam_tensor *build_attention2(lam_graph *g, lam_tensor **a, lam_tensor *ids) {
    return (void)ids, lam_attention(g, lam_add(g, a[0], a[1]), 2, NULL);
}
static void oracle_attention(double **a, const int64_t *s, int64_t heads, double *y) {
    int64_t count = s[0] * s[1] * s[2];
    double *qkv = calloc((size_t)count, sizeof *qkv);
    for (int64_t i = 0; i < count; i++) qkv[i] = a[0][i] + a[1][i];
    ref_attention(qkv, s[0], s[1], s[2] / 3, heads, y);
    free(qkv);
}
static void oracle_attention1(double **a, const int64_t *s, double *y) { oracle_attention(a, s, 1, y); }
static void oracle_attention2(double **a, const int64_t *s, double *y) { oracle_attention(a, s, 2, y); }

static const int32_t kept_ids[] = {3, 0, 5, 1, 2, 4};
static lam_tensor *build_embed(lam_graph *g, lam_tensor **a, lam_tensor *ids) {
    return lam_embed_tokens(g, a[0], a[1], a[2], ids);
}
static void oracle_embed_with(double **a, const int64_t *s, const int32_t *ids, double *y) {
    for (int64_t b = 0; b < s[0]; b++)
        for (int64_t k = -1; k < s[1]; k++)
            for (int64_t i = 0; i < s[2]; i++)
                y[(b * (s[1] + 1) + k + 1) * s[2] + i] =
                    k < 0 ? a[1][i] + a[2][i]
                          : a[0][(b * s[1] + k) * s[2] + i] +
                                a[2][(1 + (ids ? ids[b * s[1] + k] : k)) * s[2] + i];
}
static void oracle_embed(double **a, const int64_t *s, double *y) { oracle_embed_with(a, s, NULL, y); }
static void oracle_embed_ids(double **a, const int64_t *s, double *y) {
    oracle_embed_with(a, s, kept_ids, y);
}

static void oracle_embed_channels(double **a, const int64_t *s, double *y) {
    static const int32_t one_channel[] = {0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2};
    oracle_embed_with(a, s, one_channel, y);
}

static const int32_t restore_ids[] = {2, 0, 3, 1, 4, 1, 4, 0, 3, 2};
static lam_tensor *build_unshuffle(lam_graph *g, lam_tensor **a, lam_tensor *ids) {
    return lam_unshuffle(g, a[0], a[1], a[2], ids);
}
static void oracle_unshuffle(double **a, const int64_t *s, double *y) { /* 2 kept of 5 */
    for (int64_t b = 0; b < s[0]; b++)
        for (int64_t n = 0; n < 6; n++)
            for (int64_t i = 0; i < s[2]; i++) {
                int64_t rank = n ? restore_ids[b * 5 + n - 1] : -1;
                y[(b * 6 + n) * s[2] + i] =
                    (rank < 2 ? a[0][(b * 3 + 1 + rank) * s[2] + i] : a[1][i]) + a[2][n * s[2] + i];
            }
}

static lam_tensor *build_head_norm(lam_graph *g, lam_tensor **a, lam_tensor *ids) {
    return (void)ids, lam_head_norm(g, a[0], a[1], a[2], a[3], a[4], 3, EPS);
}
static void oracle_head_norm(double **a, const int64_t *s, double *y) {
    int64_t width = s[2] / 3, head_dim = width / 3;
    for (int64_t row = 0; row < s[0] * s[1]; row++)
        for (int part = 0; part < 3; part++) {
            double *from = a[0] + row * s[2] + part * width, *to = y + row * s[2] + part * width;
            if (part < 2)
                ref_layernorm(from, a[1 + 2 * part], a[2 + 2 * part], 3, head_dim, to);
            else
                memcpy(to, from, (size_t)width * sizeof *to);
        }
}
/* The input has another consumer, whose gradient is there first. */
static lam_tensor *build_head_norm_sum(lam_graph *g, lam_tensor **a, lam_tensor *ids) {
    lam_tensor *x = lam_add(g, a[0], a[0]);
    return (void)ids, lam_add(g, lam_head_norm(g, x, a[1], a[2], a[3], a[4], 3, EPS), x);
}
static void oracle_head_norm_sum(double **a, const int64_t *s, double *y) {
    int64_t count = s[0] * s[1] * s[2];
    double *x = calloc((size_t)count, sizeof *x), *b[5] = {x, a[1], a[2], a[3], a[4]};
    for (int64_t i = 0; i < count; i++) x[i] = 2 * a[0][i];
    oracle_head_norm(b, s, y);
    for (int64_t i = 0; i < count; i++) y[i] += x[i];
    free(x);
}

static lam_tensor *build_projection(lam_graph *g, lam_tensor **a, lam_tensor *ids) {
    return (void)ids, lam_parallel_projection(g, a[0], a[2], a[3], a[1], a[4], a[5], a[6]);
}
static void oracle_projection(double **a, const int64_t *s, double *y) {
    int64_t rows = s[0] * s[1];
    double *other = calloc((size_t)(rows * 11), sizeof *other);
    ref_linear(a[0], a[2], a[3], rows, s[2], 11, y, 11);
    ref_linear(a[1], a[4], a[5], rows, 19, 11, other, 11);
    for (int64_t i = 0; i < rows * 11; i++) y[i] = a[6][i % 11] * (y[i] + other[i]);
    free(other);
}

/* 3 kept of 2 channels of 3 tokens each. */
static const int32_t channel_restore_ids[] = {2, 5, 0, 3, 1, 4, 4, 0, 3, 1, 5, 2};
static lam_tensor *build_unshuffle_channels(lam_graph *g, lam_tensor **a, lam_tensor *ids) {
    return lam_unshuffle_channels(g, a[0], a[1], a[2], ids, a[3], NULL, true);
}
static lam_tensor *build_unshuffle_no_cls(lam_graph *g, lam_tensor **a, lam_tensor *ids) {
    return lam_unshuffle_channels(g, lam_add(g, a[0], a[0]), a[1], a[2], ids, a[3], NULL, false);
}
static void oracle_unshuffle_channels(double **a, const int64_t *s, double *y) {
    for (int64_t b = 0; b < s[0]; b++)
        for (int64_t n = 0; n < 7; n++)
            for (int64_t i = 0; i < s[2]; i++) {
                int64_t rank = n ? channel_restore_ids[b * 6 + n - 1] : -1;
                double value = rank < 3 ? a[0][(b * 4 + 1 + rank) * s[2] + i] : a[1][i];
                double channel = n ? a[3][(n - 1) / 3 * s[2] + i] : 0;
                y[(b * 7 + n) * s[2] + i] = value + a[2][(n ? 1 + (n - 1) % 3 : 0) * s[2] + i] + channel;
            }
}
static void oracle_unshuffle_no_cls(double **a, const int64_t *s, double *y) {
    int64_t count = s[0] * s[1] * s[2];
    double *twice = calloc((size_t)count, sizeof *twice),
           *all = calloc((size_t)(s[0] * 7 * s[2]), sizeof *all), *b[4] = {twice, a[1], a[2], a[3]};
    for (int64_t i = 0; i < count; i++) twice[i] = 2 * a[0][i];
    oracle_unshuffle_channels(b, s, all);
    for (int64_t k = 0; k < s[0]; k++)
        memcpy(y + k * 6 * s[2], all + (k * 7 + 1) * s[2], (size_t)(6 * s[2]) * sizeof *y);
    free(twice);
    free(all);
}

/* The first two tokens, and those from the fifth on, twice. */
static lam_tensor *build_token_rows(lam_graph *g, lam_tensor **a, lam_tensor *ids) {
    (void)ids;
    lam_tensor *end = lam_token_rows(g, a[0], 4, 3), *parts[] = {lam_token_rows(g, a[0], 0, 2), end, end};
    return lam_concat_tokens(g, parts, 3);
}
static void oracle_token_rows(double **a, const int64_t *s, double *y) {
    static const int64_t from[] = {0, 1, 4, 5, 6, 4, 5, 6};
    for (int64_t row = 0; row < s[0] * 8; row++)
        memcpy(y + row * s[2], a[0] + (row / 8 * s[1] + from[row % 8]) * s[2], (size_t)s[2] * sizeof *y);
}

/* More parts than a node has inputs. */
static lam_tensor *build_concat(lam_graph *g, lam_tensor **a, lam_tensor *ids) {
    (void)ids;
    lam_tensor *parts[19];
    for (int k = 0; k < 19; k++) parts[k] = a[k % 3 == 1];
    return lam_concat_tokens(g, parts, 19);
}
static void oracle_concat(double **a, const int64_t *s, double *y) {
    for (int64_t b = 0; b < s[0]; b++)
        for (int k = 0; k < 19; k++) {
            int which = k % 3 == 1;
            int64_t count = (which ? 3 : 1) * s[2];
            memcpy(y, a[which] + b * count, (size_t)count * sizeof *y);
            y += count;
        }
}

/* Of 7 tokens on 4 places 5 are decoded, 2 of them visible. */
static const int32_t decoded_ids[] = {6, 1, 0, 5, 3, 2, 3, 6, 4, 1};
static lam_tensor *build_append(lam_graph *g, lam_tensor **a, lam_tensor *ids) {
    return lam_append_masked(g, a[0], a[1], a[2], ids);
}
static void oracle_append(double **a, const int64_t *s, double *y) {
    for (int64_t b = 0; b < s[0]; b++)
        for (int64_t r = 0; r < 6; r++)
            for (int64_t i = 0; i < s[2]; i++)
                y[(b * 6 + r) * s[2] + i] = (r < 3 ? a[0][(b * 3 + r) * s[2] + i] : a[1][i]) +
                                            a[2][(r ? 1 + decoded_ids[b * 5 + r - 1] % 4 : 0) * s[2] + i];
}

static const int32_t rank_ids[] = {3, 0, 4, 2, 1, 1, 4, 0, 3, 2};
static lam_tensor *build_restore(lam_graph *g, lam_tensor **a, lam_tensor *ids) {
    lam_tensor *x = lam_add(g, a[0], a[0]); /* its gradient is written once and added to once */
    return lam_add(g, lam_restore_tokens(g, x, ids), lam_restore_tokens(g, x, ids));
}
static void oracle_restore(double **a, const int64_t *s, double *y) { /* 3 of 5 */
    for (int64_t row = 0; row < s[0] * 5; row++)
        for (int64_t i = 0; i < s[2]; i++)
            y[row * s[2] + i] =
                rank_ids[row] < s[1] ? 4 * a[0][(row / 5 * s[1] + rank_ids[row]) * s[2] + i] : 0;
}

static lam_tensor *build_drop(lam_graph *g, lam_tensor **a, lam_tensor *ids) {
    return (void)ids, lam_drop_cls(g, a[0]);
}
static void oracle_drop(double **a, const int64_t *s, double *y) {
    for (int64_t b = 0; b < s[0]; b++)
        memcpy(y + b * (s[1] - 1) * s[2], a[0] + (b * s[1] + 1) * s[2],
               (size_t)((s[1] - 1) * s[2]) * sizeof *y);
}

static lam_tensor *build_same(lam_graph *g, lam_tensor **a, lam_tensor *ids) {
    return (void)g, (void)ids, a[0];
}
static void oracle_same(double **a, const int64_t *s, double *y) {
    memcpy(y, a[0], (size_t)(s[0] * s[1] * s[2]) * sizeof *y);
}

static const op_case cases[] = {
    {"linear",
     {{"x", {2, 5, 7}, 1, 0}, {"w", {11, 7, 1}, 1, 0}, {"b", {11, 1, 1}, 1, 0}},
     3,
     {2, 5, 11},
     build_linear,
     oracle_linear,
     .ids = NULL},
    {"linear of many rows",
     {{"x", {3, 347, 5}, 1, 0}, {"w", {6, 5, 1}, 1, 0}, {"b", {6, 1, 1}, 1, 0}},
     3,
     {3, 347, 6},
     build_linear,
     oracle_linear_packed,
     .ids = NULL},
    {"linear without bias",
     {{"x", {2, 5, 7}, 1, 0}, {"w", {11, 7, 1}, 1, 0}},
     2,
     {2, 5, 11},
     build_no_bias,
     oracle_no_bias,
     .ids = NULL},
    {"linear without bias of many rows", /* packed weights */
     {{"x", {8, 131, 7}, 1, 0}, {"w", {11, 7, 1}, 1, 0}},
     2,
     {8, 131, 11},
     build_no_bias,
     oracle_no_bias,
     .ids = NULL},
    {"linear_gelu",
     {{"x", {3, 47, 17}, 2, 0}, {"w", {19, 17, 1}, 1, 0}, {"b", {19, 1, 1}, 1, 0}},
     3,
     {3, 47, 19},
     build_gelu,
     oracle_gelu,
     .more_stores = 1,
     .ids = NULL},
    {"linear_qkv",
     {{"x", {2, 5, 13}, 1, 0},
      {"wq", {13, 13, 1}, 1, 0},
      {"bq", {13, 1, 1}, 1, 0},
      {"wk", {13, 13, 1}, 1, 0},
      {"bk", {13, 1, 1}, 1, 0},
      {"wv", {13, 13, 1}, 1, 0},
      {"bv", {13, 1, 1}, 1, 0}},
     7,
     {2, 5, 39},
     build_qkv,
     oracle_qkv,
     .ids = NULL},
    {"linear_qkv of 16", /* the three weights lie side by side */
     {{"x", {2, 5, 16}, 1, 0},
      {"wq", {16, 16, 1}, 1, 0},
      {"bq", {16, 1, 1}, 1, 0},
      {"wk", {16, 16, 1}, 1, 0},
      {"bk", {16, 1, 1}, 1, 0},
      {"wv", {16, 16, 1}, 1, 0},
      {"bv", {16, 1, 1}, 1, 0}},
     7,
     {2, 5, 48},
     build_qkv,
     oracle_qkv,
     .ids = NULL},
    {"layernorm",
     {{"x", {1, 261, 37}, 1, 3}, {"w", {37, 1, 1}, 1, 1}, {"b", {37, 1, 1}, 1, 0}},
     3,
     {1, 261, 37},
     build_layernorm,
     oracle_layernorm,
     .ids = NULL},
    {"add_layernorm",
     {{"x", {2, 3, 19}, 1, 0}, {"r", {2, 3, 19}, 1, 0}, {"w", {19, 1, 1}, 1, 1}, {"b", {19, 1, 1}, 1, 0}},
     4,
     {2, 3, 19},
     build_add_layernorm,
     oracle_add_layernorm,
     .more_activations = 1,
     .more_stores = 2,
     .ids = NULL},
    {"fan_out",
     {{"x", {2, 3, 9}, 1, 0}, {"w", {9, 9, 1}, 1, 0}, {"b", {9, 1, 1}, 1, 0}},
     3,
     {2, 3, 9},
     build_fan_out,
     oracle_fan_out,
     .more_stores = 2,
     .ids = NULL},
    {"attention 5",
     {{"qkv", {2, 67, 30}, 2, 0}, {"r", {2, 67, 30}, 2, 0}},
     2,
     {2, 67, 10},
     build_attention2,
     oracle_attention2,
     .more_activations = 1,
     .more_stores = 2,
     .ids = NULL},
    {"attention 32",
     {{"qkv", {1, 129, 192}, 1, 0}, {"r", {1, 129, 192}, 1, 0}},
     2,
     {1, 129, 64},
     build_attention2,
     oracle_attention2,
     .more_activations = 1,
     .more_stores = 2,
     .ids = NULL},
    {"attention 64",
     {{"qkv", {1, 65, 192}, 1, 0}, {"r", {1, 65, 192}, 1, 0}},
     2,
     {1, 65, 64},
     build_attention1,
     oracle_attention1,
     .more_activations = 1,
     .more_stores = 2,
     .ids = NULL},
    {"attention of one token",
     {{"qkv", {1, 1, 12}, 1, 0}, {"r", {1, 1, 12}, 1, 0}},
     2,
     {1, 1, 4},
     build_attention1,
     oracle_attention1,
     .more_activations = 1,
     .more_stores = 2,
     .ids = NULL},
    {"embed_tokens",
     {{"x", {2, 3, 5}, 1, 0}, {"cls", {1, 1, 5}, 1, 0}, {"position", {1, 7, 5}, 1, 0}},
     3,
     {2, 4, 5},
     build_embed,
     oracle_embed,
     .ids = NULL},
    {"embed_tokens kept",
     {{"x", {2, 3, 5}, 1, 0}, {"cls", {1, 1, 5}, 1, 0}, {"position", {1, 7, 5}, 1, 0}},
     3,
     {2, 4, 5},
     build_embed,
     oracle_embed_ids,
     .id_shape = {2, 3},
     .ids = kept_ids},
    {"unshuffle",
     {{"x", {2, 3, 5}, 1, 0}, {"mask_token", {1, 1, 5}, 1, 0}, {"position", {1, 6, 5}, 1, 0}},
     3,
     {2, 6, 5},
     build_unshuffle,
     oracle_unshuffle,
     .id_shape = {2, 5},
     .ids = restore_ids},
    {"head_norm",
     {{"qkv", {2, 67, 45}, 1, 0},
      {"qw", {5, 1, 1}, 1, 1},
      {"qb", {5, 1, 1}, 1, 0},
      {"kw", {5, 1, 1}, 1, 1},
      {"kb", {5, 1, 1}, 1, 0}},
     5,
     {2, 67, 45},
     build_head_norm,
     oracle_head_norm,
     .ids = NULL},
    {"head_norm, two consumers", /* heads wider than a vector */
     {{"qkv", {2, 3, 171}, 1, 0},
      {"qw", {19, 1, 1}, 1, 1},
      {"qb", {19, 1, 1}, 1, 0},
      {"kw", {19, 1, 1}, 1, 1},
      {"kb", {19, 1, 1}, 1, 0}},
     5,
     {2, 3, 171},
     build_head_norm_sum,
     oracle_head_norm_sum,
     .more_stores = 2,
     .ids = NULL},
    {"parallel_projection",
     {{"a", {3, 47, 7}, 1, 0},
      {"m", {3, 47, 19}, 1, 0},
      {"wa", {11, 7, 1}, 1, 0},
      {"ba", {11, 1, 1}, 1, 0},
      {"wm", {11, 19, 1}, 1, 0},
      {"bm", {11, 1, 1}, 1, 0},
      {"gamma", {11, 1, 1}, 1, 0.5}},
     7,
     {3, 47, 11},
     build_projection,
     oracle_projection,
     .more_activations = 1,
     .more_stores = 1, /* the sum of the first branch */
     .ids = NULL},
    {"parallel_projection of many rows", /* packed weights */
     {{"a", {8, 131, 7}, 1, 0},
      {"m", {8, 131, 19}, 1, 0},
      {"wa", {11, 7, 1}, 1, 0},
      {"ba", {11, 1, 1}, 1, 0},
      {"wm", {11, 19, 1}, 1, 0},
      {"bm", {11, 1, 1}, 1, 0},
      {"gamma", {11, 1, 1}, 1, 0.5}},
     7,
     {8, 131, 11},
     build_projection,
     oracle_projection,
     .more_activations = 1,
     .more_stores = 1, /* the sum of the first branch */
     .ids = NULL},
    {"unshuffle_channels",
     {{"x", {2, 4, 5}, 1, 0},
      {"mask_token", {1, 1, 5}, 1, 0},
      {"position", {1, 4, 5}, 1, 0},
      {"channel_tokens", {1, 2, 5}, 1, 0}},
     4,
     {2, 7, 5},
     build_unshuffle_channels,
     oracle_unshuffle_channels,
     .id_shape = {2, 6},
     .ids = channel_restore_ids},
    {"unshuffle_channels without cls",
     {{"x", {2, 4, 5}, 1, 0},
      {"mask_token", {1, 1, 5}, 1, 0},
      {"position", {1, 4, 5}, 1, 0},
      {"channel_tokens", {1, 2, 5}, 1, 0}},
     4,
     {2, 6, 5},
     build_unshuffle_no_cls,
     oracle_unshuffle_no_cls,
     .more_stores = 1,
     .id_shape = {2, 6},
     .ids = channel_restore_ids},
    {"token_rows", {{"x", {2, 7, 5}, 1, 0}}, 1, {2, 8, 5}, build_token_rows, oracle_token_rows, .ids = NULL},
    {"concat_tokens",
     {{"x", {2, 1, 5}, 1, 0}, {"y", {2, 3, 5}, 1, 0}},
     2,
     {2, 31, 5},
     build_concat,
     oracle_concat,
     .more_activations = 1,
     .ids = NULL},
    {"embed_tokens of two channels",
     {{"x", {2, 6, 5}, 1, 0}, {"cls", {1, 1, 5}, 1, 0}, {"position", {1, 4, 5}, 1, 0}},
     3,
     {2, 7, 5},
     build_embed,
     oracle_embed_channels,
     .ids = NULL},
    {"embed_tokens, learned positions", /* which are parameters where they are not called position */
     {{"x", {2, 3, 5}, 1, 0}, {"cls", {1, 1, 5}, 1, 0}, {"learned", {1, 7, 5}, 1, 0}},
     3,
     {2, 4, 5},
     build_embed,
     oracle_embed_ids,
     .id_shape = {2, 3},
     .ids = kept_ids},
    {"embed_tokens, all, learned positions",
     {{"x", {2, 6, 67}, 1, 0}, {"cls", {1, 1, 67}, 1, 0}, {"learned", {1, 7, 67}, 1, 0}},
     3,
     {2, 7, 67},
     build_embed,
     oracle_embed,
     .ids = NULL},
    {"unshuffle, learned positions",
     {{"x", {2, 3, 5}, 1, 0}, {"mask_token", {1, 1, 5}, 1, 0}, {"learned", {1, 6, 5}, 1, 0}},
     3,
     {2, 6, 5},
     build_unshuffle,
     oracle_unshuffle,
     .id_shape = {2, 5},
     .ids = restore_ids},
    {"append_masked",
     {{"x", {2, 3, 5}, 1, 0}, {"mask_token", {1, 1, 5}, 1, 0}, {"position", {1, 5, 5}, 1, 0}},
     3,
     {2, 6, 5},
     build_append,
     oracle_append,
     .id_shape = {2, 5},
     .ids = decoded_ids},
    {"append_masked, learned positions",
     {{"x", {2, 3, 7}, 1, 0}, {"mask_token", {1, 1, 7}, 1, 0}, {"learned", {1, 5, 7}, 1, 0}},
     3,
     {2, 6, 7},
     build_append,
     oracle_append,
     .id_shape = {2, 5},
     .ids = decoded_ids},
    {"restore_tokens",
     {{"x", {2, 3, 5}, 1, 0}},
     1,
     {2, 5, 5},
     build_restore,
     oracle_restore,
     .id_shape = {2, 5},
     .ids = rank_ids},
    {"drop_cls", {{"x", {2, 4, 5}, 1, 0}}, 1, {2, 3, 5}, build_drop, oracle_drop, .ids = NULL},
    {"masked_loss", {{"x", {3, 5, 7}, 1, 0}}, 1, {3, 5, 7}, build_same, oracle_same, .ids = NULL},
    {"masked_loss norm_pix",
     {{"x", {3, 5, 7}, 1, 0}},
     1,
     {3, 5, 7},
     build_same,
     oracle_same,
     .norm_pix = true},
};

/* ---- the loss over the result: a random target, half of the rows masked, unequal weights ---- */

static float target_of(int64_t i) { return (float)sin(12.9898 * (double)(i + 1)); }
static float mask_of(int64_t row) { return row % 3 == 1 ? 0.0f : 1.0f; }
static float weight_of(int64_t b) { return 0.25f + 0.5f * (float)b; }

static double reference_loss(const op_case *c, double **a, double *y) {
    const int64_t *s = c->result;
    c->oracle(a, c->arguments[0].shape, y);
    double loss = 0;
    for (int64_t b = 0; b < s[0]; b++) {
        double sum = 0, count = 0;
        for (int64_t n = 0; n < s[1]; n++) {
            int64_t row = b * s[1] + n;
            if (mask_of(row) == 0) continue;
            count++;
            double mean = 0, squares = 0, rstd = 1, error = 0;
            if (c->norm_pix) {
                for (int64_t i = 0; i < s[2]; i++) mean += (double)target_of(row * s[2] + i) / (double)s[2];
                for (int64_t i = 0; i < s[2]; i++)
                    squares += pow((double)target_of(row * s[2] + i) - mean, 2);
                rstd = 1 / sqrt(squares / (double)(s[2] - 1) + 1e-6);
            }
            for (int64_t i = 0; i < s[2]; i++)
                error += pow(y[row * s[2] + i] - ((double)target_of(row * s[2] + i) - mean) * rstd, 2);
            sum += error / (double)s[2];
        }
        loss += (double)weight_of(b) * sum / count;
    }
    return loss;
}

static int64_t argument_count(const argument *a) { return a->shape[0] * a->shape[1] * a->shape[2]; }

static double distance(const double *a, const double *b, int64_t count) {
    double d = 0, n = 0;
    for (int64_t i = 0; i < count; i++) {
        d += (a[i] - b[i]) * (a[i] - b[i]);
        n += b[i] * b[i];
    }
    return n > 0 ? sqrt(d / n) : sqrt(d);
}

/* A second step adds the same gradients to those that are there. */
static void check_accumulation(const op_case *c, lam_parameters *p, lam_graph *g) {
    float *once = malloc((size_t)p->trainable * sizeof *once), largest = 0;
    memcpy(once, p->gradients, (size_t)p->trainable * sizeof *once);
    assert_int_equal(lam_graph_forward(g), LAM_OK);
    assert_int_equal(lam_graph_backward(g), LAM_OK);
    for (int64_t i = 0; i < p->trainable; i++) largest = fmaxf(largest, fabsf(once[i]));
    for (int64_t i = 0; i < p->trainable; i++)
        if (!(fabsf(p->gradients[i] - 2 * once[i]) <= 1e-6f * largest))
            fail_msg("%s: gradients are not added up", c->name);
    free(once);
}

/* Error of storing these values in bfloat16 once. */
static double rounding(const double *values, int64_t count) {
    double off = 0, norm = 0;
    for (int64_t i = 0; i < count; i++) {
        double stored = (double)lam_bf16_to_float(lam_bf16_from_float((float)values[i]));
        off += (stored - values[i]) * (stored - values[i]);
        norm += values[i] * values[i];
    }
    return norm > 0 ? sqrt(off / norm) : 0;
}

static void check_case(const op_case *c, const char *isa, bool bf16) {
    lam_parameters *p;
    lam_graph *g;
    assert_int_equal(lam_parameters_create(&p), LAM_OK);
    for (int k = c->count - 1; k >= 0; k--)
        assert_int_equal(
            lam_parameters_add(p, c->arguments[k].name,
                               c->arguments[k].shape[2] == 1 ? (c->arguments[k].shape[1] == 1 ? 1 : 2) : 3,
                               c->arguments[k].shape,
                               strcmp(c->arguments[k].name, "position") ? LAM_INIT_ZERO : LAM_INIT_FROZEN, 0,
                               true),
            LAM_OK);
    assert_int_equal(lam_parameters_layout(p, 1), LAM_OK);
    double *values[MAX_ARGUMENTS];
    lam_rng stream = lam_rng_stream(5, LAM_RNG_TEST, 0);
    for (int k = 0; k < c->count; k++) {
        const argument *a = &c->arguments[k];
        float *w = p->weights + lam_parameters_find(p, a->name)->offset;
        values[k] = malloc((size_t)argument_count(a) * sizeof(double));
        for (int64_t i = 0; i < argument_count(a); i++) {
            w[i] = (float)(a->shift + a->scale * (2 * lam_rng_uniform(&stream) - 1));
            if (bf16) w[i] = lam_bf16_to_float(lam_bf16_from_float(w[i]));
            values[k][i] = (double)w[i];
        }
    }
    assert_int_equal(lam_graph_create(&g, p, LAM_BACKEND_CPU), LAM_OK);
    if (bf16) lam_graph_set_activation(g, LAM_BF16);
    lam_tensor *arguments[MAX_ARGUMENTS], *ids = c->ids ? lam_input(g, "ids", LAM_I32, 2, c->id_shape) : NULL;
    for (int k = 0; k < c->count; k++) arguments[k] = lam_parameter(g, c->arguments[k].name);
    for (int k = 0; k <= c->more_activations; k++) arguments[k] = cast(g, arguments[k]);
    lam_tensor *y = c->build(g, arguments, ids), *sample_loss;
    lam_keep(g, y, "y");
    lam_tensor *target = lam_input(g, "target", LAM_F32, 3, c->result),
               *mask = lam_input(g, "mask", LAM_F32, 2, c->result),
               *weight = lam_input(g, "weight", LAM_F32, 1, c->result);
    lam_tensor *loss = lam_masked_loss(g, y, target, mask, weight, c->norm_pix, &sample_loss);
    if (lam_graph_differentiate(g, loss) != LAM_OK) fail_msg("%s: %s", c->name, lam_last_error());
    if (lam_graph_plan(g) != LAM_OK) fail_msg("%s: %s", c->name, lam_last_error());
    int64_t count = c->result[0] * c->result[1] * c->result[2];
    assert_int_equal(lam_tensor_count(y), count);
    for (int64_t i = 0; i < count; i++) ((float *)lam_tensor_data(target))[i] = target_of(i);
    for (int64_t i = 0; i < c->result[0] * c->result[1]; i++)
        ((float *)lam_tensor_data(mask))[i] = mask_of(i);
    for (int64_t i = 0; i < c->result[0]; i++) ((float *)lam_tensor_data(weight))[i] = weight_of(i);
    if (ids) memcpy(lam_tensor_data(ids), c->ids, (size_t)lam_tensor_count(ids) * sizeof(int32_t));

    double *expected = malloc((size_t)count * sizeof(double)), *got = malloc((size_t)count * sizeof(double));
    assert_int_equal(lam_graph_forward(g), LAM_OK);
    float *read = malloc((size_t)count * sizeof *read);
    lam_tensor_read(y, read);
    for (int64_t i = 0; i < count; i++) got[i] = (double)read[i];
    free(read);
    double reference = reference_loss(c, values, expected), error = distance(got, expected, count);
    int stored = 1 + c->more_stores;
    double allowed = bf16 ? 2.5 * stored * rounding(expected, count) : 1e-6;
    if (!(error <= allowed))
        fail_msg("%s on %s: result is off by %g, bound %g", c->name, isa, error, allowed);
    double loss_error = fabs((double)*(float *)lam_tensor_data(loss) - reference) / reference;
    if (!(loss_error < fmax(allowed, 1e-6)))
        fail_msg("%s on %s: loss is off by %g", c->name, isa, loss_error);

    lam_parameters_zero_gradients(p);
    if (lam_graph_backward(g) != LAM_OK) fail_msg("%s: %s", c->name, lam_last_error());
    for (int k = 0; k < c->count; k++) {
        const lam_parameter_entry *entry = lam_parameters_find(p, c->arguments[k].name);
        if (entry->init == LAM_INIT_FROZEN) continue;
        double numeric[SAMPLES], analytic[SAMPLES], largest = 0;
        int64_t samples = entry->count < SAMPLES ? entry->count : SAMPLES;
        for (int64_t s = 0; s < samples; s++) {
            int64_t i = s * entry->count / samples;
            double old = values[k][i], step = 1e-4;
            values[k][i] = old + step;
            double above = reference_loss(c, values, expected);
            values[k][i] = old - step;
            numeric[s] = (above - reference_loss(c, values, expected)) / (2 * step);
            values[k][i] = old;
            analytic[s] = (double)p->gradients[entry->offset + i];
            largest = fmax(largest, fabs(numeric[s]));
        }
        double off = distance(analytic, numeric, samples);
        allowed = bf16 ? 2.5 * (stored + 1) * rounding(numeric, samples) : largest < 1e-9 ? 1e-6 : 3e-6;
        if (!(off <= allowed))
            fail_msg("%s on %s: gradient of %s is off by %g, bound %g", c->name, isa, entry->name, off,
                     allowed);
    }
    check_accumulation(c, p, g);
    free(expected);
    free(got);
    for (int k = 0; k < c->count; k++) free(values[k]);
    lam_graph_free(g);
    lam_parameters_free(p);
}

static void select_isa(const char *isa) {
    setenv("LAMELLA_ISA", isa, 1);
    lam_status status = lam_isa_select();
    unsetenv("LAMELLA_ISA");
    if (status != LAM_OK) skip();
    assert_string_equal(lam_isa_name(), isa);
}

static void test_f32(void **state) {
    select_isa(*state);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) check_case(&cases[i], *state, false);
}

static void test_bf16(void **state) {
    select_isa(*state);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) check_case(&cases[i], *state, true);
}

/* Products through the CPU's bfloat16 instructions where it has them, and through float32 everywhere. */
static void test_bf16_converted(void **state) {
    select_isa(*state);
    lam_gemm_bf16_route(LAM_GEMM_CONVERT);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) check_case(&cases[i], *state, true);
    lam_gemm_bf16_route(LAM_GEMM_AUTO);
}

static void test_unknown_isa(void **state) {
    (void)state;
    setenv("LAMELLA_ISA", "sse9", 1);
    assert_int_equal(lam_isa_select(), LAM_ERROR_USAGE);
    assert_non_null(strstr(lam_last_error(), "sse9"));
    unsetenv("LAMELLA_ISA");
    assert_int_equal(lam_isa_select(), LAM_OK);
}

int main(void) {
    /* oneDNN heeds the first instruction set that it is told: the best one comes first. */
#define ON(isa)                                                                                              \
    {"float32 on " isa, test_f32, NULL, NULL, (void *)(uintptr_t)isa}, {                                     \
        "bfloat16 on " isa, test_bf16, NULL, NULL, (void *)(uintptr_t)isa                                    \
    }
    const struct CMUnitTest tests[] = {
        ON("amx"),
        {"bfloat16 converted", test_bf16_converted, NULL, NULL, (void *)(uintptr_t) "baseline"},
        ON("avx512_bf16"),
        ON("avx512"),
        ON("avx2"),
        ON("baseline"),
        cmocka_unit_test(test_unknown_isa),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
