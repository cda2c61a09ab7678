/* The masked loss, its gradient, and sums of losses.
 *
 * Bound by bytes: forward reads the masked rows of prediction and target once (twice more from the caches for the scales of
 * norm_pix); backward reads both and writes the gradient. A warp has a row, four elements a lane and turn where the rows are
 * aligned; blocks of 256 threads, at most 48 registers, no shared memory but for sums.
 *
 * Errors of a row are summed in float32 by lanes, then in double over lanes, tokens and samples in a fixed order: the loss
 * equals the CPU's to 1e-6. */
#include "model/cuda/backend.cuh"
#include "model/cuda/loss.cuh"
#include "model/cuda/sums.cuh"
#include "model/ops/attributes.h"

enum { THREADS = 256, WARPS = THREADS / 32 };

template <typename T> struct alignas(4 * sizeof(T)) four { T value[4]; };

static __device__ __forceinline__ int64_t row_of_warp(void) {
    return (int64_t)blockIdx.x * WARPS + threadIdx.x / 32;
}

/* ---- scales of target patches: unbiased variance, in double ---- */

struct target_scale {
    float mean, rstd;
};

static __device__ target_scale scale_of(const float *target, int64_t length) {
    int lane = threadIdx.x % 32;
    double sum = 0, squares = 0;
    for (int64_t i = lane; i < length; i += 32) sum += (double)target[i];
    double mean = lam_warp_sum(sum) / (double)length;
    for (int64_t i = lane; i < length; i += 32)
        squares += ((double)target[i] - mean) * ((double)target[i] - mean);
    squares = lam_warp_sum(squares);
    return {(float)mean, (float)(1.0 / sqrt(squares / (double)(length - 1) + LAM_NORM_PIX_EPS))};
}

static __global__ void __launch_bounds__(THREADS)
    loss_scales(const float *target, float *mean, float *rstd, int64_t rows, int64_t length) {
    int64_t row = row_of_warp();
    if (row >= rows) return;
    target_scale s = scale_of(target + row * length, length);
    if (threadIdx.x % 32 == 0) {
        mean[row] = s.mean;
        rstd[row] = s.rstd;
    }
}

void lam_cuda_target_scales(const float *target, int64_t rows, int64_t length, float *mean, float *rstd) {
    LAM_LAUNCH((loss_scales), (unsigned)lam_blocks(rows, WARPS), THREADS, 0, lam_cuda_stream(), target, mean,
               rstd, rows, length);
}

/* ---- the sum over tokens and samples ---- */

/* Block: one sample. */
static __global__ void __launch_bounds__(THREADS)
    loss_samples(const double *errors, const float *mask, const float *weight, double *weighted,
                 float *sample_loss, int64_t parts) {
    LAM_SHARED(double, partial, [32]);
    LAM_SHARED(int, counts, [32]);
    int64_t b = blockIdx.x;
    double sum = 0;
    int count = 0;
    for (int64_t n = threadIdx.x; n < parts; n += THREADS) {
        sum += errors[b * parts + n];
        if (mask) count += mask[b * parts + n] != 0.0f;
    }
    sum = lam_block_sum(sum, partial);
    count = lam_block_sum(count, counts);
    double mean = sum / (double)(count ? count : 1);
    if (threadIdx.x == 0) {
        sample_loss[b] = (float)mean;
        weighted[b] = weight[b] != 0.0f ? (double)weight[b] * mean : 0.0;
    }
}

static __global__ void __launch_bounds__(THREADS)
    loss_total(const double *weighted, float *loss, int64_t batch) {
    LAM_SHARED(double, partial, [32]);
    double sum = 0;
    for (int64_t b = threadIdx.x; b < batch; b += THREADS) sum += weighted[b];
    sum = lam_block_sum(sum, partial);
    if (threadIdx.x == 0) *loss = (float)sum;
}

void lam_cuda_sum_losses(const double *errors, const float *mask, const float *weight, double *weighted,
                         float *sample_loss, float *loss, int64_t batch, int64_t parts) {
    LAM_LAUNCH((loss_samples), (unsigned)batch, THREADS, 0, lam_cuda_stream(), errors, mask, weight, weighted,
               sample_loss, parts);
    LAM_LAUNCH((loss_total), 1, THREADS, 0, lam_cuda_stream(), (const double *)weighted, loss, batch);
}

/* ---- masked_loss ---- */

/* What a row is compared with; mean NULL: the target as it is. */
struct loss_target {
    const float *target;
    float *mean, *rstd;
    int64_t rows, length;
    bool vectors; /* rows of targets, predictions and gradients can be read four elements at once */
};

