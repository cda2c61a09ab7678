#include "model/estimate.h"

#include <math.h>
#include <string.h>

#include "model/graph_state.h"

/* H200, NVIDIA: bf16 as torch reaches at 8192^3, 794 TFLOP/s of 989 on an H100 SXM with the same chip in the public table of
 * maximum achievable FLOPS (stas00/ml-engineering); float32 outside the tensor cores 67 TFLOP/s by the data sheet, of which 3/4;
 * memory 4.8 TB/s by the data sheet, of which 4.3; exponentials 132 multiprocessors x 16 a clock x 1.75 GHz; mma.sync is held to
 * 2/3 of what wgmma gives on this chip. H100: the same chip; memory 3.35 TB/s by the data sheet, of which 3.0, the same share. */
#define HOPPER                                                                                                   \
    .bf16_flops_per_s = 790e12, .f32_flops_per_s = 50e12, .attention_flops_per_s = 527e12,                       \
    .exponentials_per_s = 3.7e12, .launch_seconds = 1e-6, .product_share = 0.9, .attention_share = 0.75,         \
    .memory_share = 0.9
static const lam_device_limits known[] = {{.name = "H200", HOPPER, .bytes_per_s = 4.3e12, .memory_bytes = 143771.0 * 1024 * 1024},
                                          {.name = "H100 80GB HBM3", HOPPER, .bytes_per_s = 3.0e12, .memory_bytes = 81559.0 * 1024 * 1024}};

const lam_device_limits *lam_device_limits_find(const char *device) {
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strstr(device, known[i].name) || !strncmp(known[i].name, device, strlen(device))) return &known[i];
    return NULL;
}

static bool is_attention(const lam_node *node) { return strstr(node->op->name, "attention") != NULL; }

/* One for each score; the backward pass computes the scores anew. */
static double exponentials_of(const lam_node *node, double forward_flops) {
    if (!is_attention(node)) return 0;
    const lam_tensor *y = node->outputs[0];
    double head_dim = (double)lam_tensor_width(y) / (double)node->integers[0];
    return forward_flops / (4 * head_dim);
}

/* Fills in the times of one call whose work is known. */
static void take_times(lam_op_estimate *e, bool attention, bool bf16, const lam_device_limits *l) {
    double rate = !bf16 ? l->f32_flops_per_s : attention ? l->attention_flops_per_s : l->bf16_flops_per_s,
           share = attention ? l->attention_share : l->product_share, products = e->flops / rate,
           exponentials = e->exponentials / l->exponentials_per_s, memory = e->bytes / l->bytes_per_s;
    e->bound_seconds = fmax(fmax(products, exponentials), memory);
    e->seconds = fmax(fmax(products, exponentials) / share, memory / l->memory_share) + l->launch_seconds;
}

/* The scores once more: five products where the forward pass has two. */
static const double backward_products = 2.5;

static bool is_linear(const lam_node *node) {
    return node && !strncmp(node->op->name, "linear", 6) && strcmp(node->op->name, "linear_gelu") != 0;
}

/* What a linear map needs for the gradients of its biases is added up by who writes dy last: LayerNorm, attention where it alone
 * does (model/cuda/norm.cu, attention_backward.cu). */
static bool sums_taken(const lam_tensor *y) {
    const lam_node *map = y->producer, *writer = y->first_reader;
    bool wanted = false;
    for (int k = 2; is_linear(map) && k < map->input_count; k += 2) wanted |= map->inputs[k]->requires_gradient;
    if (!wanted || !writer) return false;
    return !strcmp(writer->op->name, "layernorm") ||
           (is_attention(writer) && y->dtype == LAM_BF16 && y->consumers == 1);
}

/* Kernels beside those of the backward pass itself: for a linear map, before its products, the sums of the columns of dy, and where
 * it has a GELU that one's slope with them, which reads h too and writes dh; for attention a row of sums in float32 for 32 rows,
 * written and read, and where it normalises queries and keys two such rows of each for the norm's weights. */
static double sums_seconds(const lam_node *node, const lam_device_limits *l) {
    double bytes = 0;
    int launches = 0;
    for (int k = 0; is_attention(node) && k < node->input_count; k++) {
        const lam_tensor *t = node->inputs[k];
        if (!sums_taken(t)) continue;
        bytes += 2 * sizeof(float) / 32.0 * (double)lam_tensor_rows(t) * (double)lam_tensor_width(t);
        launches = 1;
    }
    if (!strcmp(node->op->name, "normed_attention")) {
        const lam_tensor *qkv = node->inputs[0];
        bytes += 2 * sizeof(float) / 32.0 * (double)lam_tensor_rows(qkv) * (double)lam_tensor_width(qkv) * 4 / 3;
        launches += 2;
    }
    if (node->products[0].count && !sums_taken(node->outputs[0])) {
        double passes = strcmp(node->op->name, "linear_gelu") ? 1 : 3;
        bytes = passes * (double)node->products[0].rows * (double)node->products[0].out *
                (double)lam_dtype_bytes(node->outputs[0]->dtype);
        launches = 2;
    }
    return bytes / l->bytes_per_s / l->memory_share + launches * l->launch_seconds;
}

