/* Ridge regression against scikit-learn's StandardScaler and Ridge, and what folds may see. */
#include "eval/ridge.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/fault.h"
#include "base/memory.h"
#include "base/threads.h"
#include "eval/regress.h"

static uint32_t generator;
static double u(void) {
    generator = 1664525u * generator + 1013904223u;
    return (double)generator / 4294967296.0;
}

static void expect_near(const double *values, const double *golden, int count) {
    for (int i = 0; i < count; i++)
        if (!(fabs(values[i] - golden[i]) < 1e-10)) fail_msg("%d: %.17g, not %.17g", i, values[i], golden[i]);
}

/* Ridge(alpha).fit(scaler.transform(X[:18]), Y[:18]), and its squared errors on the six rows behind. */
static void scikit_learn(void **state) {
    (void)state;
    enum { N = 24, TRAIN = 18, D = 3, T = 2 };
    static const struct {
        double alpha, coefficients[T * (D + 1)], sse[T];
    } golden[] = {
        {0.5,
         {0.24329766388527319, 0.0005224334598077085, -0.4768279059790262, -4.607495062887513,
          0.03699114629894945, 0.5495344198140284, -0.5251114169523814, 0.7939494099636156},
         {0.46768193491667737, 0.8914583043906008}},
        {20,
         {0.16965839256865997, -0.02845928429943461, -0.24569015400351965, -4.607495062887513,
          0.07481654874626525, 0.23491576953600715, -0.21249970141400748, 0.7939494099636152},
         {0.6476427343165818, 2.1216352050273453}},
    };
    static const double golden_total[T] = {1.598092310303634, 2.37631932337824};
    double x[N * D], y[N * T], mean[D], scale[D], alpha[2 * T], w[T * (D + 1)], sse[2 * T], total[T];
    int64_t rows[N];
    generator = 7;
    for (int i = 0; i < N; i++) {
        rows[i] = i;
        for (int j = 0; j < D; j++) x[i * D + j] = u() * (j + 1) + 5 * j;
        for (int t = 0; t < T; t++) y[i * T + t] = x[i * D + t] - 0.5 * x[i * D + 2] + u();
    }
    lam_standardise_fit(x, D, rows, TRAIN, mean, scale);
    lam_standardised train = {x, D, rows, TRAIN, mean, scale},
                     test = {x, D, rows + TRAIN, N - TRAIN, mean, scale};
    lam_ridge ridge;
    assert_int_equal(lam_ridge_decompose(&ridge, &train, y, T), LAM_OK);
    for (int a = 0; a < 2; a++) {
        for (int t = 0; t < T; t++) alpha[a * T + t] = golden[a].alpha;
        assert_int_equal(lam_ridge_coefficients(&ridge, alpha + a * T, w), LAM_OK);
        expect_near(w, golden[a].coefficients, T * (D + 1));
    }
    assert_int_equal(lam_ridge_errors(&ridge, &test, y, alpha, 2, sse), LAM_OK);
    for (int a = 0; a < 2; a++) expect_near(sse + a * T, golden[a].sse, T);
    assert_int_equal(lam_ridge_totals(y, T, rows + TRAIN, N - TRAIN, total), LAM_OK);
    expect_near(total, golden_total, T);
    lam_ridge_free(&ridge);
    /* Constant to rounding: nothing to explain. */
    double constant[N];
    for (int i = 0; i < N; i++) constant[i] = 0.1 * 3;
    assert_int_equal(lam_ridge_totals(constant, 1, rows, N, total), LAM_OK);
    assert_true(total[0] == 0);
}

/* Fewer rows than columns, the other decomposition. */
static void wide(void **state) {
    (void)state;
    enum { N = 5, D = 9 };
    static const double golden[D + 1] = {0.008170205669815762, 0.010668159515707204,  0.015800310669619465,
                                         0.050474703115001615, -0.004116006320408013, -0.021586517811577693,
                                         0.01533173811304137,  -0.032190243036418466, 0.05871433962597119,
                                         0.4387149622198194};
    static const int64_t rows[] = {0, 1, 2, 3, 4};
    static const double alpha = 2;
    double x[N * D], y[N], mean[D], scale[D], w[D + 1];
    generator = 11;
    for (int i = 0; i < N * D; i++) x[i] = u() * 2 - 1;
    for (int i = 0; i < N; i++) y[i] = u();
    lam_standardise_fit(x, D, rows, N, mean, scale);
    lam_standardised train = {x, D, rows, N, mean, scale};
    lam_ridge ridge;
    assert_int_equal(lam_ridge_decompose(&ridge, &train, y, 1), LAM_OK);
    assert_int_equal(ridge.rank, N);
    assert_int_equal(lam_ridge_coefficients(&ridge, &alpha, w), LAM_OK);
    expect_near(w, golden, D + 1);
    lam_ridge_free(&ridge);
}

enum { ROWS = 80, COLUMNS = 6, TARGETS = 4, FOLDS = 4 };
static const double alphas[] = {0.01, 1, 100, 10000};

static void make(double *x, double *y, int64_t *group, int64_t *fold) {
    generator = 21;
    for (int i = 0; i < ROWS; i++) {
        group[i] = i / 5;
        fold[i] = group[i] % FOLDS;
        for (int j = 0; j < COLUMNS; j++) x[i * COLUMNS + j] = u();
        for (int t = 0; t < TARGETS; t++) y[i * TARGETS + t] = x[i * COLUMNS + t] + (t - 1) * u();
    }
    for (int i = 0; i < 3; i++) y[(20 + 7 * i) * TARGETS + 1] = y[(20 + 7 * i) * TARGETS + 3] = (double)NAN;
    y[33 * TARGETS + 2] = (double)NAN;
}

