#include <string.h>

#include "model/internal.h"
#include "model/ops.h"

/* A gradient that several batch rows share is summed by features in parallel, by rows in order. */

/* ---- embed_tokens: x, cls, position, [ids_keep] ---- */

static lam_status embed_tokens_forward(lam_node *node) {
    const lam_tensor *x = node->inputs[0];
    int64_t batch = x->shape[0], kept = x->shape[1], d = x->shape[2];
    const float *from = x->data, *cls = node->inputs[1]->data, *position = node->inputs[2]->data;
    const int32_t *ids = node->input_count > 3 ? node->inputs[3]->data : NULL;
    float *to = node->outputs[0]->data;
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < batch * (kept + 1); row++) {
        int64_t b = row / (kept + 1), k = row % (kept + 1) - 1;
        const float *value = k < 0 ? cls : from + (b * kept + k) * d;
        const float *place = position + (k < 0 ? 0 : 1 + (ids ? ids[b * kept + k] : k)) * d;
        for (int64_t i = 0; i < d; i++) to[row * d + i] = value[i] + place[i];
    }
    return LAM_OK;
}

static lam_status embed_tokens_backward(lam_node *node) {
    lam_tensor *x = node->inputs[0];
    int64_t batch = x->shape[0], kept = x->shape[1], d = x->shape[2];
    const float *dy = node->outputs[0]->gradient;
    bool add;
    float *dx = lam_gradient_target(x, &add);
#pragma omp parallel for schedule(static)
    for (int64_t b = 0; b < batch; b++) {
        const float *from = dy + (b * (kept + 1) + 1) * d;
        for (int64_t i = 0; dx && i < kept * d; i++)
            dx[b * kept * d + i] = (add ? dx[b * kept * d + i] : 0) + from[i];
    }
    float *dcls = lam_gradient_target(node->inputs[1], &add);
    for (int64_t b = 0; dcls && b < batch; b++)
        for (int64_t i = 0; i < d; i++) dcls[i] += dy[b * (kept + 1) * d + i];
    return LAM_OK;
}

static const lam_op embed_tokens_op = {"embed_tokens",        0,   0, embed_tokens_forward,
                                       embed_tokens_backward, NULL};

lam_tensor *lam_embed_tokens(lam_graph *g, lam_tensor *x, lam_tensor *cls, lam_tensor *position,
                             lam_tensor *ids_keep) {
    lam_node *node =
        lam_node_add(g, &embed_tokens_op, ids_keep ? 4 : 3, (lam_tensor *[]){x, cls, position, ids_keep});
    if (!node) return NULL;
    if (cls->count != x->shape[2] || lam_tensor_width(position) != x->shape[2])
        lam_graph_fail(g, "embed_tokens: widths differ");
    return lam_node_output(g, node, LAM_F32, 3, (int64_t[]){x->shape[0], x->shape[1] + 1, x->shape[2]});
}

/* ---- unshuffle: x, mask_token, position, ids_restore ---- */

static lam_status unshuffle_forward(lam_node *node) {
    const lam_tensor *x = node->inputs[0], *y = node->outputs[0];
    int64_t batch = x->shape[0], kept = x->shape[1] - 1, tokens = y->shape[1], d = x->shape[2];
    const float *from = x->data, *mask_token = node->inputs[1]->data, *position = node->inputs[2]->data;
    const int32_t *restore = node->inputs[3]->data;
    float *to = y->data;
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < batch * tokens; row++) {
        int64_t b = row / tokens, n = row % tokens;
        int64_t rank = n ? restore[b * (tokens - 1) + n - 1] : -1;
        const float *value = rank < kept ? from + (b * (kept + 1) + 1 + rank) * d : mask_token;
        for (int64_t i = 0; i < d; i++) to[row * d + i] = value[i] + position[n * d + i];
    }
    return LAM_OK;
}

