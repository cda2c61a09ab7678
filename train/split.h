/* Which images train and which validate: whole groups only, never one group on both sides.
 *
 *     LAM_TRY(lam_split_images(shards, &settings, &split));     // lam_split_free */
#ifndef LAMELLA_TRAIN_SPLIT_H
#define LAMELLA_TRAIN_SPLIT_H

#include <stdint.h>

#include "data/shard.h"
#include "train/config.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lam_split {
    int64_t *train, *validation; /* images, rising */
    int64_t train_count, validation_count;
} lam_split;

/* By data.validation_column = data.validation_group, or a share of the groups by a hash of their number (the same for every
 * train.seed). LAM_ERROR_CONFIG where a side would be empty or a group would be cut. */
lam_status lam_split_images(const lam_shards *shards, const lam_settings *settings, lam_split *split);
void lam_split_free(lam_split *split);

#ifdef __cplusplus
}
#endif
#endif
