#include "base/embeddings.h"

#include <fnmatch.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/files.h"
#include "base/h5ad.h"
#include "base/memory.h"
#include "base/npy.h"
#include "base/table_store.h"

static bool holds_groups(const char *path) {
    return lam_text_ends_with(path, ".h5ad") || lam_text_ends_with(path, ".h5");
}

void lam_embeddings_free(lam_embeddings *embeddings) {
    if (embeddings == NULL) return;
    lam_free(embeddings->values);
    lam_table_free(embeddings->obs);
    lam_free(embeddings->index); /* one block, lam_texts_pack */
    lam_free(embeddings->provenance);
    lam_free(embeddings);
}

/* Row numbers, as one block. */
static lam_status number_rows(char ***out, int64_t rows, const char *prefix) {
    enum { NAME_BYTES = 32 };
    char *text = NULL;
    const char **names = NULL;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_alloc_array((void **)&text, rows, NAME_BYTES), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&names, rows, sizeof *names), done);
    for (int64_t i = 0; i < rows; i++) {
        snprintf(text + i * NAME_BYTES, NAME_BYTES, "%s%lld", prefix, (long long)i);
        names[i] = text + i * NAME_BYTES;
    }
    LAM_TRY_GOTO(lam_texts_pack(out, names, rows), done);
done:
    lam_free(names);
    lam_free(text);
    return status;
}

static lam_status column_texts(const lam_table *table, int column, const char ***out) {
    LAM_TRY(lam_alloc_array((void **)out, lam_table_rows(table), sizeof **out));
    for (int64_t row = 0; row < lam_table_rows(table); row++)
        (*out)[row] = lam_table_cell(table, row, column);
    return LAM_OK;
}

/* The column that holds the names of the rows: "index", anndata's "_index", or the unnamed first one of
 * pandas. */
static int index_column(const lam_table *table) {
    int column = lam_table_column(table, "index");
    if (column < 0) column = lam_table_column(table, "_index");
    if (column < 0 && lam_table_name(table, 0)[0] == '\0') column = 0;
    return column;
}

/* obs and index of a text table: all columns but the features (`is_feature`, or NULL) and the index. Without
 * an index column the first column of text names the rows, and stays in obs too. */
static lam_status take_metadata(lam_embeddings *out, const lam_table *table, const bool *is_feature) {
    const char **texts = NULL;
    lam_status status = LAM_OK;
    int index = index_column(table), names = index;
    LAM_TRY(lam_table_create(&out->obs, out->rows));
    LAM_TRY(lam_table_store_origin(out->obs, lam_table_path(table), table));
    for (int column = 0; column < lam_table_columns(table); column++) {
        if (column == index || (is_feature != NULL && is_feature[column])) continue;
        LAM_TRY_GOTO(column_texts(table, column, &texts), done);
        LAM_TRY_GOTO(lam_table_add(out->obs, lam_table_name(table, column), texts), done);
        lam_free(texts);
        texts = NULL;
        if (names < 0 && !lam_table_is_numeric(table, column)) names = column;
    }
    if (names < 0) {
        LAM_TRY_GOTO(number_rows(&out->index, out->rows, ""), done);
    } else {
        LAM_TRY_GOTO(column_texts(table, names, &texts), done);
        LAM_TRY_GOTO(lam_texts_pack(&out->index, texts, out->rows), done);
    }
done:
    lam_free(texts);
    return status;
}

/* A number, or what programs write where there is none. */
static bool read_feature(const char *text, double *value) {
    static const char *const gaps[] = {"", "nan", "NaN", "NAN", "NA", "N/A", "null", "None"};
    if (lam_text_is_number(text, value)) return true;
    for (size_t i = 0; i < sizeof gaps / sizeof gaps[0]; i++) {
        if (strcmp(text, gaps[i]) == 0) {
            *value = (double)NAN;
            return true;
        }
    }
    bool negative = text[0] == '-';
    const char *rest = text + (negative || text[0] == '+');
    if (strcasecmp(rest, "inf") != 0 && strcasecmp(rest, "infinity") != 0) return false;
    *value = negative ? -(double)INFINITY : (double)INFINITY;
    return true;
}

