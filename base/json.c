#include "base/json.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

/* lam_json is jansson's json_t. A NULL anywhere in a tree under construction means that memory ran out: jansson's
 * setters fail on NULL, the failure is put on the parent as a poison value, and the dump reports it. The poison begins
 * with a zero byte: no text of ours or of a parsed file can hold one, so no name in a file passes for it. */
static json_t *poison(void) { return json_stringn("\0out of memory", 14); }
static const char dumped_poison[] = "\"\\u0000out of memory";

static json_t *unwrap(const lam_json *json) { return (json_t *)(uintptr_t)json; }
static lam_json *wrap(json_t *json) { return (lam_json *)json; }

lam_json *lam_json_object(void) { return wrap(json_object()); }
lam_json *lam_json_array(void) { return wrap(json_array()); }
void lam_json_free(lam_json *json) { json_decref(unwrap(json)); }

lam_status lam_json_parse(lam_json **out, const char *text, size_t size, const char *name) {
    json_error_t error;
    json_t *json = json_loadb(text, size, JSON_REJECT_DUPLICATES, &error);
    LAM_REQUIRE(json, LAM_ERROR_FORMAT, "%s:%d:%d: not valid JSON: %s", name, error.line, error.column,
                error.text);
    *out = wrap(json);
    return LAM_OK;
}

/* Bytes that are not UTF-8 (file names may hold any) are kept readable: each becomes '?'. */
static json_t *text_value(const char *value) {
    if (!value) return json_null();
    json_t *json = json_string(value);
    if (json) return json;
    char *copy = strdup(value);
    if (!copy) return NULL;
    for (char *p = copy; *p; p++)
        if ((unsigned char)*p >= 0x80) *p = '?';
    json = json_string(copy);
    free(copy);
    return json;
}

static void put(lam_json *object, const char *key, json_t *child) {
    if (!object) {
        json_decref(child);
        return;
    }
    json_t *name = text_value(key);
    if (!name || json_object_set(unwrap(object), json_string_value(name), child) != 0)
        json_object_set_new(unwrap(object), "out of memory", poison());
    json_decref(child);
    json_decref(name);
}

static void add(lam_json *array, json_t *child) {
    if (!array)
        json_decref(child);
    else if (json_array_append_new(unwrap(array), child) != 0)
        json_array_append_new(unwrap(array), poison());
}

static json_t *number(double value) { return isfinite(value) ? json_real(value) : json_null(); }

void lam_json_set_int(lam_json *object, const char *key, int64_t value) {
    put(object, key, json_integer(value));
}
void lam_json_set_float(lam_json *object, const char *key, double value) { put(object, key, number(value)); }
void lam_json_set_bool(lam_json *object, const char *key, bool value) {
    put(object, key, json_boolean(value));
}
void lam_json_set_text(lam_json *object, const char *key, const char *value) {
    put(object, key, text_value(value));
}
void lam_json_set(lam_json *object, const char *key, lam_json *child) { put(object, key, unwrap(child)); }
void lam_json_append(lam_json *array, lam_json *child) { add(array, unwrap(child)); }
void lam_json_append_int(lam_json *array, int64_t value) { add(array, json_integer(value)); }
void lam_json_append_float(lam_json *array, double value) { add(array, number(value)); }
void lam_json_append_text(lam_json *array, const char *value) { add(array, text_value(value)); }

lam_json *lam_json_get(const lam_json *object, const char *key) {
    return wrap(json_object_get(unwrap(object), key));
}

const char *lam_json_key_after(const lam_json *object, const char *key) {
    json_t *json = unwrap(object);
    void *iterator = key ? json_object_iter_next(json, json_object_key_to_iter(key)) : json_object_iter(json);
    return iterator ? json_object_iter_key(iterator) : NULL;
}

lam_json *lam_json_at(const lam_json *array, size_t index) {
    return wrap(json_array_get(unwrap(array), index));
}

size_t lam_json_size(const lam_json *json) {
    return json_is_array(unwrap(json)) ? json_array_size(unwrap(json)) : json_object_size(unwrap(json));
}

bool lam_json_is_null(const lam_json *json) { return json_is_null(unwrap(json)); }
bool lam_json_is_text(const lam_json *json) { return json_is_string(unwrap(json)); }
bool lam_json_is_number(const lam_json *json) { return json_is_number(unwrap(json)); }
bool lam_json_is_integer(const lam_json *json) { return json_is_integer(unwrap(json)); }
bool lam_json_is_array(const lam_json *json) { return json_is_array(unwrap(json)); }
bool lam_json_is_object(const lam_json *json) { return json_is_object(unwrap(json)); }

int64_t lam_json_int(const lam_json *json, int64_t fallback) {
    return json_is_integer(unwrap(json)) ? (int64_t)json_integer_value(unwrap(json)) : fallback;
}
double lam_json_float(const lam_json *json, double fallback) {
    return json_is_number(unwrap(json)) ? json_number_value(unwrap(json)) : fallback;
}
bool lam_json_bool(const lam_json *json, bool fallback) {
    return json_is_boolean(unwrap(json)) ? json_is_true(unwrap(json)) : fallback;
}
const char *lam_json_text(const lam_json *json, const char *fallback) {
    return json_is_string(unwrap(json)) ? json_string_value(unwrap(json)) : fallback;
}

lam_status lam_json_dump(const lam_json *json, bool indented, char **text) {
    *text = NULL;
    size_t flags = JSON_REAL_PRECISION(17) | (indented ? JSON_INDENT(2) : JSON_COMPACT);
    char *dumped = json ? json_dumps(unwrap(json), flags) : NULL;
    lam_status status = LAM_OK;
    LAM_REQUIRE_GOTO(dumped && !strstr(dumped, dumped_poison), done, LAM_ERROR_MEMORY,
                     "out of memory: JSON could not be written");
    status = lam_text_copy(text, dumped);
done:
    free(dumped);
    return status;
}
