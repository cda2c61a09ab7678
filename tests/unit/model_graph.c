/* What the graph promises beside the operations: bounded rows, weights that are packed once, rows of parameters, errors. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/gemm.h"
#include "model/graph.h"
#include "model/ops.h"
#include "tests/unit/device.h"

enum { ROWS = 6, WIDTH = 9, HIDDEN = 13 };

static void ok(lam_status status) {
    if (status != LAM_OK) fail_msg("%s", lam_last_error());
}

/* layernorm, linear, gelu, add over [ROWS, 1, WIDTH] */
typedef struct small {
    lam_parameters *p;
    lam_graph *g;
    lam_tensor *x, *count, *y, *weight, *loss;
} small;

static small make_small(bool bounded) {
    small s = {0};
    ok(lam_parameters_create(&s.p));
    ok(lam_parameters_add(s.p, "norm.w", 1, (int64_t[]){WIDTH}, LAM_INIT_NORMAL, 1, false));
    ok(lam_parameters_add(s.p, "norm.b", 1, (int64_t[]){WIDTH}, LAM_INIT_NORMAL, 1, false));
    ok(lam_parameters_add(s.p, "fc1.w", 2, (int64_t[]){HIDDEN, WIDTH}, LAM_INIT_NORMAL, 1, true));
    ok(lam_parameters_add(s.p, "fc1.b", 1, (int64_t[]){HIDDEN}, LAM_INIT_NORMAL, 1, false));
    ok(lam_parameters_add(s.p, "fc2.w", 2, (int64_t[]){WIDTH, HIDDEN}, LAM_INIT_NORMAL, 1, true));
    ok(lam_parameters_add(s.p, "fc2.b", 1, (int64_t[]){WIDTH}, LAM_INIT_NORMAL, 1, false));
    ok(lam_parameters_layout(s.p, 4));
    ok(lam_graph_create(&s.g, s.p, test_backend()));
    s.x = lam_input(s.g, "x", LAM_F32, 3, (int64_t[]){ROWS, 1, WIDTH});
    s.count = lam_input(s.g, "count", LAM_I64, 1, (int64_t[]){1});
    if (bounded) lam_graph_bound_rows(s.g, s.x, s.count);
    lam_tensor *w = lam_parameter(s.g, "norm.w"), *b = lam_parameter(s.g, "norm.b"), *sum, *sample_loss;
    lam_tensor *h = lam_layernorm(s.g, s.x, w, b, 1e-6);
    h = lam_linear_gelu(s.g, h, lam_parameter(s.g, "fc1.w"), lam_parameter(s.g, "fc1.b"));
    sum = lam_linear_add(s.g, h, lam_parameter(s.g, "fc2.w"), lam_parameter(s.g, "fc2.b"), s.x);
    h = lam_layernorm(s.g, sum, w, b, 1e-6);
    s.y = lam_keep(s.g, lam_add(s.g, h, sum), "y");
    lam_tensor *target = lam_input(s.g, "target", LAM_F32, 3, (int64_t[]){ROWS, 1, WIDTH});
    lam_tensor *mask = lam_input(s.g, "mask", LAM_F32, 2, (int64_t[]){ROWS, 1});
    s.weight = lam_input(s.g, "weight", LAM_F32, 1, (int64_t[]){ROWS});
    s.loss = lam_masked_loss(s.g, s.y, target, mask, s.weight, false, &sample_loss);
    ok(lam_graph_differentiate(s.g, s.loss));
    ok(lam_graph_plan(s.g));
    for (int i = 0; i < ROWS * WIDTH; i++) {
        ((float *)lam_tensor_data(s.x))[i] = (float)sin(3.7 * i);
        ((float *)lam_tensor_data(target))[i] = (float)cos(1.3 * i);
    }
    for (int i = 0; i < ROWS; i++) ((float *)lam_tensor_data(mask))[i] = 1;
    return s;
}

static void drop_small(small *s) {
    lam_graph_free(s->g);
    lam_parameters_free(s->p);
}

static void run_small(small *s, int64_t rows) {
    *(int64_t *)lam_tensor_data(s->count) = rows;
    for (int64_t i = 0; i < ROWS; i++) ((float *)lam_tensor_data(s->weight))[i] = i < rows ? 0.5f : 0.0f;
    lam_parameters_zero_gradients(s->p);
    ok(lam_graph_forward(s->g));
    ok(lam_graph_backward(s->g));
}

