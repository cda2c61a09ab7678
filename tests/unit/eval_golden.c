/* Alignments and recall against numbers of the published evaluator: efaar_golden.json on closed-form input, relate_golden.json on
 * real gene embeddings (skipped where they are not at hand). */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/embeddings.h"
#include "base/files.h"
#include "base/json.h"
#include "base/memory.h"
#include "eval/aggregate.h"
#include "eval/align.h"
#include "eval/clusters.h"
#include "eval/recall.h"
#include "eval/relationships.h"
#include "tests/unit/golden_screen.h"

static const char *shared(const char *name) {
    static char path[1024];
    const char *root = getenv("LAMELLA_SHARED");
    snprintf(path, sizeof path, "%s/data/%s", root ? root : LAM_TEST_GOLDEN "/../../../shared", name);
    return path;
}

static double cosine(const double *a, const double *b, int64_t d) {
    double ab = 0, aa = 0, bb = 0;
    for (int64_t j = 0; j < d; j++) ab += a[j] * b[j], aa += a[j] * a[j], bb += b[j] * b[j];
    return ab / sqrt(aa * bb);
}

/* At 5 and 95 %, at 10 and 90 %. */
static void recall_of(const double *map, int64_t rows, int64_t columns, const lam_source *source,
                      double recall[2]) {
    lam_directions directions;
    lam_tails tails[2] = {{.left = 0.05, .right = 0.95}, {.left = 0.1, .right = 0.9}};
    double *cosines;
    ok(lam_directions_make(&directions, map, rows, columns));
    ok(lam_recall_cuts(&directions, tails, 2, NULL));
    ok(lam_alloc_array((void **)&cosines, source->count, sizeof *cosines));
    lam_recall_cosines(&directions, source->pairs, source->count, cosines);
    lam_known known = {source->pairs, cosines, source->count};
    double share[2 * LAM_RECALL_SIDES];
    lam_recall_shares(&(lam_recall_problem){&known, 1, tails, 2}, share);
    for (int t = 0; t < 2; t++) recall[t] = share[t * LAM_RECALL_SIDES];
    lam_free(cosines);
    lam_directions_free(&directions);
}

static void check_recall(const double *map, int64_t columns, const lam_json *recall,
                         const char *const *genes) {
    for (const char *key = NULL; (key = lam_json_key_after(recall, key));) {
        char name[128];
        snprintf(name, sizeof name, "gene_relationships/%s.txt.gz", key);
        if (!lam_path_exists(shared(name))) continue;
        const lam_json *golden = lam_json_get(recall, key);
        const char *path = shared(name);
        lam_names *names;
        lam_relationships r;
        ok(lam_names_create(&names, genes, GENES));
        ok(lam_relationships_read(&path, 1, names, NULL, GENES, &r));
        assert_int_equal(r.sources[0].count, lam_json_int(lam_json_get(golden, "n_rel"), -1));
        double expected[2];
        recall_of(map, GENES, columns, &r.sources[0], expected);
        assert_true(expected[0] == lam_json_float(lam_json_get(golden, "r05"), -1));
        assert_true(expected[1] == lam_json_float(lam_json_get(golden, "r10"), -1));
        lam_relationships_free(&r);
        lam_names_free(names);
    }
}

/* Each complex among itself against it and the other genes. */
static void check_clusters(const double *map, int64_t columns, const lam_json *golden) {
    const lam_json *clusters = lam_json_get(golden, "cluster_benchmark_tvn_batch"),
                   *groups = lam_json_get(golden, "groups"),
                   *group_of = lam_json_get(golden, "group_of_gene");
    lam_directions directions;
    ok(lam_directions_make(&directions, map, GENES, columns));
    for (size_t c = 0; c < 5; c++) {
        const lam_json *expected = lam_json_at(clusters, c);
        int32_t rows[GENES];
        int64_t count = 0, group = 0;
        while (strcmp(lam_json_text(lam_json_at(groups, (size_t)group), ""),
                      lam_json_text(lam_json_get(expected, "cluster"), "?")) != 0)
            group++;
        for (int32_t g = 0; g < GENES; g++)
            if (lam_json_int(lam_json_at(group_of, (size_t)g), -1) == group) rows[count++] = g;
        assert_int_equal(count, lam_json_int(lam_json_get(expected, "size"), -1));
        lam_cluster_test test;
        ok(lam_cluster_compare(&directions, rows, count, &test));
        double p = lam_json_float(lam_json_get(expected, "p"), -1);
        assert_true(fabs(test.within_mean - lam_json_float(lam_json_get(expected, "within"), 9)) < 1e-10);
        assert_true(fabs(test.between_mean - lam_json_float(lam_json_get(expected, "between"), 9)) < 1e-10);
        assert_true(fabs(test.ks.statistic - lam_json_float(lam_json_get(expected, "ks"), 9)) < 1e-12);
        assert_true(fabs(test.ks.p - p) <= 1e-9 * p);
        assert_true(test.cvm.p > 0 && test.cvm.p < 0.01);
    }
    lam_directions_free(&directions);
}

