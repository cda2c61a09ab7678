#include <math.h>

#include "model/internal.h"
#include "model/ops.h"
#include "model/ops/attributes.h"

static void target_scale(const float *target, int64_t length, float *mean, float *rstd) {
    double sum = 0, squares = 0;
    for (int64_t i = 0; i < length; i++) sum += (double)target[i];
    double centre = sum / (double)length;
    for (int64_t i = 0; i < length; i++)
        squares += ((double)target[i] - centre) * ((double)target[i] - centre);
    *mean = (float)centre;
    *rstd = (float)(1.0 / sqrt(squares / (double)(length - 1) + LAM_NORM_PIX_EPS));
}

void lam_target_scales(const float *target, int64_t rows, int64_t length, float *mean, float *rstd) {
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; row++)
        target_scale(target + row * length, length, &mean[row], &rstd[row]);
}

int64_t lam_masked_count(const float *mask, int64_t tokens) {
    int64_t count = 0;
    for (int64_t n = 0; n < tokens; n++) count += mask[n] != 0.0f;
    return count;
}

/* Saved: mean [rows], rstd [rows] of the targets, where norm_pix. */
static lam_status masked_loss_forward(lam_node *node) {
    const lam_tensor *prediction = node->inputs[0];
    int64_t batch = prediction->shape[0], tokens = prediction->shape[1], length = prediction->shape[2],
            rows = batch * tokens;
    const float *target = node->inputs[1]->data, *mask = node->inputs[2]->data,
                *weight = node->inputs[3]->data;
    float *loss = node->outputs[0]->data, *sample_loss = node->outputs[1]->data;
    float *mean = node->integers[0] ? node->saved : NULL, *rstd = mean ? mean + rows : NULL;
    double *errors = node->forward_workspace; /* [batch, tokens] */
    if (mean) lam_target_scales(target, rows, length, mean, rstd);
    node->kernels->masked_loss(prediction->data, target, mask, mean, rstd, errors, rows, length);
    double total = 0;
    for (int64_t b = 0; b < batch; b++) {
        double sum = 0;
        for (int64_t n = 0; n < tokens; n++) sum += errors[b * tokens + n];
        int64_t count = lam_masked_count(mask + b * tokens, tokens);
        sample_loss[b] = (float)(sum / (double)(count ? count : 1));
        /* A row of weight 0 holds no sample: whatever it computes, even a NaN, does not count. */
        if (weight[b] != 0.0f) total += (double)weight[b] * sum / (double)(count ? count : 1);
    }
    loss[0] = (float)total;
    return LAM_OK;
}

static lam_status masked_loss_backward(lam_node *node) {
    lam_tensor *prediction = node->inputs[0];
    int64_t batch = prediction->shape[0], tokens = prediction->shape[1], length = prediction->shape[2],
            rows = batch * tokens;
    const float *mask = node->inputs[2]->data, *weight = node->inputs[3]->data,
                *mean = node->integers[0] ? node->saved : NULL;
    float *factor = node->backward_workspace; /* [rows] */
    bool add;
    void *d = lam_gradient_target(prediction, &add);
    if (!d) return LAM_OK;
    float d_loss = *(const float *)node->outputs[0]->gradient;
    for (int64_t b = 0; b < batch; b++) {
        int64_t count = lam_masked_count(mask + b * tokens, tokens);
        float each = count ? d_loss * weight[b] * 2.0f / ((float)length * (float)count) : 0.0f;
        for (int64_t n = 0; n < tokens; n++)
            factor[b * tokens + n] = mask[b * tokens + n] != 0.0f ? each : 0.0f;
    }
    node->kernels->masked_loss_backward(prediction->data, node->inputs[1]->data, factor, mean,
                                        mean ? mean + rows : NULL, d, add, rows, length);
    return LAM_OK;
}

static const lam_op masked_loss_op = {.name = "masked_loss",
                                      .backward_reads_inputs = 1 | 2 | 4 | 8,
                                      .gradients_in_place = 1,
                                      .forward = masked_loss_forward,
                                      .backward = masked_loss_backward};

lam_tensor *lam_masked_loss(lam_graph *g, lam_tensor *prediction, lam_tensor *target, lam_tensor *mask,
                            lam_tensor *weight, bool norm_pix, lam_tensor **sample_loss) {
    *sample_loss = NULL;
    lam_node *node = lam_node_add(g, &masked_loss_op, 4, (lam_tensor *[]){prediction, target, mask, weight});
    if (!node) return NULL;
    if (prediction->count != target->count || mask->count != prediction->shape[0] * prediction->shape[1] ||
        weight->count != prediction->shape[0])
        lam_graph_fail(g, "masked_loss: prediction, target, mask and weight do not belong together");
    node->integers[0] = norm_pix;
    node->forward_workspace_bytes = (size_t)mask->count * sizeof(double);
    node->backward_workspace_bytes = (size_t)mask->count * sizeof(float);
    node->saved_bytes = norm_pix ? (size_t)(2 * mask->count) * sizeof(float) : 0;
    lam_tensor *loss = lam_node_output(g, node, LAM_F32, 1, (int64_t[]){1});
    *sample_loss = lam_node_output(g, node, LAM_F32, 1, (int64_t[]){prediction->shape[0]});
    if (*sample_loss) (*sample_loss)->requires_gradient = false;
    return loss;
}

/* ---- mix: a x + b y of losses ---- */

static lam_status mix_forward(lam_node *node) {
    lam_tensor *to = node->outputs[0];
    const float *x = node->inputs[0]->data, *y = node->inputs[1]->data;
    for (int64_t i = 0; i < to->count; i++)
        ((float *)to->data)[i] = (float)node->numbers[0] * x[i] + (float)node->numbers[1] * y[i];
    return LAM_OK;
}

static lam_status mix_backward(lam_node *node) {
    const lam_tensor *to = node->outputs[0];
    for (int k = 0; k < 2; k++) {
        bool add;
        float *d = lam_gradient_target(node->inputs[k], &add);
        for (int64_t i = 0; d && i < to->count; i++)
            d[i] = (add ? d[i] : 0.0f) + (float)node->numbers[k] * ((const float *)to->gradient)[i];
    }
    return LAM_OK;
}

static const lam_op mix_op = {.name = "mix", .forward = mix_forward, .backward = mix_backward};

lam_tensor *lam_mix(lam_graph *g, lam_tensor *x, double a, lam_tensor *y, double b) {
    lam_node *node = lam_node_add(g, &mix_op, 2, (lam_tensor *[]){x, y});
    if (!node) return NULL;
    if (x->count != y->count || x->dtype != LAM_F32 || y->dtype != LAM_F32)
        lam_graph_fail(g, "mix: %s and %s are no losses of the same size", x->name, y->name);
    node->numbers[0] = a;
    node->numbers[1] = b;
    return lam_node_output(g, node, LAM_F32, x->rank, x->shape);
}
