/* What anndata puts into .h5ad: every kind of column and matrix, packed chunks. The golden files: columns_*.h5ad
 * of four rows by anndata 0.7.8, 0.8.0 and 0.12, matrices_0_12.h5ad, and packed_0_12.h5ad, whose obsm holds
 * chunks of 4 x 4 zeros as LZF and Zstandard streams, whole and damaged; odd_*.h5ad were changed with h5py. */
#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/embeddings.h"
#include "base/fault.h"
#include "base/files.h"
#include "base/log.h"
#include "base/memory.h"

static char log_path[64];

static char *golden(const char *name) {
    static char path[512];
    snprintf(path, sizeof path, "%s/embeddings/%s", LAM_TEST_GOLDEN, name);
    return path;
}

static lam_embeddings *read_golden(const char *name, const char *key, const char *features) {
    lam_embeddings *e = NULL;
    if (lam_embeddings_read(&e, golden(name), key, features) != LAM_OK)
        fail_msg("%s, %s: %s", name, key, lam_last_error());
    return e;
}

/* The same, with what it writes to standard error as *text (to be freed). */
static lam_embeddings *read_and_listen(const char *name, const char *key, char **text) {
    fflush(stderr);
    int kept = dup(STDERR_FILENO), log = open(log_path, O_CREAT | O_TRUNC | O_WRONLY, 0600);
    assert_true(kept >= 0 && log >= 0);
    dup2(log, STDERR_FILENO);
    lam_embeddings *e = NULL;
    lam_status status = lam_embeddings_read(&e, golden(name), key, NULL);
    dup2(kept, STDERR_FILENO);
    close(kept);
    close(log);
    size_t size = 0;
    assert_int_equal(lam_file_read(log_path, text, &size), LAM_OK);
    if (status != LAM_OK) fail_msg("%s, %s: %s", name, key, lam_last_error());
    return e;
}

static void expect_refused(const char *name, const char *key, lam_status status, const char *message) {
    lam_embeddings *e = NULL;
    assert_int_equal(lam_embeddings_read(&e, golden(name), key, NULL), status);
    assert_null(e);
    if (strstr(lam_last_error(), message) == NULL) fail_msg("'%s' lacks '%s'", lam_last_error(), message);
}

static void columns(void **state) {
    (void)state;
    static const struct {
        const char *name, *cells[4];
        const char *files; /* which of the three hold it */
    } cases[] = {
        {"cell id", {"a", "b", "c", "d"}, "678"},
        {"text", {"x", "\xc3\xa9 \xc2\xb5", "q,\"", "-"}, "678"},
        {"kind", {"x", "", "y", "x"}, "678"},
        {"ordered", {"lo", "hi", "", "mid"}, "678"},
        {"kind_int", {"3", "", "-1", "3"}, "678"},
        {"kind_real", {"0.5", "", "0.1", "0.5"}, "678"},
        {"kind_flag", {"True", "", "False", "True"}, "8"},
        {"int8", {"-128", "0", "1", "127"}, "678"},
        {"int16", {"-32768", "0", "1", "32767"}, "678"},
        {"int32", {"-2147483648", "0", "1", "2147483647"}, "678"},
        {"int64", {"-9223372036854775808", "0", "1", "9223372036854775807"}, "678"},
        {"uint8", {"0", "0", "1", "255"}, "678"},
        {"uint16", {"0", "0", "1", "65535"}, "678"},
        {"uint32", {"0", "0", "1", "4294967295"}, "678"},
        {"uint64", {"0", "0", "1", "18446744073709551615"}, "678"},
        {"float16", {"0.1", "", "1.19e-07", "-2"}, "8"},
        {"float32", {"0.1", "", "inf", "16777216"}, "678"},
        {"float64", {"0.1", "", "-inf", "0.3333333333333333"}, "678"},
        {"flag", {"True", "False", "False", "True"}, "678"},
        {"Int64", {"1", "", "-3", "4"}, "78"},
        {"UInt8", {"1", "", "255", "4"}, "78"},
        {"boolean", {"True", "", "False", "True"}, "78"},
        {"date", {"2024-01-01", "2024-01-02", "2024-01-03", "2024-01-04"}, "678"},
        {"string", {"p", "", "", "r"}, "8"},
    };
    static const char *const names[] = {"columns_0_7.h5ad", "columns_0_8.h5ad", "columns_0_12.h5ad"};
    static const char marks[] = "678";
    for (int file = 0; file < 3; file++) {
        char *text = NULL;
        lam_embeddings *e = read_and_listen(names[file], NULL, &text);
        int expected = 0;
        assert_int_equal(e->rows, 4);
        assert_int_equal(e->columns, 1);
        assert_true(e->was_float32 && e->values[0] == 0 && e->values[3] == 3); /* float16 in the last */
        assert_string_equal(e->index[3], "d");
        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
            if (strchr(cases[i].files, marks[file]) == NULL) continue;
            int column = lam_table_column(e->obs, cases[i].name);
            if (column < 0) fail_msg("%s: no column %s", names[file], cases[i].name);
            for (int64_t row = 0; row < 4; row++)
                assert_string_equal(lam_table_cell(e->obs, row, column), cases[i].cells[row]);
            expected++;
        }
        assert_int_equal(lam_table_columns(e->obs), expected);
        /* Complex numbers are named and left out; nothing else is said. */
        if (file == 2) {
            assert_non_null(strstr(text,
                                   "columns_0_12.h5ad: columns of obs left out, of a kind that is not read: "
                                   "'complex' (compound or complex)\n"));
        } else {
            assert_string_equal(text, "");
        }
        lam_free(text);
        lam_embeddings_free(e);
    }
}

