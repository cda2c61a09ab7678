#include <string.h>

#include "model/internal.h"
#include "model/ops.h"

/* ---- mask_noise: step, sample_ids; attributes: lam_mask ---- */

static lam_mask mask_of(const lam_node *node) {
    return (lam_mask){(lam_masking)node->integers[0], node->integers[1], node->integers[2], node->integers[3],
                      (uint64_t)node->integers[4]};
}

static lam_status mask_noise_forward(lam_node *node) {
    lam_mask how = mask_of(node);
    lam_tensor *y = node->outputs[0];
    lam_cpu_mask_noise(&how, (uint32_t) * (const int64_t *)node->inputs[0]->data, node->inputs[1]->data,
                       y->data, node->forward_workspace, y->shape[0]);
    return LAM_OK;
}

static const lam_op mask_noise_op = {.name = "mask_noise", .forward = mask_noise_forward};

lam_tensor *lam_mask_noise(lam_graph *g, lam_tensor *step, lam_tensor *sample_ids, const lam_mask *how) {
    lam_node *node = lam_node_add(g, &mask_noise_op, 2, (lam_tensor *[]){step, sample_ids});
    if (!node) return NULL;
    int64_t places = how->grid * how->grid, batch = sample_ids->shape[0], tokens = how->channels * places,
            unit = how->masking == LAM_MASKING_RANDOM          ? 1
                   : how->masking == LAM_MASKING_WHOLE_CHANNEL ? places
                                                               : how->channels;
    if (how->keep < 1 || how->keep > tokens || how->keep % unit) {
        lam_graph_fail(g, "mask_noise: %lld of %lld tokens cannot be kept", (long long)how->keep,
                       (long long)tokens);
        return NULL;
    }
    memcpy(node->integers, (int64_t[]){how->masking, how->channels, how->grid, how->keep, (int64_t)how->seed},
           5 * sizeof(int64_t));
    node->forward_workspace_bytes = lam_cpu_mask_workspace(batch, tokens);
    return lam_node_output(g, node, LAM_F32, 2, (int64_t[]){batch, tokens});
}

/* ---- mask_plan ---- */

static lam_status mask_plan_forward(lam_node *node) {
    const lam_tensor *noise = node->inputs[0];
    lam_cpu_mask_plan(noise->data, node->outputs[0]->data, node->outputs[1]->data, node->outputs[2]->data,
                      node->forward_workspace, noise->shape[0], noise->shape[1], node->outputs[0]->shape[1]);
    return LAM_OK;
}

static const lam_op mask_plan_op = {.name = "mask_plan", .forward = mask_plan_forward};

void lam_mask_plan(lam_graph *g, lam_tensor *noise, int64_t keep, lam_tensor **ids_keep,
                   lam_tensor **ids_restore, lam_tensor **mask) {
    *ids_keep = *ids_restore = *mask = NULL;
    lam_node *node = lam_node_add(g, &mask_plan_op, 1, (lam_tensor *[]){noise});
    if (!node) return;
    int64_t batch = noise->shape[0], tokens = noise->shape[1];
    node->forward_workspace_bytes = lam_cpu_mask_workspace(batch, tokens);
    *ids_keep = lam_node_output(g, node, LAM_I32, 2, (int64_t[]){batch, keep});
    *ids_restore = lam_node_output(g, node, LAM_I32, 2, (int64_t[]){batch, tokens});
    *mask = lam_node_output(g, node, LAM_F32, 2, (int64_t[]){batch, tokens});
}

/* ---- decode_plan ---- */

static lam_status decode_plan_forward(lam_node *node) {
    const lam_tensor *restore = node->inputs[0];
    lam_cpu_decode_plan(restore->data, node->outputs[0]->data, node->outputs[1]->data, restore->shape[0],
                        restore->shape[1], node->integers[0], node->outputs[0]->shape[1]);
    return LAM_OK;
}

static const lam_op decode_plan_op = {.name = "decode_plan", .forward = decode_plan_forward};

void lam_decode_plan(lam_graph *g, lam_tensor *ids_restore, int64_t keep, int64_t decoded,
                     lam_tensor **ids_decoded, lam_tensor **mask) {
    *ids_decoded = *mask = NULL;
    lam_node *node = lam_node_add(g, &decode_plan_op, 1, (lam_tensor *[]){ids_restore});
    if (!node) return;
    int64_t batch = ids_restore->shape[0], tokens = ids_restore->shape[1];
    if (decoded <= keep || decoded > tokens)
        lam_graph_fail(g, "decode_plan: %lld of %lld tokens cannot be decoded where %lld are visible",
                       (long long)decoded, (long long)tokens, (long long)keep);
    node->integers[0] = keep;
    *ids_decoded = lam_node_output(g, node, LAM_I32, 2, (int64_t[]){batch, decoded});
    *mask = lam_node_output(g, node, LAM_F32, 2, (int64_t[]){batch, tokens});
}
