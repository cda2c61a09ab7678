#include <string.h>

#include "base/gemm.h"
#include "model/internal.h"
#include "model/ops.h"

/* ---- parallel_projection: a, wa, ba, m, wm, bm, gamma ----
 * gamma goes into the weights, so that no pass over the tokens is needed for it: y = a (gamma wa)^T + m (gamma wm)^T +
 * gamma (ba + bm). Prepared: [bias, gamma wa, gamma wm], packed for oneDNN where that pays, else plain; for dx packed the
 * other way round, in float32 too: plain weights with gamma in them are nowhere. */
enum { A, WA, BA, M, WM, BM, GAMMA, RESIDUAL };

static bool is_bf16(const lam_node *node) { return node->inputs[A]->dtype == LAM_BF16; }
static lam_gemm_type type_of(const lam_node *node) { return is_bf16(node) ? LAM_GEMM_BF16 : LAM_GEMM_F32; }
static bool is_packed(const lam_node *node) {
    int64_t width = lam_tensor_width(node->inputs[A]);
    return lam_gemm_packing_pays(type_of(node), node->inputs[A]->count / width, width);
}

static size_t aligned(size_t bytes) { return (bytes + 63) & ~(size_t)63; }

static size_t weight_bytes(const lam_node *node, int branch, bool backward) {
    int64_t in = lam_tensor_width(node->inputs[branch]), out = node->inputs[GAMMA]->count;
    if (!is_packed(node)) return aligned((size_t)(in * out) * sizeof(float));
    return aligned(lam_gemm_packed_bytes(type_of(node), backward ? out : in, backward ? in : out));
}

/* The prepared weight of a branch. */
static void *weight_of(const lam_node *node, int branch, bool backward) {
    backward = backward && is_packed(node); /* plain weights serve both ways */
    char *at = node->packed[backward];
    if (!backward) at += aligned((size_t)node->inputs[GAMMA]->count * sizeof(float));
    return branch == A ? at : at + weight_bytes(node, A, backward);
}

static lam_status projection_prepare(lam_node *node) {
    lam_tensor **in = node->inputs;
    const float *gamma = in[GAMMA]->data;
    int64_t out = in[GAMMA]->count;
    float *bias = node->packed[0];
    for (int64_t i = 0; i < out; i++)
        bias[i] = gamma[i] * (((const float *)in[BA]->data)[i] + ((const float *)in[BM]->data)[i]);
    for (int k = A; k <= M; k += M) {
        int64_t width = lam_tensor_width(in[k]);
        float *scaled = is_packed(node) ? node->forward_workspace : weight_of(node, k, false);
        node->kernels->scale_rows(in[k + 1]->data, gamma, scaled, out, width);
        if (!is_packed(node)) continue;
        if (is_bf16(node) && node->rounding->on)
            lam_round_at_random(node->rounding, in[k + 1]->data, scaled, out * width, scaled);
        lam_gemm_weights weights = {.in = width, .parts = 1, .part = {{.out = out, .data = scaled}}};
        LAM_TRY(lam_gemm_pack(type_of(node), &weights, weight_of(node, k, false),
                              node->packed[1] ? weight_of(node, k, true) : NULL));
    }
    return LAM_OK;
}

static lam_status projection_forward(lam_node *node) {
    lam_tensor *y = node->outputs[0], **in = node->inputs;
    const lam_tensor *residual = lam_node_residual(node);
    int64_t rows = lam_tensor_rows(y), out = lam_tensor_width(y);
    const float *bias = node->packed[0];
    if (residual) node->kernels->copy(y->data, residual->data, (size_t)(rows * out) * lam_dtype_bytes(y->dtype));
    for (int k = A; k <= M; k += M) {
        int64_t width = lam_tensor_width(in[k]);
        if (is_packed(node)) {
            lam_gemm_operands operands = {.m = rows,
                                          .n = out,
                                          .k = width,
                                          .a = in[k]->data,
                                          .lda = width,
                                          .packed = weight_of(node, k, false),
                                          .bias = k == A ? bias : NULL,
                                          .accumulate = k != A || residual,
                                          .c = y->data,
                                          .ldc = out};
            LAM_TRY(lam_gemm_packed(type_of(node), &operands));
        } else {
            LAM_TRY(lam_gemm_f32(false, true, rows, out, width, in[k]->data, width, weight_of(node, k, false),
                                 width, k == A && !residual ? 0.0f : 1.0f, y->data, out));
        }
    }
    if (!is_packed(node)) node->kernels->add_bias(y->data, bias, rows, out, out);
    return LAM_OK;
}

static lam_status input_gradient(lam_node *node, int branch) {
    lam_tensor *y = node->outputs[0], *x = node->inputs[branch];
    int64_t rows = lam_tensor_rows(y), out = lam_tensor_width(y), width = lam_tensor_width(x);
    bool add;
    void *dx = lam_gradient_target(x, &add);
    if (!dx) return LAM_OK;
    if (!is_packed(node))
        return lam_gemm_f32(false, false, rows, width, out, y->gradient, out, weight_of(node, branch, true),
                            width, add ? 1.0f : 0.0f, dx, width);
    lam_gemm_operands operands = {.m = rows,
                                  .n = width,
                                  .k = out,
                                  .a = y->gradient,
                                  .lda = out,
                                  .packed = weight_of(node, branch, true),
                                  .accumulate = add,
                                  .c = dx,
                                  .ldc = width};
    return lam_gemm_packed(type_of(node), &operands);
}

