#include <stdlib.h>
#include <string.h>
#include <zip.h>

#include "base/files.h"
#include "base/torch_file.h"

/* ---- the pickle: protocol 2, as torch.save's with the memo left out ---- */

typedef struct text {
    unsigned char *bytes;
    size_t size, room;
    lam_status status;
} text;

static void put(text *t, const void *bytes, size_t size) {
    if (t->status != LAM_OK) return;
    if (t->room - t->size < size) {
        size_t room = 2 * t->room + size + 4096;
        t->status = lam_grow((void **)&t->bytes, t->room, room);
        if (t->status != LAM_OK) return;
        t->room = room;
    }
    memcpy(t->bytes + t->size, bytes, size);
    t->size += size;
}

static void put_number(text *t, char opcode, int64_t number, int bytes) {
    unsigned char raw[10];
    int at = 0;
    raw[at++] = (unsigned char)opcode;
    if (opcode == '\x8a') raw[at++] = (unsigned char)bytes;
    for (int i = 0; i < bytes; i++) raw[at++] = (unsigned char)((uint64_t)number >> 8 * i);
    put(t, raw, (size_t)at);
}

static void put_integer(text *t, int64_t number) {
    if (number < 256)
        put_number(t, 'K', number, 1);
    else if (number <= INT32_MAX)
        put_number(t, 'J', number, 4);
    else
        put_number(t, '\x8a', number, 8);
}

static void put_text(text *t, const char *value) {
    put_number(t, 'X', (int64_t)strlen(value), 4);
    put(t, value, strlen(value));
}

static void put_words(text *t, const char *words) { put(t, words, strlen(words)); }

static int64_t elements(const lam_torch_tensor *tensor) {
    int64_t count = 1;
    for (int i = 0; i < tensor->rank; i++) count *= tensor->shape[i];
    return count;
}

/* _rebuild_tensor_v2(storage, 0, shape, stride, False, OrderedDict()) */
static void put_tensor(text *t, const lam_torch_tensor *tensor, int64_t index) {
    char key[24];
    snprintf(key, sizeof key, "%lld", (long long)index);
    put_words(t, "ctorch._utils\n_rebuild_tensor_v2\n((");
    put_text(t, "storage");
    put_words(t, "ctorch\nFloatStorage\n");
    put_text(t, key);
    put_text(t, "cpu");
    put_integer(t, elements(tensor));
    put_words(t, "tQ");
    put_integer(t, 0);
    put_words(t, "(");
    for (int i = 0; i < tensor->rank; i++) put_integer(t, tensor->shape[i]);
    put_words(t, "t(");
    for (int i = 0; i < tensor->rank; i++) {
        int64_t stride = 1;
        for (int k = i + 1; k < tensor->rank; k++) stride *= tensor->shape[k] > 1 ? tensor->shape[k] : 1;
        put_integer(t, stride);
    }
    put_words(t, "t\x89"
                 "ccollections\nOrderedDict\n)RtR");
}

static lam_status describe(text *t, const lam_torch_tensor *tensors, int64_t count, bool wrapped) {
    put_words(t, "\x80\x02}");
    if (wrapped) {
        put_text(t, "state_dict");
        put_words(t, "}");
    }
    for (int64_t i = 0; i < count; i++) {
        put_text(t, tensors[i].name);
        put_tensor(t, &tensors[i], i);
        put_words(t, "s");
    }
    put_words(t, wrapped ? "s." : ".");
    return t->status;
}

/* ---- the zip, through lam_writer: beside, synced, renamed ---- */

typedef struct target {
    lam_writer *writer;
    uint64_t at;
    lam_status status; /* of the first write that failed; its message is the thread's */
    zip_error_t error;
} target;

static zip_int64_t put_bytes(target *t, const void *bytes, uint64_t size) {
    uint64_t end = lam_writer_position(t->writer), patched = t->at < end ? end - t->at : 0;
    if (patched > size) patched = size;
    if (patched && t->status == LAM_OK)
        t->status = lam_writer_patch(t->writer, t->at, bytes, (size_t)patched);
    if (t->status == LAM_OK)
        t->status = lam_writer_append(t->writer, (const char *)bytes + patched, (size_t)(size - patched));
    if (t->status != LAM_OK) {
        zip_error_set(&t->error, ZIP_ER_WRITE, 0);
        return -1;
    }
    t->at += size;
    return (zip_int64_t)size;
}

