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
 * Reading is thread-safe. Ownership: lam_shards owns every string that it returns.
 *
 * FORMAT of a shard file, version 1. Every integer is little-endian; offsets in bytes. A file is
 *     header (64) | frames, one after another | index (one Zstandard frame) | footer (48)
 *
 * header    offset  size  field
 *                0     8  "LAMSHARD"
 *                8     4  version = 1
 *               12     4  bytes of the header = 64
 *               16     8  hash of the settings of pack (what makes --resume keep a shard)
 *               24    40  zero
 * frame     one tile of one channel of one image: rows of pixels, uint8 or uint16, at most 256 x 256. The tiles of a
 *           channel come row by row; the last of a row or column is smaller. How it is stored, its codec:
 *           0  the pixels as they are;
 *           1  (uint8) each pixel but the first of a row minus its left neighbour, modulo 2^8, then Zstandard (RFC 8878);
 *           2  (uint16) the same modulo 2^16, each difference d then as 2d where it is >= 0 read as a signed number and
 *              -2d - 1 where not, the low bytes of all, the high bytes of all, then Zstandard.
 * footer         0     8  offset of the index
 *                8     8  bytes of the index as stored
 *               16     8  bytes of the index unpacked
 *               24     8  xxh64 (seed 0) of the index as stored
 *               32     8  xxh64 of the header followed by the footer's first 32 bytes
 *               40     8  "LAMSHARD"
 * index, unpacked:
 *                0     4  C: channels (those of the folder)
 *                4     4  M: metadata columns
 *                8     8  N: images
 *               16     8  F: frames
 *               24     8  P: plates with pixels here
 *               32     8  row of the folder's table that the first image is
 *               40     8  xxh64 of the rows of the input table that were packed here
 *               48     8  T: bytes of the texts
 *               56   4*C  largest pixel of each channel
 *                    N*C  presence of (image, channel): 0 absent, 1 uint8, 2 uint16
 *                    8*N  height, width of each image (4 bytes each)
 *                   24*F  frames by image, channel, tile row, tile column: offset in the file (8), bytes (4), codec (1),
 *                         bytes of a pixel (1), zero (2), xxh64 of the bytes as stored (8)
 *                216*P*C  sums of (plate, channel), exact integers: pixels (8), then 16 bytes each: sum of v, of v*v, of
 *                         round(sqrt(v) 2^40), then for bits = 8, 10, 12, 14, 16 the sum of L, then of L*L, where
 *                         L = round(2^30 log(1 + 1023 min(1, v/(2^bits-1))) / log(1024))
 *                      T  texts, each ended by a zero byte: C channel names, M column names, P plate names, then the
 *                         cells column by column, N each
 * Limits checked on opening: C <= 1024, M <= 4096, height and width <= 1,000,000, an index <= 2 GiB; every offset and
 * count against the file.
 *
 * dataset.json, written last: a folder is complete when it holds it. Its last key "xxh64" is the checksum of its own text
 * (base/sealed.h), so edits by hand are refused; beyond that every field that the shards hold too is compared with them:
 *     format "lamella shards"    version 1    images N    pixel_type "uint8" | "uint16"    group column | null
 *     channels [{name, bits, maximum, statistics {none, sqrt, log: {mean, deviation}}}]
 *     shards [{file, bytes, images, hash: of the footer, 16 hexadecimal digits}]
 *     plates [{plate, channels {name: statistics}}]
 * Statistics are for people and other programs: they are made anew from the sums in the shards. */
#ifndef LAMELLA_DATA_SHARD_H
#define LAMELLA_DATA_SHARD_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "base/table.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum lam_pixel_type {
    LAM_PIXEL_U8 = 1,
    LAM_PIXEL_U16 = 2
} lam_pixel_type; /* the value is the byte count */
typedef enum lam_transform {
    LAM_TRANSFORM_NONE,
    LAM_TRANSFORM_SQRT,
    LAM_TRANSFORM_LOG,
    LAM_TRANSFORMS
} lam_transform;

typedef struct lam_shards lam_shards;

lam_status lam_shards_open(lam_shards **out, const char *folder);
/* Whether a packing was begun in the folder and not finished. */
lam_status lam_shards_unfinished(const char *folder, bool *unfinished);
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
void lam_shards_channel_stats(const lam_shards *shards, int64_t plate, int64_t channel,
                              lam_transform transform, double *mean, double *deviation);
/* A hash of everything that defines the data (index and frame checksums), for state.json and provenance. */
uint64_t lam_shards_hash(const lam_shards *shards);

/* Decodes the tiles that the window touches into `out` [height, width] of the folder's pixel type. The window must lie
 * inside the image. A damaged frame: LAM_ERROR_FORMAT with shard, image and channel. An absent channel: zeros. */
lam_status lam_shards_read_window(lam_shards *shards, int64_t image, int64_t channel, int64_t y, int64_t x,
                                  int64_t height, int64_t width, void *out);

#ifdef __cplusplus
}
#endif
#endif
