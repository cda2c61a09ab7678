#include "base/torch_file.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zip.h>

#include "base/elements.h"
#include "base/fault.h"
#include "base/files.h"
#include "base/utf8.h"

enum { NAME_BYTES = 512, LEVELS = 16, VISITS = 1 << 20, TENSORS = 1 << 17, CHUNK_BYTES = 1 << 18 };

struct lam_torch_file {
    zip_t *zip;
    char *path, *folder;
    uint64_t bytes; /* of the whole file */
    lam_arena arena;
    lam_torch_entry *entries; /* in order of names */
    int64_t count, room;
};

/* ---- the zip ---- */

static lam_status fail_zip(const lam_torch_file *file, const char *what, const char *why) {
    LAM_FAIL(LAM_ERROR_FORMAT, "%s: %s (%s): the zip is cut off or damaged", file->path, what, why);
}

lam_status lam_torch_is_file(const char *path, bool *is) {
    lam_reader *reader = NULL;
    unsigned char start[4] = {0};
    *is = false;
    LAM_TRY(lam_reader_open(&reader, path));
    lam_status status = lam_reader_size(reader) >= 4 ? lam_reader_at(reader, 0, start, 4) : LAM_OK;
    *is = !memcmp(start, "PK\3\4", 4);
    lam_reader_close(&reader);
    return status;
}

static lam_status open_zip(lam_torch_file *file) {
    lam_reader *reader = NULL;
    LAM_TRY(lam_reader_open(&reader, file->path));
    file->bytes = lam_reader_size(reader);
    lam_reader_close(&reader);
    int code = 0;
    file->zip = zip_open(file->path, ZIP_RDONLY | ZIP_CHECKCONS, &code);
    if (file->zip) return LAM_OK;
    zip_error_t error;
    zip_error_init_with_code(&error, code);
    lam_status status =
        fail_zip(file, "is no readable zip, as torch.save writes it", zip_error_strerror(&error));
    zip_error_fini(&error);
    return status;
}

/* The only FOLDER/data.pkl. */
static lam_status find_folder(lam_torch_file *file) {
    static const char end[] = "/data.pkl";
    int64_t entries = zip_get_num_entries(file->zip, 0);
    for (int64_t i = 0; i < entries; i++) {
        const char *name = zip_get_name(file->zip, (zip_uint64_t)i, ZIP_FL_ENC_RAW);
        const char *slash = name ? strchr(name, '/') : NULL;
        if (!slash || strcmp(slash, end) != 0) continue;
        LAM_REQUIRE(!file->folder, LAM_ERROR_FORMAT, "%s: holds more than one data.pkl", file->path);
        LAM_TRY(lam_text_copy_n(&file->folder, name, (size_t)(slash - name)));
    }
    LAM_REQUIRE(file->folder, LAM_ERROR_FORMAT,
                "%s: is a zip without data.pkl: torch.save has not written it", file->path);
    return LAM_OK;
}

/* *found false: no such entry. */
static lam_status locate(const lam_torch_file *file, const char *name, uint64_t *index, uint64_t *size,
                         bool *found) {
    const zip_uint64_t needed = ZIP_STAT_SIZE | ZIP_STAT_COMP_METHOD | ZIP_STAT_ENCRYPTION_METHOD;
    char *path = NULL;
    zip_stat_t stat;
    LAM_TRY(lam_text_format(&path, "%s/%s", file->folder, name));
    int64_t at = zip_name_locate(file->zip, path, ZIP_FL_ENC_RAW);
    lam_free(path);
    *found = at >= 0;
    if (!*found) return LAM_OK;
    zip_stat_init(&stat);
    bool good = zip_stat_index(file->zip, (zip_uint64_t)at, 0, &stat) == 0 && (stat.valid & needed) == needed;
    LAM_REQUIRE(good && stat.comp_method == ZIP_CM_STORE && stat.encryption_method == ZIP_EM_NONE &&
                    stat.size <= file->bytes,
                LAM_ERROR_FORMAT,
                "%s: %s is compressed, encrypted or larger than the file: torch.save stores it as it is",
                file->path, name);
    *index = (uint64_t)at;
    *size = stat.size;
    return LAM_OK;
}

/* Bytes [offset, offset + size) of an entry, piece by piece. */
typedef struct stream {
    const lam_torch_file *file;
    zip_file_t *entry;
    bool from_start;
} stream;

