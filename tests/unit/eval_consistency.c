/* Replicate consistency and magnitude: against efaar_golden.json, against sums over all pairs written out, and their nulls. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/log.h"
#include "base/threads.h"
#include "eval/align.h"
#include "eval/energy.h"
#include "eval/signal.h"
#include "tests/unit/golden_screen.h"

static void near(double got, double expected, double tolerance, const char *what) {
    if (!(fabs(got - expected) <= tolerance)) fail_msg("%s: %.17g, expected %.17g", what, got, expected);
}

static bool same_bits(double a, double b) { return !memcmp(&a, &b, sizeof a); }

/* ---- written out ---- */

static double cosine(const double *a, const double *b, int64_t d) {
    double ab = 0, aa = 0, bb = 0;
    for (int64_t j = 0; j < d; j++) ab += a[j] * b[j], aa += a[j] * a[j], bb += b[j] * b[j];
    return aa > 0 && bb > 0 ? ab / sqrt(aa) / sqrt(bb) : 0;
}

static double mean_over_pairs(const double *x, int64_t count, int64_t d, bool angle) {
    double sum = 0;
    for (int64_t i = 0; i < count; i++)
        for (int64_t j = 0; j < i; j++) {
            double c = cosine(x + i * d, x + j * d, d);
            sum += angle ? acos(fmin(fmax(c, -1), 1)) : c;
        }
    return sum / (0.5 * (double)(count * (count - 1)));
}

static double mean_distance(const double *x, int64_t nx, const double *y, int64_t ny, int64_t d) {
    long double sum = 0;
    for (int64_t i = 0; i < nx; i++)
        for (int64_t j = 0; j < ny; j++) {
            long double square = 0;
            for (int64_t k = 0; k < d; k++) {
                long double difference = (long double)x[i * d + k] - (long double)y[j * d + k];
                square += difference * difference;
            }
            sum += sqrtl(square);
        }
    return (double)(sum / (long double)(nx * ny));
}

static double energy(const double *x, int64_t nx, const double *y, int64_t ny, int64_t d) {
    return 2 * mean_distance(x, nx, y, ny, d) - mean_distance(x, nx, x, nx, d) -
           mean_distance(y, ny, y, ny, d);
}

/* ---- the published evaluator ---- */

static void golden_screen(void **unused) {
    (void)unused;
    enum { NULLS = 10, ALL = BATCHES * CONTROLS };
    lam_json *golden = read_json("efaar_golden.json");
    static screen s;
    make_screen(&s, golden);
    int64_t columns = D, controls[ALL], chosen[LAM_ENERGY_ROWS], count = 0, kept;
    lam_alignment how = {
        .method = LAM_ALIGN_TVN, .controls = s.controls, .batch = s.batch, .batches = BATCHES};
    ok(lam_align(&how, s.x, ROWS, &columns, NULL));
    for (int64_t i = 0; i < ROWS; i++)
        if (s.controls[i]) controls[count++] = i;
    lam_replicates r;
    double value[GENES], p[GENES];
    ok(lam_replicates_make(&r, s.x, ROWS, D, s.gene, GENES));
    ok(lam_energy_sample(controls, count, 0, chosen, &count));
    assert_int_equal(count, ALL); /* no more than LAM_ENERGY_ROWS: all of them */
    for (int metric = 0; metric < 2; metric++) {
        const lam_json *entry = lam_json_get(golden, metric ? "magnitude" : "consistency"),
                       *first = lam_json_get(entry, "first"), *last = lam_json_get(entry, "last");
        if (metric)
            ok(lam_energy_distances(&r, chosen, count, 5, value));
        else
            ok(lam_consistency(&r, LAM_CONSISTENCY_COSINE, value));
        ok(lam_null_p(value, NULLS, value, GENES, metric == 1, p, &kept));
        assert_int_equal(kept, NULLS);
        double expected = lam_json_float(lam_json_at(first, 1), 9),
               end = lam_json_float(lam_json_at(last, 1), 9);
        near(value[NULLS], expected, 1e-10 * expected, "first");
        near(value[GENES - 1], end, 1e-10 * end, "last");
        assert_true(same_bits(p[NULLS], lam_json_float(lam_json_at(first, 2), 9)));
        assert_true(same_bits(p[GENES - 1], lam_json_float(lam_json_at(last, 2), 9)));
        if (metric) { /* scipy.spatial.distance.cdist; the file's distance of a control to itself is rounded to 1e-8 */
            near(value[NULLS], 2.457063931592894, 1e-13, "first");
            near(value[GENES - 1], 2.051178677516276, 1e-13, "last");
        } else {
            near(value[NULLS], expected, 1e-13, "first");
        }
        int64_t significant = 0;
        for (int g = NULLS; g < GENES; g++) significant += p[g] <= 0.05;
        assert_int_equal(significant, lam_json_int(lam_json_get(entry, "n_p_le_0.05"), -1));
        assert_int_equal(GENES - NULLS, lam_json_int(lam_json_get(entry, "n"), -1));
    }
    lam_replicates_free(&r);
    lam_json_free(golden);
}

