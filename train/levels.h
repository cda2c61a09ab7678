/* From vectors of crops to rows of an embedding file: by crop, image or well, with the metadata of the shards. */
#ifndef LAMELLA_TRAIN_LEVELS_H
#define LAMELLA_TRAIN_LEVELS_H

#include "base/table.h"
#include "data/shard.h"
#include "train/crops.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum lam_level { LAM_LEVEL_CROP, LAM_LEVEL_IMAGE, LAM_LEVEL_WELL } lam_level;

typedef struct lam_rows {
    int64_t count, width;
    double *values; /* [count, width] */
    lam_table *
        obs; /* crop: metadata, crop_image, crop_y, crop_x; image: metadata; well: columns that are constant in wells */
    char **index; /* "12" (image), "12:0:64" (image:y:x), "plate|well" */
} lam_rows;

/* Before vectors are computed: LAM_ERROR_INPUT where the shards lack what the level needs (wells: a column well). */
lam_status lam_level_check(lam_level level, const lam_shards *shards);
/* Means in double: of the crops of an image, then of the images of a well. Rows without a finite vector are left out, with a
 * warning; no row left: LAM_ERROR_INPUT. */
lam_status lam_rows_create(lam_rows *rows, lam_level level, const lam_shards *shards, const lam_crop *crops,
                           int64_t count, const float *vectors, int64_t width);
void lam_rows_free(lam_rows *rows);

#ifdef __cplusplus
}
#endif
#endif
