/* The report of small fixtures: what it holds, its CSV, and what it says of bad input. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/embeddings.h"
#include "base/files.h"
#include "base/memory.h"
#include "base/picture.h"
#include "eval/commands.h"

static char folder[] = "/tmp/lamella_report_XXXXXX";

static void put(const char *name, const char *text) {
    assert_int_equal(lam_file_write(name, text, strlen(text)), LAM_OK);
}

static int report(int count, const char *const *words) {
    const lam_command *const commands[] = {&lam_command_report, NULL};
    char *argv[16] = {strdup("lamella"), strdup("report"), strdup("--quiet")};
    for (int i = 0; i < count; i++) argv[3 + i] = strdup(words[i]);
    int code = lam_cli_main(commands, count + 3, argv);
    for (int i = 0; i < count + 3; i++) free(argv[i]);
    return code;
}
#define REPORT(...)                                                                                          \
    report((int)(sizeof((const char *[]){__VA_ARGS__}) / sizeof(char *)), (const char *[]){__VA_ARGS__})

static bool holds(const char *path, const char *text) {
    char *bytes;
    size_t size;
    assert_int_equal(lam_file_read(path, &bytes, &size), LAM_OK);
    bool found = strstr(bytes, text) != NULL;
    lam_free(bytes);
    return found;
}

static int enter(void **state) {
    (void)state;
    if (!mkdtemp(folder) || chdir(folder)) return -1;
    static const char *const folders[] = {
        "run/reconstructions", "trained", "untrained", "against", "probe", "empty"};
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++)
        assert_int_equal(lam_make_folders(folders[i]), LAM_OK);
    put("run/metrics.jsonl",
        "{\"run\":{\"memory\":{\"weights\":2097152,\"inputs\":1048576}}}\n"
        "{\"step\":1,\"loss\":2.5,\"lr\":0.001,\"crops_per_s\":10}\n{\"step\":2,\"loss\":1.5,\"lr\":0.002,\"crops_per_s\":30}\n"
        "{\"step\":2,\"validation_loss\":1.75}\n"
        "{\"op_times\":[{\"op\":\"linear\",\"backward\":true,\"calls\":7,\"seconds\":3,\"flops\":6e9}]}\n{\"step\":3,\"lo");
    lam_picture picture;
    assert_int_equal(lam_picture_create(&picture, 8, 8, 0x102030), LAM_OK);
    assert_int_equal(lam_picture_write_png(&picture, "run/reconstructions/step_00000002.png"), LAM_OK);
    lam_picture_free(&picture);
    put("trained/scores.csv",
        "source,null_distribution_size,query_distribution_size,recall_0.05_0.95,recall_0.1_0.9,recall_low_0.05_0.95,recall_high_0.05_0.95\n"
        "\"<script>alert(1)</script>\",300,20,0.55,0.7,0.4,0.66\n");
    put("untrained/scores.csv",
        "source,null_distribution_size,query_distribution_size,recall_0.05_0.95,recall_0.1_0.9\n"
        "\"<script>alert(1)</script>\",300,20,0.25,0.4\n");
    put("against/against.csv",
        "source,recall,recall_other,difference,low,high\npathway,0.55,0.25,0.3,0.12,0.44\n");
    put("against/scores.csv", "source,recall_0.05_0.95\npathway,0.55\n");
    put("probe/scores.csv", "label,group,fold,balanced_accuracy\nmoa,plate,0,0.875\n");
    put("probe/confusion.csv", "label,a,b\na,3,1\nb,0,4\n");
    put("timings.csv", "stage,seconds\ntrain,123.5\n");
    put("pathways.csv", "gene,pathway\nG0,actin\nG1,golgi\n");
    const double values[] = {4, 0, 0, -4, 0, 0, 0, 1, 0, 0, -1, 0};
    const char *const index[] = {"G0", "G1", "G<2>", "G3"};
    assert_int_equal(lam_embeddings_write("map.h5ad", 4, 3, values, false, NULL, index, NULL, NULL), LAM_OK);
    return 0;
}

static int leave(void **state) {
    (void)state;
    return chdir("/") || lam_remove_tree(folder) != LAM_OK;
}

static void run_has_curves_tables_and_pictures(void **state) {
    (void)state;
    assert_int_equal(REPORT("run"), 0);
    assert_true(holds("run/report.html", "<polyline"));
    assert_true(holds("run/report.html", "data:image/png;base64,iVBOR"));
    assert_true(holds("run/report.html", "last line of metrics.jsonl is incomplete"));
    assert_true(holds(
        "run/report.html",
        "<td>linear</td><td>backward</td><td class=\"n\">7</td><td class=\"n\">3.00</td><td class=\"n\">100.0</td><td class=\"n\">2.0</td>"));
    assert_true(holds("run/report.html", "<td>total</td><td class=\"n\">3.0</td>"));
    assert_true(holds("run/report.html", "<td>Speed</td><td class=\"n\">20</td>"));
    assert_true(holds("run/report_data/01_loss.csv", "training,2,1.5\nvalidation,2,1.75\n"));
    assert_int_equal(REPORT("run"), 2); /* there already */
    assert_int_equal(REPORT("run", "--force"), 0);
}

