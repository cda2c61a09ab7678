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

/* A residual stream: x, the norm of it in a linear map that is added to it, and so once more. */
static lam_tensor *build_stream(lam_graph *g, lam_tensor **a, lam_tensor *ids) {
    (void)ids;
    lam_tensor *x = lam_add(g, a[0], a[0]);
    x = lam_linear_add(g, lam_layernorm(g, x, a[1], a[2], EPS), a[3], a[4], x);
    x = lam_linear_add(g, lam_layernorm(g, x, a[1], a[2], EPS), a[5], a[6], x);
    return lam_layernorm(g, x, a[1], a[2], EPS);
}
static void oracle_stream(double **a, const int64_t *s, double *y) {
    int64_t rows = s[0] * s[1], width = s[2];
    double *x = calloc((size_t)(rows * width), sizeof *x);
    for (int64_t i = 0; i < rows * width; i++) x[i] = 2 * a[0][i];
    for (int branch = 0; branch < 2; branch++) {
        const double *w = a[3 + 2 * branch], *b = a[4 + 2 * branch];
        ref_layernorm(x, a[1], a[2], rows, width, y);
        for (int64_t i = 0; i < rows * width; i++) {
            x[i] += b[i % width];
            for (int64_t k = 0; k < width; k++) x[i] += y[i / width * width + k] * w[i % width * width + k];
        }
    }
    ref_layernorm(x, a[1], a[2], rows, width, y);
    free(x);
}

/* A linear map into wide rows, whose bias takes its gradient from the norm behind it on CUDA; read once more. */
static lam_tensor *build_wide(lam_graph *g, lam_tensor **a, lam_tensor *ids) {
    (void)ids;
    lam_tensor *x = lam_linear_add(g, a[0], a[2], a[3], a[1]);
    return lam_add(g, lam_layernorm(g, x, a[4], a[5], EPS), x);
}
static void oracle_wide(double **a, const int64_t *s, int64_t width, double *y) {
    int64_t rows = s[0] * s[1];
    double *x = calloc((size_t)(rows * width), sizeof *x);
    for (int64_t i = 0; i < rows * width; i++) {
        x[i] = a[1][i] + a[3][i % width];
        for (int64_t k = 0; k < s[2]; k++) x[i] += a[0][i / width * s[2] + k] * a[2][i % width * s[2] + k];
    }
    ref_layernorm(x, a[4], a[5], rows, width, y);
    for (int64_t i = 0; i < rows * width; i++) y[i] += x[i];
    free(x);
}
static void oracle_wide_72(double **a, const int64_t *s, double *y) { oracle_wide(a, s, 72, y); }
static void oracle_wide_2056(double **a, const int64_t *s, double *y) { oracle_wide(a, s, 2056, y); }
static void oracle_wide_2061(double **a, const int64_t *s, double *y) { oracle_wide(a, s, 2061, y); }
static void oracle_wide_8200(double **a, const int64_t *s, double *y) { oracle_wide(a, s, 8200, y); }

/* The norm of two maps side by side, each with a bias of its own. */
static lam_tensor *build_norm_of_kv(lam_graph *g, lam_tensor **a, lam_tensor *ids) {
    (void)ids;
    return lam_layernorm(g, lam_linear_kv(g, a[0], a[1], a[2], a[3], a[4]), a[5], a[6], EPS);
}
static void oracle_norm_of_kv(double **a, const int64_t *s, double *y) {
    int64_t rows = s[0] * s[1], in = s[2], width = 2 * in;
    double *x = calloc((size_t)(rows * width), sizeof *x);
    for (int64_t i = 0; i < rows * width; i++) {
        int64_t part = i % width / in, column = i % in;
        x[i] = a[2 + 2 * part][column];
        for (int64_t k = 0; k < in; k++) x[i] += a[0][i / width * in + k] * a[1 + 2 * part][column * in + k];
    }
    ref_layernorm(x, a[5], a[6], rows, width, y);
    free(x);
}

