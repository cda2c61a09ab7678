/* The kernels' source, compiled by kernels_{baseline,avx2,avx512}.c with LAM_SUFFIX, LAM_VECTOR_FLOATS and
 * LAM_TILE_ROWS set. Vectors are GCC/Clang vector extensions, so one source serves every width. */
#include <math.h>
#include <omp.h>
#include <string.h>

#include "model/cpu/kernels.h"

#define JOIN2(a, b) a##_##b
#define JOIN(a, b) JOIN2(a, b)
#define NAME(x) JOIN(x, LAM_SUFFIX)

#define VF LAM_VECTOR_FLOATS
#define TILE_COLUMNS (2 * VF)
#define QUERY_BLOCK 64 /* query rows that share one pass over the keys */

typedef float vector __attribute__((vector_size(VF * 4), aligned(4), may_alias));

/* ---- elementary functions ---- */

/* exp by 2^n * p(r), Cephes' coefficients; 1 ulp over the range that softmax and gelu use; below -87 it
 * gives 1.6e-38. */
static inline float fast_exp(float x) {
    x = x < -87.0f ? -87.0f : x;
    x = x > 88.0f ? 88.0f : x;
    float n = x * 1.44269504088896341f + 12582912.0f; /* rounds to an integer in the low bits */
    uint32_t bits;
    memcpy(&bits, &n, 4);
    n -= 12582912.0f;
    float r = x - n * 0.693359375f + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    uint32_t scale = (bits + 127u) << 23;
    float two_n;
    memcpy(&two_n, &scale, 4);
    return p * two_n;
}

/* The normal distribution function, Phi(x) = (1 + erf(x / sqrt 2)) / 2, within 1.2e-7 relative to max(Phi, 1
 * - Phi): erf by its odd series polynomial near 0, by 1 - exp(-q(t)) beyond. */
static inline float normal_cdf(float x) {
    float a = x * 0.70710678118654752f, t = fabsf(a), s = a * a;
    float u = -1.72853470e-5f * t + 3.83197126e-4f;
    float w = -3.88396438e-3f * t + 2.42546219e-2f;
    u = u * s + w;
    u = u * t - 1.06777877e-1f;
    u = u * t - 6.34846687e-1f;
    u = u * t - 1.28717512e-1f;
    u = u * t - t;
    float tail = 0.5f * fast_exp(u); /* 1 - Phi(|x|) */
    float far_value = x < 0 ? tail : 1.0f - tail;
    float p = -5.96761703e-4f;
    p = p * s + 4.99119423e-3f;
    p = p * s - 2.67681349e-2f;
    p = p * s + 1.12819925e-1f;
    p = p * s - 3.76125336e-1f;
    p = p * s + 1.28379166e-1f;
    float near_value = 0.5f + 0.5f * (p * a + a);
    return t > 0.927734375f ? far_value : near_value;
}

static void NAME(gelu)(const float *x, float *y, int64_t count) {
#pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < count; i++) y[i] = x[i] * normal_cdf(x[i]);
}

static void NAME(gelu_backward)(const float *x, float *d, int64_t count) {
#pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < count; i++)
        d[i] *= normal_cdf(x[i]) + x[i] * 0.39894228040143268f * fast_exp(-0.5f * x[i] * x[i]);
}

static void NAME(accumulate)(float *to, const float *from, int64_t count) {
#pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < count; i++) to[i] += from[i];
}

static void NAME(add_bias)(float *y, const float *bias, int64_t rows, int64_t width, int64_t stride) {
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < rows; r++) {
        float *row = y + r * stride;
#pragma omp simd
        for (int64_t i = 0; i < width; i++) row[i] += bias[i];
    }
}

/* ---- reductions over rows ---- */

static void NAME(fold)(const float *partial, int64_t blocks, int64_t width, float *out) {
    for (int64_t b = 0; b < blocks; b++)
#pragma omp simd
        for (int64_t i = 0; i < width; i++) out[i] += partial[b * width + i];
}

