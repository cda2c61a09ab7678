#include "model/graph.h"

#include <math.h>
#include <omp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bf16.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/threads.h"
#include "model/internal.h"

#define MAX_NODES 4096
#define ALIGNMENT ((size_t)64)
#define FOREVER INT64_MAX

typedef enum owner { OWNER_ACTIVATION, OWNER_GRADIENT, OWNER_WORKSPACE, OWNER_INPUT } owner;

/* A stretch of the arena, alive from time `first` to `last`. */
typedef struct block {
    size_t bytes, offset;
    int64_t first, last;
    owner owner;
    void **where; /* gets the address */
} block;

struct lam_graph {
    lam_parameters *parameters;
    lam_arena memory; /* tensors and nodes */
    lam_tensor **tensors;
    lam_node **nodes;
    int64_t tensor_count, tensor_capacity, node_count, node_capacity;
    lam_tensor *loss;
    lam_status status;
    char message[1024];
    void *arena;           /* NULL: another graph of lam_graph_plan_together owns it */
    block *planned_blocks; /* while it is planned */
    int64_t planned_count;
    lam_memory_report report;
    lam_gradient_hook hook;
    void *hook_context;
    int64_t bucket;
    int64_t *final_at; /* [entries] backward node index after which the parameter's gradient is final; -1:
                          unused */
    bool planned, profile, poison, hold_weights;
    lam_dtype activation;
    lam_rounding rounding;
    lam_recompute recompute;
    int64_t blocks, open_block; /* blocks so far; the one being built, 0: none */
};

void lam_graph_fail(lam_graph *graph, const char *format, ...) {
    if (graph->status != LAM_OK) return;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(graph->message, sizeof graph->message, format, arguments);
    va_end(arguments);
    graph->status = LAM_ERROR_INTERNAL;
}

static void remember(lam_graph *graph, lam_status status) {
    if (graph->status != LAM_OK || status == LAM_OK) return;
    snprintf(graph->message, sizeof graph->message, "%s", lam_last_error());
    graph->status = status;
}

lam_status lam_graph_create(lam_graph **out, lam_parameters *parameters, lam_backend_kind backend) {
    LAM_REQUIRE(backend == LAM_BACKEND_CPU, LAM_ERROR_INTERNAL, "unknown backend %d", (int)backend);
    LAM_TRY(lam_isa_select());
    LAM_TRY(lam_alloc((void **)out, sizeof **out));
    (*out)->parameters = parameters;
    (*out)->activation = LAM_F32;
    const char *poison = getenv("LAMELLA_POISON");
    (*out)->poison = poison && *poison == '1';
    return LAM_OK;
}

void lam_graph_free(lam_graph *graph) {
    if (!graph) return;
    lam_arena_free(&graph->memory);
    lam_free(graph->tensors);
    lam_free(graph->nodes);
    lam_free(graph->arena);
    lam_free(graph->final_at);
    lam_free(graph);
}

/* ---- building ---- */

size_t lam_dtype_bytes(lam_dtype dtype) {
    static const size_t bytes[] = {0, 4, 1, 2, 4, 8, 2};
    return bytes[dtype];
}

void lam_graph_set_activation(lam_graph *graph, lam_dtype type) {
    if (!lam_is_real(type) || graph->node_count)
        lam_graph_fail(graph, "the type of activations is chosen first, and is F32 or BF16");
    else
        graph->activation = type;
}
lam_dtype lam_graph_activation(const lam_graph *graph) { return graph->activation; }

void lam_graph_set_stochastic_rounding(lam_graph *graph, uint64_t seed) {
    graph->rounding = (lam_rounding){.on = true, .seed = seed, .weights = graph->parameters->weights};
}
void lam_graph_set_step(lam_graph *graph, int64_t step) { graph->rounding.step = (uint32_t)step; }

void lam_graph_set_recompute(lam_graph *graph, lam_recompute what) { graph->recompute = what; }

void lam_graph_block_begin(lam_graph *graph) { graph->open_block = ++graph->blocks; }
void lam_graph_block_end(lam_graph *graph) { graph->open_block = 0; }

