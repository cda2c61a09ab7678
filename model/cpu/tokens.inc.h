/* Tokens moved, positions added, patches gathered, over the storage type `real`. */

#ifndef SUMMED
#define SUMMED 64 /* columns that are summed at once */
#endif

static void NAME(embed_tokens)(const void *x, const float *cls, const float *position, const int32_t *ids,
                               void *y, int64_t batch, int64_t kept, int64_t places, int64_t width) {
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < batch * (kept + 1); row++) {
        int64_t b = row / (kept + 1), k = row % (kept + 1) - 1;
        const float *place = position + (k < 0 ? 0 : 1 + (ids ? ids[b * kept + k] : k) % places) * width;
        const real *value = (const real *)x + (b * kept + k) * width;
        real *to = (real *)y + row * width;
        if (k < 0) {
            for (int64_t i = 0; i < width; i++) to[i] = put(cls[i] + place[i]);
        } else {
            for (int64_t i = 0; i < width; i++) to[i] = put(get(value[i]) + place[i]);
        }
    }
}

/* out[width] += sum over b of x[b * stride + i], in the order of b. */
static void NAME(batch_sums)(const void *x, int64_t batch, int64_t stride, int64_t width, float *out) {
    for (int64_t b = 0; b < batch; b++) {
        const real *from = (const real *)x + b * stride;
        for (int64_t i = 0; i < width; i++) out[i] += get(from[i]);
    }
}

/* Where token n of sample b of the merged rows lies among the visible rows; -1: it is masked. */
static inline int64_t NAME(visible_row)(const lam_ranks *ranks, int64_t b, int64_t row) {
    int64_t rank = row ? ranks->ids_restore[b * ranks->tokens + row - 1] : -1;
    return rank < ranks->count ? b * (ranks->count + 1) + 1 + rank : -1;
}

static void NAME(merge_tokens)(const void *visible, const void *masked, const lam_ranks *ranks, void *y,
                               int64_t batch, int64_t width) {
#pragma omp parallel for collapse(2) schedule(static)
    for (int64_t b = 0; b < batch; b++)
        for (int64_t row = 0; row <= ranks->tokens; row++) {
            int64_t at = NAME(visible_row)(ranks, b, row);
            const real *from =
                at < 0 ? (const real *)masked + (row - 1) * width : (const real *)visible + at * width;
            memcpy((real *)y + (b * (ranks->tokens + 1) + row) * width, from, (size_t)width * sizeof *from);
        }
}

static void NAME(merge_tokens_backward)(const void *dy, const lam_ranks *ranks, void *d_visible,
                                        bool add_visible, void *d_masked, bool add_masked, int64_t batch,
                                        int64_t width) {
    const real *d = dy;
    int64_t rows = ranks->tokens + 1;
#pragma omp parallel
    {
        if (d_visible)
#pragma omp for collapse(2) schedule(static) nowait
            for (int64_t b = 0; b < batch; b++)
                for (int64_t row = 0; row < rows; row++) {
                    int64_t at = NAME(visible_row)(ranks, b, row);
                    if (at < 0) continue;
                    const real *from = d + (b * rows + row) * width;
                    real *to = (real *)d_visible + at * width;
                    for (int64_t i = 0; i < width; i++)
                        to[i] = put((add_visible ? get(to[i]) : 0.0f) + get(from[i]));
                }
        if (d_masked)
#pragma omp for schedule(static) nowait
            for (int64_t row = 1; row < rows; row++)
                for (int64_t first = 0; first < width; first += SUMMED) {
                    real *to = (real *)d_masked + (row - 1) * width + first;
                    int64_t count = width - first < SUMMED ? width - first : SUMMED;
                    float sum[SUMMED];
                    for (int64_t i = 0; i < count; i++) sum[i] = add_masked ? get(to[i]) : 0.0f;
                    for (int64_t b = 0; b < batch; b++) {
                        if (NAME(visible_row)(ranks, b, row) >= 0) continue;
                        const real *from = d + (b * rows + row) * width + first;
#pragma omp simd
                        for (int64_t i = 0; i < count; i++) sum[i] += get(from[i]);
                    }
                    for (int64_t i = 0; i < count; i++) to[i] = put(sum[i]);
                }
    }
}

static void NAME(masked_tokens)(const float *mask_token, const float *position, void *y, int64_t tokens,
                                int64_t width) {
#pragma omp parallel for schedule(static)
    for (int64_t n = 0; n < tokens; n++)
        for (int64_t i = 0; i < width; i++)
            ((real *)y)[n * width + i] = put(mask_token[i] + position[(1 + n) * width + i]);
}

static void NAME(masked_tokens_backward)(const void *dy, float *d_mask_token, float *d_position,
                                         int64_t tokens, int64_t width) {
    const real *d = dy;
#pragma omp parallel for schedule(static)
    for (int64_t first = 0; first < width; first += SUMMED)
        for (int64_t n = 0; n < tokens; n++)
            for (int64_t i = first; i < width && i < first + SUMMED; i++) {
                if (d_mask_token) d_mask_token[i] += get(d[n * width + i]);
                if (d_position) d_position[(1 + n) * width + i] += get(d[n * width + i]);
            }
}

static void NAME(gather_patches)(const float *patches, const int32_t *ids, void *y, int64_t batch,
                                 int64_t tokens, int64_t kept, int64_t length, int64_t channels) {
    int64_t area = length / channels;
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < batch * kept; row++) {
        int64_t b = row / kept, n = ids ? ids[row] : row % kept;
        const float *from = patches + (b * tokens + n) * length;
        real *to = (real *)y + row * length;
        for (int64_t c = 0; c < channels; c++)
            for (int64_t p = 0; p < area; p++) to[c * area + p] = put(from[p * channels + c]);
    }
}
