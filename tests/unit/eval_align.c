/* TVN with shrinkage against scikit-learn's ledoit_wolf and with replicates against numpy, and what alignments say of data that
 * cannot be aligned. The other alignments: tests/unit/eval_golden.c. */
#include "eval/align.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"

enum { ROWS = 23, COLUMNS = 9 };

static uint32_t generator;
static double u(void) {
    generator = 1664525u * generator + 1013904223u;
    return (double)generator / 4294967296.0;
}

static void fill(double *x, int64_t rows, int64_t columns, double common) {
    generator = 99;
    for (int64_t i = 0; i < rows; i++) {
        double t = u();
        for (int64_t j = 0; j < columns; j++) x[i * columns + j] = common * t * (double)(j + 1) + u();
    }
}

/* Three rows after the controls; golden: their products in the metric of the shrunk covariance of the standardised controls,
 * z S^-1 z', which do not depend on the signs of the components. The second case has fewer controls than dimensions. */
static void ledoit_wolf(void **state) {
    (void)state;
    static const struct {
        int64_t controls, columns;
        double common, share, products[9];
    } golden[] = {
        {20,
         5,
         1.0,
         0.10665506588271735,
         {0.17533856030098985, 0.035758043539394956, -0.5775684878511079, 0.03575804353939494,
          1.5862518465772228, -0.5501869391375023, -0.577568487851108, -0.5501869391375016,
          7.145527249114402}},
        {6,
         9,
         2.0,
         0.11038437578398556,
         {5.76086841201717, 0.02916846640528839, 0.9648876565258033, 0.02916846640528986, 7.529666618938947,
          -0.13248385709443794, 0.9648876565257994, -0.13248385709443766, 1.1106350545592085}},
    };
    for (size_t g = 0; g < sizeof golden / sizeof golden[0]; g++) {
        int64_t n = golden[g].controls, rows = n + 3, columns = golden[g].columns, d = columns;
        double x[ROWS * COLUMNS], raw[ROWS * COLUMNS];
        bool controls[ROWS];
        for (int64_t i = 0; i < rows; i++) controls[i] = i < n;
        fill(x, rows, d, golden[g].common);
        memcpy(raw, x, sizeof raw);
        lam_transform fit;
        lam_alignment how = {.method = LAM_ALIGN_TVN, .controls = controls, .shrinkage = true};
        if (lam_align(&how, x, rows, &columns, &fit) != LAM_OK) fail_msg("%s", lam_last_error());
        assert_int_equal(columns, d); /* nothing is dropped, however few controls */
        for (int64_t a = 0; a < 3; a++)
            for (int64_t b = 0; b < 3; b++) {
                double sum = 0;
                for (int64_t k = 0; k < d; k++) sum += x[(n + a) * d + k] * x[(n + b) * d + k];
                assert_true(fabs(sum - golden[g].products[a * 3 + b]) < 1e-9 * fabs(golden[g].products[0]));
            }
        /* The fit that is saved is the same map. */
        for (int64_t k = 0; k < d; k++) {
            double sum = 0;
            for (int64_t j = 0; j < d; j++)
                sum += ((raw[n * d + j] - fit.mean[j]) / fit.scale[j] - fit.rotation_mean[j]) *
                       fit.rotation[k * d + j];
            assert_true(fabs(sum - x[n * d + k]) < 1e-9);
        }
        /* The share alone, on the standardised controls. */
        double covariance[COLUMNS * COLUMNS] = {0};
        for (int64_t i = 0; i < n; i++)
            for (int64_t j = 0; j < d; j++) raw[i * d + j] = (raw[i * d + j] - fit.mean[j]) / fit.scale[j];
        for (int64_t i = 0; i < n; i++)
            for (int64_t j = 0; j < d; j++)
                for (int64_t k = 0; k < d; k++)
                    covariance[j * d + k] += raw[i * d + j] * raw[i * d + k] / (double)n;
        assert_true(fabs(lam_ledoit_wolf(raw, d, n, covariance) - golden[g].share) < 1e-12);
        lam_transform_free(&fit);
    }
}

static void kept_components(void **state) {
    (void)state;
    double x[ROWS * COLUMNS];
    bool controls[ROWS] = {false};
    for (int i = 0; i < 6; i++) controls[i] = true;
    for (int shrinkage = 0; shrinkage < 2; shrinkage++)
        for (int64_t wanted = 0; wanted < 9; wanted += 4) {
            int64_t columns = COLUMNS;
            fill(x, ROWS, COLUMNS, 2);
            lam_alignment how = {.method = LAM_ALIGN_TVN,
                                 .controls = controls,
                                 .components = wanted,
                                 .shrinkage = shrinkage != 0};
            assert_int_equal(lam_align(&how, x, ROWS, &columns, NULL), LAM_OK);
            int64_t most = shrinkage ? COLUMNS : 5; /* six controls span five dimensions */
            assert_int_equal(columns, wanted && wanted < most ? wanted : most);
        }
}

