#include "base/gemm.h"
#include "model/internal.h"
#include "model/ops.h"

static int64_t fan_in(const lam_tensor *w) { return w->count / w->shape[0]; }

static bool fits(lam_graph *g, const lam_tensor *x, const lam_tensor *w, const lam_tensor *b) {
    if (x->dtype == LAM_F32 && lam_tensor_width(x) == fan_in(w) && b->count == w->shape[0]) return true;
    lam_graph_fail(g, "linear: %s has %lld features, %s takes %lld", x->name, (long long)lam_tensor_width(x),
                   w->name, (long long)fan_in(w));
    return false;
}

static double linear_flops(const lam_node *node) {
    double total = 0;
    for (int k = 1; k < node->input_count; k += 2)
        total += 2.0 * (double)lam_tensor_rows(node->inputs[0]) * (double)node->inputs[k]->count;
    return total;
}

/* One product into columns [offset, offset + out) of y with leading dimension `stride`. */
static lam_status product(const lam_node *node, const lam_tensor *w, const lam_tensor *b, float *y,
                          int64_t stride) {
    const lam_tensor *x = node->inputs[0];
    int64_t rows = lam_tensor_rows(x), in = fan_in(w), out = w->shape[0];
    LAM_TRY(lam_gemm_f32(false, true, rows, out, in, x->data, in, w->data, in, 0.0f, y, stride));
    node->kernels->add_bias(y, b->data, rows, out, stride);
    return LAM_OK;
}

static lam_status product_backward(lam_node *node, int at, const float *dy, int64_t stride) {
    lam_tensor *x = node->inputs[0], *w = node->inputs[at], *b = node->inputs[at + 1];
    int64_t rows = lam_tensor_rows(x), in = fan_in(w), out = w->shape[0];
    bool add;
    float *dx = lam_gradient_target(x, &add);
    if (dx)
        LAM_TRY(
            lam_gemm_f32(false, false, rows, in, out, dy, stride, w->data, in, add ? 1.0f : 0.0f, dx, in));
    float *dw = lam_gradient_target(w, &add);
    if (dw && rows) LAM_TRY(lam_gemm_f32(true, false, out, in, rows, dy, stride, x->data, in, 1.0f, dw, in));
    float *db = lam_gradient_target(b, &add);
    if (db) node->kernels->column_sums(dy, rows, out, stride, node->backward_workspace, db);
    return LAM_OK;
}

static size_t bias_workspace(const lam_tensor *x, const lam_tensor *w) {
    return (size_t)(lam_column_blocks(x->count / lam_tensor_width(x)) * w->shape[0]) * sizeof(float);
}

static lam_tensor *output(lam_graph *g, lam_node *node, int64_t width) {
    lam_tensor *x = node ? node->inputs[0] : NULL;
    if (!x) return NULL;
    int64_t shape[LAM_MAX_RANK];
    for (int i = 0; i < x->rank; i++) shape[i] = x->shape[i];
    shape[x->rank - 1] = width;
    lam_tensor *y = lam_node_output(g, node, LAM_F32, x->rank, shape);
    if (y) y->bound = x->bound;
    return y;
}

static lam_status linear_forward(lam_node *node) {
    lam_tensor *w = node->inputs[1];
    return product(node, w, node->inputs[2], node->outputs[0]->data, w->shape[0]);
}
static lam_status linear_backward(lam_node *node) {
    return product_backward(node, 1, node->outputs[0]->gradient, node->inputs[1]->shape[0]);
}
static const lam_op linear_op = {"linear", 3, 0, linear_forward, linear_backward, linear_flops};

lam_tensor *lam_linear(lam_graph *g, lam_tensor *x, lam_tensor *w, lam_tensor *b) {
    lam_node *node = lam_node_add(g, &linear_op, 3, (lam_tensor *[]){x, w, b});
    if (!node || !fits(g, x, w, b)) return NULL;
    node->backward_workspace_bytes = bias_workspace(x, w);
    return output(g, node, w->shape[0]);
}

static lam_status linear_gelu_forward(lam_node *node) {
    lam_tensor *w = node->inputs[1], *y = node->outputs[0], *before = node->outputs[1];
    LAM_TRY(product(node, w, node->inputs[2], before->data, w->shape[0]));
    node->kernels->gelu(before->data, y->data, lam_tensor_rows(y) * w->shape[0]);
    return LAM_OK;
}
static lam_status linear_gelu_backward(lam_node *node) {
    lam_tensor *w = node->inputs[1], *y = node->outputs[0];
    /* In place: nobody reads the gradient of y after this step. */
    node->kernels->gelu_backward(node->outputs[1]->data, y->gradient, lam_tensor_rows(y) * w->shape[0]);
    return product_backward(node, 1, y->gradient, w->shape[0]);
}
static const lam_op linear_gelu_op = {"linear_gelu",        3,           2, linear_gelu_forward,
                                      linear_gelu_backward, linear_flops};

lam_tensor *lam_linear_gelu(lam_graph *g, lam_tensor *x, lam_tensor *w, lam_tensor *b) {
    lam_node *node = lam_node_add(g, &linear_gelu_op, 3, (lam_tensor *[]){x, w, b});
    if (!node || !fits(g, x, w, b)) return NULL;
    node->backward_workspace_bytes = bias_workspace(x, w);
    lam_tensor *y = output(g, node, w->shape[0]);
    lam_tensor *before = output(g, node, w->shape[0]);
    if (before) before->requires_gradient = false;
    return y;
}

static lam_status linear_qkv_forward(lam_node *node) {
    int64_t d = node->inputs[1]->shape[0];
    for (int part = 0; part < 3; part++)
        LAM_TRY(product(node, node->inputs[1 + 2 * part], node->inputs[2 + 2 * part],
                        (float *)node->outputs[0]->data + part * d, 3 * d));
    return LAM_OK;
}
static lam_status linear_qkv_backward(lam_node *node) {
    int64_t d = node->inputs[1]->shape[0];
    for (int part = 0; part < 3; part++)
        LAM_TRY(product_backward(node, 1 + 2 * part, node->outputs[0]->gradient + part * d, 3 * d));
    return LAM_OK;
}
static const lam_op linear_qkv_op = {"linear_qkv",       1 | 2 | 8 | 32,      0,
                                     linear_qkv_forward, linear_qkv_backward, linear_flops};

lam_tensor *lam_linear_qkv(lam_graph *g, lam_tensor *x, lam_tensor *wq, lam_tensor *bq, lam_tensor *wk,
                           lam_tensor *bk, lam_tensor *wv, lam_tensor *bv) {
    lam_node *node = lam_node_add(g, &linear_qkv_op, 7, (lam_tensor *[]){x, wq, bq, wk, bk, wv, bv});
    if (!node || !fits(g, x, wq, bq) || !fits(g, x, wk, bk) || !fits(g, x, wv, bv)) return NULL;
    node->backward_workspace_bytes = bias_workspace(x, wq);
    return output(g, node, 3 * wq->shape[0]);
}
