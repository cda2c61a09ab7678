/* What the files of the update share (update.h): what lies on the device, what a rule computes with, who does what.
 *
 *     update.cu       what is held, given and taken; the order of a step
 *     guard.cu        held gradients, norm, whether the step is taken
 *     optimizer.cu    rules that go element by element
 *     muon.cu         the rule that goes matrix by matrix
 *
 * Formulas and sources of the rules: model/optimizer.h. A skipped step runs the same launches, which see it and end. */
#ifndef LAMELLA_MODEL_CUDA_UPDATE_CUH
#define LAMELLA_MODEL_CUDA_UPDATE_CUH

#include <algorithm>

#include "model/cuda/backend.cuh"
#include "model/cuda/sums.cuh"
#include "model/cuda/update.h"

enum { THREADS = 256, SUM_THREADS = 512, SUM_BLOCK = 16384 };

/* ---- what lies on the device ---- */

struct update_item {
    int64_t offset;
    __nv_bfloat16 *copy; /* of the weights, which is written with them; NULL: none */
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

enum update_rule { RULE_ADAMW, RULE_LION, RULE_LAMB, RULE_MUON, RULE_SCHEDULE_FREE };

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
    bool has_copies;
    bool bf16; /* products of matrices */
};

/* ---- terms of a rule ---- */

__device__ __forceinline__ update_terms terms_of(const update_memory *memory, const update_segment &segment) {
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

/* Of the terms of an item, which the first thread makes. Returns false where the step is skipped. */
__device__ __forceinline__ bool share_terms(const update_memory *memory, const update_segment &segment,
                                            update_terms *shared) {
    if (!memory->decision.apply) return false;
    if (threadIdx.x == 0) *shared = terms_of(memory, segment);
    __syncthreads();
    return true;
}

__device__ __forceinline__ void follow(float &average, float w, float share) {
    average += share * (w - average);
}

/* ---- sums, passes ---- */

/* By one block; every thread gets it. */
__device__ __forceinline__ double sum_of_blocks(const double *sums, int64_t blocks, double *partial) {
    double sum = 0;
    for (int64_t i = threadIdx.x; i < blocks; i += blockDim.x) sum += sums[i];
    return lam_block_sum(sum, partial);
}

/* Blocks of a pass over `count` elements, several elements a thread. */
static inline unsigned pass_blocks(int64_t count, int threads) {
    return (unsigned)std::min<int64_t>(lam_blocks(count, 4 * threads), 4096);
}

/* ---- guard.cu ---- */

void lam_cuda_set_input(lam_cuda_update *u, const lam_cuda_update_input *input);
void lam_cuda_add_loss(lam_cuda_update *u, const float *loss);
/* sums[b] = the sum of the squares of values[SUM_BLOCK b, ...); values are aligned to 16 bytes. */
void lam_cuda_squares(const float *values, int64_t count, double *sums);
/* Held gradients become zero; the norm of all; the decision. */
void lam_cuda_guard(const lam_cuda_update *u);
/* After a skipped step: which entry has the first gradient that is not finite. */
void lam_cuda_find_non_finite(const lam_cuda_update *u);

/* ---- optimizer.cu, muon.cu ---- */

void lam_cuda_update_elements(const lam_cuda_update *u);
/* Copies of the weights as they are. */
void lam_cuda_write_copies(const lam_cuda_update *u);
lam_status lam_cuda_update_matrices(const lam_cuda_update *u);
lam_status lam_cuda_plan_matrices(const lam_cuda_update *u);
/* Floats that lam_cuda_update_matrices works in. */
int64_t lam_cuda_matrices_workspace(const lam_parameters *parameters, bool bf16);

#endif
