/* The report of small fixtures: what it holds, its CSV, and what it says of bad input. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
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
    char *argv[24] = {strdup("lamella"), strdup("report"), strdup("--quiet")};
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

/* What stands in h2 and h3 and below figures names one thing each. */
static void assert_headings_differ(const char *path) {
    static const char *const ends[][2] = {
        {"<h2>", "</h2>"}, {"<h3>", "</h3>"}, {"<figcaption>", "</figcaption>"}};
    char *page;
    size_t size;
    assert_int_equal(lam_file_read(path, &page, &size), LAM_OK);
    for (size_t k = 0; k < sizeof ends / sizeof *ends; k++)
        for (const char *at = page; (at = strstr(at, ends[k][0])); at++) {
            size_t length = (size_t)(strstr(at, ends[k][1]) - at);
            for (const char *other = at + 1; (other = strstr(other, ends[k][0])); other++)
                if (!strncmp(at, other, length) && !strncmp(other + length, ends[k][1], strlen(ends[k][1])))
                    fail_msg("%s: twice %.*s", path, (int)length, at);
        }
    lam_free(page);
}

static int enter(void **state) {
    (void)state;
    if (!mkdtemp(folder) || chdir(folder)) return -1;
    static const char *const folders[] = {"run/reconstructions",
                                          "trained",
                                          "untrained",
                                          "against",
                                          "probe",
                                          "empty",
                                          "replicates",
                                          "wide",
                                          "retrieve",
                                          "many",
                                          "ridge",
                                          "knn",
                                          "sweep"};
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
    put("probe/scores.csv", "label,group,fold,balanced_accuracy,n_train,n_test,c,block,accuracy\n"
                            "moa,plate,0,0.875,8,8,1,X,0.875\nmoa,plate,mean,0.875,16,16,,X,0.875\n");
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
    assert_true(holds("run/report.html", "<td>Speed</td><td class=\"n\">15</td>"));
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
    assert_true(holds("all_data/02_difference_of_recall__the_first_map_minus_untrained.csv",
                      "pathway,0.29999999999999999,0.12,0.44"));
    assert_true(holds("all.html", "<title>G&lt;2&gt;</title>"));
    assert_true(holds("all.html", "<td>train</td><td class=\"n\">123.5</td>"));
    assert_true(holds("all.html", ">0.75</text>")); /* 3 of 4 in the confusion matrix */
    assert_true(
        holds("all_data/01_recall_of_known_relationships___script_alert_1___script_.csv",
              "best one,0.55000000000000004,0.40000000000000002,0.66000000000000003\nuntrained,0.25,,\n"));
    /* The first component is the first axis: G0 and G1 lie at its ends, sign free. */
    assert_true(holds("all_data/03_map__map_h5ad.csv", "G0,actin,4,") ||
                holds("all_data/03_map__map_h5ad.csv", "G0,actin,-4,"));
    assert_headings_differ("all.html");
    assert_false(holds("all.html", "http://") || holds("all.html", "https://"));
}

/* A comparison holds the histogram of its first map, which is drawn once: under that map's own name, where its results are
 * given as well. */