static lam_tensor *new_tensor(lam_graph *graph, const char *name, lam_dtype dtype, int rank,
                              const int64_t *shape) {
    if (graph->status != LAM_OK) return NULL;
    if (graph->tensor_count == graph->tensor_capacity) {
        int64_t grown = graph->tensor_capacity ? graph->tensor_capacity * 2 : 256;
        remember(graph,
                 lam_grow((void **)&graph->tensors, (size_t)graph->tensor_capacity * sizeof *graph->tensors,
                          (size_t)grown * sizeof *graph->tensors));
        if (graph->status != LAM_OK) return NULL;
        graph->tensor_capacity = grown;
    }
    void *memory;
    remember(graph, lam_arena_alloc(&graph->memory, &memory, sizeof(lam_tensor)));
    if (graph->status != LAM_OK) return NULL;
    lam_tensor *t = memory;
    snprintf(t->name, sizeof t->name, "%s", name);
    t->dtype = dtype;
    t->rank = rank;
    t->count = 1;
    for (int i = 0; i < rank; i++) {
        t->shape[i] = shape[i];
        t->count *= shape[i];
        if (shape[i] < 1) lam_graph_fail(graph, "%s: dimension %d is %lld", name, i, (long long)shape[i]);
    }
    t->last_forward_use = t->last_backward_use = t->first_gradient_use = t->first_backward_use = -1;
    graph->tensors[graph->tensor_count++] = t;
    return graph->status == LAM_OK ? t : NULL;
}

lam_tensor *lam_input(lam_graph *graph, const char *name, lam_dtype dtype, int rank, const int64_t *shape) {
    lam_tensor *t = new_tensor(graph, name, dtype, rank, shape);
    if (t) t->is_input = true;
    return t;
}

lam_tensor *lam_parameter(lam_graph *graph, const char *name) {
    if (graph->status != LAM_OK) return NULL;
    for (int64_t i = 0; i < graph->tensor_count; i++)
        if (graph->tensors[i]->parameter && !graph->tensors[i]->is_part &&
            !strcmp(graph->tensors[i]->parameter->name, name))
            return graph->tensors[i];
    const lam_parameter_entry *entry = lam_parameters_find(graph->parameters, name);
    if (!entry) {
        lam_graph_fail(graph, "there is no parameter %s", name);
        return NULL;
    }
    lam_tensor *t = new_tensor(graph, name, LAM_F32, entry->rank, entry->shape);
    if (!t) return NULL;
    t->parameter = entry;
    t->data = graph->parameters->weights + entry->offset;
    if (entry->init != LAM_INIT_FROZEN) {
        t->requires_gradient = true;
        t->gradient = graph->parameters->gradients + entry->offset;
    }
    return t;
}

lam_tensor *lam_parameter_rows(lam_graph *graph, const char *name, int64_t first, int64_t count) {
    lam_tensor *whole = lam_parameter(graph, name);
    if (!whole) return NULL;
    int64_t shape[LAM_MAX_RANK], row = whole->count / whole->shape[0];
    for (int i = 0; i < whole->rank; i++) shape[i] = i ? whole->shape[i] : count;
    if (first < 0 || count < 1 || first + count > whole->shape[0]) {
        lam_graph_fail(graph, "%s has no rows %lld to %lld", name, (long long)first,
                       (long long)(first + count));
        return NULL;
    }
    lam_tensor *t = new_tensor(graph, name, LAM_F32, whole->rank, shape);
    if (!t) return NULL;
    t->parameter = whole->parameter;
    t->is_part = true;
    t->data = (float *)whole->data + first * row;
    t->requires_gradient = whole->requires_gradient;
    if (whole->gradient) t->gradient = (float *)whole->gradient + first * row;
    return t;
}

lam_tensor *lam_keep(lam_graph *graph, lam_tensor *tensor, const char *name) {
    (void)graph;
    if (!tensor) return NULL;
    tensor->kept = true;
    snprintf(tensor->name, sizeof tensor->name, "%s", name);
    return tensor;
}

lam_node *lam_node_add(lam_graph *graph, const lam_op *op, int inputs, lam_tensor *const *input) {
    if (graph->status != LAM_OK) return NULL;
    for (int i = 0; i < inputs; i++)
        if (!input[i]) {
            lam_graph_fail(graph, "%s: input %d is missing", op->name, i);
            return NULL;
        }
    if (graph->node_count == graph->node_capacity) {
        int64_t grown = graph->node_capacity ? graph->node_capacity * 2 : 256;
        remember(graph, lam_grow((void **)&graph->nodes, (size_t)graph->node_capacity * sizeof *graph->nodes,
                                 (size_t)grown * sizeof *graph->nodes));
        if (graph->status != LAM_OK) return NULL;
        graph->node_capacity = grown;
    }
    void *memory;
    remember(graph, lam_arena_alloc(&graph->memory, &memory, sizeof(lam_node)));
    if (graph->status != LAM_OK) return NULL;
    lam_node *node = memory;
    node->op = op;
    node->kernels = lam_kernels_current(graph->activation == LAM_BF16);
    node->rounding = &graph->rounding;
    node->block = graph->open_block;
    node->input_count = inputs;
    for (int i = 0; i < inputs; i++) node->inputs[i] = input[i];
    graph->nodes[graph->node_count++] = node;
    return node;
}

