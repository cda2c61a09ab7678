/* The masked loss and its gradient; predictions are of the storage type `real`, targets and sums float32. */

/* errors[row] = mean over the patch of (prediction - (target - mean) rstd)^2, 0 where mask[row] is 0. */
static void NAME(masked_loss)(const void *prediction, const float *target, const float *mask,
                              const float *mean, const float *rstd, double *errors, int64_t rows,
                              int64_t length) {
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; row++) {
        errors[row] = 0;
        if (mask[row] == 0.0f) continue;
        const real *p = (const real *)prediction + row * length;
        const float *t = target + row * length;
        float centre = mean ? mean[row] : 0.0f, scale = mean ? rstd[row] : 1.0f, sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < length; i++) {
            float e = get(p[i]) - (t[i] - centre) * scale;
            sum += e * e;
        }
        errors[row] = (double)sum / (double)length;
    }
}

/* d[row] (+)= factor[row] * (prediction - (target - mean) rstd); a factor of 0 passes nothing, whatever the values are. */
static void NAME(masked_loss_backward)(const void *prediction, const float *target, const float *factor,
                                       const float *mean, const float *rstd, void *d, bool add, int64_t rows,
                                       int64_t length) {
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; row++) {
        real *to = (real *)d + row * length;
        float f = factor[row];
        if (f == 0.0f) {
            if (!add) memset(to, 0, (size_t)length * sizeof *to);
            continue;
        }
        const real *p = (const real *)prediction + row * length;
        const float *t = target + row * length;
        float centre = mean ? mean[row] : 0.0f, scale = mean ? rstd[row] : 1.0f;
#pragma omp simd
        for (int64_t i = 0; i < length; i++)
            to[i] = put((add ? get(to[i]) : 0.0f) + f * (get(p[i]) - (t[i] - centre) * scale));
    }
}

/* ---- Fourier loss: one sample at a time, between tokens and planes ---- */

/* One row of one patch of one channel: where its pixels lie in the tokens, `stride` apart, and in the planes. */
typedef struct NAME(fourier_row) {
    int64_t token, at, stride, plane_at;
} NAME(fourier_row);

static inline NAME(fourier_row)
    NAME(fourier_row_of)(const lam_fourier_shape *s, int64_t n, int64_t c, int64_t y) {
    int64_t p = s->patch_size, g = s->grid, token = s->by_channel ? c * g * g + n : n;
    int64_t stride = s->by_channel ? 1 : s->channels;
    int64_t at = token * s->length + (s->by_channel ? 0 : c) + y * p * stride;
    int64_t image = s->by_channel ? token : n * s->channels + c;
    int64_t plane_at =
        s->form == LAM_FOURIER_IMAGE ? ((c * g + n / g) * p + y) * g * p + n % g * p : (image * p + y) * p;
    return (NAME(fourier_row)){token, at, stride, plane_at};
}

static void NAME(fourier_planes)(const void *prediction, int64_t first, const float *target,
                                 const float *mask, const float *mean, const float *rstd, float *planes,
                                 const lam_fourier_shape *s) {
    const real *guess = prediction ? (const real *)prediction + first : NULL;
    int64_t area = s->grid * s->grid, p = s->patch_size;
    if (s->form == LAM_FOURIER_RECURSION) {
#pragma omp parallel for schedule(static)
        for (int64_t t = 0; t < s->tokens; t++)
            for (int64_t i = t * s->length; i < (t + 1) * s->length; i++)
                planes[i] = guess ? get(guess[i]) : (target[i] - mean[t]) * rstd[t];
        return;
    }
#pragma omp parallel for collapse(2) schedule(static)
    for (int64_t n = 0; n < area; n++)
        for (int64_t c = 0; c < s->channels; c++)
            for (int64_t y = 0; y < p; y++) {
                NAME(fourier_row) r = NAME(fourier_row_of)(s, n, c, y);
                float *to = planes + r.plane_at;
                if (guess && (s->form != LAM_FOURIER_IMAGE || mask[r.token] != 0.0f)) {
                    for (int64_t x = 0; x < p; x++) to[x] = get(guess[r.at + x * r.stride]);
                } else {
                    float centre = mean[r.token], scale = rstd[r.token];
                    for (int64_t x = 0; x < p; x++) to[x] = (target[r.at + x * r.stride] - centre) * scale;
                }
            }
}

static void NAME(fourier_tokens)(const float *planes, const float *mask, float factor, void *d_prediction,
                                 int64_t first, bool add, const lam_fourier_shape *s) {
    real *d = (real *)d_prediction + first;
    int64_t area = s->grid * s->grid, p = s->patch_size;
    if (s->form == LAM_FOURIER_RECURSION) {
#pragma omp parallel for simd schedule(static)
        for (int64_t i = 0; i < s->tokens * s->length; i++)
            d[i] = put((add ? get(d[i]) : 0.0f) + factor * planes[i]);
        return;
    }
#pragma omp parallel for schedule(static)
    for (int64_t n = 0; n < area; n++)
        for (int64_t c = 0; c < s->channels; c++)
            for (int64_t y = 0; y < p; y++) {
                NAME(fourier_row) r = NAME(fourier_row_of)(s, n, c, y);
                float used = mask[r.token] != 0.0f ? factor : 0.0f;
                for (int64_t x = 0; x < p; x++) {
                    real *to = d + r.at + x * r.stride;
                    *to = put((add ? get(*to) : 0.0f) + used * planes[r.plane_at + x]);
                }
            }
}
