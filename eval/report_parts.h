/* The sections of a report: report.c (inputs), report_sections.c (runs), report_tables.c (records of a run), report_recall.c (recall
 * of all results), report_results.c (relate, consistency), report_retrieve.c, report_probe.c,
 * report_draw.c (what they share), report_sweep.c, report_map.c (maps). */
#ifndef LAMELLA_EVAL_REPORT_PARTS_H
#define LAMELLA_EVAL_REPORT_PARTS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/page.h"
#include "base/status.h"
#include "base/table.h"
#include "eval/tsne.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum lam_report_kind {
    LAM_REPORT_RUN,         /* a run folder: metrics.jsonl */
    LAM_REPORT_RELATE,      /* scores.csv of relate */
    LAM_REPORT_AGAINST,     /* against.csv */
    LAM_REPORT_PROBE,       /* confusion.csv or ridge.csv */
    LAM_REPORT_RETRIEVE,    /* average_precision.csv, matching.csv or compound_gene.csv */
    LAM_REPORT_SWEEP,       /* sweep.csv */
    LAM_REPORT_CONSISTENCY, /* consistency.csv */
    LAM_REPORT_MAP,         /* an embedding file */
    LAM_REPORT_PICTURE,     /* a PNG */
    LAM_REPORT_TIMINGS      /* a table of stage and seconds */
} lam_report_kind;

typedef struct lam_report_input {
    char *label;
    const char *path;
    lam_report_kind kind;
} lam_report_input;

bool lam_report_any(const lam_report_input *inputs, int count, lam_report_kind kind);

/* Of all inputs together: the recall of known relationships; the paired comparisons. */
lam_status lam_report_recall(lam_page *page, const lam_report_input *inputs, int count);
lam_status lam_report_against(lam_page *page, const lam_report_input *inputs, int count);
/* The same, what relate wrote: distributions, arms, clusters, neighbours, enrichment; files that are not there are
 * left out. What a comparison holds is of its first map: beside other results it is not headed by its label, which
 * names the other map, and distributions that one of them has as well are drawn there alone. */
lam_status lam_report_relate(lam_page *page, const lam_report_input *inputs, int count);

lam_status lam_report_run(lam_page *page, const lam_report_input *input);
/* A record without a step (one line of metrics.jsonl): its memory and time tables, where it holds them; the times are those of the
 * steps `first` to `last` (0: not known). */
lam_status lam_report_record(lam_page *page, const char *text, const char *path, int64_t first, int64_t last);
lam_status lam_report_probe(lam_page *page, const lam_report_input *input);
lam_status lam_report_retrieve(lam_page *page, const lam_report_input *input);
lam_status lam_report_sweep(lam_page *page, const lam_report_input *input);
lam_status lam_report_consistency(lam_page *page, const lam_report_input *input);

typedef struct lam_report_maps {
    const char *pathways, *colour; /* a table; a column of the map; or NULL */
    bool plane, tsne;              /* which pictures */
    bool asked;                    /* the pictures were asked for: no limit of rows */
    lam_tsne_options how;
    char **genes; /* [gene_count] of the heat map; NULL: the largest pathways */
    int64_t gene_count;
} lam_report_maps;
lam_status lam_report_map(lam_page *page, const lam_report_input *input, const lam_report_maps *maps);
/* Names from "A,B,C" or from a file, one a line; both NULL: none. Each once; at least 2 (LAM_ERROR_USAGE, LAM_ERROR_INPUT). */
lam_status lam_report_genes(const char *list, const char *file, char ***genes, int64_t *count);

/* A table of the input's folder. */
lam_status lam_report_read(const lam_report_input *input, const char *file, lam_table **table);
/* The same where the file exists, else *table is NULL. */
lam_status lam_report_read_present(const lam_report_input *input, const char *file, lam_table **table);
/* NaN where the column or a number is missing. */
double lam_report_number(const lam_table *table, int64_t row, const char *column);
/* The number in the column that is called prefix and then name. */
double lam_report_named(const lam_table *table, int64_t row, const char *prefix, const char *name);

/* Thresholds of recall as the columns of scores.csv name them: recall_0.05_0.95, cut_left_0.05, cut_right_0.95. */
typedef struct lam_report_tail {
    char name[64], left[32], right[32]; /* "0.05_0.95", "0.05", "0.95" */
    double low, high;
} lam_report_tail;
/* .05/.95 where the table has it, else its first; false: none. */
bool lam_report_tails(const lam_table *scores, lam_report_tail *tail);

/* Rows of a table sorted by a column, greatest first: bars of all where they are few, else of the best and of the worst.
 * labels [rows], NULL: left out; deviation: a column, the interval is the value minus and plus it, or NULL.
 * Rows without a number are left out. */
typedef struct lam_report_ranking {
    const char *title, *axis, *column, *deviation;
    double reference; /* NaN: none */
    const char *reference_label;
} lam_report_ranking;
lam_status lam_report_ranked(lam_page *page, const lam_table *table, int64_t rows, const char *const *labels,
                             const lam_report_ranking *how);
/* label in the first column, one column a label, counts; drawn as shares of a row, the most frequent errors where there
 * are too many labels. `other`: what the columns are. */
lam_status lam_report_confusion(lam_page *page, const char *title, const char *other, const lam_table *table);
/* "What: label" as a heading. */
void lam_report_heading(lam_page *page, const char *what, const lam_report_input *input);
/* The first `most` rows of a table. */
lam_status lam_report_table(lam_page *page, const char *title, const lam_table *table, int64_t most);

#ifdef __cplusplus
}
#endif
#endif
