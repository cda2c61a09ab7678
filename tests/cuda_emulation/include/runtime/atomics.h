/* Atomics: integers only, since float atomics would make results depend on the order. */
#ifndef LAMELLA_CUDA_EMULATION_RUNTIME_ATOMICS_H
#define LAMELLA_CUDA_EMULATION_RUNTIME_ATOMICS_H

#include <stddef.h>

void lam_emulated_atomic(const void *address, size_t bytes);
#define LAM_EMULATED_ATOMIC(name, type, next)                                                                \
    static inline type name(type *address, type value) {                                                     \
        lam_emulated_atomic(address, sizeof(type));                                                          \
        type old = __atomic_load_n(address, __ATOMIC_RELAXED);                                               \
        __atomic_store_n(address, (next), __ATOMIC_RELAXED);                                                 \
        return old;                                                                                          \
    }
#define LAM_EMULATED_ATOMICS(type)                                                                           \
    LAM_EMULATED_ATOMIC(atomicAdd, type, old + value)                                                        \
    LAM_EMULATED_ATOMIC(atomicMax, type, old > value ? old : value)                                          \
    LAM_EMULATED_ATOMIC(atomicMin, type, old < value ? old : value)                                          \
    LAM_EMULATED_ATOMIC(atomicOr, type, old | value)                                                         \
    LAM_EMULATED_ATOMIC(atomicAnd, type, old &value)                                                         \
    LAM_EMULATED_ATOMIC(atomicXor, type, old ^ value)                                                        \
    LAM_EMULATED_ATOMIC(atomicExch, type, value)                                                             \
    static inline type atomicCAS(type *address, type compare, type value) {                                  \
        lam_emulated_atomic(address, sizeof(type));                                                          \
        type old = __atomic_load_n(address, __ATOMIC_RELAXED);                                               \
        if (old == compare) __atomic_store_n(address, value, __ATOMIC_RELAXED);                              \
        return old;                                                                                          \
    }
LAM_EMULATED_ATOMICS(int)
LAM_EMULATED_ATOMICS(unsigned)
LAM_EMULATED_ATOMICS(unsigned long long)
LAM_EMULATED_ATOMIC(atomicSub, int, old - value)
LAM_EMULATED_ATOMIC(atomicSub, unsigned, old - value)
LAM_EMULATED_ATOMIC(atomicInc, unsigned, old >= value ? 0 : old + 1)

#endif
