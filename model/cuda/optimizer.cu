/* The update of a training step: norm of the gradients, guard, clipping, rules, average (model/cuda/update.h).
 *
 * Bound by bytes: the norm reads the gradients once; adamw and schedulefree read 16 and write 12 bytes an element, lion 12 and 8,
 * lamb reads weights and moments twice; 8 more with the average. A rule is one launch over a table of items, pieces of at most
 * 4,096 elements of one parameter, a block of 256 threads an item, four elements a thread and turn; at most 48 registers.
 * Sums: blocks of 16,384 elements, then one block over their sums, in double and in a fixed order.
 *
 * Muon's products are cuBLASLt's in float32 (model/cuda/linear.cu), a matrix at a time; its other passes read and write each
 * element of a matrix or of its Gram matrix once or twice.
 *
 * Formulas and sources of the rules: model/optimizer.h. A skipped step runs the same launches, which see it and end. */
#include <float.h>
#include <string.h>

#include <algorithm>
#include <vector>

#include "model/cuda/backend.cuh"
#include "model/cuda/sums.cuh"
#include "model/cuda/update.h"
#include "model/optimizers/rules.h"
#include "model/places.h"

enum { THREADS = 256, ITEM = 4096, SUM_THREADS = 512, SUM_BLOCK = 16384, SEARCH_BLOCKS = 1024 };

/* ---- what lies on the device ---- */

struct update_item {
    int64_t offset;
    int32_t count, segment;
};

/* A parameter that is trained. */
struct update_segment {
    int64_t offset, count, first_item;
    double lr_scale;
    int32_t items, decay, entry;
};

/* What the guard decides for the kernels of one step. */
struct update_decision {
    int32_t apply;
    float gradient_scale, average_share;
    double rate, correction1, correction2; /* 1 - beta^updates */
    double share;                          /* schedulefree: of z in x */
};

struct update_memory {
    lam_cuda_update_input input;
    lam_cuda_update_outcome outcome;
    double loss;
    update_decision decision;
};

/* Elements are counted in arenas as in that of the gradients. */
struct update_arenas {
    float *weights, *gradients, *first, *second, *average; /* average NULL: none */
};

/* What one element of a parameter is updated with: lam_*_terms of model/cpu/optimizer.h together. */
struct update_terms {
    float decay_factor, decay, beta1, beta2, eps, lr, step_size, inverse_correction1,
        inverse_root_correction2, gradient_scale, share, trained_step, average_share;
};

static __device__ update_terms terms_of(const update_memory *memory, const update_segment &segment) {
    const lam_cuda_update_input &in = memory->input;
    const update_decision &d = memory->decision;
    double lr = d.rate * segment.lr_scale, decay = segment.decay ? in.weight_decay : 0.0;
    update_terms t;
    t.decay_factor = (float)(1.0 - lr * decay);
    t.decay = (float)decay;
    t.beta1 = (float)in.beta1;
    t.beta2 = (float)in.beta2;
    t.eps = (float)in.eps;
    t.lr = (float)lr;
    t.step_size = (float)(lr / d.correction1);
    t.inverse_correction1 = (float)(1.0 / d.correction1);
    t.inverse_root_correction2 = (float)(1.0 / sqrt(d.correction2));
    t.gradient_scale = d.gradient_scale;
    t.share = (float)d.share;
    t.trained_step = (float)(lr * (1.0 - in.beta1 * (1.0 - d.share)));
    t.average_share = d.average_share;
    return t;
}

/* ---- held gradients, norm, guard ---- */

static __global__ void __launch_bounds__(THREADS) update_hold(const lam_cuda_range *held, float *gradients) {
    lam_cuda_range range = held[blockIdx.x];
    for (int64_t i = range.begin + threadIdx.x; i < range.end; i += THREADS) gradients[i] = 0.0f;
}

/* sums[block] of values[SUM_BLOCK block, ...); values are aligned to 16 bytes. */
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

