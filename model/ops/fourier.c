#include <string.h>

#include "base/gemm.h"
#include "model/internal.h"
#include "model/ops.h"
#include "model/ops/attributes.h"

/* Attributes: form, squared, norm_pix, patch size, channels. Saved: the two DFT matrices, then for each sample the gradient of
 * its loss with respect to the half spectrum of its prediction, [images, half, (re | im), height].
 *
 * A real image has conjugate halves, so half = width / 2 + 1 columns are computed. Rows first: [images * height, width] times
 * [width, 2 half]; then, turned so that a column lies in a row, [images * half, 2 height] times [2 height, 2 height]. */

static int64_t square_root(int64_t n) {
    int64_t root = 1;
    while (root * root < n) root++;
    return root;
}

lam_fourier_shape lam_fourier_shape_of(const lam_node *node) {
    const lam_tensor *x = node->inputs[0];
    lam_fourier_shape s = {.form = (lam_fourier_form)node->integers[LAM_FOURIER_AT_FORM],
                           .channels = node->integers[LAM_FOURIER_AT_CHANNELS],
                           .patch_size = node->integers[LAM_FOURIER_AT_PATCH_SIZE],
                           .tokens = x->shape[1],
                           .length = x->shape[2]};
    int64_t area = s.patch_size * s.patch_size;
    s.by_channel = s.length == area;
    s.grid = square_root(s.by_channel ? s.tokens / s.channels : s.tokens);
    s.height = s.form == LAM_FOURIER_IMAGE   ? s.grid * s.patch_size
               : s.form == LAM_FOURIER_PATCH ? s.patch_size
                                             : s.grid;
    s.width = s.height;
    s.half = s.width / 2 + 1;
    s.images = s.tokens * s.length / (s.height * s.width);
    s.cell = s.form == LAM_FOURIER_IMAGE ? s.tokens * s.length : s.length;
    return s;
}

/* Floats of one sample. */
static int64_t plane_count(const lam_fourier_shape *s) { return s->images * s->height * s->width; }
static int64_t spectrum_count(const lam_fourier_shape *s) { return s->images * s->half * 2 * s->height; }
static int64_t matrix_count(const lam_fourier_shape *s) {
    return s->width * 2 * s->half + 4 * s->height * s->height;
}
static float *column_matrix(const lam_node *node, const lam_fourier_shape *s) {
    return (float *)node->saved + s->width * 2 * s->half;
}
static float *saved_spectrum(const lam_node *node, const lam_fourier_shape *s, int64_t sample) {
    return (float *)node->saved + matrix_count(s) + sample * spectrum_count(s);
}

/* planes -> spectrum; rows, turned: scratch of spectrum_count floats. */
static lam_status transform(const lam_node *node, const lam_fourier_shape *s, const float *planes,
                            float *rows, float *turned, float *spectrum) {
    int64_t h = s->height, w = s->width, half = s->half;
    LAM_TRY(lam_gemm_f32(false, false, s->images * h, 2 * half, w, planes, w, node->saved, 2 * half, 0.0f,
                         rows, 2 * half));
    node->kernels->fourier_turn(rows, turned, s, false);
    return lam_gemm_f32(false, false, s->images * half, 2 * h, 2 * h, turned, 2 * h, column_matrix(node, s),
                        2 * h, 0.0f, spectrum, 2 * h);
}

/* The weight of each cell: masked tokens alike, or one cell for all. */
static void fill_cells(const lam_fourier_shape *s, const float *mask, float *cells) {
    if (s->form == LAM_FOURIER_IMAGE) {
        cells[0] = 1.0f / (float)s->cell;
        return;
    }
    int64_t count = lam_masked_count(mask, s->tokens);
    for (int64_t t = 0; t < s->tokens; t++)
        cells[t] = mask[t] != 0.0f ? 1.0f / ((float)s->length * (float)count) : 0.0f;
}

static void fill_scales(const lam_node *node, const lam_fourier_shape *s, const float *target, float *mean,
                        float *rstd) {
    if (node->integers[LAM_FOURIER_AT_NORM_PIX]) {
        lam_target_scales(target, s->tokens, s->length, mean, rstd);
        return;
    }
    for (int64_t t = 0; t < s->tokens; t++) {
        mean[t] = 0;
        rstd[t] = 1;
    }
}

static lam_status fourier_forward(lam_node *node) {
    lam_fourier_shape s = lam_fourier_shape_of(node);
    const lam_tensor *x = node->inputs[0];
    const float *target = node->inputs[1]->data, *mask = node->inputs[2]->data,
                *weight = node->inputs[3]->data;
    int64_t sample = s.tokens * s.length, spectrum = spectrum_count(&s);
    double *errors = node->forward_workspace, total = 0;
    float *planes = (float *)(errors + s.images), *rows = planes + plane_count(&s), *turned = rows + spectrum,
          *wanted = turned + spectrum, *mean = wanted + spectrum, *rstd = mean + s.tokens,
          *cells = rstd + s.tokens;
    float *sample_loss = node->outputs[1]->data, *loss = node->outputs[0]->data;
    bool squared = node->integers[LAM_FOURIER_AT_SQUARED] != 0;
    node->kernels->fourier_matrices(node->saved, column_matrix(node, &s), &s);
    for (int64_t b = 0; b < x->shape[0]; b++) {
        const float *truth = target + b * sample, *hidden = mask + b * s.tokens;
        float *guess = saved_spectrum(node, &s, b);
        fill_scales(node, &s, truth, mean, rstd);
        fill_cells(&s, hidden, cells);
        node->kernels->fourier_planes(x->data, b * sample, truth, hidden, mean, rstd, planes, &s);
        LAM_TRY(transform(node, &s, planes, rows, turned, guess));
        node->kernels->fourier_planes(NULL, 0, truth, hidden, mean, rstd, planes, &s);
        LAM_TRY(transform(node, &s, planes, rows, turned, wanted));
        double error = node->kernels->fourier_error(guess, wanted, cells, errors, &s, squared);
        sample_loss[b] = (float)error;
        /* As in masked_loss: a row of weight 0 does not count, even where it is a NaN. */
        if (weight[b] != 0.0f) total += (double)weight[b] * error;
    }
    loss[0] = (float)total;
    return LAM_OK;
}

