/* Attention (attention_check.h): sizes that divide no vector, tile or block, masks, strides, queries of another number than keys. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/attention_check.h"

static const attention_case cases[] = {
    {"head_dim 5", 2, 67, 67, 2, 5, 0, 1, NO_MASK, false, false},
    {"one token", 2, 1, 1, 3, 4, 0, 1, NO_MASK, false, false},
    {"three tokens", 1, 3, 3, 2, 32, 2, 1, NO_MASK, true, false},
    {"decoder", 1, 257, 257, 2, 32, 0, 1.5, NO_MASK, false, false},
    {"encoder", 1, 65, 65, 2, 64, 0, 1, NO_MASK, false, false},
    {"two blocks of keys", 1, 40, 385, 1, 64, 6, 1.5, NO_MASK, true, false},
    {"four blocks of keys", 1, 33, 1025, 1, 8, 0, 3, NO_MASK, false, false},
    {"wide heads", 1, 19, 35, 2, 80, 0, 1, NO_MASK, false, false},
    {"cross", 2, 48, 17, 2, 16, 3, 1, NO_MASK, false, false},
    {"cross, few queries", 2, 3, 130, 2, 20, 0, 2, NO_MASK, true, false},
    {"sharp", 1, 70, 70, 1, 24, 0, 4, NO_MASK, false, false},
    {"some keys", 2, 67, 67, 2, 12, 1, 1, SOME_KEYS, false, false},
    {"some keys, many blocks", 1, 21, 700, 1, 16, 0, 1, SOME_KEYS, true, false},
    {"one key", 5, 31, 70, 1, 9, 0, 1, ONE_KEY, false, false},
    {"no key", 2, 66, 33, 2, 11, 0, 1, NO_KEY_IN_SAMPLE_0, false, false},
    {"no key, added", 2, 5, 33, 2, 11, 2, 1, NO_KEY_IN_SAMPLE_0, true, false},
};

/* What else the kernels of a device tell apart: head_dim by the width of a kernel and whether it is whole vectors; rows that fill
 * 8, 16, 32 or 64 or one more; sequences that fit into shared memory and that do not; heads that share a block, blocks that share
 * a head, both sides of the backward pass in shared memory at once or in turn; scores that need the online softmax. */
static const attention_case device_cases[] = {
    {"head_dim 1", 1, 17, 33, 2, 1, 0, 1, NO_MASK, false, false},
    {"head_dim 8", 2, 16, 15, 2, 8, 0, 1, NO_MASK, false, false},
    {"head_dim 16", 2, 33, 65, 2, 16, 0, 1, NO_MASK, true, false},
    {"head_dim 32, two tokens", 2, 2, 2, 2, 32, 0, 1, NO_MASK, false, false},
    {"head_dim 33", 1, 64, 50, 1, 33, 0, 1, NO_MASK, false, false},
    {"head_dim 64", 1, 50, 64, 2, 64, 0, 1, NO_MASK, true, false},
    {"head_dim 80", 1, 65, 127, 1, 80, 0, 1, NO_MASK, false, false},
    {"head_dim 104", 1, 129, 65, 2, 104, 0, 1, NO_MASK, false, false},
    {"head_dim 104, odd stride", 1, 20, 40, 1, 104, 1, 1, NO_MASK, true, false},
    {"head_dim 128", 1, 50, 129, 1, 128, 0, 1, NO_MASK, true, false},
    {"head_dim 128, streamed", 1, 33, 460, 1, 128, 0, 1, SOME_KEYS, false, false},
    {"heads share a block", 16, 17, 17, 8, 32, 0, 1, NO_MASK, false, false},
    {"heads share a block, masked", 16, 9, 49, 8, 16, 0, 1, SOME_KEYS, true, false},
    {"a block a head", 6, 65, 65, 8, 64, 0, 1, NO_MASK, false, false},
    {"a block a head, cross", 4, 193, 97, 8, 32, 0, 1, NO_MASK, false, false},
    {"cross 7 65", 2, 7, 65, 2, 32, 0, 1, NO_MASK, false, false},
    {"cross 193 257", 1, 193, 257, 1, 64, 0, 2, SOME_KEYS, false, false},
    {"385 tokens", 1, 385, 385, 1, 32, 0, 1, NO_MASK, false, false},
    {"1025 tokens", 1, 1025, 1025, 1, 32, 0, 1, NO_MASK, false, false},
    {"streamed, masked", 1, 130, 1500, 1, 16, 0, 2, SOME_KEYS, false, false},
    {"one key, whole vectors", 5, 31, 70, 1, 16, 0, 1, ONE_KEY, false, false},
    {"no key, whole vectors", 2, 40, 33, 2, 16, 0, 1, NO_KEY_IN_SAMPLE_0, true, false},
    {"no key, streamed", 2, 20, 1500, 1, 16, 0, 1, NO_KEY_IN_SAMPLE_0, false, false},
    {"sides in turn", 3, 120, 120, 8, 128, 0, 1, NO_MASK, false, false},
    {"online", 1, 40, 160, 1, 16, 0, 12, NO_MASK, false, false},
    {"online, masked", 1, 33, 70, 1, 80, 0, 8, SOME_KEYS, false, false},
};

