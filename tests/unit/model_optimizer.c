/* Update rules against their formulas in float64 and the published steps of Lion; how they may be split; the average of
 * weights; guards. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <omp.h>

#include "base/memory.h"
#include "model/graph.h"
#include "model/optimizer.h"

enum { STEPS = 10 };

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

static void draw_gradients(lam_parameters *p, int64_t t) {
    for (int64_t i = 0; i < p->trainable; i++) p->gradients[i] = (float)sin(7.1 * (double)(i * t + 1));
}

static lam_update update_of(int64_t t) {
    return (lam_update){.lr = 1e-2,
                        .beta1 = 0.9,
                        .beta2 = 0.95,
                        .eps = 1e-8,
                        .weight_decay = 0.05,
                        .momentum = 0.95,
                        .warmup = 4.5,
                        .gradient_scale = 0.25,
                        .t = t};
}

/* ---- one step of one parameter in float64: w, and two more values an element ---- */

typedef void (*oracle)(const lam_update *u, double lr, double decay, int64_t n, double *w, const double *g,
                       double *a, double *b);

static void adamw(const lam_update *u, double lr, double decay, int64_t n, double *w, const double *g,
                  double *a, double *b) {
    double t = (double)u->t;
    for (int64_t i = 0; i < n; i++) {
        w[i] *= 1 - lr * decay;
        a[i] = u->beta1 * a[i] + (1 - u->beta1) * g[i];
        b[i] = u->beta2 * b[i] + (1 - u->beta2) * g[i] * g[i];
        w[i] -= lr * (a[i] / (1 - pow(u->beta1, t))) / (sqrt(b[i] / (1 - pow(u->beta2, t))) + u->eps);
    }
}

static void lion(const lam_update *u, double lr, double decay, int64_t n, double *w, const double *g,
                 double *a, double *b) {
    (void)b;
    for (int64_t i = 0; i < n; i++) {
        double c = u->beta1 * a[i] + (1 - u->beta1) * g[i];
        w[i] -= lr * ((c > 0) - (c < 0) + decay * w[i]);
        a[i] = u->beta2 * a[i] + (1 - u->beta2) * g[i];
    }
}

static void lamb(const lam_update *u, double lr, double decay, int64_t n, double *w, const double *g,
                 double *a, double *b) {
    double t = (double)u->t, weights = 0, directions = 0, *r = calloc((size_t)n, sizeof *r);
    for (int64_t i = 0; i < n; i++) {
        a[i] = u->beta1 * a[i] + (1 - u->beta1) * g[i];
        b[i] = u->beta2 * b[i] + (1 - u->beta2) * g[i] * g[i];
        r[i] =
            (a[i] / (1 - pow(u->beta1, t))) / (sqrt(b[i] / (1 - pow(u->beta2, t))) + u->eps) + decay * w[i];
        weights += w[i] * w[i];
        directions += r[i] * r[i];
    }
    double ratio = decay > 0 && weights > 0 && directions > 0 ? sqrt(weights) / sqrt(directions) : 1;
    for (int64_t i = 0; i < n; i++) w[i] -= lr * ratio * r[i];
    free(r);
}

/* With x kept, as the paper writes it: w is y, a is z; x, which no arena of the rule holds, beside b. */
static double averages[4096];
static void schedule_free(const lam_update *u, double lr, double decay, int64_t n, double *w, const double *g,
                          double *a, double *b) {
    double sum = 0, rate = 0, t = (double)u->t;
    for (int64_t i = 1; i <= u->t; i++) {
        rate = u->lr * fmin(1, (double)i / u->warmup);
        sum += rate * rate;
    }
    double share = rate * rate / sum;
    for (int64_t i = 0; i < n; i++) {
        double *x = &averages[n + i]; /* parameters of this test differ in size */
        if (u->t == 1) a[i] = *x = w[i];
        b[i] = u->beta2 * b[i] + (1 - u->beta2) * g[i] * g[i];
        double d = g[i] / (sqrt(b[i] / (1 - pow(u->beta2, t))) + u->eps) + decay * w[i];
        a[i] -= lr / u->lr * rate * d;
        *x = (1 - share) * *x + share * a[i];
        w[i] = (1 - u->beta1) * a[i] + u->beta1 * *x;
    }
}

static void compare(const char *what, int64_t t, const float *values, const double *expected, int64_t n,
                    double tolerance) {
    for (int64_t i = 0; i < n; i++)
        if (!(fabs((double)values[i] - expected[i]) <= tolerance * fmax(1, fabs(expected[i]))))
            fail_msg("%s, step %lld, element %lld: %.9g, not %.9g", what, (long long)t, (long long)i,
                     (double)values[i], expected[i]);
}

