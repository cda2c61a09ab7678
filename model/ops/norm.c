#include "model/internal.h"
#include "model/ops.h"

/* inputs: x, [r,] w, b; outputs: y, [sum]. Saved: mean and reciprocal deviation of each row. */
static int with_sum(const lam_node *node) { return node->input_count == 4; }

static lam_status layernorm_forward(lam_node *node) {
    int more = with_sum(node);
    lam_tensor *x = node->inputs[0], *w = node->inputs[1 + more], *b = node->inputs[2 + more],
               *y = node->outputs[0];
    int64_t rows = x->count / lam_tensor_width(x);
    float *mean = node->saved;
    node->kernels->layernorm(x->data, more ? node->inputs[1]->data : NULL, w->data, b->data,
                             more ? node->outputs[1]->data : NULL, y->data, mean, mean + rows,
                             lam_tensor_rows(x), lam_tensor_width(x), (float)node->numbers[0], NULL);
    return LAM_OK;
}

static lam_status layernorm_backward(lam_node *node) {
    int more = with_sum(node);
    lam_tensor *x = node->inputs[0], *w = node->inputs[1 + more], *b = node->inputs[2 + more],
               *y = node->outputs[0];
    lam_tensor *sum = more ? node->outputs[1] : NULL;
    int64_t rows = x->count / lam_tensor_width(x);
    const float *mean = node->saved;
    bool add_x = false, add_r = false, ignored;
    void *dx = lam_gradient_target(x, &add_x),
         *dr = more ? lam_gradient_target(node->inputs[1], &add_r) : NULL;
    const void *ds = sum && sum->gradient_written ? sum->gradient : NULL;
    /* The normalised output may have no consumer on the way to the loss. */
    if (!y->gradient_written)
        node->kernels->fill(y->gradient, 0, (size_t)y->count * lam_dtype_bytes(y->dtype));
    node->kernels->layernorm_backward(more ? sum->data : x->data, w->data, mean, mean + rows, y->gradient, ds,
                                      dx, add_x, dr, add_r, lam_gradient_target(w, &ignored),
                                      lam_gradient_target(b, &ignored), node->backward_workspace,
                                      lam_tensor_rows(x), lam_tensor_width(x), NULL);
    return LAM_OK;
}

static void layernorm_again(lam_node *node) {
    int more = with_sum(node);
    lam_tensor *x = node->inputs[0], *w = node->inputs[1 + more], *b = node->inputs[2 + more];
    const float *mean = node->saved;
    node->kernels->layernorm_again(more ? node->outputs[1]->data : x->data, w->data, b->data,
                                   node->outputs[0]->data, mean, mean + x->count / lam_tensor_width(x),
                                   lam_tensor_rows(x), lam_tensor_width(x), NULL);
}

static const lam_op layernorm_op = {.name = "layernorm",
                                    .backward_reads_inputs = 1 | 2,
                                    .forward = layernorm_forward,
                                    .backward = layernorm_backward,
                                    .again = layernorm_again,
                                    .again_outputs = 1};
static const lam_op add_layernorm_op = {.name = "add_layernorm",
                                        .backward_reads_inputs = 4,
                                        .backward_reads_outputs = 2,
                                        .forward = layernorm_forward,
                                        .backward = layernorm_backward,
                                        .again = layernorm_again,
                                        .again_outputs = 1};

static lam_tensor *build(lam_graph *g, const lam_op *op, int inputs, lam_tensor *const *input, double eps,
                         lam_tensor **sum) {
    lam_node *node = lam_node_add(g, op, inputs, input);
    if (!node) return NULL;
    lam_tensor *x = input[0], *w = input[inputs - 2];
    int64_t width = lam_tensor_width(x), rows = x->count / width;
    if (w->count != width || (sum && input[1]->count != x->count)) {
        lam_graph_fail(g, "%s: %s has %lld features, %s takes %lld", op->name, x->name, (long long)width,
                       w->name, (long long)w->count);
        return NULL;
    }
    node->numbers[0] = eps;
    node->saved_bytes = (size_t)(2 * rows) * sizeof(float);
    node->backward_workspace_bytes = (size_t)(2 * lam_column_partials(rows) * width) * sizeof(float);
    lam_tensor *y = lam_node_output(g, node, lam_graph_activation(g), x->rank, x->shape);
    if (y) y->bound = x->bound;
    if (sum) {
        *sum = lam_node_output(g, node, lam_graph_activation(g), x->rank, x->shape);
        if (*sum) (*sum)->bound = x->bound;
    }
    return y;
}

lam_tensor *lam_layernorm(lam_graph *g, lam_tensor *x, lam_tensor *w, lam_tensor *b, double eps) {
    return build(g, &layernorm_op, 3, (lam_tensor *[]){x, w, b}, eps, NULL);
}

lam_tensor *lam_add_layernorm(lam_graph *g, lam_tensor *x, lam_tensor *r, lam_tensor *w, lam_tensor *b,
                              double eps, lam_tensor **sum) {
    *sum = NULL;
    return build(g, &add_layernorm_op, 4, (lam_tensor *[]){x, r, w, b}, eps, sum);
}

static lam_status add_forward(lam_node *node) {
    lam_tensor *y = node->outputs[0];
    node->kernels->add(node->inputs[0]->data, node->inputs[1]->data, y->data,
                       lam_tensor_rows(y) * lam_tensor_width(y));
    return LAM_OK;
}

static lam_status add_backward(lam_node *node) {
    lam_tensor *y = node->outputs[0];
    for (int k = 0; k < 2; k++)
        lam_gradient_pass(node, node->inputs[k], y->gradient, lam_tensor_rows(y) * lam_tensor_width(y));
    return LAM_OK;
}

static const lam_op add_op = {.name = "add", .forward = add_forward, .backward = add_backward};

lam_tensor *lam_add(lam_graph *g, lam_tensor *x, lam_tensor *r) {
    lam_node *node = lam_node_add(g, &add_op, 2, (lam_tensor *[]){x, r});
    if (!node) return NULL;
    if (x->count != r->count) lam_graph_fail(g, "add: %s and %s differ in size", x->name, r->name);
    lam_tensor *y = lam_node_output(g, node, lam_graph_activation(g), x->rank, x->shape);
    if (y) y->bound = x->bound;
    return y;
}