static void matrices(void **state) {
    (void)state;
    static const double x[9] = {0, 2, 0, 1, 0, 0, 0, 0, 3};
    static const struct {
        const char *key;
        bool was_float32, boolean;
        int columns;
    } cases[] = {
        {"X", false, false, 3},          {"int8", false, false, 3},       {"int16", false, false, 3},
        {"int32", false, false, 3},      {"int64", false, false, 3},      {"uint8", false, false, 3},
        {"uint16", false, false, 3},     {"uint32", false, false, 3},     {"uint64", false, false, 3},
        {"float16", true, false, 3},     {"float32", true, false, 3},     {"bool", false, true, 3},
        {"csr_float32", true, false, 3}, {"csc_float32", true, false, 3}, {"csr_int64", false, false, 3},
        {"csc_int64", false, false, 3},  {"csr_bool", false, true, 3},    {"csc_bool", false, true, 3},
        {"csr_wide", true, false, 3},    {"obsm/dense", false, false, 2}, {"obsm/csr", true, false, 2},
        {"csc", true, false, 2},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        lam_embeddings *e = read_golden("matrices_0_12.h5ad", cases[i].key, NULL);
        assert_int_equal(e->rows, 3);
        assert_int_equal(e->columns, cases[i].columns);
        assert_int_equal(e->was_float32, cases[i].was_float32);
        for (int row = 0; row < 3; row++) {
            for (int k = 0; k < cases[i].columns; k++) {
                double expected = cases[i].boolean ? x[row * 3 + k] != 0 : x[row * 3 + k];
                if (e->values[row * cases[i].columns + k] != expected)
                    fail_msg("%s, row %d, column %d", cases[i].key, row, k);
            }
        }
        lam_embeddings_free(e);
    }
    lam_embeddings *e = read_golden("matrices_0_12.h5ad", "none", NULL);
    for (int i = 0; i < 9; i++) assert_true(e->values[i] == 0);
    lam_embeddings_free(e);
    e = read_golden("matrices_0_12.h5ad", "csr_int64", "f2");
    assert_true(e->columns == 1 && e->values[0] == 2);
    lam_embeddings_free(e);
    expect_refused("matrices_0_12.h5ad", "cube", LAM_ERROR_FORMAT, "'obsm/cube' has 3 dimensions");
    expect_refused("matrices_0_12.h5ad", "awkward", LAM_ERROR_FORMAT, "but awkward-array");
}

static void a_frame_as_matrix(void **state) {
    (void)state;
    static const double frame[18] = {1,   1,   1,    1,   1, 0.1f, 2,  2, 0,
                                     NAN, NAN, 0.2f, NAN, 3, 1,    -3, 0, INFINITY};
    char *text = NULL;
    lam_embeddings *e = read_and_listen("matrices_0_12.h5ad", "frame", &text);
    assert_int_equal(e->columns, 6); /* u, v, b, n, m, e */
    for (int i = 0; i < 18; i++) {
        if (!(e->values[i] == frame[i] || (isnan(e->values[i]) && isnan(frame[i]))))
            fail_msg("element %d", i);
    }
    assert_non_null(strstr(text, "columns of obsm/frame left out, of a kind that is not read: 'word' (text), "
                                 "'kind' (categorical)\n"));
    lam_free(text);
    lam_embeddings_free(e);
    lam_log_set_silent(true);
    e = read_golden("matrices_0_12.h5ad", "frame", "[vn]");
    lam_log_set_silent(false);
    assert_int_equal(e->columns, 2);
    assert_true(e->values[4] == 3 && e->values[5] == -3);
    lam_embeddings_free(e);
    expect_refused("matrices_0_12.h5ad", "words", LAM_ERROR_INPUT, "'obsm/words' has no column of numbers");
}

