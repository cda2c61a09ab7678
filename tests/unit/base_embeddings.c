/* Embeddings: AnnData files as anndata 0.8 and 0.12 wrote them, our own again, text, .npy with .csv, damage,
 * faults. The golden files: anndata_*.h5ad of three rows with every kind of column, dense and sparse
 * matrices; the others are small files with one thing wrong each. */
#include "base/embeddings.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/fault.h"
#include "base/files.h"
#include "base/memory.h"
#include "base/npy.h"
#include "base/utf8.h"

static char folder[64];

static char *in_folder(const char *name) {
    static char path[160];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static lam_embeddings *read_golden(const char *name, const char *key, const char *features) {
    lam_embeddings *e = NULL;
    char path[512];
    snprintf(path, sizeof path, "%s/embeddings/%s", LAM_TEST_GOLDEN, name);
    if (lam_embeddings_read(&e, path, key, features) != LAM_OK) fail_msg("%s", lam_last_error());
    return e;
}

static void expect_refused(const char *path, const char *key, const char *features, const char *message) {
    lam_embeddings *e = NULL;
    if (lam_embeddings_read(&e, path, key, features) == LAM_OK) fail_msg("%s was read", path);
    assert_null(e);
    if (strstr(lam_last_error(), message) == NULL) fail_msg("'%s' lacks '%s'", lam_last_error(), message);
    assert_null(strchr(lam_last_error(), '\n'));
}

static void write_text(const char *path, const char *text) {
    assert_int_equal(lam_file_write(path, text, strlen(text)), LAM_OK);
}

static void expect_cells(const lam_table *obs, const char *column, const char *a, const char *b,
                         const char *c) {
    const char *expected[] = {a, b, c};
    int at = lam_table_column(obs, column);
    if (at < 0) fail_msg("no column %s", column);
    for (int64_t row = 0; row < 3; row++) assert_string_equal(lam_table_cell(obs, row, at), expected[row]);
}

static void files_of_anndata(void **state) {
    (void)state;
    static const char *const names[] = {"anndata_0_8.h5ad", "anndata_0_12.h5ad"};
    static const double x[12] = {0, 1, 0, 2, 0, 0, 0, 0, 3, 0, 4, 0.5};
    for (int i = 0; i < 2; i++) {
        lam_embeddings *e = read_golden(names[i], NULL, NULL); /* CSR */
        assert_int_equal(e->rows, 3);
        assert_int_equal(e->columns, 4);
        assert_true(e->was_float32);
        assert_memory_equal(e->values, x, sizeof x);
        assert_string_equal(e->index[0], "r0");
        assert_string_equal(e->index[2], "r2");
        assert_string_equal(e->provenance, "{\"a\":1}");
        expect_cells(e->obs, "text", "a", "b", "c");
        expect_cells(e->obs, "real", "1.5", "2", "");
        expect_cells(e->obs, "whole", "1", "-2", "3");
        expect_cells(e->obs, "flag", "True", "False", "True");
        expect_cells(e->obs, "kind", "x", "", "y");
        if (i == 1) {
            expect_cells(e->obs, "gaps", "1", "", "3");
            expect_cells(e->obs, "maybe", "True", "", "False");
        }
        assert_int_equal(lam_table_columns(e->obs), i == 1 ? 7 : 5);
        assert_non_null(strstr(lam_table_path(e->obs), names[i]));
        lam_embeddings_free(e);
        e = read_golden(names[i], "csc", NULL);
        assert_false(e->was_float32);
        assert_memory_equal(e->values, x, sizeof x);
        lam_embeddings_free(e);
        e = read_golden(names[i], "layers/dense", "g*");
        assert_int_equal(e->columns, 2);
        for (int row = 0; row < 3; row++) {
            for (int k = 0; k < 2; k++) assert_true(e->values[row * 2 + k] == 2 * x[row * 4 + 2 + k]);
        }
        lam_embeddings_free(e);
        e = read_golden(names[i], "X_e", "d1");
        assert_int_equal(e->columns, 1);
        assert_true(e->values[0] == 1 && e->values[1] == 3 && e->values[2] == 5);
        lam_embeddings_free(e);
    }
    lam_embeddings *e = read_golden("anndata_0_7.h5ad", NULL, NULL);
    expect_cells(e->obs, "kind", "x", "y", "");
    expect_cells(e->obs, "fixed", "ab", "c", "");
    assert_true(e->values[5] == 5 && !e->was_float32);
    assert_null(e->provenance);
    lam_embeddings_free(e);
}

static void matrices_of_a_file(void **state) {
    (void)state;
    char path[512], **names = NULL;
    int64_t count = 0;
    snprintf(path, sizeof path, "%s/embeddings/blocks.h5ad", LAM_TEST_GOLDEN);
    assert_int_equal(lam_embeddings_matrices(path, "block_*", &names, &count), LAM_OK);
    assert_int_equal(count, 3);
    assert_string_equal(names[0], "block_1");
    assert_string_equal(names[1], "block_2");
    assert_string_equal(names[2], "block_10");
    lam_free(names);
    assert_int_equal(lam_embeddings_names(path, "obsm", &names, &count), LAM_OK);
    assert_int_equal(count, 4);
    assert_string_equal(names[2], "block_10");
    assert_string_equal(names[3], "umap");
    lam_free(names);
    static const char *const nothing[][2] = {{NULL, "obsq"}, {"e.csv", "obsm"}};
    for (int i = 0; i < 2; i++) {
        assert_int_equal(
            lam_embeddings_names(nothing[i][0] ? nothing[i][0] : path, nothing[i][1], &names, &count),
            LAM_OK);
        assert_int_equal(count, 0);
        lam_free(names);
    }
    assert_int_equal(lam_embeddings_matrices(path, "layer_*", &names, &count), LAM_ERROR_INPUT);
    assert_non_null(strstr(lam_last_error(), "'layer_*'; obsm has: block_1, block_2, block_10, umap"));
    assert_int_equal(lam_embeddings_matrices("e.csv", "*", &names, &count), LAM_ERROR_INPUT);
    assert_int_equal(lam_embeddings_matrices(in_folder("absent.h5ad"), "*", &names, &count), LAM_ERROR_IO);
    assert_int_equal(
        lam_embeddings_write(in_folder("m.h5ad"), 1, 1, (const double[]){1}, true, NULL, NULL, NULL, NULL),
        LAM_OK);
    assert_int_equal(lam_embeddings_matrices(in_folder("m.h5ad"), "*", &names, &count), LAM_ERROR_INPUT);
    assert_non_null(strstr(lam_last_error(), "obsm has: nothing"));
    for (int kind = 0; kind < LAM_FAULT_WRITE; kind++)
        for (int64_t n = 1;; n++) {
            lam_fault_arm((lam_fault_kind)kind, n);
            lam_status status = lam_embeddings_matrices(path, "*", &names, &count);
            lam_fault_arm((lam_fault_kind)kind, 0);
            if (status == LAM_OK) {
                lam_free(names);
                break;
            }
            assert_int_equal(status, kind == LAM_FAULT_ALLOC ? LAM_ERROR_MEMORY : LAM_ERROR_IO);
        }
}

static void damaged_files(void **state) {
    (void)state;
    static const struct {
        const char *name, *key, *message;
    } cases[] = {
        {"compound_obs.h5ad", NULL, "anndata before 0.7"},
        {"bad_codes.h5ad", NULL, "code 2 of 2 categories"},
        {"bad_index.h5ad", NULL, "index is outside the shape"},
        {"bad_indptr.h5ad", NULL, "indptr falls"},
        {"bad_rows.h5ad", NULL, "obs has 2 rows, the matrix 3"},
        {"no_x.h5ad", NULL, "no matrix 'X' in the file; it has: obsm/pca"},
        {"no_x.h5ad", "pca", "no obs"},
        {"anndata_0_8.h5ad", "umap", "no matrix 'umap'"},
        {"absent.h5ad", NULL, "absent.h5ad: "},
    };
    char path[512];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        snprintf(path, sizeof path, "%s/embeddings/%s", LAM_TEST_GOLDEN, cases[i].name);
        expect_refused(path, cases[i].key, NULL, cases[i].message);
    }
    snprintf(path, sizeof path, "%s/embeddings/anndata_0_8.h5ad", LAM_TEST_GOLDEN);
    expect_refused(path, NULL, "zz*", "no column matches the features 'zz*'; columns: f1, ..., g2");
    write_text(in_folder("text.h5ad"), "not HDF5 at all");
    expect_refused(in_folder("text.h5ad"), NULL, NULL, "not an HDF5 file");
    write_text(in_folder("empty.h5ad"), "");
    expect_refused(in_folder("empty.h5ad"), NULL, NULL, "not an HDF5 file");
    expect_refused(in_folder("x.parquet"), NULL, NULL, ".to_csv('");
    expect_refused(in_folder("x.tiff"), NULL, NULL, "not a kind of embeddings");
    /* Cut anywhere, it is refused in one line. */
    char *bytes = NULL;
    size_t size = 0;
    assert_int_equal(lam_file_read(path, &bytes, &size), LAM_OK);
    for (size_t cut = 8; cut < size; cut += 4999) {
        assert_int_equal(lam_file_write(in_folder("cut.h5ad"), bytes, cut), LAM_OK);
        expect_refused(in_folder("cut.h5ad"), NULL, NULL, "cut.h5ad: ");
    }
    lam_free(bytes);
}

