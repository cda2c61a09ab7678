#include <math.h>
#include <string.h>

#include "base/rng.h"
#include "model/internal.h"
#include "model/ops.h"

/* ---- depth_plan: step, sample_ids, drop_scale; outputs: place, count, scale ---- */

static lam_status depth_plan_forward(lam_node *node) {
    uint32_t step = (uint32_t) * (const int64_t *)node->inputs[0]->data, words[4];
    const int64_t *ids = node->inputs[1]->data, branch = node->integers[1];
    double rate = node->numbers[0] * (double)*(const float *)node->inputs[2]->data;
    lam_rng_key_t key = lam_rng_key((uint64_t)node->integers[0], LAM_RNG_DEPTH);
    int32_t *place = node->outputs[0]->data, kept = 0;
    for (int64_t b = 0; b < node->inputs[1]->count; b++) {
        lam_rng_words4(key, step, (uint64_t)ids[b], (uint32_t)(branch / 4), words);
        place[b] = (double)lam_word_uniform(words[branch % 4]) < rate ? -1 : kept++;
    }
    *(int64_t *)node->outputs[1]->data = kept;
    *(float *)node->outputs[2]->data = (float)(1 / (1 - rate));
    return LAM_OK;
}

static const lam_op depth_plan_op = {.name = "depth_plan", .forward = depth_plan_forward};

lam_depth lam_depth_plan(lam_graph *g, lam_tensor *step, lam_tensor *sample_ids, lam_tensor *drop_scale,
                         int64_t branch, double rate, uint64_t seed) {
    lam_depth plan = {0};
    lam_node *node = lam_node_add(g, &depth_plan_op, 3, (lam_tensor *[]){step, sample_ids, drop_scale});
    if (!node) return plan;
    if (!(rate > 0 && rate < 1)) lam_graph_fail(g, "depth_plan: a rate of %g", rate);
    node->integers[0] = (int64_t)seed;
    node->integers[1] = branch;
    node->numbers[0] = rate;
    plan.place = lam_node_output(g, node, LAM_I32, 1, sample_ids->shape);
    plan.count = lam_node_output(g, node, LAM_I64, 1, (int64_t[]){1});
    if (plan.count) {
        double samples = (double)sample_ids->shape[0];
        plan.count->likely = samples * (1 - rate);
        plan.count->spread = sqrt(samples * rate * (1 - rate));
    }
    plan.scale = lam_node_output(g, node, LAM_F32, 1, (int64_t[]){1});
    return plan;
}

/* ---- depth_layernorm: x, r, w, b, [place, scale of r], [place of y]; outputs: y, sum ----
 * Saved: mean and reciprocal deviation of each row of x. */

enum { R_IS_PLACED, Y_IS_PLACED }; /* integers of the node */

/* On the host a bounded tensor ends with its last sample. */
static int64_t padded_rows(const lam_tensor *t) { return t->backend->on_host ? 0 : lam_tensor_rows(t); }

static lam_sample_places places(const lam_node *node) {
    const lam_tensor *x = node->inputs[0];
    bool r = node->integers[R_IS_PLACED], y = node->integers[Y_IS_PLACED];
    return (lam_sample_places){.tokens = x->count / lam_tensor_width(x) / x->shape[0],
                               .r = r ? node->inputs[4]->data : NULL,
                               .y = y ? node->inputs[r ? 6 : 4]->data : NULL,
                               .r_scale = r ? node->inputs[5]->data : NULL,
                               .r_rows = r ? padded_rows(node->inputs[1]) : 0,
                               .y_rows = y ? padded_rows(node->outputs[0]) : 0};
}

static lam_status depth_layernorm_forward(lam_node *node) {
    lam_tensor *x = node->inputs[0], *y = node->outputs[0], *sum = node->outputs[1];
    lam_sample_places kept = places(node);
    int64_t width = lam_tensor_width(x), rows = x->count / width;
    float *mean = node->saved;
    node->kernels->layernorm(x->data, node->inputs[1]->data, node->inputs[2]->data, node->inputs[3]->data,
                             sum->data, y->data, mean, mean + rows, rows, width, (float)node->numbers[0],
                             &kept);
    return LAM_OK;
}

static lam_status depth_layernorm_backward(lam_node *node) {
    lam_tensor *x = node->inputs[0], *w = node->inputs[2], *y = node->outputs[0], *sum = node->outputs[1];
    lam_sample_places kept = places(node);
    int64_t width = lam_tensor_width(x), rows = x->count / width;
    const float *mean = node->saved;
    bool add_x, add_r, ignored;
    void *dx = lam_gradient_target(x, &add_x), *dr = lam_gradient_target(node->inputs[1], &add_r);
    LAM_REQUIRE(y->gradient_written, LAM_ERROR_INTERNAL, "depth_layernorm: the loss does not depend on it");
    node->kernels->layernorm_backward(
        sum->data, w->data, mean, mean + rows, y->gradient, sum->gradient_written ? sum->gradient : NULL, dx,
        add_x, dr, add_r, lam_gradient_target(w, &ignored), lam_gradient_target(node->inputs[3], &ignored),
        node->backward_workspace, rows, width, &kept);
    return LAM_OK;
}

static void depth_layernorm_again(lam_node *node) {
    lam_tensor *x = node->inputs[0];
    lam_sample_places kept = places(node);
    int64_t width = lam_tensor_width(x), rows = x->count / width;
    const float *mean = node->saved;
    node->kernels->layernorm_again(node->outputs[1]->data, node->inputs[2]->data, node->inputs[3]->data,
                                   node->outputs[0]->data, mean, mean + rows, rows, width, &kept);
}

