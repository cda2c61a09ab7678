/* The tests of statistics.h against scipy 1.17 and mpmath, and against the cluster entries of efaar_golden.json. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "eval/aggregate.h"
#include "eval/align.h"
#include "eval/distributions.h"
#include "eval/statistics.h"
#include "tests/unit/golden_screen.h"

static void near(double got, double expected, double relative, const char *what) {
    if (!(fabs(got - expected) <= relative * fabs(expected)))
        fail_msg("%s: %.17g, expected %.17g", what, got, expected);
}

/* The numbers of the golden screen's generator, started at `seed`. */
static void uniform(double *x, int64_t count, uint32_t seed, double shift) {
    state = seed;
    for (int64_t i = 0; i < count; i++) x[i] = u() + shift;
}

static void kolmogorov_of_one_sample(void **unused) {
    (void)unused;
    static const struct {
        int64_t n;
        double x, p; /* scipy.stats.kstwo.sf */
    } cases[] = {{1, 0.7, 0.6},
                 {2, 0.3, 0.98},
                 {5, 0.15, 0.9988},
                 {10, 0.95, 1.9531250000000172e-13},
                 {10, 0.35, 0.1339605462624991},
                 {100, 0.05, 0.9532159710635725},
                 {100, 0.25, 5.408871776434847e-06},
                 {140, 0.16, 0.0013440163244194184},
                 {141, 0.09, 0.19156768536655033},
                 {500, 0.02, 0.9859871786857471},
                 {500, 0.08, 0.0031305058199356268},
                 {20000, 0.0052, 0.6498119445650643},
                 {100001, 0.002, 0.8178361459744294},
                 {999999, 0.0013, 0.06803343580667864},
                 {1500000, 0.002, 1.2272050604051577e-05}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        near(lam_kolmogorov_upper(cases[i].n, cases[i].x), cases[i].p, 1e-11, "kstwo.sf");
    assert_true(lam_kolmogorov_upper(7, 0) >= 1 && lam_kolmogorov_upper(7, 1) <= 0);
    assert_true(lam_kolmogorov_upper(1000, 0.7) <= 0);
    assert_true(isnan(lam_kolmogorov_upper(0, 0.5)) && isnan(lam_kolmogorov_upper(5, (double)NAN)));
}

static void limiting_cramer_von_mises(void **unused) {
    (void)unused;
    static const double cases[][2] = {/* one minus the series, 60 digits (mpmath) */
                                      {0.02, 0.99699938569839812},   {0.1, 0.58487343840679488},
                                      {0.5, 0.039833217565607595},   {1.0, 0.0024604521801339639},
                                      {1.001, 0.002447208878408837}, {3, 7.5677434593160199e-8},
                                      {6, 2.0087741786948679e-14},   {12, 1.9751211641729369e-27}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        near(lam_cramer_von_mises_upper(cases[i][0]), cases[i][1], 1e-12, "limiting distribution");
    assert_true(lam_cramer_von_mises_upper(0.001) >= 1 && lam_cramer_von_mises_upper(-1) >= 1);
    assert_true(lam_cramer_von_mises_upper(1000) <= 0);
}

static void two_samples(void **unused) {
    (void)unused;
    static const struct {
        int64_t nx, ny;
        double shift, d, exact, asymptotic, t, cvm; /* ks_2samp by both methods, cramervonmises_2samp */
    } cases[] = {{15, 19, 0.3, 0.4982456140350877, 0.019540796705321665, 0.02333186367641149,
                  0.8764189886480915, 0.004232299280754655},
                 {20, 20, 0.4, 0.5, 0.012298612583953778, 0.00777741, 1.2575, 0.0004432949927944366},
                 {60, 90, 0.1, 0.24444444444444444, 0.02376678612110013, 0.0222337973776896,
                  0.7377777777777794, 0.01025956234769109},
                 {400, 400, 0.15, 0.23, 1.0973970510505411e-09, 8.770605486235078e-10, 5.63799375, 0},
                 {3000, 2500, 0.02, 0.039933333333333335, 0.02511726058402755, 0.025107610852108553,
                  0.9997344969697224, 0.0024633507720239756}};
    static double x[3000], y[2500];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        lam_test_result r;
        uniform(x, cases[i].nx, 1, 0);
        uniform(y, cases[i].ny, 2, cases[i].shift);
        ok(lam_ks_two_sample(x, cases[i].nx, y, cases[i].ny, LAM_P_AUTO, &r));
        near(r.statistic, cases[i].d, 1e-15, "D");
        near(r.p, cases[i].exact, 1e-11, "exact p of D");
        ok(lam_ks_two_sample(y, cases[i].ny, x, cases[i].nx, LAM_P_EXACT, &r));
        near(r.p, cases[i].exact, 1e-11, "p of D, samples exchanged");
        ok(lam_ks_two_sample(x, cases[i].nx, y, cases[i].ny, LAM_P_ASYMPTOTIC, &r));
        near(r.p, cases[i].asymptotic, 1e-11, "asymptotic p of D");
        ok(lam_cvm_two_sample(x, cases[i].nx, y, cases[i].ny, LAM_P_AUTO, &r));
        near(r.statistic, cases[i].t, 1e-12, "T");
        /* scipy's one minus a sum has no digits for the fourth: the limit at 60 digits instead. */
        near(r.p, cases[i].cvm > 0 ? cases[i].cvm : 1.216149691157614e-13, 1e-9, "p of T");
    }
    lam_test_result r;
    uniform(x, 9, 1, 0);
    uniform(y, 41, 2, 0);
    assert_int_equal(lam_cvm_two_sample(x, 9, y, 41, LAM_P_EXACT, &r), LAM_ERROR_USAGE);
    assert_non_null(strstr(lam_last_error(), "at most 40"));
}

static void ties_and_edges(void **unused) {
    (void)unused;
    const double x[] = {1, 1, 2, 2, 3}, y[] = {2, 2, 2, 4, 5, 5, 1}, inf = (double)INFINITY;
    lam_test_result r;
    ok(lam_ks_two_sample(x, 5, y, 7, LAM_P_AUTO, &r));
    near(r.statistic, 0.42857142857142855, 1e-15, "D with ties");
    near(r.p, 0.5454545454545454, 1e-13, "exact p with ties");
    ok(lam_ks_two_sample(x, 5, y, 7, LAM_P_ASYMPTOTIC, &r));
    near(r.p, 0.5160349854227404, 1e-12, "asymptotic p with ties");
    ok(lam_cvm_two_sample(x, 5, y, 7, LAM_P_AUTO, &r));
    near(r.statistic, 0.18492063492063493, 1e-13, "T with ties");
    near(r.p, 0.3333333333333333, 1e-13, "exact p of T with ties");
    ok(lam_cvm_two_sample(x, 5, y, 7, LAM_P_ASYMPTOTIC, &r));
    near(r.p, 0.3307745508338106, 1e-9, "asymptotic p of T with ties");
    /* Equal samples, one value each, values without an end, no test at all. */
    ok(lam_ks_two_sample(x, 5, x, 5, LAM_P_AUTO, &r));
    assert_true(r.statistic <= 0 && r.p >= 1);
    ok(lam_ks_two_sample(x, 1, y, 1, LAM_P_AUTO, &r));
    assert_true(r.statistic >= 1 && r.p >= 1);
    const double ends[] = {-inf, 0, inf};
    ok(lam_ks_two_sample(ends, 3, x, 5, LAM_P_AUTO, &r));
    near(r.statistic, 2.0 / 3, 1e-15, "D with infinities");
    double hole[] = {1, (double)NAN, 3};
    ok(lam_ks_two_sample(hole, 3, y, 7, LAM_P_AUTO, &r));
    assert_true(isnan(r.statistic) && isnan(r.p));
    ok(lam_cvm_two_sample(y, 7, hole, 3, LAM_P_AUTO, &r));
    assert_true(isnan(r.statistic) && isnan(r.p));
    ok(lam_ks_two_sample(NULL, 0, y, 7, LAM_P_AUTO, &r));
    assert_true(isnan(r.statistic) && isnan(r.p));
    ok(lam_cvm_two_sample(x, 1, y, 7, LAM_P_AUTO, &r));
    assert_true(isnan(r.statistic) && isnan(r.p));
}

static void hypergeometric(void **unused) {
    (void)unused;
    static const struct {
        int64_t hits, population, successes, draws;
        double p; /* sums of binomials with 50 digits */
    } cases[] = {{5, 40, 8, 8, 0.003795672526322681},
                 {1, 40, 8, 8, 0.863229398833114},
                 {45, 20000, 50, 300, 5.427183744872961e-78},
                 {100, 10000, 200, 200, 4.57899137694306e-125},
                 {160, 10000, 200, 170, 1.4144950886598566e-297},
                 {12, 17063, 150, 90, 2.0769442996024468e-11},
                 {60, 400, 100, 250, 0.7635611118728398},
                 {9, 20, 10, 18, 0.7631578947368421}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        near(lam_hypergeometric_upper(cases[i].hits, cases[i].population, cases[i].successes, cases[i].draws),
             cases[i].p, 1e-12, "hypergeometric tail");
    assert_true(lam_hypergeometric_upper(0, 40, 8, 8) >= 1);
    assert_true(lam_hypergeometric_upper(8, 20, 10, 18) >= 1); /* fewer is impossible */
    assert_true(lam_hypergeometric_upper(9, 40, 8, 8) <= 0);
    assert_true(lam_hypergeometric_upper(1, 0, 0, 0) <= 0);
    assert_true(isnan(lam_hypergeometric_upper(1, 10, 11, 3)));
    assert_true(isnan(lam_hypergeometric_upper(1, 10, 3, -1)));
}

static void false_discovery_rates(void **unused) {
    (void)unused;
    /* scipy.stats.false_discovery_control of the six numbers */
    const double nan = (double)NAN, p[] = {0.01, nan, 0.04, 0.03, 0.005, 0.55, nan, 0.03},
                 expected[] = {0.03, nan, 0.048, 0.045, 0.03, 0.55, nan, 0.045};
    double q[8];
    ok(lam_benjamini_hochberg(p, 8, q));
    for (int i = 0; i < 8; i++) {
        if (isnan(expected[i]))
            assert_true(isnan(q[i]));
        else
            near(q[i], expected[i], 1e-15, "q");
    }
    double same[] = {0.9, nan, 0.95};
    ok(lam_benjamini_hochberg(same, 3, same)); /* in place */
    near(same[0], 0.95, 1e-15, "q in place");
    assert_true(isnan(same[1]));
    ok(lam_benjamini_hochberg(NULL, 0, NULL));
}

/* Cosines within a cluster against those between the cluster and the rest, on the screen after TVN and CORAL. */
static void golden_clusters(void **unused) {
    (void)unused;
    lam_json *golden = read_json("efaar_golden.json");
    static screen s;
    static double kept[ROWS * D], map[GENES * D];
    make_screen(&s, golden);
    int64_t columns = D, codes[ROWS], counts[GENES], rows = 0;
    lam_alignment how = {
        .method = LAM_ALIGN_TVN, .controls = s.controls, .batch = s.batch, .batches = BATCHES};
    ok(lam_align(&how, s.x, ROWS, &columns, NULL));
    for (int64_t i = 0; i < ROWS; i++) {
        if (s.gene[i] < 0) continue;
        codes[rows] = s.gene[i];
        memcpy(kept + rows++ * D, s.x + i * D, D * sizeof(double));
    }
    ok(lam_aggregate(kept, rows, D, codes, GENES, false, map, counts));
    const lam_json *clusters = lam_json_get(golden, "cluster_benchmark_tvn_batch"),
                   *groups = lam_json_get(golden, "groups"),
                   *group_of = lam_json_get(golden, "group_of_gene");
    size_t checked = 0;
    for (; checked < lam_json_size(clusters); checked++) {
        const lam_json *entry = lam_json_at(clusters, checked);
        const char *name = lam_json_text(lam_json_get(entry, "cluster"), "");
        int64_t cluster = -1, within_count = 0, between_count = 0;
        for (size_t g = 0; g < lam_json_size(groups); g++)
            if (!strcmp(lam_json_text(lam_json_at(groups, g), ""), name)) cluster = (int64_t)g;
        static double within[GENES * GENES], between[GENES * GENES];
        for (size_t a = 0; a < GENES; a++)
            for (size_t b = a + 1; b < GENES; b++) {
                double ab = 0, aa = 0, bb = 0;
                for (size_t j = 0; j < D; j++) {
                    ab += map[a * D + j] * map[b * D + j];
                    aa += map[a * D + j] * map[a * D + j];
                    bb += map[b * D + j] * map[b * D + j];
                }
                bool in_a = lam_json_int(lam_json_at(group_of, a), -1) == cluster,
                     in_b = lam_json_int(lam_json_at(group_of, b), -1) == cluster;
                if (in_a && in_b) within[within_count++] = ab / sqrt(aa * bb);
                if (in_a != in_b) between[between_count++] = ab / sqrt(aa * bb);
            }
        lam_test_result r;
        ok(lam_ks_two_sample(within, within_count, between, between_count, LAM_P_AUTO, &r));
        near(r.statistic, lam_json_float(lam_json_get(entry, "ks"), -1), 1e-14, name);
        near(r.p, lam_json_float(lam_json_get(entry, "p"), -1), 1e-9, name);
    }
    assert_int_equal(checked, 5);
    lam_json_free(golden);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(kolmogorov_of_one_sample),
                                       cmocka_unit_test(limiting_cramer_von_mises),
                                       cmocka_unit_test(two_samples),
                                       cmocka_unit_test(ties_and_edges),
                                       cmocka_unit_test(hypergeometric),
                                       cmocka_unit_test(false_discovery_rates),
                                       cmocka_unit_test(golden_clusters)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
