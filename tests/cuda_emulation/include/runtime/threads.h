/* Barriers, shuffles, votes, fences. */
#ifndef LAMELLA_CUDA_EMULATION_RUNTIME_THREADS_H
#define LAMELLA_CUDA_EMULATION_RUNTIME_THREADS_H

#include <stdint.h>

#define LAM_EMULATED_HERE const char *file = __builtin_FILE(), int line = __builtin_LINE()
void __syncthreads(LAM_EMULATED_HERE);
int __syncthreads_count(int predicate, LAM_EMULATED_HERE);
int __syncthreads_and(int predicate, LAM_EMULATED_HERE);
int __syncthreads_or(int predicate, LAM_EMULATED_HERE);
void __syncwarp(unsigned mask = 0xffffffffu, LAM_EMULATED_HERE);
unsigned __ballot_sync(unsigned mask, int predicate, LAM_EMULATED_HERE);
static inline int __any_sync(unsigned mask, int predicate, LAM_EMULATED_HERE) {
    return __ballot_sync(mask, predicate, file, line) != 0;
}
static inline int __all_sync(unsigned mask, int predicate, LAM_EMULATED_HERE) {
    return __ballot_sync(mask, predicate, file, line) == mask;
}
/* kind: 0 the lane `other`, 1 up by `other`, 2 down by `other`, 3 exclusive or with `other`. */
uint64_t lam_emulated_shuffle(unsigned mask, uint64_t value, unsigned bytes, int kind, unsigned other,
                              int width, const char *file, int line);
template <typename T>
static inline T lam_emulated_shuffle_of(unsigned mask, T value, int kind, unsigned other, int width,
                                        const char *file, int line) {
    static_assert(sizeof(T) == 2 || sizeof(T) == 4 || sizeof(T) == 8, "a shuffle moves 2, 4 or 8 bytes");
    uint64_t bits = 0;
    __builtin_memcpy(&bits, &value, sizeof value);
    bits = lam_emulated_shuffle(mask, bits, sizeof value, kind, other, width, file, line);
    __builtin_memcpy(&value, &bits, sizeof value);
    return value;
}
template <typename T>
static inline T __shfl_sync(unsigned mask, T value, int lane, int width = 32, LAM_EMULATED_HERE) {
    return lam_emulated_shuffle_of(mask, value, 0, static_cast<unsigned>(lane), width, file, line);
}
template <typename T>
static inline T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, LAM_EMULATED_HERE) {
    return lam_emulated_shuffle_of(mask, value, 1, delta, width, file, line);
}
template <typename T>
static inline T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, LAM_EMULATED_HERE) {
    return lam_emulated_shuffle_of(mask, value, 2, delta, width, file, line);
}
template <typename T>
static inline T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32, LAM_EMULATED_HERE) {
    return lam_emulated_shuffle_of(mask, value, 3, static_cast<unsigned>(lane_mask), width, file, line);
}
void __threadfence(void);
void __threadfence_block(void);
void __threadfence_system(void);

#endif
