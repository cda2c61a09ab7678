/* JSON files of ours that carry a checksum of their own text, so that damage and edits by hand are found.
 *
 *     lam_json_set_int(json, "step", 100);
 *     LAM_TRY(lam_sealed_write("state.json", json));
 *     LAM_TRY(lam_sealed_read(&json, "state.json"));       // LAM_ERROR_FORMAT where a byte has changed
 *
 * The last key is "xxh64": 16 hexadecimal digits, the xxh64 (seed 0) of the file's text with those digits as zeros. */
#ifndef LAMELLA_BASE_SEALED_H
#define LAMELLA_BASE_SEALED_H

#include "base/json.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Adds the checksum to `object` (or renews it) and writes it indented, by lam_file_write. */
lam_status lam_sealed_write(const char *path, lam_json *object);
lam_status lam_sealed_read(lam_json **out, const char *path);

#ifdef __cplusplus
}
#endif
#endif
