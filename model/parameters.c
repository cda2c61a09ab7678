#include "model/parameters.h"

#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "base/rng.h"
#include "model/internal.h"

#define ALIGN_ELEMENTS 16

static int64_t padded(int64_t count) {
    return (count + ALIGN_ELEMENTS - 1) / ALIGN_ELEMENTS * ALIGN_ELEMENTS;
}

lam_status lam_parameters_create(lam_parameters **out) { return lam_alloc((void **)out, sizeof **out); }

lam_status lam_parameters_add(lam_parameters *p, const char *name, int rank, const int64_t *shape,
                              lam_init init, double init_scale, bool decay) {
    LAM_REQUIRE(rank >= 1 && rank <= 4 && !lam_parameters_find(p, name) && !p->weights, LAM_ERROR_INTERNAL,
                "parameter %s cannot be added", name);
    if (p->entries == p->capacity) {
        int64_t grown = p->capacity ? p->capacity * 2 : 64;
        LAM_TRY(lam_grow((void **)&p->entry, (size_t)p->capacity * sizeof *p->entry,
                         (size_t)grown * sizeof *p->entry));
        p->capacity = grown;
    }
    lam_parameter_entry *entry = &p->entry[p->entries];
    memset(entry, 0, sizeof *entry);
    LAM_TRY(lam_text_copy(&entry->name, name));
    entry->rank = rank;
    entry->count = 1;
    for (int i = 0; i < rank; i++) {
        entry->shape[i] = shape[i];
        entry->count *= shape[i];
    }
    entry->init = init;
    entry->init_scale = init_scale;
    entry->decay = decay;
    entry->lr_scale = 1;
    p->entries++;
    return LAM_OK;
}

static uint64_t name_hash(const char *name) { /* FNV-1a */
    uint64_t h = 0xcbf29ce484222325ull;
    for (; *name; name++) h = (h ^ (unsigned char)*name) * 0x100000001b3ull;
    return h;
}

static void draw(const lam_parameter_entry *entry, float *weights, uint64_t seed) {
    lam_rng stream = lam_rng_stream(seed, LAM_RNG_INIT, name_hash(entry->name));
    double fan_out = (double)entry->shape[0], fan_in = (double)entry->count / fan_out,
           limit = sqrt(6.0 / (fan_in + fan_out));
    for (int64_t k = 0; k < entry->count; k++) switch (entry->init) {
        case LAM_INIT_ONE: weights[k] = 1; break;
        case LAM_INIT_CONSTANT: weights[k] = (float)entry->init_scale; break;
        case LAM_INIT_NORMAL: weights[k] = (float)(entry->init_scale * lam_rng_normal(&stream)); break;
        case LAM_INIT_XAVIER_UNIFORM: weights[k] = (float)(limit * (2 * lam_rng_uniform(&stream) - 1)); break;
        default: weights[k] = 0; break;
        }
}

lam_status lam_parameters_layout(lam_parameters *p, uint64_t seed) {
    int64_t at = 0;
    for (int frozen = 0; frozen < 2; frozen++) {
        for (int64_t i = p->entries - 1; i >= 0; i--) {
            if ((p->entry[i].init == LAM_INIT_FROZEN) != frozen) continue;
            p->entry[i].offset = at;
            at += padded(p->entry[i].count);
        }
        if (!frozen) p->trainable = at;
    }
    p->count = at;
    LAM_TRY(lam_alloc_array((void **)&p->weights, p->count, sizeof(float)));
    LAM_TRY(lam_alloc_array((void **)&p->gradients, p->trainable, sizeof(float)));
    LAM_TRY(lam_alloc_array((void **)&p->unwritten, p->entries, sizeof(bool)));
    lam_parameters_zero_gradients(p);
#pragma omp parallel for schedule(dynamic)
    for (int64_t i = 0; i < p->entries; i++) draw(&p->entry[i], p->weights + p->entry[i].offset, seed);
    return LAM_OK;
}

const lam_parameter_entry *lam_parameters_find(const lam_parameters *p, const char *name) {
    for (int64_t i = 0; i < p->entries; i++)
        if (!strcmp(p->entry[i].name, name)) return &p->entry[i];
    return NULL;
}

void lam_parameters_zero_gradients(lam_parameters *p) {
    for (int64_t i = 0; i < p->entries; i++) p->unwritten[i] = p->entry[i].init != LAM_INIT_FROZEN;
}

