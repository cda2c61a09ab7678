/* Pixels of image files: PNG, TIFF (OME, BigTIFF), JPEG 2000 and NPY; which one by the first bytes.
 *
 *     lam_image image;
 *     LAM_TRY(lam_image_read(&image, "A01_s1_DNA.tif", LAM_PROJECT_NONE));
 *     const uint16_t *dna = image.pixels;              // [channels, height, width] of image.type
 *     lam_image_free(&image);
 *
 * 8- and 16-bit unsigned pixels keep their values (12 bits in a 16-bit file stay 12). Everything else is
 * refused in one line that says how to convert it. Damaged and lying files are LAM_ERROR_FORMAT; sizes are
 * checked before memory is taken. Thread-safe. */
#ifndef LAMELLA_DATA_IMAGE_H
#define LAMELLA_DATA_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "data/shard.h"

#ifdef __cplusplus
extern "C" {
#endif

/* How the planes of a Z stack become one. NONE: more than one plane is an error. */
typedef enum lam_projection {
    LAM_PROJECT_NONE,
    LAM_PROJECT_MAX,
    LAM_PROJECT_MEAN,
    LAM_PROJECT_MIDDLE
} lam_projection;

typedef struct lam_image {
    int64_t channels, height, width;
    lam_pixel_type type;
    void *pixels;       /* [channels, height, width] */
    bool alpha_dropped; /* the file had an opacity channel, which is no measurement */
} lam_image;

lam_status lam_image_read(lam_image *out, const char *path, lam_projection projection);
void lam_image_free(lam_image *image);

/* The formats, from bytes in memory (`name` is for messages). */
lam_status lam_png_parse(lam_image *out, const char *bytes, size_t size, const char *name);
lam_status lam_tiff_parse(lam_image *out, const char *bytes, size_t size, lam_projection projection,
                          const char *name);
lam_status lam_jpeg2000_parse(lam_image *out, const char *bytes, size_t size, const char *name);

/* Memory for the pixels after a check that a file of `file_bytes` can hold them (no codec here packs more
 * than `most_ratio` to one) and that a plane has less than 2^31 pixels. */
lam_status lam_image_reserve(lam_image *image, size_t file_bytes, size_t most_ratio, const char *name);
/* [height, width, channels] into [channels, height, width]: row `y` of `samples` interleaved samples. */
void lam_image_put_row(lam_image *image, int64_t y, const void *row, int64_t samples);
/* `planes` whole planes become one, in place at the first: a [height, width] of the image's type. */
void lam_planes_project(void *planes, int64_t count, int64_t plane_pixels, lam_pixel_type type,
                        lam_projection projection);

/* NPY arrays, C x H x W or H x W, and rows of stacks, N x C x H x W or N x H x W. An array that was read
 * stays in memory, so that the rows of one stack unpack it once; those not used longest go when the arrays
 * exceed `limit_bytes`. Thread-safe. */
typedef struct lam_stacks lam_stacks;
lam_status lam_stacks_create(lam_stacks **out, size_t limit_bytes);
/* row -1: the whole array is one image. */
lam_status lam_stacks_read(lam_stacks *stacks, const char *path, int64_t row, lam_image *out);
/* Divides a channel of `image` by an illumination function, a float array H x W (or 1 x H x W) of values > 0;
 * rounded to the nearest, clipped to the pixel type. The function stays in memory as stacks do. */
lam_status lam_stacks_illuminate(lam_stacks *stacks, const char *path, lam_image *image, int64_t channel);
void lam_stacks_free(lam_stacks **stacks);
/* Whether the name says .npy, .npy.zst or .npy.gz. */
bool lam_is_npy_name(const char *path);

#ifdef __cplusplus
}
#endif
#endif
