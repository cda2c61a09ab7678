/* muon: momentum, the direction made orthogonal by quintic Newton-Schulz steps, and the step (model/optimizers/muon.c).
 *
 * The products are cuBLASLt's (products.h), a matrix at a time, three an iteration, and bound it. Where the training is in bfloat16,
 * so are they and what lies between them, with float32 sums, as Jordan et al. run them: singular values that are off by a rounding
 * come to lie between the same bounds. Else they are float32; the norm, momentum and weights always are. The other passes read and
 * write each element of a matrix once or twice. At most 32 registers; 256 bytes of shared memory. */
#include <algorithm>

#include "model/cuda/products.h"
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

/* x = u / |u|; a matrix of zeros stays one. */
template <typename T>
static __global__ void __launch_bounds__(SUM_THREADS)
    update_muon_normalise(const float *u, T *x, int64_t count, const double *sums, int64_t blocks) {
    LAM_SHARED(double, partial, [32]);
    double norm = sqrt(sum_of_blocks(sums, blocks, partial));
    float factor = norm > 0 ? (float)(1 / norm) : 0.0f;
    for (int64_t i = (int64_t)blockIdx.x * SUM_THREADS + threadIdx.x; i < count;
         i += (int64_t)gridDim.x * SUM_THREADS)
        lam_store(&x[i], factor * u[i]);
}

/* w = decay w - lr 0.2 sqrt(longer) direction */
template <typename T>
static __global__ void __launch_bounds__(THREADS)
    update_muon_apply(const update_memory *memory, const update_segment *segment, const T *direction,
                      update_arenas a, int64_t first, int64_t count, double longer) {
    LAM_SHARED(update_terms, shared, [1]);
    if (!share_terms(memory, *segment, shared)) return;
    float step = (float)(memory->decision.rate * segment->lr_scale * -0.2 * sqrt(longer)),
          decay = shared[0].decay_factor, share = shared[0].average_share;
    for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < count;
         i += (int64_t)gridDim.x * THREADS) {
        float w = decay * a.weights[first + i] + step * lam_load(&direction[i]);
        a.weights[first + i] = w;
        if (a.average) follow(a.average[first + i], w, share);
    }
}

/* ---- the host ---- */

/* Elements of one matrix in the workspace: as many that the next begins at 256 bytes, in either type. */
static int64_t padded(int64_t count) { return (count + 127) / 128 * 128; }

/* The direction of a matrix in float32, over which every second iterate comes to lie; the others; two squares of its shorter side. */
int64_t lam_cuda_matrices_workspace(const lam_parameters *parameters, bool bf16) {
    int64_t most = 0;
    for (int64_t i = 0; i < parameters->entries; i++) {
        int64_t rows[LAM_MATRIX_PARTS], columns;
        int parts = lam_parameter_matrices(&parameters->entry[i], rows, &columns);
        for (int k = 0; k < parts; k++) {
            int64_t count = rows[k] * columns, side = std::min(rows[k], columns),
                    elements = padded(count) + 2 * padded(side * side);
            most = std::max(most, padded(count) + elements / (bf16 ? 2 : 1));
        }
    }
    return most;
}

/* next = a x + b (x x^T) x + c (x x^T)^2 x, as model/optimizers/muon.c. */
template <typename T>
static lam_status quintic(const T *x, T *next, int64_t rows, int64_t columns, T *squares) {
    bool tall = rows > columns;
    int64_t side = tall ? columns : rows, length = tall ? rows : columns;
    T *gram = squares, *polynomial = gram + padded(side * side);
    lam_dtype type = sizeof(T) == sizeof(float) ? LAM_F32 : LAM_BF16;
    lam_cuda_product p = lam_cuda_product_of(type, type, side, side, length);
    p.turn_a = tall, p.turn_b = !tall;
    p.a = p.b = x, p.lda = p.ldb = columns, p.c = gram, p.ldc = side;
    LAM_TRY(lam_cuda_multiply(&p));
    p = lam_cuda_product_of(type, type, side, side, side);
    p.a = p.b = p.addend = gram, p.lda = p.ldb = side, p.c = polynomial, p.ldc = side;
    p.scale = LAM_MUON_C, p.addend_scale = LAM_MUON_B;
    LAM_TRY(lam_cuda_multiply(&p));
    p = lam_cuda_product_of(type, type, rows, columns, side);
    p.a = tall ? x : polynomial, p.lda = side, p.b = tall ? polynomial : x, p.ldb = columns;
    p.addend = x, p.addend_scale = LAM_MUON_A, p.c = next, p.ldc = columns;
    return lam_cuda_multiply(&p);
}

