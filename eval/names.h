/* Names of the rows of a map, found by hash.
 *
 *     LAM_TRY(lam_names_create(&names, entities, rows));
 *     int64_t row = lam_names_find(names, "TP53");      // -1: not in the map
 *
 * Names are matched exactly, byte by byte. The entities are borrowed. */
#ifndef LAMELLA_EVAL_NAMES_H
#define LAMELLA_EVAL_NAMES_H

#include <stdint.h>

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lam_names lam_names;

/* entities [rows], all different: LAM_ERROR_INPUT that says `lamella map --by` otherwise. */
lam_status lam_names_create(lam_names **out, const char *const *entities, int64_t rows);
void lam_names_free(lam_names *names); /* NULL is fine */
int64_t lam_names_find(const lam_names *names, const char *name);

#ifdef __cplusplus
}
#endif
#endif