static const lam_op depth_layernorm_op = {.name = "depth_layernorm",
                                          .backward_reads_inputs = 4 | 16 | 32 | 64,
                                          .backward_reads_outputs = 2,
                                          .forward = depth_layernorm_forward,
                                          .backward = depth_layernorm_backward,
                                          .again = depth_layernorm_again,
                                          .again_outputs = 1};

/* Nothing, or whole and of the samples of x. */
static bool fits(lam_depth depth, const lam_tensor *x) {
    if (!depth.place) return !depth.count && !depth.scale;
    return depth.count && depth.scale && depth.place->count == x->shape[0];
}

lam_tensor *lam_depth_layernorm(lam_graph *g, lam_tensor *x, lam_tensor *r, lam_depth of_r, lam_depth of_y,
                                lam_tensor *w, lam_tensor *b, double eps, lam_tensor **sum) {
    lam_tensor *inputs[7] = {x, r, w, b};
    int count = 4;
    *sum = NULL;
    if (of_r.place) {
        inputs[count++] = of_r.place;
        inputs[count++] = of_r.scale;
    }
    if (of_y.place) inputs[count++] = of_y.place;
    lam_node *node = lam_node_add(g, &depth_layernorm_op, count, inputs);
    if (!node) return NULL;
    int64_t width = lam_tensor_width(x), rows = x->count / width;
    if (w->count != width || b->count != width || r->count != x->count || x->bound ||
        r->bound != of_r.count || !fits(of_r, x) || !fits(of_y, x)) {
        lam_graph_fail(g, "depth_layernorm: %s, %s and their samples do not belong together", x->name,
                       r->name);
        return NULL;
    }
    node->integers[R_IS_PLACED] = of_r.place != NULL;
    node->integers[Y_IS_PLACED] = of_y.place != NULL;
    node->numbers[0] = eps;
    node->saved_bytes = (size_t)(2 * rows) * sizeof(float);
    node->backward_workspace_bytes = (size_t)(2 * lam_column_partials(rows) * width) * sizeof(float);
    lam_tensor *y = lam_node_output(g, node, lam_graph_activation(g), x->rank, x->shape);
    if (y) y->bound = of_y.count;
    *sum = lam_node_output(g, node, lam_graph_activation(g), x->rank, x->shape);
    return y;
}

/* ---- depth_add: x, r, place, scale ---- */

static lam_sample_places places_of_r(const lam_node *node) {
    const lam_tensor *x = node->inputs[0];
    return (lam_sample_places){.tokens = x->count / lam_tensor_width(x) / x->shape[0],
                               .r = node->inputs[2]->data,
                               .r_scale = node->inputs[3]->data,
                               .r_rows = padded_rows(node->inputs[1])};
}

static lam_status depth_add_forward(lam_node *node) {
    const lam_tensor *x = node->inputs[0];
    lam_sample_places kept = places_of_r(node);
    int64_t width = lam_tensor_width(x);
    node->kernels->depth_add(x->data, node->inputs[1]->data, node->outputs[0]->data, x->count / width, width,
                             &kept);
    return LAM_OK;
}

static lam_status depth_add_backward(lam_node *node) {
    lam_tensor *x = node->inputs[0], *y = node->outputs[0];
    lam_sample_places kept = places_of_r(node);
    int64_t width = lam_tensor_width(x);
    bool add;
    lam_gradient_pass(node, x, y->gradient, x->count);
    void *dr = lam_gradient_target(node->inputs[1], &add);
    if (dr) node->kernels->depth_add_backward(y->gradient, dr, add, x->count / width, width, &kept);
    return LAM_OK;
}

static const lam_op depth_add_op = {.name = "depth_add",
                                    .backward_reads_inputs = 4 | 8,
                                    .forward = depth_add_forward,
                                    .backward = depth_add_backward};

lam_tensor *lam_depth_add(lam_graph *g, lam_tensor *x, lam_tensor *r, lam_depth of_r) {
    lam_node *node = lam_node_add(g, &depth_add_op, 4, (lam_tensor *[]){x, r, of_r.place, of_r.scale});
    if (!node) return NULL;
    if (r->count != x->count || x->bound || r->bound != of_r.count || !fits(of_r, x)) {
        lam_graph_fail(g, "depth_add: %s, %s and their samples do not belong together", x->name, r->name);
        return NULL;
    }
    return lam_node_output(g, node, lam_graph_activation(g), x->rank, x->shape);
}

/* ---- depth_gather: x, place ---- */

static lam_status depth_gather_forward(lam_node *node) {
    const lam_tensor *x = node->inputs[0];
    const int32_t *place = node->inputs[1]->data;
    size_t sample = (size_t)(x->count / x->shape[0]) * lam_dtype_bytes(x->dtype);
    for (int64_t b = 0; b < x->shape[0]; b++)
        if (place[b] >= 0)
            memcpy((char *)node->outputs[0]->data + (size_t)place[b] * sample,
                   (const char *)x->data + (size_t)b * sample, sample);
    return LAM_OK;
}

static const lam_op depth_gather_op = {.name = "depth_gather", .forward = depth_gather_forward};

lam_tensor *lam_depth_gather(lam_graph *g, lam_tensor *x, lam_depth depth) {
    if (!depth.place) return x;
    lam_node *node = lam_node_add(g, &depth_gather_op, 2, (lam_tensor *[]){x, depth.place});
    if (!node) return NULL;
    if (x->bound || !fits(depth, x)) {
        lam_graph_fail(g, "depth_gather: %s does not have a row for each sample", x->name);
        return NULL;
    }
    lam_tensor *y = lam_node_output(g, node, x->dtype, x->rank, x->shape);
    if (y) y->bound = depth.count;
    return y;
}