static void f32(void **state) {
    check_all(cases, COUNT(cases), device_cases, COUNT(device_cases), *state, false);
}
static void bf16(void **state) {
    check_all(cases, COUNT(cases), device_cases, COUNT(device_cases), *state, true);
}

static void threads(void **state) {
    static const attention_case c = {"threads", 3, 45, 77, 3, 12, 0, 1, SOME_KEYS, false, false};
    check_threads(&c, *state);
}

/* Scores so large that their rounding is larger than the differences the softmax asks for give probabilities all the same; what is
 * no number is not hidden. */
static void extremes(void **state) {
    const char *isa = *state;
    if (!select_isa(isa)) skip();
    static const double scales[] = {1e3, 3e4, 7e4, 1e6};
    for (int bf16 = 0; bf16 < 2; bf16++)
        for (size_t n = 0; n < sizeof scales / sizeof *scales; n++) {
            const attention_case c = {"extremes", 1, 19, 37, 1, 20, 0, scales[n], NO_MASK, false, false};
            int64_t stride = stride_of(&c, OUT), out = rows_of(&c, OUT) * stride,
                    queries = rows_of(&c, DQ) * stride_of(&c, DQ), keys = rows_of(&c, V) * stride_of(&c, V);
            double most_v = 0, most_d = 0;
            problem p = open_problem(&c, bf16);
            for (int64_t i = 0; i < keys; i++) most_v = fmax(most_v, fabs(get(&p, V, i)));
            for (int64_t i = 0; i < out; i++) most_d = fmax(most_d, fabs(get(&p, D_OUT, i)));
            reset_outputs(&p);
            run(&p, 2, true, true);
            for (int64_t i = 0; i < out; i++) assert_true(fabs(get(&p, OUT, i)) <= 1.01 * most_v);
            for (int64_t i = 0; i < queries; i++) assert_true(isfinite(get(&p, DQ, i)));
            for (int64_t i = 0; i < keys; i++) {
                assert_true(isfinite(get(&p, DK, i)));
                assert_true(fabs(get(&p, DV, i)) <= 1.01 * 19 * most_d);
            }
            put(&p, Q, 0, NAN);
            run(&p, 2, true, true);
            assert_true(isnan(get(&p, OUT, 0)) && isfinite(get(&p, OUT, stride)));
            assert_true(isnan(get(&p, DQ, 0)) && isfinite(get(&p, DQ, stride_of(&c, DQ))));
            for (int64_t j = 0; j < c.keys; j++) {
                assert_true(isnan(get(&p, DK, j * stride_of(&c, DK))));
                assert_true(isnan(get(&p, DV, j * stride_of(&c, DV))));
            }
            close_problem(&p);
        }
    assert_int_equal(lam_isa_select(), LAM_OK);
}

int main(void) {
    lam_threads_set(2);
    const struct CMUnitTest tests[] = {ON_ALL(f32), ON_ALL(bf16), ON_ALL(threads), ON_ALL(extremes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
