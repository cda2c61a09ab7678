/* The parts of `lamella retrieve`, and what they share: columns by name, roles of rows, merged rows, result tables. */
#ifndef LAMELLA_EVAL_RETRIEVE_PARTS_H
#define LAMELLA_EVAL_RETRIEVE_PARTS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/cli.h"
#include "base/embeddings.h"
#include "base/json.h"
#include "base/status.h"
#include "base/table.h"
#include "eval/average_precision.h"
#include "eval/cosine.h"
#include "eval/rules.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Tables wait until every part is done: what fails leaves nothing behind. */
typedef struct lam_results {
    const char *names[5];
    lam_table *tables[5];
    int count;
} lam_results;

/* What all parts read. */
typedef struct lam_retrieve {
    const lam_arguments *arguments;
    const char *path;
    const lam_embeddings *e;
    const bool *controls; /* [rows of e] */
    bool centred;         /* correlation in place of cosine */
    lam_ties ties;
    uint64_t seed;
    lam_results *results;
} lam_retrieve;

/* ---- columns ---- */

typedef struct lam_columns {
    int at[LAM_RULE_COLUMNS], count;
} lam_columns;

/* "A,B": each column must be there; NULL and "" are none. `option` names it in messages. */
lam_status lam_columns_find(const lam_table *table, const char *option, const char *text, lam_columns *out);
bool lam_columns_share(const lam_columns *a, const lam_columns *b);

/* A rule with the codes that it looks at. */
typedef struct lam_column_rule {
    lam_rule rule;
    int64_t *codes[LAM_RULE_COLUMNS + 1];
} lam_column_rule;
lam_status lam_column_rule_make(lam_column_rule *out, const lam_table *obs, const lam_columns *same,
                                const lam_columns *different);
void lam_column_rule_free(lam_column_rule *rule);

/* ---- rows ---- */

/* Directions of all rows, of the rows minus their mean where `centred`. A row that is not finite, or zero, has none: it
 * gets some direction and usable[i] = false; one line says how many. */
typedef struct lam_space {
    lam_directions u;
    bool *usable; /* [rows] */
} lam_space;
lam_status lam_space_make(lam_space *out, const lam_embeddings *e, bool centred);
void lam_space_free(lam_space *space);

bool lam_row_is_finite(const lam_embeddings *e, int64_t row);
/* The rows of each code become one (mean, or median of each feature), -1: left out. Every code has a row, and all rows
 * that have one are finite. A metadata cell stays where its rows agree and is empty otherwise; the index of the first
 * row stays. The caller frees it with lam_embeddings_free. */
lam_status lam_rows_merge(const lam_embeddings *e, const int64_t *codes, int64_t levels, bool median,
                          lam_embeddings **out);

/* ---- results ---- */

/* Missing numbers (NaN) are empty cells. */
lam_status lam_result_number(lam_table *table, int64_t row, int column, double value);
lam_status lam_result_count(lam_table *table, int64_t row, int column, int64_t value);
/* Takes the table over (*table becomes NULL). */
void lam_results_add(lam_results *results, const char *name, lam_table **table);
lam_status lam_results_write(const lam_results *results, const char *folder);
void lam_results_free(lam_results *results);

/* ---- the parts; each adds its tables to r->results and its numbers to `json` ---- */

lam_status lam_retrieve_replicates(const lam_retrieve *r, lam_json *json); /* --by */
lam_status lam_retrieve_matching(const lam_retrieve *r, lam_json *json);   /* --match */
lam_status lam_retrieve_compounds(const lam_retrieve *r, lam_json *json);  /* --pairs */

#ifdef __cplusplus
}
#endif
#endif
