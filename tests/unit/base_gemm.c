/* Matrix products against float64 in every layout, with operands copied and not, odd sizes and strides. */
#include <math.h>
#include <omp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/gemm.h"

static float value(int64_t i) { return (float)sin(1.7 * (double)i); }

typedef lam_status (*library)(bool, bool, int64_t, int64_t, int64_t, const float *, int64_t, const float *,
                              int64_t, float, float *, int64_t);

static void check(library multiply, bool ta, bool tb, int64_t m, int64_t n, int64_t k, float beta) {
    int64_t lda = (ta ? m : k) + 3, ldb = (tb ? k : n) + 5, ldc = n + 2;
    int64_t count_a = (ta ? k : m) * lda, count_b = (tb ? n : k) * ldb, count_c = m * ldc;
    float *a = calloc((size_t)count_a + 1, sizeof *a), *b = calloc((size_t)count_b + 1, sizeof *b),
          *c = calloc((size_t)count_c + 1, sizeof *c);
    for (int64_t i = 0; i < count_a; i++) a[i] = value(i);
    for (int64_t i = 0; i < count_b; i++) b[i] = value(i + 100000);
    for (int64_t i = 0; i < count_c; i++)
        c[i] = beta == 0.0f ? NAN : value(i + 7); /* beta 0 does not read C */
    assert_int_equal(multiply(ta, tb, m, n, k, a, lda, b, ldb, beta, c, ldc), LAM_OK);
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            double sum = beta == 0.0f ? 0 : (double)beta * (double)value(i * ldc + j + 7), size = 1;
            for (int64_t l = 0; l < k; l++) {
                double term =
                    (double)a[ta ? l * lda + i : i * lda + l] * (double)b[tb ? j * ldb + l : l * ldb + j];
                sum += term;
                size += fabs(term);
            }
            if (!(fabs((double)c[i * ldc + j] - sum) <= 1e-6 * size))
                fail_msg("%c%c %lldx%lldx%lld at (%lld, %lld): %g, not %g", ta ? 'T' : 'N', tb ? 'T' : 'N',
                         (long long)m, (long long)n, (long long)k, (long long)i, (long long)j,
                         (double)c[i * ldc + j], sum);
        }
    free(a);
    free(b);
    free(c);
}

static void products(void **state) {
    lam_gemm_turn_operands(*(lam_gemm_turning *)*state);
    static const int64_t sizes[][3] = {{1, 1, 1},     {5, 7, 3},   {33, 65, 17}, {64, 32, 100},
                                       {131, 70, 45}, {3, 200, 0}, {40, 0, 3},   {35, 1, 90}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int layout = 0; layout < 4; layout++)
            for (int beta = 0; beta < 3; beta++)
                check(lam_gemm_f32, layout & 1, layout & 2, sizes[i][0], sizes[i][1], sizes[i][2],
                      0.5f * (float)beta);
    lam_gemm_release();
    lam_gemm_turn_operands(LAM_GEMM_TURN_AUTO);
}

static void openblas(void **state) {
    (void)state;
    static const int64_t sizes[][3] = {{1, 1, 1}, {5, 7, 3}, {131, 70, 45}, {3, 0, 2}, {35, 1, 90}};
    for (int threads = 2; threads > 0; threads--) {
        int ours = omp_get_max_threads();
        lam_gemm_openblas_threads(threads);
        assert_int_equal(omp_get_max_threads(), ours); /* OpenBLAS would take its own count for OpenMP's */
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
            for (int layout = 0; layout < 4; layout++)
                check(lam_gemm_f32_openblas, layout & 1, layout & 2, sizes[i][0], sizes[i][1], sizes[i][2],
                      0.5f * (float)(layout % 3));
    }
    float x = 0;
    assert_int_equal(lam_gemm_f32_openblas(false, false, 1, 1, 1, &x, (int64_t)1 << 31, &x, 1, 0, &x, 1),
                     LAM_ERROR_EXTERNAL);
}

int main(void) {
    static lam_gemm_turning modes[] = {LAM_GEMM_TURN_AUTO, LAM_GEMM_TURN_NEVER, LAM_GEMM_TURN_ALWAYS};
    const struct CMUnitTest tests[] = {
        {"as the CPU likes it", products, NULL, NULL, &modes[0]},
        {"operands as they are", products, NULL, NULL, &modes[1]},
        {"operands copied", products, NULL, NULL, &modes[2]},
        {"OpenBLAS", openblas, NULL, NULL, NULL},
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
