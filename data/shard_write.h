/* Writes a folder of shards.
 *
 *     lam_dataset_config c = {.folder = "shards", .channel_names = names, .channels = 3, .metadata = table};
 *     LAM_TRY(lam_dataset_create(&d, &c));
 *     for each row of the table, in order:
 *         LAM_TRY(lam_encode_image(&encoded, planes, types, 3, height, width));   // thread-safe
 *         LAM_TRY(lam_dataset_add(d, encoded));
 *         lam_encoded_free(&encoded);
 *     LAM_TRY(lam_dataset_finish(&d));                                            // writes dataset.json last
 *
 * A shard appears under its name when it is whole; the folder can be opened when dataset.json is there. The
 * bytes depend on the images, the table and the settings alone. The config's texts and tables are borrowed
 * until finish or abort. */
#ifndef LAMELLA_DATA_SHARD_WRITE_H
#define LAMELLA_DATA_SHARD_WRITE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "base/table.h"
#include "data/shard.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lam_encoded_image lam_encoded_image;

/* planes[c]: [height, width] of types[c], or NULL where the channel is absent (one at least is there). */
lam_status lam_encode_image(lam_encoded_image **out, const void *const *planes, const lam_pixel_type *types,
                            int64_t channels, int64_t height, int64_t width);
/* Largest pixel of a channel (0 where absent). */
uint32_t lam_encoded_maximum(const lam_encoded_image *image, int64_t channel);
size_t lam_encoded_bytes(const lam_encoded_image *image);
void lam_encoded_free(lam_encoded_image **image);

typedef struct lam_dataset_config {
    const char *folder; /* made where it lacks */
    const char *const *channel_names;
    int64_t channels;
    const lam_table *metadata;  /* one row an image, in the order of lam_dataset_add */
    const uint64_t *row_hashes; /* [rows] of what an image is made of, for resume; NULL: zeros */
    const double
        *row_changed; /* [rows] when its files changed last, for resume (seconds); NULL: not looked at */
    uint64_t settings_hash; /* of what else decides the bytes */
    const char *group;      /* column that is the group; NULL: plate and well where both are there */
    int bit_depth;          /* 0: found */
    int64_t shard_bytes;    /* a shard is closed when it holds as many; 0: 256 MiB */
    bool resume; /* keep the shards that are there, fit and are whole: every frame is read and checked */
    bool force;  /* with resume: a finished dataset of another packing is replaced, not refused */
} lam_dataset_config;

typedef struct lam_dataset lam_dataset;

/* A finished dataset in the folder stays as it is until lam_dataset_finish has the new one in its place; of an unfinished one
 * the shards that are not kept are removed. With resume and without force a finished dataset of another table, group or
 * settings is LAM_ERROR_USAGE. */
lam_status lam_dataset_create(lam_dataset **out, const lam_dataset_config *config);
/* Images kept by resume: the next to be added is this row. */
int64_t lam_dataset_images(const lam_dataset *dataset);
lam_status lam_dataset_add(lam_dataset *dataset, const lam_encoded_image *image);
/* Stored bytes and pixel bytes of all images so far. */
void lam_dataset_totals(const lam_dataset *dataset, uint64_t *stored_bytes, uint64_t *pixel_bytes);
/* Needs as many images as the table has rows. Frees in every case. */
lam_status lam_dataset_finish(lam_dataset **dataset);
void lam_dataset_abort(lam_dataset **dataset); /* whole shards stay; NULL is fine */

#ifdef __cplusplus
}
#endif
#endif
