/* t-SNE beside scikit-learn 1.9 (TSNE(method='exact', init='pca'), the divergences written here) and beside plain loops. */
#include "eval/tsne.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/fault.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/threads.h"

enum {
    HELIX = 240,
    HELIX_COLUMNS = 4,
    BLOBS = 180,
    BLOBS_COLUMNS = 12,
    GRID = 300,
    GRID_COLUMNS = 4,
    MOST = 600
};

static void helix(double *x) {
    for (int i = 0; i < HELIX; i++) {
        double t = (double)i / HELIX, row[] = {cos(12 * t), sin(12 * t), 3 * t, 0.3 * sin(40 * t)};
        memcpy(x + HELIX_COLUMNS * i, row, sizeof row);
    }
}

static void blobs(double *x, int rows) {
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < BLOBS_COLUMNS; j++)
            x[BLOBS_COLUMNS * i + j] = 3 * sin(1.7 * (i % 6 + 1) * (j + 1)) + cos(0.37 * i * i * (j + 1) + j);
}

static void grid(double *x) {
    for (int i = 0; i < GRID; i++) {
        double a = i % 20, b = i / 20, row[] = {a, b, 0.5 * sin(a), 0.1 * a * b};
        memcpy(x + GRID_COLUMNS * i, row, sizeof row);
    }
}

/* ---- the divergence by plain loops: beta by bisection, every pair ---- */

static double entropy_at(const double *distance, int rows, int i, double beta, double *p) {
    double total = 0, mean = 0;
    for (int j = 0; j < rows; j++) {
        p[j] = j == i ? 0 : exp(-beta * distance[j]);
        total += p[j];
        mean += p[j] * distance[j];
    }
    for (int j = 0; j < rows; j++) p[j] /= total;
    return log(total) + beta * mean / total;
}

static double plain_divergence(const double *x, int rows, int columns, double perplexity, const double *y) {
    static double p[HELIX * HELIX > BLOBS * BLOBS ? HELIX * HELIX : BLOBS * BLOBS], distance[MOST];
    assert_true(rows <= HELIX);
    for (int i = 0; i < rows; i++) {
        for (int j = 0; j < rows; j++) {
            distance[j] = 0;
            for (int k = 0; k < columns; k++) distance[j] += pow(x[i * columns + k] - x[j * columns + k], 2);
        }
        double low = -30, high = 30;
        for (int step = 0; step < 100; step++) {
            double t = (low + high) / 2;
            if (entropy_at(distance, rows, i, exp(t), p + i * rows) > log(perplexity))
                low = t;
            else
                high = t;
        }
    }
    double z = 0, sum = 0;
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < rows; j++)
            if (i != j) z += 1 / (1 + pow(y[2 * i] - y[2 * j], 2) + pow(y[2 * i + 1] - y[2 * j + 1], 2));
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < rows; j++) {
            double both = (p[i * rows + j] + p[j * rows + i]) / (2 * rows),
                   q = 1 / (1 + pow(y[2 * i] - y[2 * j], 2) + pow(y[2 * i + 1] - y[2 * j + 1], 2)) / z;
            if (i != j && both > 0) sum += both * log(both / q);
        }
    return sum;
}

static void divergences(void **state) {
    (void)state;
    static double x[MOST * BLOBS_COLUMNS], y[MOST * 2];
    lam_tsne_options options = lam_tsne_defaults;
    double divergence;
    helix(x);
    options.perplexity = 15;
    assert_int_equal(lam_tsne(x, HELIX, HELIX_COLUMNS, &options, y, &divergence), LAM_OK);
    assert_true(fabs(divergence / 0.15884006 - 1) < 0.02);
    assert_true(fabs(divergence / plain_divergence(x, HELIX, HELIX_COLUMNS, 15, y) - 1) < 1e-4);
    blobs(x, BLOBS);
    options.perplexity = 0; /* 30 */
    assert_int_equal(lam_tsne(x, BLOBS, BLOBS_COLUMNS, &options, y, &divergence), LAM_OK);
    assert_true(fabs(divergence / 0.019493668 - 1) < 0.02);
    assert_true(fabs(divergence / plain_divergence(x, BLOBS, BLOBS_COLUMNS, 30, y) - 1) < 1e-4);
    grid(x); /* more than one tile */
    assert_int_equal(lam_tsne(x, GRID, GRID_COLUMNS, &options, y, &divergence), LAM_OK);
    assert_true(fabs(divergence / 0.30585673 - 1) < 0.02);
    assert_true(lam_tsne_perplexity(31) == 10);
}

static void same_bits(void **state) {
    (void)state;
    static double x[MOST * BLOBS_COLUMNS], y[MOST * 2], again[MOST * 2];
    lam_tsne_options options = lam_tsne_defaults;
    blobs(x, MOST);
    lam_threads_set(1);
    assert_int_equal(lam_tsne(x, MOST, BLOBS_COLUMNS, &options, y, NULL), LAM_OK);
    lam_threads_set(2);
    assert_int_equal(lam_tsne(x, MOST, BLOBS_COLUMNS, &options, again, NULL), LAM_OK);
    assert_memory_equal(y, again, sizeof y);
    for (int64_t tiles = 0; tiles < 4; tiles += 3) { /* none, half of the six */
        options.kept_bytes = tiles * 256 * 256 * (int64_t)sizeof(float);
        assert_int_equal(lam_tsne(x, MOST, BLOBS_COLUMNS, &options, again, NULL), LAM_OK);
        assert_memory_equal(y, again, sizeof y);
    }
}

