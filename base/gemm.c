#include "base/gemm.h"

#include <cpuid.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <dnnl.h>

#include "base/gemm_parts.h"
#include "base/memory.h"

/* oneDNN 2.6 reaches a third of its speed or less for transposed operands on Zen 5 (AMD family 26) and its
 * full speed on Zen 4 and on Intel. Copying costs O(mk + kn) and pays only there. */
#define AMD_ZEN5_FAMILY 26
#define TILE 32
#define TURNED_MINIMUM 32 /* smaller products do not earn the copy */

static int turning = -1; /* -1: not decided */

static bool slow_transposed(void) {
    unsigned a, b, c, d;
    if (!__get_cpuid(0, &a, &b, &c, &d) || c != signature_AMD_ecx || !__get_cpuid(1, &a, &b, &c, &d))
        return false;
    unsigned family = (a >> 8 & 15) + (a >> 20 & 255);
    return family >= AMD_ZEN5_FAMILY;
}

void lam_gemm_turn_operands(lam_gemm_turning mode) {
    turning = mode == LAM_GEMM_TURN_AUTO ? slow_transposed() : mode == LAM_GEMM_TURN_ALWAYS;
}

/* to[columns, rows] = from[rows, columns]^T */
static void transpose(const float *from, int64_t rows, int64_t columns, int64_t stride, float *to) {
#pragma omp parallel for schedule(static)
    for (int64_t j0 = 0; j0 < columns; j0 += TILE)
        for (int64_t i0 = 0; i0 < rows; i0 += TILE) {
            int64_t j1 = j0 + TILE < columns ? j0 + TILE : columns, i1 = i0 + TILE < rows ? i0 + TILE : rows;
            for (int64_t j = j0; j < j1; j++)
                for (int64_t i = i0; i < i1; i++) to[j * rows + i] = from[i * stride + j];
        }
}

typedef struct lam_gemm_scratch scratch;

lam_status lam_gemm_scratch_grow(scratch *s, int64_t count) {
    if (s->count >= count) return LAM_OK;
    lam_free(s->floats);
    *s = (scratch){0};
    LAM_TRY(lam_alloc_array((void **)&s->floats, count, sizeof(float)));
    s->count = count;
    return LAM_OK;
}

bool lam_gemm_turns(void) {
    if (turning < 0) lam_gemm_turn_operands(LAM_GEMM_TURN_AUTO);
    return turning == 1;
}

static lam_status turned(scratch *s, const float **operand, int64_t *stride, int64_t rows, int64_t columns) {
    LAM_TRY(lam_gemm_scratch_grow(s, rows * columns));
    transpose(*operand, rows, columns, *stride, s->floats);
    *operand = s->floats;
    *stride = rows;
    return LAM_OK;
}

static _Thread_local scratch scratch_a, scratch_b;

void lam_gemm_release(void) {
    lam_free(scratch_a.floats);
    lam_free(scratch_b.floats);
    scratch_a = scratch_b = (scratch){0};
    lam_gemm_packed_release();
}

lam_status lam_gemm_f32(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, const float *a,
                        int64_t lda, const float *b, int64_t ldb, float beta, float *c, int64_t ldc) {
    if (m <= 0 || n <= 0) return LAM_OK;
    if (k <= 0) {
        for (int64_t i = 0; i < m; i++)
            for (int64_t j = 0; j < n; j++) c[i * ldc + j] = beta == 0.0f ? 0.0f : beta * c[i * ldc + j];
        return LAM_OK;
    }
    bool turns = lam_gemm_turns();
    if (turns && transpose_a && n >= TURNED_MINIMUM) {
        LAM_TRY(turned(&scratch_a, &a, &lda, k, m));
        transpose_a = false;
    }
    if (turns && transpose_b && m >= TURNED_MINIMUM) {
        LAM_TRY(turned(&scratch_b, &b, &ldb, n, k));
        transpose_b = false;
    }
    dnnl_status_t code = dnnl_sgemm(transpose_a ? 'T' : 'N', transpose_b ? 'T' : 'N', m, n, k, 1.0f, a, lda,
                                    b, ldb, beta, c, ldc);
    LAM_REQUIRE(code == dnnl_success, LAM_ERROR_EXTERNAL,
                "oneDNN refused a product of [%lld, %lld] by [%lld, %lld] with status %d", (long long)m,
                (long long)k, (long long)k, (long long)n, (int)code);
    return LAM_OK;
}

void lam_gemm_limit_isa(const char *name) {
    dnnl_cpu_isa_t isa = dnnl_cpu_isa_all;
    if (strcmp(name, "baseline") == 0) isa = dnnl_cpu_isa_sse41;
    if (strcmp(name, "avx2") == 0) isa = dnnl_cpu_isa_avx2;
    if (strcmp(name, "avx512") == 0) isa = dnnl_cpu_isa_avx512_core;
    if (strcmp(name, "avx512_bf16") == 0) isa = dnnl_cpu_isa_avx512_core_bf16;
    (void)dnnl_set_max_cpu_isa(isa); /* refused after the first product: the choice made then stays */
}

void lam_gemm_library(char *name, size_t size) {
    const dnnl_version_t *v = dnnl_version();
    snprintf(name, size, "oneDNN %d.%d.%d (%.12s)", v->major, v->minor, v->patch, v->hash);
}
