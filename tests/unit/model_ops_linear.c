/* Linear maps and what is fused with them, as op_check.h checks operations; and the choice of the instruction set. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/op_check.h"

static void ref_linear(const double *x, const double *w, const double *b, int64_t rows, int64_t in,
                       int64_t out, double *y, int64_t stride) {
    for (int64_t r = 0; r < rows; r++)
        for (int64_t o = 0; o < out; o++) {
            double sum = b[o];
            for (int64_t i = 0; i < in; i++) sum += x[r * in + i] * w[o * in + i];
            y[r * stride + o] = sum;
        }
}

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

static void oracle_gelu_of_16(double **a, const int64_t *s, double *y) {
    ref_linear(a[0], a[1], a[2], s[0] * s[1], s[2], 16, y, 16);
    for (int64_t i = 0; i < s[0] * s[1] * 16; i++) y[i] *= 0.5 * (1 + erf(y[i] / sqrt(2.0)));
}

/* Two linear maps with a GELU between them, which only the second reads. */
static lam_tensor *build_perceptron(lam_graph *g, lam_tensor **a, lam_tensor *ids) {
    return (void)ids, lam_linear(g, lam_linear_gelu(g, a[0], a[1], a[2]), a[3], a[4]);
}
static double *hidden_of(double **a, const int64_t *s, int64_t width) {
    int64_t rows = s[0] * s[1];
    double *hidden = calloc((size_t)(rows * width), sizeof *hidden);
    ref_linear(a[0], a[1], a[2], rows, s[2], width, hidden, width);
    for (int64_t i = 0; i < rows * width; i++) hidden[i] *= 0.5 * (1 + erf(hidden[i] / sqrt(2.0)));
    return hidden;
}
static void oracle_perceptron(double **a, const int64_t *s, double *y) {
    double *hidden = hidden_of(a, s, 24);
    ref_linear(hidden, a[3], a[4], s[0] * s[1], 24, s[2], y, s[2]);
    free(hidden);
}
static void oracle_odd_perceptron(double **a, const int64_t *s, double *y) {
    double *hidden = hidden_of(a, s, 19);
    ref_linear(hidden, a[3], a[4], s[0] * s[1], 19, s[2], y, s[2]);
    free(hidden);
}

static lam_tensor *build_qkv(lam_graph *g, lam_tensor **a, lam_tensor *ids) {
    return (void)ids, lam_linear_qkv(g, a[0], a[1], a[2], a[3], a[4], a[5], a[6]);
}
static void oracle_qkv(double **a, const int64_t *s, double *y) {
    for (int part = 0; part < 3; part++)
        ref_linear(a[0], a[1 + 2 * part], a[2 + 2 * part], s[0] * s[1], s[2], s[2], y + part * s[2],
                   3 * s[2]);
}

