/* TVN with shrinkage against scikit-learn's ledoit_wolf and with replicates against numpy, spherize and per-batch centring against
 * numpy, components by variance against scikit-learn's PCA, what alignments say of data that cannot be aligned, and that threads change
 * nothing. The other alignments: tests/unit/eval_golden.c. */
#include "eval/align.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "base/threads.h"

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
        assert_true(fabs(lam_ledoit_wolf(raw, d, n, n, covariance) - golden[g].share) < 1e-12);
        lam_transform_free(&fit);
    }
}

/* Two replicates without their mean are y and -y: they tell as much as the one independent difference y. */
static void ledoit_wolf_of_pairs(void **state) {
    (void)state;
    enum { PAIRS = 9, D = 6 };
    double both[2 * PAIRS * D], one[PAIRS * D], covariance[D * D] = {0};
    for (int i = 0; i < PAIRS * D; i++) {
        one[i] = sin(1.7 * i * i + 0.3 * i);
        both[i] = one[i];
        both[PAIRS * D + i] = -one[i];
    }
    for (int i = 0; i < PAIRS; i++)
        for (int j = 0; j < D; j++)
            for (int k = 0; k < D; k++) covariance[j * D + k] += one[i * D + j] * one[i * D + k] / PAIRS;
    double share = lam_ledoit_wolf(one, D, PAIRS, PAIRS, covariance);
    assert_true(share > 0.05 && share < 0.95);
    assert_true(fabs(lam_ledoit_wolf(both, D, 2 * PAIRS, PAIRS, covariance) - share) < 1e-12);
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

/* Rows after the controls, from numpy: z W with W = sqrt(n - 1) V diag(1 / (s + R)) V^T of the singular values s of the standardised
 * controls. The second case has fewer controls than dimensions: what they do not span is scaled like the weakest that they do. */
static void spherize(void **state) {
    (void)state;
    static const struct {
        int64_t controls, columns;
        double common, regularization, row[9];
    } golden[] = {
        {20,
         5,
         1,
         0.5,
         {-0.025594554246984133, -0.15868711239614422, 0.07084339604420833, -0.3292595562775373,
          -0.17530763723327478}},
        {6,
         9,
         2,
         0.1,
         {-2.348792440597791, -5.174962409465884, 2.769894841670845, 0.4616349446025654, 0.22773868845105896,
          -0.5307548675556197, 0.28794323958318735, 0.3332209942071914, 0.2176573264915719}}};
    for (size_t g = 0; g < sizeof golden / sizeof golden[0]; g++) {
        int64_t n = golden[g].controls, rows = n + 3, columns = golden[g].columns;
        double x[ROWS * COLUMNS];
        bool controls[ROWS];
        for (int64_t i = 0; i < rows; i++) controls[i] = i < n;
        fill(x, rows, columns, golden[g].common);
        lam_alignment how = {
            .method = LAM_ALIGN_SPHERIZE, .controls = controls, .regularization = golden[g].regularization};
        if (lam_align(&how, x, rows, &columns, NULL) != LAM_OK) fail_msg("%s", lam_last_error());
        assert_int_equal(columns, golden[g].columns);
        for (int64_t j = 0; j < columns; j++) assert_true(fabs(x[n * columns + j] - golden[g].row[j]) < 1e-9);
    }
}

/* Products of three rows after 16 controls in two batches, from numpy; and no batch has a mean of its own left. */
static void batch_center(void **state) {
    (void)state;
    static const struct {
        lam_align_method method;
        double products[9];
    } golden[] = {
        {LAM_ALIGN_TVN,
         {0.5323097217373898, 0.09767396789568696, -0.2752054692021185, 0.09767396789568696,
          4.2420474217956405, -0.4627185811162347, -0.2752054692021185, -0.4627185811162347,
          3.3594148490788207}},
        {LAM_ALIGN_PCA_CS,
         {0.9491972853953274, 0.051011701749526565, -0.8067305520282242, 0.051011701749526565,
          9.006220204202684, -0.745511967381337, -0.8067305520282242, -0.745511967381337,
          4.8458191670044615}},
        {LAM_ALIGN_SPHERIZE,
         {0.6530101017932172, 0.2572050319611281, -0.5189768397991708, 0.2572050319611281, 2.9783151276706623,
          0.1436073699125682, -0.5189768397991708, 0.1436073699125682, 2.32424796365109}}};
    bool controls[ROWS];
    int64_t batch[ROWS];
    for (int i = 0; i < ROWS; i++) controls[i] = i < 16, batch[i] = i % 2;
    for (size_t g = 0; g < sizeof golden / sizeof golden[0]; g++) {
        double x[ROWS * 5];
        int64_t columns = 5;
        fill(x, ROWS, 5, 1);
        lam_alignment how = {.method = golden[g].method,
                             .controls = controls,
                             .batch = batch,
                             .batches = 2,
                             .batch_center = true,
                             .regularization = 0.5};
        if (lam_align(&how, x, ROWS, &columns, NULL) != LAM_OK) fail_msg("%s", lam_last_error());
        for (int a = 0; a < 3; a++)
            for (int b = 0; b < 3; b++) {
                double sum = 0;
                for (int k = 0; k < 5; k++) sum += x[(16 + a) * 5 + k] * x[(16 + b) * 5 + k];
                assert_true(fabs(sum - golden[g].products[a * 3 + b]) < 1e-9);
            }
        for (int b = 0; b < 2; b++)
            for (int k = 0; k < 5; k++) {
                double sum = 0;
                for (int i = b; i < 16; i += 2) sum += x[i * 5 + k];
                assert_true(fabs(sum) < 1e-12);
            }
    }
}

/* scikit-learn's PCA(share).n_components_. */
static void components_by_variance(void **state) {
    (void)state;
    static const struct {
        double share;
        int64_t kept;
    } golden[] = {{0.1, 1}, {0.3, 2}, {0.5, 3}, {0.9, 7}, {0.97, 8}, {0.999, 9}};
    for (size_t g = 0; g < sizeof golden / sizeof golden[0]; g++) {
        double x[ROWS * COLUMNS];
        int64_t columns = COLUMNS;
        fill(x, ROWS, COLUMNS, 0.05);
        lam_alignment how = {.method = LAM_ALIGN_PCA_CS, .variance = golden[g].share};
        assert_int_equal(lam_align(&how, x, ROWS, &columns, NULL), LAM_OK);
        assert_int_equal(columns, golden[g].kept);
    }
}

/* A column that does not vary once something was taken off holds rounding: it must stay that small, not be scaled to 1. */
static void rounding_is_no_variation(void **state) {
    (void)state;
    int64_t batch[ROWS], group[ROWS];
    for (int i = 0; i < ROWS; i++) batch[i] = i % 3, group[i] = i % 7;
    for (int m = 0; m < 4; m++) {
        double x[ROWS * COLUMNS];
        int64_t columns = COLUMNS;
        fill(x, ROWS, COLUMNS, 1);
        for (int i = 0; i < ROWS; i++) {
            x[i * COLUMNS] = 0.1;
            x[i * COLUMNS + 1] = m == 1 ? (double)group[i] / 7 : (double)batch[i] / 7;
        }
        lam_alignment how = {.method = m == 3   ? LAM_ALIGN_PCA_CS
                                       : m == 2 ? LAM_ALIGN_SPHERIZE
                                                : LAM_ALIGN_TVN,
                             .batch = m == 1 ? NULL : batch,
                             .batches = 3,
                             .batch_center = m != 1,
                             .group = m == 1 ? group : NULL,
                             .groups = 7};
        assert_int_equal(lam_align(&how, x, ROWS, &columns, NULL), LAM_OK);
        assert_int_equal(columns, m == 2 ? COLUMNS : COLUMNS - 2);
        for (int64_t i = 0; i < ROWS * columns; i++) assert_true(isfinite(x[i]) && fabs(x[i]) < 1e3);
        for (int i = 0; m == 2 && i < ROWS; i++)
            assert_true(fabs(x[i * COLUMNS]) < 1e-10 && fabs(x[i * COLUMNS + 1]) < 1e-10);
    }
    /* The controls of a batch agree in a component: centred, not scaled. */
    double x[8 * 2] = {1, 5, 2, 5, 3, 5, 4, 5, 1, 7, 1, 8, 1, 9, 2, 9};
    bool controls[8] = {true, true, true, false, true, true, true, false};
    int64_t two[8] = {0, 0, 0, 0, 1, 1, 1, 1}, columns = 2;
    lam_alignment how = {
        .method = LAM_ALIGN_PCA_CS, .controls = controls, .batch = two, .batches = 2, .batch_center = true};
    assert_int_equal(lam_align(&how, x, 8, &columns, NULL), LAM_OK);
    for (int i = 0; i < 16; i++) assert_true(fabs(x[i]) < 10);
    /* Nothing varies within batches: refused, by every method that would have to divide by it. */
    static const lam_align_method methods[] = {LAM_ALIGN_PCA_CS, LAM_ALIGN_TVN, LAM_ALIGN_SPHERIZE};
    for (int m = 0; m < 3; m++) {
        double y[ROWS * COLUMNS];
        columns = COLUMNS;
        for (int i = 0; i < ROWS * COLUMNS; i++) y[i] = 0.1 * (double)(batch[i / COLUMNS] + 1);
        lam_alignment same = {.method = methods[m], .batch = batch, .batches = 3, .batch_center = true};
        assert_int_equal(lam_align(&same, y, ROWS, &columns, NULL), LAM_ERROR_NUMERIC);
        assert_non_null(strstr(lam_last_error(), "do not vary"));
    }
}

static void poor_batches_are_named(void **state) {
    (void)state;
    double x[ROWS * COLUMNS];
    bool controls[ROWS] = {true, true};
    int64_t batch[ROWS], columns = COLUMNS;
    static const char *const names[] = {"a", "b", "c", "d", "e", "f"};
    for (int i = 0; i < ROWS; i++) batch[i] = i < 2 ? 0 : i % 6;
    controls[7] = true; /* of batch 1 */
    fill(x, ROWS, COLUMNS, 1);
    lam_alignment how = {
        .method = LAM_ALIGN_TVN, .controls = controls, .batch = batch, .batches = 6, .batch_names = names};
    assert_int_equal(lam_align(&how, x, ROWS, &columns, NULL), LAM_ERROR_INPUT);
    assert_non_null(
        strstr(lam_last_error(), "batch 'b' has 1 controls, 'c' 0, 'd' 0, and 2 more have too few"));
    assert_non_null(strstr(lam_last_error(), "--min-controls 2"));
}

static void threads_change_nothing(void **state) {
    (void)state;
    enum { N = 700, D = 70 };
    double *x[2];
    int64_t *batch;
    assert_int_equal(lam_alloc_array((void **)&batch, N, sizeof *batch), LAM_OK);
    for (int i = 0; i < N; i++) batch[i] = i % 3;
    for (int m = LAM_ALIGN_CENTER; m <= LAM_ALIGN_SPHERIZE; m++) {
        for (int t = 0; t < 2; t++) {
            int64_t columns = D;
            assert_int_equal(lam_alloc_array((void **)&x[t], N * D, sizeof(double)), LAM_OK);
            fill(x[t], N, D, 1);
            lam_threads_set(t + 1);
            lam_alignment how = {
                .method = (lam_align_method)m, .batch = batch, .batches = 3, .regularization = 0.1};
            assert_int_equal(lam_align(&how, x[t], N, &columns, NULL), LAM_OK);
        }
        if (memcmp(x[0], x[1], N * D * sizeof(double)) != 0) fail_msg("method %d", m);
        lam_free(x[0]);
        lam_free(x[1]);
    }
    lam_free(batch);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(replicates),
        cmocka_unit_test(ledoit_wolf),
        cmocka_unit_test(ledoit_wolf_of_pairs),
        cmocka_unit_test(kept_components),
        cmocka_unit_test(every_row),
        cmocka_unit_test(refused),
        cmocka_unit_test(spherize),
        cmocka_unit_test(batch_center),
        cmocka_unit_test(components_by_variance),
        cmocka_unit_test(rounding_is_no_variation),
        cmocka_unit_test(poor_batches_are_named),
        cmocka_unit_test(threads_change_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
