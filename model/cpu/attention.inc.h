/* Attention: small products in register tiles, query rows in blocks. */
#ifndef QUERY_BLOCK
#define QUERY_BLOCK 64 /* query rows that share one pass over the keys */
#define ROWS_AHEAD 12
#endif

/* ---- small products for attention ---- */

static inline int64_t NAME(padded_columns)(int64_t n) {
    return (n + TILE_COLUMNS - 1) / TILE_COLUMNS * TILE_COLUMNS;
}

/* Rows of one head lie far apart and come from memory in an order that no hardware prefetcher sees. */
static inline void NAME(prefetch_row)(const real *row, int64_t width) {
    for (int64_t i = 0; i < width; i += 16) __builtin_prefetch(row + i);
}

/* Packs B [k, n] with strides (row, column) into panels of TILE_COLUMNS columns, zero-padded: panel p at p *
 * k * TILE_COLUMNS. */
static void NAME(pack_panels)(const real *b, int64_t row_stride, int64_t column_stride, int64_t k, int64_t n,
                              float *panels) {
    for (int64_t j = 0; j < n; j += TILE_COLUMNS) {
        int64_t width = n - j < TILE_COLUMNS ? n - j : TILE_COLUMNS;
        if (row_stride == 1 &&
            column_stride !=
                1) { /* a transposed matrix: read along its rows, whose stride thrashes the cache */
            for (int64_t c = 0; c < width; c++) {
                const real *from = b + (j + c) * column_stride;
                if (j + c + ROWS_AHEAD < n) NAME(prefetch_row)(from + ROWS_AHEAD * column_stride, k);
                for (int64_t i = 0; i < k; i++) panels[i * TILE_COLUMNS + c] = get(from[i]);
            }
            for (int64_t i = 0; i < k; i++)
                for (int64_t c = width; c < TILE_COLUMNS; c++) panels[i * TILE_COLUMNS + c] = 0;
            panels += k * TILE_COLUMNS;
            continue;
        }
        for (int64_t i = 0; i < k; i++, panels += TILE_COLUMNS) {
            const real *from = b + i * row_stride + j * column_stride;
            if (i + ROWS_AHEAD < k) NAME(prefetch_row)(from + ROWS_AHEAD * row_stride, width);
            for (int64_t c = 0; c < width; c++) panels[c] = get(from[c * column_stride]);
            for (int64_t c = width; c < TILE_COLUMNS; c++) panels[c] = 0;
        }
    }
}