/* The published unit cases: five rows 1..5 against five rows 6..10, and against themselves. */
static void published_energy(void **unused) {
    (void)unused;
    double x[15 * 5], value[2];
    int64_t codes[15], controls[5];
    for (int i = 0; i < 15; i++) {
        codes[i] = i < 5 ? 0 : i < 10 ? 1 : -1;
        for (int j = 0; j < 5; j++) x[i * 5 + j] = (i < 5 ? 1 : 6) + j;
        if (i >= 10) controls[i - 10] = i;
    }
    lam_replicates r;
    ok(lam_replicates_make(&r, x, 15, 5, codes, 2));
    ok(lam_energy_distances(&r, controls, 5, 5, value));
    near(value[0], 2 * sqrt(125), 1e-14, "apart");
    near(value[1], 0, 0, "the same rows");
    ok(lam_energy_distances(&r, controls, 5, 6, value));
    assert_true(isnan(value[0]) && isnan(value[1]));
    lam_replicates_free(&r);
}

/* ---- against sums over all pairs ---- */

enum { WIDE = 19, MANY = 700, LARGEST = 300, SIZES = 6 };
static const int64_t sizes[SIZES] = {1, 2, 9, 40, LARGEST, 5};

/* Groups of `sizes` in mixed order, controls behind them; an offset, equal rows, and a row of zeros. */
static int64_t make_groups(double *x, int64_t *codes, double offset) {
    int64_t rows = 0, left[SIZES];
    memcpy(left, sizes, sizeof left);
    state = 11;
    for (bool any = true; any;) {
        any = false;
        for (int g = 0; g < SIZES; g++)
            if (left[g]-- > 0) codes[rows++] = g, any = true;
    }
    for (; rows < MANY; rows++) codes[rows] = -1;
    for (int64_t i = 0; i < MANY * WIDE; i++) x[i] = n() + offset;
    memcpy(x + 8 * WIDE, x + 4 * WIDE, WIDE * sizeof *x);
    memcpy(x + 690 * WIDE, x + 4 * WIDE, WIDE * sizeof *x); /* a control that equals a replicate */
    for (int j = 0; j < WIDE; j++) x[9 * WIDE + j] = 0;
    return rows;
}

static void against_all_pairs(void **unused) {
    (void)unused;
    static double x[MANY * WIDE], group[MANY * WIDE], others[MANY * WIDE];
    static int64_t codes[MANY], controls[MANY];
    for (int offset = 0; offset <= 1000; offset += 1000) {
        int64_t rows = make_groups(x, codes, offset), count = 0;
        for (int64_t i = 0; i < rows; i++) {
            if (codes[i] >= 0) continue;
            memcpy(others + count * WIDE, x + i * WIDE, WIDE * sizeof *x);
            controls[count++] = i;
        }
        lam_replicates r;
        double value[3][SIZES], again[3][SIZES];
        ok(lam_replicates_make(&r, x, rows, WIDE, codes, SIZES));
        for (int threads = 1; threads <= 2; threads++) {
            lam_threads_set(threads);
            memcpy(again, value, sizeof again);
            ok(lam_consistency(&r, LAM_CONSISTENCY_COSINE, value[0]));
            ok(lam_consistency(&r, LAM_CONSISTENCY_ANGLE, value[1]));
            ok(lam_energy_distances(&r, controls, count, 5, value[2]));
        }
        assert_memory_equal(value, again, sizeof value);
        for (int g = 0; g < SIZES; g++) {
            int64_t size = 0;
            for (int64_t i = 0; i < rows; i++)
                if (codes[i] == g) memcpy(group + size++ * WIDE, x + i * WIDE, WIDE * sizeof *x);
            assert_int_equal(size, sizes[g]);
            if (size < 2) {
                assert_true(isnan(value[0][g]) && isnan(value[1][g]) && isnan(value[2][g]));
                continue;
            }
            near(value[0][g], mean_over_pairs(group, size, WIDE, false), 1e-14, "mean cosine");
            near(value[1][g], mean_over_pairs(group, size, WIDE, true), 1e-7, "mean angle");
            if (size < 5) assert_true(isnan(value[2][g]));
            if (size >= 5)
                near(value[2][g], energy(group, size, others, count, WIDE), 1e-10, "energy distance");
        }
        lam_replicates_free(&r);
    }
}