static lam_op_estimate estimate(const lam_node *node, lam_pass pass, bool bf16, const lam_device_limits *l) {
    lam_op_estimate e = {.op = node->op->name,
                         .backward = pass == LAM_PASS_BACKWARD,
                         .again = pass == LAM_PASS_AGAIN,
                         .calls = 1};
    lam_node_work(node, pass, &e.flops, &e.bytes);
    bool attention = is_attention(node);
    if (attention && pass == LAM_PASS_BACKWARD) {
        e.exponentials = exponentials_of(node, e.flops / 2);
        e.flops *= backward_products / 2;
    } else if (e.flops > 0) {
        e.exponentials = exponentials_of(node, e.flops);
    }
    take_times(&e, attention, bf16, l);
    if (pass == LAM_PASS_BACKWARD) e.seconds += sums_seconds(node, l);
    return e;
}

lam_op_estimate lam_estimate_attention(const lam_device_limits *l, const lam_attention_shape *s, bool bf16,
                                       bool backward) {
    double scores = (double)(s->batch * s->heads * s->queries) * (double)s->keys, head_dim = (double)s->head_dim,
           queries = (double)(s->batch * s->heads * s->queries), keys = (double)(s->batch * s->heads * s->keys),
           size = bf16 ? 2 : 4;
    lam_op_estimate e = {.op = "attention", .backward = backward, .calls = 1, .exponentials = scores};
    e.flops = 4 * scores * head_dim * (backward ? backward_products : 1);
    /* q and out, k and v; backward these and d_out, and the gradients of q, k and v; the logarithms of sums. */
    e.bytes = (backward ? 4 : 2) * queries * head_dim * size + (backward ? 4 : 2) * keys * head_dim * size +
              4 * queries;
    take_times(&e, true, bf16, l);
    return e;
}

static double matrix_elements(const lam_node *node) {
    double elements = 0;
    for (int k = 0; k < node->input_count; k++)
        if (node->inputs[k]->parameter && node->inputs[k]->rank == 2) elements += (double)node->inputs[k]->count;
    return elements;
}

/* Weights rounded to bfloat16, 64 of them and of the biases a launch. */
static lam_op_estimate prepare_estimate(const lam_node *node, const lam_device_limits *l) {
    lam_op_estimate e = {.op = "prepare", .calls = 1};
    e.bytes = matrix_elements(node) * (sizeof(float) + sizeof(uint16_t));
    e.bound_seconds = e.bytes / l->bytes_per_s;
    e.seconds = e.bound_seconds / l->memory_share + l->launch_seconds * node->input_count / 64;
    return e;
}

/* Where more is done than rounding to the nearest, which the update does (model/cuda/update.h). */
static bool is_prepared(const lam_graph *graph, const lam_node *node) {
    const char *two_branches = "parallel_projection";
    return graph->rounding.on || !strncmp(node->op->name, two_branches, strlen(two_branches));
}

static int64_t add(lam_op_estimate *rows, int64_t count, int64_t maximum, const lam_op_estimate *one) {
    int64_t at = 0;
    while (at < count && (strcmp(rows[at].op, one->op) != 0 || rows[at].backward != one->backward ||
                          rows[at].again != one->again))
        at++;
    if (at == maximum) return count;
    if (at == count) {
        rows[count++] = *one;
        return count;
    }
    rows[at].calls++;
    rows[at].flops += one->flops;
    rows[at].exponentials += one->exponentials;
    rows[at].bytes += one->bytes;
    rows[at].bound_seconds += one->bound_seconds;
    rows[at].seconds += one->seconds;
    return count;
}

static bool runs_again(const lam_node *node) {
    if (node->recomputed) return true;
    for (int k = 0; k < node->output_count; k++)
        if (node->outputs[k]->recomputed) return true;
    return false;
}

int64_t lam_graph_estimate(lam_graph *graph, const lam_device_limits *limits, lam_op_estimate *rows,
                           int64_t maximum, double *copied) {
    int64_t count = 0;
    *copied = 0;
    bool bf16 = graph->activation == LAM_BF16;
    lam_graph_find_lifetimes(graph, graph->recompute);
    for (int64_t i = 0; i < graph->node_count; i++) {
        const lam_node *node = graph->nodes[i];
        if (bf16 && node->products[0].count && !node->packed_before) {
            if (is_prepared(graph, node)) {
                lam_op_estimate one = prepare_estimate(node, limits);
                count = add(rows, count, maximum, &one);
            } else {
                *copied += matrix_elements(node) * sizeof(uint16_t);
            }
        }
        for (int pass = 0; pass < LAM_PASSES; pass++) {
            if (pass == LAM_PASS_BACKWARD && !lam_runs_backward(graph, node)) continue;
            if (pass == LAM_PASS_AGAIN && !runs_again(node)) continue;
            lam_op_estimate one = estimate(node, (lam_pass)pass, bf16, limits);
            count = add(rows, count, maximum, &one);
        }
    }
    return count;
}

lam_op_estimate lam_estimate_update(const lam_device_limits *l, double bytes) {
    return (lam_op_estimate){.op = "optimizer",
                             .calls = 1,
                             .bytes = bytes,
                             .bound_seconds = bytes / l->bytes_per_s,
                             .seconds = bytes / l->bytes_per_s / l->memory_share + 3 * l->launch_seconds};
}