static void NAME(column_sums)(const float *x, int64_t rows, int64_t width, int64_t stride, float *partial,
                              float *out) {
    int64_t blocks = lam_column_blocks(rows);
#pragma omp parallel for schedule(static)
    for (int64_t b = 0; b < blocks; b++) {
        float *sum = partial + b * width;
        memset(sum, 0, (size_t)width * sizeof *sum);
        int64_t end = (b + 1) * LAM_COLUMN_BLOCK_ROWS < rows ? (b + 1) * LAM_COLUMN_BLOCK_ROWS : rows;
        for (int64_t r = b * LAM_COLUMN_BLOCK_ROWS; r < end; r++)
#pragma omp simd
            for (int64_t i = 0; i < width; i++) sum[i] += x[r * stride + i];
    }
    NAME(fold)(partial, blocks, width, out);
}

/* Sum of one row in VF lanes, then the lanes: fixed order. */
static inline float row_sum(const float *x, int64_t width) {
    float lanes[VF] = {0};
    int64_t i = 0;
    for (; i + VF <= width; i += VF)
#pragma omp simd
        for (int k = 0; k < VF; k++) lanes[k] += x[i + k];
    float sum = 0;
    for (int k = 0; k < VF; k++) sum += lanes[k];
    for (; i < width; i++) sum += x[i];
    return sum;
}

static inline float row_dot_centred(const float *x, float mean, int64_t width) {
    float lanes[VF] = {0};
    int64_t i = 0;
    for (; i + VF <= width; i += VF)
#pragma omp simd
        for (int k = 0; k < VF; k++) lanes[k] += (x[i + k] - mean) * (x[i + k] - mean);
    float sum = 0;
    for (int k = 0; k < VF; k++) sum += lanes[k];
    for (; i < width; i++) sum += (x[i] - mean) * (x[i] - mean);
    return sum;
}

static void NAME(layernorm)(const float *x, const float *r, const float *w, const float *b, float *s,
                            float *y, float *mean, float *rstd, int64_t rows, int64_t width, float eps) {
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; row++) {
        const float *from = x + row * width;
        if (r) {
            const float *other = r + row * width;
            float *sum = s + row * width;
#pragma omp simd
            for (int64_t i = 0; i < width; i++) sum[i] = from[i] + other[i];
            from = sum;
        }
        float centre = row_sum(from, width) / (float)width;
        float scale = 1.0f / sqrtf(row_dot_centred(from, centre, width) / (float)width + eps);
        mean[row] = centre;
        rstd[row] = scale;
        float *out = y + row * width;
#pragma omp simd
        for (int64_t i = 0; i < width; i++) out[i] = (from[i] - centre) * scale * w[i] + b[i];
    }
}

