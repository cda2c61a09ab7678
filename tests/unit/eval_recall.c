/* Recall on either side, its bootstrap over genes and its permutations, each against plain loops in float64; and what the
 * intervals cover on simulated maps of known recall. */
#include "eval/recall.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/log.h"
#include "base/memory.h"
#include "base/rng.h"
#include "base/threads.h"
#include "eval/strata.h"

static void ok(lam_status status) {
    if (status != LAM_OK) fail_msg("%s", lam_last_error());
}

/* Rows of small integers, so that many cosines are equal, and two sources of pairs. */
enum {
    ROWS = 45,
    COLUMNS = 3,
    SOURCES = 2,
    THRESHOLDS = 3,
    RESULTS = SOURCES * THRESHOLDS * LAM_RECALL_SIDES
};

typedef struct world {
    double x[ROWS * COLUMNS], cosine[ROWS * ROWS];
    lam_pair pairs[SOURCES][ROWS * ROWS];
    lam_known known[SOURCES];
    lam_tails tails[THRESHOLDS];
    lam_directions directions;
    lam_recall_problem problem;
} world;

static void make_world(world *w, uint64_t seed) {
    lam_rng r = lam_rng_stream(seed, LAM_RNG_TEST, 0);
    int64_t count[SOURCES] = {0}, total = 0;
    *w = (world){
        .tails = {{.left = 0.05, .right = 0.95}, {.left = 0.1, .right = 0.9}, {.left = 0.3, .right = 0.8}}};
    for (int i = 0; i < ROWS * COLUMNS; i++)
        w->x[i] = (double)lam_rng_below(&r, 5) - 2 + (i % COLUMNS ? 0 : 0.5);
    ok(lam_directions_make(&w->directions, w->x, ROWS, COLUMNS));
    ok(lam_recall_cuts(&w->directions, w->tails, THRESHOLDS, NULL));
    for (int i = 0; i < ROWS; i++)
        for (int j = i + 1; j < ROWS; j++)
            for (int s = 0; s < SOURCES; s++)
                if (lam_rng_below(&r, 4) == 0) w->pairs[s][count[s]++] = (lam_pair){i, j};
    for (int s = 0; s < SOURCES; s++) {
        lam_recall_cosines(&w->directions, w->pairs[s], count[s], w->cosine + total);
        w->known[s] = (lam_known){w->pairs[s], w->cosine + total, count[s]};
        total += count[s];
    }
    w->problem = (lam_recall_problem){w->known, SOURCES, w->tails, THRESHOLDS};
}

/* The definition: ranks in the sorted null, as numpy's searchsorted. */
static bool recovered_by_rank(const world *w, const lam_tails *t, int side, double cosine) {
    int64_t below = 0, up_to = 0, size = 0;
    for (int i = 0; i < ROWS; i++)
        for (int j = i + 1; j < ROWS; j++) {
            double other = lam_directions_cosine(&w->directions, i, j);
            below += other < cosine;
            up_to += other <= cosine;
            size++;
        }
    bool left = (double)up_to / (double)size <= t->left, right = (double)below / (double)size >= t->right;
    return side == LAM_RECALL_BOTH ? left || right : side == LAM_RECALL_LEFT ? left : right;
}

static double weighted(const world *w, int result, const int *weights, const int *order) {
    const lam_known *known = &w->known[result / (THRESHOLDS * LAM_RECALL_SIDES)];
    const lam_tails *tails = &w->tails[result / LAM_RECALL_SIDES % THRESHOLDS];
    double hit = 0, total = 0;
    for (int64_t k = 0; k < known->count; k++) {
        int i = order ? order[known->pairs[k].i] : known->pairs[k].i,
            j = order ? order[known->pairs[k].j] : known->pairs[k].j;
        double weight = weights ? (double)weights[known->pairs[k].i] * weights[known->pairs[k].j] : 1;
        total += weight;
        if (recovered_by_rank(w, tails, result % LAM_RECALL_SIDES,
                              lam_directions_cosine(&w->directions, i, j)))
            hit += weight;
    }
    return hit / total;
}

