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
