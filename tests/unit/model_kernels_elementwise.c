/* Kernels that go element by element, and biases. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/kernel_check.h"

static void run_gelu(bench *b, const lam_kernels *k) { k->gelu(AT(0), AT(1), b->n[0]); }
static void run_gelu_slope(bench *b, const lam_kernels *k) { k->gelu_slope(AT(0), AT(1), b->n[0]); }
static void run_multiply(bench *b, const lam_kernels *k) { k->multiply(AT(1), AT(0), b->n[0]); }
static void run_accumulate(bench *b, const lam_kernels *k) { k->accumulate(AT(0), AT(1), b->n[0]); }
static void run_add(bench *b, const lam_kernels *k) { k->add(AT(0), AT(1), AT(2), b->n[0]); }
static void run_add_bias(bench *b, const lam_kernels *k) {
    k->add_bias(AT(0), AT(1), b->n[0], b->n[1], b->n[2]);
}

static void spread(bench *b, array *a) { /* to where the tails of a normal distribution are */
    for (int64_t i = 0; i < a->count; i++) {
        float value = 12 * uniform(b);
        if (b->bf16)
            ((uint16_t *)a->start)[i] = lam_bf16_from_float(value);
        else
            ((float *)a->start)[i] = value;
    }
}

static void elements(bench *b) {
    static const int64_t counts[] = {1, 7, 8, 511, 2048, 5003};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        int64_t n = b->n[0] = counts[i];
        spread(b, add_array(b, REAL, READ, n));
        add_array(b, REAL, WRITTEN, n);
        run(b, "gelu", run_gelu);
        spread(b, add_array(b, REAL, ADDED, n));
        add_array(b, REAL, WRITTEN, n);
        run(b, "gelu_slope", run_gelu_slope);
        for (int which = 0; which < 2; which++) {
            add_array(b, REAL, ADDED, n);
            add_array(b, REAL, READ, n);
            run(b, which ? "multiply" : "accumulate", which ? run_multiply : run_accumulate);
        }
        add_array(b, REAL, READ, n);
        add_array(b, REAL, READ, n);
        add_array(b, REAL, WRITTEN, n);
        run(b, "add", run_add);
    }
    static const int64_t biased[][3] = {{1, 1, 1}, {9, 20, 40}, {17, 384, 384}, {3, 37, 41}};
    for (size_t i = 0; i < sizeof biased / sizeof *biased; i++) {
        memcpy(b->n, biased[i], sizeof biased[i]);
        add_array(b, REAL, ADDED, b->n[0] * b->n[2]);
        add_array(b, FLOATS, READ, b->n[1]);
        run(b, "add_bias", run_add_bias);
    }
}

static void of_elements(void **state) { (void)state, both_types(elements); }

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(of_elements)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