static void every_side(void **unused) {
    (void)unused;
    for (uint64_t seed = 0; seed < 5; seed++) {
        world w;
        double share[RESULTS];
        make_world(&w, seed);
        assert_int_equal(lam_recall_results(&w.problem), RESULTS);
        lam_recall_shares(&w.problem, share);
        for (int r = 0; r < RESULTS; r++) assert_true(share[r] == weighted(&w, r, NULL, NULL));
        lam_directions_free(&w.directions);
    }
}

static void bootstrap(void **unused) {
    (void)unused;
    enum { DRAWS = 7 };
    world w;
    double share[RESULTS * DRAWS], again[RESULTS * DRAWS];
    make_world(&w, 11);
    lam_threads_set(1);
    ok(lam_recall_bootstrap(&w.problem, ROWS, DRAWS, 3, share));
    lam_threads_set(2);
    ok(lam_recall_bootstrap(&w.problem, ROWS, DRAWS, 3, again));
    assert_memory_equal(share, again, sizeof share);
    for (int draw = 0; draw < DRAWS; draw++) {
        int weights[ROWS] = {0};
        lam_rng r = lam_rng_stream(3, LAM_RNG_BOOTSTRAP, (uint64_t)draw);
        for (int i = 0; i < ROWS; i++) weights[lam_rng_below(&r, ROWS)]++;
        for (int k = 0; k < RESULTS; k++)
            assert_true(share[k * DRAWS + draw] == weighted(&w, k, weights, NULL));
    }
    lam_directions_free(&w.directions);
    /* One pair, whose genes are not both drawn: no share. */
    lam_pair pair = {0, 1};
    double cosine = 1, one[LAM_RECALL_SIDES * 200];
    int missing = 0;
    lam_tails tails = {.below = -0.5, .above = 0.5};
    lam_known known = {&pair, &cosine, 1};
    ok(lam_recall_bootstrap(&(lam_recall_problem){&known, 1, &tails, 1}, 4, 200, 0, one));
    for (int draw = 0; draw < 200; draw++) {
        missing += isnan(one[draw]);
        assert_true(isnan(one[draw]) || one[draw] == 1);
    }
    assert_in_range(missing, 80, 150); /* 1 - P(both) = .54 */
    double low, high;
    lam_interval(one, 200, 0.025, 0.975, &low, &high);
    assert_true(low >= 1 && high <= 1);
    lam_interval(one, 0, 0.025, 0.975, &low, &high);
    assert_true(isnan(low) && isnan(high));
}

static void permutations(void **unused) {
    (void)unused;
    enum { P = 40 };
    for (uint64_t seed = 20; seed < 23; seed++) {
        world w;
        double p[RESULTS], again[RESULTS];
        bool some[ROWS], *labelled = seed == 20 ? NULL : some;
        int places[ROWS], count = 0;
        make_world(&w, seed);
        for (int i = 0; i < ROWS; i++)
            if ((some[i] = i % 3 != 1) || !labelled) places[count++] = i;
        lam_threads_set(1);
        ok(lam_recall_permutation(&w.directions, &w.problem, labelled, P, 9, p));
        lam_threads_set(2);
        ok(lam_recall_permutation(&w.directions, &w.problem, labelled, P, 9, again));
        assert_memory_equal(p, again, sizeof p);
        int as_many[RESULTS] = {0};
        for (int permutation = 0; permutation < P; permutation++) {
            int order[ROWS];
            lam_rng r = lam_rng_stream(9, LAM_RNG_PERMUTATION, (uint64_t)permutation);
            for (int i = 0; i < ROWS; i++) order[i] = i;
            for (int i = count - 1; i > 0; i--) {
                int k = (int)lam_rng_below(&r, (uint32_t)i + 1), t = order[places[i]];
                order[places[i]] = order[places[k]];
                order[places[k]] = t;
            }
            for (int k = 0; k < RESULTS; k++)
                as_many[k] += weighted(&w, k, NULL, order) >= weighted(&w, k, NULL, NULL);
        }
        for (int k = 0; k < RESULTS; k++) assert_true(p[k] == (1.0 + as_many[k]) / (1.0 + P));
        lam_directions_free(&w.directions);
    }
}

