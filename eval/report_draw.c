/* What the sections of a report share: reading tables, tables on the page, ranked bars, confusion. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/files.h"
#include "base/memory.h"
#include "eval/report_parts.h"

#define RANKED 15   /* bars of the best, and as many of the worst */
#define LABELS 60   /* of a heat map */
#define CONFUSED 20 /* rows of a table of errors */

/* ---- tables ---- */

lam_status lam_report_read(const lam_report_input *input, const char *file, lam_table **table) {
    char *path;
    LAM_TRY(lam_path_join(&path, input->path, file));
    lam_status status = lam_table_read(table, path);
    lam_free(path);
    return status;
}

lam_status lam_report_read_present(const lam_report_input *input, const char *file, lam_table **table) {
    char *path;
    *table = NULL;
    LAM_TRY(lam_path_join(&path, input->path, file));
    lam_status status = lam_path_exists(path) ? lam_table_read(table, path) : LAM_OK;
    lam_free(path);
    return status;
}

double lam_report_number(const lam_table *table, int64_t row, const char *name) {
    int column = lam_table_column(table, name);
    double value;
    return column >= 0 && lam_text_is_number(lam_table_cell(table, row, column), &value) ? value
                                                                                         : (double)NAN;
}

double lam_report_named(const lam_table *table, int64_t row, const char *prefix, const char *name) {
    char column[160];
    snprintf(column, sizeof column, "%s%s", prefix, name);
    return lam_report_number(table, row, column);
}

void lam_report_heading(lam_page *page, const char *what, const lam_report_input *input) {
    char text[300];
    snprintf(text, sizeof text, "%s: %s", what, input->label);
    lam_page_heading(page, text);
}

lam_status lam_report_table(lam_page *page, const char *title, const lam_table *table, int64_t most) {
    int columns = lam_table_columns(table);
    int64_t rows = lam_table_rows(table) < most ? lam_table_rows(table) : most;
    const char **names = NULL, **cells = NULL;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_alloc_array((void **)&names, columns, sizeof *names), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&cells, rows * columns, sizeof *cells), done);
    for (int c = 0; c < columns; c++) {
        names[c] = lam_table_name(table, c);
        for (int64_t r = 0; r < rows; r++) cells[r * columns + c] = lam_table_cell(table, r, c);
    }
    lam_page_table(page, title, columns, names, rows, cells);
done:
    lam_free(names);
    lam_free(cells);
    return status;
}

/* ---- ranked bars ---- */

typedef struct bar {
    const char *label;
    double value, deviation;
    int64_t row;
} bar;

static int greatest_first(const void *a, const void *b) {
    const bar *p = a, *q = b;
    if (p->value != q->value) return p->value > q->value ? -1 : 1;
    return p->row < q->row ? -1 : p->row > q->row;
}

static void draw_bars(lam_page *page, const lam_report_ranking *how, const char *which, const bar *bars,
                      int64_t count) {
    const char *labels[2 * RANKED];
    double values[2 * RANKED], low[2 * RANKED], high[2 * RANKED];
    char title[400];
    for (int64_t i = 0; i < count; i++) {
        labels[i] = bars[i].label;
        values[i] = bars[i].value;
        low[i] = bars[i].value - bars[i].deviation;
        high[i] = bars[i].value + bars[i].deviation;
    }
    snprintf(title, sizeof title, "%s%s", how->title, which);
    lam_bars chart = {title,  how->axis,      count,
                      labels, values,         how->deviation ? low : NULL,
                      high,   how->reference, how->reference_label};
    lam_page_bars(page, &chart);
}

