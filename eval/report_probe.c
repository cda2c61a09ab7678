/* What `probe` wrote: logistic regression, neighbours or ridge regression; columns, blocks, learning curves. */
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "eval/report_parts.h"

#define TABLE_ROWS 50

typedef struct metric {
    const char *column, *name; /* as the tables and as the page call it */
} metric;

static metric metric_of(const lam_table *table) {
    return lam_table_column(table, "r2") >= 0 ? (metric){"r2", "R squared"}
                                              : (metric){"balanced_accuracy", "balanced accuracy"};
}

/* ---- scores ---- */

/* Of the best block, or of all where block is NULL: the row `mean` stands behind the folds of a block. */
static lam_status verdict(lam_page *page, const lam_table *scores, const char *block, int64_t classes) {
    metric m = metric_of(scores);
    int label, fold, of;
    LAM_TRY(lam_table_require(scores, "label", &label));
    LAM_TRY(lam_table_require(scores, "fold", &fold));
    LAM_TRY(lam_table_require(scores, "block", &of));
    int64_t folds = 0, mean = 0;
    for (; mean < lam_table_rows(scores); mean++) {
        if (block && strcmp(lam_table_cell(scores, mean, of), block) != 0) continue;
        if (!strcmp(lam_table_cell(scores, mean, fold), "mean")) break;
        folds++;
    }
    LAM_REQUIRE(folds && mean < lam_table_rows(scores), LAM_ERROR_FORMAT,
                "%s: no folds that end with a row 'mean'", lam_table_path(scores));
    int neighbours = lam_table_column(scores, "k");
    char method[80], chance[80] = "", from[200] = "";
    snprintf(method, sizeof method, strcmp(m.column, "r2") != 0 ? "Logistic regression" : "Ridge regression");
    if (neighbours >= 0)
        snprintf(method, sizeof method, "Nearest neighbours by cosine (%s)",
                 lam_table_cell(scores, mean - 1, neighbours));
    if (classes) snprintf(chance, sizeof chance, "; chance is %.3f", 1 / (double)classes);
    if (block) snprintf(from, sizeof from, " from %s, the best of the blocks", block);
    lam_page_verdict(page, "%s of %s%s: %s %.3f, mean of %lld folds%s.", method,
                     lam_table_cell(scores, mean, label), from, m.name,
                     lam_report_number(scores, mean, m.column), (long long)folds, chance);
    return LAM_OK;
}

/* ---- columns of a ridge regression ---- */

static lam_status ridge(lam_page *page, const lam_report_input *input, const lam_table *table,
                        const char *block) {
    int column, of;
    const char **labels;
    int64_t rows = lam_table_rows(table), columns = 0;
    LAM_TRY(lam_table_require(table, "column", &column));
    LAM_TRY(lam_table_require(table, "block", &of));
    LAM_TRY(lam_alloc_array((void **)&labels, rows, sizeof *labels));
    for (int64_t r = 0; r < rows; r++) { /* the median stands behind the columns of a block */
        bool last = r + 1 == rows || strcmp(lam_table_cell(table, r, of), lam_table_cell(table, r + 1, of));
        if (last || (block && strcmp(lam_table_cell(table, r, of), block) != 0)) continue;
        labels[r] = lam_table_cell(table, r, column);
        columns++;
    }
    char title[300];
    snprintf(title, sizeof title, "R squared by column: %s", input->label);
    lam_report_ranking how = {
        title, "R squared, mean of the folds", "r2", "standard_deviation", 0, "mean of the column"};
    lam_page_paragraph(
        page,
        "R squared of each column (%lld), whiskers one standard deviation over the folds; at 0 a prediction is no better than the mean of the column.",
        (long long)columns);
    lam_status status = lam_report_ranked(page, table, rows, labels, &how);
    lam_free(labels);
    return status;
}

/* ---- lines with a spread ---- */

static lam_status spread_lines(lam_page *page, const char *title, const char *x_axis, metric m,
                               const lam_table *table, const int64_t *rows, const double *x, int64_t count,
                               const lam_guide *guide) {
    double *y;
    LAM_TRY(lam_alloc_array((void **)&y, 3 * count, sizeof *y));
    for (int64_t k = 0; k < count; k++) {
        double deviation = lam_report_number(table, rows[k], "standard_deviation");
        y[k] = lam_report_number(table, rows[k], m.column);
        y[count + k] = y[k] + deviation;
        y[2 * count + k] = y[k] - deviation;
    }
    lam_series series[3] = {{"mean of the folds", count, x, y},
                            {"plus one deviation", count, x, y + count},
                            {"minus one deviation", count, x, y + 2 * count}};
    lam_page_lines_guided(page, title, x_axis, m.name, 3, series, guide != NULL, guide);
    lam_free(y);
    return LAM_OK;
}

/* The number that a name ends with: NaN where there is none. */
static double number_in(const char *name) {
    size_t n = strlen(name);
    while (n && isdigit((unsigned char)name[n - 1])) n--;
    return name[n] ? strtod(name + n, NULL) : (double)NAN;
}

