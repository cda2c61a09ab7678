/* Long tables (one row a channel), and what they share with the wide ones. */
#ifndef LAMELLA_DATA_IMAGES_LONG_H
#define LAMELLA_DATA_IMAGES_LONG_H

#include "data/images_table.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Fills everything but the hashes from list->table. */
lam_status lam_images_read_long(lam_images *list, const lam_images_config *config);

/* The file that cells name: joined, its prefix replaced, relative to the table's folder. *cells_hash goes on
 * from the cells. */
lam_status lam_images_resolve(const lam_images_config *config, const char *path_cell, const char *file_cell,
                              char **out, uint64_t *cells_hash);
/* Indices of the config's channels among `names` (all where the config names none). */
lam_status lam_images_pick(const lam_images_config *config, const char *const *names, int64_t count,
                           int64_t **picked, int64_t *picked_count);
lam_status lam_images_take_names(lam_images *list, const char *const *names, const int64_t *picked,
                                 int64_t count);

#ifdef __cplusplus
}
#endif
#endif
