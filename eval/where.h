/* Expressions over the metadata: which rows stay; and which genes a table says are expressed.
 *
 *     bool *keep;
 *     LAM_TRY(lam_where(obs, "plate != p3 and (dose >= 0.5 or gene in (A|B))", &keep));   // [rows], caller frees
 *
 * comparison: COLUMN == VALUE, !=, <, <=, >, >= (numbers, else text for == and !=), COLUMN in (A|B|C); joined by and, or, not,
 * parentheses. Names and values with blanks stand in double or single quotes. Errors name the position. */
#ifndef LAMELLA_EVAL_WHERE_H
#define LAMELLA_EVAL_WHERE_H

#include <stdbool.h>

#include "base/status.h"
#include "base/table.h"

#ifdef __cplusplus
extern "C" {
#endif

lam_status lam_where(const lam_table *table, const char *expression, bool **keep);

/* "COLUMN=VALUE" of --controls: keep [rows of the table] is set where the column holds the value, *count says how often.
 * LAM_ERROR_USAGE for another form, LAM_ERROR_INPUT where the column is missing or no row has the value. */
lam_status lam_where_controls(const lam_table *table, const char *text, bool *keep, int64_t *count);

typedef enum lam_expression {
    LAM_EXPRESSION_UNKNOWN, /* not in the table */
    LAM_UNEXPRESSED,
    LAM_EXPRESSED
} lam_expression;

/* out [count]: of each gene by the table at `path`, whose column of genes is named gene_column, else `gene`. A gene is expressed where the
 * expression holds in one of its rows. Expression NULL: the table lists the expressed genes, any other is not expressed. */
lam_status lam_expressed(const char *path, const char *expression, const char *gene_column,
                         const char *const *genes, int64_t count, lam_expression *out);

#ifdef __cplusplus
}
#endif
#endif
