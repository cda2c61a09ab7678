#include "train/optimizer_file.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/safetensors.h"

typedef struct stored_arena {
    const char *name;
    float *values;
    int index; /* of the rule's arenas; -1: the weights */
} stored_arena;

static int list_arenas(const lam_optimizer_state *o, const lam_parameters *p,
                       stored_arena list[LAM_OPTIMIZER_ARENAS + 1]) {
    int count = o->optimizer->arenas;
    for (int k = 0; k < count; k++) list[k] = (stored_arena){o->optimizer->arena_names[k], o->arena[k], k};
    if (o->optimizer->averaged) list[count++] = (stored_arena){o->optimizer->trained_name, p->weights, -1};
    return count;
}

static bool is_stored(const lam_optimizer *optimizer, const stored_arena *arena, const lam_parameters *p,
                      const lam_parameter_entry *e) {
    if (e->offset >= p->trainable) return false; /* frozen */
    return arena->index < 0 || !optimizer->uses || optimizer->uses(e, arena->index);
}

static lam_status declare_arena(lam_safetensors_writer *writer, const lam_optimizer *optimizer,
                                const lam_parameters *p, const stored_arena *arena) {
    char name[256];
    for (int64_t i = 0; i < p->entries; i++) {
        const lam_parameter_entry *e = &p->entry[i];
        if (!is_stored(optimizer, arena, p, e)) continue;
        snprintf(name, sizeof name, "%s.%s", arena->name, e->name);
        LAM_TRY(lam_safetensors_writer_declare(writer, name, "F32", e->rank, e->shape));
    }
    return LAM_OK;
}

static lam_status write_arena(lam_safetensors_writer *writer, const lam_optimizer *optimizer,
                              const lam_parameters *p, const stored_arena *arena) {
    for (int64_t i = 0; i < p->entries; i++) {
        const lam_parameter_entry *e = &p->entry[i];
        if (is_stored(optimizer, arena, p, e))
            LAM_TRY(lam_safetensors_writer_data(writer, arena->values + e->offset,
                                                (size_t)e->count * sizeof(float)));
    }
    return LAM_OK;
}

lam_status lam_optimizer_file_write(const char *path, const lam_parameters *p, const lam_optimizer_state *o,
                                    int64_t updates) {
    stored_arena arenas[LAM_OPTIMIZER_ARENAS + 1];
    int count = list_arenas(o, p, arenas);
    lam_safetensors_writer *writer = NULL;
    lam_status status = LAM_OK;
    char number[32];
    snprintf(number, sizeof number, "%" PRId64, updates);
    LAM_TRY_GOTO(lam_safetensors_writer_open(&writer, path), done);
    LAM_TRY_GOTO(lam_safetensors_writer_metadata(writer, "updates", number), done);
    LAM_TRY_GOTO(lam_safetensors_writer_metadata(writer, "optimizer", o->optimizer->name), done);
    for (int k = 0; k < count; k++) LAM_TRY_GOTO(declare_arena(writer, o->optimizer, p, &arenas[k]), done);
    for (int k = 0; k < count; k++) LAM_TRY_GOTO(write_arena(writer, o->optimizer, p, &arenas[k]), done);
    return lam_safetensors_writer_commit(&writer);
done:
    lam_safetensors_writer_abort(&writer);
    return status;
}

static lam_status read_arena(lam_safetensors *file, const char *path, const lam_optimizer *optimizer,
                             const lam_parameters *p, const stored_arena *arena) {
    char name[256];
    for (int64_t i = 0; i < p->entries; i++) {
        const lam_parameter_entry *e = &p->entry[i];
        if (!is_stored(optimizer, arena, p, e)) continue;
        snprintf(name, sizeof name, "%s.%s", arena->name, e->name);
        const lam_safetensors_entry *entry = lam_safetensors_find(file, name);
        LAM_REQUIRE(entry && entry->count == e->count, LAM_ERROR_INPUT,
                    "%s: lacks the tensor %s: optim.name or the model section differs", path, name);
        LAM_TRY(lam_safetensors_read_f32(file, entry, arena->values + e->offset));
    }
    return LAM_OK;
}

lam_status lam_optimizer_file_read(const char *path, const lam_parameters *p, const lam_optimizer_state *o) {
    stored_arena arenas[LAM_OPTIMIZER_ARENAS + 1];
    int count = list_arenas(o, p, arenas);
    lam_safetensors *file = NULL;
    LAM_TRY(lam_safetensors_open(&file, path));
    lam_status status = LAM_OK;
    const char *name = lam_safetensors_metadata(file, "optimizer");
    LAM_REQUIRE_GOTO(!name || !strcmp(name, o->optimizer->name), done, LAM_ERROR_CONFIG,
                     "%s: the state of %s, but optim.name is %s: a run keeps its rule", path, name,
                     o->optimizer->name);
    for (int k = 0; k < count; k++) LAM_TRY_GOTO(read_arena(file, path, o->optimizer, p, &arenas[k]), done);
done:
    lam_safetensors_close(file);
    return status;
}
