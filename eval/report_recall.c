/* Recall of known relationships, of all results together, and the paired comparisons of maps. */
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "eval/report_parts.h"

#define MOST 256

/* ---- columns ---- */

bool lam_report_tails(const lam_table *scores, lam_report_tail *tail) {
    static const char start[] = "recall_";
    bool found = false;
    for (int c = 0; c < lam_table_columns(scores); c++) {
        const char *name = lam_table_name(scores, c), *digits = name + sizeof start - 1;
        char *end;
        if (strncmp(name, start, sizeof start - 1) != 0) continue;
        double low = strtod(digits, &end);
        if (end == digits || *end != '_') continue; /* recall_left_..., recall_low_... */
        const char *second = end + 1;
        double high = strtod(second, &end);
        if (end == second || *end) continue;
        bool usual = !strcmp(digits, "0.05_0.95");
        if (found && !usual) continue;
        *tail = (lam_report_tail){.low = low, .high = high};
        snprintf(tail->name, sizeof tail->name, "%s", digits);
        snprintf(tail->left, sizeof tail->left, "%.*s", (int)(second - 1 - digits), digits);
        snprintf(tail->right, sizeof tail->right, "%s", second);
        found = true;
    }
    return found;
}

/* ---- recall ---- */

typedef struct recall_rows {
    const char *labels[MOST];
    char *sources[MOST];
    double values[MOST], low[MOST], high[MOST], p[MOST];
    int count;
    lam_report_tail tail;
} recall_rows;

static lam_status add_scores(const lam_report_input *input, const lam_table *table, recall_rows *rows) {
    lam_report_tail tail;
    int source;
    LAM_TRY(lam_table_require(table, "source", &source));
    LAM_REQUIRE(lam_report_tails(table, &tail), LAM_ERROR_FORMAT,
                "%s: has no column of recall, such as recall_0.05_0.95", lam_table_path(table));
    LAM_REQUIRE(!rows->count || !strcmp(tail.name, rows->tail.name), LAM_ERROR_INPUT,
                "%s: has recall_%s, the results before it recall_%s: score all with the same --thresholds",
                lam_table_path(table), tail.name, rows->tail.name);
    rows->tail = tail;
    for (int64_t r = 0; r < lam_table_rows(table); r++) {
        LAM_REQUIRE(rows->count < MOST, LAM_ERROR_INPUT,
                    "%s: more than %d scores in one report: give fewer results", lam_table_path(table), MOST);
        int at = rows->count;
        rows->labels[at] = input->label;
        LAM_TRY(lam_text_copy(&rows->sources[at], lam_table_cell(table, r, source)));
        rows->count++;
        rows->values[at] = lam_report_named(table, r, "recall_", tail.name);
        rows->low[at] = lam_report_named(table, r, "recall_low_", tail.name);
        rows->high[at] = lam_report_named(table, r, "recall_high_", tail.name);
        rows->p[at] = lam_report_named(table, r, "p_permutation_", tail.name);
        LAM_REQUIRE(isfinite(rows->values[at]), LAM_ERROR_FORMAT, "%s: line %lld has no number in recall_%s",
                    lam_table_path(table), (long long)lam_table_line(table, r), tail.name);
    }
    return LAM_OK;
}

/* A folder with a comparison repeats the scores of its first map: they are drawn only where no other folder has them. */
static lam_status gather_recall(const lam_report_input *inputs, int count, recall_rows *rows) {
    lam_report_kind wanted =
        lam_report_any(inputs, count, LAM_REPORT_RELATE) ? LAM_REPORT_RELATE : LAM_REPORT_AGAINST;
    for (int i = 0; i < count; i++) {
        if (inputs[i].kind != wanted) continue;
        lam_table *table;
        LAM_TRY(lam_report_read(&inputs[i], "scores.csv", &table));
        lam_status status = add_scores(&inputs[i], table, rows);
        lam_table_free(table);
        LAM_TRY(status);
    }
    return LAM_OK;
}

/* The results of one source. */
typedef struct one_source {
    const char *labels[MOST];
    double values[MOST], low[MOST], high[MOST], p[MOST];
    int64_t count;
} one_source;

/* One sentence: the results from the best down, with their p values where permutations made them. */
static void ranking(lam_page *page, const char *source, const one_source *s, double chance) {
    bool told[MOST] = {false}, tested = false;
    char text[3000];
    size_t length = 0;
    text[0] = 0;
    for (int64_t place = 0; place < s->count; place++) {
        int64_t best = -1;
        char p[32] = "";
        for (int64_t i = 0; i < s->count; i++)
            if (!told[i] && (best < 0 || s->values[i] > s->values[best])) best = i;
        told[best] = true;
        if (isfinite(s->p[best])) snprintf(p, sizeof p, " (p %.2g)", s->p[best]);
        tested = tested || *p;
        int written = snprintf(text + length, sizeof text - length, "%s%s %.1f %%%s", place ? ", " : "",
                               s->labels[best], 100 * s->values[best], p);
        if (written < 0 || (size_t)written >= sizeof text - length) break; /* the chart holds the rest */
        length += (size_t)written;
    }
    if (s->count > 1 || tested)
        lam_page_paragraph(page, "%s%s: %s; chance is %.3g %%.%s", source,
                           s->count > 1 ? ", from the best down" : "", text, 100 * chance,
                           tested ? " p: how often the genes' names, shuffled, reach this recall." : "");
}

