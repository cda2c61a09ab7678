#include "base/utf8.h"

#include <stdint.h>
#include <string.h>

bool lam_utf8_is_valid(const char *text) {
    const unsigned char *at = (const unsigned char *)text;
    while (*at != 0) {
        int more = -1; /* bytes that follow */
        if (*at < 0x80) more = 0;
        if (*at >= 0xc2 && *at < 0xe0) more = 1;
        if (*at >= 0xe0 && *at < 0xf0) more = 2;
        if (*at >= 0xf0 && *at < 0xf5) more = 3;
        if (more < 0) return false;
        uint32_t code = more == 0 ? *at : *at & (0x3fu >> more);
        for (int i = 1; i <= more; i++) {
            if ((at[i] & 0xc0) != 0x80) return false;
            code = code << 6 | (at[i] & 0x3fu);
        }
        /* Longer than needed, a surrogate, or past the last character. */
        if ((more == 2 && (code < 0x800 || (code >= 0xd800 && code < 0xe000))) ||
            (more == 3 && (code < 0x10000 || code > 0x10ffff))) {
            return false;
        }
        at += more + 1;
    }
    return true;
}

lam_status lam_utf8_text(lam_arena *arena, const char *text, const char **out) {
    if (lam_utf8_is_valid(text)) {
        *out = text;
        return LAM_OK;
    }
    char *copy = NULL, *write;
    LAM_TRY(lam_arena_alloc(arena, (void **)&copy, 2 * strlen(text) + 1));
    write = copy;
    for (const unsigned char *at = (const unsigned char *)text; *at != 0; at++) {
        if (*at < 0x80) {
            *write++ = (char)*at;
        } else {
            *write++ = (char)(0xc0 | *at >> 6);
            *write++ = (char)(0x80 | (*at & 0x3f));
        }
    }
    *out = copy;
    return LAM_OK;
}
