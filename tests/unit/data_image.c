/* Image readers: files written here by libpng and libtiff (JPEG 2000: golden files of known pixels) are read
 * back bit for bit; damaged ones are one-line errors. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <png.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tiffio.h>
#include <unistd.h>

#include "base/files.h"
#include "base/memory.h"
#include "base/npy.h"
#include "data/image.h"
#include "data/pack_image.h"

static char folder[64];

static const char *in_folder(const char *name) {
    static char path[160];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static uint16_t value(int64_t c, int64_t y, int64_t x, int bits) {
    return (uint16_t)((y * 211 + x * 97 + c * 1009) & ((1 << bits) - 1));
}

static uint16_t got(const lam_image *image, int64_t c, int64_t y, int64_t x) {
    int64_t at = (c * image->height + y) * image->width + x;
    return image->type == LAM_PIXEL_U8 ? ((uint8_t *)image->pixels)[at] : ((uint16_t *)image->pixels)[at];
}

static void check(const char *path, lam_projection projection, int64_t channels, int64_t height,
                  int64_t width, int bits) {
    lam_image image;
    lam_status status = lam_image_read(&image, path, projection);
    if (status != LAM_OK) fail_msg("%s", lam_last_error());
    assert_int_equal(image.channels, channels);
    assert_int_equal(image.height, height);
    assert_int_equal(image.width, width);
    assert_int_equal(image.type, bits > 8 ? LAM_PIXEL_U16 : LAM_PIXEL_U8);
    for (int64_t c = 0; c < channels; c++)
        for (int64_t y = 0; y < height; y++)
            for (int64_t x = 0; x < width; x++) assert_int_equal(got(&image, c, y, x), value(c, y, x, bits));
    lam_image_free(&image);
}

static void refuse(const char *path, lam_projection projection, lam_status wanted, const char *words) {
    lam_image image;
    assert_int_equal(lam_image_read(&image, path, projection), wanted);
    assert_null(image.pixels);
    if (strstr(lam_last_error(), words) == NULL) fail_msg("'%s' lacks '%s'", lam_last_error(), words);
    assert_null(strchr(lam_last_error(), '\n'));
}

/* ---- PNG ---- */

static void write_png(const char *path, int color, int depth, int samples, bool interlaced) {
    enum { HEIGHT = 21, WIDTH = 34 };
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
    png_infop info = png_create_info_struct(png);
    assert_int_equal(setjmp(png_jmpbuf(png)), 0);
    png_init_io(png, file);
    png_set_IHDR(png, info, WIDTH, HEIGHT, depth, color,
                 interlaced ? PNG_INTERLACE_ADAM7 : PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT,
                 PNG_FILTER_TYPE_DEFAULT);
    static png_byte rows[HEIGHT][WIDTH * 8];
    png_bytep pointers[HEIGHT];
    for (int y = 0; y < HEIGHT; y++) {
        pointers[y] = rows[y];
        for (int x = 0; x < WIDTH; x++) {
            for (int c = 0; c < samples; c++) {
                uint16_t v = value(c, y, x, depth == 16 ? 12 : depth);
                if (depth == 16) {
                    rows[y][(x * samples + c) * 2] = (png_byte)(v >> 8);
                    rows[y][(x * samples + c) * 2 + 1] = (png_byte)v;
                } else {
                    rows[y][x * samples + c] = (png_byte)v;
                }
            }
        }
    }
    png_write_info(png, info);
    if (depth < 8) png_set_packing(png);
    png_write_image(png, pointers);
    png_write_end(png, NULL);
    png_destroy_write_struct(&png, &info);
    fclose(file);
}

