/* Where parameters lie and what they start from. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "model/graph.h"

static void ok(lam_status status) {
    if (status != LAM_OK) fail_msg("%s", lam_last_error());
}

/* Weights depend on (seed, name, element) alone; the padding is zero; frozen parameters lie at the end. */
static void layout(void **state) {
    (void)state;
    lam_parameters *a, *b;
    ok(lam_parameters_create(&a));
    ok(lam_parameters_create(&b));
    ok(lam_parameters_add(a, "first", 2, (int64_t[]){3, 7}, LAM_INIT_XAVIER_UNIFORM, 0, true));
    ok(lam_parameters_add(a, "table", 1, (int64_t[]){5}, LAM_INIT_FROZEN, 0, false));
    ok(lam_parameters_add(a, "last", 1, (int64_t[]){17}, LAM_INIT_NORMAL, 0.02, true));
    ok(lam_parameters_add(b, "other", 1, (int64_t[]){40}, LAM_INIT_ONE, 0, true));
    ok(lam_parameters_add(b, "first", 2, (int64_t[]){3, 7}, LAM_INIT_XAVIER_UNIFORM, 0, true));
    ok(lam_parameters_layout(a, 77));
    ok(lam_parameters_layout(b, 77));
    const lam_parameter_entry *first = lam_parameters_find(a, "first"),
                              *last = lam_parameters_find(a, "last"),
                              *table = lam_parameters_find(a, "table");
    assert_int_equal(last->offset, 0);
    assert_int_equal(first->offset, 32);
    assert_int_equal(table->offset, 64);
    assert_int_equal(a->trainable, 64);
    assert_int_equal(a->count, 80);
    for (int i = 17; i < 32; i++) assert_true(a->weights[i] == 0);
    assert_memory_equal(a->weights + first->offset, b->weights + lam_parameters_find(b, "first")->offset,
                        21 * sizeof(float));
    float limit = sqrtf(6.0f / 10.0f), largest = 0;
    for (int i = 0; i < 21; i++) largest = fmaxf(largest, fabsf(a->weights[first->offset + i]));
    assert_true(largest <= limit && largest > 0.5f * limit);
    lam_parameters_free(a);
    lam_parameters_free(b);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(layout)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