enum { ROWS = 3, COLUMNS = 2 };
static const double values[ROWS * COLUMNS] = {0.1, -2, NAN, 1e-300, INFINITY, 0.25};

static lam_table *metadata(void) {
    static const char text[] = "plate,well,dose,count,gap,hint,barcode,unit/x,cross\n"
                               "P1,01,0.1,7,1,12E03,1234567890123456789012,a,\"q,\"\"\"\n"
                               "P1,02,1e-05,-8,,12E04,2,b,\n"
                               "P2,13,30,9007199254740993,2.5,13E01,3,c,\xc3\xa9\n";
    lam_table *obs = NULL;
    if (lam_table_parse(&obs, text, sizeof text - 1, "obs.csv") != LAM_OK) fail_msg("%s", lam_last_error());
    return obs;
}

static void expect_same(const char *path, bool as_float32) {
    lam_embeddings *e = NULL;
    if (lam_embeddings_read(&e, path, NULL, NULL) != LAM_OK) fail_msg("%s", lam_last_error());
    lam_table *obs = metadata();
    assert_int_equal(e->rows, ROWS);
    assert_int_equal(e->columns, COLUMNS);
    assert_int_equal(e->was_float32, as_float32);
    for (int i = 0; i < ROWS * COLUMNS; i++) {
        double expected = as_float32 ? (double)(float)values[i] : values[i];
        assert_true(e->values[i] == expected || (isnan(expected) && isnan(e->values[i])));
    }
    assert_string_equal(e->index[0], "first");
    assert_string_equal(e->index[2], "third");
    assert_int_equal(lam_table_columns(e->obs), lam_table_columns(obs));
    for (int column = 0; column < lam_table_columns(obs); column++) {
        assert_string_equal(lam_table_name(e->obs, column), lam_table_name(obs, column));
        for (int64_t row = 0; row < ROWS; row++) {
            assert_string_equal(lam_table_cell(e->obs, row, column), lam_table_cell(obs, row, column));
        }
    }
    lam_table_free(obs);
    lam_embeddings_free(e);
}

