/* The update of a training step (update.h): what it holds on the device, the copies of weights that it writes, the table of items
 * that the rules go over, what is given and taken, and the order of a step. The kernels are in guard.cu, optimizer.cu and muon.cu. */
#include <string.h>

#include <algorithm>
#include <map>
#include <vector>

#include "model/cuda/prepare.cuh"
#include "model/cuda/update.cuh"
#include "model/places.h"

/* Elements of one parameter that a block takes. */
enum { ITEM = 4096 };

/* By name: the module sees no more of the program than it must. */
static update_rule rule_of(const lam_optimizer *optimizer) {
    static const char *const names[] = {"adamw", "lion", "lamb", "muon", "schedulefree"};
    int rule = 0;
    while (strcmp(names[rule], optimizer->name) != 0) rule++;
    return (update_rule)rule;
}

static lam_status failed(cudaError_t error, const char *what) {
    cudaGetLastError();
    LAM_FAIL(error == cudaErrorMemoryAllocation ? LAM_ERROR_MEMORY : LAM_ERROR_EXTERNAL,
             "CUDA: update: %s: %s", what, cudaGetErrorString(error));
}

#define TRY_CUDA(call)                                                                                       \
    do {                                                                                                     \
        cudaError_t try_error = (call);                                                                      \
        if (try_error != cudaSuccess) return failed(try_error, #call);                                       \
    } while (0)

static int64_t parameter_matrices(const lam_parameter_entry *entry) {
    int64_t rows[LAM_MATRIX_PARTS], columns;
    return lam_parameter_matrices(entry, rows, &columns);
}

/* ---- copies of weights that the update writes ---- */

/* Weights [begin, end) of the arena in bfloat16. */
struct update_copy {
    int64_t begin, end;
    __nv_bfloat16 *to;
};
typedef std::map<int64_t, update_copy> update_copies; /* by begin; no two share a weight */

/* Whether the rule can write the piece: rounded to the nearest, of weights that it takes in fours. */
static bool can_write(const lam_cuda_update_options *o, const lam_cuda_piece &piece, update_copy *copy) {
    const lam_parameters *p = o->parameters;
    if (piece.also || piece.scale || piece.first >= 0) return false;
    *copy = {piece.from - p->device_weights, piece.from - p->device_weights + piece.count,
             (__nv_bfloat16 *)piece.to};
    for (int64_t i = 0; i < p->entries; i++) {
        const lam_parameter_entry *e = &p->entry[i];
        int64_t end = e->offset + e->count;
        if (copy->begin < e->offset || copy->begin >= end || e->init == LAM_INIT_FROZEN) continue;
        bool by_element = rule_of(o->optimizer) != RULE_MUON || parameter_matrices(e) == 0;
        return by_element && copy->end <= end && copy->begin % 4 == 0 &&
               (copy->end % 4 == 0 || copy->end == end) && (uintptr_t)copy->to % sizeof(uint2) == 0;
    }
    return false;
}

/* Whether no other copy is made of these weights. */
static bool is_only(const update_copies &copies, const update_copy &copy) {
    auto next = copies.lower_bound(copy.begin);
    if (next != copies.end() && next->second.begin == copy.begin)
        return next->second.end == copy.end && next->second.to == copy.to;
    return (next == copies.end() || next->second.begin >= copy.end) &&
           (next == copies.begin() || std::prev(next)->second.end <= copy.begin);
}

/* Adds the copies of a map if the update can write all of them. */
static lam_status add_copies(const lam_cuda_update_options *o, lam_node *node, update_copies *copies) {
    std::vector<lam_cuda_piece> pieces;
    LAM_TRY(lam_cuda_pieces(node, &pieces));
    std::vector<update_copy> own(pieces.size());
    bool all = !pieces.empty() && node->inputs[0]->dtype == LAM_BF16;
    for (size_t k = 0; k < pieces.size(); k++)
        all = all && can_write(o, pieces[k], &own[k]) && is_only(*copies, own[k]);
    if (!all) return LAM_OK;
    for (const update_copy &copy : own) (*copies)[copy.begin] = copy;
    node->packed_by_update = true;
    return LAM_OK;
}

static lam_status copies_of(const lam_cuda_update_options *o, update_copies *copies) {
    for (int64_t g = 0; g < o->graph_count; g++) {
        int64_t count;
        lam_node *const *nodes = lam_graph_nodes(o->graphs[g], &count);
        for (int64_t i = 0; i < count; i++) {
            nodes[i]->packed_by_update = false;
            if (nodes[i]->run.prepare && !nodes[i]->packed_before) LAM_TRY(add_copies(o, nodes[i], copies));
        }
    }
    return LAM_OK;
}

/* ---- tables ---- */

struct update_tables {
    std::vector<update_segment> segments;
    std::vector<update_item> items;
    int64_t element_items;
};

/* From weight `begin` on, at most to `end`; either all of it is in one copy or nothing. */
static update_item item_from(const update_copies &copies, int64_t begin, int64_t end, int32_t segment) {
    end = std::min<int64_t>(end, begin + ITEM);
    auto next = copies.upper_bound(begin);
    if (next != copies.end()) end = std::min(end, next->second.begin);
    __nv_bfloat16 *to = NULL;
    if (next != copies.begin() && std::prev(next)->second.end > begin) {
        const update_copy &copy = std::prev(next)->second;
        end = std::min(end, copy.end);
        to = copy.to + (begin - copy.begin);
    }
    return {begin, to, (int32_t)(end - begin), segment};
}

static void add_items(update_tables *t, const lam_parameters *p, const update_copies &copies, bool matrices,
                      bool muon) {
    for (size_t k = 0; k < t->segments.size(); k++) {
        update_segment &s = t->segments[k];
        if ((muon && parameter_matrices(&p->entry[s.entry]) > 0) != matrices) continue;
        s.first_item = (int64_t)t->items.size();
        for (int64_t at = s.offset; at < s.offset + s.count; at += t->items.back().count)
            t->items.push_back(item_from(copies, at, s.offset + s.count, (int32_t)k));
        s.items = (int32_t)((int64_t)t->items.size() - s.first_item);
    }
}

static update_tables tables_of(const lam_cuda_update_options *o, const update_copies &copies) {
    update_tables t;
    const lam_parameters *p = o->parameters;
    bool muon = rule_of(o->optimizer) == RULE_MUON;
    for (int64_t i = 0; i < p->entries; i++) {
        const lam_parameter_entry *e = &p->entry[i];
        if (e->init == LAM_INIT_FROZEN || e->count == 0) continue;
        update_segment s = {};
        s.offset = e->offset;
        s.count = e->count;
        s.lr_scale = e->lr_scale;
        s.decay = e->decay;
        s.entry = (int32_t)i;
        t.segments.push_back(s);
    }
    add_items(&t, p, copies, false, muon);
    t.element_items = (int64_t)t.items.size();
    if (muon) add_items(&t, p, copies, true, true);
    return t;
}

static lam_status take(void **out, size_t bytes) {
    TRY_CUDA(cudaMalloc(out, std::max<size_t>(bytes, 1)));
    TRY_CUDA(cudaMemsetAsync(*out, 0, bytes, lam_cuda_stream()));
    return LAM_OK;
}

/* Either allocates, or only counts. */
struct room {
    bool count_only;
    int64_t bytes;
};

template <typename V> static lam_status reserve(room *r, V **out, int64_t count) {
    size_t bytes = (size_t)count * sizeof(V);
    r->bytes += (int64_t)bytes;
    return r->count_only || count == 0 ? LAM_OK : take((void **)out, bytes);
}

static lam_status reserve_all(room *r, lam_cuda_update *u, const lam_cuda_update_options *o,
                              const update_tables &t) {
    int64_t n = o->parameters->trainable;
    bool lamb = rule_of(o->optimizer) == RULE_LAMB;
    LAM_TRY(reserve(r, &u->memory, 1));
    LAM_TRY(reserve(r, &u->items, (int64_t)t.items.size()));
    LAM_TRY(reserve(r, &u->segments, (int64_t)t.segments.size()));
    LAM_TRY(reserve(r, &u->held, o->held_count));
    LAM_TRY(reserve(r, &u->sums, lam_blocks(n, SUM_BLOCK)));
    LAM_TRY(reserve(r, &u->squares, lamb ? (int64_t)t.items.size() : 0));
    LAM_TRY(reserve(r, &u->ratios, lamb ? (int64_t)t.segments.size() : 0));
    LAM_TRY(reserve(r, &u->workspace,
                    rule_of(o->optimizer) == RULE_MUON ? lam_cuda_matrices_workspace(o->parameters, o->bf16)
                                                       : 0));
    LAM_TRY(reserve(r, &u->arenas.first, n));
    LAM_TRY(reserve(r, &u->arenas.second, o->optimizer->arenas > 1 ? n : 0));
    return reserve(r, &u->arenas.average, o->average ? n : 0);
}

static int64_t update_bytes(const lam_cuda_update_options *o) {
    lam_cuda_update none = {};
    room r = {true, 0};
    reserve_all(&r, &none, o, tables_of(o, update_copies()));
    return r.bytes;
}

template <typename V> static lam_status send(V *device, const V *host, int64_t count) {
    if (count == 0) return LAM_OK;
    TRY_CUDA(
        cudaMemcpyAsync(device, host, (size_t)count * sizeof(V), cudaMemcpyHostToDevice, lam_cuda_stream()));
    TRY_CUDA(cudaStreamSynchronize(lam_cuda_stream()));
    return LAM_OK;
}

static void update_close(lam_cuda_update **update) {
    lam_cuda_update *u = *update;
    if (!u) return;
    void *all[] = {u->memory, u->items,     u->segments,     u->held,          u->sums,          u->squares,
                   u->ratios, u->workspace, u->arenas.first, u->arenas.second, u->arenas.average};
    cudaStreamSynchronize(lam_cuda_stream());
    for (void *one : all) cudaFree(one);
    delete u;
    *update = NULL;
}

static lam_status fill_update(lam_cuda_update *u, const lam_cuda_update_options *o) {
    update_copies copies;
    LAM_TRY(copies_of(o, &copies));
    update_tables t = tables_of(o, copies);
    const lam_parameters *p = o->parameters;
    u->parameters = p;
    u->optimizer = o->optimizer;
    u->rule = rule_of(o->optimizer);
    u->bf16 = o->bf16;
    u->item_count = (int64_t)t.items.size();
    u->element_items = t.element_items;
    u->segment_count = (int64_t)t.segments.size();
    u->held_count = o->held_count;
    u->sum_blocks = lam_blocks(p->trainable, SUM_BLOCK);
    u->arenas.weights = p->device_weights;
    u->arenas.gradients = p->device_gradients;
    room r = {false, 0};
    LAM_TRY(reserve_all(&r, u, o, t));
    LAM_TRY(send(u->items, t.items.data(), u->item_count));
    LAM_TRY(send(u->segments, t.segments.data(), u->segment_count));
    LAM_TRY(send(u->held, o->held, u->held_count));
    if (u->rule == RULE_SCHEDULE_FREE) /* z starts where the weights do */
        TRY_CUDA(cudaMemcpyAsync(u->arenas.first, u->arenas.weights, (size_t)p->trainable * sizeof(float),
                                 cudaMemcpyDeviceToDevice, lam_cuda_stream()));
    u->has_copies = !copies.empty();
    lam_cuda_write_copies(u);
    return LAM_OK;
}

static lam_status update_open(lam_cuda_update **out, const lam_cuda_update_options *o) {
    *out = NULL;
    const void *arenas[2] = {o->parameters->device_weights, o->parameters->device_gradients};
    for (const void *arena : arenas)
        LAM_REQUIRE(arena && reinterpret_cast<uintptr_t>(arena) % sizeof(float4) == 0, LAM_ERROR_INTERNAL,
                    "update: the parameters have no aligned arenas on the device");
    lam_cuda_update *u = new lam_cuda_update();
    lam_status status = fill_update(u, o);
    if (status != LAM_OK) update_close(&u);
    *out = u;
    return status;
}

static lam_status update_push(lam_cuda_update *u, float *const *arena, const float *average, int64_t updates,
                              int64_t skipped, int64_t skipped_in_row) {
    int64_t n = u->parameters->trainable;
    LAM_TRY(send(u->arenas.first, (const float *)arena[0], n));
    if (u->arenas.second) LAM_TRY(send(u->arenas.second, (const float *)arena[1], n));
    if (u->arenas.average && average) LAM_TRY(send(u->arenas.average, average, n));
    lam_cuda_update_outcome before = {};
    before.updates = updates;
    before.skipped = skipped;
    before.skipped_in_row = skipped_in_row;
    before.first_non_finite = LAM_CUDA_NO_ENTRY;
    lam_cuda_write_copies(u);
    return send(&u->memory->outcome, (const lam_cuda_update_outcome *)&before, 1);
}

static lam_status update_pull(const lam_cuda_update *u, float *const *arena, float *average) {
    size_t bytes = (size_t)u->parameters->trainable * sizeof(float);
    cudaStream_t stream = lam_cuda_stream();
    TRY_CUDA(cudaMemcpyAsync(arena[0], u->arenas.first, bytes, cudaMemcpyDeviceToHost, stream));
    if (u->arenas.second)
        TRY_CUDA(cudaMemcpyAsync(arena[1], u->arenas.second, bytes, cudaMemcpyDeviceToHost, stream));
    if (u->arenas.average && average)
        TRY_CUDA(cudaMemcpyAsync(average, u->arenas.average, bytes, cudaMemcpyDeviceToHost, stream));
    TRY_CUDA(cudaStreamSynchronize(stream));
    return LAM_OK;
}

static void update_outcome(const lam_cuda_update *u, lam_cuda_update_outcome *pinned) {
    lam_cuda_launched(cudaMemcpyAsync(pinned, &u->memory->outcome, sizeof *pinned, cudaMemcpyDeviceToHost,
                                      lam_cuda_stream()),
                      "outcome of the update");
}

static lam_status update_enqueue(lam_cuda_update *u) {
    lam_cuda_guard(u);
    lam_cuda_update_elements(u);
    if (u->rule == RULE_MUON) LAM_TRY(lam_cuda_update_matrices(u));
    lam_cuda_find_non_finite(u);
    return LAM_OK;
}

static lam_status plan_products(lam_cuda_update *u) {
    return u->rule == RULE_MUON ? lam_cuda_plan_matrices(u) : LAM_OK;
}

static double *loss_of(const lam_cuda_update *u) { return &u->memory->loss; }

extern "C" const lam_cuda_updates *lam_cuda_updates_get(void) {
    static const lam_cuda_updates functions = {
        update_open,        update_close,      update_bytes,   update_push,    update_pull,
        lam_cuda_set_input, lam_cuda_add_loss, update_enqueue, update_outcome, loss_of,
        plan_products};
    return &functions;
}
