/* Average linkage and leaf order; the numbers are those of scipy 1.17 (linkage(method='average'), leaves_list). */
#include "eval/hierarchy.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/fault.h"

static void compare(double *distance, int64_t n, const lam_merge *expected, const int64_t *leaves) {
    lam_merge merges[32];
    int64_t order[32];
    assert_int_equal(lam_hierarchy_average(distance, n, merges), LAM_OK);
    assert_int_equal(lam_hierarchy_leaves(merges, n, order), LAM_OK);
    for (int64_t k = 0; k + 1 < n; k++) {
        assert_int_equal(merges[k].left, expected[k].left);
        assert_int_equal(merges[k].right, expected[k].right);
        assert_int_equal(merges[k].size, expected[k].size);
        assert_true(fabs(merges[k].distance - expected[k].distance) <= 1e-13);
    }
    for (int64_t i = 0; i < n; i++) assert_int_equal(order[i], leaves[i]);
}

static void cosines_of_a_formula(void **state) {
    (void)state;
    enum { N = 12, D = 4 };
    static const lam_merge expected[N - 1] = {
        {2, 4, 2, 0.013768784866185158}, {11, 12, 3, 0.037946886266301716}, {1, 10, 2, 0.1137425594609246},
        {0, 9, 2, 0.16320953446173769},  {5, 14, 3, 0.19035929307238608},   {6, 15, 3, 0.38993294555308289},
        {3, 7, 2, 0.53570954311328456},  {8, 13, 4, 0.58006985785401344},   {16, 17, 6, 0.76084132370849833},
        {18, 19, 6, 1.0304489694614565}, {20, 21, 12, 1.2177312034927696}};
    static const int64_t leaves[N] = {5, 1, 10, 6, 0, 9, 3, 7, 8, 11, 2, 4};
    double x[N][D], distance[N * (N - 1) / 2];
    int64_t at = 0;
    for (int i = 0; i < N; i++)
        for (int j = 0; j < D; j++) x[i][j] = sin(0.7 * i * (j + 1) + 0.3 * j * j) + 0.5 * cos(1.3 * i * j);
    for (int i = 0; i < N; i++)
        for (int j = i + 1; j < N; j++) {
            double ij = 0, ii = 0, jj = 0;
            for (int k = 0; k < D; k++)
                ij += x[i][k] * x[j][k], ii += x[i][k] * x[i][k], jj += x[j][k] * x[j][k];
            distance[at++] = 1 - ij / sqrt(ii * jj);
        }
    compare(distance, N, expected, leaves);
}

static void ties(void **state) {
    (void)state;
    enum { N = 9 };
    static const lam_merge expected[N - 1] = {
        {4, 8, 2, 0}, {1, 5, 2, 0},   {0, 9, 3, 1},     {2, 6, 2, 1},
        {3, 7, 2, 1}, {12, 13, 4, 2}, {10, 14, 6, 2.5}, {11, 15, 9, 2.6666666666666665}};
    static const int64_t leaves[N] = {0, 4, 8, 1, 5, 2, 6, 3, 7};
    double distance[N * (N - 1) / 2];
    int64_t at = 0;
    for (int i = 0; i < N; i++)
        for (int j = i + 1; j < N; j++) distance[at++] = (j - i) % 4 + ((i + j) % 3 ? 1 : 0);
    compare(distance, N, expected, leaves);
}

static void few_rows_and_equal_rows(void **state) {
    (void)state;
    double none[1] = {0}, one[1] = {0.25}, equal[6] = {0};
    compare(none, 1, NULL, (const int64_t[]){0});
    compare(one, 2, (const lam_merge[]){{0, 1, 2, 0.25}}, (const int64_t[]){0, 1});
    lam_merge merges[3];
    int64_t order[4], seen = 0;
    assert_int_equal(lam_hierarchy_average(equal, 4, merges), LAM_OK);
    assert_int_equal(lam_hierarchy_leaves(merges, 4, order), LAM_OK);
    for (int i = 0; i < 4; i++) seen |= 1 << order[i];
    assert_int_equal(seen, 15);
}

static void refusals(void **state) {
    (void)state;
    double bad[3] = {0, (double)NAN, 1};
    lam_merge merges[2];
    int64_t order[3];
    assert_int_equal(lam_hierarchy_average(bad, 3, merges), LAM_ERROR_NUMERIC);
    for (int64_t n = 1; n <= 3; n++) {
        double good[3] = {1, 2, 3};
        lam_fault_arm(LAM_FAULT_ALLOC, n);
        assert_int_equal(lam_hierarchy_average(good, 3, merges), LAM_ERROR_MEMORY);
        lam_fault_arm(LAM_FAULT_ALLOC, 0);
    }
    double good[3] = {1, 2, 3};
    assert_int_equal(lam_hierarchy_average(good, 3, merges), LAM_OK);
    lam_fault_arm(LAM_FAULT_ALLOC, 1);
    assert_int_equal(lam_hierarchy_leaves(merges, 3, order), LAM_ERROR_MEMORY);
    lam_fault_arm(LAM_FAULT_ALLOC, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(cosines_of_a_formula), cmocka_unit_test(ties),
                                       cmocka_unit_test(few_rows_and_equal_rows), cmocka_unit_test(refusals)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
