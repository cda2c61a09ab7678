/* Nearest rows against a full sort, enrichment against numbers of scipy, clusters that cannot be tested. */
#include "eval/clusters.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "eval/nearest.h"

static void ok(lam_status status) {
    if (status != LAM_OK) fail_msg("%s", lam_last_error());
}

static int by_cosine(const void *a, const void *b) {
    const lam_nearest *x = a, *y = b;
    if (x->cosine != y->cosine) return x->cosine > y->cosine ? -1 : 1;
    return (x->row > y->row) - (x->row < y->row);
}

/* Few distinct directions, so that many cosines are equal. */
static void nearest(void **unused) {
    (void)unused;
    enum { N = 90, D = 4 };
    double x[N * D];
    lam_rng r = lam_rng_stream(1, LAM_RNG_TEST, 0);
    for (int i = 0; i < N * D; i++) x[i] = (double)lam_rng_below(&r, 3) - 0.75;
    lam_directions directions;
    ok(lam_directions_make(&directions, x, N, D));
    for (int row = 0; row < N; row += 7) {
        lam_nearest all[N], found[N];
        int count = 0;
        for (int other = 0; other < N; other++)
            if (other != row)
                all[count++] = (lam_nearest){lam_directions_cosine(&directions, row, other), other};
        qsort(all, (size_t)count, sizeof *all, by_cosine);
        for (int most = 0; most <= N; most += 10) {
            int64_t got = lam_directions_nearest(&directions, row, most, found);
            assert_int_equal(got, most < count ? most : count);
            for (int64_t k = 0; k < got; k++)
                assert_true(found[k].row == all[k].row && found[k].cosine == all[k].cosine);
        }
    }
    lam_directions_free(&directions);
}

/* scipy.stats.hypergeom.sf(hits - 1, 50, 6, 8). */
static void enrichment(void **unused) {
    (void)unused;
    const int32_t rows[6] = {1, 4, 5, 20, 33, 49};
    const int32_t four[8] = {49, 0, 5, 1, 2, 33, 40, 41}, none[8] = {0, 2, 3, 6, 7, 8, 9, 10};
    lam_enrichment e = lam_cluster_enrichment(rows, 6, four, 8, 50);
    assert_int_equal(e.hits, 4);
    assert_true(fabs(e.p - 0.00394255759658165) < 1e-12);
    assert_true(fabs(e.jaccard - 0.4) < 1e-15);
    e = lam_cluster_enrichment(rows, 6, none, 8, 50);
    assert_int_equal(e.hits, 0);
    assert_true(fabs(e.p - 1) < 1e-12 && e.jaccard == 0);
}

static void no_test(void **unused) {
    (void)unused;
    const double x[6] = {1, 0, 0, 1, 1, 1};
    const int32_t rows[3] = {0, 1, 2};
    lam_directions directions;
    lam_cluster_test test;
    ok(lam_directions_make(&directions, x, 3, 2));
    assert_int_equal(lam_cluster_compare(&directions, rows, 1, &test), LAM_ERROR_INPUT);
    assert_int_equal(lam_cluster_compare(&directions, rows, 3, &test), LAM_ERROR_INPUT);
    ok(lam_cluster_compare(&directions, rows, 2, &test));
    assert_true(test.within_mean == 0 && fabs(test.between_mean - sqrt(0.5)) < 1e-15);
    lam_directions_free(&directions);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(nearest), cmocka_unit_test(enrichment),
                                       cmocka_unit_test(no_test)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
