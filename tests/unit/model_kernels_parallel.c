/* The parallel block: rows of weights that are scaled (LayerScale). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/kernel_check.h"

static void run_scale_rows(bench *b, const lam_kernels *k) {
    k->scale_rows(AT(0), AT(1), AT(2), b->n[0], b->n[1]);
}
static void run_scale_rows_backward(bench *b, const lam_kernels *k) {
    k->scale_rows_backward(AT(0), AT(1), AT(2), AT(3), AT(4), b->n[0], b->n[1]);
}

static void parallel(bench *b) {
    static const int64_t scaled[][2] = {{1, 1}, {9, 33}, {20, 128}, {70, 1}, {3, 1000}};
    for (size_t i = 0; i < sizeof scaled / sizeof *scaled; i++) {
        int64_t rows = b->n[0] = scaled[i][0], width = b->n[1] = scaled[i][1];
        add_array(b, FLOATS, READ, rows * width);
        add_array(b, FLOATS, READ, rows);
        add_array(b, FLOATS, WRITTEN, rows * width);
        run(b, "scale_rows", run_scale_rows);
        add_array(b, FLOATS, READ, rows * width);
        add_array(b, FLOATS, READ, rows);
        add_array(b, FLOATS, READ, rows * width);
        add_array(b, FLOATS, ADDED, rows * width);
        add_array(b, FLOATS, ADDED, rows);
        run(b, "scale_rows_backward", run_scale_rows_backward);
    }
}

static void of_parallel(void **state) { (void)state, both_types(parallel); }

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(of_parallel)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
