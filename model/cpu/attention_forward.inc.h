/* Attention, forward, of one (sample, head). */
/* One block of keys under the running softmax: the scores become p (steps); `largest` and `sum` go on, `correction` is what
 * earlier sums must be multiplied with. */
static void NAME(softmax_block)(float *scores, int64_t keys, int64_t queries, float scale, bool first,
                                float *largest, float *sum, float *correction) {
    for (int64_t i = 0; i < queries; i += VF) {
        vector most = largest_of(scores + i, keys, scale), before = {0};
        if (!first) {
            vector old = load(largest + i);
            most = larger(most, old);
            vector factor = exp2_of(old - most, false);
            store(correction + i, factor);
            before = load(sum + i) * factor;
        }
        store(largest + i, most);
        store(sum + i, before + EXPONENTIALS(scores + i, keys, scale, most));
    }
}

typedef struct NAME(forward_scratch) {
    float *keys;          /* rows */
    float *value_rows;    /* where they differ from */
    float *values;        /* steps */
    float *values_turned; /* [width][steps], for tiles: A of a product is always by rows there */
    float *rows, *turned; /* of the block of queries: [queries][words], [words][queries] */
    float *scores;        /* [FORWARD_KEYS][queries] */
    float *result;        /* [queries][width] */
    float *result_turned; /* [width][queries], for tiles */
    int32_t *positions;
} NAME(forward_scratch);

static size_t NAME(forward_parts)(const lam_attention_shape *s, void *scratch, NAME(forward_scratch) * f) {
    int64_t width = round_up(s->head_dim, VF), words = round_up(words_of(s->head_dim), VF),
            padded = round_up(s->keys, KEY_UNIT);
    size_t used = 0;
    f->keys = part(&used, scratch, padded * words);
    f->value_rows = part(&used, scratch, padded * words);
    f->values = STEP == 1 ? f->value_rows : part(&used, scratch, words_of(padded) * width);
    f->values_turned = TILES ? part(&used, scratch, width * words_of(padded)) : NULL;
    f->result_turned = TILES ? part(&used, scratch, width * FORWARD_QUERIES) : NULL;
    f->rows = part(&used, scratch, FORWARD_QUERIES * words);
    f->turned = part(&used, scratch, words * FORWARD_QUERIES);
    f->scores = part(&used, scratch, FORWARD_KEYS * FORWARD_QUERIES);
    f->result = part(&used, scratch, FORWARD_QUERIES * width);
    f->positions = (int32_t *)(void *)part(&used, scratch, s->keys);
    return used;
}

static void NAME(forward_head)(const lam_attention_shape *s, int64_t b, int64_t h, const void *q,
                               const void *k, const void *v, void *out, float *lse, void *scratch,
                               upcoming *later) {
    NAME(forward_scratch) f;
    NAME(forward_parts)(s, scratch, &f);
    int64_t hd = s->head_dim, width = round_up(hd, VF), words = round_up(words_of(hd), VF),
            count = chosen_keys(s, b, f.positions), whole = round_up(count, ROW_UNIT),
            at_keys = b * s->keys * s->kv_stride + h * hd;
    const int32_t *positions = s->key_mask ? f.positions : NULL;
    const real *queries = (const real *)q + b * s->queries * s->q_stride + h * hd;
    real *to = (real *)out + b * s->queries * s->out_stride + h * hd;
    float scale = LOG2_E / sqrtf((float)hd);
    lse += (b * s->heads + h) * s->queries;
    NAME(gather)
    ((const real *)k + at_keys, s->kv_stride, positions, count, whole, s, KEY_ROWS, f.keys, words);
    NAME(gather)
    ((const real *)v + at_keys, s->kv_stride, positions, count, whole, s, OTHER_ROWS, f.value_rows, words);
#if STEP == 2
    steps_from_rows(f.value_rows, words, whole, f.values, width);
    if (TILES) turn(f.values, width, words_of(whole), width, f.values_turned, words_of(whole));
#endif
    int64_t blocks = (count + FORWARD_KEYS - 1) / FORWARD_KEYS;
    for (int64_t start = 0; start < s->queries; start += FORWARD_QUERIES) {
        int64_t rows = s->queries - start < FORWARD_QUERIES ? s->queries - start : FORWARD_QUERIES,
                padded = round_up(rows, VF);
        float largest[FORWARD_QUERIES], sum[FORWARD_QUERIES], correction[FORWARD_QUERIES];
        NAME(gather)
        (queries + start * s->q_stride, s->q_stride, NULL, rows, padded, s, QUERY_ROWS, f.rows, words);
        turn(f.rows, words, padded, words, f.turned, FORWARD_QUERIES);
        for (int64_t block = 0; block < blocks; block++) {
            int64_t first = block_start(block, blocks, count),
                    keys = block_start(block + 1, blocks, count) - first;
            PRODUCT_ROWS(f.keys + first * words, words, keys, words_of(hd), f.turned, FORWARD_QUERIES, padded,
                         f.scores, FORWARD_QUERIES, false, later);
            NAME(softmax_block)(f.scores, keys, padded, scale, block == 0, largest, sum, correction);
#if TILES
            for (int64_t r = 0; r < width && block > 0; r++)
                for (int64_t i = 0; i < padded; i++)
                    f.result_turned[r * FORWARD_QUERIES + i] *= correction[i];
            PRODUCT_ROWS(f.values_turned + first / STEP, words_of(whole), width, words_of(keys), f.scores,
                         FORWARD_QUERIES, padded, f.result_turned, FORWARD_QUERIES, block > 0, later);
#else
            for (int64_t r = 0; r < rows && block > 0; r++)
                for (int64_t i = 0; i < width; i++) f.result[r * width + i] *= correction[r];
            PRODUCT_TURNED(f.scores, FORWARD_QUERIES, rows, words_of(keys), f.values + first / STEP * width,
                           width, width, f.result, width, block > 0, later);
#endif
        }
        if (TILES) turn(f.result_turned, FORWARD_QUERIES, width, padded, f.result, width);
        if (!count) { /* a query that sees no key */
            memset(f.result, 0, (size_t)(rows * width) * sizeof(float));
            for (int64_t r = 0; r < rows; r++) largest[r] = 0, sum[r] = 1;
        }
        for (int64_t r = 0; r < rows; r++) {
            lse[start + r] = largest[r] + log2f(sum[r]);
            NAME(scatter)
            (f.result + r * width, width, 1.0f / sum[r], NULL, 1, hd, to + (start + r) * s->out_stride, 0,
             false);
        }
    }
}
