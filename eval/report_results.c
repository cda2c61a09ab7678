/* What `relate` and `consistency` wrote: distributions, clusters, neighbours, replicates. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/files.h"
#include "base/memory.h"
#include "eval/report_parts.h"

#define BINS 400
#define TABLE_ROWS 50
#define NEAREST 10
#define SIGNIFICANT 0.05 /* false discovery rate */

/* ---- distributions ---- */

typedef struct histogram {
    int64_t bins;
    double middle[BINS], null_share[BINS], query_share[BINS];
} histogram;

/* The rows of one source from `start` on, as shares; returns the row behind them. */
static int64_t read_histogram(const lam_table *table, int source, int64_t start, histogram *h) {
    double null_total = 0, query_total = 0;
    const char *name = lam_table_cell(table, start, source);
    int64_t end = start;
    h->bins = 0;
    for (; end < lam_table_rows(table) && h->bins < BINS && !strcmp(lam_table_cell(table, end, source), name);
         end++) {
        int64_t i = h->bins++;
        h->middle[i] =
            (lam_report_number(table, end, "bin_low") + lam_report_number(table, end, "bin_high")) / 2;
        null_total += h->null_share[i] = lam_report_number(table, end, "null_count");
        query_total += h->query_share[i] = lam_report_number(table, end, "query_count");
    }
    for (int64_t i = 0; i < h->bins; i++) {
        h->null_share[i] /= null_total > 0 ? null_total : 1;
        h->query_share[i] /= query_total > 0 ? query_total : 1;
    }
    return end;
}

static void draw_histogram(lam_page *page, const char *label, const char *name, const histogram *h,
                           const lam_guide cuts[2]) {
    int64_t from = 0, to = h->bins; /* without the empty bins at both ends */
    while (from + 1 < to && !(h->null_share[from] > 0) && !(h->query_share[from] > 0)) from++;
    while (to - 1 > from && !(h->null_share[to - 1] > 0) && !(h->query_share[to - 1] > 0)) to--;
    lam_series series[2] = {{"all pairs", to - from, h->middle + from, h->null_share + from},
                            {"known pairs", to - from, h->middle + from, h->query_share + from}};
    char title[300];
    snprintf(title, sizeof title, "Cosines of %s: %s", label, name);
    lam_page_lines_guided(page, title, "cosine similarity", "share of pairs", 2, series, 2, cuts);
}

static lam_status distributions(lam_page *page, const lam_report_input *input, const lam_table *table) {
    int source, of;
    histogram *h = NULL;
    lam_table *scores;
    lam_report_tail tail = {0};
    LAM_TRY(lam_report_read(input, "scores.csv", &scores)); /* where the tails begin, exactly */
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_table_require(table, "source", &source), done);
    LAM_TRY_GOTO(lam_table_require(scores, "source", &of), done);
    LAM_TRY_GOTO(lam_alloc((void **)&h, sizeof *h), done);
    lam_report_tails(scores, &tail);
    lam_report_heading(page, "Distributions of cosines", input);
    lam_page_paragraph(
        page,
        "Known pairs that lie apart from all pairs, on either side, are what recall counts: those outside the dashed "
        "lines, beyond which %g %% of all pairs lie on the left and %g %% on the right.",
        100 * tail.low, 100 * (1 - tail.high));
    char labels[2][40];
    snprintf(labels[0], sizeof labels[0], "lowest %g %%", 100 * tail.low);
    snprintf(labels[1], sizeof labels[1], "highest %g %%", 100 * (1 - tail.high));
    for (int64_t start = 0; start < lam_table_rows(table);) {
        const char *name = lam_table_cell(table, start, source);
        lam_guide cuts[2] = {{(double)NAN, labels[0]}, {(double)NAN, labels[1]}};
        for (int64_t r = 0; r < lam_table_rows(scores); r++) {
            if (strcmp(lam_table_cell(scores, r, of), name) != 0) continue;
            cuts[0].value = lam_report_named(scores, r, "cut_left_", tail.left);
            cuts[1].value = lam_report_named(scores, r, "cut_right_", tail.right);
        }
        LAM_REQUIRE_GOTO(isfinite(cuts[0].value) && isfinite(cuts[1].value), done, LAM_ERROR_FORMAT,
                         "%s: has no cut_left_%s and cut_right_%s of '%s': run relate again",
                         lam_table_path(scores), tail.left, tail.right, name);
        start = read_histogram(table, source, start, h);
        draw_histogram(page, input->label, name, h, cuts);
    }
