/* Columns, rows and result tables of `lamella retrieve`. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/files.h"
#include "base/log.h"
#include "base/memory.h"
#include "eval/aggregate.h"
#include "eval/retrieve_parts.h"

/* ---- columns ---- */

lam_status lam_columns_find(const lam_table *table, const char *option, const char *text, lam_columns *out) {
    out->count = 0;
    for (const char *p = text ? text : ""; *p;) {
        size_t n = strcspn(p, ",");
        char *name;
        LAM_REQUIRE(n && out->count < LAM_RULE_COLUMNS, LAM_ERROR_USAGE,
                    "retrieve: --%s is '%s', one to %d columns are needed, joined by commas", option, text,
                    LAM_RULE_COLUMNS);
        LAM_TRY(lam_text_copy_n(&name, p, n));
        lam_status status = lam_table_require(table, name, &out->at[out->count++]);
        lam_free(name);
        LAM_TRY(status);
        p += n + (p[n] == ',');
    }
    return LAM_OK;
}

bool lam_columns_share(const lam_columns *a, const lam_columns *b) {
    for (int i = 0; i < a->count; i++)
        for (int j = 0; j < b->count; j++)
            if (a->at[i] == b->at[j]) return true;
    return false;
}

lam_status lam_column_rule_make(lam_column_rule *out, const lam_table *obs, const lam_columns *same,
                                const lam_columns *different) {
    *out = (lam_column_rule){.rule = {.rows = lam_table_rows(obs)}};
    int64_t levels;
    lam_status status = LAM_OK;
    if (same->count) {
        LAM_TRY_GOTO(lam_rule_codes(obs, same->at, same->count, &out->codes[LAM_RULE_COLUMNS], &levels),
                     done);
        out->rule.same = out->codes[LAM_RULE_COLUMNS];
    }
    for (int k = 0; k < different->count; k++) {
        LAM_TRY_GOTO(lam_rule_codes(obs, &different->at[k], 1, &out->codes[k], &levels), done);
        out->rule.different[out->rule.differences++] = out->codes[k];
    }
done:
    if (status != LAM_OK) lam_column_rule_free(out);
    return status;
}

void lam_column_rule_free(lam_column_rule *rule) {
    for (int k = 0; k <= LAM_RULE_COLUMNS; k++) lam_free(rule->codes[k]);
    memset(rule, 0, sizeof *rule);
}

/* ---- rows ---- */

bool lam_row_is_finite(const lam_embeddings *e, int64_t row) {
    for (int64_t j = 0; j < e->columns; j++)
        if (!isfinite(e->values[row * e->columns + j])) return false;
    return true;
}

/* false: the row has no direction. */
static bool copy_row(const double *from, int64_t columns, bool centred, double *to) {
    double mean = 0;
    bool constant = true, zero = true;
    for (int64_t j = 0; j < columns; j++) {
        mean += from[j] / (double)columns;
        constant = constant && from[j] == from[0];
        zero = zero && from[j] == 0;
    }
    for (int64_t j = 0; j < columns; j++) to[j] = centred ? from[j] - mean : from[j];
    return isfinite(mean) && !(centred ? constant : zero);
}

lam_status lam_space_make(lam_space *out, const lam_embeddings *e, bool centred) {
    *out = (lam_space){0};
    double *values = NULL;
    int64_t left_out = 0;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_alloc_array((void **)&values, e->rows * e->columns, sizeof *values), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&out->usable, e->rows, sizeof *out->usable), done);
    for (int64_t i = 0; i < e->rows; i++) {
        double *to = values + i * e->columns;
        out->usable[i] =
            lam_row_is_finite(e, i) && copy_row(e->values + i * e->columns, e->columns, centred, to);
        if (out->usable[i]) continue;
        left_out++;
        for (int64_t j = 0; j < e->columns; j++) to[j] = j == 0;
    }
    if (left_out)
        lam_log_warning(
            "retrieve: %lld of %lld rows are %s or hold values that are not finite; they are left out",
            (long long)left_out, (long long)e->rows, centred ? "constant" : "zero");
    LAM_TRY_GOTO(lam_directions_make(&out->u, values, e->rows, e->columns), done);
done:
    lam_free(values);
    if (status != LAM_OK) lam_space_free(out);
    return status;
}

