/* LayerNorm and stochastic depth: rows with and without branches, places, sums and gradients that are added to. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/kernel_check.h"

/* Places of the samples that are kept, about 2 of 3. Returns how many. */
static int64_t add_places(bench *b, int64_t samples) {
    int32_t *place = add_array(b, INTS, READ, samples)->start, kept = 0;
    for (int64_t s = 0; s < samples; s++) place[s] = lam_rng_uniform(&b->stream) < 0.67 ? kept++ : -1;
    return kept;
}

enum { ROWS, WIDTH, TOKENS, R_KEPT, Y_KEPT, FLAGS };
enum { WITH_R = 1, WITH_PLACES = 2, WITH_SUM = 4, ADDS = 8 };

/* Behind the placed rows are 3 that are zero. */
enum { BEHIND = 3 };

static lam_sample_places placed(const bench *b, int r, int y, int scale) {
    return (lam_sample_places){.tokens = b->n[TOKENS],
                               .r = AT(r),
                               .y = y < 0 ? NULL : AT(y),
                               .r_scale = AT(scale),
                               .r_rows = b->on_device ? b->n[R_KEPT] * b->n[TOKENS] + BEHIND : 0,
                               .y_rows = b->on_device && y >= 0 ? b->n[Y_KEPT] * b->n[TOKENS] + BEHIND : 0};
}

/* What the device is asked for and the CPU is not. */
static void zero_behind(const bench *b, int k, int64_t kept) {
    if (b->on_device) return;
    size_t element = b->bf16 ? 2 : 4, at = (size_t)(kept * b->n[TOKENS] * b->n[WIDTH]) * element;
    memset((char *)AT(k) + at, 0, (size_t)(BEHIND * b->n[WIDTH]) * element);
}

static void run_layernorm(bench *b, const lam_kernels *k) {
    int64_t flags = b->n[FLAGS];
    lam_sample_places places = {0};
    if (flags & WITH_PLACES) places = placed(b, 8, 9, 10);
    k->layernorm(AT(0), flags & WITH_R ? AT(1) : NULL, AT(2), AT(3), flags & WITH_R ? AT(4) : NULL, AT(5),
                 AT(6), AT(7), b->n[ROWS], b->n[WIDTH], 1e-6f, flags & WITH_PLACES ? &places : NULL);
    if (flags & WITH_PLACES) zero_behind(b, 5, b->n[Y_KEPT]);
}

static void run_layernorm_again(bench *b, const lam_kernels *k) {
    lam_sample_places places = {0};
    if (b->n[FLAGS] & WITH_PLACES) places = placed(b, 6, 7, 8);
    k->layernorm_again(AT(0), AT(1), AT(2), AT(3), AT(4), AT(5), b->n[ROWS], b->n[WIDTH],
                       b->n[FLAGS] & WITH_PLACES ? &places : NULL);
    if (b->n[FLAGS] & WITH_PLACES) zero_behind(b, 3, b->n[Y_KEPT]);
}

static void run_layernorm_backward(bench *b, const lam_kernels *k) {
    int64_t flags = b->n[FLAGS];
    lam_sample_places places = {0};
    if (flags & WITH_PLACES) places = placed(b, 11, 12, 13);
    k->layernorm_backward(AT(0), AT(1), AT(2), AT(3), AT(4), flags & WITH_SUM ? AT(5) : NULL, AT(6),
                          flags & ADDS, flags & WITH_R ? AT(7) : NULL, flags & ADDS, AT(8), AT(9), AT(10),
                          b->n[ROWS], b->n[WIDTH], flags & WITH_PLACES ? &places : NULL);
    if (flags & WITH_PLACES && flags & WITH_R && !(flags & ADDS)) zero_behind(b, 7, b->n[R_KEPT]);
}

static void run_depth_add(bench *b, const lam_kernels *k) {
    lam_sample_places places = placed(b, 3, -1, 4);
    k->depth_add(AT(0), AT(1), AT(2), b->n[ROWS], b->n[WIDTH], &places);
}

static void run_depth_add_backward(bench *b, const lam_kernels *k) {
    lam_sample_places places = placed(b, 2, -1, 3);
    k->depth_add_backward(AT(0), AT(1), b->n[FLAGS] & ADDS, b->n[ROWS], b->n[WIDTH], &places);
    if (!(b->n[FLAGS] & ADDS)) zero_behind(b, 1, b->n[R_KEPT]);
}

