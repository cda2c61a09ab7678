/* The softmax of attention on blocks of scores [keys][queries], powers of 2: `scale` includes log2(e). Included once an
 * instruction set. */
#ifndef LAMELLA_MODEL_CPU_ATTENTION_SOFTMAX
#define LAMELLA_MODEL_CPU_ATTENTION_SOFTMAX

/* Blocks: the scores of the forward pass stay in the first-level cache; the backward pass reads and writes all of dk and dv
 * once a block of queries. Blocks of keys are whole units, but the last. */
#define FORWARD_QUERIES 32
#define FORWARD_KEYS 128
#define BACKWARD_QUERIES 64
#define BACKWARD_KEYS 160
#define KEY_UNIT 32

/* The largest scaled score of VF queries, of which `column` is the first key's. */
static inline vector largest_of(const float *column, int64_t keys, float scale) {
    vector top[4];
    for (int t = 0; t < 4; t++) top[t] = load(column);
    int64_t j = 0;
    for (; j + 4 <= keys; j += 4)
        for (int t = 0; t < 4; t++) top[t] = larger(top[t], load(column + (j + t) * FORWARD_QUERIES));
    for (; j < keys; j++) top[0] = larger(top[0], load(column + j * FORWARD_QUERIES));
    return larger(larger(top[0], top[1]), larger(top[2], top[3])) * scale;
}

/* Scores become p = 2^(score * scale - largest); returns the sums. */
static inline vector exponentials_float(float *column, int64_t keys, float scale, vector largest) {
    vector total = {0};
    for (int64_t j = 0; j < keys; j++) {
        vector p = exp2_of(load(column + j * FORWARD_QUERIES) * scale - largest, false);
        store(column + j * FORWARD_QUERIES, p);
        total += p;
    }
    return total;
}

#ifdef __AVX512BF16__

/* The same into steps of two keys, row j / 2 over row j; what a product reads beyond, up to a whole tile, is 0. */
static inline vector exponentials_pairs(float *column, int64_t keys, float scale, vector largest) {
    vector total = {0};
    for (int64_t j = 0; j < keys; j += 2) {
        vector p = exp2_of(load(column + j * FORWARD_QUERIES) * scale - largest, true), next = {0};
        if (j + 1 < keys) next = exp2_of(load(column + (j + 1) * FORWARD_QUERIES) * scale - largest, true);
        store(column + j / 2 * FORWARD_QUERIES, (vector)interleaved(rounded(p, next)));
        total += p + next;
    }
    for (int64_t j = (keys + 1) / 2; j % VF; j++) store(column + j * FORWARD_QUERIES, (vector){0});
    return total;
}

#define PAIRED_QUERIES (BACKWARD_QUERIES / 2) /* words of a row of p or ds */

/* Of scores and dp: rows of p and ds, and steps of ds. What the products read beyond, up to whole tiles, is 0. */
static void softmax_backward_pairs(const float *scores, const float *dp, int64_t keys, int64_t queries,
                                   float scale, const float *normaliser, const float *dot, float *p,
                                   float *ds, float *ds_steps) {
    const int64_t steps = (keys + 1) / 2;
    memset(ds_steps + steps * BACKWARD_QUERIES, 0,
           (size_t)((round_up(steps, VF) - steps) * BACKWARD_QUERIES) * sizeof(float));
    for (int64_t j = 0; j < keys; j += 2, p += 2 * PAIRED_QUERIES, ds += 2 * PAIRED_QUERIES) {
        if (queries % (2 * VF)) {
            int64_t i = queries / 2;
            store_halves((__m512i){0}, p + i, p + PAIRED_QUERIES + i);
            store_halves((__m512i){0}, ds + i, ds + PAIRED_QUERIES + i);
        }
        for (int64_t i = 0; i < queries; i += VF) {
            const float *score = scores + j * BACKWARD_QUERIES + i, *d = dp + j * BACKWARD_QUERIES + i;
            vector norm = load(normaliser + i), less = load(dot + i), p1 = {0}, d1 = {0};
            vector p0 = exp2_of(load(score) * scale - norm, true), d0 = p0 * (load(d) - less);
            if (j + 1 < keys) {
                p1 = exp2_of(load(score + BACKWARD_QUERIES) * scale - norm, true);
                d1 = p1 * (load(d + BACKWARD_QUERIES) - less);
            }
            __m512i p_both = rounded(p0, p1), ds_both = rounded(d0, d1);
            store_halves(p_both, p + i / 2, p + PAIRED_QUERIES + i / 2);
            store_halves(ds_both, ds + i / 2, ds + PAIRED_QUERIES + i / 2);
            store(ds_steps + j / 2 * BACKWARD_QUERIES + i, (vector)interleaved(ds_both));
        }
    }
}

#endif
#endif