/* The scale of rows that are not masked is left as it is: nobody reads it. */
template <typename T>
static __global__ void __launch_bounds__(THREADS)
    loss_errors(const T *prediction, loss_target to, const float *mask, double *errors) {
    int64_t row = row_of_warp();
    int lane = threadIdx.x % 32;
    if (row >= to.rows) return;
    if (mask[row] == 0.0f) {
        if (lane == 0) errors[row] = 0;
        return;
    }
    const T *p = prediction + row * to.length;
    const float *t = to.target + row * to.length;
    target_scale s = {0.0f, 1.0f};
    if (to.mean) {
        s = scale_of(t, to.length);
        if (lane == 0) {
            to.mean[row] = s.mean;
            to.rstd[row] = s.rstd;
        }
    }
    float sum = 0;
    if (to.vectors) {
        for (int64_t i = lane; i < to.length / 4; i += 32) {
            four<T> guess = reinterpret_cast<const four<T> *>(p)[i];
            four<float> wanted = reinterpret_cast<const four<float> *>(t)[i];
#pragma unroll
            for (int k = 0; k < 4; k++) {
                float e = lam_load(&guess.value[k]) - (wanted.value[k] - s.mean) * s.rstd;
                sum += e * e;
            }
        }
    } else {
        for (int64_t i = lane; i < to.length; i += 32) {
            float e = lam_load(p + i) - (t[i] - s.mean) * s.rstd;
            sum += e * e;
        }
    }
    double all = lam_warp_sum((double)sum);
    if (lane == 0) errors[row] = all / (double)to.length;
}

/* factor [batch, tokens]. Block: one sample. */
static __global__ void __launch_bounds__(THREADS)
    loss_factors(const float *mask, const float *weight, const float *d_loss, float *factor, int64_t tokens,
                 int64_t length) {
    LAM_SHARED(int, counts, [32]);
    int64_t b = blockIdx.x;
    int count = 0;
    for (int64_t n = threadIdx.x; n < tokens; n += THREADS) count += mask[b * tokens + n] != 0.0f;
    count = lam_block_sum(count, counts);
    float each = count ? *d_loss * weight[b] * 2.0f / ((float)length * (float)count) : 0.0f;
    for (int64_t n = threadIdx.x; n < tokens; n += THREADS)
        factor[b * tokens + n] = mask[b * tokens + n] != 0.0f ? each : 0.0f;
}

/* d may be the prediction itself: an element is read before it is written. A factor of 0 passes nothing, whatever the values. */
template <typename T>
static __global__ void __launch_bounds__(THREADS)
    loss_backward(const T *prediction, loss_target to, const float *factor, T *gradient, bool add) {
    int64_t row = row_of_warp();
    int lane = threadIdx.x % 32;
    if (row >= to.rows) return;
    const T *p = prediction + row * to.length;
    T *d = gradient + row * to.length;
    const float *t = to.target + row * to.length;
    float f = factor[row];
    bool passes = f != 0.0f;
    if (!passes && add) return;
    target_scale s = {0.0f, 1.0f};
    if (to.mean && passes) s = {to.mean[row], to.rstd[row]};
    if (to.vectors) {
        for (int64_t i = lane; i < to.length / 4; i += 32) {
            four<T> *at = reinterpret_cast<four<T> *>(d) + i, result;
            four<float> old = {{0.0f, 0.0f, 0.0f, 0.0f}}, wanted = old, guess = old;
            if (passes) {
                four<T> read = reinterpret_cast<const four<T> *>(p)[i];
                wanted = reinterpret_cast<const four<float> *>(t)[i];
#pragma unroll
                for (int k = 0; k < 4; k++) guess.value[k] = lam_load(&read.value[k]);
            }
            if (add) {
                four<T> read = *at;
#pragma unroll
                for (int k = 0; k < 4; k++) old.value[k] = lam_load(&read.value[k]);
            }
#pragma unroll
            for (int k = 0; k < 4; k++) {
                float e = passes ? f * (guess.value[k] - (wanted.value[k] - s.mean) * s.rstd) : 0.0f;
                lam_store(&result.value[k], old.value[k] + e);
            }
            *at = result;
        }
        return;
    }
    for (int64_t i = lane; i < to.length; i += 32) {
        float e = passes ? f * (lam_load(p + i) - (t[i] - s.mean) * s.rstd) : 0.0f;
        lam_store(d + i, (add ? lam_load(d + i) : 0.0f) + e);
    }
}

/* gradient: NULL in the forward pass. */
static loss_target target_of(const lam_node *node, const void *gradient) {
    const lam_tensor *prediction = node->inputs[0], *target = node->inputs[1];
    loss_target to = {};
    to.target = (const float *)target->data;
    to.rows = prediction->shape[0] * prediction->shape[1];
    to.length = prediction->shape[2];
    if (node->integers[0]) { /* norm_pix */
        to.mean = (float *)node->saved;
        to.rstd = to.mean + to.rows;
    }
    uintptr_t all = reinterpret_cast<uintptr_t>(prediction->data) |
                    reinterpret_cast<uintptr_t>(target->data) | reinterpret_cast<uintptr_t>(gradient);
    to.vectors = to.length % 4 == 0 && all % sizeof(four<float>) == 0;
    return to;
}

