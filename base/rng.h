/* Philox4x32-10 (Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3; SC 2011).
 *
 *     float u[4];
 *     lam_rng_uniform4(lam_rng_key(seed, LAM_RNG_MASK), step, sample_id, token / 4, u);
 *
 * No state: a draw is a function of (seed, purpose) and a counter of (a, b, c), so masks, crops and orders
 * are the same on any number of ranks and threads and after any restart. This header is C and CUDA C++. */
#ifndef LAMELLA_BASE_RNG_H
#define LAMELLA_BASE_RNG_H

#include <stdint.h>

#ifdef __CUDACC__
#define LAM_RNG_INLINE static __host__ __device__ __forceinline__
#else
#define LAM_RNG_INLINE static inline
#endif

typedef enum lam_rng_purpose {
    LAM_RNG_INIT = 1,  /* weights: (parameter index, element / 4, 0) */
    LAM_RNG_MASK = 2,  /* masking noise: (step, sample id, token / 4) */
    LAM_RNG_CROP = 3,  /* crop position, flips, turns: (epoch, sample id, draw) */
    LAM_RNG_ORDER = 4, /* permutation of an epoch */
    LAM_RNG_SYNTH = 5, /* simulated screen */
    LAM_RNG_SPLIT = 6, /* folds, validation split */
    LAM_RNG_BOOTSTRAP = 7,
    LAM_RNG_EMBED = 8, /* crops drawn for inference */
    LAM_RNG_TEST = 9,
    LAM_RNG_SAMPLE = 10,      /* pairs drawn from all pairs of a map */
    LAM_RNG_PERMUTATION = 11, /* labels shuffled: stream = permutation */
    LAM_RNG_DEPTH = 12,       /* branches that a sample drops: word branch % 4 of (step, sample id, branch / 4) */
    LAM_RNG_ROUNDING = 13,    /* stochastic rounding of weights: (step, element / 8, 0) */
    LAM_RNG_CHANNELS = 14     /* channels of a step: word channel % 4 of (step, 0, channel / 4) */
} lam_rng_purpose;

typedef struct lam_rng_key_t {
    uint32_t k[2];
} lam_rng_key_t;

/* 64-bit mixing (SplitMix64 finaliser), so that near seeds and purposes give unrelated keys. */
LAM_RNG_INLINE uint64_t lam_mix64(uint64_t x) {
    x += 0x9E3779B97F4A7C15ull;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
    return x ^ (x >> 31);
}

LAM_RNG_INLINE lam_rng_key_t lam_rng_key(uint64_t seed, lam_rng_purpose purpose) {
    uint64_t k = lam_mix64(seed ^ lam_mix64((uint64_t)purpose));
    lam_rng_key_t key;
    key.k[0] = (uint32_t)k;
    key.k[1] = (uint32_t)(k >> 32);
    return key;
}

/* Ten rounds over a 128-bit counter. */
LAM_RNG_INLINE void lam_philox4x32(lam_rng_key_t key, const uint32_t counter[4], uint32_t out[4]) {
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    uint32_t k0 = key.k[0], k1 = key.k[1];
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        c0 = n0;
        c2 = n2;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

/* Four 32-bit words at (a, b, c): a is 32 bits, b 64 bits, c 32 bits of the counter. */
LAM_RNG_INLINE void lam_rng_words4(lam_rng_key_t key, uint32_t a, uint64_t b, uint32_t c, uint32_t out[4]) {
    uint32_t counter[4];
    counter[0] = c;
    counter[1] = (uint32_t)b;
    counter[2] = (uint32_t)(b >> 32);
    counter[3] = a;
    lam_philox4x32(key, counter, out);
}

/* Uniform on [0, 1), 24 bits, exact in float. */
LAM_RNG_INLINE float lam_word_uniform(uint32_t word) { return (float)(word >> 8) * (1.0f / 16777216.0f); }

LAM_RNG_INLINE void lam_rng_uniform4(lam_rng_key_t key, uint32_t a, uint64_t b, uint32_t c, float out[4]) {
    uint32_t w[4];
    lam_rng_words4(key, a, b, c, w);
    for (int i = 0; i < 4; i++) out[i] = lam_word_uniform(w[i]);
}

/* Integer on [0, n), n >= 1, from one word (multiply-shift; bias below n / 2^32). */
LAM_RNG_INLINE uint32_t lam_word_below(uint32_t word, uint32_t n) {
    return (uint32_t)(((uint64_t)word * n) >> 32);
}

/* A sequential stream for code where order is fixed (simulation, splits): state is the counter alone. */
typedef struct lam_rng {
    lam_rng_key_t key;
    uint64_t stream; /* counter b */
    uint32_t index;  /* words drawn */
    uint32_t words[4];
} lam_rng;

LAM_RNG_INLINE lam_rng lam_rng_stream(uint64_t seed, lam_rng_purpose purpose, uint64_t stream) {
    lam_rng r;
    r.key = lam_rng_key(seed, purpose);
    r.stream = stream;
    r.index = 0;
    r.words[0] = r.words[1] = r.words[2] = r.words[3] = 0;
    return r;
}
LAM_RNG_INLINE uint32_t lam_rng_word(lam_rng *r) {
    if (r->index % 4 == 0) lam_rng_words4(r->key, 0, r->stream, r->index / 4, r->words);
    return r->words[r->index++ % 4];
}
LAM_RNG_INLINE uint32_t lam_rng_below(lam_rng *r, uint32_t n) { return lam_word_below(lam_rng_word(r), n); }
/* Uniform on [0, 1) with 53 bits. */
LAM_RNG_INLINE double lam_rng_uniform(lam_rng *r) {
    uint64_t high = lam_rng_word(r), low = lam_rng_word(r);
    return (double)((high << 21) ^ (low >> 11)) * (1.0 / 9007199254740992.0);
}

#ifdef __cplusplus
extern "C" {
#endif
/* Standard normal (Box-Muller, one of the pair). */
double lam_rng_normal(lam_rng *r);
#ifdef __cplusplus
}
#endif
#endif
