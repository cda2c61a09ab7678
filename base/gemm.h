/* Matrix products in float32 through oneDNN, row-major.
 *
 *     // y[m, n] = x[m, k] w[n, k]^T
 *     LAM_TRY(lam_gemm_f32(false, true, m, n, k, x, k, w, k, 0.0f, y, n));
 *
 * The same operands, shapes and thread count give the same bits. Threading: runs on OpenMP's threads; call it
 * outside parallel regions. LAM_ERROR_EXTERNAL where oneDNN refuses. */
#ifndef LAMELLA_BASE_GEMM_H
#define LAMELLA_BASE_GEMM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* C[m, n] = op(A) op(B) + beta C, op(A) is [m, k] and op(B) [k, n]; a transposed operand is stored [k, m] or
 * [n, k]. lda, ldb, ldc: elements from one stored row to the next. C aliases neither A nor B. beta 0 does not
 * read C; a dimension of 0 is allowed (k = 0: C is scaled by beta). */
lam_status lam_gemm_f32(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, const float *a,
                        int64_t lda, const float *b, int64_t ldb, float beta, float *c, int64_t ldc);

/* Where oneDNN is slow for transposed operands (AMD Zen 5) they are copied first. AUTO decides by the CPU;
 * the others are for tests and measurements. The copies live in scratch of the calling thread until
 * lam_gemm_release (same thread). */
typedef enum lam_gemm_turning {
    LAM_GEMM_TURN_AUTO,
    LAM_GEMM_TURN_NEVER,
    LAM_GEMM_TURN_ALWAYS
} lam_gemm_turning;
void lam_gemm_turn_operands(lam_gemm_turning mode);
void lam_gemm_release(void);

/* "oneDNN 2.6.0 (commit)". */
void lam_gemm_library(char *name, size_t size);

/* Limits oneDNN to an instruction set ("baseline", "avx2", "avx512"); it heeds the first call before the
 * first product only. */
void lam_gemm_limit_isa(const char *name);

#ifdef __cplusplus
}
#endif
#endif
