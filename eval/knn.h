/* k nearest neighbours by cosine distance (1 - cosine), uniform weights: scikit-learn's
 * KNeighborsClassifier(n_neighbors=k, metric="cosine").
 *
 *     LAM_TRY(lam_directions_make(&u, x, n, d));
 *     LAM_TRY(lam_knn_classify(&u, label, classes, fold, folds, NULL, k, predicted));
 *
 * The neighbours are those of the k largest float64 cosines, of equal ones the first rows (rows that are multiples of one
 * another may differ in the last bit, which then decides); the class with most of them
 * wins, of equal ones that with the smallest summed distance, then the first. Products run in float32 over tiles, float64
 * decides wherever their bound leaves it open: the result does not depend on threads or instruction set, and no matrix of
 * all pairs is stored. */
#ifndef LAMELLA_EVAL_KNN_H
#define LAMELLA_EVAL_KNN_H

#include <stdbool.h>
#include <stdint.h>

#include "eval/cosine.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Each row is classified by the rows of the other folds: label and fold [rows of u]; taken NULL, or [folds, rows]: which
 * rows row i of fold f may be compared with. predicted [rows]. LAM_ERROR_INPUT where a fold has fewer than k to compare with. */
lam_status lam_knn_classify(const lam_directions *u, const int64_t *label, int64_t classes,
                            const int64_t *fold, int64_t folds, const bool *taken, int64_t k,
                            int64_t *predicted);

#ifdef __cplusplus
}
#endif
#endif
