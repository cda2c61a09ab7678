/* Text that must be UTF-8 (RFC 3629) for whoever reads it next.
 *
 *     LAM_TRY(lam_utf8_text(&arena, cell, &cell)); // unchanged where it is UTF-8 already
 *
 * Other text is taken for Latin-1 (ISO 8859-1), as spreadsheets export a micro sign, and converted. */
#ifndef LAMELLA_BASE_UTF8_H
#define LAMELLA_BASE_UTF8_H

#include <stdbool.h>

#include "base/memory.h"
#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

bool lam_utf8_is_valid(const char *text);
/* *out is `text` itself, or a converted copy in the arena. */
lam_status lam_utf8_text(lam_arena *arena, const char *text, const char **out);

#ifdef __cplusplus
}
#endif
#endif
