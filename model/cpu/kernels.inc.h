/* The kernels' source, compiled by kernels_<instruction set>.c with LAM_SUFFIX, LAM_VECTOR_FLOATS and
 * LAM_TILE_ROWS (of attention's register tiles: they fill the registers) set. Vectors are GCC/Clang vector
 * extensions, so one source serves every width.
 *
 * Families are written over the storage type `real` of activations (float, or bfloat16 in a uint16_t), with get(real) and
 * put(float); they compute in float. Each is compiled for both types; NAME() carries instruction set and type. */
#include <math.h>
#include <omp.h>
#include <string.h>

#include "base/bf16.h"
#include "base/threads.h"
#include "model/cpu/elementary.inc.h"
#include "model/cpu/kernels.h"

#define JOIN3(a, b, c) a##_##b##_##c
#define JOIN(a, b, c) JOIN3(a, b, c)
#define NAME(x) JOIN(x, LAM_SUFFIX, LAM_REAL_SUFFIX)

#define VF LAM_VECTOR_FLOATS

typedef float vector __attribute__((vector_size(VF * 4), aligned(4), may_alias));

#define LAM_REAL_SUFFIX f32
#include "model/cpu/fourier.inc.h"
#include "model/cpu/optimizer.inc.h"
#define real float
#define get(x) (x)
#define put(x) (x)
#include "model/cpu/families.inc.h"
#undef real
#undef get
#undef put
#undef LAM_REAL_SUFFIX

#define LAM_REAL_SUFFIX bf16
#define real uint16_t
#define get(x) lam_bf16_to_float(x)
#define put(x) lam_bf16_from_float(x)
#include "model/cpu/families.inc.h"

#define TABLE(type)                                                                                          \
    {                                                                                                        \
        .name = LAM_ISA_TEXT, .add_bias = JOIN(add_bias, LAM_SUFFIX, type),                                  \
        .fill = JOIN(fill, LAM_SUFFIX, type),                                                                \
        .copy = JOIN(copy, LAM_SUFFIX, type), .set = JOIN(set, LAM_SUFFIX, type),                            \
        .gelu = JOIN(gelu, LAM_SUFFIX, type), .gelu_slope = JOIN(gelu_slope, LAM_SUFFIX, type),              \
        .multiply = JOIN(multiply, LAM_SUFFIX, type), .layernorm = JOIN(layernorm, LAM_SUFFIX, type),        \
        .layernorm_again = JOIN(layernorm_again, LAM_SUFFIX, type),                                          \
        .layernorm_backward = JOIN(layernorm_backward, LAM_SUFFIX, type),                                    \
        .accumulate = JOIN(accumulate, LAM_SUFFIX, type), .add = JOIN(add, LAM_SUFFIX, type),                \
        .embed_tokens = JOIN(embed_tokens, LAM_SUFFIX, type),                                                \
        .batch_sums = JOIN(batch_sums, LAM_SUFFIX, type),                                                    \
        .merge_tokens = JOIN(merge_tokens, LAM_SUFFIX, type),                                                \
        .merge_tokens_backward = JOIN(merge_tokens_backward, LAM_SUFFIX, type),                              \
        .masked_tokens = JOIN(masked_tokens, LAM_SUFFIX, type),                                              \
        .masked_tokens_backward = JOIN(masked_tokens_backward, LAM_SUFFIX, type),                            \
        .gather_patches = JOIN(gather_patches, LAM_SUFFIX, type),                                            \
        .masked_loss = JOIN(masked_loss, LAM_SUFFIX, type),                                                  \
        .masked_loss_backward = JOIN(masked_loss_backward, LAM_SUFFIX, type),                                \
        .fourier_planes = JOIN(fourier_planes, LAM_SUFFIX, type),                                            \
        .fourier_tokens = JOIN(fourier_tokens, LAM_SUFFIX, type),                                            \
        .append_masked = JOIN(append_masked, LAM_SUFFIX, type),                                              \
        .append_masked_backward = JOIN(append_masked_backward, LAM_SUFFIX, type),                            \
        .place_ranks = JOIN(place_ranks, LAM_SUFFIX, type),                                                  \
        .take_ranks = JOIN(take_ranks, LAM_SUFFIX, type),                                                    \
        .position_gradient = JOIN(position_gradient, LAM_SUFFIX, type),                                      \
        .attention = JOIN(attention, LAM_SUFFIX, type),                                                      \
        .attention_backward = JOIN(attention_backward, LAM_SUFFIX, type),                                    \
        .attention_workspace = JOIN(attention_workspace, LAM_SUFFIX, type),                                  \
        .depth_add = JOIN(depth_add, LAM_SUFFIX, type),                                                      \
        .depth_add_backward = JOIN(depth_add_backward, LAM_SUFFIX, type),                                    \
        .scale_rows = JOIN(scale_rows, LAM_SUFFIX, type),                                                    \
        .scale_rows_backward = JOIN(scale_rows_backward, LAM_SUFFIX, type),                                  \
        .unshuffle_channels = JOIN(unshuffle_channels, LAM_SUFFIX, type),                                    \
        .unshuffle_channels_backward = JOIN(unshuffle_channels_backward, LAM_SUFFIX, type),                  \
        .copy_rows = JOIN(copy_rows, LAM_SUFFIX, type),                                                      \
        .fourier_matrices = JOIN(fourier_matrices, LAM_SUFFIX, f32),                                         \
        .fourier_turn = JOIN(fourier_turn, LAM_SUFFIX, f32),                                                 \
        .fourier_error = JOIN(fourier_error, LAM_SUFFIX, f32),                                               \
        .optimizer = &JOIN(lam_optimizer_kernels, LAM_SUFFIX, f32)                                           \
    }

#define SET_NAME2(suffix) lam_kernels_##suffix
#define SET_NAME(suffix) SET_NAME2(suffix)
const lam_kernels SET_NAME(LAM_SUFFIX)[2] = {TABLE(f32), TABLE(bf16)};
