#include "data/shard_encode.h"

#include <string.h>
#include <xxhash.h>
#include <zstd.h>

#include "base/memory.h"

enum { LEVEL = 3 };

typedef struct encoder {
    ZSTD_CCtx *context;
    unsigned char tile[LAM_SHARD_MAX_FRAME], packed[LAM_SHARD_MAX_FRAME];
} encoder;

static void delta(void *pixels, int64_t height, int64_t width, int bytes) {
    for (int64_t y = 0; y < height; y++) {
        if (bytes == 1) {
            uint8_t *row = (uint8_t *)pixels + y * width;
            for (int64_t x = width - 1; x > 0; x--) row[x] = (uint8_t)(row[x] - row[x - 1]);
        } else {
            uint16_t *row = (uint16_t *)pixels + y * width;
            for (int64_t x = width - 1; x > 0; x--) row[x] = (uint16_t)(row[x] - row[x - 1]);
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

/* The tile stands in e->tile. */
static lam_status encode_tile(lam_encoded_image *image, encoder *e, const unsigned char *plane, int64_t top, int64_t left,
                              int64_t height, int64_t width, int bytes) {
    size_t row_bytes = (size_t)(width * bytes), size = (size_t)height * row_bytes;
    for (int64_t y = 0; y < height; y++)
        memcpy(e->tile + (size_t)y * row_bytes, plane + ((top + y) * image->width + left) * bytes, row_bytes);
    delta(e->tile, height, width, bytes);
    lam_shard_frame *frame = &image->frame[image->frames++];
    *frame = (lam_shard_frame){.offset = image->size, .codec = LAM_CODEC_DELTA_ZSTD, .pixel_bytes = (uint8_t)bytes};
    /* Room for less than the plain bytes: what does not become smaller is stored as it is. */
    size_t packed = ZSTD_compressCCtx(e->context, e->packed, size - 1, e->tile, size, LEVEL);
    const unsigned char *stored = e->packed;
    if (ZSTD_isError(packed)) {
        frame->codec = LAM_CODEC_RAW;
        for (int64_t y = 0; y < height; y++)
            memcpy(e->tile + (size_t)y * row_bytes, plane + ((top + y) * image->width + left) * bytes, row_bytes);
        stored = e->tile;
        packed = size;
    }
    frame->bytes = (uint32_t)packed;
    frame->hash = XXH64(stored, packed, 0);
    return append(image, stored, packed);
}

static lam_status encode_plane(lam_encoded_image *image, encoder *e, int64_t channel, const void *plane) {
    int bytes = image->present[channel];
    LAM_TRY(lam_sums_add_plane(&image->sums[channel], plane, image->height * image->width, (lam_pixel_type)bytes,
                               &image->maximum[channel]));
    for (int64_t y = 0; y < image->height; y += LAM_SHARD_TILE) {
        for (int64_t x = 0; x < image->width; x += LAM_SHARD_TILE) {
            int64_t height = image->height - y < LAM_SHARD_TILE ? image->height - y : LAM_SHARD_TILE;
            int64_t width = image->width - x < LAM_SHARD_TILE ? image->width - x : LAM_SHARD_TILE;
            LAM_TRY(encode_tile(image, e, plane, y, x, height, width, bytes));
        }
    }
    return LAM_OK;
}

static lam_status encode_all(lam_encoded_image *image, const void *const *planes, const lam_pixel_type *types) {
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
                LAM_ERROR_INPUT, "an image of %lld channels of %lld x %lld pixels: at most %d channels of 2^31 pixels",
                (long long)channels, (long long)height, (long long)width, LAM_SHARD_MAX_CHANNELS);
    LAM_TRY(lam_alloc((void **)out, sizeof **out));
    (*out)->channels = channels;
    (*out)->height = height;
    (*out)->width = width;
    lam_status status = encode_all(*out, planes, types);
    if (status != LAM_OK) lam_encoded_free(out);
    return status;
}

uint32_t lam_encoded_maximum(const lam_encoded_image *image, int64_t channel) { return image->maximum[channel]; }
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
