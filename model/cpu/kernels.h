/* The CPU kernels, compiled once for each instruction set from kernels.inc.h and chosen at run time.
 * Row-major float32. Every sum runs over fixed blocks in a fixed order: the same bits for any number of
 * threads. */
#ifndef LAMELLA_MODEL_CPU_KERNELS_H
#define LAMELLA_MODEL_CPU_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lam_adamw_terms {
    float decay_factor, beta1, beta2, eps, step_size, inverse_root_correction2, gradient_scale;
} lam_adamw_terms;

typedef struct lam_kernels {
    const char *name;
    /* y[r] += bias for each of `rows` rows of width `width`. */
    void (*add_bias)(float *y, const float *bias, int64_t rows, int64_t width, int64_t stride);
    /* y = gelu(x), erf form (Hendrycks & Gimpel 2016). */
    void (*gelu)(const float *x, float *y, int64_t count);
    /* d *= gelu'(x). */
    void (*gelu_backward)(const float *x, float *d, int64_t count);
    /* out[width] += column sums of x [rows, stride]; partial: workspace of lam_column_blocks(rows) * width
     * floats. */
    void (*column_sums)(const float *x, int64_t rows, int64_t width, int64_t stride, float *partial,
                        float *out);
    /* s = x + r (r NULL: s is not written and x is normalised); y = (s - mean) * rstd * w + b over the last
     * dimension. */
    void (*layernorm)(const float *x, const float *r, const float *w, const float *b, float *s, float *y,
                      float *mean, float *rstd, int64_t rows, int64_t width, float eps);
    /* dx (and dr, where not NULL) (+)= d of layernorm + ds (NULL: none); dw, db += ; partial: 2 * blocks *
     * width floats. */
    void (*layernorm_backward)(const float *s, const float *w, const float *mean, const float *rstd,
                               const float *dy, const float *ds, float *dx, bool add_x, float *dr, bool add_r,
                               float *dw, float *db, float *partial, int64_t rows, int64_t width);
    /* softmax(q k^T / sqrt(head_dim)) v for each (batch, head); qkv [batch, tokens, 3 heads head_dim]; lse
     * [batch, heads, tokens]. Backward reads `out` as well: sum_j p_j dp_j = d_out . out (Dao 2023,
     * FlashAttention-2, section 3). */
    void (*attention)(const float *qkv, float *out, float *lse, float *workspace, int64_t batch,
                      int64_t tokens, int64_t heads, int64_t head_dim);
    void (*attention_backward)(const float *qkv, const float *lse, const float *out, const float *d_out,
                               float *d_qkv, float *workspace, int64_t batch, int64_t tokens, int64_t heads,
                               int64_t head_dim);
    size_t (*attention_workspace)(int64_t tokens, int64_t head_dim, bool backward); /* bytes a thread */
    void (*adamw)(float *w, const float *g, float *m, float *v, int64_t count, const lam_adamw_terms *terms);
    void (*lion)(float *w, const float *g, float *m, int64_t count, float decay_factor, float lr, float beta1,
                 float beta2, float gradient_scale);
    void (*accumulate)(float *to, const float *from, int64_t count); /* to += from */
} lam_kernels;

#define LAM_COLUMN_BLOCK_ROWS 128
static inline int64_t lam_column_blocks(int64_t rows) {
    return (rows + LAM_COLUMN_BLOCK_ROWS - 1) / LAM_COLUMN_BLOCK_ROWS;
}

extern const lam_kernels lam_kernels_baseline, lam_kernels_avx2, lam_kernels_avx512;
const lam_kernels *lam_kernels_current(void); /* after lam_isa_select */

#ifdef __cplusplus
}
#endif
#endif
