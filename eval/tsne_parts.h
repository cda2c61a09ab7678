/* The affinities of t-SNE, shared by tsne_affinities.c (which makes them) and tsne.c (which uses them). */
#ifndef LAMELLA_EVAL_TSNE_PARTS_H
#define LAMELLA_EVAL_TSNE_PARTS_H

#include <stdint.h>

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

#define LAM_TSNE_TILE 256

typedef struct lam_affinities {
    int64_t rows, columns, blocks; /* blocks of LAM_TSNE_TILE rows, zeros behind the last row */
    double *x;                     /* [blocks * LAM_TSNE_TILE, columns] centred */
    double *square;                /* |x_i|^2 */
    double *beta, *nearest;        /* of the row's Gaussian; squared distance of its nearest other row */
    double *scale;                 /* 1 / sum of exp(-beta (distance - nearest)); 0 behind the last row */
    int64_t kept;                  /* tiles in memory, the first ones */
    float *tiles;
    int threads;
    double *product; /* [threads, LAM_TSNE_TILE^2] */
    float *tile;     /* likewise */
} lam_affinities;

/* Memory beside the kept tiles: rows * columns and O(rows). */
lam_status lam_affinities_make(lam_affinities *a, const double *x, int64_t rows, int64_t columns,
                               double perplexity, int64_t kept_bytes);
void lam_affinities_free(lam_affinities *a);
/* p_ij [LAM_TSNE_TILE, LAM_TSNE_TILE] of the rows of two blocks, first <= second; zero on the diagonal and behind the last row.
 * Belongs to `a`, until the thread's next call. */
const float *lam_affinities_tile(const lam_affinities *a, int64_t first, int64_t second, int thread);

#ifdef __cplusplus
}
#endif
#endif
