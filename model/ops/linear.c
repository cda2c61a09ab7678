#include <string.h>

#include "base/gemm.h"
#include "model/internal.h"
#include "model/ops.h"

/* Inputs: x, then (w, b) for each part, w alone where there is one part without bias, then what the result is added to, if
 * anything; the parts lie side by side in the output. The weights of all parts are packed for oneDNN as one matrix: for y = x w^T (form 0) and for dx = dy w (form 1).
 * bfloat16 always multiplies packed weights, which is where the float32 masters are rounded. float32 packs form 0 where enough
 * rows earn it; dx, where no operand is turned, is as fast by sgemm, which packs on its way through the caches. */

static int64_t fan_in(const lam_tensor *w) { return w->count / w->shape[0]; }
/* The end of x, w and b among the inputs. */
static int map_end(const lam_node *node) { return node->input_count - (lam_node_residual(node) != NULL); }
static int parts_of(const lam_node *node) { return map_end(node) / 2; }
static bool has_bias(const lam_node *node) { return map_end(node) > 2; }

static int64_t width_of(const lam_node *node) {
    int64_t width = 0;
    for (int k = 1; k < map_end(node); k += 2) width += node->inputs[k]->shape[0];
    return width;
}

static bool is_bf16(const lam_node *node) { return node->inputs[0]->dtype == LAM_BF16; }
static lam_gemm_type gemm_type(const lam_node *node) { return is_bf16(node) ? LAM_GEMM_BF16 : LAM_GEMM_F32; }

static bool fits(lam_graph *g, const lam_tensor *x, const lam_tensor *w, const lam_tensor *b) {
    if (x->dtype == lam_graph_activation(g) && lam_tensor_width(x) == fan_in(w) &&
        (!b || b->count == w->shape[0]))
        return true;
    lam_graph_fail(g, "linear: %s has %lld features, %s takes %lld", x->name, (long long)lam_tensor_width(x),
                   w->name, (long long)fan_in(w));
    return false;
}

static double linear_flops(const lam_node *node) {
    double total = 0;
    for (int k = 1; k < map_end(node); k += 2)
        total += 2.0 * (double)lam_tensor_rows(node->inputs[0]) * (double)node->inputs[k]->count;
    return total;
}

/* ---- weights ---- */

static bool rounds_at_random(const lam_node *node) { return is_bf16(node) && node->rounding->on; }

static lam_status prepare(lam_node *node) {
    if (!node->packed[0]) return LAM_OK;
    lam_gemm_weights weights = {.in = lam_tensor_width(node->inputs[0]), .parts = parts_of(node)};
    float *rounded = node->forward_workspace;
    for (int k = 1; k < map_end(node); k += 2) {
        const lam_tensor *w = node->inputs[k];
        weights.part[k / 2].out = w->shape[0];
        weights.part[k / 2].data = w->data;
        if (!rounds_at_random(node)) continue;
        lam_round_at_random(node->rounding, w->data, w->data, w->count, rounded);
        weights.part[k / 2].data = rounded;
        rounded += w->count;
    }
    return lam_gemm_pack(gemm_type(node), &weights, node->packed[0], node->packed[1]);
}

/* The biases side by side. */
static const float *bias_of(lam_node *node) {
    if (!has_bias(node)) return NULL;
    if (parts_of(node) == 1) return node->inputs[2]->data;
    float *together = node->forward_workspace;
    for (int64_t k = 2, at = 0; k < map_end(node); at += node->inputs[k]->count, k += 2)
        memcpy(together + at, node->inputs[k]->data, (size_t)node->inputs[k]->count * sizeof(float));
    return together;
}

/* ---- products ---- */

/* A stretch of rows of x and y; the pointers are to row 0. */
typedef struct stretch {
    int64_t first, rows;
} stretch;

static stretch all_rows(const lam_node *node) { return (stretch){0, lam_tensor_rows(node->inputs[0])}; }

static void *row_of(const lam_node *node, const void *base, int64_t row, int64_t width) {
    return (char *)(uintptr_t)base + (size_t)(row * width) * lam_dtype_bytes(node->inputs[0]->dtype);
}

