#include <cblas.h>
#include <limits.h>
#include <omp.h>

#include "base/gemm.h"

void lam_gemm_openblas_threads(int threads) {
    int ours = omp_get_max_threads();
    openblas_set_num_threads(threads);
    omp_set_num_threads(ours); /* its OpenMP build hands its own count on to OpenMP */
}

lam_status lam_gemm_f32_openblas(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k,
                                 const float *a, int64_t lda, const float *b, int64_t ldb, float beta,
                                 float *c, int64_t ldc) {
    if (m <= 0 || n <= 0) return LAM_OK;
    const int64_t sizes[] = {m, n, k, lda, ldb, ldc};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        LAM_REQUIRE(sizes[i] <= INT_MAX, LAM_ERROR_EXTERNAL, "OpenBLAS takes no size of %lld",
                    (long long)sizes[i]);
    cblas_sgemm(CblasRowMajor, transpose_a ? CblasTrans : CblasNoTrans,
                transpose_b ? CblasTrans : CblasNoTrans, (int)m, (int)n, (int)k, 1.0f, a, (int)lda, b,
                (int)ldb, beta, c, (int)ldc);
    return LAM_OK;
}
