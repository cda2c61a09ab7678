/* Learning-rate schedules against published values. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

#include "train/schedule.h"

/* PyTorch's OneCycleLR(max_lr=1e-4, total_steps=100, pct_start=0.1, anneal_strategy="cos"). */
static void one_cycle_follows_pytorch(void **state) {
    (void)state;
    const struct {
        int64_t step;
        double lr, beta1; /* beta1 0: not listed */
    } expected[] = {{0, 4.0e-6, 0.95},
                    {1, 6.894754202276402e-06, 0.9469846310392954},
                    {5, 6.0335112528012655e-05, 0.8913175911166534},
                    {9, 1e-4, 0.85},
                    {10, 9.99695414727894e-05, 0.8500304586490451},
                    {50, 5.6958827213383085e-05, 0},
                    {99, 4.0e-10, 0.95}};
    lam_schedule schedule = {LAM_SCHEDULE_ONECYCLE, 100, 0.1, 1e-4, 0, 0.9};
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++) {
        double lr, beta1;
        lam_schedule_at(&schedule, expected[i].step, &lr, &beta1);
        assert_true(fabs(lr - expected[i].lr) <= 1e-12 * expected[i].lr + 1e-19);
        if (expected[i].beta1 > 0) assert_true(fabs(beta1 - expected[i].beta1) <= 1e-14);
    }
}

static void cosine_rises_and_falls(void **state) {
    (void)state;
    lam_schedule schedule = {LAM_SCHEDULE_COSINE, 100, 0.1, 2.0, 0.5, 0.9};
    double lr, beta1;
    lam_schedule_at(&schedule, 0, &lr, &beta1);
    assert_true(lr == 0 && beta1 == 0.9);
    lam_schedule_at(&schedule, 5, &lr, &beta1);
    assert_true(fabs(lr - 1.0) < 1e-15);
    lam_schedule_at(&schedule, 10, &lr, &beta1);
    assert_true(fabs(lr - 2.0) < 1e-15);
    lam_schedule_at(&schedule, 55, &lr, &beta1); /* half of the cosine */
    assert_true(fabs(lr - 1.25) < 1e-12);
    lam_schedule_at(&schedule, 100, &lr, &beta1);
    assert_true(fabs(lr - 0.5) < 1e-12);
    schedule.kind = LAM_SCHEDULE_CONSTANT;
    lam_schedule_at(&schedule, 99, &lr, &beta1);
    assert_true(lr == 2.0);
}

/* No warm-up, one step, warm-up only: a number at every step. */
static void extremes_stay_finite(void **state) {
    (void)state;
    for (int kind = LAM_SCHEDULE_COSINE; kind <= LAM_SCHEDULE_CONSTANT; kind++) {
        for (int64_t steps = 1; steps <= 3; steps++) {
            for (int w = 0; w <= 2; w++) {
                lam_schedule schedule = {(lam_schedule_kind)kind, steps, w / 2.0, 1, 0, 0.9};
                for (int64_t step = 0; step <= steps; step++) {
                    double lr, beta1;
                    lam_schedule_at(&schedule, step, &lr, &beta1);
                    assert_true(isfinite(lr) && lr >= 0 && lr <= 1);
                    assert_true(beta1 >= 0.85 && beta1 <= 0.95);
                }
            }
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(one_cycle_follows_pytorch),
                                       cmocka_unit_test(cosine_rises_and_falls),
                                       cmocka_unit_test(extremes_stay_finite)};
    return cmocka_run_group_tests_name("train_schedule", tests, NULL, NULL);
}