static const char *const row_names[] = {"first", "second", "third"};

static void ours_again(void **state) {
    (void)state;
    static const char *const names[] = {"e.h5ad", "e.npy"};
    lam_table *obs = metadata();
    for (int i = 0; i < 2; i++) {
        for (int single = 0; single < 2; single++) {
            char *path = in_folder(names[i]);
            assert_int_equal(
                lam_embeddings_write(path, ROWS, COLUMNS, values, single, obs, row_names, NULL, "{}"),
                LAM_OK);
            expect_same(path, single);
        }
    }
    /* Equal calls give equal bytes, whenever they are made. */
    char *first = NULL, *second = NULL;
    size_t first_size = 0, second_size = 0;
    const char *var[] = {"PC1", "PC2"};
    for (int i = 0; i < 2; i++) {
        assert_int_equal(
            lam_embeddings_write(in_folder("e.h5ad"), ROWS, COLUMNS, values, true, obs, row_names, var, "{}"),
            LAM_OK);
        assert_int_equal(lam_file_read(in_folder("e.h5ad"), i == 0 ? &first : &second,
                                       i == 0 ? &first_size : &second_size),
                         LAM_OK);
        if (i == 0) usleep(1100000); /* HDF5's times are in seconds */
    }
    assert_int_equal(first_size, second_size);
    assert_memory_equal(first, second, first_size);
    lam_free(first);
    lam_free(second);
    lam_embeddings *e = NULL;
    assert_int_equal(lam_embeddings_read(&e, in_folder("e.h5ad"), "X", "PC2"), LAM_OK);
    assert_int_equal(e->columns, 1);
    assert_true(e->values[0] == -2 && e->values[2] == 0.25);
    assert_string_equal(e->provenance, "{}");
    lam_embeddings_free(e);
    /* Nothing but a matrix; no rows; a column that cannot be held; ends that are not ours. */
    assert_int_equal(
        lam_embeddings_write(in_folder("e.h5ad"), ROWS, COLUMNS, values, false, NULL, NULL, NULL, NULL),
        LAM_OK);
    assert_int_equal(lam_embeddings_read(&e, in_folder("e.h5ad"), NULL, NULL), LAM_OK);
    assert_string_equal(e->index[1], "1");
    assert_int_equal(lam_table_columns(e->obs), 0);
    assert_null(e->provenance);
    lam_embeddings_free(e);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(
            lam_embeddings_write(in_folder(names[i]), 0, COLUMNS, values, true, NULL, NULL, NULL, NULL),
            LAM_OK);
        assert_int_equal(lam_embeddings_read(&e, in_folder(names[i]), NULL, NULL), LAM_OK);
        assert_int_equal(e->rows, 0);
        assert_int_equal(e->columns, COLUMNS);
        lam_embeddings_free(e);
    }
    assert_int_equal(lam_table_add(obs, "_index", NULL), LAM_OK);
    assert_int_equal(
        lam_embeddings_write(in_folder("e.h5ad"), ROWS, COLUMNS, values, true, obs, NULL, NULL, NULL),
        LAM_ERROR_INPUT);
    assert_int_equal(
        lam_embeddings_write(in_folder("e.csv"), ROWS, COLUMNS, values, true, NULL, NULL, NULL, NULL),
        LAM_ERROR_USAGE);
    assert_int_equal(
        lam_embeddings_write(in_folder("no/e.h5ad"), ROWS, COLUMNS, values, true, NULL, NULL, NULL, NULL),
        LAM_ERROR_IO);
    assert_non_null(strstr(lam_last_error(), "No such file"));
    lam_table_free(obs);
}

