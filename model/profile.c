/* What the operations of a graph did: time, arithmetic, bytes; and the matrix products among them. */
#include <string.h>

#include "model/internal.h"

/* ---- bytes ---- */

static double bytes_of(const lam_tensor *t) {
    return (double)(lam_tensor_rows(t) * lam_tensor_width(t)) * (double)lam_dtype_bytes(t->dtype);
}

static double outputs_of(const lam_node *node) {
    double bytes = (double)node->saved_bytes;
    for (int k = 0; k < node->output_count; k++) bytes += bytes_of(node->outputs[k]);
    return bytes;
}

static double forward_bytes(const lam_node *node) {
    double written = outputs_of(node), bytes = written;
    for (int k = 0; k < node->input_count; k++)
        bytes += node->op->picked_inputs >> k & 1u ? written : bytes_of(node->inputs[k]);
    return bytes;
}

/* Known from the lifetimes on, before there is any memory. */
static bool wants_gradient(const lam_tensor *t) {
    return t->requires_gradient && (t->parameter || t->first_gradient_use >= 0);
}

static double backward_bytes(const lam_node *node) {
    double bytes = (double)node->saved_bytes;
    for (int k = 0; k < node->input_count; k++) {
        const lam_tensor *t = node->inputs[k];
        if (node->op->backward_reads_inputs >> k & 1u) bytes += bytes_of(t);
        if (!wants_gradient(t) || t->gradient_of == node->outputs[0]) continue; /* it lies there already */
        bool adds = t->parameter || t->last_reader != node;
        bytes += bytes_of(t) * (adds ? 2 : 1);
    }
    for (int k = 0; k < node->output_count; k++) {
        const lam_tensor *t = node->outputs[k];
        if (node->op->backward_reads_outputs >> k & 1u) bytes += bytes_of(t);
        if (wants_gradient(t)) bytes += bytes_of(t);
    }
    return bytes;
}

/* Outputs that are computed again one by one come from something of their size; what GELU overwrites beside is left out. */
static double again_bytes(const lam_node *node) {
    double bytes = 0;
    if (node->recomputed) return forward_bytes(node);
    for (int k = 0; k < node->output_count; k++)
        if (node->op->again_outputs >> k & 1u) bytes += 2 * bytes_of(node->outputs[k]);
    return bytes;
}

/* ---- time by operation ---- */

void lam_node_work(const lam_node *node, lam_pass pass, double *flops, double *bytes) {
    static double (*const of[LAM_PASSES])(const lam_node *) = {forward_bytes, backward_bytes, again_bytes};
    bool products = node->op->flops && (pass != LAM_PASS_AGAIN || node->recomputed);
    *bytes = of[pass](node);
    *flops = products ? node->op->flops(node) * (pass == LAM_PASS_BACKWARD ? 2 : 1) : 0;
}

void lam_profile_add(lam_node *node, lam_pass pass, double seconds) {
    double flops, bytes;
    lam_node_work(node, pass, &flops, &bytes);
    node->done[pass].seconds += seconds;
    node->done[pass].calls++;
    node->done[pass].bytes += bytes;
    node->done[pass].flops += flops;
}

int64_t lam_graph_op_times(const lam_graph *graph, lam_op_time *times, int64_t maximum) {
    int64_t nodes, count = 0;
    lam_node *const *node = lam_graph_nodes(graph, &nodes);
    for (int64_t i = 0; i < nodes; i++)
        for (int pass = 0; pass < LAM_PASSES; pass++) {
            if (!node[i]->done[pass].calls) continue;
            lam_op_time one = {.op = node[i]->op->name,
                               .backward = pass == LAM_PASS_BACKWARD,
                               .again = pass == LAM_PASS_AGAIN};
            int64_t at = 0;
            while (at < count && (strcmp(times[at].op, one.op) != 0 || times[at].backward != one.backward ||
                                  times[at].again != one.again))
                at++;
            if (at == maximum) continue;
            if (at == count) times[count++] = one;
            times[at].calls += node[i]->done[pass].calls;
            times[at].seconds += node[i]->done[pass].seconds;
            times[at].flops += node[i]->done[pass].flops;
            times[at].bytes += node[i]->done[pass].bytes;
        }
    return count;
}

/* ---- matrix products ---- */

static int64_t add_product(const lam_product *p, lam_product *products, int64_t count, int64_t maximum) {
    int64_t at = 0;
    while (at < count && at < maximum &&
           (products[at].rows != p->rows || products[at].in != p->in || products[at].out != p->out ||
            products[at].input_gradient != p->input_gradient))
        at++;
    if (at < maximum && at == count)
        products[at] = *p;
    else if (at < maximum)
        products[at].count += p->count;
    return at == count ? count + 1 : count;
}

int64_t lam_graph_products(const lam_graph *graph, lam_product *products, int64_t maximum) {
    int64_t nodes, count = 0;
    lam_node *const *node = lam_graph_nodes(graph, &nodes);
    for (int64_t i = 0; i < nodes; i++)
        for (size_t k = 0; k < sizeof node[i]->products / sizeof *node[i]->products; k++)
            if (node[i]->products[k].count)
                count = add_product(&node[i]->products[k], products, count, maximum);
    return count;
}
