/* Tokens of several channels: put in place with what tells them apart, taken out and joined. */

static void NAME(unshuffle_channels)(const lam_unshuffle_sizes *s, const void *x, const float *mask_token,
                                     const float *position, const float *channel_tokens, void *y) {
    int64_t width = s->width, rows = s->cls + s->tokens;
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < s->batch * rows; row++) {
        int64_t b = row / rows, n = row % rows - s->cls;
        const real *first = (const real *)x + b * (s->kept + 1) * width; /* cls */
        real *to = (real *)y + row * width;
        if (n < 0) {
            for (int64_t i = 0; i < width; i++) to[i] = put(get(first[i]) + position[i]);
            continue;
        }
        int64_t slot = n / s->per_channel, rank = s->restore[b * s->tokens + n];
        const float *place = position + (1 + n % s->per_channel) * width,
                    *channel = channel_tokens + (s->channel_ids ? s->channel_ids[slot] : slot) * width;
        const real *value = first + (1 + rank) * width;
        if (rank < s->kept)
            for (int64_t i = 0; i < width; i++) to[i] = put(get(value[i]) + (place[i] + channel[i]));
        else
            for (int64_t i = 0; i < width; i++) to[i] = put(mask_token[i] + (place[i] + channel[i]));
    }
}

static void NAME(unshuffle_channels_backward)(const lam_unshuffle_sizes *s, const void *dy, void *dx,
                                              bool add, float *d_mask, float *d_channels, float *partial) {
    int64_t width = s->width, rows = s->cls + s->tokens;
    float *partial_channels = partial + s->batch * width;
#pragma omp parallel for schedule(static)
    for (int64_t b = 0; b < s->batch; b++) {
        float *mask_sum = partial + b * width, *channel_sums = partial_channels + b * s->channels * width;
        memset(mask_sum, 0, (size_t)width * sizeof *mask_sum);
        memset(channel_sums, 0, (size_t)(s->channels * width) * sizeof *channel_sums);
        real *dx_first = dx ? (real *)dx + b * (s->kept + 1) * width : NULL;
        for (int64_t i = 0; dx_first && !add && !s->cls && i < width; i++) dx_first[i] = put(0.0f);
        for (int64_t row = 0; row < rows; row++) {
            const real *d = (const real *)dy + (b * rows + row) * width;
            int64_t n = row - s->cls, rank = n < 0 ? -1 : s->restore[b * s->tokens + n];
            if (n >= 0) {
                int64_t slot = n / s->per_channel;
                float *sum = channel_sums + (s->channel_ids ? s->channel_ids[slot] : slot) * width;
                for (int64_t i = 0; i < width; i++) sum[i] += get(d[i]);
            }
            if (rank >= s->kept) {
                for (int64_t i = 0; i < width; i++) mask_sum[i] += get(d[i]);
            } else if (dx_first) {
                real *to = dx_first + (1 + rank) * width;
                for (int64_t i = 0; i < width; i++) to[i] = put((add ? get(to[i]) : 0.0f) + get(d[i]));
            }
        }
    }
    if (d_mask) NAME(fold)(partial, s->batch, width, d_mask);
    if (d_channels) NAME(fold)(partial_channels, s->batch, s->channels * width, d_channels);
}

static void NAME(copy_rows)(const void *from, int64_t from_stride, int64_t from_first, void *to,
                            int64_t to_stride, int64_t to_first, int64_t batch, int64_t width, bool add) {
#pragma omp parallel for schedule(static)
    for (int64_t b = 0; b < batch; b++) {
        const real *x = (const real *)from + b * from_stride + from_first;
        real *y = (real *)to + b * to_stride + to_first;
        if (add)
            for (int64_t i = 0; i < width; i++) y[i] = put(get(y[i]) + get(x[i]));
        else
            memcpy(y, x, (size_t)width * sizeof *y);
    }
}
