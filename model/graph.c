/* Building a graph and running it; lifetimes.c and plan.c say what lies where meanwhile. */
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
#include "model/graph_state.h"

static void fail(lam_graph *graph, lam_status status, const char *format, va_list arguments) {
    if (graph->status != LAM_OK) return;
    vsnprintf(graph->message, sizeof graph->message, format, arguments);
    graph->status = status;
}

void lam_graph_fail(lam_graph *graph, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fail(graph, LAM_ERROR_INTERNAL, format, arguments);
    va_end(arguments);
}

void lam_graph_refuse(lam_graph *graph, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fail(graph, LAM_ERROR_CONFIG, format, arguments);
    va_end(arguments);
}

static void remember(lam_graph *graph, lam_status status) {
    if (graph->status != LAM_OK || status == LAM_OK) return;
    snprintf(graph->message, sizeof graph->message, "%s", lam_last_error());
    graph->status = status;
}

lam_status lam_graph_create(lam_graph **out, lam_parameters *parameters, const lam_backend *backend) {
    LAM_TRY(lam_isa_select());
    LAM_TRY(lam_parameters_place(parameters, backend));
    LAM_TRY(lam_alloc((void **)out, sizeof **out));
    (*out)->parameters = parameters;
    (*out)->backend = backend;
    (*out)->activation = LAM_F32;
    const char *poison = getenv("LAMELLA_POISON");
    (*out)->poison = poison && *poison == '1';
    return LAM_OK;
}

void lam_graph_free(lam_graph *graph) {
    if (!graph) return;
    for (int64_t i = 0; i < graph->tensor_count; i++)
        if (!graph->tensors[i]->is_input) lam_free(graph->tensors[i]->host);
    lam_arena_free(&graph->memory);
    lam_free(graph->tensors);
    lam_free(graph->nodes);
    if (graph->arena) graph->backend->release(graph->arena);
    if (graph->staging) graph->backend->release_pinned(graph->staging);
    if (graph->incoming) graph->backend->release(graph->incoming);
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
    graph->rounding = (lam_rounding){.on = true, .seed = seed, .weights = graph->parameters->device_weights};
}
void lam_graph_set_step(lam_graph *graph, int64_t step) {
    graph->rounding.step = (uint32_t)step;
    if (graph->backend->set_step) graph->backend->set_step(step);
}

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
    t->backend = graph->backend;
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
    t->parameters = graph->parameters;
    t->data = graph->parameters->device_weights + entry->offset;
    if (entry->init != LAM_INIT_FROZEN) {
        t->requires_gradient = true;
        t->gradient = graph->parameters->device_gradients + entry->offset;
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
    t->parameters = graph->parameters;
    t->is_part = true;
    t->data = (float *)whole->data + first * row;
    t->requires_gradient = whole->requires_gradient;
    if (whole->gradient) t->gradient = (float *)whole->gradient + first * row;
    return t;
}

lam_tensor *lam_keep_forward(lam_graph *graph, lam_tensor *tensor, const char *name) {
    (void)graph;
    if (!tensor) return NULL;
    tensor->kept_forward = true;
    snprintf(tensor->name, sizeof tensor->name, "%s", name);
    return tensor;
}

lam_tensor *lam_keep(lam_graph *graph, lam_tensor *tensor, const char *name) {
    if (tensor) tensor->kept = true;
    return lam_keep_forward(graph, tensor, name);
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
    node->backend = graph->backend;
    node->run = (lam_op_functions){op->name, NULL, op->forward, op->backward, op->again, op->prepare};
    const lam_op_functions *own = graph->backend->find ? graph->backend->find(op->name) : NULL;
    if (own) {
        node->run.sizes = own->sizes;
        if (own->forward) node->run.forward = own->forward;
        if (own->backward) node->run.backward = own->backward;
        if (own->again) node->run.again = own->again;
        if (own->prepare) node->run.prepare = own->prepare;
    }
    node->kernels = lam_backend_kernels(graph->backend, graph->activation == LAM_BF16);
    node->rounding = &graph->rounding;
    node->block = graph->open_block;
    node->input_count = inputs;
    for (int i = 0; i < inputs; i++) {
        node->inputs[i] = input[i];
        input[i]->consumers++;
        if (!op->backward) continue;
        if (!input[i]->first_reader) input[i]->first_reader = node;
        input[i]->last_reader = node;
    }
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
    int64_t inner = rows / t->shape[0];
    if (!t->backend->on_host) return t->bound->bucket ? t->bound->bucket * inner : rows;
    if (!t->bound->data) return (int64_t)ceil(t->bound->likely) * inner; /* not planned: what is expected */
    int64_t actual = *(const int64_t *)t->bound->data;
    actual = actual < 0 ? 0 : actual > t->shape[0] ? t->shape[0] : actual;
    return actual * inner;
}

