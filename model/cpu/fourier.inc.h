/* The Fourier loss between its matrix products: spectra are float32 whatever the activations are, so this is compiled once an
 * instruction set. What reads predictions is in loss.inc.h. */

/* rows [width, 2 half] = [cos | -sin] of 2 pi v x / width; columns [2 height, 2 height] = [cos, -sin; sin, cos] of
 * 2 pi u y / height: (re | im) of a column times it is the column's transform. */
static void NAME(fourier_matrices)(float *rows, float *columns, const lam_fourier_shape *s) {
    int64_t h = s->height, w = s->width, half = s->half;
    const double turn = 6.283185307179586476925;
#pragma omp parallel for schedule(static)
    for (int64_t x = 0; x < w; x++)
        for (int64_t v = 0; v < half; v++) {
            double angle = turn * (double)(x * v % w) / (double)w;
            rows[x * 2 * half + v] = (float)cos(angle);
            rows[x * 2 * half + half + v] = (float)-sin(angle);
        }
#pragma omp parallel for schedule(static)
    for (int64_t y = 0; y < h; y++)
        for (int64_t u = 0; u < h; u++) {
            double angle = turn * (double)(y * u % h) / (double)h;
            float c = (float)cos(angle), n = (float)sin(angle), *top = columns + y * 2 * h,
                  *bottom = columns + (h + y) * 2 * h;
            top[u] = c;
            top[h + u] = -n;
            bottom[u] = n;
            bottom[h + u] = c;
        }
}

/* Between [image, y, (re | im), v] and [image, v, (re | im), y]; back: the other way. */
static void NAME(fourier_turn)(const float *from, float *to, const lam_fourier_shape *s, bool back) {
    int64_t outer = back ? s->half : s->height, inner = back ? s->height : s->half;
#pragma omp parallel for collapse(2) schedule(static)
    for (int64_t image = 0; image < s->images; image++)
        for (int64_t part = 0; part < 2; part++) {
            const float *source = from + image * 2 * outer * inner + part * inner;
            float *sink = to + image * 2 * outer * inner + part * outer;
            for (int64_t i = 0; i < inner; i++)
                for (int64_t o = 0; o < outer; o++) sink[i * 2 * outer + o] = source[o * 2 * inner + i];
        }
}

/* Weight of the coefficient (u, v) of an image, with that of its mirror image (-u, -v), which has the same amplitude. */
static inline float NAME(fourier_weight)(const float *cells, const lam_fourier_shape *s, int64_t image,
                                         int64_t u, int64_t v) {
    int64_t h = s->height, w = s->width, first = image * h * w;
    float weight = cells[(first + u * w + v) / s->cell];
    if (v > 0 && 2 * v != w) weight += cells[(first + (h - u) % h * w + w - v) / s->cell];
    return weight;
}

static inline double NAME(fourier_column)(float *re, float *im, const float *other_re, const float *other_im,
                                          const float *cells, const lam_fourier_shape *s, int64_t image,
                                          int64_t v, bool squared, bool uniform) {
    float sum = 0, same = uniform ? NAME(fourier_weight)(cells, s, image, 0, v) : 0.0f;
#pragma omp simd reduction(+ : sum)
    for (int64_t u = 0; u < s->height; u++) {
        float amplitude = sqrtf(re[u] * re[u] + im[u] * im[u]),
              wanted = sqrtf(other_re[u] * other_re[u] + other_im[u] * other_im[u]);
        float weight = uniform ? same : NAME(fourier_weight)(cells, s, image, u, v);
        float e = amplitude - wanted, sign = e > 0.0f ? 1.0f : e < 0.0f ? -1.0f : 0.0f;
        sum += weight * (squared ? e * e : fabsf(e));
        float slope = weight * (squared ? 2.0f * e : sign);
        slope = amplitude > 0.0f ? slope / amplitude : 0.0f; /* the sub-gradient 0 at 0 */
        re[u] *= slope;
        im[u] *= slope;
    }
    return (double)sum;
}

static double NAME(fourier_error)(float *spectrum, const float *wanted, const float *cells, double *errors,
                                  const lam_fourier_shape *s, bool squared) {
    int64_t h = s->height;
    bool uniform = s->cell % (h * s->width) == 0;
#pragma omp parallel for schedule(static)
    for (int64_t image = 0; image < s->images; image++) {
        errors[image] = 0;
        for (int64_t v = 0; v < s->half; v++) {
            float *re = spectrum + (image * s->half + v) * 2 * h;
            const float *other = wanted + (image * s->half + v) * 2 * h;
            errors[image] +=
                uniform
                    ? NAME(fourier_column)(re, re + h, other, other + h, cells, s, image, v, squared, true)
                    : NAME(fourier_column)(re, re + h, other, other + h, cells, s, image, v, squared, false);
        }
    }
    double total = 0;
    for (int64_t image = 0; image < s->images; image++) total += errors[image];
    return total;
}
