/* Rules over columns, nearest neighbours of another compound, and the ranking of targets. */
#include "eval/matching.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "base/threads.h"
#include "eval/compound_gene.h"

static void ok(lam_status status) {
    if (status != LAM_OK) fail_msg("%s", lam_last_error());
}

static uint32_t generator;
static double u(void) {
    generator = 1664525u * generator + 1013904223u;
    return (double)generator / 4294967296.0;
}

/* Columns together, in sorted order; an empty cell in one of them is none. */
static void codes(void **state) {
    (void)state;
    static const char *const gene[] = {"B", "A", "A", "", "B", "A"}, *const dose[] = {"1", "2", "10",
                                                                                      "1", "1", ""};
    static const int64_t expected[] = {2, 1, 0, -1, 2, -1};
    lam_table *table;
    int64_t *got, levels;
    ok(lam_table_create(&table, 6));
    ok(lam_table_add(table, "gene", gene));
    ok(lam_table_add(table, "dose", dose));
    ok(lam_rule_codes(table, (const int[]){0, 1}, 2, &got, &levels));
    assert_int_equal(levels, 3);
    assert_memory_equal(got, expected, sizeof expected);
    lam_free(got);
    ok(lam_rule_codes(table, (const int[]){0}, 1, &got, &levels));
    assert_int_equal(levels, 2);
    assert_int_equal(got[3], -1);
    lam_free(got);
    lam_table_free(table);
}

/* Blocks hold the complete candidates, in order; an incomplete row is in none. */
static void blocks(void **state) {
    (void)state;
    static const int64_t same[] = {1, 0, -1, 1, 3, 1}, different[] = {0, 0, 0, -1, 0, 2};
    static const bool candidates[] = {true, true, true, true, false, true};
    lam_rule rule = {
        .rows = 6, .same = same, .different = {different}, .differences = 1, .candidates = candidates};
    lam_rule_blocks b;
    ok(lam_rule_blocks_make(&b, &rule));
    assert_int_equal(b.blocks, 4);
    static const int64_t start[] = {0, 1, 3, 3, 3}, rows[] = {1, 0, 5};
    assert_memory_equal(b.start, start, sizeof start);
    assert_memory_equal(b.rows, rows, sizeof rows);
    lam_rule_blocks_free(&b);
    assert_true(lam_rule_complete(&rule, 4) && !lam_rule_complete(&rule, 3) && !lam_rule_complete(&rule, 2));
    assert_true(lam_rule_differs(&rule, 0, 5) && !lam_rule_differs(&rule, 0, 1) &&
                !lam_rule_differs(&rule, 5, 5));
}

/* Against a look at all pairs, on several tiles, with copies, empty cells and rows that do not ask; one and two threads. */
static void nearest(void **state) {
    (void)state;
    enum { N = 650, D = 6 };
    static double x[N * D];
    static int64_t compound[N], batch[N], label[N];
    static bool asked[N];
    static lam_neighbour one[N], two[N];
    generator = 11;
    for (int i = 0; i < N; i++) {
        int copied = i % 4 == 3 ? (int)(u() * i) : -1;
        for (int j = 0; j < D; j++) x[i * D + j] = copied >= 0 ? x[copied * D + j] : u() - 0.5;
        compound[i] = u() < 0.03 ? -1 : (int64_t)(u() * 60);
        batch[i] = (int64_t)(u() * 3);
        label[i] = (int64_t)(u() * 5);
        asked[i] = u() < 0.9;
    }
    lam_directions directions;
    ok(lam_directions_make(&directions, x, N, D));
    for (int differences = 1; differences <= 2; differences++) { /* NSC, NSCB */
        lam_rule rule = {N, NULL, {compound, batch}, differences, asked, asked};
        lam_threads_set(1);
        ok(lam_match_nearest(&directions, &rule, label, one));
        lam_threads_set(2);
        ok(lam_match_nearest(&directions, &rule, label, two));
        lam_threads_set(0);
        for (int i = 0; i < N; i++) {
            int64_t best = -1;
            double cosine = (double)NAN;
            for (int64_t j = 0; j < N; j++) {
                if (i == j || !asked[i] || !asked[j] || compound[i] < 0 || compound[j] < 0 ||
                    compound[i] == compound[j] || (differences == 2 && batch[i] == batch[j]))
                    continue;
                double c = lam_directions_cosine(&directions, i, j);
                bool better = best < 0 || c > cosine ||
                              (c == cosine && label[best] == label[i] && label[j] != label[i]);
                if (better) best = j, cosine = c;
            }
            assert_int_equal(one[i].row, best);
            assert_int_equal(two[i].row, best);
            assert_true(one[i].cosine == cosine || (isnan(cosine) && isnan(one[i].cosine)));
        }
    }
    lam_directions_free(&directions);
}

