/* Folds for cross-validation: stratified by class, and whole groups on one side. */
#ifndef LAMELLA_EVAL_FOLDS_H
#define LAMELLA_EVAL_FOLDS_H

#include <stdint.h>

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* fold [n] 0..folds-1. group [n] 0..groups-1 (each row its own group: groups = n, group[i] = i). Groups are dealt in the order of falling
 * size (ties by a seeded hash) to the fold where the shares of the classes end most even. Fewer groups than folds: LAM_ERROR_INPUT. */
lam_status lam_folds_stratified(const int64_t *label, int64_t classes, const int64_t *group, int64_t groups,
                                int64_t n, int64_t folds, uint64_t seed, int64_t *fold);

#ifdef __cplusplus
}
#endif
#endif
