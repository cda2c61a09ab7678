/* Between the sources of h5ad reading: opening datasets, numbers and columns as texts. */
#ifndef LAMELLA_BASE_H5AD_PARTS_H
#define LAMELLA_BASE_H5AD_PARTS_H

#include <hdf5.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/fault.h"
#include "base/h5ad.h"
#include "base/status.h"

/* Every HDF5 call that reads the file: fault first, then the call. Needs `path`, `status` and a label `done`.
 */
#define H5_READ(call, what)                                                                                  \
    do {                                                                                                     \
        LAM_REQUIRE_GOTO(!lam_fault_hit(LAM_FAULT_READ), done, LAM_ERROR_IO, "%s: cannot read %s", path,     \
                         what);                                                                              \
        if ((call) < 0) {                                                                                    \
            char message_[160];                                                                              \
            snprintf(message_, sizeof message_, "cannot read %s; the file is damaged or cut short", what);   \
            status = lam_h5ad_fail(LAM_ERROR_FORMAT, path, message_);                                        \
            goto done;                                                                                       \
        }                                                                                                    \
    } while (0)

/* Texts whose pointers and bytes may be of different blocks (a categorical points into its categories). */
typedef struct texts {
    int64_t count;
    const char **items;
    char *block;
} texts;

typedef struct dataset {
    hid_t id, type, space;
    int rank; /* 0 to 2 */
    hsize_t dims[2];
    int64_t count;
} dataset;

#define LAM_NO_DATASET ((dataset){-1, -1, -1, 0, {0, 0}, 0})

void lam_h5ad_free_texts(texts *t);
bool lam_h5ad_exists(hid_t parent, const char *name); /* every part of a path with slashes */
bool lam_h5ad_is_kind(hid_t parent, const char *name, H5I_type_t kind);

/* *found false: absent or no text. */
lam_status lam_h5ad_attribute(const char *path, hid_t object, const char *name, bool *found, texts *out);
lam_status lam_h5ad_attribute_is(const char *path, hid_t object, const char *name, const char *prefix,
                                 bool *same);

lam_status lam_h5ad_open(const char *path, hid_t parent, const char *name, dataset *out);
void lam_h5ad_close(dataset *d);
/* All elements of a dataset as `type` (8 bytes an element). `count` < 0: any number; *found (or NULL) says
 * how many. */
lam_status lam_h5ad_numbers(const char *path, hid_t parent, const char *name, hid_t type, int64_t count,
                            int64_t *found, void **out);
/* Strings, categoricals, numbers, booleans and the nullable ones, as texts. depth 0; deeper for parts of
 * columns. */
lam_status lam_h5ad_column(const char *path, hid_t parent, const char *name, int depth, texts *out);

#endif
