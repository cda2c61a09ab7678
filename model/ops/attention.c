#include "base/threads.h"
#include "model/internal.h"
#include "model/ops.h"

static void sizes(const lam_node *node, int64_t *batch, int64_t *tokens, int64_t *heads, int64_t *head_dim) {
    const lam_tensor *qkv = node->inputs[0];
    *tokens = qkv->shape[1];
    *batch = lam_tensor_rows(qkv) / *tokens;
    *heads = node->integers[0];
    *head_dim = qkv->shape[2] / 3 / *heads;
}

static lam_status attention_forward(lam_node *node) {
    int64_t batch, tokens, heads, head_dim;
    sizes(node, &batch, &tokens, &heads, &head_dim);
    node->kernels->attention(node->inputs[0]->data, node->outputs[0]->data, node->saved,
                             node->forward_workspace, batch, tokens, heads, head_dim);
    return LAM_OK;
}

static lam_status attention_backward(lam_node *node) {
    int64_t batch, tokens, heads, head_dim;
    sizes(node, &batch, &tokens, &heads, &head_dim);
    bool add;
    void *d = lam_gradient_target(node->inputs[0], &add);
    LAM_REQUIRE(!add, LAM_ERROR_INTERNAL, "attention: qkv has another consumer");
    if (d)
        node->kernels->attention_backward(node->inputs[0]->data, node->saved, node->outputs[0]->data,
                                          node->outputs[0]->gradient, d, node->backward_workspace, batch,
                                          tokens, heads, head_dim);
    return LAM_OK;
}

static double attention_flops(const lam_node *node) {
    int64_t batch, tokens, heads, head_dim;
    sizes(node, &batch, &tokens, &heads, &head_dim);
    return 4.0 * (double)batch * (double)tokens * (double)tokens * (double)(heads * head_dim);
}

static const lam_op attention_op = {.name = "attention",
                                    .backward_reads_inputs = 1,
                                    .backward_reads_outputs = 1,
                                    .forward = attention_forward,
                                    .backward = attention_backward,
                                    .flops = attention_flops};

lam_tensor *lam_attention(lam_graph *g, lam_tensor *qkv, int64_t heads) {
    lam_node *node = lam_node_add(g, &attention_op, 1, (lam_tensor *[]){qkv});
    if (!node) return NULL;
    if (qkv->rank != 3 || heads < 1 || qkv->shape[2] % (3 * heads)) {
        lam_graph_fail(g, "attention: a width of %lld cannot be split into %lld heads",
                       (long long)lam_tensor_width(qkv) / 3, (long long)heads);
        return NULL;
    }
    node->integers[0] = heads;
    int64_t width = qkv->shape[2] / 3;
    size_t threads = (size_t)lam_threads();
    node->saved_bytes = (size_t)(qkv->shape[0] * heads * qkv->shape[1]) * sizeof(float);
    node->forward_workspace_bytes =
        threads * node->kernels->attention_workspace(qkv->shape[1], width / heads, false);
    node->backward_workspace_bytes =
        threads * node->kernels->attention_workspace(qkv->shape[1], width / heads, true);
    lam_tensor *y = lam_node_output(g, node, lam_graph_activation(g), 3,
                                    (int64_t[]){qkv->shape[0], qkv->shape[1], width});
    if (y) y->bound = qkv->bound;
    return y;
}