lam_tensor *lam_node_output(lam_graph *graph, lam_node *node, lam_dtype dtype, int rank,
                            const int64_t *shape) {
    if (!node) return NULL;
    lam_tensor *t = new_tensor(graph, node->op->name, dtype, rank, shape);
    if (!t) return NULL;
    t->producer = node;
    for (int i = 0; i < node->input_count && node->op->backward; i++)
        t->requires_gradient |= node->inputs[i]->requires_gradient;
    if (!lam_is_real(dtype)) t->requires_gradient = false;
    node->outputs[node->output_count++] = t;
    return t;
}

void lam_graph_bound_rows(lam_graph *graph, lam_tensor *tensor, lam_tensor *count) {
    if (!tensor || !count) return;
    if (count->dtype != LAM_I64 || count->count != 1)
        lam_graph_fail(graph, "the row count of %s must be one I64", tensor->name);
    else
        tensor->bound = count;
}

int64_t lam_tensor_width(const lam_tensor *t) { return t->shape[t->rank - 1]; }

int64_t lam_tensor_rows(const lam_tensor *t) {
    int64_t rows = t->count / lam_tensor_width(t);
    if (!t->bound) return rows;
    int64_t actual = *(const int64_t *)t->bound->data, inner = rows / t->shape[0];
    actual = actual < 0 ? 0 : actual > t->shape[0] ? t->shape[0] : actual;
    return actual * inner;
}

void *lam_tensor_data(const lam_tensor *t) { return t->data; }
lam_dtype lam_tensor_dtype(const lam_tensor *t) { return t->dtype; }
int lam_tensor_rank(const lam_tensor *t) { return t->rank; }
int64_t lam_tensor_dim(const lam_tensor *t, int axis) { return t->shape[axis]; }
int64_t lam_tensor_count(const lam_tensor *t) { return t->count; }

static void read_values(const void *data, lam_dtype dtype, int64_t count, float *values) {
    for (int64_t i = 0; i < count; i++)
        values[i] =
            dtype == LAM_BF16 ? lam_bf16_to_float(((const uint16_t *)data)[i]) : ((const float *)data)[i];
}
void lam_tensor_read(const lam_tensor *t, float *values) { read_values(t->data, t->dtype, t->count, values); }
void lam_tensor_read_gradient(const lam_tensor *t, float *values) {
    read_values(t->gradient, t->dtype, t->count, values);
}

void lam_gradient_pass(const lam_node *node, lam_tensor *to, const void *gradient, int64_t count) {
    bool add;
    void *d = lam_gradient_target(to, &add);
    if (d && add) node->kernels->accumulate(d, gradient, count);
    if (d && !add) memcpy(d, gradient, (size_t)count * lam_dtype_bytes(to->dtype));
}

void *lam_gradient_target(lam_tensor *t, bool *add) {
    *add = t->parameter || t->gradient_written;
    if (!t->requires_gradient || !t->gradient) return NULL;
    t->gradient_written = true;
    return t->gradient;
}

/* ---- planning ---- */

lam_status lam_graph_differentiate(lam_graph *graph, lam_tensor *loss) {
    if (graph->status != LAM_OK || !loss) return LAM_OK; /* lam_graph_plan says why */
    LAM_REQUIRE(loss->count == 1 && loss->requires_gradient, LAM_ERROR_INTERNAL,
                "the loss must be one number that depends on a parameter");
    graph->loss = loss;
    loss->kept = true;
    return LAM_OK;
}

static bool runs_backward(const lam_graph *graph, const lam_node *node) {
    if (!graph->loss || !node->op->backward) return false;
    for (int i = 0; i < node->output_count; i++)
        if (node->outputs[i]->requires_gradient) return true;
    return false;
}

static void max_into(int64_t *value, int64_t other) {
    if (other > *value) *value = other;
}

static void min_into(int64_t *value, int64_t other) {
    if (*value < 0 || other < *value) *value = other;
}

static void read_in_backward(lam_tensor *t, int64_t time) {
    max_into(&t->last_backward_use, time);
    min_into(&t->first_backward_use, time);
}