static void distributions_are_drawn_once(void **state) {
    (void)state;
    static const char *const folders[] = {"first", "second", "pair"};
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        char path[64];
        assert_int_equal(lam_make_folders(folders[i]), LAM_OK);
        snprintf(path, sizeof path, "%s/scores.csv", folders[i]);
        put(path, "source,recall_0.05_0.95,cut_left_0.05,cut_right_0.95\npathway,0.5,-0.5,0.5\n");
        snprintf(path, sizeof path, "%s/histogram.csv", folders[i]);
        put(path, "source,bin_low,bin_high,null_count,query_count\npathway,-1,0,5,2\npathway,0,1,5,3\n");
    }
    put("pair/against.csv", "source,recall,recall_other,difference,low,high\npathway,0.5,0.5,0,-0.1,0.1\n");
    put("pair/clusters.csv", "cluster,size\nactin,3\n");
    assert_int_equal(REPORT("first", "other=second", "other=pair", "--out", "pairs.html"), 0);
    assert_headings_differ("pairs.html");
    assert_true(holds("pairs.html", "<h2>Distributions of cosines: first</h2>"));
    assert_true(holds("pairs.html", "<h2>Distributions of cosines: other</h2>"));
    assert_true(holds("pairs.html", "<h2>Clusters of genes: the first map, against other</h2>"));
    assert_false(holds("pairs.html", "<h2>Distributions of cosines: the first map"));
    assert_int_equal(REPORT("pair", "--out", "pair.html"), 0);
    assert_true(holds("pair.html", "<h2>Distributions of cosines: pair</h2>"));
    /* The results of another map, or of more genes, are not its own; a second comparison of it repeats the first. */
    put("second/histogram.csv", "source,bin_low,bin_high,null_count,query_count\n"
                                "pathway,-1,0,6,1\npathway,0,1,4,4\n");
    assert_int_equal(REPORT("other=second", "other=pair", "again=pair", "--out", "first.html"), 0);
    assert_true(holds("first.html", "<h2>Distributions of cosines: other</h2>"));
    assert_true(holds("first.html", "<h2>Distributions of cosines: the first map, against other</h2>"));
    assert_false(holds("first.html", "<h2>Distributions of cosines: the first map, against again</h2>"));
    assert_int_equal(unlink("second/histogram.csv"), 0);
    assert_int_equal(REPORT("second", "other=pair", "--out", "without.html"), 0);
    assert_true(holds("without.html", "<h2>Distributions of cosines: the first map, against other</h2>"));
}

static void comparison_alone_keeps_its_scores(void **state) {
    (void)state;
    assert_int_equal(REPORT("against", "--out", "alone.html"), 0);
    assert_true(holds("alone.html", ">0.550</text>"));
}

/* Three groups of ten rows around the axes, and two without a pathway. */
static void put_groups(void) {
    enum { ROWS = 32, COLUMNS = 3 };
    static double values[ROWS * COLUMNS];
    static char names[ROWS][16], pathways[2000] = "gene,pathway\n";
    const char *index[ROWS];
    for (int i = 0; i < ROWS; i++) {
        for (int j = 0; j < COLUMNS; j++)
            values[COLUMNS * i + j] = (j == i % 3 ? 5 : 0) + 0.3 * sin(1.3 * i * i + 2 * j);
        snprintf(names[i], sizeof names[i], "N%d", i);
        index[i] = names[i];
        if (i < 30) {
            size_t length = strlen(pathways);
            snprintf(pathways + length, sizeof pathways - length, "N%d,group%d\n", i, i % 3);
        }
    }
    put("groups.csv", pathways);
    assert_int_equal(
        lam_embeddings_write("groups.h5ad", ROWS, COLUMNS, values, false, NULL, index, NULL, NULL), LAM_OK);
}

/* The heat map's rows of one group stand together; the words of the t-SNE tell its settings. */
static void map_pictures(void **state) {
    (void)state;
    put_groups();
    assert_int_equal(REPORT("groups.h5ad", "--pathways", "groups.csv", "--out", "both.html"), 0);
    assert_true(holds("both.html", "perplexity 10.3333, started from the principal components"));
    assert_true(holds("both.html", "Cosines between 30 rows, those of the largest pathways"));
    assert_true(lam_path_exists("both_data/01_map__groups_h5ad.csv"));
    assert_true(holds("both_data/02_t_sne__groups_h5ad.csv", "\nN31,,"));
    lam_table *table;
    assert_int_equal(lam_table_read(&table, "both_data/03_cosines_of_chosen_rows__groups_h5ad.csv"), LAM_OK);
    assert_int_equal(lam_table_rows(table), 30);
    for (int64_t i = 0; i < 30; i++) {
        assert_string_equal(lam_table_cell(table, i, 0), lam_table_name(table, (int)i + 1));
        assert_string_equal(lam_table_cell(table, i, (int)i + 1), "1");
        int group = atoi(lam_table_cell(table, i, 0) + 1) % 3,
            first = atoi(lam_table_cell(table, i / 10 * 10, 0) + 1) % 3;
        assert_int_equal(group, first);
    }
    lam_table_free(table);
    put("chosen.txt", "N3\n N0 \r\n\nN0\nABSENT\nN1\n");
    assert_int_equal(REPORT("groups.h5ad", "--embedding", "tsne", "--perplexity", "5", "--seed", "3",
                            "--genes-file", "chosen.txt", "--out", "chosen.html"),
                     0);
    assert_true(holds("chosen.html", "perplexity 5, started from random positions"));
    assert_true(holds("chosen.html", "Cosines between 3 rows, those asked for"));
    assert_false(holds("chosen.html", "principal component"));
    assert_int_equal(REPORT("groups.h5ad", "--embedding", "pca", "--genes", "N3,N1", "--out", "plane.html"),
                     0);
    assert_false(holds("plane.html", "t-SNE"));
    assert_true(holds("plane.html", "Cosines between 2 rows"));
    assert_int_equal(REPORT("map.h5ad", "--out", "few.html"), 0); /* four rows: perplexity 1 */
    assert_true(holds("few.html", "perplexity 1,"));
    static const double three[] = {1, 2, 3, 4, 5, 7};
    assert_int_equal(lam_embeddings_write("three.h5ad", 3, 2, three, false, NULL, NULL, NULL, NULL), LAM_OK);
    assert_int_equal(REPORT("three.h5ad", "--out", "three.html"), 0);
    assert_false(holds("three.html", "t-SNE"));
}

