/* Classification in folds: scikit-learn's numbers with balanced classes, inner folds, and what a test fold may change. */
#include "eval/classify.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/fault.h"
#include "base/threads.h"

static uint32_t generator;
static double u(void) {
    generator = 1664525u * generator + 1013904223u;
    return (double)generator / 4294967296.0;
}

/* LogisticRegression(C=.5, class_weight="balanced") on StandardScaler().fit_transform(x): the rows of eval_probe.c as the
 * training part of fold 0. */
static void scikit_learn(void **state) {
    (void)state;
    enum { N = 31, D = 4, K = 3 };
    static const double golden[K * (D + 1)] = {
        0.48589146547786616, -0.672504667899783,   -0.4197750695405478,  -0.017678725778109892,
        0.14096855334104658, -0.36827233138793514, 0.6491788457274287,   -0.30823931240872526,
        0.23001792931502735, -0.11522639843280641, -0.11761913408993081, 0.023325822172354228,
        0.7280143819492729,  -0.21233920353691732, -0.0257421549082399};
    static const double c = 0.5;
    double x[N * D] = {0};
    int64_t label[N] = {0}, row[N], fold[N];
    generator = 12345;
    for (int i = 0; i < N - 1; i++) {
        label[i] = i < 24 ? i % K : 0;
        for (int j = 0; j < D; j++) {
            double v = u() * 2 - 1;
            x[i * D + j] = v + (j == label[i] ? 0.8 : 0);
        }
        u();
    }
    for (int i = 0; i < N; i++) row[i] = i, fold[i] = i < N - 1;
    lam_design design = {N, K, N, 2, label, row, fold, NULL, 3, 0};
    lam_classifier model = {.c = &c, .c_count = 1, .balanced = true};
    lam_linear linear;
    assert_int_equal(lam_classify_fit(&design, x, D, &model, 1, 0, &linear), LAM_OK);
    for (int i = 0; i < K * (D + 1); i++) assert_true(fabs(linear.coefficients[i] - golden[i]) < 1e-6);
    lam_linear_free(&linear);
}

/* sklearn.metrics.balanced_accuracy_score and accuracy_score; a class without rows does not count. */
static void balanced(void **state) {
    (void)state;
    static const int64_t label[] = {0, 0, 0, 2, 2, 3}, predicted[] = {0, 1, 0, 2, 0, 3};
    double mean, plain;
    assert_int_equal(lam_balanced_accuracy(label, predicted, 6, 4, &mean, &plain), LAM_OK);
    assert_true(fabs(mean - 0.7222222222222222) < 1e-15 && fabs(plain - 0.6666666666666666) < 1e-15);
    assert_int_equal(lam_balanced_accuracy(label, predicted, 0, 4, &mean, &plain), LAM_OK);
    assert_true(isnan(mean) && isnan(plain));
}

enum { ROWS = 120, COLUMNS = 5, CLASSES = 3, FOLDS = 4, GROUPS = 24 };
static const double grid[] = {0.001, 0.03, 1, 30};
static double x[ROWS * COLUMNS];
static int64_t label[ROWS], group[ROWS], fold[ROWS];

static lam_design make(void) {
    generator = 31;
    for (int i = 0; i < ROWS; i++) {
        label[i] = (int64_t)(u() * CLASSES);
        group[i] = (int64_t)(u() * GROUPS);
        fold[i] = group[i] % FOLDS;
        for (int j = 0; j < COLUMNS; j++) x[i * COLUMNS + j] = u() + (j == label[i] ? 0.3 : 0);
    }
    return (lam_design){ROWS, CLASSES, GROUPS, FOLDS, label, group, fold, NULL, 3, 1};
}

/* Other features and labels in a test fold: its mean, scale, C and coefficients are the same bits, those of the other folds
 * are not. */
