#include "train/device_step.h"

#include <string.h>
#include <time.h>

#include "base/log.h"
#include "base/memory.h"
#include "dist/nccl.h"
#include "model/cuda/products.h"

enum { UNDER_WAY = 2 };

struct lam_device_step {
    lam_device_step_options o;
    const lam_cuda_updates *updates;
    const lam_nccl *nccl; /* NULL: one rank */
    const lam_cuda_products *products;
    lam_cuda_update *update;
    lam_recording *recording[LAM_MASK_LEVELS][2][2]; /* of a graph; not the first, the first; not the last, the last */
    lam_cuda_update_outcome *outcomes;                /* pinned, [UNDER_WAY] */
    int64_t given, asked;                             /* steps */
    int64_t sent;                                     /* gradients whose sum is in the recording that is being made */
    lam_status sent_status;
};

/* ---- open and close ---- */

static lam_status open_collectives(lam_device_step *s) {
    if (!s->o.dist || lam_dist_world_size(s->o.dist) == 1) return LAM_OK;
    lam_nccl_table_function *table =
        (lam_nccl_table_function *)(uintptr_t)lam_backend_function(s->o.backend, "lam_nccl_table");
    LAM_REQUIRE(table, LAM_ERROR_EXTERNAL,
                "this build has no NCCL: train on one GPU, or build it where CMake finds nccl.h");
    s->nccl = table();
    lam_nccl_id id;
    memset(&id, 0, sizeof id);
    lam_status status = lam_dist_rank(s->o.dist) == 0 ? s->nccl->make_id(&id) : LAM_OK;
    LAM_TRY(lam_dist_agree(s->o.dist, status));
    LAM_TRY(lam_dist_broadcast(s->o.dist, &id, sizeof id, 0));
    return s->nccl->open(&id, lam_dist_rank(s->o.dist), lam_dist_world_size(s->o.dist));
}

static const lam_cuda_updates *updates_of(const lam_backend *backend) {
    lam_cuda_updates_function *get =
        (lam_cuda_updates_function *)(uintptr_t)lam_backend_function(backend, "lam_cuda_updates_get");
    return get ? get() : NULL;
}

static lam_cuda_update_options update_options(const lam_device_step_options *o) {
    return (lam_cuda_update_options){.parameters = o->parameters,
                                     .optimizer = o->optimizer,
                                     .average = o->average,
                                     .held = o->held,
                                     .held_count = o->held_count,
                                     .bf16 = o->bf16,
                                     .graphs = o->graphs,
                                     .graph_count = o->graph_count};
}

int64_t lam_device_step_bytes(const lam_device_step_options *options) {
    const lam_cuda_updates *updates = updates_of(options->backend);
    lam_cuda_update_options of_update = update_options(options);
    return updates ? updates->bytes(&of_update) : 0; /* without them it will not open */
}

static lam_status open(lam_device_step *s) {
    lam_cuda_update_options options = update_options(&s->o);
    s->updates = updates_of(s->o.backend);
    LAM_REQUIRE(s->updates, LAM_ERROR_INTERNAL, "%s has no updates", lam_backend_name(s->o.backend));
    lam_cuda_products_function *products =
        (lam_cuda_products_function *)(uintptr_t)lam_backend_function(s->o.backend, "lam_cuda_products_get");
    LAM_REQUIRE(products, LAM_ERROR_INTERNAL, "%s has no products", lam_backend_name(s->o.backend));
    s->products = products();
    s->products->autotune(s->o.autotune);
    LAM_TRY(s->updates->open(&s->update, &options));
    LAM_TRY(lam_backend_allocate_pinned(s->o.backend, (void **)&s->outcomes, UNDER_WAY * sizeof *s->outcomes));
    return open_collectives(s);
}

lam_status lam_device_step_open(lam_device_step **out, const lam_device_step_options *options) {
    *out = NULL;
    lam_device_step *s = NULL;
    LAM_TRY(lam_alloc((void **)&s, sizeof *s));
    s->o = *options;
    lam_status status = open(s);
    if (s->o.dist) status = lam_dist_agree(s->o.dist, status);
    if (status != LAM_OK) lam_device_step_close(&s);
    *out = s;
    return status;
}

void lam_device_step_close(lam_device_step **step) {
    lam_device_step *s = *step;
    if (!s) return;
    for (int g = 0; g < LAM_MASK_LEVELS; g++)
        for (int k = 0; k < 4; k++) lam_backend_forget(s->o.backend, s->recording[g][k / 2][k % 2]);
    if (s->nccl) s->nccl->close();
    if (s->update) s->updates->close(&s->update);
    lam_backend_release_pinned(s->o.backend, s->outcomes);
    lam_free(s);
    *step = NULL;
}

lam_status lam_device_step_push(lam_device_step *s, float *const *arenas, const float *average, int64_t updates,
                                int64_t skipped, int64_t skipped_in_row) {
    return s->updates->push(s->update, arenas, average, updates, skipped, skipped_in_row);
}

lam_status lam_device_step_pull(lam_device_step *s, float *const *arenas, float *average) {
    return s->updates->pull(s->update, arenas, average);
}

lam_status lam_device_step_plans(const lam_device_step *s, char **text) {
    *text = NULL;
    int64_t count = s->products->plans_write(text);
    LAM_REQUIRE(count >= 0, LAM_ERROR_MEMORY, "no memory for the plans of products");
    return LAM_OK;
}

lam_status lam_device_step_use_plans(lam_device_step *s, const char *text) {
    return s->products->plans_read(text) >= 0 ? LAM_OK : LAM_ERROR_FORMAT;
}

/* ---- a step ---- */

