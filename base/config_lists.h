/* A YAML file of sections whose keys hold one value or a list of values: what a sweep goes through.
 *
 *     map:
 *       align: [none, tvn]            # two values
 *       by: gene                      # one
 *     relate:
 *       relationships: [[a, b], c]    # two values: the texts a and b together, and c
 *
 *     LAM_TRY(lam_config_lists_read(&lists, "sweep.yaml"));
 *     lists->items[0].section, .key, .values[1].texts[0] ...      // "map", "align", "tvn"
 *
 * Keys outside of a section have the section "". Duplicate keys, empty lists, deeper nesting, and what config.h refuses are
 * LAM_ERROR_CONFIG with file and line. Ownership: lam_config_lists_free frees all. */
#ifndef LAMELLA_BASE_CONFIG_LISTS_H
#define LAMELLA_BASE_CONFIG_LISTS_H

#include "base/memory.h"
#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lam_config_value {
    int count; /* at least 1 */
    const char **texts;
} lam_config_value;

typedef struct lam_config_list {
    const char *section, *key;
    size_t line;
    int count; /* at least 1 */
    lam_config_value *values;
} lam_config_list;

typedef struct lam_config_lists {
    int count;
    lam_config_list *items; /* in the order of the file */
    lam_arena arena;
} lam_config_lists;

lam_status lam_config_lists_read(lam_config_lists **out, const char *path);
/* The same from memory; `name` stands for the path in messages. */
lam_status lam_config_lists_parse(lam_config_lists **out, const char *text, size_t size, const char *name);
void lam_config_lists_free(lam_config_lists *lists); /* NULL is fine */

#ifdef __cplusplus
}
#endif
#endif
