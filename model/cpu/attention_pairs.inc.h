/* Products of bfloat16 pairs (AVX512-BF16: vdpbf16ps), and how pairs are made. */
#ifndef LAMELLA_MODEL_CPU_ATTENTION_PAIRS
#define LAMELLA_MODEL_CPU_ATTENTION_PAIRS

#ifndef __AMX_BF16__
PRODUCTS(pairs, true)
#endif

/* Rounded to nearest even: the 16 of `first`, then the 16 of `second`. */
static inline __m512i rounded(vector first, vector second) {
    return (__m512i)_mm512_cvtne2ps_pbh((__m512)second, (__m512)first);
}

/* Elements 2i and 2i + 1 of the result are elements i and 16 + i. */
static inline __m512i interleaved(__m512i x) {
    const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23,
                                           7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    return _mm512_permutexvar_epi16(order, x);
}

static inline void store_halves(__m512i x, float *lower, float *upper) {
    _mm256_storeu_si256((__m256i *)(void *)lower, _mm512_castsi512_si256(x));
    _mm256_storeu_si256((__m256i *)(void *)upper, _mm512_extracti64x4_epi64(x, 1));
}

/* Rows [rows][words] to steps [rows / 2][width]; rows is even, width a multiple of 16, words >= width / 2. */
static void steps_from_rows(const float *from, int64_t words, int64_t rows, float *to, int64_t width) {
    for (int64_t r = 0; r < rows; r += 2, from += 2 * words, to += width)
        for (int64_t i = 0; i < width; i += 16) {
            __m256i first = _mm256_loadu_si256((const __m256i *)(const void *)(from + i / 2)),
                    second = _mm256_loadu_si256((const __m256i *)(const void *)(from + words + i / 2));
            _mm512_storeu_si512(to + i,
                                interleaved(_mm512_inserti64x4(_mm512_castsi256_si512(first), second, 1)));
        }
}

#endif