/* ---- nulls ---- */

static void null_of_perturbations(void **unused) {
    (void)unused;
    const double nan = (double)NAN, null[] = {0.5, nan, 0.1, 0.5, 0.2},
                 value[] = {0.5, 0.6, 0.1, nan, 0.0, 0.3};
    /* 1 - numpy.searchsorted([.1, .2, .5, .5], value, side) / 4 */
    const double left[] = {0.5, 0, 1, nan, 1, 0.5}, right[] = {0, 0, 0.75, nan, 1, 0.5};
    double p[6];
    int64_t kept;
    for (int side = 0; side < 2; side++) {
        ok(lam_null_p(null, 5, value, 6, side == 1, p, &kept));
        assert_int_equal(kept, 4);
        for (int i = 0; i < 6; i++) {
            double expected = side ? right[i] : left[i];
            assert_true(isnan(expected) ? isnan(p[i]) : same_bits(p[i], expected));
        }
    }
    ok(lam_null_p(null + 1, 1, value, 6, false, p, &kept));
    assert_int_equal(kept, 0);
    for (int i = 0; i < 6; i++) assert_true(isnan(p[i]));
}

static void distinct_draws(void **unused) {
    (void)unused;
    enum { POOL = 7, DRAWS = 7000 };
    bool taken[POOL] = {false};
    int64_t out[POOL], seen[POOL] = {0};
    for (int k = 0; k < DRAWS; k++) {
        lam_rng rng = lam_rng_stream(3, LAM_RNG_TEST, (uint64_t)k);
        lam_draw_distinct(&rng, POOL, 3, out, taken);
        assert_true(out[0] < out[1] && out[1] < out[2] && out[0] >= 0 && out[2] < POOL);
        for (int i = 0; i < 3; i++) seen[out[i]]++;
        for (int i = 0; i < POOL; i++) assert_false(taken[i]);
    }
    for (int i = 0; i < POOL; i++) near((double)seen[i], 3.0 / 7 * DRAWS, 200, "draws of one number");
    lam_rng rng = lam_rng_stream(3, LAM_RNG_TEST, 0);
    lam_draw_distinct(&rng, POOL, POOL, out, taken);
    for (int i = 0; i < POOL; i++) assert_int_equal(out[i], i);
}

/* Two batches whose offset is all that replicates share: significant against sets drawn from everywhere, not against sets drawn
 * from the same batches. Group 0 is a real signal in both. */
static void permutation_null(void **unused) {
    (void)unused;
    enum { GROUPS = 12, SIZE = 8, N = GROUPS * SIZE, COLUMNS = 6, P = 999 };
    double x[N * COLUMNS], value[GROUPS], p[GROUPS], again[GROUPS];
    int64_t codes[N], batch[N];
    state = 5;
    for (int i = 0; i < N; i++) {
        codes[i] = i / SIZE;
        batch[i] = codes[i] % 2;
        for (int j = 0; j < COLUMNS; j++)
            x[i * COLUMNS + j] =
                0.3 * n() + (j == 0 ? (batch[i] ? 1 : -1) : 0) + (codes[i] == 0 && j == 1 ? 3 : 0);
    }
    lam_replicates r;
    ok(lam_replicates_make(&r, x, N, COLUMNS, codes, GROUPS));
    for (int angle = 0; angle < 2; angle++) {
        lam_consistency_measure measure = angle ? LAM_CONSISTENCY_ANGLE : LAM_CONSISTENCY_COSINE;
        ok(lam_consistency(&r, measure, value));
        ok(lam_consistency_permutation(&r, measure, NULL, 0, P, 7, value, p));
        for (int g = 0; g < GROUPS; g++) assert_true(p[g] < 0.02);
        assert_true(
            same_bits(p[0], angle ? 0 : 1.0 / (1 + P))); /* as published; as a permutation p value is */
        for (int threads = 1; threads <= 2; threads++) {
            lam_threads_set(threads);
            memcpy(again, p, sizeof again);
            ok(lam_consistency_permutation(&r, measure, batch, 2, P, 7, value, p));
        }
        assert_memory_equal(p, again, sizeof p);
        assert_true(p[0] < 0.002);
        double mean = 0;
        for (int g = 1; g < GROUPS; g++) mean += p[g] / (GROUPS - 1);
        assert_true(mean > 0.2 && mean < 0.8);
        ok(lam_consistency_permutation(&r, measure, NULL, 0, P, 8, value, again));
        assert_true(memcmp(p, again, sizeof p) != 0); /* another seed */
    }
    lam_replicates_free(&r);
    /* Every set is the whole pool: no set is more consistent, and equal sets have equal bits. */
    for (int i = 0; i < N; i++) codes[i] = 0;
    ok(lam_replicates_make(&r, x, N, COLUMNS, codes, 1));
    ok(lam_consistency(&r, LAM_CONSISTENCY_COSINE, value));
    ok(lam_consistency_permutation(&r, LAM_CONSISTENCY_COSINE, NULL, 0, 50, 7, value, p));
    assert_true(same_bits(p[0], 1));
    ok(lam_consistency(&r, LAM_CONSISTENCY_ANGLE, value));
    ok(lam_consistency_permutation(&r, LAM_CONSISTENCY_ANGLE, NULL, 0, 50, 7, value, p));
    assert_true(same_bits(p[0], 0));
    lam_replicates_free(&r);
}

