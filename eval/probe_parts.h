/* Between the sources of `lamella probe`: what was asked for, how it went, the files. */
#ifndef LAMELLA_EVAL_PROBE_PARTS_H
#define LAMELLA_EVAL_PROBE_PARTS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/cli.h"
#include "base/embeddings.h"
#include "base/status.h"
#include "eval/classify.h"
#include "eval/folds.h"
#include "eval/regress.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lam_probe_settings {
    const char *path, *label, *group; /* group: NULL where rows stand alone */
    bool ridge, leave_one_out;
    lam_classifier classifier;
    double *c, *alpha, *shares; /* shares of the learning curve, rising */
    int64_t c_count, alpha_count, share_count;
} lam_probe_settings;

/* The rows that every block is scored on. */
typedef struct lam_probe_rows {
    lam_design design;
    int64_t *label, *group, *fold;
    const char **class_names,
        **group_names; /* class_names NULL for ridge, group_names where rows stand alone */
    double *y;         /* ridge: [n, targets] */
    const char **target_names;
    lam_targets targets;
} lam_probe_rows;

/* The matrices of the file, one in memory at a time. {.count = 1}: the one that --key says. */
typedef struct lam_probe_blocks {
    char **names;      /* as in obsm, or NULL */
    int64_t count, at; /* at: which one is in memory */
    lam_embeddings *e; /* all its rows */
    int64_t *rows;     /* those that are scored */
    lam_table *obs;    /* of these */
} lam_probe_blocks;

/* Block i into b->e, unless it is there. */
lam_status lam_probe_block_read(lam_probe_blocks *b, const lam_arguments *arguments, int64_t i);
/* The rows that have a label and, in every block, features, so that all blocks are scored on the same rows and folds. */
lam_status lam_probe_rows_choose(lam_probe_blocks *b, const lam_arguments *arguments,
                                 const lam_probe_settings *settings, lam_probe_rows *rows);
void lam_probe_blocks_close(lam_probe_blocks *b);
void lam_probe_rows_close(lam_probe_rows *rows);

/* One block (a matrix of the file): share 1, then the learning curve. */
typedef struct lam_probe_outcome {
    const char *block;
    int64_t columns;
    lam_fold_score *scores;    /* [folds] */
    lam_fold_score *curve;     /* [shares, folds] */
    int64_t *predicted;        /* [n], classification */
    lam_regression regression; /* ridge */
} lam_probe_outcome;

/* Mean and standard deviation (divisor n - 1) over the folds where the score is defined; NaN of none, of one. */
void lam_probe_summary(const lam_fold_score *scores, int64_t folds, double *mean, double *deviation);
/* The median of those that are not NaN; NaN of none. */
lam_status lam_probe_median(const double *values, int64_t count, double *median);
/* Ridge: the median over the columns of their mean R^2 over the folds, as the last row of ridge.csv of that block. */
lam_status lam_probe_median_r2(const lam_probe_rows *rows, const lam_probe_outcome *outcome, double *median);

/* scores.csv; confusion.csv or ridge.csv; blocks.csv of a sweep; curve.csv of a learning curve. `best`: which outcome
 * confusion.csv is of. */
lam_status lam_probe_write(const char *out, const lam_probe_settings *settings, const lam_probe_rows *rows,
                           const lam_probe_outcome *outcomes, int64_t count, bool sweep, int64_t best);
/* The same numbers on standard output. */
lam_status lam_probe_print(const lam_probe_settings *settings, const lam_probe_rows *rows,
                           const lam_probe_outcome *outcomes, int64_t count, bool sweep, int64_t best);

#ifdef __cplusplus
}
#endif
#endif