/* Whoever uses a tensor of bounded rows reads their count. */
static void use_bound(const lam_tensor *t, int64_t time, bool backward, int64_t backward_time) {
    if (!t->bound) return;
    max_into(&t->bound->last_forward_use, time);
    if (backward) read_in_backward(t->bound, backward_time);
}

static void find_uses(lam_graph *graph) {
    int64_t n = graph->node_count;
    for (int64_t i = 0; i < graph->tensor_count; i++) {
        lam_tensor *t = graph->tensors[i];
        t->last_forward_use = t->last_backward_use = t->first_gradient_use = t->first_backward_use = -1;
    }
    for (int64_t i = 0; i < n; i++) {
        lam_node *node = graph->nodes[i];
        int64_t backward_time = 2 * n - 1 - i;
        bool backward = runs_backward(graph, node);
        for (int k = 0; k < node->input_count; k++) {
            lam_tensor *t = node->inputs[k];
            max_into(&t->last_forward_use, i);
            use_bound(t, i, backward, backward_time);
            if (!backward) continue;
            if (node->op->backward_reads_inputs >> k & 1u) read_in_backward(t, backward_time);
            if (t->requires_gradient) min_into(&t->first_gradient_use, backward_time);
        }
        for (int k = 0; k < node->output_count; k++) {
            use_bound(node->outputs[k], i, backward, backward_time);
            if (backward && node->op->backward_reads_outputs >> k & 1u)
                read_in_backward(node->outputs[k], backward_time);
        }
    }
}

static bool leaves_block(const lam_graph *graph, const lam_node *producer, const lam_tensor *t) {
    for (int64_t i = 0; i < graph->node_count; i++)
        for (int k = 0; k < graph->nodes[i]->input_count; k++)
            if (graph->nodes[i]->inputs[k] == t && graph->nodes[i]->block != producer->block) return true;
    return false;
}

/* When a block runs again: at the backward time of its last node. -1: it does not. */
static int64_t again_time(const lam_graph *graph, int64_t number) {
    for (int64_t i = graph->node_count - 1; i >= 0 && number > 0; i--)
        if (graph->nodes[i]->block == number && graph->nodes[i]->recomputed)
            return 2 * graph->node_count - 1 - i;
    return -1;
}

/* Marks what is recomputed, and lets what that reads, or writes once more, live until then. The last block is not recomputed:
 * all of it is alive when its backward pass begins. */
static void mark_recomputed(lam_graph *graph, lam_recompute what) {
    int64_t n = graph->node_count;
    for (int64_t i = 0; i < graph->tensor_count; i++) graph->tensors[i]->recomputed = false;
    for (int64_t i = 0; i < n; i++) graph->nodes[i]->recomputed = false;
    if (!graph->loss) return;
    for (int64_t i = 0; i < n && what == LAM_RECOMPUTE_NORM_GELU; i++) {
        lam_node *node = graph->nodes[i];
        for (int k = 0; k < node->output_count && node->op->again; k++)
            node->outputs[k]->recomputed = (node->op->again_outputs >> k & 1u) && !node->outputs[k]->kept &&
                                           node->outputs[k]->first_backward_use >= 0;
    }
    for (int64_t i = 0; i < n && what == LAM_RECOMPUTE_BLOCK; i++) {
        lam_node *node = graph->nodes[i];
        node->recomputed = node->block > 0 && node->block < graph->blocks && runs_backward(graph, node);
        for (int k = 0; k < node->output_count && node->recomputed; k++)
            node->outputs[k]->recomputed =
                !node->outputs[k]->kept && !leaves_block(graph, node, node->outputs[k]);
    }
    for (int64_t i = 0; i < n; i++) {
        lam_node *node = graph->nodes[i];
        if (!node->recomputed) continue;
        int64_t time = again_time(graph, node->block);
        for (int k = 0; k < node->input_count; k++)
            if (!node->inputs[k]->recomputed) read_in_backward(node->inputs[k], time);
        for (int k = 0; k < node->output_count; k++)
            if (!node->outputs[k]->recomputed) read_in_backward(node->outputs[k], time);
    }
}

static int larger_first(const void *a, const void *b) {
    const block *x = *(block *const *)a, *y = *(block *const *)b;
    if (x->bytes != y->bytes) return x->bytes < y->bytes ? 1 : -1;
    return x < y ? -1 : x > y; /* same array: keeps the order */
}