static void against(const char *name, oracle step) {
    enum { N = 2048 };
    lam_parameters *p = make(1001, 21, 5);
    lam_optimizer_state state;
    ok(lam_optimizer_open(&state, lam_optimizer_find(name), p));
    double w[N], g[N], a[N] = {0}, b[N] = {0};
    assert_true(p->trainable <= N);
    for (int64_t i = 0; i < p->trainable; i++) w[i] = (double)p->weights[i];
    lam_parameter_entry *plain = &p->entry[lam_parameters_find(p, "plain") - p->entry];
    plain->lr_scale = 0.5;
    for (int64_t t = 1; t <= STEPS; t++) {
        lam_update u = update_of(t);
        draw_gradients(p, t);
        ok(lam_optimizer_step(&state, p, &u, 0, p->trainable));
        for (int64_t k = 0; k < p->entries; k++) {
            const lam_parameter_entry *e = &p->entry[k];
            if (e->init == LAM_INIT_FROZEN) continue;
            int64_t at = e->offset, n = e->count;
            for (int64_t i = at; i < at + n; i++) g[i] = 0.25 * (double)p->gradients[i];
            step(&u, e == plain ? 0.5e-2 : 1e-2, e == plain ? 0 : 0.05, n, w + at, g + at, a + at, b + at);
            compare(name, t, p->weights + at, w + at, n, 1e-6);
            compare(state.optimizer->arena_names[0], t, state.arena[0] + at, a + at, n, 1e-6);
            if (state.arena[1])
                compare(state.optimizer->arena_names[1], t, state.arena[1] + at, b + at, n, 1e-7);
        }
    }
    for (int64_t i = p->trainable; i < p->count; i++) assert_true(p->weights[i] == 0); /* frozen */
    if (state.optimizer->averaged) {
        state.optimizer->averaged(p, state.arena, 0.9, p->gradients);
        compare("x", STEPS, p->gradients + plain->offset, &averages[plain->count], plain->count, 1e-6);
    }
    lam_optimizer_close(&state);
    lam_parameters_free(p);
}

static void formulas_once(void) {
    against("adamw", adamw);
    against("lion", lion);
    against("lamb", lamb);
    against("schedulefree", schedule_free);
}
static void formulas(void **state) { (void)state, on_every_isa(formulas_once); }

/* Where all weights are 0, LAMB's ratio is 1; and nothing is divided by a norm of 0. */
static void lamb_at_zero(void **state) {
    (void)state;
    lam_parameters *p = make(9, 4, 1);
    lam_optimizer_state s;
    ok(lam_optimizer_open(&s, lam_optimizer_find("lamb"), p));
    const lam_parameter_entry *e = lam_parameters_find(p, "decayed");
    lam_update u = update_of(1);
    for (int64_t i = 0; i < e->count; i++) p->weights[e->offset + i] = 0;
    ok(lam_optimizer_step(&s, p, &u, 0, p->trainable));
    for (int64_t i = 0; i < e->count; i++)
        assert_true(p->weights[e->offset + i] == 0); /* no gradient either */
    for (int64_t i = 0; i < e->count; i++) p->gradients[e->offset + i] = 1;
    u.t = 2;
    ok(lam_optimizer_step(&s, p, &u, 0, p->trainable));
    double expected = -1e-2 * (0.1 / (1 - 0.81)) / sqrt(0.05 / (1 - 0.9025));
    for (int64_t i = 0; i < e->count; i++)
        assert_true(fabs((double)p->weights[e->offset + i] - expected) < 1e-8);
    lam_optimizer_close(&s);
    lam_parameters_free(p);
}

/* Chen et al. 2023 as timm computes it: lr .01, decay .05, betas .9 .95. */
static void lion_published_once(void) {
    static const double expected[4][3] = {{.9895, -1.989, .48975},
                                          {.99900525, -1.9980055, .479505125},
                                          {.988505747375, -1.98700649725, .46926537243750005},
                                          {.9980114945013127, -1.9760129940013755, .45903073975128134}};
    static const float gradients[2][3] = {{.1f, -.2f, .3f}, {-.3f, .1f, .05f}}, start[3] = {1, -2, .5f};
    lam_parameters *p = make(3, 1, 1);
    lam_optimizer_state state;
    ok(lam_optimizer_open(&state, lam_optimizer_find("lion"), p));
    int64_t at = lam_parameters_find(p, "decayed")->offset;
    memcpy(p->weights + at, start, sizeof start);
    float plain = p->weights[lam_parameters_find(p, "plain")->offset];
    lam_update u = update_of(1);
    u.gradient_scale = 1;
    for (int step = 0; step < 4; step++) {
        memcpy(p->gradients + at, gradients[step % 2], sizeof gradients[0]);
        ok(lam_optimizer_step(&state, p, &u, 0, p->trainable));
        for (int i = 0; i < 3; i++)
            if (!(fabs((double)p->weights[at + i] - expected[step][i]) < 3e-7))
                fail_msg("step %d: %.9g, not %.9g", step, (double)p->weights[at + i], expected[step][i]);
    }
    assert_true(p->weights[lam_parameters_find(p, "plain")->offset] ==
                plain); /* no gradient, no decay: sign(0) = 0 */
    lam_optimizer_close(&state);
    lam_parameters_free(p);
}
static void lion_published(void **state) { (void)state, on_every_isa(lion_published_once); }

