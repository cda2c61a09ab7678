/* The CPU kernels, compiled once for each instruction set and storage type from the families in this folder, chosen at run
 * time. Row-major. `void` pointers are activations of the table's storage type (float32 or bfloat16); everything else is
 * float32, and all arithmetic is. Every sum runs over fixed blocks in a fixed order: the same bits for any number of threads. */
#ifndef LAMELLA_MODEL_CPU_KERNELS_H
#define LAMELLA_MODEL_CPU_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/cpu/attention.h"
#include "model/cpu/optimizer.h"
#include "model/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Stochastic depth in LayerNorm: which samples, of `tokens` rows each, r and y hold. place[sample] is the sample's place
 * in r or y, -1: it is not there; NULL: r or y holds all of them, in order. */
typedef struct lam_sample_places {
    int64_t tokens;
    const int32_t *r, *y;
    const float *r_scale; /* s = x + r_scale[0] r; NULL: 1 */
    /* Rows of r and y that lie behind those of the placed samples and are to be zero, counted with them; 0: none are written. */
    int64_t r_rows, y_rows;
} lam_sample_places;

/* Where `row` lies in what holds the placed samples; -1: it is not there. */
static inline int64_t lam_placed_row(const int32_t *place, int64_t tokens, int64_t row) {
    if (!place) return row;
    int64_t at = place[row / tokens];
    return at < 0 ? -1 : at * tokens + row % tokens;
}

/* Of unshuffle_channels. restore [batch, tokens]; channel_ids [tokens / per_channel] into `channels`, NULL: in order; cls: the
 * result begins with row 0 of x. */
typedef struct lam_unshuffle_sizes {
    int64_t batch, kept, tokens, per_channel, channels, width;
    int64_t cls; /* 1 or 0 */
    const int32_t *restore, *channel_ids;
} lam_unshuffle_sizes;
/* Tokens of rank first, ..., first + count - 1; by places `skipped` rows come before the tokens. */
typedef struct lam_ranks {
    const int32_t *ids_restore; /* [batch, tokens]: the rank of each */
    int64_t tokens, first, count, skipped;
} lam_ranks;
/* One sample of the Fourier loss: `images` planes of height x width out of `tokens` tokens of `length` values on a grid x grid
 * of places. by_channel: tokens are channel-major with P*P values, else they hold P*P*C, channel fastest. `cell` consecutive
 * coefficients share a weight. half = width / 2 + 1. */
typedef struct lam_fourier_shape {
    lam_fourier_form form;
    bool by_channel;
    int64_t channels, patch_size, grid, tokens, length, images, height, width, half, cell;
} lam_fourier_shape;