static void large_maps_have_no_tsne_unasked(void **state) {
    (void)state;
    enum { ROWS = 5001 };
    static double values[ROWS];
    for (int i = 0; i < ROWS; i++) values[i] = i % 7;
    assert_int_equal(lam_embeddings_write("large.h5ad", ROWS, 1, values, true, NULL, NULL, NULL, NULL),
                     LAM_OK);
    assert_int_equal(REPORT("large.h5ad", "--out", "large.html"), 0);
    assert_true(holds("large.html", "t-SNE is left out: the map has more than 5000 rows"));
}

static void what_relate_wrote(void **state) {
    (void)state;
    put("trained/scores.csv",
        "source,recall_0.05_0.95,p_permutation_0.05_0.95,cut_left_0.05,cut_right_0.95\na,0.15,0.013,-0.25,0.125\n");
    put("trained/arms.csv",
        "source,stratum,recall_0.05_0.95,null_0.05_0.95\na,within_arm,0.3,0.25\na,between_arms,0.1,\n");
    put("trained/enrichment.csv",
        "query,source,cluster,hits,genes,drawn,p,p_bonferroni,jaccard\nA,sets,actin,2,3,10,0.07,0.5,0.18\n");
    put("trained/histogram.csv",
        "source,bin_low,bin_high,null_count,query_count\na,-1,-0.5,0,0\na,-0.5,0,10,1\n"
        "a,0,0.5,80,2\na,0.5,1,10,3\n");
    put("trained/clusters.csv", "source,cluster,genes,within_mean,between_mean,ks,ks_p,cvm,cvm_p\n"
                                "a,\"x, y\",4,0.12345678901234567,0,0.5,1e-12,2,0.04\n");
    put("trained/neighbours.csv", "query,rank,neighbour,cosine\nA,1,B,0.91\nA,2,<C>,0.5\nD,1,A,-0.25\n");
    assert_int_equal(REPORT("trained", "--out", "relate.html"), 0);
    assert_true(holds("relate.html", ">lowest 5 %</text>"));
    assert_true(holds("relate.html", "<p>a: trained 15.0 % (p 0.013); chance is 10 %."));
    assert_true(holds("relate_data/03_pairs_on_one_chromosome_arm_and_on_two__a__trained.csv",
                      "\n\"one arm, known\",0.29999999999999999\n\"one arm, all pairs\",0.25\n"
                      "\"two arms, known\",0.10000000000000001\n\"two arms, all pairs\",\n"));
    assert_true(holds("relate.html", "<td>actin</td><td class=\"n\">2</td>"));
    assert_true(holds("relate.html", "<td>A</td><td>B (0.91), &lt;C&gt; (0.50)</td>"));
    assert_true(holds("relate.html", "<td>D</td><td>A (-0.25)</td>"));
    assert_true(holds("relate.html", "<td>x, y</td><td class=\"n\">4</td><td class=\"n\">0.1235</td>"));
    assert_true(holds("relate_data/04_clusters.csv", "0.12345678901234567"));
    put("trained/neighbours.csv", "query,rank,neighbour\nA,1,B\n");
    assert_int_equal(REPORT("trained", "--out", "x.html"), 1);
    assert_non_null(strstr(lam_last_error(), "cosine"));
    put("trained/scores.csv", "source,recall_0.05_0.95\na,0.15\n");
    assert_int_equal(REPORT("trained", "--out", "x.html"), 1);
    assert_non_null(strstr(lam_last_error(), "cut_left_0.05"));
    assert_int_equal(unlink("trained/arms.csv") || unlink("trained/enrichment.csv") ||
                         unlink("trained/neighbours.csv") || unlink("trained/clusters.csv") ||
                         unlink("trained/histogram.csv"),
                     0);
}

