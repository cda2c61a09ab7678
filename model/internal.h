/* What graph.c and the operations share; no other directory includes it.
 *
 * An operation is a table entry: what it is called, which of its tensors its backward rule reads (that
 * decides lifetimes), and its two kernels. Forward step i runs at time i, its backward rule at 2n - 1 - i. */
#ifndef LAMELLA_MODEL_INTERNAL_H
#define LAMELLA_MODEL_INTERNAL_H

#include "model/cpu/kernels.h"
#include "model/graph.h"

#ifdef __cplusplus
extern "C" {
#endif

#define LAM_MAX_INPUTS 8
#define LAM_MAX_OUTPUTS 3

typedef struct lam_node lam_node;

struct lam_tensor {
    char name[96];
    lam_dtype dtype;
    int rank;
    int64_t shape[LAM_MAX_RANK];
    int64_t count;
    void *data;
    float *gradient;                      /* F32; NULL where none is needed */
    const lam_parameter_entry *parameter; /* NULL: an activation or input */
    lam_node *producer;                   /* NULL: input or parameter */
    lam_tensor *bound;                    /* [1] I64: actual rows of dimension 0 */
    bool requires_gradient, kept, is_input, gradient_written;
    int64_t last_forward_use, last_backward_use, first_gradient_use; /* times; -1: never */
};

typedef struct lam_op {
    const char *name;
    uint32_t backward_reads_inputs,
        backward_reads_outputs; /* bit i: the backward rule reads input or output i */
    lam_status (*forward)(lam_node *node);
    lam_status (*backward)(lam_node *node); /* NULL: no gradient passes */
    double (*flops)(const lam_node *node);  /* of forward; NULL: 0 */
} lam_op;

struct lam_node {
    const lam_op *op;
    const lam_kernels *kernels;
    lam_tensor *inputs[LAM_MAX_INPUTS], *outputs[LAM_MAX_OUTPUTS];
    int input_count, output_count;
    int64_t integers[8]; /* attributes of the operation */
    double numbers[4];
    size_t saved_bytes, forward_workspace_bytes, backward_workspace_bytes;
    void *saved;                                  /* kept from forward to backward */
    void *forward_workspace, *backward_workspace; /* scratch of one step */
    double seconds[2], flops_done[2];
    int64_t calls[2];
};

/* For operations. lam_node_add returns NULL after a failure. */
lam_node *lam_node_add(lam_graph *graph, const lam_op *op, int inputs, lam_tensor *const *input);
lam_tensor *lam_node_output(lam_graph *graph, lam_node *node, lam_dtype dtype, int rank,
                            const int64_t *shape);
/* Ends building with a message; every later call returns NULL. */
void lam_graph_fail(lam_graph *graph, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Rows of the tensor seen as [rows, last dimension], by its bound where it has one. */
int64_t lam_tensor_rows(const lam_tensor *tensor);
int64_t lam_tensor_width(const lam_tensor *tensor); /* last dimension */
/* The gradient buffer of an input, and whether the kernel must add to it (true) or write it (false).
 * Parameters are always added to. NULL: not needed. */
float *lam_gradient_target(lam_tensor *tensor, bool *add);

#ifdef __cplusplus
}
#endif
#endif
