#include <math.h>
#include <omp.h>
#include <string.h>

#include "base/threads.h"
#include "model/internal.h"
#include "model/ops.h"
#include "model/ops/attributes.h"

enum { LANES = 8 }; /* sums that do not wait for each other */
static double total(const double *sums) {
    double all = 0;
    for (int i = 0; i < LANES; i++) all += sums[i];
    return all;
}

static float transformed(float x, int64_t transform) {
    if (transform == 1) return sqrtf(x);
    if (transform == 2) return log1pf(1023.0f * x) * (1.0f / 6.93147180559945309f); /* ln 1024 */
    return x;
}

static void standardise(const lam_node *node, int64_t b, int64_t c, int64_t channels, int64_t count,
                        float *values) {
    const int64_t *a = node->integers;
    const lam_tensor *pixels = node->inputs[0];
    int64_t from = (b * channels + c) * count;
    if (pixels->dtype == LAM_F32) {
        memcpy(values, (const float *)pixels->data + from, (size_t)count * sizeof(float));
        return;
    }
    float scale = ((const float *)node->inputs[a[LAM_PATCHES_AT_SCALE]]->data)[c],
          present = ((const float *)node->inputs[a[LAM_PATCHES_AT_PRESENT]]->data)[b * channels + c];
    if (a[LAM_PATCHES_AT_ONLY]) {
        int64_t only = *(const int64_t *)node->inputs[a[LAM_PATCHES_AT_ONLY]]->data;
        if (only >= 0 && only != c) present = 0;
    }
    double sums[LANES] = {0}, squares[LANES] = {0};
    for (int64_t first = 0; first < count; first += LANES) {
        int64_t end = first + LANES < count ? first + LANES : count;
        for (int64_t i = first; i < end; i++) {
            float pixel = pixels->dtype == LAM_U8 ? (float)((const uint8_t *)pixels->data)[from + i]
                                                  : (float)((const uint16_t *)pixels->data)[from + i];
            values[i] = transformed(pixel * scale, a[LAM_PATCHES_TRANSFORM]);
            sums[i - first] += (double)values[i];
        }
    }
    float mean, rstd;
    if (a[LAM_PATCHES_BY_CROP]) {
        double centre = total(sums) / (double)count;
        for (int64_t first = 0; first < count; first += LANES) {
            int64_t end = first + LANES < count ? first + LANES : count;
            for (int64_t i = first; i < end; i++)
                squares[i - first] += ((double)values[i] - centre) * ((double)values[i] - centre);
        }
        mean = (float)centre;
        rstd = (float)(1.0 / sqrt(total(squares) / (double)count + LAM_PATCHES_CROP_EPS));
    } else {
        mean = ((const float *)node->inputs[a[LAM_PATCHES_AT_MEAN]]->data)[b * channels + c];
        rstd = ((const float *)node->inputs[a[LAM_PATCHES_AT_MEAN] + 1]->data)[b * channels + c];
    }
    for (int64_t i = 0; i < count; i++) values[i] = present != 0.0f ? (values[i] - mean) * rstd : 0.0f;
}

static lam_status patches_forward(lam_node *node) {
    const lam_tensor *pixels = node->inputs[0];
    int64_t batch = pixels->shape[0], channels = pixels->shape[1], size = pixels->shape[2],
            patch = node->integers[LAM_PATCHES_SIZE], grid = size / patch,
            at_ids = node->integers[LAM_PATCHES_AT_IDS];
    const int32_t *ids = at_ids ? node->inputs[at_ids]->data : NULL;
    int64_t used = ids ? node->inputs[at_ids]->count : channels;
    bool by_channel = node->outputs[0]->shape[2] == patch * patch;
    float *to = node->outputs[0]->data;
#pragma omp parallel for collapse(2) schedule(static)
    for (int64_t b = 0; b < batch; b++)
        for (int64_t c = 0; c < used; c++) {
            float *values = (float *)node->forward_workspace + (int64_t)omp_get_thread_num() * size * size;
            standardise(node, b, ids ? ids[c] : c, channels, size * size, values);
            int64_t step = by_channel ? 1 : used;
            for (int64_t y = 0; y < size; y++)
                for (int64_t n = 0; n < grid; n++) { /* the part of a row of pixels that lies in one patch */
                    const float *row = values + y * size + n * patch;
                    int64_t token = y / patch * grid + n, inside = y % patch * patch,
                            at = by_channel ? ((b * used + c) * grid * grid + token) * patch * patch + inside
                                            : ((b * grid * grid + token) * patch * patch + inside) * used + c;
                    for (int64_t p = 0; p < patch; p++) to[at + p * step] = row[p];
                }
        }
    return LAM_OK;
}