done:
    lam_free(h);
    lam_table_free(scores);
    return status;
}

/* ---- chromosome arms ---- */

/* A bar a stratum of each source, and one of all pairs of that stratum. */
static lam_status arms(lam_page *page, const lam_report_input *input, const lam_table *table) {
    int source, stratum;
    lam_report_tail tail;
    LAM_TRY(lam_table_require(table, "source", &source));
    LAM_TRY(lam_table_require(table, "stratum", &stratum));
    LAM_REQUIRE(lam_report_tails(table, &tail), LAM_ERROR_FORMAT, "%s: has no column of recall",
                lam_table_path(table));
    lam_report_heading(page, "Chromosome arms", input);
    lam_page_paragraph(
        page,
        "Recall of known pairs on one chromosome arm and on two, beside the share of all such pairs that lie in the same tails. "
        "Where all pairs on one arm are beyond chance, the map holds the effect of cutting a chromosome (proximity bias).");
    for (int64_t start = 0, end; start < lam_table_rows(table); start = end) {
        const char *name = lam_table_cell(table, start, source), *labels[8];
        char text[8][64], title[300];
        double values[8];
        int64_t n = 0;
        for (end = start; end < lam_table_rows(table) && !strcmp(lam_table_cell(table, end, source), name);
             end++)
            for (int k = 0; k < 2 && n < 8; k++, n++) {
                bool within = !strcmp(lam_table_cell(table, end, stratum), "within_arm");
                snprintf(text[n], sizeof text[n], "%s, %s", within ? "one arm" : "two arms",
                         k ? "all pairs" : "known");
                labels[n] = text[n];
                values[n] = lam_report_named(table, end, k ? "null_" : "recall_", tail.name);
            }
        snprintf(title, sizeof title, "Pairs on one chromosome arm and on two, %s: %s", name, input->label);
        lam_bars bars = {title, "share of pairs in the tails", n,       labels, values, NULL,
                         NULL,  tail.low + 1 - tail.high,      "chance"};
        lam_page_bars(page, &bars);
    }
    return LAM_OK;
}

/* ---- clusters and neighbours ---- */

static lam_status clusters(lam_page *page, const lam_report_input *input, const lam_table *table) {
    lam_report_heading(page, "Clusters of genes", input);
    lam_page_paragraph(
        page,
        "Cosines within a known complex or pathway against those between it and the other genes, by the tests of "
        "Kolmogorov and Smirnov (ks) and of Cramer and von Mises (cvm); p values are of single tests, ks_q at a false discovery rate over all clusters.");
    if (lam_table_rows(table) > TABLE_ROWS)
        lam_page_paragraph(page, "The first %d of %lld clusters; clusters.csv has them all.", TABLE_ROWS,
                           (long long)lam_table_rows(table));
    return lam_report_table(page, "Clusters", table, TABLE_ROWS);
}

static lam_status neighbours(lam_page *page, const lam_report_input *input, const lam_table *table) {
    int query, neighbour, cosine;
    LAM_TRY(lam_table_require(table, "query", &query));
    LAM_TRY(lam_table_require(table, "neighbour", &neighbour));
    LAM_TRY(lam_table_require(table, "cosine", &cosine));
    enum { LENGTH = 800 };
    char(*lists)[LENGTH] = NULL;
    const char *cells[2 * TABLE_ROWS];
    int64_t queries = 0, end;
    LAM_TRY(lam_alloc_array((void **)&lists, TABLE_ROWS, sizeof *lists));
    for (int64_t start = 0; start < lam_table_rows(table) && queries < TABLE_ROWS; start = end) {
        const char *name = lam_table_cell(table, start, query);
        size_t length = 0;
        for (end = start; end < lam_table_rows(table) && !strcmp(lam_table_cell(table, end, query), name);
             end++) {
            if (end - start >= NEAREST || length >= LENGTH - 1) continue;
            int written =
                snprintf(lists[queries] + length, LENGTH - length, "%s%s (%.2f)", length ? ", " : "",
                         lam_table_cell(table, end, neighbour), lam_report_number(table, end, "cosine"));
            length += written > 0 ? (size_t)written : 0;
        }
        cells[2 * queries] = name;
        cells[2 * queries + 1] = lists[queries];
        queries++;
    }
    lam_report_heading(page, "Nearest neighbours", input);
    lam_page_paragraph(
        page,
        "Up to %d nearest rows and their cosines, of up to %d rows that were asked for; neighbours.csv has them all.",
        NEAREST, TABLE_ROWS);
    lam_page_table(page, "Neighbours", 2, (const char *[]){"row", "nearest first (cosine)"}, queries, cells);
    lam_free(lists);
    return LAM_OK;
}

