/* Attention, backward, of one (sample, head): with p the probabilities, recomputed from the normaliser,
 *     dv = p^T dout,  ds = p (dout v^T - (dout . out)),  dq = ds k / sqrt(head_dim),  dk = ds^T q / sqrt(head_dim)
 * (Dao 2023, FlashAttention-2, algorithm 2). */
typedef struct NAME(backward_scratch) {
    float *keys, *values, *rows, *d_rows;       /* rows: of k, v, and of q and dout of the block */
    float *key_steps, *row_steps, *d_row_steps; /* steps of k, q, dout where they differ from rows */
    float *turned, *d_turned;                   /* [words][queries] of q, dout */
    float *dk, *dv, *dq;                        /* [keys or queries][width] */
    float *keys_turned, *dq_turned;             /* [width][steps of keys], [width][queries], for tiles */
    float *scores, *dp;                         /* [keys][queries], where p and ds need another pass */
    float *p, *ds, *ds_steps;                   /* of a block: rows, rows, steps */
    int32_t *positions;
} NAME(backward_scratch);

static size_t NAME(backward_parts)(const lam_attention_shape *s, void *scratch, NAME(backward_scratch) * f) {
    int64_t width = round_up(s->head_dim, VF), words = round_up(words_of(s->head_dim), VF),
            padded = round_up(s->keys, KEY_UNIT), queries = BACKWARD_QUERIES;
    size_t used = 0;
    f->keys = part(&used, scratch, padded * words);
    f->values = part(&used, scratch, padded * words);
    f->rows = part(&used, scratch, queries * words);
    f->d_rows = part(&used, scratch, queries * words);
    f->turned = part(&used, scratch, words * queries);
    f->d_turned = part(&used, scratch, words * queries);
    f->dk = part(&used, scratch, padded * width);
    f->dv = part(&used, scratch, padded * width);
    f->dq = part(&used, scratch, queries * width);
    f->keys_turned = TILES ? part(&used, scratch, width * words_of(padded)) : NULL;
    f->dq_turned = TILES ? part(&used, scratch, width * queries) : NULL;
#if STEP == 2
    f->key_steps = part(&used, scratch, padded / 2 * width);
    f->row_steps = part(&used, scratch, queries / 2 * width);
    f->d_row_steps = part(&used, scratch, queries / 2 * width);
    f->scores = part(&used, scratch, CHUNK * queries);
    f->dp = part(&used, scratch, CHUNK * queries);
    f->p = part(&used, scratch, BACKWARD_KEYS * PAIRED_QUERIES);
    f->ds = part(&used, scratch, BACKWARD_KEYS * PAIRED_QUERIES);
    f->ds_steps = part(&used, scratch, BACKWARD_KEYS / 2 * queries);
#else
    f->key_steps = f->keys;
    f->row_steps = f->rows;
    f->d_row_steps = f->d_rows;
    f->p = part(&used, scratch, BACKWARD_KEYS * queries);
    f->ds = f->ds_steps = part(&used, scratch, BACKWARD_KEYS * queries);
#endif
    f->positions = (int32_t *)(void *)part(&used, scratch, s->keys);
    return used;
}

/* p and ds of one block of keys and one of queries. */
static void NAME(backward_scores)(const NAME(backward_scratch) * f, int64_t first, int64_t keys,
                                  int64_t queries, int64_t head_dim, float scale, const float *lse,
                                  const float *dot, upcoming *later) {
    int64_t words = round_up(words_of(head_dim), VF), q = BACKWARD_QUERIES;
    const float *k = f->keys + first * words, *v = f->values + first * words;
#if STEP == 2
    for (int64_t start = 0; start < keys; start += CHUNK) {
        int64_t some = keys - start < CHUNK ? keys - start : CHUNK;
        PRODUCT_ROWS(k + start * words, words, some, words_of(head_dim), f->turned, q, queries, f->scores, q,
                     false, later);
        PRODUCT_ROWS(v + start * words, words, some, words_of(head_dim), f->d_turned, q, queries, f->dp, q,
                     false, later);
        softmax_backward_pairs(f->scores, f->dp, some, queries, scale, lse, dot,
                               f->p + start * PAIRED_QUERIES, f->ds + start * PAIRED_QUERIES,
                               f->ds_steps + start / 2 * q);
    }
#else
    powers_of_product(k, words, keys, head_dim, f->turned, q, queries, f->p, q, scale, lse, later);
    weighted_product(v, words, keys, head_dim, f->d_turned, q, queries, f->ds, q, f->p, dot, later);
#endif
}

