/* Attention as operations of a graph: queries with another consumer and a bounded batch; shapes that are refused. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "model/ops.h"
#include "tests/unit/attention_check.h"

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
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_graph), cmocka_unit_test(test_shapes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
