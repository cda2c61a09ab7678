#include "base/unpack.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#include "base/memory.h"

typedef struct output {
    char *bytes;
    size_t size, capacity; /* capacity excludes the zero byte at the end */
} output;

static lam_status output_room(output *out, const char *name) {
    if (out->size < out->capacity) return LAM_OK;
    LAM_REQUIRE(out->capacity < LAM_UNPACK_LIMIT, LAM_ERROR_FORMAT, "%s: unpacks to more than 64 GiB", name);
    size_t larger = out->capacity == 0 ? (size_t)1 << 16 : out->capacity * 2;
    LAM_TRY(lam_grow((void **)&out->bytes, out->capacity == 0 ? 0 : out->capacity + 1, larger + 1));
    out->capacity = larger;
    return LAM_OK;
}

static lam_status unpack_gzip(output *out, const char *bytes, size_t size, const char *name) {
    z_stream stream = {0};
    lam_status status = LAM_OK;
    size_t position = 0;
    int code = inflateInit2(&stream, 15 + 16);
    LAM_REQUIRE(code == Z_OK, LAM_ERROR_MEMORY, "%s: zlib has no memory to unpack it", name);
    for (;;) {
        LAM_TRY_GOTO(output_room(out, name), done);
        size_t left = size - position, room = out->capacity - out->size;
        uInt given = (uInt)(left < 1u << 30 ? left : 1u << 30);
        uInt wanted = (uInt)(room < 1u << 30 ? room : 1u << 30);
        stream.next_in = (Bytef *)(uintptr_t)(bytes + position);
        stream.avail_in = given;
        stream.next_out = (Bytef *)(out->bytes + out->size);
        stream.avail_out = wanted;
        code = inflate(&stream, Z_NO_FLUSH);
        position += given - stream.avail_in;
        out->size += wanted - stream.avail_out;
        if (code == Z_STREAM_END) {
            bool another = size - position >= 2 && (unsigned char)bytes[position] == 0x1f &&
                           (unsigned char)bytes[position + 1] == 0x8b;
            if (!another) break;
            LAM_REQUIRE_GOTO(inflateReset(&stream) == Z_OK, done, LAM_ERROR_EXTERNAL, "%s: zlib failed",
                             name);
            continue;
        }
        LAM_REQUIRE_GOTO(code != Z_MEM_ERROR, done, LAM_ERROR_MEMORY, "%s: zlib has no memory to unpack it",
                         name);
        LAM_REQUIRE_GOTO(code == Z_OK || (code == Z_BUF_ERROR && position < size), done, LAM_ERROR_FORMAT,
                         "%s: damaged gzip data at byte %zu (%s); copy the file again", name, position,
                         stream.msg != NULL ? stream.msg : "cut short");
    }
done:
    inflateEnd(&stream);
    return status;
}

static lam_status unpack_zstd(output *out, const char *bytes, size_t size, const char *name) {
    lam_status status = LAM_OK;
    ZSTD_DStream *stream = ZSTD_createDStream();
    LAM_REQUIRE(stream != NULL, LAM_ERROR_MEMORY, "%s: zstd has no memory to unpack it", name);
    ZSTD_inBuffer in = {bytes, size, 0};
    for (;;) {
        LAM_TRY_GOTO(output_room(out, name), done);
        ZSTD_outBuffer part = {out->bytes + out->size, out->capacity - out->size, 0};
        size_t code = ZSTD_decompressStream(stream, &part, &in);
        out->size += part.pos;
        LAM_REQUIRE_GOTO(!ZSTD_isError(code), done, LAM_ERROR_FORMAT,
                         "%s: damaged zstd data near byte %zu (%s); copy the file again", name, in.pos,
                         ZSTD_getErrorName(code));
        if (code == 0 && in.pos == in.size) break;
        LAM_REQUIRE_GOTO(in.pos < in.size || part.pos == part.size, done, LAM_ERROR_FORMAT,
                         "%s: zstd data cut short after %zu bytes; copy the file again", name, in.size);
    }
done:
    ZSTD_freeDStream(stream);
    return status;
}

lam_status lam_unpack_copy(char **out, size_t *out_size, const char *bytes, size_t size, const char *name) {
    const unsigned char *magic = (const unsigned char *)bytes;
    output unpacked = {0};
    lam_status status = LAM_OK;
    if (size >= 2 && magic[0] == 0x1f && magic[1] == 0x8b) {
        LAM_TRY_GOTO(unpack_gzip(&unpacked, bytes, size, name), failed);
    } else if (size >= 4 && magic[0] == 0x28 && magic[1] == 0xb5 && magic[2] == 0x2f && magic[3] == 0xfd) {
        LAM_TRY_GOTO(unpack_zstd(&unpacked, bytes, size, name), failed);
    } else {
        LAM_TRY_GOTO(lam_alloc((void **)&unpacked.bytes, size + 1), failed);
        if (size > 0) memcpy(unpacked.bytes, bytes, size);
        unpacked.size = size;
    }
    unpacked.bytes[unpacked.size] = '\0';
    *out = unpacked.bytes;
    *out_size = unpacked.size;
    return LAM_OK;
failed:
    lam_free(unpacked.bytes);
    return status;
}

lam_status lam_unpack(char **bytes, size_t *size, const char *name) {
    const unsigned char *magic = (const unsigned char *)*bytes;
    bool packed =
        *size >= 4 && ((magic[0] == 0x1f && magic[1] == 0x8b) ||
                       (magic[0] == 0x28 && magic[1] == 0xb5 && magic[2] == 0x2f && magic[3] == 0xfd));
    if (!packed) return LAM_OK;
    char *plain = NULL;
    size_t plain_size = 0;
    LAM_TRY(lam_unpack_copy(&plain, &plain_size, *bytes, *size, name));
    lam_free(*bytes);
    *bytes = plain;
    *size = plain_size;
    return LAM_OK;
}
