#include "base/safetensors.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/elements.h"
#include "base/files.h"
#include "base/memory.h"
#include "base/utf8.h"

#define MAX_HEADER_BYTES ((uint64_t)100 << 20)
#define CHUNK_ELEMENTS 65536

/* ---- reading ---- */

struct lam_safetensors {
    lam_reader *reader;
    lam_json *header;
    char *path;
    uint64_t data_begin, data_bytes;
    lam_safetensors_entry *entries; /* in the order of their data */
    int64_t count;
};

static int by_begin(const void *a, const void *b) {
    const lam_safetensors_entry *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    return (x->end > y->end) -
           (x->end < y->end); /* an empty tensor stands before the one that begins with it */
}

static lam_status read_entry(lam_safetensors *file, const char *name, const lam_json *json,
                             lam_safetensors_entry *entry) {
    const char *path = file->path;
    LAM_REQUIRE(lam_json_is_object(json), LAM_ERROR_FORMAT, "%s: tensor '%s' is no object", path, name);
    const char *dtype = lam_json_text(lam_json_get(json, "dtype"), "");
    size_t bytes = lam_element_bytes(dtype, &entry->dtype);
    LAM_REQUIRE(bytes, LAM_ERROR_FORMAT, "%s: tensor '%s' has type '%s', which is not read here", path, name,
                dtype);
    const lam_json *shape = lam_json_get(json, "shape"), *offsets = lam_json_get(json, "data_offsets");
    LAM_REQUIRE(lam_json_is_array(shape) && lam_json_size(shape) <= LAM_SAFETENSORS_MAX_RANK,
                LAM_ERROR_FORMAT, "%s: tensor '%s' has no shape of at most %d dimensions", path, name,
                LAM_SAFETENSORS_MAX_RANK);
    LAM_REQUIRE(lam_json_is_array(offsets) && lam_json_size(offsets) == 2, LAM_ERROR_FORMAT,
                "%s: tensor '%s' has no data_offsets", path, name);
    entry->name = name;
    entry->rank = (int)lam_json_size(shape);
    entry->count = 1;
    for (int i = 0; i < entry->rank; i++) {
        entry->shape[i] = lam_json_int(lam_json_at(shape, (size_t)i), -1);
        LAM_REQUIRE(entry->shape[i] >= 0 &&
                        !__builtin_mul_overflow(entry->count, entry->shape[i], &entry->count),
                    LAM_ERROR_FORMAT, "%s: tensor '%s' has an impossible shape", path, name);
    }
    int64_t begin = lam_json_int(lam_json_at(offsets, 0), -1),
            end = lam_json_int(lam_json_at(offsets, 1), -1), expected;
    LAM_REQUIRE(begin >= 0 && end >= begin && (uint64_t)end <= file->data_bytes, LAM_ERROR_FORMAT,
                "%s: tensor '%s' lies outside the file: it is cut off or damaged", path, name);
    LAM_REQUIRE(!__builtin_mul_overflow(entry->count, (int64_t)bytes, &expected) && expected == end - begin,
                LAM_ERROR_FORMAT, "%s: tensor '%s' has %" PRId64 " bytes, its shape needs another number",
                path, name, end - begin);
    entry->begin = (uint64_t)begin;
    entry->end = (uint64_t)end;
    return LAM_OK;
}

static lam_status read_header(lam_safetensors *file) {
    uint64_t size = lam_reader_size(file->reader), length = 0;
    unsigned char raw[8];
    LAM_REQUIRE(size >= 8, LAM_ERROR_FORMAT, "%s: is no safetensors file: it has %" PRIu64 " bytes",
                file->path, size);
    LAM_TRY(lam_reader_at(file->reader, 0, raw, 8));
    for (int i = 7; i >= 0; i--) length = length << 8 | raw[i];
    LAM_REQUIRE(length <= MAX_HEADER_BYTES && length <= size - 8, LAM_ERROR_FORMAT,
                "%s: is no safetensors file, or it is cut off: its header should have %" PRIu64 " bytes",
                file->path, length);
    char *text;
    LAM_TRY(lam_alloc((void **)&text, (size_t)length + 1));
    lam_status status = lam_reader_at(file->reader, 8, text, (size_t)length);
    if (status == LAM_OK) status = lam_json_parse(&file->header, text, (size_t)length, file->path);
    lam_free(text);
    LAM_TRY(status);
    LAM_REQUIRE(lam_json_is_object(file->header), LAM_ERROR_FORMAT, "%s: the header is no JSON object",
                file->path);
    file->data_begin = 8 + length;
    file->data_bytes = size - file->data_begin;
    return LAM_OK;
}