static bool is_feature_column(const lam_table *table, int column) {
    bool some = false;
    for (int64_t row = 0; row < lam_table_rows(table); row++) {
        double value;
        if (!read_feature(lam_table_cell(table, row, column), &value)) return false;
        some = some || !isnan(value);
    }
    return some;
}

/* columns[0 .. *count - 1]: the features in order; is_feature marks them. Both have room for every column. */
static lam_status choose_features(const lam_table *table, const char *features, int *columns, int *count,
                                  bool *is_feature) {
    int all = lam_table_columns(table), index = index_column(table);
    *count = 0;
    if (features == NULL && lam_table_column(table, "d0") >= 0) {
        for (int column; *count < all; columns[(*count)++] = column) {
            char name[24];
            snprintf(name, sizeof name, "d%d", *count);
            column = lam_table_column(table, name);
            if (column < 0) break;
        }
    } else {
        for (int column = 0; column < all; column++) {
            const char *name = lam_table_name(table, column);
            bool chosen = features != NULL ? fnmatch(features, name, 0) == 0
                                           : column != index && strncmp(name, "Metadata_", 9) != 0 &&
                                                 is_feature_column(table, column);
            if (chosen) columns[(*count)++] = column;
        }
    }
    for (int i = 0; i < *count; i++) is_feature[columns[i]] = true;
    LAM_REQUIRE(*count > 0 || features == NULL, LAM_ERROR_INPUT,
                "%s: no column matches the features '%s'; columns: "
                "%s, ..., %s",
                lam_table_path(table), features, lam_table_name(table, 0), lam_table_name(table, all - 1));
    LAM_REQUIRE(*count > 0, LAM_ERROR_INPUT,
                "%s: no numeric column to take as a feature; name them with --features",
                lam_table_path(table));
    return LAM_OK;
}

static lam_status read_values(lam_embeddings *out, const lam_table *table, const int *columns) {
    int64_t rows = out->rows, width = out->columns, bad_row = rows;
    LAM_REQUIRE(width == 0 || rows <= INT64_MAX / width, LAM_ERROR_MEMORY, "%s: too many values",
                lam_table_path(table));
    LAM_TRY(lam_alloc_array((void **)&out->values, rows * width, sizeof *out->values));
#pragma omp parallel for schedule(static) reduction(min : bad_row)
    for (int64_t row = 0; row < rows; row++) {
        for (int64_t i = 0; i < width; i++) {
            if (!read_feature(lam_table_cell(table, row, columns[i]), &out->values[row * width + i]) &&
                row < bad_row) {
                bad_row = row;
            }
        }
    }
    for (int64_t i = 0; bad_row < rows && i < width; i++) {
        const char *cell = lam_table_cell(table, bad_row, columns[i]);
        double value;
        LAM_REQUIRE(read_feature(cell, &value), LAM_ERROR_INPUT,
                    "%s:%lld: column '%s': '%.40s' is no number, but the column is a feature; choose the "
                    "features with "
                    "--features",
                    lam_table_path(table), (long long)lam_table_line(table, bad_row),
                    lam_table_name(table, columns[i]), cell);
    }
    return LAM_OK;
}

static lam_status read_text(lam_embeddings *out, const char *path, const char *features) {
    lam_table *table = NULL;
    int *columns = NULL, count = 0;
    bool *is_feature = NULL;
    lam_status status = LAM_OK;
    LAM_TRY(lam_table_read(&table, path));
    int all = lam_table_columns(table);
    LAM_TRY_GOTO(lam_alloc_array((void **)&columns, all, sizeof *columns), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&is_feature, all, sizeof *is_feature), done);
    LAM_REQUIRE_GOTO(lam_table_rows(table) > 0, done, LAM_ERROR_INPUT, "%s: a header and no rows", path);
    LAM_TRY_GOTO(choose_features(table, features, columns, &count, is_feature), done);
    out->rows = lam_table_rows(table);
    out->columns = count;
    LAM_TRY_GOTO(read_values(out, table, columns), done);
    LAM_TRY_GOTO(take_metadata(out, table, is_feature), done);
done:
    lam_free(columns);
    lam_free(is_feature);
    lam_table_free(table);
    return status;
}

/* The path of the table beside a .npy. */
static lam_status beside(const char *path, char **out) {
    return lam_text_format(out, "%.*s.csv", (int)(strlen(path) - strlen(".npy")), path);
}

