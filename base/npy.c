#include "base/npy.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/files.h"
#include "base/memory.h"
#include "base/unpack.h"

/* The format (numpy.lib.format): "\x93NUMPY", version major and minor, length of the header (2 bytes in
 * version 1, else 4, little-endian), the header (a Python dict of descr, fortran_order and shape), then the
 * elements. */
enum { MAGIC_BYTES = 6, PREFIX_BYTES = 12, HEADER_LIMIT = 1 << 20, RANK_LIMIT = 8 };

static const struct {
    char name[3];
    size_t bytes;
} types[] = {{"u1", 1}, {"u2", 2}, {"i4", 4}, {"i8", 8}, {"f4", 4}, {"f8", 8}};

static bool find_type(const char *name, size_t *bytes) {
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        if (strcmp(types[i].name, name) == 0) {
            *bytes = types[i].bytes;
            return true;
        }
    }
    return false;
}

typedef struct cursor {
    const char *at, *end;
    const char *name; /* of the file */
} cursor;

static void skip_space(cursor *c) {
    while (c->at < c->end && (*c->at == ' ' || *c->at == '\t' || *c->at == '\n' || *c->at == '\r')) c->at++;
}

static bool take(cursor *c, char wanted) {
    skip_space(c);
    if (c->at >= c->end || *c->at != wanted) return false;
    c->at++;
    return true;
}

static bool take_word(cursor *c, const char *word) {
    skip_space(c);
    size_t length = strlen(word);
    if ((size_t)(c->end - c->at) < length || memcmp(c->at, word, length) != 0) return false;
    c->at += length;
    return true;
}

/* A Python string in either quote, without escapes. */
static bool take_string(cursor *c, char *out, size_t room) {
    skip_space(c);
    if (c->at >= c->end || (*c->at != '\'' && *c->at != '"')) return false;
    char quote = *c->at++;
    size_t used = 0;
    while (c->at < c->end && *c->at != quote) {
        if (*c->at == '\\' || *c->at == '\0' || *c->at == '\n' || used + 1 >= room) return false;
        out[used++] = *c->at++;
    }
    out[used] = '\0';
    return take(c, quote);
}

static lam_status read_descr(cursor *c, lam_npy *out) {
    char descr[32];
    LAM_REQUIRE(take_string(c, descr, sizeof descr), LAM_ERROR_FORMAT,
                "%s: not a plain array (its type is a record); save one numeric array", c->name);
    LAM_REQUIRE(descr[0] != '>', LAM_ERROR_FORMAT,
                "%s: big-endian type '%s'; save it with array.astype('<%s')", c->name, descr, descr + 1);
    LAM_REQUIRE(strlen(descr) == 3 && (descr[0] == '<' || descr[0] == '|') &&
                    find_type(descr + 1, &out->item_bytes) && (descr[0] == '<' || out->item_bytes == 1),
                LAM_ERROR_FORMAT,
                "%s: type '%s'; u1, u2, i4, i8, f4 and f8 can be read, so save it with array.astype", c->name,
                descr);
    memcpy(out->type, descr + 1, sizeof out->type);
    return LAM_OK;
}

static lam_status read_order(cursor *c) {
    LAM_REQUIRE(!take_word(c, "True"), LAM_ERROR_FORMAT,
                "%s: Fortran order; save it with numpy.ascontiguousarray(array)", c->name);
    LAM_REQUIRE(take_word(c, "False"), LAM_ERROR_FORMAT, "%s: damaged header: fortran_order is True or False",
                c->name);
    return LAM_OK;
}

static lam_status read_shape(cursor *c, lam_npy *out) {
    LAM_REQUIRE(take(c, '('), LAM_ERROR_FORMAT, "%s: damaged header: shape is no tuple", c->name);
    out->rank = 0;
    out->count = 1;
    bool comma = true;
    while (!take(c, ')')) {
        LAM_REQUIRE(comma, LAM_ERROR_FORMAT, "%s: damaged header: shape lacks a comma", c->name);
        LAM_REQUIRE(out->rank < RANK_LIMIT, LAM_ERROR_FORMAT, "%s: more than %d dimensions", c->name,
                    RANK_LIMIT);
        skip_space(c);
        int64_t size = 0;
        const char *first = c->at;
        for (; c->at < c->end && *c->at >= '0' && *c->at <= '9'; c->at++) {
            LAM_REQUIRE(!__builtin_mul_overflow(size, (int64_t)10, &size) &&
                            !__builtin_add_overflow(size, (int64_t)(*c->at - '0'), &size),
                        LAM_ERROR_FORMAT, "%s: damaged header: a dimension is too large", c->name);
        }
        LAM_REQUIRE(c->at > first, LAM_ERROR_FORMAT, "%s: damaged header: a dimension is no number", c->name);
        out->shape[out->rank++] = size;
        LAM_REQUIRE(!__builtin_mul_overflow(out->count, size, &out->count), LAM_ERROR_FORMAT,
                    "%s: damaged header: the shape is too large", c->name);
        comma = take(c, ',');
    }
    /* (3) is a number in Python, not a tuple. */
    LAM_REQUIRE(out->rank != 1 || comma, LAM_ERROR_FORMAT, "%s: damaged header: shape is no tuple", c->name);
    return LAM_OK;
}

