/* Files of torch.save (PyTorch >= 1.6), read and written without Python; nothing in them is ever run.
 *
 *     lam_torch_file *file;
 *     LAM_TRY(lam_torch_open(&file, "mae_pretrain.pth"));
 *     const lam_torch_entry *e = lam_torch_find(file, "blocks.0.attn.qkv.weight");
 *     LAM_TRY(lam_torch_read_f32(file, e, values));
 *     lam_torch_close(file);
 *
 * Layout: a zip with one folder of any name, every file stored uncompressed: FOLDER/data.pkl (base/pickle.h) describes the
 * tensors, FOLDER/data/KEY holds the elements of storage KEY (little-endian), FOLDER/byteorder, where it is there,
 * says "little". Dicts, lists and tuples in one another become one list of tensors with dotted names, as of a
 * state_dict; {"state_dict": {...}}, {"model": {...}} and {"model_state_dict": {...}} are unwrapped, what stands beside
 * is left out. Published weights come under any name (.pt, .pth, .bin, and .safetensors).
 *
 * Untrusted input, LAM_ERROR_FORMAT: compressed entries; a storage that is absent or has another size than the pickle says;
 * a tensor that reaches outside its storage or is larger than it (an expanded view); names that are no UTF-8 of at
 * most 512 bytes, or are there twice; more than 16 levels or 2^17 tensors. The checksum of a storage is checked where
 * it is read as a whole. */
#ifndef LAMELLA_BASE_TORCH_FILE_H
#define LAMELLA_BASE_TORCH_FILE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/pickle.h"
#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lam_torch_entry {
    const char *name;
    const lam_pickle_tensor *tensor; /* dtype, rank, shape, stride */
    int64_t count;                   /* elements */
    uint64_t storage;                /* index of the entry in the zip */
} lam_torch_entry;

typedef struct lam_torch_file lam_torch_file;

/* True where the file begins as a zip does. */
lam_status lam_torch_is_file(const char *path, bool *is);
lam_status lam_torch_open(lam_torch_file **out, const char *path);
void lam_torch_close(lam_torch_file *file);
int64_t lam_torch_count(const lam_torch_file *file);
const lam_torch_entry *lam_torch_at(const lam_torch_file *file, int64_t index);      /* in order of names */
const lam_torch_entry *lam_torch_find(const lam_torch_file *file, const char *name); /* NULL: absent */
/* Row-major, whatever the strides in the file; `values` has entry->count elements. */
lam_status lam_torch_read_f32(lam_torch_file *file, const lam_torch_entry *entry, float *values);

/* What torch.load(path, weights_only=True) gives as {"state_dict": {name: float32 tensor, ...}}, or without `wrapped`
 * as {name: tensor, ...}; the same bytes each time. The values are borrowed. */
typedef struct lam_torch_tensor {
    const char *name;
    int rank;
    const int64_t *shape;
    const float *values;
} lam_torch_tensor;
lam_status lam_torch_write(const char *path, const lam_torch_tensor *tensors, int64_t count, bool wrapped);

#ifdef __cplusplus
}
#endif
#endif