/* In ranges of fixed bounds: every rank starts the same ones in the same order. */
static void start_sums(void *step, int64_t begin, int64_t end) {
    (void)begin;
    lam_device_step *s = step;
    const lam_parameters *p = s->o.parameters;
    for (int64_t next; (next = lam_sum_bucket_end(p, s->sent, end)); s->sent = next) {
        lam_status status = s->nccl->start_sum_f32(p->device_gradients + s->sent, next - s->sent,
                                                   lam_backend_stream(s->o.backend));
        if (s->sent_status == LAM_OK) s->sent_status = status;
    }
}

static lam_status work(lam_device_step *s, int64_t k, bool first, bool last) {
    lam_graph *graph = s->o.graphs[k];
    if (first) lam_parameters_zero_gradients(s->o.parameters);
    lam_graph_hold_weights(graph, !first);
    LAM_TRY(lam_graph_forward(graph));
    s->updates->add_loss(s->update, lam_tensor_device(s->o.io[k].loss));
    s->sent = 0;
    s->sent_status = LAM_OK;
    lam_graph_set_gradient_hook(graph, last && s->nccl ? start_sums : NULL, s, LAM_SUM_BUCKET);
    LAM_TRY(lam_graph_backward(graph));
    if (!last) return LAM_OK;
    if (s->nccl) {
        LAM_TRY(s->sent_status);
        LAM_TRY(s->nccl->start_sum_f64(s->updates->loss(s->update), 1, lam_backend_stream(s->o.backend)));
        LAM_TRY(s->nccl->wait(lam_backend_stream(s->o.backend)));
    }
    return s->updates->enqueue(s->update);
}

/* Nothing can be timed while it is recorded: the products of graph k and of the update are planned by passes whose results nobody
 * reads. */
static lam_status plan_products(lam_device_step *s, int64_t k) {
    lam_graph *graph = s->o.graphs[k];
    lam_graph_hold_weights(graph, true); /* the host's may be old */
    lam_status status = lam_graph_forward(graph);
    if (status == LAM_OK) status = lam_graph_backward(graph);
    lam_graph_hold_weights(graph, false);
    return status == LAM_OK ? s->updates->plan_products(s->update) : status;
}

static lam_status record(lam_device_step *s, int64_t k, bool first, bool last) {
    lam_graph *graph = s->o.graphs[k];
    lam_recording *made = NULL;
    LAM_TRY(lam_backend_record(s->o.backend));
    lam_graph_set_recording(graph, true);
    lam_status status = work(s, k, first, last), ended = lam_backend_recorded(s->o.backend, &made);
    lam_graph_set_recording(graph, false);
    lam_graph_hold_weights(graph, false);
    lam_graph_set_gradient_hook(graph, NULL, NULL, LAM_SUM_BUCKET);
    if (status == LAM_OK) status = ended;
    if (status != LAM_OK) {
        lam_backend_forget(s->o.backend, made);
        return status;
    }
    s->recording[k][first][last] = made;
    return LAM_OK;
}

lam_status lam_device_step_give(lam_device_step *s, int64_t k, bool first, bool last,
                                const lam_cuda_update_input *terms) {
    int64_t slot = s->given % UNDER_WAY;
    LAM_REQUIRE(s->given - s->asked < UNDER_WAY, LAM_ERROR_INTERNAL, "too many steps are under way");
    if (!s->recording[k][first][last]) {
        if (s->o.autotune && first) LAM_TRY(plan_products(s, k));
        LAM_TRY(record(s, k, first, last));
    }
    LAM_TRY(lam_graph_send(s->o.graphs[k]));
    if (first) s->updates->set(s->update, terms);
    LAM_TRY(lam_backend_replay(s->o.backend, s->recording[k][first][last]));
    if (!last) return LAM_OK;
    s->updates->outcome(s->update, &s->outcomes[slot]);
    LAM_TRY(lam_backend_mark(s->o.backend, (int)slot));
    s->given++;
    return LAM_OK;
}

/* Where other ranks may have gone, nothing waits without looking: the watchdog sees who does not come. */
static lam_status await(lam_device_step *s, int slot) {
    if (!s->nccl) return lam_backend_await(s->o.backend, slot);
    bool reached = false;
    lam_status status = LAM_OK;
    lam_dist_begin_wait(s->o.dist, "the step of the device");
    for (;;) {
        status = lam_backend_reached(s->o.backend, slot, &reached);
        if (status == LAM_OK && !reached) status = s->nccl->check();
        if (status != LAM_OK || reached) break;
        nanosleep(&(struct timespec){.tv_nsec = 50000}, NULL);
    }
    lam_dist_end_wait(s->o.dist);
    return status;
}

lam_status lam_device_step_outcome(lam_device_step *s, lam_cuda_update_outcome *outcome) {
    LAM_REQUIRE(s->asked < s->given, LAM_ERROR_INTERNAL, "no step is under way");
    int slot = (int)(s->asked++ % UNDER_WAY);
    LAM_TRY(await(s, slot));
    *outcome = s->outcomes[slot];
    return LAM_OK;
}

lam_status lam_device_step_time_update(lam_device_step *s, const lam_cuda_update_input *terms, double *seconds) {
    s->updates->set(s->update, terms);
    LAM_TRY(lam_backend_mark(s->o.backend, 0));
    LAM_TRY(lam_backend_await(s->o.backend, 0));
    double start = lam_now();
    LAM_TRY(s->updates->enqueue(s->update));
    LAM_TRY(lam_backend_mark(s->o.backend, 0));
    LAM_TRY(lam_backend_await(s->o.backend, 0));
    *seconds = lam_now() - start;
    return lam_backend_error(s->o.backend);
}
