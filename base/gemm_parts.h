/* What gemm.c and gemm_packed.c share; nobody else includes it. */
#ifndef LAMELLA_BASE_GEMM_PARTS_H
#define LAMELLA_BASE_GEMM_PARTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <dnnl.h>

#include "base/gemm.h"
#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Scratch that grows to the largest operand and then stays, one a calling thread. */
struct lam_gemm_scratch {
    float *floats;
    int64_t count;
};
lam_status lam_gemm_scratch_grow(struct lam_gemm_scratch *scratch, int64_t count); /* contents are lost */

bool lam_gemm_turns(void); /* transposed operands are copied first */
void lam_gemm_packed_release(void);

/* ---- gemm_pack.c ---- */

/* oneDNN's format of a packed operand B [k, n]: blocks of 16 rows (of pairs of rows where `pairs`: bfloat16) by 64 columns,
 * k_stride and n_stride elements from one block to the next. */
typedef struct lam_gemm_blocks {
    int64_t k_stride, n_stride;
    bool pairs;
} lam_gemm_blocks;
/* false: another format. */
bool lam_gemm_blocks_of(const dnnl_memory_desc_t *format, lam_gemm_blocks *blocks);

/* B [k, n], `stride` elements from row to row, of the blocks' type. The format is that of [padded_k, n]; rows past k are zero. This
 * and the two below are called by all threads of a parallel region, whose end they do not wait for. */
typedef struct lam_gemm_source {
    const void *data;
    int64_t stride;
    bool bf16;
} lam_gemm_source;
void lam_gemm_pack_blocks(const lam_gemm_blocks *blocks, const lam_gemm_source *from, int64_t k,
                          int64_t padded_k, int64_t n, void *packed);

int64_t lam_gemm_weights_out(const lam_gemm_weights *weights);
/* Both forms of lam_gemm_pack in one pass over the weights; NULL: not wanted. Rounded: to bfloat16, where the blocks are float32. */
void lam_gemm_pack_weights(const lam_gemm_weights *weights, bool rounded, const lam_gemm_blocks *forward,
                           void *packed_forward, const lam_gemm_blocks *backward, void *packed_backward);

/* to[columns, rows] = from[rows, columns]^T; rows of `to` have lam_gemm_turned_stride(bf16, rows) elements, zero past the last.
 * sums[columns]: of each column of `from`, in an order that depends on its rows alone; to, sums: NULL: not wanted. */
int64_t lam_gemm_turned_stride(bool bf16, int64_t rows);
void lam_gemm_turn(const void *from, bool bf16, int64_t rows, int64_t columns, int64_t stride, void *to,
                   float *sums);

#ifdef __cplusplus
}
#endif
#endif
