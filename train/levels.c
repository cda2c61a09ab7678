#include "train/levels.h"

#include <inttypes.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/memory.h"

static lam_status allocate(lam_rows *rows, int64_t count, int64_t width) {
    rows->count = count;
    rows->width = width;
    LAM_TRY(lam_alloc_array((void **)&rows->index, count, sizeof(char *)));
    return lam_alloc_array((void **)&rows->values, count * width, sizeof(double));
}

void lam_rows_free(lam_rows *rows) {
    for (int64_t i = 0; rows->index && i < rows->count; i++) lam_free(rows->index[i]);
    lam_free(rows->index);
    lam_free(rows->values);
    lam_table_free(rows->obs);
    memset(rows, 0, sizeof *rows);
}

static lam_status add_numbers(lam_table *table, const char *name, const lam_crop *crops, int64_t count,
                              size_t field) {
    enum { DIGITS = 24 };
    char *texts = NULL, **cells = NULL;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_alloc_array((void **)&texts, count, DIGITS), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&cells, count, sizeof(char *)), done);
    for (int64_t i = 0; i < count; i++) {
        int64_t value = 0;
        memcpy(&value, (const char *)&crops[i] + field, sizeof value);
        cells[i] = texts + i * DIGITS;
        snprintf(cells[i], DIGITS, "%" PRId64, value);
    }
    LAM_TRY_GOTO(lam_table_add(table, name, (const char *const *)cells), done);
done:
    lam_free(texts);
    lam_free(cells);
    return status;
}

static lam_status by_crop(lam_rows *rows, const lam_shards *shards, const lam_crop *crops, int64_t count,
                          const float *vectors, int64_t width) {
    int64_t *images = NULL;
    LAM_TRY(allocate(rows, count, width));
    for (int64_t i = 0; i < count * width; i++) rows->values[i] = (double)vectors[i];
    LAM_TRY(lam_alloc_array((void **)&images, count, sizeof(int64_t)));
    for (int64_t i = 0; i < count; i++) images[i] = crops[i].image;
    lam_status status = lam_table_select(lam_shards_metadata(shards), images, count, &rows->obs);
    lam_free(images);
    LAM_TRY(status);
    for (int64_t i = 0; i < count; i++)
        LAM_TRY(lam_text_format(&rows->index[i], "%" PRId64 ":%" PRId64 ":%" PRId64, crops[i].image,
                                crops[i].y, crops[i].x));
    LAM_TRY(add_numbers(rows->obs, "crop_image", crops, count, offsetof(lam_crop, image)));
    LAM_TRY(add_numbers(rows->obs, "crop_y", crops, count, offsetof(lam_crop, y)));
    return add_numbers(rows->obs, "crop_x", crops, count, offsetof(lam_crop, x));
}

static void divide(double *row, int64_t width, int64_t by) {
    for (int64_t d = 0; d < width; d++) row[d] /= (double)by;
}

/* Crops come in image order, every image has one at least. */
static lam_status by_image(lam_rows *rows, const lam_shards *shards, const lam_crop *crops, int64_t count,
                           const float *vectors, int64_t width) {
    int64_t images = lam_shards_images(shards), *all = NULL, in_image = 0;
    LAM_TRY(allocate(rows, images, width));
    for (int64_t i = 0; i < count; i++) {
        double *row = rows->values + crops[i].image * width;
        for (int64_t d = 0; d < width; d++) row[d] += (double)vectors[i * width + d];
        in_image++;
        if (i + 1 < count && crops[i + 1].image == crops[i].image) continue;
        divide(row, width, in_image);
        in_image = 0;
    }
    LAM_TRY(lam_alloc_array((void **)&all, images, sizeof(int64_t)));
    for (int64_t i = 0; i < images; i++) all[i] = i;
    lam_status status = lam_table_select(lam_shards_metadata(shards), all, images, &rows->obs);
    lam_free(all);
    LAM_TRY(status);
    for (int64_t i = 0; i < images; i++) LAM_TRY(lam_text_format(&rows->index[i], "%" PRId64, i));
    return LAM_OK;
}

/* ---- wells ---- */

static int any_column(const lam_table *table, const char *const *names, size_t count) {
    for (size_t i = 0; i < count; i++) {
        int column = lam_table_column(table, names[i]);
        if (column >= 0) return column;
    }
    return -1;
}

typedef struct keyed {
    const char *plate, *well;
    int64_t image;
} keyed;

static int compare_wells(const void *a, const void *b) {
    const keyed *x = a, *y = b;
    int order = strcmp(x->plate, y->plate);
    return order ? order : strcmp(x->well, y->well);
}

static int compare_keys(const void *a, const void *b) {
    const keyed *x = a, *y = b;
    int order = compare_wells(a, b);
    return order ? order : (x->image > y->image) - (x->image < y->image);
}

static int well_column(const lam_table *table) {
    static const char *const wells[] = {"well", "Well", "Metadata_Well"};
    return any_column(table, wells, sizeof wells / sizeof wells[0]);
}

lam_status lam_level_check(lam_level level, const lam_shards *shards) {
    LAM_REQUIRE(level != LAM_LEVEL_WELL || well_column(lam_shards_metadata(shards)) >= 0, LAM_ERROR_INPUT,
                "--level well: %s has no column well; take --level image and lamella map --by",
                lam_shards_path(shards));
    return LAM_OK;
}