static lam_status projection_backward(lam_node *node) {
    lam_tensor *y = node->outputs[0], **in = node->inputs;
    int64_t rows = lam_tensor_rows(y), out = lam_tensor_width(y);
    const float *gamma = in[GAMMA]->data;
    bool add;
    float *d_gamma = lam_gradient_target(in[GAMMA], &add), *sums = node->backward_workspace,
          *product = sums + out;
    memset(sums, 0, (size_t)out * sizeof *sums);
    for (int k = A; k <= M; k += M) {
        int64_t width = lam_tensor_width(in[k]);
        LAM_TRY(lam_gemm_gradient(
            type_of(node),
            &(lam_gemm_gradients){.n = width,
                                  .k = rows,
                                  .a = y->gradient,
                                  .lda = out,
                                  .b = in[k]->data,
                                  .ldb = width,
                                  .parts = 1,
                                  .part = {{.m = out, .c = product, .sums = k == A ? sums : NULL}}}));
        node->kernels->scale_rows_backward(in[k + 1]->data, gamma, product,
                                           lam_gradient_target(in[k + 1], &add), d_gamma, out, width);
        LAM_TRY(input_gradient(node, k));
    }
    for (int k = BA; k <= BM; k += M)
        node->kernels->scale_rows_backward(in[k]->data, gamma, sums, lam_gradient_target(in[k], &add),
                                           d_gamma, out, 1);
    lam_tensor *residual = lam_node_residual(node);
    if (residual) lam_gradient_pass(node, residual, y->gradient, rows * out);
    return LAM_OK;
}

static double projection_flops(const lam_node *node) {
    return 2.0 * (double)lam_tensor_rows(node->inputs[A]) *
           (double)(node->inputs[WA]->count + node->inputs[WM]->count);
}

static const lam_op projection_op = {.name = "parallel_projection",
                                     .backward_reads_inputs =
                                         1 << A | 1 << WA | 1 << BA | 1 << M | 1 << WM | 1 << BM | 1 << GAMMA,
                                     .forward = projection_forward,
                                     .backward = projection_backward,
                                     .flops = projection_flops,
                                     .prepare = projection_prepare};
static const lam_op projection_add_op = {.name = "parallel_projection_add",
                                         .backward_reads_inputs =
                                             1 << A | 1 << WA | 1 << BA | 1 << M | 1 << WM | 1 << BM | 1 << GAMMA,
                                         .gradients_pass = 1 << RESIDUAL,
                                         .forward = projection_forward,
                                         .backward = projection_backward,
                                         .flops = projection_flops,
                                         .prepare = projection_prepare};

lam_tensor *lam_parallel_projection(lam_graph *g, lam_tensor *a, lam_tensor *wa, lam_tensor *ba,
                                    lam_tensor *m, lam_tensor *wm, lam_tensor *bm, lam_tensor *gamma,
                                    lam_tensor *residual) {
    lam_node *node = lam_node_add(g, residual ? &projection_add_op : &projection_op, residual ? 8 : 7,
                                  (lam_tensor *[]){a, wa, ba, m, wm, bm, gamma, residual});
    if (!node) return NULL;
    int64_t out = gamma->count, rows = a->count / lam_tensor_width(a), widest = lam_tensor_width(a);
    if (lam_tensor_width(m) > widest) widest = lam_tensor_width(m);
    if (wa->count != out * lam_tensor_width(a) || wm->count != out * lam_tensor_width(m) ||
        ba->count != out || bm->count != out || m->count / lam_tensor_width(m) != rows ||
        a->dtype != lam_graph_activation(g) || m->dtype != a->dtype) {
        lam_graph_fail(g, "parallel_projection: %s, %s and %s do not belong together", a->name, m->name,
                       gamma->name);
        return NULL;
    }
    node->products[0] = (lam_product){rows, lam_tensor_width(a), out, 1, a->requires_gradient};
    node->products[1] = (lam_product){rows, lam_tensor_width(m), out, 1, m->requires_gradient};
    size_t scaled = (size_t)(out * widest) * sizeof(float);
    node->forward_workspace_bytes = is_packed(node) ? scaled : 0;
    node->backward_workspace_bytes = scaled + (size_t)out * sizeof(float);
    node->packed_bytes[0] =
        aligned((size_t)out * sizeof(float)) + weight_bytes(node, A, false) + weight_bytes(node, M, false);
    if (is_packed(node)) node->packed_bytes[1] = weight_bytes(node, A, true) + weight_bytes(node, M, true);
    int64_t shape[LAM_MAX_RANK];
    memcpy(shape, a->shape, sizeof shape);
    shape[a->rank - 1] = out;
    lam_tensor *y = lam_node_output(g, node, lam_graph_activation(g), a->rank, shape);
    if (y) y->bound = a->bound;
    if (y && residual && (residual->count != y->count || residual->bound != y->bound || residual->dtype != y->dtype))
        lam_graph_fail(g, "parallel_projection: %s does not have the shape of the result", residual->name);
    return y;
}
