/* Update rules against their formulas in float64 and the published steps of Lion. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "model/graph.h"
#include "model/optimizer.h"

static void ok(lam_status status) {
    if (status != LAM_OK) fail_msg("%s", lam_last_error());
}

static lam_parameters *make(int64_t decayed, int64_t plain, int64_t frozen) {
    lam_parameters *p;
    ok(lam_parameters_create(&p));
    ok(lam_parameters_add(p, "frozen", 1, (int64_t[]){frozen}, LAM_INIT_FROZEN, 0, true));
    ok(lam_parameters_add(p, "plain", 1, (int64_t[]){plain}, LAM_INIT_NORMAL, 1, false));
    ok(lam_parameters_add(p, "decayed", 1, (int64_t[]){decayed}, LAM_INIT_NORMAL, 1, true));
    ok(lam_parameters_layout(p, 3));
    return p;
}

static void on_every_isa(void (*test)(void)) {
    static const char *const names[] = {"baseline", "avx2", "avx512"};
    for (int i = 0; i < 3; i++) {
        setenv("LAMELLA_ISA", names[i], 1);
        if (lam_isa_select() == LAM_OK) test();
    }
    unsetenv("LAMELLA_ISA");
    ok(lam_isa_select());
}

static void adamw_once(void) {
    lam_parameters *p = make(37, 21, 5);
    int64_t n = p->trainable;
    float *m, *v;
    ok(lam_alloc_array((void **)&m, n, sizeof *m));
    ok(lam_alloc_array((void **)&v, n, sizeof *v));
    double w[128], a[128] = {0}, b[128] = {0};
    assert_true(n <= 128);
    for (int64_t i = 0; i < n; i++) w[i] = (double)p->weights[i];
    const lam_parameter_entry *decayed = lam_parameters_find(p, "decayed"),
                              *plain = lam_parameters_find(p, "plain");
    p->entry[plain - p->entry].lr_scale = 0.5;
    for (int64_t t = 1; t <= 5; t++) {
        lam_adamw rule = {1e-2, 0.9, 0.95, 1e-8, 0.05, 0.25, t};
        for (int64_t i = 0; i < n; i++) p->gradients[i] = (float)sin(7.1 * (double)(i * t + 1));
        lam_adamw_step(&rule, p, m, v, 0, n);
        for (int64_t i = 0; i < n; i++) {
            bool in_decayed = i >= decayed->offset && i < decayed->offset + decayed->count,
                 in_plain = i >= plain->offset && i < plain->offset + plain->count;
            if (!in_decayed && !in_plain) continue;
            double lr = in_plain ? 0.5e-2 : 1e-2, g = 0.25 * (double)p->gradients[i];
            if (in_decayed) w[i] *= 1 - lr * 0.05;
            a[i] = 0.9 * a[i] + 0.1 * g;
            b[i] = 0.95 * b[i] + 0.05 * g * g;
            w[i] -=
                lr * (a[i] / (1 - pow(0.9, (double)t))) / (sqrt(b[i] / (1 - pow(0.95, (double)t))) + 1e-8);
        }
        for (int64_t i = 0; i < n; i++)
            if (!(fabs((double)p->weights[i] - w[i]) <= 1e-6))
                fail_msg("step %lld, element %lld: %g, not %g", (long long)t, (long long)i,
                         (double)p->weights[i], w[i]);
    }
    for (int64_t i = n; i < p->count; i++) assert_true(p->weights[i] == 0); /* frozen */
    lam_free(m);
    lam_free(v);
    lam_parameters_free(p);
}
static void adamw(void **state) { (void)state, on_every_isa(adamw_once); }

