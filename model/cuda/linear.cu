/* linear, linear_add, linear_qkv, linear_kv, linear_gelu, parallel_projection on products.cu; inputs and rules as in model/ops/linear.c
 * and model/ops/parallel.c.
 *
 * bfloat16: the float32 weights of all parts are rounded into one matrix [sum of out, in], which forward and dx read alike, with
 * the biases side by side behind it, in bfloat16 because cuBLASLt wants them of the result's type (prepare.cuh). float32 multiplies
 * the weights where they are, in as few products as they lie in stretches of memory (one where they are rows of one parameter).
 *
 * linear_gelu keeps h, never gelu'(h). In bfloat16, where the GELU is fused, y comes of cuBLASLt's arithmetic, which is not
 * documented: what is recomputed from h by our kernel (lam_graph_set_recompute, NORM_GELU) is the neighbouring bfloat16 in
 * some places. It is read for the gradient of the weights behind it, and nowhere else. On an H200 (CUDA 13.0) so few
 * differed that h must have been rounded first, and the elementary function another; the emulator rounds h afterwards, and a
 * quarter differs. Bits of whole blocks are the same: they run the same products again. So are those of float32. Where a
 * linear map alone takes y, dy is multiplied by gelu'(h) behind that map's dx, with the sums that are the gradient of the
 * bias, and linear_gelu's backward rule begins with dh. What is added to the result is read by the product itself. Where attention
 * or LayerNorm is the last to write dy, their backward kernels have its rows in registers and add them up (attention_backward.cu,
 * norm.cu): dy is not read for the gradients of the biases.
 *
 * scale_rows_backward is bound by bytes (16 an element; 256 threads a row, 32 bytes of shared memory; at most 48 registers). */
#include <string.h>

#include "model/cuda/backend.cuh"
#include "model/cuda/prepare.cuh"
#include "model/cuda/products.h"