/* By one block; every thread gets it. */
static __device__ double sum_of_blocks(const double *sums, int64_t blocks, double *partial) {
    double sum = 0;
    for (int64_t i = threadIdx.x; i < blocks; i += blockDim.x) sum += sums[i];
    return lam_block_sum(sum, partial);
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

/* After a skipped step: which entry has the first gradient that is not finite. */
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

/* ---- rules that look at one element ---- */

struct rule_adamw {
    enum { ARENAS = 2 };
    static __device__ __forceinline__ void step(const update_terms &t, float g, float &w, float &m,
                                                float &v) {
        float d = g * t.gradient_scale;
        m = t.beta1 * m + (1.0f - t.beta1) * d;
        v = t.beta2 * v + (1.0f - t.beta2) * d * d;
        w = w * t.decay_factor - t.step_size * m / (sqrtf(v) * t.inverse_root_correction2 + t.eps);
    }
};

struct rule_lion {
    enum { ARENAS = 1 };
    static __device__ __forceinline__ void step(const update_terms &t, float g, float &w, float &m, float &) {
        float d = g * t.gradient_scale, u = t.beta1 * m + (1.0f - t.beta1) * d;
        w = w * t.decay_factor - t.lr * (u > 0.0f ? 1.0f : u < 0.0f ? -1.0f : 0.0f);
        m = t.beta2 * m + (1.0f - t.beta2) * d;
    }
};

/* w is y; the arenas are z and v. */
struct rule_schedule_free {
    enum { ARENAS = 2 };
    static __device__ __forceinline__ void step(const update_terms &t, float g, float &w, float &z,
                                                float &v) {
        float d = g * t.gradient_scale;
        v = t.beta2 * v + (1.0f - t.beta2) * d * d;
        float r = d / (sqrtf(v) * t.inverse_root_correction2 + t.eps) + t.decay * w;
        w = w + t.share * (z - w) - t.trained_step * r;
        z = z - t.lr * r;
    }
};

static __device__ __forceinline__ float lamb_direction(const update_terms &t, float w, float m, float v) {
    return m * t.inverse_correction1 / (sqrtf(v) * t.inverse_root_correction2 + t.eps) + t.decay * w;
}

/* The second of lamb's passes: lr is that of the parameter, norms included; gradients are not read. */
struct rule_lamb_apply {
    enum { ARENAS = 2 };
    static __device__ __forceinline__ void step(const update_terms &t, float, float &w, float &m, float &v) {
        w -= t.lr * lamb_direction(t, w, m, v);
    }
};

/* Where four elements go at once. */
struct update_four {
    float4 w, g, m, v, average;
};

static __device__ __forceinline__ void follow(float &average, float w, float share) {
    average += share * (w - average);
}

/* Of the terms of an item, which the first thread makes. Returns false where the step is skipped. */
static __device__ __forceinline__ bool share_terms(const update_memory *memory, const update_segment &segment,
                                                   update_terms *shared) {
    if (!memory->decision.apply) return false;
    if (threadIdx.x == 0) *shared = terms_of(memory, segment);
    __syncthreads();
    return true;
}

/* ratios (NULL: 1): of each segment, what its rate is multiplied by. */
template <typename Rule>
static __global__ void __launch_bounds__(THREADS)
    update_elements(const update_memory *memory, const update_item *items, const update_segment *segments,
                    const double *ratios, update_arenas a) {
    LAM_SHARED(update_terms, shared, [1]);
    update_item item = items[blockIdx.x];
    if (!share_terms(memory, segments[item.segment], shared)) return;
    update_terms t = shared[0];
    if (ratios)
        t.lr = (float)(memory->decision.rate * segments[item.segment].lr_scale * ratios[item.segment]);
    float *w = a.weights + item.offset, *m = a.first + item.offset, *v = a.second + item.offset,
          *average = a.average + item.offset;
    const float *g = a.gradients + item.offset;
    int wide = item.count / 4;
    for (int i = threadIdx.x; i < wide; i += THREADS) {
        update_four x;
        x.w = reinterpret_cast<float4 *>(w)[i];
        x.g = reinterpret_cast<const float4 *>(g)[i];
        x.m = reinterpret_cast<float4 *>(m)[i];
        x.v = Rule::ARENAS > 1 ? reinterpret_cast<float4 *>(v)[i] : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        Rule::step(t, x.g.x, x.w.x, x.m.x, x.v.x);
        Rule::step(t, x.g.y, x.w.y, x.m.y, x.v.y);
        Rule::step(t, x.g.z, x.w.z, x.m.z, x.v.z);
        Rule::step(t, x.g.w, x.w.w, x.m.w, x.v.w);
        reinterpret_cast<float4 *>(w)[i] = x.w;
        reinterpret_cast<float4 *>(m)[i] = x.m;
        if (Rule::ARENAS > 1) reinterpret_cast<float4 *>(v)[i] = x.v;
        if (!a.average) continue;
        x.average = reinterpret_cast<float4 *>(average)[i];
        follow(x.average.x, x.w.x, t.average_share);
        follow(x.average.y, x.w.y, t.average_share);
        follow(x.average.z, x.w.z, t.average_share);
        follow(x.average.w, x.w.w, t.average_share);
        reinterpret_cast<float4 *>(average)[i] = x.average;
    }
    for (int i = 4 * wide + threadIdx.x; i < item.count; i += THREADS) {
        float none = 0.0f;
        Rule::step(t, g[i], w[i], m[i], Rule::ARENAS > 1 ? v[i] : none);
        if (a.average) follow(average[i], w[i], t.average_share);
    }
}

/* ---- lamb ---- */

/* Moments, and of each item the sums of w^2 and r^2. */
static __global__ void __launch_bounds__(THREADS)
    update_lamb_moments(const update_memory *memory, const update_item *items, const update_segment *segments,
                        update_arenas a, double2 *squares) {
    LAM_SHARED(update_terms, shared, [1]);
    LAM_SHARED(double, partial, [32]);
    update_item item = items[blockIdx.x];
    if (!share_terms(memory, segments[item.segment], shared)) return;
    update_terms t = shared[0];
    double weights = 0, directions = 0;
    for (int64_t i = item.offset + threadIdx.x; i < item.offset + item.count; i += THREADS) {
        float d = a.gradients[i] * t.gradient_scale, w = a.weights[i],
              m = t.beta1 * a.first[i] + (1.0f - t.beta1) * d,
              v = t.beta2 * a.second[i] + (1.0f - t.beta2) * d * d, r = lamb_direction(t, w, m, v);
        a.first[i] = m;
        a.second[i] = v;
        weights += (double)w * (double)w;
        directions += (double)r * (double)r;
    }
    weights = lam_block_sum(weights, partial);
    directions = lam_block_sum(directions, partial);
    if (threadIdx.x == 0) squares[blockIdx.x] = make_double2(weights, directions);
}

/* Block: one segment. */
static __global__ void __launch_bounds__(THREADS)
    update_lamb_ratios(const update_memory *memory, const update_segment *segments, const double2 *squares,
                       double *ratios) {
    LAM_SHARED(double, partial, [32]);
    if (!memory->decision.apply) return;
    const update_segment &s = segments[blockIdx.x];
    const double2 *own = squares + s.first_item;
    int items = s.items;
    double weights = 0, directions = 0;
    for (int i = threadIdx.x; i < items; i += THREADS) {
        weights += own[i].x;
        directions += own[i].y;
    }
    weights = lam_block_sum(weights, partial);
    directions = lam_block_sum(directions, partial);
    if (threadIdx.x == 0)
        ratios[blockIdx.x] = s.decay && weights > 0 && directions > 0 ? sqrt(weights / directions) : 1.0;
}

/* ---- muon ---- */

/* u: the direction before it is made orthogonal. A skipped step leaves u as it is, and what is made of it is not used. */
static __global__ void __launch_bounds__(THREADS)
    update_muon_momentum(const update_memory *memory, const float *g, float *m, float *u, int64_t count) {
    if (!memory->decision.apply) return;
    float momentum = (float)memory->input.momentum, scale = memory->decision.gradient_scale;
    for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < count;
         i += (int64_t)gridDim.x * THREADS) {
        float d = (1.0f - momentum) * (g[i] * scale);
        float next = momentum * m[i] + d;
        m[i] = next;
        u[i] = momentum * next + d;
    }
}