/* blocks.csv is in the order of the numbers in the names; blocks without one are drawn at their place. */
static lam_status blocks(lam_page *page, const lam_report_input *input, const lam_table *table,
                         int64_t best) {
    int block;
    int64_t count = lam_table_rows(table), *rows = NULL;
    double *x = NULL;
    LAM_TRY(lam_table_require(table, "block", &block));
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_alloc_array((void **)&rows, count, sizeof *rows), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&x, count, sizeof *x), done);
    bool numbered = true;
    for (int64_t r = 0; r < count; r++) {
        rows[r] = r;
        x[r] = number_in(lam_table_cell(table, r, block));
        numbered = numbered && isfinite(x[r]) && (!r || x[r] > x[r - 1]);
    }
    for (int64_t r = 0; r < count && !numbered; r++) x[r] = (double)(r + 1);
    char title[300], mark[200];
    snprintf(title, sizeof title, "Blocks: %s", input->label);
    snprintf(mark, sizeof mark, "best: %s", lam_table_cell(table, best, block));
    lam_guide guide = {x[best], mark};
    lam_page_paragraph(page,
                       "%lld blocks; the best was chosen on these very folds, so its score is a little high.",
                       (long long)count);
    LAM_TRY_GOTO(spread_lines(page, title, numbered ? "number of the block" : "place of the block",
                              metric_of(table), table, rows, x, count, &guide),
                 done);
    status = lam_report_table(page, "Blocks", table, TABLE_ROWS);
done:
    lam_free(rows);
    lam_free(x);
    return status;
}

static lam_status curve(lam_page *page, const lam_report_input *input, const lam_table *table,
                        const char *block) {
    int of;
    int64_t count = 0, *rows = NULL;
    double *x = NULL;
    LAM_TRY(lam_table_require(table, "block", &of));
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_alloc_array((void **)&rows, lam_table_rows(table), sizeof *rows), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&x, lam_table_rows(table), sizeof *x), done);
    for (int64_t r = 0; r < lam_table_rows(table); r++) {
        if (block && strcmp(lam_table_cell(table, r, of), block) != 0) continue;
        x[count] = lam_report_number(table, r, "n_train");
        rows[count++] = r;
    }
    char title[300];
    snprintf(title, sizeof title, "Learning curve: %s", input->label);
    lam_page_paragraph(
        page,
        "The score by the number of rows that were trained on: where it still climbs at the right, more rows would help.%s",
        block ? " Of the best block; curve.csv has them all." : "");
    LAM_TRY_GOTO(spread_lines(page, title, "training rows, mean of the folds", metric_of(table), table, rows,
                              x, count, NULL),
                 done);
    if (!block) status = lam_report_table(page, "Learning curve", table, TABLE_ROWS);
done:
    lam_free(rows);
    lam_free(x);
    return status;
}

/* ---- all ---- */

lam_status lam_report_probe(lam_page *page, const lam_report_input *input) {
    enum { SCORES, CONFUSION, RIDGE, BLOCKS, CURVE, TABLES };
    static const char *const files[TABLES] = {"scores.csv", "confusion.csv", "ridge.csv", "blocks.csv",
                                              "curve.csv"};
    lam_table *tables[TABLES] = {0};
    const char *block = NULL; /* the best of several */
    int64_t best = 0;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_report_read(input, files[SCORES], &tables[SCORES]), done);
    for (int k = CONFUSION; k < TABLES; k++)
        LAM_TRY_GOTO(lam_report_read_present(input, files[k], &tables[k]), done);
    if (tables[BLOCKS]) {
        int64_t rows = lam_table_rows(tables[BLOCKS]);
        while (best < rows && lam_report_number(tables[BLOCKS], best, "best") != 1) best++;
        LAM_REQUIRE_GOTO(best < rows && lam_table_column(tables[BLOCKS], "block") >= 0, done,
                         LAM_ERROR_FORMAT, "%s: no block has 1 in the column best",
                         lam_table_path(tables[BLOCKS]));
        block = lam_table_cell(tables[BLOCKS], best, lam_table_column(tables[BLOCKS], "block"));
    }
    lam_report_heading(page, "Probe", input);
    LAM_TRY_GOTO(
        verdict(page, tables[SCORES], block, tables[CONFUSION] ? lam_table_rows(tables[CONFUSION]) : 0),
        done);
    if (tables[BLOCKS]) LAM_TRY_GOTO(blocks(page, input, tables[BLOCKS], best), done);
    if (tables[RIDGE]) LAM_TRY_GOTO(ridge(page, input, tables[RIDGE], block), done);
    if (tables[CURVE]) LAM_TRY_GOTO(curve(page, input, tables[CURVE], block), done);
    if (tables[CONFUSION]) {
        char title[300];
        snprintf(title, sizeof title, "Confusion of %s", input->label);
        LAM_TRY_GOTO(lam_report_confusion(page, title, "predicted label", tables[CONFUSION]), done);
    }
    if (!tables[BLOCKS]) status = lam_report_table(page, "Scores by fold", tables[SCORES], TABLE_ROWS);
done:
    for (int k = 0; k < TABLES; k++) lam_table_free(tables[k]);
    return status;
}
