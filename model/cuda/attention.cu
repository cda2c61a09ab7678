/* Attention: which kernel, and how a pass is shared out among blocks (attention.cuh). */
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

static size_t workspace(const lam_attention_shape *shape, bool backward) {
    size_t bytes = (size_t)(shape->batch * shape->heads * shape->queries) * sizeof(float);
    return backward ? (bytes + 255) / 256 * 256 : 0;
}

} // namespace lam_attention_parts

void lam_cuda_fill_attention(lam_kernels *f32, lam_kernels *bf16) {
    f32->attention_head_dim = bf16->attention_head_dim = 128;
    f32->attention_workspace = bf16->attention_workspace = lam_attention_parts::workspace;
    f32->attention = lam_attention_parts::forward_float;
    f32->attention_backward = lam_attention_parts::backward_float;
    bf16->attention = lam_attention_parts::forward;
    bf16->attention_backward = lam_attention_parts::backward;
}
