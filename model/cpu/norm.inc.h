/* LayerNorm and its gradient, over the storage type `real`; every sum in float32 and in a fixed order. */

static void NAME(fold)(const float *partial, int64_t blocks, int64_t width, float *out) {
    for (int64_t b = 0; b < blocks; b++)
#pragma omp simd
        for (int64_t i = 0; i < width; i++) out[i] += partial[b * width + i];
}

/* Sum of one row in VF lanes, then the lanes: fixed order. */
static inline float NAME(row_sum)(const real *x, int64_t width) {
    float lanes[VF] = {0};
    int64_t i = 0;
    for (; i + VF <= width; i += VF)
#pragma omp simd
        for (int k = 0; k < VF; k++) lanes[k] += get(x[i + k]);
    float sum = 0;
    for (int k = 0; k < VF; k++) sum += lanes[k];
    for (; i < width; i++) sum += get(x[i]);
    return sum;
}

static inline float NAME(row_squares)(const real *x, float mean, int64_t width) {
    float lanes[VF] = {0};
    int64_t i = 0;
    for (; i + VF <= width; i += VF)
#pragma omp simd
        for (int k = 0; k < VF; k++) {
            float off = get(x[i + k]) - mean;
            lanes[k] += off * off;
        }
    float sum = 0;
    for (int k = 0; k < VF; k++) sum += lanes[k];
    for (; i < width; i++) sum += (get(x[i]) - mean) * (get(x[i]) - mean);
    return sum;
}

static void NAME(layernorm)(const void *x, const void *r, const float *w, const float *b, void *s, void *y,
                            float *mean, float *rstd, int64_t rows, int64_t width, float eps,
                            const lam_sample_places *places) {
    const int32_t *r_place = places ? places->r : NULL, *y_place = places ? places->y : NULL;
    int64_t tokens = places ? places->tokens : 1;
    float r_scale = places && places->r_scale ? *places->r_scale : 1.0f;
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; row++) {
        const real *from = (const real *)x + row * width;
        if (r) {
            int64_t r_row = lam_placed_row(r_place, tokens, row);
            real *sum = (real *)s + row * width;
            if (r_row < 0) {
                memcpy(sum, from, (size_t)width * sizeof *sum);
            } else {
                const real *other = (const real *)r + r_row * width;
#pragma omp simd
                for (int64_t i = 0; i < width; i++) sum[i] = put(get(from[i]) + r_scale * get(other[i]));
            }
            from = sum;
        }
        int64_t y_row = lam_placed_row(y_place, tokens, row);
        if (y_row < 0) continue;
        float centre = NAME(row_sum)(from, width) / (float)width;
        float scale = 1.0f / sqrtf(NAME(row_squares)(from, centre, width) / (float)width + eps);
        mean[row] = centre;
        rstd[row] = scale;
        real *out = (real *)y + y_row * width;
#pragma omp simd
        for (int64_t i = 0; i < width; i++) out[i] = put((get(from[i]) - centre) * scale * w[i] + b[i]);
    }
}

/* The output alone, from statistics that are kept: the same bits. */
static void NAME(layernorm_again)(const void *s, const float *w, const float *b, void *y, const float *mean,
                                  const float *rstd, int64_t rows, int64_t width,
                                  const lam_sample_places *places) {
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; row++) {
        int64_t y_row = places ? lam_placed_row(places->y, places->tokens, row) : row;
        if (y_row < 0) continue;
        const real *from = (const real *)s + row * width;
        float centre = mean[row], scale = rstd[row];
        real *out = (real *)y + y_row * width;
#pragma omp simd
        for (int64_t i = 0; i < width; i++) out[i] = put((get(from[i]) - centre) * scale * w[i] + b[i]);
    }
}

static void NAME(layernorm_backward)(const void *s, const float *w, const float *mean, const float *rstd,
                                     const void *dy, const void *ds, void *dx, bool add_x, void *dr,
                                     bool add_r, float *dw, float *db, float *partial, int64_t rows,
                                     int64_t width, const lam_sample_places *places) {
    const int32_t *r_place = places ? places->r : NULL, *y_place = places ? places->y : NULL;
    int64_t tokens = places ? places->tokens : 1;
    float r_scale = places && places->r_scale ? *places->r_scale : 1.0f;
    int64_t blocks = lam_column_blocks(rows);
    float *partial_w = partial, *partial_b = partial + blocks * width;
#pragma omp parallel for schedule(static)
    for (int64_t block = 0; block < blocks; block++) {
        float *sum_w = partial_w + block * width, *sum_b = partial_b + block * width;
        memset(sum_w, 0, (size_t)width * sizeof *sum_w);
        memset(sum_b, 0, (size_t)width * sizeof *sum_b);
        int64_t end = (block + 1) * LAM_COLUMN_BLOCK_ROWS < rows ? (block + 1) * LAM_COLUMN_BLOCK_ROWS : rows;
        for (int64_t row = block * LAM_COLUMN_BLOCK_ROWS; row < end; row++) {
            int64_t y_row = lam_placed_row(y_place, tokens, row);
            bool normalised = y_row >= 0;
            const real *x = (const real *)s + row * width,
                       *d = (const real *)dy + (normalised ? y_row : 0) * width;
            float centre = 0, scale = 0, a = 0, b = 0;
            if (normalised) {
                float lanes_a[VF] = {0}, lanes_b[VF] = {0};
                centre = mean[row];
                scale = rstd[row];
                int64_t i = 0;
                for (; i + VF <= width; i += VF)
#pragma omp simd
                    for (int k = 0; k < VF; k++) {
                        float hat = (get(x[i + k]) - centre) * scale, up = get(d[i + k]), g = up * w[i + k];
                        lanes_a[k] += g;
                        lanes_b[k] += g * hat;
                        sum_w[i + k] += up * hat;
                        sum_b[i + k] += up;
                    }
                for (int k = 0; k < VF; k++) a += lanes_a[k], b += lanes_b[k];
                for (; i < width; i++) {
                    float hat = (get(x[i]) - centre) * scale, up = get(d[i]), g = up * w[i];
                    a += g;
                    b += g * hat;
                    sum_w[i] += up * hat;
                    sum_b[i] += up;
                }
                a /= (float)width;
                b /= (float)width;
            }
            for (int side = 0; side < 2; side++) {
                int64_t to_row = side ? lam_placed_row(r_place, tokens, row) : row;
                real *to = side ? dr : dx;
                if (!to || to_row < 0) continue;
                to += to_row * width;
                float keep = (side ? add_r : add_x) ? 1.0f : 0.0f, factor = side ? r_scale : 1.0f;
                const real *extra = ds ? (const real *)ds + row * width : NULL;
                if (!normalised) {
#pragma omp simd
                    for (int64_t j = 0; j < width; j++)
                        to[j] =
                            put((keep != 0.0f ? get(to[j]) : 0.0f) + factor * (extra ? get(extra[j]) : 0.0f));
                    continue;
                }
#pragma omp simd
                for (int64_t j = 0; j < width; j++) {
                    float value = (get(d[j]) * w[j] - a - (get(x[j]) - centre) * scale * b) * scale +
                                  (extra ? get(extra[j]) : 0.0f);
                    to[j] = put((keep != 0.0f ? get(to[j]) : 0.0f) + factor * value);
                }
            }
        }
    }
    if (dw) NAME(fold)(partial_w, blocks, width, dw);
    if (db) NAME(fold)(partial_b, blocks, width, db);
}