/* Chen et al. 2023 as timm computes it: lr .01, decay .05, betas .9 .95. */
static void lion_once(void) {
    static const double expected[4][3] = {{.9895, -1.989, .48975},
                                          {.99900525, -1.9980055, .479505125},
                                          {.988505747375, -1.98700649725, .46926537243750005},
                                          {.9980114945013127, -1.9760129940013755, .45903073975128134}};
    static const float gradients[2][3] = {{.1f, -.2f, .3f}, {-.3f, .1f, .05f}}, start[3] = {1, -2, .5f};
    lam_parameters *p = make(3, 1, 1);
    int64_t at = lam_parameters_find(p, "decayed")->offset;
    float *m;
    ok(lam_alloc_array((void **)&m, p->trainable, sizeof *m));
    memcpy(p->weights + at, start, sizeof start);
    float plain = p->weights[lam_parameters_find(p, "plain")->offset];
    for (int step = 0; step < 4; step++) {
        memcpy(p->gradients + at, gradients[step % 2], sizeof gradients[0]);
        lam_lion rule = {0.01, 0.9, 0.95, 0.05, 1.0};
        lam_lion_step(&rule, p, m, 0, p->trainable);
        for (int i = 0; i < 3; i++)
            if (!(fabs((double)p->weights[at + i] - expected[step][i]) < 3e-7))
                fail_msg("step %d: %.9g, not %.9g", step, (double)p->weights[at + i], expected[step][i]);
    }
    assert_true(p->weights[lam_parameters_find(p, "plain")->offset] ==
                plain); /* no gradient, no decay: sign(0) = 0 */
    lam_free(m);
    lam_parameters_free(p);
}
static void lion(void **state) { (void)state, on_every_isa(lion_once); }

/* However a step is split into ranges, the bits are the same. */
static void ranges(void **state) {
    (void)state;
    static const int64_t cuts[2][4] = {{0, 5000, 5000, 5000}, {0, 13, 1003, 5000}};
    float *results[2] = {NULL}, *squares[2] = {NULL};
    for (size_t k = 0; k < 2; k++) {
        lam_parameters *p = make(3001, 1007, 3);
        float *m, *v;
        ok(lam_alloc_array((void **)&m, p->trainable, sizeof *m));
        ok(lam_alloc_array((void **)&v, p->trainable, sizeof *v));
        for (int64_t t = 1; t <= 2; t++) {
            for (int64_t i = 0; i < p->trainable; i++) p->gradients[i] = (float)sin((double)(i + t));
            lam_adamw rule = {1e-2, 0.9, 0.95, 1e-8, 0.05, 1, t};
            for (int c = 0; c < 3; c++)
                lam_adamw_step(&rule, p, m, v, cuts[k][c],
                               cuts[k][c + 1] < p->trainable ? cuts[k][c + 1] : p->trainable);
        }
        ok(lam_alloc_array((void **)&results[k], p->count, sizeof(float)));
        memcpy(results[k], p->weights, (size_t)p->count * sizeof(float));
        squares[k] = v;
        lam_free(m);
        if (k == 1) {
            assert_memory_equal(results[0], results[1], (size_t)p->count * sizeof(float));
            assert_memory_equal(squares[0], squares[1], (size_t)p->trainable * sizeof(float));
        }
        lam_parameters_free(p);
    }
    for (size_t k = 0; k < 2; k++) lam_free(results[k]), lam_free(squares[k]);
}

static void guards(void **state) {
    (void)state;
    lam_parameters *p = make(200003, 70000, 2);
    double sum = 0;
    for (int64_t i = 0; i < p->trainable; i++) {
        p->gradients[i] = (float)sin((double)i);
        sum += (double)p->gradients[i] * (double)p->gradients[i];
    }
    assert_true(fabs(lam_sum_of_squares(p->gradients, 0, p->trainable) - sum) < 1e-10 * sum);
    assert_true(lam_sum_of_squares(p->gradients, 5, 5) == 0);
    double part = lam_sum_of_squares(p->gradients, 7, 19), direct = 0;
    for (int i = 7; i < 19; i++) direct += (double)p->gradients[i] * (double)p->gradients[i];
    assert_true(fabs(part - direct) < 1e-14);
    assert_null(lam_first_non_finite(p, p->gradients));
    const lam_parameter_entry *plain = lam_parameters_find(p, "plain"),
                              *decayed = lam_parameters_find(p, "decayed");
    p->gradients[plain->offset + plain->count - 1] = INFINITY;
    assert_string_equal(lam_first_non_finite(p, p->gradients), "plain");
    assert_true(isfinite(lam_sum_of_squares(p->gradients, 0, p->trainable)) == 0);
    p->gradients[plain->offset + plain->count - 1] = 0;
    p->gradients[decayed->offset + 3] = NAN;
    assert_string_equal(lam_first_non_finite(p, p->gradients), "decayed");
    assert_true(isfinite(lam_sum_of_squares(p->gradients, 0, p->trainable)) == 0);
    lam_parameters_free(p);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(adamw), cmocka_unit_test(lion),
                                       cmocka_unit_test(ranges), cmocka_unit_test(guards)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
