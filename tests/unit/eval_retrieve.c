/* The command on small tables, and on real profiles where they are at hand: treatment medians of BBBC021 (CellProfiler features), 94 of
 * 103 next to one of their mechanism among other compounds. */
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
#include "base/table.h"
#include "eval/commands.h"

static char folder[] = "/tmp/lamella_retrieve_XXXXXX";

static int enter(void **state) {
    (void)state;
    return mkdtemp(folder) && chdir(folder) == 0 ? 0 : -1;
}

static int leave(void **state) {
    (void)state;
    return chdir("/") == 0 && lam_remove_tree(folder) == LAM_OK ? 0 : -1;
}

static int retrieve(int count, const char *const *words) {
    const lam_command *const commands[] = {&lam_command_retrieve, NULL};
    char *argv[32] = {strdup("lamella"), strdup("retrieve"), strdup("--quiet")};
    for (int i = 0; i < count; i++) argv[3 + i] = strdup(words[i]);
    int code = lam_cli_main(commands, count + 3, argv);
    for (int i = 0; i < count + 3; i++) free(argv[i]);
    return code;
}
#define RETRIEVE(...)                                                                                        \
    retrieve((int)(sizeof((const char *[]){__VA_ARGS__}) / sizeof(char *)), (const char *[]){__VA_ARGS__})

static void holds(const char *path, const char *expected) {
    char *bytes;
    size_t size;
    if (lam_file_read(path, &bytes, &size) != LAM_OK) fail_msg("%s", lam_last_error());
    assert_string_equal(bytes, expected);
    lam_free(bytes);
}

static void write_text(const char *path, const char *text) {
    assert_int_equal(lam_file_write(path, text, strlen(text)), LAM_OK);
}

static double number(const char *path, const char *column, int64_t row) {
    lam_table *table;
    int at;
    double value = (double)NAN;
    if (lam_table_read(&table, path) != LAM_OK) fail_msg("%s", lam_last_error());
    assert_int_equal(lam_table_require(table, column, &at), LAM_OK);
    if (row < 0) row += lam_table_rows(table);
    lam_text_is_number(lam_table_cell(table, row, at), &value);
    lam_table_free(table);
    return value;
}

/* A finds its replicate before the control of its plate, B after it; C is alone, D has no plate. The zero row and the row with a
 * gap are left out, or A would have two more replicates. */
static void replicates(void **state) {
    (void)state;
    write_text("wells.csv",
               "well,gene,plate,d0,d1\n"
               "a1,A,p1,1,0\na2,A,p2,1,0.1\nb1,B,p1,0,1\nb2,B,p2,0.5,-1\nc1,C,p1,1,1\nd1,D,,1,2\n"
               "x1,ctl,p1,-0.2,1\nx2,ctl,p2,0.2,1\nz,A,p3,0,0\ny,A,p3,,1\n");
    assert_int_equal(RETRIEVE("wells.csv", "--by", "gene", "--controls", "gene=ctl", "--plate", "plate",
                              "--permutations", "1000", "--out", "a"),
                     0);
    holds("a/average_precision.csv",
          "profile,gene,average_precision,positives,negatives\n"
          "a1,A,1,1,1\na2,A,1,1,1\nb1,B,0.5,1,1\nb2,B,0.5,1,1\nc1,C,,0,1\nd1,D,,0,0\n");
    assert_true(number("a/scores.csv", "mean_average_precision", 0) == 1);
    assert_true(fabs(number("a/scores.csv", "p", 0) - 0.5) < 0.08); /* one of two rankings is as good */
    assert_true(number("a/scores.csv", "p", 1) == 1);
    assert_true(isnan(number("a/scores.csv", "q", 2)) && number("a/scores.csv", "rows", 2) == 0);
    assert_true(number("a/scores.csv", "rows", -1) == 4);
    assert_true(number("a/scores.csv", "mean_average_precision", -1) == 0.75);
    assert_true(number("a/scores.csv", "p", -1) == 0);                        /* the share with p <= 0.05 */
    assert_int_equal(RETRIEVE("wells.csv", "--by", "gene", "--out", "a"), 2); /* there already */
    /* The same written out, and against the other genes. */
    assert_int_equal(RETRIEVE("wells.csv", "--by", "gene", "--controls", "gene=ctl", "--positive-different",
                              "plate", "--negative-same", "plate", "--permutations", "1000", "--out", "b"),
                     0);
    char *text;
    size_t size;
    assert_int_equal(lam_file_read("a/scores.csv", &text, &size), LAM_OK);
    holds("b/scores.csv", text);
    lam_free(text);
    assert_int_equal(
        RETRIEVE("wells.csv", "--by", "gene", "--controls", "gene=ctl", "--against", "others", "--out", "c"),
        0);
    assert_true(number("c/average_precision.csv", "negatives", 0) == 4);
    assert_int_equal(RETRIEVE("wells.csv", "--by", "gene,plate", "--out", "x"), 1); /* no two rows */
    assert_int_equal(RETRIEVE("wells.csv", "--by", "gene", "--against", "controls", "--out", "x"), 2);
    assert_int_equal(RETRIEVE("wells.csv", "--by", "gene", "--negative-different", "plate", "--out", "x"), 2);
    assert_int_equal(RETRIEVE("wells.csv", "--by", "gene", "--positive-different", "gene", "--out", "x"), 2);
    assert_int_equal(RETRIEVE("wells.csv", "--by", "gene", "--negative-same", "gene", "--out", "x"), 2);
    assert_int_equal(RETRIEVE("wells.csv", "--by", "gnee", "--out", "x"), 1);
    assert_int_equal(RETRIEVE("wells.csv", "--by", "", "--out", "x"), 2);
    assert_int_equal(RETRIEVE("wells.csv", "--by", "gene,,plate", "--out", "x"), 2);
    assert_int_equal(
        RETRIEVE("wells.csv", "--plate", "plate", "--match", "gene", "--not-same", "plate", "--out", "x"), 2);
    assert_int_equal(RETRIEVE("wells.csv", "--out", "x"), 2);
    assert_false(lam_path_exists("x"));
}

