#include <stdlib.h>

#include "base/rng.h"
#include "model/internal.h"
#include "model/ops.h"

static lam_status uniform_noise_forward(lam_node *node) {
    lam_tensor *y = node->outputs[0];
    int64_t batch = y->shape[0], tokens = y->shape[1];
    uint32_t step = (uint32_t) * (const int64_t *)node->inputs[0]->data;
    const int64_t *ids = node->inputs[1]->data;
    lam_rng_key_t key = lam_rng_key((uint64_t)node->integers[0], LAM_RNG_MASK);
    float *to = y->data;
#pragma omp parallel for schedule(static)
    for (int64_t b = 0; b < batch; b++)
        for (int64_t n = 0; n < tokens; n += 4) {
            float u[4];
            lam_rng_uniform4(key, step, (uint64_t)ids[b], (uint32_t)(n / 4), u);
            for (int64_t k = 0; k < 4 && n + k < tokens; k++) to[b * tokens + n + k] = u[k];
        }
    return LAM_OK;
}

static const lam_op uniform_noise_op = {.name = "uniform_noise", .forward = uniform_noise_forward};

lam_tensor *lam_uniform_noise(lam_graph *g, lam_tensor *step, lam_tensor *sample_ids, int64_t tokens,
                              uint64_t seed) {
    lam_node *node = lam_node_add(g, &uniform_noise_op, 2, (lam_tensor *[]){step, sample_ids});
    if (!node) return NULL;
    node->integers[0] = (int64_t)seed;
    return lam_node_output(g, node, LAM_F32, 2, (int64_t[]){sample_ids->shape[0], tokens});
}

typedef struct ranked {
    float noise;
    int32_t index;
} ranked;

static int by_noise(const void *a, const void *b) {
    const ranked *x = a, *y = b;
    if (x->noise < y->noise) return -1;
    if (x->noise > y->noise) return 1;
    return (x->index > y->index) - (x->index < y->index);
}

static lam_status mask_plan_forward(lam_node *node) {
    const lam_tensor *noise = node->inputs[0];
    int64_t batch = noise->shape[0], tokens = noise->shape[1], keep = node->outputs[0]->shape[1];
    int32_t *ids_keep = node->outputs[0]->data, *ids_restore = node->outputs[1]->data;
    float *mask = node->outputs[2]->data;
#pragma omp parallel for schedule(static)
    for (int64_t b = 0; b < batch; b++) {
        ranked *order = (ranked *)node->forward_workspace + b * tokens;
        for (int64_t n = 0; n < tokens; n++)
            order[n] = (ranked){((const float *)noise->data)[b * tokens + n], (int32_t)n};
        qsort(order, (size_t)tokens, sizeof *order, by_noise);
        for (int64_t rank = 0; rank < tokens; rank++) {
            int32_t n = order[rank].index;
            ids_restore[b * tokens + n] = (int32_t)rank;
            mask[b * tokens + n] = rank >= keep ? 1.0f : 0.0f;
            if (rank < keep) ids_keep[b * keep + rank] = n;
        }
    }
    return LAM_OK;
}

static const lam_op mask_plan_op = {.name = "mask_plan", .forward = mask_plan_forward};

void lam_mask_plan(lam_graph *g, lam_tensor *noise, int64_t keep, lam_tensor **ids_keep,
                   lam_tensor **ids_restore, lam_tensor **mask) {
    *ids_keep = *ids_restore = *mask = NULL;
    lam_node *node = lam_node_add(g, &mask_plan_op, 1, (lam_tensor *[]){noise});
    if (!node) return;
    int64_t batch = noise->shape[0], tokens = noise->shape[1];
    node->forward_workspace_bytes = (size_t)(batch * tokens) * sizeof(ranked);
    *ids_keep = lam_node_output(g, node, LAM_I32, 2, (int64_t[]){batch, keep});
    *ids_restore = lam_node_output(g, node, LAM_I32, 2, (int64_t[]){batch, tokens});
    *mask = lam_node_output(g, node, LAM_F32, 2, (int64_t[]){batch, tokens});
}
