/* RGB pictures in memory, PNG out, and the colours that all figures share. */
#ifndef LAMELLA_BASE_PICTURE_H
#define LAMELLA_BASE_PICTURE_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lam_picture {
    int64_t width, height;
    uint8_t *rgb; /* [height, width, 3] */
} lam_picture;

lam_status lam_picture_create(lam_picture *picture, int64_t width, int64_t height,
                              uint32_t background /* 0xRRGGBB */);
void lam_picture_free(lam_picture *picture);
/* Draws `channels` planes of floats [channels, height, width] as a false-colour composite at (x, y): each channel is
 * windowed low..high to 0..1 and added in its colour (lam_channel_colour). NULL low/high: 1st and 99.8th percentile. */
lam_status lam_picture_composite(lam_picture *picture, int64_t x, int64_t y, const float *planes,
                                 int64_t channels, int64_t height, int64_t width, const float *low,
                                 const float *high);
uint32_t lam_channel_colour(int64_t channel, int64_t channels);         /* one channel alone is grey */
const char *lam_channel_colour_name(int64_t channel, int64_t channels); /* "blue" */
lam_status lam_picture_write_png(const lam_picture *picture, const char *path);
lam_status lam_picture_encode_png(const lam_picture *picture, uint8_t **bytes,
                                  size_t *size); /* caller frees */

#ifdef __cplusplus
}
#endif
#endif
