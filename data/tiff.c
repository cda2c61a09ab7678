/* TIFF 6.0 and BigTIFF through libtiff: pages, samples, strips, tiles, with the axes of OME-XML or ImageJ.
 * libtiff's messages stay with the handle that made them and never reach the terminal. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tiffio.h>

#include "base/memory.h"
#include "data/image.h"

enum { MAX_PAGES = 65535, MOST_RATIO = 20000 };

typedef struct source {
    const char *bytes;
    uint64_t size, at;
    char message[200];
} source;

static tmsize_t on_read(thandle_t handle, void *to, tmsize_t size) {
    source *s = handle;
    uint64_t left = s->at < s->size ? s->size - s->at : 0,
             take = (uint64_t)size < left ? (uint64_t)size : left;
    if (take > 0) memcpy(to, s->bytes + s->at, take);
    s->at += take;
    return (tmsize_t)take;
}

static tmsize_t on_write(thandle_t handle, void *from, tmsize_t size) {
    (void)handle;
    (void)from;
    (void)size;
    return 0;
}

static toff_t on_seek(thandle_t handle, toff_t offset, int whence) {
    source *s = handle;
    s->at = whence == SEEK_SET ? offset : whence == SEEK_CUR ? s->at + offset : s->size + offset;
    return s->at;
}

static int on_close(thandle_t handle) {
    (void)handle;
    return 0;
}

static toff_t on_size(thandle_t handle) { return ((source *)handle)->size; }

static int on_error(TIFF *tiff, void *user, const char *module, const char *format, va_list list) {
    (void)tiff;
    (void)module;
    source *s = user;
    if (s->message[0] != 0) return 1;
    vsnprintf(s->message, sizeof s->message, format, list);
    /* libtiff counts no rows where it reads a strip whole, and prints -1 as if it were one. */
    static const char no_row[] = " at scanline 4294967295";
    char *at = strstr(s->message, no_row);
    if (at != NULL) memmove(at, at + sizeof no_row - 1, strlen(at + sizeof no_row - 1) + 1);
    return 1;
}

static int on_warning(TIFF *tiff, void *user, const char *module, const char *format, va_list list) {
    (void)tiff;
    (void)user;
    (void)module;
    (void)format;
    (void)list;
    return 1;
}

typedef struct page {
    uint32_t height, width;
    uint16_t bits, samples, planar;
    bool alpha;
} page;

typedef struct axes {
    int64_t channels, depth, times;
    bool depth_first; /* Z changes faster than C */
    bool known;
} axes;

static lam_status read_page(TIFF *tiff, page *p, const char *name) {
    uint16_t format = SAMPLEFORMAT_UINT, photometric = PHOTOMETRIC_MINISBLACK, extras = 0, *extra = NULL;
    *p = (page){0};
    LAM_REQUIRE(TIFFGetField(tiff, TIFFTAG_IMAGEWIDTH, &p->width) &&
                    TIFFGetField(tiff, TIFFTAG_IMAGELENGTH, &p->height),
                LAM_ERROR_FORMAT, "%s: damaged TIFF: a page without width or height", name);
    TIFFGetFieldDefaulted(tiff, TIFFTAG_BITSPERSAMPLE, &p->bits);
    TIFFGetFieldDefaulted(tiff, TIFFTAG_SAMPLESPERPIXEL, &p->samples);
    TIFFGetFieldDefaulted(tiff, TIFFTAG_PLANARCONFIG, &p->planar);
    TIFFGetFieldDefaulted(tiff, TIFFTAG_SAMPLEFORMAT, &format);
    TIFFGetField(tiff, TIFFTAG_PHOTOMETRIC, &photometric);
    TIFFGetFieldDefaulted(tiff, TIFFTAG_EXTRASAMPLES, &extras, &extra);
    LAM_REQUIRE(format == SAMPLEFORMAT_UINT || format == SAMPLEFORMAT_VOID, LAM_ERROR_FORMAT,
                "%s: %s pixels; 8- and 16-bit unsigned ones can be packed: convert it", name,
                format == SAMPLEFORMAT_IEEEFP ? "floating-point" : "signed or complex");
    LAM_REQUIRE(p->bits == 8 || p->bits == 16, LAM_ERROR_FORMAT,
                "%s: pixels of %d bits; 8- and 16-bit unsigned ones can be packed: convert it", name,
                p->bits);
    LAM_REQUIRE(photometric <= PHOTOMETRIC_RGB, LAM_ERROR_FORMAT,
                "%s: its pixels are a palette, YCbCr or another colour space (%d): convert it to grey or RGB",
                name, photometric);
    p->alpha = photometric == PHOTOMETRIC_RGB && extras == 1 && p->samples == 4 && extra != NULL &&
               (extra[0] == EXTRASAMPLE_ASSOCALPHA || extra[0] == EXTRASAMPLE_UNASSALPHA);
    return LAM_OK;
}