/* No controls named: as with every row a control. */
static void every_row(void **state) {
    (void)state;
    static const lam_align_method methods[] = {LAM_ALIGN_PCA_CS, LAM_ALIGN_TVN};
    bool controls[ROWS];
    for (int i = 0; i < ROWS; i++) controls[i] = true;
    for (int m = 0; m < 2; m++) {
        double x[ROWS * COLUMNS], y[ROWS * COLUMNS];
        fill(x, ROWS, COLUMNS, 1);
        fill(y, ROWS, COLUMNS, 1);
        int64_t a = COLUMNS, b = COLUMNS;
        lam_alignment how = {.method = methods[m]};
        assert_int_equal(lam_align(&how, x, ROWS, &a, NULL), LAM_OK);
        how.controls = controls;
        assert_int_equal(lam_align(&how, y, ROWS, &b, NULL), LAM_OK);
        assert_int_equal(a, b);
        assert_memory_equal(x, y, sizeof(double) * (size_t)(ROWS * a));
    }
}

static void refused(void **state) {
    (void)state;
    double x[ROWS * COLUMNS];
    bool controls[ROWS] = {true, true, true};
    int64_t batch[ROWS], columns;
    for (int i = 0; i < ROWS; i++) batch[i] = i > 2;
    static const lam_align_method methods[] = {LAM_ALIGN_CENTER, LAM_ALIGN_CENTERSCALE, LAM_ALIGN_PCA_CS,
                                               LAM_ALIGN_TVN};
    static const char *const names[] = {"p1", "p2"};
    for (int m = 0; m < 4; m++) { /* the second batch has no control */
        fill(x, ROWS, COLUMNS, 1);
        lam_alignment how = {
            .method = methods[m], .controls = controls, .batch = batch, .batches = 2, .batch_names = names};
        columns = COLUMNS;
        assert_int_equal(lam_align(&how, x, ROWS, &columns, NULL), LAM_ERROR_INPUT);
        assert_non_null(strstr(lam_last_error(), "batch 'p2' has 0 controls"));
    }
    for (int shrinkage = 0; shrinkage < 2; shrinkage++) { /* controls that are all the same */
        for (int i = 0; i < ROWS * COLUMNS; i++) x[i] = i < 3 * COLUMNS ? 1 : u();
        lam_alignment how = {.method = LAM_ALIGN_TVN, .controls = controls, .shrinkage = shrinkage != 0};
        columns = COLUMNS;
        assert_int_equal(lam_align(&how, x, ROWS, &columns, NULL), LAM_ERROR_NUMERIC);
    }
}

/* With groups: the products of three rows in the metric of the covariance among replicates, from numpy; and without shrinkage that
 * covariance is the identity afterwards. */
static void replicates(void **state) {
    (void)state;
    static const double golden[2][9] = {
        {2039.018198438439, 1245.564359912863, 300.8535328177181, 1245.564359912863, 764.9475952804488,
         182.425202365241, 300.8535328177181, 182.425202365241, 47.89198926015145},
        {515.402553726927, 326.9256544196416, 73.122712973603, 326.9256544196415, 209.5270425997786,
         46.00413042411859, 73.12271297360299, 46.00413042411859, 12.39389599521078}};
    int64_t group[ROWS];
    for (int64_t i = 0; i < ROWS; i++) group[i] = i % 6;
    for (int shrunk = 0; shrunk < 2; shrunk++) {
        double x[ROWS * 5], mean[6 * 5] = {0};
        int64_t columns = 5;
        fill(x, ROWS, 5, 1);
        for (int i = 0; i < ROWS; i++)
            x[i * 5 + 2] += 3 * (double)group[i]; /* what differs between groups only */
        lam_alignment how = {.method = LAM_ALIGN_TVN,
                             .group = group,
                             .groups = 6,
                             .shrinkage = shrunk != 0,
                             .share = 0.1 * shrunk};
        if (lam_align(&how, x, ROWS, &columns, NULL) != LAM_OK) fail_msg("%s", lam_last_error());
        assert_int_equal(columns, 5);
        for (int a = 0; a < 3; a++)
            for (int b = 0; b < 3; b++) {
                double sum = 0;
                for (int k = 0; k < 5; k++) sum += x[a * 5 + k] * x[b * 5 + k];
                assert_true(fabs(sum - golden[shrunk][a * 3 + b]) < 1e-9 * fabs(golden[shrunk][0]));
            }
        for (int i = 0; i < ROWS; i++)
            for (int k = 0; k < 5; k++)
                mean[group[i] * 5 + k] += x[i * 5 + k] / (double)((ROWS - group[i] + 5) / 6);
        for (int j = 0; j < 5 && !shrunk; j++)
            for (int k = 0; k < 5; k++) {
                double sum = 0;
                for (int i = 0; i < ROWS; i++)
                    sum += (x[i * 5 + j] - mean[group[i] * 5 + j]) * (x[i * 5 + k] - mean[group[i] * 5 + k]);
                assert_true(fabs(sum / (ROWS - 6) - (j == k)) < 1e-9);
            }
    }
    double x[ROWS * 5];
    int64_t columns = 5;
    fill(x, ROWS, 5, 1);
    for (int64_t i = 0; i < ROWS; i++) group[i] = i; /* no replicates */
    lam_alignment how = {.method = LAM_ALIGN_TVN, .group = group, .groups = ROWS};
    assert_int_equal(lam_align(&how, x, ROWS, &columns, NULL), LAM_ERROR_INPUT);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(replicates), cmocka_unit_test(ledoit_wolf),
                                       cmocka_unit_test(kept_components), cmocka_unit_test(every_row),
                                       cmocka_unit_test(refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