/* Pairs on one arm and on two, of the sources and of the whole map, against the definition. */
static void strata(void **unused) {
    (void)unused;
    for (uint64_t seed = 30; seed < 34; seed++) {
        world w;
        int32_t arm[ROWS];
        lam_stratum_share known[SOURCES * LAM_STRATA], null[LAM_STRATA], again[SOURCES * LAM_STRATA],
            null_again[LAM_STRATA];
        make_world(&w, seed);
        lam_rng r = lam_rng_stream(seed, LAM_RNG_TEST, 5);
        for (int i = 0; i < ROWS; i++) arm[i] = (int32_t)lam_rng_below(&r, 5) - 1;
        lam_threads_set(1);
        ok(lam_strata_shares(&w.directions, &w.problem, arm, known, null));
        lam_threads_set(2);
        ok(lam_strata_shares(&w.directions, &w.problem, arm, again, null_again));
        assert_memory_equal(known, again, sizeof known);
        assert_memory_equal(null, null_again, sizeof null);
        for (int source = -1; source < SOURCES; source++)
            for (int stratum = 0; stratum < LAM_STRATA; stratum++)
                for (int k = 0; k < THRESHOLDS * LAM_RECALL_SIDES; k++) {
                    int64_t pairs = 0, hits = 0, count = source < 0 ? ROWS * ROWS : w.known[source].count;
                    for (int64_t at = 0; at < count; at++) {
                        int i = source < 0 ? (int)(at / ROWS) : w.known[source].pairs[at].i,
                            j = source < 0 ? (int)(at % ROWS) : w.known[source].pairs[at].j;
                        if (i >= j || arm[i] < 0 || arm[j] < 0 ||
                            (arm[i] == arm[j]) != (stratum == LAM_STRATUM_WITHIN))
                            continue;
                        pairs++;
                        hits += recovered_by_rank(&w, &w.tails[k / LAM_RECALL_SIDES], k % LAM_RECALL_SIDES,
                                                  lam_directions_cosine(&w.directions, i, j));
                    }
                    const lam_stratum_share *got =
                        source < 0 ? &null[stratum] : &known[source * LAM_STRATA + stratum];
                    assert_int_equal(got->pairs, pairs);
                    assert_int_equal(got->hits[k / LAM_RECALL_SIDES][k % LAM_RECALL_SIDES], hits);
                }
        lam_directions_free(&w.directions);
    }
}

/* ---- coverage ---- */

/* Genes are drawn independently: a pathway at random, its place in the latent space, and noise. Related are the pairs of one
 * pathway, so the recall of the whole population is a number, found once from a large sample. */
enum { LATENT = 12, GENES = 200, POPULATION = 6000, PROBLEMS = 1000, DRAWS = 200 };

static void draw_genes(int64_t count, int pathways, uint64_t seed, double *x, int *pathway) {
    lam_rng r = lam_rng_stream(seed, LAM_RNG_TEST, 1);
    for (int64_t i = 0; i < count; i++) {
        pathway[i] = (int)lam_rng_below(&r, (uint32_t)pathways);
        lam_rng centre = lam_rng_stream((uint64_t)pathway[i], LAM_RNG_TEST, 2);
        for (int j = 0; j < LATENT; j++)
            x[i * LATENT + j] = 0.6 * lam_rng_normal(&centre) + lam_rng_normal(&r);
    }
}