static void packed(void **state) {
    (void)state;
    /* Sums of the columns, and of the columns times row times (column + 1), by NumPy. */
    static const double sums[8] = {346, 478, 445, 465, 683, 480, 377, 440};
    static const double moments[8] = {11927, 38184, 53049, 67408, 161270, 118506, 104440, 111048};
    static const char *const keys[] = {"X", "lzf_shuffle", "gzip", "zstd"};
    for (int i = 0; i < 4; i++) {
        lam_embeddings *e = read_golden("packed_0_12.h5ad", keys[i], NULL);
        assert_true(e->rows == 96 && e->columns == 8 && e->was_float32);
        for (int k = 0; k < 8; k++) {
            double sum = 0, moment = 0;
            for (int row = 0; row < 96; row++) {
                sum += e->values[row * 8 + k];
                moment += e->values[row * 8 + k] * row * (k + 1);
            }
            if (sum != sums[k] || moment != moments[k]) fail_msg("%s, column %d", keys[i], k);
        }
        assert_string_equal(e->index[95], "95");
        lam_embeddings_free(e);
    }
    /* Whole streams are read (and then do not fit obs); the others are not, and nothing is read beyond them. */
    static const char *const whole[] = {"lzf_good", "lzf_run", "zstd_good"};
    static const char *const damaged[] = {"lzf_short",    "lzf_long",       "lzf_open",     "lzf_back",
                                          "lzf_run_long", "lzf_cut_length", "lzf_cut_back", "zstd_short",
                                          "zstd_long",    "zstd_noise"};
    for (size_t i = 0; i < sizeof whole / sizeof whole[0]; i++)
        expect_refused("packed_0_12.h5ad", whole[i], LAM_ERROR_FORMAT, "obs has 96 rows, the matrix 4");
    for (size_t i = 0; i < sizeof damaged / sizeof damaged[0]; i++)
        expect_refused("packed_0_12.h5ad", damaged[i], LAM_ERROR_FORMAT, "the file is damaged or cut short");
    /* Filters of others, and ours behind one that changes the length of a chunk. */
    expect_refused("packed_0_12.h5ad", "blosc", LAM_ERROR_INPUT, "filter that is not known (32001 blosc)");
    expect_refused("packed_0_12.h5ad", "scaled", LAM_ERROR_INPUT, "filter that is not known (32000 lzf)");
}

/* Columns that no text can be made of, by hand into a file of anndata: named once, the others read. */
static void odd_columns(void **state) {
    (void)state;
    static const char left_out[] =
        "'wide' (2 dimensions), 'dates' (opaque, such as dates of NumPy), 'levels' (an enumeration), 'lists' (lists), "
        "'links' (references), 'pair' (compound or complex), 'awkward' (awkward-array), 'plain group' (a group), ";
    char *text = NULL, expected[600];
    lam_embeddings *e = read_and_listen("odd_columns.h5ad", NULL, &text);
    assert_int_equal(lam_table_columns(e->obs), 2);
    assert_string_equal(lam_table_cell(e->obs, 1, 0), "2");
    assert_string_equal(lam_table_cell(e->obs, 1, 1), "yz");
    snprintf(expected, sizeof expected,
             "columns of obs left out, of a kind that is not read: %s'kinds' (2 dimensions)\n", left_out);
    if (strstr(text, expected) == NULL) fail_msg("'%s' lacks '%s'", text, expected);
    lam_free(text);
    lam_embeddings_free(e);
    e = read_and_listen("odd_columns.h5ad", "frame", &text);
    assert_true(e->columns == 1 && e->values[1] == 2);
    snprintf(expected, sizeof expected,
             "columns of obsm/frame left out, of a kind that is not read: %s'kinds' (categorical), "
             "'numbers as bytes' (text)\n",
             left_out);
    if (strstr(text, expected) == NULL) fail_msg("'%s' lacks '%s'", text, expected);
    lam_free(text);
    lam_embeddings_free(e);
    expect_refused("odd_index.h5ad", NULL, LAM_ERROR_FORMAT,
                   "the index 'when' of obs is of a kind that is not read");
}

static void every_fault(void **state) {
    (void)state;
    static const lam_status expected[] = {LAM_ERROR_MEMORY, LAM_ERROR_IO};
    static const char *const files[][2] = {{"columns_0_12.h5ad", NULL},
                                           {"columns_0_7.h5ad", NULL},
                                           {"matrices_0_12.h5ad", "frame"},
                                           {"matrices_0_12.h5ad", "csc_bool"},
                                           {"packed_0_12.h5ad", "zstd"}};
    lam_log_set_silent(true);
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        for (int kind = 0; kind < LAM_FAULT_WRITE; kind++) {
            for (int64_t n = 1;; n++) {
                lam_embeddings *e = NULL;
                lam_fault_arm((lam_fault_kind)kind, n);
                lam_status status = lam_embeddings_read(&e, golden(files[i][0]), files[i][1], NULL);
                lam_fault_arm((lam_fault_kind)kind, 0);
                if (status == LAM_OK) {
                    assert_true(n > 1);
                    lam_embeddings_free(e);
                    break;
                }
                assert_null(e);
                if (status != expected[kind])
                    fail_msg("%s, kind %d, n %d: %s", files[i][0], kind, (int)n, lam_last_error());
            }
        }
    }
    lam_log_set_silent(false);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(columns), cmocka_unit_test(matrices),    cmocka_unit_test(a_frame_as_matrix),
        cmocka_unit_test(packed),  cmocka_unit_test(odd_columns), cmocka_unit_test(every_fault),
    };
    snprintf(log_path, sizeof log_path, "/tmp/lamella-h5ad-%ld.log", (long)getpid());
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(log_path);
    return failed;
}