lam_status lam_report_ranked(lam_page *page, const lam_table *table, int64_t rows, const char *const *labels,
                             const lam_report_ranking *how) {
    int column;
    bar *bars;
    int64_t count = 0;
    LAM_TRY(lam_table_require(table, how->column, &column));
    LAM_TRY(lam_alloc_array((void **)&bars, rows, sizeof *bars));
    for (int64_t r = 0; r < rows; r++) {
        double value = lam_report_number(table, r, how->column);
        if (labels[r] && isfinite(value))
            bars[count++] =
                (bar){labels[r], value,
                      how->deviation ? lam_report_number(table, r, how->deviation) : (double)NAN, r};
    }
    if (count) qsort(bars, (size_t)count, sizeof *bars, greatest_first);
    if (count > 2 * RANKED) {
        draw_bars(page, how, ", the best", bars, RANKED);
        draw_bars(page, how, ", the worst", bars + count - RANKED, RANKED);
    } else if (count) {
        draw_bars(page, how, "", bars, count);
    }
    lam_free(bars);
    return LAM_OK;
}

/* ---- confusion ---- */

typedef struct confused {
    int64_t count, row, column;
} confused;

static int most_first(const void *a, const void *b) {
    const confused *p = a, *q = b;
    if (p->count != q->count) return p->count > q->count ? -1 : 1;
    if (p->row != q->row) return p->row < q->row ? -1 : 1;
    return p->column < q->column ? -1 : p->column > q->column;
}

static double count_at(const lam_table *table, int64_t row, int64_t column) {
    double value;
    return lam_text_is_number(lam_table_cell(table, row, (int)column + 1), &value) ? value : 0;
}

/* Too many labels for a heat map. */
static lam_status errors_table(lam_page *page, const char *title, const char *other, const lam_table *table) {
    int64_t n = lam_table_rows(table), found = 0;
    confused *errors;
    char text[CONFUSED][24], heading[300];
    const char *cells[3 * CONFUSED];
    LAM_TRY(lam_alloc_array((void **)&errors, n * n, sizeof *errors));
    for (int64_t r = 0; r < n; r++)
        for (int64_t c = 0; c < n; c++)
            if (r != c && count_at(table, r, c) > 0)
                errors[found++] = (confused){(int64_t)count_at(table, r, c), r, c};
    if (found) qsort(errors, (size_t)found, sizeof *errors, most_first);
    int64_t shown = found < CONFUSED ? found : CONFUSED;
    for (int64_t k = 0; k < shown; k++) {
        snprintf(text[k], sizeof text[k], "%lld", (long long)errors[k].count);
        cells[3 * k] = lam_table_cell(table, errors[k].row, 0);
        cells[3 * k + 1] = lam_table_name(table, (int)errors[k].column + 1);
        cells[3 * k + 2] = text[k];
    }
    lam_free(errors);
    lam_page_paragraph(page, "The most frequent errors among %lld labels; confusion.csv has every pair.",
                       (long long)n);
    snprintf(heading, sizeof heading, "%s: errors", title);
    lam_page_table(page, heading, 3, (const char *[]){"label", other, "rows"}, shown, cells);
    return LAM_OK;
}

lam_status lam_report_confusion(lam_page *page, const char *title, const char *other,
                                const lam_table *table) {
    int64_t n = lam_table_rows(table);
    LAM_REQUIRE(lam_table_columns(table) == n + 1, LAM_ERROR_FORMAT,
                "%s: %lld rows and %d columns of counts: a confusion matrix is square", lam_table_path(table),
                (long long)n, lam_table_columns(table) - 1);
    if (n > LABELS) return errors_table(page, title, other, table);
    const char **names = NULL;
    double *shares = NULL;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_alloc_array((void **)&names, n, sizeof *names), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&shares, n * n, sizeof *shares), done);
    for (int64_t r = 0; r < n; r++) {
        double total = 0;
        names[r] = lam_table_cell(table, r, 0);
        for (int64_t c = 0; c < n; c++) total += shares[r * n + c] = count_at(table, r, c);
        for (int64_t c = 0; c < n; c++) shares[r * n + c] /= total > 0 ? total : 1;
    }
    lam_page_heat(page, title, "true label", other, n, names, shares);
done:
    lam_free(names);
    lam_free(shares);
    return status;
}
