/* Elementary functions that every family uses. */
#ifndef LAMELLA_MODEL_CPU_ELEMENTARY
#define LAMELLA_MODEL_CPU_ELEMENTARY

/* 2^x for x <= 0, 1.2e-38 below -126: 2^n times a polynomial of the rest; 1.7e-7. */
static inline float exp2_negative(float x) {
    x = x < -126.0f ? -126.0f : x;
    float n = x + 12582912.0f, r = x - (n - 12582912.0f), p = 0.0013264727313f * r + 0.0096715129912f;
    p = p * r + 0.055507335812f;
    p = p * r + 0.24022242427f;
    p = p * r + 0.69314700365f;
    p = p * r + 1.0f;
    uint32_t bits, exponent;
    memcpy(&bits, &p, 4);
    memcpy(&exponent, &n, 4); /* the nearest integer, in the low bits */
    bits += exponent << 23;
    memcpy(&p, &bits, 4);
    return p;
}

/* The normal distribution function Phi(x), within 1.5e-7 of max(Phi, 1 - Phi), and exp(-x^2 / 2), which its density needs as
 * well. The tail is 1 - Phi(|x|) = exp(-x^2 / 2) f(t), t = |x| / sqrt 2, where f(t) = erfcx(t) / 2 is smooth: (1 + 2 t) f is a
 * polynomial of degree 9 in (t - 2) / (t + 2), fitted to 1.6e-8 on [0, 10]. */
static inline float normal_cdf_exp(float x, float *exponential) {
    float t = fabsf(x) * 0.70710678118654752f;
    t = t < 20.0f ? t : 20.0f;
    float e = exp2_negative(-0.72134752044f * x * x), inverse = 1.0f / ((t + 2.0f) * (1.0f + 2.0f * t));
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
