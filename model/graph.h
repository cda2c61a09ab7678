/* A static graph of coarse operations: built once for one set of shapes, differentiated, planned, run many
 * times.
 *
 *     lam_graph *g;
 *     LAM_TRY(lam_graph_create(&g, parameters, lam_backend_cpu()));
 *     lam_tensor *x = lam_input(g, "pixels", LAM_F32, 2, (int64_t[]){8, 16});
 *     lam_tensor *y = lam_linear(g, x, weight, bias, LAM_ACTIVATION_GELU);      // model/ops.h
 *     lam_tensor *loss = ...;                                                    // one F32 element
 *     LAM_TRY(lam_graph_differentiate(g, loss));
 *     LAM_TRY(lam_graph_plan(g));                  // one arena; prints nothing
 *     memcpy(lam_tensor_data(x), ...);
 *     LAM_TRY(lam_graph_forward(g));
 *     LAM_TRY(lam_graph_backward(g));              // adds to the parameters' gradients
 *
 * Building calls return NULL after a failure and accept NULL, so that a net is written without checks; the
 * first failure (shape, type, memory) is returned by lam_graph_plan with its message. A dimension may be
 * bounded: planned at its maximum, its actual count read at run time from a tensor of one I64
 * (lam_graph_bound_rows). Ownership: the graph owns tensors and arena; parameters are borrowed.
 * Threading: one thread drives a graph; kernels use OpenMP. */
#ifndef LAMELLA_MODEL_GRAPH_H
#define LAMELLA_MODEL_GRAPH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "model/backend.h"
#include "model/parameters.h"

