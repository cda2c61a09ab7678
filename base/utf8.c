#include "base/utf8.h"

#include <stdint.h>
#include <string.h>

/* Bytes of the character at `at`; 0: it is none, or longer than needed, a surrogate, past the last one. */
static int character(const unsigned char *at, uint32_t *code) {
    int more = -1; /* bytes that follow */
    if (*at < 0x80) more = 0;
    if (*at >= 0xc2 && *at < 0xe0) more = 1;
    if (*at >= 0xe0 && *at < 0xf0) more = 2;
    if (*at >= 0xf0 && *at < 0xf5) more = 3;
    if (more < 0) return 0;
    *code = more == 0 ? *at : *at & (0x3fu >> more);
    for (int i = 1; i <= more; i++) {
        if ((at[i] & 0xc0) != 0x80) return 0;
        *code = *code << 6 | (at[i] & 0x3fu);
    }
    if ((more == 2 && (*code < 0x800 || (*code >= 0xd800 && *code < 0xe000))) ||
        (more == 3 && (*code < 0x10000 || *code > 0x10ffff)))
        return 0;
    return more + 1;
}

bool lam_utf8_is_valid(const char *text) {
    for (const unsigned char *at = (const unsigned char *)text; *at;) {
        uint32_t code = 0;
        int bytes = character(at, &code);
        if (!bytes) return false;
        at += bytes;
    }
    return true;
}

static bool is_hidden(uint32_t code) {
    return code < 0x20 || (code >= 0x7f && code < 0xa0) || code == 0x200e || code == 0x200f ||
           (code >= 0x2028 && code <= 0x202e) || (code >= 0x2066 && code <= 0x2069);
}

void lam_utf8_visible(char *out, size_t size, const char *text) {
    static const char digits[] = "0123456789abcdef";
    size_t used = 0;
    for (const unsigned char *at = (const unsigned char *)text; *at;) {
        uint32_t code = 0;
        int bytes = character(at, &code);
        bool hidden = !bytes || is_hidden(code);
        if (!bytes) bytes = 1;
        size_t room = (size_t)bytes * (hidden ? 4 : 1);
        if (room >= size - used) break;
        for (int i = 0; i < bytes; i++) {
            if (hidden) {
                memcpy(out + used, "\\x", 2);
                out[used + 2] = digits[at[i] >> 4];
                out[used + 3] = digits[at[i] & 15];
                used += 4;
            } else {
                out[used++] = (char)at[i];
            }
        }
        at += bytes;
    }
    out[used] = 0;
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
