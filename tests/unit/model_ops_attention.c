/* Attention among a network's operations, as op_check.h checks them; model_attention.c is for its sizes, masks and strides. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/op_check.h"

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

/* Queries and keys normalised: qkv, qw, qb, kw, kb; 2 heads, added to qkv so that its gradient has another part. */
static lam_tensor *build_normed(lam_graph *g, lam_tensor **a, int64_t heads, lam_tensor *mask) {
    const lam_qk_norm norm = {a[1], a[2], a[3], a[4], EPS};
    return lam_normed_attention(g, a[0], heads, mask, &norm);
}
static lam_tensor *build_normed1(lam_graph *g, lam_tensor **a, lam_tensor *ids) {
    return (void)ids, build_normed(g, a, 1, NULL);
}
static lam_tensor *build_normed2(lam_graph *g, lam_tensor **a, lam_tensor *ids) {
    return (void)ids, build_normed(g, a, 2, NULL);
}
static void oracle_normed(double **a, const int64_t *s, int64_t heads, double *y) {
    int64_t rows = s[0] * s[1], hd = s[2] / 3 / heads;
    double *qkv = calloc((size_t)(rows * s[2]), sizeof *qkv);
    memcpy(qkv, a[0], (size_t)(rows * s[2]) * sizeof *qkv);
    for (int64_t row = 0; row < rows; row++)
        for (int64_t h = 0; h < 2 * heads; h++) {
            double *x = qkv + row * s[2] + h * hd, mean = 0, variance = 0;
            const double *w = a[h < heads ? 1 : 3], *b = a[h < heads ? 2 : 4];
            for (int64_t i = 0; i < hd; i++) mean += x[i] / (double)hd;
            for (int64_t i = 0; i < hd; i++) variance += (x[i] - mean) * (x[i] - mean) / (double)hd;
            for (int64_t i = 0; i < hd; i++) x[i] = (x[i] - mean) / sqrt(variance + EPS) * w[i] + b[i];
        }
    ref_attention(qkv, s[0], s[1], s[2] / 3, heads, y);
    free(qkv);
}
static void oracle_normed1(double **a, const int64_t *s, double *y) { oracle_normed(a, s, 1, y); }
static void oracle_normed2(double **a, const int64_t *s, double *y) { oracle_normed(a, s, 2, y); }
/* The input has another consumer, whose gradient is there first. */
static lam_tensor *build_normed_twice(lam_graph *g, lam_tensor **a, lam_tensor *ids) {
    (void)ids;
    lam_tensor *x = lam_add(g, a[0], a[0]), *b[] = {x, a[1], a[2], a[3], a[4]};
    return lam_add(g, build_normed(g, b, 2, NULL), lam_attention(g, x, 1, NULL));
}
static void oracle_normed_twice(double **a, const int64_t *s, double *y) {
    int64_t count = s[0] * s[1] * s[2], results = count / 3;
    double *x = calloc((size_t)count, sizeof *x), *b[5] = {x, a[1], a[2], a[3], a[4]},
           *other = calloc((size_t)results, sizeof *other);
    for (int64_t i = 0; i < count; i++) x[i] = 2 * a[0][i];
    oracle_normed(b, s, 2, y);
    ref_attention(x, s[0], s[1], s[2] / 3, 1, other);
    for (int64_t i = 0; i < results; i++) y[i] += other[i];
    free(x);
    free(other);
}

#define NORM_ARGUMENTS(head_dim)                                                                             \
    {"qw", {head_dim, 1, 1}, 1, 1}, {"qb", {head_dim, 1, 1}, 1, 0}, {"kw", {head_dim, 1, 1}, 1, 1}, {        \
        "kb", {head_dim, 1, 1}, 1, 0                                                                         \
    }

static const op_case cases[] = {
    {"normed attention 5",
     {{"qkv", {2, 67, 30}, 1, 0}, NORM_ARGUMENTS(5)},
     5,
     {2, 67, 10},
     build_normed2,
     oracle_normed2,
     .more_stores = 3,
     .ids = NULL},
    {"normed attention 64",
     {{"qkv", {1, 65, 192}, 1, 0}, NORM_ARGUMENTS(64)},
     5,
     {1, 65, 64},
     build_normed1,
     oracle_normed1,
     .more_stores = 3,
     .ids = NULL},
    {"normed attention 104",
     {{"qkv", {2, 9, 624}, 1, 0}, NORM_ARGUMENTS(104)},
     5,
     {2, 9, 208},
     build_normed2,
     oracle_normed2,
     .more_stores = 3,
     .ids = NULL},
    {"normed attention, two consumers",
     {{"qkv", {2, 7, 48}, 1, 0}, NORM_ARGUMENTS(8)},
     5,
     {2, 7, 16},
     build_normed_twice,
     oracle_normed_twice,
     .more_stores = 4,
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
};

int main(void) {
    const struct CMUnitTest tests[] = {OP_TESTS};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
