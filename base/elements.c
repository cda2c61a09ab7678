#include "base/elements.h"

#include <string.h>

typedef enum kind { F64, F32, F16, BF16, I64, I32, I16, I8, U8, U16, BOOL, KINDS } kind;

static const struct {
    const char *name;
    size_t bytes;
} types[KINDS] = {{"F64", 8}, {"F32", 4}, {"F16", 2}, {"BF16", 2}, {"I64", 8}, {"I32", 4},
                  {"I16", 2}, {"I8", 1},  {"U8", 1},  {"U16", 2},  {"BOOL", 1}};

static kind kind_of(const char *dtype) {
    int i = 0;
    while (i < KINDS && strcmp(types[i].name, dtype) != 0) i++;
    return (kind)i;
}

size_t lam_element_bytes(const char *dtype, const char **interned) {
    kind k = kind_of(dtype);
    if (k == KINDS) return 0;
    if (interned) *interned = types[k].name;
    return types[k].bytes;
}

static float half_to_float(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, exponent = h >> 10 & 31u, mantissa = h & 0x3ffu, bits;
    if (exponent == 31)
        bits = sign | 0x7f800000u | mantissa << 13;
    else if (exponent)
        bits = sign | (exponent + 112) << 23 | mantissa << 13;
    else {
        float value = (float)mantissa * 0x1p-24f; /* zero and subnormals */
        return sign ? -value : value;
    }
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

static double element(kind k, const unsigned char *p) {
    union {
        double f64;
        float f32;
        int64_t i64;
        int32_t i32;
        int16_t i16;
        uint16_t u16;
        int8_t i8;
        uint32_t u32;
    } v;
    memset(&v, 0, sizeof v);
    memcpy(&v, p, types[k].bytes);
    switch (k) {
    case F64: return v.f64;
    case F32: return (double)v.f32;
    case F16: return (double)half_to_float(v.u16);
    case BF16: v.u32 = (uint32_t)v.u16 << 16; return (double)v.f32;
    case I64: return (double)v.i64;
    case I32: return (double)v.i32;
    case I16: return (double)v.i16;
    case U16: return (double)v.u16;
    case I8: return (double)v.i8;
    default: return (double)*p; /* U8, BOOL */
    }
}

void lam_elements_to_f32(const char *dtype, const void *bytes, int64_t count, float *values) {
    kind k = kind_of(dtype);
    for (int64_t i = 0; i < count; i++)
        values[i] = (float)element(k, (const unsigned char *)bytes + (size_t)i * types[k].bytes);
}

void lam_elements_to_f64(const char *dtype, const void *bytes, int64_t count, double *values) {
    kind k = kind_of(dtype);
    for (int64_t i = 0; i < count; i++)
        values[i] = element(k, (const unsigned char *)bytes + (size_t)i * types[k].bytes);
}