static void draw_recall(lam_page *page, const recall_rows *rows, one_source *s) {
    bool seen[MOST] = {false};
    double chance = rows->tail.low + 1 - rows->tail.high;
    for (int first = 0; first < rows->count; first++) {
        if (seen[first]) continue;
        s->count = 0;
        for (int i = first; i < rows->count; i++) {
            if (strcmp(rows->sources[i], rows->sources[first]) != 0) continue;
            int64_t n = s->count++;
            seen[i] = true;
            s->labels[n] = rows->labels[i];
            s->values[n] = rows->values[i];
            s->low[n] = rows->low[i];
            s->high[n] = rows->high[i];
            s->p[n] = rows->p[i];
        }
        ranking(page, rows->sources[first], s, chance);
        char title[256], axis[120];
        snprintf(title, sizeof title, "Recall of known relationships: %s", rows->sources[first]);
        snprintf(axis, sizeof axis, "recall of pairs below the %g or above the %g quantile", rows->tail.low,
                 rows->tail.high);
        lam_bars bars = {title, axis, s->count, s->labels, s->values, s->low, s->high, chance, "chance"};
        lam_page_bars(page, &bars);
    }
}

lam_status lam_report_recall(lam_page *page, const lam_report_input *inputs, int count) {
    recall_rows *rows;
    one_source *one = NULL;
    LAM_TRY(lam_alloc((void **)&rows, sizeof *rows));
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_alloc((void **)&one, sizeof *one), done);
    LAM_TRY_GOTO(gather_recall(inputs, count, rows), done);
    if (rows->count) {
        bool whiskers = false;
        for (int i = 0; i < rows->count; i++) whiskers = whiskers || isfinite(rows->low[i]);
        lam_page_heading(page, "Known relationships recovered");
        lam_page_paragraph(
            page,
            "A pair of genes counts as recovered where its cosine lies in the lowest %g %% or highest %g %% of all pairs of the map.%s",
            100 * rows->tail.low, 100 * (1 - rows->tail.high),
            whiskers ? " Bars show the recall, whiskers the 95 % interval of a bootstrap over genes." : "");
        draw_recall(page, rows, one);
    }
done:
    for (int i = 0; i < rows->count; i++) lam_free(rows->sources[i]);
    lam_free(rows);
    lam_free(one);
    return status;
}

/* ---- two maps ---- */

/* Differences of one comparison, a bar a source. */
static lam_status draw_differences(lam_page *page, const char *label, const lam_table *table, int source) {
    int64_t n = lam_table_rows(table);
    const char **labels = NULL;
    double *values = NULL;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_alloc_array((void **)&labels, n, sizeof *labels), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&values, 3 * n, sizeof *values), done);
    for (int64_t r = 0; r < n; r++) {
        labels[r] = source >= 0 ? lam_table_cell(table, r, source) : "all";
        values[r] = lam_report_number(table, r, "difference");
        values[n + r] = lam_report_number(table, r, "low");
        values[2 * n + r] = lam_report_number(table, r, "high");
    }
    char title[300];
    snprintf(title, sizeof title, "Difference of recall: the first map minus %s", label);
    lam_bars bars = {title,      "difference of recall", n, labels,         values,
                     values + n, values + 2 * n,         0, "no difference"};
    lam_page_bars(page, &bars);
done:
    lam_free(labels);
    lam_free(values);
    return status;
}

lam_status lam_report_against(lam_page *page, const lam_report_input *inputs, int count) {
    bool headed = false;
    for (int i = 0; i < count; i++) {
        if (inputs[i].kind != LAM_REPORT_AGAINST) continue;
        lam_table *table;
        LAM_TRY(lam_report_read(&inputs[i], "against.csv", &table));
        int source = lam_table_column(table, "source");
        if (!headed) lam_page_heading(page, "Paired comparison");
        headed = true;
        for (int64_t r = 0; r < lam_table_rows(table); r++) {
            double difference = lam_report_number(table, r, "difference"),
                   low = lam_report_number(table, r, "low"), high = lam_report_number(table, r, "high");
            const char *verdict = low > 0 ? "above it" : high < 0 ? "below it" : "not told apart from it";
            lam_page_verdict(
                page,
                "%s: recall %.3f, that of %s %.3f; difference %+.3f (95 %% interval %+.3f to %+.3f): %s.",
                source >= 0 ? lam_table_cell(table, r, source) : "all", lam_report_number(table, r, "recall"),
                inputs[i].label, lam_report_number(table, r, "recall_other"), difference, low, high, verdict);
        }
        lam_status status = draw_differences(page, inputs[i].label, table, source);
        lam_table_free(table);
        LAM_TRY(status);
    }
    return LAM_OK;
}