static void volcano(void **state) {
    (void)state;
    put("replicates/consistency.csv",
        "perturbation,replicates,consistency,consistency_p,consistency_q,magnitude,magnitude_p,magnitude_q\n"
        "A,4,0.5,0.001,0.004,2,0.001,0.004\nB,4,0.4,0.01,0.02,1,0.5,0.9\nC,4,0.1,0.5,0.6,1,0.6,0.9\nD,1,,,,1,0.2,0.4\n"
        "E,4,0.9,0,0.001,1,0.6,0.9\nsummary,17,0.5,0.6,0.6,1.2,0.2,0.2\n");
    assert_int_equal(REPORT("replicates", "--out", "volcano.html"), 0);
    assert_true(holds("volcano.html", "consistency: 3 of 4 perturbations at a false discovery rate of 5 %."));
    assert_true(holds("volcano.html", "magnitude: 1 of 5 perturbations"));
    assert_true(holds("volcano.html", ">q = 0.05</text>"));
    /* p = 0 is drawn at the smallest p that is more. */
    assert_true(holds("volcano_data/01_consistency_and_significance__replicates.csv",
                      "label,category,x,y\nE,q below 0.05,0.90000000000000002,3\nA,q below 0.05,0.5,3\n"
                      "B,q below 0.05,0.40000000000000002,2\nC,,0.10000000000000001,0.3010299956639812\n"));
    put("replicates/consistency.csv", "perturbation,consistency\nA,0.5\n");
    assert_int_equal(REPORT("replicates", "--out", "x.html"), 1);
    assert_non_null(strstr(lam_last_error(), "consistency_p"));
}

/* Another threshold than the usual one; results with different ones do not go together. */
static void other_thresholds(void **state) {
    (void)state;
    put("wide/scores.csv", "source,recall_0.1_0.8,recall_low_0.1_0.8,recall_left_0.1\na,0.5,0.4,0.1\n");
    assert_int_equal(REPORT("wide", "--out", "wide.html"), 0);
    assert_true(holds("wide.html", "lowest 10 % or highest 20 %"));
    assert_true(holds("wide.html", "below the 0.1 or above the 0.8 quantile"));
    assert_int_equal(REPORT("untrained", "wide", "--out", "x.html"), 1);
    assert_non_null(strstr(lam_last_error(), "same --thresholds"));
    put("wide/scores.csv", "source,recall_left_0.1\na,0.5\n");
    assert_int_equal(REPORT("wide", "--out", "x.html"), 1);
    assert_non_null(strstr(lam_last_error(), "no column of recall"));
}

