#include "data/shard_encode.h"

#include <string.h>
#include <xxhash.h>
#include <zstd.h>

#include "base/memory.h"

enum { LEVEL = 3 };

typedef struct encoder {
    ZSTD_CCtx *context;
    _Alignas(16) unsigned char tile[LAM_SHARD_MAX_FRAME];
    unsigned char filtered[LAM_SHARD_MAX_FRAME], packed[LAM_SHARD_MAX_FRAME];
} encoder;

/* From pixels to what Zstandard gets (codecs 1 and 2 of data/shard.h). */
static void filter8(uint8_t *out, const uint8_t *pixels, int64_t height, int64_t width) {
    for (int64_t y = 0; y < height; y++) {
        uint8_t left = 0;
        for (int64_t x = 0; x < width; x++) {
            uint8_t v = pixels[y * width + x];
            out[y * width + x] = (uint8_t)(v - left);
            left = v;
        }
    }
}

static void filter16(uint8_t *out, const uint16_t *pixels, int64_t height, int64_t width) {
    int64_t count = height * width;
    for (int64_t y = 0; y < height; y++) {
        uint16_t left = 0;
        for (int64_t i = y * width; i < (y + 1) * width; i++) {
            uint16_t d = (uint16_t)(pixels[i] - left),
                     folded = (uint16_t)((uint32_t)d << 1 ^ (0u - (uint32_t)(d >> 15)));
            out[i] = (uint8_t)folded;
            out[count + i] = (uint8_t)(folded >> 8);
            left = pixels[i];
        }
    }
}

static lam_status append(lam_encoded_image *image, const void *bytes, size_t size) {
    if (image->size + size > image->capacity) {
        size_t larger = image->capacity * 2 > image->size + size ? image->capacity * 2 : image->size + size;
        LAM_TRY(lam_grow((void **)&image->bytes, image->capacity, larger));
        image->capacity = larger;
    }
    memcpy(image->bytes + image->size, bytes, size);
    image->size += size;
    return LAM_OK;
}

static lam_status encode_tile(lam_encoded_image *image, encoder *e, const unsigned char *plane, int64_t top,
                              int64_t left, int64_t height, int64_t width, int bytes) {
    size_t row_bytes = (size_t)(width * bytes), size = (size_t)height * row_bytes;
    for (int64_t y = 0; y < height; y++)
        memcpy(e->tile + (size_t)y * row_bytes, plane + ((top + y) * image->width + left) * bytes, row_bytes);
    if (bytes == 1)
        filter8(e->filtered, e->tile, height, width);
    else
        filter16(e->filtered, (const uint16_t *)(const void *)e->tile, height, width);
    lam_shard_frame *frame = &image->frame[image->frames++];
    *frame = (lam_shard_frame){.offset = image->size, .pixel_bytes = (uint8_t)bytes};
    frame->codec = bytes == 1 ? LAM_CODEC_DELTA8 : LAM_CODEC_DELTA16;
    /* Room for less than the plain bytes: what does not become smaller is stored as it is. */
    size_t packed = ZSTD_compressCCtx(e->context, e->packed, size - 1, e->filtered, size, LEVEL);
    const unsigned char *stored = e->packed;
    if (ZSTD_isError(packed)) {
        frame->codec = LAM_CODEC_RAW;
        stored = e->tile;
        packed = size;
    }
    frame->bytes = (uint32_t)packed;
    frame->hash = XXH64(stored, packed, 0);
    return append(image, stored, packed);
}

static lam_status encode_plane(lam_encoded_image *image, encoder *e, int64_t channel, const void *plane) {
    int bytes = image->present[channel];
    LAM_TRY(lam_sums_add_plane(&image->sums[channel], plane, image->height * image->width,
                               (lam_pixel_type)bytes, &image->maximum[channel]));
    for (int64_t y = 0; y < image->height; y += LAM_SHARD_TILE) {
        for (int64_t x = 0; x < image->width; x += LAM_SHARD_TILE) {
            int64_t height = image->height - y < LAM_SHARD_TILE ? image->height - y : LAM_SHARD_TILE;
            int64_t width = image->width - x < LAM_SHARD_TILE ? image->width - x : LAM_SHARD_TILE;
            LAM_TRY(encode_tile(image, e, plane, y, x, height, width, bytes));
        }
    }
    return LAM_OK;
}

static lam_status encode_all(lam_encoded_image *image, const void *const *planes,
                             const lam_pixel_type *types) {
    encoder *e = NULL;
    lam_status status = LAM_OK;
    int64_t tiles = lam_shard_tiles(image->height) * lam_shard_tiles(image->width), present = 0;
    LAM_TRY(lam_alloc_array((void **)&image->present, image->channels, 1));
    LAM_TRY(lam_alloc_array((void **)&image->maximum, image->channels, sizeof *image->maximum));
    LAM_TRY(lam_alloc_array((void **)&image->sums, image->channels, sizeof *image->sums));
    for (int64_t c = 0; c < image->channels; c++) {
        if (planes[c] == NULL) continue;
        image->present[c] = (uint8_t)types[c];
        present++;
    }
    LAM_REQUIRE(present > 0, LAM_ERROR_INPUT, "an image without a channel");
    LAM_TRY(lam_alloc_array((void **)&image->frame, tiles * present, sizeof *image->frame));
    LAM_TRY(lam_alloc((void **)&e, sizeof *e));
    e->context = ZSTD_createCCtx();
    LAM_REQUIRE_GOTO(e->context != NULL, done, LAM_ERROR_MEMORY, "out of memory for a Zstandard encoder");
    for (int64_t c = 0; c < image->channels; c++)
        if (planes[c] != NULL) LAM_TRY_GOTO(encode_plane(image, e, c, planes[c]), done);
done:
    ZSTD_freeCCtx(e->context);
    lam_free(e);
    return status;
}

lam_status lam_encode_image(lam_encoded_image **out, const void *const *planes, const lam_pixel_type *types,
                            int64_t channels, int64_t height, int64_t width) {
    *out = NULL;
    LAM_REQUIRE(channels >= 1 && channels <= LAM_SHARD_MAX_CHANNELS && height >= 1 && width >= 1 &&
                    height <= LAM_SHARD_MAX_SIDE && width <= LAM_SHARD_MAX_SIDE && height * width < INT32_MAX,
                LAM_ERROR_INPUT,
                "an image of %lld channels of %lld x %lld pixels: at most %d channels of 2^31 pixels",
                (long long)channels, (long long)height, (long long)width, LAM_SHARD_MAX_CHANNELS);
    LAM_TRY(lam_alloc((void **)out, sizeof **out));
    (*out)->channels = channels;
    (*out)->height = height;
    (*out)->width = width;
    lam_status status = encode_all(*out, planes, types);
    if (status != LAM_OK) lam_encoded_free(out);
    return status;
}

uint32_t lam_encoded_maximum(const lam_encoded_image *image, int64_t channel) {
    return image->maximum[channel];
}
size_t lam_encoded_bytes(const lam_encoded_image *image) { return image->size; }

void lam_encoded_free(lam_encoded_image **image) {
    lam_encoded_image *x = *image;
    *image = NULL;
    if (x == NULL) return;
    lam_free(x->present);
    lam_free(x->maximum);
    lam_free(x->sums);
    lam_free(x->frame);
    lam_free(x->bytes);
    lam_free(x);
}
