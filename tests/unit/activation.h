/* A parameter as an activation: of the graph's type, with a gradient. On any device, by way of the host. */
#ifndef LAMELLA_TESTS_ACTIVATION_H
#define LAMELLA_TESTS_ACTIVATION_H

#include <stdlib.h>

#include "base/bf16.h"
#include "model/internal.h"

static inline lam_status cast_forward(lam_node *node) {
    lam_tensor *y = node->outputs[0];
    size_t bytes = (size_t)y->count * lam_dtype_bytes(y->dtype);
    float *x = malloc((size_t)y->count * sizeof *x);
    uint16_t *rounded = malloc((size_t)y->count * sizeof *rounded);
    lam_tensor_read(node->inputs[0], x);
    for (int64_t i = 0; i < y->count; i++) rounded[i] = lam_bf16_from_float(x[i]);
    lam_status status = node->backend->write(y->data, y->dtype == LAM_BF16 ? (void *)rounded : x, bytes);
    free(x);
    free(rounded);
    return status;
}
static inline lam_status cast_backward(lam_node *node) {
    bool add;
    float *d = lam_gradient_target(node->inputs[0], &add);
    lam_tensor *y = node->outputs[0];
    size_t bytes = (size_t)y->count * sizeof *d;
    float *dy = malloc(bytes), *sum = malloc(bytes);
    lam_tensor_read_gradient(y, dy);
    lam_status status = node->backend->read(sum, d, bytes);
    for (int64_t i = 0; i < y->count; i++) sum[i] += dy[i];
    if (status == LAM_OK) status = node->backend->write(d, sum, bytes);
    free(dy);
    free(sum);
    return status;
}
static const lam_op cast_op = {.name = "cast", .forward = cast_forward, .backward = cast_backward};
static inline lam_tensor *cast(lam_graph *g, lam_tensor *x) {
    lam_node *node = lam_node_add(g, &cast_op, 1, &x);
    return lam_node_output(g, node, lam_graph_activation(g), x->rank, x->shape);
}

#endif
