/* Time of attention by itself, forward and backward, on the CPU or a device; values drawn at random.
 *
 * On the CPU each call is timed, and beside it the product that makes qkv of the same tokens: [batch tokens, width] by [width, 3
 * width], in the same type. On a device calls are recorded in a row and the row is replayed, so that neither the start of a
 * kernel nor the wait for it counts. */
#ifndef LAMELLA_TRAIN_ATTENTION_TIMER_H
#define LAMELLA_TRAIN_ATTENTION_TIMER_H

#include "model/backend.h"
#include "model/cpu/attention.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { LAM_TIME_FORWARD, LAM_TIME_BACKWARD, LAM_TIME_PRODUCT, LAM_TIMES };

typedef struct lam_attention_timer {
    const lam_backend *backend;
    lam_attention_shape shape; /* strides are set: q, k and v are parts of one tensor */
    bool bf16;
    int64_t width;
    void *qkv, *d_qkv, *out, *d_out, *lse, *workspace; /* in the memory of the device */
    void *packed;                                      /* weights of the product; NULL on a device */
    double *seconds[LAM_TIMES];                        /* [rounds] of a call, the shortest first */
    int64_t rounds, calls[2];                          /* calls in a row, forward and backward */
    lam_recording *row[2];                             /* NULL on the CPU */
} lam_attention_timer;

/* batch, tokens (queries and keys of a sample), heads and head_dim of `shape` are read. Close it after a failure, too. */
lam_status lam_attention_timer_open(lam_attention_timer *timer, const lam_backend *backend,
                                    const lam_attention_shape *shape, bool bf16);
void lam_attention_timer_close(lam_attention_timer *timer);
/* Rounds for so many seconds, three at least. */
lam_status lam_attention_timer_run(lam_attention_timer *timer, double seconds);

#ifdef __cplusplus
}
#endif
#endif
