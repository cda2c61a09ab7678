/* Attention: which kernel, how a pass is shared out among blocks (attention.cuh), and whose bias gradients the backward pass
 * takes over. */
#include "model/cuda/attention.cuh"
#include "model/cuda/backend.cuh"

namespace lam_attention_parts {

arguments arguments_of(const lam_attention_shape *shape, const void *q, const void *k, const void *v) {
    arguments a = {};
    a.queries = (int)shape->queries, a.keys = (int)shape->keys;
    a.heads = (int)shape->heads, a.head_dim = (int)shape->head_dim;
    a.q_stride = shape->q_stride, a.kv_stride = shape->kv_stride, a.out_stride = shape->out_stride;
    a.key_mask = shape->key_mask;
    a.scale = 1 / sqrtf((float)shape->head_dim);
    a.exponent = a.scale * LOG2_E;
    a.q = (const bf16 *)q, a.k = (const bf16 *)k, a.v = (const bf16 *)v;
    a.norm = shape->norm;
    a.vectors = shape->head_dim % 8 == 0 && is_aligned(q, shape->q_stride) &&
                is_aligned(k, shape->kv_stride) && is_aligned(v, shape->kv_stride);
    return a;
}

size_t room_of_block(const need &n) {
    const size_t reserved = 1024;
    return lam_cuda_properties()->sharedMemPerMultiprocessor / (size_t)n.blocks - reserved;
}

/* Rows are resident where as many blocks as registers allow have the shared memory for it. A block takes whole
 * heads, so that their rows are read once, unless that leaves multiprocessors idle. */
division divide(const arguments &a, int64_t batch, const need &n) {
    const cudaDeviceProp *device = lam_cuda_properties();
    const size_t room = room_of_block(n) - n.block_bytes;
    const int64_t wanted = 2 * (int64_t)n.blocks * device->multiProcessorCount, heads = batch * a.heads;
    const int rows = round_up(n.others, 8);
    const size_t head_bytes = (size_t)rows * (size_t)(2 * n.row_bytes + n.extra);
    division d = {};
    d.units = (n.count + n.rows - 1) / n.rows;
    d.units_a_block = WARPS;
    d.heads_a_block = 1;
    d.resident = head_bytes <= room;
    if (d.resident) {
        while (d.heads_a_block * d.units < WARPS && a.heads % (2 * d.heads_a_block) == 0 &&
               2 * (size_t)d.heads_a_block * head_bytes <= room && heads / (2 * d.heads_a_block) >= wanted)
            d.heads_a_block *= 2;
        d.units_a_block = d.units;
        while (d.units_a_block > WARPS && heads * lam_blocks(d.units, d.units_a_block) < wanted)
            d.units_a_block = (int)lam_blocks(d.units_a_block / 2, WARPS) * WARPS;
    }
    d.parts = (d.units + d.units_a_block - 1) / d.units_a_block;
    d.groups = a.heads / d.heads_a_block;
    d.room = d.resident ? d.heads_a_block * rows : n.stages * STAGE_ROWS;
    d.side = d.room * n.row_bytes;
    return d;
}

size_t shared_bytes(const division &d, const need &n) {
    return (size_t)d.room * (size_t)(2 * n.row_bytes + n.extra) + n.block_bytes;
}

int64_t most_samples(void) { return lam_cuda_properties()->maxGridSize[2]; }

bool allow_shared(const void *kernel) {
    lam_cuda_launched(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                           (int)lam_cuda_properties()->sharedMemPerBlockOptin),
                      "shared memory of attention");
    return true;
}

size_t less_bytes(const lam_attention_shape *shape) {
    return ((size_t)(shape->batch * shape->heads * shape->queries) * sizeof(float) + 255) / 256 * 256;
}