static lam_status read_dict(cursor *c, lam_npy *out) {
    bool seen[3] = {false, false, false}, comma = true;
    LAM_REQUIRE(take(c, '{'), LAM_ERROR_FORMAT, "%s: damaged header: no dict", c->name);
    while (!take(c, '}')) {
        char key[32];
        LAM_REQUIRE(comma && take_string(c, key, sizeof key) && take(c, ':'), LAM_ERROR_FORMAT,
                    "%s: damaged header: a key is expected", c->name);
        int which = strcmp(key, "descr") == 0           ? 0
                    : strcmp(key, "fortran_order") == 0 ? 1
                    : strcmp(key, "shape") == 0         ? 2
                                                        : 3;
        LAM_REQUIRE(which < 3 && !seen[which], LAM_ERROR_FORMAT, "%s: damaged header: unexpected key '%s'",
                    c->name, key);
        seen[which] = true;
        LAM_TRY(which == 0 ? read_descr(c, out) : which == 1 ? read_order(c) : read_shape(c, out));
        comma = take(c, ',');
    }
    LAM_REQUIRE(seen[0] && seen[1] && seen[2], LAM_ERROR_FORMAT,
                "%s: damaged header: descr, fortran_order or shape "
                "is missing",
                c->name);
    skip_space(c);
    LAM_REQUIRE(c->at == c->end, LAM_ERROR_FORMAT, "%s: damaged header: text after the dict", c->name);
    return LAM_OK;
}

/* From the first bytes of a file: where the header begins and how long it is. */
static lam_status read_prefix(const unsigned char *bytes, size_t size, const char *name, size_t *start,
                              size_t *length) {
    LAM_REQUIRE(size >= MAGIC_BYTES + 4 && memcmp(bytes, "\x93NUMPY", MAGIC_BYTES) == 0, LAM_ERROR_FORMAT,
                "%s: not a NumPy array file (.npy)", name);
    int version = bytes[MAGIC_BYTES];
    LAM_REQUIRE(version >= 1 && version <= 3, LAM_ERROR_FORMAT,
                "%s: .npy version %d; versions 1 to 3 can be read", name, version);
    *start = version == 1 ? 10 : 12;
    LAM_REQUIRE(size >= *start, LAM_ERROR_FORMAT, "%s: cut short in the header", name);
    *length = (size_t)bytes[8] | (size_t)bytes[9] << 8;
    if (version > 1) *length |= (size_t)bytes[10] << 16 | (size_t)bytes[11] << 24;
    LAM_REQUIRE(*length <= HEADER_LIMIT, LAM_ERROR_FORMAT, "%s: damaged header: its length is %zu bytes",
                name, *length);
    return LAM_OK;
}

/* Fills all but the data; `rest` is what follows the header in the file. */
static lam_status read_header(lam_npy *out, const char *header, size_t length, uint64_t rest,
                              const char *name) {
    cursor c = {header, header + length, name};
    LAM_TRY(read_dict(&c, out));
    int64_t bytes = 0;
    LAM_REQUIRE(!__builtin_mul_overflow(out->count, (int64_t)out->item_bytes, &bytes), LAM_ERROR_FORMAT,
                "%s: damaged header: the shape is too large", name);
    LAM_REQUIRE((uint64_t)bytes == rest, LAM_ERROR_FORMAT,
                "%s: %llu bytes of data, but the shape says %lld; the file is cut short or damaged", name,
                (unsigned long long)rest, (long long)bytes);
    return LAM_OK;
}

static lam_status parse_plain(lam_npy *out, const char *bytes, size_t size, const char *name) {
    size_t start = 0, length = 0;
    LAM_TRY(read_prefix((const unsigned char *)bytes, size, name, &start, &length));
    LAM_REQUIRE(size - start >= length, LAM_ERROR_FORMAT, "%s: cut short in the header", name);
    size_t rest = size - start - length;
    LAM_TRY(read_header(out, bytes + start, length, rest, name));
    LAM_TRY(lam_alloc(&out->data, rest));
    if (rest > 0) memcpy(out->data, bytes + start + length, rest);
    return LAM_OK;
}

static bool is_packed(const unsigned char *bytes, size_t size) {
    return size >= 4 && ((bytes[0] == 0x1f && bytes[1] == 0x8b) ||
                         (bytes[0] == 0x28 && bytes[1] == 0xb5 && bytes[2] == 0x2f && bytes[3] == 0xfd));
}

