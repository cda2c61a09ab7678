/* Stochastic depth: which samples keep a branch, and their rows side by side. The same bits as model/ops/depth.c.
 *
 * depth_plan is one block of 256 threads over the samples; depth_gather is bound by bytes, a block of 256 threads for a piece of
 * a sample, 16 bytes a thread and turn where samples are aligned. At most 40 registers. */
#include "base/rng.h"
#include "model/cuda/backend.cuh"
#include "model/cuda/sums.cuh"

enum { THREADS = 256, PIECE = 16384 /* bytes of a sample that a block copies */ };

static __global__ void __launch_bounds__(THREADS)
    depth_places(lam_rng_key_t key, const int64_t *step, const int64_t *ids, const float *drop_scale,
                 int64_t branch, double branch_rate, int32_t *place, int64_t *count, float *scale,
                 int64_t batch) {
    LAM_SHARED(int32_t, kept_by, [THREADS / 32]); /* warps */
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, word = (int)(branch % 4);
    double rate = __dmul_rn(branch_rate, (double)*drop_scale);
    int32_t before = 0;
    for (int64_t first = 0; first < batch; first += THREADS) {
        int64_t b = first + threadIdx.x;
        bool kept = false;
        if (b < batch) {
            uint32_t words[4];
            lam_rng_words4(key, (uint32_t)*step, (uint64_t)ids[b], (uint32_t)(branch / 4), words);
            uint32_t own = word == 0 ? words[0] : word == 1 ? words[1] : word == 2 ? words[2] : words[3];
            kept = !((double)lam_word_uniform(own) < rate);
        }
        unsigned all = __ballot_sync(LAM_WHOLE_WARP, kept);
        __syncthreads(); /* the counts before have been read */
        if (lane == 0) kept_by[warp] = __popc(all);
        __syncthreads();
        int32_t at = before + __popc(all & ((1u << lane) - 1));
        for (int w = 0; w < THREADS / 32; w++) {
            if (w < warp) at += kept_by[w];
            before += kept_by[w];
        }
        if (b < batch) place[b] = kept ? at : -1;
    }
    if (threadIdx.x == 0) {
        *count = before;
        *scale = (float)(1 / (1 - rate));
    }
}

static lam_status depth_plan_forward(lam_node *node) {
    const lam_tensor *ids = node->inputs[1];
    LAM_LAUNCH((depth_places), 1, THREADS, 0, lam_cuda_stream(),
               lam_rng_key((uint64_t)node->integers[0], LAM_RNG_DEPTH),
               (const int64_t *)node->inputs[0]->data, (const int64_t *)ids->data,
               (const float *)node->inputs[2]->data, node->integers[1], node->numbers[0],
               (int32_t *)node->outputs[0]->data, (int64_t *)node->outputs[1]->data,
               (float *)node->outputs[2]->data, ids->count);
    return LAM_OK;
}

/* V: as many bytes as samples are aligned to. Block: piece blockIdx.x % pieces of sample blockIdx.x / pieces, of x and of y:
 * where the sample is kept it is copied to its place, and where fewer than as many are kept, its row of y becomes zero. */
template <typename V>
static __global__ void __launch_bounds__(THREADS)
    depth_copy(const V *x, const int32_t *place, const int64_t *kept, V *y, int64_t samples, int64_t each,
               int64_t pieces) {
    int64_t b = blockIdx.x / pieces, length = PIECE / (int64_t)sizeof(V),
            first = blockIdx.x % pieces * length, end = first + length < each ? first + length : each,
            to = place[b];
    if (to >= 0)
        for (int64_t i = first + threadIdx.x; i < end; i += THREADS) y[to * each + i] = x[b * each + i];
    if (b >= *kept && b < samples)
        for (int64_t i = first + threadIdx.x; i < end; i += THREADS) y[b * each + i] = V();
}

template <typename V> static void copy_samples(const lam_node *node, int64_t sample_bytes) {
    const lam_tensor *x = node->inputs[0], *y = node->outputs[0];
    int64_t pieces = lam_blocks(sample_bytes, PIECE),
            samples = lam_tensor_rows(y) * lam_tensor_width(y) /
                      (y->count / y->shape[0]); /* a row for each, or a bucket */
    LAM_LAUNCH((depth_copy<V>), (unsigned)(x->shape[0] * pieces), THREADS, 0, lam_cuda_stream(),
               (const V *)x->data, (const int32_t *)node->inputs[1]->data, (const int64_t *)y->bound->data,
               (V *)y->data, samples, sample_bytes / (int64_t)sizeof(V), pieces);
}

static lam_status depth_gather_forward(lam_node *node) {
    const lam_tensor *x = node->inputs[0];
    int64_t bytes = x->count / x->shape[0] * (int64_t)lam_dtype_bytes(x->dtype);
    uintptr_t all = reinterpret_cast<uintptr_t>(x->data) |
                    reinterpret_cast<uintptr_t>(node->outputs[0]->data) | (uintptr_t)bytes;
    if (all % sizeof(uint4) == 0)
        copy_samples<uint4>(node, bytes);
    else if (all % sizeof(uint32_t) == 0)
        copy_samples<uint32_t>(node, bytes);
    else
        copy_samples<unsigned char>(node, bytes);
    return LAM_OK;
}

extern const lam_op_functions lam_cuda_depth_ops[] = {
    {"depth_plan", NULL, depth_plan_forward, NULL, NULL, NULL},
    {"depth_gather", NULL, depth_gather_forward, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL, NULL}};