static const lam_op patches_op = {.name = "patches", .forward = patches_forward};

lam_tensor *lam_patches(lam_graph *g, lam_tensor *pixels, const lam_standardise *how) {
    lam_tensor *input[LAM_MAX_INPUTS] = {pixels};
    int64_t attributes[8] = {how->patch_size, how->transform, how->by_crop};
    int inputs = 1;
    if (pixels && pixels->dtype != LAM_F32) {
        attributes[LAM_PATCHES_AT_SCALE] = inputs;
        input[inputs++] = how->scale;
        attributes[LAM_PATCHES_AT_PRESENT] = inputs;
        input[inputs++] = how->present;
        if (!how->by_crop) {
            attributes[LAM_PATCHES_AT_MEAN] = inputs;
            input[inputs++] = how->mean;
            input[inputs++] = how->rstd;
        }
        if (how->only_channel) {
            attributes[LAM_PATCHES_AT_ONLY] = inputs;
            input[inputs++] = how->only_channel;
        }
    }
    if (how->channel_ids) {
        attributes[LAM_PATCHES_AT_IDS] = inputs;
        input[inputs++] = how->channel_ids;
    }
    lam_node *node = lam_node_add(g, &patches_op, inputs, input);
    if (!node) return NULL;
    memcpy(node->integers, attributes, sizeof attributes);
    int64_t size = pixels->shape[2], patch = how->patch_size;
    int64_t used = how->channel_ids ? how->channel_ids->count : pixels->shape[1],
            tokens = size / patch * (size / patch);
    if (pixels->rank != 4 || pixels->shape[3] != size || size % patch) {
        lam_graph_fail(g, "patches: crops of %lld pixels cannot be cut into patches of %lld", (long long)size,
                       (long long)patch);
        return NULL;
    }
    node->forward_workspace_bytes = (size_t)lam_threads() * (size_t)(size * size) * sizeof(float);
    return lam_node_output(g, node, LAM_F32, 3,
                           how->by_channel ? (int64_t[]){pixels->shape[0], used * tokens, patch * patch}
                                           : (int64_t[]){pixels->shape[0], tokens, patch * patch * used});
}

static lam_status gather_forward(lam_node *node) {
    const lam_tensor *x = node->inputs[0], *y = node->outputs[0];
    node->kernels->gather_patches(x->data, node->input_count > 1 ? node->inputs[1]->data : NULL, y->data,
                                  x->shape[0], x->shape[1], y->shape[1], x->shape[2], node->integers[0]);
    return LAM_OK;
}

static const lam_op gather_op = {.name = "gather_patches", .forward = gather_forward, .picked_inputs = 1};

lam_tensor *lam_gather_patches(lam_graph *g, lam_tensor *patches, lam_tensor *ids_keep, int64_t channels) {
    lam_node *node = lam_node_add(g, &gather_op, ids_keep ? 2 : 1, (lam_tensor *[]){patches, ids_keep});
    if (!node) return NULL;
    node->integers[0] = channels;
    return lam_node_output(
        g, node, lam_graph_activation(g), 3,
        (int64_t[]){patches->shape[0], ids_keep ? ids_keep->shape[1] : patches->shape[1], patches->shape[2]});
}