/* A table that a spreadsheet exported as Latin-1 must not make a file that Python cannot decode. */
static void text_of_another_encoding(void **state) {
    (void)state;
    static const char text[] = "dose \xb5M\n1 \xb5M\n2\xb5\xc2\n\xc2\xb5\n";
    static const char *const index[] = {"\xe9", "b", "c"};
    lam_table *obs = NULL;
    lam_embeddings *e = NULL;
    assert_int_equal(lam_table_parse(&obs, text, sizeof text - 1, "obs.csv"), LAM_OK);
    assert_int_equal(
        lam_embeddings_write(in_folder("l.h5ad"), ROWS, COLUMNS, values, true, obs, index, NULL, NULL),
        LAM_OK);
    assert_int_equal(lam_embeddings_read(&e, in_folder("l.h5ad"), NULL, NULL), LAM_OK);
    assert_string_equal(lam_table_name(e->obs, 0), "dose \xc2\xb5M");
    expect_cells(e->obs, "dose \xc2\xb5M", "1 \xc2\xb5M", "2\xc2\xb5\xc3\x82", "\xc2\xb5");
    assert_string_equal(e->index[0], "\xc3\xa9");
    lam_embeddings_free(e);
    lam_table_free(obs);
    static const char *const valid[] = {
        "", "a", "\xc2\x80", "\xe0\xa0\x80", "\xed\x9f\xbf", "\xf4\x8f\xbf\xbf"};
    static const char *const invalid[] = {"\x80",
                                          "\xc2",
                                          "\xc0\x80",
                                          "\xe0\x80\x80",
                                          "\xed\xa0\x80",
                                          "\xf4\x90\x80\x80",
                                          "\xf5\x80\x80\x80",
                                          "\xe2\x82",
                                          "\xff",
                                          "\xf0\x8f\xbf\xbf"};
    for (size_t i = 0; i < sizeof valid / sizeof valid[0]; i++) assert_true(lam_utf8_is_valid(valid[i]));
    for (size_t i = 0; i < sizeof invalid / sizeof invalid[0]; i++)
        assert_false(lam_utf8_is_valid(invalid[i]));
}