/* An empty archive that only grows: libzip writes an entry and goes back for its checksum. */
static zip_int64_t serve(void *state, void *data, zip_uint64_t size, zip_source_cmd_t command) {
    target *t = state;
    switch (command) {
    case ZIP_SOURCE_SUPPORTS:
        return zip_source_make_command_bitmap(
            ZIP_SOURCE_OPEN, ZIP_SOURCE_READ, ZIP_SOURCE_CLOSE, ZIP_SOURCE_STAT, ZIP_SOURCE_ERROR,
            ZIP_SOURCE_FREE, ZIP_SOURCE_SEEK, ZIP_SOURCE_TELL, ZIP_SOURCE_BEGIN_WRITE,
            ZIP_SOURCE_COMMIT_WRITE, ZIP_SOURCE_ROLLBACK_WRITE, ZIP_SOURCE_WRITE, ZIP_SOURCE_SEEK_WRITE,
            ZIP_SOURCE_TELL_WRITE, ZIP_SOURCE_REMOVE, -1);
    case ZIP_SOURCE_STAT: {
        zip_stat_t *stat = data;
        zip_stat_init(stat);
        stat->size = 0;
        stat->valid = ZIP_STAT_SIZE;
        return sizeof *stat;
    }
    case ZIP_SOURCE_ERROR: return zip_error_to_data(&t->error, data, size);
    case ZIP_SOURCE_WRITE: return put_bytes(t, data, size);
    case ZIP_SOURCE_TELL_WRITE: return (zip_int64_t)t->at;
    case ZIP_SOURCE_SEEK_WRITE: {
        zip_int64_t at =
            zip_source_seek_compute_offset(t->at, lam_writer_position(t->writer), data, size, &t->error);
        if (at < 0) return -1;
        t->at = (uint64_t)at;
        return 0;
    }
    default: return 0; /* open, close, commit...: lam_torch_write does it; read: nothing is there */
    }
}

static lam_status add(zip_t *zip, const char *path, const char *name, const void *bytes, uint64_t size) {
    zip_source_t *source = zip_source_buffer(zip, bytes, size, 0);
    int64_t index = source ? zip_file_add(zip, name, source, ZIP_FL_ENC_UTF_8) : -1;
    if (source && index < 0) zip_source_free(source);
    /* The date of DOS's first day: the same weights are the same bytes. */
    bool good = index >= 0 && zip_set_file_compression(zip, (zip_uint64_t)index, ZIP_CM_STORE, 0) == 0 &&
                zip_file_set_dostime(zip, (zip_uint64_t)index, 0, 0x21, 0) == 0;
    LAM_REQUIRE(good, LAM_ERROR_MEMORY, "%s: %s cannot be added (%s)", path, name, zip_strerror(zip));
    return LAM_OK;
}

static lam_status add_all(zip_t *zip, const char *path, const text *pickle, const lam_torch_tensor *tensors,
                          int64_t count) {
    char name[48];
    LAM_TRY(add(zip, path, "archive/data.pkl", pickle->bytes, pickle->size));
    LAM_TRY(add(zip, path, "archive/byteorder", "little", 6));
    for (int64_t i = 0; i < count; i++) {
        snprintf(name, sizeof name, "archive/data/%lld", (long long)i);
        LAM_TRY(add(zip, path, name, tensors[i].values, (uint64_t)elements(&tensors[i]) * sizeof(float)));
    }
    return add(zip, path, "archive/version", "3\n", 2);
}

static lam_status write_zip(target *t, const char *path, const text *pickle, const lam_torch_tensor *tensors,
                            int64_t count) {
    zip_error_t error;
    zip_error_init(&error);
    zip_source_t *source = zip_source_function_create(serve, t, &error);
    zip_t *zip = source ? zip_open_from_source(source, ZIP_TRUNCATE, &error) : NULL;
    if (!zip && source) zip_source_free(source);
    zip_error_fini(&error);
    LAM_REQUIRE(zip, LAM_ERROR_MEMORY, "%s: no zip could be begun", path);
    lam_status status = add_all(zip, path, pickle, tensors, count);
    if (status == LAM_OK && zip_close(zip) == 0) return LAM_OK;
    if (status == LAM_OK)
        status = t->status != LAM_OK ? t->status
                                     : lam_fail(LAM_ERROR_IO, __FILE__, __LINE__,
                                                "%s: cannot be written (%s)", path, zip_strerror(zip));
    zip_discard(zip);
    return status;
}

lam_status lam_torch_write(const char *path, const lam_torch_tensor *tensors, int64_t count, bool wrapped) {
    text pickle = {0};
    target t = {0};
    zip_error_init(&t.error);
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(describe(&pickle, tensors, count, wrapped), done);
    LAM_TRY_GOTO(lam_writer_open(&t.writer, path), done);
    LAM_TRY_GOTO(write_zip(&t, path, &pickle, tensors, count), done);
    LAM_TRY_GOTO(lam_writer_commit(&t.writer), done);
done:
    lam_writer_abort(&t.writer);
    zip_error_fini(&t.error);
    lam_free(pickle.bytes);
    return status;
}