static void alignments(void **unused) {
    (void)unused;
    static const struct {
        const char *name;
        lam_align_method method;
        bool controls, batch;
    } cases[] = {{"raw", LAM_ALIGN_NONE, true, true},
                 {"centerscale_by_batch", LAM_ALIGN_CENTERSCALE, false, true},
                 {"cs_global", LAM_ALIGN_CENTERSCALE, true, false},
                 {"cs_batch", LAM_ALIGN_CENTERSCALE, true, true},
                 {"tvn_nobatch", LAM_ALIGN_TVN, true, false},
                 {"tvn_batch", LAM_ALIGN_TVN, true, true},
                 {"pca_cs", LAM_ALIGN_PCA_CS, true, true}};
    lam_json *golden = read_json("efaar_golden.json");
    screen *original, *s;
    ok(lam_alloc((void **)&original, sizeof *original));
    ok(lam_alloc((void **)&s, sizeof *s));
    make_screen(original, golden);
    const char *genes[GENES];
    for (size_t g = 0; g < GENES; g++)
        genes[g] = lam_json_text(lam_json_at(lam_json_get(golden, "genes"), g), "");
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        memcpy(s, original, sizeof *s);
        int64_t columns = D, codes[ROWS], counts[GENES], rows = 0;
        lam_alignment how = {.method = cases[c].method,
                             .controls = cases[c].controls ? s->controls : NULL,
                             .batch = cases[c].batch ? s->batch : NULL,
                             .batches = BATCHES};
        ok(lam_align(&how, s->x, ROWS, &columns, NULL));
        assert_int_equal(columns, D);
        double kept[ROWS * D], map[GENES * D];
        for (int64_t i = 0; i < ROWS; i++) {
            if (s->gene[i] < 0) continue;
            codes[rows] = s->gene[i];
            memcpy(kept + rows++ * D, s->x + i * D, D * sizeof(double));
        }
        ok(lam_aggregate(kept, rows, D, codes, GENES, LAM_AGGREGATE_MEAN, map, counts));
        assert_int_equal(counts[7], BATCHES * REPLICATES);
        const lam_json *expected = lam_json_get(lam_json_get(golden, "alignments"), cases[c].name);
        assert_non_null(expected);
        const struct {
            const char *name;
            int a, b;
        } pairs[] = {{"cos_0_1", 0, 1}, {"cos_0_2", 0, 2}, {"cos_10_30", 10, 30}};
        for (size_t p = 0; p < 3; p++) {
            double got = cosine(map + pairs[p].a * D, map + pairs[p].b * D, D),
                   want = lam_json_float(lam_json_get(expected, pairs[p].name), 9);
            if (!(fabs(got - want) < 1e-10))
                fail_msg("%s %s: %.15g, expected %.15g", cases[c].name, pairs[p].name, got, want);
        }
        double sum = 0;
        for (int a = 0; a < GENES; a++)
            for (int b = a + 1; b < GENES; b++) sum += cosine(map + a * D, map + b * D, D);
        assert_true(fabs(sum / 780 - lam_json_float(lam_json_get(expected, "mean_upper"), 9)) < 1e-10);
        check_recall(map, D, lam_json_get(expected, "recall"), genes);
        if (!strcmp(cases[c].name, "tvn_batch")) check_clusters(map, D, golden);
    }
    lam_free(original);
    lam_free(s);
    lam_json_free(golden);
}

/* ---- guards ---- */

