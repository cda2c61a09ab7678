/* What gemm.c and gemm_packed.c share; nobody else includes it. */
#ifndef LAMELLA_BASE_GEMM_PARTS_H
#define LAMELLA_BASE_GEMM_PARTS_H

#include <stdbool.h>
#include <stdint.h>

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

#ifdef __cplusplus
}
#endif
#endif