static lam_status read_entries(lam_safetensors *file) {
    int64_t total = (int64_t)lam_json_size(file->header);
    LAM_TRY(lam_alloc_array((void **)&file->entries, total, sizeof *file->entries));
    for (const char *name = NULL; (name = lam_json_key_after(file->header, name));) {
        if (!strcmp(name, "__metadata__")) continue;
        LAM_TRY(read_entry(file, name, lam_json_get(file->header, name), &file->entries[file->count]));
        file->count++;
    }
    if (file->count) qsort(file->entries, (size_t)file->count, sizeof *file->entries, by_begin);
    uint64_t at = 0;
    for (int64_t i = 0; i < file->count; i++) {
        LAM_REQUIRE(file->entries[i].begin == at, LAM_ERROR_FORMAT,
                    "%s: tensor '%s' overlaps another or leaves a gap", file->path, file->entries[i].name);
        at = file->entries[i].end;
    }
    LAM_REQUIRE(at == file->data_bytes, LAM_ERROR_FORMAT,
                "%s: %" PRIu64 " bytes after the last tensor belong to none", file->path,
                file->data_bytes - at);
    return LAM_OK;
}

lam_status lam_safetensors_open(lam_safetensors **out, const char *path) {
    *out = NULL;
    lam_status status = LAM_OK;
    lam_safetensors *file = NULL;
    LAM_TRY(lam_alloc((void **)&file, sizeof *file));
    LAM_TRY_GOTO(lam_text_copy(&file->path, path), fail);
    LAM_TRY_GOTO(lam_reader_open(&file->reader, path), fail);
    LAM_TRY_GOTO(read_header(file), fail);
    LAM_TRY_GOTO(read_entries(file), fail);
    *out = file;
    return LAM_OK;
fail:
    lam_safetensors_close(file);
    return status;
}

void lam_safetensors_close(lam_safetensors *file) {
    if (!file) return;
    lam_reader_close(&file->reader);
    if (file->header) lam_json_free(file->header);
    lam_free(file->entries);
    lam_free(file->path);
    lam_free(file);
}

int64_t lam_safetensors_count(const lam_safetensors *file) { return file->count; }
const lam_safetensors_entry *lam_safetensors_at(const lam_safetensors *file, int64_t index) {
    return &file->entries[index];
}
const lam_safetensors_entry *lam_safetensors_find(const lam_safetensors *file, const char *name) {
    for (int64_t i = 0; i < file->count; i++)
        if (!strcmp(file->entries[i].name, name)) return &file->entries[i];
    return NULL;
}
const char *lam_safetensors_metadata(const lam_safetensors *file, const char *key) {
    return lam_json_text(lam_json_get(lam_json_get(file->header, "__metadata__"), key), NULL);
}

lam_status lam_safetensors_read_raw(lam_safetensors *file, const lam_safetensors_entry *entry, void *bytes) {
    return lam_reader_at(file->reader, file->data_begin + entry->begin, bytes,
                         (size_t)(entry->end - entry->begin));
}

static lam_status read_converted(lam_safetensors *file, const lam_safetensors_entry *entry, float *as_float,
                                 double *as_double) {
    size_t bytes = lam_element_bytes(entry->dtype, NULL);
    if (as_float && !strcmp(entry->dtype, "F32")) return lam_safetensors_read_raw(file, entry, as_float);
    if (as_double && !strcmp(entry->dtype, "F64")) return lam_safetensors_read_raw(file, entry, as_double);
    unsigned char *chunk;
    LAM_TRY(lam_alloc((void **)&chunk, CHUNK_ELEMENTS * bytes));
    lam_status status = LAM_OK;
    for (int64_t at = 0; at < entry->count; at += CHUNK_ELEMENTS) {
        int64_t n = entry->count - at < CHUNK_ELEMENTS ? entry->count - at : CHUNK_ELEMENTS;
        status = lam_reader_at(file->reader, file->data_begin + entry->begin + (uint64_t)at * bytes, chunk,
                               (size_t)n * bytes);
        if (status != LAM_OK) break;
        if (as_float)
            lam_elements_to_f32(entry->dtype, chunk, n, as_float + at);
        else
            lam_elements_to_f64(entry->dtype, chunk, n, as_double + at);
    }
    lam_free(chunk);
    return status;
}

lam_status lam_safetensors_read_f32(lam_safetensors *file, const lam_safetensors_entry *entry,
                                    float *values) {
    return read_converted(file, entry, values, NULL);
}
lam_status lam_safetensors_read_f64(lam_safetensors *file, const lam_safetensors_entry *entry,
                                    double *values) {
    return read_converted(file, entry, NULL, values);
}

/* ---- writing ---- */

struct lam_safetensors_writer {
    lam_writer *file;
    char *path;
    lam_json *header, *metadata;
    uint64_t declared, given;
    bool header_is_out;
};