/* An attribute of the first <Pixels> element of OME-XML. */
static bool xml_attribute(const char *element, const char *end, const char *key, char *value, size_t room) {
    size_t length = strlen(key);
    for (const char *at = element; at + length + 2 < end; at++) {
        if ((at[-1] != ' ' && at[-1] != '\n' && at[-1] != '\t') || strncmp(at, key, length) != 0 ||
            at[length] != '=')
            continue;
        char quote = at[length + 1];
        const char *from = at + length + 2, *stop = memchr(from, quote, (size_t)(end - from));
        if ((quote != '"' && quote != '\'') || stop == NULL || (size_t)(stop - from) >= room) return false;
        memcpy(value, from, (size_t)(stop - from));
        value[stop - from] = 0;
        return true;
    }
    return false;
}

static int64_t count_after(const char *text, const char *key) {
    const char *at = strstr(text, key);
    return at != NULL ? strtoll(at + strlen(key), NULL, 10) : 1;
}

static lam_status read_axes(const char *description, axes *a, const char *name) {
    *a = (axes){.channels = 1, .depth = 1, .times = 1};
    const char *pixels = description != NULL ? strstr(description, "<Pixels ") : NULL;
    if (pixels == NULL) pixels = description != NULL ? strstr(description, "<OME:Pixels ") : NULL;
    if (pixels != NULL) {
        char c[24] = "1", z[24] = "1", t[24] = "1", order[24] = "XYCZT";
        const char *end = strchr(pixels, '>');
        if (end == NULL) end = pixels + strlen(pixels);
        LAM_REQUIRE(xml_attribute(pixels + 1, end, "SizeC", c, sizeof c) &&
                        xml_attribute(pixels + 1, end, "SizeZ", z, sizeof z) &&
                        xml_attribute(pixels + 1, end, "DimensionOrder", order, sizeof order),
                    LAM_ERROR_FORMAT, "%s: damaged OME-XML: SizeC, SizeZ or DimensionOrder is missing", name);
        xml_attribute(pixels + 1, end, "SizeT", t, sizeof t);
        const char *of_c = strchr(order, 'C'), *of_z = strchr(order, 'Z');
        LAM_REQUIRE(of_c != NULL && of_z != NULL, LAM_ERROR_FORMAT,
                    "%s: damaged OME-XML: DimensionOrder '%s'", name, order);
        *a = (axes){strtoll(c, NULL, 10), strtoll(z, NULL, 10), strtoll(t, NULL, 10), of_z < of_c, true};
    } else if (description != NULL && strncmp(description, "ImageJ=", 7) == 0 &&
               strstr(description, "images=") != NULL) {
        *a = (axes){count_after(description, "\nchannels="), count_after(description, "\nslices="),
                    count_after(description, "\nframes="), false, true};
    }
    LAM_REQUIRE(a->channels >= 1 && a->depth >= 1 && a->channels <= MAX_PAGES && a->depth <= MAX_PAGES,
                LAM_ERROR_FORMAT, "%s: damaged axes: %lld channels, %lld planes in Z", name,
                (long long)a->channels, (long long)a->depth);
    LAM_REQUIRE(a->times == 1, LAM_ERROR_INPUT, "%s: %lld time points; pack one image a time point", name,
                (long long)a->times);
    return LAM_OK;
}

/* Copies part of a chunk (strip or tile, rows of `row_samples` samples) into the planes. */
static void place(lam_image *image, int64_t channel, const void *chunk, int64_t row_pixels, int64_t step,
                  int64_t sample, int64_t y, int64_t x, int64_t rows, int64_t columns) {
    int64_t plane = image->height * image->width;
    for (int64_t r = 0; r < rows; r++) {
        int64_t from = r * row_pixels * step + sample, to = channel * plane + (y + r) * image->width + x;
        if (image->type == LAM_PIXEL_U8) {
            const uint8_t *f = (const uint8_t *)chunk + from;
            uint8_t *t = (uint8_t *)image->pixels + to;
            for (int64_t i = 0; i < columns; i++) t[i] = f[i * step];
        } else {
            const uint16_t *f = (const uint16_t *)chunk + from;
            uint16_t *t = (uint16_t *)image->pixels + to;
            for (int64_t i = 0; i < columns; i++) t[i] = f[i * step];
        }
    }
}

