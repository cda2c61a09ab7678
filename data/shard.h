/* Shards: packed images with their metadata, channel statistics and checksums.
 *
 *     lam_shards *s;
 *     LAM_TRY(lam_shards_open(&s, "shards/train"));
 *     for (int64_t i = 0; i < lam_shards_images(s); i++)
 *         LAM_TRY(lam_shards_read_window(s, i, channel, y, x, height, width, out));
 *     lam_shards_close(&s);
 *
 * A shard FOLDER holds shard_00000.lam, shard_00001.lam, ... and dataset.json (channel names, bits, totals, statistics
 * over all images and by plate). Images are numbered over the folder: shard by shard, in packing order.
 * Reading is thread-safe. Ownership: lam_shards owns every string that it returns. */
#ifndef LAMELLA_DATA_SHARD_H
#define LAMELLA_DATA_SHARD_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "base/table.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum lam_pixel_type { LAM_PIXEL_U8 = 1, LAM_PIXEL_U16 = 2 } lam_pixel_type; /* the value is the byte count */
typedef enum lam_transform { LAM_TRANSFORM_NONE, LAM_TRANSFORM_SQRT, LAM_TRANSFORM_LOG, LAM_TRANSFORMS } lam_transform;

typedef struct lam_shards lam_shards;

lam_status lam_shards_open(lam_shards **out, const char *folder);
void lam_shards_close(lam_shards **shards);

const char *lam_shards_path(const lam_shards *shards);
int64_t lam_shards_images(const lam_shards *shards);
int64_t lam_shards_channels(const lam_shards *shards); /* size of the union of channel sets */
const char *lam_shards_channel_name(const lam_shards *shards, int64_t channel);
int lam_shards_channel_bits(const lam_shards *shards, int64_t channel); /* 8, 10, 12, 14, 16 */
/* 1 / 255 for uint8, 1 / (2^bits - 1) for uint16: pixel * scale is in 0..1. */
double lam_shards_channel_scale(const lam_shards *shards, int64_t channel);
lam_pixel_type lam_shards_pixel_type(const lam_shards *shards); /* one for the folder */
void lam_shards_image_size(const lam_shards *shards, int64_t image, int64_t *height, int64_t *width);
bool lam_shards_has_channel(const lam_shards *shards, int64_t image, int64_t channel);
/* Metadata of every image (rows = images): every column of the input table that is not a file column. */
const lam_table *lam_shards_metadata(const lam_shards *shards);
/* Column that must not be split between training and validation (pack --group; else "well" with "plate"): dense codes
 * a image, 0..groups-1. */
const int64_t *lam_shards_groups(const lam_shards *shards, int64_t *groups);
/* Dense plate codes a image (column `plate`, else `batch`, else all 0). */
const int64_t *lam_shards_plates(const lam_shards *shards, int64_t *plates);
/* Mean and biased standard deviation of transform(pixel * scale) over all images (plate = -1) or one plate.
 * SQRT: sqrt(x); LOG: log(1 + 1023 x) / log(1024). */
void lam_shards_channel_stats(const lam_shards *shards, int64_t plate, int64_t channel, lam_transform transform, double *mean, double *deviation);
/* A hash of everything that defines the data (index and frame checksums), for state.json and provenance. */
uint64_t lam_shards_hash(const lam_shards *shards);

/* Decodes the tiles that the window touches into `out` [height, width] of the folder's pixel type. The window must lie
 * inside the image. A damaged frame: LAM_ERROR_FORMAT with shard, image and channel. An absent channel: zeros. */
lam_status lam_shards_read_window(lam_shards *shards, int64_t image, int64_t channel, int64_t y, int64_t x, int64_t height, int64_t width, void *out);

#ifdef __cplusplus
}
#endif
#endif