static void test_png(void **state) {
    (void)state;
    static const struct {
        int color, depth, samples, channels;
    } cases[] = {{PNG_COLOR_TYPE_GRAY, 8, 1, 1},       {PNG_COLOR_TYPE_GRAY, 16, 1, 1},
                 {PNG_COLOR_TYPE_GRAY_ALPHA, 8, 2, 1}, {PNG_COLOR_TYPE_GRAY_ALPHA, 16, 2, 1},
                 {PNG_COLOR_TYPE_RGB, 8, 3, 3},        {PNG_COLOR_TYPE_RGB, 16, 3, 3},
                 {PNG_COLOR_TYPE_RGB_ALPHA, 8, 4, 3},  {PNG_COLOR_TYPE_RGB_ALPHA, 16, 4, 3}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        for (int interlaced = 0; interlaced < 2; interlaced++) {
            write_png(in_folder("a.png"), cases[i].color, cases[i].depth, cases[i].samples, interlaced != 0);
            check(in_folder("a.png"), LAM_PROJECT_NONE, cases[i].channels, 21, 34,
                  cases[i].depth == 16 ? 12 : 8);
            lam_image image;
            assert_int_equal(lam_image_read(&image, in_folder("a.png"), LAM_PROJECT_NONE), LAM_OK);
            assert_int_equal(image.alpha_dropped, cases[i].samples != cases[i].channels);
            lam_image_free(&image);
        }
    }
    /* 1 bit: 0 and 1 stay 0 and 1. */
    write_png(in_folder("bit.png"), PNG_COLOR_TYPE_GRAY, 1, 1, false);
    lam_image image;
    assert_int_equal(lam_image_read(&image, in_folder("bit.png"), LAM_PROJECT_NONE), LAM_OK);
    for (int x = 0; x < 34; x++) assert_int_equal(got(&image, 0, 3, x), value(0, 3, x, 1));
    lam_image_free(&image);
}

/* Cut anywhere, and with bytes changed: an error or an image, never a crash, never a message of two lines. */
static void damage(const char *path, size_t step) {
    char *bytes = NULL;
    size_t size = 0;
    int refused = 0;
    assert_int_equal(lam_file_read(path, &bytes, &size), LAM_OK);
    const char *dot = strrchr(path, '.');
    char target[200];
    snprintf(target, sizeof target, "%s/damaged%s", folder, dot);
    for (size_t cut = 0; cut < size - 20; cut += step) {
        lam_image image;
        assert_int_equal(lam_file_write(target, bytes, cut), LAM_OK);
        lam_status status = lam_image_read(&image, target, LAM_PROJECT_MAX);
        if (status != LAM_OK) assert_non_null(strstr(lam_last_error(), "damaged."));
        refused += status != LAM_OK;
        assert_null(strchr(lam_last_error(), '\n'));
        lam_image_free(&image);
    }
    assert_true(refused > 3);
    for (size_t at = 0; at < size; at += at < 200 ? 1 : step) {
        lam_image image;
        char kept = bytes[at];
        bytes[at] = (char)~bytes[at];
        assert_int_equal(lam_file_write(target, bytes, size), LAM_OK);
        if (lam_image_read(&image, target, LAM_PROJECT_MAX) != LAM_OK)
            assert_null(strchr(lam_last_error(), '\n'));
        lam_image_free(&image);
        bytes[at] = kept;
    }
    lam_free(bytes);
}

static void test_png_damage(void **state) {
    (void)state;
    write_png(in_folder("whole.png"), PNG_COLOR_TYPE_RGB, 16, 3, false);
    damage(in_folder("whole.png"), 97);
    static const char lie[] = "\x89PNG\r\n\x1a\n\0\0\0\rIHDR\x7f\xff\xff\xff\x7f\xff\xff\xff\x10\x02\0\0\0";
    assert_int_equal(lam_file_write(in_folder("lie.png"), lie, sizeof lie), LAM_OK);
    refuse(in_folder("lie.png"), LAM_PROJECT_NONE, LAM_ERROR_FORMAT, "lie.png");
    assert_int_equal(lam_file_write(in_folder("text.png"), "hello", 5), LAM_OK);
    refuse(in_folder("text.png"), LAM_PROJECT_NONE, LAM_ERROR_FORMAT, "convert");
    assert_int_equal(lam_file_write(in_folder("none.png"), "", 0), LAM_OK);
    refuse(in_folder("none.png"), LAM_PROJECT_NONE, LAM_ERROR_FORMAT, "empty");
    refuse(in_folder("nowhere.png"), LAM_PROJECT_NONE, LAM_ERROR_IO, "nowhere.png");
}

/* ---- TIFF ---- */

typedef struct tiff_case {
    const char *mode; /* w, wb (big-endian), wl8 (BigTIFF) */
    int bits, samples, pages, compression, planar, format;
    bool tiled;
    const char *description;
} tiff_case;

