/* Attention among a network's operations, as op_check.h checks them; model_attention.c is for its sizes, masks and strides. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

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

static const op_case cases[] = {
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
