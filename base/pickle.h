/* The pickles of torch.save as data: a stack machine that knows few opcodes and few names, and calls nothing.
 *
 *     lam_arena arena = {0};
 *     const lam_pickle_value *root;
 *     LAM_TRY(lam_pickle_read(&arena, bytes, size, "model.pth", &root));
 *     for (const lam_pickle_item *i = root->first; i; i = i->next) ...      // root->kind == LAM_PICKLE_DICT
 *     lam_arena_free(&arena);
 *
 * Taken: protocols 2 to 5; None, bool, int, float, str, tuple, list, dict; of names (GLOBAL) those of the table in
 * pickle.c only: OrderedDict, the two functions that rebuild tensors, storages, dtypes, torch.Size, torch.device and
 * argparse.Namespace. The last two, and integers of more than 64 bits, become LAM_PICKLE_OPAQUE: nothing of them is
 * kept. The state that BUILD gives an OrderedDict (_metadata of a state_dict) is dropped.
 *
 * Untrusted input: any other opcode or name is LAM_ERROR_FORMAT and named. Limits: 16 MiB of pickle, 2^20 values and places in
 * containers, 2^20 places of the memo, 65536 values on the stack, 256 open marks, 8 dimensions. Through the memo a value may be
 * reached by several ways and a list may hold itself: who walks must bound the walk. */
#ifndef LAMELLA_BASE_PICKLE_H
#define LAMELLA_BASE_PICKLE_H

#include <stddef.h>
#include <stdint.h>

#include "base/memory.h"
#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

#define LAM_PICKLE_MAX_RANK 8
#define LAM_PICKLE_MAX_BYTES ((size_t)16 << 20)

typedef enum lam_pickle_kind {
    LAM_PICKLE_NONE,
    LAM_PICKLE_BOOL,
    LAM_PICKLE_INT,
    LAM_PICKLE_FLOAT,
    LAM_PICKLE_TEXT,
    LAM_PICKLE_TUPLE,
    LAM_PICKLE_LIST,
    LAM_PICKLE_DICT,
    LAM_PICKLE_GLOBAL,
    LAM_PICKLE_STORAGE, /* tensor: dtype, key, storage_count */
    LAM_PICKLE_TENSOR,
    LAM_PICKLE_OPAQUE
} lam_pickle_kind;

typedef struct lam_pickle_tensor {
    const char *dtype;     /* "F32", as safetensors names them */
    const char *key;       /* of the storage: the file data/KEY of the archive */
    int64_t storage_count; /* elements of the storage, as the pickle says */
    int64_t offset;        /* of the first element, in elements */
    int rank;
    int64_t shape[LAM_PICKLE_MAX_RANK], stride[LAM_PICKLE_MAX_RANK]; /* in elements */
} lam_pickle_tensor;

typedef struct lam_pickle_item {
    const struct lam_pickle_value *key; /* NULL in tuples and lists */
    struct lam_pickle_value *value;
    struct lam_pickle_item *next;
} lam_pickle_item;

typedef struct lam_pickle_value {
    lam_pickle_kind kind;
    int name;                      /* GLOBAL: its row in the table of names */
    int64_t integer;               /* BOOL, INT */
    const char *text;              /* TEXT: without a zero byte within */
    lam_pickle_item *first, *last; /* TUPLE, LIST, DICT, in order */
    int64_t count;
    const lam_pickle_tensor *tensor; /* STORAGE, TENSOR */
} lam_pickle_value;

/* What the pickle holds; everything lives in `arena`, also after an error. `name` is the file's, for messages. */
lam_status lam_pickle_read(lam_arena *arena, const void *bytes, size_t size, const char *name,
                           const lam_pickle_value **root);

#ifdef __cplusplus
}
#endif
#endif