/* A copy of device memory on the host, which `room` keeps. */
static void *copied(const lam_tensor *t, const void *data, void **room) {
    size_t bytes = (size_t)t->count * lam_dtype_bytes(t->dtype);
    if (!*room && lam_alloc(room, bytes) != LAM_OK) return NULL;
    if (t->backend->read(*room, data, bytes) != LAM_OK) memset(*room, 0xff, bytes);
    return *room;
}

void *lam_tensor_data(const lam_tensor *t) {
    if (t->backend->on_host) return t->data;
    if (!t->is_input) return copied(t, t->data, (void **)(uintptr_t)&t->host);
    t->backend->sent(); /* where the device has failed the next send says so */
    return t->host;
}
void *lam_tensor_device(const lam_tensor *t) { return t->data; }
lam_dtype lam_tensor_dtype(const lam_tensor *t) { return t->dtype; }
int lam_tensor_rank(const lam_tensor *t) { return t->rank; }
int64_t lam_tensor_dim(const lam_tensor *t, int axis) { return t->shape[axis]; }
int64_t lam_tensor_count(const lam_tensor *t) { return t->count; }

static void read_values(const void *data, lam_dtype dtype, int64_t count, float *values) {
    for (int64_t i = 0; i < count; i++)
        values[i] =
            dtype == LAM_BF16 ? lam_bf16_to_float(((const uint16_t *)data)[i]) : ((const float *)data)[i];
}
static void read_from(const lam_tensor *t, const void *data, float *values) {
    void *copy = NULL;
    if (!t->backend->on_host) data = copied(t, data, &copy);
    if (data)
        read_values(data, t->dtype, t->count, values);
    else
        memset(values, 0xff, (size_t)t->count * sizeof *values);
    lam_free(copy);
}
void lam_tensor_read(const lam_tensor *t, float *values) { read_from(t, t->data, values); }
void lam_tensor_read_gradient(const lam_tensor *t, float *values) { read_from(t, t->gradient, values); }

void lam_gradient_pass(const lam_node *node, lam_tensor *to, const void *gradient, int64_t count) {
    bool add;
    void *d = lam_gradient_target(to, &add);
    if (d == gradient) return; /* it lies there already */
    if (d && add) node->kernels->accumulate(d, gradient, count);
    if (d && !add) node->kernels->copy(d, gradient, (size_t)count * lam_dtype_bytes(to->dtype));
}

void *lam_gradient_target(lam_tensor *t, bool *add) {
    *add = t->parameter || t->gradient_written;
    if (!t->requires_gradient || !t->gradient) return NULL;
    t->gradient_written = true;
    if (t->parameter) lam_parameters_settle_gradient(t->parameters, t->parameter);
    return t->gradient;
}

float *lam_weight_gradient_target(lam_tensor *t, bool *add) {
    bool whole = t->parameter && !t->is_part && t->requires_gradient && t->gradient;
    if (!whole) return lam_gradient_target(t, add);
    *add = !lam_parameters_claim_gradient(t->parameters, t->parameter);
    return t->gradient;
}

lam_status lam_graph_differentiate(lam_graph *graph, lam_tensor *loss) {
    if (graph->status != LAM_OK || !loss) return LAM_OK; /* lam_graph_plan says why */
    LAM_REQUIRE(loss->count == 1 && loss->requires_gradient, LAM_ERROR_INTERNAL,
                "the loss must be one number that depends on a parameter");
    graph->loss = loss;
    loss->kept = loss->kept_forward = true;
    return LAM_OK;
}

/* ---- running ---- */

static void poison_bytes(const lam_backend *backend, void *memory, size_t bytes) {
    if (memory) lam_backend_kernels(backend, false)->fill(memory, 0xff, bytes); /* NaN in real types, -1 in integers */
}

