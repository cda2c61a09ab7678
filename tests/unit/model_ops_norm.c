/* Norms of rows, and the loss, which standardises rows too, as op_check.h checks operations. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/op_check.h"

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

static lam_tensor *build_same(lam_graph *g, lam_tensor **a, lam_tensor *ids) {
    return (void)g, (void)ids, a[0];
}
static void oracle_same(double **a, const int64_t *s, double *y) {
    memcpy(y, a[0], (size_t)(s[0] * s[1] * s[2]) * sizeof *y);
}

static const op_case cases[] = {
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
    {"masked_loss", {{"x", {3, 5, 7}, 1, 0}}, 1, {3, 5, 7}, build_same, oracle_same, .ids = NULL},
    {"masked_loss norm_pix",
     {{"x", {3, 5, 7}, 1, 0}},
     1,
     {3, 5, 7},
     build_same,
     oracle_same,
     .norm_pix = true},
};

int main(void) {
    const struct CMUnitTest tests[] = {OP_TESTS};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
