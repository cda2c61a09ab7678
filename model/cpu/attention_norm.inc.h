/* LayerNorm of the heads of queries and keys on the way into and out of attention (qk-norm): nothing normalised is kept. */
#ifndef NORM_TABLE
#define NORM_TABLE
/* Gradients of the weights by sample and head: of w and b of queries, of w and b of keys, [4][batch heads][head_dim]. */
static inline size_t norm_table_bytes(const lam_attention_shape *s) {
    return ((size_t)(4 * s->batch * s->heads * s->head_dim) * sizeof(float) + 63) & ~(size_t)63;
}
static inline float *norm_sums(const lam_attention_shape *s, float *table, int sum, int64_t b, int64_t h) {
    return table + ((sum * s->batch + b) * s->heads + h) * s->head_dim;
}
#endif

/* Mean and reciprocal deviation of a row. */
static inline void NAME(row_moments)(const real *row, int64_t head_dim, float eps, float *mean, float *rstd) {
    *mean = NAME(row_sum)(row, head_dim) / (float)head_dim;
    *rstd = 1.0f / sqrtf(NAME(row_squares)(row, *mean, head_dim) / (float)head_dim + eps);
}

/* As if it had been stored. */
static inline void NAME(normalise)(const real *row, const lam_attention_norm *n, int part, int64_t head_dim,
                                   NAME(element) * to) {
    const float *w = n->w[part], *b = n->b[part];
    float mean, rstd;
    NAME(row_moments)(row, head_dim, n->eps, &mean, &rstd);
#pragma omp simd
    for (int64_t i = 0; i < head_dim; i++) to[i] = stored_element((get(row[i]) - mean) * rstd * w[i] + b[i]);
}

/* d, times `scale` the gradient of a normalised row, becomes that of the row x; sums of dw and db. */
static inline void NAME(row_through_norm)(const real *x, const float *w, float mean, float rstd, float scale,
                                          int64_t head_dim, float *d, float *sum_w, float *sum_b) {
    float lanes_a[VF] = {0}, lanes_b[VF] = {0}, a = 0, b = 0;
    int64_t i = 0;
    for (; i + VF <= head_dim; i += VF)
#pragma omp simd
        for (int k = 0; k < VF; k++) {
            float up = scale * d[i + k], hat = (get(x[i + k]) - mean) * rstd, g = up * w[i + k];
            lanes_a[k] += g;
            lanes_b[k] += g * hat;
            sum_w[i + k] += up * hat;
            sum_b[i + k] += up;
        }
    for (int k = 0; k < VF; k++) a += lanes_a[k], b += lanes_b[k];
    for (; i < head_dim; i++) {
        float up = scale * d[i], hat = (get(x[i]) - mean) * rstd, g = up * w[i];
        a += g;
        b += g * hat;
        sum_w[i] += up * hat;
        sum_b[i] += up;
    }
    a /= (float)head_dim;
    b /= (float)head_dim;
#pragma omp simd
    for (int64_t j = 0; j < head_dim; j++)
        d[j] = (scale * d[j] * w[j] - a - (get(x[j]) - mean) * rstd * b) * rstd;
}

/* Rows of `width` of a head; from, stride, positions: the rows that were normalised. */
static void NAME(through_norm)(float *d, int64_t width, float scale, const real *from, int64_t stride,
                               const int32_t *positions, int64_t rows, const lam_attention_shape *s,
                               rows_kind kind, int64_t b, int64_t h, float *table) {
    float *sum_w = norm_sums(s, table, 2 * (int)kind, b, h),
          *sum_b = norm_sums(s, table, 2 * (int)kind + 1, b, h);
    for (int64_t r = 0; r < rows; r++, d += width) {
        const real *row = from + (positions ? positions[r] : r) * stride;
        float mean, rstd;
        NAME(row_moments)(row, s->head_dim, s->norm.eps, &mean, &rstd);
        NAME(row_through_norm)(row, s->norm.w[kind], mean, rstd, scale, s->head_dim, d, sum_w, sum_b);
    }
}

static void NAME(fold_norm)(const lam_attention_shape *s, const lam_attention_tensors *t, float *table) {
    float *const to[] = {t->dw[0], t->db[0], t->dw[1], t->db[1]};
#pragma omp parallel for schedule(static)
    for (int sum = 0; sum < 4; sum++)
        if (to[sum]) NAME(fold)(norm_sums(s, table, sum, 0, 0), s->batch * s->heads, s->head_dim, to[sum]);
}
