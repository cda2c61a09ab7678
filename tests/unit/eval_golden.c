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
#include "eval/recall.h"
#include "eval/relationships.h"

enum {
    D = 8,
    GENES = 40,
    BATCHES = 3,
    CONTROLS = 30,
    REPLICATES = 2,
    ROWS = BATCHES * (CONTROLS + REPLICATES * GENES)
};

static void ok(lam_status status) {
    if (status != LAM_OK) fail_msg("%s", lam_last_error());
}

static lam_json *read_json(const char *name) {
    char path[1024], *text;
    size_t size;
    lam_json *json;
    snprintf(path, sizeof path, "%s/%s", LAM_TEST_GOLDEN, name);
    ok(lam_file_read(path, &text, &size));
    ok(lam_json_parse(&json, text, size, name));
    lam_free(text);
    return json;
}

static const char *shared(const char *name) {
    static char path[1024];
    const char *root = getenv("LAMELLA_SHARED");
    snprintf(path, sizeof path, "%s/data/%s", root ? root : LAM_TEST_GOLDEN "/../../../shared", name);
    return path;
}

/* ---- the closed-form screen ---- */

static uint32_t state;
static double u(void) {
    state = 1664525u * state + 1013904223u;
    return (double)state / 4294967296.0;
}
static double n(void) {
    double a = u(), b = u(), c = u(), d = u();
    return a + b + c + d - 2;
}

typedef struct screen {
    double x[ROWS * D];
    bool controls[ROWS];
    int64_t batch[ROWS], gene[ROWS]; /* gene -1: control */
} screen;

static void make_screen(screen *s, const lam_json *golden) {
    double group_effect[5][D], effect[GENES][D], shift[BATCHES][D], scale[BATCHES][D];
    state = 1;
    for (int g = 0; g < 5; g++)
        for (int j = 0; j < D; j++) group_effect[g][j] = n();
    for (int g = 0; g < GENES; g++) {
        int64_t group = lam_json_int(lam_json_at(lam_json_get(golden, "group_of_gene"), (size_t)g), -1);
        for (int j = 0; j < D; j++) effect[g][j] = group_effect[group][j] + 0.7 * n();
    }
    for (int b = 0; b < BATCHES; b++)
        for (int j = 0; j < D; j++) shift[b][j] = 0.5 * n();
    for (int b = 0; b < BATCHES; b++)
        for (int j = 0; j < D; j++) scale[b][j] = 1 + 0.5 * u();
    int64_t row = 0;
    for (int b = 0; b < BATCHES; b++)
        for (int k = 0; k < CONTROLS + REPLICATES * GENES; k++, row++) {
            int gene = k < CONTROLS ? -1 : (k - CONTROLS) / REPLICATES;
            s->controls[row] = gene < 0;
            s->batch[row] = b;
            s->gene[row] = gene;
            for (int j = 0; j < D; j++)
                s->x[row * D + j] = shift[b][j] + scale[b][j] * (n() + (gene < 0 ? 0 : effect[gene][j]));
        }
    double sum = 0;
    for (int64_t i = 0; i < ROWS * D; i++) sum += s->x[i];
    assert_true(fabs(sum - lam_json_float(lam_json_get(golden, "X_sum"), 0)) < 1e-9);
}

static double cosine(const double *a, const double *b, int64_t d) {
    double ab = 0, aa = 0, bb = 0;
    for (int64_t j = 0; j < d; j++) ab += a[j] * b[j], aa += a[j] * a[j], bb += b[j] * b[j];
    return ab / sqrt(aa * bb);
}

