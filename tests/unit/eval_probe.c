/* The probe: logistic regression against scikit-learn 1.9, folds that keep groups whole, the command on small files. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/files.h"
#include "base/json.h"
#include "base/memory.h"
#include "base/threads.h"
#include "eval/commands.h"
#include "eval/folds.h"
#include "eval/logistic.h"

static char folder[] = "/tmp/lamella_probe_XXXXXX";

static int enter(void **state) {
    (void)state;
    return mkdtemp(folder) && chdir(folder) == 0 ? 0 : -1;
}

static int leave(void **state) {
    (void)state;
    return chdir("/") == 0 && lam_remove_tree(folder) == LAM_OK ? 0 : -1;
}

static uint32_t generator;
static double u(void) {
    generator = 1664525u * generator + 1013904223u;
    return (double)generator / 4294967296.0;
}

enum { N = 30, D = 4, K = 3 };

static const double zeros[D] = {0}, ones[D] = {1, 1, 1, 1};

static void closed_form(double *x, double *weight, int64_t *label) {
    generator = 12345;
    for (int i = 0; i < N; i++) {
        label[i] = i < 24 ? i % K : 0;
        for (int j = 0; j < D; j++) {
            double v = u() * 2 - 1;
            x[i * D + j] = v + (j == label[i] ? 0.8 : 0);
        }
        weight[i] = 0.5 + u();
    }
}

/* LogisticRegression(C=c, tol=1e-12).fit(x, y, sample_weight=w) of scikit-learn on the same closed-form rows. */
static void scikit_learn(void **state) {
    (void)state;
    static const struct {
        double c, coefficients[K][D + 1];
        int64_t predicted[N];
    } golden[] = {
        {1.0,
         {{0.8568660857672928, -0.891859424392643, -0.6031311778271166, -0.09741933611703749,
           0.7712586938178825},
          {-0.4922216888986039, 1.0501304041976014, -0.5166581814421077, 0.5294357988517878,
           -0.21863344860050066},
          {-0.36464439686868894, -0.15827097980495852, 1.1197893592692238, -0.4320164627347504,
           -0.5526252452173822}},
         {0, 1, 2, 0, 0, 0, 0, 0, 0, 1, 1, 2, 0, 1, 2, 0, 1, 0, 0, 1, 2, 0, 1, 1, 0, 0, 0, 0, 0, 0}},
        {100.0,
         {{1.2218523060445274, -1.3974422458556097, -1.023553067271239, -0.22130006364657506,
           1.155212634132843},
          {-0.7908483568521317, 1.5349324168846554, -1.0414854417803197, 1.21583834041615,
           -0.16179500648322231},
          {-0.4310039491923965, -0.13749017102904557, 2.0650385090515617, -0.9945382767695738,
           -0.9934176276496186}},
         {0, 1, 2, 0, 1, 0, 0, 0, 0, 1, 1, 2, 2, 1, 2, 0, 1, 0, 0, 1, 2, 0, 1, 1, 0, 0, 0, 0, 0, 0}},
    };
    double x[N * D], weight[N];
    int64_t label[N], rows[N], predicted[N];
    closed_form(x, weight, label);
    for (int i = 0; i < N; i++) rows[i] = i;
    lam_standardised view = {x, D, rows, N, zeros, ones};
    for (size_t g = 0; g < sizeof golden / sizeof golden[0]; g++) {
        double w[K * (D + 1)] = {0};
        assert_int_equal(lam_logistic_fit(&view, label, weight, K, golden[g].c, w), LAM_OK);
        for (int i = 0; i < K * (D + 1); i++)
            assert_true(fabs(w[i] - golden[g].coefficients[i / (D + 1)][i % (D + 1)]) < 1e-5);
        assert_int_equal(lam_logistic_predict(&view, w, K, predicted), LAM_OK);
        assert_memory_equal(predicted, golden[g].predicted, sizeof predicted);
    }
}

