/* Safetensors: named arrays with a JSON header; read and written streaming.
 *
 * Layout (little-endian): u64 N; N bytes of JSON {"__metadata__":{text:text}, name:{"dtype","shape",
 * "data_offsets":[begin,end)}...}, padded with spaces to a multiple of 8; data. On reading every offset is
 * checked against the file, against the shape and against the other tensors (no overlap, no gap);
 * N <= 100 MB; names unique.
 * Types read: F64 F32 F16 BF16 I64 I32 I16 I8 U8 U16 BOOL; written: any. */
#ifndef LAMELLA_BASE_SAFETENSORS_H
#define LAMELLA_BASE_SAFETENSORS_H

#include <stddef.h>
#include <stdint.h>

#include "base/json.h"
#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

#define LAM_SAFETENSORS_MAX_RANK 8

typedef struct lam_safetensors_entry {
    const char *name;
    const char *dtype; /* "F32" */
    int rank;
    int64_t shape[LAM_SAFETENSORS_MAX_RANK];
    int64_t count;       /* elements */
    uint64_t begin, end; /* bytes, from the start of the data */
} lam_safetensors_entry;

typedef struct lam_safetensors lam_safetensors;

lam_status lam_safetensors_open(lam_safetensors **out, const char *path);
void lam_safetensors_close(lam_safetensors *file);
int64_t lam_safetensors_count(const lam_safetensors *file);
const lam_safetensors_entry *lam_safetensors_at(const lam_safetensors *file, int64_t index);
const lam_safetensors_entry *lam_safetensors_find(const lam_safetensors *file,
                                                  const char *name);                /* NULL: absent */
const char *lam_safetensors_metadata(const lam_safetensors *file, const char *key); /* NULL: absent */
/* Converts to float or double (F64, F32, F16, BF16, integers); `values` has entry->count elements. */
lam_status lam_safetensors_read_f32(lam_safetensors *file, const lam_safetensors_entry *entry, float *values);
lam_status lam_safetensors_read_f64(lam_safetensors *file, const lam_safetensors_entry *entry,
                                    double *values);
lam_status lam_safetensors_read_raw(lam_safetensors *file, const lam_safetensors_entry *entry, void *bytes);

/* Writing: declare every tensor, then give the data in the same order. */
typedef struct lam_safetensors_writer lam_safetensors_writer;
lam_status lam_safetensors_writer_open(lam_safetensors_writer **out, const char *path);
lam_status lam_safetensors_writer_metadata(lam_safetensors_writer *writer, const char *key,
                                           const char *value);
lam_status lam_safetensors_writer_declare(lam_safetensors_writer *writer, const char *name, const char *dtype,
                                          int rank, const int64_t *shape);
lam_status lam_safetensors_writer_data(lam_safetensors_writer *writer, const void *bytes,
                                       size_t size); /* next tensor, or a part of it */
lam_status
lam_safetensors_writer_commit(lam_safetensors_writer **writer); /* every declared byte must be there */
void lam_safetensors_writer_abort(lam_safetensors_writer **writer);

#ifdef __cplusplus
}
#endif
#endif