static int by_offset(const void *a, const void *b) {
    const block *x = *(block *const *)a, *y = *(block *const *)b;
    return (x->offset > y->offset) - (x->offset < y->offset);
}

/* Greedy by size: each block takes the lowest gap between blocks that live at the same time (Pisarchyk & Lee
 * 2020, Efficient memory management for deep neural net inference: greedy by size). */
static lam_status place(block *blocks, int64_t count, size_t *total) {
    block **order = NULL, **overlapping = NULL;
    lam_status status = LAM_OK;
    *total = 0;
    LAM_TRY_GOTO(lam_alloc_array((void **)&order, count, sizeof *order), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&overlapping, count, sizeof *overlapping), done);
    for (int64_t i = 0; i < count; i++) order[i] = &blocks[i];
    if (count) qsort(order, (size_t)count, sizeof *order, larger_first);
    for (int64_t i = 0; i < count; i++) {
        int64_t others = 0;
        for (int64_t j = 0; j < i; j++)
            if (order[j]->first <= order[i]->last && order[i]->first <= order[j]->last)
                overlapping[others++] = order[j];
        if (others) qsort(overlapping, (size_t)others, sizeof *overlapping, by_offset);
        size_t at = 0;
        for (int64_t j = 0; j < others; j++) {
            if (overlapping[j]->offset >= at + order[i]->bytes) break;
            size_t end = overlapping[j]->offset + overlapping[j]->bytes;
            if (end > at) at = end;
        }
        order[i]->offset = at;
        if (at + order[i]->bytes > *total) *total = at + order[i]->bytes;
    }
done:
    lam_free(order);
    lam_free(overlapping);
    return status;
}

static void add_block(block *blocks, int64_t *count, size_t bytes, int64_t first, int64_t last, owner who,
                      void **where) {
    if (!bytes) return;
    blocks[(*count)++] = (block){(bytes + ALIGNMENT - 1) & ~(ALIGNMENT - 1), 0, first, last, who, where};
}

static int64_t birth(const lam_graph *graph, const lam_tensor *t) {
    int64_t born = 0;
    while (graph->nodes[born] != t->producer) born++;
    return born;
}

static void collect_tensor(lam_graph *graph, lam_tensor *t, block *blocks, int64_t *count) {
    size_t bytes = (size_t)t->count * lam_dtype_bytes(t->dtype);
    if (t->is_input) {
        add_block(blocks, count, bytes, 0, FOREVER, OWNER_INPUT, &t->places[0]);
        return;
    }
    int64_t born = birth(graph, t), last = born, backward = 2 * graph->node_count - 1 - born;
    max_into(&last, t->last_forward_use);
    if (t->recomputed) {
        int64_t again =
            t->producer->recomputed ? again_time(graph, t->producer->block) : t->first_backward_use;
        add_block(blocks, count, bytes, again, t->last_backward_use > again ? t->last_backward_use : again,
                  OWNER_ACTIVATION, &t->places[1]);
    } else {
        max_into(&last, t->last_backward_use);
    }
    add_block(blocks, count, bytes, born, t->kept ? FOREVER : last, OWNER_ACTIVATION, &t->places[0]);
    if (graph->loss && t->requires_gradient && (t->first_gradient_use >= 0 || t == graph->loss))
        add_block(blocks, count, bytes, t == graph->loss ? backward : t->first_gradient_use, backward,
                  OWNER_GRADIENT, &t->gradient);
}

static void collect_node(lam_graph *graph, int64_t i, block *blocks, int64_t *count) {
    lam_node *node = graph->nodes[i];
    bool backward = runs_backward(graph, node);
    int64_t end = 2 * graph->node_count - 1 - i;
    if (node->recomputed) {
        int64_t again = again_time(graph, node->block);
        add_block(blocks, count, node->saved_bytes, i, i, OWNER_ACTIVATION, &node->saved_places[0]);
        add_block(blocks, count, node->saved_bytes, again, end, OWNER_ACTIVATION, &node->saved_places[1]);
        add_block(blocks, count, node->forward_workspace_bytes, again, again, OWNER_WORKSPACE,
                  &node->workspace_places[1]);
    } else {
        add_block(blocks, count, node->saved_bytes, i, backward ? end : i, OWNER_ACTIVATION,
                  &node->saved_places[0]);
    }
    add_block(blocks, count, node->forward_workspace_bytes, i, i, OWNER_WORKSPACE,
              &node->workspace_places[0]);
    if (backward)
        add_block(blocks, count, node->backward_workspace_bytes, end, end, OWNER_WORKSPACE,
                  &node->backward_workspace);
}