static void results_side_by_side(void **state) {
    (void)state;
    assert_int_equal(REPORT("best one=trained", "untrained", "untrained=against", "probe", "map.h5ad",
                            "timings.csv", "--pathways", "pathways.csv", "--out", "all.html"),
                     0);
    assert_false(holds("all.html", "<script"));
    assert_true(holds("all.html", "&lt;script&gt;"));
    assert_true(holds("all.html", "from the best down: best one 55.0 %, untrained 25.0 %; chance is 10 %."));
    assert_true(holds("all.html", "difference +0.300 (95 % interval +0.120 to +0.440): above it"));
    assert_true(holds("all.html", ">chance</text>"));
    assert_true(holds("all.html", "<title>G&lt;2&gt;</title>"));
    assert_true(holds("all.html", "<td>train</td><td class=\"n\">123.5</td>"));
    assert_true(holds("all.html", ">0.75</text>")); /* 3 of 4 in the confusion matrix */
    assert_true(
        holds("all_data/01_recall_of_known_relationships___script_alert_1___script_.csv",
              "best one,0.55000000000000004,0.40000000000000002,0.66000000000000003\nuntrained,0.25,,\n"));
    /* The first component is the first axis: G0 and G1 lie at its ends, sign free. */
    assert_true(holds("all_data/02_map__map_h5ad.csv", "G0,actin,4,") ||
                holds("all_data/02_map__map_h5ad.csv", "G0,actin,-4,"));
    assert_false(holds("all.html", "http://") || holds("all.html", "https://"));
}

static void comparison_alone_keeps_its_scores(void **state) {
    (void)state;
    assert_int_equal(REPORT("against", "--out", "alone.html"), 0);
    assert_true(holds("alone.html", ">0.550</text>"));
}

static void bad_input(void **state) {
    (void)state;
    assert_int_equal(REPORT("absent", "--out", "x.html"), 1);
    assert_non_null(strstr(lam_last_error(), "absent"));
    assert_int_equal(REPORT("empty", "--out", "x.html"), 1);
    assert_int_equal(REPORT("trained"), 2); /* no --out */
    put("empty/metrics.jsonl", "");
    assert_int_equal(REPORT("empty"), 1);
    assert_non_null(strstr(lam_last_error(), "no step"));
    put("empty/metrics.jsonl", "{\"step\":1,\"loss\":1}\n{broken\n{\"step\":2,\"loss\":1}\n");
    assert_int_equal(REPORT("empty"), 1);
    assert_non_null(strstr(lam_last_error(), ":2"));
    put("fake.png", "not a picture");
    assert_int_equal(REPORT("fake.png", "--out", "x.html"), 1);
    put("empty/scores.csv", "source,recall_0.05_0.95\nx,many\n");
    assert_int_equal(unlink("empty/metrics.jsonl"), 0);
    assert_int_equal(REPORT("empty", "--out", "x.html"), 1);
    assert_non_null(strstr(lam_last_error(), "line 2"));
    assert_int_equal(REPORT("map.h5ad", "--colour", "nothing", "--out", "x.html"), 1);
    assert_false(lam_path_exists("x.html"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(run_has_curves_tables_and_pictures), cmocka_unit_test(results_side_by_side),
        cmocka_unit_test(comparison_alone_keeps_its_scores), cmocka_unit_test(bad_input)};
    return cmocka_run_group_tests(tests, enter, leave);
}