/* Samples `first`.. of the page go to the channels `channel`.. of the image. */
static lam_status read_chunks(TIFF *tiff, const page *p, lam_image *image, int64_t channel, int64_t samples,
                              const source *s, const char *name) {
    bool tiled = TIFFIsTiled(tiff) != 0;
    uint32_t chunk_width = p->width, chunk_height = p->height;
    if (tiled) {
        LAM_REQUIRE(TIFFGetField(tiff, TIFFTAG_TILEWIDTH, &chunk_width) &&
                        TIFFGetField(tiff, TIFFTAG_TILELENGTH, &chunk_height),
                    LAM_ERROR_FORMAT, "%s: damaged TIFF: tiles without a size", name);
    } else {
        TIFFGetFieldDefaulted(tiff, TIFFTAG_ROWSPERSTRIP, &chunk_height);
        if (chunk_height > p->height) chunk_height = p->height;
    }
    int64_t step = p->planar == PLANARCONFIG_SEPARATE ? 1 : p->samples, bytes = 0;
    LAM_REQUIRE(
        chunk_width >= 1 && chunk_height >= 1 &&
            !__builtin_mul_overflow((int64_t)chunk_width * chunk_height, step * (p->bits / 8), &bytes) &&
            (uint64_t)bytes / MOST_RATIO <= s->size &&
            bytes == (int64_t)(tiled ? TIFFTileSize(tiff) : TIFFStripSize(tiff)),
        LAM_ERROR_FORMAT, "%s: damaged TIFF: %s of %u x %u", name, tiled ? "tiles" : "strips", chunk_height,
        chunk_width);
    void *chunk = NULL;
    lam_status status = LAM_OK;
    LAM_TRY(lam_alloc(&chunk, (size_t)bytes));
    int64_t planes = p->planar == PLANARCONFIG_SEPARATE ? samples : 1;
    for (int64_t plane = 0; plane < planes; plane++) {
        for (int64_t y = 0; y < p->height; y += chunk_height) {
            for (int64_t x = 0; x < p->width; x += chunk_width) {
                int64_t rows = p->height - y < chunk_height ? p->height - y : chunk_height;
                int64_t columns = p->width - x < chunk_width ? p->width - x : chunk_width;
                int64_t wanted = tiled ? bytes : rows * chunk_width * step * (p->bits / 8);
                tmsize_t got =
                    tiled ? TIFFReadEncodedTile(
                                tiff, TIFFComputeTile(tiff, (uint32_t)x, (uint32_t)y, 0, (uint16_t)plane),
                                chunk, bytes)
                          : TIFFReadEncodedStrip(tiff, TIFFComputeStrip(tiff, (uint32_t)y, (uint16_t)plane),
                                                 chunk, bytes);
                LAM_REQUIRE_GOTO(got >= wanted, done, LAM_ERROR_FORMAT, "%s: damaged TIFF: %s", name,
                                 s->message[0] ? s->message : "pixels are missing");
                for (int64_t c = 0; c < (planes > 1 ? 1 : samples); c++)
                    place(image, channel + (planes > 1 ? plane : c), chunk, chunk_width, step, c, y, x, rows,
                          columns);
            }
        }
    }
done:
    lam_free(chunk);
    return status;
}

/* Not a thumbnail or a mask. */
static bool is_full_page(TIFF *tiff) {
    uint32_t kind = 0;
    TIFFGetField(tiff, TIFFTAG_SUBFILETYPE, &kind);
    return (kind & (FILETYPE_REDUCEDIMAGE | FILETYPE_MASK)) == 0;
}

/* Pages of the full image, and the first one's properties. */
static lam_status survey(TIFF *tiff, page *first, axes *a, int64_t *pages, const char *name) {
    char *description = NULL;
    *pages = 0;
    do {
        page p;
        if (!is_full_page(tiff)) continue;
        LAM_TRY(read_page(tiff, &p, name));
        if (*pages == 0) {
            *first = p;
            TIFFGetField(tiff, TIFFTAG_IMAGEDESCRIPTION, &description);
            LAM_TRY(read_axes(description, a, name));
        }
        LAM_REQUIRE(
            p.height == first->height && p.width == first->width && p.bits == first->bits &&
                p.samples == first->samples,
            LAM_ERROR_INPUT,
            "%s: page %lld is %u x %u of %d bits, the first %u x %u of %d bits: pages of one image agree",
            name, (long long)*pages + 1, p.height, p.width, p.bits, first->height, first->width, first->bits);
        LAM_REQUIRE(++*pages <= MAX_PAGES, LAM_ERROR_FORMAT, "%s: more than %d pages", name, MAX_PAGES);
    } while (TIFFReadDirectory(tiff));
    LAM_REQUIRE(*pages > 0, LAM_ERROR_FORMAT, "%s: a TIFF without a full page", name);
    return LAM_OK;
}

