#include "model/internal.h"
#include "model/ops.h"

/* Saved: mean and reciprocal deviation of each row. */
enum { X, W, B };

static lam_status layernorm_forward(lam_node *node) {
    lam_tensor **in = node->inputs, *x = in[X];
    float *mean = node->saved;
    node->kernels->layernorm(x->data, NULL, in[W]->data, in[B]->data, NULL, node->outputs[0]->data, mean,
                             mean + x->count / lam_tensor_width(x), lam_tensor_rows(x), lam_tensor_width(x),
                             (float)node->numbers[0], NULL);
    return LAM_OK;
}

static lam_status layernorm_backward(lam_node *node) {
    lam_tensor **in = node->inputs, *x = in[X];
    const float *mean = node->saved;
    bool add, ignored;
    void *dx = lam_gradient_target(x, &add);
    node->kernels->layernorm_backward(x->data, in[W]->data, mean, mean + x->count / lam_tensor_width(x),
                                      node->outputs[0]->gradient, add ? dx : NULL, dx, false, NULL, false,
                                      lam_gradient_target(in[W], &ignored), lam_gradient_target(in[B], &ignored),
                                      node->backward_workspace, lam_tensor_rows(x), lam_tensor_width(x), NULL);
    return LAM_OK;
}

static void layernorm_again(lam_node *node) {
    lam_tensor **in = node->inputs, *x = in[X];
    const float *mean = node->saved;
    node->kernels->layernorm_again(x->data, in[W]->data, in[B]->data, node->outputs[0]->data, mean,
                                   mean + x->count / lam_tensor_width(x), lam_tensor_rows(x), lam_tensor_width(x),
                                   NULL);
}

static const lam_op layernorm_op = {.name = "layernorm",
                                    .backward_reads_inputs = 1 << X | 1 << W,
                                    .forward = layernorm_forward,
                                    .backward = layernorm_backward,
                                    .again = layernorm_again,
                                    .again_outputs = 1,
                                    .again_inputs = 1 << X};

lam_tensor *lam_layernorm(lam_graph *g, lam_tensor *x, lam_tensor *w, lam_tensor *b, double eps) {
    lam_node *node = lam_node_add(g, &layernorm_op, 3, (lam_tensor *[]){x, w, b});
    if (!node) return NULL;
    int64_t width = lam_tensor_width(x), rows = x->count / width;
    if (w->count != width || b->count != width) {
        lam_graph_fail(g, "layernorm: %s has %lld features, %s takes %lld", x->name, (long long)width, w->name,
                       (long long)w->count);
        return NULL;
    }
    node->numbers[0] = eps;
    node->saved_bytes = (size_t)(2 * rows) * sizeof(float);
    node->backward_workspace_bytes = (size_t)(2 * lam_column_partials(rows) * width) * sizeof(float);
    lam_tensor *y = lam_node_output(g, node, lam_graph_activation(g), x->rank, x->shape);
    if (y) y->bound = x->bound;
    return y;
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