static void NAME(layernorm_backward)(const float *s, const float *w, const float *mean, const float *rstd,
                                     const float *dy, const float *ds, float *dx, bool add_x, float *dr,
                                     bool add_r, float *dw, float *db, float *partial, int64_t rows,
                                     int64_t width) {
    int64_t blocks = lam_column_blocks(rows);
    float *partial_w = partial, *partial_b = partial + blocks * width;
#pragma omp parallel for schedule(static)
    for (int64_t block = 0; block < blocks; block++) {
        float *sum_w = partial_w + block * width, *sum_b = partial_b + block * width;
        memset(sum_w, 0, (size_t)width * sizeof *sum_w);
        memset(sum_b, 0, (size_t)width * sizeof *sum_b);
        int64_t end = (block + 1) * LAM_COLUMN_BLOCK_ROWS < rows ? (block + 1) * LAM_COLUMN_BLOCK_ROWS : rows;
        for (int64_t row = block * LAM_COLUMN_BLOCK_ROWS; row < end; row++) {
            const float *x = s + row * width, *d = dy + row * width;
            float centre = mean[row], scale = rstd[row], lanes_a[VF] = {0}, lanes_b[VF] = {0}, a = 0, b = 0;
            int64_t i = 0;
            for (; i + VF <= width; i += VF)
#pragma omp simd
                for (int k = 0; k < VF; k++) {
                    float hat = (x[i + k] - centre) * scale, g = d[i + k] * w[i + k];
                    lanes_a[k] += g;
                    lanes_b[k] += g * hat;
                    sum_w[i + k] += d[i + k] * hat;
                    sum_b[i + k] += d[i + k];
                }
            for (int k = 0; k < VF; k++) a += lanes_a[k], b += lanes_b[k];
            for (; i < width; i++) {
                float hat = (x[i] - centre) * scale, g = d[i] * w[i];
                a += g;
                b += g * hat;
                sum_w[i] += d[i] * hat;
                sum_b[i] += d[i];
            }
            a /= (float)width;
            b /= (float)width;
            for (int side = 0; side < 2; side++) {
                float *to = side ? dr : dx;
                if (!to) continue;
                to += row * width;
                float keep = (side ? add_r : add_x) ? 1.0f : 0.0f;
                const float *extra = ds ? ds + row * width : NULL;
#pragma omp simd
                for (int64_t j = 0; j < width; j++) {
                    float value =
                        (d[j] * w[j] - a - (x[j] - centre) * scale * b) * scale + (extra ? extra[j] : 0.0f);
                    to[j] = (keep != 0.0f ? to[j] : 0.0f) + value;
                }
            }
        }
    }
    if (dw) NAME(fold)(partial_w, blocks, width, dw);
    if (db) NAME(fold)(partial_b, blocks, width, db);
}

/* ---- small products for attention ---- */

static inline int64_t padded_columns(int64_t n) {
    return (n + TILE_COLUMNS - 1) / TILE_COLUMNS * TILE_COLUMNS;
}

/* Rows of one head lie far apart and come from memory in an order that no hardware prefetcher sees. */
#define ROWS_AHEAD 12
static inline void prefetch_row(const float *row, int64_t width) {
    for (int64_t i = 0; i < width; i += 16) __builtin_prefetch(row + i);
}

/* Packs B [k, n] with strides (row, column) into panels of TILE_COLUMNS columns, zero-padded: panel p at p *
 * k * TILE_COLUMNS. */
static void pack_panels(const float *b, int64_t row_stride, int64_t column_stride, int64_t k, int64_t n,
                        float *panels) {
    for (int64_t j = 0; j < n; j += TILE_COLUMNS) {
        int64_t width = n - j < TILE_COLUMNS ? n - j : TILE_COLUMNS;
        if (row_stride == 1 &&
            column_stride !=
                1) { /* a transposed matrix: read along its rows, whose stride thrashes the cache */
            for (int64_t c = 0; c < width; c++) {
                const float *from = b + (j + c) * column_stride;
                if (j + c + ROWS_AHEAD < n) prefetch_row(from + ROWS_AHEAD * column_stride, k);
                for (int64_t i = 0; i < k; i++) panels[i * TILE_COLUMNS + c] = from[i];
            }
            for (int64_t i = 0; i < k; i++)
                for (int64_t c = width; c < TILE_COLUMNS; c++) panels[i * TILE_COLUMNS + c] = 0;
            panels += k * TILE_COLUMNS;
            continue;
        }
        for (int64_t i = 0; i < k; i++, panels += TILE_COLUMNS) {
            const float *from = b + i * row_stride + j * column_stride;
            if (i + ROWS_AHEAD < k) prefetch_row(from + ROWS_AHEAD * row_stride, width);
            if (column_stride == 1 && width == TILE_COLUMNS) {
                memcpy(panels, from, TILE_COLUMNS * sizeof *panels);
                continue;
            }
            for (int64_t c = 0; c < width; c++) panels[c] = from[c * column_stride];
            for (int64_t c = width; c < TILE_COLUMNS; c++) panels[c] = 0;
        }
    }
}

