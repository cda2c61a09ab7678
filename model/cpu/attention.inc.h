/* Attention in tiles with the online softmax: Dao et al. 2022 (FlashAttention), Dao 2023 (FlashAttention-2).
 *
 * One thread does one (sample, head) at a time: it brings the rows of k and v of the head together (they lie far apart in
 * memory; keys that the mask excludes are left out here and cost nothing), then takes queries block by block. Scores are kept
 * turned, [keys][queries]: a vector holds queries, so that largest, sum and normaliser are vectors, no reduction crosses lanes,
 * and only the last vector of the queries is padded. Scratch: O(tokens head_dim) + a block of scores.
 *
 * Operands of the products have two forms, both in words (attention_tiles.inc.h) of STEP elements:
 *     rows   [rows][words of the width]        summed over the width
 *     steps  [rows / STEP][width]              summed over the rows; for floats the same thing */
#include "model/cpu/attention_tiles.inc.h"
#ifdef __AVX512BF16__
#include "model/cpu/attention_pairs.inc.h"
#endif
#ifdef __AMX_BF16__
#include "model/cpu/attention_amx.inc.h"
#endif
#include "model/cpu/attention_softmax.inc.h"

#ifndef ROWS_AHEAD
#define CHUNK 64 /* keys whose scores stay in the first-level cache */
#define ROWS_AHEAD 12
#define LOG2_E 1.44269504088896341f
#define REAL_IS_PAIRED2(type) REAL_IS_PAIRED_##type
#define REAL_IS_PAIRED(type) REAL_IS_PAIRED2(type)
#define REAL_IS_PAIRED_f32 0
#ifdef __AVX512BF16__
#define REAL_IS_PAIRED_bf16 1
#else
#define REAL_IS_PAIRED_bf16 0
#endif

/* Hands out the parts of a thread's scratch; from NULL it counts the bytes. */
static inline float *part(size_t *used, void *scratch, int64_t floats) {
    float *at = scratch ? (float *)((char *)scratch + *used) : NULL;
    *used += ((size_t)floats * sizeof(float) + 63) & ~(size_t)63;
    return at;
}

/* The keys of a sample that take part: their number, and their positions where some do not. */
static int64_t chosen_keys(const lam_attention_shape *s, int64_t b, int32_t *positions) {
    if (!s->key_mask) return s->keys;
    const float *mask = s->key_mask + b * s->keys;
    int64_t count = 0;
    for (int64_t i = 0; i < s->keys; i++)
        if (mask[i] != 0) positions[count++] = (int32_t)i;
    return count;
}

#define LATER_BYTES                                                                                          \
    ((int64_t)384 << 10) /* of a head that are asked for early: they must not push out this head's */

typedef enum rows_kind {
    QUERY_ROWS,
    KEY_ROWS,
    OTHER_ROWS
} rows_kind; /* the first two as in lam_attention_norm */

/* Adds rows of a head to what is asked for. */
static inline void add_rows(upcoming *u, const void *tensor, int64_t bytes_before, int64_t row_bytes,
                            int64_t stride_bytes, int64_t rows) {
    if (!tensor) return;
    u->row_bytes = row_bytes;
    u->parts[u->count].row = (const char *)tensor + bytes_before;
    u->parts[u->count].stride = stride_bytes;
    u->parts[u->count++].rows = rows;
}

/* First key of a block, all of about one size. */
static inline int64_t block_start(int64_t block, int64_t blocks, int64_t keys) {
    int64_t start = block * ((keys + KEY_UNIT - 1) / KEY_UNIT) / blocks * KEY_UNIT;
    return start < keys ? start : keys;
}
#endif

#if REAL_IS_PAIRED(LAM_REAL_SUFFIX)
#define STEP 2
#ifdef __AMX_BF16__
#define TILES 1
#define THREAD_BEGIN() tiles_begin()
#define THREAD_END() tiles_end()
#define PRODUCT_ROWS multiply_rows_amx
#else
#define TILES 0
#define THREAD_BEGIN() (void)0
#define THREAD_END() (void)0
#define PRODUCT_ROWS multiply_rows_pairs
#define PRODUCT_TURNED multiply_turned_pairs
#endif
#define EXPONENTIALS exponentials_pairs
typedef uint16_t NAME(element) __attribute__((may_alias));
#define element_of(x) (x)
#define stored_element(x) put(x)
#else
#define STEP 1
#define TILES 0
#define THREAD_BEGIN() (void)0
#define THREAD_END() (void)0
#define PRODUCT_ROWS multiply_rows_float
#define PRODUCT_TURNED multiply_turned_float
#define EXPONENTIALS exponentials_float
typedef float NAME(element) __attribute__((may_alias));
#define element_of(x) get(x)
#define stored_element(x) get(put(x))
#endif
#define ROW_UNIT (STEP == 1 ? VF : 2 * VF) /* rows are padded to */
#define words_of(count) (((count) + STEP - 1) / STEP)

#include "model/cpu/attention_norm.inc.h"

/* Rows of one head side by side, `words` each, the rest 0; those of queries and keys normalised on the way.
 * positions: of the rows, NULL: 0, 1, ... The rows come in an order that no hardware prefetcher sees. Rows
 * from `rows` to `padded` are 0. */
