#include "data/pack_image.h"

#include <string.h>

#include "base/memory.h"

void lam_plane_to_uint8(void *pixels, int64_t count, lam_to_uint8 how, int bits) {
    uint16_t *from = pixels;
    uint8_t *to = pixels;
    int64_t low = 0, high = (1 << bits) - 1;
    if (how == LAM_TO_UINT8_PERCENTILE) {
        int64_t seen[256] = {0}, below = 0;
        /* Nearest-rank percentiles: the smallest value with at least that share of the pixels at or below it.
         * Two levels of 256 bins find a value of 65536. */
        int64_t rank[2] = {(count + 999) / 1000, count - count / 1000}, bound[2];
        for (int64_t i = 0; i < count; i++) seen[from[i] >> 8]++;
        for (int k = 0; k < 2; k++) {
            int64_t fine[256] = {0};
            int coarse = 0, value = 0;
            for (below = 0; below + seen[coarse] < rank[k]; coarse++) below += seen[coarse];
            for (int64_t i = 0; i < count; i++)
                if (from[i] >> 8 == coarse) fine[from[i] & 255]++;
            for (; below + fine[value] < rank[k]; value++) below += fine[value];
            bound[k] = coarse * 256 + value;
        }
        low = bound[0];
        high = bound[1] > bound[0] ? bound[1] : bound[0] + 1;
    }
    for (int64_t i = 0; i < count; i++) {
        int64_t v = from[i] < low ? 0 : from[i] > high ? high - low : from[i] - low;
        to[i] = (uint8_t)((v * 510 + (high - low)) / (2 * (high - low)));
    }
}

lam_status lam_pack_read(const lam_pack_settings *settings, const lam_source *source, lam_image *out) {
    if (lam_is_npy_name(source->path))
        return lam_stacks_read(settings->stacks, source->path, source->row, out);
    *out = (lam_image){0};
    LAM_REQUIRE(source->row < 0, LAM_ERROR_INPUT,
                "%s: a row of a stack is named, but only .npy files are stacks", source->path);
    return lam_image_read(out, source->path, settings->projection);
}

static uint32_t largest(const void *pixels, int64_t count, lam_pixel_type type) {
    uint32_t most = 0;
    for (int64_t i = 0; i < count; i++) {
        uint32_t v = type == LAM_PIXEL_U8 ? ((const uint8_t *)pixels)[i] : ((const uint16_t *)pixels)[i];
        if (v > most) most = v;
    }
    return most;
}

/* After reading: illumination, bit depth, 8 bits. */
static lam_status correct(const lam_pack_settings *settings, const lam_source *source, lam_image *image,
                          int64_t plane, int64_t channel, lam_pixel_type *type) {
    int64_t count = image->height * image->width;
    void *pixels = (char *)image->pixels + (size_t)(plane * count) * (size_t)image->type;
    *type = image->type;
    if (settings->illumination && source->illumination != NULL)
        LAM_TRY(lam_stacks_illuminate(settings->stacks, source->illumination, image, plane));
    if (settings->bit_depth > 0) {
        uint32_t most = largest(pixels, count, image->type);
        LAM_REQUIRE(most < 1u << settings->bit_depth, LAM_ERROR_INPUT,
                    "%s: a pixel of %u in channel %s is over the %d bits of --bit-depth", source->path, most,
                    settings->channel_names[channel], settings->bit_depth);
    }
    if (settings->to_uint8 != LAM_TO_UINT8_OFF && image->type == LAM_PIXEL_U16) {
        lam_plane_to_uint8(pixels, count, settings->to_uint8,
                           settings->bit_depth > 0 ? settings->bit_depth : 16);
        *type = LAM_PIXEL_U8;
    }
    return LAM_OK;
}

typedef struct opened {
    lam_image *files;
    int64_t count;
    const void **planes;
    lam_pixel_type *types; /* as they are stored */
    lam_pixel_type *read;  /* as the files have them */
    int64_t height, width;
} opened;

static lam_status read_one(const lam_pack_settings *settings, const lam_source *source, opened *o) {
    lam_image *file = &o->files[o->count++];
    LAM_TRY(lam_pack_read(settings, source, file));
    LAM_REQUIRE(file->channels == settings->channels, LAM_ERROR_INPUT,
                "%s: %lld channels where the table's have %lld", source->path, (long long)file->channels,
                (long long)settings->channels);
    o->height = file->height;
    o->width = file->width;
    int64_t count = file->height * file->width;
    for (int64_t c = 0; c < settings->channels; c++) {
        o->read[c] = file->type;
        LAM_TRY(correct(settings, source, file, c, c, &o->types[c]));
        o->planes[c] = (char *)file->pixels + (size_t)(c * count) * (size_t)file->type;
    }
    return LAM_OK;
}

static lam_status read_channels(const lam_pack_settings *settings, int64_t image, opened *o) {
    const lam_source *first = NULL;
    for (int64_t c = 0; c < settings->channels; c++) {
        const lam_source *source = lam_images_source(settings->list, image, c);
        if (source->path == NULL) continue;
        lam_image *file = &o->files[o->count++];
        LAM_TRY(lam_pack_read(settings, source, file));
        LAM_REQUIRE(
            file->channels == 1, LAM_ERROR_INPUT,
            "%s: %lld channels in a file of channel %s; a file with all channels goes into a column 'file'",
            source->path, (long long)file->channels, settings->channel_names[c]);
        if (first == NULL) {
            first = source;
            o->height = file->height;
            o->width = file->width;
        }
        LAM_REQUIRE(file->height == o->height && file->width == o->width, LAM_ERROR_INPUT,
                    "%s is %lld x %lld, %s is %lld x %lld: the channels of one image have one size",
                    first->path, (long long)o->height, (long long)o->width, source->path,
                    (long long)file->height, (long long)file->width);
        o->read[c] = file->type;
        LAM_TRY(correct(settings, source, file, 0, c, &o->types[c]));
        o->planes[c] = file->pixels;
    }
    return LAM_OK;
}

lam_status lam_pack_image(const lam_pack_settings *settings, int64_t image, lam_encoded_image **out,
                          lam_pixel_type *types, bool *alpha_dropped) {
    const lam_images *list = settings->list;
    opened o = {.read = types};
    lam_status status = LAM_OK;
    *out = NULL;
    LAM_TRY_GOTO(lam_alloc_array((void **)&o.files, settings->channels, sizeof *o.files), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&o.planes, settings->channels, sizeof *o.planes), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&o.types, settings->channels, sizeof *o.types), done);
    LAM_TRY_GOTO(list->one_file ? read_one(settings, lam_images_source(list, image, 0), &o)
                                : read_channels(settings, image, &o),
                 done);
    LAM_TRY_GOTO(lam_encode_image(out, o.planes, o.types, settings->channels, o.height, o.width), done);
done:
    for (int64_t i = 0; i < o.count; i++) {
        *alpha_dropped = *alpha_dropped || o.files[i].alpha_dropped;
        lam_image_free(&o.files[i]);
    }
    lam_free(o.files);
    lam_free(o.planes);
    lam_free(o.types);
    if (status != LAM_OK)
        return lam_fail_context(status, "%s:%lld", lam_table_path(list->table),
                                (long long)lam_table_line(list->table, list->rows[image]));
    return LAM_OK;
}
