/* Plain features of crops whose answers are known. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

#include "train/features.h"

enum { SIZE = 16, COUNT = SIZE * SIZE };

static void near(float value, double expected, double bound) {
    assert_true(fabs((double)value - expected) <= bound);
}

/* 0..255 in order: mean, deviation and percentiles in closed form. */
static void intensity_of_a_ramp(void **state) {
    (void)state;
    float plane[COUNT], f[7];
    uint8_t present[1] = {1};
    for (int i = 0; i < COUNT; i++) plane[i] = (float)i;
    assert_int_equal(lam_feature_count(false, 1), 7);
    assert_int_equal(lam_crop_features(false, plane, present, 1, SIZE, f), LAM_OK);
    near(f[0], 127.5, 1e-4);
    near(f[1], sqrt((256.0 * 256 - 1) / 12), 1e-4);
    const double shares[5] = {0.01, 0.25, 0.5, 0.75, 0.99};
    for (int i = 0; i < 5; i++) near(f[2 + i], 255 * shares[i], 1e-4);
}

/* Three channels: a chessboard, its negative, one that is absent. */
static void handmade_of_a_chessboard(void **state) {
    (void)state;
    float planes[3 * COUNT], f[27];
    uint8_t present[3] = {1, 1, 0};
    for (int i = 0; i < COUNT; i++) {
        planes[i] = (float)((i / SIZE + i) % 2);
        planes[COUNT + i] = 1 - planes[i];
        planes[2 * COUNT + i] = (float)i;
    }
    assert_int_equal(lam_feature_count(true, 3), 27);
    assert_int_equal(lam_crop_features(true, planes, present, 3, SIZE, f), LAM_OK);
    near(f[0], 0.5, 1e-6);
    near(f[1], 0.5, 1e-6);
    near(f[4], 4, 1e-4); /* every neighbour differs by 1, the variance is 1/4 */
    assert_true(f[5] > 0.8f && f[6] < 0.1f && f[7] < 0.1f); /* all of its variance is finer than 3 pixels */
    for (int i = 16; i < 24; i++) assert_true(f[i] == 0.0f);
    near(f[24], -1, 1e-6);
    assert_true(f[25] == 0.0f && f[26] == 0.0f);
}

/* A constant crop has no texture, and nothing that is not a number. */
static void constant_crop_is_finite(void **state) {
    (void)state;
    float planes[2 * COUNT], f[17];
    uint8_t present[2] = {1, 1};
    for (int i = 0; i < 2 * COUNT; i++) planes[i] = 0.25f;
    assert_int_equal(lam_crop_features(true, planes, present, 2, SIZE, f), LAM_OK);
    for (int i = 0; i < 17; i++) assert_true(isfinite((double)f[i]));
    near(f[4], 0, 1e-6);
    near(f[16], 0, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(intensity_of_a_ramp),
                                       cmocka_unit_test(handmade_of_a_chessboard),
                                       cmocka_unit_test(constant_crop_is_finite)};
    return cmocka_run_group_tests_name("train_features", tests, NULL, NULL);
}