/* Marks what the node is to write and nobody has written yet. */
static void poison(lam_node *node, bool backward) {
    const lam_backend *on = node->backend;
    if (backward) {
        poison_bytes(on, node->backward_workspace, node->backward_workspace_bytes);
        for (int k = 0; k < node->input_count; k++) {
            lam_tensor *t = node->inputs[k];
            if (!t->parameter && !t->gradient_written && !t->gradient_in_place && !t->gradient_of)
                poison_bytes(on, t->gradient, (size_t)t->count * lam_dtype_bytes(t->dtype));
        }
        return;
    }
    poison_bytes(on, node->forward_workspace, node->forward_workspace_bytes);
    poison_bytes(on, node->saved, node->saved_bytes);
    for (int k = 0; k < node->output_count; k++)
        poison_bytes(on, node->outputs[k]->data,
             (size_t)node->outputs[k]->count * lam_dtype_bytes(node->outputs[k]->dtype));
}

static lam_status call(const lam_graph *graph, lam_node *node, lam_pass pass) {
    if (pass == LAM_PASS_AGAIN) {
        if (node->recomputed) return node->run.forward(node);
        node->run.again(node);
        return LAM_OK;
    }
    if (pass == LAM_PASS_BACKWARD) return node->run.backward(node);
    if (node->run.prepare && !graph->hold_weights && !node->packed_before && !graph->backend->prepare)
        LAM_TRY(node->run.prepare(node));
    return node->run.forward(node);
}

static lam_status run_node(lam_graph *graph, lam_node *node, lam_pass pass) {
    if (graph->poison && (pass != LAM_PASS_AGAIN || node->recomputed))
        poison(node, pass == LAM_PASS_BACKWARD);
    bool profile = graph->profile && !graph->recording;
    if (profile) LAM_TRY(graph->backend->synchronise());
    double start = lam_now();
    LAM_TRY(call(graph, node, pass));
    LAM_TRY(graph->backend->error());
    if (!profile) return LAM_OK;
    LAM_TRY(graph->backend->synchronise());
    lam_profile_add(node, pass, lam_now() - start);
    return LAM_OK;
}

/* Outputs that are recomputed one by one, before their first reader in the backward pass. */
static lam_status compute_again(lam_graph *graph, lam_tensor *t, int64_t time) {
    if (!t->recomputed || t->producer->recomputed || t->first_backward_use != time) return LAM_OK;
    t->data = t->places[1];
    if (graph->poison) poison_bytes(graph->backend, t->data, (size_t)t->count * lam_dtype_bytes(t->dtype));
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

static lam_status run_forward(lam_graph *graph, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) LAM_TRY(run_node(graph, graph->nodes[i], LAM_PASS_FORWARD));
    return LAM_OK;
}

lam_status lam_graph_forward(lam_graph *graph) {
    LAM_REQUIRE(graph->planned, LAM_ERROR_INTERNAL, "the graph is not planned");
    LAM_TRY(check_threads());
    lam_graph_use_places(graph);
    if (!graph->recording) {
        if (!graph->hold_weights) LAM_TRY(lam_parameters_push(graph->parameters));
        LAM_TRY(lam_graph_send(graph));
    }
    if (graph->backend->prepare && !graph->hold_weights)
        LAM_TRY(graph->backend->prepare(graph->nodes, graph->node_count, graph->recording));
    for (int64_t i = 0, end; i < graph->node_count; i = end) {
        lam_tensor *count = NULL;
        end = graph->recording ? lam_same_rows_end(graph, i, &count) : i;
        if (end > i) {
            LAM_TRY(lam_run_in_buckets(graph, count, run_forward, i, end));
        } else {
            end = i + 1;
            LAM_TRY(run_forward(graph, i, end));
        }
    }
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
        lam_parameters_settle_gradients(p, *sent, ready);
        graph->hook(graph->hook_context, *sent, ready);
        *sent = ready;
    }
}

static lam_status run_backward(lam_graph *graph, int64_t begin, int64_t end) {
    for (int64_t i = end - 1; i >= begin; i--) {
        lam_node *node = graph->nodes[i];
        bool wanted = false;
        for (int k = 0; k < node->output_count; k++) wanted |= node->outputs[k]->gradient_written;
        /* Its other nodes may be wanted where its last is not. */
        if (node->recomputed && lam_again_time(graph, node->block) == 2 * graph->node_count - 1 - i)
            LAM_TRY(run_block_again(graph, node->block));
        if (!wanted || !lam_runs_backward(graph, node)) continue;
        LAM_TRY(prepare_backward(graph, i));
        LAM_TRY(run_node(graph, node, LAM_PASS_BACKWARD));
    }
    return LAM_OK;
}