static void sort_by_well(const lam_table *table, keyed *keys) {
    static const char *const plates[] = {"plate", "Plate", "Metadata_Plate", "batch"};
    int plate = any_column(table, plates, sizeof plates / sizeof plates[0]), well = well_column(table);
    int64_t images = lam_table_rows(table);
    for (int64_t i = 0; i < images; i++)
        keys[i] =
            (keyed){plate >= 0 ? lam_table_cell(table, i, plate) : "", lam_table_cell(table, i, well), i};
    qsort(keys, (size_t)images, sizeof *keys, compare_keys);
}

static bool constant_in_wells(const lam_table *table, int column, const keyed *keys, int64_t images) {
    for (int64_t i = 1; i < images; i++) {
        if (compare_wells(&keys[i - 1], &keys[i]) != 0) continue;
        if (strcmp(lam_table_cell(table, keys[i - 1].image, column),
                   lam_table_cell(table, keys[i].image, column)) != 0)
            return false;
    }
    return true;
}

static lam_status well_columns(lam_rows *rows, const lam_table *table, const keyed *keys, int64_t images,
                               const int64_t *first) {
    const char **cells = NULL;
    LAM_TRY(lam_alloc_array((void **)&cells, rows->count, sizeof(char *)));
    lam_status status = lam_table_create(&rows->obs, rows->count);
    for (int c = 0; c < lam_table_columns(table) && status == LAM_OK; c++) {
        if (!constant_in_wells(table, c, keys, images)) continue;
        for (int64_t i = 0; i < rows->count; i++) cells[i] = lam_table_cell(table, first[i], c);
        status = lam_table_add(rows->obs, lam_table_name(table, c), cells);
    }
    lam_free(cells);
    return status;
}

static lam_status pool_wells(lam_rows *rows, const lam_table *table, const double *values, int64_t width,
                             const keyed *keys, int64_t *first) {
    int64_t images = lam_table_rows(table), wells = 0, begin = 0;
    for (int64_t i = 0; i < images; i++) wells += i == 0 || compare_wells(&keys[i - 1], &keys[i]) != 0;
    LAM_TRY(allocate(rows, wells, width));
    for (int64_t w = 0; w < wells; w++) {
        int64_t end = begin;
        double *row = rows->values + w * width;
        int64_t whole = 0; /* images without damage */
        for (; end < images && compare_wells(&keys[begin], &keys[end]) == 0; end++) {
            const double *image = values + keys[end].image * width;
            if (!isfinite(image[0])) continue;
            for (int64_t d = 0; d < width; d++) row[d] += image[d];
            whole++;
        }
        divide(row, width, whole); /* none: NaN */
        first[w] = keys[begin].image;
        LAM_TRY(lam_text_format(&rows->index[w], "%s%s%s", keys[begin].plate, keys[begin].plate[0] ? "|" : "",
                                keys[begin].well));
        begin = end;
    }
    return well_columns(rows, table, keys, images, first);
}

static lam_status by_well(lam_rows *rows, const lam_shards *shards, const double *values, int64_t width) {
    const lam_table *table = lam_shards_metadata(shards);
    keyed *keys = NULL;
    int64_t *first = NULL;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_alloc_array((void **)&keys, lam_table_rows(table), sizeof *keys), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&first, lam_table_rows(table), sizeof *first), done);
    sort_by_well(table, keys);
    LAM_TRY_GOTO(pool_wells(rows, table, values, width, keys, first), done);
done:
    lam_free(keys);
    lam_free(first);
    return status;
}

/* Rows without a vector, as damaged images have them, go. */
static lam_status drop_empty(lam_rows *rows, const char *path) {
    int64_t *kept = NULL, count = 0;
    lam_table *obs = NULL;
    LAM_TRY(lam_alloc_array((void **)&kept, rows->count, sizeof *kept));
    for (int64_t i = 0; i < rows->count; i++)
        if (isfinite(rows->values[i * rows->width])) kept[count++] = i;
    lam_status status = LAM_OK;
    if (count == rows->count) goto done;
    LAM_REQUIRE_GOTO(count, done, LAM_ERROR_INPUT,
                     "%s: no image gives a vector: all are damaged or not finite", path);
    lam_log_warning("%s: %" PRId64 " of %" PRId64 " rows are left out, damaged or not finite", path,
                    rows->count - count, rows->count);
    LAM_TRY_GOTO(lam_table_select(rows->obs, kept, count, &obs), done);
    lam_table_free(rows->obs);
    rows->obs = obs;
    for (int64_t i = 0, k = 0; i < rows->count; i++) {
        if (k == count || kept[k] != i) {
            lam_free(rows->index[i]);
            continue;
        }
        rows->index[k] = rows->index[i];
        memmove(rows->values + k * rows->width, rows->values + i * rows->width,
                (size_t)rows->width * sizeof *rows->values);
        k++;
    }
    rows->count = count;
done:
    lam_free(kept);
    return status;
}

lam_status lam_rows_create(lam_rows *rows, lam_level level, const lam_shards *shards, const lam_crop *crops,
                           int64_t count, const float *vectors, int64_t width) {
    memset(rows, 0, sizeof *rows);
    LAM_TRY(lam_level_check(level, shards));
    lam_rows images = {0};
    lam_status status = LAM_OK;
    if (level == LAM_LEVEL_CROP) {
        status = by_crop(rows, shards, crops, count, vectors, width);
    } else if (level == LAM_LEVEL_IMAGE) {
        status = by_image(rows, shards, crops, count, vectors, width);
    } else {
        status = by_image(&images, shards, crops, count, vectors, width);
        if (status == LAM_OK) status = by_well(rows, shards, images.values, width);
        lam_rows_free(&images);
    }
    if (status == LAM_OK) status = drop_empty(rows, lam_shards_path(shards));
    if (status != LAM_OK) lam_rows_free(rows);
    return status;
}
