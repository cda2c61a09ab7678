/* Average precision of replicates against numbers of copairs 0.5 and scikit-learn 1.x, against a ranking of all pairs on a problem of
 * several tiles, its order in ties, and its null against the distribution over all rankings. */
#include "eval/average_precision.h"

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

static void ok(lam_status status) {
    if (status != LAM_OK) fail_msg("%s", lam_last_error());
}

static void near(double value, double expected) {
    if (!(fabs(value - expected) <= 1e-12) && !(isnan(value) && isnan(expected)))
        fail_msg("%.17g, expected %.17g", value, expected);
}

static uint32_t generator;
static double u(void) {
    generator = 1664525u * generator + 1013904223u;
    return (double)generator / 4294967296.0;
}
static double n(void) {
    double a = u(), b = u(), c = u(), d = u();
    return a + b + c + d - 2;
}

enum { ROWS = 24, D = 4 };

/* copairs.map.average_precision on the same closed-form rows: gene i % 4, plate i / 4 % 3; first on controls (gene 0; reference
 * index) of the plate with replicates on other plates, then gene against gene. */
static void copairs(void **state) {
    (void)state;
    static const double on_controls[ROWS] = {NAN,
                                             0.5249999999999999,
                                             0.9166666666666666,
                                             0.5249999999999999,
                                             NAN,
                                             0.7333333333333333,
                                             0.6916666666666667,
                                             0.6083333333333333,
                                             NAN,
                                             0.6791666666666667,
                                             0.8041666666666667,
                                             0.6083333333333333,
                                             NAN,
                                             1.0,
                                             0.95,
                                             1.0,
                                             NAN,
                                             0.6083333333333333,
                                             0.8541666666666666,
                                             0.6458333333333333,
                                             NAN,
                                             0.5249999999999999,
                                             0.6458333333333333,
                                             0.6458333333333333};
    static const double on_others[ROWS] = {
        0.4188888888888889,  0.21013186160244982, 0.22698475437605872, 0.2638437001594896,
        0.213350684403316,   0.29322986954565905, 0.1833005590900328,  0.21265711412770236,
        0.30672562731386266, 0.19840080971659918, 0.20462426462426458, 0.26202686202686204,
        0.39555555555555555, 0.27596491228070175, 0.25476190476190474, 0.19511967501097932,
        0.20334670231729057, 0.1671900753708534,  0.23669463513857109, 0.20517316017316017,
        0.18152852049910875, 0.19383061383061384, 0.33999999999999997, 0.21774336774336778};
    double x[ROWS * D];
    int64_t gene[ROWS], plate[ROWS];
    bool control[ROWS], treated[ROWS];
    generator = 1;
    for (int i = 0; i < ROWS * D; i++) x[i] = n();
    for (int i = 0; i < ROWS; i++) {
        gene[i] = i % 4;
        plate[i] = i / 4 % 3;
        treated[i] = !(control[i] = gene[i] == 0);
        x[i * D + gene[i]] += 0.4;
    }
    lam_directions directions;
    lam_row_score scores[ROWS];
    ok(lam_directions_make(&directions, x, ROWS, D));
    lam_rule positive = {ROWS, gene, {plate}, 1, treated, treated},
             negative = {ROWS, plate, {NULL}, 0, treated, control};
    ok(lam_average_precision_rows(&directions, &positive, &negative, LAM_TIES_NEGATIVES_FIRST, scores));
    for (int i = 0; i < ROWS; i++) {
        near(scores[i].average_precision, on_controls[i]);
        assert_int_equal(scores[i].positives, control[i] ? 0 : 4);
        assert_int_equal(scores[i].negatives, control[i] ? 0 : 2);
    }
    positive = (lam_rule){.rows = ROWS, .same = gene};
    negative = (lam_rule){.rows = ROWS, .different = {gene}, .differences = 1};
    ok(lam_average_precision_rows(&directions, &positive, &negative, LAM_TIES_POSITIVES_FIRST, scores));
    for (int i = 0; i < ROWS; i++) {
        near(scores[i].average_precision, on_others[i]);
        assert_int_equal(scores[i].positives, 5);
        assert_int_equal(scores[i].negatives, 18);
    }
    lam_directions_free(&directions);
}