static lam_status masked_loss_forward(lam_node *node) {
    const lam_tensor *prediction = node->inputs[0];
    const float *mask = (const float *)node->inputs[2]->data, *weight = (const float *)node->inputs[3]->data;
    loss_target to = target_of(node, NULL);
    int64_t batch = prediction->shape[0];
    double *errors = (double *)node->forward_workspace; /* [batch, tokens], then [batch] */
    unsigned blocks = (unsigned)lam_blocks(to.rows, WARPS);
    if (prediction->dtype == LAM_BF16)
        LAM_LAUNCH((loss_errors<__nv_bfloat16>), blocks, THREADS, 0, lam_cuda_stream(),
                   (const __nv_bfloat16 *)prediction->data, to, mask, errors);
    else
        LAM_LAUNCH((loss_errors<float>), blocks, THREADS, 0, lam_cuda_stream(),
                   (const float *)prediction->data, to, mask, errors);
    lam_cuda_sum_losses(errors, mask, weight, errors + to.rows, (float *)node->outputs[1]->data,
                        (float *)node->outputs[0]->data, batch, to.rows / batch);
    return LAM_OK;
}

static lam_status masked_loss_backward(lam_node *node) {
    lam_tensor *prediction = node->inputs[0];
    float *factor = (float *)node->backward_workspace; /* [batch, tokens] */
    bool add;
    void *d = lam_gradient_target(prediction, &add);
    if (!d) return LAM_OK;
    loss_target to = target_of(node, d);
    LAM_LAUNCH((loss_factors), (unsigned)prediction->shape[0], THREADS, 0, lam_cuda_stream(),
               (const float *)node->inputs[2]->data, (const float *)node->inputs[3]->data,
               (const float *)node->outputs[0]->gradient, factor, prediction->shape[1], to.length);
    unsigned blocks = (unsigned)lam_blocks(to.rows, WARPS);
    if (prediction->dtype == LAM_BF16)
        LAM_LAUNCH((loss_backward<__nv_bfloat16>), blocks, THREADS, 0, lam_cuda_stream(),
                   (const __nv_bfloat16 *)prediction->data, to, (const float *)factor, (__nv_bfloat16 *)d,
                   add);
    else
        LAM_LAUNCH((loss_backward<float>), blocks, THREADS, 0, lam_cuda_stream(),
                   (const float *)prediction->data, to, (const float *)factor, (float *)d, add);
    return LAM_OK;
}

static void masked_loss_sizes(lam_node *node) {
    size_t batch = (size_t)node->inputs[0]->shape[0], rows = (size_t)node->inputs[2]->count;
    node->forward_workspace_bytes = (rows + batch) * sizeof(double);
    node->backward_workspace_bytes = rows * sizeof(float);
    node->saved_bytes = node->integers[0] ? 2 * rows * sizeof(float) : 0;
}

/* ---- mix ---- */

static __global__ void __launch_bounds__(THREADS)
    loss_mix(const float *x, const float *y, float *to, int64_t count, float a, float b) {
    for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < count;
         i += (int64_t)gridDim.x * THREADS)
        to[i] = a * x[i] + b * y[i];
}

static __global__ void __launch_bounds__(THREADS)
    loss_mix_backward(const float *d, float *to, int64_t count, float factor, bool add) {
    for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < count;
         i += (int64_t)gridDim.x * THREADS)
        to[i] = (add ? to[i] : 0.0f) + factor * d[i];
}

static lam_status mix_forward(lam_node *node) {
    const lam_tensor *to = node->outputs[0];
    LAM_LAUNCH((loss_mix), (unsigned)lam_blocks(to->count, THREADS), THREADS, 0, lam_cuda_stream(),
               (const float *)node->inputs[0]->data, (const float *)node->inputs[1]->data, (float *)to->data,
               to->count, (float)node->numbers[0], (float)node->numbers[1]);
    return LAM_OK;
}

static lam_status mix_backward(lam_node *node) {
    const lam_tensor *to = node->outputs[0];
    for (int k = 0; k < 2; k++) {
        bool add;
        float *d = (float *)lam_gradient_target(node->inputs[k], &add);
        if (!d) continue;
        LAM_LAUNCH((loss_mix_backward), (unsigned)lam_blocks(to->count, THREADS), THREADS, 0,
                   lam_cuda_stream(), (const float *)to->gradient, d, to->count, (float)node->numbers[k],
                   add);
    }
    return LAM_OK;
}

extern const lam_op_functions lam_cuda_loss_ops[] = {
    {"masked_loss", masked_loss_sizes, masked_loss_forward, masked_loss_backward, NULL, NULL},
    {"mix", NULL, mix_forward, mix_backward, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL, NULL}};