/* Of seven rows, three replicates: all 35 splits written out. */
static void label_shuffle(void **unused) {
    (void)unused;
    enum { REPLICATE_ROWS = 3, ALL = 7, DRAWS = 20000 };
    double x[ALL * 2], p[2], again[2];
    const int64_t codes[ALL] = {-1, 0, -1, 0, -1, 0, -1}, controls[4] = {0, 2, 4, 6};
    lam_replicates r;
    for (int shift = 0; shift < 3; shift++) {
        state = 21 + (uint32_t)shift;
        for (int i = 0; i < ALL * 2; i++) x[i] = n() + (codes[i / 2] == 0 ? 0.7 * shift : 0);
        double side[ALL * 2], other[ALL * 2], observed = 0;
        int larger = 0, splits = 0;
        for (int pass = 0; pass < 2; pass++)
            for (int mask = 0; mask < 1 << ALL; mask++) {
                int64_t a = 0, b = 0;
                for (int i = 0; i < ALL; i++)
                    memcpy(mask >> i & 1 ? side + 2 * a++ : other + 2 * b++, x + 2 * i, 2 * sizeof *x);
                if (a != REPLICATE_ROWS) continue;
                double e = energy(side, a, other, b, 2);
                if (pass == 0 && mask == 0x2A) observed = e; /* rows 1, 3, 5 */
                if (pass == 1) larger += e >= observed - 1e-12, splits++;
            }
        assert_int_equal(splits, 35);
        ok(lam_replicates_make(&r, x, ALL, 2, codes, 1));
        for (int threads = 1; threads <= 2; threads++) {
            lam_threads_set(threads);
            memcpy(again, p, sizeof again);
            ok(lam_energy_shuffle(&r, controls, 4, REPLICATE_ROWS, DRAWS, 1, p));
        }
        assert_true(same_bits(p[0], again[0]));
        near(p[0], larger / 35.0, 0.015, "shuffled labels");
        ok(lam_energy_shuffle(&r, controls, 4, REPLICATE_ROWS + 1, DRAWS, 1, p));
        assert_true(isnan(p[0]));
        lam_replicates_free(&r);
    }
}

/* More replicates than controls, and more than are taken into a shuffle. */
static void large_shuffle(void **unused) {
    (void)unused;
    enum { REPLICATE_ROWS = LAM_ENERGY_ROWS + 40, ALL = REPLICATE_ROWS + 30 };
    static double x[ALL];
    static int64_t codes[ALL], controls[30];
    state = 2;
    for (int i = 0; i < ALL; i++) {
        codes[i] = i < REPLICATE_ROWS ? 0 : -1;
        x[i] = n();
        if (i >= REPLICATE_ROWS) controls[i - REPLICATE_ROWS] = i;
    }
    lam_replicates r;
    double p;
    ok(lam_replicates_make(&r, x, ALL, 1, codes, 1));
    ok(lam_energy_shuffle(&r, controls, 30, 10, 300, 4, &p));
    assert_true(p > 0.02 && p <= 1);
    for (int i = 0; i < REPLICATE_ROWS; i++) x[i] += 3;
    ok(lam_energy_shuffle(&r, controls, 30, 10, 300, 4, &p));
    assert_true(same_bits(p, 1.0 / 301));
    int64_t chosen[LAM_ENERGY_ROWS], count;
    ok(lam_energy_sample(r.row, REPLICATE_ROWS, 4, chosen, &count));
    assert_int_equal(count, LAM_ENERGY_ROWS);
    for (int64_t k = 1; k < count; k++) assert_true(chosen[k] > chosen[k - 1] && chosen[k] < REPLICATE_ROWS);
    lam_replicates_free(&r);
}

/* ---- cosines of pairs ---- */