static lam_tensor *build_kv(lam_graph *g, lam_tensor **a, lam_tensor *ids) {
    return (void)ids, lam_linear_kv(g, a[0], a[1], a[2], a[3], a[4]);
}
static void oracle_kv(double **a, const int64_t *s, double *y) {
    for (int part = 0; part < 2; part++)
        ref_linear(a[0], a[1 + 2 * part], a[2 + 2 * part], s[0] * s[1], s[2], s[2], y + part * s[2],
                   2 * s[2]);
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

static lam_tensor *build_linear_add(lam_graph *g, lam_tensor **a, lam_tensor *ids) {
    return (void)ids, lam_linear_add(g, a[0], a[2], a[3], a[1]);
}
static void oracle_linear_add(double **a, const int64_t *s, double *y) {
    ref_linear(a[0], a[2], a[3], s[0] * s[1], s[2], 11, y, 11);
    for (int64_t i = 0; i < s[0] * s[1] * 11; i++) y[i] += a[1][i];
}

/* What it is added to is its argument too, and has a consumer before. */
static lam_tensor *build_linear_add_itself(lam_graph *g, lam_tensor **a, lam_tensor *ids) {
    lam_tensor *x = lam_add(g, a[0], a[0]), *other = lam_add(g, x, x);
    return (void)ids, lam_add(g, lam_linear_add(g, x, a[1], a[2], x), other);
}
static void oracle_linear_add_itself(double **a, const int64_t *s, double *y) {
    oracle_fan_out(a, s, y);
    for (int64_t i = 0; i < s[0] * s[1] * s[2]; i++) y[i] += 4 * a[0][i];
}

static lam_tensor *build_projection(lam_graph *g, lam_tensor **a, lam_tensor *ids) {
    return (void)ids, lam_parallel_projection(g, a[0], a[2], a[3], a[1], a[4], a[5], a[6], NULL);
}
static void oracle_projection(double **a, const int64_t *s, double *y) {
    int64_t rows = s[0] * s[1];
    double *other = calloc((size_t)(rows * 11), sizeof *other);
    ref_linear(a[0], a[2], a[3], rows, s[2], 11, y, 11);
    ref_linear(a[1], a[4], a[5], rows, 19, 11, other, 11);
    for (int64_t i = 0; i < rows * 11; i++) y[i] = a[6][i % 11] * (y[i] + other[i]);
    free(other);
}

static lam_tensor *build_projection_add(lam_graph *g, lam_tensor **a, lam_tensor *ids) {
    return (void)ids, lam_parallel_projection(g, a[0], a[3], a[4], a[1], a[5], a[6], a[7], a[2]);
}
static void oracle_projection_add(double **a, const int64_t *s, double *y) {
    double *without[7] = {a[0], a[1], a[3], a[4], a[5], a[6], a[7]};
    oracle_projection(without, s, y);
    for (int64_t i = 0; i < s[0] * s[1] * 11; i++) y[i] += a[2][i];
}

/* The parallel block's: x and a hidden layer of it. */
static lam_tensor *build_block(lam_graph *g, lam_tensor **a, lam_tensor *ids) {
    return (void)ids, lam_parallel_projection(g, a[0], a[3], a[4], lam_linear_gelu(g, a[0], a[1], a[2]), a[5],
                                              a[6], a[7], NULL);
}
static void oracle_block(double **a, const int64_t *s, double *y) {
    int64_t rows = s[0] * s[1];
    double *hidden = hidden_of(a, s, 24), *other = calloc((size_t)(rows * 8), sizeof *other);
    ref_linear(a[0], a[3], a[4], rows, s[2], 8, y, 8);
    ref_linear(hidden, a[5], a[6], rows, 24, 8, other, 8);
    for (int64_t i = 0; i < rows * 8; i++) y[i] = a[7][i % 8] * (y[i] + other[i]);
    free(hidden);
    free(other);
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
    {"linear_add",
     {{"x", {2, 5, 7}, 1, 0}, {"r", {2, 5, 11}, 1, 0}, {"w", {11, 7, 1}, 1, 0}, {"b", {11, 1, 1}, 1, 0}},
     4,
     {2, 5, 11},
     build_linear_add,
     oracle_linear_add,
     .more_activations = 1,
     .ids = NULL},
    {"linear_add of many rows", /* packed weights */
     {{"x", {8, 131, 7}, 1, 0}, {"r", {8, 131, 11}, 1, 0}, {"w", {11, 7, 1}, 1, 0}, {"b", {11, 1, 1}, 1, 0}},
     4,
     {8, 131, 11},
     build_linear_add,
     oracle_linear_add,
     .more_activations = 1,
     .ids = NULL},
    {"linear_add to its argument",
     {{"x", {2, 3, 16}, 1, 0}, {"w", {16, 16, 1}, 1, 0}, {"b", {16, 1, 1}, 1, 0}},
     3,
     {2, 3, 16},
     build_linear_add_itself,
     oracle_linear_add_itself,
     .more_stores = 3,
     .ids = NULL},
    {"linear_gelu",
     {{"x", {3, 47, 17}, 2, 0}, {"w", {19, 17, 1}, 1, 0}, {"b", {19, 1, 1}, 1, 0}},
     3,
     {3, 47, 19},
     build_gelu,
     oracle_gelu,
     .more_stores = 1,
     .ids = NULL},
    {"linear_gelu of many rows", /* packed weights */
     {{"x", {8, 131, 17}, 2, 0}, {"w", {19, 17, 1}, 1, 0}, {"b", {19, 1, 1}, 1, 0}},
     3,
     {8, 131, 19},
     build_gelu,
     oracle_gelu,
     .more_stores = 1,
     .ids = NULL},
    {"linear_gelu of 16",
     {{"x", {3, 47, 16}, 2, 0}, {"w", {16, 16, 1}, 1, 0}, {"b", {16, 1, 1}, 1, 0}},
     3,
     {3, 47, 16},
     build_gelu,
     oracle_gelu_of_16,
     .more_stores = 1,
     .ids = NULL},
    {"linear_gelu before linear",
     {{"x", {3, 47, 16}, 1, 0},
      {"w1", {24, 16, 1}, 1, 0},
      {"b1", {24, 1, 1}, 1, 0},
      {"w2", {16, 24, 1}, 1, 0},
      {"b2", {16, 1, 1}, 1, 0}},
     5,
     {3, 47, 16},
     build_perceptron,
     oracle_perceptron,
     .more_stores = 2,
     .ids = NULL},
    {"linear_gelu before linear of odd widths",
     {{"x", {3, 47, 17}, 1, 0},
      {"w1", {19, 17, 1}, 1, 0},
      {"b1", {19, 1, 1}, 1, 0},
      {"w2", {17, 19, 1}, 1, 0},
      {"b2", {17, 1, 1}, 1, 0}},
     5,
     {3, 47, 17},
     build_perceptron,
     oracle_odd_perceptron,
     .more_stores = 2,
     .ids = NULL},
    {"linear_gelu before parallel_projection",
     {{"x", {3, 47, 16}, 1, 0},
      {"w1", {24, 16, 1}, 1, 0},
      {"b1", {24, 1, 1}, 1, 0},
      {"wa", {8, 16, 1}, 1, 0},
      {"ba", {8, 1, 1}, 1, 0},
      {"wm", {8, 24, 1}, 1, 0},
      {"bm", {8, 1, 1}, 1, 0},
      {"gamma", {8, 1, 1}, 1, 0.5}},
     8,
     {3, 47, 8},
     build_block,
     oracle_block,
     .more_stores = 3,
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
    {"linear_kv of many rows", /* packed weights */
     {{"x", {8, 131, 13}, 1, 0},
      {"wk", {13, 13, 1}, 1, 0},
      {"bk", {13, 1, 1}, 1, 0},
      {"wv", {13, 13, 1}, 1, 0},
      {"bv", {13, 1, 1}, 1, 0}},
     5,
     {8, 131, 26},
     build_kv,
     oracle_kv,
     .ids = NULL},
    {"fan_out",
     {{"x", {2, 3, 9}, 1, 0}, {"w", {9, 9, 1}, 1, 0}, {"b", {9, 1, 1}, 1, 0}},
     3,
     {2, 3, 9},
     build_fan_out,
     oracle_fan_out,
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
    {"parallel_projection, added",
     {{"a", {3, 47, 7}, 1, 0},
      {"m", {3, 47, 19}, 1, 0},
      {"r", {3, 47, 11}, 1, 0},
      {"wa", {11, 7, 1}, 1, 0},
      {"ba", {11, 1, 1}, 1, 0},
      {"wm", {11, 19, 1}, 1, 0},
      {"bm", {11, 1, 1}, 1, 0},
      {"gamma", {11, 1, 1}, 1, 0.5}},
     8,
     {3, 47, 11},
     build_projection_add,
     oracle_projection_add,
     .more_activations = 2,
     .more_stores = 1, /* the sum of the first branch */
     .ids = NULL},
    {"parallel_projection of many rows, added",
     {{"a", {8, 131, 7}, 1, 0},
      {"m", {8, 131, 19}, 1, 0},
      {"r", {8, 131, 11}, 1, 0},
      {"wa", {11, 7, 1}, 1, 0},
      {"ba", {11, 1, 1}, 1, 0},
      {"wm", {11, 19, 1}, 1, 0},
      {"bm", {11, 1, 1}, 1, 0},
      {"gamma", {11, 1, 1}, 1, 0.5}},
     8,
     {8, 131, 11},
     build_projection_add,
     oracle_projection_add,
     .more_activations = 2,
     .more_stores = 1,
     .ids = NULL},
};

static void test_unknown_isa(void **state) {
    (void)state;
    setenv("LAMELLA_ISA", "sse9", 1);
    assert_int_equal(lam_isa_select(), LAM_ERROR_USAGE);
    assert_non_null(strstr(lam_last_error(), "sse9"));
    unsetenv("LAMELLA_ISA");
    assert_int_equal(lam_isa_select(), LAM_OK);
}

int main(void) {
    const struct CMUnitTest tests[] = {OP_TESTS, cmocka_unit_test(test_unknown_isa)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
