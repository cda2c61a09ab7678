/* Elementary functions that every family uses. */
#ifndef LAMELLA_MODEL_CPU_ELEMENTARY
#define LAMELLA_MODEL_CPU_ELEMENTARY

/* exp by 2^n * p(r), Cephes' coefficients; 1 ulp over the range that softmax and gelu use; below -87 it
 * gives 1.6e-38. */
static inline float fast_exp(float x) {
    x = x < -87.0f ? -87.0f : x;
    x = x > 88.0f ? 88.0f : x;
    float n = x * 1.44269504088896341f + 12582912.0f; /* rounds to an integer in the low bits */
    uint32_t bits;
    memcpy(&bits, &n, 4);
    n -= 12582912.0f;
    float r = x - n * 0.693359375f + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    uint32_t scale = (bits + 127u) << 23;
    float two_n;
    memcpy(&two_n, &scale, 4);
    return p * two_n;
}

/* The normal distribution function, Phi(x) = (1 + erf(x / sqrt 2)) / 2, within 1.2e-7 relative to max(Phi, 1
 * - Phi): erf by its odd series polynomial near 0, by 1 - exp(-q(t)) beyond. */
static inline float normal_cdf(float x) {
    float a = x * 0.70710678118654752f, t = fabsf(a), s = a * a;
    float u = -1.72853470e-5f * t + 3.83197126e-4f;
    float w = -3.88396438e-3f * t + 2.42546219e-2f;
    u = u * s + w;
    u = u * t - 1.06777877e-1f;
    u = u * t - 6.34846687e-1f;
    u = u * t - 1.28717512e-1f;
    u = u * t - t;
    float tail = 0.5f * fast_exp(u); /* 1 - Phi(|x|) */
    float far_value = x < 0 ? tail : 1.0f - tail;
    float p = -5.96761703e-4f;
    p = p * s + 4.99119423e-3f;
    p = p * s - 2.67681349e-2f;
    p = p * s + 1.12819925e-1f;
    p = p * s - 3.76125336e-1f;
    p = p * s + 1.28379166e-1f;
    float near_value = 0.5f + 0.5f * (p * a + a);
    return t > 0.927734375f ? far_value : near_value;
}

#endif
