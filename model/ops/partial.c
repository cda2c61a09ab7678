#include "model/internal.h"
#include "model/ops.h"

/* ---- append_masked: x, mask_token, position, ids ---- */

static lam_status append_masked_forward(lam_node *node) {
    const lam_tensor *x = node->inputs[0], *ids = node->inputs[3];
    node->kernels->append_masked(x->data, node->inputs[1]->data, node->inputs[2]->data, ids->data,
                                 node->outputs[0]->data, x->shape[0], x->shape[1] - 1, ids->shape[1],
                                 node->inputs[2]->shape[1] - 1, x->shape[2]);
    return LAM_OK;
}

static lam_status append_masked_backward(lam_node *node) {
    lam_tensor *x = node->inputs[0], *position = node->inputs[2], *ids = node->inputs[3];
    bool add, ignored;
    const void *dy = node->outputs[0]->gradient;
    void *dx = lam_gradient_target(x, &add);
    node->kernels->append_masked_backward(dy, dx, add, lam_gradient_target(node->inputs[1], &ignored),
                                          node->backward_workspace, x->shape[0], x->shape[1] - 1,
                                          ids->shape[1], x->shape[2]);
    float *d_position = lam_gradient_target(position, &ignored);
    if (d_position)
        node->kernels->position_gradient(dy, ids->data, d_position, x->shape[0], ids->shape[1],
                                         position->shape[1] - 1, x->shape[2]);
    return LAM_OK;
}

static const lam_op append_masked_op = {.name = "append_masked",
                                        .backward_reads_inputs = 8,
                                        .forward = append_masked_forward,
                                        .backward = append_masked_backward};

lam_tensor *lam_append_masked(lam_graph *g, lam_tensor *x, lam_tensor *mask_token, lam_tensor *position,
                              lam_tensor *ids) {
    lam_node *node = lam_node_add(g, &append_masked_op, 4, (lam_tensor *[]){x, mask_token, position, ids});
    if (!node) return NULL;
    if (mask_token->count != x->shape[2] || lam_tensor_width(position) != x->shape[2] ||
        position->rank != 3 || position->shape[1] < 2 || ids->shape[0] != x->shape[0] ||
        ids->shape[1] < x->shape[1] - 1) {
        lam_graph_fail(g, "append_masked: x, mask_token, position and ids do not belong together");
        return NULL;
    }
    node->backward_workspace_bytes = (size_t)(x->shape[0] * x->shape[2]) * sizeof(float);
    return lam_node_output(g, node, lam_graph_activation(g), 3,
                           (int64_t[]){x->shape[0], 1 + ids->shape[1], x->shape[2]});
}

/* ---- restore_tokens and rank_tokens: x, ids_restore; attributes: the first rank, the rows before the tokens ---- */

static lam_ranks ranks_of(const lam_node *node, const lam_tensor *by_rank) {
    const lam_tensor *ids = node->inputs[1];
    return (lam_ranks){ids->data, ids->shape[1], node->integers[0], by_rank->shape[1], node->integers[1]};
}

static lam_status restore_forward(lam_node *node) {
    const lam_tensor *x = node->inputs[0];
    lam_ranks ranks = ranks_of(node, x);
    node->kernels->place_ranks(x->data, &ranks, node->outputs[0]->data, false, x->shape[0], x->shape[2]);
    return LAM_OK;
}

static lam_status restore_backward(lam_node *node) {
    lam_tensor *x = node->inputs[0];
    lam_ranks ranks = ranks_of(node, x);
    bool add;
    void *dx = lam_gradient_target(x, &add);
    if (dx) node->kernels->take_ranks(node->outputs[0]->gradient, &ranks, dx, add, x->shape[0], x->shape[2]);
    return LAM_OK;
}

static lam_status rank_forward(lam_node *node) {
    const lam_tensor *x = node->inputs[0];
    lam_ranks ranks = ranks_of(node, node->outputs[0]);
    node->kernels->take_ranks(x->data, &ranks, node->outputs[0]->data, false, x->shape[0], x->shape[2]);
    return LAM_OK;
}

static lam_status rank_backward(lam_node *node) {
    lam_tensor *x = node->inputs[0];
    lam_ranks ranks = ranks_of(node, node->outputs[0]);
    bool add;
    void *dx = lam_gradient_target(x, &add);
    if (dx) node->kernels->place_ranks(node->outputs[0]->gradient, &ranks, dx, add, x->shape[0], x->shape[2]);
    return LAM_OK;
}

static const lam_op restore_op = {.name = "restore_tokens",
                                  .backward_reads_inputs = 2,
                                  .forward = restore_forward,
                                  .backward = restore_backward};
static const lam_op rank_op = {.name = "rank_tokens",
                               .picked_inputs = 1,
                               .backward_reads_inputs = 2,
                               .forward = rank_forward,
                               .backward = rank_backward};

/* `by_rank`, `by_place`: tokens of either side. */
static lam_tensor *reordered(lam_graph *g, const lam_op *op, lam_tensor *x, lam_tensor *ids_restore,
                             int64_t first, int64_t by_rank, int64_t by_place, int64_t rows) {
    lam_node *node = lam_node_add(g, op, 2, (lam_tensor *[]){x, ids_restore});
    if (!node) return NULL;
    int64_t skipped = by_place - ids_restore->shape[1];
    if (x->rank != 3 || ids_restore->rank != 2 || ids_restore->shape[0] != x->shape[0] || skipped < 0 ||
        first < 0 || by_rank < 1 || first + by_rank > ids_restore->shape[1]) {
        lam_graph_fail(g, "%s: x and ids_restore do not belong together", op->name);
        return NULL;
    }
    node->integers[0] = first;
    node->integers[1] = skipped;
    return lam_node_output(g, node, lam_graph_activation(g), 3, (int64_t[]){x->shape[0], rows, x->shape[2]});
}

lam_tensor *lam_restore_tokens(lam_graph *g, lam_tensor *x, lam_tensor *ids_restore, int64_t first) {
    int64_t tokens = ids_restore ? ids_restore->shape[1] : 0;
    return reordered(g, &restore_op, x, ids_restore, first, x ? x->shape[1] : 0, tokens, tokens);
}

lam_tensor *lam_rank_tokens(lam_graph *g, lam_tensor *x, lam_tensor *ids_restore, int64_t first,
                            int64_t count) {
    return reordered(g, &rank_op, x, ids_restore, first, count, x ? x->shape[1] : 0, count);
}