/* Rows that differ by an offset are the same to correlation, not to cosine. Constant rows have no correlation. */
static void correlation(void **state) {
    (void)state;
    write_text("offset.csv", "kind,d0,d1,d2\nA,1,2,4\nA,101,102,104\nB,101,104,102\nB,1,4,2\nC,5,5,5\n");
    assert_int_equal(RETRIEVE("offset.csv", "--by", "kind", "--out", "cosine"), 0);
    assert_true(number("cosine/average_precision.csv", "average_precision", 1) < 1);
    assert_int_equal(
        RETRIEVE("offset.csv", "--by", "kind", "--similarity", "correlation", "--out", "correlation"), 0);
    for (int64_t i = 0; i < 4; i++)
        assert_true(number("correlation/average_precision.csv", "average_precision", i) == 1);
    assert_true(number("correlation/average_precision.csv", "negatives", 0) == 2);
}

/* The medians of c1 at 1 lie with c2; among other batches c1's neighbour is c3. Of all rows the same none matches. */
static void matching(void **state) {
    (void)state;
    write_text(
        "dose.csv",
        "compound,dose,moa,batch,d0,d1\n"
        "c1,1,X,b1,1,0\nc1,1,X,b1,-9,9\nc1,1,X,b1,1,0.1\nc2,1,X,b1,1,0.2\nc3,1,Y,b2,1,0.5\nc4,1,Y,b1,0,1\n"
        "c5,1,,b1,1,0.05\nDMSO,0,N,b1,1,0.05\n");
    assert_int_equal(RETRIEVE("dose.csv", "--match", "moa", "--not-same", "compound", "--treatment",
                              "compound,dose", "--aggregate", "median", "--controls", "compound=DMSO",
                              "--out", "nsc"),
                     0);
    holds("nsc/confusion.csv", "label,X,Y\nX,2,0\nY,1,1\n");
    assert_true(number("nsc/matching.csv", "same", 0) == 1);
    assert_int_equal(RETRIEVE("dose.csv", "--match", "moa", "--not-same", "compound,batch", "--treatment",
                              "compound,dose", "--aggregate", "median", "--controls", "compound=DMSO",
                              "--out", "nscb"),
                     0);
    holds("nscb/confusion.csv", "label,X,Y\nX,0,2\nY,1,1\n");
    write_text("same.csv", "compound,moa,d0,d1\na,X,1,2\nb,X,1,2\nc,Y,1,2\nd,Y,1,2\n");
    assert_int_equal(RETRIEVE("same.csv", "--match", "moa", "--not-same", "compound", "--out", "same"), 0);
    holds("same/confusion.csv", "label,X,Y\nX,0,2\nY,2,0\n");
    assert_int_equal(RETRIEVE("same.csv", "--match", "moa", "--out", "x"), 2);
    assert_int_equal(
        RETRIEVE("same.csv", "--match", "moa", "--not-same", "moa", "--aggregate", "mean", "--out", "x"), 2);
    write_text("alone.csv", "compound,moa,d0,d1\na,X,1,2\na,X,1,2\n");
    assert_int_equal(RETRIEVE("alone.csv", "--match", "moa", "--not-same", "compound", "--out", "x"), 1);
    assert_false(lam_path_exists("x"));
}