/* x /= |x|; a matrix of zeros stays one. */
static __global__ void __launch_bounds__(SUM_THREADS)
    update_muon_normalise(float *x, int64_t count, const double *sums, int64_t blocks) {
    LAM_SHARED(double, partial, [32]);
    double norm = sqrt(sum_of_blocks(sums, blocks, partial));
    float factor = norm > 0 ? (float)(1 / norm) : 0.0f;
    for (int64_t i = (int64_t)blockIdx.x * SUM_THREADS + threadIdx.x; i < count;
         i += (int64_t)gridDim.x * SUM_THREADS)
        x[i] = factor * x[i];
}

static __global__ void __launch_bounds__(THREADS)
    update_muon_scale(const float *from, float *to, int64_t count, float factor) {
    for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < count;
         i += (int64_t)gridDim.x * THREADS)
        to[i] = factor * from[i];
}

/* w = decay w - lr 0.2 sqrt(longer) direction */
static __global__ void __launch_bounds__(THREADS)
    update_muon_apply(const update_memory *memory, const update_segment *segment, const float *direction,
                      update_arenas a, int64_t first, int64_t count, double longer) {
    LAM_SHARED(update_terms, shared, [1]);
    if (!share_terms(memory, *segment, shared)) return;
    float step = (float)(memory->decision.rate * segment->lr_scale * -0.2 * sqrt(longer)),
          decay = shared[0].decay_factor, share = shared[0].average_share;
    for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < count;
         i += (int64_t)gridDim.x * THREADS) {
        float w = decay * a.weights[first + i] + step * direction[i];
        a.weights[first + i] = w;
        if (a.average) follow(a.average[first + i], w, share);
    }
}