/* A folder that `retrieve` left has confusion.csv and scores.csv as others have. */
static void what_retrieve_wrote(void **state) {
    (void)state;
    put("retrieve/average_precision.csv",
        "profile,gene,average_precision,positives,negatives\nr,A,0.5,1,2\n");
    put("retrieve/scores.csv", "gene,dose,rows,mean_average_precision,chance,p,q\nA,1,2,0.75,0.25,0.01,0.02\n"
                               "B,1,2,0.5,0.25,0.2,0.05\nC,2,0,,,,\nsummary,,4,0.625,0.25,0.5,1\n");
    put("retrieve/matching.csv", "profile,label,nearest_profile,nearest_label,cosine,same\n"
                                 "r,A,s,A,0.9,1\ns,A,t,B,0.8,0\nt,B,u,B,0.8,1\n");
    put("retrieve/confusion.csv", "label,A,B\nA,1,1\nB,0,1\n");
    put("retrieve/compound_gene.csv",
        "compound,concentration,active,pool,average_precision,auc,random_average_precision,random_auc\n"
        "x,1,1,9,0.1,0.2,0.3,0.4\nx,max,1,9,0.75,0.875,0.25,0.5\nmean,max,,,0.75,0.875,0.25,0.5\n"
        "deviation_of_mean,max,,,0.125,0.0625,0,0\n");
    assert_int_equal(REPORT("retrieve", "--out", "retrieve.html"), 0);
    assert_true(holds("retrieve.html", "Mean average precision 0.625 (chance 0.250); 2 of 2 values"));
    assert_true(holds("retrieve_data/01_mean_average_precision__retrieve.csv",
                      "precision\n\"A, 1\",0.75\n\"B, 1\",0.5\n"));
    assert_true(
        holds("retrieve.html", "2 of 3 profiles lie nearest to one of their own label: accuracy 0.667."));
    assert_true(holds("retrieve.html", "rows: true label, columns: label of the nearest"));
    assert_true(holds("retrieve_data/03_label_of_the_nearest_profile__retrieve.csv", "A,0.5,0.5\nB,0,1\n"));
    assert_true(holds("retrieve.html", "mean average precision 0.750, of random scores 0.250."));
    assert_true(holds("retrieve_data/04_targets_of_compounds__mean_average_precision__retrieve.csv",
                      "embedding,0.75,0.625,0.875\nrandom scores,0.25,0.25,0.25\n"));
    assert_true(holds("retrieve_data/05_targets_of_compounds__area_under_the_roc_curve__retrieve.csv",
                      "embedding,0.875,0.8125,0.9375\n"));
    assert_true(holds("retrieve_data/06_average_precision_by_compound__retrieve.csv", "\nx,0.75\n"));
    put("retrieve/confusion.csv", "label,A,B\nA,1,1\n");
    assert_int_equal(REPORT("retrieve", "--out", "x.html"), 1);
    assert_non_null(strstr(lam_last_error(), "square"));
    put("retrieve/scores.csv",
        "gene,rows,mean_average_precision,chance,p,q\nA,2,0.75,0.25,0.01,0.02\nB,2,0.5,0.25,0.2,0.05\n");
    assert_int_equal(REPORT("retrieve", "--out", "x.html"), 1);
    assert_non_null(strstr(lam_last_error(), "summary"));
    assert_false(lam_path_exists("x.html") || lam_path_exists("x_data"));
}

/* More labels than a heat map takes: a table of errors; more values than bars: the best and the worst. */
static void many_values(void **state) {
    (void)state;
    enum { LABELS = 61 };
    static char confusion[LABELS * LABELS * 3 + 1000] = "label",
                                                scores[4000] =
                                                    "gene,rows,mean_average_precision,chance,p,q\n";
    size_t at = strlen(confusion), length = strlen(scores);
    for (int c = 0; c < LABELS; c++) at += (size_t)sprintf(confusion + at, ",L%d", c);
    for (int r = 0; r < LABELS; r++) {
        at += (size_t)sprintf(confusion + at, "\nL%d", r);
        for (int c = 0; c < LABELS; c++)
            at += (size_t)sprintf(confusion + at, ",%d",
                                  r == c             ? 9
                                  : r == 3 && c == 5 ? 7
                                  : r == 4 && c == 1 ? 8
                                                     : 0);
        length += (size_t)sprintf(scores + length, "L%d,2,%g,0.25,0.5,0.5\n", r, 0.5 + r / 1000.0);
    }
    sprintf(scores + length, "summary,122,0.53,0.25,0,0\n");
    put("many/confusion.csv", confusion);
    put("many/scores.csv", scores);
    put("many/average_precision.csv", "profile\n");
    put("many/matching.csv", "profile,label,nearest_profile,nearest_label,cosine,same\nr,A,s,A,0.9,1\n");
    assert_int_equal(REPORT("many", "--out", "many.html"), 0);
    assert_true(holds("many_data/01_mean_average_precision__many__the_best.csv", "precision\nL60,"));
    assert_true(holds("many_data/02_mean_average_precision__many__the_worst.csv", "\nL0,0.5\n"));
    assert_false(holds("many_data/02_mean_average_precision__many__the_worst.csv", "\nL15,"));
    assert_true(
        holds("many.html", "<td>L4</td><td>L1</td><td class=\"n\">8</td></tr>\n<tr><td>L3</td><td>L5</td>"));
}

