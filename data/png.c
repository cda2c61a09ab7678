/* PNG (ISO 15948) through libpng; its setjmp stays in this file. */
#include <png.h>
#include <setjmp.h>
#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "data/image.h"

/* Deflate reaches 1032 to 1 at most. */
enum { DEFLATE_RATIO = 1032 };

typedef struct png_source {
    const char *bytes;
    size_t size, at;
    char message[160];
} png_source;

static void on_error(png_structp png, png_const_charp message) {
    png_source *source = png_get_error_ptr(png);
    snprintf(source->message, sizeof source->message, "%s", message);
    png_longjmp(png, 1);
}

static void on_warning(png_structp png, png_const_charp message) {
    (void)png;
    (void)message;
}

static void on_read(png_structp png, png_bytep to, png_size_t size) {
    png_source *source = png_get_io_ptr(png);
    if (size > source->size - source->at) png_error(png, "cut short");
    memcpy(to, source->bytes + source->at, size);
    source->at += size;
}

/* Everything between the two is called by libpng's jump: no variable of it may be read after. */
static lam_status decode(png_structp png, png_infop info, png_source *source, lam_image *out, void **rows,
                         const char *name) {
    if (setjmp(png_jmpbuf(png)) != 0)
        LAM_FAIL(LAM_ERROR_FORMAT, "%s: damaged PNG: %s", name, source->message);
    png_set_read_fn(png, source, on_read);
    png_read_info(png, info);
    int depth = png_get_bit_depth(png, info), color = png_get_color_type(png, info);
    if (color == PNG_COLOR_TYPE_PALETTE) png_set_palette_to_rgb(png);
    if (depth < 8) {
        if (color == PNG_COLOR_TYPE_GRAY) {
            /* 0 and 1 of a mask stay 0 and 1: values are measurements. */
            png_set_packing(png);
        }
        depth = 8;
    }
    if (depth == 16) png_set_swap(png);
    int passes = png_set_interlace_handling(png);
    png_read_update_info(png, info);
    int64_t samples = png_get_channels(png, info);
    color = png_get_color_type(png, info);
    out->alpha_dropped = (color & PNG_COLOR_MASK_ALPHA) != 0;
    out->channels = samples - (out->alpha_dropped ? 1 : 0);
    out->height = png_get_image_height(png, info);
    out->width = png_get_image_width(png, info);
    out->type = depth == 16 ? LAM_PIXEL_U16 : LAM_PIXEL_U8;
    LAM_TRY(lam_image_reserve(out, source->size, DEFLATE_RATIO, name));
    size_t row_bytes = png_get_rowbytes(png, info);
    /* Interlaced passes need the whole picture, others one row. */
    LAM_TRY(lam_alloc_array(rows, passes > 1 ? out->height : 1, row_bytes));
    for (int pass = 0; pass < passes; pass++) {
        for (int64_t y = 0; y < out->height; y++) {
            png_bytep row = (png_bytep)*rows + (passes > 1 ? (size_t)y * row_bytes : 0);
            png_read_row(png, row, NULL);
            if (pass == passes - 1) lam_image_put_row(out, y, row, samples);
        }
    }
    png_read_end(png, NULL);
    return LAM_OK;
}

lam_status lam_png_parse(lam_image *out, const char *bytes, size_t size, const char *name) {
    png_source source = {.bytes = bytes, .size = size};
    void *rows = NULL;
    *out = (lam_image){0};
    png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &source, on_error, on_warning);
    png_infop info = png != NULL ? png_create_info_struct(png) : NULL;
    lam_status status =
        info != NULL ? decode(png, info, &source, out, &rows, name)
                     : lam_fail(LAM_ERROR_MEMORY, __FILE__, __LINE__, "%s: out of memory for PNG", name);
    png_destroy_read_struct(&png, &info, NULL);
    lam_free(rows);
    if (status != LAM_OK) lam_image_free(out);
    return status;
}
