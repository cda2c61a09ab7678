/* The rows of a map that lie nearest to one row, by cosine.
 *
 *     lam_nearest found[10];
 *     int64_t count = lam_directions_nearest(&directions, row, 10, found);
 */
#ifndef LAMELLA_EVAL_NEAREST_H
#define LAMELLA_EVAL_NEAREST_H

#include <stdint.h>

#include "eval/cosine.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lam_nearest {
    double cosine; /* float64 */
    int32_t row;
} lam_nearest;

/* found [most]: the largest cosines first, equal ones by row; `row` itself is not among them. Returns how many there are:
 * most, or rows - 1 where that is less. */
int64_t lam_directions_nearest(const lam_directions *directions, int64_t row, int64_t most,
                               lam_nearest *found);

#ifdef __cplusplus
}
#endif
#endif
