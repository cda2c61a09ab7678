/* Sums over rows, LayerNorm and its gradient. */
#include "model/cpu/elementary.inc.h"

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
