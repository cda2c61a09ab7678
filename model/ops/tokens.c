#include <string.h>

#include "model/internal.h"
#include "model/ops.h"

/* ---- embed_tokens: x, cls, position, [ids_keep] ---- */

static lam_status embed_tokens_forward(lam_node *node) {
    const lam_tensor *x = node->inputs[0];
    node->kernels->embed_tokens(x->data, node->inputs[1]->data, node->inputs[2]->data,
                                node->input_count > 3 ? node->inputs[3]->data : NULL, node->outputs[0]->data,
                                x->shape[0], x->shape[1], node->inputs[2]->count / x->shape[2] - 1,
                                x->shape[2]);
    return LAM_OK;
}

/* The rows of each sample without its first `skipped` elements: to (+)= from. */
static void pass_rows(const lam_node *node, const void *from, int64_t from_stride, int64_t from_at, void *to,
                      int64_t to_stride, int64_t to_at, int64_t count, int64_t batch, bool add) {
    size_t size = lam_dtype_bytes(node->outputs[0]->dtype);
    for (int64_t b = 0; b < batch; b++) {
        const char *source = (const char *)from + (size_t)(b * from_stride + from_at) * size;
        char *target = (char *)to + (size_t)(b * to_stride + to_at) * size;
        if (add)
            node->kernels->accumulate(target, source, count);
        else
            memcpy(target, source, (size_t)count * size);
    }
}

static lam_status embed_tokens_backward(lam_node *node) {
    lam_tensor *x = node->inputs[0];
    int64_t batch = x->shape[0], kept = x->shape[1], d = x->shape[2];
    const void *dy = node->outputs[0]->gradient;
    bool add;
    void *dx = lam_gradient_target(x, &add);
    if (dx) pass_rows(node, dy, (kept + 1) * d, d, dx, kept * d, 0, kept * d, batch, add);
    float *dcls = lam_gradient_target(node->inputs[1], &add);
    if (dcls) node->kernels->batch_sums(dy, batch, (kept + 1) * d, d, dcls);
    float *dposition = lam_gradient_target(node->inputs[2], &add);
    if (dposition)
        node->kernels->position_gradient(dy, node->input_count > 3 ? node->inputs[3]->data : NULL, dposition,
                                         batch, kept, node->inputs[2]->shape[1] - 1, d);
    return LAM_OK;
}

static const lam_op embed_tokens_op = {.name = "embed_tokens",
                                       .backward_reads_inputs = 8,
                                       .forward = embed_tokens_forward,
                                       .backward = embed_tokens_backward};

lam_tensor *lam_embed_tokens(lam_graph *g, lam_tensor *x, lam_tensor *cls, lam_tensor *position,
                             lam_tensor *ids_keep) {
    lam_node *node =
        lam_node_add(g, &embed_tokens_op, ids_keep ? 4 : 3, (lam_tensor *[]){x, cls, position, ids_keep});
    if (!node) return NULL;
    if (cls->count != x->shape[2] || lam_tensor_width(position) != x->shape[2])
        lam_graph_fail(g, "embed_tokens: widths differ");
    return lam_node_output(g, node, lam_graph_activation(g), 3,
                           (int64_t[]){x->shape[0], x->shape[1] + 1, x->shape[2]});
}

/* ---- unshuffle: x, mask_token, position, ids_restore ---- */

static lam_status unshuffle_forward(lam_node *node) {
    const lam_tensor *x = node->inputs[0], *y = node->outputs[0];
    node->kernels->unshuffle(x->data, node->inputs[1]->data, node->inputs[2]->data, node->inputs[3]->data,
                             y->data, x->shape[0], x->shape[1] - 1, y->shape[1], x->shape[2]);
    return LAM_OK;
}

static lam_status unshuffle_backward(lam_node *node) {
    lam_tensor *x = node->inputs[0], *y = node->outputs[0];
    int64_t batch = x->shape[0], d = x->shape[2];
    bool add;
    void *dx = lam_gradient_target(x, &add);
    float *partial = node->backward_workspace; /* [batch, d] of the mask token */
    node->kernels->unshuffle_backward(y->gradient, node->inputs[3]->data, dx, add, partial, batch,
                                      x->shape[1] - 1, y->shape[1], d);
    float *dmask = lam_gradient_target(node->inputs[1], &add);
    for (int64_t b = 0; dmask && b < batch; b++)
        for (int64_t i = 0; i < d; i++) dmask[i] += partial[b * d + i];
    float *dposition = lam_gradient_target(node->inputs[2], &add);
    if (dposition)
        node->kernels->position_gradient(y->gradient, NULL, dposition, batch, y->shape[1] - 1,
                                         y->shape[1] - 1, d);
    return LAM_OK;
}

static const lam_op unshuffle_op = {.name = "unshuffle",
                                    .backward_reads_inputs = 8,
                                    .forward = unshuffle_forward,
                                    .backward = unshuffle_backward};

lam_tensor *lam_unshuffle(lam_graph *g, lam_tensor *x, lam_tensor *mask_token, lam_tensor *position,
                          lam_tensor *ids_restore) {
    lam_node *node =
        lam_node_add(g, &unshuffle_op, 4, (lam_tensor *[]){x, mask_token, position, ids_restore});
    if (!node) return NULL;
    if (mask_token->count != x->shape[2] || lam_tensor_width(position) != x->shape[2])
        lam_graph_fail(g, "unshuffle: widths differ");
    node->backward_workspace_bytes = (size_t)(x->shape[0] * x->shape[2]) * sizeof(float);
    return lam_node_output(g, node, lam_graph_activation(g), 3,
                           (int64_t[]){x->shape[0], 1 + ids_restore->shape[1], x->shape[2]});
}

/* ---- drop_cls ---- */

static lam_status drop_cls_forward(lam_node *node) {
    const lam_tensor *x = node->inputs[0];
    int64_t row = x->shape[1] * x->shape[2], d = x->shape[2];
    pass_rows(node, x->data, row, d, node->outputs[0]->data, row - d, 0, row - d, x->shape[0], false);
    return LAM_OK;
}

static lam_status drop_cls_backward(lam_node *node) {
    lam_tensor *x = node->inputs[0];
    int64_t row = x->shape[1] * x->shape[2], d = x->shape[2];
    size_t size = lam_dtype_bytes(x->dtype);
    bool add;
    char *dx = lam_gradient_target(x, &add);
    if (!dx) return LAM_OK;
    for (int64_t b = 0; b < x->shape[0] && !add; b++)
        memset(dx + (size_t)(b * row) * size, 0, (size_t)d * size);
    pass_rows(node, node->outputs[0]->gradient, row - d, 0, dx, row, d, row - d, x->shape[0], add);
    return LAM_OK;
}

static const lam_op drop_cls_op = {
    .name = "drop_cls", .forward = drop_cls_forward, .backward = drop_cls_backward};

lam_tensor *lam_drop_cls(lam_graph *g, lam_tensor *x) {
    lam_node *node = lam_node_add(g, &drop_cls_op, 1, (lam_tensor *[]){x});
    return node ? lam_node_output(g, node, lam_graph_activation(g), 3,
                                  (int64_t[]){x->shape[0], x->shape[1] - 1, x->shape[2]})
                : NULL;
}