/* Every stretch of memory that a step needs, with its life. The caller frees *blocks. */
static lam_status collect(lam_graph *graph, lam_recompute what, block **blocks, int64_t *count) {
    *count = 0;
    LAM_TRY(
        lam_alloc_array((void **)blocks, 3 * graph->tensor_count + 5 * graph->node_count, sizeof **blocks));
    find_uses(graph);
    mark_recomputed(graph, what);
    for (int64_t i = 0; i < graph->tensor_count; i++)
        if (!graph->tensors[i]->parameter) collect_tensor(graph, graph->tensors[i], *blocks, count);
    for (int64_t i = 0; i < graph->node_count; i++) collect_node(graph, i, *blocks, count);
    return LAM_OK;
}

static void report_memory(const lam_graph *graph, const block *blocks, int64_t count, size_t total,
                          lam_memory_report *report) {
    *report = (lam_memory_report){.total = total};
    size_t *owners[] = {&report->activations, &report->activation_gradients, &report->workspace,
                        &report->inputs};
    for (int64_t i = 0; i < count; i++) *owners[blocks[i].owner] += blocks[i].bytes;
    report->weights = (size_t)graph->parameters->count * sizeof(float);
    for (int64_t i = 0; i < graph->node_count; i++) {
        const lam_node *node = graph->nodes[i];
        report->packed += node->packed_bytes[0] + (runs_backward(graph, node) ? node->packed_bytes[1] : 0);
    }
    report->gradients = graph->loss ? (size_t)graph->parameters->trainable * sizeof(float) : 0;
}

lam_status lam_graph_measure(lam_graph *graph, lam_recompute what, lam_memory_report *report) {
    if (graph->status != LAM_OK) LAM_FAIL(graph->status, "the network cannot be built: %s", graph->message);
    LAM_REQUIRE(!graph->planned, LAM_ERROR_INTERNAL, "the graph is planned already");
    block *blocks = NULL;
    int64_t count = 0;
    size_t total = 0;
    lam_status status = collect(graph, what, &blocks, &count);
    if (status == LAM_OK) status = place(blocks, count, &total);
    if (status == LAM_OK) report_memory(graph, blocks, count, total, report);
    lam_free(blocks);
    return status;
}

static lam_status find_final_gradients(lam_graph *graph) {
    lam_parameters *p = graph->parameters;
    LAM_TRY(lam_alloc_array((void **)&graph->final_at, p->entries, sizeof *graph->final_at));
    for (int64_t e = 0; e < p->entries; e++) {
        graph->final_at[e] = -1;
        for (int64_t i = graph->node_count - 1; i >= 0; i--)
            for (int k = 0; k < graph->nodes[i]->input_count && runs_backward(graph, graph->nodes[i]); k++)
                if (graph->nodes[i]->inputs[k]->parameter == &p->entry[e]) graph->final_at[e] = i;
    }
    return LAM_OK;
}

/* Everything at its place of the forward pass. */
static void use_places(lam_graph *graph) {
    for (int64_t i = 0; i < graph->tensor_count; i++)
        if (!graph->tensors[i]->parameter) graph->tensors[i]->data = graph->tensors[i]->places[0];
    for (int64_t i = 0; i < graph->node_count; i++) {
        graph->nodes[i]->saved = graph->nodes[i]->saved_places[0];
        graph->nodes[i]->forward_workspace = graph->nodes[i]->workspace_places[0];
    }
}

/* Room for weights that operations prepare; graphs over the same parameters share it. */
static lam_status reserve_packed(lam_graph *graph) {
    for (int64_t i = 0; i < graph->node_count; i++) {
        lam_node *node = graph->nodes[i];
        for (int backward = 0; backward < (runs_backward(graph, node) ? 2 : 1); backward++) {
            if (!node->packed_bytes[backward]) continue;
            LAM_TRY(lam_parameters_reserve(graph->parameters, node->inputs[1]->data, backward,
                                           node->packed_bytes[backward], &node->packed[backward]));
        }
    }
    return LAM_OK;
}

static lam_status lay_out(lam_graph *graph) {
    if (graph->status != LAM_OK) LAM_FAIL(graph->status, "the network cannot be built: %s", graph->message);
    LAM_REQUIRE(graph->node_count > 0 && !graph->planned, LAM_ERROR_INTERNAL,
                "the graph is empty or planned already");
    LAM_TRY(collect(graph, graph->recompute, &graph->planned_blocks, &graph->planned_count));
    return place(graph->planned_blocks, graph->planned_count, &graph->report.total);
}

