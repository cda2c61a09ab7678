/* The simulated screen: its calibration, what its cells do, and that a seed is a screen on any number of
 * threads. */
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

#include "base/cli.h"
#include "base/fault.h"
#include "base/files.h"
#include "base/table.h"
#include "data/commands.h"
#include "data/synth_camera.h"
#include "data/synth_cell.h"
#include "data/synth_screen.h"

enum { P = LAM_SYNTH_PARAMETERS };

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Recall at .05/.95 of related pairs by the cosine of genes' mean true parameters. */
static double ceiling(uint64_t seed, double strength, double *share) {
    lam_synth_config config = lam_synth_config_default();
    config.seed = seed;
    config.strength = strength;
    lam_synth_screen *screen = NULL;
    assert_int_equal(lam_synth_screen_create(&screen, &config), LAM_OK);
    int64_t n = config.genes, pairs = 0, related = 0;
    double *means = calloc((size_t)(n * P), sizeof *means), *all = malloc(sizeof *all * (size_t)(n * n));
    double *known = malloc(sizeof *known * (size_t)(n * n));
    assert_true(means && all && known);
    for (int64_t w = 0; w < screen->well_count; w++)
        for (int k = 0; k < P && screen->wells[w].gene >= 0; k++)
            means[screen->wells[w].gene * P + k] += screen->wells[w].truth[k];
    for (int64_t a = 0; a < n; a++)
        for (int64_t b = a + 1; b < n; b++) {
            double ab = 0, aa = 0, bb = 0;
            for (int k = 0; k < P; k++) {
                ab += means[a * P + k] * means[b * P + k];
                aa += means[a * P + k] * means[a * P + k];
                bb += means[b * P + k] * means[b * P + k];
            }
            all[pairs++] = ab / sqrt(aa * bb);
            if (lam_synth_related(screen, a, b)) known[related++] = ab / sqrt(aa * bb);
        }
    qsort(all, (size_t)pairs, sizeof *all, compare);
    double low = all[(int64_t)(0.05 * (double)pairs)], high = all[(int64_t)(0.95 * (double)pairs)];
    int64_t found = 0;
    for (int64_t i = 0; i < related; i++) found += known[i] <= low || known[i] >= high;
    *share = (double)related / (double)pairs;
    free(means);
    free(all);
    free(known);
    lam_synth_screen_free(screen);
    return (double)found / (double)related;
}

static void test_ceiling_lies_where_it_should(void **state) {
    (void)state;
    for (uint64_t seed = 0; seed < 3; seed++) {
        double share, unused, normal = ceiling(seed, 1.0, &share);
        assert_true(normal >= 0.60 && normal <= 0.90);
        assert_true(share >= 0.01 && share <= 0.03);
        assert_true(ceiling(seed, 0.5, &unused) < normal);
        assert_true(ceiling(seed, 2.0, &unused) > normal);
        /* Without effects the relationships are found as often as any pair: one in ten. */
        assert_true(ceiling(seed, 0.0, &unused) < 0.25);
    }
}

static void test_design(void **state) {
    (void)state;
    static const int64_t genes[] = {4, 60, 61, 96, 300};
    for (size_t i = 0; i < sizeof genes / sizeof *genes; i++) {
        lam_synth_config config = lam_synth_config_default();
        config.genes = genes[i];
        config.plates = 5;
        lam_synth_screen *screen = NULL;
        assert_int_equal(lam_synth_screen_create(&screen, &config), LAM_OK);
        int64_t related = 0, antagonists = 0, controls[5] = {0};
        for (int64_t a = 0; a < config.genes; a++)
            for (int64_t b = a + 1; b < config.genes; b++) {
                bool is = lam_synth_related(screen, a, b);
                assert_int_equal(is, lam_synth_related(screen, b, a));
                related += is;
                if (!is || screen->genes[a].pathway == screen->genes[b].pathway) continue;
                antagonists++;
                for (int k = 0; k < P; k++)
                    assert_float_equal(screen->pathways[screen->genes[a].pathway].direction[k],
                                       -screen->pathways[screen->genes[b].pathway].direction[k], 0);
            }
        double share = (double)related / (double)(config.genes * (config.genes - 1) / 2);
        if (config.genes >= 60) {
            assert_true(share >= 0.01 && share <= 0.03);
            assert_true(antagonists > 0);
            int64_t silent = 0;
            for (int64_t g = 0; g < config.genes; g++) silent += screen->genes[g].pathway < 0;
            assert_true(silent > 0);
        }
        for (int64_t w = 0; w < screen->well_count; w++) {
            const lam_synth_well *well = &screen->wells[w];
            if (well->gene < 0) controls[well->plate]++;
            if (w == 0) continue;
            const lam_synth_well *before = well - 1;
            assert_true(
                before->plate < well->plate ||
                (before->plate == well->plate && before->position < well->position)); /* no place twice */
        }
        for (int plate = 0; plate < 5; plate++) assert_int_equal(controls[plate], config.controls);
        lam_synth_screen_free(screen);
    }
}

