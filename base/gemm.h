/* Matrix products in float32 and bfloat16 through oneDNN, row-major.
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

/* The same by OpenBLAS, for measurements of what this machine can do; LAM_ERROR_EXTERNAL where a size is beyond its integers.
 * It runs on the threads that the other call sets; to be set back to 1 afterwards (base/threads.h). */
lam_status lam_gemm_f32_openblas(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k,
                                 const float *a, int64_t lda, const float *b, int64_t ldb, float beta,
                                 float *c, int64_t ldc);
void lam_gemm_openblas_threads(int threads);

/* ---- products whose right operand was packed before, and products of bfloat16 (gemm_packed.c) ---- */

typedef enum lam_gemm_type { LAM_GEMM_F32, LAM_GEMM_BF16 } lam_gemm_type;

/* Whether packing weights [out, in] anew earns itself in one product with so many rows. bfloat16 knows no other way. */
bool lam_gemm_packing_pays(lam_gemm_type type, int64_t rows, int64_t in);
/* Bytes that B [k, n] takes when packed; 0: oneDNN refuses it. */
size_t lam_gemm_packed_bytes(lam_gemm_type type, int64_t k, int64_t n);
/* Weights W [out, in] of a linear map y = x W^T, float32, in up to three parts that lie one below the other. */
typedef struct lam_gemm_weights {
    int64_t in;
    int parts;
    struct {
        int64_t out;
        const float *data; /* [out, in] */
    } part[3];
} lam_gemm_weights;
/* Packs them for y = x W^T (`forward`: B is W^T [in, out]) and for dx = dy W (`backward`: B is W [out, in]); NULL: not wanted.
 * Rounded to nearest even where the type is BF16. */
lam_status lam_gemm_pack(lam_gemm_type type, const lam_gemm_weights *weights, void *forward, void *backward);

/* C[m, n] = A[m, k] B + bias (NULL: none), or C += where `accumulate`. A and C are of the type; bias and sums are float32. */
typedef struct lam_gemm_operands {
    int64_t m, n, k;
    const void *a;
    int64_t lda;
    const void *packed;
    const float *bias;
    bool accumulate;
    void *c;
    int64_t ldc;
} lam_gemm_operands;
lam_status lam_gemm_packed(lam_gemm_type type, const lam_gemm_operands *operands);

/* C[m, n] (float32) = A^T B, or += where `accumulate`, for up to three C whose columns of A lie side by side: the weights'
 * gradients of linear maps that share their input. A [k, sum of m], B [k, n] of the type. */
typedef struct lam_gemm_gradients {
    int64_t n, k;
    const void *a;
    int64_t lda;
    const void *b;
    int64_t ldb;
    int parts;
    struct {
        int64_t m;
        bool accumulate;
        float *c;    /* [m, n], its rows touch; NULL: not wanted */
        float *sums; /* [m], += of the columns of A over k: the biases' gradients; NULL: not wanted */
    } part[3];
} lam_gemm_gradients;
lam_status lam_gemm_gradient(lam_gemm_type type, const lam_gemm_gradients *operands);

/* How products of bfloat16 are done: by the CPU's instructions (AMX; AVX512-BF16 on AMD, where it is twice as fast as float32:
 * on Intel it is half as fast), or by float32 products of the converted operands. AUTO decides by the CPU and the limit of
 * lam_gemm_limit_isa; the others are for tests. Both round once, at the end; their sums run in another order. To be set before
 * anything is packed: the forms differ. */
typedef enum lam_gemm_route { LAM_GEMM_AUTO, LAM_GEMM_NATIVE, LAM_GEMM_CONVERT } lam_gemm_route;
void lam_gemm_bf16_route(lam_gemm_route route);
bool lam_gemm_bf16_native(void);

/* "oneDNN 2.6.0 (commit)". */
void lam_gemm_library(char *name, size_t size);

/* Limits oneDNN to an instruction set ("baseline", "avx2", "avx512", "avx512_bf16", "amx"); it heeds the first call before the
 * first product only. */
void lam_gemm_limit_isa(const char *name);

#ifdef __cplusplus
}
#endif
#endif
