/* The guard of an update: held gradients, the norm of all, whether the step is taken, how far it is clipped.
 *
 * Bound by bytes: the gradients are read once. Sums: blocks of 16,384 elements and 512 threads, then one block over their sums, in
 * double and in a fixed order. At most 40 registers; 256 bytes of shared memory. */
#include <float.h>

#include "model/cuda/update.cuh"

enum { SEARCH_BLOCKS = 1024 };

static __global__ void __launch_bounds__(THREADS) update_hold(const lam_cuda_range *held, float *gradients) {
    lam_cuda_range range = held[blockIdx.x];
    for (int64_t i = range.begin + threadIdx.x; i < range.end; i += THREADS) gradients[i] = 0.0f;
}

static __global__ void __launch_bounds__(SUM_THREADS)
    update_squares(const float *values, int64_t count, double *sums) {
    LAM_SHARED(double, partial, [32]);
    int64_t begin = (int64_t)blockIdx.x * SUM_BLOCK,
            end = begin + SUM_BLOCK < count ? begin + SUM_BLOCK : count;
    double sum = 0;
    int64_t wide = begin + (end - begin) / 4 * 4;
    for (int64_t i = begin + 4 * threadIdx.x; i < wide; i += 4 * SUM_THREADS) {
        float4 v = *reinterpret_cast<const float4 *>(values + i);
        sum += (double)v.x * (double)v.x + (double)v.y * (double)v.y + (double)v.z * (double)v.z +
               (double)v.w * (double)v.w;
    }
    for (int64_t i = wide + threadIdx.x; i < end; i += SUM_THREADS)
        sum += (double)values[i] * (double)values[i];
    sum = lam_block_sum(sum, partial);
    if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

static __device__ __forceinline__ bool is_finite(double x) { return fabs(x) <= DBL_MAX; }

static __device__ double risen(double t, double warmup) { return t < warmup ? t / warmup : 1; }

/* schedulefree: rate_t^2 / sum_{i<=t} rate_i^2 (model/optimizers/schedule_free.c). */
static __device__ double share_of(double t, double warmup) {
    double m = fmin(t, floor(warmup)), rising = m > 0 ? m * (m + 1) * (2 * m + 1) / (6 * warmup * warmup) : 0;
    return risen(t, warmup) * risen(t, warmup) / (rising + t - m);
}

static __global__ void __launch_bounds__(SUM_THREADS)
    update_guard(update_memory *memory, const double *sums, int64_t blocks, bool own_warmup) {
    LAM_SHARED(double, partial, [32]);
    double norm = sqrt(sum_of_blocks(sums, blocks, partial));
    if (threadIdx.x > 0) return;
    const lam_cuda_update_input in = memory->input;
    lam_cuda_update_outcome &out = memory->outcome;
    update_decision d = {};
    out.loss = memory->loss;
    memory->loss = 0;
    out.gradient_norm = norm;
    out.rate = in.lr;
    out.first_non_finite = LAM_CUDA_NO_ENTRY;
    d.apply = in.rows != 0 && is_finite(out.loss) && is_finite(norm);
    out.skipped_now = !d.apply;
    if (d.apply) {
        double t = (double)++out.updates;
        out.skipped_in_row = 0;
        if (own_warmup) out.rate = in.lr * risen(t, in.warmup);
        d.rate = out.rate;
        d.gradient_scale = in.clip_norm > 0 && norm > in.clip_norm ? (float)(in.clip_norm / norm) : 1.0f;
        d.correction1 = 1.0 - pow(in.beta1, t);
        d.correction2 = 1.0 - pow(in.beta2, t);
        d.share = share_of(t, in.warmup);
        d.average_share = (float)((1.0 - in.ema) / (1.0 - pow(in.ema, t)));
    } else {
        out.skipped++;
        out.skipped_in_row++;
    }
    memory->decision = d;
}

static __global__ void __launch_bounds__(THREADS)
    update_find_non_finite(update_memory *memory, const update_item *items, int64_t count,
                           const update_segment *segments, const float *gradients) {
    if (memory->decision.apply) return;
    for (int64_t k = blockIdx.x; k < count; k += gridDim.x) {
        update_item item = items[k];
        bool found = false;
        for (int i = threadIdx.x; i < item.count; i += THREADS)
            found |= !is_finite((double)gradients[item.offset + i]);
        if (found) atomicMin(&memory->outcome.first_non_finite, segments[item.segment].entry);
    }
}

static __global__ void update_add_loss(update_memory *memory, const float *loss) {
    memory->loss += (double)*loss;
}

/* The input travels as an argument of the kernel: the host may forget it at once. */
static __global__ void update_set_input(update_memory *memory, lam_cuda_update_input input) {
    memory->input = input;
}

/* ---- the host ---- */

void lam_cuda_set_input(lam_cuda_update *u, const lam_cuda_update_input *input) {
    LAM_LAUNCH((update_set_input), 1, 1, 0, lam_cuda_stream(), u->memory, *input);
}

void lam_cuda_add_loss(lam_cuda_update *u, const float *loss) {
    LAM_LAUNCH((update_add_loss), 1, 1, 0, lam_cuda_stream(), u->memory, loss);
}

void lam_cuda_squares(const float *values, int64_t count, double *sums) {
    LAM_LAUNCH((update_squares), (unsigned)lam_blocks(count, SUM_BLOCK), SUM_THREADS, 0, lam_cuda_stream(),
               values, count, sums);
}

void lam_cuda_guard(const lam_cuda_update *u) {
    if (u->held_count)
        LAM_LAUNCH((update_hold), (unsigned)u->held_count, THREADS, 0, lam_cuda_stream(),
                   (const lam_cuda_range *)u->held, u->arenas.gradients);
    lam_cuda_squares(u->arenas.gradients, u->parameters->trainable, u->sums);
    LAM_LAUNCH((update_guard), 1, SUM_THREADS, 0, lam_cuda_stream(), u->memory, (const double *)u->sums,
               u->sum_blocks, u->rule == RULE_SCHEDULE_FREE);
}

void lam_cuda_find_non_finite(const lam_cuda_update *u) {
    LAM_LAUNCH((update_find_non_finite), (unsigned)std::min<int64_t>(u->item_count, SEARCH_BLOCKS), THREADS,
               0, lam_cuda_stream(), u->memory, (const update_item *)u->items, u->item_count,
               (const update_segment *)u->segments, (const float *)u->arenas.gradients);
}
