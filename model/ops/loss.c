#include <math.h>

#include "model/internal.h"
#include "model/ops.h"

#define NORM_PIX_EPS 1e-6

/* Mean and reciprocal deviation that the target patch is standardised with: (0, 1) without norm_pix. */
static void target_scale(const float *target, int64_t length, bool norm_pix, float *mean, float *rstd) {
    *mean = 0;
    *rstd = 1;
    if (!norm_pix) return;
    double sum = 0, squares = 0;
    for (int64_t i = 0; i < length; i++) sum += (double)target[i];
    double centre = sum / (double)length;
    for (int64_t i = 0; i < length; i++)
        squares += ((double)target[i] - centre) * ((double)target[i] - centre);
    *mean = (float)centre;
    *rstd = (float)(1.0 / sqrt(squares / (double)(length - 1) + NORM_PIX_EPS));
}

static int64_t masked_count(const float *mask, int64_t tokens) {
    int64_t count = 0;
    for (int64_t n = 0; n < tokens; n++) count += mask[n] != 0.0f;
    return count;
}

static lam_status masked_loss_forward(lam_node *node) {
    const lam_tensor *prediction = node->inputs[0];
    int64_t batch = prediction->shape[0], tokens = prediction->shape[1], length = prediction->shape[2];
    const float *guess = prediction->data, *target = node->inputs[1]->data, *mask = node->inputs[2]->data,
                *weight = node->inputs[3]->data;
    float *loss = node->outputs[0]->data, *sample_loss = node->outputs[1]->data;
    bool norm_pix = node->integers[0];
    double *errors = node->forward_workspace; /* [batch, tokens] */
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < batch * tokens; row++) {
        errors[row] = 0;
        if (mask[row] == 0.0f) continue;
        const float *p = guess + row * length, *t = target + row * length;
        float mean, rstd, sum = 0;
        target_scale(t, length, norm_pix, &mean, &rstd);
#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < length; i++) {
            float e = p[i] - (t[i] - mean) * rstd;
            sum += e * e;
        }
        errors[row] = (double)sum / (double)length;
    }
    double total = 0;
    for (int64_t b = 0; b < batch; b++) {
        double sum = 0;
        for (int64_t n = 0; n < tokens; n++) sum += errors[b * tokens + n];
        int64_t count = masked_count(mask + b * tokens, tokens);
        sample_loss[b] = (float)(sum / (double)(count ? count : 1));
        /* A row of weight 0 holds no sample: whatever it computes, even a NaN, does not count. */
        if (weight[b] != 0.0f) total += (double)weight[b] * sum / (double)(count ? count : 1);
    }
    loss[0] = (float)total;
    return LAM_OK;
}

static lam_status masked_loss_backward(lam_node *node) {
    lam_tensor *prediction = node->inputs[0];
    int64_t batch = prediction->shape[0], tokens = prediction->shape[1], length = prediction->shape[2];
    const float *guess = prediction->data, *target = node->inputs[1]->data, *mask = node->inputs[2]->data,
                *weight = node->inputs[3]->data;
    bool norm_pix = node->integers[0], add;
    float *d = lam_gradient_target(prediction, &add), d_loss = node->outputs[0]->gradient[0];
    if (!d) return LAM_OK;
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < batch * tokens; row++) {
        int64_t b = row / tokens, count = masked_count(mask + b * tokens, tokens);
        bool counts = mask[row] != 0.0f && weight[b] != 0.0f;
        float factor = counts ? d_loss * weight[b] * 2.0f / ((float)length * (float)count) : 0.0f, mean = 0,
              rstd = 1;
        const float *p = guess + row * length, *t = target + row * length;
        float *to = d + row * length;
        if (counts) target_scale(t, length, norm_pix, &mean, &rstd);
#pragma omp simd
        for (int64_t i = 0; i < length; i++) {
            float value = counts ? factor * (p[i] - (t[i] - mean) * rstd) : 0.0f;
            to[i] = (add ? to[i] : 0.0f) + value;
        }
    }
    return LAM_OK;
}

static const lam_op masked_loss_op = {"masked_loss",        1 | 2 | 4, 0, masked_loss_forward,
                                      masked_loss_backward, NULL};

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
    lam_tensor *loss = lam_node_output(g, node, LAM_F32, 1, (int64_t[]){1});
    *sample_loss = lam_node_output(g, node, LAM_F32, 1, (int64_t[]){prediction->shape[0]});
    if (*sample_loss) (*sample_loss)->requires_gradient = false;
    return loss;
}
