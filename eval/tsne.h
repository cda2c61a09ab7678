/* Two-dimensional pictures of the rows of a matrix: principal components, and exact t-SNE.
 *
 *     LAM_TRY(lam_principal_plane(x, rows, columns, y));                          // y [rows, 2]
 *     LAM_TRY(lam_tsne(x, rows, columns, &lam_tsne_defaults, y, &divergence));
 *
 * t-SNE (van der Maaten and Hinton, J. Machine Learning Research 9, 2008) in its exact form: every pair counts, in every
 * iteration. The schedule is scikit-learn's TSNE(method='exact', init='pca', learning_rate='auto'): 250 iterations with the
 * affinities times 12 and momentum 0.5, 750 with momentum 0.8, gains, learning rate max(rows / 48, 50); it stops early after 300
 * iterations without progress, or where the gradient is below 1e-7.
 *
 *     p_j|i = exp(-beta_i |x_i - x_j|^2) / sum_k exp(-beta_i |x_i - x_k|^2), beta_i so that 2^H(p_.|i) = perplexity
 *     p_ij = (p_j|i + p_i|j) / 2 rows,   q_ij = (1 + |y_i - y_j|^2)^-1 / Z,   minimised: sum p_ij log(p_ij / q_ij)
 *
 * Pairs are taken in tiles of rows i < j: distances in float64, affinities and forces in float32. Tiles of affinities are kept as
 * far as `kept_bytes` go and computed again in each iteration beyond, with the same bits. The result does not depend on threads.
 * Time: iterations x rows^2 / 2 pairs of 0.6 ns on one core with AVX2 or better, 1.5 ns with SSE. */
#ifndef LAMELLA_EVAL_TSNE_H
#define LAMELLA_EVAL_TSNE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

#define LAM_TSNE_MINIMUM_ROWS 4

typedef struct lam_tsne_options {
    double perplexity; /* effective number of neighbours, 1 to rows - 1; 0: lam_tsne_perplexity(rows) */
    bool random_start; /* from normal draws of `seed` (Philox); otherwise from the principal plane */
    uint64_t seed;
    int64_t kept_bytes;
} lam_tsne_options;
extern const lam_tsne_options lam_tsne_defaults;

/* 30, or a third of the other rows where there are fewer than 90 of them. */
double lam_tsne_perplexity(int64_t rows);

/* x [rows, columns] finite (LAM_ERROR_INPUT names the row), at least LAM_TSNE_MINIMUM_ROWS rows; y [rows, 2]. divergence: that of
 * Kullback and Leibler at the end; may be NULL. Where rows are so alike that no beta gives the perplexity (more equally near
 * neighbours than it asks for), those neighbours share the row's affinity evenly. */
lam_status lam_tsne(const double *x, int64_t rows, int64_t columns, const lam_tsne_options *options,
                    double *y, double *divergence);

/* y [rows, 2]: the rows on their two first principal axes (power iteration with deflation from a fixed start; signs are free). */
lam_status lam_principal_plane(const double *x, int64_t rows, int64_t columns, double *y);

#ifdef __cplusplus
}
#endif
#endif
