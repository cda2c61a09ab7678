/* The decoder's tokens in the order of ranks, where not all of them are decoded; gradients of learned positions. A gradient that
 * several rows share is summed by features in parallel, by rows in order. */

static void NAME(append_masked)(const void *x, const float *mask_token, const float *position,
                                const int32_t *ids, void *y, int64_t batch, int64_t kept, int64_t decoded,
                                int64_t places, int64_t width) {
    const real *from = x;
    real *to = y;
#pragma omp parallel for collapse(2) schedule(static)
    for (int64_t b = 0; b < batch; b++)
        for (int64_t row = 0; row <= decoded; row++) {
            const real *value = row <= kept ? from + (b * (kept + 1) + row) * width : NULL;
            const float *place = position + (row ? 1 + ids[b * decoded + row - 1] % places : 0) * width;
            real *out = to + (b * (decoded + 1) + row) * width;
            if (value) {
                for (int64_t i = 0; i < width; i++) out[i] = put(get(value[i]) + place[i]);
            } else {
                for (int64_t i = 0; i < width; i++) out[i] = put(mask_token[i] + place[i]);
            }
        }
}

static void NAME(append_masked_backward)(const void *dy, void *dx, bool add, float *d_mask_token,
                                         float *partial, int64_t batch, int64_t kept, int64_t decoded,
                                         int64_t width) {
    const real *d = dy;
    real *to = dx;
#pragma omp parallel for schedule(static)
    for (int64_t b = 0; b < batch; b++) {
        const real *from = d + b * (decoded + 1) * width;
        real *out = to ? to + b * (kept + 1) * width : NULL;
        float *sum = partial + b * width;
        for (int64_t i = 0; out && i < (kept + 1) * width; i++)
            out[i] = put((add ? get(out[i]) : 0.0f) + get(from[i]));
        memset(sum, 0, (size_t)width * sizeof *sum);
        for (int64_t row = kept + 1; row <= decoded; row++)
#pragma omp simd
            for (int64_t i = 0; i < width; i++) sum[i] += get(from[row * width + i]);
    }
    for (int64_t b = 0; d_mask_token && b < batch; b++)
        for (int64_t i = 0; i < width; i++) d_mask_token[i] += partial[b * width + i];
}

static void NAME(place_ranks)(const void *x, const lam_ranks *ranks, void *y, bool add, int64_t batch,
                              int64_t width) {
    const real *from = x;
    real *to = y;
    int64_t rows = ranks->skipped + ranks->tokens;
#pragma omp parallel for collapse(2) schedule(static)
    for (int64_t b = 0; b < batch; b++)
        for (int64_t row = 0; row < rows; row++) {
            int64_t n = row - ranks->skipped,
                    at = n < 0 ? -1 : ranks->ids_restore[b * ranks->tokens + n] - ranks->first;
            real *out = to + (b * rows + row) * width;
            const real *in = from + (b * ranks->count + at) * width;
            bool there = at >= 0 && at < ranks->count;
            if (there && add)
                for (int64_t i = 0; i < width; i++) out[i] = put(get(out[i]) + get(in[i]));
            else if (there)
                memcpy(out, in, (size_t)width * sizeof *out);
            else if (!add)
                memset(out, 0, (size_t)width * sizeof *out);
        }
}

static void NAME(take_ranks)(const void *x, const lam_ranks *ranks, void *y, bool add, int64_t batch,
                             int64_t width) {
    const real *from = x;
    real *to = y;
#pragma omp parallel for collapse(2) schedule(static)
    for (int64_t b = 0; b < batch; b++)
        for (int64_t n = 0; n < ranks->tokens; n++) {
            int64_t at = ranks->ids_restore[b * ranks->tokens + n] - ranks->first;
            if (at < 0 || at >= ranks->count) continue;
            const real *in = from + (b * (ranks->skipped + ranks->tokens) + ranks->skipped + n) * width;
            real *out = to + (b * ranks->count + at) * width;
            if (add)
                for (int64_t i = 0; i < width; i++) out[i] = put(get(out[i]) + get(in[i]));
            else
                memcpy(out, in, (size_t)width * sizeof *out);
        }
}

static void NAME(position_gradient)(const void *dy, const int32_t *ids, float *d_position, int64_t batch,
                                    int64_t tokens, int64_t places, int64_t width) {
    const real *d = dy;
    const int64_t columns = 64;
#pragma omp parallel for schedule(static)
    for (int64_t first = 0; first < width; first += columns) {
        int64_t end = first + columns < width ? first + columns : width;
        for (int64_t b = 0; b < batch; b++)
            for (int64_t row = 0; row <= tokens; row++) {
                int64_t place = row ? 1 + (ids ? ids[b * tokens + row - 1] : row - 1) % places : 0;
                const real *from = d + (b * (tokens + 1) + row) * width;
                float *to = d_position + place * width;
#pragma omp simd
                for (int64_t i = first; i < end; i++) to[i] += get(from[i]);
            }
    }
}