enum { T_HEIGHT = 45, T_WIDTH = 83 };

/* Page p, sample s holds the pixels of channel p * samples + s. */
static void write_tiff(const char *path, const tiff_case *k) {
    TIFF *tiff = TIFFOpen(path, k->mode);
    assert_non_null(tiff);
    int bytes = k->bits / 8;
    for (int page = 0; page < k->pages; page++) {
        int planes = k->planar == PLANARCONFIG_SEPARATE ? k->samples : 1, step = k->samples / planes;
        int rows = k->tiled ? 32 : 7, columns = k->tiled ? 48 : T_WIDTH;
        TIFFSetField(tiff, TIFFTAG_IMAGEWIDTH, T_WIDTH);
        TIFFSetField(tiff, TIFFTAG_IMAGELENGTH, T_HEIGHT);
        TIFFSetField(tiff, TIFFTAG_BITSPERSAMPLE, k->bits);
        TIFFSetField(tiff, TIFFTAG_SAMPLESPERPIXEL, k->samples);
        TIFFSetField(tiff, TIFFTAG_PLANARCONFIG, k->planar);
        TIFFSetField(tiff, TIFFTAG_COMPRESSION, k->compression);
        TIFFSetField(tiff, TIFFTAG_SAMPLEFORMAT, k->format);
        TIFFSetField(tiff, TIFFTAG_PHOTOMETRIC, k->samples >= 3 ? PHOTOMETRIC_RGB : PHOTOMETRIC_MINISBLACK);
        if (k->samples == 4) {
            uint16_t extra = EXTRASAMPLE_UNASSALPHA;
            TIFFSetField(tiff, TIFFTAG_EXTRASAMPLES, 1, &extra);
        }
        if (k->tiled) {
            TIFFSetField(tiff, TIFFTAG_TILEWIDTH, columns);
            TIFFSetField(tiff, TIFFTAG_TILELENGTH, rows);
        } else {
            TIFFSetField(tiff, TIFFTAG_ROWSPERSTRIP, rows);
        }
        if (page == 0 && k->description != NULL) TIFFSetField(tiff, TIFFTAG_IMAGEDESCRIPTION, k->description);
        for (int plane = 0; plane < planes; plane++) {
            for (int y = 0; y < T_HEIGHT; y += rows) {
                for (int x = 0; x < T_WIDTH; x += columns) {
                    static unsigned char chunk[32 * 84 * 4 * 4];
                    int height = !k->tiled && T_HEIGHT - y < rows ? T_HEIGHT - y : rows;
                    memset(chunk, 0, sizeof chunk);
                    for (int r = 0; r < height; r++) {
                        for (int i = 0; i < columns * step; i++) {
                            int c = page * k->samples + (planes > 1 ? plane : i % step),
                                at = r * columns * step + i;
                            uint16_t v = value(c, y + r, x + i / step, bytes == 1 ? 8 : 12);
                            if (bytes == 1)
                                chunk[at] = (unsigned char)v;
                            else
                                memcpy(chunk + 2 * at, &v, 2);
                        }
                    }
                    tmsize_t size = (tmsize_t)height * columns * step * bytes;
                    if (k->tiled)
                        assert_true(TIFFWriteEncodedTile(
                                        tiff,
                                        TIFFComputeTile(tiff, (uint32_t)x, (uint32_t)y, 0, (uint16_t)plane),
                                        chunk, size) > 0);
                    else
                        assert_true(
                            TIFFWriteEncodedStrip(tiff, TIFFComputeStrip(tiff, (uint32_t)y, (uint16_t)plane),
                                                  chunk, size) > 0);
                }
            }
        }
        assert_true(TIFFWriteDirectory(tiff));
    }
    TIFFClose(tiff);
}

