/* The chosen number of threads is what OpenMP works with. */
#include <omp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/threads.h"

static int threads_at_work(void) {
    int count = 0;
#pragma omp parallel reduction(+ : count)
    count++;
    return count;
}

static void test_set(void **state) {
    (void)state;
    for (int threads = 3; threads >= 1; threads--) {
        lam_threads_set(threads);
        assert_int_equal(lam_threads(), threads);
        assert_int_equal(omp_get_max_threads(), threads);
        assert_int_equal(threads_at_work(), threads);
    }
}

static void test_environment(void **state) {
    (void)state;
    setenv("OMP_NUM_THREADS", "2", 1);
    lam_threads_set(0);
    unsetenv("OMP_NUM_THREADS");
    assert_int_equal(lam_threads(), 2);
    assert_int_equal(threads_at_work(), 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_set), cmocka_unit_test(test_environment)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
