/* Rows of one label become one row: mean or median of each feature, labels in sorted order. */
#ifndef LAMELLA_EVAL_AGGREGATE_H
#define LAMELLA_EVAL_AGGREGATE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* codes [rows] 0..groups-1, every group with at least one row. out [groups, columns], counts [groups]; both by the caller. */
lam_status lam_aggregate(const double *x, int64_t rows, int64_t columns, const int64_t *codes, int64_t groups,
                         bool median, double *out, int64_t *counts);

#ifdef __cplusplus
}
#endif
#endif