lam_status lam_safetensors_writer_open(lam_safetensors_writer **out, const char *path) {
    *out = NULL;
    lam_status status = LAM_OK;
    lam_safetensors_writer *writer = NULL;
    LAM_TRY(lam_alloc((void **)&writer, sizeof *writer));
    LAM_TRY_GOTO(lam_text_copy(&writer->path, path), fail);
    writer->header = lam_json_object();
    writer->metadata = lam_json_object();
    LAM_REQUIRE_GOTO(writer->header && writer->metadata, fail, LAM_ERROR_MEMORY,
                     "out of memory: %s could not be written", path);
    LAM_TRY_GOTO(lam_writer_open(&writer->file, path), fail);
    *out = writer;
    return LAM_OK;
fail:
    lam_safetensors_writer_abort(&writer);
    return status;
}

lam_status lam_safetensors_writer_metadata(lam_safetensors_writer *writer, const char *key,
                                           const char *value) {
    LAM_REQUIRE(!writer->header_is_out, LAM_ERROR_INTERNAL, "%s: metadata after the first data",
                writer->path);
    lam_json_set_text(writer->metadata, key, value);
    return LAM_OK;
}

lam_status lam_safetensors_writer_declare(lam_safetensors_writer *writer, const char *name, const char *dtype,
                                          int rank, const int64_t *shape) {
    size_t bytes = lam_element_bytes(dtype, NULL);
    LAM_REQUIRE(!writer->header_is_out && bytes && rank >= 0 && rank <= LAM_SAFETENSORS_MAX_RANK &&
                    lam_utf8_is_valid(name) && strcmp(name, "__metadata__") != 0 &&
                    !lam_json_get(writer->header, name),
                LAM_ERROR_INTERNAL, "%s: tensor '%s' cannot be declared", writer->path, name);
    int64_t size = (int64_t)bytes, end = (int64_t)writer->declared;
    bool fits = true;
    for (int i = 0; i < rank; i++)
        fits = fits && shape[i] >= 0 && !__builtin_mul_overflow(size, shape[i], &size);
    LAM_REQUIRE(fits && !__builtin_add_overflow(end, size, &end), LAM_ERROR_INTERNAL,
                "%s: tensor '%s' has an impossible shape", writer->path, name);
    lam_json *entry = lam_json_object(), *dimensions = lam_json_array(), *offsets = lam_json_array();
    for (int i = 0; i < rank; i++) lam_json_append_int(dimensions, shape[i]);
    lam_json_append_int(offsets, (int64_t)writer->declared);
    writer->declared = (uint64_t)end;
    lam_json_append_int(offsets, end);
    lam_json_set_text(entry, "dtype", dtype);
    lam_json_set(entry, "shape", dimensions);
    lam_json_set(entry, "data_offsets", offsets);
    lam_json_set(writer->header, name, entry);
    return LAM_OK;
}

static lam_status put_header(lam_safetensors_writer *writer) {
    if (writer->header_is_out) return LAM_OK;
    if (lam_json_size(writer->metadata)) {
        lam_json_set(writer->header, "__metadata__", writer->metadata);
        writer->metadata = NULL;
    }
    char *text;
    LAM_TRY(lam_json_dump(writer->header, false, &text));
    uint64_t length = strlen(text), padded = (length + 7) & ~(uint64_t)7;
    unsigned char raw[8];
    for (int i = 0; i < 8; i++) raw[i] = (unsigned char)(padded >> 8 * i);
    lam_status status = lam_writer_append(writer->file, raw, 8);
    if (status == LAM_OK) status = lam_writer_append(writer->file, text, length);
    if (status == LAM_OK) status = lam_writer_append(writer->file, "        ", padded - length);
    lam_free(text);
    writer->header_is_out = status == LAM_OK;
    return status;
}

lam_status lam_safetensors_writer_data(lam_safetensors_writer *writer, const void *bytes, size_t size) {
    LAM_TRY(put_header(writer));
    LAM_REQUIRE(size <= writer->declared - writer->given, LAM_ERROR_INTERNAL, "%s: more data than declared",
                writer->path);
    writer->given += size;
    return lam_writer_append(writer->file, bytes, size);
}

lam_status lam_safetensors_writer_commit(lam_safetensors_writer **out) {
    lam_safetensors_writer *writer = *out;
    lam_status status = put_header(writer);
    if (status == LAM_OK && writer->given != writer->declared)
        status =
            lam_fail(LAM_ERROR_INTERNAL, __FILE__, __LINE__, "%s: less data than declared", writer->path);
    if (status == LAM_OK) status = lam_writer_commit(&writer->file);
    lam_safetensors_writer_abort(out);
    return status;
}

void lam_safetensors_writer_abort(lam_safetensors_writer **out) {
    lam_safetensors_writer *writer = *out;
    if (!writer) return;
    lam_writer_abort(&writer->file);
    if (writer->header) lam_json_free(writer->header);
    if (writer->metadata) lam_json_free(writer->metadata);
    lam_free(writer->path);
    lam_free(writer);
    *out = NULL;
}
