/* Tokens taken, put back, cut and joined, as op_check.h checks operations. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/op_check.h"

static const int32_t kept_ids[] = {3, 0, 5, 1, 2, 4};
static lam_tensor *build_embed(lam_graph *g, lam_tensor **a, lam_tensor *ids) {
    return lam_embed_tokens(g, a[0], a[1], a[2], ids);
}
static void oracle_embed_with(double **a, const int64_t *s, const int32_t *ids, double *y) {
    for (int64_t b = 0; b < s[0]; b++)
        for (int64_t k = -1; k < s[1]; k++)
            for (int64_t i = 0; i < s[2]; i++)
                y[(b * (s[1] + 1) + k + 1) * s[2] + i] =
                    k < 0 ? a[1][i] + a[2][i]
                          : a[0][(b * s[1] + k) * s[2] + i] +
                                a[2][(1 + (ids ? ids[b * s[1] + k] : k)) * s[2] + i];
}
static void oracle_embed(double **a, const int64_t *s, double *y) { oracle_embed_with(a, s, NULL, y); }
static void oracle_embed_ids(double **a, const int64_t *s, double *y) {
    oracle_embed_with(a, s, kept_ids, y);
}

static void oracle_embed_channels(double **a, const int64_t *s, double *y) {
    static const int32_t one_channel[] = {0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2};
    oracle_embed_with(a, s, one_channel, y);
}

static const int32_t restore_ids[] = {2, 0, 3, 1, 4, 1, 4, 0, 3, 2};
static lam_tensor *build_merge(lam_graph *g, lam_tensor **a, lam_tensor *ids) {
    lam_tensor *visible = lam_add(g, a[0], a[0]), *masked = lam_masked_tokens(g, a[1], a[2]);
    return lam_add(g, lam_merge_tokens(g, visible, masked, ids), lam_merge_tokens(g, visible, masked, ids));
}
static void oracle_merge(double **a, const int64_t *s, double *y) { /* 2 visible of 5 */
    for (int64_t b = 0; b < s[0]; b++)
        for (int64_t n = 0; n < 6; n++)
            for (int64_t i = 0; i < s[2]; i++) {
                int64_t rank = n ? restore_ids[b * 5 + n - 1] : -1;
                y[(b * 6 + n) * s[2] + i] =
                    rank < 2 ? 4 * a[0][(b * 3 + 1 + rank) * s[2] + i] : 2 * (a[1][i] + a[2][n * s[2] + i]);
            }
}

/* 3 kept of 2 channels of 3 tokens each. */
static const int32_t channel_restore_ids[] = {2, 5, 0, 3, 1, 4, 4, 0, 3, 1, 5, 2};
static lam_tensor *build_unshuffle_channels(lam_graph *g, lam_tensor **a, lam_tensor *ids) {
    return lam_unshuffle_channels(g, a[0], a[1], a[2], ids, a[3], NULL, true);
}
static lam_tensor *build_unshuffle_no_cls(lam_graph *g, lam_tensor **a, lam_tensor *ids) {
    return lam_unshuffle_channels(g, lam_add(g, a[0], a[0]), a[1], a[2], ids, a[3], NULL, false);
}
static void oracle_unshuffle_channels(double **a, const int64_t *s, double *y) {
    for (int64_t b = 0; b < s[0]; b++)
        for (int64_t n = 0; n < 7; n++)
            for (int64_t i = 0; i < s[2]; i++) {
                int64_t rank = n ? channel_restore_ids[b * 6 + n - 1] : -1;
                double value = rank < 3 ? a[0][(b * 4 + 1 + rank) * s[2] + i] : a[1][i];
                double channel = n ? a[3][(n - 1) / 3 * s[2] + i] : 0;
                y[(b * 7 + n) * s[2] + i] = value + a[2][(n ? 1 + (n - 1) % 3 : 0) * s[2] + i] + channel;
            }
}
static void oracle_unshuffle_no_cls(double **a, const int64_t *s, double *y) {
    int64_t count = s[0] * s[1] * s[2];
    double *twice = calloc((size_t)count, sizeof *twice),
           *all = calloc((size_t)(s[0] * 7 * s[2]), sizeof *all), *b[4] = {twice, a[1], a[2], a[3]};
    for (int64_t i = 0; i < count; i++) twice[i] = 2 * a[0][i];
    oracle_unshuffle_channels(b, s, all);
    for (int64_t k = 0; k < s[0]; k++)
        memcpy(y + k * 6 * s[2], all + (k * 7 + 1) * s[2], (size_t)(6 * s[2]) * sizeof *y);
    free(twice);
    free(all);
}

