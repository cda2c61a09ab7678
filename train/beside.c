#include "train/beside.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/cli.h"
#include "base/files.h"
#include "base/memory.h"

lam_status lam_beside_open(lam_beside *b, const char *weights, const char *name) {
    const char *slash = strrchr(weights, '/');
    char *text = NULL;
    size_t size = 0;
    *b = (lam_beside){0};
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_text_format(&b->path, "%.*s%s", slash ? (int)(slash - weights + 1) : 0, weights, name),
                 done);
    if (!lam_path_exists(b->path)) goto done;
    LAM_TRY_GOTO(lam_file_read(b->path, &text, &size), done);
    LAM_TRY_GOTO(lam_json_parse(&b->json, text, size, b->path), done);
    LAM_REQUIRE_GOTO(lam_json_is_object(b->json), done, LAM_ERROR_FORMAT, "%s: is no JSON object", b->path);
done:
    lam_free(text);
    if (status != LAM_OK) lam_beside_close(b);
    return status;
}

void lam_beside_close(lam_beside *b) {
    lam_json_free(b->json);
    lam_free(b->path);
    *b = (lam_beside){0};
}

/* NULL: absent, or null. A section that is no object is what was found. */
static const lam_json *value_of(const lam_beside *b, const char *key) {
    const char *dot = strchr(key, '.');
    char section[64];
    const lam_json *json = b->json;
    if (dot) {
        snprintf(section, sizeof section, "%.*s", (int)(dot - key), key);
        json = lam_json_get(json, section);
        if (json && !lam_json_is_null(json) && !lam_json_is_object(json)) return json;
    }
    json = lam_json_get(json, dot ? dot + 1 : key);
    return lam_json_is_null(json) ? NULL : json;
}

static lam_status refuse(const lam_beside *b, const char *key, const lam_json *value, const char *due) {
    char number[32], shown[128];
    bool truth = lam_json_bool(value, true) == lam_json_bool(value, false);
    if (lam_json_is_text(value))
        snprintf(shown, sizeof shown, "\"%.100s\"", lam_json_text(value, ""));
    else if (lam_json_is_number(value))
        snprintf(shown, sizeof shown, "%s", lam_number_text(number, lam_json_float(value, 0)));
    else if (lam_json_is_array(value))
        snprintf(shown, sizeof shown, "a list of %zu", lam_json_size(value));
    else
        snprintf(shown, sizeof shown, "%s",
                 lam_json_is_null(value)      ? "null"
                 : !truth                     ? "an object"
                 : lam_json_bool(value, true) ? "true"
                                              : "false");
    LAM_FAIL(LAM_ERROR_INPUT, "%s: %s is %s, due is %s", b->path, key, shown, due);
}

lam_status lam_beside_whole(const lam_beside *b, const char *key, int64_t low, int64_t high, int64_t *value) {
    const lam_json *json = value_of(b, key);
    char due[96];
    if (!json) return LAM_OK;
    int64_t number = lam_json_int(json, low - 1);
    snprintf(due, sizeof due, "a whole number from %" PRId64 " to %" PRId64, low, high);
    if (!lam_json_is_integer(json) || number < low || number > high) return refuse(b, key, json, due);
    *value = number;
    return LAM_OK;
}

static const char *range(char *text, size_t size, double low, double high) {
    char a[32], z[32];
    if (isinf(low) && isinf(high))
        snprintf(text, size, "a number");
    else
        snprintf(text, size, "a number from %s to %s", lam_number_text(a, low), lam_number_text(z, high));
    return text;
}

lam_status lam_beside_number(const lam_beside *b, const char *key, double low, double high, double *value) {
    const lam_json *json = value_of(b, key);
    char due[96];
    if (!json) return LAM_OK;
    double number = lam_json_float(json, NAN);
    if (!(number >= low && number <= high)) return refuse(b, key, json, range(due, sizeof due, low, high));
    *value = number;
    return LAM_OK;
}

lam_status lam_beside_truth(const lam_beside *b, const char *key, bool *value) {
    const lam_json *json = value_of(b, key);
    if (!json) return LAM_OK;
    bool truth = lam_json_bool(json, true);
    if (truth != lam_json_bool(json, false)) return refuse(b, key, json, "true or false");
    *value = truth;
    return LAM_OK;
}

lam_status lam_beside_choice(const lam_beside *b, const char *key, const char *choices, int *choice) {
    const lam_json *json = value_of(b, key);
    if (!json) return LAM_OK;
    int place = lam_text_place(choices, '|', lam_json_text(json, ""));
    if (place < 0) return refuse(b, key, json, choices);
    *choice = place;
    return LAM_OK;
}

lam_status lam_beside_numbers(const lam_beside *b, const char *key, int64_t count, double low, double high,
                              double *values, bool *given) {
    const lam_json *json = value_of(b, key);
    char due[96], item[96];
    *given = json != NULL;
    if (!json) return LAM_OK;
    snprintf(due, sizeof due, "a list of %" PRId64 ", one for each channel of the weights", count);
    if (!lam_json_is_array(json) || (int64_t)lam_json_size(json) != count) return refuse(b, key, json, due);
    for (int64_t i = 0; i < count; i++) {
        const lam_json *one = lam_json_at(json, (size_t)i);
        values[i] = lam_json_float(one, NAN);
        snprintf(item, sizeof item, "%.64s[%" PRId64 "]", key, i);
        if (!(values[i] >= low && values[i] <= high))
            return refuse(b, item, one, range(due, sizeof due, low, high));
    }
    return LAM_OK;
}
