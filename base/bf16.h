/* bfloat16: the upper half of a float32.
 *
 *     uint16_t x = lam_bf16_from_float(1.5f);
 *     float y = lam_bf16_to_float(x);            // exact
 *
 * Rounding is to the nearest, ties to even, subnormals included, on every CPU and with the same bits: the instruction of
 * AVX512-BF16 is not used because it flushes subnormals. A NaN stays a NaN (quiet). Valid in C, C++ and vectorised loops. */
#ifndef LAMELLA_BASE_BF16_H
#define LAMELLA_BASE_BF16_H

#include <stdint.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

static inline float lam_bf16_to_float(uint16_t value) {
    uint32_t bits = (uint32_t)value << 16;
    float result;
    memcpy(&result, &bits, sizeof result);
    return result;
}

static inline uint16_t lam_bf16_from_float(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    uint32_t rounded = bits + 0x7fffu + (bits >> 16 & 1u), quiet = bits | 0x400000u;
    return (uint16_t)(((bits & 0x7fffffffu) > 0x7f800000u ? quiet : rounded) >> 16);
}

#ifdef __cplusplus
}
#endif
#endif