/* The first two tokens, and those from the fifth on, twice. */
static lam_tensor *build_token_rows(lam_graph *g, lam_tensor **a, lam_tensor *ids) {
    (void)ids;
    lam_tensor *end = lam_token_rows(g, a[0], 4, 3), *parts[] = {lam_token_rows(g, a[0], 0, 2), end, end};
    return lam_concat_tokens(g, parts, 3);
}
static void oracle_token_rows(double **a, const int64_t *s, double *y) {
    static const int64_t from[] = {0, 1, 4, 5, 6, 4, 5, 6};
    for (int64_t row = 0; row < s[0] * 8; row++)
        memcpy(y + row * s[2], a[0] + (row / 8 * s[1] + from[row % 8]) * s[2], (size_t)s[2] * sizeof *y);
}

/* More parts than a node has inputs. */
static lam_tensor *build_concat(lam_graph *g, lam_tensor **a, lam_tensor *ids) {
    (void)ids;
    lam_tensor *parts[19];
    for (int k = 0; k < 19; k++) parts[k] = a[k % 3 == 1];
    return lam_concat_tokens(g, parts, 19);
}
static void oracle_concat(double **a, const int64_t *s, double *y) {
    for (int64_t b = 0; b < s[0]; b++)
        for (int k = 0; k < 19; k++) {
            int which = k % 3 == 1;
            int64_t count = (which ? 3 : 1) * s[2];
            memcpy(y, a[which] + b * count, (size_t)count * sizeof *y);
            y += count;
        }
}

/* Of 7 tokens on 4 places 5 are decoded, 2 of them visible. */
static const int32_t decoded_ids[] = {6, 1, 0, 5, 3, 2, 3, 6, 4, 1};
static lam_tensor *build_append(lam_graph *g, lam_tensor **a, lam_tensor *ids) {
    return lam_append_masked(g, a[0], a[1], a[2], ids);
}
static void oracle_append(double **a, const int64_t *s, double *y) {
    for (int64_t b = 0; b < s[0]; b++)
        for (int64_t r = 0; r < 6; r++)
            for (int64_t i = 0; i < s[2]; i++)
                y[(b * 6 + r) * s[2] + i] = (r < 3 ? a[0][(b * 3 + r) * s[2] + i] : a[1][i]) +
                                            a[2][(r ? 1 + decoded_ids[b * 5 + r - 1] % 4 : 0) * s[2] + i];
}

static const int32_t rank_ids[] = {3, 0, 4, 2, 1, 1, 4, 0, 3, 2};
static lam_tensor *build_restore(lam_graph *g, lam_tensor **a, lam_tensor *ids) {
    lam_tensor *x = lam_add(g, a[0], a[0]); /* its gradient is written once and added to once */
    return lam_add(g, lam_restore_tokens(g, x, ids, 1), lam_restore_tokens(g, x, ids, 1));
}
static void oracle_restore(double **a, const int64_t *s, double *y) { /* ranks 1 to 3 of 5 */
    for (int64_t row = 0; row < s[0] * 5; row++)
        for (int64_t i = 0; i < s[2]; i++) {
            int64_t at = rank_ids[row] - 1;
            y[row * s[2] + i] = at >= 0 && at < s[1] ? 4 * a[0][(row / 5 * s[1] + at) * s[2] + i] : 0;
        }
}

/* Two rows before the five tokens; ranks 2 to 4 of them. */
static lam_tensor *build_rank(lam_graph *g, lam_tensor **a, lam_tensor *ids) {
    lam_tensor *x = lam_add(g, a[0], a[0]);
    return lam_add(g, lam_rank_tokens(g, x, ids, 2, 3), lam_rank_tokens(g, x, ids, 2, 3));
}
static void oracle_rank(double **a, const int64_t *s, double *y) {
    for (int64_t row = 0; row < s[0] * 5; row++)
        for (int64_t i = 0; i < s[2] && rank_ids[row] >= 2; i++)
            y[(row / 5 * 3 + rank_ids[row] - 2) * s[2] + i] =
                4 * a[0][(row / 5 * s[1] + 2 + row % 5) * s[2] + i];
}

static lam_tensor *build_drop(lam_graph *g, lam_tensor **a, lam_tensor *ids) {
    return (void)ids, lam_drop_cls(g, a[0]);
}
static void oracle_drop(double **a, const int64_t *s, double *y) {
    for (int64_t b = 0; b < s[0]; b++)
        memcpy(y + b * (s[1] - 1) * s[2], a[0] + (b * s[1] + 1) * s[2],
               (size_t)((s[1] - 1) * s[2]) * sizeof *y);
}

