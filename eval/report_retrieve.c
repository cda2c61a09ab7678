/* What `retrieve` wrote: average precision of replicates, matching of labels, ranking of targets. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/files.h"
#include "base/memory.h"
#include "eval/report_parts.h"

#define TABLE_ROWS 20
#define SIGNIFICANT 0.05

/* ---- replicates ---- */

/* Names of the rows: the columns before `rows`, joined; the summary at the end has none. */
static lam_status group_names(const lam_table *scores, char ***names) {
    int columns;
    int64_t rows = lam_table_rows(scores);
    LAM_TRY(lam_table_require(scores, "rows", &columns));
    LAM_REQUIRE(columns > 0 && rows >= 2 && !strcmp(lam_table_cell(scores, rows - 1, 0), "summary"),
                LAM_ERROR_FORMAT, "%s: the values do not end with a row 'summary'", lam_table_path(scores));
    LAM_TRY(lam_alloc_array((void **)names, rows, sizeof **names));
    for (int64_t r = 0; r + 1 < rows; r++)
        for (int c = 0; c < columns; c++) {
            char *longer;
            LAM_TRY(lam_text_format(&longer, "%s%s%s", c ? (*names)[r] : "", c ? ", " : "",
                                    lam_table_cell(scores, r, c)));
            lam_free((*names)[r]);
            (*names)[r] = longer;
        }
    return LAM_OK;
}

static lam_status replicates(lam_page *page, const lam_report_input *input) {
    lam_table *scores;
    char **names = NULL, title[300];
    LAM_TRY(lam_report_read(input, "scores.csv", &scores));
    lam_status status = LAM_OK;
    int64_t rows = lam_table_rows(scores), scored = 0, significant = 0;
    LAM_TRY_GOTO(group_names(scores, &names), done);
    for (int64_t r = 0; r + 1 < rows; r++) {
        scored += isfinite(lam_report_number(scores, r, "mean_average_precision"));
        significant += lam_report_number(scores, r, "q") <= SIGNIFICANT;
    }
    double chance = lam_report_number(scores, rows - 1, "chance");
    lam_page_verdict(
        page,
        "Mean average precision %.3f (chance %.3f); %lld of %lld values are retrieved at a false discovery rate of 5 %% (%.1f %%).",
        lam_report_number(scores, rows - 1, "mean_average_precision"), chance, (long long)significant,
        (long long)scored, scored ? 100 * (double)significant / (double)scored : 0.0);
    lam_page_paragraph(
        page,
        "Each row in turn ranks the others by similarity; its average precision is high where its replicates come first. "
        "Chance is the mean of random rankings.");
    snprintf(title, sizeof title, "Mean average precision: %s", input->label);
    lam_report_ranking how = {title,   "mean average precision", "mean_average_precision", NULL, chance,
                              "chance"};
    LAM_TRY_GOTO(lam_report_ranked(page, scores, rows, (const char *const *)names, &how), done);
    if (rows > TABLE_ROWS)
        lam_page_paragraph(page, "The first %d of %lld values; scores.csv has them all.", TABLE_ROWS,
                           (long long)rows - 1);
    status = lam_report_table(page, "Average precision", scores, TABLE_ROWS);
done:
    if (names) lam_free_texts(names, rows);
    lam_table_free(scores);
    return status;
}

/* ---- matching ---- */

static lam_status matching(lam_page *page, const lam_report_input *input) {
    lam_table *table = NULL, *confusion = NULL;
    int same;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_report_read(input, "matching.csv", &table), done);
    LAM_TRY_GOTO(lam_report_read(input, "confusion.csv", &confusion), done);
    LAM_TRY_GOTO(lam_table_require(table, "same", &same), done);
    int64_t rows = lam_table_rows(table), right = 0;
    for (int64_t r = 0; r < rows; r++) right += lam_report_number(table, r, "same") == 1;
    LAM_REQUIRE_GOTO(rows, done, LAM_ERROR_FORMAT, "%s: holds no profile", lam_table_path(table));
    lam_page_verdict(page, "%lld of %lld profiles lie nearest to one of their own label: accuracy %.3f.",
                     (long long)right, (long long)rows, (double)right / (double)rows);
    char title[300];
    snprintf(title, sizeof title, "Label of the nearest profile: %s", input->label);
    status = lam_report_confusion(page, title, "label of the nearest", confusion);