#ifdef __cplusplus
extern "C" {
#endif

#define LAM_MAX_RANK 4

typedef enum lam_dtype { LAM_F32 = 1, LAM_U8, LAM_U16, LAM_I32, LAM_I64, LAM_BF16 } lam_dtype;

typedef struct lam_tensor lam_tensor;
typedef struct lam_graph lam_graph;

/* Puts the parameters where the backend works (lam_parameters_place). */
lam_status lam_graph_create(lam_graph **out, lam_parameters *parameters, const lam_backend *backend);
void lam_graph_free(lam_graph *graph);

/* Type of the activations and of their gradients: LAM_F32 (the start) or LAM_BF16. Weights, gradients of weights, statistics,
 * sums and losses are F32 in both. To be called before anything is built. */
void lam_graph_set_activation(lam_graph *graph, lam_dtype type);
lam_dtype lam_graph_activation(const lam_graph *graph);

/* With BF16: weights are rounded at random where they are packed, by Philox(seed, LAM_RNG_ROUNDING) at (step, element), so that
 * updates smaller than half a unit are not lost on average (Gupta et al. 2015, section 3). To be called before anything is
 * built; the step is told before each forward pass. */
void lam_graph_set_stochastic_rounding(lam_graph *graph, uint64_t seed);
void lam_graph_set_step(lam_graph *graph, int64_t step);

/* Tensors */
lam_tensor *lam_input(lam_graph *graph, const char *name, lam_dtype dtype, int rank, const int64_t *shape);
/* The parameter of this name as a tensor (gradients go to the registry's arena). */
lam_tensor *lam_parameter(lam_graph *graph, const char *name);
/* Rows [first, first + count) of a parameter as a tensor of its own: a fused matrix used in parts. */
lam_tensor *lam_parameter_rows(lam_graph *graph, const char *name, int64_t first, int64_t count);
/* Keeps an activation readable after forward (its memory is not reused). Returns the tensor. lam_keep_forward: until the backward
 * pass begins, for what is large. */
lam_tensor *lam_keep(lam_graph *graph, lam_tensor *tensor, const char *name);
lam_tensor *lam_keep_forward(lam_graph *graph, lam_tensor *tensor, const char *name);
/* Valid after lam_graph_plan. On another device: of an input the host memory that the next forward pass sends; of anything else
 * a copy on the host, which waits for the device and is good until the next call for this tensor. NULL: no memory for it. */
void *lam_tensor_data(const lam_tensor *tensor);
/* Where it lies on the device, valid after lam_graph_plan: for what is given to the device with the graph's own work. */
void *lam_tensor_device(const lam_tensor *tensor);
lam_dtype lam_tensor_dtype(const lam_tensor *tensor);
int lam_tensor_rank(const lam_tensor *tensor);
int64_t lam_tensor_dim(const lam_tensor *tensor, int axis);
int64_t lam_tensor_count(const lam_tensor *tensor);

/* The actual number of rows (dimension 0) of `tensor` and what is computed from it row by row comes from
 * count[0] (I64, 0..maximum) at run time. */
void lam_graph_bound_rows(lam_graph *graph, lam_tensor *tensor, lam_tensor *count);

/* Copies the values of an activation or parameter as float32, whatever its type: F32 or BF16. NaN where a device fails. */
void lam_tensor_read(const lam_tensor *tensor, float *values);
void lam_tensor_read_gradient(const lam_tensor *tensor, float *values);

/* What the backward pass recomputes instead of keeping: nothing; outputs of LayerNorm and GELU; whole blocks from what
 * enters them. The results have the same bits, with one exception: with BF16 on CUDA, NORM_GELU recomputes by our kernel what
 * cuBLASLt may have computed behind a product, and some GELUs are the neighbouring bfloat16 then. Outputs and all gradients
 * but those of the weights that a GELU is multiplied by have the same bits then, too; these differ by less than 2^-9 of their
 * norm (model/cuda/linear.cu). */
typedef enum lam_recompute { LAM_RECOMPUTE_NONE, LAM_RECOMPUTE_NORM_GELU, LAM_RECOMPUTE_BLOCK } lam_recompute;
void lam_graph_set_recompute(lam_graph *graph, lam_recompute what);
/* What is built between these two calls is one block. */
void lam_graph_block_begin(lam_graph *graph);
void lam_graph_block_end(lam_graph *graph);

/* The weights are those of the last forward pass (micro-batches of one step, inference): what was prepared from them, such as
 * copies packed for products, is used again. Off at the start; wrong weights if they did change. */
void lam_graph_hold_weights(lam_graph *graph, bool hold);

lam_status lam_graph_differentiate(lam_graph *graph, lam_tensor *loss);
lam_status lam_graph_plan(lam_graph *graph);
/* Plans graphs that are run in turn (one a shape) into one arena, as large as the largest needs, which the first owns. A
 * forward pass of one overwrites inputs, activations and results of all others. */
lam_status lam_graph_plan_together(lam_graph *const *graphs, int64_t count);
/* On another device, forward begins with a copy of the parameters' host weights (unless they are held) and backward ends with one
 * of the gradients to the host, so that both lie where they do on the CPU; not while a graph is recorded. */
lam_status lam_graph_forward(lam_graph *graph);
lam_status lam_graph_backward(lam_graph *graph); /* at most once after each forward pass */
/* From here on passes are recorded by the caller for later replay on the device: they give it their work and nothing else. */
void lam_graph_set_recording(lam_graph *graph, bool recording);
/* Sends the inputs as they are now; forward does it where nothing is recorded. */
lam_status lam_graph_send(lam_graph *graph);
/* From here on what is sent of this input is taken from `pinned` (lam_backend_allocate_pinned), all of its elements, instead of from
 * lam_tensor_data; it must not change between a send and the return of lam_backend_sent. NULL: from lam_tensor_data again.
 * LAM_ERROR_INTERNAL: no input; `pinned` where nothing is sent, on the CPU. */
lam_status lam_tensor_send_from(lam_tensor *input, const void *pinned);

/* Called during backward when the gradients of the parameters in [begin, end) of the gradient arena are final
 * (buckets of at least bucket_elements, in arena order). `train` connects it to the collectives. */
typedef void (*lam_gradient_hook)(void *context, int64_t begin, int64_t end);
void lam_graph_set_gradient_hook(lam_graph *graph, lam_gradient_hook hook, void *context,
                                 int64_t bucket_elements);

/* Memory by owner after the plan, bytes. Activations, their gradients, workspace and inputs live at different times in one
 * arena of `total` bytes; weights and gradients have their own. */
typedef struct lam_memory_report {
    size_t weights, packed /* copies of them for products */, gradients, activations, activation_gradients,
        workspace, inputs, total;
} lam_memory_report;
void lam_graph_memory(const lam_graph *graph, lam_memory_report *report);
/* The report of a plan with this choice, without making it: after differentiation, before the plan. */
lam_status lam_graph_measure(lam_graph *graph, lam_recompute what, lam_memory_report *report);

/* Time by operation since the last reset, for `bench step`. */
typedef struct lam_op_time {
    const char *op; /* "linear", "attention", ... */
    bool backward;
    bool again; /* computed once more for the backward pass (lam_graph_set_recompute) */
    int64_t calls;
    double seconds, flops; /* matrix products only */
    double
        bytes; /* of what it reads and writes, each once; gradients of weights twice, as if all were added to */
} lam_op_time;
void lam_graph_profile(lam_graph *graph, bool on); /* on also resets */
int64_t lam_graph_op_times(const lam_graph *graph, lam_op_time *times, int64_t maximum);

/* The matrix product of a linear map, y[rows, out] = x[rows, in] w[out, in]^T, and how often the forward pass does it; in the
 * backward pass belong to it dw = dy^T x, and with input_gradient dx = dy w. */
typedef struct lam_product {
    int64_t rows, in, out, count;
    bool input_gradient;
} lam_product;
/* Those of the graph, each shape once; more than `maximum`: there are others. */
int64_t lam_graph_products(const lam_graph *graph, lam_product *products, int64_t maximum);

/* Instruction set of the kernels in use: "amx", "avx512_bf16", "avx512", "avx2", "baseline". LAMELLA_ISA forces one (error
 * where missing). */
lam_status lam_isa_select(void);
const char *lam_isa_name(void);

#ifdef __cplusplus
}
#endif
#endif
