/* AnnData files (.h5ad) through HDF5: the inside of base/embeddings.c. No other source may include hdf5.h.
 *
 * The layout is anndata's on-disk format (encoding-version 0.1.0 of the file, 0.2.0 of arrays and data
 * frames, as anndata 0.8 to 0.12 write and read it); read as well: anndata 0.7 (categories of a column elsewhere in
 * the file), chunks packed by gzip, LZF and Zstandard. Numbers of obs are the shortest text that reads back as the same
 * number of the file's type. HDF5 is not thread-safe here: call from one thread at a time. */
#ifndef LAMELLA_BASE_H5AD_H
#define LAMELLA_BASE_H5AD_H

#include "base/embeddings.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Fills `out` (zeroed by the caller, who also frees it where this fails). *names: of the columns, from var
 * where the matrix is X or a layer, else NULL; one block, freed with lam_free. */
lam_status lam_h5ad_read(lam_embeddings *out, char ***names, const char *path, const char *key);
/* Names in a group of the file (obsm, layers, uns), in the order of their bytes; one block, freed with lam_free. No such
 * group: none. */
lam_status lam_h5ad_names(const char *path, const char *group, char ***names, int64_t *count);
/* What a file is written from, as in lam_embeddings_write; `index` and `obs` are not NULL. matrices 0: X alone; else as in
 * lam_embeddings_write_matrices, as_float32. */
typedef struct lam_h5ad_content {
    int64_t rows, columns;
    const double *values;
    bool as_float32;
    int64_t matrices;
    const char *const *names;
    const lam_table *obs;
    const char *const *index, *const *var;
    const char *provenance;
} lam_h5ad_content;
lam_status lam_h5ad_write(const char *path, const lam_h5ad_content *content);
/* "path: what (HDF5: its deepest description)"; to be called right after the call that failed. */
lam_status lam_h5ad_fail(lam_status code, const char *path, const char *what);

#ifdef __cplusplus
}
#endif
#endif