static lam_status stream_open(stream *s, const lam_torch_file *file, uint64_t index, uint64_t offset) {
    *s = (stream){file, NULL, offset == 0};
    LAM_REQUIRE(!lam_fault_hit(LAM_FAULT_READ), LAM_ERROR_IO, "%s: cannot be read", file->path);
    s->entry = zip_fopen_index(file->zip, index, 0);
    if (!s->entry) return fail_zip(file, "cannot be read", zip_strerror(file->zip));
    if (offset && zip_fseek(s->entry, (zip_int64_t)offset, SEEK_SET) < 0)
        return fail_zip(file, "cannot be read", zip_file_strerror(s->entry));
    return LAM_OK;
}

static lam_status stream_read(stream *s, void *bytes, size_t size) {
    LAM_REQUIRE(!lam_fault_hit(LAM_FAULT_READ), LAM_ERROR_IO, "%s: cannot be read", s->file->path);
    for (size_t at = 0; at < size;) {
        zip_int64_t got = zip_fread(s->entry, (char *)bytes + at, size - at);
        if (got <= 0) return fail_zip(s->file, "cannot be read", zip_file_strerror(s->entry));
        at += (size_t)got;
    }
    return LAM_OK;
}

/* At the end of the entry libzip compares the checksum, provided that all of it has gone by. */
static lam_status stream_check(stream *s) {
    char more;
    if (s->from_start && zip_fread(s->entry, &more, 1) < 0)
        return fail_zip(s->file, "has other bytes than were written", zip_file_strerror(s->entry));
    return LAM_OK;
}

static void stream_close(stream *s) {
    if (s->entry) zip_fclose(s->entry);
}

static lam_status read_entry(const lam_torch_file *file, uint64_t index, void *bytes, size_t size) {
    stream s;
    lam_status status = stream_open(&s, file, index, 0);
    if (status == LAM_OK) status = stream_read(&s, bytes, size);
    if (status == LAM_OK) status = stream_check(&s);
    stream_close(&s);
    return status;
}

static lam_status check_byteorder(const lam_torch_file *file) {
    uint64_t index = 0, size = 0;
    bool found = false;
    char order[8] = "";
    LAM_TRY(locate(file, "byteorder", &index, &size, &found));
    if (!found) return LAM_OK;
    if (size < sizeof order) LAM_TRY(read_entry(file, index, order, (size_t)size));
    LAM_REQUIRE(!strcmp(order, "little"), LAM_ERROR_FORMAT,
                "%s: its numbers are not little-endian: save it again on another machine", file->path);
    return LAM_OK;
}

/* ---- tensors ---- */

/* A tensor of no elements needs no storage. */
static lam_status check_storage(const lam_torch_file *file, lam_torch_entry *entry) {
    const lam_pickle_tensor *t = entry->tensor;
    int64_t last = t->offset, extent = 0, bytes = 0;
    bool fits = true, found = false, empty = false;
    uint64_t size = 0;
    char key[NAME_BYTES];
    entry->count = 1;
    for (int i = 0; i < t->rank; i++) empty = empty || t->shape[i] == 0;
    if (empty) {
        entry->count = 0;
        return LAM_OK;
    }
    for (int i = 0; i < t->rank && fits; i++)
        fits = !__builtin_mul_overflow(entry->count, t->shape[i], &entry->count) &&
               !__builtin_mul_overflow(t->shape[i] - 1, t->stride[i], &extent) &&
               !__builtin_add_overflow(last, extent, &last);
    LAM_REQUIRE(fits && last < t->storage_count, LAM_ERROR_FORMAT,
                "%s: tensor '%s' reaches outside its storage", file->path, entry->name);
    LAM_REQUIRE(entry->count <= t->storage_count, LAM_ERROR_FORMAT,
                "%s: tensor '%s' is an expanded view: save its .contiguous()", file->path, entry->name);
    LAM_REQUIRE(snprintf(key, sizeof key, "data/%s", t->key) < (int)sizeof key, LAM_ERROR_FORMAT,
                "%s: tensor '%s' has a storage of too long a name", file->path, entry->name);
    LAM_TRY(locate(file, key, &entry->storage, &size, &found));
    LAM_REQUIRE(found, LAM_ERROR_FORMAT, "%s: lacks %s, the storage of tensor '%s'", file->path, key,
                entry->name);
    fits = !__builtin_mul_overflow(t->storage_count, (int64_t)lam_element_bytes(t->dtype, NULL), &bytes);
    LAM_REQUIRE(fits && (uint64_t)bytes == size, LAM_ERROR_FORMAT,
                "%s: %s, the storage of tensor '%s', has %" PRIu64 " bytes, its pickle says another number",
                file->path, key, entry->name, size);
    return LAM_OK;
}