static lam_status parse_any(lam_npy *out, const char *bytes, size_t size, const char *name) {
    if (!is_packed((const unsigned char *)bytes, size)) return parse_plain(out, bytes, size, name);
    char *plain = NULL;
    size_t plain_size = 0;
    LAM_TRY(lam_unpack_copy(&plain, &plain_size, bytes, size, name));
    lam_status status = parse_plain(out, plain, plain_size, name);
    lam_free(plain);
    return status;
}

lam_status lam_npy_parse(lam_npy *out, const char *bytes, size_t size, const char *name) {
    *out = (lam_npy){0};
    lam_status status = parse_any(out, bytes, size, name);
    if (status != LAM_OK) lam_npy_free(out);
    return status;
}

/* A plain file goes straight into its block, so that an array needs its own size of memory and no more. */
static lam_status read_plain(lam_npy *out, lam_reader *reader, const unsigned char *prefix,
                             size_t prefix_size, const char *path) {
    size_t start = 0, length = 0;
    char *header = NULL;
    uint64_t size = lam_reader_size(reader);
    lam_status status = LAM_OK;
    LAM_TRY(read_prefix(prefix, prefix_size, path, &start, &length));
    LAM_REQUIRE(size - start >= length, LAM_ERROR_FORMAT, "%s: cut short in the header", path);
    LAM_TRY(lam_alloc((void **)&header, length));
    LAM_TRY_GOTO(lam_reader_at(reader, start, header, length), done);
    LAM_TRY_GOTO(read_header(out, header, length, size - start - length, path), done);
    size_t bytes = (size_t)(size - start - length);
    LAM_TRY_GOTO(lam_alloc(&out->data, bytes), done);
    if (bytes > 0) LAM_TRY_GOTO(lam_reader_at(reader, start + length, out->data, bytes), done);
done:
    lam_free(header);
    return status;
}

lam_status lam_npy_read(lam_npy *out, const char *path) {
    lam_reader *reader = NULL;
    unsigned char prefix[PREFIX_BYTES] = {0};
    char *bytes = NULL;
    size_t size = 0;
    lam_status status = LAM_OK;
    *out = (lam_npy){0};
    LAM_TRY(lam_reader_open(&reader, path));
    uint64_t whole = lam_reader_size(reader);
    size_t first = whole < PREFIX_BYTES ? (size_t)whole : PREFIX_BYTES;
    if (first > 0) LAM_TRY_GOTO(lam_reader_at(reader, 0, prefix, first), done);
    if (is_packed(prefix, first)) {
        LAM_TRY_GOTO(lam_file_read(path, &bytes, &size), done);
        LAM_TRY_GOTO(parse_any(out, bytes, size, path), done);
    } else {
        LAM_TRY_GOTO(read_plain(out, reader, prefix, first, path), done);
    }
done:
    lam_free(bytes);
    lam_reader_close(&reader);
    if (status != LAM_OK) lam_npy_free(out);
    return status;
}

void lam_npy_free(lam_npy *array) {
    if (array == NULL) return;
    lam_free(array->data);
    *array = (lam_npy){0};
}

lam_status lam_npy_write(const char *path, const char *type, int rank, const int64_t *shape,
                         const void *data) {
    size_t item = 0;
    LAM_REQUIRE(strlen(type) == 2 && find_type(type, &item) && rank >= 0 && rank <= RANK_LIMIT,
                LAM_ERROR_INTERNAL, "%s: type '%s' of rank %d cannot be written as .npy", path, type, rank);
    char dims[RANK_LIMIT * 24] = "", header[512];
    size_t used = 0;
    int64_t bytes = (int64_t)item;
    for (int i = 0; i < rank; i++) {
        LAM_REQUIRE(shape[i] >= 0 && !__builtin_mul_overflow(bytes, shape[i], &bytes), LAM_ERROR_INTERNAL,
                    "%s: the shape to write is too large", path);
        used += (size_t)snprintf(dims + used, sizeof dims - used, i == 0 ? "%lld%s" : " %lld%s",
                                 (long long)shape[i], i + 1 < rank || rank == 1 ? "," : "");
    }
    int text = snprintf(header + 10, sizeof header - 10,
                        "{'descr': '%s%s', 'fortran_order': False, 'shape': (%s), }", item == 1 ? "|" : "<",
                        type, dims);
    size_t whole = (10 + (size_t)text + 1 + 63) / 64 * 64;
    memset(header + 10 + text, ' ', whole - 10 - (size_t)text);
    header[whole - 1] = '\n';
    memcpy(header, "\x93NUMPY\x01\x00", 8);
    header[8] = (char)((whole - 10) & 0xff);
    header[9] = (char)((whole - 10) >> 8);

    lam_writer *writer = NULL;
    lam_status status = LAM_OK;
    LAM_TRY(lam_writer_open(&writer, path));
    LAM_TRY_GOTO(lam_writer_append(writer, header, whole), failed);
    if (bytes > 0) LAM_TRY_GOTO(lam_writer_append(writer, data, (size_t)bytes), failed);
    return lam_writer_commit(&writer);
failed:
    lam_writer_abort(&writer);
    return status;
}