static void fewer_controls_than_dimensions(void **unused) {
    (void)unused;
    double x[6 * 5];
    bool controls[6] = {true, true, true, false, false, false};
    state = 7;
    for (int i = 0; i < 30; i++) x[i] = n();
    int64_t columns = 5;
    lam_alignment how = {.method = LAM_ALIGN_TVN, .controls = controls};
    ok(lam_align(&how, x, 6, &columns, NULL));
    assert_int_equal(columns, 2); /* three controls span two directions */
    for (int i = 0; i < 12; i++) assert_true(isfinite(x[i]) && fabs(x[i]) < 1e3);
    columns = 2;
    how.components = 1;
    ok(lam_align(&how, x, 6, &columns, NULL));
    assert_int_equal(columns, 1);
}

static void batch_without_controls(void **unused) {
    (void)unused;
    double x[8] = {1, 2, 3, 5, 4, 1, 7, 7};
    bool controls[4] = {true, true, true, false};
    int64_t batch[4] = {0, 0, 0, 1}, columns = 2;
    const char *names[2] = {"p1", "p2"};
    lam_alignment how = {.method = LAM_ALIGN_CENTERSCALE,
                         .controls = controls,
                         .batch = batch,
                         .batches = 2,
                         .batch_names = names};
    assert_int_equal(lam_align(&how, x, 4, &columns, NULL), LAM_ERROR_INPUT);
    assert_non_null(strstr(lam_last_error(), "batch 'p2' has 0 controls"));
}

static void constant_columns(void **unused) {
    (void)unused;
    double x[6] = {3, 1, 3, 2, 3, 3};
    int64_t columns = 2;
    lam_alignment how = {.method = LAM_ALIGN_CENTERSCALE};
    ok(lam_align(&how, x, 3, &columns, NULL));
    for (int i = 0; i < 3; i++) assert_true(fabs(x[2 * i]) < 1e-12);
    assert_true(fabs(x[1] + sqrt(1.5)) < 1e-12);
}

/* ---- recall ---- */

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Every statistic that a search can end with against a full sort in float64: ties, more values than are kept, brackets that miss. */
static void order_against_sorting(void **unused) {
    (void)unused;
    enum { N = 1300, RANKS = 7 };
    static const struct {
        int columns, levels; /* levels: few distinct directions give many equal cosines; 0: none equal */
        lam_order_options options;
    } cases[] = {{5, 0, {1 << 20, 4.5, 1 << 22}}, {5, 0, {4000, 0, 1 << 23}},     {5, 0, {4000, 4.5, 0}},
                 {33, 0, {4000, 1, 2000}},        {3, 4, {4000, 4.5, 1 << 23}},   {3, 2, {4000, 0, 5000}},
                 {1, 2, {1 << 20, 0, 0}},         {130, 0, {2000, 4.5, 1 << 23}}, {3, 4, {1 << 22, 4.5, 0}}};
    int64_t size = N * (N - 1) / 2;
    const int64_t ranks[RANKS] = {size - 1,  0,        size / 20, size - size / 20 - 1,
                                  size / 10, size / 2, size / 20};
    double *x, *all;
    ok(lam_alloc_array((void **)&x, N * 130, sizeof *x));
    ok(lam_alloc_array((void **)&all, size, sizeof *all));
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        state = 3 + (uint32_t)c;
        for (int64_t i = 0; i < N * cases[c].columns; i++)
            x[i] =
                cases[c].levels ? (double)(int)(cases[c].levels * u()) - 0.5 * cases[c].levels + 0.25 : n();
        lam_directions directions;
        double values[RANKS];
        lam_cosine_histogram histogram;
        ok(lam_directions_make(&directions, x, N, cases[c].columns));
        ok(lam_order_statistics(&directions, ranks, RANKS, &cases[c].options, values, &histogram));
        int64_t k = 0, total = 0;
        double largest_error = 0;
        for (int64_t i = 0; i < N; i++)
            for (int64_t j = i + 1; j < N; j++) {
                all[k++] = lam_directions_cosine(&directions, i, j);
                largest_error =
                    fmax(largest_error, fabs(all[k - 1] - (double)lam_directions_near(&directions, i, j)));
            }
        assert_true(largest_error <= directions.bound);
        qsort(all, (size_t)size, sizeof *all, by_value);
        for (int r = 0; r < RANKS; r++) assert_true(values[r] == all[ranks[r]]);
        for (int b = 0; b < LAM_HISTOGRAM_BINS; b++) total += histogram.count[b];
        assert_int_equal(total, histogram.pairs);
        lam_directions_free(&directions);
    }
    lam_free(x);
    lam_free(all);
}