static void what_probe_wrote(void **state) {
    (void)state;
    put("ridge/scores.csv", "label,group,fold,r2,n_train,n_test,alpha,block\n"
                            "m*,,0,0.25,8,8,1,h1\nm*,,1,0.25,8,8,1,h1\nm*,,mean,0.25,16,16,,h1\n"
                            "m*,,0,0.5,8,8,1,h3\nm*,,1,0.75,8,8,1,h3\nm*,,mean,0.625,16,16,,h3\n");
    put("ridge/ridge.csv", "column,r2,standard_deviation,r2_pooled,alpha,rows,block\n"
                           "m0,0.1,0,0.1,1,16,h1\nmedian,0.1,,0.1,,16,h1\n"
                           "m0,-0.25,0.125,0.5,1,16,h3\nm1,0.75,0.25,0.7,1,16,h3\nmedian,0.25,,0.6,,16,h3\n");
    put("ridge/blocks.csv", "block,r2,standard_deviation,columns,best\nh1,0.25,0,4,0\nh3,0.625,0.125,4,1\n");
    put("ridge/curve.csv", "share,r2,standard_deviation,n_train,block\n0.5,0.1,0,4,h1\n0.5,0.375,0.125,4,h3\n"
                           "1,0.625,0.125,8,h3\n");
    assert_int_equal(REPORT("ridge", "--out", "ridge.html"), 0);
    assert_true(
        holds("ridge.html",
              "Ridge regression of m* from h3, the best of the blocks: R squared 0.625, mean of 2 folds."));
    assert_true(holds("ridge.html", ">best: h3</text>"));
    assert_true(holds("ridge_data/01_blocks__ridge.csv",
                      "mean of the folds,1,0.25\nmean of the folds,3,0.625\n"
                      "plus one deviation,1,0.25\nplus one deviation,3,0.75\n"));
    assert_true(holds("ridge_data/03_r_squared_by_column__ridge.csv",
                      "high\nm1,0.75,0.5,1\nm0,-0.25,-0.375,-0.125\n"));
    assert_true(holds("ridge_data/04_learning_curve__ridge.csv",
                      "R squared\nmean of the folds,4,0.375\nmean of the folds,8,0.625\n"
                      "plus one deviation,4,0.5\n"));
    put("ridge/blocks.csv", "block,r2,standard_deviation,columns,best\nh1,0.25,0,4,0\n");
    assert_int_equal(REPORT("ridge", "--out", "x.html"), 1);
    assert_non_null(strstr(lam_last_error(), "column best"));
    put("knn/scores.csv", "label,group,fold,balanced_accuracy,n_train,n_test,k,block,accuracy\n"
                          "moa,,0,0.5,8,8,7,X,0.5\nmoa,,mean,0.5,16,16,,X,0.5\n");
    put("knn/confusion.csv", "label,a,b\na,3,1\nb,0,4\n");
    assert_int_equal(REPORT("knn", "--out", "knn.html"), 0);
    assert_true(holds("knn.html", "Nearest neighbours by cosine (7) of moa: balanced accuracy 0.500, mean of "
                                  "1 folds; chance is 0.500."));
    put("knn/scores.csv", "label,fold,balanced_accuracy,block\nmoa,0,0.5,X\n");
    assert_int_equal(REPORT("knn", "--out", "x.html"), 1);
    assert_non_null(strstr(lam_last_error(), "mean"));
}

/* Times by operation are of the last process, which after a resume took some of the steps alone. */
static void what_a_resumed_run_left(void **state) {
    (void)state;
    assert_true(holds("run/report.html", "Time by operation, steps 1 to 2<"));
    assert_int_equal(lam_make_folders("resumed"), LAM_OK);
    put("resumed/metrics.jsonl",
        "{\"run\":{}}\n{\"step\":1,\"loss\":2.5,\"lr\":0.1}\n{\"step\":2,\"loss\":2,\"lr\":0.1}\n"
        "{\"run\":{}}\n{\"step\":3,\"loss\":null,\"lr\":0.1}\n{\"step\":4,\"loss\":1,\"lr\":0.1}\n"
        "{\"step\":4,\"validation_loss\":1.75}\n"
        "{\"op_times\":[{\"op\":\"linear\",\"calls\":7,\"seconds\":3,\"flops\":6e9}]}\n"
        "{\"run\":{}}\n");
    assert_int_equal(REPORT("resumed"), 0);
    assert_true(holds("resumed/report.html", "Time by operation, steps 3 to 4<"));
}