void lam_space_free(lam_space *space) {
    lam_directions_free(&space->u);
    lam_free(space->usable);
    memset(space, 0, sizeof *space);
}

static lam_status merge_cells(const lam_table *obs, const int64_t *codes, const int64_t *first,
                              int64_t levels, lam_table **out) {
    const char **cells;
    LAM_TRY(lam_alloc_array((void **)&cells, levels, sizeof *cells));
    lam_status status = lam_table_create(out, levels);
    for (int c = 0; c < lam_table_columns(obs) && status == LAM_OK; c++) {
        for (int64_t g = 0; g < levels; g++) cells[g] = lam_table_cell(obs, first[g], c);
        for (int64_t i = 0; i < lam_table_rows(obs); i++)
            if (codes[i] >= 0 && strcmp(cells[codes[i]], lam_table_cell(obs, i, c)) != 0)
                cells[codes[i]] = "";
        status = lam_table_add(*out, lam_table_name(obs, c), cells);
    }
    lam_free(cells);
    return status;
}

lam_status lam_rows_merge(const lam_embeddings *e, const int64_t *codes, int64_t levels, bool median,
                          lam_embeddings **out) {
    lam_embeddings *m = NULL;
    double *values = NULL;
    int64_t *kept = NULL, *counts = NULL, *first = NULL, n = 0;
    const char **labels = NULL;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_alloc((void **)&m, sizeof *m), done);
    m->rows = levels;
    m->columns = e->columns;
    LAM_TRY_GOTO(lam_alloc_array((void **)&m->values, levels * e->columns, sizeof *values), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&values, e->rows * e->columns, sizeof *values), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&kept, e->rows, sizeof *kept), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&counts, levels, sizeof *counts), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&first, levels, sizeof *first), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&labels, levels, sizeof *labels), done);
    for (int64_t i = 0; i < e->rows; i++) {
        if (codes[i] < 0) continue;
        memcpy(values + n * e->columns, e->values + i * e->columns, (size_t)e->columns * sizeof *values);
        kept[n++] = codes[i];
    }
    LAM_TRY_GOTO(lam_aggregate(values, n, e->columns, kept, levels, median, m->values, counts), done);
    for (int64_t i = e->rows - 1; i >= 0; i--)
        if (codes[i] >= 0) first[codes[i]] = i;
    for (int64_t g = 0; g < levels; g++) labels[g] = e->index[first[g]];
    LAM_TRY_GOTO(lam_texts_pack(&m->index, labels, levels), done);
    LAM_TRY_GOTO(merge_cells(e->obs, codes, first, levels, &m->obs), done);
    *out = m;
    m = NULL;
done:
    lam_embeddings_free(m);
    lam_free(values);
    lam_free(kept);
    lam_free(counts);
    lam_free(first);
    lam_free(labels);
    return status;
}

/* ---- results ---- */

lam_status lam_result_number(lam_table *table, int64_t row, int column, double value) {
    char text[32] = "";
    if (!isnan(value)) snprintf(text, sizeof text, "%.17g", value);
    return lam_table_set(table, row, column, text);
}

lam_status lam_result_count(lam_table *table, int64_t row, int column, int64_t value) {
    char text[32];
    snprintf(text, sizeof text, "%lld", (long long)value);
    return lam_table_set(table, row, column, text);
}

void lam_results_add(lam_results *results, const char *name, lam_table **table) {
    results->names[results->count] = name;
    results->tables[results->count++] = *table;
    *table = NULL;
}

lam_status lam_results_write(const lam_results *results, const char *folder) {
    static const char *const names[] = {"average_precision.csv", "scores.csv", "matching.csv",
                                        "confusion.csv", "compound_gene.csv"};
    LAM_TRY(lam_make_folders(folder));
    /* Where --force writes over another result, what this one does not have must not stay beside it. */
    LAM_TRY(lam_remove_files(folder, names, sizeof names / sizeof *names));
    for (int k = 0; k < results->count; k++) {
        char *path;
        LAM_TRY(lam_path_join(&path, folder, results->names[k]));
        lam_status status = lam_table_write(results->tables[k], path);
        lam_free(path);
        LAM_TRY(status);
    }
    return LAM_OK;
}

void lam_results_free(lam_results *results) {
    for (int k = 0; k < results->count; k++) lam_table_free(results->tables[k]);
    results->count = 0;
}
