/* Expressions over the metadata: which rows stay.
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

#ifdef __cplusplus
}
#endif
#endif