typedef struct sampled {
    double *x, *cosine, *residual, *work;
    int *pathway;
    lam_pair *pairs;
    int64_t genes;
    lam_directions directions;
    lam_tails tails;
    lam_known known;
    lam_recall_problem problem;
    double share[LAM_RECALL_SIDES];
} sampled;

static void draw(sampled *s, int64_t genes, int pathways, uint64_t seed) {
    *s = (sampled){.genes = genes, .tails = {.left = 0.05, .right = 0.95}};
    ok(lam_alloc_array((void **)&s->x, genes * LATENT, sizeof *s->x));
    ok(lam_alloc_array((void **)&s->pathway, genes, sizeof *s->pathway));
    ok(lam_alloc_array((void **)&s->work, genes, sizeof *s->work));
    draw_genes(genes, pathways, seed, s->x, s->pathway);
    int64_t related = 0, at = 0;
    for (int64_t i = 0; i < genes; i++)
        for (int64_t j = i + 1; j < genes; j++) related += s->pathway[i] == s->pathway[j];
    ok(lam_alloc_array((void **)&s->pairs, related, sizeof *s->pairs));
    ok(lam_alloc_array((void **)&s->cosine, related, sizeof *s->cosine));
    ok(lam_alloc_array((void **)&s->residual, related, sizeof *s->residual));
    for (int64_t i = 0; i < genes; i++)
        for (int64_t j = i + 1; j < genes; j++)
            if (s->pathway[i] == s->pathway[j]) s->pairs[at++] = (lam_pair){(int32_t)i, (int32_t)j};
    ok(lam_directions_make(&s->directions, s->x, genes, LATENT));
    ok(lam_recall_cuts(&s->directions, &s->tails, 1, NULL));
    lam_recall_cosines(&s->directions, s->pairs, related, s->cosine);
    s->known = (lam_known){s->pairs, s->cosine, related};
    s->problem = (lam_recall_problem){&s->known, 1, &s->tails, 1};
    lam_recall_shares(&s->problem, s->share);
}

static void discard(sampled *s) {
    lam_directions_free(&s->directions);
    lam_free(s->x);
    lam_free(s->cosine);
    lam_free(s->residual);
    lam_free(s->work);
    lam_free(s->pathway);
    lam_free(s->pairs);
}

static double spread_of(sampled *s) {
    for (int64_t k = 0; k < s->known.count; k++)
        s->residual[k] = lam_recovered(&s->tails, LAM_RECALL_BOTH, s->cosine[k]) - s->share[LAM_RECALL_BOTH];
    return lam_recall_spread(s->pairs, s->residual, s->known.count, s->genes, s->work);
}

static void coverage(void **unused) {
    (void)unused;
    static const int pathways[] = {10, 30, 100};
    static double shares[LAM_RECALL_SIDES * DRAWS];
    for (int c = 0; c < 3; c++) {
        sampled s;
        draw(&s, POPULATION, pathways[c], 1);
        double truth = s.share[LAM_RECALL_BOTH], width = 0, partners = 0;
        discard(&s);
        int covered = 0, plain = 0;
        for (uint64_t k = 0; k < PROBLEMS; k++) {
            double low, high, spread, recall;
            draw(&s, GENES, pathways[c], 100 + k);
            ok(lam_recall_bootstrap(&s.problem, GENES, DRAWS, k, shares));
            lam_interval(shares, DRAWS, 0.025, 0.975, &low, &high);
            spread = spread_of(&s);
            recall = s.share[LAM_RECALL_BOTH];
            plain += low <= truth && truth <= high;
            covered +=
                recall + spread * (low - recall) <= truth && truth <= recall + spread * (high - recall);
            width += spread * (high - low) / PROBLEMS;
            partners += 2.0 * (double)s.known.count / GENES / PROBLEMS;
            discard(&s);
        }
        print_message(
            "%.0f partners a gene: recall %.4f lies in %.1f %% of %d intervals (%.1f %% of those without the spread), "
            "%.3f wide in the mean\n",
            partners, truth, 100.0 * covered / PROBLEMS, PROBLEMS, 100.0 * plain / PROBLEMS, width);
        assert_in_range(covered, 930, 970);
    }
}