namespace {

constexpr int threads = 256, most_parts = 3;

size_t padded(size_t bytes) { return (bytes + 255) & ~(size_t)255; }

/* ---- what linear maps share ---- */

/* integers: of linear_gelu; of a map, bit k: for the gradient of input k */
enum { SLOPE_FUSED = 0, FUSES_SLOPE = 1 };

/* The end of x, w and b among the inputs of linear, linear_add, linear_qkv, linear_kv and linear_gelu. */
int map_end(const lam_node *node) { return node->input_count - (lam_node_residual(node) != NULL); }
bool has_bias(const lam_node *node) { return map_end(node) > 2; }
bool is_bf16(const lam_node *node) { return node->inputs[0]->dtype == LAM_BF16; }

int64_t width_of(const lam_node *node) {
    int64_t width = 0;
    for (int k = 1; k < map_end(node); k += 2) width += node->inputs[k]->shape[0];
    return width;
}

const void *elements(const void *base, int64_t count, lam_dtype type) {
    return (const char *)base + (size_t)count * lam_dtype_bytes(type);
}
void *elements(void *base, int64_t count, lam_dtype type) {
    return (char *)base + (size_t)count * lam_dtype_bytes(type);
}

/* The map that makes y = gelu(h) whose only use is input k of this node: the node's dx can be dh at once. A map that runs
 * again in the backward pass has h only when its own block has. */
lam_node *gelu_before(const lam_node *node, int k) {
    lam_tensor *y = node->inputs[k];
    lam_node *gelu = y->producer;
    bool alone = gelu && !strcmp(gelu->op->name, "linear_gelu") && y == gelu->outputs[0] &&
                 y->consumers == 1 && !y->kept && !y->kept_forward && y->requires_gradient &&
                 y->dtype == LAM_BF16;
    return alone && (!gelu->recomputed || gelu->block == node->block) ? gelu : NULL;
}

void decide_slope(lam_node *node, int k) {
    lam_node *gelu = gelu_before(node, k);
    if (gelu) {
        gelu->integers[SLOPE_FUSED] = 1;
        node->integers[FUSES_SLOPE] |= (int64_t)1 << k;
    }
}

/* Of linear, linear_add, linear_qkv, linear_kv, linear_gelu: sums of the columns of dy, dh. */
lam_cuda_sums bias_gradients(lam_node *node) {
    lam_cuda_sums sums = {};
    for (int k = 1, i = 0; has_bias(node) && k < map_end(node); k += 2, i++) {
        sums.to[i] = lam_weight_gradient_target(node->inputs[k + 1], &sums.add[i]);
        sums.columns[i] = node->inputs[k]->shape[0];
    }
    return sums;
}

/* The gradient of input k, dx = dy w, w [out, in] one matrix. */
lam_status input_gradient(lam_node *node, int k, const void *w) {
    lam_tensor *x = node->inputs[k], *y = node->outputs[0];
    int64_t rows = lam_tensor_rows(x), in = lam_tensor_width(x), out = lam_tensor_width(y);
    bool add;
    void *dx = lam_gradient_target(x, &add);
    if (!dx) return LAM_OK;
    lam_cuda_product p = lam_cuda_product_of(x->dtype, x->dtype, rows, in, out);
    p.a = y->gradient, p.lda = out, p.b = w, p.ldb = in, p.c = dx, p.ldc = in;
    p.accumulate = add;
    if (node->integers[FUSES_SLOPE] >> k & 1) {
        p.epilogue = LAM_CUDA_GELU_SLOPE;
        p.h = x->producer->outputs[1]->data;
        p.sums = bias_gradients(x->producer);
    }
    return lam_cuda_multiply(&p);
}

/* ---- linear, linear_qkv, linear_kv, linear_gelu: x, then (w, b) for each part ---- */

size_t matrix_bytes(const lam_node *node) {
    return padded((size_t)(width_of(node) * lam_tensor_width(node->inputs[0])) * sizeof(__nv_bfloat16));
}

void linear_sizes(lam_node *node) {
    node->integers[SLOPE_FUSED] = node->integers[FUSES_SLOPE] = 0;
    node->saved_bytes = node->forward_workspace_bytes = node->backward_workspace_bytes = 0;
    node->packed_bytes[0] = node->packed_bytes[1] = 0;
    if (!is_bf16(node)) return;
    decide_slope(node, 0);
    node->packed_bytes[0] =
        matrix_bytes(node) + (has_bias(node) ? padded((size_t)width_of(node) * sizeof(__nv_bfloat16)) : 0);
}

lam_status linear_prepare(lam_node *node) {
    if (!node->packed[0]) return LAM_OK;
    int64_t in = lam_tensor_width(node->inputs[0]), at = 0;
    void *biases = (char *)node->packed[0] + matrix_bytes(node);
    for (int k = 1; k < map_end(node); k += 2) {
        const lam_tensor *w = node->inputs[k];
        lam_cuda_prepare_weights(node, w, NULL, elements(node->packed[0], at * in, LAM_BF16));
        if (has_bias(node))
            lam_cuda_prepare_biases(node, node->inputs[k + 1], NULL, NULL, elements(biases, at, LAM_BF16));
        at += w->shape[0];
    }
    return LAM_OK;
}

/* Parts that one product can take: of `out` rows of w, columns of y from `at` on. */
struct stretch {
    int64_t at, out;
    const float *w, *b;
    float *dw;
    bool add_w;
};

bool continues(const stretch &before, const stretch &next, int64_t in) {
    return next.w == before.w + before.out * in && (!next.b || next.b == before.b + before.out) &&
           !next.dw == !before.dw && (!next.dw || next.dw == before.dw + before.out * in) &&
           next.add_w == before.add_w;
}

/* For the gradients of the weights, else for y. */
int stretches_of(lam_node *node, bool gradients, stretch *stretches) {
    int64_t in = lam_tensor_width(node->inputs[0]), at = 0;
    int count = 0;
    for (int k = 1; k < map_end(node); k += 2) {
        lam_tensor *w = node->inputs[k];
        stretch s = {at, w->shape[0], (const float *)w->data, NULL, NULL, false};
        if (gradients)
            s.dw = lam_weight_gradient_target(w, &s.add_w);
        else if (has_bias(node))
            s.b = (const float *)node->inputs[k + 1]->data;
        if (count > 0 && continues(stretches[count - 1], s, in))
            stretches[count - 1].out += s.out;
        else
            stretches[count++] = s;
        at += s.out;
    }
    return count;
}

/* x w^T + bias into y, with GELU from h to y where there is an h. */
lam_status linear_product(lam_node *node, void *h, void *y) {
    const lam_tensor *x = node->inputs[0], *residual = lam_node_residual(node);
    int64_t rows = lam_tensor_rows(x), in = lam_tensor_width(x), width = width_of(node);
    stretch stretches[most_parts];
    int count = stretches_of(node, false, stretches);
    if (is_bf16(node)) count = 1, stretches[0].at = 0, stretches[0].out = width;
    for (int i = 0; i < count; i++) {
        const stretch &s = stretches[i];
        lam_cuda_product p = lam_cuda_product_of(x->dtype, x->dtype, rows, s.out, in);
        p.a = x->data, p.lda = in, p.turn_b = true, p.ldb = in, p.ldc = width;
        p.b = is_bf16(node) ? node->packed[0] : s.w;
        p.bias = is_bf16(node) ? (const char *)node->packed[0] + matrix_bytes(node) : (const void *)s.b;
        p.c = elements(y, s.at, x->dtype);
        if (residual) p.addend = elements((const void *)residual->data, s.at, x->dtype);
        p.h = h;
        p.epilogue = h ? LAM_CUDA_GELU : has_bias(node) ? LAM_CUDA_BIAS : LAM_CUDA_PLAIN;
        LAM_TRY(lam_cuda_multiply(&p));
    }
    return LAM_OK;
}

lam_status linear_forward(lam_node *node) { return linear_product(node, NULL, node->outputs[0]->data); }

lam_status stretch_gradients(lam_node *node, const stretch &s) {
    const lam_tensor *x = node->inputs[0], *y = node->outputs[0];
    int64_t rows = lam_tensor_rows(x), in = lam_tensor_width(x), width = width_of(node);
    const void *dy = elements((const void *)y->gradient, s.at, x->dtype);
    if (!s.dw) return LAM_OK;
    lam_cuda_product p = lam_cuda_product_of(x->dtype, LAM_F32, s.out, in, rows);
    p.turn_a = true, p.a = dy, p.lda = width, p.b = x->data, p.ldb = in, p.c = s.dw, p.ldc = in;
    p.accumulate = s.add_w;
    return lam_cuda_multiply(&p);
}

/* All but those of the biases. dx may lie over x: it comes last. */
lam_status product_gradients(lam_node *node) {
    stretch stretches[most_parts];
    lam_tensor *x = node->inputs[0], *y = node->outputs[0];
    int count = stretches_of(node, true, stretches);
    for (int i = 0; i < count; i++) LAM_TRY(stretch_gradients(node, stretches[i]));
    if (is_bf16(node)) return input_gradient(node, 0, node->packed[0]);
    bool add;
    void *dx = lam_gradient_target(x, &add);
    int64_t rows = lam_tensor_rows(x), in = lam_tensor_width(x), width = width_of(node);
    count = dx ? stretches_of(node, false, stretches) : 0;
    for (int i = 0; i < count; i++) {
        const stretch &s = stretches[i];
        lam_cuda_product p = lam_cuda_product_of(x->dtype, x->dtype, rows, in, s.out);
        p.a = elements((const void *)y->gradient, s.at, x->dtype), p.lda = width;
        p.b = s.w, p.ldb = in, p.c = dx, p.ldc = in;
        p.accumulate = add || i > 0;
        LAM_TRY(lam_cuda_multiply(&p));
    }
    return LAM_OK;
}

lam_status linear_backward(lam_node *node) {
    const lam_tensor *y = node->outputs[0];
    int64_t width = lam_tensor_width(y);
    lam_tensor *residual = lam_node_residual(node);
    if (!y->gradient_summed) {
        lam_cuda_sums sums = bias_gradients(node);
        lam_cuda_column_sums(y->gradient, lam_tensor_rows(y), width, width, &sums, y->dtype);
    }
    LAM_TRY(product_gradients(node));
    if (residual) lam_gradient_pass(node, residual, y->gradient, lam_tensor_rows(y) * width);
    return LAM_OK;
}

int64_t elements_of(const lam_tensor *y) { return lam_tensor_rows(y) * lam_tensor_width(y); }

lam_status gelu_forward(lam_node *node) {
    return linear_product(node, node->outputs[1]->data, node->outputs[0]->data);
}

lam_status gelu_backward(lam_node *node) {
    const lam_tensor *y = node->outputs[0];
    if (!node->integers[SLOPE_FUSED]) {
        lam_cuda_sums sums = bias_gradients(node);
        lam_cuda_gelu_slope(node->outputs[1]->data, y->gradient, lam_tensor_rows(y), lam_tensor_width(y),
                            &sums, y->dtype);
    }
    return product_gradients(node);
}

void gelu_again(lam_node *node) {
    const lam_tensor *y = node->outputs[0];
    lam_cuda_gelu(node->outputs[1]->data, y->data, elements_of(y), y->dtype);
}

/* ---- parallel_projection: a, wa, ba, m, wm, bm, gamma; gamma in the prepared weights ---- */

enum { A, WA, BA, M, WM, BM, GAMMA };

/* dw (+)= scale product, d_scale (+)= w . product, row by row; with `sums` also what the biases' add: db (+)= scale sums,
 * d_scale += (ba + bm) sums. Gradients NULL: not wanted. */
struct projection_biases {
    const float *sums, *b[2];
    float *db[2];
    bool add[2];
};

__global__ void __launch_bounds__(threads)
    scale_rows_backward(const float *w, const float *scale, const float *product, float *dw, bool add_w,
                        float *d_scale, bool add_scale, projection_biases biases, int64_t width) {
    LAM_SHARED(float, fold, [threads / 32]);
    int64_t row = blockIdx.x;
    float factor = scale[row], sum = 0;
    const float *from = product + row * width, *weight = w + row * width;
    for (int64_t i = threadIdx.x; i < width; i += threads) {
        float value = from[i];
        sum += weight[i] * value;
        if (dw) dw[row * width + i] = (add_w ? dw[row * width + i] : 0.0f) + factor * value;
    }
    for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
    if (threadIdx.x % 32 == 0) fold[threadIdx.x / 32] = sum;
    __syncthreads();
    if (threadIdx.x > 0) return;
    sum = 0;
    for (int i = 0; i < threads / 32; i++) sum += fold[i];
    if (biases.sums) {
        float d = biases.sums[row];
        sum += (biases.b[0][row] + biases.b[1][row]) * d;
        for (int k = 0; k < 2; k++)
            if (biases.db[k]) biases.db[k][row] = (biases.add[k] ? biases.db[k][row] : 0.0f) + factor * d;
    }
    if (d_scale) d_scale[row] = (add_scale ? d_scale[row] : 0.0f) + sum;
}

size_t branch_bytes(const lam_node *node, int branch) {
    return padded((size_t)node->inputs[branch + 1]->count * lam_dtype_bytes(node->inputs[A]->dtype));
}

/* Prepared: gamma wa, gamma wm, gamma (ba + bm). */
void *branch_weights(const lam_node *node, int branch) {
    return (char *)node->packed[0] + (branch == A ? 0 : branch_bytes(node, A));
}
void *projection_bias(const lam_node *node) {
    return (char *)node->packed[0] + branch_bytes(node, A) + branch_bytes(node, M);
}

void projection_sizes(lam_node *node) {
    const lam_tensor *wa = node->inputs[WA], *wm = node->inputs[WM];
    int64_t out = node->inputs[GAMMA]->count, larger = wa->count > wm->count ? wa->count : wm->count;
    node->integers[FUSES_SLOPE] = 0;
    if (is_bf16(node)) {
        decide_slope(node, A);
        decide_slope(node, M);
    }
    node->saved_bytes = node->forward_workspace_bytes = node->packed_bytes[1] = 0;
    node->backward_workspace_bytes = padded((size_t)out * sizeof(float)) + (size_t)larger * sizeof(float);
    node->packed_bytes[0] = branch_bytes(node, A) + branch_bytes(node, M) +
                            padded((size_t)out * lam_dtype_bytes(node->inputs[A]->dtype));
}

lam_status projection_prepare(lam_node *node) {
    lam_tensor **in = node->inputs;
    const float *gamma = (const float *)in[GAMMA]->data;
    lam_cuda_prepare_weights(node, in[WA], gamma, branch_weights(node, A));
    lam_cuda_prepare_weights(node, in[WM], gamma, branch_weights(node, M));
    lam_cuda_prepare_biases(node, in[BA], (const float *)in[BM]->data, gamma, projection_bias(node));
    return LAM_OK;
}

lam_status projection_forward(lam_node *node) {
    lam_tensor *y = node->outputs[0], *residual = lam_node_residual(node);
    int64_t rows = lam_tensor_rows(y), out = lam_tensor_width(y);
    for (int k = A; k <= M; k += M) {
        const lam_tensor *x = node->inputs[k];
        int64_t width = lam_tensor_width(x);
        lam_cuda_product p = lam_cuda_product_of(x->dtype, x->dtype, rows, out, width);
        p.a = x->data, p.lda = width, p.b = branch_weights(node, k), p.turn_b = true, p.ldb = width;
        p.c = y->data, p.ldc = out;
        p.epilogue = k == A ? LAM_CUDA_BIAS : LAM_CUDA_PLAIN;
        p.bias = projection_bias(node);
        p.accumulate = k != A;
        if (k == A && residual) p.addend = residual->data;
        LAM_TRY(lam_cuda_multiply(&p));
    }
    return LAM_OK;
}

lam_status projection_backward(lam_node *node) {
    lam_tensor *y = node->outputs[0], **in = node->inputs;
    int64_t rows = lam_tensor_rows(y), out = lam_tensor_width(y);
    bool add_scale;
    float *d_scale = lam_weight_gradient_target(in[GAMMA], &add_scale),
          *sums = (float *)node->backward_workspace,
          *product = (float *)((char *)node->backward_workspace + padded((size_t)out * sizeof(float)));
    for (int k = A; k <= M; k += M) {
        const lam_tensor *x = in[k];
        int64_t width = lam_tensor_width(x);
        lam_cuda_product p = lam_cuda_product_of(x->dtype, LAM_F32, out, width, rows);
        p.turn_a = true, p.a = y->gradient, p.lda = out, p.b = x->data, p.ldb = width, p.c = product,
        p.ldc = width;
        projection_biases biases = {};
        if (k == A) {
            lam_cuda_sums all = {{sums}, {out}, {false}};
            lam_cuda_column_sums(y->gradient, rows, out, out, &all, y->dtype);
            biases.sums = sums;
            for (int i = 0; i < 2; i++) {
                biases.b[i] = (const float *)in[i ? BM : BA]->data;
                biases.db[i] = lam_weight_gradient_target(in[i ? BM : BA], &biases.add[i]);
            }
        }
        LAM_TRY(lam_cuda_multiply(&p));
        bool add;
        float *dw = lam_weight_gradient_target(in[k + 1], &add);
        LAM_LAUNCH((scale_rows_backward), (unsigned)out, threads, 0, lam_cuda_stream(),
                   (const float *)in[k + 1]->data, (const float *)in[GAMMA]->data, product, dw, add, d_scale,
                   add_scale || k != A, biases, width);
        LAM_TRY(input_gradient(node, k, branch_weights(node, k)));
    }
    lam_tensor *residual = lam_node_residual(node);
    if (residual) lam_gradient_pass(node, residual, y->gradient, rows * out);
    return LAM_OK;
}

} // namespace