static lam_status settle(lam_graph *graph, void *arena, size_t total) {
    for (int64_t i = 0; i < graph->planned_count; i++)
        *graph->planned_blocks[i].where = (char *)arena + graph->planned_blocks[i].offset;
    report_memory(graph, graph->planned_blocks, graph->planned_count, total, &graph->report);
    LAM_TRY(find_final_gradients(graph));
    LAM_TRY(reserve_packed(graph));
    use_places(graph);
    graph->planned = true;
    return LAM_OK;
}

lam_status lam_graph_plan(lam_graph *graph) { return lam_graph_plan_together(&graph, 1); }

lam_status lam_graph_plan_together(lam_graph *const *graphs, int64_t count) {
    size_t total = 0;
    lam_status status = LAM_OK;
    for (int64_t i = 0; i < count; i++) {
        LAM_TRY_GOTO(lay_out(graphs[i]), done);
        if (graphs[i]->report.total > total) total = graphs[i]->report.total;
    }
    status = lam_alloc(&graphs[0]->arena, total);
    if (status != LAM_OK) {
        lam_fail_context(
            status, "the step needs %.1f MiB of activations: a smaller batch (train.micro_batch) needs less",
            (double)total / 1048576.0);
        goto done;
    }
    for (int64_t i = 0; i < count; i++) LAM_TRY_GOTO(settle(graphs[i], graphs[0]->arena, total), done);
done:
    for (int64_t i = 0; i < count; i++) {
        lam_free(graphs[i]->planned_blocks);
        graphs[i]->planned_blocks = NULL;
    }
    return status;
}

/* ---- running ---- */

static void fill(void *memory, size_t bytes) {
    if (memory) memset(memory, 0xff, bytes); /* a NaN in every floating-point type, -1 in integers */
}

/* Marks what the node is to write and nobody has written yet. */
static void poison(lam_node *node, bool backward) {
    if (backward) {
        fill(node->backward_workspace, node->backward_workspace_bytes);
        for (int k = 0; k < node->input_count; k++) {
            lam_tensor *t = node->inputs[k];
            if (!t->parameter && !t->gradient_written)
                fill(t->gradient, (size_t)t->count * lam_dtype_bytes(t->dtype));
        }
        return;
    }
    fill(node->forward_workspace, node->forward_workspace_bytes);
    fill(node->saved, node->saved_bytes);
    for (int k = 0; k < node->output_count; k++)
        fill(node->outputs[k]->data,
             (size_t)node->outputs[k]->count * lam_dtype_bytes(node->outputs[k]->dtype));
}

static lam_status call(const lam_graph *graph, lam_node *node, lam_pass pass) {
    if (pass == LAM_PASS_AGAIN) {
        if (node->recomputed) return node->op->forward(node);
        node->op->again(node);
        return LAM_OK;
    }
    if (node->op->prepare && !graph->hold_weights)
        LAM_TRY(node->op->prepare(node, pass == LAM_PASS_BACKWARD));
    return pass == LAM_PASS_BACKWARD ? node->op->backward(node) : node->op->forward(node);
}

static lam_status run_node(lam_graph *graph, lam_node *node, lam_pass pass) {
    if (graph->poison && (pass != LAM_PASS_AGAIN || node->recomputed))
        poison(node, pass == LAM_PASS_BACKWARD);
    if (!graph->profile) return call(graph, node, pass);
    double start = lam_now();
    LAM_TRY(call(graph, node, pass));
    lam_profile_add(node, pass, lam_now() - start);
    return LAM_OK;
}

/* Outputs that are recomputed one by one, before their first reader in the backward pass. */
static lam_status compute_again(lam_graph *graph, lam_tensor *t, int64_t time) {
    if (!t->recomputed || t->producer->recomputed || t->first_backward_use != time) return LAM_OK;
    t->data = t->places[1];
    if (graph->poison) fill(t->data, (size_t)t->count * lam_dtype_bytes(t->dtype));
    return run_node(graph, t->producer, LAM_PASS_AGAIN);
}

static lam_status run_block_again(lam_graph *graph, int64_t number) {
    for (int64_t i = 0; i < graph->node_count; i++) {
        lam_node *node = graph->nodes[i];
        if (node->block != number || !node->recomputed) continue;
        node->saved = node->saved_places[1];
        node->forward_workspace = node->workspace_places[1];
        for (int k = 0; k < node->output_count; k++)
            if (node->outputs[k]->recomputed) node->outputs[k]->data = node->outputs[k]->places[1];
        LAM_TRY(run_node(graph, node, LAM_PASS_AGAIN));
    }
    return LAM_OK;
}