/* ---- ranges and threads ---- */

/* Two steps in three ranges that end at cut[0] and cut[1]: weights, then arenas. */
static float *two_steps(const char *name, int threads, const int64_t cut[2], int64_t *count) {
    lam_parameters *p = make(150001, 1007, 3);
    lam_optimizer_state state;
    float *result;
    int before = omp_get_max_threads();
    omp_set_num_threads(threads);
    ok(lam_optimizer_open(&state, lam_optimizer_find(name), p));
    int64_t ends[4] = {0, cut[0], cut[1], p->trainable}, n = p->trainable;
    for (int64_t t = 1; t <= 2; t++) {
        lam_update u = update_of(t);
        draw_gradients(p, t);
        for (int c = 0; c < 3; c++) ok(lam_optimizer_step(&state, p, &u, ends[c], ends[c + 1]));
    }
    *count = n * (1 + state.optimizer->arenas);
    ok(lam_alloc_array((void **)&result, *count, sizeof *result));
    memcpy(result, p->weights, (size_t)n * sizeof *result);
    for (int k = 0; k < state.optimizer->arenas; k++)
        memcpy(result + (k + 1) * n, state.arena[k], (size_t)n * sizeof *result);
    omp_set_num_threads(before);
    lam_optimizer_close(&state);
    lam_parameters_free(p);
    return result;
}

static void splits_once(void) {
    static const char *const names[] = {"adamw", "lion", "schedulefree", "lamb"};
    for (size_t k = 0; k < sizeof names / sizeof names[0]; k++) {
        bool whole = lam_optimizer_find(names[k])->whole;
        int64_t count, other, boundary = 150016; /* of the two parameters */
        float *one = two_steps(names[k], 1, (int64_t[]){0, 0}, &count),
              *parts = two_steps(names[k], 1,
                                 whole ? (int64_t[]){boundary, boundary} : (int64_t[]){13, 100003}, &other),
              *threads = two_steps(names[k], 3, (int64_t[]){0, 0}, &other);
        assert_true(count == other);
        if (memcmp(one, parts, (size_t)count * sizeof *one) != 0)
            fail_msg("%s: ranges change bits", names[k]);
        if (memcmp(one, threads, (size_t)count * sizeof *one) != 0)
            fail_msg("%s: threads change bits", names[k]);
        lam_free(one);
        lam_free(parts);
        lam_free(threads);
    }
}
static void splits(void **state) { (void)state, on_every_isa(splits_once); }

static void whole_parameters(void **state) {
    (void)state;
    static const char *const names[] = {"lamb", "muon"};
    for (int k = 0; k < 2; k++) {
        lam_parameters *p = make(37, 21, 5);
        lam_optimizer_state s;
        lam_update u = update_of(1);
        ok(lam_optimizer_open(&s, lam_optimizer_find(names[k]), p));
        assert_int_equal(lam_optimizer_step(&s, p, &u, 0, 5), LAM_ERROR_INTERNAL);
        assert_non_null(strstr(lam_last_error(), "decayed"));
        ok(lam_optimizer_step(&s, p, &u, 0, 40)); /* the first parameter and its padding */
        lam_optimizer_close(&s);
        lam_parameters_free(p);
    }
    assert_null(lam_optimizer_find("sgd"));
}

/* ---- the average, guards ---- */

static void average_once(void) {
    lam_parameters *p = make(101, 21, 5);
    float *average;
    double sum[256] = {0}, weight = 0;
    ok(lam_alloc_array((void **)&average, p->trainable, sizeof *average));
    for (int64_t t = 1; t <= STEPS; t++) {
        for (int64_t i = 0; i < p->trainable; i++) p->weights[i] = (float)sin((double)(i * t));
        lam_average_step(average, p, 0.8, t, 0, 50);
        lam_average_step(average, p, 0.8, t, 50, p->trainable);
        weight = 0.8 * weight + 1;
        for (int64_t i = 0; i < p->trainable; i++) {
            sum[i] = 0.8 * sum[i] + (double)p->weights[i];
            assert_true(fabs((double)average[i] - sum[i] / weight) < 1e-6);
        }
    }
    lam_free(average);
    lam_parameters_free(p);
}
static void average(void **state) { (void)state, on_every_isa(average_once); }

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
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(formulas),         cmocka_unit_test(lamb_at_zero), cmocka_unit_test(lion_published),
        cmocka_unit_test(splits),           cmocka_unit_test(average),      cmocka_unit_test(guards),
        cmocka_unit_test(whole_parameters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