static inline __attribute__((always_inline)) void tile(int rows, const float *a, int64_t row_stride,
                                                       int64_t column_stride, const float *panel, int64_t k,
                                                       float *c, int64_t ldc, bool add) {
    vector sum[LAM_TILE_ROWS][2];
    for (int r = 0; r < rows; r++) sum[r][0] = sum[r][1] = (vector){0};
    for (int64_t i = 0; i < k; i++) {
        vector b0 = *(const vector *)(panel + i * TILE_COLUMNS),
               b1 = *(const vector *)(panel + i * TILE_COLUMNS + VF);
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            float value = a[r * row_stride + i * column_stride];
            sum[r][0] += value * b0;
            sum[r][1] += value * b1;
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) {
        vector *to = (vector *)(c + r * ldc);
        if (add) {
            sum[r][0] += to[0];
            sum[r][1] += to[1];
        }
        to[0] = sum[r][0];
        to[1] = sum[r][1];
    }
}

/* C [m, padded n] (+)= A [m, k] (strides) times panels; ldc is a multiple of TILE_COLUMNS. */
static void multiply(const float *a, int64_t row_stride, int64_t column_stride, int64_t m, int64_t k,
                     const float *panels, int64_t n, float *c, int64_t ldc, bool add) {
    for (int64_t j = 0; j < n; j += TILE_COLUMNS) {
        const float *panel = panels + j * k;
        int64_t i = 0;
        for (; i + LAM_TILE_ROWS <= m; i += LAM_TILE_ROWS)
            tile(LAM_TILE_ROWS, a + i * row_stride, row_stride, column_stride, panel, k, c + i * ldc + j, ldc,
                 add);
        for (; i < m; i++)
            tile(1, a + i * row_stride, row_stride, column_stride, panel, k, c + i * ldc + j, ldc, add);
    }
}

/* Rows far apart in memory fall on few cache sets: brought together before they are read again and again. */
static void gather_rows(const float *from, int64_t stride, int64_t rows, int64_t width, float *to,
                        int64_t to_stride) {
    for (int64_t r = 0; r < rows; r++) {
        if (r + ROWS_AHEAD < rows) prefetch_row(from + (r + ROWS_AHEAD) * stride, width);
        memcpy(to + r * to_stride, from + r * stride, (size_t)width * sizeof *to);
    }
}

/* ---- attention: query rows in blocks, so that scratch is QUERY_BLOCK x tokens ---- */

static size_t NAME(attention_workspace)(int64_t tokens, int64_t head_dim, bool backward) {
    int64_t np = padded_columns(tokens), hp = padded_columns(head_dim);
    int64_t floats = head_dim * np + tokens * hp + QUERY_BLOCK * (np + hp);
    if (backward) floats += head_dim * np + QUERY_BLOCK * np + 2 * QUERY_BLOCK * hp + 2 * tokens * hp;
    return (size_t)floats * sizeof(float);
}

/* row[j] = exp((row[j] - largest) * scale); count is a multiple of VF. */
static inline void softmax_row(float *row, int64_t count, float scale, float *largest, float *sum) {
    float top[VF], lanes[VF] = {0}, most = row[0], total = 0;
    for (int k = 0; k < VF; k++) top[k] = row[k];
    for (int64_t j = VF; j < count; j += VF)
#pragma omp simd
        for (int k = 0; k < VF; k++) top[k] = row[j + k] > top[k] ? row[j + k] : top[k];
    for (int k = 0; k < VF; k++) most = top[k] > most ? top[k] : most;
    float shift = most * scale;
    for (int64_t j = 0; j < count; j += VF)
#pragma omp simd
        for (int k = 0; k < VF; k++) {
            row[j + k] = fast_exp(row[j + k] * scale - shift);
            lanes[k] += row[j + k];
        }
    for (int k = 0; k < VF; k++) total += lanes[k];
    *largest = most;
    *sum = total;
}