/* Two classes: scikit-learn penalises the one vector that tells them apart. */
static void two_classes(void **state) {
    (void)state;
    static const double golden[D + 1] = {-0.8744174032357541, 1.1883496776737479, -0.06938743709844061,
                                         0.27642444493499724, -0.7808505471367162};
    double x[N * D], weight[N], chosen[N], w[K * (D + 1)] = {0};
    int64_t label[N], rows[N], labels[N], predicted[N], n = 0;
    closed_form(x, weight, label);
    for (int i = 0; i < N; i++)
        if (label[i] < 2) labels[n] = label[i] * 2, chosen[n] = weight[i], rows[n++] = i;
    assert_int_equal(n, 22);
    lam_standardised view = {x, D, rows, n, zeros, ones};
    assert_int_equal(lam_logistic_fit(&view, labels, chosen, K, 0.7, w), LAM_OK);
    for (int j = 0; j <= D; j++) assert_true(fabs(w[2 * (D + 1) + j] - w[j] - golden[j]) < 1e-6);
    assert_true(isinf(w[D + 1 + D])); /* class 1 has no rows: it is never predicted */
    assert_int_equal(lam_logistic_predict(&view, w, K, predicted), LAM_OK);
    for (int i = 0; i < n; i++) assert_int_not_equal(predicted[i], 1);
    /* One class alone. */
    for (int i = 0; i < n; i++) labels[i] = 1;
    assert_int_equal(lam_logistic_fit(&view, labels, chosen, K, 0.7, w), LAM_OK);
    assert_int_equal(lam_logistic_predict(&view, w, K, predicted), LAM_OK);
    for (int i = 0; i < n; i++) assert_int_equal(predicted[i], 1);
}

/* More rows than one piece holds, a start from a near solution, any number of threads: the same minimum, and for the same
 * start the same bits. */
static void threads_and_starts(void **state) {
    (void)state;
    enum { ROWS = 3000 };
    static double x[ROWS * D], weight[ROWS];
    static int64_t label[ROWS], rows[ROWS], predicted[ROWS], again[ROWS];
    double w[2][K * (D + 1)] = {{0}}, warm[K * (D + 1)] = {0}, mean[D], scale[D];
    generator = 77;
    for (int i = 0; i < ROWS; i++) {
        label[i] = i % K, rows[i] = i, weight[i] = 1;
        for (int j = 0; j < D; j++) x[i * D + j] = u() * 100 + (j == label[i] ? 20 : 0);
    }
    lam_standardise_fit(x, D, rows, ROWS, mean, scale);
    lam_standardised view = {x, D, rows, ROWS, mean, scale};
    for (int t = 0; t < 2; t++) {
        lam_threads_set(t + 1);
        assert_int_equal(lam_logistic_fit(&view, label, weight, K, 1, w[t]), LAM_OK);
        assert_int_equal(lam_logistic_predict(&view, w[t], K, t ? again : predicted), LAM_OK);
    }
    assert_memory_equal(w[0], w[1], sizeof w[0]);
    assert_memory_equal(predicted, again, sizeof again);
    assert_int_equal(lam_logistic_fit(&view, label, weight, K, 0.1, warm), LAM_OK);
    assert_int_equal(lam_logistic_fit(&view, label, weight, K, 1, warm), LAM_OK);
    for (int i = 0; i < K * (D + 1); i++) assert_true(fabs(warm[i] - w[0][i]) < 1e-5);
}

static void standardise(void **state) {
    (void)state;
    static const double x[] = {1, 0.1, 5, 3, 0.1, 5, 99, 0.1, 7};
    static const int64_t rows[] = {0, 1};
    double mean[3], scale[3], block[3];
    lam_standardise_fit(x, 3, rows, 2, mean, scale); /* the third row is not looked at */
    static const double expected[] = {2, 0.1, 5, 1, 1, 1};
    for (int j = 0; j < 3; j++) {
        assert_true(fabs(mean[j] - expected[j]) < 1e-15);
        assert_true(fabs(scale[j] - expected[3 + j]) < 1e-15); /* constant columns: 1 */
    }
    lam_standardised view = {x, 3, (const int64_t[]){2, 0}, 2, mean, scale};
    lam_standardised_block(&view, 1, 1, block);
    assert_true(fabs(block[0] + 1) < 1e-15 && fabs(block[1]) < 1e-15 && fabs(block[2]) < 1e-15);
}