static void test_tiff(void **state) {
    (void)state;
    static const char *const modes[] = {"wl", "wb", "w8"};
    static const int codecs[] = {COMPRESSION_NONE, COMPRESSION_LZW, COMPRESSION_ADOBE_DEFLATE};
    for (int m = 0; m < 3; m++)
        for (int bits = 8; bits <= 16; bits += 8)
            for (int codec = 0; codec < 3; codec++)
                for (int shape = 0; shape < 8; shape++) {
                    tiff_case k = {modes[m],
                                   bits,
                                   shape & 1 ? 3 : 1,
                                   1 + (shape & 1 ? 0 : 2),
                                   codecs[codec],
                                   shape & 2 ? PLANARCONFIG_SEPARATE : PLANARCONFIG_CONTIG,
                                   SAMPLEFORMAT_UINT,
                                   (shape & 4) != 0,
                                   NULL};
                    write_tiff(in_folder("a.tif"), &k);
                    check(in_folder("a.tif"), LAM_PROJECT_NONE, 3, T_HEIGHT, T_WIDTH, bits == 8 ? 8 : 12);
                }
    tiff_case alpha = {"w", 8, 4, 1, COMPRESSION_NONE, PLANARCONFIG_CONTIG, SAMPLEFORMAT_UINT, false, NULL};
    write_tiff(in_folder("alpha.tif"), &alpha);
    check(in_folder("alpha.tif"), LAM_PROJECT_NONE, 3, T_HEIGHT, T_WIDTH, 8);
}

static void check_projection(const char *description, bool depth_first) {
    /* 2 channels of 3 planes: page -> channel of value(). */
    tiff_case k = {"w",   16,         1, 6, COMPRESSION_LZW, PLANARCONFIG_CONTIG, SAMPLEFORMAT_UINT,
                   false, description};
    write_tiff(in_folder("z.tif"), &k);
    for (int p = LAM_PROJECT_MAX; p <= LAM_PROJECT_MIDDLE; p++) {
        lam_image image;
        if (lam_image_read(&image, in_folder("z.tif"), (lam_projection)p) != LAM_OK)
            fail_msg("%s", lam_last_error());
        assert_int_equal(image.channels, 2);
        for (int c = 0; c < 2; c++)
            for (int y = 0; y < T_HEIGHT; y++)
                for (int x = 0; x < T_WIDTH; x++) {
                    int most = 0, sum = 0, v[3];
                    for (int z = 0; z < 3; z++) {
                        v[z] = value(depth_first ? c * 3 + z : z * 2 + c, y, x, 12);
                        sum += v[z];
                        if (v[z] > most) most = v[z];
                    }
                    int wanted = p == LAM_PROJECT_MAX    ? most
                                 : p == LAM_PROJECT_MEAN ? (2 * sum + 3) / 6
                                                         : v[1];
                    assert_int_equal(got(&image, c, y, x), wanted);
                }
        lam_image_free(&image);
    }
    refuse(in_folder("z.tif"), LAM_PROJECT_NONE, LAM_ERROR_USAGE, "--project");
}

static void test_tiff_axes(void **state) {
    (void)state;
    check_projection("<?xml version=\"1.0\"?><OME><Image><Pixels DimensionOrder=\"XYCZT\" SizeC=\"2\" "
                     "SizeZ=\"3\" SizeT=\"1\" "
                     "SizeX=\"83\" SizeY=\"45\"/></Image></OME>",
                     false);
    check_projection("<?xml version=\"1.0\"?><OME><Image><Pixels ID='a' SizeC='2' SizeZ='3' SizeT='1' "
                     "DimensionOrder='XYZCT'>"
                     "</Pixels></Image></OME>",
                     true);
    check_projection("ImageJ=1.53\nimages=6\nchannels=2\nslices=3\nhyperstack=true\n", false);
    tiff_case k = {"w",
                   16,
                   1,
                   6,
                   COMPRESSION_NONE,
                   PLANARCONFIG_CONTIG,
                   SAMPLEFORMAT_UINT,
                   false,
                   "<OME><Pixels SizeC=\"2\" SizeZ=\"2\" SizeT=\"1\" DimensionOrder=\"XYCZT\"/></OME>"};
    write_tiff(in_folder("z.tif"), &k);
    refuse(in_folder("z.tif"), LAM_PROJECT_MAX, LAM_ERROR_FORMAT, "axes");
    k.description = "<OME><Pixels SizeC=\"2\" SizeZ=\"1\" SizeT=\"3\" DimensionOrder=\"XYCZT\"/></OME>";
    write_tiff(in_folder("z.tif"), &k);
    refuse(in_folder("z.tif"), LAM_PROJECT_MAX, LAM_ERROR_INPUT, "time points");
}

