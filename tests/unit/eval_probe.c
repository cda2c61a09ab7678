/* The probe: logistic regression against scikit-learn 1.x, folds that keep groups whole, the command on a small table. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/files.h"
#include "base/memory.h"
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
    int64_t label[N], predicted[N];
    generator = 12345;
    for (int i = 0; i < N; i++) {
        label[i] = i < 24 ? i % K : 0;
        for (int j = 0; j < D; j++) {
            double v = u() * 2 - 1;
            x[i * D + j] = v + (j == label[i] ? 0.8 : 0);
        }
        weight[i] = 0.5 + u();
    }
    for (size_t g = 0; g < sizeof golden / sizeof golden[0]; g++) {
        double w[K * (D + 1)];
        assert_int_equal(lam_logistic_fit(x, N, D, label, weight, K, golden[g].c, w), LAM_OK);
        for (int i = 0; i < K * (D + 1); i++)
            assert_true(fabs(w[i] - golden[g].coefficients[i / (D + 1)][i % (D + 1)]) < 1e-5);
        lam_logistic_predict(x, N, D, w, K, predicted);
        assert_memory_equal(predicted, golden[g].predicted, sizeof predicted);
    }
}

/* A class that no training row has is never predicted, and does not disturb the others. */
static void absent_class(void **state) {
    (void)state;
    static const double x[] = {-1, -2, 1, 2}, weight[] = {1, 1, 1, 1};
    static const int64_t label[] = {0, 0, 2, 2};
    double w[6];
    int64_t predicted[4];
    assert_int_equal(lam_logistic_fit(x, 4, 1, label, weight, 3, 1, w), LAM_OK);
    lam_logistic_predict(x, 4, 1, w, 3, predicted);
    assert_memory_equal(predicted, label, sizeof label);
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

static int probe(int count, const char *const *words) {
    const lam_command *const commands[] = {&lam_command_probe, NULL};
    char *argv[20] = {strdup("lamella"), strdup("probe"), strdup("--quiet")};
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
        "label,group,fold,balanced_accuracy,n_train,n_test\n\"drug\",\"plate\",\"p0\",1,58,30\n\"drug\",\"plate\",\"p1\",1,58,30\n"
        "\"drug\",\"plate\",\"p2\",1,60,28\n\"drug\",\"plate\",mean,1,88,88\n");
    lam_free(text);
    text = text_of("out/confusion.csv");
    assert_string_equal(text, "label,a,b,c\na,30,0,0\nb,0,29,0\nc,0,0,29\n");
    lam_free(text);
    assert_int_equal(PROBE("wells.csv", "--label", "drug", "--out", "out"), 2); /* there already */
    assert_int_equal(
        PROBE("wells.csv", "--label", "plate", "--group", "drug", "--folds", "3", "--out", "out", "--force"),
        0);
    text = text_of("out/scores.csv");
    assert_non_null(strstr(text, "\"plate\",\"drug\",mean,1,"));
    lam_free(text);
    assert_int_equal(PROBE("wells.csv", "--label", "drug", "--group", "plate", "--out", "x"),
                     1); /* 3 groups in 5 folds */
    assert_int_equal(PROBE("wells.csv", "--label", "nothing", "--out", "x"), 1);
    assert_int_equal(PROBE("wells.csv", "--label", "drug", "--leave-one-group-out", "--out", "x"), 2);
    assert_int_equal(PROBE("wells.csv", "--label", "drug", "--folds", "1", "--out", "x"), 2);
    assert_false(lam_path_exists("x"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scikit_learn),  cmocka_unit_test(absent_class), cmocka_unit_test(folds_keep_groups),
        cmocka_unit_test(folds_of_rows), cmocka_unit_test(command),
    };
    return cmocka_run_group_tests(tests, enter, leave);
}