static double npy_value(const lam_npy *array, int64_t i) {
    if (array->type[0] == 'f')
        return array->item_bytes == 4 ? (double)((float *)array->data)[i] : ((double *)array->data)[i];
    if (array->type[0] == 'i') {
        return array->item_bytes == 4 ? (double)((int32_t *)array->data)[i]
                                      : (double)((int64_t *)array->data)[i];
    }
    return array->item_bytes == 1 ? (double)((uint8_t *)array->data)[i]
                                  : (double)((uint16_t *)array->data)[i];
}

static lam_status read_npy(lam_embeddings *out, const char *path) {
    lam_npy array = {0};
    lam_table *table = NULL;
    char *csv = NULL;
    lam_status status = LAM_OK;
    LAM_TRY(lam_npy_read(&array, path));
    LAM_REQUIRE_GOTO(array.rank == 2, done, LAM_ERROR_INPUT,
                     "%s: %d dimensions; 2 are needed (rows, columns)", path, array.rank);
    LAM_TRY_GOTO(beside(path, &csv), done);
    LAM_REQUIRE_GOTO(lam_path_exists(csv), done, LAM_ERROR_INPUT,
                     "%s: its metadata, %s, is not there: one row for "
                     "each row of the array, below a header",
                     path, csv);
    LAM_TRY_GOTO(lam_table_read(&table, csv), done);
    LAM_REQUIRE_GOTO(lam_table_rows(table) == array.shape[0], done, LAM_ERROR_INPUT,
                     "%s has %lld rows, %s %lld", path, (long long)array.shape[0], csv,
                     (long long)lam_table_rows(table));
    out->rows = array.shape[0];
    out->columns = array.shape[1];
    out->was_float32 = strcmp(array.type, "f4") == 0;
    if (strcmp(array.type, "f8") == 0) {
        out->values = array.data;
        array.data = NULL;
    } else {
        LAM_TRY_GOTO(lam_alloc_array((void **)&out->values, array.count, sizeof *out->values), done);
        for (int64_t i = 0; i < array.count; i++) out->values[i] = npy_value(&array, i);
    }
    LAM_TRY_GOTO(take_metadata(out, table, NULL), done);
done:
    lam_npy_free(&array);
    lam_table_free(table);
    lam_free(csv);
    return status;
}

/* Keeps the columns whose name matches. */
static lam_status keep_matching(lam_embeddings *out, const char *path, char **names, const char *features) {
    int64_t kept = 0, *chosen = NULL;
    LAM_TRY(lam_alloc_array((void **)&chosen, out->columns, sizeof *chosen));
    for (int64_t i = 0; i < out->columns; i++) {
        if (fnmatch(features, names[i], 0) == 0) chosen[kept++] = i;
    }
    for (int64_t row = 0; row < out->rows; row++) {
        for (int64_t i = 0; i < kept; i++)
            out->values[row * kept + i] = out->values[row * out->columns + chosen[i]];
    }
    lam_free(chosen);
    LAM_REQUIRE(kept > 0, LAM_ERROR_INPUT, "%s: no column matches the features '%s'; columns: %s, ..., %s",
                path, features, out->columns > 0 ? names[0] : "none",
                out->columns > 0 ? names[out->columns - 1] : "none");
    out->columns = kept;
    return LAM_OK;
}

static lam_status read_any(lam_embeddings *out, const char *path, const char *key, const char *features) {
    static const char *const text_ends[] = {".csv",    ".tsv",    ".txt",     ".csv.gz",
                                            ".tsv.gz", ".txt.gz", ".csv.zst", ".tsv.zst"};
    char **names = NULL;
    lam_status status = LAM_OK;
    bool h5ad = holds_groups(path);
    LAM_REQUIRE(!lam_text_ends_with(path, ".parquet"), LAM_ERROR_INPUT,
                "%s: Parquet is not read; convert it: python -c \"import pandas; "
                "pandas.read_parquet('%s').to_csv('%.*s.csv.gz')\"",
                path, path, (int)(strlen(path) - strlen(".parquet")), path);
    LAM_REQUIRE(h5ad || key == NULL || strcmp(key, "X") == 0, LAM_ERROR_USAGE,
                "%s: --key %s is for .h5ad files, which hold several matrices", path, key);
    for (size_t i = 0; i < sizeof text_ends / sizeof text_ends[0]; i++) {
        if (lam_text_ends_with(path, text_ends[i])) return read_text(out, path, features);
    }
    LAM_REQUIRE(h5ad || lam_text_ends_with(path, ".npy"), LAM_ERROR_INPUT,
                "%s: not a kind of embeddings that is known; .h5ad, .npy with .csv, .csv or .tsv (.gz) are",
                path);
    LAM_TRY_GOTO(h5ad ? lam_h5ad_read(out, &names, path, key) : read_npy(out, path), done);
    if (features != NULL) {
        if (names == NULL) LAM_TRY_GOTO(number_rows(&names, out->columns, "d"), done);
        LAM_TRY_GOTO(keep_matching(out, path, names, features), done);
    }
done:
    lam_free(names);
    return status;
}

