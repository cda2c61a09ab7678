/* Text that must be UTF-8 (RFC 3629) for whoever reads it next.
 *
 *     LAM_TRY(lam_utf8_text(&arena, cell, &cell)); // unchanged where it is UTF-8 already
 *
 * Other text is taken for Latin-1 (ISO 8859-1), as spreadsheets export a micro sign, and converted. */
#ifndef LAMELLA_BASE_UTF8_H
#define LAMELLA_BASE_UTF8_H

#include <stdbool.h>
#include <stddef.h>

#include "base/memory.h"
#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

bool lam_utf8_is_valid(const char *text);
/* *out is `text` itself, or a converted copy in the arena. */
lam_status lam_utf8_text(lam_arena *arena, const char *text, const char **out);

/* What a person may be shown of text that others have written, such as a file's name or what it holds: bytes of control
 * characters (a terminal obeys them), of marks that turn or break a line, and of no UTF-8 become \xHH. Cut at `size`, between
 * characters. lam_fail and lam_log_* pass what they say through it. */
void lam_utf8_visible(char *out, size_t size, const char *text);

#ifdef __cplusplus
}
#endif
#endif