/* x w^T, added to y where the map has a residual; packed weights add the bias on their way. */
static lam_status product(lam_node *node, stretch s, void *y) {
    const lam_tensor *x = node->inputs[0];
    bool add = lam_node_residual(node) != NULL;
    int64_t in = lam_tensor_width(x), out = width_of(node);
    const void *from = row_of(node, x->data, s.first, in);
    void *to = row_of(node, y, s.first, out);
    if (node->packed[0]) {
        lam_gemm_operands operands = {.m = s.rows,
                                      .n = out,
                                      .k = in,
                                      .a = from,
                                      .lda = in,
                                      .packed = node->packed[0],
                                      .bias = bias_of(node),
                                      .accumulate = add,
                                      .c = to,
                                      .ldc = out};
        return lam_gemm_packed(gemm_type(node), &operands);
    }
    for (int64_t k = 1, at = 0; k < map_end(node); at += node->inputs[k]->shape[0], k += 2) {
        const lam_tensor *w = node->inputs[k];
        LAM_TRY(lam_gemm_f32(false, true, s.rows, w->shape[0], in, from, in, w->data, in, add ? 1.0f : 0.0f,
                             (float *)to + at, out));
    }
    return LAM_OK;
}

/* What product leaves out. */
static void add_biases(lam_node *node, stretch s, void *y) {
    if (node->packed[0] || !has_bias(node)) return;
    int64_t out = width_of(node);
    float *to = row_of(node, y, s.first, out);
    for (int64_t k = 1, at = 0; k < map_end(node); at += node->inputs[k]->shape[0], k += 2)
        node->kernels->add_bias(to + at, node->inputs[k + 1]->data, s.rows, node->inputs[k]->shape[0], out);
}

static lam_status input_gradient(lam_node *node, stretch s, const void *dy, void *dx, bool add) {
    int64_t in = lam_tensor_width(node->inputs[0]), out = width_of(node);
    if (!dx) return LAM_OK;
    const void *from = row_of(node, dy, s.first, out);
    void *to = row_of(node, dx, s.first, in);
    if (node->packed[1]) {
        lam_gemm_operands operands = {.m = s.rows,
                                      .n = in,
                                      .k = out,
                                      .a = from,
                                      .lda = out,
                                      .packed = node->packed[1],
                                      .accumulate = add,
                                      .c = to,
                                      .ldc = in};
        return lam_gemm_packed(gemm_type(node), &operands);
    }
    for (int64_t k = 1, at = 0; k < map_end(node); at += node->inputs[k]->shape[0], k += 2) {
        const lam_tensor *w = node->inputs[k];
        LAM_TRY(lam_gemm_f32(false, false, s.rows, in, w->shape[0], (const float *)from + at, out, w->data,
                             in, add || at ? 1.0f : 0.0f, to, in));
    }
    return LAM_OK;
}

/* Of the rows of a stretch: the first writer of a step overwrites. */
static lam_status weight_gradients(lam_node *node, stretch s, const void *dy) {
    lam_tensor *x = node->inputs[0];
    int64_t out = width_of(node);
    lam_gemm_gradients products = {.n = lam_tensor_width(x),
                                   .k = s.rows,
                                   .a = row_of(node, dy, s.first, out),
                                   .lda = out,
                                   .b = row_of(node, x->data, s.first, lam_tensor_width(x)),
                                   .ldb = lam_tensor_width(x),
                                   .parts = parts_of(node)};
    bool wanted = false;
    for (int64_t k = 1; k < map_end(node); k += 2) {
        bool add;
        float *dw = lam_weight_gradient_target(node->inputs[k], &add);
        products.part[k / 2].m = node->inputs[k]->shape[0];
        products.part[k / 2].accumulate = add;
        products.part[k / 2].c = dw;
        products.part[k / 2].sums = has_bias(node) ? lam_gradient_target(node->inputs[k + 1], &add) : NULL;
        wanted = wanted || dw || products.part[k / 2].sums;
    }
    return wanted ? lam_gemm_gradient(gemm_type(node), &products) : LAM_OK;
}

/* The rows of dy are read two to four times: stretches that stay in the cache, and that are turned for the weights' gradient
 * without running through memory at a stride of a power of two (16 % of its time at 2,056 x 512 -> 2,048). */
#define CACHED_BYTES ((int64_t)1 << 21)

static stretch next_rows(const lam_node *node, stretch done, int64_t rows) {
    int64_t row_bytes = width_of(node) * (int64_t)lam_dtype_bytes(node->inputs[0]->dtype),
            fit = CACHED_BYTES / row_bytes / 64 * 64, first = done.first + done.rows;
    if (fit < 256) fit = 256;
    return (stretch){first, rows - first < fit + fit / 2 ? rows - first : fit};
}