done:
    lam_table_free(table);
    lam_table_free(confusion);
    return status;
}

/* ---- compounds and genes ---- */

/* Mean over compounds at their best concentration, its deviation over the draws, and the same of random scores. */
static lam_status compounds(lam_page *page, const lam_report_input *input) {
    static const struct {
        const char *column, *random, *name;
    } measures[] = {{"average_precision", "random_average_precision", "mean average precision"},
                    {"auc", "random_auc", "area under the ROC curve"}};
    static const char *const labels[] = {"embedding", "random scores"};
    lam_table *table;
    int compound, dose;
    char title[300];
    LAM_TRY(lam_report_read(input, "compound_gene.csv", &table));
    lam_status status = LAM_OK;
    int64_t rows = lam_table_rows(table), mean = rows, deviation = rows;
    const char **names = NULL;
    LAM_TRY_GOTO(lam_table_require(table, "compound", &compound), done);
    LAM_TRY_GOTO(lam_table_require(table, "concentration", &dose), done);
    for (int64_t r = 0; r < rows; r++) {
        if (!strcmp(lam_table_cell(table, r, compound), "mean")) mean = r;
        if (!strcmp(lam_table_cell(table, r, compound), "deviation_of_mean")) deviation = r;
    }
    LAM_REQUIRE_GOTO(mean < rows && deviation < rows, done, LAM_ERROR_FORMAT,
                     "%s: has no rows 'mean' and 'deviation_of_mean'", lam_table_path(table));
    LAM_TRY_GOTO(lam_alloc_array((void **)&names, rows, sizeof *names), done);
    int64_t count = 0;
    for (int64_t r = 0; r < mean; r++)
        if (!strcmp(lam_table_cell(table, r, dose), "max"))
            names[r] = lam_table_cell(table, r, compound), count++;
    for (int k = 0; k < 2; k++) {
        const char *columns[2] = {measures[k].column, measures[k].random};
        double values[2], low[2], high[2];
        for (int i = 0; i < 2; i++) {
            double spread = lam_report_number(table, deviation, columns[i]);
            values[i] = lam_report_number(table, mean, columns[i]);
            low[i] = values[i] - spread;
            high[i] = values[i] + spread;
        }
        lam_page_verdict(page, "Known targets of %lld compounds: %s %.3f, of random scores %.3f.",
                         (long long)count, measures[k].name, values[0], values[1]);
        snprintf(title, sizeof title, "Targets of compounds, %s: %s", measures[k].name, input->label);
        lam_bars bars = {title, measures[k].name, 2, labels, values, low, high, (double)NAN, NULL};
        lam_page_bars(page, &bars);
    }
    lam_page_paragraph(
        page,
        "A compound ranks its known targets among other genes by similarity, at its best concentration (max); whiskers are one "
        "standard deviation over the draws of other genes.");
    snprintf(title, sizeof title, "Average precision by compound: %s", input->label);
    lam_report_ranking how = {title,
                              "average precision at the best concentration",
                              "average_precision",
                              NULL,
                              lam_report_number(table, mean, "random_average_precision"),
                              "random"};
    status = lam_report_ranked(page, table, rows, names, &how);
done:
    lam_free(names);
    lam_table_free(table);
    return status;
}

lam_status lam_report_retrieve(lam_page *page, const lam_report_input *input) {
    static const struct {
        const char *file;
        lam_status (*draw)(lam_page *, const lam_report_input *);
    } parts[] = {
        {"average_precision.csv", replicates}, {"matching.csv", matching}, {"compound_gene.csv", compounds}};
    lam_report_heading(page, "Retrieval", input);
    for (size_t k = 0; k < sizeof parts / sizeof *parts; k++) {
        char *path;
        LAM_TRY(lam_path_join(&path, input->path, parts[k].file));
        bool there = lam_path_exists(path);
        lam_free(path);
        if (there) LAM_TRY(parts[k].draw(page, input));
    }
    return LAM_OK;
}