static void test_impossible_designs(void **state) {
    (void)state;
    lam_synth_screen *screen = NULL;
    lam_synth_config config = lam_synth_config_default();
    config.batches = 5;
    assert_int_equal(lam_synth_screen_create(&screen, &config), LAM_ERROR_USAGE);
    assert_null(screen);
    config = lam_synth_config_default();
    config.genes = 20000;
    assert_int_equal(lam_synth_screen_create(&screen, &config), LAM_ERROR_USAGE);
    assert_non_null(strstr(lam_last_error(), "--plates"));
}

/* Mean over several fields of a figure of one channel, with one parameter set. */
static double measure(lam_synth_parameter parameter, double value, lam_synth_channel channel,
                      double (*figure)(const float *plane, int64_t canvas)) {
    lam_synth_config config = lam_synth_config_default();
    config.image_size = 128;
    lam_synth_screen *screen = NULL;
    lam_synth_field field = {0};
    double sum = 0;
    assert_int_equal(lam_synth_screen_create(&screen, &config), LAM_OK);
    for (int64_t w = 0; w < 6; w++) {
        memset(screen->wells[w].truth, 0, sizeof screen->wells[w].truth);
        screen->wells[w].truth[parameter] = value;
        assert_int_equal(lam_synth_field_draw(&field, screen, w, 0), LAM_OK);
        sum += figure(lam_synth_field_plane(&field, channel), field.canvas);
    }
    lam_synth_field_free(&field);
    lam_synth_screen_free(screen);
    return sum / 6;
}
static double total(const float *plane, int64_t canvas) {
    double sum = 0;
    for (int64_t i = 0; i < canvas * canvas; i++) sum += (double)plane[i];
    return sum;
}
static double lit_pixels(const float *plane, int64_t canvas) {
    double count = 0;
    for (int64_t i = 0; i < canvas * canvas; i++) count += plane[i] > 60;
    return count;
}
/* Squared difference of neighbours over squared light: fine structure, whatever the brightness. */
static double fineness(const float *plane, int64_t canvas) {
    double rough = 0, light = 0;
    for (int64_t i = 1; i < canvas * canvas; i++) {
        double d = (double)(plane[i] - plane[i - 1]);
        rough += d * d;
        light += (double)plane[i] * (double)plane[i];
    }
    return rough / light;
}

static void test_parameters_change_structure(void **state) {
    (void)state;
    assert_true(measure(LAM_SYNTH_NUCLEUS_AREA, 2, LAM_SYNTH_DNA, lit_pixels) >
                1.5 * measure(LAM_SYNTH_NUCLEUS_AREA, -2, LAM_SYNTH_DNA, lit_pixels));
    assert_true(measure(LAM_SYNTH_CELL_AREA, 2, LAM_SYNTH_ER, lit_pixels) >
                1.3 * measure(LAM_SYNTH_CELL_AREA, -2, LAM_SYNTH_ER, lit_pixels));
    assert_true(measure(LAM_SYNTH_CHROMATIN_GRANULARITY, 2, LAM_SYNTH_DNA, fineness) >
                1.2 * measure(LAM_SYNTH_CHROMATIN_GRANULARITY, -2, LAM_SYNTH_DNA, fineness));
    assert_true(measure(LAM_SYNTH_ER_RETICULATION, 2, LAM_SYNTH_ER, fineness) >
                1.2 * measure(LAM_SYNTH_ER_RETICULATION, -2, LAM_SYNTH_ER, fineness));
    /* Structure, not amount: a channel's light stays. */
    static const int structural[][2] = {{LAM_SYNTH_ER_EXTENT, LAM_SYNTH_ER},
                                        {LAM_SYNTH_ER_RETICULATION, LAM_SYNTH_ER},
                                        {LAM_SYNTH_ACTIN_ORDER, LAM_SYNTH_AGP},
                                        {LAM_SYNTH_GOLGI_COMPACTNESS, LAM_SYNTH_AGP},
                                        {LAM_SYNTH_MITO_FRAGMENTATION, LAM_SYNTH_MITO},
                                        {LAM_SYNTH_MITO_SPREAD, LAM_SYNTH_MITO},
                                        {LAM_SYNTH_CHROMATIN_GRANULARITY, LAM_SYNTH_DNA}};
    for (size_t i = 0; i < sizeof structural / sizeof *structural; i++) {
        lam_synth_parameter parameter = (lam_synth_parameter)structural[i][0];
        lam_synth_channel channel = (lam_synth_channel)structural[i][1];
        double low = measure(parameter, -1, channel, total), high = measure(parameter, 1, channel, total);
        assert_true(fabs(log(high / low)) < 0.12);
    }
}