namespace {

size_t workspace_float(const lam_attention_shape *shape, bool backward) {
    return shape->norm.on ? apart_bytes(shape, backward, sizeof(float)) : backward ? less_bytes(shape) : 0;
}

size_t workspace(const lam_attention_shape *shape, bool backward) {
    if (shape->norm.on && !(backward ? backward_takes_norm(shape) : forward_takes_norm(shape)))
        return apart_bytes(shape, backward, sizeof(bf16));
    return backward ? less_bytes(shape) + (shape->norm.on ? sums_norm_bytes(shape) : 0) : 0;
}

/* ---- the operations ---- */

/* integers, behind the heads; bit k: the sums of the gradient of input k, for the map that makes it */
enum { SUMS_TAKEN = 1 };

bool is_cross(const lam_node *node) { return node->inputs[0]->shape[2] == node->outputs[0]->shape[2]; }

/* Of the table of sums for `tokens` rows a sample: units have 16 rows or more. */
size_t sums_bytes(const lam_attention_shape &s, int64_t tokens, int parts) {
    return (size_t)(s.batch * lam_blocks(tokens, 16) * parts * s.out_stride) * sizeof(float);
}

void sizes(lam_node *node) {
    lam_attention_shape s = lam_attention_shape_of(node);
    s.batch = node->outputs[0]->shape[0];
    node->integers[SUMS_TAKEN] = 0;
    node->backward_workspace_bytes = node->kernels->attention_workspace(&s, true);
    if (s.norm.on && !backward_takes_norm(&s)) return; /* gradients of q and k come later */
    for (int k = 0; k <= is_cross(node); k++) {
        /* Where the other side has fewer samples, gradients of the rest are not written. */
        const lam_tensor *x = node->inputs[k];
        if (x->dtype != LAM_BF16 || x->consumers > 1 || x->bound != node->outputs[0]->bound ||
            !lam_cuda_sums_to_take(node, x))
            continue;
        node->integers[SUMS_TAKEN] |= (int64_t)1 << k;
        if (k == 0) node->backward_workspace_bytes += sums_bytes(s, s.queries, 1);
        if (k == is_cross(node)) node->backward_workspace_bytes += sums_bytes(s, s.keys, 2);
    }
}

lam_status backward_op(lam_node *node) {
    const int64_t taken = node->integers[SUMS_TAKEN];
    if (!taken) return node->op->backward(node);
    lam_attention_shape s = lam_attention_shape_of(node);
    lam_attention_tensors t = lam_attention_tensors_of(node);
    lam_cuda_partials q = {}, kv = {};
    if (taken & 1) {
        q.columns = s.out_stride;
        q.sums = lam_cuda_take_sums(node->inputs[0]->producer);
    }
    if (!is_cross(node)) {
        kv.sums = q.sums;
        kv.first = s.out_stride;
        kv.columns = 2 * s.out_stride;
    } else if (taken & 2) {
        kv.sums = lam_cuda_take_sums(node->inputs[1]->producer);
        kv.columns = 2 * s.out_stride;
    }
    backward_with_sums(&s, &t, node->backward_workspace, &q, &kv);
    return LAM_OK;
}

} // namespace

} // namespace lam_attention_parts

void lam_cuda_fill_attention(lam_kernels *f32, lam_kernels *bf16) {
    f32->attention_head_dim = bf16->attention_head_dim = 128;
    f32->attention_workspace = lam_attention_parts::workspace_float;
    bf16->attention_workspace = lam_attention_parts::workspace;
    f32->attention = lam_attention_parts::forward_float;
    f32->attention_backward = lam_attention_parts::backward_float;
    bf16->attention = lam_attention_parts::forward;
    bf16->attention_backward = lam_attention_parts::backward;
}

const lam_op_functions lam_cuda_attention_ops[] = {
    {"attention", lam_attention_parts::sizes, NULL, lam_attention_parts::backward_op, NULL, NULL},
    {"normed_attention", lam_attention_parts::sizes, NULL, lam_attention_parts::backward_op, NULL, NULL},
    {"cross_attention", lam_attention_parts::sizes, NULL, lam_attention_parts::backward_op, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL, NULL}};