/* ---- thresholds held ---- */

typedef struct null_pair {
    double cosine;
    int i, j;
} null_pair;

static int by_cosine(const void *a, const void *b) {
    const null_pair *x = a, *y = b;
    return (x->cosine > y->cosine) - (x->cosine < y->cosine);
}

/* The cuts of the null under weights, from its sorted pairs. */
static void weighted_cuts(const null_pair *null, int64_t count, const int *weights, lam_tails *t) {
    double total = 0, sum = 0;
    for (int64_t k = 0; k < count; k++) total += (double)weights[null[k].i] * weights[null[k].j];
    t->below = t->above = NAN;
    for (int64_t k = 0; k < count; k++) {
        sum += (double)weights[null[k].i] * weights[null[k].j];
        if (isnan(t->below) && sum > t->left * total) t->below = null[k].cosine;
        if (isnan(t->above) && sum >= t->right * total) t->above = null[k].cosine;
    }
}

static double deviation(const double *values, int64_t count) {
    double mean = 0, squares = 0;
    for (int64_t k = 0; k < count; k++) mean += values[k] / (double)count;
    for (int64_t k = 0; k < count; k++) squares += (values[k] - mean) * (values[k] - mean);
    return sqrt(squares / (double)(count - 1));
}

/* The bootstrap holds the thresholds; computing them anew from the weighted null of each draw changes the spread little. */
static void held_thresholds(void **unused) {
    (void)unused;
    enum { N = 500, FULL_DRAWS = 400 };
    sampled s;
    static double shares[LAM_RECALL_SIDES * FULL_DRAWS], full[FULL_DRAWS];
    draw(&s, N, 50, 3);
    int64_t count = 0;
    null_pair *null;
    ok(lam_alloc_array((void **)&null, N * (N - 1) / 2, sizeof *null));
    for (int i = 0; i < N; i++)
        for (int j = i + 1; j < N; j++)
            null[count++] = (null_pair){lam_directions_cosine(&s.directions, i, j), i, j};
    qsort(null, (size_t)count, sizeof *null, by_cosine);
    ok(lam_recall_bootstrap(&s.problem, N, FULL_DRAWS, 4, shares));
    for (int d = 0; d < FULL_DRAWS; d++) {
        int weights[N] = {0};
        double hit = 0, total = 0;
        lam_tails tails = s.tails;
        lam_rng r = lam_rng_stream(4, LAM_RNG_BOOTSTRAP, (uint64_t)d);
        for (int i = 0; i < N; i++) weights[lam_rng_below(&r, N)]++;
        weighted_cuts(null, count, weights, &tails);
        for (int64_t k = 0; k < s.known.count; k++) {
            double weight = (double)weights[s.pairs[k].i] * weights[s.pairs[k].j];
            total += weight;
            if (lam_recovered(&tails, LAM_RECALL_BOTH, s.cosine[k])) hit += weight;
        }
        full[d] = hit / total;
    }
    double held = deviation(shares, FULL_DRAWS), anew = deviation(full, FULL_DRAWS);
    print_message("standard error %.5f with the thresholds held, %.5f with them computed anew (%d genes)\n",
                  held, anew, N);
    assert_true(held > 0.85 * anew && held < 1.15 * anew);
    lam_free(null);
    discard(&s);
}

int main(void) {
    lam_log_set_quiet(true);
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_side),   cmocka_unit_test(bootstrap),
                                       cmocka_unit_test(permutations), cmocka_unit_test(strata),
                                       cmocka_unit_test(coverage),     cmocka_unit_test(held_thresholds)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
