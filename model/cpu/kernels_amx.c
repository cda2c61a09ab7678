#define LAM_SUFFIX amx
#define LAM_ISA_TEXT "amx"
#define LAM_VECTOR_FLOATS 16
#define LAM_TILE_ROWS 14
#include "model/cpu/kernels.inc.h"
