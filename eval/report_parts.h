/* The sections of a report: report.c (inputs, recall), report_sections.c (runs, probes), report_tables.c (records of a run),
 * report_results.c (relate, consistency), report_map.c (maps). */
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
    LAM_REPORT_PROBE,       /* confusion.csv */
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

lam_status lam_report_run(lam_page *page, const lam_report_input *input);
/* A record without a step (one line of metrics.jsonl): its memory and time tables, where it holds them. */
lam_status lam_report_record(lam_page *page, const char *text, size_t size, const char *path);
lam_status lam_report_probe(lam_page *page, const lam_report_input *input);
/* Distributions, clusters, neighbours; files that are not there are left out. */
lam_status lam_report_relate(lam_page *page, const lam_report_input *input);
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
/* The first `most` rows of a table. */
lam_status lam_report_table(lam_page *page, const char *title, const lam_table *table, int64_t most);

#ifdef __cplusplus
}
#endif
#endif
