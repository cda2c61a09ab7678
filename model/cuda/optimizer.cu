/* Update rules that go element by element, with the average of the weights and their copies in bfloat16 in the same pass.
 *
 * Bound by bytes: adamw and schedulefree read 16 and write 12 bytes an element, lion 12 and 8, lamb reads weights and moments
 * twice; 8 more with the average, 2 with a copy. A rule is one launch over the table of items (update.cu), a block of 256
 * threads an item, four elements a thread and turn; at most 48 registers; 36 bytes of shared memory, 288 where sums are taken. */
#include "model/cuda/update.cuh"
#include "model/cuda/vector.cuh"

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
        if (item.copy)
            reinterpret_cast<uint2 *>(item.copy)[i] =
                make_uint2(lam_pair(x.w.x, x.w.y), lam_pair(x.w.z, x.w.w));
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
        if (item.copy) lam_store(&item.copy[i], w[i]);
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

/* ---- copies ---- */

static __global__ void __launch_bounds__(THREADS)
    update_write_copies(const update_item *items, const float *weights) {
    update_item item = items[blockIdx.x];
    if (!item.copy) return;
    for (int i = threadIdx.x; i < item.count; i += THREADS)
        lam_store(&item.copy[i], weights[item.offset + i]);
}

/* ---- the host ---- */

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

void lam_cuda_update_elements(const lam_cuda_update *u) {
    switch (u->rule) {
    case RULE_LION: launch_elements<rule_lion>(u, NULL); break;
    case RULE_LAMB: launch_lamb(u); break;
    case RULE_SCHEDULE_FREE: launch_elements<rule_schedule_free>(u, NULL); break;
    case RULE_ADAMW:
    case RULE_MUON: launch_elements<rule_adamw>(u, NULL); break;
    }
}

void lam_cuda_write_copies(const lam_cuda_update *u) {
    if (!u->has_copies) return;
    LAM_LAUNCH((update_write_copies), (unsigned)u->element_items, THREADS, 0, lam_cuda_stream(),
               (const update_item *)u->items, (const float *)u->arenas.weights);
}