typedef struct lam_kernels {
    const char *name;

    /* elementwise.inc.h */
    void (*fill)(void *to, int byte, size_t bytes);
    void (*copy)(void *to, const void *from, size_t bytes);
    void (*set)(float *to, float value); /* one element */
    /* y[r] += bias for each of `rows` rows of width `width`. */
    void (*add_bias)(void *y, const float *bias, int64_t rows, int64_t width, int64_t stride);
    /* y = gelu(x), erf form (Hendrycks & Gimpel 2016). */
    void (*gelu)(const void *x, void *y, int64_t count);
    /* The same, and x becomes gelu'(x). y is aligned to 64 bytes. */
    void (*gelu_slope)(void *x, void *y, int64_t count);
    void (*multiply)(const void *by, void *x, int64_t count);            /* x *= by */
    void (*accumulate)(void *to, const void *from, int64_t count);       /* to += from */
    void (*add)(const void *a, const void *b, void *sum, int64_t count); /* sum = a + b */

    /* sum = x + r_scale r where r holds the row, x elsewhere; dr (+)= r_scale d of the rows that it holds. */
    void (*depth_add)(const void *x, const void *r, void *sum, int64_t rows, int64_t width,
                      const lam_sample_places *places);
    void (*depth_add_backward)(const void *d, void *dr, bool add, int64_t rows, int64_t width,
                               const lam_sample_places *places);

    /* norm.inc.h */
    /* s = x + r (r NULL: s is not written and x is normalised); y = (s - mean) * rstd * w + b over the last
     * dimension. places NULL: r and y hold every row; else `rows` is that of x and s. */
    void (*layernorm)(const void *x, const void *r, const float *w, const float *b, void *s, void *y,
                      float *mean, float *rstd, int64_t rows, int64_t width, float eps,
                      const lam_sample_places *places);
    /* y of the above from s, mean and rstd: the same bits. */
    void (*layernorm_again)(const void *s, const float *w, const float *b, void *y, const float *mean,
                            const float *rstd, int64_t rows, int64_t width, const lam_sample_places *places);
    /* dx (and dr, where not NULL) (+)= d of layernorm + ds (NULL: none; may be dx); dw, db += ; partial: 2 *
     * lam_column_partials(rows) * width floats. */
    void (*layernorm_backward)(const void *s, const float *w, const float *mean, const float *rstd,
                               const void *dy, const void *ds, void *dx, bool add_x, void *dr, bool add_r,
                               float *dw, float *db, float *partial, int64_t rows, int64_t width,
                               const lam_sample_places *places);

    /* tokens.inc.h: the operations of the same name in model/ops.h */
    void (*embed_tokens)(const void *x, const float *cls, const float *position, const int32_t *ids, void *y,
                         int64_t batch, int64_t kept, int64_t places, int64_t width);
    /* out[width] += sum over b of x[b * stride + i]. */
    void (*batch_sums)(const void *x, int64_t batch, int64_t stride, int64_t width, float *out);
    /* As lam_merge_tokens and lam_masked_tokens say; ranks: ids_restore, tokens and, as count, the visible ones. */
    void (*merge_tokens)(const void *visible, const void *masked, const lam_ranks *ranks, void *y,
                         int64_t batch, int64_t width);
    void (*merge_tokens_backward)(const void *dy, const lam_ranks *ranks, void *d_visible, bool add_visible,
                                  void *d_masked, bool add_masked, int64_t batch, int64_t width);
    void (*masked_tokens)(const float *mask_token, const float *position, void *y, int64_t tokens,
                          int64_t width);
    /* Both +=, NULL: not wanted. */
    void (*masked_tokens_backward)(const void *dy, float *d_mask_token, float *d_position, int64_t tokens,
                                   int64_t width);
    void (*gather_patches)(const float *patches, const int32_t *ids, void *y, int64_t batch, int64_t tokens,
                           int64_t kept, int64_t length, int64_t channels);

    /* loss.inc.h; mean, rstd [rows]: of the target patch, NULL: 0 and 1 */
    /* errors[row] = mean over the patch of (prediction - (target - mean) rstd)^2, 0 where mask[row] is 0. */
    void (*masked_loss)(const void *prediction, const float *target, const float *mask, const float *mean,
                        const float *rstd, double *errors, int64_t rows, int64_t length);
    /* d (+)= factor[row] (prediction - (target - mean) rstd); a factor of 0 passes nothing, whatever the values. */
    void (*masked_loss_backward)(const void *prediction, const float *target, const float *factor,
                                 const float *mean, const float *rstd, void *d, bool add, int64_t rows,
                                 int64_t length);

    /* The parts of lam_fourier_loss between its matrix products, for one sample, whose tokens start at element `first` of
     * prediction and d_prediction; mean, rstd [tokens]. planes: [images, height, width] of the prediction, or of the target
     * where it is NULL; tokens: d_prediction (+)= factor planes. */
    void (*fourier_planes)(const void *prediction, int64_t first, const float *target, const float *mask,
                           const float *mean, const float *rstd, float *planes,
                           const lam_fourier_shape *shape);
    void (*fourier_tokens)(const float *planes, const float *mask, float factor, void *d_prediction,
                           int64_t first, bool add, const lam_fourier_shape *shape);

    /* fourier.inc.h: float32 in both tables */
    /* rows [width, 2 half], columns [2 height, 2 height] */
    void (*fourier_matrices)(float *rows, float *columns, const lam_fourier_shape *shape);
    /* [images, height, 2, half] to [images, half, 2, height], or back */
    void (*fourier_turn)(const float *from, float *to, const lam_fourier_shape *shape, bool back);
    /* The sample's loss, and its gradient in place of the spectrum; cells: weights of the coefficients; errors: workspace
     * [images]. */
    double (*fourier_error)(float *spectrum, const float *wanted, const float *cells, double *errors,
                            const lam_fourier_shape *shape, bool squared);

    /* partial.inc.h */
    /* As lam_append_masked says; rows of `width` elements. */
    void (*append_masked)(const void *x, const float *mask_token, const float *position, const int32_t *ids,
                          void *y, int64_t batch, int64_t kept, int64_t decoded, int64_t places,
                          int64_t width);
    /* d_mask_token +=; partial: workspace of batch * width floats. */
    void (*append_masked_backward)(const void *dy, void *dx, bool add, float *d_mask_token, float *partial,
                                   int64_t batch, int64_t kept, int64_t decoded, int64_t width);
    /* x by ranks to y by places: rows of no such rank become 0, with `add` they stay; and the way back. */
    void (*place_ranks)(const void *x, const lam_ranks *ranks, void *y, bool add, int64_t batch,
                        int64_t width);
    void (*take_ranks)(const void *x, const lam_ranks *ranks, void *y, bool add, int64_t batch,
                       int64_t width);
    /* Of the positions added to rows dy [batch, 1 + tokens, width]: row 0 of the table += rows 0, row 1 + ids[t] % places
     * += rows 1 + t (ids NULL: t). */
    void (*position_gradient)(const void *dy, const int32_t *ids, float *d_position, int64_t batch,
                              int64_t tokens, int64_t places, int64_t width);

    /* attention.inc.h */
    /* model/cpu/attention.h; lse [batch, heads, queries] is for the backward pass. Backward
     * reads `out` as well: sum_j p_j dp_j = d_out . out (Dao 2023, FlashAttention-2, section 3). */
    void (*attention)(const lam_attention_shape *shape, const void *q, const void *k, const void *v,
                      void *out, float *lse, void *workspace);
    void (*attention_backward)(const lam_attention_shape *shape, const lam_attention_tensors *tensors,
                               void *workspace);
    /* Bytes, for the largest batch. */
    size_t (*attention_workspace)(const lam_attention_shape *shape, bool backward);
    int64_t attention_head_dim; /* elements of a head at most; 0: any number */

    /* parallel.inc.h; not on a GPU, whose products come in another form (model/cuda/linear.cu) */
    /* scaled[r] = scale[r] w[r] for each row. */
    void (*scale_rows)(const float *w, const float *scale, float *scaled, int64_t rows, int64_t width);
    /* Its gradients from `product`, that of scaled: dw[r] += scale[r] product[r], d_scale[r] += w[r] . product[r]; NULL: not
     * wanted. */
    void (*scale_rows_backward)(const float *w, const float *scale, const float *product, float *dw,
                                float *d_scale, int64_t rows, int64_t width);

    /* channels.inc.h */
    /* x [batch, 1 + kept, width], position [1 + per_channel, width], channel_tokens [channels, width] -> y [batch, cls +
     * tokens, width]. Backward: dx (+)=, d_mask and d_channels (NULL: not needed) += ; partial: batch * (1 + channels) *
     * width floats. */
    void (*unshuffle_channels)(const lam_unshuffle_sizes *sizes, const void *x, const float *mask_token,
                               const float *position, const float *channel_tokens, void *y);
    void (*unshuffle_channels_backward)(const lam_unshuffle_sizes *sizes, const void *dy, void *dx, bool add,
                                        float *d_mask, float *d_channels, float *partial);
    /* to[b * to_stride + to_first + i] = or += from[b * from_stride + from_first + i], i < width. */
    void (*copy_rows)(const void *from, int64_t from_stride, int64_t from_first, void *to, int64_t to_stride,
                      int64_t to_first, int64_t batch, int64_t width, bool add);

    const lam_optimizer_kernels *optimizer; /* the update rules: float32 in both tables */
} lam_kernels;

