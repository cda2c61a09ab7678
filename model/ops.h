/* The operations: each call adds one node to the graph. F32 row-major unless said; `=` writes, `+=` adds.
 * Every call returns NULL after a failure and accepts NULL (model/graph.h). Gradients of parameters are added
 * to the registry's arena; those of activations are written by the first consumer in backward order and added
 * to by the others. The CPU kernels are in model/cpu; the rules of each family in model/ops/<family>.c. */
#ifndef LAMELLA_MODEL_OPS_H
#define LAMELLA_MODEL_OPS_H

#include "model/graph.h"

#ifdef __cplusplus
extern "C" {
#endif

/* linear: y = x w^T + b. x [..., in], w [out, rest] with rest flattened = in, b [out] (NULL: none) ->
 * [..., out]. */
lam_tensor *lam_linear(lam_graph *g, lam_tensor *x, lam_tensor *w, lam_tensor *b);
/* linear_add: y = residual + x w^T + b, rounded once; residual as y; b as in linear, but there must be one. */
lam_tensor *lam_linear_add(lam_graph *g, lam_tensor *x, lam_tensor *w, lam_tensor *b, lam_tensor *residual);
/* linear_gelu: y = gelu(x w^T + b), erf form; keeps the derivative of GELU, or with LAM_RECOMPUTE_NORM_GELU its argument. */
lam_tensor *lam_linear_gelu(lam_graph *g, lam_tensor *x, lam_tensor *w, lam_tensor *b);
/* linear_qkv: three linear maps side by side, [..., D] -> [..., 3D] as (query, key, value); w* [D, D], b*
 * [D]. */
lam_tensor *lam_linear_qkv(lam_graph *g, lam_tensor *x, lam_tensor *wq, lam_tensor *bq, lam_tensor *wk,
                           lam_tensor *bk, lam_tensor *wv, lam_tensor *bv);

/* linear_kv: two of them, [..., D] -> [..., 2D] as (key, value), as cross_attention takes them. */
lam_tensor *lam_linear_kv(lam_graph *g, lam_tensor *x, lam_tensor *wk, lam_tensor *bk, lam_tensor *wv,
                          lam_tensor *bv);

/* layernorm: y = (x - mean) / sqrt(variance + eps) * w + b over the last dimension, biased variance. */
lam_tensor *lam_layernorm(lam_graph *g, lam_tensor *x, lam_tensor *w, lam_tensor *b, double eps);
/* add: x + r, the same shape. */
lam_tensor *lam_add(lam_graph *g, lam_tensor *x, lam_tensor *r);

/* Stochastic depth (Huang et al. 2016) of residual branches, sample by sample, that skips the work: a branch runs on the
 * samples that keep it alone, side by side, with bounded rows.
 *
 *     lam_depth d = lam_depth_plan(g, step, sample_ids, drop_scale, branch, rate, seed);
 *     lam_tensor *h = lam_depth_layernorm(g, x, r, of_r, d, w, b, eps, &x);   // [count of d <= B, N, D]
 *     r = lam_linear(g, h, ...), of_r = d;                                    // added by the next such call
 */
typedef struct lam_depth {
    lam_tensor *place; /* [B] I32: the sample's place among the kept ones, in order; -1: dropped */
    lam_tensor *count; /* [1] I64: how many are kept, 0..B */
    lam_tensor *scale; /* [1] F32: 1 / (1 - rate), which the branch is multiplied by */
} lam_depth;           /* all NULL: every sample keeps the branch */

/* depth_plan: a sample drops branch number `branch` with probability rate * drop_scale: by word branch % 4 of
 * Philox(seed, LAM_RNG_DEPTH) at (step, sample id, branch / 4), by nothing else. step [1] I64, sample_ids [B] I64,
 * drop_scale [1] F32: 1 in training, 0 keeps all. rate > 0, rate * drop_scale < 1. */
lam_depth lam_depth_plan(lam_graph *g, lam_tensor *step, lam_tensor *sample_ids, lam_tensor *drop_scale,
                         int64_t branch, double rate, uint64_t seed);
/* depth_layernorm: *sum = x + scale r where the sample is among those of r, x elsewhere; returns layernorm(*sum) of the
 * samples of y, the others are not normalised. x, *sum [B, ..., D]; r as x, its rows bounded by of_r.count; the result as
 * x, its rows bounded by of_y.count. The loss must depend on the result. */
lam_tensor *lam_depth_layernorm(lam_graph *g, lam_tensor *x, lam_tensor *r, lam_depth of_r, lam_depth of_y,
                                lam_tensor *w, lam_tensor *b, double eps, lam_tensor **sum);
/* depth_add: x + scale r where the sample is among those of r, x elsewhere. x [B, ..., D]; r as x, its rows bounded by
 * of_r.count -> as x. */
lam_tensor *lam_depth_add(lam_graph *g, lam_tensor *x, lam_tensor *r, lam_depth of_r);
/* depth_gather: the kept samples of x [B, ...] side by side, rows bounded by depth.count; x itself where all are kept: for
 * what a branch reads beside its stream, such as a key mask. No gradient. */
lam_tensor *lam_depth_gather(lam_graph *g, lam_tensor *x, lam_depth depth);

/* attention: softmax(q k^T / sqrt(D / heads)) v for each head. qkv [B, N, 3D] as (q, k, v), heads side by side in each ->
 * [B, N, D]. key_mask [B, N] F32, 0: nobody attends to this token; NULL: all take part. A query that sees no key gives 0 and
 * passes no gradient. The N x N probabilities are never stored (Dao 2023, FlashAttention-2). */
lam_tensor *lam_attention(lam_graph *g, lam_tensor *qkv, int64_t heads, lam_tensor *key_mask);
/* LayerNorm of each head of q and of k by itself before the scores, weights shared over the heads (Dehghani et al. 2023,
 * Scaling vision transformers to 22 billion parameters, section 2); v as it is. Weights and biases: four parameters [D / heads]. */
typedef struct lam_qk_norm {
    lam_tensor *qw, *qb, *kw, *kb;
    double eps;
} lam_qk_norm;
/* normed_attention: attention of the normalised queries and keys, which are stored nowhere. The loss must depend on qkv through
 * parameters. */
lam_tensor *lam_normed_attention(lam_graph *g, lam_tensor *qkv, int64_t heads, lam_tensor *key_mask,
                                 const lam_qk_norm *norm);
/* cross_attention: the same with queries q [B, M, D] and keys and values kv [B, N, 2D] as (k, v); key_mask [B, N] ->
 * [B, M, D]. */
lam_tensor *lam_cross_attention(lam_graph *g, lam_tensor *q, lam_tensor *kv, int64_t heads,
                                lam_tensor *key_mask);

/* parallel_projection: y = residual + gamma (a wa^T + ba + m wm^T + bm), both branches of a parallel block through LayerScale
 * (Touvron et al. 2021, Going deeper with image transformers). a [..., A], m [..., M], wa [D, A], wm [D, M], ba, bm,
 * gamma [D], residual as y (NULL: none) -> [..., D]. */
lam_tensor *lam_parallel_projection(lam_graph *g, lam_tensor *a, lam_tensor *wa, lam_tensor *ba,
                                    lam_tensor *m, lam_tensor *wm, lam_tensor *bm, lam_tensor *gamma,
                                    lam_tensor *residual);

typedef enum lam_masking {
    LAM_MASKING_RANDOM, /* any tokens (He et al. 2022, random_masking) */
    LAM_MASKING_BLOCK,  /* rectangles of places, hidden in every channel (Bao et al. 2022, BEiT, algorithm 1;
                                 here they may hang over the edges, so that every place is hidden about as often) */
    LAM_MASKING_PER_CHANNEL,  /* random places drawn apart for each channel, as many in each */
    LAM_MASKING_WHOLE_CHANNEL /* all places of random channels */
} lam_masking;
typedef struct lam_mask {
    lam_masking masking;
    int64_t channels; /* whose tokens lie one after the other; 1 where a token holds all channels */
    int64_t grid;     /* tokens = channels * grid^2 */
    int64_t
        keep; /* visible tokens: a multiple of channels (BLOCK, PER_CHANNEL) or of grid^2 (WHOLE_CHANNEL) */
    uint64_t seed;
} lam_mask;
/* mask_noise: [B, tokens] in [0, 1) whose `keep` lowest are the visible tokens of a mask. RANDOM: the draw u =
 * Philox(seed, LAM_RNG_MASK) at (step, sample id, token / 4); else u / 2 of visible and (1 + u) / 2 of hidden tokens, so
 * that their order is random. BLOCK: rectangle r from the draw at (step, sample id, 2^31 + r): area uniform from
 * min(16, places / 12) (at least 1, at most what is left) to what is left to hide, the ratio of its sides 1 to 10/3, either
 * way up, anywhere; what goes beyond the count is left out. WHOLE_CHANNEL: by the draw at (step, sample id,
 * 2^30 + channel / 4). step [1] I64, sample_ids [B] I64. */
lam_tensor *lam_mask_noise(lam_graph *g, lam_tensor *step, lam_tensor *sample_ids, const lam_mask *how);
/* mask_plan: by rising noise (ties by index) the first `keep` tokens stay. noise [B, N] -> ids_keep [B, keep]
 * I32, ids_restore [B, N] I32 (rank of each token), mask [B, N] (1 = removed). He et al. 2022,
 * random_masking. */
void lam_mask_plan(lam_graph *g, lam_tensor *noise, int64_t keep, lam_tensor **ids_keep,
                   lam_tensor **ids_restore, lam_tensor **mask);
/* decode_plan: of the tokens by rank, the first `decoded` are decoded: the `keep` visible ones, then hidden ones of lowest
 * noise. ids_restore [B, N] -> ids_decoded [B, decoded] I32, mask [B, N] (1 = hidden and decoded). */
void lam_decode_plan(lam_graph *g, lam_tensor *ids_restore, int64_t keep, int64_t decoded,
                     lam_tensor **ids_decoded, lam_tensor **mask);

/* draw_channels: `count` of `channels` indices, ascending, drawn by Philox(seed, LAM_RNG_CHANNELS) at the step: the same
 * ones for every sample. step [1] I64 -> [count] I32. */
lam_tensor *lam_draw_channels(lam_graph *g, lam_tensor *step, int64_t channels, int64_t count, uint64_t seed);
/* select_channels: columns ids [K] of x [B, C] -> [B, K]. No gradient. */
lam_tensor *lam_select_channels(lam_graph *g, lam_tensor *x, lam_tensor *ids);
/* channel_mask_plan: as mask_plan for tokens of C channels, one channel after another, of which a sample may lack some. Of the
 * L tokens that a sample has, int(L (1 - mask_ratio)) are kept, the others are masked; tokens of absent channels are neither:
 * they fill what places are left. noise [B, C*N], present [B, C] (0: absent) -> ids_keep [B, K], K = int(C*N (1 -
 * mask_ratio)), ids_restore [B, C*N] (rank < K: kept, or of an absent channel), mask [B, C*N] (1 = to be predicted). */
void lam_channel_mask_plan(lam_graph *g, lam_tensor *noise, lam_tensor *present, double mask_ratio,
                           lam_tensor **ids_keep, lam_tensor **ids_restore, lam_tensor **mask);
/* channel_keys: key masks for attention: 1 for tokens ids [B, K] (NULL: all C*N) of channels that are present, 0 for others;
 * with `cls` a 1 goes before them. present [B, C] -> [B, cls + K]. */
lam_tensor *lam_channel_keys(lam_graph *g, lam_tensor *present, lam_tensor *ids, int64_t tokens_per_channel,
                             bool cls);

typedef struct lam_standardise {
    int64_t patch_size;
    bool by_channel;   /* tokens of each channel by themselves: [B, C*N, P*P], one channel after another */
    int transform;     /* 0 none, 1 sqrt(x), 2 log(1 + 1023 x) / log(1024), of x = pixel * scale */
    bool by_crop;      /* else `mean` and `rstd` are given */
    lam_tensor *scale; /* [C] */
    lam_tensor *mean, *rstd;  /* [B, C]; NULL with by_crop */
    lam_tensor *present;      /* [B, C] 1 or 0 */
    lam_tensor *only_channel; /* [1] I64, -1: all; NULL: all */
    lam_tensor *channel_ids;  /* [K] I32, by_channel: these take the place of all C; NULL: all */
} lam_standardise;
/* patches: pixels [B, C, S, S] (U8, U16: standardised as said; F32: taken as they are, `how` gives the patch
 * size alone)
 * -> [B, N, P*P*C], patches row by row, inside a patch row, column, channel fastest. By crop: (t - mean) /
 * sqrt(biased variance + 1e-5) of each crop and channel. Channels that are absent or not chosen are 0. No
 * gradient. */
lam_tensor *lam_patches(lam_graph *g, lam_tensor *pixels, const lam_standardise *how);
/* gather_patches: [B, N, P*P*C] -> [B, K, C*P*P], the patches ids_keep [B, K] (NULL: all), channel slowest,
 * as a convolution weight [D, C, P, P] wants them. No gradient. */
lam_tensor *lam_gather_patches(lam_graph *g, lam_tensor *patches, lam_tensor *ids_keep, int64_t channels);

/* embed_tokens: row 0 = cls + position[0], row 1 + k = x[k] + position[1 + ids_keep[k] % N]: tokens of several channels
 * share one table. x [B, K, D], cls [1, 1, D], position [1, 1 + N, D] frozen, ids_keep [B, K] I32 (NULL: k) -> [B, 1 + K,
 * D]. */
lam_tensor *lam_embed_tokens(lam_graph *g, lam_tensor *x, lam_tensor *cls, lam_tensor *position,
                             lam_tensor *ids_keep);
/* masked_tokens: mask_token + position[1 + n], the same for every sample. mask_token [1, 1, D], position [1, 1 + N, D] ->
 * [1, N, D]. */
lam_tensor *lam_masked_tokens(lam_graph *g, lam_tensor *mask_token, lam_tensor *position);
/* merge_tokens: row 0 = visible[0]; row 1 + n = ids_restore[n] < K ? visible[1 + ids_restore[n]] : masked[n], which all samples
 * share. visible [B, 1 + K, D], masked [1, N, D], ids_restore [B, N] -> [B, 1 + N, D]. */
lam_tensor *lam_merge_tokens(lam_graph *g, lam_tensor *visible, lam_tensor *masked, lam_tensor *ids_restore);
/* unshuffle_channels: row 0 = x[0] + position[0], then the tokens of K channels of N tokens each: row 1 + n, n = c N + p, is
 * (ids_restore[n] < K' ? x[1 + ids_restore[n]] : mask_token) + position[1 + p] + channel_tokens[channel_ids[c]]. x
 * [B, 1 + K', D], mask_token [1, 1, D], position [1, 1 + N, D], ids_restore [B, K*N], channel_tokens [1, C, D] F32,
 * channel_ids [K] I32 (NULL: c) -> [B, cls + K*N, D]; without `cls` row 0 of x is left out. */
lam_tensor *lam_unshuffle_channels(lam_graph *g, lam_tensor *x, lam_tensor *mask_token, lam_tensor *position,
                                   lam_tensor *ids_restore, lam_tensor *channel_tokens,
                                   lam_tensor *channel_ids, bool cls);
/* token_rows: tokens [first, first + count) of each sample, [B, N, D] -> [B, count, D]. */
lam_tensor *lam_token_rows(lam_graph *g, lam_tensor *x, int64_t first, int64_t count);
/* concat_tokens: the tokens of all parts, [B, Ni, D] each -> [B, sum Ni, D]. */
lam_tensor *lam_concat_tokens(lam_graph *g, lam_tensor *const *parts, int64_t count);
/* append_masked: row 0 = x[0] + position[0]; row 1 + r = (r < K ? x[1 + r] : mask_token) + position[1 + ids[r] % P]:
 * R of the tokens in the order of ranks. x [B, 1 + K, D], mask_token [1, 1, D], position [1, 1 + P, D], ids [B, R] ->
 * [B, 1 + R, D]. */
lam_tensor *lam_append_masked(lam_graph *g, lam_tensor *x, lam_tensor *mask_token, lam_tensor *position,
                              lam_tensor *ids);
/* restore_tokens: tokens of rank first, ..., first + R - 1 to their places: row n = x[ids_restore[n] - first], 0 where x has no
 * such row. x [B, R, L], ids_restore [B, N] -> [B, N, L]. */
lam_tensor *lam_restore_tokens(lam_graph *g, lam_tensor *x, lam_tensor *ids_restore, int64_t first);
/* rank_tokens: the other way round, out of x with s rows before its tokens: row r = x[s + n] where ids_restore[n] = first + r.
 * x [B, s + N, D], ids_restore [B, N] -> [B, count, D]. */
lam_tensor *lam_rank_tokens(lam_graph *g, lam_tensor *x, lam_tensor *ids_restore, int64_t first,
                            int64_t count);
/* drop_cls: [B, 1 + N, D] -> [B, N, D]. */
lam_tensor *lam_drop_cls(lam_graph *g, lam_tensor *x);

/* masked_loss: loss_b = sum_n mask[b, n] mean_p (prediction - t)^2 / sum_n mask[b, n]; loss = sum_b weight_b
 * loss_b. t is the target patch, or with norm_pix (target - mean) / sqrt(unbiased variance + 1e-6) of it. He
 * et al. 2022, eq. in section 3. prediction, target [B, N, L], mask [B, N], weight [B] -> loss [1],
 * *sample_loss [B]. */
lam_tensor *lam_masked_loss(lam_graph *g, lam_tensor *prediction, lam_tensor *target, lam_tensor *mask,
                            lam_tensor *weight, bool norm_pix, lam_tensor **sample_loss);

typedef enum lam_fourier_form {
    LAM_FOURIER_NONE,
    LAM_FOURIER_IMAGE,
    LAM_FOURIER_PATCH,
    LAM_FOURIER_RECURSION
} lam_fourier_form;
typedef struct lam_fourier {
    lam_fourier_form form;
    bool squared;  /* (a - t)^2 of the amplitudes, else |a - t| */
    bool norm_pix; /* the target is standardised within each token, as in masked_loss */
    int64_t patch_size, channels;
} lam_fourier;
/* fourier_loss: the mean over coefficients of |  |F(prediction)| - |F(target)|  | (or its square), F the two-dimensional DFT
 * without a factor, so that amplitudes grow with the side of what is transformed; loss = sum_b weight_b loss_b. Kraus et al.
 * 2024 (L_FT); the gradient of an amplitude is 0 where the amplitude is 0. Forms:
 * IMAGE      each channel of the whole crop; places with mask 0 are the target's in both, so that the gradient reaches masked
 *            tokens only; mean over all C*S*S coefficients.
 * PATCH      each channel of each patch; mean over the coefficients of a token, then over the masked tokens.
 * RECURSION  what the released code does once it runs (it reads an unset field): the memory of the tokens seen as C*P*P
 *            images of grid x grid, its coefficients seen as tokens again, then as PATCH. With one channel a token and P = grid
 *            it is PATCH; else it mixes pixels and channels, and gradients reach visible tokens.
 * prediction, target [B, N, L]: L = P*P*C, channel fastest, on N = grid^2 places; or L = P*P on N = C*grid^2, channel-major.
 * mask [B, N], weight [B] -> loss [1], *sample_loss [B]. */
lam_tensor *lam_fourier_loss(lam_graph *g, lam_tensor *prediction, lam_tensor *target, lam_tensor *mask,
                             lam_tensor *weight, const lam_fourier *how, lam_tensor **sample_loss);
/* mix: a x + b y, of losses. */
lam_tensor *lam_mix(lam_graph *g, lam_tensor *x, double a, lam_tensor *y, double b);

#ifdef __cplusplus
}
#endif
#endif
