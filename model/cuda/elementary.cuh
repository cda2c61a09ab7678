/* Elementary functions that several kernels use; the formulas are those of model/cpu/elementary.inc.h. */
#ifndef LAMELLA_MODEL_CUDA_ELEMENTARY_CUH
#define LAMELLA_MODEL_CUDA_ELEMENTARY_CUH

#include "model/cuda/launch.cuh"

/* The normal distribution function Phi(x), within 2e-7 of max(Phi, 1 - Phi), and exp(-x^2 / 2). Which products and sums are
 * rounded as one is written out: every kernel gets the same bits. */
__device__ __forceinline__ float lam_normal_cdf(float x, float *exponential) {
    float t = fminf(fabsf(x) * 0.70710678118654752f, 20.0f), twice = fmaf(2.0f, t, 1.0f);
    float e = exp2f(-0.72134752044f * x * x), inverse = __fdividef(1.0f, (t + 2.0f) * twice);
    float q = (t - 2.0f) * twice * inverse;
    float p = -2.050328039e-4f;
    p = fmaf(p, q, -6.212294684e-4f);
    p = fmaf(p, q, 6.602988578e-4f);
    p = fmaf(p, q, 4.321838729e-3f);
    p = fmaf(p, q, -4.030727316e-3f);
    p = fmaf(p, q, -2.710398473e-2f);
    p = fmaf(p, q, 8.202774078e-2f);
    p = fmaf(p, q, -8.301553130e-2f);
    p = fmaf(p, q, -4.638199508e-2f);
    p = fmaf(p, q, 6.384891868e-1f);
    float high = e * p, rest = (t + 2.0f) * inverse; /* of 1 - Phi(|x|) */
    *exponential = e;
    return x < 0 ? high * rest : fmaf(-high, rest, 1.0f);
}

/* gelu(x) = x Phi(x), erf form (Hendrycks & Gimpel 2016), and its derivative. */
__device__ __forceinline__ float lam_gelu(float x, float *slope) {
    float e, cdf = lam_normal_cdf(x, &e);
    *slope = fmaf(x * 0.39894228040143268f, e, cdf);
    return x * cdf;
}

#endif
