#include "model/internal.h"
#include "model/ops.h"

/* ---- unshuffle_channels: x, mask_token, position, ids_restore, channel_tokens, [channel_ids] ---- */

static lam_unshuffle_sizes unshuffle_sizes(const lam_node *node) {
    const lam_tensor *x = node->inputs[0], *restore = node->inputs[3];
    return (lam_unshuffle_sizes){.batch = x->shape[0],
                                 .kept = x->shape[1] - 1,
                                 .tokens = restore->shape[1],
                                 .per_channel = node->inputs[2]->count / x->shape[2] - 1,
                                 .channels = node->inputs[4]->count / x->shape[2],
                                 .width = x->shape[2],
                                 .cls = node->integers[0],
                                 .restore = restore->data,
                                 .channel_ids = node->input_count > 5 ? node->inputs[5]->data : NULL};
}

static lam_status unshuffle_forward(lam_node *node) {
    lam_unshuffle_sizes sizes = unshuffle_sizes(node);
    node->kernels->unshuffle_channels(&sizes, node->inputs[0]->data, node->inputs[1]->data,
                                      node->inputs[2]->data, node->inputs[4]->data, node->outputs[0]->data);
    return LAM_OK;
}

static lam_status unshuffle_backward(lam_node *node) {
    lam_unshuffle_sizes sizes = unshuffle_sizes(node);
    bool add, add_mask, add_channels;
    void *dx = lam_gradient_target(node->inputs[0], &add);
    float *d_mask = lam_gradient_target(node->inputs[1], &add_mask),
          *d_channels = lam_gradient_target(node->inputs[4], &add_channels);
    if (d_channels && !add_channels)
        node->kernels->fill(d_channels, 0, (size_t)node->inputs[4]->count * sizeof(float));
    node->kernels->unshuffle_channels_backward(&sizes, node->outputs[0]->gradient, dx, add, d_mask,
                                               d_channels, node->backward_workspace);
    return LAM_OK;
}

static const lam_op unshuffle_op = {.name = "unshuffle_channels",
                                    .backward_reads_inputs = 8 | 32,
                                    .forward = unshuffle_forward,
                                    .backward = unshuffle_backward};

lam_tensor *lam_unshuffle_channels(lam_graph *g, lam_tensor *x, lam_tensor *mask_token, lam_tensor *position,
                                   lam_tensor *ids_restore, lam_tensor *channel_tokens,
                                   lam_tensor *channel_ids, bool cls) {
    lam_node *node =
        lam_node_add(g, &unshuffle_op, channel_ids ? 6 : 5,
                     (lam_tensor *[]){x, mask_token, position, ids_restore, channel_tokens, channel_ids});
    if (!node) return NULL;
    int64_t width = x->shape[2], per_channel = position->count / width - 1, tokens = ids_restore->shape[1],
            channels = channel_ids ? channel_ids->count : channel_tokens->count / width;
    if (mask_token->count != width || lam_tensor_width(position) != width ||
        lam_tensor_width(channel_tokens) != width || tokens != per_channel * channels ||
        channel_tokens->dtype != LAM_F32) {
        lam_graph_fail(g, "unshuffle_channels: %lld tokens, %lld channels of %lld, width %lld",
                       (long long)tokens, (long long)channels, (long long)per_channel, (long long)width);
        return NULL;
    }
    node->integers[0] = cls;
    node->backward_workspace_bytes = (size_t)(x->shape[0] * (width + channel_tokens->count)) * sizeof(float);
    return lam_node_output(g, node, lam_graph_activation(g), 3,
                           (int64_t[]){x->shape[0], cls + tokens, width});
}

/* ---- token_rows ---- */

static lam_status token_rows_forward(lam_node *node) {
    const lam_tensor *x = node->inputs[0], *y = node->outputs[0];
    int64_t width = x->shape[2];
    node->kernels->copy_rows(x->data, x->shape[1] * width, node->integers[0] * width, y->data,
                             y->shape[1] * width, 0, x->shape[0], y->shape[1] * width, false);
    return LAM_OK;
}

