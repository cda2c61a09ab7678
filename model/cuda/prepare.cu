/* The launches of prepare.cuh.
 *
 * Bound by bytes (4 read, 2 written an element), with random rounding by the Philox rounds (about 100 integer operations for 8
 * elements); at most 48 registers; no shared memory. */
#include "base/rng.h"
#include "model/cuda/prepare.cuh"

namespace {

constexpr int threads = 256;

enum { PIECES = 64 };
struct preparation { /* of one launch */
    lam_cuda_piece pieces[PIECES];
    lam_rng_key_t key;
    const int64_t *step;
    int32_t count;
};
static_assert(sizeof(preparation) <= 4096, "what a kernel takes as its arguments");

enum { DRAWS = 8 }; /* of 16 bits, in one block of Philox (model/rounding.c) */

__device__ __forceinline__ float round_by(float value, uint32_t random) {
    uint32_t bits = __float_as_uint(value);
    return (bits & 0x7f800000u) == 0x7f800000u ? value : __uint_as_float((bits + random) & 0xffff0000u);
}

/* A thread has the eight elements of one draw. */
template <typename T, bool at_random>
__global__ void __launch_bounds__(threads) prepare(const preparation p) {
    int32_t at = 0;
    for (int32_t step = PIECES / 2; step > 0; step /= 2)
        if (at + step < p.count && p.pieces[at + step - 1].end <= blockIdx.x) at += step;
    const lam_cuda_piece &w = p.pieces[at];
    int64_t before = w.first < 0 ? 0 : w.first,
            group = before / DRAWS + (int64_t)(blockIdx.x - (at ? p.pieces[at - 1].end : 0)) * threads +
                    threadIdx.x,
            first = group * DRAWS - before;
    if (first >= w.count) return;
    uint32_t words[4] = {0, 0, 0, 0};
    bool random = at_random && w.first >= 0;
    if (random) lam_rng_words4(p.key, (uint32_t)*p.step, (uint64_t)group, 0, words);
    float values[DRAWS];
    const float *from = w.from + first;
    T *to = (T *)w.to + first;
    bool whole = first >= 0 && first + DRAWS <= w.count;
    if (whole && (uintptr_t)from % 16 == 0) {
        *(float4 *)values = *(const float4 *)from;
        *(float4 *)(values + 4) = *(const float4 *)(from + 4);
    } else {
        for (int k = 0; k < DRAWS; k++) values[k] = first + k >= 0 && first + k < w.count ? from[k] : 0.0f;
    }
    __align__(16) T rounded[DRAWS];
#pragma unroll
    for (int k = 0; k < DRAWS; k++) {
        float value = values[k];
        bool inside = first + k >= 0 && first + k < w.count;
        if (w.also && inside) value += w.also[first + k];
        if (w.scale && inside) value *= w.scale[(uint32_t)(first + k) / (uint32_t)w.width];
        if (random) value = round_by(value, words[k / 2] >> (k % 2 * 16) & 0xffffu);
        lam_store(&rounded[k], value);
    }
    if (whole && (uintptr_t)to % 16 == 0) {
#pragma unroll
        for (size_t k = 0; k < sizeof rounded / 16; k++) ((uint4 *)to)[k] = ((const uint4 *)rounded)[k];
    } else {
        for (int k = 0; k < DRAWS; k++)
            if (first + k >= 0 && first + k < w.count) to[k] = rounded[k];
    }
}

/* What is still to be launched, of graphs of one type and rounding. */
struct {
    preparation next;
    const lam_rounding *rounding;
    lam_dtype type;
    std::vector<lam_cuda_piece> *asked; /* NULL, or where pieces go instead */
} pending;

void launch_pending(void) {
    preparation &p = pending.next;
    if (!p.count) return;
    p.key = lam_rng_key(pending.rounding->seed, LAM_RNG_ROUNDING);
    p.step = lam_cuda_step();
    unsigned blocks = p.pieces[p.count - 1].end;
    if (pending.type != LAM_BF16)
        LAM_LAUNCH((prepare<float, false>), blocks, threads, 0, lam_cuda_stream(), p);
    else if (pending.rounding->on)
        LAM_LAUNCH((prepare<__nv_bfloat16, true>), blocks, threads, 0, lam_cuda_stream(), p);
    else
        LAM_LAUNCH((prepare<__nv_bfloat16, false>), blocks, threads, 0, lam_cuda_stream(), p);
    p.count = 0;
}

void add_piece(const lam_node *node, lam_cuda_piece w) {
    if (pending.asked) {
        pending.asked->push_back(w);
        return;
    }
    preparation &p = pending.next;
    lam_dtype type = node->inputs[0]->dtype;
    if (p.count == PIECES || pending.rounding != node->rounding || pending.type != type) launch_pending();
    pending.rounding = node->rounding;
    pending.type = type;
    int64_t before = w.first < 0 ? 0 : w.first, groups = lam_blocks(before + w.count, DRAWS) - before / DRAWS;
    w.end = (p.count ? p.pieces[p.count - 1].end : 0) + (unsigned)lam_blocks(groups, threads);
    p.pieces[p.count++] = w;
}

} // namespace

void lam_cuda_prepare_weights(const lam_node *node, const lam_tensor *w, const float *scale, void *to) {
    const float *from = (const float *)w->data;
    int64_t first = node->rounding->on ? from - node->rounding->weights : -1;
    add_piece(node, {from, NULL, scale, to, w->count, first, (int32_t)lam_tensor_width(w), 0});
}

void lam_cuda_prepare_biases(const lam_node *node, const lam_tensor *b, const float *also, const float *scale,
                             void *to) {
    add_piece(node, {(const float *)b->data, also, scale, to, b->count, -1, 1, 0});
}

lam_status lam_cuda_pieces(lam_node *node, std::vector<lam_cuda_piece> *pieces) {
    pending.asked = pieces;
    lam_status status = node->run.prepare(node);
    pending.asked = NULL;
    return status;
}

lam_status lam_cuda_prepare(lam_node *const *nodes, int64_t count, bool recording) {
    for (int64_t i = 0; i < count; i++) {
        lam_node *node = nodes[i];
        if (!node->run.prepare || node->packed_before || (recording && node->packed_by_update)) continue;
        LAM_TRY(node->run.prepare(node));
    }
    launch_pending();
    return LAM_OK;
}
