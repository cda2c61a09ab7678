/* The parallel block: weights with LayerScale in them. */

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
        float *to = dw ? dw + r * width : NULL, factor = scale[r], lanes[VF] = {0}, sum = 0;
        int64_t i = 0;
        for (; i + VF <= width; i += VF)
#pragma omp simd
            for (int k = 0; k < VF; k++) {
                lanes[k] += weight[i + k] * from[i + k];
            }
        for (int k = 0; k < VF; k++) sum += lanes[k];
        for (; i < width; i++) {
            sum += weight[i] * from[i];
        }
        if (d_scale) d_scale[r] += sum;
        if (!to) continue;
#pragma omp simd
        for (int64_t k = 0; k < width; k++) to[k] += factor * from[k];
    }
}
