#define LAM_SUFFIX avx512
#define LAM_ISA_TEXT "avx512"
#define LAM_VECTOR_FLOATS 16
#define LAM_TILE_ROWS 14
#include "model/cpu/kernels.inc.h"
