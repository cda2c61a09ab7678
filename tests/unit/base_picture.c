/* Pictures: PNG read back by libpng, windows of odd planes, colours. */
#include "base/picture.h"

#include <float.h>
#include <math.h>
#include <png.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/fault.h"
#include "base/memory.h"

static void composite(const float *plane, int64_t width, int64_t height, uint8_t *grey) {
    lam_picture picture;
    assert_int_equal(lam_picture_create(&picture, width, height, 0x123456), LAM_OK);
    assert_int_equal(lam_picture_composite(&picture, 0, 0, plane, 1, height, width, NULL, NULL), LAM_OK);
    for (int64_t i = 0; i < width * height; i++) {
        assert_int_equal(picture.rgb[3 * i], picture.rgb[3 * i + 1]); /* one channel is grey */
        assert_int_equal(picture.rgb[3 * i], picture.rgb[3 * i + 2]);
        grey[i] = picture.rgb[3 * i];
    }
    lam_picture_free(&picture);
}

static void windows(void **state) {
    (void)state;
    uint8_t grey[1000];
    float plane[1000];
    for (int i = 0; i < 1000; i++) plane[i] = (float)i;
    composite(plane, 100, 10, grey);
    assert_int_equal(grey[0], 0);
    assert_int_equal(grey[999], 255);
    assert_in_range(grey[500], 122, 132);
    plane[3] = 1e30f; /* one hot pixel takes nothing from the rest */
    for (int i = 0; i < 1000; i++)
        if (i != 3) plane[i] = i % 2 ? 1.0f : 0.0f;
    plane[5] = NAN, plane[7] = INFINITY, plane[8] = -INFINITY;
    composite(plane, 100, 10, grey);
    assert_int_equal(grey[5], 0);
    assert_int_equal(grey[7], 255);
    assert_int_equal(grey[8], 0);
    for (int i = 0; i < 1000; i++) plane[i] = i % 2 ? FLT_MAX : -FLT_MAX; /* the range is above FLT_MAX */
    composite(plane, 100, 10, grey);
    assert_int_equal(grey[0], 0);
    for (int i = 0; i < 1000; i++) plane[i] = 7; /* flat */
    composite(plane, 100, 10, grey);
    assert_int_equal(grey[17], 0);
    for (int i = 0; i < 1000; i++) plane[i] = NAN;
    composite(plane, 100, 10, grey);
    assert_int_equal(grey[17], 0);
}

static void given_window_and_place(void **state) {
    (void)state;
    float planes[2][4] = {{0, 1, 2, 3}, {0, 0, 1, 1}};
    float low[2] = {1, 0}, high[2] = {3, 2};
    lam_picture picture;
    assert_int_equal(lam_picture_create(&picture, 5, 3, 0x0A0B0C), LAM_OK);
    assert_int_equal(lam_picture_composite(&picture, 1, 1, &planes[0][0], 2, 2, 2, low, high), LAM_OK);
    uint32_t colour[2] = {lam_channel_colour(0, 2), lam_channel_colour(1, 2)};
    double share[4][2] = {{0, 0}, {0, 0}, {0.5, 0.5}, {1, 0.5}};
    for (int64_t y = 0; y < 3; y++)
        for (int64_t x = 0; x < 5; x++)
            for (int c = 0; c < 3; c++) {
                int shift = 16 - 8 * c, got = picture.rgb[3 * (y * 5 + x) + c];
                bool inside = x >= 1 && x < 3 && y >= 1;
                double value = 0x0A + c;
                if (inside) {
                    const double *s = share[(y - 1) * 2 + x - 1];
                    value = s[0] * (colour[0] >> shift & 255u) + s[1] * (colour[1] >> shift & 255u);
                }
                assert_true(fabs((value > 255 ? 255 : value) - got) <= 0.5001);
            }
    assert_int_equal(lam_picture_composite(&picture, 4, 1, &planes[0][0], 2, 2, 2, low, high),
                     LAM_ERROR_INTERNAL);
    assert_int_equal(lam_picture_composite(&picture, -1, 0, &planes[0][0], 2, 2, 2, low, high),
                     LAM_ERROR_INTERNAL);
    lam_picture_free(&picture);
    for (int64_t i = 0; i < 6; i++)
        for (int64_t j = 0; j < i; j++)
            assert_int_not_equal(lam_channel_colour(i, 6), lam_channel_colour(j, 6));
}

static void png_reads_back(void **state) {
    (void)state;
    lam_picture picture;
    assert_int_equal(lam_picture_create(&picture, 37, 19, 0xFFFFFF), LAM_OK);
    for (int i = 0; i < 37 * 19 * 3; i++) picture.rgb[i] = (uint8_t)(i * 7 + i / 31);
    uint8_t *bytes;
    size_t size;
    assert_int_equal(lam_picture_encode_png(&picture, &bytes, &size), LAM_OK);
    png_image image = {.version = PNG_IMAGE_VERSION};
    assert_true(png_image_begin_read_from_memory(&image, bytes, size));
    image.format = PNG_FORMAT_RGB;
    uint8_t *pixels = malloc(PNG_IMAGE_SIZE(image));
    assert_int_equal(PNG_IMAGE_SIZE(image), 37 * 19 * 3);
    assert_true(png_image_finish_read(&image, NULL, pixels, 0, NULL));
    assert_memory_equal(pixels, picture.rgb, 37 * 19 * 3);
    free(pixels);
    char path[] = "/tmp/lamella_picture_XXXXXX";
    close(mkstemp(path));
    assert_int_equal(lam_picture_write_png(&picture, path), LAM_OK);
    FILE *file = fopen(path, "rb");
    uint8_t *again = malloc(size + 1);
    assert_int_equal(fread(again, 1, size + 1, file), size);
    assert_memory_equal(again, bytes, size); /* the same picture, the same bytes */
    fclose(file);
    lam_fault_arm(LAM_FAULT_WRITE, 1);
    assert_int_equal(lam_picture_write_png(&picture, path), LAM_ERROR_IO);
    lam_fault_arm(LAM_FAULT_WRITE, 0);
    unlink(path);
    free(again);
    lam_free(bytes);
    for (int64_t n = 1;; n++) {
        lam_fault_arm(LAM_FAULT_ALLOC, n);
        lam_status status = lam_picture_encode_png(&picture, &bytes, &size);
        lam_fault_arm(LAM_FAULT_ALLOC, 0);
        if (status == LAM_OK) break;
        assert_int_equal(status, LAM_ERROR_MEMORY);
    }
    lam_free(bytes);
    lam_picture_free(&picture);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(windows),
        cmocka_unit_test(given_window_and_place),
        cmocka_unit_test(png_reads_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