static void bounded_rows(void **state) {
    (void)state;
    if (on_cuda()) skip(); /* rows beyond the count are computed there, and are zero: model_depth.c */
    setenv("LAMELLA_POISON", "1", 1);
    small all = make_small(false), some = make_small(true);
    unsetenv("LAMELLA_POISON");
    for (int64_t rows = 0; rows <= ROWS; rows++) {
        run_small(&all, rows);
        /* Rows beyond the count are never read: they may hold anything. */
        for (int64_t i = rows * WIDTH; i < ROWS * WIDTH; i++) ((float *)lam_tensor_data(some.x))[i] = NAN;
        run_small(&some, rows);
        const float *a = lam_tensor_data(all.y), *b = lam_tensor_data(some.y);
        for (int64_t i = 0; i < ROWS * WIDTH; i++)
            if (i < rows * WIDTH ? !(fabsf(a[i] - b[i]) <= 1e-5f) : !isnan(b[i]))
                fail_msg("%lld rows: element %lld", (long long)rows, (long long)i);
        for (int64_t i = 0; i < all.p->trainable; i++)
            if (!(fabsf(all.p->gradients[i] - some.p->gradients[i]) <= 2e-5f))
                fail_msg("%lld rows: gradient %lld", (long long)rows, (long long)i);
        for (int64_t i = 0; i < ROWS * WIDTH; i++)
            ((float *)lam_tensor_data(some.x))[i] = ((float *)lam_tensor_data(all.x))[i];
    }
    drop_small(&all);
    drop_small(&some);
}

/* Two maps by the same weights pack them once. */
static void packed_once(void **state) {
    (void)state;
    if (on_cuda()) skip(); /* the forms of the CPU's products */
    lam_parameters *p;
    lam_graph *g;
    lam_memory_report report;
    ok(lam_parameters_create(&p));
    ok(lam_parameters_add(p, "w", 2, (int64_t[]){16, 16}, LAM_INIT_NORMAL, 1, true));
    ok(lam_parameters_layout(p, 3));
    ok(lam_graph_create(&g, p, test_backend()));
    lam_tensor *x = lam_input(g, "x", LAM_F32, 2, (int64_t[]){1100, 16}),
               *y = lam_input(g, "y", LAM_F32, 2, (int64_t[]){1060, 16}), *w = lam_parameter(g, "w");
    lam_tensor *xw = lam_keep(g, lam_linear(g, x, w, NULL), "xw"),
               *yw = lam_keep(g, lam_linear(g, y, w, NULL), "yw");
    ok(lam_graph_plan(g));
    lam_graph_memory(g, &report);
    assert_true(report.packed > 0 && report.packed == lam_gemm_packed_bytes(LAM_GEMM_F32, 16, 16));
    for (int i = 0; i < 1060 * 16; i++)
        ((float *)lam_tensor_data(x))[i] = ((float *)lam_tensor_data(y))[i] = (float)(i % 7) - 3;
    for (int step = 0; step < 2; step++) {
        p->weights[5] += 1;
        ok(lam_graph_forward(g));
        const float *a = lam_tensor_data(xw), *b = lam_tensor_data(yw);
        for (int i = 0; i < 1060 * 16; i++) assert_true(fabsf(a[i] - b[i]) <= 1e-5f * (1 + fabsf(a[i])));
    }
    lam_graph_free(g);
    lam_parameters_free(p);
}

