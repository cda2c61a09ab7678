/* Tokens moved, positions added, patches gathered, over the storage type `real`. */

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

static void NAME(unshuffle)(const void *x, const float *mask_token, const float *position,
                            const int32_t *restore, void *y, int64_t batch, int64_t kept, int64_t tokens,
                            int64_t width) {
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < batch * tokens; row++) {
        int64_t b = row / tokens, n = row % tokens;
        int64_t rank = n ? restore[b * (tokens - 1) + n - 1] : -1;
        const float *place = position + n * width;
        real *to = (real *)y + row * width;
        if (rank < kept) {
            const real *value = (const real *)x + (b * (kept + 1) + 1 + rank) * width;
            for (int64_t i = 0; i < width; i++) to[i] = put(get(value[i]) + place[i]);
        } else {
            for (int64_t i = 0; i < width; i++) to[i] = put(mask_token[i] + place[i]);
        }
    }
}

/* partial: [batch, width] sums of the mask token's gradient. */
static void NAME(unshuffle_backward)(const void *dy, const int32_t *restore, void *dx, bool add,
                                     float *partial, int64_t batch, int64_t kept, int64_t tokens,
                                     int64_t width) {
#pragma omp parallel for schedule(static)
    for (int64_t b = 0; b < batch; b++) {
        float *sum = partial + b * width;
        memset(sum, 0, (size_t)width * sizeof *sum);
        for (int64_t n = 0; n < tokens; n++) {
            int64_t rank = n ? restore[b * (tokens - 1) + n - 1] : -1;
            const real *from = (const real *)dy + (b * tokens + n) * width;
            if (rank >= kept) {
                for (int64_t i = 0; i < width; i++) sum[i] += get(from[i]);
            } else if (dx) {
                real *to = (real *)dx + (b * (kept + 1) + 1 + rank) * width;
                for (int64_t i = 0; i < width; i++) to[i] = put((add ? get(to[i]) : 0.0f) + get(from[i]));
            }
        }
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