static void folds_keep_groups(void **state) {
    (void)state;
    enum { ROWS = 600, GROUPS = 60, CLASSES = 4, FOLDS = 5 };
    int64_t label[ROWS], group[ROWS], fold[ROWS], again[ROWS], of_group[GROUPS],
        count[FOLDS][CLASSES] = {{0}}, total[CLASSES] = {0};
    generator = 7;
    for (int i = 0; i < ROWS; i++) {
        group[i] = (int64_t)(u() * GROUPS); /* sizes differ */
        label[i] = group[i] % CLASSES;      /* a class lives in whole groups, as a compound's wells do */
    }
    assert_int_equal(lam_folds_stratified(label, CLASSES, group, GROUPS, ROWS, FOLDS, 3, fold), LAM_OK);
    for (int g = 0; g < GROUPS; g++) of_group[g] = -1;
    for (int i = 0; i < ROWS; i++) {
        assert_in_range(fold[i], 0, FOLDS - 1);
        if (of_group[group[i]] < 0) of_group[group[i]] = fold[i];
        assert_int_equal(of_group[group[i]], fold[i]);
        count[fold[i]][label[i]]++;
        total[label[i]]++;
    }
    for (int f = 0; f < FOLDS; f++)
        for (int k = 0; k < CLASSES; k++)
            assert_true(fabs((double)count[f][k] / (double)total[k] - 1.0 / FOLDS) < 0.12);
    assert_int_equal(lam_folds_stratified(label, CLASSES, group, GROUPS, ROWS, FOLDS, 3, again), LAM_OK);
    assert_memory_equal(fold, again, sizeof fold);
    assert_int_equal(lam_folds_stratified(label, CLASSES, group, GROUPS, ROWS, FOLDS, 4, again), LAM_OK);
    assert_memory_not_equal(fold, again, sizeof fold);
    for (int i = 0; i < ROWS; i++) group[i] %= 4;
    assert_int_equal(lam_folds_stratified(label, CLASSES, group, 4, ROWS, FOLDS, 3, fold), LAM_ERROR_INPUT);
}

/* Rows alone: every class is dealt evenly to the last row. */
static void folds_of_rows(void **state) {
    (void)state;
    enum { ROWS = 103, FOLDS = 4 };
    int64_t label[ROWS], group[ROWS], fold[ROWS], count[FOLDS][2] = {{0}};
    for (int i = 0; i < ROWS; i++) label[i] = i % 10 == 0, group[i] = i;
    assert_int_equal(lam_folds_stratified(label, 2, group, ROWS, ROWS, FOLDS, 0, fold), LAM_OK);
    for (int i = 0; i < ROWS; i++) count[fold[i]][label[i]]++;
    for (int f = 0; f < FOLDS; f++) {
        assert_in_range(count[f][0], 23, 23);
        assert_in_range(count[f][1], 2, 3);
    }
}

