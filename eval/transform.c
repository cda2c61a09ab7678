#include "eval/transform.h"

#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/safetensors.h"
#include "base/threads.h"
#include "eval/linalg.h"

#define BLOCK_ROWS 256
#define FORMAT "lamella-transform-1"
#define MAX_COUNT ((int64_t)1 << 24) /* of columns or batches in a file: products of two stay far from 2^63 */
enum { PARTS = 8 };

/* Every array with its name and shape. */
typedef struct part {
    const char *name;
    double **values;
    int rank;
    int64_t shape[3];
} part;

static void list_parts(lam_transform *t, part parts[PARTS]) {
    int64_t c = t->columns, k = t->components, b = t->batches;
    const part all[PARTS] = {{"center", &t->center, 2, {b, c}},
                             {"mean", &t->mean, 1, {c}},
                             {"scale", &t->scale, 1, {c}},
                             {"rotation_mean", &t->rotation_mean, 1, {c}},
                             {"rotation", &t->rotation, 2, {k, c}},
                             {"batch_mean", &t->batch_mean, 2, {b, k}},
                             {"batch_scale", &t->batch_scale, 2, {b, k}},
                             {"batch_matrix", &t->batch_matrix, 3, {b, k, k}}};
    memcpy(parts, all, sizeof all);
}

void lam_transform_free(lam_transform *t) {
    part parts[PARTS];
    list_parts(t, parts);
    for (int i = 0; i < PARTS; i++) lam_free(*parts[i].values);
    memset(t, 0, sizeof *t);
}

bool lam_transform_by_batch(const lam_transform *t) {
    return t->batches > 1 && (t->center || t->batch_mean || t->batch_matrix);
}

/* ---- apply ---- */

/* One block: `n` rows of batch b, whose numbers are listed. The result goes to the front of each row's own place. a, c: [BLOCK_ROWS,
 * columns]. */
static void apply_block(const lam_transform *t, double *x, const int64_t *list, int64_t n, int64_t b,
                        double *a, double *c) {
    int64_t d = t->columns, k = t->components;
    const double *center = t->center ? t->center + b * d : NULL;
    for (int64_t i = 0; i < n; i++) {
        const double *from = x + list[i] * d;
        double *to = a + i * d;
        for (int64_t j = 0; j < d; j++) to[j] = from[j] - (center ? center[j] : 0);
        for (int64_t j = 0; t->mean && j < d; j++) to[j] = (to[j] - t->mean[j]) / t->scale[j];
        for (int64_t j = 0; t->rotation && j < d; j++) to[j] -= t->rotation_mean[j];
    }
    if (t->rotation) {
        lam_gemm_f64(false, true, n, k, d, a, d, t->rotation, d, 0.0, c, k);
        double *swap = a;
        a = c, c = swap;
    }
    for (int64_t i = 0; t->batch_mean && i < n; i++)
        for (int64_t j = 0; j < k; j++)
            a[i * k + j] = (a[i * k + j] - t->batch_mean[b * k + j]) / t->batch_scale[b * k + j];
    if (t->batch_matrix) {
        lam_gemm_f64(false, false, n, k, k, a, k, t->batch_matrix + b * k * k, k, 0.0, c, k);
        a = c;
    }
    for (int64_t i = 0; i < n; i++) memcpy(x + list[i] * d, a + i * k, (size_t)k * sizeof *a);
}

/* Rows are taken batch by batch in blocks that depend on nothing but the rows, each block by one thread (a BLAS call inside a
 * parallel region is serial): the same bits on any number of threads. */
lam_status lam_transform_apply(const lam_transform *t, double *x, int64_t rows, const int64_t *batch) {
    if (!lam_transform_by_batch(t)) batch = NULL; /* the same blocks whether batches are named or not */
    int64_t d = t->columns, k = t->components, batches = batch ? t->batches : 1, blocks = 0;
    int64_t *start = NULL, *order = NULL, *block_at = NULL;
    double *space = NULL;
    lam_status status = LAM_OK;
    int threads = lam_threads();
    LAM_REQUIRE(batch || !lam_transform_by_batch(t), LAM_ERROR_INTERNAL,
                "a transform of batches needs the rows' batches");
    LAM_TRY_GOTO(lam_alloc_array((void **)&start, batches + 2, sizeof *start), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&order, rows, sizeof *order), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&block_at, 2 * (rows / BLOCK_ROWS + batches), sizeof *block_at),
                 done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&space, threads * 2 * BLOCK_ROWS * d, sizeof *space), done);
    for (int64_t i = 0; i < rows; i++) start[(batch ? batch[i] : 0) + 2]++;
    for (int64_t b = 0; b < batches; b++) start[b + 2] += start[b + 1];
    for (int64_t i = 0; i < rows; i++) order[start[(batch ? batch[i] : 0) + 1]++] = i;
    for (int64_t b = 0; b < batches; b++)
        for (int64_t i = start[b]; i < start[b + 1]; i += BLOCK_ROWS, blocks++)
            block_at[2 * blocks] = i, block_at[2 * blocks + 1] = b;