/* average_precision_score and roc_auc_score; halves for ties in the second. */
static void scikit_learn(void **state) {
    (void)state;
    enum { N = 12 };
    static const bool label[N] = {1, 0, 0, 1, 0, 0, 0, 1, 0, 0, 1, 0};
    lam_ranked items[N], rounded[N];
    generator = 7;
    for (int i = 0; i < N; i++) {
        items[i] = (lam_ranked){u(), label[i]};
        rounded[i] = (lam_ranked){floor(4 * items[i].score + 0.5) / 4, label[i]};
    }
    near(lam_average_precision(items, N, LAM_TIES_NEGATIVES_FIRST), 0.46590909090909094);
    near(lam_roc_auc(items, N), 0.53125);
    near(lam_roc_auc(rounded, N), 0.546875);
    near(lam_average_precision(items, 0, LAM_TIES_NEGATIVES_FIRST), (double)NAN);
    lam_ranked one = {1, true};
    near(lam_average_precision(&one, 1, LAM_TIES_NEGATIVES_FIRST), 1);
    near(lam_roc_auc(&one, 1), (double)NAN);
    one.positive = false;
    near(lam_average_precision(&one, 1, LAM_TIES_NEGATIVES_FIRST), (double)NAN);
}

/* All rows the same: nothing is retrieved, and only the other order says so. Then single rows and empty cells. */
static void ties_and_gaps(void **state) {
    (void)state;
    enum { N = 6 };
    double same[N * 2];
    int64_t label[N] = {0, 0, 0, 1, 1, -1}, apart[N] = {0, 0, 0, 0, 0, 0};
    for (int i = 0; i < N; i++) same[2 * i] = 0.3, same[2 * i + 1] = -1.7;
    lam_directions directions;
    lam_row_score scores[N];
    ok(lam_directions_make(&directions, same, N, 2));
    lam_rule positive = {.rows = N, .same = label},
             negative = {.rows = N, .different = {label}, .differences = 1};
    ok(lam_average_precision_rows(&directions, &positive, &negative, LAM_TIES_NEGATIVES_FIRST, scores));
    near(scores[0].average_precision, (1.0 / 3 + 2.0 / 4) / 2); /* two negatives, then two positives */
    near(scores[4].average_precision, 1.0 / 4);
    assert_int_equal(scores[0].negatives, 2); /* the row without a label is nobody's */
    near(scores[5].average_precision, (double)NAN);
    assert_int_equal(scores[5].positives, 0);
    ok(lam_average_precision_rows(&directions, &positive, &negative, LAM_TIES_POSITIVES_FIRST, scores));
    for (int i = 0; i < 5; i++) near(scores[i].average_precision, 1);
    /* Positives without a negative are counted, but there is nothing to rank. */
    negative.different[0] = apart;
    ok(lam_average_precision_rows(&directions, &positive, &negative, LAM_TIES_NEGATIVES_FIRST, scores));
    assert_int_equal(scores[0].positives, 2);
    assert_int_equal(scores[0].negatives, 0);
    near(scores[0].average_precision, (double)NAN);
    lam_directions_free(&directions);
    ok(lam_directions_make(&directions, same, 1, 2));
    positive.rows = negative.rows = 1;
    ok(lam_average_precision_rows(&directions, &positive, &negative, LAM_TIES_NEGATIVES_FIRST, scores));
    near(scores[0].average_precision, (double)NAN);
    lam_directions_free(&directions);
}

/* More rows than a tile and than a block of queries, a third of them copies, against sorting all. */
static void all_pairs(void **state) {
    (void)state;
    enum { N = 700, K = 5 };
    static double x[N * K];
    static int64_t label[N], plate[N];
    static lam_row_score one[N], two[N];
    lam_ranked *items;
    ok(lam_alloc_array((void **)&items, N, sizeof *items));
    generator = 3;
    for (int i = 0; i < N; i++) {
        int copied = i % 3 == 2 ? (int)(u() * i) : -1;
        for (int j = 0; j < K; j++) x[i * K + j] = copied >= 0 ? x[copied * K + j] : n();
        label[i] = (int64_t)(u() * 9) - (u() < 0.05 ? 100 : 0);
        if (label[i] < 0) label[i] = -1;
        plate[i] = (int64_t)(u() * 4);
    }
    lam_directions directions;
    ok(lam_directions_make(&directions, x, N, K));
    lam_rule positive = {.rows = N, .same = label, .different = {plate}, .differences = 1},
             negative = {.rows = N, .different = {label}, .differences = 1};
    for (int ties = 0; ties < 2; ties++) {
        lam_threads_set(1);
        ok(lam_average_precision_rows(&directions, &positive, &negative, (lam_ties)ties, one));
        lam_threads_set(2);
        ok(lam_average_precision_rows(&directions, &positive, &negative, (lam_ties)ties, two));
        lam_threads_set(0);
        assert_memory_equal(one, two, sizeof one);
        for (int i = 0; i < N; i++) {
            int64_t count = 0, positives = 0;
            for (int j = 0; j < N; j++) {
                bool same = label[i] == label[j];
                if (i == j || label[i] < 0 || label[j] < 0 || (same && plate[i] == plate[j])) continue;
                items[count++] = (lam_ranked){lam_directions_cosine(&directions, i, j), same};
                positives += same;
            }
            double expected =
                positives == count ? (double)NAN : lam_average_precision(items, count, (lam_ties)ties);
            near(one[i].average_precision, expected);
            assert_int_equal(one[i].positives, positives);
            assert_int_equal(one[i].negatives, count - positives);
        }
    }
    lam_directions_free(&directions);
    lam_free(items);
}