lam_status lam_embeddings_read(lam_embeddings **out, const char *path, const char *key,
                               const char *features) {
    lam_embeddings *embeddings = NULL;
    LAM_TRY(lam_alloc((void **)&embeddings, sizeof *embeddings));
    lam_status status = read_any(embeddings, path, key, features);
    if (status == LAM_OK && !embeddings->columns)
        status = lam_fail(LAM_ERROR_INPUT, __FILE__, __LINE__, "%s: the matrix has no columns", path);
    if (status != LAM_OK) {
        lam_embeddings_free(embeddings);
        return status;
    }
    *out = embeddings;
    return LAM_OK;
}

/* Digits count as numbers, so that block_2 comes before block_10. */
static int natural_order(const void *a, const void *b) {
    return strverscmp(*(char *const *)a, *(char *const *)b);
}

lam_status lam_embeddings_names(const char *path, const char *group, char ***names, int64_t *count) {
    *names = NULL;
    *count = 0;
    if (!holds_groups(path)) return LAM_OK;
    LAM_TRY(lam_h5ad_names(path, group, names, count));
    qsort(*names, (size_t)*count, sizeof **names, natural_order);
    return LAM_OK;
}

lam_status lam_embeddings_matrices(const char *path, const char *glob, char ***names, int64_t *count) {
    LAM_REQUIRE(holds_groups(path), LAM_ERROR_INPUT,
                "%s: holds one matrix; several, in obsm, are held by .h5ad files", path);
    int64_t all, kept = 0;
    char here[300] = "";
    LAM_TRY(lam_embeddings_names(path, "obsm", names, &all));
    for (int64_t i = 0; i < all; i++) {
        size_t used = strlen(here);
        snprintf(here + used, sizeof here - used, "%s%s", i > 0 ? ", " : "", (*names)[i]);
        if (fnmatch(glob, (*names)[i], 0) == 0) (*names)[kept++] = (*names)[i];
    }
    if (kept == 0) {
        lam_free(*names);
        *names = NULL;
        LAM_FAIL(LAM_ERROR_INPUT, "%s: no matrix of obsm matches '%s'; obsm has: %s", path, glob,
                 all > 0 ? here : "nothing");
    }
    *count = kept;
    return LAM_OK;
}

static lam_status write_npy(const char *path, int64_t rows, int64_t columns, const double *values,
                            bool as_float32, const lam_table *obs, const char *const *index) {
    int64_t shape[2] = {rows, columns};
    lam_table *table = NULL;
    const char **texts = NULL;
    float *single = NULL;
    char *csv = NULL;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(beside(path, &csv), done);
    LAM_TRY_GOTO(lam_table_create(&table, rows), done);
    LAM_TRY_GOTO(lam_table_add(table, "index", index), done);
    for (int column = 0; column < lam_table_columns(obs); column++) {
        if (strcmp(lam_table_name(obs, column), "index") == 0) continue;
        LAM_TRY_GOTO(column_texts(obs, column, &texts), done);
        LAM_TRY_GOTO(lam_table_add(table, lam_table_name(obs, column), texts), done);
        lam_free(texts);
        texts = NULL;
    }
    if (as_float32) {
        LAM_TRY_GOTO(lam_alloc_array((void **)&single, rows * columns, sizeof *single), done);
        for (int64_t i = 0; i < rows * columns; i++) single[i] = (float)values[i];
    }
    LAM_TRY_GOTO(lam_table_write(table, csv), done);
    LAM_TRY_GOTO(
        lam_npy_write(path, as_float32 ? "f4" : "f8", 2, shape, as_float32 ? (const void *)single : values),
        done);
done:
    lam_free(texts);
    lam_free(single);
    lam_free(csv);
    lam_table_free(table);
    return status;
}

