/* Update rules: formulas in model/optimizer.h, sources there. */

static void NAME(adamw)(float *w, const float *g, float *m, float *v, int64_t count,
                        const lam_adamw_terms *t) {
    float decay = t->decay_factor, b1 = t->beta1, b2 = t->beta2, eps = t->eps, step = t->step_size,
          root = t->inverse_root_correction2, scale = t->gradient_scale, c1 = 1.0f - b1, c2 = 1.0f - b2;
#pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < count; i++) {
        float d = g[i] * scale;
        m[i] = b1 * m[i] + c1 * d;
        v[i] = b2 * v[i] + c2 * d * d;
        w[i] = w[i] * decay - step * m[i] / (sqrtf(v[i]) * root + eps);
    }
}

static void NAME(lion)(float *w, const float *g, float *m, int64_t count, const lam_lion_terms *t) {
    float decay = t->decay_factor, lr = t->lr, b1 = t->beta1, b2 = t->beta2, scale = t->gradient_scale;
#pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < count; i++) {
        float d = g[i] * scale, u = b1 * m[i] + (1.0f - b1) * d;
        /* A sign without branches: this vectorises on every instruction set. */
        w[i] = w[i] * decay - lr * (float)((u > 0) - (u < 0));
        m[i] = b2 * m[i] + (1.0f - b2) * d;
    }
}

static inline float lamb_direction(float w, float m, float v, const lam_lamb_terms *t) {
    return m * t->inverse_correction1 / (sqrtf(v) * t->inverse_root_correction2 + t->eps) + t->decay * w;
}

static void NAME(lamb_block)(const float *w, const float *g, float *m, float *v, int64_t count,
                             const lam_lamb_terms *t, double squares[2]) {
    const lam_lamb_terms terms = *t;
    double weights[VF] = {0}, directions[VF] = {0};
    int64_t i = 0;
    for (; i + VF <= count; i += VF)
#pragma omp simd
        for (int k = 0; k < VF; k++) {
            float d = g[i + k] * terms.gradient_scale;
            m[i + k] = terms.beta1 * m[i + k] + (1.0f - terms.beta1) * d;
            v[i + k] = terms.beta2 * v[i + k] + (1.0f - terms.beta2) * d * d;
            float r = lamb_direction(w[i + k], m[i + k], v[i + k], &terms);
            weights[k] += (double)w[i + k] * (double)w[i + k];
            directions[k] += (double)r * (double)r;
        }
    squares[0] = squares[1] = 0;
    for (int k = 0; k < VF; k++) squares[0] += weights[k], squares[1] += directions[k];
    for (; i < count; i++) {
        float d = g[i] * terms.gradient_scale;
        m[i] = terms.beta1 * m[i] + (1.0f - terms.beta1) * d;
        v[i] = terms.beta2 * v[i] + (1.0f - terms.beta2) * d * d;
        float r = lamb_direction(w[i], m[i], v[i], &terms);
        squares[0] += (double)w[i] * (double)w[i];
        squares[1] += (double)r * (double)r;
    }
}

static void NAME(lamb_apply)(float *w, const float *m, const float *v, int64_t count, const lam_lamb_terms *t,
                             float step) {
    const lam_lamb_terms terms = *t;
#pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < count; i++) w[i] -= step * lamb_direction(w[i], m[i], v[i], &terms);
}

static void NAME(schedule_free)(float *y, const float *g, float *z, float *v, int64_t count,
                                const lam_schedule_free_terms *t) {
    float decay = t->decay, b2 = t->beta2, eps = t->eps, root = t->inverse_root_correction2,
          scale = t->gradient_scale, share = t->share, lr = t->lr, trained_step = t->trained_step;
#pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < count; i++) {
        float d = g[i] * scale;
        v[i] = b2 * v[i] + (1.0f - b2) * d * d;
        float r = d / (sqrtf(v[i]) * root + eps) + decay * y[i];
        y[i] = y[i] + share * (z[i] - y[i]) - trained_step * r;
        z[i] = z[i] - lr * r;
    }
}

static void NAME(schedule_free_average)(const float *y, const float *z, float *x, int64_t count,
                                        float ratio) {
#pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < count; i++) x[i] = y[i] + ratio * (y[i] - z[i]);
}

static void NAME(nesterov)(const float *g, float *m, float *u, int64_t count, float momentum,
                           float gradient_scale) {
#pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < count; i++) {
        float d = (1.0f - momentum) * (g[i] * gradient_scale);
        m[i] = momentum * m[i] + d;
        u[i] = momentum * m[i] + d;
    }
}

static void NAME(scale_and_add)(float *to, const float *from, const float *direction, int64_t count,
                                float factor, float step) {
#pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < count; i++) to[i] = factor * from[i] + step * direction[i];
}

static void NAME(scale)(float *to, const float *from, int64_t count, float factor) {
#pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < count; i++) to[i] = factor * from[i];
}

static void NAME(average)(float *average, const float *w, int64_t count, float share) {
#pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < count; i++) average[i] += share * (w[i] - average[i]);
}

static const lam_optimizer_kernels NAME(lam_optimizer_kernels) = {
    .adamw = NAME(adamw),
    .lion = NAME(lion),
    .lamb_block = NAME(lamb_block),
    .lamb_apply = NAME(lamb_apply),
    .schedule_free = NAME(schedule_free),
    .schedule_free_average = NAME(schedule_free_average),
    .nesterov = NAME(nesterov),
    .scale_and_add = NAME(scale_and_add),
    .scale = NAME(scale),
    .average = NAME(average)};