/* `slope`: of a GELU whose result has the gradient dy, which becomes that of its argument in place; NULL: none. */
static lam_status backward(lam_node *node, const void *slope, void *dy) {
    int64_t rows = lam_tensor_rows(node->inputs[0]), width = width_of(node);
    bool add;
    void *dx = lam_gradient_target(node->inputs[0], &add);
    for (stretch s = next_rows(node, (stretch){0, 0}, rows); s.rows > 0; s = next_rows(node, s, rows)) {
        if (slope)
            node->kernels->multiply(row_of(node, slope, s.first, width), row_of(node, dy, s.first, width),
                                    s.rows * width);
        LAM_TRY(weight_gradients(node, s, dy));
        if (node->packed[1]) LAM_TRY(input_gradient(node, s, dy, dx, add)); /* over x, maybe */
    }
    return node->packed[1] ? LAM_OK : input_gradient(node, all_rows(node), dy, dx, add);
}

/* ---- operations ---- */

static lam_tensor *output(lam_graph *g, lam_node *node) {
    lam_tensor *x = node ? node->inputs[0] : NULL;
    if (!x) return NULL;
    int64_t shape[LAM_MAX_RANK];
    for (int i = 0; i < x->rank; i++) shape[i] = x->shape[i];
    shape[x->rank - 1] = width_of(node);
    lam_tensor *y = lam_node_output(g, node, lam_graph_activation(g), x->rank, shape);
    if (y) y->bound = x->bound;
    return y;
}

static lam_tensor *build(lam_graph *g, const lam_op *op, int parts, lam_tensor *const *inputs) {
    bool bias = parts > 1 || inputs[2];
    lam_node *node = lam_node_add(g, op, parts * 2 + bias + (op->gradients_pass != 0), inputs);
    if (!node) return NULL;
    int64_t rows = inputs[0]->count / lam_tensor_width(inputs[0]), weights = 0;
    for (int k = 1; k < map_end(node); k += 2) {
        if (!fits(g, inputs[0], inputs[k], bias ? inputs[k + 1] : NULL)) return NULL;
        weights += inputs[k]->count;
        for (int other = 2; bias && other < k; other += 2)
            if (inputs[other] == inputs[k + 1])
                lam_graph_fail(g, "%s: %s is the bias of two parts", op->name, inputs[other]->name);
    }
    node->products[0] =
        (lam_product){rows, lam_tensor_width(inputs[0]), width_of(node), 1, inputs[0]->requires_gradient};
    if (rounds_at_random(node))
        node->forward_workspace_bytes = (size_t)weights * sizeof(float);
    else if (parts > 1)
        node->forward_workspace_bytes = (size_t)width_of(node) * sizeof(float); /* the biases */
    lam_gemm_type type = gemm_type(node);
    int64_t in = lam_tensor_width(inputs[0]), out = width_of(node);
    if (lam_gemm_packing_pays(type, rows, in)) {
        node->packed_bytes[0] = lam_gemm_packed_bytes(type, in, out);
        if (inputs[0]->requires_gradient && is_bf16(node))
            node->packed_bytes[1] = lam_gemm_packed_bytes(type, out, in);
        if (!node->packed_bytes[0]) lam_graph_fail(g, "linear: %s", lam_last_error());
    }
    return output(g, node);
}

static lam_status linear_forward(lam_node *node) {
    const lam_tensor *residual = lam_node_residual(node);
    size_t row_bytes = (size_t)width_of(node) * lam_dtype_bytes(node->outputs[0]->dtype);
    if (residual)
        node->kernels->copy(node->outputs[0]->data, residual->data, (size_t)all_rows(node).rows * row_bytes);
    LAM_TRY(product(node, all_rows(node), node->outputs[0]->data));
    add_biases(node, all_rows(node), node->outputs[0]->data);
    return LAM_OK;
}
static lam_status linear_backward(lam_node *node) {
    lam_tensor *residual = lam_node_residual(node), *y = node->outputs[0];
    LAM_TRY(backward(node, NULL, y->gradient));
    if (residual) lam_gradient_pass(node, residual, y->gradient, lam_tensor_rows(y) * lam_tensor_width(y));
    return LAM_OK;
}
static const lam_op linear_op = {.name = "linear",
                                 .backward_reads_inputs = 3,
                                 .gradients_in_place = 1,
                                 .forward = linear_forward,
                                 .backward = linear_backward,
                                 .flops = linear_flops,
                                 .prepare = prepare};
static const lam_op linear_add_op = {.name = "linear_add",
                                     .backward_reads_inputs = 3,
                                     .gradients_in_place = 1,
                                     .gradients_pass = 8,
                                     .forward = linear_forward,
                                     .backward = linear_backward,
                                     .flops = linear_flops,
                                     .prepare = prepare};
