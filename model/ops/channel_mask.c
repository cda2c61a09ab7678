#include <stdlib.h>

#include "base/rng.h"
#include "model/internal.h"
#include "model/ops.h"

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

/* Channels: which of them a step sees, which a sample has, what that leaves to see and to predict. */

static int by_index(const void *a, const void *b) {
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

/* ---- draw_channels ---- */

static lam_status draw_channels_forward(lam_node *node) {
    int64_t channels = node->integers[1], count = node->outputs[0]->count;
    uint32_t step = (uint32_t) * (const int64_t *)node->inputs[0]->data;
    lam_rng_key_t key = lam_rng_key((uint64_t)node->integers[0], LAM_RNG_CHANNELS);
    ranked *order = node->forward_workspace;
    int32_t *ids = node->outputs[0]->data;
    for (int64_t c = 0; c < channels; c += 4) {
        float u[4];
        lam_rng_uniform4(key, step, 0, (uint32_t)(c / 4), u);
        for (int64_t k = 0; k < 4 && c + k < channels; k++) order[c + k] = (ranked){u[k], (int32_t)(c + k)};
    }
    qsort(order, (size_t)channels, sizeof *order, by_noise);
    for (int64_t k = 0; k < count; k++) ids[k] = order[k].index;
    qsort(ids, (size_t)count, sizeof *ids, by_index);
    return LAM_OK;
}

static const lam_op draw_channels_op = {.name = "draw_channels", .forward = draw_channels_forward};

lam_tensor *lam_draw_channels(lam_graph *g, lam_tensor *step, int64_t channels, int64_t count,
                              uint64_t seed) {
    lam_node *node = lam_node_add(g, &draw_channels_op, 1, (lam_tensor *[]){step});
    if (!node) return NULL;
    if (count < 1 || count > channels)
        lam_graph_fail(g, "draw_channels: %lld of %lld channels", (long long)count, (long long)channels);
    node->integers[0] = (int64_t)seed;
    node->integers[1] = channels;
    node->forward_workspace_bytes = (size_t)channels * sizeof(ranked);
    return lam_node_output(g, node, LAM_I32, 1, (int64_t[]){count});
}

/* ---- select_channels: x, ids ---- */

static lam_status select_channels_forward(lam_node *node) {
    const lam_tensor *x = node->inputs[0];
    const int32_t *ids = node->inputs[1]->data;
    int64_t count = node->inputs[1]->count;
    for (int64_t b = 0; b < x->shape[0]; b++)
        for (int64_t k = 0; k < count; k++)
            ((float *)node->outputs[0]->data)[b * count + k] =
                ((const float *)x->data)[b * x->shape[1] + ids[k]];
    return LAM_OK;
}

static const lam_op select_channels_op = {.name = "select_channels", .forward = select_channels_forward};

lam_tensor *lam_select_channels(lam_graph *g, lam_tensor *x, lam_tensor *ids) {
    lam_node *node = lam_node_add(g, &select_channels_op, 2, (lam_tensor *[]){x, ids});
    return node ? lam_node_output(g, node, LAM_F32, 2, (int64_t[]){x->shape[0], ids->count}) : NULL;
}

/* ---- channel_mask_plan: noise, present ----
 * A place that a sample without some channels does not fill gets a token of an absent channel, so that rank < keep says
 * "the encoder has it" of every token that counts. There are always enough: int(Tq) - int(Lq) <= T - L for q <= 1. */

static lam_status channel_mask_plan_forward(lam_node *node) {
    const lam_tensor *noise = node->inputs[0], *present = node->inputs[1];
    int64_t batch = noise->shape[0], tokens = noise->shape[1], channels = present->shape[1],
            per_channel = tokens / channels, places = node->outputs[0]->shape[1];
    int32_t *ids_keep = node->outputs[0]->data, *ids_restore = node->outputs[1]->data;
    float *mask = node->outputs[2]->data;
#pragma omp parallel for schedule(static)
    for (int64_t b = 0; b < batch; b++) {
        ranked *order = (ranked *)node->forward_workspace + b * tokens;
        int64_t there = 0, absent = tokens;
        for (int64_t n = 0; n < tokens; n++) {
            bool is_there = ((const float *)present->data)[b * channels + n / per_channel] != 0.0f;
            ranked token = {((const float *)noise->data)[b * tokens + n], (int32_t)n};
            order[is_there ? there++ : --absent] = token;
        }
        qsort(order, (size_t)there, sizeof *order, by_noise);
        int64_t keep = (int64_t)((double)there * (1.0 - node->numbers[0])), fill = places - keep;
        for (int64_t k = 0; k < tokens; k++) {
            int64_t rank = k < keep ? k : k < there ? k + fill : k < there + fill ? keep + k - there : k;
            int32_t n = order[k].index;
            ids_restore[b * tokens + n] = (int32_t)rank;
            mask[b * tokens + n] = k >= keep && k < there ? 1.0f : 0.0f;
            if (rank < places) ids_keep[b * places + rank] = n;
        }
    }
    return LAM_OK;
}

static const lam_op channel_mask_plan_op = {.name = "channel_mask_plan",
                                            .forward = channel_mask_plan_forward};

void lam_channel_mask_plan(lam_graph *g, lam_tensor *noise, lam_tensor *present, double mask_ratio,
                           lam_tensor **ids_keep, lam_tensor **ids_restore, lam_tensor **mask) {
    *ids_keep = *ids_restore = *mask = NULL;
    lam_node *node = lam_node_add(g, &channel_mask_plan_op, 2, (lam_tensor *[]){noise, present});
    if (!node) return;
    int64_t batch = noise->shape[0], tokens = noise->shape[1];
    if (present->shape[0] != batch || tokens % present->shape[1])
        lam_graph_fail(g, "channel_mask_plan: %lld tokens of %lld channels", (long long)tokens,
                       (long long)present->shape[1]);
    node->numbers[0] = mask_ratio;
    node->forward_workspace_bytes = (size_t)(batch * tokens) * sizeof(ranked);
    int64_t keep = (int64_t)((double)tokens * (1.0 - mask_ratio));
    *ids_keep = lam_node_output(g, node, LAM_I32, 2, (int64_t[]){batch, keep});
    *ids_restore = lam_node_output(g, node, LAM_I32, 2, (int64_t[]){batch, tokens});
    *mask = lam_node_output(g, node, LAM_F32, 2, (int64_t[]){batch, tokens});
}

/* ---- channel_keys: present, [ids] ---- */

static lam_status channel_keys_forward(lam_node *node) {
    const lam_tensor *present = node->inputs[0], *y = node->outputs[0];
    int64_t channels = present->shape[1], tokens = y->shape[1], per_channel = node->integers[0],
            first = node->integers[1];
    const int32_t *ids = node->input_count > 1 ? node->inputs[1]->data : NULL;
#pragma omp parallel for schedule(static)
    for (int64_t b = 0; b < y->shape[0]; b++) {
        const float *has = (const float *)present->data + b * channels;
        float *to = (float *)y->data + b * tokens;
        for (int64_t k = 0; k < tokens; k++) {
            int64_t n = k < first ? 0 : ids ? ids[b * (tokens - first) + k - first] : k - first;
            to[k] = k < first || has[n / per_channel] != 0.0f ? 1.0f : 0.0f;
        }
    }
    return LAM_OK;
}

static const lam_op channel_keys_op = {.name = "channel_keys", .forward = channel_keys_forward};

lam_tensor *lam_channel_keys(lam_graph *g, lam_tensor *present, lam_tensor *ids, int64_t per_channel,
                             bool cls) {
    lam_node *node = lam_node_add(g, &channel_keys_op, ids ? 2 : 1, (lam_tensor *[]){present, ids});
    if (!node) return NULL;
    node->integers[0] = per_channel;
    node->integers[1] = cls;
    return lam_node_output(
        g, node, LAM_F32, 2,
        (int64_t[]){present->shape[0], cls + (ids ? ids->shape[1] : per_channel * present->shape[1])});
}