static void test_tiff_refused(void **state) {
    (void)state;
    tiff_case k = {"w", 16, 1, 1, COMPRESSION_NONE, PLANARCONFIG_CONTIG, SAMPLEFORMAT_INT, false, NULL};
    write_tiff(in_folder("signed.tif"), &k);
    refuse(in_folder("signed.tif"), LAM_PROJECT_NONE, LAM_ERROR_FORMAT, "signed");
    TIFF *tiff = TIFFOpen(in_folder("float.tif"), "w");
    float row[4] = {0};
    TIFFSetField(tiff, TIFFTAG_IMAGEWIDTH, 4);
    TIFFSetField(tiff, TIFFTAG_IMAGELENGTH, 1);
    TIFFSetField(tiff, TIFFTAG_BITSPERSAMPLE, 32);
    TIFFSetField(tiff, TIFFTAG_SAMPLEFORMAT, SAMPLEFORMAT_IEEEFP);
    TIFFSetField(tiff, TIFFTAG_PHOTOMETRIC, PHOTOMETRIC_MINISBLACK);
    TIFFSetField(tiff, TIFFTAG_ROWSPERSTRIP, 1);
    assert_true(TIFFWriteEncodedStrip(tiff, 0, row, sizeof row) > 0);
    TIFFClose(tiff);
    refuse(in_folder("float.tif"), LAM_PROJECT_NONE, LAM_ERROR_FORMAT, "floating-point");
    tiff_case whole = {"w", 16, 3, 2, COMPRESSION_LZW, PLANARCONFIG_CONTIG, SAMPLEFORMAT_UINT, true, NULL};
    write_tiff(in_folder("whole.tif"), &whole);
    damage(in_folder("whole.tif"), 997);
}

/* ---- JPEG 2000, NPY, the rest ---- */

static void test_jpeg2000(void **state) {
    (void)state;
    lam_image image;
    assert_int_equal(lam_image_read(&image, LAM_TEST_GOLDEN "/images/grey16.jp2", LAM_PROJECT_NONE), LAM_OK);
    assert_true(image.channels == 1 && image.height == 19 && image.width == 23 &&
                image.type == LAM_PIXEL_U16);
    for (int y = 0; y < 19; y++)
        for (int x = 0; x < 23; x++) assert_int_equal(got(&image, 0, y, x), (y * 211 + x * 97) % 4096);
    lam_image_free(&image);
    assert_int_equal(lam_image_read(&image, LAM_TEST_GOLDEN "/images/grey8.j2k", LAM_PROJECT_NONE), LAM_OK);
    assert_int_equal(image.type, LAM_PIXEL_U8);
    for (int y = 0; y < 19; y++)
        for (int x = 0; x < 23; x++) assert_int_equal(got(&image, 0, y, x), (y * 21 + x * 9) % 256);
    lam_image_free(&image);
    damage(LAM_TEST_GOLDEN "/images/grey16.jp2", 41);
    damage(LAM_TEST_GOLDEN "/images/grey8.j2k", 23);
}

