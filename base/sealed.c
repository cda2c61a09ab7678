#include "base/sealed.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#include "base/files.h"
#include "base/memory.h"

enum { DIGITS = 16 };
static const char key[] = "\"xxh64\": \"", zeros[] = "0000000000000000";

/* The digits of the last such key; NULL: there is none. */
static char *find_digits(char *text) {
    char *found = NULL;
    for (char *at = text; (at = strstr(at, key)) != NULL;) found = at += sizeof key - 1;
    return found && strlen(found) >= DIGITS ? found : NULL;
}

static void hash_text(const char *text, size_t size, char digits[DIGITS + 1]) {
    snprintf(digits, DIGITS + 1, "%016" PRIx64, (uint64_t)XXH64(text, size, 0));
}

lam_status lam_sealed_write(const char *path, lam_json *object) {
    char *text = NULL, digits[DIGITS + 1];
    lam_json_set_text(object, "xxh64", zeros);
    LAM_TRY(lam_json_dump(object, true, &text));
    hash_text(text, strlen(text), digits);
    memcpy(find_digits(text), digits, DIGITS);
    lam_status status = lam_file_write(path, text, strlen(text));
    lam_free(text);
    return status;
}

lam_status lam_sealed_read(lam_json **out, const char *path) {
    char *text = NULL, stored[DIGITS + 1] = "", digits[DIGITS + 1];
    size_t size = 0;
    *out = NULL;
    LAM_TRY(lam_file_read(path, &text, &size));
    lam_status status = LAM_OK;
    char *at = find_digits(text);
    LAM_TRY_GOTO(lam_json_parse(out, text, size, path), done);
    LAM_REQUIRE_GOTO(at, done, LAM_ERROR_FORMAT, "%s: damaged: its checksum (xxh64) is missing", path);
    memcpy(stored, at, DIGITS);
    memcpy(at, zeros, DIGITS);
    hash_text(text, size, digits);
    LAM_REQUIRE_GOTO(strcmp(stored, digits) == 0, done, LAM_ERROR_FORMAT,
                     "%s: damaged or changed: its checksum differs (%s, its text has %s)", path, stored,
                     digits);
done:
    lam_free(text);
    if (status != LAM_OK) {
        lam_json_free(*out);
        *out = NULL;
    }
    return status;
}