static const lam_op linear_qkv_op = {.name = "linear_qkv",
                                     .backward_reads_inputs = 1 | 2 | 8 | 32,
                                     .gradients_in_place = 1,
                                     .forward = linear_forward,
                                     .backward = linear_backward,
                                     .flops = linear_flops,
                                     .prepare = prepare};

static const lam_op linear_kv_op = {.name = "linear_kv",
                                    .backward_reads_inputs = 1 | 2 | 8,
                                    .gradients_in_place = 1,
                                    .forward = linear_forward,
                                    .backward = linear_backward,
                                    .flops = linear_flops,
                                    .prepare = prepare};

lam_tensor *lam_linear(lam_graph *g, lam_tensor *x, lam_tensor *w, lam_tensor *b) {
    return build(g, &linear_op, 1, (lam_tensor *[]){x, w, b});
}

lam_tensor *lam_linear_add(lam_graph *g, lam_tensor *x, lam_tensor *w, lam_tensor *b, lam_tensor *residual) {
    lam_tensor *y = build(g, &linear_add_op, 1, (lam_tensor *[]){x, w, b, residual});
    if (y && (y->count != residual->count || y->bound != residual->bound || y->dtype != residual->dtype))
        lam_graph_fail(g, "linear_add: %s does not have the shape of the result", residual->name);
    return y;
}

lam_tensor *lam_linear_qkv(lam_graph *g, lam_tensor *x, lam_tensor *wq, lam_tensor *bq, lam_tensor *wk,
                           lam_tensor *bk, lam_tensor *wv, lam_tensor *bv) {
    return build(g, &linear_qkv_op, 3, (lam_tensor *[]){x, wq, bq, wk, bk, wv, bv});
}

lam_tensor *lam_linear_kv(lam_graph *g, lam_tensor *x, lam_tensor *wk, lam_tensor *bk, lam_tensor *wv,
                          lam_tensor *bv) {
    return build(g, &linear_kv_op, 2, (lam_tensor *[]){x, wk, bk, wv, bv});
}

/* Outputs: gelu(h); h, which becomes gelu'(h) where nothing computes GELU from it again: the exponential is taken once. */
static void gelu_again(lam_node *node) {
    lam_tensor *y = node->outputs[0];
    node->kernels->gelu_slope(node->outputs[1]->data, y->data, lam_tensor_rows(y) * lam_tensor_width(y));
}
static lam_status linear_gelu_forward(lam_node *node) {
    const lam_tensor *y = node->outputs[0];
    int64_t rows = lam_tensor_rows(node->inputs[0]), width = width_of(node);
    bool again = y->recomputed && !node->recomputed,
         whole = !node->packed[0]; /* sgemm would pack w for each stretch */
    if (whole) LAM_TRY(product(node, all_rows(node), node->outputs[1]->data));
    for (stretch s = next_rows(node, (stretch){0, 0}, rows); s.rows > 0; s = next_rows(node, s, rows)) {
        void *h = row_of(node, node->outputs[1]->data, s.first, width),
             *after = row_of(node, y->data, s.first, width);
        if (!whole) LAM_TRY(product(node, s, node->outputs[1]->data));
        add_biases(node, s, node->outputs[1]->data);
        if (y->gradient && !again)
            node->kernels->gelu_slope(h, after, s.rows * width);
        else
            node->kernels->gelu(h, after, s.rows * width);
    }
    return LAM_OK;
}
static lam_status linear_gelu_backward(lam_node *node) {
    return backward(node, node->outputs[1]->data, node->outputs[0]->gradient); /* which nobody reads later */
}
static const lam_op linear_gelu_op = {.name = "linear_gelu",
                                      .backward_reads_inputs = 3,
                                      .backward_reads_outputs = 2,
                                      .gradients_in_place = 1,
                                      .forward = linear_gelu_forward,
                                      .backward = linear_gelu_backward,
                                      .flops = linear_flops,
                                      .again = gelu_again,
                                      .again_outputs = 1,
                                      .prepare = prepare};

lam_tensor *lam_linear_gelu(lam_graph *g, lam_tensor *x, lam_tensor *w, lam_tensor *b) {
    lam_tensor *y = build(g, &linear_gelu_op, 1, (lam_tensor *[]){x, w, b});
    lam_tensor *before = y ? output(g, y->producer) : NULL;
    if (before) before->requires_gradient = false;
    return y;
}