/* Of the direction at the beginning of the workspace. *result: within it. */
template <typename T>
static lam_status orthogonalise(const lam_cuda_update *u, int64_t rows, int64_t columns, const T **result) {
    int64_t count = rows * columns, blocks = lam_blocks(count, SUM_BLOCK);
    T *x = (T *)(u->workspace + padded(count)), *next = (T *)u->workspace, *squares = x + padded(count);
    lam_cuda_squares(u->workspace, count, u->sums);
    LAM_LAUNCH((update_muon_normalise<T>), pass_blocks(count, SUM_THREADS), SUM_THREADS, 0, lam_cuda_stream(),
               (const float *)u->workspace, x, count, (const double *)u->sums, blocks);
    for (int i = 0; i < LAM_MUON_STEPS; i++) {
        LAM_TRY(quintic<T>(x, next, rows, columns, squares));
        std::swap(x, next);
    }
    *result = x;
    return LAM_OK;
}

struct update_matrix {
    int64_t segment, first, rows, columns;
};

template <typename T> static lam_status launch_matrix(const lam_cuda_update *u, const update_matrix &m) {
    int64_t count = m.rows * m.columns;
    const T *orthogonal;
    LAM_LAUNCH((update_muon_momentum), pass_blocks(count, THREADS), THREADS, 0, lam_cuda_stream(),
               (const update_memory *)u->memory, (const float *)u->arenas.gradients + m.first,
               u->arenas.first + m.first, u->workspace, count);
    LAM_TRY(orthogonalise<T>(u, m.rows, m.columns, &orthogonal));
    LAM_LAUNCH((update_muon_apply<T>), pass_blocks(count, THREADS), THREADS, 0, lam_cuda_stream(),
               (const update_memory *)u->memory, (const update_segment *)u->segments + m.segment, orthogonal,
               u->arenas, m.first, count, (double)std::max(m.rows, m.columns));
    return LAM_OK;
}

template <typename T> static lam_status plan_matrix(const lam_cuda_update *u, const update_matrix &m) {
    const T *orthogonal;
    return orthogonalise<T>(u, m.rows, m.columns, &orthogonal);
}

static lam_status each_matrix(const lam_cuda_update *u,
                              lam_status (*function)(const lam_cuda_update *, const update_matrix &)) {
    update_matrix m = {};
    for (int64_t i = 0; i < u->parameters->entries; i++) {
        const lam_parameter_entry *e = &u->parameters->entry[i];
        if (e->init == LAM_INIT_FROZEN || e->count == 0) continue;
        int64_t rows[LAM_MATRIX_PARTS];
        int parts = lam_parameter_matrices(e, rows, &m.columns);
        m.first = e->offset;
        for (int k = 0; k < parts; k++) {
            m.rows = rows[k];
            LAM_TRY(function(u, m));
            m.first += m.rows * m.columns;
        }
        m.segment++;
    }
    return LAM_OK;
}

lam_status lam_cuda_update_matrices(const lam_cuda_update *u) {
    return each_matrix(u, u->bf16 ? launch_matrix<__nv_bfloat16> : launch_matrix<float>);
}

lam_status lam_cuda_plan_matrices(const lam_cuda_update *u) {
    return each_matrix(u, u->bf16 ? plan_matrix<__nv_bfloat16> : plan_matrix<float>);
}
