#include "base/weights_file.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/files.h"
#include "base/memory.h"
#include "base/safetensors.h"
#include "base/torch_file.h"

enum { PART_LIMIT = 4096 };

typedef struct part { /* one of the two */
    lam_safetensors *tensors;
    lam_torch_file *torch;
    char *name;
} part;

struct lam_weights {
    char *path;
    part *parts;
    int count;
    lam_weights_entry *entries; /* in order of names */
    int64_t entry_count;
};

lam_status lam_weights_file(const char *folder, char **file) {
    static const char *const names[] = {"model.safetensors", "model.safetensors.index.json",
                                        "pytorch_model.bin", "pytorch_model.bin.index.json"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        LAM_TRY(lam_path_join(file, folder, names[i]));
        if (lam_path_exists(*file)) return LAM_OK;
        lam_free(*file);
        *file = NULL;
    }
    return LAM_OK;
}

/* Pickles that PyTorch wrote before 1.6 begin with their protocol. */
static lam_status refuse_old_pickle(const char *path) {
    lam_reader *reader = NULL;
    unsigned char start[4] = {0};
    LAM_TRY(lam_reader_open(&reader, path));
    lam_status status = lam_reader_size(reader) >= 4 ? lam_reader_at(reader, 0, start, 4) : LAM_OK;
    lam_reader_close(&reader);
    LAM_TRY(status);
    LAM_REQUIRE(!(start[0] == 0x80 && start[1] >= 2 && start[1] <= 5 && start[3]), LAM_ERROR_FORMAT,
                "%s: is a pickle of before PyTorch 1.6: load it there and torch.save its state_dict again",
                path);
    return LAM_OK;
}

static lam_status open_part(part *p, const char *path) {
    bool torch = false;
    LAM_TRY(lam_torch_is_file(path, &torch));
    if (torch) return lam_torch_open(&p->torch, path);
    LAM_TRY(refuse_old_pickle(path));
    return lam_safetensors_open(&p->tensors, path);
}

/* {"weight_map": {tensor: file}}: opens each file once; what they hold is what counts. */
static lam_status open_index(lam_weights *w, const char *path) {
    char *text = NULL, *beside = NULL, *folder = NULL;
    size_t size = 0;
    lam_json *json = NULL;
    const char *slash = strrchr(path, '/');
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_text_copy_n(&folder, slash ? path : ".", slash ? (size_t)(slash - path + 1) : 1), done);
    LAM_TRY_GOTO(lam_file_read(path, &text, &size), done);
    LAM_TRY_GOTO(lam_json_parse(&json, text, size, path), done);
    const lam_json *map = lam_json_get(json, "weight_map");
    LAM_REQUIRE_GOTO(lam_json_is_object(map) && lam_json_size(map) > 0, done, LAM_ERROR_FORMAT,
                     "%s: has no weight_map, so it is no index of weights", path);
    LAM_TRY_GOTO(lam_alloc_array((void **)&w->parts, PART_LIMIT, sizeof *w->parts), done);
    for (const char *name = NULL; (name = lam_json_key_after(map, name));) {
        const char *file = lam_json_text(lam_json_get(map, name), "");
        bool known = false;
        for (int i = 0; i < w->count; i++) known = known || !strcmp(w->parts[i].name, file);
        if (known) continue;
        LAM_REQUIRE_GOTO(file[0] && file[0] != '.' && !strchr(file, '/') && w->count < PART_LIMIT, done,
                         LAM_ERROR_FORMAT, "%s: names '%s', which is no file beside it", path, file);
        part *p = &w->parts[w->count++];
        LAM_TRY_GOTO(lam_text_copy(&p->name, file), done);
        LAM_TRY_GOTO(lam_path_join(&beside, folder, file), done);
        LAM_TRY_GOTO(open_part(p, beside), done);
        lam_free(beside);
        beside = NULL;
    }
done:
    lam_json_free(json);
    lam_free(text);
    lam_free(folder);
    lam_free(beside);
    return status;
}

static int64_t part_count(const part *p) {
    return p->torch ? lam_torch_count(p->torch) : lam_safetensors_count(p->tensors);
}

static lam_weights_entry entry_of(const part *p, int number, int64_t index) {
    lam_weights_entry e = {.part = number};
    if (p->torch) {
        const lam_torch_entry *from = lam_torch_at(p->torch, index);
        e.name = from->name;
        e.dtype = from->tensor->dtype;
        e.rank = from->tensor->rank;
        e.count = from->count;
        e.source = from;
        memcpy(e.shape, from->tensor->shape, sizeof e.shape);
    } else {
        const lam_safetensors_entry *from = lam_safetensors_at(p->tensors, index);
        e.name = from->name;
        e.dtype = from->dtype;
        e.rank = from->rank;
        e.count = from->count;
        e.source = from;
        memcpy(e.shape, from->shape, sizeof e.shape);
    }
    return e;
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const lam_weights_entry *)a)->name, ((const lam_weights_entry *)b)->name);
}