#pragma omp parallel num_threads(threads)
    {
        double *mine = space + omp_get_thread_num() * 2 * BLOCK_ROWS * d;
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < blocks; i++) {
            int64_t b = block_at[2 * i + 1], from = block_at[2 * i],
                    n = start[b + 1] - from < BLOCK_ROWS ? start[b + 1] - from : BLOCK_ROWS;
            apply_block(t, x, order + from, n, b, mine, mine + BLOCK_ROWS * d);
        }
    }
    for (int64_t i = 1; k < d && i < rows; i++) memmove(x + i * k, x + i * d, (size_t)k * sizeof *x);
done:
    lam_free(start);
    lam_free(order);
    lam_free(block_at);
    lam_free(space);
    return status;
}

/* ---- files ---- */

static lam_status names_text(const lam_transform *t, const lam_transform_notes *notes, char **text) {
    lam_json *array = lam_json_array();
    for (int64_t b = 0; notes->batch_names && b < t->batches; b++)
        lam_json_append_text(array, notes->batch_names[b]);
    lam_status status = lam_json_dump(array, false, text);
    lam_json_free(array);
    return status;
}

lam_status lam_transform_save(const lam_transform *transform, const char *path,
                              const lam_transform_notes *notes) {
    lam_transform t = *transform;
    part parts[PARTS];
    list_parts(&t, parts);
    char columns[24], components[24], *names = NULL;
    lam_safetensors_writer *writer = NULL;
    lam_status status = LAM_OK;
    snprintf(columns, sizeof columns, "%lld", (long long)t.columns);
    snprintf(components, sizeof components, "%lld", (long long)t.components);
    LAM_TRY_GOTO(names_text(&t, notes, &names), done);
    const char *const texts[][2] = {{"format", FORMAT},
                                    {"align", notes->align},
                                    {"columns", columns},
                                    {"components", components},
                                    {"settings", notes->settings},
                                    {"batches", names},
                                    {"provenance", notes->provenance}};
    LAM_TRY_GOTO(lam_safetensors_writer_open(&writer, path), done);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        LAM_TRY_GOTO(lam_safetensors_writer_metadata(writer, texts[i][0], texts[i][1]), done);
    for (int i = 0; i < PARTS; i++)
        if (*parts[i].values)
            LAM_TRY_GOTO(
                lam_safetensors_writer_declare(writer, parts[i].name, "F64", parts[i].rank, parts[i].shape),
                done);
    for (int i = 0; i < PARTS; i++) {
        size_t bytes = sizeof(double);
        for (int r = 0; r < parts[i].rank; r++) bytes *= (size_t)parts[i].shape[r];
        if (*parts[i].values)
            LAM_TRY_GOTO(lam_safetensors_writer_data(writer, *parts[i].values, bytes), done);
    }
    status = lam_safetensors_writer_commit(&writer);
done:
    lam_safetensors_writer_abort(&writer);
    lam_free(names);
    return status;
}

void lam_transform_notes_free(lam_transform_notes *notes) {
    lam_free(notes->align);
    lam_free(notes->settings);
    lam_free(notes->provenance);
    lam_free((void *)(uintptr_t)notes->batch_names);
    lam_json_free(notes->names);
    memset(notes, 0, sizeof *notes);
}

static lam_status read_note(lam_safetensors *file, const char *path, const char *key, const char **text) {
    *text = lam_safetensors_metadata(file, key);
    LAM_REQUIRE(*text, LAM_ERROR_FORMAT,
                "%s: no metadata '%s': not a transform of lamella map --save-transform", path, key);
    return LAM_OK;
}

static lam_status read_count(lam_safetensors *file, const char *path, const char *key, int64_t *count) {
    const char *text;
    char *end;
    LAM_TRY(read_note(file, path, key, &text));
    *count = strtoll(text, &end, 10);
    LAM_REQUIRE(*text && !*end && *count > 0 && *count <= MAX_COUNT, LAM_ERROR_FORMAT, "%s: %s is '%s'", path,
                key, text);
    return LAM_OK;
}