static lam_status project(lam_image *image, const axes *a, lam_projection projection, const char *name) {
    int64_t plane = image->height * image->width;
    size_t bytes = (size_t)plane * (size_t)image->type;
    LAM_REQUIRE(projection != LAM_PROJECT_NONE, LAM_ERROR_USAGE,
                "%s: %lld planes in Z: say --project max, mean or middle", name, (long long)a->depth);
    void *turned = NULL;
    LAM_TRY(lam_alloc(&turned, bytes * (size_t)a->depth));
    for (int64_t c = 0; c < a->channels; c++) {
        for (int64_t z = 0; z < a->depth; z++) {
            int64_t from = a->depth_first ? c * a->depth + z : z * a->channels + c;
            memcpy((char *)turned + (size_t)z * bytes, (char *)image->pixels + (size_t)from * bytes, bytes);
        }
        lam_planes_project(turned, a->depth, plane, image->type, projection);
        /* With C slowest its planes have been read already; with Z slowest channel c is due at c, read as z =
         * 0. */
        memcpy((char *)image->pixels + (size_t)c * bytes, turned, bytes);
    }
    lam_free(turned);
    image->channels = a->channels;
    return LAM_OK;
}

static lam_status decode(TIFF *tiff, lam_image *out, const source *s, lam_projection projection,
                         const char *name) {
    page first = {0};
    axes a = {0};
    int64_t pages = 0, done = 0;
    LAM_TRY(survey(tiff, &first, &a, &pages, name));
    out->alpha_dropped = first.alpha;
    int64_t samples = first.samples - (first.alpha ? 1 : 0);
    out->channels = pages * samples;
    out->height = first.height;
    out->width = first.width;
    out->type = first.bits == 16 ? LAM_PIXEL_U16 : LAM_PIXEL_U8;
    LAM_REQUIRE(samples >= 1, LAM_ERROR_FORMAT, "%s: damaged TIFF: no samples", name);
    LAM_REQUIRE(!a.known || a.channels * a.depth == out->channels, LAM_ERROR_FORMAT,
                "%s: its axes say %lld channels x %lld planes, but it has %lld: is it one file of several?",
                name, (long long)a.channels, (long long)a.depth, (long long)out->channels);
    LAM_TRY(lam_image_reserve(out, (size_t)s->size, MOST_RATIO, name));
    LAM_REQUIRE(TIFFSetDirectory(tiff, 0), LAM_ERROR_FORMAT, "%s: damaged TIFF: %s", name, s->message);
    do {
        page p;
        if (!is_full_page(tiff)) continue;
        LAM_TRY(read_page(tiff, &p, name));
        LAM_TRY(read_chunks(tiff, &p, out, done++ * samples, samples, s, name));
    } while (done < pages && TIFFReadDirectory(tiff));
    LAM_REQUIRE(done == pages, LAM_ERROR_FORMAT, "%s: damaged TIFF: %s", name, s->message);
    return a.depth > 1 ? project(out, &a, projection, name) : LAM_OK;
}

lam_status lam_tiff_parse(lam_image *out, const char *bytes, size_t size, lam_projection projection,
                          const char *name) {
    source s = {.bytes = bytes, .size = size};
    *out = (lam_image){0};
    TIFFOpenOptions *options = TIFFOpenOptionsAlloc();
    LAM_REQUIRE(options != NULL, LAM_ERROR_MEMORY, "%s: out of memory for TIFF", name);
    TIFFOpenOptionsSetErrorHandlerExtR(options, on_error, &s);
    TIFFOpenOptionsSetWarningHandlerExtR(options, on_warning, &s);
    /* m: no memory mapping (the bytes are in memory already). */
    TIFF *tiff =
        TIFFClientOpenExt(name, "rm", &s, on_read, on_write, on_seek, on_close, on_size, NULL, NULL, options);
    TIFFOpenOptionsFree(options);
    LAM_REQUIRE(tiff != NULL, LAM_ERROR_FORMAT, "%s: damaged TIFF: %s", name,
                s.message[0] ? s.message : "its first directory cannot be read");
    lam_status status = decode(tiff, out, &s, projection, name);
    TIFFClose(tiff);
    if (status != LAM_OK) lam_image_free(out);
    return status;
}