/* Targets together and one by one, whatever the threads: the same numbers; missing cells are left out for their target. */
static void patterns_and_threads(void **state) {
    (void)state;
    static double x[ROWS * COLUMNS], y[ROWS * TARGETS], one[ROWS];
    int64_t group[ROWS], fold[ROWS], label[ROWS] = {0}, jobs;
    make(x, y, group, fold);
    lam_design design = {ROWS, 1, 16, FOLDS, label, group, fold, NULL, 3, 9};
    lam_targets targets = {ROWS, TARGETS, y};
    lam_regression all[2], alone;
    assert_int_equal(lam_regress_jobs(&design, &targets, &jobs), LAM_OK);
    assert_int_equal(jobs, 3 * FOLDS);
    for (int t = 0; t < 2; t++) {
        lam_jobs run = {0};
        lam_threads_set(t + 1);
        assert_int_equal(lam_regress(&design, x, COLUMNS, &targets, alphas, 4, 0.7, &run, &all[t]), LAM_OK);
        assert_int_equal(run.done, jobs);
    }
    assert_memory_equal(all[0].sse, all[1].sse, FOLDS * TARGETS * sizeof(double));
    assert_memory_equal(all[0].alpha, all[1].alpha, FOLDS * TARGETS * sizeof(double));
    int64_t tested = 0;
    for (int c = 0; c < TARGETS; c++) {
        lam_jobs run = {0};
        for (int i = 0; i < ROWS; i++) one[i] = y[i * TARGETS + c];
        lam_targets single = {ROWS, 1, one};
        assert_int_equal(lam_regress(&design, x, COLUMNS, &single, alphas, 4, 0.7, &run, &alone), LAM_OK);
        for (int f = 0; f < FOLDS; f++) {
            int at = f * TARGETS + c;
            assert_true(fabs(alone.sse[f] - all[0].sse[at]) < 1e-12 * (1 + alone.sse[f]));
            assert_true(alone.alpha[f] >= all[0].alpha[at] && alone.alpha[f] <= all[0].alpha[at]);
            assert_int_equal(alone.n_test[f], all[0].n_test[at]);
            tested += alone.n_test[f];
        }
        lam_regression_free(&alone);
    }
    assert_int_equal(tested, ROWS * TARGETS - 7);
    lam_regression_free(&all[0]);
    lam_regression_free(&all[1]);
}

/* What a test fold holds changes neither its alpha nor, through it, anything fitted: with other features and targets there
 * the other folds' settings change, its own do not. */
static void test_fold_is_not_seen(void **state) {
    (void)state;
    static double x[ROWS * COLUMNS], y[ROWS * TARGETS];
    int64_t group[ROWS], fold[ROWS], label[ROWS] = {0};
    make(x, y, group, fold);
    for (int i = 0; i < ROWS * TARGETS; i++)
        if (isnan(y[i])) y[i] = 0;
    lam_design design = {ROWS, 1, 16, FOLDS, label, group, fold, NULL, 3, 9};
    lam_targets targets = {ROWS, TARGETS, y};
    lam_regression before, after;
    lam_jobs run = {0};
    assert_int_equal(lam_regress(&design, x, COLUMNS, &targets, alphas, 4, 1, &run, &before), LAM_OK);
    for (int i = 0; i < ROWS; i++) {
        if (fold[i] != 2) continue;
        for (int j = 0; j < COLUMNS; j++) x[i * COLUMNS + j] = 1000 * u();
        for (int t = 0; t < TARGETS; t++) y[i * TARGETS + t] = u();
    }
    assert_int_equal(lam_regress(&design, x, COLUMNS, &targets, alphas, 4, 1, &run, &after), LAM_OK);
    assert_memory_equal(before.alpha + 2 * TARGETS, after.alpha + 2 * TARGETS, TARGETS * sizeof(double));
    assert_memory_not_equal(before.alpha, after.alpha, 2 * TARGETS * sizeof(double));
    lam_regression_free(&before);
    lam_regression_free(&after);
    for (int64_t n = 1;; n += 5) { /* out of memory, on any thread */
        lam_fault_arm(LAM_FAULT_ALLOC, n);
        lam_status status = lam_regress(&design, x, COLUMNS, &targets, alphas, 4, 0.5, &run, &after);
        lam_fault_arm(LAM_FAULT_ALLOC, 0);
        lam_regression_free(&after);
        if (status == LAM_OK) break;
        assert_int_equal(status, LAM_ERROR_MEMORY);
    }
    /* A single group beside the test fold: nothing to choose with. A fixed alpha will do. */
    for (int i = 0; i < ROWS; i++) group[i] = fold[i] = i >= 40;
    design.groups = design.folds = 2;
    assert_int_equal(lam_regress(&design, x, COLUMNS, &targets, alphas, 4, 1, &run, &after), LAM_ERROR_INPUT);
    lam_regression_free(&after);
    assert_int_equal(lam_regress(&design, x, COLUMNS, &targets, alphas, 1, 1, &run, &after), LAM_OK);
    lam_regression_free(&after);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(scikit_learn), cmocka_unit_test(wide),
                                       cmocka_unit_test(patterns_and_threads),
                                       cmocka_unit_test(test_fold_is_not_seen)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
