#include "train/limit.h"

#include "base/bf16.h"
#include "base/gemm.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/threads.h"

#define FEWEST_ROUNDS 3 /* one run may meet another program */
#define HOPELESS 1.3    /* times as long as the fastest, after two rounds */
#define MOST_SHAPES 64

/* ---- one product ---- */

/* C[m, n] = op(A)[m, k] op(B)[k, n]. Speed depends on shapes and layouts alone, so the same numbers serve as A and as its
 * transpose. */
typedef struct operands {
    int64_t m, n, k;
    bool transposed_a, transposed_b, is_weight_gradient;
    float *a, *b, *c;
    uint16_t *a16, *b16, *c16;
    void *packed, *packed16;
} operands;

static lam_status sgemm(const operands *o) {
    return lam_gemm_f32(o->transposed_a, o->transposed_b, o->m, o->n, o->k, o->a,
                        o->transposed_a ? o->m : o->k, o->b, o->transposed_b ? o->k : o->n, 0, o->c, o->n);
}

static lam_status openblas(const operands *o) {
    return lam_gemm_f32_openblas(o->transposed_a, o->transposed_b, o->m, o->n, o->k, o->a,
                                 o->transposed_a ? o->m : o->k, o->b, o->transposed_b ? o->k : o->n, 0, o->c,
                                 o->n);
}

static lam_gemm_operands packed_operands(const operands *o) {
    return (lam_gemm_operands){.m = o->m, .n = o->n, .k = o->k, .lda = o->k, .ldc = o->n};
}

static lam_status packed(const operands *o) {
    lam_gemm_operands p = packed_operands(o);
    p.a = o->a;
    p.packed = o->packed;
    p.c = o->c;
    return lam_gemm_packed(LAM_GEMM_F32, &p);
}

static lam_status packed_bf16(const operands *o) {
    lam_gemm_operands p = packed_operands(o);
    p.a = o->a16;
    p.packed = o->packed16;
    p.c = o->c16;
    return lam_gemm_packed(LAM_GEMM_BF16, &p);
}

static lam_status gradient_bf16(const operands *o) {
    return lam_gemm_gradient(LAM_GEMM_BF16, &(lam_gemm_gradients){.n = o->n,
                                                                  .k = o->k,
                                                                  .a = o->a16,
                                                                  .lda = o->m,
                                                                  .b = o->b16,
                                                                  .ldb = o->n,
                                                                  .parts = 1,
                                                                  .part = {{.m = o->m, .c = o->c}}});
}

static const struct library {
    const char *name;
    bool bf16, weight_gradient_only;
    lam_status (*run)(const operands *o);
} libraries[LAM_LIMIT_LIBRARIES] = {{"oneDNN sgemm", false, false, sgemm},
                                    {"oneDNN packed", false, false, packed},
                                    {"OpenBLAS sgemm", false, false, openblas},
                                    {"oneDNN bf16 packed", true, false, packed_bf16},
                                    {"oneDNN bf16", true, true, gradient_bf16}};

static bool takes_part(const struct library *l, const operands *o, bool bf16) {
    if (l->weight_gradient_only && !o->is_weight_gradient) return false;
    return l->bf16 == bf16 || (bf16 && !lam_gemm_bf16_native());
}

static void close_operands(operands *o) {
    void *all[] = {o->a, o->b, o->c, o->a16, o->b16, o->c16, o->packed, o->packed16};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) lam_free(all[i]);
}

static lam_status open_operand(int64_t count, int64_t period, bool bf16, float **floats, uint16_t **halves) {
    LAM_TRY(lam_alloc_array((void **)floats, count, sizeof **floats));
    float *x = *floats;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < count; i++) x[i] = 0.001f * (float)(i % period) - 0.5f;
    if (!bf16) return LAM_OK;
    LAM_TRY(lam_alloc_array((void **)halves, count, sizeof **halves));
    uint16_t *h = *halves;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < count; i++) h[i] = lam_bf16_from_float(x[i]);
    return LAM_OK;
}

static lam_status pack(const operands *o, lam_gemm_type type, void **to) {
    size_t bytes = lam_gemm_packed_bytes(type, o->k, o->n);
    LAM_REQUIRE(bytes, LAM_ERROR_EXTERNAL, "oneDNN packs no matrix of [%lld, %lld]", (long long)o->k,
                (long long)o->n);
    LAM_TRY(lam_alloc(to, bytes));
    lam_gemm_weights weights = {.in = o->n, .parts = 1, .part = {{.out = o->k, .data = o->b}}};
    return lam_gemm_pack(type, &weights, NULL, *to);
}

static lam_status open_operands(operands *o, bool bf16) {
    LAM_TRY(open_operand(o->m * o->k, 997, bf16, &o->a, &o->a16));
    LAM_TRY(open_operand(o->k * o->n, 991, bf16, &o->b, &o->b16));
    LAM_TRY(open_operand(o->m * o->n, 983, bf16, &o->c, &o->c16));
    if (bf16) LAM_TRY(pack(o, LAM_GEMM_BF16, &o->packed16));
    return bf16 && lam_gemm_bf16_native() ? LAM_OK : pack(o, LAM_GEMM_F32, &o->packed);
}

