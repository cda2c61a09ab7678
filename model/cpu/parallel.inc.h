/* The parallel block: LayerNorm of queries and keys head by head, weights with LayerScale in them. */

static void NAME(head_norm)(const void *x, const lam_head_norm_weights *weights, void *y, float *mean,
                            float *rstd, int64_t rows, int64_t heads, int64_t head_dim, float eps) {
    int64_t width = heads * head_dim;
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; row++) {
        const real *from = (const real *)x + row * 3 * width;
        real *to = (real *)y + row * 3 * width;
        for (int64_t part = 0; part < 2; part++) {
            const float *w = weights->w[part], *b = weights->b[part];
            for (int64_t h = 0; h < heads; h++, from += head_dim, to += head_dim) {
                int64_t at = (row * 2 + part) * heads + h;
                float centre = NAME(row_sum)(from, head_dim) / (float)head_dim;
                float scale = 1.0f / sqrtf(NAME(row_squares)(from, centre, head_dim) / (float)head_dim + eps);
                mean[at] = centre;
                rstd[at] = scale;
#pragma omp simd
                for (int64_t i = 0; i < head_dim; i++)
                    to[i] = put((get(from[i]) - centre) * scale * w[i] + b[i]);
            }
        }
        memcpy(to, from, (size_t)width * sizeof *to);
    }
}

/* One head: sums of dw and db, and dx (+)=. */
static inline void NAME(head_backward)(const real *x, const real *d, const float *w, float centre,
                                       float scale, int64_t head_dim, float *sum_w, float *sum_b, real *dx,
                                       bool add) {
    float lanes_a[VF] = {0}, lanes_b[VF] = {0}, a = 0, b = 0;
    int64_t i = 0;
    for (; i + VF <= head_dim; i += VF)
#pragma omp simd
        for (int k = 0; k < VF; k++) {
            float hat = (get(x[i + k]) - centre) * scale, g = get(d[i + k]) * w[i + k];
            lanes_a[k] += g;
            lanes_b[k] += g * hat;
            sum_w[i + k] += get(d[i + k]) * hat;
            sum_b[i + k] += get(d[i + k]);
        }
    for (int k = 0; k < VF; k++) a += lanes_a[k], b += lanes_b[k];
    for (; i < head_dim; i++) {
        float hat = (get(x[i]) - centre) * scale, g = get(d[i]) * w[i];
        a += g;
        b += g * hat;
        sum_w[i] += get(d[i]) * hat;
        sum_b[i] += get(d[i]);
    }
    a /= (float)head_dim;
    b /= (float)head_dim;
#pragma omp simd
    for (int64_t j = 0; j < head_dim; j++) {
        float value = (get(d[j]) * w[j] - a - (get(x[j]) - centre) * scale * b) * scale;
        dx[j] = put((add ? get(dx[j]) : 0.0f) + value);
    }
}

static void NAME(head_norm_backward)(const void *x, const lam_head_norm_weights *weights, const float *mean,
                                     const float *rstd, const void *dy, void *dx, bool add,
                                     const lam_head_norm_gradients *gradients, float *partial, int64_t rows,
                                     int64_t heads, int64_t head_dim) {
    int64_t blocks = lam_column_blocks(rows), width = heads * head_dim;
#pragma omp parallel for schedule(static)
    for (int64_t block = 0; block < blocks; block++) {
        int64_t end = (block + 1) * LAM_COLUMN_BLOCK_ROWS < rows ? (block + 1) * LAM_COLUMN_BLOCK_ROWS : rows;
        for (int64_t sum = 0; sum < 4; sum++)
            memset(partial + (sum * blocks + block) * head_dim, 0, (size_t)head_dim * sizeof *partial);
        for (int64_t row = block * LAM_COLUMN_BLOCK_ROWS; row < end; row++) {
            const real *from = (const real *)x + row * 3 * width, *d = (const real *)dy + row * 3 * width;
            real *to = (real *)dx + row * 3 * width;
            for (int64_t part = 0; part < 2; part++) {
                float *sum_w = partial + (2 * part * blocks + block) * head_dim,
                      *sum_b = sum_w + blocks * head_dim;
                for (int64_t h = 0; h < heads; h++, from += head_dim, d += head_dim, to += head_dim) {
                    int64_t at = (row * 2 + part) * heads + h;
                    NAME(head_backward)
                    (from, d, weights->w[part], mean[at], rstd[at], head_dim, sum_w, sum_b, to, add);
                }
            }
            for (int64_t i = 0; i < width; i++) to[i] = put((add ? get(to[i]) : 0.0f) + get(d[i]));
        }
    }
    for (int64_t part = 0; part < 2; part++) {
        const float *sums = partial + 2 * part * blocks * head_dim;
        if (gradients->w[part]) NAME(fold)(sums, blocks, head_dim, gradients->w[part]);
        if (gradients->b[part]) NAME(fold)(sums + blocks * head_dim, blocks, head_dim, gradients->b[part]);
    }
}

static void NAME(scale_rows)(const float *w, const float *scale, float *scaled, int64_t rows, int64_t width) {
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < rows; r++) {
        float factor = scale[r];
#pragma omp simd
        for (int64_t i = 0; i < width; i++) scaled[r * width + i] = factor * w[r * width + i];
    }
}

static void NAME(scale_rows_backward)(const float *w, const float *scale, const float *product, float *dw,
                                      float *d_scale, int64_t rows, int64_t width) {
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < rows; r++) {
        const float *from = product + r * width, *weight = w + r * width;
        float *to = dw + r * width, factor = scale[r], lanes[VF] = {0}, sum = 0;
        int64_t i = 0;
        for (; i + VF <= width; i += VF)
#pragma omp simd
            for (int k = 0; k < VF; k++) {
                lanes[k] += weight[i + k] * from[i + k];
                to[i + k] += factor * from[i + k];
            }
        for (int k = 0; k < VF; k++) sum += lanes[k];
        for (; i < width; i++) {
            sum += weight[i] * from[i];
            to[i] += factor * from[i];
        }
        d_scale[r] += sum;
    }
}
