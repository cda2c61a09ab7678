/* Double-precision linear algebra through OpenBLAS (BLAS and LAPACK). Row-major. Runs on lam_threads() threads;
 * results do not depend on how many. */
#ifndef LAMELLA_EVAL_LINALG_H
#define LAMELLA_EVAL_LINALG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* C [m, n] = op(A) op(B) + beta C; lda, ldb, ldc are the row lengths as stored. */
void lam_gemm_f64(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, const double *a,
                  int64_t lda, const double *b, int64_t ldb, double beta, double *c, int64_t ldc);

/* Symmetric a [n, n] is replaced by its eigenvectors, one a ROW; values [n] rise. LAM_ERROR_NUMERIC where LAPACK does not
 * converge. */
lam_status lam_eigen_symmetric(double *a, int64_t n, double *values);

/* Solves a x = b for each row of b [m, n], which x replaces; a [n, n] is symmetric, positive definite and lost. LAM_ERROR_NUMERIC
 * where it is not. */
lam_status lam_solve_positive(double *a, int64_t n, double *b, int64_t m);

/* Mean [d] and covariance [d, d] (divided by count - ddof) of the rows of x that `rows` lists. */
lam_status lam_covariance(const double *x, int64_t d, const int64_t *rows, int64_t count, int ddof,
                          double *mean, double *covariance);

#ifdef __cplusplus
}
#endif
#endif
