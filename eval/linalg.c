#include "eval/linalg.h"

#include <string.h>

#include <cblas.h>

#include "base/memory.h"
#include "base/threads.h"

#define BLOCK_ROWS 512
#define PART_ROWS 256 /* of a product that one thread computes */
#define PART_COLUMNS 256

/* LAPACK's Fortran interface as OpenBLAS exports it. */
extern void dsyevd_(const char *jobz, const char *uplo, const int *n, double *a, const int *lda, double *w,
                    double *work, const int *lwork, int *iwork, const int *liwork, int *info);
extern void dposv_(const char *uplo, const int *n, const int *nrhs, double *a, const int *lda, double *b,
                   const int *ldb, int *info);

void lam_gemm_f64(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, const double *a,
                  int64_t lda, const double *b, int64_t ldb, double beta, double *c, int64_t ldc) {
    /* The same parts whatever the threads, each the work of one. */
#pragma omp parallel for collapse(2) schedule(dynamic, 1) num_threads(lam_threads())
    for (int64_t i = 0; i < m; i += PART_ROWS)
        for (int64_t j = 0; j < n; j += PART_COLUMNS) {
            int64_t rows = m - i < PART_ROWS ? m - i : PART_ROWS,
                    columns = n - j < PART_COLUMNS ? n - j : PART_COLUMNS;
            cblas_dgemm(CblasRowMajor, transpose_a ? CblasTrans : CblasNoTrans,
                        transpose_b ? CblasTrans : CblasNoTrans, (int)rows, (int)columns, (int)k, 1.0,
                        a + (transpose_a ? i : i * lda), (int)lda, b + (transpose_b ? j * ldb : j), (int)ldb,
                        beta, c + i * ldc + j, (int)ldc);
        }
}

lam_status lam_eigen_symmetric(double *a, int64_t n, double *values) {
    int size = (int)n, info = 0, lwork = -1, liwork = -1, integer_need = 0;
    double need = 0;
    dsyevd_("V", "U", &size, a, &size, values, &need, &lwork, &integer_need, &liwork, &info);
    lwork = (int)need;
    liwork = integer_need;
    double *work = NULL;
    int *integers = NULL;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_alloc_array((void **)&work, lwork, sizeof *work), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&integers, liwork, sizeof *integers), done);
    dsyevd_("V", "U", &size, a, &size, values, work, &lwork, integers, &liwork, &info);
    LAM_REQUIRE_GOTO(info == 0, done, LAM_ERROR_NUMERIC,
                     "the eigenvectors of a %lld x %lld matrix were not found (LAPACK: %d)", (long long)n,
                     (long long)n, info);
done:
    lam_free(work);
    lam_free(integers);
    return status;
}

lam_status lam_solve_positive(double *a, int64_t n, double *b, int64_t m) {
    int size = (int)n, sides = (int)m, info = 0;
    dposv_("U", &size, &sides, a, &size, b, &size, &info);
    LAM_REQUIRE(info == 0, LAM_ERROR_NUMERIC, "a %lld x %lld matrix is not positive definite (LAPACK: %d)",
                (long long)n, (long long)n, info);
    return LAM_OK;
}

lam_status lam_covariance(const double *x, int64_t d, const int64_t *rows, int64_t count, int ddof,
                          double *mean, double *covariance) {
    double *block;
    LAM_TRY(lam_alloc_array((void **)&block, BLOCK_ROWS * d, sizeof *block));
    memset(mean, 0, (size_t)d * sizeof *mean);
    memset(covariance, 0, (size_t)(d * d) * sizeof *covariance);
    for (int64_t i = 0; i < count; i++)
        for (int64_t j = 0; j < d; j++) mean[j] += x[rows[i] * d + j];
    for (int64_t j = 0; j < d; j++) mean[j] /= (double)count;
    for (int64_t start = 0; start < count; start += BLOCK_ROWS) {
        int64_t n = count - start < BLOCK_ROWS ? count - start : BLOCK_ROWS;
        for (int64_t i = 0; i < n; i++)
            for (int64_t j = 0; j < d; j++) block[i * d + j] = x[rows[start + i] * d + j] - mean[j];
        lam_gemm_f64(true, false, d, d, n, block, d, block, d, 1.0, covariance, d);
    }
    for (int64_t i = 0; i < d * d; i++) covariance[i] /= (double)(count - ddof);
    lam_free(block);
    return LAM_OK;
}
