/* IMAGES.csv understood: which files are the channels of which image, and what is known of it.
 *
 *     lam_images_config c = {.path = "images.csv"};
 *     LAM_TRY(lam_images_read(&list, &c));
 *     const lam_source *s = lam_images_source(list, image, channel);    // s->path NULL: absent
 *
 * Four kinds of table:
 * - `file`: one file holds every channel of a row (with `row`: that row of a stack);
 * - `file_<channel>`: a file a channel; an empty cell is an absent channel;
 * - CellProfiler and JUMP (load_data.csv): PathName_Orig<channel> and FileName_Orig<channel>, with
 *   PathName_Illum<channel> and FileName_Illum<channel>;
 * - long: `file` and `channel`, one row a channel. Rows with the same values in all of these columns that are
 * there are one image: plate, Metadata_Plate, batch, set, well, Metadata_Well, site, Metadata_Site, field,
 * fov, timepoint, image. Where such a group names a channel twice with other metadata (two masks of one
 * field), the second one begins another image; with the same metadata it is an error. Columns that differ
 * between the channels of an image become one column a channel (stain -> stain_DNA). Every other column is
 * metadata. Images keep the order of the table (of their first rows). Relative paths count from the table's
 * folder or `folder`. Ownership: the list owns everything. */
#ifndef LAMELLA_DATA_IMAGES_TABLE_H
#define LAMELLA_DATA_IMAGES_TABLE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "base/table.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lam_images_config {
    const char *path;
    const char *folder;          /* where relative paths begin; NULL: the table's folder */
    const char *prefix_old;      /* NULL, or what a path that begins with it... */
    const char *prefix_new;      /* ...begins with instead */
    const char *const *channels; /* channels to take, in this order (names of those of `file`); NULL: all */
    int64_t channel_count;
} lam_images_config;

typedef struct lam_source {
    char *path;          /* NULL: absent */
    int64_t row;         /* of a stack, or -1 */
    char *illumination;  /* NULL: none named */
    uint64_t cells_hash; /* of the cells that name the files, as they stand in the table */
} lam_source;

typedef struct lam_images {
    int64_t images, channels;
    bool one_file;        /* sources: one an image; else one a channel */
    bool named;           /* channel_names are there (with one_file only where the config names them) */
    char **channel_names; /* [channels] */
    lam_source *sources;  /* [images, one_file ? 1 : channels] */
    int64_t *rows;        /* [images] row of the input table, for messages */
    lam_table *table;     /* the input */
    lam_table *metadata;  /* [images] */
    uint64_t *hashes;     /* [images] of everything above */
    bool has_illumination;
    int64_t split_images; /* of long tables: groups of rows that became more than one image */
} lam_images;

lam_status lam_images_read(lam_images **out, const lam_images_config *config);
void lam_images_free(lam_images **images);
const lam_source *lam_images_source(const lam_images *images, int64_t image, int64_t channel);

#ifdef __cplusplus
}
#endif
#endif