static void NAME(backward_head)(const lam_attention_shape *s, const lam_attention_tensors *t, int64_t b,
                                int64_t h, void *scratch, float *table, upcoming *later) {
    NAME(backward_scratch) f;
    NAME(backward_parts)(s, scratch, &f);
    int64_t hd = s->head_dim, width = round_up(hd, VF), words = round_up(words_of(hd), VF),
            p_words = BACKWARD_QUERIES / STEP, count = chosen_keys(s, b, f.positions);
    int64_t at_queries = b * s->queries * s->q_stride + h * hd, at_keys = b * s->keys * s->kv_stride + h * hd,
            at_out = b * s->queries * s->out_stride + h * hd;
    const int32_t *positions = s->key_mask ? f.positions : NULL;
    const real *out = (const real *)t->out + at_out, *d_out = (const real *)t->d_out + at_out;
    const float *lse = t->lse + (b * s->heads + h) * s->queries;
    float scale = 1.0f / sqrtf((float)hd), left = table ? 1 : scale; /* to be multiplied with */
    for (int sum = 0; table && sum < 4; sum++)
        memset(norm_sums(s, table, sum, b, h), 0, (size_t)hd * sizeof *table);
    int64_t whole = round_up(count, ROW_UNIT);
    NAME(gather)
    ((const real *)t->k + at_keys, s->kv_stride, positions, count, whole, s, KEY_ROWS, f.keys, words);
    NAME(gather)
    ((const real *)t->v + at_keys, s->kv_stride, positions, count, whole, s, OTHER_ROWS, f.values, words);
#if STEP == 2
    steps_from_rows(f.keys, words, whole, f.key_steps, width);
    if (TILES) turn(f.key_steps, width, words_of(whole), width, f.keys_turned, words_of(whole));
#endif
    int64_t blocks = (count + BACKWARD_KEYS - 1) / BACKWARD_KEYS;
    for (int64_t start = 0; start < s->queries; start += BACKWARD_QUERIES) {
        int64_t rows = s->queries - start < BACKWARD_QUERIES ? s->queries - start : BACKWARD_QUERIES,
                padded = round_up(rows, VF);
        float norm[BACKWARD_QUERIES] = {0}, dot[BACKWARD_QUERIES] = {0};
        NAME(gather)
        ((const real *)t->q + at_queries + start * s->q_stride, s->q_stride, NULL, rows,
         round_up(rows, ROW_UNIT), s, QUERY_ROWS, f.rows, words);
        NAME(gather)
        (d_out + start * s->out_stride, s->out_stride, NULL, rows, round_up(rows, ROW_UNIT), s, OTHER_ROWS,
         f.d_rows, words);
        turn(f.rows, words, padded, words, f.turned, BACKWARD_QUERIES);
        turn(f.d_rows, words, padded, words, f.d_turned, BACKWARD_QUERIES);
#if STEP == 2
        steps_from_rows(f.rows, words, round_up(rows, ROW_UNIT), f.row_steps, width);
        steps_from_rows(f.d_rows, words, round_up(rows, ROW_UNIT), f.d_row_steps, width);
#endif
        for (int64_t r = 0; r < rows; r++) {
            const real *row = out + (start + r) * s->out_stride, *d_row = d_out + (start + r) * s->out_stride;
            float sum = 0;
#pragma omp simd reduction(+ : sum)
            for (int64_t i = 0; i < hd; i++) sum += get(row[i]) * get(d_row[i]);
            dot[r] = sum;
            norm[r] = lse[start + r];
        }
        for (int64_t block = 0; block < blocks; block++) {
            int64_t first = block_start(block, blocks, count),
                    keys = block_start(block + 1, blocks, count) - first;
            NAME(backward_scores)(&f, first, keys, padded, hd, scale * LOG2_E, norm, dot, later);
            PRODUCT_ROWS(f.p, p_words, keys, words_of(rows), f.d_row_steps, width, width,
                         f.dv + first * width, width, start > 0, later);
            PRODUCT_ROWS(f.ds, p_words, keys, words_of(rows), f.row_steps, width, width, f.dk + first * width,
                         width, start > 0, later);
#if TILES
            PRODUCT_ROWS(f.keys_turned + first / STEP, words_of(whole), width, words_of(keys), f.ds_steps,
                         BACKWARD_QUERIES, padded, f.dq_turned, BACKWARD_QUERIES, block > 0, later);
#else
            PRODUCT_TURNED(f.ds_steps, BACKWARD_QUERIES, rows, words_of(keys),
                           f.key_steps + first / STEP * width, width, width, f.dq, width, block > 0, later);
#endif
        }
        if (TILES) turn(f.dq_turned, BACKWARD_QUERIES, width, padded, f.dq, width);
        if (!count) memset(f.dq, 0, (size_t)(rows * width) * sizeof(float));
        if (table && count)
            NAME(through_norm)
            (f.dq, width, scale, (const real *)t->q + at_queries + start * s->q_stride, s->q_stride, NULL,
             rows, s, QUERY_ROWS, b, h, table);
        if (t->dq) NAME(scatter)
        (f.dq, width, left, NULL, rows, hd, (real *)t->dq + at_queries + start * s->q_stride, s->q_stride,
         t->add_q);
    }
    if (!t->dk) return;
    real *dk = (real *)t->dk + at_keys, *dv = (real *)t->dv + at_keys;
    if (count < s->keys && !t->add_kv)
        for (int64_t r = 0; r < s->keys; r++) {
            memset(dk + r * s->kv_stride, 0, (size_t)hd * sizeof *dk);
            memset(dv + r * s->kv_stride, 0, (size_t)hd * sizeof *dv);
        }
    if (table)
        NAME(through_norm)
        (f.dk, width, scale, (const real *)t->k + at_keys, s->kv_stride, positions, count, s, KEY_ROWS, b, h,
         table);
    NAME(scatter)(f.dk, width, left, positions, count, hd, dk, s->kv_stride, t->add_kv);
    NAME(scatter)(f.dv, width, 1, positions, count, hd, dv, s->kv_stride, t->add_kv);
}
