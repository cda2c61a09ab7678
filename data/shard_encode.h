/* What lam_encode_image makes and lam_dataset_add stores: frames one after another, with what the index says
 * of them. */
#ifndef LAMELLA_DATA_SHARD_ENCODE_H
#define LAMELLA_DATA_SHARD_ENCODE_H

#include "data/shard_format.h"
#include "data/shard_write.h"

#ifdef __cplusplus
extern "C" {
#endif

struct lam_encoded_image {
    int64_t channels, height, width, frames;
    uint8_t *present;       /* [channels] bytes of a pixel, 0: absent */
    uint32_t *maximum;      /* [channels] */
    lam_sums *sums;         /* [channels] */
    lam_shard_frame *frame; /* offsets count from the image's first byte */
    unsigned char *bytes;
    size_t size, capacity;
};

#ifdef __cplusplus
}
#endif
#endif