/* The norm's argument has another consumer, whose gradient is there first. */
static lam_tensor *build_add_layernorm(lam_graph *g, lam_tensor **a, lam_tensor *ids) {
    (void)ids;
    lam_tensor *sum = lam_add(g, a[0], a[1]);
    return lam_add(g, lam_layernorm(g, sum, a[2], a[3], EPS), sum);
}
static void oracle_add_layernorm(double **a, const int64_t *s, double *y) {
    int64_t count = s[0] * s[1] * s[2];
    double *sum = calloc((size_t)count, sizeof *sum);
    for (int64_t i = 0; i < count; i++) sum[i] = a[0][i] + a[1][i];
    ref_layernorm(sum, a[2], a[3], s[0] * s[1], s[2], y);
    for (int64_t i = 0; i < count; i++) y[i] += sum[i];
    free(sum);
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
    {"layernorm, stream",
     {{"x", {3, 67, 16}, 1, 0},
      {"w", {16, 1, 1}, 1, 1},
      {"b", {16, 1, 1}, 1, 0},
      {"w1", {16, 16, 1}, 0.3, 0},
      {"b1", {16, 1, 1}, 1, 0},
      {"w2", {16, 16, 1}, 0.3, 0},
      {"b2", {16, 1, 1}, 1, 0}},
     7,
     {3, 67, 16},
     build_stream,
     oracle_stream,
     .more_stores = 5,
     .ids = NULL},
    {"layernorm, stream of odd width",
     {{"x", {3, 67, 37}, 1, 0},
      {"w", {37, 1, 1}, 1, 1},
      {"b", {37, 1, 1}, 1, 0},
      {"w1", {37, 37, 1}, 0.2, 0},
      {"b1", {37, 1, 1}, 1, 0},
      {"w2", {37, 37, 1}, 0.2, 0},
      {"b2", {37, 1, 1}, 1, 0}},
     7,
     {3, 67, 37},
     build_stream,
     oracle_stream,
     .more_stores = 5,
     .ids = NULL},
    {"layernorm of linear_add to 72 wide",
     {{"x", {1, 5, 8}, 1, 0},
      {"r", {1, 5, 72}, 1, 0},
      {"w", {72, 8, 1}, 0.3, 0},
      {"b", {72, 1, 1}, 1, 0},
      {"nw", {72, 1, 1}, 1, 1},
      {"nb", {72, 1, 1}, 1, 0}},
     6,
     {1, 5, 72},
     build_wide,
     oracle_wide_72,
     .more_activations = 1,
     .more_stores = 2,
     .ids = NULL},
    {"layernorm of linear_add to 2,056 wide",
     {{"x", {1, 5, 8}, 1, 0},
      {"r", {1, 5, 2056}, 1, 0},
      {"w", {2056, 8, 1}, 0.3, 0},
      {"b", {2056, 1, 1}, 1, 0},
      {"nw", {2056, 1, 1}, 1, 1},
      {"nb", {2056, 1, 1}, 1, 0}},
     6,
     {1, 5, 2056},
     build_wide,
     oracle_wide_2056,
     .more_activations = 1,
     .more_stores = 2,
     .ids = NULL},
    {"layernorm of linear_add to 2,061 wide",
     {{"x", {1, 5, 8}, 1, 0},
      {"r", {1, 5, 2061}, 1, 0},
      {"w", {2061, 8, 1}, 0.3, 0},
      {"b", {2061, 1, 1}, 1, 0},
      {"nw", {2061, 1, 1}, 1, 1},
      {"nb", {2061, 1, 1}, 1, 0}},
     6,
     {1, 5, 2061},
     build_wide,
     oracle_wide_2061,
     .more_activations = 1,
     .more_stores = 2,
     .ids = NULL},
    {"layernorm of linear_add to 8,200 wide",
     {{"x", {1, 5, 8}, 1, 0},
      {"r", {1, 5, 8200}, 1, 0},
      {"w", {8200, 8, 1}, 0.3, 0},
      {"b", {8200, 1, 1}, 1, 0},
      {"nw", {8200, 1, 1}, 1, 1},
      {"nb", {8200, 1, 1}, 1, 0}},
     6,
     {1, 5, 8200},
     build_wide,
     oracle_wide_8200,
     .more_activations = 1,
     .more_stores = 2,
     .ids = NULL},
    {"layernorm of linear_kv",
     {{"x", {2, 5, 8}, 1, 0},
      {"wk", {8, 8, 1}, 0.5, 0},
      {"bk", {8, 1, 1}, 1, 0},
      {"wv", {8, 8, 1}, 0.5, 0},
      {"bv", {8, 1, 1}, 1, 0},
      {"nw", {16, 1, 1}, 1, 1},
      {"nb", {16, 1, 1}, 1, 0}},
     7,
     {2, 5, 16},
     build_norm_of_kv,
     oracle_norm_of_kv,
     .more_stores = 1,
     .ids = NULL},
    {"layernorm of a sum",
     {{"x", {2, 3, 19}, 1, 0}, {"r", {2, 3, 19}, 1, 0}, {"w", {19, 1, 1}, 1, 1}, {"b", {19, 1, 1}, 1, 0}},
     4,
     {2, 3, 19},
     build_add_layernorm,
     oracle_add_layernorm,
     .more_activations = 1,
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
