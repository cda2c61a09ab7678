/* sweep.csv: the combinations of settings by what they scored. */
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/files.h"
#include "base/memory.h"
#include "eval/report_parts.h"

/* Settings are the columns between `run` and `name`, called section.key. */
static lam_status settings_text(const lam_table *table, int64_t row, int from, int to, char **text) {
    LAM_TRY(lam_text_copy(text, ""));
    for (int c = from; c < to; c++) {
        const char *cell = lam_table_cell(table, row, c), *dot = strchr(lam_table_name(table, c), '.');
        char *longer;
        if (!*cell) continue;
        LAM_TRY(lam_text_format(&longer, "%s%s%s %s", *text, **text ? ", " : "",
                                dot ? dot + 1 : lam_table_name(table, c), cell));
        lam_free(*text);
        *text = longer;
    }
    if (**text) return LAM_OK;
    lam_free(*text);
    return lam_text_copy(text, lam_table_cell(table, row, lam_table_column(table, "run")));
}

typedef struct sweep_table {
    const lam_table *table;
    int command, run, name;
    char **settings;     /* [rows] */
    const char **labels; /* [rows] of the bars that are drawn; NULL: not of them */
} sweep_table;

/* The bars of one command and of one of its results (a source of relate). */
static lam_status one_result(lam_page *page, const sweep_table *s, int64_t first, const char *label) {
    static const struct {
        const char *command, *headline; /* the first column that begins so */
    } known[] = {{"relate", "recall_"}, {"probe", "balanced_accuracy"}, {"consistency", "consistency_share"}};
    const char *command = lam_table_cell(s->table, first, s->command), *column = NULL,
               *name = lam_table_cell(s->table, first, s->name);
    for (size_t k = 0; k < sizeof known / sizeof *known; k++)
        for (int c = s->name + 1; c < lam_table_columns(s->table) && !column; c++)
            if (!strcmp(command, known[k].command) &&
                !strncmp(lam_table_name(s->table, c), known[k].headline, strlen(known[k].headline)))
                column = lam_table_name(s->table, c);
    if (!column) return LAM_OK;
    for (int64_t r = 0; r < lam_table_rows(s->table); r++)
        s->labels[r] = !strcmp(lam_table_cell(s->table, r, s->command), command) &&
                               !strcmp(lam_table_cell(s->table, r, s->name), name)
                           ? s->settings[r]
                           : NULL;
    char title[400];
    snprintf(title, sizeof title, "%s%s%s: %s", command, *name ? ", " : "", name, label);
    lam_report_ranking how = {title, column, column, NULL, (double)NAN, NULL};
    return lam_report_ranked(page, s->table, lam_table_rows(s->table), s->labels, &how);
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
    LAM_TRY_GOTO(lam_alloc_array((void **)&s.settings, rows, sizeof *s.settings), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&s.labels, rows, sizeof *s.labels), done);
    for (int64_t r = 0; r < rows; r++)
        LAM_TRY_GOTO(settings_text(table, r, s.run + 1, s.name, &s.settings[r]), done);
    lam_report_heading(page, "Sweep", input);
    lam_page_paragraph(
        page,
        "%lld results of a sweep over settings, the best first; the folder has its own report.html, and every number in sweep.csv. "
        "The best of many settings looks better than it is: score it on data that did not choose it.",
        (long long)rows);
    for (int64_t r = 0; r < rows; r++)
        if (!seen_before(&s, r)) LAM_TRY_GOTO(one_result(page, &s, r, input->label), done);
done:
    if (s.settings) lam_free_texts(s.settings, rows);
    lam_free(s.labels);
    lam_table_free(table);
    return status;
}
