/* Which sample stands where in an epoch: the passes of data/loader.h, one after another.
 *
 *     lam_order order = {0};
 *     LAM_TRY(lam_order_init(&order, seed, images, crops_per_image, global_batch));
 *     lam_order_sample(&order, epoch, position, &pass, &image);   // position: 0 .. images * crops_per_image
 * - 1 lam_order_free(&order);
 *
 * Each pass is lam_permute of the images with a stream of its own. A batch that lies across the end of a pass
 * would meet an image twice where the new pass begins with one that the old pass ended with: those few are
 * exchanged with later images of the new pass, so that a batch holds an image at most once while images >=
 * batch. The exchanges of an epoch depend on (seed, epoch) alone; they are found once an epoch, in
 * O(crops_per_image x batch), and kept. Not thread-safe: the caller holds a lock. */
#ifndef LAMELLA_DATA_ORDER_H
#define LAMELLA_DATA_ORDER_H

#include <stdint.h>

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lam_order {
    uint64_t seed;
    int64_t images, passes, batch;
    int64_t epoch;   /* whose exchanges are kept; -1: none */
    int64_t most;    /* exchanges a pass, at most */
    int64_t *counts; /* [passes] */
    int64_t *early;  /* [passes, most] positions of a pass that lie in the batch across its beginning */
    int64_t *late;   /* [passes, most] positions after it that they are exchanged with */
    unsigned char *in_tail; /* [images] scratch */
} lam_order;

lam_status lam_order_init(lam_order *order, uint64_t seed, int64_t images, int64_t passes, int64_t batch);
void lam_order_sample(lam_order *order, int64_t epoch, int64_t position, int64_t *pass, int64_t *image);
void lam_order_free(lam_order *order);

#ifdef __cplusplus
}
#endif
#endif