static void text_tables(void **state) {
    (void)state;
    lam_embeddings *e = NULL;
    char *path = in_folder("t.csv");
    write_text(path, "gene,Metadata_dose,size,d1,d0\nA,1,5,0.5,nan\nB,2,6,-inf,\n");
    assert_int_equal(lam_embeddings_read(&e, path, NULL, NULL), LAM_OK);
    assert_int_equal(e->columns, 2); /* d0, d1 */
    assert_true(isnan(e->values[0]) && e->values[1] == 0.5 && isnan(e->values[2]) &&
                e->values[3] == -(double)INFINITY);
    assert_string_equal(e->index[1], "B");
    assert_int_equal(lam_table_columns(e->obs), 3);
    assert_string_equal(lam_table_cell(e->obs, 1, lam_table_column(e->obs, "gene")), "B");
    assert_string_equal(lam_table_cell(e->obs, 1, lam_table_column(e->obs, "size")), "6");
    assert_int_equal(lam_table_line(e->obs, 1), 3);
    lam_embeddings_free(e);
    write_text(path, "\tMetadata_dose\tsize\tgene\tx\n0\t1\t5\tA\tNaN\n1\t2\t6\tB\t3\n");
    assert_int_equal(lam_embeddings_read(&e, path, NULL, NULL), LAM_OK);
    assert_int_equal(e->columns, 2); /* size, x */
    assert_true(e->values[0] == 5 && isnan(e->values[1]));
    assert_string_equal(e->index[1], "1");
    assert_int_equal(lam_table_columns(e->obs), 2); /* dose, gene */
    lam_embeddings_free(e);
    assert_int_equal(lam_embeddings_read(&e, path, NULL, "[sM]*"), LAM_OK);
    assert_int_equal(e->columns, 2);
    assert_true(e->values[0] == 1 && e->values[1] == 5);
    lam_embeddings_free(e);
    expect_refused(path, NULL, "gene", "t.csv:2: column 'gene': 'A' is no number");
    expect_refused(path, NULL, "q*", "no column matches");
    expect_refused(path, "layer", NULL, "--key layer is for .h5ad");
    write_text(path, "a,b\nx,y\n");
    expect_refused(path, NULL, NULL, "no numeric column");
    write_text(path, "a,d0\n");
    expect_refused(path, NULL, NULL, "no rows");
    int64_t shape[2] = {3, 2}, one[1] = {6};
    int32_t whole[6] = {1, 2, 3, 4, 5, 6};
    assert_int_equal(lam_npy_write(in_folder("n.npy"), "i4", 2, shape, whole), LAM_OK);
    expect_refused(in_folder("n.npy"), NULL, NULL, "n.csv, is not there");
    write_text(in_folder("n.csv"), "gene\nA\nB\n");
    expect_refused(in_folder("n.npy"), NULL, NULL, "n.npy has 3 rows");
    write_text(in_folder("n.csv"), "gene\nA\nB\nC\n");
    assert_int_equal(lam_embeddings_read(&e, in_folder("n.npy"), NULL, NULL), LAM_OK);
    assert_true(e->values[5] == 6);
    assert_string_equal(e->index[2], "C");
    lam_embeddings_free(e);
    assert_int_equal(lam_npy_write(in_folder("n.npy"), "i4", 1, one, whole), LAM_OK);
    expect_refused(in_folder("n.npy"), NULL, NULL, "1 dimensions");
}

static void published_embeddings(void **state) {
    (void)state;
    const char *shared = getenv("LAMELLA_SHARED");
    char path[600];
    snprintf(path, sizeof path, "%s/data/gene_embeddings/depmap_crispr_pca50.tsv.gz",
             shared != NULL ? shared : LAM_TEST_GOLDEN "/../../../shared");
    if (!lam_path_exists(path)) skip();
    lam_embeddings *e = NULL;
    assert_int_equal(lam_embeddings_read(&e, path, NULL, NULL), LAM_OK);
    assert_int_equal(e->rows, 2732);
    assert_int_equal(e->columns, 50);
    assert_string_equal(e->index[0], "AAAS");
    assert_true(e->values[0] == 0.00533454);
    lam_embeddings_free(e);
}