static lam_status unshuffle_backward(lam_node *node) {
    lam_tensor *x = node->inputs[0], *y = node->outputs[0];
    int64_t batch = x->shape[0], kept = x->shape[1] - 1, tokens = y->shape[1], d = x->shape[2];
    const int32_t *restore = node->inputs[3]->data;
    const float *dy = y->gradient;
    bool add;
    float *dx = lam_gradient_target(x, &add);
    if (dx && !add) memset(dx, 0, (size_t)x->count * sizeof(float));
    float *partial = node->backward_workspace; /* [batch, d] of the mask token */
#pragma omp parallel for schedule(static)
    for (int64_t b = 0; b < batch; b++) {
        float *sum = partial + b * d;
        memset(sum, 0, (size_t)d * sizeof(float));
        for (int64_t n = 0; n < tokens; n++) {
            int64_t rank = n ? restore[b * (tokens - 1) + n - 1] : -1;
            float *to = rank < kept ? (dx ? dx + (b * (kept + 1) + 1 + rank) * d : NULL) : sum;
            for (int64_t i = 0; to && i < d; i++) to[i] += dy[(b * tokens + n) * d + i];
        }
    }
    float *dmask = lam_gradient_target(node->inputs[1], &add);
    for (int64_t b = 0; dmask && b < batch; b++)
        for (int64_t i = 0; i < d; i++) dmask[i] += partial[b * d + i];
    return LAM_OK;
}

static const lam_op unshuffle_op = {"unshuffle", 8, 0, unshuffle_forward, unshuffle_backward, NULL};

lam_tensor *lam_unshuffle(lam_graph *g, lam_tensor *x, lam_tensor *mask_token, lam_tensor *position,
                          lam_tensor *ids_restore) {
    lam_node *node =
        lam_node_add(g, &unshuffle_op, 4, (lam_tensor *[]){x, mask_token, position, ids_restore});
    if (!node) return NULL;
    if (mask_token->count != x->shape[2] || lam_tensor_width(position) != x->shape[2])
        lam_graph_fail(g, "unshuffle: widths differ");
    node->backward_workspace_bytes = (size_t)(x->shape[0] * x->shape[2]) * sizeof(float);
    return lam_node_output(g, node, LAM_F32, 3,
                           (int64_t[]){x->shape[0], 1 + ids_restore->shape[1], x->shape[2]});
}

/* ---- drop_cls ---- */

static lam_status drop_cls_forward(lam_node *node) {
    const lam_tensor *x = node->inputs[0];
    size_t row = (size_t)(x->shape[1] * x->shape[2]), kept = row - (size_t)x->shape[2];
#pragma omp parallel for schedule(static)
    for (int64_t b = 0; b < x->shape[0]; b++)
        memcpy((float *)node->outputs[0]->data + (size_t)b * kept,
               (const float *)x->data + (size_t)b * row + x->shape[2], kept * sizeof(float));
    return LAM_OK;
}

static lam_status drop_cls_backward(lam_node *node) {
    lam_tensor *x = node->inputs[0];
    int64_t row = x->shape[1] * x->shape[2], d = x->shape[2];
    const float *dy = node->outputs[0]->gradient;
    bool add;
    float *dx = lam_gradient_target(x, &add);
#pragma omp parallel for schedule(static)
    for (int64_t b = 0; b < x->shape[0]; b++)
        for (int64_t i = 0; dx && i < row; i++)
            dx[b * row + i] = (add ? dx[b * row + i] : 0) + (i < d ? 0 : dy[b * (row - d) + i - d]);
    return LAM_OK;
}

static const lam_op drop_cls_op = {"drop_cls", 0, 0, drop_cls_forward, drop_cls_backward, NULL};

lam_tensor *lam_drop_cls(lam_graph *g, lam_tensor *x) {
    lam_node *node = lam_node_add(g, &drop_cls_op, 1, (lam_tensor *[]){x});
    return node ? lam_node_output(g, node, LAM_F32, 3, (int64_t[]){x->shape[0], x->shape[1] - 1, x->shape[2]})
                : NULL;
}
