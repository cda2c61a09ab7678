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

static lam_status embed_tokens_backward(lam_node *node) {
    lam_tensor *x = node->inputs[0];
    int64_t batch = x->shape[0], kept = x->shape[1], d = x->shape[2];
    const void *dy = node->outputs[0]->gradient;
    bool add;
    void *dx = lam_gradient_target(x, &add);
    if (dx) node->kernels->copy_rows(dy, (kept + 1) * d, d, dx, kept * d, 0, batch, kept * d, add);
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

/* ---- masked_tokens: mask_token, position ---- */

static lam_status masked_tokens_forward(lam_node *node) {
    const lam_tensor *y = node->outputs[0];
    node->kernels->masked_tokens(node->inputs[0]->data, node->inputs[1]->data, y->data, y->shape[1],
                                 y->shape[2]);
    return LAM_OK;
}

static lam_status masked_tokens_backward(lam_node *node) {
    const lam_tensor *y = node->outputs[0];
    bool added;
    float *d_mask_token = lam_gradient_target(node->inputs[0], &added),
          *d_position = lam_gradient_target(node->inputs[1], &added);
    node->kernels->masked_tokens_backward(y->gradient, d_mask_token, d_position, y->shape[1], y->shape[2]);
    return LAM_OK;
}

static const lam_op masked_tokens_op = {
    .name = "masked_tokens", .forward = masked_tokens_forward, .backward = masked_tokens_backward};

lam_tensor *lam_masked_tokens(lam_graph *g, lam_tensor *mask_token, lam_tensor *position) {
    lam_node *node = lam_node_add(g, &masked_tokens_op, 2, (lam_tensor *[]){mask_token, position});
    if (!node) return NULL;
    if (position->rank != 3 || position->shape[1] < 2 || mask_token->count != position->shape[2]) {
        lam_graph_fail(g, "masked_tokens: mask_token and position do not belong together");
        return NULL;
    }
    return lam_node_output(g, node, lam_graph_activation(g), 3,
                           (int64_t[]){1, position->shape[1] - 1, position->shape[2]});
}

/* ---- merge_tokens: visible, masked, ids_restore ---- */

static lam_ranks visible_ranks(const lam_node *node) {
    const lam_tensor *ids = node->inputs[2];
    return (lam_ranks){
        .ids_restore = ids->data, .tokens = ids->shape[1], .count = node->inputs[0]->shape[1] - 1};
}

static lam_status merge_tokens_forward(lam_node *node) {
    const lam_tensor *visible = node->inputs[0];
    lam_ranks ranks = visible_ranks(node);
    node->kernels->merge_tokens(visible->data, node->inputs[1]->data, &ranks, node->outputs[0]->data,
                                visible->shape[0], visible->shape[2]);
    return LAM_OK;
}

static lam_status merge_tokens_backward(lam_node *node) {
    lam_tensor *visible = node->inputs[0];
    lam_ranks ranks = visible_ranks(node);
    bool add_visible, add_masked;
    void *d_visible = lam_gradient_target(visible, &add_visible),
         *d_masked = lam_gradient_target(node->inputs[1], &add_masked);
    node->kernels->merge_tokens_backward(node->outputs[0]->gradient, &ranks, d_visible, add_visible, d_masked,
                                         add_masked, visible->shape[0], visible->shape[2]);
    return LAM_OK;
}

static const lam_op merge_tokens_op = {.name = "merge_tokens",
                                       .backward_reads_inputs = 4,
                                       .forward = merge_tokens_forward,
                                       .backward = merge_tokens_backward};

lam_tensor *lam_merge_tokens(lam_graph *g, lam_tensor *visible, lam_tensor *masked, lam_tensor *ids_restore) {
    lam_node *node = lam_node_add(g, &merge_tokens_op, 3, (lam_tensor *[]){visible, masked, ids_restore});
    if (!node) return NULL;
    if (visible->rank != 3 || masked->rank != 3 || ids_restore->rank != 2 || masked->shape[0] != 1 ||
        masked->shape[1] != ids_restore->shape[1] || masked->shape[2] != visible->shape[2] ||
        ids_restore->shape[0] != visible->shape[0] || visible->dtype != masked->dtype) {
        lam_graph_fail(g, "merge_tokens: visible and masked tokens and ids_restore do not belong together");
        return NULL;
    }
    return lam_node_output(g, node, lam_graph_activation(g), 3,
                           (int64_t[]){visible->shape[0], 1 + ids_restore->shape[1], visible->shape[2]});
}

/* ---- drop_cls ---- */

static lam_status drop_cls_forward(lam_node *node) {
    const lam_tensor *x = node->inputs[0];
    int64_t row = x->shape[1] * x->shape[2], d = x->shape[2];
    node->kernels->copy_rows(x->data, row, d, node->outputs[0]->data, row - d, 0, x->shape[0], row - d, false);
    return LAM_OK;
}

static lam_status drop_cls_backward(lam_node *node) {
    lam_tensor *x = node->inputs[0];
    int64_t row = x->shape[1] * x->shape[2], d = x->shape[2];
    bool add;
    void *dx = lam_gradient_target(x, &add);
    if (!dx) return LAM_OK;
    if (!add) node->kernels->fill(dx, 0, (size_t)x->count * lam_dtype_bytes(x->dtype));
    node->kernels->copy_rows(node->outputs[0]->gradient, row - d, 0, dx, row, d, x->shape[0], row - d, true);
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