/* Shares are nested, hold every class in proportion, keep groups whole, and change with the seed. */
static void shares(void **state) {
    (void)state;
    enum { ROWS = 200 };
    static const double parts[] = {0.001, 0.1, 0.25, 0.5, 0.9};
    int64_t label[ROWS], group[ROWS];
    bool taken[5][ROWS], other[ROWS];
    for (int i = 0; i < ROWS; i++) label[i] = i % 10 < 7 ? 0 : i % 10 < 9 ? 1 : 2, group[i] = i;
    for (int s = 0; s < 5; s++) {
        int64_t count[3] = {0}, whole[3] = {140, 40, 20}, all = 0;
        assert_int_equal(lam_folds_share(label, 3, group, ROWS, ROWS, parts[s], 4, taken[s]), LAM_OK);
        for (int i = 0; i < ROWS; i++) {
            if (s > 0) assert_true(taken[s][i] || !taken[s - 1][i]);
            count[label[i]] += taken[s][i];
            all += taken[s][i];
        }
        assert_int_equal(all, s == 0 ? 1 : (int64_t)(parts[s] * ROWS + 0.5));
        for (int k = 0; k < 3 && s > 0; k++)
            assert_true(fabs((double)count[k] - parts[s] * (double)whole[k]) <= 1);
    }
    assert_int_equal(lam_folds_share(label, 3, group, ROWS, ROWS, 0.5, 5, other), LAM_OK);
    assert_memory_not_equal(other, taken[3], sizeof other);
    for (int i = 0; i < ROWS; i++)
        group[i] = 2 * (i / 20); /* ten groups of twenty; odd numbers have no rows */
    assert_int_equal(lam_folds_share(label, 3, group, 20, ROWS, 0.3, 4, other), LAM_OK);
    int64_t groups = 0;
    for (int i = 0; i < ROWS; i++) {
        assert_int_equal(other[i], other[i / 20 * 20]);
        groups += i % 20 == 0 && other[i];
    }
    assert_int_equal(groups, 3);
}

/* Groups without rows do not count. */
static void empty_groups(void **state) {
    (void)state;
    static const int64_t label[] = {0, 0, 0, 0}, group[] = {1, 1, 5, 5};
    int64_t fold[4];
    assert_int_equal(lam_folds_stratified(label, 1, group, 9, 4, 2, 0, fold), LAM_OK);
    assert_true(fold[0] == fold[1] && fold[2] == fold[3] && fold[0] != fold[2]);
    assert_int_equal(lam_folds_stratified(label, 1, group, 9, 4, 3, 0, fold), LAM_ERROR_INPUT);
}

static int probe(int count, const char *const *words) {
    const lam_command *const commands[] = {&lam_command_probe, NULL};
    char *argv[32] = {strdup("lamella"), strdup("probe"), strdup("--quiet")};
    for (int i = 0; i < count; i++) argv[3 + i] = strdup(words[i]);
    int code = lam_cli_main(commands, count + 3, argv);
    for (int i = 0; i < count + 3; i++) free(argv[i]);
    return code;
}
#define PROBE(...)                                                                                           \
    probe((int)(sizeof((const char *[]){__VA_ARGS__}) / sizeof(char *)), (const char *[]){__VA_ARGS__})

static char *text_of(const char *path) {
    char *bytes;
    size_t size;
    if (lam_file_read(path, &bytes, &size) != LAM_OK) fail_msg("%s", lam_last_error());
    return bytes;
}

