#define LAM_SUFFIX baseline
#define LAM_ISA_TEXT "baseline"
#define LAM_VECTOR_FLOATS 4
#define LAM_TILE_ROWS 6
#include "model/cpu/kernels.inc.h"
