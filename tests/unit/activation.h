/* A parameter as an activation: of the graph's type, with a gradient. */
#ifndef LAMELLA_TESTS_ACTIVATION_H
#define LAMELLA_TESTS_ACTIVATION_H

#include "base/bf16.h"
#include "model/internal.h"

static inline lam_status cast_forward(lam_node *node) {
    const float *x = node->inputs[0]->data;
    lam_tensor *y = node->outputs[0];
    for (int64_t i = 0; i < y->count; i++)
        if (y->dtype == LAM_BF16)
            ((uint16_t *)y->data)[i] = lam_bf16_from_float(x[i]);
        else
            ((float *)y->data)[i] = x[i];
    return LAM_OK;
}
static inline lam_status cast_backward(lam_node *node) {
    bool add;
    float *d = lam_gradient_target(node->inputs[0], &add);
    lam_tensor *y = node->outputs[0];
    for (int64_t i = 0; i < y->count; i++)
        d[i] += y->dtype == LAM_BF16 ? lam_bf16_to_float(((uint16_t *)y->gradient)[i])
                                     : ((float *)y->gradient)[i];
    return LAM_OK;
}
static const lam_op cast_op = {.name = "cast", .forward = cast_forward, .backward = cast_backward};
static inline lam_tensor *cast(lam_graph *g, lam_tensor *x) {
    lam_node *node = lam_node_add(g, &cast_op, 1, &x);
    return lam_node_output(g, node, lam_graph_activation(g), x->rank, x->shape);
}

#endif