static inline __attribute__((always_inline)) void NAME(tile)(int rows, const float *a, int64_t row_stride,
                                                             int64_t column_stride, const float *panel,
                                                             int64_t k, float *c, int64_t ldc, bool add) {
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
static void NAME(multiply)(const float *a, int64_t row_stride, int64_t column_stride, int64_t m, int64_t k,
                           const float *panels, int64_t n, float *c, int64_t ldc, bool add) {
    for (int64_t j = 0; j < n; j += TILE_COLUMNS) {
        const float *panel = panels + j * k;
        int64_t i = 0;
        for (; i + LAM_TILE_ROWS <= m; i += LAM_TILE_ROWS) NAME(tile)
        (LAM_TILE_ROWS, a + i * row_stride, row_stride, column_stride, panel, k, c + i * ldc + j, ldc, add);
        for (; i < m; i++)
            NAME(tile)(1, a + i * row_stride, row_stride, column_stride, panel, k, c + i * ldc + j, ldc, add);
    }
}

/* Rows far apart in memory fall on few cache sets: brought together before they are read again and again. */
static void NAME(gather_rows)(const real *from, int64_t stride, int64_t rows, int64_t width, float *to,
                              int64_t to_stride) {
    for (int64_t r = 0; r < rows; r++) {
        if (r + ROWS_AHEAD < rows) NAME(prefetch_row)(from + (r + ROWS_AHEAD) * stride, width);
        for (int64_t i = 0; i < width; i++) to[r * to_stride + i] = get(from[r * stride + i]);
    }
}

/* ---- attention: query rows in blocks, so that scratch is QUERY_BLOCK x tokens ---- */

static size_t NAME(attention_workspace)(int64_t tokens, int64_t head_dim, bool backward) {
    int64_t np = NAME(padded_columns)(tokens), hp = NAME(padded_columns)(head_dim);
    int64_t floats = head_dim * np + tokens * hp + QUERY_BLOCK * (np + hp);
    if (backward) floats += head_dim * np + QUERY_BLOCK * np + 2 * QUERY_BLOCK * hp + 2 * tokens * hp;
    return (size_t)floats * sizeof(float);
}

/* row[j] = exp((row[j] - largest) * scale); count is a multiple of VF. */
static inline void NAME(softmax_row)(float *row, int64_t count, float scale, float *largest, float *sum) {
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

static void NAME(attention)(const void *qkv, void *out, float *lse, float *workspace, int64_t batch,
                            int64_t tokens, int64_t heads, int64_t head_dim) {
    int64_t width = heads * head_dim, stride = 3 * width, np = NAME(padded_columns)(tokens),
            hp = NAME(padded_columns)(head_dim);
    int64_t whole = (tokens + VF - 1) / VF * VF; /* <= np */
    float scale = 1.0f / sqrtf((float)head_dim);
    size_t per_thread = NAME(attention_workspace)(tokens, head_dim, false) / sizeof(float);
#pragma omp parallel for collapse(2) schedule(static)
    for (int64_t b = 0; b < batch; b++)
        for (int64_t h = 0; h < heads; h++) {
            float *keys = workspace + (size_t)omp_get_thread_num() * per_thread,
                  *values = keys + head_dim * np, *scores = values + tokens * hp,
                  *result = scores + QUERY_BLOCK * np;
            const real *q = (const real *)qkv + b * tokens * stride + h * head_dim, *k = q + width,
                       *v = k + width;
            NAME(pack_panels)(k, 1, stride, head_dim, tokens, keys);
            NAME(pack_panels)(v, stride, 1, tokens, head_dim, values);
            for (int64_t start = 0; start < tokens; start += QUERY_BLOCK) {
                int64_t rows = tokens - start < QUERY_BLOCK ? tokens - start : QUERY_BLOCK;
                float inverse[QUERY_BLOCK];
                NAME(gather_rows)(q + start * stride, stride, rows, head_dim, result, hp);
                NAME(multiply)(result, hp, 1, rows, head_dim, keys, tokens, scores, np, false);
                for (int64_t r = 0; r < rows; r++) {
                    float *row = scores + r * np, sum, largest;
                    for (int64_t j = tokens; j < whole; j++) row[j] = -INFINITY;
                    NAME(softmax_row)(row, whole, scale, &largest, &sum);
                    inverse[r] = 1.0f / sum;
                    lse[(b * heads + h) * tokens + start + r] = largest * scale + logf(sum);
                }
                NAME(multiply)(scores, np, 1, rows, tokens, values, head_dim, result, hp, false);
                for (int64_t r = 0; r < rows; r++) {
                    real *to = (real *)out + (b * tokens + start + r) * width + h * head_dim;
#pragma omp simd
                    for (int64_t c = 0; c < head_dim; c++) to[c] = put(result[r * hp + c] * inverse[r]);
                }
            }
        }
}

static void NAME(attention_backward)(const void *qkv, const float *lse, const void *out, const void *d_out,
                                     void *d_qkv, float *workspace, int64_t batch, int64_t tokens,
                                     int64_t heads, int64_t head_dim) {
    int64_t width = heads * head_dim, stride = 3 * width, np = NAME(padded_columns)(tokens),
            hp = NAME(padded_columns)(head_dim);
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
            const real *q = (const real *)qkv + b * tokens * stride + h * head_dim, *k = q + width,
                       *v = k + width;
            const real *d = (const real *)d_out + b * tokens * width + h * head_dim;
            real *to = (real *)d_qkv + b * tokens * stride + h * head_dim;
            NAME(pack_panels)(k, 1, stride, head_dim, tokens, keys_t);
            NAME(pack_panels)(v, 1, stride, head_dim, tokens, values_t);
            NAME(pack_panels)(k, stride, 1, tokens, head_dim, keys);
            for (int64_t start = 0; start < tokens; start += QUERY_BLOCK) {
                int64_t rows = tokens - start < QUERY_BLOCK ? tokens - start : QUERY_BLOCK;
                NAME(gather_rows)(q + start * stride, stride, rows, head_dim, dq, hp);
                NAME(gather_rows)(d + start * width, width, rows, head_dim, q_panels, hp);
                NAME(multiply)(dq, hp, 1, rows, head_dim, keys_t, tokens, p, np, false);
                NAME(multiply)(q_panels, hp, 1, rows, head_dim, values_t, tokens, dp, np, false);
                for (int64_t r = 0; r < rows; r++) {
                    float *row = p + r * np, *d_row = dp + r * np,
                          norm = lse[(b * heads + h) * tokens + start + r], dot = 0;
                    const real *o = (const real *)out + (b * tokens + start + r) * width + h * head_dim,
                               *d_o = d + (start + r) * width;
                    for (int64_t c = 0; c < head_dim; c++) dot += get(o[c]) * get(d_o[c]);
#pragma omp simd
                    for (int64_t j = 0; j < np; j++) {
                        row[j] = fast_exp(row[j] * scale - norm);
                        d_row[j] = row[j] * (d_row[j] - dot) * scale;
                    }
                }
                NAME(multiply)(dp, np, 1, rows, tokens, keys, head_dim, dq, hp, false);
                for (int64_t r = 0; r < rows; r++)
                    for (int64_t c = 0; c < head_dim; c++) to[(start + r) * stride + c] = put(dq[r * hp + c]);
                NAME(pack_panels)(q + start * stride, stride, 1, rows, head_dim, q_panels);
                NAME(pack_panels)(d + start * width, width, 1, rows, head_dim, d_panels);
                NAME(multiply)(dp, 1, np, tokens, rows, q_panels, head_dim, dk, hp, start > 0);
                NAME(multiply)(p, 1, np, tokens, rows, d_panels, head_dim, dv, hp, start > 0);
            }
            for (int64_t r = 0; r < tokens; r++) {
                for (int64_t c = 0; c < head_dim; c++) to[r * stride + width + c] = put(dk[r * hp + c]);
                for (int64_t c = 0; c < head_dim; c++) to[r * stride + 2 * width + c] = put(dv[r * hp + c]);
            }
        }
}
