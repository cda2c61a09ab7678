/* Mean, median and biweight against numpy, aggregation in several steps, labels that are missing or cannot be. */
#include "eval/aggregate.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/fault.h"
#include "base/memory.h"
#include "base/threads.h"

enum { ROWS = 23, GROUPS = 4 };

static uint32_t generator;
static double u(void) {
    generator = 1664525u * generator + 1013904223u;
    return (double)generator / 4294967296.0;
}

static void fill(double *x, int64_t rows, int64_t columns) {
    generator = 99;
    for (int64_t i = 0; i < rows; i++) {
        double t = u();
        for (int64_t j = 0; j < columns; j++) x[i * columns + j] = t * (double)(j + 1) + u();
    }
}

static void against_numpy(void **state) {
    (void)state;
    static const double golden[3][GROUPS * 2] = {
        {7.277122173729974, -0.4274381631985307, 0.9004837193060666, 1.4577877048868686, 1.018509009309734,
         1.9380686649431784, 0.7741137225646526, 1.1749187054578214},
        {0.746763609116897, 1.2058987761847675, 0.6967240127269179, 1.3101575744803995, 0.8667852578219026,
         1.8908522729761899, 0.7409368057269603, 1.0723672194872051},
        {0.7175582517735355, 1.289858462642881, 0.6967240127269179, 1.3101575744803995, 0.9421682573982834,
         1.9325194192384736, 0.772531533911623, 1.0690816168424406}};
    double x[ROWS * 2], out[GROUPS * 2];
    int64_t codes[ROWS], counts[GROUPS];
    fill(x, ROWS, 2);
    x[16] = 40, x[17] = -9; /* an outlier in group 0 */
    for (int i = 5; i < 14; i += 4)
        memcpy(x + 2 * i, x + 2, 2 * sizeof *x); /* most of group 1 are equal: MAD 0 */
    for (int i = 0; i < ROWS; i++) codes[i] = i % GROUPS;
    for (int m = 0; m < 3; m++) {
        assert_int_equal(lam_aggregate(x, ROWS, 2, codes, GROUPS, (lam_aggregate_method)m, out, counts),
                         LAM_OK);
        for (int k = 0; k < GROUPS * 2; k++)
            if (!(fabs(out[k] - golden[m][k]) < 1e-13)) fail_msg("%d %d: %.17g", m, k, out[k]);
        assert_int_equal(counts[0], 6);
        assert_int_equal(counts[3], 5);
    }
}

/* One row; two rows; all equal; sorted and reversed runs of every length. */
static void edges(void **state) {
    (void)state;
    double x[101], out;
    int64_t codes[101] = {0}, count;
    for (int m = 0; m < 3; m++) {
        x[0] = -3.5;
        assert_int_equal(lam_aggregate(x, 1, 1, codes, 1, (lam_aggregate_method)m, &out, &count), LAM_OK);
        assert_true(out == -3.5);
        x[1] = 4.5;
        assert_int_equal(lam_aggregate(x, 2, 1, codes, 1, (lam_aggregate_method)m, &out, &count), LAM_OK);
        assert_true(out == 0.5);
        for (int i = 0; i < 101; i++) x[i] = 0.1;
        assert_int_equal(lam_aggregate(x, 101, 1, codes, 1, (lam_aggregate_method)m, &out, &count), LAM_OK);
        assert_true(fabs(out - 0.1) < 1e-15);
        for (int n = 1; n <= 101; n++)
            for (int order = 0; order < 3; order++) {
                for (int i = 0; i < n; i++) x[i] = order == 0 ? i : order == 1 ? n - 1 - i : i * 37 % n;
                if (order == 2 && n % 37 == 0) continue; /* no permutation */
                assert_int_equal(lam_aggregate(x, n, 1, codes, 1, (lam_aggregate_method)m, &out, &count),
                                 LAM_OK);
                assert_true(fabs(out - 0.5 * (n - 1)) < 1e-10);
            }
    }
}

static void threads_change_nothing(void **state) {
    (void)state;
    enum { N = 900, D = 40, G = 7 };
    static double x[N * D], out[2][G * D];
    int64_t codes[N], counts[G];
    fill(x, N, D);
    for (int i = 0; i < N; i++) codes[i] = i * i % G == 3 ? 3 : i % G;
    for (int m = 0; m < 3; m++) {
        for (int t = 0; t < 2; t++) {
            lam_threads_set(t + 1);
            assert_int_equal(lam_aggregate(x, N, D, codes, G, (lam_aggregate_method)m, out[t], counts),
                             LAM_OK);
        }
        assert_memory_equal(out[0], out[1], sizeof out[0]);
    }
}

/* ---- tables ---- */

