/* Attention with the norm of the heads of q and k (attention_check.h). */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/attention_check.h"

static const attention_case cases[] = {
    {"normed, one token", 2, 1, 1, 3, 4, 0, 1, NO_MASK, false, true},
    {"normed, head_dim 5", 2, 67, 67, 2, 5, 1, 1, NO_MASK, false, true},
    {"normed, head_dim 32", 1, 50, 50, 3, 32, 0, 1, SOME_KEYS, true, true},
    {"normed, head_dim 64", 2, 65, 65, 2, 64, 0, 1, NO_MASK, false, true},
    {"normed, head_dim 80", 1, 65, 65, 1, 80, 8, 1.5, SOME_KEYS, false, true},
    {"normed, no key", 2, 33, 33, 2, 24, 0, 1, NO_KEY_IN_SAMPLE_0, false, true},
    {"normed, no key, head_dim 5, added", 2, 33, 33, 2, 5, 0, 1, NO_KEY_IN_SAMPLE_0, true, true},
    {"normed, no key, head_dim 128", 2, 19, 19, 1, 128, 0, 1, NO_KEY_IN_SAMPLE_0, false, true},
};

/* What else a device tells apart: whether attention takes the norm itself, both passes or the backward one alone (385 tokens of
 * head_dim 64); how heads and blocks share each other; scores that need the online softmax. */
static const attention_case device_cases[] = {
    {"normed, one token of whole vectors", 3, 1, 1, 2, 8, 0, 1, NO_MASK, false, true},
    {"normed, heads share a block", 16, 17, 17, 8, 64, 0, 1, NO_MASK, false, true},
    {"normed, heads share a block, masked", 16, 9, 9, 8, 40, 0, 1, SOME_KEYS, true, true},
    {"normed, blocks share a head", 1, 257, 257, 1, 64, 0, 1, SOME_KEYS, false, true},
    {"normed, sides in turn", 2, 290, 290, 2, 48, 0, 1, NO_MASK, true, true},
    {"normed, head_dim 104", 2, 65, 65, 2, 104, 0, 1, NO_MASK, true, true},
    {"normed, head_dim 104, odd stride", 1, 20, 20, 1, 104, 1, 1, SOME_KEYS, true, true},
    {"normed, head_dim 128", 1, 50, 50, 1, 128, 0, 1, SOME_KEYS, true, true},
    {"normed, 385 tokens", 1, 385, 385, 1, 64, 0, 1, NO_MASK, true, true},
    {"normed, 1025 tokens", 1, 1025, 1025, 1, 64, 0, 1, NO_MASK, false, true},
    {"normed, no key, streamed", 2, 750, 750, 1, 64, 0, 1, NO_KEY_IN_SAMPLE_0, false, true},
    {"normed, one key", 5, 31, 31, 1, 16, 0, 1, ONE_KEY, false, true},
    {"normed, online", 1, 130, 130, 1, 64, 0, 6, NO_MASK, false, true},
    {"normed, online, heads share a block", 16, 17, 17, 8, 64, 0, 6, NO_MASK, false, true},
    {"normed, online, masked", 1, 70, 70, 1, 80, 0, 5, SOME_KEYS, false, true},
};

static void f32(void **state) {
    check_all(cases, COUNT(cases), device_cases, COUNT(device_cases), *state, false);
}
static void bf16(void **state) {
    check_all(cases, COUNT(cases), device_cases, COUNT(device_cases), *state, true);
}

static void threads(void **state) {
    static const attention_case c = {"threads, normed", 3, 45, 45, 3, 16, 0, 1, SOME_KEYS, false, true};
    check_threads(&c, *state);
}

int main(void) {
    lam_threads_set(2);
    const struct CMUnitTest tests[] = {ON_ALL(f32), ON_ALL(bf16), ON_ALL(threads)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