static int by_value(const void *a, const void *b) {
    double p = *(const double *)a, q = *(const double *)b;
    return (p > q) - (p < q);
}

static void cosines_of_pairs(void **unused) {
    (void)unused;
    static double x[MANY * WIDE], written[2][MANY * MANY / 2];
    static int64_t codes[MANY];
    int64_t rows = make_groups(x, codes, 0), count[2] = {0}, got[2];
    double *cosines[2];
    lam_replicates r;
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < i; j++)
            if (codes[i] >= 0 && codes[j] >= 0) {
                int different = codes[i] != codes[j];
                written[different][count[different]++] = cosine(x + i * WIDE, x + j * WIDE, WIDE);
            }
    ok(lam_replicates_make(&r, x, rows, WIDE, codes, SIZES));
    ok(lam_pair_cosines(&r, 1, &cosines[0], &got[0], &cosines[1], &got[1]));
    for (int k = 0; k < 2; k++) {
        assert_int_equal(got[k], count[k]);
        qsort(cosines[k], (size_t)count[k], sizeof(double), by_value);
        qsort(written[k], (size_t)count[k], sizeof(double), by_value);
        for (int64_t i = 0; i < count[k]; i++) near(cosines[k][i], written[k][i], 1e-14, "cosine of a pair");
        lam_free(cosines[k]);
    }
    lam_replicates_free(&r);
}

/* Three groups of 1,200 rows on a line each: pairs of the same group have cosine 1, of different groups that of their lines. */
static void sampled_pairs(void **unused) {
    (void)unused;
    enum { SIZE = 1200, N = 3 * SIZE };
    static double x[N * 2];
    static int64_t codes[N];
    const double angle[3] = {0, 1, 2.5};
    for (int i = 0; i < N; i++) {
        codes[i] = i % 3;
        x[2 * i] = (1 + i % 7) * cos(angle[i % 3]);
        x[2 * i + 1] = (1 + i % 7) * sin(angle[i % 3]);
    }
    lam_replicates r;
    double *same, *different, *again;
    int64_t same_count, different_count, counts[3] = {0};
    ok(lam_replicates_make(&r, x, N, 2, codes, 3));
    lam_threads_set(1);
    ok(lam_pair_cosines(&r, 9, &same, &same_count, &again, &different_count));
    lam_free(same);
    lam_threads_set(2);
    ok(lam_pair_cosines(&r, 9, &same, &same_count, &different, &different_count));
    assert_int_equal(same_count, LAM_COSINE_SAMPLE);
    assert_int_equal(different_count, LAM_COSINE_SAMPLE);
    assert_memory_equal(again, different, LAM_COSINE_SAMPLE * sizeof *again);
    for (int64_t k = 0; k < LAM_COSINE_SAMPLE; k++) {
        near(same[k], 1, 1e-14, "cosine of the same group");
        int which = -1;
        for (int a = 0; a < 3; a++)
            if (fabs(different[k] - cos(angle[a] - angle[(a + 1) % 3])) < 1e-12) which = a;
        assert_true(which >= 0);
        counts[which]++;
    }
    for (int a = 0; a < 3; a++) near((double)counts[a], LAM_COSINE_SAMPLE / 3.0, 3000, "pairs of two groups");
    lam_free(same);
    lam_free(different);
    lam_free(again);
    lam_replicates_free(&r);
}

static void lengths(void **unused) {
    (void)unused;
    const double tiny[2] = {3e-300, 4e-300}, huge[2] = {3e300, -4e300}, zero[2] = {0, 0},
                 hole[2] = {(double)NAN, 0}, end[2] = {1, (double)INFINITY};
    near(lam_row_length(tiny, 2) * 1e300, 5, 1e-14, "tiny");
    near(lam_row_length(huge, 2) * 1e-300, 5, 1e-14, "huge");
    near(lam_row_length(zero, 2), 0, 0, "zero");
    assert_true(isnan(lam_row_length(hole, 2)) && isinf(lam_row_length(end, 2)));
}

int main(void) {
    lam_log_set_quiet(true);
    const struct CMUnitTest tests[] = {cmocka_unit_test(golden_screen),
                                       cmocka_unit_test(published_energy),
                                       cmocka_unit_test(against_all_pairs),
                                       cmocka_unit_test(null_of_perturbations),
                                       cmocka_unit_test(distinct_draws),
                                       cmocka_unit_test(permutation_null),
                                       cmocka_unit_test(label_shuffle),
                                       cmocka_unit_test(large_shuffle),
                                       cmocka_unit_test(cosines_of_pairs),
                                       cmocka_unit_test(sampled_pairs),
                                       cmocka_unit_test(lengths)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
