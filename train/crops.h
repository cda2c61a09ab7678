/* The crops of which an embedding is made: windows tiled over each image or drawn, and their pixels. */
#ifndef LAMELLA_TRAIN_CROPS_H
#define LAMELLA_TRAIN_CROPS_H

#include <stdint.h>

#include "data/shard.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lam_crop {
    int64_t image, y, x;
} lam_crop;

/* per_image 0: floor(height / size) x floor(width / size) windows, spread evenly (one alone lies in the middle);
 * n: drawn (Philox LAM_RNG_EMBED, counted by image and draw). In image order. Caller frees. An image smaller than
 * `size` is LAM_ERROR_INPUT. */
lam_status lam_crops_list(const lam_shards *shards, int64_t size, int64_t per_image, uint64_t seed,
                          lam_crop **crops, int64_t *count);

/* pixels [count, channels, size, size] of the folder's type, present [count, channels]; channel_map -1: absent, zeros.
 * damaged [count]: 1 where a frame of the crop is damaged (a warning names it once an image); NULL: that is LAM_ERROR_FORMAT. */
lam_status lam_crops_read(lam_shards *shards, const lam_crop *crops, int64_t count, int64_t size,
                          const int64_t *channel_map, int64_t channels, void *pixels, uint8_t *present,
                          uint8_t *damaged);

#ifdef __cplusplus
}
#endif
#endif