#define LAM_COLUMN_BLOCK_ROWS 128
static inline int64_t lam_column_blocks(int64_t rows) {
    return (rows + LAM_COLUMN_BLOCK_ROWS - 1) / LAM_COLUMN_BLOCK_ROWS;
}
/* A GPU takes blocks of 8 rows and more, 512 of them at most, so that few rows fill it as well. */
#define LAM_COLUMN_PARTIALS 512
#define LAM_COLUMN_PARTIAL_ROWS 8
/* Rows of partial sums that either needs. */
static inline int64_t lam_column_partials(int64_t rows) {
    int64_t blocks = lam_column_blocks(rows),
            device = (rows + LAM_COLUMN_PARTIAL_ROWS - 1) / LAM_COLUMN_PARTIAL_ROWS;
    if (device > LAM_COLUMN_PARTIALS) device = LAM_COLUMN_PARTIALS;
    return blocks > device ? blocks : device;
}

/* Masks do not depend on the instruction set: model/cpu/mask.c. Workspace: bytes. */
size_t lam_cpu_mask_workspace(int64_t batch, int64_t tokens);
void lam_cpu_mask_noise(const lam_mask *how, uint32_t step, const int64_t *sample_ids, float *noise,
                        void *workspace, int64_t batch);
void lam_cpu_mask_plan(const float *noise, int32_t *ids_keep, int32_t *ids_restore, float *mask,
                       void *workspace, int64_t batch, int64_t tokens, int64_t keep);
void lam_cpu_decode_plan(const int32_t *ids_restore, int32_t *ids, float *mask, int64_t batch, int64_t tokens,
                         int64_t keep, int64_t decoded);

/* [0] float32, [1] bfloat16 */
extern const lam_kernels lam_kernels_baseline[2], lam_kernels_avx2[2], lam_kernels_avx512[2],
    lam_kernels_avx512_bf16[2], lam_kernels_amx[2];
const lam_kernels *lam_kernels_current(bool bf16); /* after lam_isa_select */

#ifdef __cplusplus
}
#endif
#endif