/* ---- weights for inference ---- */

/* schedulefree: x = y + ratio (y - z) takes the place of y, which `kept` gets. */
static __global__ void __launch_bounds__(THREADS)
    update_swap_averaged(float *y, const float *z, float *kept, int64_t count, float ratio) {
    for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < count;
         i += (int64_t)gridDim.x * THREADS) {
        float trained = y[i];
        y[i] = trained + ratio * (trained - z[i]);
        kept[i] = trained;
    }
}

/* ---- the host ---- */

enum update_rule { RULE_ADAMW, RULE_LION, RULE_LAMB, RULE_MUON, RULE_SCHEDULE_FREE };

/* By name: the module sees no more of the program than it must. */
static update_rule rule_of(const lam_optimizer *optimizer) {
    static const char *const names[] = {"adamw", "lion", "lamb", "muon", "schedulefree"};
    int rule = 0;
    while (strcmp(names[rule], optimizer->name) != 0) rule++;
    return (update_rule)rule;
}

struct lam_cuda_update {
    const lam_parameters *parameters;
    const lam_optimizer *optimizer;
    update_rule rule;
    update_arenas arenas;
    update_memory *memory;
    update_item *items; /* of what the rule takes element by element, then of muon's matrices */
    update_segment *segments;
    lam_cuda_range *held;
    double *sums, *ratios;
    double2 *squares;
    float *workspace;
    int64_t item_count, element_items, segment_count, held_count;
    int64_t sum_blocks;
};

static lam_status failed(cudaError_t error, const char *what) {
    cudaGetLastError();
    LAM_FAIL(error == cudaErrorMemoryAllocation ? LAM_ERROR_MEMORY : LAM_ERROR_EXTERNAL,
             "CUDA: update: %s: %s", what, cudaGetErrorString(error));
}