static lam_status token_rows_backward(lam_node *node) {
    lam_tensor *x = node->inputs[0], *y = node->outputs[0];
    int64_t width = x->shape[2];
    bool add;
    void *dx = lam_gradient_target(x, &add);
    if (!add) node->kernels->fill(dx, 0, (size_t)x->count * lam_dtype_bytes(x->dtype));
    node->kernels->copy_rows(y->gradient, y->shape[1] * width, 0, dx, x->shape[1] * width,
                             node->integers[0] * width, x->shape[0], y->shape[1] * width, true);
    return LAM_OK;
}

static const lam_op token_rows_op = {
    .name = "token_rows", .forward = token_rows_forward, .backward = token_rows_backward};

lam_tensor *lam_token_rows(lam_graph *g, lam_tensor *x, int64_t first, int64_t count) {
    lam_node *node = lam_node_add(g, &token_rows_op, 1, (lam_tensor *[]){x});
    if (!node) return NULL;
    if (x->rank != 3 || first < 0 || count < 1 || first + count > x->shape[1]) {
        lam_graph_fail(g, "token_rows: %s has no tokens %lld to %lld", x->name, (long long)first,
                       (long long)(first + count));
        return NULL;
    }
    node->integers[0] = first;
    return lam_node_output(g, node, lam_graph_activation(g), 3, (int64_t[]){x->shape[0], count, x->shape[2]});
}

/* ---- concat_tokens: activations, or parameters, which are float32 in every graph ---- */

static const lam_kernels *kernels_of(const lam_node *node) {
    return lam_backend_kernels(node->backend, node->outputs[0]->dtype == LAM_BF16);
}

static lam_status concat_tokens_forward(lam_node *node) {
    const lam_tensor *y = node->outputs[0];
    int64_t at = 0;
    for (int k = 0; k < node->input_count; k++) {
        const lam_tensor *x = node->inputs[k];
        int64_t row = x->shape[1] * x->shape[2];
        kernels_of(node)->copy_rows(x->data, row, 0, y->data, y->shape[1] * y->shape[2], at, x->shape[0], row,
                                    false);
        at += row;
    }
    return LAM_OK;
}

static lam_status concat_tokens_backward(lam_node *node) {
    const lam_tensor *y = node->outputs[0];
    int64_t at = 0;
    for (int k = 0; k < node->input_count; k++) {
        lam_tensor *x = node->inputs[k];
        int64_t row = x->shape[1] * x->shape[2];
        bool add;
        void *dx = lam_gradient_target(x, &add);
        if (dx)
            kernels_of(node)->copy_rows(y->gradient, y->shape[1] * y->shape[2], at, dx, row, 0, x->shape[0],
                                        row, add);
        at += row;
    }
    return LAM_OK;
}

static const lam_op concat_tokens_op = {
    .name = "concat_tokens", .forward = concat_tokens_forward, .backward = concat_tokens_backward};

static lam_tensor *concat_few(lam_graph *g, lam_tensor *const *parts, int count) {
    lam_node *node = lam_node_add(g, &concat_tokens_op, count, parts);
    if (!node) return NULL;
    int64_t tokens = 0;
    for (int k = 0; k < count; k++) {
        if (parts[k]->rank != 3 || parts[k]->shape[0] != parts[0]->shape[0] ||
            parts[k]->shape[2] != parts[0]->shape[2] || parts[k]->dtype != parts[0]->dtype) {
            lam_graph_fail(g, "concat_tokens: %s and %s differ in more than their tokens", parts[0]->name,
                           parts[k]->name);
            return NULL;
        }
        tokens += parts[k]->shape[1];
    }
    return lam_node_output(g, node, parts[0]->dtype, 3,
                           (int64_t[]){parts[0]->shape[0], tokens, parts[0]->shape[2]});
}

/* A node has few inputs: the parts become a tree whose leaves stand in their order. */
lam_tensor *lam_concat_tokens(lam_graph *g, lam_tensor *const *parts, int64_t count) {
    if (count <= LAM_MAX_INPUTS) return concat_few(g, parts, (int)count);
    lam_tensor *joined[LAM_MAX_INPUTS];
    for (int64_t k = 0; k < LAM_MAX_INPUTS; k++) {
        int64_t begin = count * k / LAM_MAX_INPUTS, end = count * (k + 1) / LAM_MAX_INPUTS;
        joined[k] = end - begin == 1 ? parts[begin] : lam_concat_tokens(g, parts + begin, end - begin);
    }
    return concat_few(g, joined, LAM_MAX_INPUTS);
}