/* Feature d0 tells the classes apart, d1 only the plates: a probe that leaves plates out reads the first alone. */
static void command(void **state) {
    (void)state;
    lam_writer *writer;
    assert_int_equal(lam_writer_open(&writer, "wells.csv"), LAM_OK);
    lam_writer_printf(writer, "drug,plate,d0,d1\n");
    generator = 5;
    for (int i = 0; i < 90; i++) {
        const char *drug = i % 3 == 0 ? "a" : i % 3 == 1 ? "b" : "c";
        double d0 = i % 3 * 2.0 + u(), d1 = i / 30 * 10.0 + u();
        lam_writer_printf(writer, "%s,p%d,%.6f,%.6f\n", i == 89 ? "" : drug, i / 30, d0,
                          i == 88 ? (double)NAN : d1);
    }
    assert_int_equal(lam_writer_commit(&writer), LAM_OK);
    assert_int_equal(
        PROBE("wells.csv", "--label", "drug", "--group", "plate", "--leave-one-group-out", "--out", "out"),
        0);
    char *text = text_of("out/scores.csv");
    assert_string_equal(
        text,
        "label,group,fold,balanced_accuracy,n_train,n_test,c,block,accuracy\ndrug,plate,p0,1,58,30,1,X,1\n"
        "drug,plate,p1,1,58,30,1,X,1\ndrug,plate,p2,1,60,28,1,X,1\ndrug,plate,mean,1,88,88,,X,1\n");
    lam_free(text);
    text = text_of("out/confusion.csv");
    assert_string_equal(text, "label,a,b,c\na,30,0,0\nb,0,29,0\nc,0,0,29\n");
    lam_free(text);
    assert_int_equal(PROBE("wells.csv", "--label", "drug", "--out", "out"), 2); /* there already */
    assert_int_equal(
        PROBE("wells.csv", "--label", "plate", "--group", "drug", "--folds", "3", "--out", "out", "--force"),
        0);
    text = text_of("out/scores.csv");
    assert_non_null(strstr(text, "plate,drug,mean,1,"));
    lam_free(text);
    assert_int_equal(PROBE("wells.csv", "--label", "drug", "--group", "plate", "--folds", "5", "--out", "x"),
                     1); /* 3 groups in 5 folds that were asked for */
    assert_int_equal(PROBE("wells.csv", "--label", "drug", "--group", "plate", "--out", "three"), 0);
    text = text_of("three/scores.csv"); /* the same as leaving each out, in another order of folds */
    assert_non_null(strstr(text, "drug,plate,2,1,"));
    assert_non_null(strstr(text, "drug,plate,mean,1,88,88,,X,1\n"));
    assert_null(strstr(text, "drug,plate,3,"));
    lam_free(text);
    assert_int_equal(PROBE("wells.csv", "--label", "nothing", "--out", "x"), 1);
    assert_int_equal(PROBE("wells.csv", "--label", "drug", "--leave-one-group-out", "--out", "x"), 2);
    assert_int_equal(PROBE("wells.csv", "--label", "drug", "--folds", "1", "--out", "x"), 2);
    assert_false(lam_path_exists("x"));
}

static bool holds(const char *path, const char *part) {
    char *text = text_of(path);
    bool found = strstr(text, part) != NULL;
    lam_free(text);
    return found;
}

/* Three blocks of which the second tells the classes apart: scikit-learn's numbers are in eval_classify.c, here it is the
 * files, the same for one thread and two. */
static void blocks(void **state) {
    (void)state;
    const char *file = LAM_TEST_GOLDEN "/embeddings/blocks.h5ad";
    static const char *const names[] = {"scores.csv", "blocks.csv", "curve.csv", "confusion.csv"};
    assert_int_equal(PROBE(file, "--label", "kind", "--blocks", "block_*", "--c", "0.1,1,0.01",
                           "--learning-curve", "1,0.1,0.5", "--threads", "1", "--out", "one"),
                     0);
    assert_int_equal(PROBE(file, "--label", "kind", "--blocks", "block_*", "--c", "0.01,0.1,1",
                           "--learning-curve", "0.1,0.5,1", "--threads", "2", "--out", "two"),
                     0);
    for (int i = 0; i < 4; i++) {
        char path[64];
        snprintf(path, sizeof path, "one/%s", names[i]);
        char *one = text_of(path);
        snprintf(path, sizeof path, "two/%s", names[i]);
        char *two = text_of(path);
        assert_string_equal(one, two);
        lam_free(one);
        lam_free(two);
    }
    assert_true(
        holds("one/blocks.csv", "block,balanced_accuracy,standard_deviation,columns,best\nblock_1,0."));
    assert_true(holds("one/blocks.csv", ",4,0\nblock_2,0.9"));
    assert_true(holds("one/blocks.csv", ",5,1\nblock_10,0."));
    assert_true(holds("one/curve.csv", "share,balanced_accuracy,standard_deviation,n_train,block\n0.1"));
    assert_true(holds("one/curve.csv", ",48,block_10\n"));
    assert_true(holds("one/confusion.csv", "label,a,b,c\na,20,0,0\n"));
    assert_int_equal(PROBE(file, "--label", "kind", "--knn", "5", "--blocks", "block_[12]",
                           "--learning-curve", "0.5", "--group", "plate", "--leave-one-group-out", "--out",
                           "near"),
                     0);
    assert_true(holds("near/scores.csv", "kind,plate,p1,1,40,20,5,block_2,1\n"));
    assert_true(holds("near/curve.csv", ",20,block_2\n"));
}

