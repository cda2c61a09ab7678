/* The sections of a report, shared by report.c and report_sections.c. */
#ifndef LAMELLA_EVAL_REPORT_PARTS_H
#define LAMELLA_EVAL_REPORT_PARTS_H

#include "base/page.h"
#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum lam_report_kind {
    LAM_REPORT_RUN,     /* a run folder: metrics.jsonl */
    LAM_REPORT_RELATE,  /* scores.csv of relate */
    LAM_REPORT_AGAINST, /* against.csv */
    LAM_REPORT_PROBE,   /* confusion.csv */
    LAM_REPORT_MAP,     /* an embedding file */
    LAM_REPORT_PICTURE, /* a PNG */
    LAM_REPORT_TIMINGS  /* a table of stage and seconds */
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
/* pathways: a table, or NULL; colour: a column of the map, or NULL. */
lam_status lam_report_map(lam_page *page, const lam_report_input *input, const char *pathways,
                          const char *colour);

#ifdef __cplusplus
}
#endif
#endif