static void NAME(attention)(const float *qkv, float *out, float *lse, float *workspace, int64_t batch,
                            int64_t tokens, int64_t heads, int64_t head_dim) {
    int64_t width = heads * head_dim, stride = 3 * width, np = padded_columns(tokens),
            hp = padded_columns(head_dim);
    int64_t whole = (tokens + VF - 1) / VF * VF; /* <= np */
    float scale = 1.0f / sqrtf((float)head_dim);
    size_t per_thread = NAME(attention_workspace)(tokens, head_dim, false) / sizeof(float);
#pragma omp parallel for collapse(2) schedule(static)
    for (int64_t b = 0; b < batch; b++)
        for (int64_t h = 0; h < heads; h++) {
            float *keys = workspace + (size_t)omp_get_thread_num() * per_thread,
                  *values = keys + head_dim * np, *scores = values + tokens * hp,
                  *result = scores + QUERY_BLOCK * np;
            const float *q = qkv + b * tokens * stride + h * head_dim, *k = q + width, *v = k + width;
            pack_panels(k, 1, stride, head_dim, tokens, keys);
            pack_panels(v, stride, 1, tokens, head_dim, values);
            for (int64_t start = 0; start < tokens; start += QUERY_BLOCK) {
                int64_t rows = tokens - start < QUERY_BLOCK ? tokens - start : QUERY_BLOCK;
                float inverse[QUERY_BLOCK];
                gather_rows(q + start * stride, stride, rows, head_dim, result, hp);
                multiply(result, hp, 1, rows, head_dim, keys, tokens, scores, np, false);
                for (int64_t r = 0; r < rows; r++) {
                    float *row = scores + r * np, sum, largest;
                    for (int64_t j = tokens; j < whole; j++) row[j] = -INFINITY;
                    softmax_row(row, whole, scale, &largest, &sum);
                    inverse[r] = 1.0f / sum;
                    lse[(b * heads + h) * tokens + start + r] = largest * scale + logf(sum);
                }
                multiply(scores, np, 1, rows, tokens, values, head_dim, result, hp, false);
                for (int64_t r = 0; r < rows; r++) {
                    float *to = out + (b * tokens + start + r) * width + h * head_dim;
#pragma omp simd
                    for (int64_t c = 0; c < head_dim; c++) to[c] = result[r * hp + c] * inverse[r];
                }
            }
        }
}

