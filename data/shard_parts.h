/* An open folder of shards, between shard.c (opening) and shard_window.c (reading pixels). */
#ifndef LAMELLA_DATA_SHARD_PARTS_H
#define LAMELLA_DATA_SHARD_PARTS_H

#include <pthread.h>

#include "base/files.h"
#include "data/shard_format.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct shard_file {
    char *path;
    const char *name;
    lam_reader *reader;
    lam_shard_index index;
    int64_t first;
} shard_file;

struct lam_shards {
    char *path;
    shard_file *shard;
    int64_t shards, images, channels, plates, groups;
    int *bits;
    lam_pixel_type type;
    int32_t *shard_of; /* [images] */
    lam_table *metadata;
    int64_t *plate_codes, *group_codes;
    double *stats; /* [plates + 1, channels, LAM_TRANSFORMS, 2]; the last plate is all */
    uint64_t hash;
    pthread_mutex_t mutex;
    struct scratch *free_scratch; /* what decoders have used and will use again */
};

void lam_shards_free_scratch(lam_shards *shards);

#ifdef __cplusplus
}
#endif
#endif
