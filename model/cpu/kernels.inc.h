/* The kernels' source, compiled by kernels_{baseline,avx2,avx512}.c with LAM_SUFFIX, LAM_VECTOR_FLOATS and
 * LAM_TILE_ROWS set. Vectors are GCC/Clang vector extensions, so one source serves every width. */
#include <math.h>
#include <omp.h>
#include <string.h>

#include "model/cpu/kernels.h"

#define JOIN2(a, b) a##_##b
#define JOIN(a, b) JOIN2(a, b)
#define NAME(x) JOIN(x, LAM_SUFFIX)

#define VF LAM_VECTOR_FLOATS
#define TILE_COLUMNS (2 * VF)

typedef float vector __attribute__((vector_size(VF * 4), aligned(4), may_alias));

#include "model/cpu/attention.inc.h"
#include "model/cpu/elementwise.inc.h"
#include "model/cpu/norm.inc.h"
#include "model/cpu/optimizer.inc.h"

const lam_kernels NAME(lam_kernels) = {LAM_ISA_TEXT,
                                       NAME(add_bias),
                                       NAME(gelu),
                                       NAME(gelu_backward),
                                       NAME(column_sums),
                                       NAME(layernorm),
                                       NAME(layernorm_backward),
                                       NAME(attention),
                                       NAME(attention_backward),
                                       NAME(attention_workspace),
                                       NAME(adamw),
                                       NAME(lion),
                                       NAME(accumulate)};