static void NAME(attention_backward)(const float *qkv, const float *lse, const float *out, const float *d_out,
                                     float *d_qkv, float *workspace, int64_t batch, int64_t tokens,
                                     int64_t heads, int64_t head_dim) {
    int64_t width = heads * head_dim, stride = 3 * width, np = padded_columns(tokens),
            hp = padded_columns(head_dim);
    float scale = 1.0f / sqrtf((float)head_dim);
    size_t per_thread = NAME(attention_workspace)(tokens, head_dim, true) / sizeof(float);
#pragma omp parallel for collapse(2) schedule(static)
    for (int64_t b = 0; b < batch; b++)
        for (int64_t h = 0; h < heads; h++) {
            float *keys_t = workspace + (size_t)omp_get_thread_num() * per_thread,
                  *values_t = keys_t + head_dim * np, *keys = values_t + head_dim * np,
                  *p = keys + tokens * hp, *dp = p + QUERY_BLOCK * np, *dq = dp + QUERY_BLOCK * np,
                  *q_panels = dq + QUERY_BLOCK * hp, *d_panels = q_panels + QUERY_BLOCK * hp,
                  *dk = d_panels + QUERY_BLOCK * hp, *dv = dk + tokens * hp;
            const float *q = qkv + b * tokens * stride + h * head_dim, *k = q + width, *v = k + width;
            const float *d = d_out + b * tokens * width + h * head_dim;
            float *to = d_qkv + b * tokens * stride + h * head_dim;
            pack_panels(k, 1, stride, head_dim, tokens, keys_t);
            pack_panels(v, 1, stride, head_dim, tokens, values_t);
            pack_panels(k, stride, 1, tokens, head_dim, keys);
            for (int64_t start = 0; start < tokens; start += QUERY_BLOCK) {
                int64_t rows = tokens - start < QUERY_BLOCK ? tokens - start : QUERY_BLOCK;
                gather_rows(q + start * stride, stride, rows, head_dim, dq, hp);
                gather_rows(d + start * width, width, rows, head_dim, q_panels, hp);
                multiply(dq, hp, 1, rows, head_dim, keys_t, tokens, p, np, false);
                multiply(q_panels, hp, 1, rows, head_dim, values_t, tokens, dp, np, false);
                for (int64_t r = 0; r < rows; r++) {
                    float *row = p + r * np, *d_row = dp + r * np,
                          norm = lse[(b * heads + h) * tokens + start + r], dot = 0;
                    const float *o = out + (b * tokens + start + r) * width + h * head_dim,
                                *d_o = d + (start + r) * width;
                    for (int64_t c = 0; c < head_dim; c++) dot += o[c] * d_o[c];
#pragma omp simd
                    for (int64_t j = 0; j < np; j++) {
                        row[j] = fast_exp(row[j] * scale - norm);
                        d_row[j] = row[j] * (d_row[j] - dot) * scale;
                    }
                }
                multiply(dp, np, 1, rows, tokens, keys, head_dim, dq, hp, false);
                for (int64_t r = 0; r < rows; r++)
                    memcpy(to + (start + r) * stride, dq + r * hp, (size_t)head_dim * sizeof(float));
                pack_panels(q + start * stride, stride, 1, rows, head_dim, q_panels);
                pack_panels(d + start * width, width, 1, rows, head_dim, d_panels);
                multiply(dp, 1, np, tokens, rows, q_panels, head_dim, dk, hp, start > 0);
                multiply(p, 1, np, tokens, rows, d_panels, head_dim, dv, hp, start > 0);
            }
            for (int64_t r = 0; r < tokens; r++) {
                memcpy(to + r * stride + width, dk + r * hp, (size_t)head_dim * sizeof(float));
                memcpy(to + r * stride + 2 * width, dv + r * hp, (size_t)head_dim * sizeof(float));
            }
        }
}

/* ---- update rules ---- */

static void NAME(adamw)(float *w, const float *g, float *m, float *v, int64_t count,
                        const lam_adamw_terms *t) {
    float decay = t->decay_factor, b1 = t->beta1, b2 = t->beta2, eps = t->eps, step = t->step_size,
          root = t->inverse_root_correction2, scale = t->gradient_scale, c1 = 1.0f - b1, c2 = 1.0f - b2;
#pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < count; i++) {
        float d = g[i] * scale;
        m[i] = b1 * m[i] + c1 * d;
        v[i] = b2 * v[i] + c2 * d * d;
        w[i] = w[i] * decay - step * m[i] / (sqrtf(v[i]) * root + eps);
    }
}

static void NAME(lion)(float *w, const float *g, float *m, int64_t count, float decay, float lr, float b1,
                       float b2, float scale) {
#pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < count; i++) {
        float d = g[i] * scale, u = b1 * m[i] + (1.0f - b1) * d;
        w[i] = w[i] * decay - (u > 0 ? lr : u < 0 ? -lr : 0.0f);
        m[i] = b2 * m[i] + (1.0f - b2) * d;
    }
}

const lam_kernels NAME(lam_kernels) = {LAM_ISA_TEXT,
                                       NAME(add_bias),
                                       NAME(gelu),
                                       NAME(gelu_backward),
                                       NAME(column_sums),
                                       NAME(layernorm),
                                       NAME(layernorm_backward),
                                       NAME(attention),
                                       NAME(attention_backward),
                                       NAME(attention_workspace),
                                       NAME(adamw),
                                       NAME(lion),
                                       NAME(accumulate)};
