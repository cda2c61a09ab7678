/* Rows of a loader's batch into the inputs of the training graph. */
#ifndef LAMELLA_TRAIN_BATCH_H
#define LAMELLA_TRAIN_BATCH_H

#include <stdbool.h>
#include <stdint.h>

#include "data/loader.h"
#include "train/network.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Rows [begin, begin + rows of the graph) of the batch; those behind the batch's end and those that are not valid get
 * weight 0. `step` counts the masks, `weight` is that of a valid row; only in `training` do samples drop branches. Pixels that are
 * pinned, and fill the graph, are not copied: they are sent from the batch (lam_tensor_send_from). */
lam_status lam_batch_feed(const lam_mae_io *io, const lam_feeder *feeder, const lam_batch *batch,
                          int64_t begin, int64_t step, double weight, bool training);

#ifdef __cplusplus
}
#endif
#endif
