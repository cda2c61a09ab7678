/* sweep.csv: the combinations of settings by what they scored. */
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/files.h"
#include "base/memory.h"
#include "eval/report_parts.h"
#include "eval/sweep_parts.h"

typedef struct sweep_table {
    const lam_table *table;
    int command, run, name;
    const char **labels; /* [rows] of the bars that are drawn; NULL: not of them */
} sweep_table;

/* Settings are the columns between `run` and `name`. texts [rows] own the labels of those that are of this result. */
static lam_status name_rows(const sweep_table *s, const char *command, const char *name, char **texts) {
    int columns = s->name > s->run ? s->name - s->run - 1 : 0;
    int64_t rows = lam_table_rows(s->table), *chosen = NULL, count = 0;
    const char **names = NULL, **cells = NULL;
    bool *differs = NULL;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_alloc_array((void **)&chosen, rows, sizeof *chosen), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&names, columns, sizeof *names), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&differs, columns, sizeof *differs), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&cells, rows * columns, sizeof *cells), done);
    for (int c = 0; c < columns; c++) names[c] = lam_table_name(s->table, s->run + 1 + c);
    for (int64_t r = 0; r < rows; r++) {
        if (strcmp(lam_table_cell(s->table, r, s->command), command) != 0 ||
            strcmp(lam_table_cell(s->table, r, s->name), name) != 0)
            continue;
        for (int c = 0; c < columns; c++)
            cells[count * columns + c] = lam_table_cell(s->table, r, s->run + 1 + c);
        chosen[count++] = r;
    }
    LAM_TRY_GOTO(lam_sweep_shorten(cells, count, columns, differs), done);
    for (int64_t k = 0; k < count; k++)
        LAM_TRY_GOTO(lam_sweep_label(names, cells + k * columns, differs, columns,
                                     lam_table_cell(s->table, chosen[k], s->run), &texts[chosen[k]]),
                     done);
done:
    lam_free(chosen);
    lam_free(names);
    lam_free(differs);
    lam_free(cells);
    return status;
}

/* The bars of one command and of one of its results (a source of relate). */
static lam_status one_result(lam_page *page, const sweep_table *s, int64_t first, const char *label) {
    const char *command = lam_table_cell(s->table, first, s->command), *column = NULL,
               *name = lam_table_cell(s->table, first, s->name), *start = lam_sweep_headline(command);
    int64_t rows = lam_table_rows(s->table);
    for (int c = s->name + 1; start && c < lam_table_columns(s->table) && !column; c++)
        if (!strncmp(lam_table_name(s->table, c), start, strlen(start))) column = lam_table_name(s->table, c);
    if (!column) return LAM_OK;
    char **texts = NULL, title[400];
    LAM_TRY(lam_alloc_array((void **)&texts, rows, sizeof *texts));
    snprintf(title, sizeof title, "%s%s%s: %s", command, *name ? ", " : "", name, label);
    lam_report_ranking how = {title, column, column, NULL, (double)NAN, NULL};
    lam_status status = name_rows(s, command, name, texts);
    for (int64_t r = 0; r < rows; r++) s->labels[r] = texts[r];
    if (status == LAM_OK) status = lam_report_ranked(page, s->table, rows, s->labels, &how);
    lam_free_texts(texts, rows);
    return status;
}

static bool seen_before(const sweep_table *s, int64_t row) {
    for (int64_t r = 0; r < row; r++)
        if (!strcmp(lam_table_cell(s->table, r, s->command), lam_table_cell(s->table, row, s->command)) &&
            !strcmp(lam_table_cell(s->table, r, s->name), lam_table_cell(s->table, row, s->name)))
            return true;
    return false;
}

lam_status lam_report_sweep(lam_page *page, const lam_report_input *input) {
    lam_table *table;
    sweep_table s = {0};
    LAM_TRY(lam_report_read(input, "sweep.csv", &table));
    int64_t rows = lam_table_rows(table);
    s.table = table;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_table_require(table, "command", &s.command), done);
    LAM_TRY_GOTO(lam_table_require(table, "run", &s.run), done);
    LAM_TRY_GOTO(lam_table_require(table, "name", &s.name), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&s.labels, rows, sizeof *s.labels), done);
    lam_report_heading(page, "Sweep", input);
    lam_page_paragraph(
        page,
        "%lld results of a sweep over settings, the best first; the folder has its own report.html, and every number in sweep.csv. "
        "The best of many settings looks better than it is: score it on data that did not choose it.",
        (long long)rows);
    for (int64_t r = 0; r < rows; r++)
        if (!seen_before(&s, r)) LAM_TRY_GOTO(one_result(page, &s, r, input->label), done);
done:
    lam_free(s.labels);
    lam_table_free(table);
    return status;
}
