/* One image of a table on its way into a shard: read, checked, corrected, encoded.
 *
 *     lam_pack_settings settings = {.list = list, .stacks = stacks, .channels = 3};
 *     LAM_TRY(lam_pack_image(&settings, image, &encoded, types, &alpha_dropped));     // thread-safe
 *
 * Errors name the table's line, the channel and the file. */
#ifndef LAMELLA_DATA_PACK_IMAGE_H
#define LAMELLA_DATA_PACK_IMAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "data/image.h"
#include "data/images_table.h"
#include "data/shard_write.h"

#ifdef __cplusplus
extern "C" {
#endif

/* To 8 bits: PERCENTILE stretches each plane from its 0.1 to its 99.9 percentile, LINEAR maps 0..2^bits-1
 * (bit_depth, or 16) to 0..255. 8-bit planes stay as they are. */
typedef enum lam_to_uint8 { LAM_TO_UINT8_OFF, LAM_TO_UINT8_PERCENTILE, LAM_TO_UINT8_LINEAR } lam_to_uint8;

typedef struct lam_pack_settings {
    const lam_images *list;
    lam_stacks *stacks;
    int64_t channels;
    const char *const *channel_names; /* [channels] */
    int bit_depth;                    /* 0: found */
    lam_to_uint8 to_uint8;
    lam_projection projection;
    bool illumination;
} lam_pack_settings;

/* Reads the file of a source (all its channels). */
lam_status lam_pack_read(const lam_pack_settings *settings, const lam_source *source, lam_image *out);
/* types [channels]: of the pixels as the files have them, 0 where the image lacks the channel. */
lam_status lam_pack_image(const lam_pack_settings *settings, int64_t image, lam_encoded_image **out,
                          lam_pixel_type *types, bool *alpha_dropped);
/* In place: 16-bit pixels become 8-bit ones (the block keeps its size). */
void lam_plane_to_uint8(void *pixels, int64_t count, lam_to_uint8 how, int bits);

#ifdef __cplusplus
}
#endif
#endif