static void test_fold_is_not_seen(void **state) {
    (void)state;
    lam_design design = make();
    lam_classifier model = {.c = grid, .c_count = 4, .balanced = true};
    lam_linear before[2], after[2];
    for (int f = 0; f < 2; f++)
        assert_int_equal(lam_classify_fit(&design, x, COLUMNS, &model, 0.8, f, &before[f]), LAM_OK);
    for (int i = 0; i < ROWS; i++) {
        if (fold[i] != 0) continue;
        for (int j = 0; j < COLUMNS; j++) x[i * COLUMNS + j] = 100 * u();
        label[i] = (label[i] + 1) % CLASSES;
    }
    for (int f = 0; f < 2; f++)
        assert_int_equal(lam_classify_fit(&design, x, COLUMNS, &model, 0.8, f, &after[f]), LAM_OK);
    size_t size = CLASSES * (COLUMNS + 1) * sizeof(double);
    assert_memory_equal(before[0].coefficients, after[0].coefficients, size);
    assert_memory_equal(before[0].mean, after[0].mean, COLUMNS * sizeof(double));
    assert_memory_equal(before[0].scale, after[0].scale, COLUMNS * sizeof(double));
    assert_memory_equal(&before[0].c, &after[0].c, sizeof(double));
    assert_memory_not_equal(before[1].coefficients, after[1].coefficients, size);
    for (int f = 0; f < 2; f++) {
        lam_linear_free(&before[f]);
        lam_linear_free(&after[f]);
    }
}

/* Inner folds hold the training rows alone, whole groups each, and there are no more of them than groups. */
static void inner_folds(void **state) {
    (void)state;
    lam_design design = make();
    int64_t train[ROWS], test[ROWS], inner[ROWS], of_group[GROUPS], n_train, n_test, folds;
    for (int64_t f = 0; f < FOLDS; f++) {
        assert_int_equal(lam_design_split(&design, f, 1, train, &n_train, test, &n_test), LAM_OK);
        assert_int_equal(n_train + n_test, ROWS);
        for (int64_t i = 0; i < n_train; i++) assert_int_not_equal(fold[train[i]], f);
        assert_int_equal(lam_design_inner(&design, f, train, n_train, inner, &folds), LAM_OK);
        assert_int_equal(folds, 3);
        for (int g = 0; g < GROUPS; g++) of_group[g] = -1;
        for (int64_t i = 0; i < n_train; i++) {
            int64_t *place = &of_group[group[train[i]]];
            if (*place < 0) *place = inner[i];
            assert_int_equal(*place, inner[i]);
        }
    }
    for (int i = 0; i < ROWS; i++) group[i] = fold[i] = i % 3;
    design.folds = 3;
    assert_int_equal(lam_design_split(&design, 0, 1, train, &n_train, test, &n_test), LAM_OK);
    assert_int_equal(lam_design_inner(&design, 0, train, n_train, inner, &folds), LAM_OK);
    assert_int_equal(folds, 2);
    for (int i = 0; i < ROWS; i++) group[i] = fold[i] = i % 2;
    assert_int_equal(lam_design_split(&design, 0, 1, train, &n_train, test, &n_test), LAM_OK);
    assert_int_equal(lam_design_inner(&design, 0, train, n_train, inner, &folds), LAM_ERROR_INPUT);
}

/* One thread or two, and an allocation that fails on any of them is told. */
static void threads_and_faults(void **state) {
    (void)state;
    lam_design design = make();
    lam_classifier models[] = {{.c = grid, .c_count = 4, .balanced = false}, {.neighbours = 5}};
    for (int m = 0; m < 2; m++) {
        lam_fold_score scores[2][FOLDS];
        int64_t predicted[2][ROWS];
        for (int t = 0; t < 2; t++) {
            lam_jobs jobs = {0};
            lam_threads_set(t + 1);
            assert_int_equal(
                lam_classify(&design, x, COLUMNS, &models[m], 0.6, &jobs, scores[t], predicted[t]), LAM_OK);
            assert_int_equal(jobs.done, FOLDS);
        }
        assert_memory_equal(predicted[0], predicted[1], sizeof predicted[0]);
        assert_memory_equal(scores[0], scores[1], sizeof scores[0]);
        for (int64_t n = 1;; n += m == 0 ? 7 : 1) {
            lam_jobs jobs = {0};
            lam_fault_arm(LAM_FAULT_ALLOC, n);
            lam_status status =
                lam_classify(&design, x, COLUMNS, &models[m], 0.6, &jobs, scores[0], predicted[0]);
            lam_fault_arm(LAM_FAULT_ALLOC, 0);
            if (status == LAM_OK) break;
            assert_int_equal(status, LAM_ERROR_MEMORY);
            assert_true(*lam_last_error() != 0);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(scikit_learn), cmocka_unit_test(balanced),
                                       cmocka_unit_test(test_fold_is_not_seen), cmocka_unit_test(inner_folds),
                                       cmocka_unit_test(threads_and_faults)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