/* Means, and p and chance against all rankings of so many positives and negatives: C(8, 2) = 28, C(2, 1), C(6, 3) = 20. */
static void groups(void **state) {
    (void)state;
    enum { N = 9, GROUPS = 6, DRAWS = 40000 };
    static const lam_row_score rows[N] = {{1, 2, 6},   {0.75, 2, 6},      {1, 1, 1},
                                          {0.5, 1, 1}, {13.0 / 15, 3, 3}, {(double)NAN, 0, 6},
                                          {0.4, 1, 3}, {1, 1, 3},         {1, 2, 6}};
    static const int64_t group[N] = {0, 1, 2, 3, 4, 5, -1, -1, 0};
    static const double p[GROUPS] = {1.0 / 28, 3.0 / 28, 0.5, 1, 0.15, NAN},
                        chance[GROUPS] = {0.43405612244897956, 0.43405612244897956, 0.75, 0.75, 0.645, NAN};
    lam_group_score one[GROUPS], two[GROUPS];
    lam_threads_set(1);
    ok(lam_average_precision_groups(rows, group, N, GROUPS, DRAWS, 5, one));
    lam_threads_set(2);
    ok(lam_average_precision_groups(rows, group, N, GROUPS, DRAWS, 5, two));
    lam_threads_set(0);
    for (int g = 0; g < GROUPS; g++) {
        if (g == 5) {
            assert_int_equal(one[g].rows, 0);
            assert_true(isnan(one[g].mean) && isnan(one[g].p) && isnan(one[g].chance));
            continue;
        }
        assert_int_equal(one[g].rows,
                         g ? 1 : 2); /* group 0: two rows of the same numbers share their rankings */
        assert_memory_equal(&one[g], &two[g], sizeof *one);
        assert_true(fabs(one[g].p - p[g]) < 5 * sqrt(p[g] * (1 - p[g]) / DRAWS) + 2.0 / DRAWS);
        assert_true(fabs(one[g].chance - chance[g]) < 5 * 0.25 / sqrt(DRAWS));
    }
    near(one[0].mean, 1);
    ok(lam_average_precision_groups(rows, group, N, GROUPS, DRAWS, 6, two));
    assert_true(one[0].p != two[0].p || one[1].p != two[1].p);
    ok(lam_average_precision_groups(rows, group, N, GROUPS, 1, 0, two));
    assert_true(two[3].p == 1 && two[0].p >= 0.5);
    /* Rows of other numbers: their rankings are drawn apart. AP 1 in both of 1 of 4 and 1 of 4, 2 of 8: p = 1/4 * 1/28. */
    static const lam_row_score mixed[2] = {{1, 1, 3}, {1, 2, 6}};
    ok(lam_average_precision_groups(mixed, (const int64_t[]){0, 0}, 2, 1, DRAWS, 0, two));
    double expected = 1.0 / 112;
    assert_true(fabs(two[0].p - expected) < 5 * sqrt(expected / DRAWS));
    ok(lam_average_precision_groups(NULL, NULL, 0, 0, 10, 0, two)); /* nothing: nothing to do */
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(copairs), cmocka_unit_test(scikit_learn),
                                       cmocka_unit_test(ties_and_gaps), cmocka_unit_test(all_pairs),
                                       cmocka_unit_test(groups)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