static void test_stacks(void **state) {
    (void)state;
    enum { N = 5, C = 2, H = 6, W = 7 };
    static uint16_t stack[N][C][H][W];
    int64_t shape[4] = {N, C, H, W};
    char small[200], big[200];
    for (int n = 0; n < N; n++)
        for (int c = 0; c < C; c++)
            for (int y = 0; y < H; y++)
                for (int x = 0; x < W; x++) stack[n][c][y][x] = (uint16_t)(value(c, y, x, 12) + n);
    snprintf(big, sizeof big, "%s/stack.npy", folder);
    snprintf(small, sizeof small, "%s/one.npy", folder);
    assert_int_equal(lam_npy_write(big, "u2", 4, shape, stack), LAM_OK);
    assert_int_equal(lam_npy_write(small, "u2", 3, shape + 1, stack), LAM_OK);
    check(small, LAM_PROJECT_NONE, C, H, W, 12);
    lam_stacks *stacks = NULL;
    lam_image image;
    assert_int_equal(lam_stacks_create(&stacks, 10), LAM_OK); /* too small for both: they are read again */
    for (int turn = 0; turn < 3; turn++) {
        for (int n = N - 1; n >= 0; n--) {
            assert_int_equal(lam_stacks_read(stacks, big, n, &image), LAM_OK);
            assert_memory_equal(image.pixels, stack[n], sizeof stack[n]);
            lam_image_free(&image);
        }
        assert_int_equal(lam_stacks_read(stacks, small, -1, &image), LAM_OK);
        lam_image_free(&image);
    }
    assert_int_equal(lam_stacks_read(stacks, big, N, &image), LAM_ERROR_INPUT);
    assert_int_equal(lam_stacks_read(stacks, big, -1, &image), LAM_ERROR_FORMAT);
    assert_non_null(strstr(lam_last_error(), "row"));
    float light[H * W];
    int64_t plane[2] = {H, W};
    for (int i = 0; i < H * W; i++) light[i] = i % 2 == 0 ? 0.5f : 3.0f;
    assert_int_equal(lam_npy_write(small, "f4", 2, plane, light), LAM_OK);
    assert_int_equal(lam_stacks_read(stacks, big, 1, &image), LAM_OK);
    lam_stacks *fresh = NULL;
    assert_int_equal(lam_stacks_create(&fresh, 0), LAM_OK);
    assert_int_equal(lam_stacks_illuminate(fresh, small, &image, 1), LAM_OK);
    for (int i = 0; i < H * W; i++) {
        int v = ((uint16_t *)stack[1][1])[i], wanted = i % 2 == 0 ? 2 * v : (2 * v + 3) / 6;
        assert_int_equal(((uint16_t *)image.pixels)[H * W + i], wanted);
        assert_int_equal(((uint16_t *)image.pixels)[i], ((uint16_t *)stack[1][0])[i]);
    }
    light[3] = 0.0f;
    assert_int_equal(lam_npy_write(in_folder("zero.npy"), "f4", 2, plane, light), LAM_OK);
    assert_int_equal(lam_stacks_illuminate(fresh, in_folder("zero.npy"), &image, 1), LAM_ERROR_INPUT);
    assert_int_equal(lam_stacks_illuminate(fresh, big, &image, 1), LAM_ERROR_INPUT);
    lam_image_free(&image);
    lam_stacks_free(&fresh);
    lam_stacks_free(&stacks);
}

static void test_to_uint8(void **state) {
    (void)state;
    uint16_t pixels[2000];
    const uint8_t *narrow = (const uint8_t *)pixels;
    for (int i = 0; i < 2000; i++) pixels[i] = (uint16_t)(i * 2);
    lam_plane_to_uint8(pixels, 2000, LAM_TO_UINT8_LINEAR, 12);
    for (int i = 0; i < 2000; i++) assert_int_equal(narrow[i], (i * 2 * 255 * 2 + 4095) / (2 * 4095));
    for (int i = 0; i < 2000; i++) pixels[i] = (uint16_t)(i * 30);
    lam_plane_to_uint8(pixels, 2000, LAM_TO_UINT8_PERCENTILE, 16);
    /* The 2nd smallest and the 3rd largest of 2000 are the 0.1 and 99.9 percentiles. */
    for (int i = 0; i < 2000; i++) {
        int v = i < 1 ? 0 : i > 1997 ? 1996 : i - 1;
        assert_int_equal(narrow[i], (v * 30 * 510 + 1996 * 30) / (2 * 1996 * 30));
    }
    for (int i = 0; i < 2000; i++) pixels[i] = 777;
    lam_plane_to_uint8(pixels, 2000, LAM_TO_UINT8_PERCENTILE, 16);
    assert_int_equal(narrow[1000], 0);
}

static int make_folder(void **state) {
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/lamella_image_%d", (int)getpid());
    return lam_make_folders(folder) == LAM_OK ? 0 : -1;
}

static int remove_folder(void **state) {
    (void)state;
    return lam_remove_tree(folder) == LAM_OK ? 0 : -1;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_png),          cmocka_unit_test(test_png_damage),
        cmocka_unit_test(test_tiff),         cmocka_unit_test(test_tiff_axes),
        cmocka_unit_test(test_tiff_refused), cmocka_unit_test(test_jpeg2000),
        cmocka_unit_test(test_stacks),       cmocka_unit_test(test_to_uint8),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
