#include <string.h>

#include "model/internal.h"
#include "model/ops.h"

/* inputs: qkv [, key mask], or qkv, q weight, q bias, k weight, k bias [, key mask], or q, kv [, key mask]. Saved: the normaliser
 * of each query and head. */
static const lam_op attention_op, normed_attention_op, cross_attention_op;

static bool is_cross(const lam_node *node) { return node->op == &cross_attention_op; }
static bool is_normed(const lam_node *node) { return node->op == &normed_attention_op; }
static int inputs_without_mask(const lam_op *op) {
    return op == &attention_op ? 1 : op == &cross_attention_op ? 2 : 5;
}

/* What is known when the graph is built: all but the batch and the mask's values. */
static lam_attention_shape planned_shape(const lam_node *node) {
    const lam_tensor *q = node->inputs[0], *kv = node->inputs[is_cross(node)];
    int64_t width = is_cross(node) ? q->shape[2] : q->shape[2] / 3;
    return (lam_attention_shape){.queries = q->shape[1],
                                 .keys = kv->shape[1],
                                 .heads = node->integers[0],
                                 .head_dim = width / node->integers[0],
                                 .q_stride = q->shape[2],
                                 .kv_stride = kv->shape[2],
                                 .out_stride = width,
                                 .norm = {.on = is_normed(node), .eps = (float)node->numbers[0]}};
}

lam_attention_shape lam_attention_shape_of(const lam_node *node) {
    const lam_tensor *q = node->inputs[0], *kv = node->inputs[is_cross(node)];
    lam_attention_shape s = planned_shape(node);
    int64_t q_batch = lam_tensor_rows(q) / s.queries, kv_batch = lam_tensor_rows(kv) / s.keys;
    s.batch = q_batch < kv_batch ? q_batch : kv_batch;
    if (node->input_count > inputs_without_mask(node->op))
        s.key_mask = node->inputs[node->input_count - 1]->data;
    for (int k = 0; k < 2 && s.norm.on; k++) {
        s.norm.w[k] = node->inputs[1 + 2 * k]->data;
        s.norm.b[k] = node->inputs[2 + 2 * k]->data;
    }
    return s;
}

/* k and v follow q in qkv, v follows k in kv. */
static char *part_of(const lam_node *node, void *data, int64_t part, int64_t width) {
    return data ? (char *)data + (size_t)(part * width) * lam_dtype_bytes(node->outputs[0]->dtype) : NULL;
}

static lam_status attention_forward(lam_node *node) {
    lam_attention_shape s = lam_attention_shape_of(node);
    int cross = is_cross(node);
    void *q = node->inputs[0]->data, *kv = node->inputs[cross]->data;
    node->kernels->attention(&s, q, part_of(node, kv, 1 - cross, s.out_stride),
                             part_of(node, kv, 2 - cross, s.out_stride), node->outputs[0]->data, node->saved,
                             node->forward_workspace);
    return LAM_OK;
}

lam_attention_tensors lam_attention_tensors_of(lam_node *node) {
    int64_t width = planned_shape(node).out_stride;
    int cross = is_cross(node);
    void *kv = node->inputs[cross]->data;
    lam_attention_tensors t = {.q = node->inputs[0]->data,
                               .k = part_of(node, kv, 1 - cross, width),
                               .v = part_of(node, kv, 2 - cross, width),
                               .out = node->outputs[0]->data,
                               .d_out = node->outputs[0]->gradient,
                               .lse = node->saved};
    t.dq = lam_gradient_target(node->inputs[0], &t.add_q);
    t.add_kv = t.add_q;
    void *d_kv = cross ? lam_gradient_target(node->inputs[1], &t.add_kv) : t.dq;
    t.dk = part_of(node, d_kv, 1 - cross, width);
    t.dv = part_of(node, d_kv, 2 - cross, width);
    for (int k = 0; k < 2 && is_normed(node); k++) {
        bool ignored;
        t.dw[k] = lam_gradient_target(node->inputs[1 + 2 * k], &ignored);
        t.db[k] = lam_gradient_target(node->inputs[2 + 2 * k], &ignored);
    }
    return t;
}

static lam_status attention_backward(lam_node *node) {
    lam_attention_shape s = lam_attention_shape_of(node);
    lam_attention_tensors t = lam_attention_tensors_of(node);
    if (t.dq || t.dk) node->kernels->attention_backward(&s, &t, node->backward_workspace);
    return LAM_OK;
}

static double attention_flops(const lam_node *node) {
    lam_attention_shape s = lam_attention_shape_of(node);
    return 4.0 * (double)(s.batch * s.queries) * (double)(s.keys * s.out_stride);
}

static const lam_op attention_op = {.name = "attention",
                                    .backward_reads_inputs = 1 | 2,
                                    .backward_reads_outputs = 1,
                                    .forward = attention_forward,
                                    .backward = attention_backward,
                                    .flops = attention_flops};
