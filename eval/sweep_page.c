/* The page of a sweep: a chart of each result by what the settings scored, the best first, and its rows in numbers. */
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/files.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/page.h"
#include "eval/sweep_parts.h"

#define BARS 40 /* of a chart; sweep.csv holds all */

typedef struct bar {
    int64_t row; /* of the records */
    double value, low, high;
} bar;

/* One result of one command (relate has one for each source of relationships). */
typedef struct result {
    const char *command, *name, *key; /* key: the number that is shown */
    bar *bars;
    int64_t count, shown;
    const char **names, **cells; /* of the settings; cells [shown * columns] */
    bool *differs;
    int columns;
    char **labels; /* [shown] */
} result;

static const char *text_of(const lam_json *record, const char *key) {
    return lam_json_text(lam_json_get(record, key), "");
}

static bool is_of(const lam_json *record, const char *command, const char *name) {
    return !strcmp(text_of(record, "command"), command) && !strcmp(text_of(record, "name"), name);
}

static int best_first(const void *a, const void *b) {
    const bar *x = a, *y = b;
    if (x->value != y->value) return (x->value < y->value) - (x->value > y->value);
    return (x->row > y->row) - (x->row < y->row);
}

static const char *headline_of(const lam_json *record, const char *start) {
    for (const char *key = NULL; (key = lam_json_key_after(record, key));)
        if (!strncmp(key, start, strlen(start)) && lam_json_is_number(lam_json_get(record, key))) return key;
    return NULL;
}

static double beside(const lam_json *record, const char *key, const char *start, const char *which) {
    char name[256];
    snprintf(name, sizeof name, "%s%s_%s", start, which, key + strlen(start));
    return lam_json_float(lam_json_get(record, name), NAN);
}

static lam_status choose_rows(result *o, const lam_json *records) {
    const char *start = lam_sweep_headline(o->command);
    int64_t all = (int64_t)lam_json_size(records);
    LAM_TRY(lam_alloc_array((void **)&o->bars, all, sizeof *o->bars));
    for (int64_t r = 0; r < all && start; r++) {
        const lam_json *record = lam_json_at(records, (size_t)r);
        if (!is_of(record, o->command, o->name)) continue;
        if (!o->key) o->key = headline_of(record, start);
        if (!o->key) continue;
        o->bars[o->count++] =
            (bar){r, lam_json_float(lam_json_get(record, o->key), NAN), beside(record, o->key, start, "low"),
                  beside(record, o->key, start, "high")};
    }
    if (o->count) qsort(o->bars, (size_t)o->count, sizeof *o->bars, best_first);
    o->shown = o->count < BARS ? o->count : BARS;
    return LAM_OK;
}

static lam_status name_rows(result *o, const lam_json *records) {
    int64_t fields = (int64_t)lam_json_size(lam_json_at(records, 0));
    LAM_TRY(lam_alloc_array((void **)&o->names, fields, sizeof *o->names));
    bool after_run = false;
    for (const char *key = NULL; (key = lam_json_key_after(lam_json_at(records, 0), key));) {
        if (!strcmp(key, "name")) break;
        if (after_run) o->names[o->columns++] = key;
        after_run = after_run || !strcmp(key, "run");
    }
    LAM_TRY(lam_alloc_array((void **)&o->differs, o->columns, sizeof *o->differs));
    LAM_TRY(lam_alloc_array((void **)&o->cells, o->shown * o->columns, sizeof *o->cells));
    for (int64_t k = 0; k < o->shown; k++)
        for (int c = 0; c < o->columns; c++)
            o->cells[k * o->columns + c] = text_of(lam_json_at(records, (size_t)o->bars[k].row), o->names[c]);
    LAM_TRY(lam_sweep_shorten(o->cells, o->shown, o->columns, o->differs));
    LAM_TRY(lam_alloc_array((void **)&o->labels, o->shown, sizeof *o->labels));
    for (int64_t k = 0; k < o->shown; k++)
        LAM_TRY(lam_sweep_label(o->names, o->cells + k * o->columns, o->differs, o->columns,
                                text_of(lam_json_at(records, (size_t)o->bars[k].row), "run"), &o->labels[k]));
    return LAM_OK;
}

