#include "data/png_write.h"

#include <errno.h>
#include <png.h>
#include <stdio.h>
#include <string.h>

#include "base/fault.h"
#include "base/files.h"
#include "base/memory.h"

typedef struct png_sink {
    uint8_t *bytes;
    size_t size, capacity;
} png_sink;

static void sink_write(png_structp png, png_bytep data, png_size_t length) {
    png_sink *sink = png_get_io_ptr(png);
    if (length > sink->capacity - sink->size) {
        size_t capacity = sink->capacity + length + sink->capacity / 2 + 4096;
        if (lam_grow((void **)&sink->bytes, sink->capacity, capacity) != LAM_OK)
            png_error(png, "out of memory");
        sink->capacity = capacity;
    }
    memcpy(sink->bytes + sink->size, data, length);
    sink->size += length;
}
static void sink_flush(png_structp png) { (void)png; }
static void on_error(png_structp png, png_const_charp message) {
    (void)message;
    png_longjmp(png, 1);
}
static void on_warning(png_structp png, png_const_charp message) {
    (void)png;
    (void)message;
}

/* All of libpng's long jumps stay in here; no local is changed after setjmp. */
static lam_status encode(const char *path, int64_t height, int64_t width, const uint16_t *pixels,
                         png_sink *sink) {
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, on_error, on_warning);
    LAM_REQUIRE(png, LAM_ERROR_MEMORY, "%s: out of memory for its encoder", path);
    png_infop info = png_create_info_struct(png);
    if (!info) {
        png_destroy_write_struct(&png, NULL);
        LAM_FAIL(LAM_ERROR_MEMORY, "%s: out of memory for its encoder", path);
    }
    if (setjmp(png_jmpbuf(png))) {
        png_destroy_write_struct(&png, &info);
        LAM_FAIL(LAM_ERROR_MEMORY, "%s: out of memory while a PNG of %lld x %lld pixels was encoded", path,
                 (long long)width, (long long)height);
    }
    png_set_write_fn(png, sink, sink_write, sink_flush);
    png_set_IHDR(png, info, (png_uint_32)width, (png_uint_32)height, 16, PNG_COLOR_TYPE_GRAY,
                 PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    png_set_compression_level(png, 1);
    png_set_filter(png, 0, PNG_FILTER_SUB);
    png_write_info(png, info);
    png_set_swap(png); /* PNG is big-endian */
    for (int64_t y = 0; y < height; y++) png_write_row(png, (png_const_bytep)(pixels + y * width));
    png_write_end(png, NULL);
    png_destroy_write_struct(&png, &info);
    return LAM_OK;
}

lam_status lam_png_write_grey16(const char *path, int64_t height, int64_t width, const uint16_t *pixels) {
    LAM_REQUIRE(height > 0 && width > 0 && height <= 1000000 && width <= 1000000, LAM_ERROR_INTERNAL,
                "%s: a PNG of %lld x %lld pixels cannot be written", path, (long long)width,
                (long long)height);
    png_sink sink = {0};
    FILE *file = NULL;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(encode(path, height, width, pixels, &sink), done);
    bool fault = lam_fault_hit(LAM_FAULT_WRITE);
    if (fault) errno = ENOSPC;
    file = fault ? NULL : fopen(path, "wb");
    LAM_REQUIRE_GOTO(file, done, LAM_ERROR_IO, "%s: cannot be written: %s", path, lam_why(errno));
    size_t written = fwrite(sink.bytes, 1, sink.size, file);
    bool closed = fclose(file) == 0;
    LAM_REQUIRE_GOTO(written == sink.size && closed, done, LAM_ERROR_IO, "%s: cannot be written: %s", path,
                     lam_why(errno));
done:
    lam_free(sink.bytes);
    return status;
}
