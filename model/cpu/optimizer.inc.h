/* Update rules. */
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

static void NAME(lion)(float *w, const float *g, float *m, int64_t count, float decay, float lr, float b1,
                       float b2, float scale) {
#pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < count; i++) {
        float d = g[i] * scale, u = b1 * m[i] + (1.0f - b1) * d;
        w[i] = w[i] * decay - (u > 0 ? lr : u < 0 ? -lr : 0.0f);
        m[i] = b2 * m[i] + (1.0f - b2) * d;
    }
}
