/* What shard_write.c, shard_resume.c and shard_json.c share of a folder of shards being written.
 *
 * A folder that holds a finished dataset keeps it until the new one is whole: shard i is written as shard_NNNNN.lam, or as
 * shard_NNNNNb.lam where the dataset.json that is there names the former. The new dataset.json replaces the old one by a
 * rename; then the old shards are removed, and the new ones take the plain names. */
#ifndef LAMELLA_DATA_SHARD_WRITE_PARTS_H
#define LAMELLA_DATA_SHARD_WRITE_PARTS_H

#include "base/files.h"
#include "data/shard_encode.h"
#include "data/shard_format.h"
#include "data/shard_write.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { LAM_SHARD_NAME_BYTES = 48 };

typedef struct plate_sums {
    const char *name;
    lam_sums *sums; /* [channels] */
} plate_sums;

/* What the shard being written will say in its index. */
typedef struct open_shard {
    lam_writer *writer;
    char name[LAM_SHARD_NAME_BYTES];
    int64_t first_row, images, frames, frame_capacity, image_capacity;
    uint8_t *present;
    uint32_t *sizes; /* [images, 2] */
    uint32_t *maximum;
    lam_shard_frame *frame;
    plate_sums *plates;
    int64_t plate_count;
} open_shard;

typedef struct done_shard {
    char name[LAM_SHARD_NAME_BYTES];
    uint64_t bytes, hash;
    int64_t images;
} done_shard;

struct lam_dataset {
    lam_dataset_config config;
    int64_t images, shards;
    int plate_column;
    open_shard open;
    done_shard *done;
    char **
        listed; /* [listed_count] files of the dataset.json that was there, which stay until it is replaced */
    int64_t listed_count;
    uint32_t *maximum; /* [channels] over all */
    lam_pixel_type type;
    uint64_t stored_bytes, pixel_bytes;
};

/* shard_NNNNN.lam, or the other name of the same shard. */
void lam_shard_name(char name[LAM_SHARD_NAME_BYTES], int64_t shard, bool other);
/* xxh64 of the table's rows from `first`. */
uint64_t lam_dataset_slice_hash(const lam_dataset *dataset, int64_t first, int64_t count);
lam_status lam_dataset_note_done(lam_dataset *dataset, const done_shard *shard);
void lam_dataset_note_image(lam_dataset *dataset, const uint8_t *present, const uint32_t *maximum,
                            int64_t height, int64_t width);

/* Looks at what the folder holds, counts the shards that are kept (config.resume), removes what is of no use. */
lam_status lam_dataset_prepare(lam_dataset *dataset);
/* Removes every shard file but those done and, with `listed`, those of the dataset.json that was there. */
lam_status lam_dataset_remove_others(const lam_dataset *dataset, bool listed);
/* Gives the shards done their plain names, where the file system has hard links. */
lam_status lam_dataset_settle_names(lam_dataset *dataset);
lam_status lam_dataset_write_json(const lam_dataset *dataset);

#ifdef __cplusplus
}
#endif
#endif