static void test_camera(void **state) {
    (void)state;
    enum { SIZE = 64, CANVAS = SIZE + 2 * LAM_SYNTH_MARGIN };
    static uint16_t first[SIZE * SIZE], second[SIZE * SIZE];
    static float scratch[CANVAS * CANVAS];
    lam_synth_config config = lam_synth_config_default();
    config.image_size = SIZE;
    lam_synth_screen *screen = NULL;
    lam_synth_field field = {0};
    assert_int_equal(lam_synth_screen_create(&screen, &config), LAM_OK);
    for (int round = 0; round < 2; round++) {
        assert_int_equal(lam_synth_field_draw(&field, screen, 7, 0), LAM_OK);
        lam_synth_photograph(screen, &field, 7, 0, LAM_SYNTH_DNA, scratch, round ? second : first);
    }
    assert_memory_equal(first, second, sizeof first);
    /* An empty field: photons of the background, Poisson and read noise, and not a constant. */
    memset(lam_synth_field_plane(&field, LAM_SYNTH_DNA), 0,
           sizeof(float) * (size_t)(field.canvas * field.canvas));
    lam_synth_photograph(screen, &field, 7, 0, LAM_SYNTH_DNA, scratch, first);
    double mean = 0, square = 0;
    for (int i = 0; i < SIZE * SIZE; i++) mean += first[i];
    mean /= SIZE * SIZE;
    for (int i = 0; i < SIZE * SIZE; i++) square += (first[i] - mean) * (first[i] - mean);
    double photons = (mean - 200) / 8, variance = square / (SIZE * SIZE) / 64;
    assert_true(photons > 5 && photons < 100);
    assert_true(variance > photons && variance < 2 * photons + 40);
    lam_synth_field_free(&field);
    lam_synth_screen_free(screen);
}

static int synth(const char *folder, const char *threads, const char *seed, bool force) {
    const lam_command *commands[] = {&lam_command_synth, NULL};
    char *argv[] = {
        "lamella",    "synth",      (char *)folder, "--genes", "6",       "--plates",  "2",
        "--controls", "2",          "--image-size", "48",      "--quiet", "--threads", (char *)threads,
        "--seed",     (char *)seed, "--force",      NULL};
    return lam_cli_main(commands, force ? 17 : 16, argv);
}

static void assert_same_folder(const char *a, const char *b, bool same) {
    char **names = NULL;
    int64_t count = 0, different = 0;
    assert_int_equal(lam_list_folder(a, "", &names, &count), LAM_OK);
    assert_true(count > 0);
    for (int64_t i = 0; i < count; i++) {
        char *left = NULL, *right = NULL, *x = NULL, *y = NULL;
        size_t m = 0, n = 0;
        assert_int_equal(lam_path_join(&left, a, names[i]), LAM_OK);
        assert_int_equal(lam_path_join(&right, b, names[i]), LAM_OK);
        if (!lam_path_is_folder(left)) {
            assert_int_equal(lam_file_read(left, &x, &m), LAM_OK);
            assert_int_equal(lam_file_read(right, &y, &n), LAM_OK);
            different += m != n || memcmp(x, y, m) != 0;
        }
        free(left);
        free(right);
        free(x);
        free(y);
    }
    lam_free_texts(names, count);
    assert_int_equal(different == 0, same);
}