static void ridge(void **state) {
    (void)state;
    const char *file = LAM_TEST_GOLDEN "/embeddings/blocks.h5ad";
    assert_int_equal(PROBE(file, "--label", "size", "--ridge", "--blocks", "block_*", "--learning-curve",
                           "0.5", "--out", "r"),
                     0);
    assert_true(holds("r/scores.csv", "label,group,fold,r2,n_train,n_test,alpha,block\nsize,,0,"));
    assert_true(holds("r/blocks.csv", "\nblock_2,0.999"));
    assert_true(holds("r/ridge.csv", "column,r2,standard_deviation,r2_pooled,alpha,rows,block\nsize,"));
    assert_true(holds("r/ridge.csv", "\nmedian,0.999"));
    assert_false(lam_path_exists("r/confusion.csv"));
    assert_int_equal(PROBE(file, "--label", "kind", "--out", "r", "--force"),
                     0); /* and nothing of ridge stays */
    assert_true(lam_path_exists("r/confusion.csv") && !lam_path_exists("r/ridge.csv"));
    assert_false(lam_path_exists("r/blocks.csv") || lam_path_exists("r/curve.csv"));
    /* A glob: text is passed over, missing cells and a constant column are told from zero. */
    lam_writer *writer;
    assert_int_equal(lam_writer_open(&writer, "cells.csv"), LAM_OK);
    lam_writer_printf(writer, "plate,Nuclei_a,Nuclei_b,Nuclei_c,Nuclei_name,d0,d1\n");
    generator = 3;
    for (int i = 0; i < 60; i++) {
        double d0 = u(), d1 = u();
        lam_writer_printf(writer, "p%d,%.6f,%s,%d,x,%.6f,%.6f\n", i % 6, 2 * d0 - d1,
                          i < 5   ? "nan"
                          : i % 2 ? "1"
                                  : "3",
                          7, d0, d1);
    }
    assert_int_equal(lam_writer_commit(&writer), LAM_OK);
    assert_int_equal(PROBE("cells.csv", "--label", "Nuclei_*", "--ridge", "--alpha", "0.001", "--group",
                           "plate", "--folds", "3", "--out", "n"),
                     0);
    char *text = text_of("n/ridge.csv");
    assert_non_null(strstr(text, "Nuclei_a,0.999"));
    assert_non_null(strstr(text, ",0.001,55,X\nNuclei_c,,,,0.001,60,X\nmedian,"));
    assert_null(strstr(text, "Nuclei_name"));
    lam_free(text);
    assert_int_equal(PROBE("cells.csv", "--label", "Nuclei_name", "--ridge", "--out", "x"), 1);
    assert_int_equal(PROBE("cells.csv", "--label", "Cells_*", "--ridge", "--out", "x"), 1);
    assert_int_equal(PROBE("cells.csv", "--label", "Nuclei_a", "--ridge", "--c", "1", "--out", "x"), 2);
    assert_int_equal(PROBE("cells.csv", "--label", "Nuclei_a", "--ridge", "--knn", "1", "--out", "x"), 2);
    assert_int_equal(PROBE("cells.csv", "--label", "Nuclei_a", "--ridge", "--alpha", "1,0", "--out", "x"), 2);
    assert_int_equal(PROBE("cells.csv", "--label", "plate", "--alpha", "1", "--out", "x"), 2);
    assert_int_equal(PROBE("cells.csv", "--label", "plate", "--knn", "50", "--out", "x"), 1);
    assert_int_equal(PROBE("cells.csv", "--label", "plate", "--c", "1,1", "--out", "x"), 2);
    assert_int_equal(PROBE("cells.csv", "--label", "plate", "--learning-curve", "1.5", "--out", "x"), 2);
    assert_int_equal(PROBE("cells.csv", "--label", "plate", "--inner-folds", "3", "--out", "x"), 2);
    assert_int_equal(PROBE("cells.csv", "--label", "plate", "--blocks", "*", "--out", "x"), 1);
    assert_int_equal(PROBE("cells.csv", "--label", "plate", "--out", "cells.csv/x"), 1);
    assert_false(lam_path_exists("x"));
}