static lam_embeddings *wells(void) {
    static const char *const gene[] = {"B", "A", "A", "A", "B", "", "A"};
    static const char *const guide[] = {"1", "1", "1", "2", "1", "1", ""};
    static const double values[] = {1, 2, 4, 9, 5, 100, 30};
    lam_embeddings *e;
    assert_int_equal(lam_alloc((void **)&e, sizeof *e), LAM_OK);
    e->rows = 7, e->columns = 1;
    assert_int_equal(lam_alloc_array((void **)&e->values, 7, sizeof(double)), LAM_OK);
    memcpy(e->values, values, sizeof values);
    assert_int_equal(lam_table_create(&e->obs, 7), LAM_OK);
    assert_int_equal(lam_table_add(e->obs, "gene", gene), LAM_OK);
    assert_int_equal(lam_table_add(e->obs, "guide", guide), LAM_OK);
    assert_int_equal(lam_texts_pack(&e->index, gene, 7), LAM_OK);
    return e;
}

/* guide 1 of A: 3, guide 2: 9, no guide: 30. By gene alone the rows weigh the same, by guide and gene the guides do. */
static void guides_before_genes(void **state) {
    (void)state;
    static const char *const by[] = {"guide", "gene"};
    lam_embeddings *e = wells();
    assert_int_equal(lam_aggregate_by(e, by + 1, 1, LAM_AGGREGATE_MEAN), LAM_OK);
    assert_int_equal(e->rows, 2); /* the row without a gene is gone */
    assert_true(e->values[0] == 45.0 / 4 && e->values[1] == 3);
    assert_string_equal(lam_table_cell(e->obs, 0, lam_table_column(e->obs, "count")), "4");
    lam_embeddings_free(e);
    e = wells();
    assert_int_equal(lam_aggregate_by(e, by, 2, LAM_AGGREGATE_MEAN), LAM_OK);
    assert_int_equal(e->rows, 2);
    assert_true(e->values[0] == 14 && e->values[1] == 3);
    assert_string_equal(e->index[0], "A");
    assert_string_equal(lam_table_cell(e->obs, 1, lam_table_column(e->obs, "gene")), "B");
    assert_string_equal(lam_table_cell(e->obs, 0, lam_table_column(e->obs, "count")), "3");
    assert_int_equal(lam_table_column(e->obs, "guide"), -1);
    lam_embeddings_free(e);
    e = wells();
    assert_int_equal(lam_aggregate_by(e, by, 2, LAM_AGGREGATE_MEDIAN), LAM_OK);
    assert_true(e->values[0] == 9 && e->values[1] == 3);
    lam_embeddings_free(e);
}

static void refused(void **state) {
    (void)state;
    static const struct {
        const char *by[3];
        int count;
        lam_status status;
        const char *message;
    } cases[] = {{{"gnee"}, 1, LAM_ERROR_INPUT, "gnee"},
                 {{"gene", "guide", "gene"}, 3, LAM_ERROR_USAGE, "'gene' twice"},
                 {{"count"}, 1, LAM_ERROR_INPUT, "count"},
                 {{NULL}, 0, LAM_ERROR_USAGE, "1 to 16"},
                 {{NULL}, 17, LAM_ERROR_USAGE, "1 to 16"}};
    lam_embeddings *e = wells();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(lam_aggregate_by(e, cases[i].by, cases[i].count, LAM_AGGREGATE_MEAN),
                         cases[i].status);
        if (!strstr(lam_last_error(), cases[i].message)) fail_msg("%s", lam_last_error());
        assert_int_equal(e->rows, 7);
    }
    for (int64_t i = 0; i < 7; i++) assert_int_equal(lam_table_set(e->obs, i, 0, ""), LAM_OK);
    assert_int_equal(lam_aggregate_by(e, (const char *const[]){"gene"}, 1, LAM_AGGREGATE_MEAN),
                     LAM_ERROR_INPUT);
    assert_non_null(strstr(lam_last_error(), "empty in every row"));
    assert_int_equal(lam_table_add(e->obs, "count", NULL), LAM_OK);
    assert_int_equal(lam_aggregate_by(e, (const char *const[]){"count"}, 1, LAM_AGGREGATE_MEAN),
                     LAM_ERROR_USAGE);
    lam_embeddings_free(e);
    for (int64_t n = 1; n < 60; n++) { /* every allocation may fail: nothing leaks (the sanitizers see) */
        e = wells();
        lam_fault_arm(LAM_FAULT_ALLOC, n);
        lam_status status =
            lam_aggregate_by(e, (const char *const[]){"guide", "gene"}, 2, LAM_AGGREGATE_ROBUST);
        lam_fault_arm(LAM_FAULT_ALLOC, 0);
        assert_true(status == LAM_OK || status == LAM_ERROR_MEMORY);
        lam_embeddings_free(e);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(against_numpy), cmocka_unit_test(edges),
                                       cmocka_unit_test(threads_change_nothing),
                                       cmocka_unit_test(guides_before_genes), cmocka_unit_test(refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