static void check_recall(const double *map, int64_t columns, const lam_json *recall,
                         const char *const *genes) {
    for (const char *key = NULL; (key = lam_json_key_after(recall, key));) {
        char name[128];
        snprintf(name, sizeof name, "gene_relationships/%s.txt.gz", key);
        if (!lam_path_exists(shared(name))) continue;
        const lam_json *golden = lam_json_get(recall, key);
        const char *path = shared(name);
        lam_source *sources;
        int64_t count;
        lam_ranks ranks;
        ok(lam_relationships_read(&path, 1, genes, GENES, &sources, &count));
        assert_int_equal(sources[0].count, lam_json_int(lam_json_get(golden, "n_rel"), -1));
        ok(lam_recall_rank(map, GENES, columns, sources[0].pairs, sources[0].count, &ranks));
        assert_int_equal(ranks.null_size, 780);
        int64_t narrow = 0, wide = 0;
        for (int64_t k = 0; k < sources[0].count; k++) {
            narrow += ranks.right[k] <= 0.05 || ranks.left[k] >= 0.95;
            wide += ranks.right[k] <= 0.1 || ranks.left[k] >= 0.9;
        }
        assert_true((double)narrow / (double)sources[0].count ==
                    lam_json_float(lam_json_get(golden, "r05"), -1));
        assert_true((double)wide / (double)sources[0].count ==
                    lam_json_float(lam_json_get(golden, "r10"), -1));
        lam_ranks_free(&ranks);
        lam_relationships_free(sources, count);
    }
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
        ok(lam_aggregate(kept, rows, D, codes, GENES, false, map, counts));
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

/* Against sorting all pairs, with ties: many equal rows give many equal cosines. */
static void ranks_against_sorting(void **unused) {
    (void)unused;
    enum { N = 700, W = 3 };
    double *x;
    ok(lam_alloc_array((void **)&x, N * W, sizeof *x));
    state = 3;
    for (int i = 0; i < N * W; i++) x[i] = (double)(int)(4 * u()) - 1.5; /* few distinct directions */
    lam_pair *pairs;
    ok(lam_alloc_array((void **)&pairs, 400, sizeof *pairs));
    for (int k = 0; k < 400; k++) {
        int a = (int)(N * u()), b = (int)(N * u());
        if (a == b) b = (a + 1) % N;
        pairs[k] = a < b ? (lam_pair){a, b} : (lam_pair){b, a};
    }
    lam_ranks ranks;
    ok(lam_recall_rank(x, N, W, pairs, 400, &ranks));
    for (int k = 0; k < 400; k += 23) {
        /* Values that differ by rounding alone are the same value or not, as the tiles computed them: bounds from both sides. */
        int64_t below = 0, above = 0;
        double mine = cosine(x + pairs[k].i * W, x + pairs[k].j * W, W);
        for (int a = 0; a < N; a++)
            for (int b = a + 1; b < N; b++) {
                double other = cosine(x + a * W, x + b * W, W);
                below += other < mine - 1e-12;
                above += other > mine + 1e-12;
            }
        double size = (double)ranks.null_size;
        assert_true(ranks.left[k] * size >= (double)below - 0.5 &&
                    ranks.right[k] * size <= size - (double)above + 0.5);
        assert_true(ranks.left[k] < ranks.right[k]);
    }
    int64_t total = 0;
    for (int b = 0; b < LAM_RECALL_BINS; b++) total += ranks.null_histogram[b];
    assert_int_equal(total, ranks.null_size);
    lam_ranks_free(&ranks);
    lam_free(pairs);
    lam_free(x);
}

static void bootstrap(void **unused) {
    (void)unused;
    enum { N = 60, PAIRS = 90, DRAWS = 400 };
    lam_pair pairs[PAIRS];
    bool recovered[PAIRS];
    double share[DRAWS], again[DRAWS], low, high;
    state = 5;
    for (int k = 0; k < PAIRS; k++) {
        int a = k % N, b = (a + 1 + k / N) % N;
        pairs[k] = a < b ? (lam_pair){a, b} : (lam_pair){b, a};
        recovered[k] = k % 3 == 0;
    }
    ok(lam_recall_bootstrap(pairs, recovered, PAIRS, N, DRAWS, 1, share));
    ok(lam_recall_bootstrap(pairs, recovered, PAIRS, N, DRAWS, 1, again));
    assert_memory_equal(share, again, sizeof share);
    lam_interval(share, DRAWS, 0.025, 0.975, &low, &high);
    assert_true(low < 1.0 / 3 && high > 1.0 / 3 && low > 0.1 && high < 0.6);
    for (int k = 0; k < PAIRS; k++) recovered[k] = true;
    ok(lam_recall_bootstrap(pairs, recovered, PAIRS, N, DRAWS, 1, share));
    lam_interval(share, DRAWS, 0.025, 0.975, &low, &high);
    assert_true(low >= 1 && high <= 1);
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
                lam_source *source;
                int64_t count, narrow = 0, wide = 0;
                lam_ranks ranks;
                ok(lam_relationships_read(&path, 1, (const char *const *)e->index, e->rows, &source, &count));
                ok(lam_recall_rank(e->values, e->rows, e->columns, source->pairs, source->count, &ranks));
                assert_int_equal(ranks.null_size, lam_json_int(lam_json_get(expected, "null"), -1));
                assert_int_equal(source->count, lam_json_int(lam_json_get(expected, "query"), -1));
                for (int64_t k = 0; k < source->count; k++) {
                    narrow += ranks.right[k] <= 0.05 || ranks.left[k] >= 0.95;
                    wide += ranks.right[k] <= 0.1 || ranks.left[k] >= 0.9;
                }
                assert_true((double)narrow / (double)source->count ==
                            lam_json_float(lam_json_get(expected, "r05"), -1));
                assert_true((double)wide / (double)source->count ==
                            lam_json_float(lam_json_get(expected, "r10"), -1));
                lam_ranks_free(&ranks);
                lam_relationships_free(source, count);
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
                                       cmocka_unit_test(ranks_against_sorting),
                                       cmocka_unit_test(bootstrap),
                                       cmocka_unit_test(real_embeddings)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