/* k1 acts on G1 (200 nM; a weaker value does not count), perhaps on G2 (5 uM: left out), not on G3 (20 uM); G4 was never
 * measured with it. k2 has no target here. */
static void compounds(void **state) {
    (void)state;
    write_text(
        "screen.csv",
        "gene,compound,concentration,d0,d1\n"
        "G1,,,1,0\nG1,,,1,0.2\nG2,,,1,0.05\nG3,,,0,1\nG4,,,1,0.5\n,k1,10,-1,-0.1\n,k1,9,0.1,1\n,k2,1,1,1\n");
    write_text(
        "truth.csv",
        "treatment,gene_symbol,nM_value\nk1,G1,200\nk1,G1,9000\nk1,G2,5000\nk1,G3,20000\nk2,G4,1000.5\n"
        "k9,G1,1\nk1,G9,1\nk1,G4,\nk2,G3,\n");
    assert_int_equal(RETRIEVE("screen.csv", "--pairs", "truth.csv", "--seeds", "2", "--out", "pairs"), 0);
    lam_table *table;
    assert_int_equal(lam_table_read(&table, "pairs/compound_gene.csv"), LAM_OK);
    assert_int_equal(lam_table_rows(table), 3 + 5);
    static const char *const first[3][6] = {{"k1", "9", "1", "2", "0.33333333333333331", "0"},
                                            {"k1", "10", "1", "2", "1", "1"},
                                            {"k1", "max", "1", "2", "1", "1"}};
    for (int r = 0; r < 3; r++)
        for (int c = 0; c < 6; c++) assert_string_equal(lam_table_cell(table, r, c), first[r][c]);
    assert_string_equal(lam_table_cell(table, 3, 0), "mean");
    assert_string_equal(lam_table_cell(table, 6, 0), "quantile_0.95");
    assert_string_equal(lam_table_cell(table, 7, 0), "deviation_of_mean");
    assert_string_equal(lam_table_cell(table, 7, 4), "0"); /* both seeds draw the whole pool */
    lam_table_free(table);
    write_text("bad.csv", "treatment,gene_symbol,nM_value\nk1,G1,>10\n");
    assert_int_equal(RETRIEVE("screen.csv", "--pairs", "bad.csv", "--out", "x"), 1);
    write_text("far.csv", "treatment,gene_symbol,nM_value\nk1,G1,50000\nk1,G2,5000\n");
    assert_int_equal(RETRIEVE("screen.csv", "--pairs", "far.csv", "--out", "x"), 1);
    assert_int_equal(RETRIEVE("screen.csv", "--pairs", "truth.csv", "--pair-columns", "treatment,gene_symbol",
                              "--out", "x"),
                     2);
    assert_int_equal(RETRIEVE("screen.csv", "--pairs", "truth.csv", "--compound", "drug", "--out", "x"), 1);
    write_text("nodose.csv", "gene,compound,concentration,d0,d1\nG1,,,1,0\n,k1,,1,0\n");
    assert_int_equal(RETRIEVE("nodose.csv", "--pairs", "truth.csv", "--out", "x"), 1);
    assert_false(lam_path_exists("x"));
}

static void bbbc021(void **state) {
    (void)state;
    char path[1024];
    const char *root = getenv("LAMELLA_SHARED");
    snprintf(path, sizeof path, "%s/data/bbbc021_profiles/BBBC021_feature_selected_mad_robustize.csv.gz",
             root ? root : LAM_TEST_GOLDEN "/../../../shared");
    if (!lam_path_exists(path)) skip();
    assert_int_equal(RETRIEVE(path, "--match", "Metadata_moa", "--not-same", "Metadata_Compound",
                              "--treatment", "Metadata_Compound,Metadata_Concentration", "--aggregate",
                              "median", "--controls", "Metadata_Compound=DMSO", "--out", "bbbc021"),
                     0);
    int right = 0;
    for (int64_t i = 0; i < 103; i++) right += number("bbbc021/matching.csv", "same", i) == 1;
    assert_int_equal(right, 94);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(replicates), cmocka_unit_test(correlation),
                                       cmocka_unit_test(matching), cmocka_unit_test(compounds),
                                       cmocka_unit_test(bbbc021)};
    return cmocka_run_group_tests(tests, enter, leave);
}