static lam_status require_end(const char *path) {
    LAM_REQUIRE(lam_text_ends_with(path, ".npy") || lam_text_ends_with(path, ".h5ad"), LAM_ERROR_USAGE,
                "%s: embeddings are written as .h5ad or .npy; end the name so", path);
    return LAM_OK;
}

lam_status lam_embeddings_require_new(const char *path, bool force) {
    char *csv = NULL;
    LAM_TRY(require_end(path));
    LAM_TRY(lam_require_new_file(path, force));
    if (!lam_text_ends_with(path, ".npy")) return LAM_OK;
    LAM_TRY(beside(path, &csv));
    lam_status status = lam_require_new_file(csv, force);
    lam_free(csv);
    return status;
}

/* Completes obs and index of the content. */
static lam_status write(const char *path, lam_h5ad_content *c) {
    lam_table *none = NULL;
    char **numbers = NULL;
    const char **texts = NULL;
    lam_status status = LAM_OK;
    bool npy = lam_text_ends_with(path, ".npy");
    LAM_TRY(require_end(path));
    if (c->obs == NULL) {
        LAM_TRY_GOTO(lam_table_create(&none, c->rows), done);
        c->obs = none;
    }
    LAM_REQUIRE_GOTO(lam_table_rows(c->obs) == c->rows, done, LAM_ERROR_INTERNAL,
                     "%s: %lld rows, but %lld of metadata", path, (long long)c->rows,
                     (long long)lam_table_rows(c->obs));
    int column = lam_table_column(c->obs, "index");
    if (c->index == NULL && column >= 0) {
        LAM_TRY_GOTO(column_texts(c->obs, column, &texts), done);
        c->index = texts;
    } else if (c->index == NULL) {
        LAM_TRY_GOTO(number_rows(&numbers, c->rows, ""), done);
        c->index = (const char *const *)numbers;
    }
    LAM_TRY_GOTO(npy ? write_npy(path, c->rows, c->columns, c->values, c->as_float32, c->obs, c->index)
                     : lam_h5ad_write(path, c),
                 done);
done:
    lam_table_free(none);
    lam_free(numbers);
    lam_free(texts);
    return status;
}

lam_status lam_embeddings_write(const char *path, int64_t rows, int64_t columns, const double *values,
                                bool as_float32, const lam_table *obs, const char *const *index,
                                const char *const *var, const char *provenance) {
    lam_h5ad_content content = {.rows = rows,
                                .columns = columns,
                                .values = values,
                                .as_float32 = as_float32,
                                .obs = obs,
                                .index = index,
                                .var = var,
                                .provenance = provenance};
    return write(path, &content);
}

lam_status lam_embeddings_write_matrices(const char *path, int64_t rows, int64_t columns,
                                         const double *values, int64_t count, const char *const *names,
                                         const lam_table *obs, const char *const *index,
                                         const char *provenance) {
    LAM_REQUIRE(lam_text_ends_with(path, ".h5ad"), LAM_ERROR_USAGE,
                "%s: several matrices are held by .h5ad files alone; end the name so", path);
    lam_h5ad_content content = {.rows = rows,
                                .columns = columns,
                                .values = values,
                                .as_float32 = true,
                                .matrices = count,
                                .names = names,
                                .obs = obs,
                                .index = index,
                                .provenance = provenance};
    return write(path, &content);
}

lam_status lam_embeddings_require_range(const lam_embeddings *e, const char *path) {
    double largest = 0;
    for (int64_t i = 0; i < e->rows * e->columns; i++)
        if (isfinite(e->values[i])) largest = fmax(largest, fabs(e->values[i]));
    LAM_REQUIRE(largest < 1e140 && (largest > 1e-140 || largest <= 0), LAM_ERROR_INPUT,
                "%s: the largest value is %g, whose square is no double any more: scale the values first",
                path, largest);
    return LAM_OK;
}
