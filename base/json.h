/* JSON through jansson, behind few calls: build, read, write. Numbers keep 17 digits.
 *
 *     lam_json *j = lam_json_object();
 *     lam_json_set_int(j, "step", 100);
 *     LAM_TRY(lam_json_dump(j, false, &text));
 *     lam_json_free(j);
 *
 * Setters return nothing: a failed allocation is remembered and reported by lam_json_dump. */
#ifndef LAMELLA_BASE_JSON_H
#define LAMELLA_BASE_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lam_json lam_json;

lam_json *lam_json_object(void);
lam_json *lam_json_array(void);
lam_status lam_json_parse(lam_json **out, const char *text, size_t size, const char *name);
void lam_json_free(
    lam_json *json); /* only what was returned by object, array, parse; not borrowed children */

/* Objects. Non-finite numbers are written as null; in keys and texts that are not UTF-8, '?' stands for each
 * odd byte. `set` and `append` take over `child`. */
void lam_json_set_int(lam_json *object, const char *key, int64_t value);
void lam_json_set_float(lam_json *object, const char *key, double value);
void lam_json_set_bool(lam_json *object, const char *key, bool value);
void lam_json_set_text(lam_json *object, const char *key, const char *value); /* NULL: null */
void lam_json_set(lam_json *object, const char *key, lam_json *child);
void lam_json_append(lam_json *array, lam_json *child);
void lam_json_append_int(lam_json *array, int64_t value);
void lam_json_append_float(lam_json *array, double value);
void lam_json_append_text(lam_json *array, const char *value);

/* Reading; borrowed results live as long as the root. */
lam_json *lam_json_get(const lam_json *object, const char *key); /* NULL: absent */
/* The keys in the order of the text: the one after `key` (NULL: the first), NULL at the end. */
const char *lam_json_key_after(const lam_json *object, const char *key);
lam_json *lam_json_at(const lam_json *array, size_t index); /* NULL: beyond the end */
size_t lam_json_size(const lam_json *array_or_object);
bool lam_json_is_null(const lam_json *json); /* null; an absent key is none */
bool lam_json_is_text(const lam_json *json);
bool lam_json_is_number(const lam_json *json);
bool lam_json_is_integer(const lam_json *json);
bool lam_json_is_array(const lam_json *json);
bool lam_json_is_object(const lam_json *json);
int64_t lam_json_int(const lam_json *json, int64_t fallback);
double lam_json_float(const lam_json *json, double fallback);
bool lam_json_bool(const lam_json *json, bool fallback);
const char *lam_json_text(const lam_json *json, const char *fallback);

lam_status lam_json_dump(const lam_json *json, bool indented, char **text); /* caller frees */

#ifdef __cplusplus
}
#endif
#endif
