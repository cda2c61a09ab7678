/* state.json of a checkpoint: what a resume needs to be bit-exact, and the hashes of the files beside it. Sealed
 * (base/sealed.h): a changed byte is found. */
#ifndef LAMELLA_TRAIN_RUN_STATE_H
#define LAMELLA_TRAIN_RUN_STATE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lam_run_state {
    int64_t step;    /* steps done */
    int64_t updates; /* steps that were not skipped */
    int64_t skipped, skipped_in_row;
    int64_t damaged_samples;
    int64_t metrics_bytes;
    uint64_t seed, shards_hash;
    int world_size, threads;
    char isa[16], mpi[128], gemm[64], version[32]; /* gemm: the library of the matrix products */
    char *plans; /* of a GPU: which algorithms its products take (model/cuda/products.h); NULL: none. Freed by who read it */
} lam_run_state;

/* xxh64 of the files of the checkpoint. */
typedef struct lam_state_hashes {
    uint64_t model, optimizer, ema;
    bool has_ema; /* false: there is no ema.safetensors */
} lam_state_hashes;

lam_status lam_run_state_write(const char *path, const lam_run_state *state, int64_t epoch,
                               const lam_state_hashes *hashes);
/* `step`: of the folder, the file must say the same; -1: not known. LAM_ERROR_FORMAT where a field is missing or cannot be. */
lam_status lam_run_state_read(const char *path, int64_t step, lam_run_state *state, lam_state_hashes *hashes);

#ifdef __cplusplus
}
#endif
#endif
