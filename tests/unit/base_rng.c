/* Philox: the published test vectors, and that draws are even and belong to their counter alone. */
#include "base/rng.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

/* Random123's known answers for philox4x32-10. */
static void known_answers(void **state) {
    (void)state;
    static const struct {
        uint32_t counter[4], key[2], out[4];
    } answers[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof answers / sizeof answers[0]; i++) {
        lam_rng_key_t key = {{answers[i].key[0], answers[i].key[1]}};
        uint32_t out[4];
        lam_philox4x32(key, answers[i].counter, out);
        assert_memory_equal(out, answers[i].out, sizeof out);
    }
}

/* Each part of (seed, purpose, a, b, c) moves the draw, and nothing else does. */
static void every_part_counts(void **state) {
    (void)state;
    uint32_t base[4], again[4], other[4];
    lam_rng_key_t key = lam_rng_key(1, LAM_RNG_TEST);
    lam_rng_words4(key, 1, 2, 3, base);
    lam_rng_words4(key, 1, 2, 3, again);
    assert_memory_equal(base, again, sizeof base);
    const struct {
        lam_rng_key_t key;
        uint32_t a;
        uint64_t b;
        uint32_t c;
    } changed[] = {{lam_rng_key(2, LAM_RNG_TEST), 1, 2, 3},
                   {lam_rng_key(1, LAM_RNG_MASK), 1, 2, 3},
                   {key, 0, 2, 3},
                   {key, 1, 2 + (UINT64_C(1) << 32), 3},
                   {key, 1, 1, 3},
                   {key, 1, 2, 2}};
    for (size_t i = 0; i < sizeof changed / sizeof changed[0]; i++) {
        lam_rng_words4(changed[i].key, changed[i].a, changed[i].b, changed[i].c, other);
        assert_memory_not_equal(base, other, sizeof base);
    }
}

/* Chi-square over 64 cells of 2^18 draws, from near counters and from near seeds: 63 degrees of freedom, 5 sigma. */
static void even(void **state) {
    (void)state;
    enum { CELLS = 64, DRAWS = 1 << 18 };
    for (int way = 0; way < 3; way++) {
        int cells[CELLS] = {0};
        double sum = 0, squares = 0;
        lam_rng stream = lam_rng_stream(5, LAM_RNG_TEST, 9);
        for (uint32_t i = 0; i < DRAWS; i++) {
            float u[4] = {0};
            if (way == 0) lam_rng_uniform4(lam_rng_key(0, LAM_RNG_TEST), 0, i, 0, u);
            if (way == 1) lam_rng_uniform4(lam_rng_key(i, LAM_RNG_TEST), 0, 0, 0, u);
            if (way == 2) u[0] = (float)lam_rng_uniform(&stream) * 0.99999994f;
            assert_true(u[0] >= 0 && u[0] < 1);
            cells[(int)(u[0] * CELLS)]++;
            double z = lam_rng_normal(&stream);
            sum += z;
            squares += z * z;
        }
        double chi = 0, expected = (double)DRAWS / CELLS;
        for (int i = 0; i < CELLS; i++) chi += (cells[i] - expected) * (cells[i] - expected) / expected;
        assert_true(fabs(chi - 63) < 5 * sqrt(2.0 * 63));
        assert_true(fabs(sum / DRAWS) < 5 / sqrt((double)DRAWS));
        assert_true(fabs(squares / DRAWS - 1) < 5 * sqrt(2.0 / DRAWS));
    }
}

static void bounds(void **state) {
    (void)state;
    assert_true(lam_word_uniform(0) == 0.0f);
    assert_true(lam_word_uniform(~0u) == 1.0f - 0x1p-24f);
    assert_int_equal(lam_word_below(~0u, 7), 6);
    assert_int_equal(lam_word_below(0, 7), 0);
    assert_int_equal(lam_word_below(~0u, 1), 0);
    assert_int_equal(lam_word_below(~0u, ~0u), ~0u - 1);
    lam_rng r = lam_rng_stream(1, LAM_RNG_TEST, 0), s = lam_rng_stream(1, LAM_RNG_TEST, 0);
    uint32_t words[4];
    lam_rng_words4(r.key, 0, 0, 1, words); /* the second block of the stream */
    for (int i = 0; i < 4; i++) lam_rng_word(&r);
    assert_int_equal(lam_rng_word(&r), words[0]);
    for (int i = 0; i < 100; i++) assert_true(lam_rng_below(&s, 3) < 3);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_answers),
        cmocka_unit_test(every_part_counts),
        cmocka_unit_test(even),
        cmocka_unit_test(bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