bool lam_parameters_claim_gradient(lam_parameters *p, const lam_parameter_entry *entry) {
    bool *unwritten = &p->unwritten[entry - p->entry], was = *unwritten;
    *unwritten = false;
    return was;
}

void lam_parameters_settle_gradient(lam_parameters *p, const lam_parameter_entry *entry) {
    enum { PART = 1 << 16 };
    if (!lam_parameters_claim_gradient(p, entry)) return;
    if (p->backend && !p->backend->on_host) {
        lam_backend_kernels(p->backend, false)->fill(p->device_gradients + entry->offset, 0,
                                                (size_t)entry->count * sizeof(float));
        return;
    }
    float *gradient = p->gradients + entry->offset;
    if (entry->count <= PART) { /* a clause `if` would make OpenMP replace its team of threads by one of one */
        memset(gradient, 0, (size_t)entry->count * sizeof(float));
        return;
    }
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < entry->count; i += PART) {
        int64_t count = entry->count - i < PART ? entry->count - i : PART;
        memset(gradient + i, 0, (size_t)count * sizeof(float));
    }
}

void lam_parameters_settle_gradients(lam_parameters *p, int64_t begin, int64_t end) {
    for (int64_t i = 0; i < p->entries; i++)
        if (p->entry[i].offset >= begin && p->entry[i].offset < end)
            lam_parameters_settle_gradient(p, &p->entry[i]);
}

typedef struct lam_packed lam_packed;
struct lam_packed {
    const void *key;
    int form;
    size_t bytes;
    void *room;
    lam_packed *next;
};

lam_status lam_parameters_reserve(lam_parameters *p, const void *key, int form, size_t bytes, void **room) {
    for (lam_packed *known = p->packed; known; known = known->next)
        if (known->key == key && known->form == form && known->bytes == bytes) {
            *room = known->room;
            return LAM_OK;
        }
    lam_packed *made = NULL;
    LAM_TRY(lam_alloc((void **)&made, sizeof *made));
    *made = (lam_packed){key, form, bytes, NULL, p->packed};
    p->packed = made;
    LAM_TRY(p->backend->allocate(&made->room, bytes));
    *room = made->room;
    return LAM_OK;
}

lam_status lam_parameters_place(lam_parameters *p, const lam_backend *backend) {
    LAM_REQUIRE(!p->backend || p->backend == backend, LAM_ERROR_INTERNAL,
                "the parameters are in use on another device");
    if (p->backend) return LAM_OK;
    p->backend = backend;
    p->device_weights = p->weights;
    p->device_gradients = p->gradients;
    if (backend->on_host) return LAM_OK;
    p->device_weights = p->device_gradients = NULL;
    LAM_TRY(backend->allocate((void **)&p->device_weights, (size_t)p->count * sizeof(float)));
    LAM_TRY(backend->allocate((void **)&p->device_gradients, (size_t)p->trainable * sizeof(float)));
    LAM_TRY(backend->write(p->device_gradients, p->gradients, (size_t)p->trainable * sizeof(float))); /* padding */
    return lam_parameters_push(p);
}

static bool is_away(const lam_parameters *p) { return p->backend && !p->backend->on_host; }

lam_status lam_parameters_push(lam_parameters *p) {
    if (!is_away(p)) return LAM_OK;
    return p->backend->write(p->device_weights, p->weights, (size_t)p->count * sizeof(float));
}

lam_status lam_parameters_pull(lam_parameters *p) {
    if (!is_away(p)) return LAM_OK;
    return p->backend->read(p->weights, p->device_weights, (size_t)p->count * sizeof(float));
}

lam_status lam_parameters_pull_gradients(lam_parameters *p) {
    if (!is_away(p)) return LAM_OK;
    return p->backend->read(p->gradients, p->device_gradients, (size_t)p->trainable * sizeof(float));
}

void lam_parameters_free(lam_parameters *p) {
    if (!p) return;
    if (is_away(p)) {
        p->backend->release(p->device_weights);
        p->backend->release(p->device_gradients);
    }
    while (p->packed) {
        lam_packed *next = p->packed->next;
        p->backend->release(p->packed->room);
        lam_free(p->packed);
        p->packed = next;
    }
    for (int64_t i = 0; i < p->entries; i++) lam_free(p->entry[i].name);
    lam_free(p->entry);
    lam_free(p->weights);
    lam_free(p->gradients);
    lam_free(p->unwritten);
    lam_free(p);
}