static lam_status enrichment(lam_page *page, const lam_report_input *input, const lam_table *table) {
    lam_report_heading(page, "Sets of genes near the neighbours", input);
    lam_page_paragraph(
        page,
        "Known sets of genes among the nearest rows of those asked for: one-sided hypergeometric p, and p times the number of sets.%s",
        lam_table_rows(table) > TABLE_ROWS ? " The first rows; enrichment.csv has them all." : "");
    return lam_report_table(page, "Enrichment", table, TABLE_ROWS);
}

static lam_status draw_parts(lam_page *page, const lam_report_input *input, bool with_distributions) {
    static const struct {
        const char *file;
        lam_status (*draw)(lam_page *, const lam_report_input *, const lam_table *);
    } parts[] = {{"histogram.csv", distributions},
                 {"arms.csv", arms},
                 {"clusters.csv", clusters},
                 {"neighbours.csv", neighbours},
                 {"enrichment.csv", enrichment}};
    for (size_t k = with_distributions ? 0 : 1; k < sizeof parts / sizeof *parts; k++) {
        lam_table *table;
        LAM_TRY(lam_report_read_present(input, parts[k].file, &table));
        lam_status status = table ? parts[k].draw(page, input, table) : LAM_OK;
        lam_table_free(table);
        LAM_TRY(status);
    }
    return LAM_OK;
}

static lam_status read_histogram_file(const lam_report_input *input, char **bytes, size_t *size) {
    char *path = NULL;
    *bytes = NULL;
    *size = 0;
    LAM_TRY(lam_path_join(&path, input->path, "histogram.csv"));
    lam_status status = lam_path_exists(path) ? lam_file_read(path, bytes, size) : LAM_OK;
    lam_free(path);
    return status;
}

static lam_status same_histogram(const lam_report_input *a, const lam_report_input *b, bool *same) {
    char *mine = NULL, *theirs = NULL;
    size_t length = 0, other = 0;
    lam_status status = read_histogram_file(a, &mine, &length);
    if (status == LAM_OK) status = read_histogram_file(b, &theirs, &other);
    *same = mine && theirs && length == other && !memcmp(mine, theirs, length);
    lam_free(mine);
    lam_free(theirs);
    return status;
}

static lam_status compared(lam_page *page, const lam_report_input *inputs, int count, int at) {
    lam_report_input first = inputs[at];
    bool drawn = false;
    for (int i = 0; i < count && !drawn; i++)
        if (inputs[i].kind == LAM_REPORT_RELATE || (inputs[i].kind == LAM_REPORT_AGAINST && i < at))
            LAM_TRY(same_histogram(&inputs[i], &first, &drawn));
    LAM_TRY(lam_text_format(&first.label, "the first map, against %s", inputs[at].label));
    lam_status status = draw_parts(page, &first, !drawn);
    lam_free(first.label);
    return status;
}

lam_status lam_report_relate(lam_page *page, const lam_report_input *inputs, int count) {
    bool others = lam_report_any(inputs, count, LAM_REPORT_RELATE);
    for (int i = 0; i < count; i++)
        if (inputs[i].kind == (others ? LAM_REPORT_RELATE : LAM_REPORT_AGAINST))
            LAM_TRY(draw_parts(page, &inputs[i], true));
    for (int i = 0; others && i < count; i++)
        if (inputs[i].kind == LAM_REPORT_AGAINST) LAM_TRY(compared(page, inputs, count, i));
    return LAM_OK;
}