/* Rows of a parameter as two linears are the whole as one. */
static void parameter_rows(void **state) {
    (void)state;
    lam_parameters *p;
    lam_graph *g;
    ok(lam_parameters_create(&p));
    ok(lam_parameters_add(p, "w", 2, (int64_t[]){5, 3}, LAM_INIT_NORMAL, 1, true));
    ok(lam_parameters_add(p, "b", 1, (int64_t[]){5}, LAM_INIT_NORMAL, 1, false));
    ok(lam_parameters_layout(p, 3));
    ok(lam_graph_create(&g, p, test_backend()));
    lam_tensor *x = lam_input(g, "x", LAM_F32, 3, (int64_t[]){1, 2, 3});
    lam_tensor *low = lam_linear(g, x, lam_parameter_rows(g, "w", 0, 2), lam_parameter_rows(g, "b", 0, 2)),
               *high = lam_linear(g, x, lam_parameter_rows(g, "w", 2, 3), lam_parameter_rows(g, "b", 2, 3)),
               *whole = lam_linear(g, x, lam_parameter(g, "w"), lam_parameter(g, "b"));
    lam_keep(g, low, "low");
    lam_keep(g, high, "high");
    lam_keep(g, whole, "whole");
    ok(lam_graph_plan(g));
    for (int i = 0; i < 6; i++) ((float *)lam_tensor_data(x))[i] = (float)(i * i) - 3;
    ok(lam_graph_forward(g));
    const float *a = lam_tensor_data(low), *b = lam_tensor_data(high), *c = lam_tensor_data(whole);
    for (int r = 0; r < 2; r++)
        for (int i = 0; i < 5; i++)
            assert_true(fabsf((i < 2 ? a[r * 2 + i] : b[r * 3 + i - 2]) - c[r * 5 + i]) < 1e-5f);
    lam_graph_free(g);
    ok(lam_graph_create(&g, p, test_backend()));
    lam_parameter_rows(g, "w", 3, 3);
    assert_int_equal(lam_graph_plan(g), LAM_ERROR_INTERNAL);
    assert_non_null(strstr(lam_last_error(), "rows 3 to 6"));
    lam_graph_free(g);
    lam_parameters_free(p);
}

static void errors(void **state) {
    (void)state;
    lam_parameters *p;
    ok(lam_parameters_create(&p));
    ok(lam_parameters_add(p, "w", 2, (int64_t[]){4, 5}, LAM_INIT_NORMAL, 1, true));
    ok(lam_parameters_add(p, "b", 1, (int64_t[]){4}, LAM_INIT_ZERO, 0, false));
    assert_int_equal(lam_parameters_add(p, "b", 1, (int64_t[]){4}, LAM_INIT_ZERO, 0, false),
                     LAM_ERROR_INTERNAL);
    ok(lam_parameters_layout(p, 1));
    lam_graph *g;
    ok(lam_graph_create(&g, p, test_backend()));
    lam_tensor *x = lam_input(g, "x", LAM_F32, 2, (int64_t[]){3, 6}); /* 6 features where w takes 5 */
    lam_tensor *y = lam_linear(g, x, lam_parameter(g, "w"), lam_parameter(g, "b"));
    assert_null(y);
    assert_null(lam_keep(g, lam_add(g, y, y), "z"));
    assert_int_equal(lam_graph_plan(g), LAM_ERROR_INTERNAL);
    assert_non_null(strstr(lam_last_error(), "x has 6 features, w takes 5"));
    assert_int_equal(lam_graph_forward(g), LAM_ERROR_INTERNAL);
    lam_graph_free(g);
    ok(lam_graph_create(&g, p, test_backend()));
    assert_null(lam_parameter(g, "absent"));
    assert_int_equal(lam_graph_plan(g), LAM_ERROR_INTERNAL);
    assert_non_null(strstr(lam_last_error(), "absent"));
    lam_graph_free(g);
    ok(lam_graph_create(&g, p, test_backend()));
    x = lam_input(g, "x", LAM_F32, 2, (int64_t[]){3, 5});
    lam_tensor *w = lam_parameter(g, "w"), *b = lam_parameter(g, "b");
    lam_linear_kv(g, x, w, b, w, b);
    assert_int_equal(lam_graph_plan(g), LAM_ERROR_INTERNAL);
    assert_non_null(strstr(lam_last_error(), "b is the bias of two parts"));
    lam_graph_free(g);
    ok(lam_graph_create(&g, p, test_backend()));
    x = lam_input(g, "x", LAM_F32, 2, (int64_t[]){3, 5});
    lam_linear_add(g, x, lam_parameter(g, "w"), lam_parameter(g, "b"), x);
    assert_int_equal(lam_graph_plan(g), LAM_ERROR_INTERNAL);
    assert_non_null(strstr(lam_last_error(), "x does not have the shape of the result"));
    lam_graph_free(g);
    lam_parameters_free(p);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(bounded_rows), cmocka_unit_test(packed_once),
                                       cmocka_unit_test(parameter_rows), cmocka_unit_test(errors)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
