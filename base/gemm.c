#include "base/gemm.h"

#include <string.h>

#include <dnnl.h>

lam_status lam_gemm_f32(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, const float *a, int64_t lda,
                        const float *b, int64_t ldb, float beta, float *c, int64_t ldc) {
    if (m <= 0 || n <= 0) return LAM_OK;
    if (k <= 0) {
        for (int64_t i = 0; i < m; i++)
            for (int64_t j = 0; j < n; j++) c[i * ldc + j] = beta == 0.0f ? 0.0f : beta * c[i * ldc + j];
        return LAM_OK;
    }
    dnnl_status_t code = dnnl_sgemm(transpose_a ? 'T' : 'N', transpose_b ? 'T' : 'N', m, n, k, 1.0f, a, lda, b, ldb, beta,
                                    c, ldc);
    LAM_REQUIRE(code == dnnl_success, LAM_ERROR_EXTERNAL,
                "oneDNN refused a product of [%lld, %lld] by [%lld, %lld] with status %d", (long long)m, (long long)k,
                (long long)k, (long long)n, (int)code);
    return LAM_OK;
}

void lam_gemm_limit_isa(const char *name) {
    dnnl_cpu_isa_t isa = dnnl_cpu_isa_all;
    if (strcmp(name, "baseline") == 0) isa = dnnl_cpu_isa_sse41;
    if (strcmp(name, "avx2") == 0) isa = dnnl_cpu_isa_avx2;
    if (strcmp(name, "avx512") == 0) isa = dnnl_cpu_isa_avx512_core;
    (void)dnnl_set_max_cpu_isa(isa); /* refused after the first product: the choice made then stays */
}
