/* How well batches are told apart, against scikit-learn's LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.1) in the same folds,
 * log priors taken off. */
#include "eval/batch_left.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/fault.h"
#include "base/threads.h"

enum { ROWS = 60, COLUMNS = 6 };

static uint32_t generator;
static double u(void) {
    generator = 1664525u * generator + 1013904223u;
    return (double)generator / 4294967296.0;
}

static double x[ROWS * COLUMNS];
static int64_t batch[ROWS];
static bool controls[ROWS];

static void make(double shift) {
    static const double direction[COLUMNS] = {1, -1, 0, 0.5, 0, 0};
    generator = 99;
    for (int i = 0; i < ROWS; i++) {
        double t = u();
        batch[i] = i % 4 == 3 && i > 30 ? 0 : i % 4;
        controls[i] = i % 3 != 0;
        for (int j = 0; j < COLUMNS; j++) {
            x[i * COLUMNS + j] = 0.3 * t * (double)(j + 1) + u();
            x[i * COLUMNS + j] += shift * (double)batch[i] * direction[j];
        }
    }
}

static lam_batch_score score(const bool *which, int64_t batches) {
    lam_batch_score s;
    if (lam_batch_left(x, ROWS, COLUMNS, which, batch, batches, &s) != LAM_OK)
        fail_msg("%s", lam_last_error());
    return s;
}

static void against_scikit_learn(void **state) {
    (void)state;
    static const struct {
        double shift, all, of_controls;
    } golden[] = {{0, 0.11014492753623187, 0.234375},
                  {0.1, 0.30527950310559004, 0.37187499999999996},
                  {0.3, 0.5612836438923395, 0.46875},
                  {2, 1, 1}};
    for (size_t g = 0; g < sizeof golden / sizeof golden[0]; g++) {
        make(golden[g].shift);
        for (int threads = 1; threads <= 2; threads++) {
            lam_threads_set(threads);
            lam_batch_score all = score(NULL, 4), some = score(controls, 4);
            assert_true(fabs(all.accuracy - golden[g].all) < 1e-12);
            assert_true(fabs(some.accuracy - golden[g].of_controls) < 1e-12);
            assert_int_equal(all.rows, ROWS);
            assert_int_equal(some.rows, 40);
            assert_int_equal(some.batches, 4);
        }
    }
    make(0.3);
    for (int i = 0; i < ROWS; i++) x[i * COLUMNS + 5] = 0.1; /* a constant column counts nothing */
    assert_true(fabs(score(NULL, 4).accuracy - 0.5554865424430642) < 1e-12);
    for (int i = 0; i < ROWS; i++)
        x[i * COLUMNS + 5] = 1e-17 * (double)batch[i]; /* nor does what rounding leaves of one */
    assert_true(fabs(score(NULL, 4).accuracy - 0.5554865424430642) < 1e-12);
}

static void edges(void **state) {
    (void)state;
    make(2);
    for (int i = 0; i < ROWS; i++) batch[i] = 0;
    lam_batch_score s = score(NULL, 1);
    assert_true(isnan(s.accuracy) && s.batches == 1); /* a single batch */
    batch[7] = 1;
    s = score(NULL, 2);
    assert_true(isnan(s.accuracy) && s.batches == 1 &&
                s.rows == ROWS - 1); /* a batch of one row is left out */
    batch[8] = 1;
    s = score(NULL, 2);
    assert_true(isfinite(s.accuracy) && s.batches == 2);
    for (int i = 0; i < ROWS; i++) controls[i] = false;
    s = score(controls, 2);
    assert_true(isnan(s.accuracy) && s.rows == 0);
    /* Rows of a batch that are all the same are told without fail; rows that are all the same anywhere are the first batch's. */
    for (int i = 0; i < ROWS; i++) batch[i] = i % 3;
    for (int i = 0; i < ROWS * COLUMNS; i++) x[i] = (double)batch[i / COLUMNS] * (double)(i % COLUMNS);
    assert_true(score(NULL, 3).accuracy == 1);
    for (int i = 0; i < ROWS * COLUMNS; i++) x[i] = 0.1;
    assert_true(fabs(score(NULL, 3).accuracy - 1.0 / 3) < 1e-15);
}

static void no_memory(void **state) {
    (void)state;
    make(1);
    for (int64_t n = 1; n < 40; n++) {
        lam_batch_score s;
        lam_fault_arm(LAM_FAULT_ALLOC, n);
        lam_status status = lam_batch_left(x, ROWS, COLUMNS, NULL, batch, 4, &s);
        lam_fault_arm(LAM_FAULT_ALLOC, 0);
        assert_true(status == LAM_OK || status == LAM_ERROR_MEMORY);
        if (status != LAM_OK) assert_true(*lam_last_error() != 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(against_scikit_learn), cmocka_unit_test(edges),
                                       cmocka_unit_test(no_memory)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
