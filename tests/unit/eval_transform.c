/* Alignments that are saved and applied: the same bits as at once, on any rows; files that are damaged. */
#include "eval/transform.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/fault.h"
#include "base/memory.h"
#include "base/safetensors.h"
#include "base/threads.h"
#include "eval/align.h"

enum { ROWS = 600, COLUMNS = 21, BATCHES = 3 };

static const char *const names[BATCHES] = {"p1", "p2", "p \"3\""};
static char path[] = "/tmp/lamella_transform_XXXXXX";
static uint32_t generator;
static double u(void) {
    generator = 1664525u * generator + 1013904223u;
    return (double)generator / 4294967296.0;
}
static double x[ROWS * COLUMNS], y[ROWS * COLUMNS], z[ROWS * COLUMNS];
static int64_t batch[ROWS];
static bool controls[ROWS];

static int enter(void **state) {
    (void)state;
    int file = mkstemp(path);
    if (file >= 0) close(file);
    return file < 0;
}

static int leave(void **state) {
    (void)state;
    return unlink(path);
}

static void make(void) {
    generator = 7;
    for (int i = 0; i < ROWS; i++) {
        batch[i] = (i * 7 + i / 50) % BATCHES;
        controls[i] = i % 4 == 0;
        for (int j = 0; j < COLUMNS; j++) x[i * COLUMNS + j] = u() * (j + 1) + (double)batch[i];
    }
}

static lam_status write_file(const lam_transform *t) {
    char align[] = "tvn", settings[] = "{}", provenance[] = "{\"command\": \"x\"}";
    const lam_transform_notes notes = {align, settings, provenance, names, NULL};
    return lam_transform_save(t, path, &notes);
}

static void saved_is_applied(void **state) {
    (void)state;
    static const lam_alignment cases[] = {
        {.method = LAM_ALIGN_CENTER},
        {.method = LAM_ALIGN_CENTERSCALE},
        {.method = LAM_ALIGN_PCA_CS, .components = 5, .batch_center = true},
        {.method = LAM_ALIGN_TVN, .variance = 0.9, .batch_center = true},
        {.method = LAM_ALIGN_TVN, .shrinkage = true},
        {.method = LAM_ALIGN_SPHERIZE, .regularization = 1},
        {.method = LAM_ALIGN_SPHERIZE, .batch_center = true},
    };
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        lam_alignment how = cases[c];
        lam_transform fitted, read;
        lam_transform_notes notes;
        int64_t columns = COLUMNS;
        make();
        memcpy(y, x, sizeof x);
        memcpy(z, x, sizeof x);
        how.controls = controls, how.batch = batch, how.batches = BATCHES;
        lam_threads_set(1);
        assert_int_equal(lam_align(&how, x, ROWS, &columns, &fitted), LAM_OK);
        assert_int_equal(write_file(&fitted), LAM_OK);
        if (lam_transform_read(&read, &notes, path) != LAM_OK) fail_msg("%s", lam_last_error());
        assert_int_equal(read.columns, COLUMNS);
        assert_int_equal(read.components, columns);
        assert_int_equal(read.batches, BATCHES);
        assert_string_equal(notes.align, "tvn");
        assert_string_equal(notes.batch_names[2], names[2]);
        lam_threads_set(2);
        assert_int_equal(lam_transform_apply(&read, y, ROWS, batch), LAM_OK);
        assert_memory_equal(x, y, (size_t)(ROWS * columns) * sizeof *x);
        /* Row 5 by itself: the arrays as the header says. */
        double row[COLUMNS], turned[COLUMNS], out[COLUMNS];
        int64_t b = batch[5];
        for (int j = 0; j < COLUMNS; j++) {
            row[j] = z[5 * COLUMNS + j] - (read.center ? read.center[b * COLUMNS + j] : 0);
            if (read.mean) row[j] = (row[j] - read.mean[j]) / read.scale[j];
        }
        for (int64_t k = 0; k < columns; k++) {
            turned[k] = read.rotation ? 0 : row[k];
            for (int j = 0; read.rotation && j < COLUMNS; j++)
                turned[k] += (row[j] - read.rotation_mean[j]) * read.rotation[k * COLUMNS + j];
            if (read.batch_mean)
                turned[k] =
                    (turned[k] - read.batch_mean[b * columns + k]) / read.batch_scale[b * columns + k];
        }
        for (int64_t k = 0; k < columns; k++) {
            out[k] = read.batch_matrix ? 0 : turned[k];
            for (int64_t j = 0; read.batch_matrix && j < columns; j++)
                out[k] += turned[j] * read.batch_matrix[(b * columns + j) * columns + k];
            assert_true(fabs(out[k] - x[5 * columns + k]) < 1e-12 * (1 + fabs(out[k])));
        }
        assert_int_equal(lam_transform_by_batch(&read), c < 5 || c == 6);
        lam_transform_free(&fitted);
        lam_transform_free(&read);
        lam_transform_notes_free(&notes);
    }
}