/* Two targets stand on the compound's line, one of them opposite; at the first dose they do not. */
static void targets(void **state) {
    (void)state;
    enum { GENES = 60, DOSES = 2, ROWS = GENES + DOSES, D = 3, SEEDS = 5, MEASURES = LAM_COMPOUND_MEASURES };
    double x[ROWS * D], one[2 * (DOSES + 1) * SEEDS * MEASURES], two[sizeof one / sizeof *one];
    generator = 2;
    for (int i = 0; i < ROWS * D; i++) x[i] = u() - 0.5;
    static const double axis[D] = {0, 0, 1}, other[D] = {1, 0, 0};
    for (int j = 0; j < D; j++) {
        x[0 * D + j] = axis[j];
        x[1 * D + j] = -2 * axis[j];
        x[(GENES + 0) * D + j] = other[j];
        x[(GENES + 1) * D + j] = 3 * axis[j];
    }
    int64_t active[2] = {0, 1}, pool[GENES], doses[DOSES] = {GENES, GENES + 1};
    for (int g = 2; g < GENES; g++) pool[g - 2] = g;
    lam_compound compounds[2] = {{doses, DOSES, active, pool, 2, GENES - 2},
                                 {doses, DOSES, active, pool, 1, 3}};
    lam_directions directions;
    ok(lam_directions_make(&directions, x, ROWS, D));
    lam_threads_set(1);
    ok(lam_compound_gene(&directions, compounds, 2, SEEDS, 9, LAM_TIES_NEGATIVES_FIRST, one));
    lam_threads_set(2);
    ok(lam_compound_gene(&directions, compounds, 2, SEEDS, 9, LAM_TIES_NEGATIVES_FIRST, two));
    lam_threads_set(0);
    assert_memory_equal(one, two, sizeof one);
    for (int s = 0; s < SEEDS; s++) {
        const double *low = one + s * MEASURES, *high = low + SEEDS * MEASURES,
                     *most = high + SEEDS * MEASURES;
        assert_true(low[LAM_COMPOUND_AUC] == 0 && high[LAM_COMPOUND_AP] == 1 && high[LAM_COMPOUND_AUC] == 1);
        assert_true(most[LAM_COMPOUND_AP] == 1 && most[LAM_COMPOUND_AUC] == 1);
        /* 20 negatives before the two: AP = (1/21 + 2/22) / 2. */
        assert_true(fabs(low[LAM_COMPOUND_AP] - (1.0 / 21 + 2.0 / 22) / 2) < 1e-15);
        assert_true(low[LAM_COMPOUND_RANDOM_AP] == most[LAM_COMPOUND_RANDOM_AP]);
        assert_true(low[LAM_COMPOUND_RANDOM_AUC] > 0 && low[LAM_COMPOUND_RANDOM_AUC] <= 1);
    }
    /* A seed is a seed wherever it stands. */
    ok(lam_compound_gene(&directions, compounds, 2, 1, 12, LAM_TIES_NEGATIVES_FIRST, two));
    assert_true(two[LAM_COMPOUND_RANDOM_AP] == one[3 * MEASURES + LAM_COMPOUND_RANDOM_AP]);
    compounds[1].pool_count = 0;
    assert_int_equal(lam_compound_gene(&directions, compounds, 2, 1, 0, LAM_TIES_NEGATIVES_FIRST, two),
                     LAM_ERROR_INTERNAL);
    lam_directions_free(&directions);
}

/* numpy.quantile. */
static void quantiles(void **state) {
    (void)state;
    double values[] = {3, 1, (double)NAN, 4, 1, 5};
    assert_true(lam_quantile(values, 6, 0.5) == 3);
    double again[] = {9, 2, 6, 5};
    assert_true(fabs(lam_quantile(again, 4, 0.75) - 6.75) < 1e-15);
    assert_true(fabs(lam_quantile(again, 4, 0.95) - 8.55) < 1e-14);
    assert_true(lam_quantile(again, 4, 1) == 9 && lam_quantile(again, 1, 0.3) == 2);
    assert_true(isnan(lam_quantile(again, 0, 0.5)));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(codes), cmocka_unit_test(blocks),
                                       cmocka_unit_test(nearest), cmocka_unit_test(targets),
                                       cmocka_unit_test(quantiles)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