/* What backward step `i` reads and the plan did not keep. */
static lam_status prepare_backward(lam_graph *graph, int64_t i) {
    lam_node *node = graph->nodes[i];
    int64_t time = 2 * graph->node_count - 1 - i;
    if (node->recomputed && again_time(graph, node->block) == time)
        LAM_TRY(run_block_again(graph, node->block));
    for (int k = 0; k < node->input_count; k++)
        if (node->op->backward_reads_inputs >> k & 1u) LAM_TRY(compute_again(graph, node->inputs[k], time));
    for (int k = 0; k < node->output_count; k++)
        if (node->op->backward_reads_outputs >> k & 1u) LAM_TRY(compute_again(graph, node->outputs[k], time));
    return LAM_OK;
}

/* Scratch was planned for lam_threads(). */
static lam_status check_threads(void) {
    LAM_REQUIRE(omp_get_max_threads() <= lam_threads(), LAM_ERROR_INTERNAL,
                "OpenMP has %d threads where lam_threads_set chose %d", omp_get_max_threads(), lam_threads());
    return LAM_OK;
}

lam_status lam_graph_forward(lam_graph *graph) {
    LAM_REQUIRE(graph->planned, LAM_ERROR_INTERNAL, "the graph is not planned");
    LAM_TRY(check_threads());
    use_places(graph);
    for (int64_t i = 0; i < graph->node_count; i++)
        LAM_TRY(run_node(graph, graph->nodes[i], LAM_PASS_FORWARD));
    return LAM_OK;
}

/* Gradients become final from the start of the arena on, because it lies in backward order. */
static void send_final(lam_graph *graph, int64_t node, int64_t *sent, bool last) {
    lam_parameters *p = graph->parameters;
    int64_t ready = last ? p->trainable : *sent;
    if (!last)
        for (int64_t e = p->entries - 1; e >= 0; e--) {
            const lam_parameter_entry *entry = &p->entry[e];
            if (entry->init == LAM_INIT_FROZEN || entry->offset < ready) continue;
            if (graph->final_at[e] >= 0 && graph->final_at[e] < node) break;
            ready = entry->offset + entry->count;
        }
    if (ready > *sent && (last || ready - *sent >= graph->bucket)) {
        graph->hook(graph->hook_context, *sent, ready);
        *sent = ready;
    }
}

lam_status lam_graph_backward(lam_graph *graph) {
    LAM_REQUIRE(graph->planned && graph->loss, LAM_ERROR_INTERNAL, "the graph is not differentiated");
    LAM_TRY(check_threads());
    for (int64_t i = 0; i < graph->tensor_count; i++) graph->tensors[i]->gradient_written = false;
    *(float *)graph->loss->gradient = 1;
    graph->loss->gradient_written = true;
    int64_t sent = 0;
    for (int64_t i = graph->node_count - 1; i >= 0; i--) {
        lam_node *node = graph->nodes[i];
        bool wanted = false;
        for (int k = 0; k < node->output_count; k++) wanted |= node->outputs[k]->gradient_written;
        if (wanted && runs_backward(graph, node)) {
            LAM_TRY(prepare_backward(graph, i));
            LAM_TRY(run_node(graph, node, LAM_PASS_BACKWARD));
        }
        if (graph->hook) send_final(graph, i, &sent, i == 0);
    }
    return LAM_OK;
}

void lam_graph_hold_weights(lam_graph *graph, bool hold) { graph->hold_weights = hold; }

void lam_graph_set_gradient_hook(lam_graph *graph, lam_gradient_hook hook, void *context,
                                 int64_t bucket_elements) {
    graph->hook = hook;
    graph->hook_context = context;
    graph->bucket = bucket_elements;
}

void lam_graph_memory(const lam_graph *graph, lam_memory_report *report) { *report = graph->report; }

lam_node *const *lam_graph_nodes(const lam_graph *graph, int64_t *count) {
    *count = graph->node_count;
    return graph->nodes;
}

void lam_graph_profile(lam_graph *graph, bool on) {
    graph->profile = on;
    for (int64_t i = 0; i < graph->node_count && on; i++)
        memset(graph->nodes[i]->done, 0, sizeof graph->nodes[i]->done);
}
