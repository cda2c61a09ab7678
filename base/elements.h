/* Types of the elements of weight files, by the names of safetensors: F64 F32 F16 BF16 I64 I32 I16 I8 U8 U16 BOOL.
 *
 *     size_t bytes = lam_element_bytes("BF16", &dtype);     // 2
 *     lam_elements_to_f32(dtype, raw, count, values);
 *
 * Elements are little-endian, as this machine's. */
#ifndef LAMELLA_BASE_ELEMENTS_H
#define LAMELLA_BASE_ELEMENTS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Bytes of an element; 0: no such type. `interned` (may be NULL) receives the same name, of unlimited life. */
size_t lam_element_bytes(const char *dtype, const char **interned);
/* values[i] = bytes[i], rounded where float is narrower; `bytes` need not be aligned. */
void lam_elements_to_f32(const char *dtype, const void *bytes, int64_t count, float *values);
void lam_elements_to_f64(const char *dtype, const void *bytes, int64_t count, double *values);

#ifdef __cplusplus
}
#endif
#endif
