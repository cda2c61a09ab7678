#include "base/picture.h"

#include <math.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <png.h>

#include "base/files.h"
#include "base/memory.h"

#define HISTOGRAM_BINS 4096

lam_status lam_picture_create(lam_picture *picture, int64_t width, int64_t height, uint32_t background) {
    *picture = (lam_picture){width, height, NULL};
    LAM_REQUIRE(width >= 1 && height >= 1 && width <= 1 << 20 && height <= 1 << 20, LAM_ERROR_INTERNAL,
                "a picture of %lld x %lld pixels cannot be made", (long long)width, (long long)height);
    LAM_TRY(lam_alloc_array((void **)&picture->rgb, width * height, 3));
    for (int64_t i = 0; i < width * height; i++) {
        picture->rgb[3 * i] = (uint8_t)(background >> 16);
        picture->rgb[3 * i + 1] = (uint8_t)(background >> 8);
        picture->rgb[3 * i + 2] = (uint8_t)background;
    }
    return LAM_OK;
}

void lam_picture_free(lam_picture *picture) {
    lam_free(picture->rgb);
    picture->rgb = NULL;
}

typedef struct named_colour {
    uint32_t rgb;
    const char *name;
} named_colour;

/* Blue for the nucleus first, as stains are usually listed; then colours that stay apart for colour-blind readers. */
static named_colour colour_of(int64_t channel, int64_t channels) {
    static const named_colour colours[] = {{0x3a6bff, "blue"},   {0x2ecc71, "green"},   {0xff5a36, "red"},
                                           {0xffd23c, "yellow"}, {0xe14bd8, "magenta"}, {0x2fd6e0, "cyan"},
                                           {0xb0b0b0, "grey"},   {0xff9ec4, "pink"}};
    return channels == 1 ? (named_colour){0xffffff, "grey"}
                         : colours[channel % (int64_t)(sizeof colours / sizeof *colours)];
}

uint32_t lam_channel_colour(int64_t channel, int64_t channels) { return colour_of(channel, channels).rgb; }
const char *lam_channel_colour_name(int64_t channel, int64_t channels) {
    return colour_of(channel, channels).name;
}

/* The 1st and 99.8th percentile through a histogram between the extremes. */
static void window_of(const float *plane, int64_t count, float *low, float *high) {
    float least = INFINITY, most = -INFINITY;
    for (int64_t i = 0; i < count; i++) {
        if (!isfinite(plane[i])) continue;
        if (plane[i] < least) least = plane[i];
        if (plane[i] > most) most = plane[i];
    }
    *low = least;
    *high = most;
    if (!(most > least)) return;
    int64_t bins[HISTOGRAM_BINS] = {0}, total = 0, seen = 0;
    double bottom = least, top = most,
           scale = (HISTOGRAM_BINS - 1) /
                   (top - bottom); /* in double, where the range of any two floats is finite */
    for (int64_t i = 0; i < count; i++)
        if (isfinite(plane[i])) bins[(int)(((double)plane[i] - bottom) * scale)]++, total++;
    bool have_low = false;
    for (int b = 0; b < HISTOGRAM_BINS; b++) {
        seen += bins[b];
        if (!have_low && (double)seen > 0.01 * (double)total) {
            *low = (float)(bottom + b / scale);
            have_low = true;
        }
        if ((double)seen >= 0.998 * (double)total) {
            *high = (float)(bottom + (b + 1) / scale);
            break;
        }
    }
}

lam_status lam_picture_composite(lam_picture *picture, int64_t x, int64_t y, const float *planes,
                                 int64_t channels, int64_t height, int64_t width, const float *low,
                                 const float *high) {
    LAM_REQUIRE(x >= 0 && y >= 0 && x + width <= picture->width && y + height <= picture->height,
                LAM_ERROR_INTERNAL, "a panel of %lld x %lld pixels does not fit the picture",
                (long long)width, (long long)height);
    float *sum;
    LAM_TRY(lam_alloc_array((void **)&sum, 3 * width * height, sizeof *sum));
    for (int64_t c = 0; c < channels; c++) {
        const float *plane = planes + c * width * height;
        float from, to;
        if (low && high)
            from = low[c], to = high[c];
        else
            window_of(plane, width * height, &from, &to);
        uint32_t colour = lam_channel_colour(c, channels);
        float scale = to > from ? 1.0f / (to - from) : 0.0f;
        for (int64_t i = 0; i < width * height; i++) {
            float v = (plane[i] - from) * scale;
            v = !(v > 0) ? 0 : v > 1 ? 1 : v;
            sum[3 * i] += v * (float)(colour >> 16 & 255u);
            sum[3 * i + 1] += v * (float)(colour >> 8 & 255u);
            sum[3 * i + 2] += v * (float)(colour & 255u);
        }
    }
    for (int64_t r = 0; r < height; r++)
        for (int64_t i = 0; i < 3 * width; i++) {
            float v = sum[3 * r * width + i];
            picture->rgb[3 * ((y + r) * picture->width + x) + i] = (uint8_t)(v > 255 ? 255 : v + 0.5f);
        }
    lam_free(sum);
    return LAM_OK;
}

/* ---- PNG ---- */

typedef struct sink {
    uint8_t *bytes;
    size_t size, capacity;
    bool failed;
} sink;

static void on_write(png_structp png, png_bytep data, png_size_t length) {
    sink *s = png_get_io_ptr(png);
    if (s->size + length > s->capacity) {
        size_t grown = (s->size + length) * 2;
        if (lam_grow((void **)&s->bytes, s->capacity, grown) != LAM_OK) {
            s->failed = true;
            png_error(png, "out of memory");
        }
        s->capacity = grown;
    }
    memcpy(s->bytes + s->size, data, length);
    s->size += length;
}

static void on_flush(png_structp png) { (void)png; }
static void on_warning(png_structp png, png_const_charp text) { (void)png, (void)text; }

/* Everything that longjmp may skip lives in the sink, which the caller owns. */
static bool encode(const lam_picture *picture, sink *s) {
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, on_warning);
    png_infop info = png ? png_create_info_struct(png) : NULL;
    if (!info) {
        png_destroy_write_struct(&png, NULL);
        return false;
    }
    if (setjmp(png_jmpbuf(png))) {
        png_destroy_write_struct(&png, &info);
        return false;
    }
    png_set_write_fn(png, s, on_write, on_flush);
    png_set_IHDR(png, info, (png_uint_32)picture->width, (png_uint_32)picture->height, 8, PNG_COLOR_TYPE_RGB,
                 PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    png_write_info(png, info);
    for (int64_t r = 0; r < picture->height; r++) png_write_row(png, picture->rgb + 3 * r * picture->width);
    png_write_end(png, info);
    png_destroy_write_struct(&png, &info);
    return true;
}

lam_status lam_picture_encode_png(const lam_picture *picture, uint8_t **bytes, size_t *size) {
    sink s = {0};
    bool good = encode(picture, &s);
    if (!good) lam_free(s.bytes);
    LAM_REQUIRE(good, LAM_ERROR_MEMORY, "out of memory: a picture of %lld x %lld pixels could not be encoded",
                (long long)picture->width, (long long)picture->height);
    *bytes = s.bytes;
    *size = s.size;
    return LAM_OK;
}

lam_status lam_picture_write_png(const lam_picture *picture, const char *path) {
    uint8_t *bytes = NULL;
    size_t size = 0;
    LAM_TRY(lam_picture_encode_png(picture, &bytes, &size));
    lam_status status = lam_file_write(path, bytes, size);
    lam_free(bytes);
    return status;
}
