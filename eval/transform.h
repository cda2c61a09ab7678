/* A fitted alignment: what `map` fits on one experiment, applies, saves and applies to the next.
 *
 *     lam_transform t;
 *     LAM_TRY(lam_align_fit(&how, x, rows, columns, &t));           // eval/align.h
 *     LAM_TRY(lam_transform_apply(&t, x, rows, batch));             // in place; rows have t.components columns after it
 *     LAM_TRY(lam_transform_save(&t, "tvn.safetensors", &notes));
 *     lam_transform_free(&t);
 *
 * A row x of batch b becomes, each step where its arrays are not NULL:
 *     x - center[b];  (x - mean) / scale;  (x - rotation_mean) rotation^T;  (x - batch_mean[b]) / batch_scale[b];  x batch_matrix[b]
 * An alignment that is applied at once and one that was saved and read are the same bits, on any number of threads.
 *
 * The file: safetensors, the arrays above as F64 under their names, and as __metadata__ texts "format" (lamella-transform-1),
 * "columns", "components", "align", "settings" (the options of the fit, a JSON object), "batches" (names, a JSON array), "provenance".
 * On reading, every shape is checked against the counts, and values that are not finite are an error. */
#ifndef LAMELLA_EVAL_TRANSFORM_H
#define LAMELLA_EVAL_TRANSFORM_H

#include <stdbool.h>
#include <stdint.h>

#include "base/json.h"
#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lam_transform {
    int64_t columns, components, batches;
    double *center;                   /* [batches, columns] */
    double *mean, *scale;             /* [columns] */
    double *rotation_mean, *rotation; /* [columns], [components, columns] */
    double *batch_mean, *batch_scale; /* [batches, components] */
    double *batch_matrix;             /* [batches, components, components] */
} lam_transform;
void lam_transform_free(lam_transform *transform); /* the arrays; zeroes the struct */

/* Do the batches matter: a fit with several, and arrays that differ between them. */
bool lam_transform_by_batch(const lam_transform *transform);

/* x [rows, columns] in place; with fewer components its rows become shorter. batch [rows] 0..batches-1 may be NULL where there is
 * one batch. */
lam_status lam_transform_apply(const lam_transform *transform, double *x, int64_t rows, const int64_t *batch);

/* What a file says about itself. Texts are borrowed where they are written, of lam_alloc where they are read. */
typedef struct lam_transform_notes {
    char *align, *settings, *provenance;
    const char *const *batch_names; /* [batches]; NULL: none */
    lam_json *names;                /* of a file that was read: what batch_names lie in */
} lam_transform_notes;
void lam_transform_notes_free(lam_transform_notes *notes); /* of lam_transform_read */

lam_status lam_transform_save(const lam_transform *transform, const char *path,
                              const lam_transform_notes *notes);
lam_status lam_transform_read(lam_transform *transform, lam_transform_notes *notes, const char *path);

#ifdef __cplusplus
}
#endif
#endif