static lam_status add_tensor(lam_torch_file *file, const char *name, const lam_pickle_tensor *tensor) {
    char *copy = NULL;
    LAM_REQUIRE(file->count < TENSORS, LAM_ERROR_FORMAT, "%s: holds more than 2^17 tensors", file->path);
    if (file->count == file->room) {
        int64_t room = file->room ? 2 * file->room : 256;
        LAM_TRY(lam_grow((void **)&file->entries, (size_t)file->room * sizeof *file->entries,
                         (size_t)room * sizeof *file->entries));
        file->room = room;
    }
    LAM_TRY(lam_arena_text(&file->arena, &copy, name, strlen(name)));
    lam_torch_entry *entry = &file->entries[file->count];
    *entry = (lam_torch_entry){.name = copy, .tensor = tensor};
    LAM_TRY(check_storage(file, entry));
    file->count++;
    return LAM_OK;
}

typedef struct walker {
    lam_torch_file *file;
    char name[NAME_BYTES]; /* of the value that is looked at */
    int64_t visits;
} walker;

static lam_status walk(walker *w, const lam_pickle_value *v, size_t length, int level) {
    if (v->kind == LAM_PICKLE_TENSOR) return add_tensor(w->file, w->name, v->tensor);
    if (v->kind != LAM_PICKLE_DICT && v->kind != LAM_PICKLE_LIST && v->kind != LAM_PICKLE_TUPLE)
        return LAM_OK;
    LAM_REQUIRE(level < LEVELS, LAM_ERROR_FORMAT, "%s: is nested deeper than 16 levels at '%s'",
                w->file->path, w->name);
    int64_t index = 0;
    for (const lam_pickle_item *i = v->first; i; i = i->next, index++) {
        LAM_REQUIRE(w->visits++ < VISITS, LAM_ERROR_FORMAT, "%s: holds more than 2^20 values", w->file->path);
        const char *dot = length ? "." : "";
        char *at = w->name + length;
        size_t room = sizeof w->name - length;
        int used = 0;
        if (i->key && i->key->kind == LAM_PICKLE_TEXT)
            used = snprintf(at, room, "%s%s", dot, i->key->text);
        else if (!i->key || i->key->kind == LAM_PICKLE_INT)
            used = snprintf(at, room, "%s%" PRId64, dot, i->key ? i->key->integer : index);
        else
            continue; /* None, a tuple...: no tensor of a network is kept under such a key */
        LAM_REQUIRE(used >= 0 && (size_t)used < room && lam_utf8_is_valid(w->name), LAM_ERROR_FORMAT,
                    "%s: holds a name that is no UTF-8 of at most 511 bytes", w->file->path);
        LAM_TRY(walk(w, i->value, length + (size_t)used, level + 1));
        w->name[length] = 0;
    }
    return LAM_OK;
}

/* The dict under the first of the usual keys, as long as there is one. */
static const lam_pickle_value *unwrap(const lam_pickle_value *root) {
    static const char *const keys[] = {"state_dict", "model", "model_state_dict"};
    for (int level = 0; level < LEVELS; level++) {
        const lam_pickle_value *inner = NULL;
        for (size_t k = 0; k < sizeof keys / sizeof *keys && !inner; k++)
            for (const lam_pickle_item *i = root->first; i && root->kind == LAM_PICKLE_DICT; i = i->next)
                if (i->key->kind == LAM_PICKLE_TEXT && !strcmp(i->key->text, keys[k]) &&
                    i->value->kind == LAM_PICKLE_DICT)
                    inner = i->value;
        if (!inner) break;
        root = inner;
    }
    return root;
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const lam_torch_entry *)a)->name, ((const lam_torch_entry *)b)->name);
}