int lam_cuda_sums_to_take(const lam_node *writer, const lam_tensor *y) {
    const lam_node *map = y->producer;
    if (!map || map->run.backward != linear_backward || y->first_reader != writer || !y->requires_gradient)
        return 0;
    bool wanted = false;
    for (int k = 2; k < map_end(map); k += 2) wanted |= map->inputs[k]->requires_gradient;
    return wanted ? map_end(map) / 2 : 0;
}

lam_cuda_sums lam_cuda_take_sums(lam_node *map) {
    map->outputs[0]->gradient_summed = true;
    return bias_gradients(map);
}

const lam_op_functions lam_cuda_linear_ops[] = {
    {"linear", linear_sizes, linear_forward, linear_backward, NULL, linear_prepare},
    {"linear_add", linear_sizes, linear_forward, linear_backward, NULL, linear_prepare},
    {"linear_qkv", linear_sizes, linear_forward, linear_backward, NULL, linear_prepare},
    {"linear_kv", linear_sizes, linear_forward, linear_backward, NULL, linear_prepare},
    {"linear_gelu", linear_sizes, gelu_forward, gelu_backward, gelu_again, linear_prepare},
    {"parallel_projection", projection_sizes, projection_forward, projection_backward, NULL,
     projection_prepare},
    {"parallel_projection_add", projection_sizes, projection_forward, projection_backward, NULL,
     projection_prepare},
    {NULL, NULL, NULL, NULL, NULL, NULL}};