static void test_same_seed_same_bytes(void **state) {
    (void)state;
    char root[] = "/tmp/lamella-synth-XXXXXX", a[64], b[64], c[64], path[96];
    assert_non_null(mkdtemp(root));
    snprintf(a, sizeof a, "%s/one", root);
    snprintf(b, sizeof b, "%s/two", root);
    snprintf(c, sizeof c, "%s/other", root);
    assert_int_equal(synth(a, "1", "5", false), 0);
    assert_int_equal(synth(b, "2", "5", false), 0);
    assert_int_equal(synth(c, "2", "6", false), 0);
    char left[96], right[96];
    static const char *const parts[] = {"", "/images", "/relationships"};
    for (int i = 0; i < 3; i++) {
        snprintf(left, sizeof left, "%s%s", a, parts[i]);
        snprintf(right, sizeof right, "%s%s", b, parts[i]);
        assert_same_folder(left, right, true);
    }
    assert_same_folder(a, c, false);

    lam_table *table = NULL;
    snprintf(path, sizeof path, "%s/images.csv", a);
    assert_int_equal(lam_table_read(&table, path), LAM_OK);
    assert_int_equal(lam_table_rows(table), 6 * 2 * 3 + 2 * 2);
    static const char *const columns[] = {"file_DNA", "file_Mito", "plate", "batch",
                                          "well",     "site",      "gene",  "guide"};
    for (size_t i = 0; i < sizeof columns / sizeof *columns; i++)
        assert_true(lam_table_column(table, columns[i]) >= 0);
    lam_table_free(table);
    snprintf(path, sizeof path, "%s/truth.csv", a);
    assert_int_equal(lam_table_read(&table, path), LAM_OK);
    assert_int_equal(lam_table_rows(table), 40);
    assert_true(lam_table_column(table, "d0") >= 0 && lam_table_column(table, "d18") >= 0);
    lam_table_free(table);

    assert_int_equal(synth(a, "2", "6", false), 2); /* is there already */
    assert_int_equal(synth(a, "2", "6", true), 0);
    assert_same_folder(a, c, true);
    /* --force removes a screen and nothing else. */
    snprintf(path, sizeof path, "%s/parameters.csv", a);
    assert_int_equal(remove(path), 0);
    assert_int_equal(synth(a, "2", "6", true), 2);
    assert_int_equal(lam_remove_tree(root), LAM_OK);
}

/* The n-th allocation or write fails: exit code 1, and no table of images that could be packed. */
static void test_failures_leave_no_table(void **state) {
    (void)state;
    char root[] = "/tmp/lamella-synth-XXXXXX", folder[64], table[96];
    assert_non_null(mkdtemp(root));
    snprintf(folder, sizeof folder, "%s/screen", root);
    snprintf(table, sizeof table, "%s/images.csv", folder);
    const lam_command *commands[] = {&lam_command_synth, NULL};
    static const lam_fault_kind kinds[] = {LAM_FAULT_ALLOC, LAM_FAULT_WRITE};
    for (int k = 0; k < 2; k++) {
        int64_t failures = 0;
        for (int64_t n = 1;; n += n < 30 ? 1 : 9) {
            char *argv[] = {"lamella", "synth",        folder,   "--genes",
                            "4",       "--plates",     "1",      "--controls",
                            "1",       "--guides",     "1",      "--replicates",
                            "1",       "--image-size", "32",     "--threads",
                            "1",       "--quiet",      "--json", NULL};
            assert_int_equal(lam_remove_tree(folder), LAM_OK);
            lam_fault_arm(kinds[k], n);
            int code = lam_cli_main(commands, 19, argv);
            lam_fault_arm(kinds[k], 0);
            if (code == 0) break;
            failures++;
            assert_int_equal(code, 1);
            assert_false(lam_path_exists(table));
            assert_true(n < 1000);
        }
        assert_true(failures > 30);
        assert_true(lam_path_exists(table));
    }
    assert_int_equal(lam_remove_tree(root), LAM_OK);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ceiling_lies_where_it_should),
        cmocka_unit_test(test_design),
        cmocka_unit_test(test_impossible_designs),
        cmocka_unit_test(test_parameters_change_structure),
        cmocka_unit_test(test_camera),
        cmocka_unit_test(test_same_seed_same_bytes),
        cmocka_unit_test(test_failures_leave_no_table),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