static lam_status read_description(lam_torch_file *file) {
    uint64_t index = 0, size = 0;
    bool found = false;
    void *bytes = NULL;
    const lam_pickle_value *root = NULL;
    LAM_TRY(locate(file, "data.pkl", &index, &size, &found));
    LAM_REQUIRE(found && size <= LAM_PICKLE_MAX_BYTES, LAM_ERROR_FORMAT,
                "%s: its data.pkl has %" PRIu64 " bytes, more than any weights need", file->path, size);
    LAM_TRY(lam_alloc(&bytes, (size_t)size));
    lam_status status = read_entry(file, index, bytes, (size_t)size);
    if (status == LAM_OK) status = lam_pickle_read(&file->arena, bytes, (size_t)size, file->path, &root);
    lam_free(bytes);
    LAM_TRY(status);
    LAM_REQUIRE(root->kind == LAM_PICKLE_DICT, LAM_ERROR_FORMAT,
                "%s: holds no dict of tensors; in PyTorch save the state_dict alone", file->path);
    walker w = {.file = file};
    LAM_TRY(walk(&w, unwrap(root), 0, 0));
    if (file->count) qsort(file->entries, (size_t)file->count, sizeof *file->entries, by_name);
    for (int64_t i = 1; i < file->count; i++)
        LAM_REQUIRE(strcmp(file->entries[i - 1].name, file->entries[i].name) != 0, LAM_ERROR_FORMAT,
                    "%s: holds the tensor '%s' twice", file->path, file->entries[i].name);
    return LAM_OK;
}

lam_status lam_torch_open(lam_torch_file **out, const char *path) {
    *out = NULL;
    lam_status status = LAM_OK;
    lam_torch_file *file = NULL;
    LAM_TRY(lam_alloc((void **)&file, sizeof *file));
    LAM_TRY_GOTO(lam_text_copy(&file->path, path), fail);
    LAM_TRY_GOTO(open_zip(file), fail);
    LAM_TRY_GOTO(find_folder(file), fail);
    LAM_TRY_GOTO(check_byteorder(file), fail);
    LAM_TRY_GOTO(read_description(file), fail);
    *out = file;
    return LAM_OK;
fail:
    lam_torch_close(file);
    return status;
}

void lam_torch_close(lam_torch_file *file) {
    if (!file) return;
    if (file->zip) zip_discard(file->zip);
    lam_arena_free(&file->arena);
    lam_free(file->entries);
    lam_free(file->folder);
    lam_free(file->path);
    lam_free(file);
}

int64_t lam_torch_count(const lam_torch_file *file) { return file->count; }
const lam_torch_entry *lam_torch_at(const lam_torch_file *file, int64_t index) {
    return &file->entries[index];
}
const lam_torch_entry *lam_torch_find(const lam_torch_file *file, const char *name) {
    lam_torch_entry wanted = {.name = name};
    if (!file->count) return NULL;
    return bsearch(&wanted, file->entries, (size_t)file->count, sizeof *file->entries, by_name);
}

/* ---- elements ---- */

static bool is_contiguous(const lam_pickle_tensor *t) {
    int64_t stride = 1;
    for (int i = t->rank - 1; i >= 0; i--) {
        if (t->shape[i] != 1 && t->stride[i] != stride) return false;
        stride *= t->shape[i];
    }
    return true;
}

/* `count` elements of the storage, from `offset` on. */
static lam_status read_span(const lam_torch_file *file, const lam_torch_entry *entry, int64_t offset,
                            int64_t count, float *values) {
    const char *dtype = entry->tensor->dtype;
    size_t bytes = lam_element_bytes(dtype, NULL);
    int64_t chunk = CHUNK_BYTES / (int64_t)bytes;
    void *raw = NULL;
    stream s;
    LAM_TRY(lam_alloc(&raw, CHUNK_BYTES));
    lam_status status = stream_open(&s, file, entry->storage, (uint64_t)offset * bytes);
    for (int64_t at = 0; at < count && status == LAM_OK; at += chunk) {
        int64_t n = count - at < chunk ? count - at : chunk;
        status = stream_read(&s, raw, (size_t)n * bytes);
        if (status == LAM_OK) lam_elements_to_f32(dtype, raw, n, values + at);
    }
    if (status == LAM_OK && count == entry->tensor->storage_count) status = stream_check(&s);
    stream_close(&s);
    lam_free(raw);
    return status;
}

lam_status lam_torch_read_f32(lam_torch_file *file, const lam_torch_entry *entry, float *values) {
    const lam_pickle_tensor *t = entry->tensor;
    if (entry->count == 0) return LAM_OK;
    if (is_contiguous(t)) return read_span(file, entry, t->offset, entry->count, values);
    float *storage = NULL;
    LAM_TRY(lam_alloc_array((void **)&storage, t->storage_count, sizeof *storage));
    lam_status status = read_span(file, entry, 0, t->storage_count, storage);
    for (int64_t i = 0; i < entry->count && status == LAM_OK; i++) {
        int64_t rest = i, at = t->offset;
        for (int d = t->rank - 1; d >= 0; d--) {
            at += rest % t->shape[d] * t->stride[d];
            rest /= t->shape[d];
        }
        values[i] = storage[at];
    }
    lam_free(storage);
    return status;
}
