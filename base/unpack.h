/* Unpacks whole gzip or Zstandard files in memory; which one by the magic bytes, not by the name.
 *
 *     LAM_TRY(lam_file_read(path, &bytes, &size));
 *     status = lam_unpack(&bytes, &size, path);   // plain bytes stay as they are
 *
 * RFC 1952 (several members one after another are one text), RFC 8878 (several frames). Memory grows with
 * what comes out, at most LAM_UNPACK_LIMIT; a file cut short or damaged is LAM_ERROR_FORMAT. One zero byte
 * follows the bytes. */
#ifndef LAMELLA_BASE_UNPACK_H
#define LAMELLA_BASE_UNPACK_H

#include <stddef.h>

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

#define LAM_UNPACK_LIMIT ((size_t)64 << 30)

/* Replaces *bytes (of lam_alloc) and *size; where it fails, both stay as they were. */
lam_status lam_unpack(char **bytes, size_t *size, const char *name);
/* The same from borrowed bytes: a new block, a copy where they are plain. */
lam_status lam_unpack_copy(char **out, size_t *out_size, const char *bytes, size_t size, const char *name);

#ifdef __cplusplus
}
#endif
#endif