static void what_sweep_wrote(void **state) {
    (void)state;
    put("sweep/sweep.csv", "command,run,map.align,name,recall_0.05_0.95,balanced_accuracy\n"
                           "relate,relate-3,none,pathways,0.25,\nrelate,relate-4,tvn,pathways,0.5,\n"
                           "probe,probe-1,,plate,,0.75\n");
    put("sweep/scores.csv", "source\n");
    assert_int_equal(REPORT("sweep", "--out", "sweep.html"), 0);
    assert_true(holds("sweep_data/01_relate__pathways__sweep.csv",
                      "recall_0.05_0.95\nalign tvn,0.5\nalign none,0.25\n"));
    assert_true(holds("sweep_data/02_probe__plate__sweep.csv", "balanced_accuracy\nprobe-1,0.75\n"));
    /* Rows are told apart by what differs, files by their names where these do. */
    put("sweep/sweep.csv",
        "command,run,embeddings,map.align,map.by,name,recall_0.05_0.95\n"
        "relate,relate-1,runs/a.h5ad,tvn,gene,p,0.5\nrelate,relate-2,runs/b.h5ad,tvn,gene,p,0.25\n"
        "relate,relate-3,x/c.h5ad,tvn,gene,q,0.5\nrelate,relate-4,y/c.h5ad,tvn,gene,q,0.25\n");
    assert_int_equal(REPORT("sweep", "--out", "files.html"), 0);
    assert_true(holds("files_data/01_relate__p__sweep.csv", "recall_0.05_0.95\na.h5ad,0.5\nb.h5ad,0.25\n"));
    assert_true(
        holds("files_data/02_relate__q__sweep.csv", "recall_0.05_0.95\nx/c.h5ad,0.5\ny/c.h5ad,0.25\n"));
    put("sweep/sweep.csv", "command,name\nrelate,a\n");
    assert_int_equal(REPORT("sweep", "--out", "x.html"), 1);
    assert_non_null(strstr(lam_last_error(), "run"));
}

static void what_map_measured(void **state) {
    (void)state;
    static const double values[] = {1, 2, 3, 4, 5, 7};
    static const struct {
        const char *align, *after, *says;
    } cases[] = {{"tvn", "0.375",
                  "tells plate of 40 rows with balanced accuracy 0.900 before aligning and 0.375 after; none "
                  "is left at chance, 0.250 (4 batches).</p>"},
                 {"tvn", "0.036", "0.250 (4 batches). Below chance is what centring by batch leaves:"},
                 {"none", "0.9", "balanced accuracy 0.900; nothing was aligned;"},
                 {"tvn", "null", NULL}};
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        char provenance[400];
        snprintf(provenance, sizeof provenance,
                 "{\"results\":{\"align\":\"%s\",\"batch_left\":{\"column\":\"plate\",\"batches\":4,"
                 "\"rows\":40,\"chance\":0.25,\"before\":0.9,\"after\":%s}}}",
                 cases[k].align, cases[k].after);
        assert_int_equal(lam_embeddings_write("left.h5ad", 3, 2, values, false, NULL, NULL, NULL, provenance),
                         LAM_OK);
        assert_int_equal(REPORT("left.h5ad", "--out", "left.html", "--force"), 0);
        assert_true(cases[k].says ? holds("left.html", cases[k].says) : !holds("left.html", "Batch left"));
        assert_false(holds("left.html", "share a mark"));
    }
}

/* A folder in the page's place, and one of data that cannot be made. */
static void places(void **state) {
    (void)state;
    assert_int_equal(REPORT("untrained", "--out", "empty", "--force"), 2);
    assert_non_null(strstr(lam_last_error(), "is a folder"));
    put("taken_data", "a file");
    assert_int_equal(REPORT("untrained", "--out", "taken.html"), 1);
    assert_non_null(strstr(lam_last_error(), "taken_data"));
    assert_false(lam_path_exists("taken.html"));
}

