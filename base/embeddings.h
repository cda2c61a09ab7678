/* A matrix with a metadata table, as `embed` and `map` write it and every evaluation reads it.
 *
 * Reads .h5ad (AnnData: a matrix dense, CSR or CSC, or in obsm a data frame, whose columns of numbers count; obs with
 * text, categorical, numeric, boolean and nullable columns, others named in a warning and left out; an index that has a
 * name of its own is a column of obs too), .npy with
 * .csv of the same stem, .csv/.tsv(.gz) (features: columns that match `features`; by default d0, d1... where present,
 * else every numeric column not named Metadata_...). .parquet is an error with a one-line conversion.
 * Ownership: lam_embeddings_free frees all. */
#ifndef LAMELLA_BASE_EMBEDDINGS_H
#define LAMELLA_BASE_EMBEDDINGS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "base/table.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lam_embeddings {
    int64_t rows, columns;
    double *values;   /* [rows, columns], row-major; float32 files are widened exactly */
    bool was_float32; /* the file's type: float32, or float16 */
    lam_table *obs;   /* rows; column "index" is not part of it */
    char **index;     /* [rows] names of the rows, one block (lam_texts_pack) */
    char *provenance; /* uns['lamella'], a JSON text; NULL where absent */
} lam_embeddings;

/* key: NULL or "X" = X; else layers/KEY or obsm/KEY. features: NULL or a glob of column names. */
lam_status lam_embeddings_read(lam_embeddings **out, const char *path, const char *key, const char *features);
/* Names in a group of a .h5ad (obsm, layers, uns), in natural order, one block as lam_texts_pack makes it; 0 where it has none
 * and of other kinds of files. */
lam_status lam_embeddings_names(const char *path, const char *group, char ***names, int64_t *count);
/* Names of the matrices in obsm of a .h5ad that match `glob`, in natural order (block_2 before block_10), one block as
 * lam_texts_pack makes it. None, or another kind of file: LAM_ERROR_INPUT that lists what is there. */
lam_status lam_embeddings_matrices(const char *path, const char *glob, char ***names, int64_t *count);
/* `count` texts as one block, the pointers and then the text: what `index` is. The caller frees the array alone. */
lam_status lam_texts_pack(char ***out, const char *const *texts, int64_t count);
/* LAM_ERROR_INPUT where squares of the finite values would leave the range of doubles (largest above 1e140, or below 1e-140 and not
 * 0): what centres, scales or measures distances cannot work with them. */
lam_status lam_embeddings_require_range(const lam_embeddings *embeddings, const char *path);
void lam_embeddings_free(lam_embeddings *embeddings);

/* .h5ad, or .npy + .csv by the name's end. float32 or float64. `obs` NULL: no columns; `index` NULL: the column "index"
 * of obs where present (never written as a column), else row numbers; `var` NULL: d0, d1, ...; `provenance` NULL: none.
 * In .h5ad a column of numbers becomes int64 or float64 (gaps NaN) where no text is lost by it: "01" stays text. */
lam_status lam_embeddings_write(const char *path, int64_t rows, int64_t columns, const double *values,
                                bool as_float32, const lam_table *obs, const char *const *index,
                                const char *const *var, const char *provenance);

/* For a path that a long computation will write embeddings to: its name ends as it must (LAM_ERROR_USAGE), and
 * lam_require_new_file of it and of the .csv beside a .npy. */
lam_status lam_embeddings_require_new(const char *path, bool force);

/* Several float32 matrices over the same rows, as .h5ad alone: `values` [rows, count * columns] holds them side by side; each
 * becomes obsm/<its name>, and the last X too. */
lam_status lam_embeddings_write_matrices(const char *path, int64_t rows, int64_t columns,
                                         const double *values, int64_t count, const char *const *names,
                                         const lam_table *obs, const char *const *index,
                                         const char *provenance);

#ifdef __cplusplus
}
#endif
#endif