static lam_status put_table(lam_page *page, const result *o, const lam_json *records, const char *title) {
    enum { NUMBERS = 3 };
    char(*numbers)[NUMBERS][32] = NULL;
    const char **names = NULL, **cells = NULL;
    bool interval = false;
    int columns = 0;
    int64_t n = 0;
    lam_status status = LAM_OK;
    for (int64_t k = 0; k < o->shown; k++) interval = interval || isfinite(o->bars[k].low);
    LAM_TRY_GOTO(lam_alloc_array((void **)&numbers, o->shown, sizeof *numbers), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&names, o->columns + 1 + NUMBERS, sizeof *names), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&cells, o->shown * (o->columns + 1 + NUMBERS), sizeof *cells),
                 done);
    names[columns++] = "run";
    for (int c = 0; c < o->columns; c++)
        if (o->differs[c]) names[columns++] = o->names[c];
    names[columns++] = o->key;
    if (interval) names[columns++] = "low", names[columns++] = "high";
    for (int64_t k = 0; k < o->shown; k++) {
        const double values[NUMBERS] = {o->bars[k].value, o->bars[k].low, o->bars[k].high};
        cells[n++] = text_of(lam_json_at(records, (size_t)o->bars[k].row), "run");
        for (int c = 0; c < o->columns; c++)
            if (o->differs[c]) cells[n++] = o->cells[k * o->columns + c];
        for (int v = 0; v < (interval ? NUMBERS : 1); v++) {
            if (!isnan(values[v])) snprintf(numbers[k][v], sizeof numbers[k][v], "%.17g", values[v]);
            cells[n++] = numbers[k][v];
        }
    }
    lam_page_table(page, title, columns, names, o->shown, cells);
done:
    lam_free(numbers);
    lam_free(names);
    lam_free(cells);
    return status;
}

static lam_status put_chart(lam_page *page, const result *o, const lam_json *records) {
    double values[BARS], low[BARS], high[BARS];
    const char *labels[BARS];
    char title[256], below[280];
    for (int64_t k = 0; k < o->shown; k++) {
        labels[k] = o->labels[k];
        values[k] = o->bars[k].value, low[k] = o->bars[k].low, high[k] = o->bars[k].high;
    }
    snprintf(title, sizeof title, "%s%s%s%s", o->command, *o->name ? ": " : "", o->name,
             o->count > o->shown ? ", the best" : "");
    lam_bars chart = {title, o->key, o->shown, labels, values, low, high, NAN, NULL};
    lam_page_bars(page, &chart);
    snprintf(below, sizeof below, "%s, in numbers", title);
    LAM_TRY(put_table(page, o, records, below));
    lam_log_info("sweep: %s%s%s: best %s %.4g: %s", o->command, *o->name ? " " : "", o->name, o->key,
                 values[0], labels[0]);
    return LAM_OK;
}

static lam_status put_result(lam_page *page, const lam_json *records, const char *command, const char *name) {
    result o = {.command = command, .name = name};
    lam_status status = choose_rows(&o, records);
    if (status == LAM_OK && o.shown) status = name_rows(&o, records);
    if (status == LAM_OK && o.shown) status = put_chart(page, &o, records);
    for (int64_t k = 0; o.labels && k < o.shown; k++) lam_free(o.labels[k]);
    lam_free(o.labels);
    lam_free(o.cells);
    lam_free(o.differs);
    lam_free(o.names);
    lam_free(o.bars);
    return status;
}

/* Records of one command stand together. */
static lam_status put_results(lam_page *page, const lam_json *records) {
    const char *headed = "";
    for (size_t r = 0; r < lam_json_size(records); r++) {
        const char *command = text_of(lam_json_at(records, r), "command"),
                   *name = text_of(lam_json_at(records, r), "name");
        bool first = true;
        for (size_t before = 0; before < r && first; before++)
            first = !is_of(lam_json_at(records, before), command, name);
        if (!first) continue;
        if (strcmp(headed, command) != 0) lam_page_heading(page, command);
        headed = command;
        LAM_TRY(put_result(page, records, command, name));
    }
    return LAM_OK;
}

lam_status lam_sweep_page_write(const char *out, const char *source, int runs, const lam_json *records) {
    char *path = NULL, *data = NULL;
    lam_page *page = NULL;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_path_join(&path, out, "report.html"), done);
    LAM_TRY_GOTO(lam_path_join(&data, out, "report_data"), done);
    LAM_TRY_GOTO(lam_page_create(&page, "lamella: sweep", data), done);
    lam_page_paragraph(page, "%d runs of %s; every number is in sweep.csv.", runs, source);
    LAM_TRY_GOTO(put_results(page, records), done);
    status = lam_page_write(&page, path);
done:
    lam_page_free(&page);
    lam_free(data);
    lam_free(path);
    return status;
}