static void NAME(gather)(const real *from, int64_t stride, const int32_t *positions, int64_t rows,
                         int64_t padded, const lam_attention_shape *s, rows_kind kind, float *to_words,
                         int64_t words) {
    int64_t width = words * STEP, head_dim = s->head_dim;
    bool normed = s->norm.on && kind != OTHER_ROWS;
    NAME(element) *to = (NAME(element) *)(void *)to_words;
    for (int64_t r = 0; r < rows; r++, to += width) {
        int64_t ahead = r + ROWS_AHEAD < rows ? r + ROWS_AHEAD : rows - 1;
        const real *later = from + (positions ? positions[ahead] : ahead) * stride,
                   *row = from + (positions ? positions[r] : r) * stride;
        for (int64_t i = 0; i < head_dim; i += 64 / (int64_t)sizeof(real)) __builtin_prefetch(later + i);
        if (normed)
            NAME(normalise)(row, &s->norm, kind, head_dim, to);
        else
            for (int64_t i = 0; i < head_dim; i++) to[i] = element_of(row[i]);
        for (int64_t i = head_dim; i < width; i++) to[i] = 0;
    }
    memset(to, 0, (size_t)((padded - rows) * words) * sizeof(float));
}

/* The way back: to (+)= scale * rows. */
static void NAME(scatter)(const float *from, int64_t width, float scale, const int32_t *positions,
                          int64_t rows, int64_t head_dim, real *to, int64_t stride, bool add) {
    for (int64_t r = 0; r < rows; r++, from += width) {
        real *row = to + (positions ? positions[r] : r) * stride;
        if (add)
            for (int64_t i = 0; i < head_dim; i++) row[i] = put(get(row[i]) + scale * from[i]);
        else
            for (int64_t i = 0; i < head_dim; i++) row[i] = put(scale * from[i]);
    }
}

/* What the head after (b, h) will read and write. */
static upcoming NAME(next_head)(const lam_attention_shape *s, const lam_attention_tensors *t, int64_t b,
                                int64_t h) {
    upcoming u = {.count = 0};
    const int64_t size = sizeof(real), row = s->head_dim * size;
    if (++h == s->heads) {
        h = 0;
        b++;
    }
    if (b >= s->batch || (s->queries + s->keys) * row * (t->d_out ? 4 : 2) > LATER_BYTES) return u;
    int64_t q = b * s->queries * s->q_stride + h * s->head_dim,
            kv = b * s->keys * s->kv_stride + h * s->head_dim,
            out = b * s->queries * s->out_stride + h * s->head_dim;
    const void *const of_keys[] = {t->k, t->v, t->dk, t->dv}, *const of_queries[] = {t->q, t->dq},
                      *const of_out[] = {t->d_out, t->out};
    for (int i = 0; i < 4; i++) add_rows(&u, of_keys[i], kv * size, row, s->kv_stride * size, s->keys);
    for (int i = 0; i < 2; i++) add_rows(&u, of_queries[i], q * size, row, s->q_stride * size, s->queries);
    for (int i = 0; i < 2; i++) add_rows(&u, of_out[i], out * size, row, s->out_stride * size, s->queries);
    return u;
}

#include "model/cpu/attention_backward.inc.h"
#include "model/cpu/attention_forward.inc.h"

static size_t NAME(thread_workspace)(const lam_attention_shape *s, bool backward) {
    return backward ? NAME(backward_parts)(s, NULL, &(NAME(backward_scratch)){0})
                    : NAME(forward_parts)(s, NULL, &(NAME(forward_scratch)){0});
}

static size_t NAME(attention_workspace)(const lam_attention_shape *s, bool backward) {
    return (size_t)lam_threads() * NAME(thread_workspace)(s, backward) +
           (backward && s->norm.on ? norm_table_bytes(s) : 0);
}

static void NAME(attention)(const lam_attention_shape *s, const void *q, const void *k, const void *v,
                            void *out, float *lse, void *workspace) {
    size_t per_thread = NAME(thread_workspace)(s, false);
#pragma omp parallel
    {
        void *scratch = (char *)workspace + (size_t)omp_get_thread_num() * per_thread;
        THREAD_BEGIN();
#pragma omp for collapse(2) schedule(static)
        for (int64_t b = 0; b < s->batch; b++)
            for (int64_t h = 0; h < s->heads; h++) {
                upcoming later = NAME(next_head)(s, &(lam_attention_tensors){.q = q, .k = k, .v = v}, b, h);
                NAME(forward_head)(s, b, h, q, k, v, out, lse, scratch, &later);
            }
        THREAD_END();
    }
}

static void NAME(attention_backward)(const lam_attention_shape *s, const lam_attention_tensors *t,
                                     void *workspace) {
    size_t per_thread = NAME(thread_workspace)(s, true);
    float *table = s->norm.on ? workspace : NULL;
    if (table) workspace = (char *)workspace + norm_table_bytes(s);
#pragma omp parallel
    {
        void *scratch = (char *)workspace + (size_t)omp_get_thread_num() * per_thread;
        THREAD_BEGIN();
#pragma omp for collapse(2) schedule(static)
        for (int64_t b = 0; b < s->batch; b++)
            for (int64_t h = 0; h < s->heads; h++) {
                upcoming later = NAME(next_head)(s, t, b, h);
                NAME(backward_head)(s, t, b, h, scratch, table, &later);
            }
        THREAD_END();
    }
    if (table) NAME(fold_norm)(s, t, table);
}

#undef STEP
#undef TILES
#undef THREAD_BEGIN
#undef THREAD_END
#undef ROW_UNIT
#undef PRODUCT_ROWS
#undef PRODUCT_TURNED
#undef EXPONENTIALS
#undef element_of
#undef stored_element
#undef words_of