static const op_case cases[] = {
    {"embed_tokens",
     {{"x", {2, 3, 5}, 1, 0}, {"cls", {1, 1, 5}, 1, 0}, {"position", {1, 7, 5}, 1, 0}},
     3,
     {2, 4, 5},
     build_embed,
     oracle_embed,
     .ids = NULL},
    {"embed_tokens kept",
     {{"x", {2, 3, 5}, 1, 0}, {"cls", {1, 1, 5}, 1, 0}, {"position", {1, 7, 5}, 1, 0}},
     3,
     {2, 4, 5},
     build_embed,
     oracle_embed_ids,
     .id_shape = {2, 3},
     .ids = kept_ids},
    {"merge_tokens",
     {{"x", {2, 3, 5}, 1, 0}, {"mask_token", {1, 1, 5}, 1, 0}, {"position", {1, 6, 5}, 1, 0}},
     3,
     {2, 6, 5},
     build_merge,
     oracle_merge,
     .more_stores = 1,
     .id_shape = {2, 5},
     .ids = restore_ids},
    {"unshuffle_channels",
     {{"x", {2, 4, 5}, 1, 0},
      {"mask_token", {1, 1, 5}, 1, 0},
      {"position", {1, 4, 5}, 1, 0},
      {"channel_tokens", {1, 2, 5}, 1, 0}},
     4,
     {2, 7, 5},
     build_unshuffle_channels,
     oracle_unshuffle_channels,
     .id_shape = {2, 6},
     .ids = channel_restore_ids},
    {"unshuffle_channels without cls",
     {{"x", {2, 4, 5}, 1, 0},
      {"mask_token", {1, 1, 5}, 1, 0},
      {"position", {1, 4, 5}, 1, 0},
      {"channel_tokens", {1, 2, 5}, 1, 0}},
     4,
     {2, 6, 5},
     build_unshuffle_no_cls,
     oracle_unshuffle_no_cls,
     .more_stores = 1,
     .id_shape = {2, 6},
     .ids = channel_restore_ids},
    {"token_rows", {{"x", {2, 7, 5}, 1, 0}}, 1, {2, 8, 5}, build_token_rows, oracle_token_rows, .ids = NULL},
    {"concat_tokens",
     {{"x", {2, 1, 5}, 1, 0}, {"y", {2, 3, 5}, 1, 0}},
     2,
     {2, 31, 5},
     build_concat,
     oracle_concat,
     .more_activations = 1,
     .ids = NULL},
    {"embed_tokens of two channels",
     {{"x", {2, 6, 5}, 1, 0}, {"cls", {1, 1, 5}, 1, 0}, {"position", {1, 4, 5}, 1, 0}},
     3,
     {2, 7, 5},
     build_embed,
     oracle_embed_channels,
     .ids = NULL},
    {"embed_tokens, learned positions", /* which are parameters where they are not called position */
     {{"x", {2, 3, 5}, 1, 0}, {"cls", {1, 1, 5}, 1, 0}, {"learned", {1, 7, 5}, 1, 0}},
     3,
     {2, 4, 5},
     build_embed,
     oracle_embed_ids,
     .id_shape = {2, 3},
     .ids = kept_ids},
    {"embed_tokens, all, learned positions",
     {{"x", {2, 6, 67}, 1, 0}, {"cls", {1, 1, 67}, 1, 0}, {"learned", {1, 7, 67}, 1, 0}},
     3,
     {2, 7, 67},
     build_embed,
     oracle_embed,
     .ids = NULL},
    {"merge_tokens, learned positions",
     {{"x", {2, 3, 67}, 1, 0}, {"mask_token", {1, 1, 67}, 1, 0}, {"learned", {1, 6, 67}, 1, 0}},
     3,
     {2, 6, 67},
     build_merge,
     oracle_merge,
     .more_stores = 1,
     .id_shape = {2, 5},
     .ids = restore_ids},
    {"append_masked",
     {{"x", {2, 3, 5}, 1, 0}, {"mask_token", {1, 1, 5}, 1, 0}, {"position", {1, 5, 5}, 1, 0}},
     3,
     {2, 6, 5},
     build_append,
     oracle_append,
     .id_shape = {2, 5},
     .ids = decoded_ids},
    {"append_masked, learned positions",
     {{"x", {2, 3, 7}, 1, 0}, {"mask_token", {1, 1, 7}, 1, 0}, {"learned", {1, 5, 7}, 1, 0}},
     3,
     {2, 6, 7},
     build_append,
     oracle_append,
     .id_shape = {2, 5},
     .ids = decoded_ids},
    {"restore_tokens",
     {{"x", {2, 3, 5}, 1, 0}},
     1,
     {2, 5, 5},
     build_restore,
     oracle_restore,
     .id_shape = {2, 5},
     .ids = rank_ids},
    {"rank_tokens",
     {{"x", {2, 7, 5}, 1, 0}},
     1,
     {2, 3, 5},
     build_rank,
     oracle_rank,
     .id_shape = {2, 5},
     .ids = rank_ids},
    {"drop_cls", {{"x", {2, 4, 5}, 1, 0}}, 1, {2, 3, 5}, build_drop, oracle_drop, .ids = NULL},
};

int main(void) {
    const struct CMUnitTest tests[] = {OP_TESTS};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
