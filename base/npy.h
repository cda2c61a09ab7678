/* NumPy arrays (.npy versions 1, 2, 3; C order; little-endian; u1 u2 i4 i8 f4 f8), plain, .zst or .gz.
 * Limits on untrusted input: header <= 1 MiB, at most 8 dimensions, the data must have exactly the bytes that the
 * shape says. */
#ifndef LAMELLA_BASE_NPY_H
#define LAMELLA_BASE_NPY_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lam_npy {
    char type[3]; /* "u1", "u2", "i4", "i8", "f4", "f8" */
    int rank;
    int64_t shape[8];
    int64_t count;
    size_t item_bytes;
    void *data;
} lam_npy;

lam_status lam_npy_read(lam_npy *out, const char *path); /* lam_npy_free */
lam_status lam_npy_parse(lam_npy *out, const char *bytes, size_t size, const char *name);
void lam_npy_free(lam_npy *array);
lam_status lam_npy_write(const char *path, const char *type, int rank, const int64_t *shape,
                         const void *data);

#ifdef __cplusplus
}
#endif
#endif
