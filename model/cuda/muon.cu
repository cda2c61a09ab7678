/* muon: momentum, the direction made orthogonal by quintic Newton-Schulz steps, and the step (model/optimizers/muon.c).
 *
 * The products are cuBLASLt's in float32 (linear.cu), a matrix at a time, and bound it; the other passes read and write each element
 * of a matrix or of its Gram matrix once or twice. At most 32 registers; 256 bytes of shared memory. */
#include <algorithm>

#include "model/cuda/update.cuh"
#include "model/optimizers/rules.h"
#include "model/places.h"

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

/* ---- the host ---- */

/* Floats of one matrix in the workspace: as many that the next begins aligned. */
static int64_t padded(int64_t count) { return (count + 63) / 64 * 64; }

/* The direction of a matrix, the next one, and three squares of its shorter side. */
int64_t lam_cuda_matrices_workspace(const lam_parameters *parameters) {
    int64_t most = 0;
    for (int64_t i = 0; i < parameters->entries; i++) {
        int64_t rows[LAM_MATRIX_PARTS], columns;
        int parts = lam_parameter_matrices(&parameters->entry[i], rows, &columns);
        for (int k = 0; k < parts; k++) {
            int64_t side = std::min(rows[k], columns);
            most = std::max(most, 2 * padded(rows[k] * columns) + 3 * padded(side * side));
        }
    }
    return most;
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
    lam_cuda_squares(x, count, u->sums);
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

lam_status lam_cuda_update_matrices(const lam_cuda_update *u) {
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
