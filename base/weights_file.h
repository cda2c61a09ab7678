/* Weights of any program's file as one list of named tensors: safetensors, a torch.save zip under any name, or the index of
 * Hugging Face's sharded safetensors.
 *
 *     lam_weights *weights;
 *     LAM_TRY(lam_weights_file(folder, &path));                // model.safetensors, pytorch_model.bin...
 *     LAM_TRY(lam_weights_open(&weights, path));
 *     const lam_weights_entry *e = lam_weights_find(weights, "vit.embeddings.cls_token");
 *     LAM_TRY(lam_weights_read_f32(weights, e, values));
 *     lam_weights_close(weights);
 *
 * The kind is told by the first bytes, not by the name: published torch.save files are called .safetensors too.
 * Ownership: entries and their texts live until lam_weights_close. */
#ifndef LAMELLA_BASE_WEIGHTS_FILE_H
#define LAMELLA_BASE_WEIGHTS_FILE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

#define LAM_WEIGHTS_MAX_RANK 8

typedef struct lam_weights_entry {
    const char *name, *dtype; /* "F32" */
    int rank;
    int64_t shape[LAM_WEIGHTS_MAX_RANK];
    int64_t count;      /* elements */
    int part;           /* file of a sharded set */
    const void *source; /* the part's own entry */
} lam_weights_entry;

typedef struct lam_weights lam_weights;

/* The file of a folder that holds its weights; *file NULL: none. Caller frees. */
lam_status lam_weights_file(const char *folder, char **file);
lam_status lam_weights_open(lam_weights **out, const char *path);
void lam_weights_close(lam_weights *weights);
bool lam_weights_is_torch(const lam_weights *weights);
int64_t lam_weights_count(const lam_weights *weights);
const lam_weights_entry *lam_weights_at(const lam_weights *weights, int64_t index); /* in order of names */
const lam_weights_entry *lam_weights_find(const lam_weights *weights, const char *name); /* NULL: absent */
/* Metadata of a safetensors file; NULL: absent. */
const char *lam_weights_metadata(const lam_weights *weights, const char *key);
/* LAM_ERROR_INPUT names the file, the tensor and what it is: whole numbers and truth values are no weights; */
lam_status lam_weights_check_type(const lam_weights *weights, const lam_weights_entry *entry);
/* neither are infinities and what is no number. `path`, `name`: for the message. */
lam_status lam_weights_check_values(const char *path, const char *name, const float *values, int64_t count);
/* Converted to float, row-major; `values` has entry->count elements. Both are checked. */
lam_status lam_weights_read_f32(lam_weights *weights, const lam_weights_entry *entry, float *values);

#ifdef __cplusplus
}
#endif
#endif
