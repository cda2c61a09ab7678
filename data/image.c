#include "data/image.h"

#include <string.h>

#include "base/files.h"
#include "base/memory.h"

void lam_image_free(lam_image *image) {
    lam_free(image->pixels);
    *image = (lam_image){0};
}

lam_status lam_image_reserve(lam_image *image, size_t file_bytes, size_t most_ratio, const char *name) {
    int64_t plane = 0, pixels = 0, bytes = 0;
    LAM_REQUIRE(image->channels >= 1 && image->height >= 1 && image->width >= 1, LAM_ERROR_FORMAT,
                "%s: an image without pixels (%lld channels of %lld x %lld)", name,
                (long long)image->channels, (long long)image->height, (long long)image->width);
    LAM_REQUIRE(!__builtin_mul_overflow(image->height, image->width, &plane) && plane < INT32_MAX &&
                    !__builtin_mul_overflow(plane, image->channels, &pixels) &&
                    !__builtin_mul_overflow(pixels, (int64_t)image->type, &bytes) &&
                    (uint64_t)bytes / most_ratio <= file_bytes,
                LAM_ERROR_FORMAT,
                "%s: its header says %lld channels of %lld x %lld, more than a file of %zu bytes holds", name,
                (long long)image->channels, (long long)image->height, (long long)image->width, file_bytes);
    return lam_alloc(&image->pixels, (size_t)bytes);
}

void lam_image_put_row(lam_image *image, int64_t y, const void *row, int64_t samples) {
    int64_t plane = image->height * image->width;
    for (int64_t c = 0; c < image->channels; c++) {
        if (image->type == LAM_PIXEL_U8) {
            const uint8_t *from = (const uint8_t *)row + c;
            uint8_t *to = (uint8_t *)image->pixels + c * plane + y * image->width;
            for (int64_t x = 0; x < image->width; x++) to[x] = from[x * samples];
        } else {
            const uint16_t *from = (const uint16_t *)row + c;
            uint16_t *to = (uint16_t *)image->pixels + c * plane + y * image->width;
            for (int64_t x = 0; x < image->width; x++) to[x] = from[x * samples];
        }
    }
}

static uint32_t value_at(const void *pixels, int64_t at, lam_pixel_type type) {
    return type == LAM_PIXEL_U8 ? ((const uint8_t *)pixels)[at] : ((const uint16_t *)pixels)[at];
}

void lam_planes_project(void *planes, int64_t count, int64_t plane_pixels, lam_pixel_type type,
                        lam_projection projection) {
    if (count == 1) return;
    if (projection == LAM_PROJECT_MIDDLE) {
        size_t bytes = (size_t)plane_pixels * (size_t)type;
        memcpy(planes, (char *)planes + (size_t)(count / 2) * bytes, bytes);
        return;
    }
    for (int64_t i = 0; i < plane_pixels; i++) {
        uint64_t sum = 0;
        uint32_t most = 0;
        for (int64_t z = 0; z < count; z++) {
            uint32_t v = value_at(planes, z * plane_pixels + i, type);
            sum += v;
            if (v > most) most = v;
        }
        uint64_t v =
            projection == LAM_PROJECT_MAX ? most : (2 * sum + (uint64_t)count) / (2 * (uint64_t)count);
        if (type == LAM_PIXEL_U8)
            ((uint8_t *)planes)[i] = (uint8_t)v;
        else
            ((uint16_t *)planes)[i] = (uint16_t)v;
    }
}

static bool begins(const char *bytes, size_t size, const char *magic, size_t length) {
    return size >= length && memcmp(bytes, magic, length) == 0;
}

lam_status lam_image_read(lam_image *out, const char *path, lam_projection projection) {
    char *bytes = NULL;
    size_t size = 0;
    lam_status status = LAM_OK;
    *out = (lam_image){0};
    if (lam_is_npy_name(path)) {
        lam_stacks *stacks = NULL;
        LAM_TRY(lam_stacks_create(&stacks, 0));
        status = lam_stacks_read(stacks, path, -1, out);
        lam_stacks_free(&stacks);
        return status;
    }
    LAM_TRY(lam_file_read(path, &bytes, &size));
    if (size == 0) {
        status = lam_fail(LAM_ERROR_FORMAT, __FILE__, __LINE__, "%s: an empty file", path);
    } else if (begins(bytes, size, "\x89PNG\r\n\x1a\n", 8)) {
        status = lam_png_parse(out, bytes, size, path);
    } else if (begins(bytes, size, "II*\0", 4) || begins(bytes, size, "MM\0*", 4) ||
               begins(bytes, size, "II+\0", 4) || begins(bytes, size, "MM\0+", 4)) {
        status = lam_tiff_parse(out, bytes, size, projection, path);
    } else if (begins(bytes, size, "\0\0\0\x0cjP  ", 8) || begins(bytes, size, "\xff\x4f\xff\x51", 4)) {
        status = lam_jpeg2000_parse(out, bytes, size, path);
    } else {
        status = lam_fail(
            LAM_ERROR_FORMAT, __FILE__, __LINE__,
            "%s: not a PNG, TIFF, JPEG 2000 or NPY image (by its first bytes): convert it to one of these",
            path);
    }
    lam_free(bytes);
    if (status != LAM_OK) lam_image_free(out);
    return status;
}