/* The published unit case: null 1..5, query 1 and 5 (as five pairs of equal cosines it cannot be made, so by the cuts alone), and
 * thresholds that fall on a rank exactly: the pair of that rank is not recovered on the right, ties never. */
static void cuts(void **unused) {
    (void)unused;
    enum { N = 5 };
    const double angle[N] = {0, 0.1, 0.35, 0.8, 1.5}; /* ten different angles */
    double x[2 * N], all[10];
    for (int i = 0; i < N; i++) x[2 * i] = cos(angle[i]), x[2 * i + 1] = sin(angle[i]);
    lam_directions directions;
    ok(lam_directions_make(&directions, x, N, 2));
    int k = 0;
    for (int i = 0; i < N; i++)
        for (int j = i + 1; j < N; j++) all[k++] = lam_directions_cosine(&directions, i, j);
    qsort(all, 10, sizeof *all, by_value);
    lam_tails tails[3] = {
        {.left = 0.1, .right = 0.9}, {.left = 0.2, .right = 0.8}, {.left = 0.05, .right = 0.95}};
    ok(lam_recall_cuts(&directions, tails, 3, NULL));
    static const int expected[3] = {2, 4, 0};
    for (int t = 0; t < 3; t++) {
        int hits = 0;
        for (k = 0; k < 10; k++) hits += lam_recovered(&tails[t], LAM_RECALL_BOTH, all[k]);
        assert_int_equal(hits, expected[t]);
    }
    lam_directions_free(&directions);
    double bad[6] = {1, 2, 0, 0, 3, 4};
    assert_int_equal(lam_directions_make(&directions, bad, 3, 2), LAM_ERROR_INPUT);
    assert_non_null(strstr(lam_last_error(), "row 2"));
    bad[2] = 1e-300, bad[3] = 1e200, bad[0] = 1e300, bad[1] = 1e300; /* squares leave the range of a double */
    ok(lam_directions_make(&directions, bad, 3, 2));
    assert_true(fabs(lam_directions_cosine(&directions, 0, 1) - sqrt(0.5)) < 1e-15);
    lam_directions_free(&directions);
}

static void real_embeddings(void **unused) {
    (void)unused;
    if (!lam_path_exists(shared("gene_embeddings/README.txt"))) skip();
    lam_json *golden = read_json("relate_golden.json");
    for (const char *file = NULL; (file = lam_json_key_after(golden, file));) {
        if (file[0] == '_') continue;
        static const char *const methods[] = {"none", "center", "centerscale"};
        for (int m = 0; m < 3; m++) {
            char name[256];
            snprintf(name, sizeof name, "gene_embeddings/%s", file);
            lam_embeddings *e;
            ok(lam_embeddings_read(&e, shared(name), NULL, NULL));
            lam_alignment how = {.method = (lam_align_method)m};
            ok(lam_align(&how, e->values, e->rows, &e->columns, NULL));
            const lam_json *sources = lam_json_get(lam_json_get(golden, file), methods[m]);
            for (const char *key = NULL; (key = lam_json_key_after(sources, key));) {
                snprintf(name, sizeof name, "gene_relationships/%s.txt.gz", key);
                const char *path = shared(name);
                const lam_json *expected = lam_json_get(sources, key);
                lam_names *names;
                lam_relationships r;
                double recall[2];
                ok(lam_names_create(&names, (const char *const *)e->index, e->rows));
                ok(lam_relationships_read(&path, 1, names, NULL, e->rows, &r));
                const lam_source *source = &r.sources[0];
                assert_int_equal(e->rows * (e->rows - 1) / 2,
                                 lam_json_int(lam_json_get(expected, "null"), -1));
                assert_int_equal(source->count, lam_json_int(lam_json_get(expected, "query"), -1));
                recall_of(e->values, e->rows, e->columns, source, recall);
                assert_true(recall[0] == lam_json_float(lam_json_get(expected, "r05"), -1));
                assert_true(recall[1] == lam_json_float(lam_json_get(expected, "r10"), -1));
                lam_relationships_free(&r);
                lam_names_free(names);
            }
            lam_embeddings_free(e);
        }
    }
    lam_json_free(golden);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(alignments),
                                       cmocka_unit_test(fewer_controls_than_dimensions),
                                       cmocka_unit_test(batch_without_controls),
                                       cmocka_unit_test(constant_columns),
                                       cmocka_unit_test(order_against_sorting),
                                       cmocka_unit_test(cuts),

                                       cmocka_unit_test(real_embeddings)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