static lam_status time_libraries(const operands *o, bool bf16, double seconds, double *best) {
    double begin = lam_now();
    for (int l = 0; l < LAM_LIMIT_LIBRARIES; l++) {
        best[l] = 1e30;
        if (takes_part(&libraries[l], o, bf16)) LAM_TRY(libraries[l].run(o)); /* caches and code are warm */
    }
    double fastest = 1e30;
    for (int round = 0; round < FEWEST_ROUNDS || lam_now() - begin < seconds; round++)
        for (int l = 0; l < LAM_LIMIT_LIBRARIES; l++) {
            if (!takes_part(&libraries[l], o, bf16) || (round > 1 && best[l] > HOPELESS * fastest)) continue;
            double start = lam_now();
            LAM_TRY(libraries[l].run(o));
            double took = lam_now() - start;
            if (took < best[l]) best[l] = took;
            if (took < fastest) fastest = took;
        }
    return LAM_OK;
}

static lam_status measure(operands *o, bool bf16, double seconds, lam_limit_product *product) {
    double best[LAM_LIMIT_LIBRARIES];
    lam_status status = open_operands(o, bf16);
    if (status == LAM_OK) status = time_libraries(o, bf16, seconds, best);
    close_operands(o);
    LAM_TRY(status);
    product->m = o->m;
    product->n = o->n;
    product->k = o->k;
    for (int l = 0; l < LAM_LIMIT_LIBRARIES; l++)
        if (best[l] < best[product->library]) product->library = l;
    product->seconds = best[product->library];
    return LAM_OK;
}

/* ---- those of a step ---- */

enum { FORWARD, INPUT_GRADIENT, WEIGHT_GRADIENT, KINDS };

static operands operands_of(const lam_product *p, int kind) {
    if (kind == FORWARD) return (operands){.m = p->rows, .n = p->out, .k = p->in, .transposed_b = true};
    if (kind == INPUT_GRADIENT) return (operands){.m = p->rows, .n = p->in, .k = p->out};
    return (operands){
        .m = p->out, .n = p->in, .k = p->rows, .transposed_a = true, .is_weight_gradient = true};
}

static void add(lam_gemm_limit *limit, const lam_limit_product *p) {
    double flops = 2.0 * (double)p->m * (double)p->n * (double)p->k * (double)p->count;
    limit->flops += flops;
    limit->seconds += p->seconds * (double)p->count;
    limit->share[p->library] += flops;
    limit->products[limit->count++] = *p;
}

static lam_status measure_all(const lam_product *shapes, int64_t count, bool bf16, double seconds,
                              lam_gemm_limit *limit) {
    static const char *const names[KINDS] = {"forward", "input gradient", "weight gradient"};
    for (int64_t i = 0; i < count; i++)
        for (int kind = 0; kind < KINDS; kind++) {
            if (kind == INPUT_GRADIENT && !shapes[i].input_gradient) continue;
            lam_limit_product product = {.kind = names[kind], .count = shapes[i].count};
            operands o = operands_of(&shapes[i], kind);
            LAM_TRY(measure(&o, bf16, seconds / (double)(KINDS * count), &product));
            add(limit, &product);
        }
    return LAM_OK;
}

lam_status lam_gemm_limit_measure(const lam_graph *graph, double part, double seconds,
                                  lam_gemm_limit *limit) {
    lam_product shapes[MOST_SHAPES];
    int64_t count = lam_graph_products(graph, shapes, MOST_SHAPES);
    *limit = (lam_gemm_limit){0};
    LAM_REQUIRE(count > 0 && count <= MOST_SHAPES, LAM_ERROR_INTERNAL,
                "the network has %lld shapes of products; 1 to %d can be measured", (long long)count,
                MOST_SHAPES);
    for (int64_t i = 0; i < count; i++) {
        int64_t rows = (int64_t)(part * (double)shapes[i].rows);
        shapes[i].rows = rows > 0 ? rows : 1;
    }
    LAM_TRY(lam_alloc_array((void **)&limit->products, KINDS * count, sizeof *limit->products));
    lam_gemm_openblas_threads(lam_threads());
    lam_status status = measure_all(shapes, count, lam_graph_activation(graph) == LAM_BF16, seconds, limit);
    lam_gemm_openblas_threads(1);
    if (status != LAM_OK) {
        lam_gemm_limit_free(limit);
        return status;
    }
    limit->flops_per_s = limit->flops / limit->seconds;
    for (int l = 0; l < LAM_LIMIT_LIBRARIES; l++) {
        limit->library[l] = libraries[l].name;
        limit->share[l] /= limit->flops;
    }
    return LAM_OK;
}

void lam_gemm_limit_free(lam_gemm_limit *limit) {
    lam_free(limit->products);
    *limit = (lam_gemm_limit){0};
}