lam_status lam_graph_backward(lam_graph *graph) {
    LAM_REQUIRE(graph->planned && graph->loss, LAM_ERROR_INTERNAL, "the graph is not differentiated");
    LAM_TRY(check_threads());
    for (int64_t i = 0; i < graph->tensor_count; i++)
        graph->tensors[i]->gradient_written = graph->tensors[i]->gradient_summed = false;
    lam_backend_kernels(graph->backend, false)->set(graph->loss->gradient, 1);
    graph->loss->gradient_written = true;
    lam_parameters *p = graph->parameters;
    for (int64_t i = 0; i < p->entries && graph->poison; i++)
        if (p->unwritten[i])
            poison_bytes(graph->backend, p->device_gradients + p->entry[i].offset,
                         (size_t)p->entry[i].count * sizeof(float));
    int64_t sent = 0;
    for (int64_t end = graph->node_count, begin; end > 0; end = begin) {
        lam_tensor *count = NULL;
        begin = end - 1;
        while (graph->recording && begin > 0 && lam_same_rows_end(graph, begin - 1, &count) >= end) begin--;
        if (graph->recording && lam_same_rows_end(graph, begin, &count) >= end)
            LAM_TRY(lam_run_in_buckets(graph, count, run_backward, begin, end));
        else
            LAM_TRY(run_backward(graph, begin, end));
        if (graph->hook) send_final(graph, begin, &sent, begin == 0);
    }
    lam_parameters_settle_gradients(p, 0, p->trainable);
    return graph->recording ? LAM_OK : lam_parameters_pull_gradients(p);
}

void lam_graph_set_recording(lam_graph *graph, bool recording) { graph->recording = recording; }

lam_status lam_tensor_send_from(lam_tensor *input, const void *pinned) {
    LAM_REQUIRE(input->is_input, LAM_ERROR_INTERNAL, "%s is no input", input->name);
    LAM_REQUIRE(!pinned || !input->backend->on_host, LAM_ERROR_INTERNAL,
                "%s is not sent: it lies on the host", input->name);
    input->sent_from = pinned;
    return LAM_OK;
}

static size_t staging_offset(const lam_graph *graph, const lam_tensor *input) {
    return (size_t)((const char *)input->host - (const char *)graph->staging);
}

/* What lies side by side in the staging memory goes at once. */
static lam_status send_inputs(const lam_graph *graph) {
    const char *staging = graph->staging;
    char *incoming = graph->incoming;
    size_t sent = 0;
    for (int64_t i = 0; i < graph->tensor_count; i++) {
        const lam_tensor *t = graph->tensors[i];
        if (!t->sent_from) continue;
        size_t at = staging_offset(graph, t), bytes = (size_t)t->count * lam_dtype_bytes(t->dtype);
        if (at > sent) LAM_TRY(graph->backend->send(incoming + sent, staging + sent, at - sent));
        LAM_TRY(graph->backend->send(incoming + at, t->sent_from, bytes));
        sent = at + bytes;
    }
    if (sent == graph->staging_bytes) return LAM_OK;
    return graph->backend->send(incoming + sent, staging + sent, graph->staging_bytes - sent);
}

lam_status lam_graph_send(lam_graph *graph) {
    if (graph->backend->on_host || !graph->staging_bytes) return LAM_OK;
    LAM_TRY(send_inputs(graph));
    for (int64_t i = 0; i < graph->tensor_count; i++) {
        const lam_tensor *t = graph->tensors[i];
        if (!t->is_input) continue;
        lam_backend_kernels(graph->backend, false)
            ->copy(t->places[0], (const char *)graph->incoming + staging_offset(graph, t),
                   (size_t)t->count * lam_dtype_bytes(t->dtype));
    }
    LAM_TRY(graph->backend->taken());
    return graph->backend->error();
}

void lam_graph_hold_weights(lam_graph *graph, bool hold) { graph->hold_weights = hold; }

void lam_graph_set_gradient_hook(lam_graph *graph, lam_gradient_hook hook, void *context,
                                 int64_t bucket_elements) {
    graph->hook = hook;
    graph->hook_context = context;
    graph->bucket = bucket_elements;
}

lam_node *const *lam_graph_nodes(const lam_graph *graph, int64_t *count) {
    *count = graph->node_count;
    return graph->nodes;
}

void lam_graph_profile(lam_graph *graph, bool on) {
    graph->profile = on;
    for (int64_t i = 0; i < graph->node_count && on; i++)
        memset(graph->nodes[i]->done, 0, sizeof graph->nodes[i]->done);
}
