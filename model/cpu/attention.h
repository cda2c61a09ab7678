/* What the attention kernels are told: softmax(q k^T / sqrt(head_dim)) v for each (sample, head).
 *
 *     q [batch, queries, heads, head_dim]   k, v [batch, keys, heads, head_dim]   -> out [batch, queries, heads, head_dim]
 *
 * A head's elements are contiguous, heads lie side by side, strides count elements from one token to the next: q, k and v
 * may be parts of one tensor. */
#ifndef LAMELLA_MODEL_CPU_ATTENTION_H
#define LAMELLA_MODEL_CPU_ATTENTION_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* LayerNorm of each head of q (0) and of k (1) before the scores: weights shared by the heads. */
typedef struct lam_attention_norm {
    bool on;
    float eps;
    const float *w[2], *b[2]; /* [head_dim], aligned to 16 bytes */
} lam_attention_norm;

typedef struct lam_attention_shape {
    int64_t batch, queries, keys, heads, head_dim;
    int64_t q_stride, kv_stride, out_stride;
    /* With it q, k and v are parts of one tensor [batch, tokens, 3, heads, head_dim] on a GPU. */
    lam_attention_norm norm;
    /* [batch, keys]: 0 leaves a key out; NULL: all take part. A query that sees no key gives 0 and passes no gradient. What is left
     * out reaches nothing, no numbers included; what is no number elsewhere goes on. */
    const float *key_mask;
} lam_attention_shape;

/* d_out has the layout of out; dq that of q; dk and dv that of k and v. dq or both of dk and dv may be NULL; with a norm none. */
typedef struct lam_attention_tensors {
    const void *q, *k, *v, *out, *d_out;
    const float *lse; /* [batch, heads, queries], of the forward pass: log2 of the sum of e^score */
    void *dq, *dk, *dv;
    bool add_q, add_kv; /* +=, else = */
    float *dw[2], *db[2]; /* of the norm, +=, each apart; NULL: not wanted */
} lam_attention_tensors;

#ifdef __cplusplus
}
#endif
#endif