static void bad_map_options(void **state) {
    (void)state;
    put_groups();
    assert_int_equal(REPORT("groups.h5ad", "--perplexity", "40", "--out", "x.html"), 2);
    assert_non_null(strstr(lam_last_error(), "groups.h5ad"));
    assert_non_null(strstr(lam_last_error(), "1 to 31"));
    assert_int_equal(REPORT("groups.h5ad", "--perplexity", "0.5", "--out", "x.html"), 2);
    assert_int_equal(REPORT("groups.h5ad", "--embedding", "umap", "--out", "x.html"), 2);
    assert_int_equal(REPORT("groups.h5ad", "--embedding", "pca", "--seed", "1", "--out", "x.html"), 2);
    assert_int_equal(REPORT("three.h5ad", "--embedding", "tsne", "--out", "x.html"), 1);
    assert_non_null(strstr(lam_last_error(), "at least 4 rows"));
    assert_int_equal(REPORT("trained", "--genes", "A,B", "--out", "x.html"), 2);
    assert_non_null(strstr(lam_last_error(), "no map is given"));
    assert_int_equal(REPORT("groups.h5ad", "--genes", "N1,N1", "--out", "x.html"), 2);
    assert_int_equal(REPORT("groups.h5ad", "--genes", "X,Y,N1", "--out", "x.html"), 1);
    assert_non_null(strstr(lam_last_error(), "1 of the 3 genes"));
    assert_int_equal(
        REPORT("groups.h5ad", "--genes", "N1,N2", "--genes-file", "chosen.txt", "--out", "x.html"), 2);
    assert_int_equal(REPORT("groups.h5ad", "--genes-file", "absent.txt", "--out", "x.html"), 1);
    put("one.txt", "N1\n");
    assert_int_equal(REPORT("groups.h5ad", "--genes-file", "one.txt", "--out", "x.html"), 1);
    const double zeros[] = {0, 0, 1, 2, 3, 4};
    const char *const twice[] = {"A", "B", "B"}, *const once[] = {"A", "B", "C"};
    assert_int_equal(lam_embeddings_write("bad.h5ad", 3, 2, zeros, false, NULL, twice, NULL, NULL), LAM_OK);
    assert_int_equal(REPORT("bad.h5ad", "--genes", "A,B", "--out", "x.html"), 1);
    assert_non_null(strstr(lam_last_error(), "map --by"));
    assert_int_equal(lam_embeddings_write("bad.h5ad", 3, 2, zeros, false, NULL, once, NULL, NULL), LAM_OK);
    assert_int_equal(REPORT("bad.h5ad", "--genes", "A,B", "--out", "x.html"), 1);
    assert_non_null(strstr(lam_last_error(), "row 'A' is zero"));
    assert_false(lam_path_exists("x.html"));
}

static void bad_input(void **state) {
    (void)state;
    assert_int_equal(REPORT("absent", "--out", "x.html"), 1);
    assert_non_null(strstr(lam_last_error(), "absent"));
    assert_int_equal(REPORT("empty", "--out", "x.html"), 1);
    assert_non_null(strstr(lam_last_error(), "metrics.jsonl (train)"));
    assert_non_null(strstr(lam_last_error(), "scores.csv (relate)"));
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
    assert_false(lam_path_exists("x.html") || lam_path_exists("x_data"));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(run_has_curves_tables_and_pictures),
                                       cmocka_unit_test(results_side_by_side),
                                       cmocka_unit_test(distributions_are_drawn_once),
                                       cmocka_unit_test(comparison_alone_keeps_its_scores),
                                       cmocka_unit_test(map_pictures),
                                       cmocka_unit_test(large_maps_have_no_tsne_unasked),
                                       cmocka_unit_test(what_relate_wrote),
                                       cmocka_unit_test(volcano),
                                       cmocka_unit_test(other_thresholds),
                                       cmocka_unit_test(what_retrieve_wrote),
                                       cmocka_unit_test(many_values),
                                       cmocka_unit_test(what_probe_wrote),
                                       cmocka_unit_test(what_a_resumed_run_left),
                                       cmocka_unit_test(what_sweep_wrote),
                                       cmocka_unit_test(what_map_measured),
                                       cmocka_unit_test(places),
                                       cmocka_unit_test(bad_map_options),
                                       cmocka_unit_test(bad_input)};
    return cmocka_run_group_tests(tests, enter, leave);
}