static void every_fault(void **state) {
    (void)state;
    static const lam_status expected[] = {LAM_ERROR_MEMORY, LAM_ERROR_IO, LAM_ERROR_IO};
    static const char *const names[] = {"f.h5ad", "f.npy", "f.csv"};
    char golden[512];
    snprintf(golden, sizeof golden, "%s/embeddings/anndata_0_12.h5ad", LAM_TEST_GOLDEN);
    lam_table *obs = metadata();
    for (int i = 0; i < 4; i++) {
        /* f.csv is what f.npy left beside; the last reads the file of anndata alone. */
        char path[512];
        snprintf(path, sizeof path, "%s", i < 3 ? in_folder(names[i]) : golden);
        if (i == 2) write_text(path, "gene,d0\nA,1\nB,2\n");
        for (int kind = 0; kind < (i < 2 ? LAM_FAULT_KINDS : LAM_FAULT_WRITE); kind++) {
            int64_t n = 1;
            if (i < 2) {
                assert_int_equal(
                    lam_embeddings_write(path, ROWS, COLUMNS, values, true, obs, row_names, NULL, "{}"),
                    LAM_OK);
            }
            for (;; n++) {
                lam_embeddings *e = NULL;
                lam_status status = LAM_OK;
                lam_fault_arm((lam_fault_kind)kind, n);
                if (i < 2) {
                    status =
                        lam_embeddings_write(path, ROWS, COLUMNS, values, true, obs, row_names, NULL, "{}");
                }
                if (status == LAM_OK) status = lam_embeddings_read(&e, path, NULL, NULL);
                lam_fault_arm((lam_fault_kind)kind, 0);
                if (status == LAM_OK) {
                    lam_embeddings_free(e);
                    break;
                }
                assert_null(e);
                if (status != expected[kind])
                    fail_msg("%s, kind %d, n %d: %s", path, kind, (int)n, lam_last_error());
                if (i < 2) expect_same(path, true); /* what was there before is whole */
                char **left = NULL;
                int64_t count = 0;
                char suffix[32];
                snprintf(suffix, sizeof suffix, ".partial-%ld", (long)getpid());
                assert_int_equal(lam_list_folder(folder, suffix, &left, &count), LAM_OK);
                if (count > 0) fail_msg("kind %d, n %d leaves %s", kind, (int)n, left[0]);
                lam_free_texts(left, count);
            }
            assert_true(n > 1);
        }
    }
    lam_table_free(obs);
}

/* Blocks of a network: side by side in memory, apart in the file, the last one as X too. */
static void several_matrices(void **state) {
    (void)state;
    enum { EACH = 2, BLOCKS = 3, LINES = 4 };
    static const char *const blocks[] = {"block_1", "block_2", "block_10"};
    double side_by_side[LINES * BLOCKS * EACH];
    for (int i = 0; i < LINES * BLOCKS * EACH; i++) side_by_side[i] = i + 0.25;
    const char *path = in_folder("blocks.h5ad");
    assert_int_equal(
        lam_embeddings_write_matrices(path, LINES, EACH, side_by_side, BLOCKS, blocks, NULL, NULL, "{}"),
        LAM_OK);
    char **names = NULL;
    int64_t count = 0;
    assert_int_equal(lam_embeddings_matrices(path, "block_*", &names, &count), LAM_OK);
    assert_int_equal(count, BLOCKS);
    for (int k = 0; k <= BLOCKS; k++) {
        lam_embeddings *e = NULL;
        int part = k < BLOCKS ? k : BLOCKS - 1;
        if (k < BLOCKS) assert_string_equal(names[k], blocks[k]);
        assert_int_equal(lam_embeddings_read(&e, path, k < BLOCKS ? blocks[k] : NULL, NULL), LAM_OK);
        assert_int_equal(e->rows, LINES);
        assert_int_equal(e->columns, EACH);
        assert_true(e->was_float32);
        for (int r = 0; r < LINES; r++)
            for (int i = 0; i < EACH; i++)
                assert_true(e->values[r * EACH + i] == side_by_side[(r * BLOCKS + part) * EACH + i]);
        lam_embeddings_free(e);
    }
    lam_free(names);
    assert_int_equal(lam_embeddings_write_matrices(in_folder("b.npy"), LINES, EACH, side_by_side, BLOCKS,
                                                   blocks, NULL, NULL, NULL),
                     LAM_ERROR_USAGE);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(several_matrices),
        cmocka_unit_test(files_of_anndata),
        cmocka_unit_test(matrices_of_a_file),
        cmocka_unit_test(damaged_files),
        cmocka_unit_test(ours_again),
        cmocka_unit_test(text_tables),
        cmocka_unit_test(published_embeddings),
        cmocka_unit_test(every_fault),
        cmocka_unit_test(text_of_another_encoding),
    };
    snprintf(folder, sizeof folder, "/tmp/lamella-embeddings-%ld", (long)getpid());
    if (lam_make_folders(folder) != LAM_OK) return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    if (lam_remove_tree(folder) != LAM_OK) return 1;
    return failed;
}