static lam_status fourier_backward(lam_node *node) {
    lam_fourier_shape s = lam_fourier_shape_of(node);
    lam_tensor *x = node->inputs[0];
    const float *mask = node->inputs[2]->data, *weight = node->inputs[3]->data;
    int64_t h = s.height, w = s.width, half = s.half, sample = s.tokens * s.length;
    float *turned = node->backward_workspace, *rows = turned + spectrum_count(&s),
          *planes = rows + spectrum_count(&s), d_loss = *(const float *)node->outputs[0]->gradient;
    bool add;
    void *d = lam_gradient_target(x, &add);
    if (!d) return LAM_OK;
    for (int64_t b = 0; b < x->shape[0]; b++) {
        bool counts = weight[b] != 0.0f;
        if (counts) {
            LAM_TRY(lam_gemm_f32(false, true, s.images * half, 2 * h, 2 * h, saved_spectrum(node, &s, b),
                                 2 * h, column_matrix(node, &s), 2 * h, 0.0f, turned, 2 * h));
            node->kernels->fourier_turn(turned, rows, &s, true);
            LAM_TRY(lam_gemm_f32(false, true, s.images * h, w, 2 * half, rows, 2 * half, node->saved,
                                 2 * half, 0.0f, planes, w));
        } else {
            memset(planes, 0, (size_t)sample * sizeof(float));
        }
        node->kernels->fourier_tokens(planes, mask + b * s.tokens, d_loss * weight[b], d, b * sample, add,
                                      &s);
    }
    return LAM_OK;
}

/* One transform: forward does two and backward one, and the graph counts backward as twice forward. */
static double fourier_flops(const lam_node *node) {
    lam_fourier_shape s = lam_fourier_shape_of(node);
    double rows = 2.0 * (double)(s.images * s.height * s.width * 2 * s.half),
           columns = 2.0 * (double)(s.images * s.half * 4 * s.height * s.height);
    return (rows + columns) * (double)node->inputs[0]->shape[0];
}

static const lam_op fourier_op = {.name = "fourier_loss",
                                  .backward_reads_inputs = 4 | 8,
                                  .forward = fourier_forward,
                                  .backward = fourier_backward,
                                  .flops = fourier_flops};

static bool fits(lam_graph *g, const lam_node *node, const lam_tensor *target, const lam_tensor *mask,
                 const lam_tensor *weight) {
    const lam_tensor *x = node->inputs[0];
    int64_t area = node->integers[LAM_FOURIER_AT_PATCH_SIZE] * node->integers[LAM_FOURIER_AT_PATCH_SIZE],
            channels = node->integers[LAM_FOURIER_AT_CHANNELS];
    bool layout = x->rank == 3 &&
                  (x->shape[2] == area * channels || (x->shape[2] == area && x->shape[1] % channels == 0));
    lam_fourier_shape s = layout ? lam_fourier_shape_of(node) : (lam_fourier_shape){0};
    int64_t places = s.grid * s.grid * (s.by_channel ? channels : 1);
    if (layout && s.tokens == places && target->count == x->count &&
        mask->count == x->shape[0] * x->shape[1] && weight->count == x->shape[0])
        return true;
    lam_graph_fail(
        g, "fourier_loss: prediction, target, mask, weight and patches of %lld pixels do not belong together",
        (long long)node->integers[LAM_FOURIER_AT_PATCH_SIZE]);
    return false;
}

lam_tensor *lam_fourier_loss(lam_graph *g, lam_tensor *prediction, lam_tensor *target, lam_tensor *mask,
                             lam_tensor *weight, const lam_fourier *how, lam_tensor **sample_loss) {
    *sample_loss = NULL;
    lam_node *node = lam_node_add(g, &fourier_op, 4, (lam_tensor *[]){prediction, target, mask, weight});
    if (!node) return NULL;
    node->integers[LAM_FOURIER_AT_FORM] = how->form;
    node->integers[LAM_FOURIER_AT_SQUARED] = how->squared;
    node->integers[LAM_FOURIER_AT_NORM_PIX] = how->norm_pix;
    node->integers[LAM_FOURIER_AT_PATCH_SIZE] = how->patch_size;
    node->integers[LAM_FOURIER_AT_CHANNELS] = how->channels;
    if (!fits(g, node, target, mask, weight)) return NULL;
    lam_fourier_shape s = lam_fourier_shape_of(node);
    int64_t batch = prediction->shape[0];
    size_t planes = (size_t)plane_count(&s) * sizeof(float),
           spectrum = (size_t)spectrum_count(&s) * sizeof(float);
    node->saved_bytes = (size_t)matrix_count(&s) * sizeof(float) + (size_t)batch * spectrum;
    node->forward_workspace_bytes =
        (size_t)s.images * sizeof(double) + planes + 3 * spectrum + (size_t)(3 * s.tokens) * sizeof(float);
    node->backward_workspace_bytes = planes + 2 * spectrum;
    lam_tensor *loss = lam_node_output(g, node, LAM_F32, 1, (int64_t[]){1});
    *sample_loss = lam_node_output(g, node, LAM_F32, 1, (int64_t[]){batch});
    if (*sample_loss) (*sample_loss)->requires_gradient = false;
    return loss;
}
