/* Cosines of all pairs of rows, tile by tile: float32 products that come with a bound on their error, and the float64
 * cosine of any pair wherever the bound leaves a decision open. No matrix of all pairs is stored.
 *
 *     LAM_TRY(lam_directions_make(&u, x, rows, columns));
 *     LAM_TRY(lam_directions_tiles(&u, visit, &context));   // every pair i < j once, in float32
 *     double c = lam_directions_cosine(&u, i, j);           // the cosine that decides
 *
 * The float64 cosine is summed in one fixed order, so it does not depend on threads, tiles or instruction set, and
 * equal rows give equal cosines. */
#ifndef LAMELLA_EVAL_COSINE_H
#define LAMELLA_EVAL_COSINE_H

#include <stdint.h>

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

#define LAM_TILE_ROWS 256
#define LAM_TILE_COLUMNS 512 /* a multiple of LAM_TILE_ROWS */

typedef struct lam_directions {
    int64_t rows, columns;
    double *exact; /* [rows, columns] rows of length 1 */
    float *rounded;
    double
        bound; /* |float32 product - float64 cosine| is at most this (Higham 2002, eq. 3.5, with the conversion) */
} lam_directions;

/* Every row of x [rows, columns] must be finite and not all zero: LAM_ERROR_INPUT names the row. */
lam_status lam_directions_make(lam_directions *out, const double *x, int64_t rows, int64_t columns);
void lam_directions_free(lam_directions *directions);

double lam_directions_cosine(const lam_directions *directions, int64_t i, int64_t j);
/* The float32 cosine, in some order of summation; as far as `bound` from the one above. */
float lam_directions_near(const lam_directions *directions, int64_t i, int64_t j);

typedef struct lam_tile {
    int64_t row, column, rows,
        columns;         /* the tile holds pairs (row + r, column + c); in a tile that touches the
                                         * diagonal only those with row + r < column + c count */
    const float *values; /* [rows, LAM_TILE_COLUMNS] */
} lam_tile;
/* `thread` in 0..lam_threads() - 1; calls of one thread follow each other, calls of several run at once. */
typedef lam_status (*lam_tile_visit)(void *context, int thread, const lam_tile *tile);
/* Tiles of the upper triangle. The first status that is not LAM_OK comes back. */
lam_status lam_directions_tiles(const lam_directions *directions, lam_tile_visit visit, void *context);

#ifdef __cplusplus
}
#endif
#endif