/* A file with one thing wrong is LAM_ERROR_FORMAT, with a line that names it. */
static void damaged(void **state) {
    (void)state;
    static const char *const keys[] = {"format",   "columns", "components", "align",
                                       "settings", "batches", "provenance"};
    static const struct {
        int key; /* that is replaced; -1: none */
        const char *value;
        const char *tensor; /* that is written, of shape [2] */
        double number;
        const char *message;
    } cases[] = {
        {-1, NULL, "mean", 1, "array of the transform is missing"},
        {0, NULL, "mean", 1, "no metadata 'format'"},
        {0, "lamella-transform-9", "mean", 1, "lamella-transform-9"},
        {1, "3", "mean", 1, "another shape"},
        {1, "0", "mean", 1, "columns is '0'"},
        {1, "2x", "mean", 1, "columns is '2x'"},
        {2, "99999999999999", "mean", 1, "components is"},
        {2, "1", "center", 1, "another shape"},
        {3, NULL, "mean", 1, "no metadata 'align'"},
        {5, "{}", "mean", 1, "no list of names"},
        {5, "[1]", "mean", 1, "no list of names"},
        {5, "[", "mean", 1, "JSON"},
        {-1, NULL, "scale", 0, "'scale' holds the value 0"},
        {-1, NULL, "mean", (double)INFINITY, "'mean' holds the value inf"},
    };
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        const char *values[] = {"lamella-transform-1", "2", "2", "tvn", "{}", "[]", "{}"};
        lam_safetensors_writer *writer;
        lam_transform t;
        lam_transform_notes notes;
        int64_t shape[1] = {2};
        double data[2] = {1, cases[c].number};
        if (cases[c].key >= 0) values[cases[c].key] = cases[c].value;
        assert_int_equal(lam_safetensors_writer_open(&writer, path), LAM_OK);
        for (int k = 0; k < 7; k++)
            if (values[k])
                assert_int_equal(lam_safetensors_writer_metadata(writer, keys[k], values[k]), LAM_OK);
        assert_int_equal(lam_safetensors_writer_declare(writer, cases[c].tensor, "F64", 1, shape), LAM_OK);
        assert_int_equal(lam_safetensors_writer_data(writer, data, sizeof data), LAM_OK);
        assert_int_equal(lam_safetensors_writer_commit(&writer), LAM_OK);
        assert_int_not_equal(lam_transform_read(&t, &notes, path), LAM_OK);
        if (!strstr(lam_last_error(), cases[c].message)) fail_msg("case %d: %s", (int)c, lam_last_error());
        assert_null(t.mean);
        assert_null(notes.align);
    }
    make();
    lam_alignment how = {.method = LAM_ALIGN_TVN, .controls = controls, .batch = batch, .batches = BATCHES};
    lam_transform fitted, read;
    lam_transform_notes notes;
    assert_int_equal(lam_align_fit(&how, x, ROWS, COLUMNS, &fitted), LAM_OK);
    assert_int_equal(lam_transform_apply(&fitted, x, ROWS, NULL), LAM_ERROR_INTERNAL); /* whose batches? */
    assert_int_equal(write_file(&fitted), LAM_OK);
    for (int kind = LAM_FAULT_ALLOC; kind <= LAM_FAULT_READ; kind++)
        for (int64_t n = 1; n < 60; n++) {
            lam_fault_arm((lam_fault_kind)kind, n);
            lam_status status = lam_transform_read(&read, &notes, path);
            lam_fault_arm((lam_fault_kind)kind, 0);
            if (status != LAM_OK) continue;
            lam_transform_free(&read);
            lam_transform_notes_free(&notes);
        }
    for (int64_t n = 1; n < 60; n++) {
        lam_fault_arm(LAM_FAULT_ALLOC, n);
        lam_status status = lam_align_fit(&how, x, ROWS, COLUMNS, &read);
        lam_fault_arm(LAM_FAULT_ALLOC, 0);
        assert_true(status == LAM_OK || status == LAM_ERROR_MEMORY);
        lam_transform_free(&read);
    }
    lam_transform_free(&fitted);
    assert_int_equal(truncate(path, 100), 0);
    assert_int_equal(lam_transform_read(&read, &notes, path), LAM_ERROR_FORMAT);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(saved_is_applied), cmocka_unit_test(damaged)};
    return cmocka_run_group_tests(tests, enter, leave);
}