#define TRY_CUDA(call)                                                                                       \
    do {                                                                                                     \
        cudaError_t try_error = (call);                                                                      \
        if (try_error != cudaSuccess) return failed(try_error, #call);                                       \
    } while (0)

static int64_t parameter_matrices(const lam_parameter_entry *entry) {
    int64_t rows[LAM_MATRIX_PARTS], columns;
    return lam_parameter_matrices(entry, rows, &columns);
}

struct update_tables {
    std::vector<update_segment> segments;
    std::vector<update_item> items;
    int64_t element_items;
};

static void add_items(update_tables *t, const lam_parameters *p, bool matrices, bool muon) {
    for (size_t k = 0; k < t->segments.size(); k++) {
        update_segment &s = t->segments[k];
        if ((muon && parameter_matrices(&p->entry[s.entry]) > 0) != matrices) continue;
        s.first_item = (int64_t)t->items.size();
        for (int64_t at = 0; at < s.count; at += ITEM)
            t->items.push_back({s.offset + at, (int32_t)std::min<int64_t>(ITEM, s.count - at), (int32_t)k});
        s.items = (int32_t)((int64_t)t->items.size() - s.first_item);
    }
}

static update_tables tables_of(const lam_cuda_update_options *o) {
    update_tables t;
    const lam_parameters *p = o->parameters;
    bool muon = rule_of(o->optimizer) == RULE_MUON;
    for (int64_t i = 0; i < p->entries; i++) {
        const lam_parameter_entry *e = &p->entry[i];
        if (e->init == LAM_INIT_FROZEN || e->count == 0) continue;
        update_segment s = {};
        s.offset = e->offset;
        s.count = e->count;
        s.lr_scale = e->lr_scale;
        s.decay = e->decay;
        s.entry = (int32_t)i;
        t.segments.push_back(s);
    }
    add_items(&t, p, false, muon);
    t.element_items = (int64_t)t.items.size();
    if (muon) add_items(&t, p, true, true);
    return t;
}

/* Floats of one matrix in the workspace: as many that the next begins aligned. */
static int64_t padded(int64_t count) { return (count + 63) / 64 * 64; }

/* Floats: the direction of a matrix, the next one, and three squares of its shorter side. */
static int64_t workspace_of(const lam_cuda_update_options *o) {
    int64_t most = 0;
    for (int64_t i = 0; i < o->parameters->entries && rule_of(o->optimizer) == RULE_MUON; i++) {
        int64_t rows[LAM_MATRIX_PARTS], columns;
        int parts = lam_parameter_matrices(&o->parameters->entry[i], rows, &columns);
        for (int k = 0; k < parts; k++) {
            int64_t side = std::min(rows[k], columns);
            most = std::max(most, 2 * padded(rows[k] * columns) + 3 * padded(side * side));
        }
    }
    return most;
}

static lam_status take(void **out, size_t bytes) {
    TRY_CUDA(cudaMalloc(out, std::max<size_t>(bytes, 1)));
    TRY_CUDA(cudaMemsetAsync(*out, 0, bytes, lam_cuda_stream()));
    return LAM_OK;
}

/* Either allocates, or only counts. */
struct room {
    bool count_only;
    int64_t bytes;
};
template <typename V> static lam_status reserve(room *r, V **out, int64_t count) {
    size_t bytes = (size_t)count * sizeof(V);
    r->bytes += (int64_t)bytes;
    return r->count_only || count == 0 ? LAM_OK : take((void **)out, bytes);
}

static lam_status reserve_all(room *r, lam_cuda_update *u, const lam_cuda_update_options *o,
                              const update_tables &t) {
    int64_t n = o->parameters->trainable;
    bool lamb = rule_of(o->optimizer) == RULE_LAMB;
    LAM_TRY(reserve(r, &u->memory, 1));
    LAM_TRY(reserve(r, &u->items, (int64_t)t.items.size()));
    LAM_TRY(reserve(r, &u->segments, (int64_t)t.segments.size()));
    LAM_TRY(reserve(r, &u->held, o->held_count));
    LAM_TRY(reserve(r, &u->sums, lam_blocks(n, SUM_BLOCK)));
    LAM_TRY(reserve(r, &u->squares, lamb ? (int64_t)t.items.size() : 0));
    LAM_TRY(reserve(r, &u->ratios, lamb ? (int64_t)t.segments.size() : 0));
    LAM_TRY(reserve(r, &u->workspace, workspace_of(o)));
    LAM_TRY(reserve(r, &u->arenas.first, n));
    LAM_TRY(reserve(r, &u->arenas.second, o->optimizer->arenas > 1 ? n : 0));
    return reserve(r, &u->arenas.average, o->average ? n : 0);
}

static int64_t update_bytes(const lam_cuda_update_options *o) {
    lam_cuda_update none = {};
    room r = {true, 0};
    reserve_all(&r, &none, o, tables_of(o));
    return r.bytes;
}

template <typename V> static lam_status send(V *device, const V *host, int64_t count) {
    if (count == 0) return LAM_OK;
    TRY_CUDA(
        cudaMemcpyAsync(device, host, (size_t)count * sizeof(V), cudaMemcpyHostToDevice, lam_cuda_stream()));
    TRY_CUDA(cudaStreamSynchronize(lam_cuda_stream()));
    return LAM_OK;
}

static void update_close(lam_cuda_update **update) {
    lam_cuda_update *u = *update;
    if (!u) return;
    void *all[] = {u->memory, u->items,     u->segments,     u->held,          u->sums,          u->squares,
                   u->ratios, u->workspace, u->arenas.first, u->arenas.second, u->arenas.average};
    cudaStreamSynchronize(lam_cuda_stream());
    for (void *one : all) cudaFree(one);
    delete u;
    *update = NULL;
}

static lam_status fill_update(lam_cuda_update *u, const lam_cuda_update_options *o) {
    update_tables t = tables_of(o);
    const lam_parameters *p = o->parameters;
    u->parameters = p;
    u->optimizer = o->optimizer;
    u->rule = rule_of(o->optimizer);
    u->item_count = (int64_t)t.items.size();
    u->element_items = t.element_items;
    u->segment_count = (int64_t)t.segments.size();
    u->held_count = o->held_count;
    u->sum_blocks = lam_blocks(p->trainable, SUM_BLOCK);
    u->arenas.weights = p->device_weights;
    u->arenas.gradients = p->device_gradients;
    room r = {false, 0};
    LAM_TRY(reserve_all(&r, u, o, t));
    LAM_TRY(send(u->items, t.items.data(), u->item_count));
    LAM_TRY(send(u->segments, t.segments.data(), u->segment_count));
    LAM_TRY(send(u->held, o->held, u->held_count));
    if (u->rule == RULE_SCHEDULE_FREE) /* z starts where the weights do */
        TRY_CUDA(cudaMemcpyAsync(u->arenas.first, u->arenas.weights, (size_t)p->trainable * sizeof(float),
                                 cudaMemcpyDeviceToDevice, lam_cuda_stream()));
    return LAM_OK;
}

static lam_status update_open(lam_cuda_update **out, const lam_cuda_update_options *o) {
    *out = NULL;
    const void *arenas[2] = {o->parameters->device_weights, o->parameters->device_gradients};
    for (const void *arena : arenas)
        LAM_REQUIRE(arena && reinterpret_cast<uintptr_t>(arena) % sizeof(float4) == 0, LAM_ERROR_INTERNAL,
                    "update: the parameters have no aligned arenas on the device");
    lam_cuda_update *u = new lam_cuda_update();
    lam_status status = fill_update(u, o);
    if (status != LAM_OK) update_close(&u);
    *out = u;
    return status;
}

static lam_status update_push(lam_cuda_update *u, float *const *arena, const float *average, int64_t updates,
                              int64_t skipped, int64_t skipped_in_row) {
    int64_t n = u->parameters->trainable;
    LAM_TRY(send(u->arenas.first, (const float *)arena[0], n));
    if (u->arenas.second) LAM_TRY(send(u->arenas.second, (const float *)arena[1], n));
    if (u->arenas.average && average) LAM_TRY(send(u->arenas.average, average, n));
    lam_cuda_update_outcome before = {};
    before.updates = updates;
    before.skipped = skipped;
    before.skipped_in_row = skipped_in_row;
    before.first_non_finite = LAM_CUDA_NO_ENTRY;
    return send(&u->memory->outcome, (const lam_cuda_update_outcome *)&before, 1);
}

static lam_status update_pull(const lam_cuda_update *u, float *const *arena, float *average) {
    size_t bytes = (size_t)u->parameters->trainable * sizeof(float);
    cudaStream_t stream = lam_cuda_stream();
    TRY_CUDA(cudaMemcpyAsync(arena[0], u->arenas.first, bytes, cudaMemcpyDeviceToHost, stream));
    if (u->arenas.second)
        TRY_CUDA(cudaMemcpyAsync(arena[1], u->arenas.second, bytes, cudaMemcpyDeviceToHost, stream));
    if (u->arenas.average && average)
        TRY_CUDA(cudaMemcpyAsync(average, u->arenas.average, bytes, cudaMemcpyDeviceToHost, stream));
    TRY_CUDA(cudaStreamSynchronize(stream));
    return LAM_OK;
}

static void update_set(lam_cuda_update *u, const lam_cuda_update_input *input) {
    LAM_LAUNCH((update_set_input), 1, 1, 0, lam_cuda_stream(), u->memory, *input);
}

static void update_loss(lam_cuda_update *u, const float *loss) {
    LAM_LAUNCH((update_add_loss), 1, 1, 0, lam_cuda_stream(), u->memory, loss);
}

static void update_outcome(const lam_cuda_update *u, lam_cuda_update_outcome *pinned) {
    lam_cuda_launched(cudaMemcpyAsync(pinned, &u->memory->outcome, sizeof *pinned, cudaMemcpyDeviceToHost,
                                      lam_cuda_stream()),
                      "outcome of the update");
}

template <typename Rule> static void launch_elements(const lam_cuda_update *u, const double *ratios) {
    if (u->element_items == 0) return;
    LAM_LAUNCH((update_elements<Rule>), (unsigned)u->element_items, THREADS, 0, lam_cuda_stream(),
               (const update_memory *)u->memory, (const update_item *)u->items,
               (const update_segment *)u->segments, ratios, u->arenas);
}

static void launch_lamb(const lam_cuda_update *u) {
    LAM_LAUNCH((update_lamb_moments), (unsigned)u->element_items, THREADS, 0, lam_cuda_stream(),
               (const update_memory *)u->memory, (const update_item *)u->items,
               (const update_segment *)u->segments, u->arenas, u->squares);
    LAM_LAUNCH((update_lamb_ratios), (unsigned)u->segment_count, THREADS, 0, lam_cuda_stream(),
               (const update_memory *)u->memory, (const update_segment *)u->segments,
               (const double2 *)u->squares, u->ratios);
    launch_elements<rule_lamb_apply>(u, u->ratios);
}

/* Blocks of a pass over `count` elements, several elements a thread. */
static unsigned pass_blocks(int64_t count, int threads) {
    return (unsigned)std::min<int64_t>(lam_blocks(count, 4 * threads), 4096);
}

static void scale(const float *from, float *to, int64_t count, float factor) {
    LAM_LAUNCH((update_muon_scale), pass_blocks(count, THREADS), THREADS, 0, lam_cuda_stream(), from, to,
               count, factor);
}

/* next = a x + b (x x^T) x + c (x x^T)^2 x, as model/optimizers/muon.c. */
static lam_status quintic(const float *x, float *next, int64_t rows, int64_t columns, float *workspace) {
    bool tall = rows > columns;
    int64_t side = tall ? columns : rows, length = tall ? rows : columns, square = side * side;
    float *gram = workspace, *scaled = gram + padded(square), *polynomial = scaled + padded(square);
    LAM_TRY(lam_cuda_product_f32(tall, !tall, side, side, length, x, columns, x, columns, 0, gram, side));
    scale(gram, scaled, square, LAM_MUON_C);
    scale(gram, polynomial, square, LAM_MUON_B);
    LAM_TRY(
        lam_cuda_product_f32(false, false, side, side, side, scaled, side, gram, side, 1, polynomial, side));
    scale(x, next, rows * columns, LAM_MUON_A);
    return tall ? lam_cuda_product_f32(false, false, rows, columns, columns, x, columns, polynomial, columns,
                                       1, next, columns)
                : lam_cuda_product_f32(false, false, rows, columns, rows, polynomial, rows, x, columns, 1,
                                       next, columns);
}

/* *result: x or workspace. */
static lam_status orthogonalise(const lam_cuda_update *u, float *x, int64_t rows, int64_t columns,
                                float *workspace, const float **result) {
    int64_t count = rows * columns, blocks = lam_blocks(count, SUM_BLOCK);
    LAM_LAUNCH((update_squares), (unsigned)blocks, SUM_THREADS, 0, lam_cuda_stream(), (const float *)x, count,
               u->sums);
    LAM_LAUNCH((update_muon_normalise), pass_blocks(count, SUM_THREADS), SUM_THREADS, 0, lam_cuda_stream(), x,
               count, (const double *)u->sums, blocks);
    float *from = x, *to = workspace;
    for (int i = 0; i < LAM_MUON_STEPS; i++) {
        LAM_TRY(quintic(from, to, rows, columns, workspace + padded(count)));
        std::swap(from, to);
    }
    *result = from;
    return LAM_OK;
}

static lam_status launch_matrix(const lam_cuda_update *u, int64_t segment, int64_t first, int64_t rows,
                                int64_t columns) {
    int64_t count = rows * columns;
    float *direction = u->workspace;
    const float *orthogonal;
    LAM_LAUNCH((update_muon_momentum), pass_blocks(count, THREADS), THREADS, 0, lam_cuda_stream(),
               (const update_memory *)u->memory, (const float *)u->arenas.gradients + first,
               u->arenas.first + first, direction, count);
    LAM_TRY(orthogonalise(u, direction, rows, columns, direction + padded(count), &orthogonal));
    LAM_LAUNCH((update_muon_apply), pass_blocks(count, THREADS), THREADS, 0, lam_cuda_stream(),
               (const update_memory *)u->memory, (const update_segment *)u->segments + segment, orthogonal,
               u->arenas, first, count, (double)std::max(rows, columns));
    return LAM_OK;
}

static lam_status launch_matrices(const lam_cuda_update *u) {
    int64_t segment = 0;
    for (int64_t i = 0; i < u->parameters->entries; i++) {
        const lam_parameter_entry *e = &u->parameters->entry[i];
        if (e->init == LAM_INIT_FROZEN || e->count == 0) continue;
        int64_t rows[LAM_MATRIX_PARTS], columns, at = e->offset;
        int parts = lam_parameter_matrices(e, rows, &columns);
        for (int k = 0; k < parts; k++) {
            LAM_TRY(launch_matrix(u, segment, at, rows[k], columns));
            at += rows[k] * columns;
        }
        segment++;
    }
    return LAM_OK;
}

static lam_status update_enqueue(lam_cuda_update *u) {
    cudaStream_t stream = lam_cuda_stream();
    if (u->held_count)
        LAM_LAUNCH((update_hold), (unsigned)u->held_count, THREADS, 0, stream,
                   (const lam_cuda_range *)u->held, u->arenas.gradients);
    LAM_LAUNCH((update_squares), (unsigned)u->sum_blocks, SUM_THREADS, 0, stream,
               (const float *)u->arenas.gradients, u->parameters->trainable, u->sums);
    LAM_LAUNCH((update_guard), 1, SUM_THREADS, 0, stream, u->memory, (const double *)u->sums, u->sum_blocks,
               u->rule == RULE_SCHEDULE_FREE);
    switch (u->rule) {
    case RULE_LION: launch_elements<rule_lion>(u, NULL); break;
    case RULE_LAMB: launch_lamb(u); break;
    case RULE_SCHEDULE_FREE: launch_elements<rule_schedule_free>(u, NULL); break;
    case RULE_ADAMW: launch_elements<rule_adamw>(u, NULL); break;
    case RULE_MUON:
        launch_elements<rule_adamw>(u, NULL);
        LAM_TRY(launch_matrices(u));
        break;
    }
    LAM_LAUNCH((update_find_non_finite), (unsigned)std::min<int64_t>(u->item_count, SEARCH_BLOCKS), THREADS,
               0, stream, u->memory, (const update_item *)u->items, u->item_count,
               (const update_segment *)u->segments, (const float *)u->arenas.gradients);
    return LAM_OK;
}

static void use_averaged(const lam_cuda_update *u, double beta1) {
    int64_t n = u->parameters->trainable;
    if (!u->optimizer->averaged) return;
    LAM_LAUNCH((update_swap_averaged), pass_blocks(n, THREADS), THREADS, 0, lam_cuda_stream(),
               u->arenas.weights, (const float *)u->arenas.first, u->arenas.gradients, n,
               (float)(1.0 / beta1 - 1.0));
}

static void use_trained(const lam_cuda_update *u) {
    if (!u->optimizer->averaged) return;
    lam_cuda_launched(cudaMemcpyAsync(u->arenas.weights, u->arenas.gradients,
                                      (size_t)u->parameters->trainable * sizeof(float),
                                      cudaMemcpyDeviceToDevice, lam_cuda_stream()),
                      "weights of the training");
}

static double *loss_of(const lam_cuda_update *u) { return &u->memory->loss; }

extern "C" const lam_cuda_updates *lam_cuda_updates_get(void) {
    static const lam_cuda_updates functions = {update_open,    update_close, update_bytes, update_push,
                                               update_pull,    update_set,   update_loss,  update_enqueue,
                                               update_outcome, use_averaged, use_trained,  loss_of};
    return &functions;
}