/* ---- replicates ---- */

typedef struct volcano_point {
    const char *name, *category;
    double x, y;
} volcano_point;

/* Names are written from the first on: the most significant first, among equals the largest. */
static int strongest_first(const void *a, const void *b) {
    const volcano_point *p = a, *q = b;
    if (p->y != q->y) return p->y > q->y ? -1 : 1;
    if (p->x != q->x) return p->x > q->x ? -1 : 1;
    return strcmp(p->name, q->name);
}

static lam_status volcano(lam_page *page, const lam_report_input *input, const lam_table *table,
                          const char *what) {
    static const char category[] = "q below 0.05";
    int name, at, p, q;
    char column[2][40], title[300], axis[80];
    snprintf(column[0], sizeof column[0], "%s_p", what);
    snprintf(column[1], sizeof column[1], "%s_q", what);
    LAM_TRY(lam_table_require(table, "perturbation", &name));
    LAM_TRY(lam_table_require(table, what, &at));
    LAM_TRY(lam_table_require(table, column[0], &p));
    LAM_TRY(lam_table_require(table, column[1], &q));
    int64_t rows = lam_table_rows(table), n = 0, significant = 0;
    if (rows && !strcmp(lam_table_cell(table, rows - 1, name), "summary")) rows--; /* means and shares */
    double least = 1, cut = 0;
    volcano_point *points = NULL;
    double *xy = NULL;
    const char **texts = NULL;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_alloc_array((void **)&points, rows, sizeof *points), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&xy, 2 * rows, sizeof *xy), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&texts, 2 * rows, sizeof *texts), done);
    for (int64_t r = 0; r < rows; r++) {
        double value = lam_report_number(table, r, column[0]);
        if (value > 0) least = fmin(least, value);
    }
    for (int64_t r = 0; r < rows; r++) {
        double x = lam_report_number(table, r, what), value = lam_report_number(table, r, column[0]),
               rate = lam_report_number(table, r, column[1]);
        if (isnan(x) || isnan(value)) continue; /* a single replicate */
        bool small = rate < SIGNIFICANT;
        points[n++] = (volcano_point){lam_table_cell(table, r, name), small ? category : "", x,
                                      fmax(0, -log10(fmax(value, least)))};
        significant += small;
        if (small) cut = fmax(cut, fmax(value, least));
    }
    if (!n) goto done;
    qsort(points, (size_t)n, sizeof *points, strongest_first);
    for (int64_t i = 0; i < n; i++) {
        xy[i] = points[i].x;
        xy[n + i] = points[i].y;
        texts[i] = points[i].name;
        texts[n + i] = points[i].category;
    }
    snprintf(title, sizeof title, "%c%s and significance: %s", what[0] - 'a' + 'A', what + 1, input->label);
    snprintf(axis, sizeof axis, "-log10 p of %s", what);
    lam_page_paragraph(page, "%s: %lld of %lld perturbations at a false discovery rate of 5 %%.", what,
                       (long long)significant, (long long)n);
    lam_guide guide = {significant ? -log10(cut) : (double)NAN, "q = 0.05"};
    lam_scatter scatter = {title, what, axis, n, xy, xy + n, texts, texts + n, true, significant ? 1 : 0,
                           &guide};
    lam_page_scatter(page, &scatter);
done:
    lam_free(points);
    lam_free(xy);
    lam_free(texts);
    return status;
}

lam_status lam_report_consistency(lam_page *page, const lam_report_input *input) {
    lam_table *table;
    LAM_TRY(lam_report_read(input, "consistency.csv", &table));
    lam_report_heading(page, "Replicates", input);
    lam_page_paragraph(
        page,
        "Each point is a perturbation; the named ones are significant, the strongest named first where names would "
        "cover each other.");
    lam_status status = volcano(page, input, table, "consistency");
    if (status == LAM_OK && lam_table_column(table, "magnitude") >= 0)
        status = volcano(page, input, table, "magnitude");
    lam_table_free(table);
    return status;
}
