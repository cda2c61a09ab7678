/* Matrix products on the device through cuBLASLt, row-major, with what is fused behind them.
 *
 *     lam_cuda_product p = lam_cuda_product_of(LAM_BF16, LAM_BF16, rows, out, in);     // y = x w^T + b
 *     p.a = x, p.lda = in, p.b = w, p.ldb = in, p.turn_b = true, p.c = y, p.ldc = out;
 *     p.epilogue = LAM_CUDA_BIAS, p.bias = b;
 *     LAM_TRY(lam_cuda_multiply(&p));
 *
 * A plan (descriptors, algorithm) is made once for each shape, type, epilogue, distance of rows and alignment and serves
 * until the process ends; the algorithm is the first of cuBLASLt's heuristics, or with lam_cuda_autotune the fastest of them.
 * Where cuBLASLt has nothing for an epilogue (rows of an odd number of elements, pointers that 16 does not divide), or is
 * known to be slower with it (the slope of GELU, unless lam_cuda_autotune measures otherwise), the plain product is followed by
 * kernels of epilogues.cu: callers need not know.
 *
 * Everything is enqueued on lam_cuda_stream(), nothing is read back; LAM_ERROR_EXTERNAL where cuBLASLt fails. The first
 * product of a shape asks the heuristics, which allocates on the host only: that may happen while a graph is being captured. */
#ifndef LAMELLA_MODEL_CUDA_PRODUCTS_H
#define LAMELLA_MODEL_CUDA_PRODUCTS_H

#include <string.h>

#include "model/internal.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Where sums of columns go: those of the first columns[0], of the next columns[1], ...; to NULL: not wanted. */
enum { LAM_CUDA_SUMS = 3 };
typedef struct lam_cuda_sums {
    float *to[LAM_CUDA_SUMS];
    int64_t columns[LAM_CUDA_SUMS];
    bool add[LAM_CUDA_SUMS];
} lam_cuda_sums;

/* GELU is the erf form in float32. In bfloat16 it is the tanh form 0.5 h (1 + tanh(sqrt(2 / pi) (h + 0.044715 h^3))), fused
 * or not, because that is what cuBLASLt fuses (PyTorch pull request 104061 found the same): it differs from the erf form by
 * 4.8e-4 at most, as much as bfloat16 rounds a value of 0.2 by. */
typedef enum lam_cuda_epilogue {
    LAM_CUDA_PLAIN,
    LAM_CUDA_BIAS,      /* c = a b + bias, and + addend */
    LAM_CUDA_GELU,      /* h = a b + bias, c = gelu(h); where it is fused, of h rounded or not, by cuBLASLt */
    LAM_CUDA_GELU_SLOPE /* c = (a b) gelu'(h); sums (+)= of its columns, as stored */
} lam_cuda_epilogue;

/* C[m, n] = scale op(A) op(B), or += where `accumulate`, or + addend_scale addend where there is one; op(A) is [m, k] and op(B)
 * [k, n]; a turned operand is stored [k, m] or [n, k]. lda, ldb, ldc: elements from one stored row to the next. C overlaps neither
 * A nor B; the addend may be either. */
typedef struct lam_cuda_product {
    lam_dtype type, result; /* of a and b; of c: LAM_F32, LAM_BF16 */
    int64_t m, n, k, lda, ldb, ldc;
    bool turn_a, turn_b, accumulate;
    const void *a, *b;
    void *c;
    lam_cuda_epilogue epilogue;
    const void *addend;        /* [m, n] of c's type, ldc apart, not over c; NULL: none. PLAIN and BIAS */
    float scale, addend_scale; /* 1 but with PLAIN */
    const void *bias;          /* [n], of c's type */
    void *h;                   /* [m, n] of c's type, ldc apart: written by GELU, read by GELU_SLOPE */
    lam_cuda_sums sums;
} lam_cuda_product;

static inline lam_cuda_product lam_cuda_product_of(lam_dtype type, lam_dtype result, int64_t m, int64_t n,
                                                   int64_t k) {
    lam_cuda_product p;
    memset(&p, 0, sizeof p);
    p.type = type;
    p.result = result;
    p.m = m;
    p.n = n;
    p.k = k;
    p.scale = p.addend_scale = 1.0f;
    return p;
}

lam_status lam_cuda_multiply(const lam_cuda_product *product);
/* Whether the epilogue of this product is fused on this device; makes the plan. */
bool lam_cuda_is_fused(const lam_cuda_product *product);

/* The parts that are not fused. y = gelu(h); d *= gelu'(h), [rows, columns], with the sums of its columns; the sums of the
 * columns of a [rows, columns], lda apart. Sums run over blocks of rows in an order that depends on the sizes and the GPU only. */
void lam_cuda_gelu(const void *h, void *y, int64_t count, lam_dtype type);
void lam_cuda_gelu_slope(const void *h, void *d, int64_t rows, int64_t columns, const lam_cuda_sums *sums,
                         lam_dtype type);
void lam_cuda_column_sums(const void *a, int64_t rows, int64_t columns, int64_t lda,
                          const lam_cuda_sums *sums, lam_dtype type);

/* Partial sums of columns, a table [rows, columns], which are added up in order into those of `sums` from column `first` on; of
 * one table or two in one launch. columns 0: nothing. */
typedef struct lam_cuda_partials {
    const float *from;
    int64_t rows, columns, first;
    lam_cuda_sums sums;
} lam_cuda_partials;
void lam_cuda_fold_partials(const lam_cuda_partials *tables, int count);
/* Of one whole table. */
void lam_cuda_fold_sums(const float *partial, int64_t rows, int64_t columns, const lam_cuda_sums *sums);

/* The parts of the linear map that makes y, if the sums of the columns of dy may be made by `writer`, whose backward rule is the last
 * to write dy, and are the gradients of biases that are wanted; else 0. */
int lam_cuda_sums_to_take(const lam_node *writer, const lam_tensor *y);
/* In that backward rule: where they go. The map's own leaves them out then. */
lam_cuda_sums lam_cuda_take_sums(lam_node *map);

/* With `on`, plans made from now on are chosen by time, among the algorithms that cuBLASLt offers and without its epilogue;
 * not while a graph is being captured, when nothing can be timed. */
void lam_cuda_autotune(bool on);
/* For tests: nothing is fused from now on. Plans that are there are forgotten. */
void lam_cuda_never_fuse(bool never);
/* The plans of this process as text, one a line behind the name of the GPU and the version of cuBLASLt; the caller frees it.
 * What is read is used for plans made from then on, if the GPU and the version are the same, so that a run that goes on has
 * the bits of one that was not interrupted. Return how many plans that is; -1: no memory, not such a text (lam_last_error). */
int64_t lam_cuda_plans_write(char **text);
int64_t lam_cuda_plans_read(const char *text);
/* Forgets all plans. */
void lam_cuda_plans_release(void);

/* The same for who opens the module at run time: const lam_cuda_products *f = ((lam_cuda_products_function *)
 * lam_backend_function(backend, "lam_cuda_products_get"))(). */
typedef struct lam_cuda_products {
    lam_status (*multiply)(const lam_cuda_product *product);
    bool (*is_fused)(const lam_cuda_product *product);
    void (*autotune)(bool on);
    void (*never_fuse)(bool never);
    int64_t (*plans_write)(char **text);
    int64_t (*plans_read)(const char *text);
    void (*plans_release)(void);
} lam_cuda_products;
typedef const lam_cuda_products *lam_cuda_products_function(void);

#ifdef __cplusplus
}
#endif
#endif
