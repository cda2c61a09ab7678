/* The speed of matrix products and of memory on this machine now, as the limits that a step is compared with. */
#ifndef LAMELLA_TRAIN_LIMIT_H
#define LAMELLA_TRAIN_LIMIT_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "model/graph.h"

#ifdef __cplusplus
extern "C" {
#endif

/* For float32: oneDNN's sgemm, oneDNN with an operand packed before, OpenBLAS. For bfloat16: oneDNN with an operand packed
 * before, oneDNN on operands as they lie (gradients of weights), and where the CPU has no such instructions worth using the
 * three of float32 too. */
enum { LAM_LIMIT_LIBRARIES = 5 };

typedef struct lam_limit_product {
    const char *kind; /* "forward", "input gradient", "weight gradient" */
    int64_t m, n, k, count;
    double seconds; /* of one, by the fastest library */
    int library;
} lam_limit_product;

typedef struct lam_gemm_limit {
    double flops, seconds, flops_per_s;
    const char *library[LAM_LIMIT_LIBRARIES];
    double share[LAM_LIMIT_LIBRARIES]; /* of the operations, for which the library is the fastest */
    lam_limit_product *products;       /* [count], of all shapes and kinds; to be freed */
    int64_t count;
} lam_gemm_limit;

/* Floating-point operations a second of the matrix products of one training step, all linear maps of the graph in its type:
 * forward, gradient of the input, gradient of the weights; of the rows only `part` (0..1), where less is to
 * be enough. Each product by itself is done again and again for its share of `seconds`, by every library in
 * turn; the fastest run of the fastest library counts: what the machine can do, not what it happened to do.
 * Packing is not counted. */
lam_status lam_gemm_limit_measure(const lam_graph *graph, double part, double seconds, lam_gemm_limit *limit);
void lam_gemm_limit_free(lam_gemm_limit *limit);

/* Bytes a second of a[i] = b[i] + s c[i] (McCalpin's STREAM triad) and of a[i] = b[i] + s a[i], which spares the fetch of what is
 * overwritten: three counted for each element, over `bytes` in all; the fastest run of `seconds`. An operation on what still
 * lies in a cache may be faster. */
lam_status lam_memory_limit(size_t bytes, double seconds, double *bytes_per_s);

#ifdef __cplusplus
}
#endif
#endif
