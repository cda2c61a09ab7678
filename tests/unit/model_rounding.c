/* Rounding to bfloat16: to the nearest against the definition, and at random without bias. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bf16.h"
#include "base/rng.h"
#include "model/internal.h"

/* The nearest of the two neighbours, computed in float64; ties to the even one. */
static uint16_t nearest(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    uint16_t low = (uint16_t)(bits >> 16);
    double a = (double)lam_bf16_to_float(low), b = (double)lam_bf16_to_float((uint16_t)(low + 1)),
           x = (double)value;
    if (isinf(b)) b = copysign(0x1p128, b);
    double below = fabs(x - a), above = fabs(b - x);
    if (below != above) return below < above ? low : (uint16_t)(low + 1);
    return low & 1u ? (uint16_t)(low + 1) : low;
}

static void to_nearest(void **state) {
    (void)state;
    lam_rng stream = lam_rng_stream(2, LAM_RNG_TEST, 0);
    for (int i = 0; i < 2000000; i++) {
        uint32_t bits = lam_rng_word(&stream);
        if (i % 3 == 0) bits = (bits & 0xffff0000u) | 0x8000u; /* ties */
        float value;
        memcpy(&value, &bits, sizeof value);
        if (isnan(value)) {
            assert_true(isnan(lam_bf16_to_float(lam_bf16_from_float(value))));
        } else if (isinf(value)) {
            assert_true(lam_bf16_to_float(lam_bf16_from_float(value)) == value);
        } else {
            assert_int_equal(lam_bf16_from_float(value), nearest(value));
        }
    }
    assert_true(isinf(lam_bf16_to_float(lam_bf16_from_float(3.4e38f))));
}

static void at_random(void **state) {
    (void)state;
    enum { COUNT = 37, DRAWS = 20000 };
    static float weights[COUNT], out[COUNT], part[COUNT];
    static double sum[COUNT];
    for (int i = 0; i < COUNT; i++) weights[i] = (float)(sin(1.7 * i) * pow(10, i % 7 - 3));
    weights[5] = INFINITY;
    weights[6] = 1.5f; /* exact: never moves */
    lam_rounding r = {.on = true, .seed = 9, .weights = weights};
    for (uint32_t step = 0; step < DRAWS; step++) {
        r.step = step;
        lam_round_at_random(&r, weights, weights, COUNT, out);
        /* Any part of the arena gives the same values. */
        lam_round_at_random(&r, weights + 11, weights + 11, COUNT - 11, part);
        assert_memory_equal(part, out + 11, (COUNT - 11) * sizeof *out);
        for (int i = 0; i < COUNT; i++) {
            assert_true(lam_bf16_to_float(lam_bf16_from_float(out[i])) == out[i]);
            sum[i] += (double)out[i];
        }
    }
    for (int i = 0; i < COUNT; i++) {
        if (i == 5 || i == 6) {
            assert_true(out[i] == weights[i]);
            continue;
        }
        uint32_t bits;
        memcpy(&bits, &weights[i], sizeof bits);
        double unit = fabs((double)lam_bf16_to_float((uint16_t)((bits >> 16) + 1)) -
                           (double)lam_bf16_to_float((uint16_t)(bits >> 16)));
        double share = (double)(bits & 0xffffu) / 65536, deviation = sqrt(share * (1 - share) / DRAWS);
        assert_true(fabs(sum[i] / DRAWS - (double)weights[i]) <= 5 * deviation * unit);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(to_nearest), cmocka_unit_test(at_random)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
