#define LAM_SUFFIX avx2
#define LAM_ISA_TEXT "avx2"
#define LAM_VECTOR_FLOATS 8
#define LAM_TILE_ROWS 6
#include "model/cpu/kernels.inc.h"