static lam_status read_names(lam_safetensors *file, const char *path, lam_transform *t,
                             lam_transform_notes *notes) {
    const char *text, **names;
    LAM_TRY(read_note(file, path, "batches", &text));
    LAM_TRY(lam_json_parse(&notes->names, text, strlen(text), path));
    int64_t count = (int64_t)lam_json_size(notes->names);
    LAM_REQUIRE(lam_json_is_array(notes->names) && count <= MAX_COUNT, LAM_ERROR_FORMAT,
                "%s: metadata 'batches' is no list of names", path);
    t->batches = count ? count : 1;
    if (!count) return LAM_OK;
    LAM_TRY(lam_alloc_array((void **)&names, count, sizeof *names));
    notes->batch_names = names;
    for (int64_t b = 0; b < count; b++) {
        names[b] = lam_json_text(lam_json_at(notes->names, (size_t)b), NULL);
        LAM_REQUIRE(names[b], LAM_ERROR_FORMAT, "%s: metadata 'batches' is no list of names", path);
    }
    return LAM_OK;
}

static lam_status read_part(lam_safetensors *file, const char *path, const part *p) {
    const lam_safetensors_entry *entry = lam_safetensors_find(file, p->name);
    if (!entry) return LAM_OK;
    bool fits = entry->rank == p->rank;
    for (int r = 0; fits && r < p->rank; r++) fits = entry->shape[r] == p->shape[r];
    LAM_REQUIRE(fits, LAM_ERROR_FORMAT,
                "%s: '%s' has another shape than the file's columns, components and batches say", path,
                p->name);
    LAM_TRY(lam_alloc_array((void **)p->values, entry->count, sizeof(double)));
    LAM_TRY(lam_safetensors_read_f64(file, entry, *p->values));
    bool divisor = strstr(p->name, "scale") != NULL;
    for (int64_t i = 0; i < entry->count; i++)
        LAM_REQUIRE(isfinite((*p->values)[i]) && (!divisor || (*p->values)[i] > 0), LAM_ERROR_FORMAT,
                    "%s: '%s' holds the value %g", path, p->name, (*p->values)[i]);
    return LAM_OK;
}

lam_status lam_transform_read(lam_transform *t, lam_transform_notes *notes, const char *path) {
    lam_safetensors *file = NULL;
    const char *format, *texts[3];
    part parts[PARTS];
    lam_status status = LAM_OK;
    memset(t, 0, sizeof *t);
    memset(notes, 0, sizeof *notes);
    LAM_TRY_GOTO(lam_safetensors_open(&file, path), done);
    LAM_TRY_GOTO(read_note(file, path, "format", &format), done);
    LAM_REQUIRE_GOTO(!strcmp(format, FORMAT), done, LAM_ERROR_FORMAT, "%s: format '%s', %s is read here",
                     path, format, FORMAT);
    LAM_TRY_GOTO(read_note(file, path, "align", &texts[0]), done);
    LAM_TRY_GOTO(read_note(file, path, "settings", &texts[1]), done);
    LAM_TRY_GOTO(read_note(file, path, "provenance", &texts[2]), done);
    LAM_TRY_GOTO(lam_text_copy(&notes->align, texts[0]), done);
    LAM_TRY_GOTO(lam_text_copy(&notes->settings, texts[1]), done);
    LAM_TRY_GOTO(lam_text_copy(&notes->provenance, texts[2]), done);
    LAM_TRY_GOTO(read_count(file, path, "columns", &t->columns), done);
    LAM_TRY_GOTO(read_count(file, path, "components", &t->components), done);
    LAM_TRY_GOTO(read_names(file, path, t, notes), done);
    list_parts(t, parts);
    for (int i = 0; i < PARTS; i++) LAM_TRY_GOTO(read_part(file, path, &parts[i]), done);
    LAM_REQUIRE_GOTO(!t->mean == !t->scale && !t->rotation == !t->rotation_mean &&
                         !t->batch_mean == !t->batch_scale && (t->rotation || t->components == t->columns),
                     done, LAM_ERROR_FORMAT, "%s: an array of the transform is missing", path);
done:
    lam_safetensors_close(file);
    if (status != LAM_OK) {
        lam_transform_free(t);
        lam_transform_notes_free(notes);
    }
    return status;
}