static void random_start(void **state) {
    (void)state;
    static double x[HELIX * HELIX_COLUMNS], y[3][HELIX * 2];
    helix(x);
    for (int k = 0; k < 3; k++) {
        lam_tsne_options options = {.perplexity = 15, .random_start = true, .seed = k == 2 ? 8 : 7};
        double divergence;
        assert_int_equal(lam_tsne(x, HELIX, HELIX_COLUMNS, &options, y[k], &divergence), LAM_OK);
        assert_true(fabs(divergence / plain_divergence(x, HELIX, HELIX_COLUMNS, 15, y[k]) - 1) < 1e-4);
    }
    assert_memory_equal(y[0], y[1], sizeof *y);
    assert_memory_not_equal(y[0], y[2], sizeof *y);
}

/* More equal rows than the perplexity has neighbours; all rows equal; the fewest rows. */
static void degenerate_rows(void **state) {
    (void)state;
    static double x[BLOBS * BLOBS_COLUMNS], y[BLOBS * 2];
    lam_tsne_options options = lam_tsne_defaults;
    double divergence;
    blobs(x, BLOBS);
    for (int i = 60; i < 110; i++) memcpy(x + i * BLOBS_COLUMNS, x, BLOBS_COLUMNS * sizeof *x);
    assert_int_equal(lam_tsne(x, BLOBS, BLOBS_COLUMNS, &options, y, &divergence), LAM_OK);
    assert_true(divergence > 0);
    for (int k = 0; k < 2 * BLOBS; k++) assert_true(isfinite(y[k]));
    memset(x, 0, sizeof x);
    assert_int_equal(lam_tsne(x, 50, 3, &options, y, &divergence), LAM_OK);
    for (int k = 0; k < 100; k++) assert_true(y[k] == 0);
    assert_true(fabs(divergence) < 1e-5);
    options.perplexity = 3; /* of 3 others: all alike, whatever their distance */
    const double four[] = {0, 1, 5, 20};
    assert_int_equal(lam_tsne(four, 4, 1, &options, y, &divergence), LAM_OK);
    for (int k = 0; k < 8; k++) assert_true(isfinite(y[k]));
}

/* Numbers of numpy's svd of the centred rows; signs are free. */
static void principal_plane(void **state) {
    (void)state;
    static const struct {
        int row;
        double x, y;
    } expected[] = {{0, -2.39503152574697, 6.60551466070698},
                    {1, 1.0395510950685, -1.95326266355192},
                    {7, 0.937739679428991, -1.61128546421115},
                    {100, -6.53021958426306, -1.29481493633162}};
    static double x[BLOBS * BLOBS_COLUMNS], y[BLOBS * 2];
    blobs(x, BLOBS);
    assert_int_equal(lam_principal_plane(x, BLOBS, BLOBS_COLUMNS, y), LAM_OK);
    double sign_x = y[0] * expected[0].x > 0 ? 1 : -1, sign_y = y[1] * expected[0].y > 0 ? 1 : -1;
    for (size_t k = 0; k < sizeof expected / sizeof *expected; k++) {
        assert_true(fabs(sign_x * y[2 * expected[k].row] - expected[k].x) < 1e-9);
        assert_true(fabs(sign_y * y[2 * expected[k].row + 1] - expected[k].y) < 1e-9);
    }
}

static void refusals(void **state) {
    (void)state;
    static double x[HELIX * HELIX_COLUMNS], y[HELIX * 2];
    lam_tsne_options options = lam_tsne_defaults;
    helix(x);
    assert_int_equal(lam_tsne(x, 3, HELIX_COLUMNS, &options, y, NULL), LAM_ERROR_INPUT);
    options.perplexity = 20;
    assert_int_equal(lam_tsne(x, 20, HELIX_COLUMNS, &options, y, NULL), LAM_ERROR_USAGE);
    assert_non_null(strstr(lam_last_error(), "1 to 19"));
    options.perplexity = 0.5;
    assert_int_equal(lam_tsne(x, 20, HELIX_COLUMNS, &options, y, NULL), LAM_ERROR_USAGE);
    options.perplexity = 0;
    x[4 * HELIX_COLUMNS] = (double)INFINITY;
    assert_int_equal(lam_tsne(x, 20, HELIX_COLUMNS, &options, y, NULL), LAM_ERROR_INPUT);
    assert_non_null(strstr(lam_last_error(), "row 5"));
    helix(x);
    int64_t n = 1;
    for (;; n++) {
        lam_fault_arm(LAM_FAULT_ALLOC, n);
        lam_status status = lam_tsne(x, 8, HELIX_COLUMNS, &options, y, NULL);
        lam_fault_arm(LAM_FAULT_ALLOC, 0);
        if (status == LAM_OK) break;
        assert_int_equal(status, LAM_ERROR_MEMORY);
    }
    assert_true(n > 15);
}

int main(void) {
    lam_log_set_quiet(true);
    const struct CMUnitTest tests[] = {cmocka_unit_test(divergences),     cmocka_unit_test(same_bits),
                                       cmocka_unit_test(random_start),    cmocka_unit_test(degenerate_rows),
                                       cmocka_unit_test(principal_plane), cmocka_unit_test(refusals)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