static lam_status list_entries(lam_weights *w, const char *path) {
    int64_t total = 0;
    for (int i = 0; i < w->count; i++) total += part_count(&w->parts[i]);
    LAM_TRY(lam_alloc_array((void **)&w->entries, total, sizeof *w->entries));
    for (int i = 0; i < w->count; i++)
        for (int64_t k = 0; k < part_count(&w->parts[i]); k++)
            w->entries[w->entry_count++] = entry_of(&w->parts[i], i, k);
    if (total) qsort(w->entries, (size_t)total, sizeof *w->entries, by_name);
    for (int64_t i = 1; i < total; i++)
        LAM_REQUIRE(strcmp(w->entries[i - 1].name, w->entries[i].name) != 0, LAM_ERROR_FORMAT,
                    "%s: holds the tensor '%s' twice", path, w->entries[i].name);
    return LAM_OK;
}

lam_status lam_weights_open(lam_weights **out, const char *path) {
    *out = NULL;
    lam_status status = LAM_OK;
    lam_weights *w = NULL;
    LAM_TRY(lam_alloc((void **)&w, sizeof *w));
    LAM_TRY_GOTO(lam_text_copy(&w->path, path), fail);
    if (lam_text_ends_with(path, ".index.json")) {
        LAM_TRY_GOTO(open_index(w, path), fail);
    } else {
        LAM_TRY_GOTO(lam_alloc_array((void **)&w->parts, 1, sizeof *w->parts), fail);
        w->count = 1;
        LAM_TRY_GOTO(open_part(&w->parts[0], path), fail);
    }
    LAM_TRY_GOTO(list_entries(w, path), fail);
    *out = w;
    return LAM_OK;
fail:
    lam_weights_close(w);
    return status;
}

void lam_weights_close(lam_weights *w) {
    if (!w) return;
    for (int i = 0; i < w->count; i++) {
        lam_safetensors_close(w->parts[i].tensors);
        lam_torch_close(w->parts[i].torch);
        lam_free(w->parts[i].name);
    }
    lam_free(w->parts);
    lam_free(w->entries);
    lam_free(w->path);
    lam_free(w);
}

bool lam_weights_is_torch(const lam_weights *w) { return w->parts[0].torch != NULL; }
int64_t lam_weights_count(const lam_weights *w) { return w->entry_count; }
const lam_weights_entry *lam_weights_at(const lam_weights *w, int64_t index) { return &w->entries[index]; }
const lam_weights_entry *lam_weights_find(const lam_weights *w, const char *name) {
    lam_weights_entry wanted = {.name = name};
    if (!w->entry_count) return NULL;
    return bsearch(&wanted, w->entries, (size_t)w->entry_count, sizeof *w->entries, by_name);
}
const char *lam_weights_metadata(const lam_weights *w, const char *key) {
    return w->parts[0].tensors ? lam_safetensors_metadata(w->parts[0].tensors, key) : NULL;
}

lam_status lam_weights_check_type(const lam_weights *w, const lam_weights_entry *entry) {
    static const char *const types[] = {"F64", "F32", "F16", "BF16"};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (!strcmp(entry->dtype, types[i])) return LAM_OK;
    LAM_FAIL(LAM_ERROR_INPUT, "%s: tensor %s is of type %s: a weight is F64, F32, F16 or BF16", w->path,
             entry->name, entry->dtype);
}

lam_status lam_weights_check_values(const char *path, const char *name, const float *values, int64_t count) {
    for (int64_t i = 0; i < count; i++)
        LAM_REQUIRE(isfinite(values[i]), LAM_ERROR_INPUT,
                    "%s: tensor %s is %g at element %" PRId64 ": weights must be finite numbers", path, name,
                    (double)values[i], i);
    return LAM_OK;
}

lam_status lam_weights_read_f32(lam_weights *w, const lam_weights_entry *entry, float *values) {
    part *p = &w->parts[entry->part];
    LAM_TRY(lam_weights_check_type(w, entry));
    LAM_TRY(p->torch ? lam_torch_read_f32(p->torch, entry->source, values)
                     : lam_safetensors_read_f32(p->tensors, entry->source, values));
    return lam_weights_check_values(w->path, entry->name, values, entry->count);
}