/* Standard output of a command, parsed. */
static lam_json *printed(int count, const char *const *words) {
    lam_json *json = NULL;
    fflush(stdout);
    int terminal = dup(STDOUT_FILENO);
    FILE *file = freopen("printed.json", "w", stdout);
    if (!file) fail();
    int code = probe(count, words);
    fflush(stdout);
    dup2(terminal, STDOUT_FILENO);
    close(terminal);
    assert_int_equal(code, 0);
    char *text = text_of("printed.json");
    assert_int_equal(lam_json_parse(&json, text, strlen(text), "printed.json"), LAM_OK);
    lam_free(text);
    return json;
}
#define PRINTED(...)                                                                                         \
    printed((int)(sizeof((const char *[]){__VA_ARGS__}) / sizeof(char *)), (const char *[]){__VA_ARGS__})

static void json(void **state) {
    (void)state;
    const char *file = LAM_TEST_GOLDEN "/embeddings/blocks.h5ad";
    lam_json *j = PRINTED(file, "--label", "kind", "--blocks", "block_*", "--knn", "3", "--group", "plate",
                          "--leave-one-group-out", "--learning-curve", "0.5,1", "--json", "--out", "j1");
    assert_string_equal(lam_json_text(lam_json_get(j, "block"), ""), "block_2");
    assert_int_equal(lam_json_size(lam_json_get(j, "blocks")), 3);
    assert_int_equal(lam_json_size(lam_json_get(j, "learning_curve")), 2);
    const lam_json *fold = lam_json_at(lam_json_get(j, "scores"), 1);
    assert_string_equal(lam_json_text(lam_json_get(fold, "fold"), ""), "p1");
    assert_int_equal(lam_json_int(lam_json_get(fold, "k"), 0), 3);
    assert_int_equal(lam_json_int(lam_json_get(j, "classes"), 0), 3);
    double sum = 0;
    for (size_t f = 0; f < 3; f++)
        sum +=
            lam_json_float(lam_json_get(lam_json_at(lam_json_get(j, "scores"), f), "balanced_accuracy"), 0);
    assert_true(fabs(sum / 3 - lam_json_float(lam_json_get(j, "balanced_accuracy"), 0)) < 1e-15);
    lam_json_free(j);
    j = PRINTED(file, "--label", "size", "--ridge", "--alpha", "1", "--key", "block_2", "--json", "--out",
                "j2");
    const lam_json *column = lam_json_at(lam_json_get(j, "columns"), 0);
    assert_string_equal(lam_json_text(lam_json_get(column, "column"), ""), "size");
    assert_true(lam_json_float(lam_json_get(column, "r2_pooled"), 0) > 0.9);
    assert_true(fabs(lam_json_float(lam_json_get(j, "r2"), 0) -
                     lam_json_float(lam_json_get(j, "median_r2"), 1)) < 1e-15);
    assert_null(lam_json_get(j, "blocks"));
    lam_json_free(j);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scikit_learn),
        cmocka_unit_test(two_classes),
        cmocka_unit_test(threads_and_starts),
        cmocka_unit_test(standardise),
        cmocka_unit_test(folds_keep_groups),
        cmocka_unit_test(folds_of_rows),
        cmocka_unit_test(shares),
        cmocka_unit_test(empty_groups),
        cmocka_unit_test(command),
        cmocka_unit_test(blocks),
        cmocka_unit_test(ridge),
        cmocka_unit_test(json),
    };
    return cmocka_run_group_tests(tests, enter, leave);
}