/* The scales and places of r and of y, and how many rows of either there are. */
static void add_depth(bench *b, bool y, int64_t *r_rows, int64_t *y_rows) {
    int64_t samples = b->n[ROWS] / b->n[TOKENS];
    b->n[R_KEPT] = add_places(b, samples);
    *r_rows = b->n[R_KEPT] * b->n[TOKENS] + BEHIND;
    if (y) {
        b->n[Y_KEPT] = add_places(b, samples);
        *y_rows = b->n[Y_KEPT] * b->n[TOKENS] + BEHIND;
    }
    *(float *)add_array(b, FLOATS, READ, 1)->start = 1.25f;
}

static void resize(const bench *b, int k, int64_t rows) { /* down, behind the guards of the larger one */
    array *a = (array *)&b->a[k];
    a->count = rows * b->n[WIDTH];
    memset((char *)a->start + bytes_of(b, a), GUARD_BYTE, GUARD);
}

static void norms(bench *b, int64_t rows, int64_t width, int64_t tokens, int64_t flags) {
    int64_t r_rows = rows, y_rows = rows, most = rows + BEHIND;
    bool depth = flags & WITH_PLACES;
    b->n[ROWS] = rows;
    b->n[WIDTH] = width;
    b->n[TOKENS] = tokens;
    b->n[FLAGS] = flags;

    add_array(b, REAL, READ, rows * width);
    add_array(b, REAL, READ, most * width);
    add_array(b, FLOATS, READ, width);
    add_array(b, FLOATS, READ, width);
    add_array(b, REAL, WRITTEN, rows * width);
    add_array(b, REAL, WRITTEN, most * width);
    add_array(b, FLOATS, WRITTEN, rows);
    add_array(b, FLOATS, WRITTEN, rows);
    if (depth) add_depth(b, true, &r_rows, &y_rows);
    resize(b, 1, r_rows);
    resize(b, 5, y_rows);
    run(b, "layernorm", run_layernorm);

    add_array(b, REAL, READ, rows * width);
    add_array(b, FLOATS, READ, width);
    add_array(b, FLOATS, READ, width);
    add_array(b, REAL, WRITTEN, most * width);
    add_array(b, FLOATS, READ, rows);
    add_array(b, FLOATS, READ, rows);
    if (depth) add_depth(b, true, &r_rows, &y_rows);
    resize(b, 3, y_rows);
    run(b, "layernorm_again", run_layernorm_again);

    role added = flags & ADDS ? ADDED : WRITTEN;
    add_array(b, REAL, READ, rows * width);
    add_array(b, FLOATS, READ, width);
    add_array(b, FLOATS, READ, rows);
    add_array(b, FLOATS, READ, rows);
    add_array(b, REAL, READ, most * width);
    add_array(b, REAL, READ, rows * width);
    add_array(b, REAL, added, rows * width);
    add_array(b, REAL, added, most * width);
    add_array(b, FLOATS, ADDED, width);
    add_array(b, FLOATS, ADDED, width);
    add_array(b, FLOATS, SCRATCH, 2 * lam_column_partials(rows) * width);
    if (depth) add_depth(b, true, &r_rows, &y_rows);
    resize(b, 4, y_rows);
    resize(b, 7, r_rows);
    run(b, "layernorm_backward", run_layernorm_backward);
    if (!depth) return;

    add_array(b, REAL, READ, rows * width);
    add_array(b, REAL, READ, most * width);
    add_array(b, REAL, WRITTEN, rows * width);
    add_depth(b, false, &r_rows, NULL);
    resize(b, 1, r_rows);
    run(b, "depth_add", run_depth_add);

    add_array(b, REAL, READ, rows * width);
    add_array(b, REAL, added, most * width);
    add_depth(b, false, &r_rows, NULL);
    resize(b, 1, r_rows);
    run(b, "depth_add_backward", run_depth_add_backward);
}

static void all_norms(bench *b) {
    static const int64_t sizes[][3] = {{1, 1, 1},     {6, 20, 2},   {35, 37, 5},  {18, 384, 3}, {9, 512, 3},
                                       {10, 1024, 5}, {4, 1280, 2}, {6, 2048, 2}, {4, 2049, 1}, {3, 1025, 1},
                                       {2, 4104, 1},  {2, 9000, 1}, {4200, 8, 5}, {2, 515, 1}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int64_t flags = 0; flags < 16; flags++) {
            bool rare = flags & WITH_PLACES && !(flags & WITH_R); /* nobody calls it so */
            if (rare || (i > 3 && flags != 0 && flags != 7 && flags != 15)) continue;
            norms(b, sizes[i][0], sizes[i][1], sizes[i][2], flags);
        }
}

static void of_norms(void **state) { (void)state, both_types(all_norms); }

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(of_norms)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
