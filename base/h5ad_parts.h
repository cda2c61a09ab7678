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
    int rank;
    hsize_t dims[2]; /* where rank is 1 or 2 */
    int64_t count;
} dataset;

#define LAM_NO_DATASET ((dataset){-1, -1, -1, 0, {0, 0}, 0})

void lam_h5ad_free_texts(texts *t);
/* The names of what a group holds, sorted, each allocated by itself: freed with lam_h5ad_free_links, also after a failure. */
lam_status lam_h5ad_links(const char *path, hid_t group, texts *out);
void lam_h5ad_free_links(texts *links);
bool lam_h5ad_exists(hid_t parent, const char *name); /* every part of a path with slashes */
bool lam_h5ad_is_kind(hid_t parent, const char *name, H5I_type_t kind);

/* The filters that h5py and hdf5plugin bring along, for the files that follow. Once before a file is opened. */
lam_status lam_h5ad_filters_register(const char *path);
/* Refuses a chunked dataset with a filter that is not there, and tells ours how long its chunks are: called by
 * lam_h5ad_open, so the dataset opened last is the one to read. */
lam_status lam_h5ad_filters_check(const char *path, const char *name, hid_t file, hid_t plan, hid_t type);

/* *found false: absent or no text. */
lam_status lam_h5ad_attribute(const char *path, hid_t object, const char *name, bool *found, texts *out);
/* Strings of a dataset, or of an attribute; fixed or variable length. */
lam_status lam_h5ad_strings(const char *path, hid_t object, bool attribute, const char *label, int64_t count,
                            hid_t type, hid_t space, texts *out);
enum { LAM_H5AD_WORD_BYTES = 64 };
/* The text of an attribute of one, cut to LAM_H5AD_WORD_BYTES; "" where there is none. */
lam_status lam_h5ad_word(const char *path, hid_t object, const char *name, char *word);

lam_status lam_h5ad_open(const char *path, hid_t parent, const char *name, dataset *out);
void lam_h5ad_close(dataset *d);
bool lam_h5ad_is_boolean(hid_t type);
/* A dataset of integers, floats or booleans; LAM_ERROR_FORMAT, nothing open, where it is none. */
lam_status lam_h5ad_open_numbers(const char *path, hid_t parent, const char *name, dataset *out,
                                 bool *boolean);
/* All elements of a dataset as `type` (8 bytes an element). `count` < 0: any number; *found (or NULL) says
 * how many. */
lam_status lam_h5ad_numbers(const char *path, hid_t parent, const char *name, hid_t type, int64_t count,
                            int64_t *found, void **out);

/* Strings, categoricals, numbers, booleans and the nullable ones, as texts; gaps are "". depth 0; deeper for
 * parts of columns. `unknown` [LAM_H5AD_WORD_BYTES]: "" where it was read; else what the column is (awkward,
 * compound, ...), of which no text can be made: then `out` is empty. */
lam_status lam_h5ad_column(const char *path, hid_t parent, const char *name, int depth, char *unknown,
                           texts *out);
/* The same as `count` numbers, gaps NaN; text and categoricals are unknown here. */
lam_status lam_h5ad_column_numbers(const char *path, hid_t parent, const char *name, int64_t count,
                                   char *unknown, double **out);

/* The names of the rows of a data frame. */
lam_status lam_h5ad_index(const char *path, hid_t frame, const char *frame_name, texts *out);
/* index and obs of `out`, whose rows are known; a warning names the columns that are left out. */
lam_status lam_h5ad_obs(lam_embeddings *out, const char *path, hid_t file);

lam_status lam_h5ad_matrix_new(lam_embeddings *out, const char *path, int64_t rows, int64_t columns);
/* Dense, CSR, CSC, or a data frame: its columns of numbers, whose names go to *names (one block); the others
 * are named in a warning. */
lam_status lam_h5ad_matrix(lam_embeddings *out, char ***names, const char *path, hid_t file,
                           const char *name);
lam_status lam_h5ad_frame_matrix(lam_embeddings *out, char ***names, const char *path, hid_t file,
                                 const char *name);

/* lam_h5ad_read of a file that is open; `path` is what errors name. */
lam_status lam_h5ad_read_open(lam_embeddings *out, char ***names, const char *path, hid_t file,
                              const char *key);

#endif