static const lam_op normed_attention_op = {.name = "normed_attention",
                                           .backward_reads_inputs = 1 | 2 | 4 | 8 | 16 | 32,
                                           .backward_reads_outputs = 1,
                                           .forward = attention_forward,
                                           .backward = attention_backward,
                                           .flops = attention_flops};
static const lam_op cross_attention_op = {.name = "cross_attention",
                                          .backward_reads_inputs = 1 | 2 | 4,
                                          .backward_reads_outputs = 1,
                                          .forward = attention_forward,
                                          .backward = attention_backward,
                                          .flops = attention_flops};

static lam_tensor *build(lam_graph *g, const lam_op *op, lam_tensor *q, lam_tensor *kv, int64_t heads,
                         lam_tensor *key_mask, const lam_qk_norm *norm) {
    const bool cross = op == &cross_attention_op;
    const int inputs = inputs_without_mask(op);
    lam_tensor *all[6] = {q};
    if (cross) all[1] = kv;
    if (norm) memcpy(all + 1, (lam_tensor *[]){norm->qw, norm->qb, norm->kw, norm->kb}, 4 * sizeof *all);
    all[inputs] = key_mask;
    lam_node *node = lam_node_add(g, op, inputs + (key_mask != NULL), all);
    if (!node) return NULL;
    int64_t parts = cross ? 1 : 3, width = lam_tensor_width(q) / parts;
    if (q->rank != 3 || heads < 1 || q->shape[2] % (parts * heads)) {
        lam_graph_fail(g, "%s: a width of %lld cannot be split into %lld heads", op->name, (long long)width,
                       (long long)heads);
        return NULL;
    }
    if (kv->rank != 3 || kv->shape[0] != q->shape[0] || (cross && kv->shape[2] != 2 * width)) {
        lam_graph_fail(g, "%s: keys and values must be [%lld, keys, %lld]", op->name, (long long)q->shape[0],
                       (long long)(2 * width));
        return NULL;
    }
    if (q->dtype != lam_graph_activation(g) || kv->dtype != q->dtype) {
        lam_graph_fail(g, "%s: queries, keys and values must have the type of activations", op->name);
        return NULL;
    }
    if (key_mask && (key_mask->dtype != LAM_F32 || key_mask->rank != 2 ||
                     key_mask->shape[0] != kv->shape[0] || key_mask->shape[1] != kv->shape[1])) {
        lam_graph_fail(g, "%s: the key mask must be F32 [%lld, %lld]", op->name, (long long)kv->shape[0],
                       (long long)kv->shape[1]);
        return NULL;
    }
    const int64_t most = node->kernels->attention_head_dim, head_dim = width / heads;
    if (most && head_dim > most) {
        lam_graph_refuse(
            g,
            "%s: heads of %lld elements, of which a GPU takes %lld at most; take more heads or --device cpu",
            op->name, (long long)head_dim, (long long)most);
        return NULL;
    }
    for (int k = 1; norm && k < 5; k++)
        for (int other = 1; other < k; other++)
            if (all[other] == all[k]) {
                lam_graph_fail(g, "%s: %s is the norm of both queries and keys", op->name, all[k]->name);
                return NULL;
            }
    for (int k = 1; norm && k < 5; k++)
        if (all[k]->dtype != LAM_F32 || all[k]->count != head_dim) {
            lam_graph_fail(g, "%s: a width of %lld in %lld heads, but %s has %lld elements", op->name,
                           (long long)width, (long long)heads, all[k]->name, (long long)all[k]->count);
            return NULL;
        }
    node->integers[0] = heads;
    if (norm) node->numbers[0] = norm->eps;
    lam_tensor *y = lam_node_output(g, node, q->dtype, 3, (int64_t[]){q->shape[0], q->shape[1], width});
    if (!y) return NULL;
    y->bound = q->bound ? q->bound : kv->bound;
    lam_attention_shape s = planned_shape(node);
    s.batch = q->shape[0];
    node->saved_bytes = (size_t)(q->shape[0] * heads * q->shape[1]) * sizeof(float);
    node->forward_workspace_bytes = node->kernels->attention_workspace(&s, false);
    node->backward_workspace_bytes = node->kernels->attention_workspace(&s, true);
    return y;
}

lam_tensor *lam_attention(lam_graph *g, lam_tensor *qkv, int64_t heads, lam_tensor *key_mask) {
    return build(g, &attention_op, qkv, qkv, heads, key_mask, NULL);
}

lam_tensor *lam_normed_attention(lam_graph *g, lam_tensor *qkv, int64_t heads, lam_tensor *key_mask,
                                 const lam_qk_norm *norm) {
    return build(g, &normed_attention_op, qkv, qkv, heads, key_mask, norm);
}

lam_tensor *lam_cross_attention(lam_graph *g, lam_tensor *q, lam_tensor *kv, int64_t heads,
                                lam_tensor *key_mask) {
    return build(g, &cross_attention_op, q, kv, heads, key_mask, NULL);
}
