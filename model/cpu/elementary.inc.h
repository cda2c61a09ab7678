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

/* The normal distribution function Phi(x), within 1.5e-7 of max(Phi, 1 - Phi), and exp(-x^2 / 2), which its density needs as
 * well. The tail is 1 - Phi(|x|) = exp(-x^2 / 2) f(t), t = |x| / sqrt 2, where f(t) = erfcx(t) / 2 is smooth: (1 + 2 t) f is a
 * polynomial of degree 9 in (t - 2) / (t + 2), fitted to 1.6e-8 on [0, 10]. */
static inline float normal_cdf_exp(float x, float *exponential) {
    float t = fabsf(x) * 0.70710678118654752f;
    t = t < 20.0f ? t : 20.0f;
    float e = fast_exp(-0.5f * x * x), inverse = 1.0f / ((t + 2.0f) * (1.0f + 2.0f * t));
    float q = (t - 2.0f) * (1.0f + 2.0f * t) * inverse;
    float p = -2.050328039e-4f;
    p = p * q - 6.212294684e-4f;
    p = p * q + 6.602988578e-4f;
    p = p * q + 4.321838729e-3f;
    p = p * q - 4.030727316e-3f;
    p = p * q - 2.710398473e-2f;
    p = p * q + 8.202774078e-2f;
    p = p * q - 8.301553130e-2f;
    p = p * q - 4.638199508e-2f;
    p = p * q + 6.384891868e-1f;
    float tail = e * p * ((t + 2.0f) * inverse);
    *exponential = e;
    return x < 0 ? tail : 1.0f - tail;
}

#endif
