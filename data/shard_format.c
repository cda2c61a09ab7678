#include "data/shard_format.h"

#include <string.h>
#include <xxhash.h>
#include <zstd.h>

#include "base/files.h"
#include "base/memory.h"

const char lam_shard_magic[9] = "LAMSHARD";

/* What makes a damaged index small enough to unpack: Zstandard does not reach this ratio on anything we
 * store. */
enum { MAX_RATIO = 1 << 15 };

lam_status lam_shard_footer_parse(const unsigned char *header, const unsigned char *footer,
                                  uint64_t file_bytes, const char *name, uint64_t *index_offset,
                                  uint64_t *index_bytes) {
    LAM_REQUIRE(memcmp(header, lam_shard_magic, 8) == 0, LAM_ERROR_FORMAT,
                "%s: not a shard (no LAMSHARD at its start)", name);
    uint64_t version = lam_get_le(header + 8, 4);
    LAM_REQUIRE(version == LAM_SHARD_VERSION, LAM_ERROR_FORMAT,
                "%s: shard version %llu; this program reads version %d", name, (unsigned long long)version,
                LAM_SHARD_VERSION);
    LAM_REQUIRE(memcmp(footer + 40, lam_shard_magic, 8) == 0, LAM_ERROR_FORMAT,
                "%s: cut short (no LAMSHARD at its end): pack it again", name);
    unsigned char guarded[LAM_SHARD_HEADER_BYTES + 32];
    memcpy(guarded, header, LAM_SHARD_HEADER_BYTES);
    memcpy(guarded + LAM_SHARD_HEADER_BYTES, footer, 32);
    LAM_REQUIRE(XXH64(guarded, sizeof guarded, 0) == lam_get_le(footer + 32, 8) &&
                    lam_get_le(header + 12, 4) == LAM_SHARD_HEADER_BYTES,
                LAM_ERROR_FORMAT, "%s: damaged header or footer: pack it again", name);
    *index_offset = lam_get_le(footer, 8);
    *index_bytes = lam_get_le(footer + 8, 8);
    uint64_t end = file_bytes - LAM_SHARD_FOOTER_BYTES;
    LAM_REQUIRE(*index_offset >= LAM_SHARD_HEADER_BYTES && *index_offset <= end &&
                    *index_bytes == end - *index_offset,
                LAM_ERROR_FORMAT, "%s: the index lies outside of the file", name);
    return LAM_OK;
}

typedef struct cursor {
    const unsigned char *at, *end;
    const char *name;
} cursor;

/* The next count * size bytes. */
static lam_status take(cursor *c, uint64_t count, uint64_t size, const unsigned char **out) {
    uint64_t bytes = 0;
    LAM_REQUIRE(!__builtin_mul_overflow(count, size, &bytes) && bytes <= (uint64_t)(c->end - c->at),
                LAM_ERROR_FORMAT, "%s: damaged index: it ends too early", c->name);
    *out = c->at;
    c->at += bytes;
    return LAM_OK;
}

static lam_status parse_frames(lam_shard_index *x, cursor *c, uint64_t frames_end) {
    const unsigned char *at = NULL;
    LAM_TRY(take(c, (uint64_t)x->frames, LAM_SHARD_FRAME_BYTES, &at));
    LAM_TRY(lam_alloc_array((void **)&x->frame, x->frames, sizeof *x->frame));
    for (int64_t f = 0; f < x->frames; f++, at += LAM_SHARD_FRAME_BYTES) {
        lam_shard_frame *frame = &x->frame[f];
        *frame = (lam_shard_frame){.offset = lam_get_le(at, 8),
                                   .bytes = (uint32_t)lam_get_le(at + 8, 4),
                                   .codec = at[12],
                                   .pixel_bytes = at[13],
                                   .hash = lam_get_le(at + 16, 8)};
        LAM_REQUIRE(frame->offset >= LAM_SHARD_HEADER_BYTES && frame->offset <= frames_end &&
                        frame->bytes <= frames_end - frame->offset,
                    LAM_ERROR_FORMAT, "%s: damaged index: frame %lld lies outside of the file", c->name,
                    (long long)f);
        LAM_REQUIRE(frame->bytes <= LAM_SHARD_MAX_FRAME, LAM_ERROR_FORMAT,
                    "%s: damaged index: frame %lld has %u bytes", c->name, (long long)f, frame->bytes);
        LAM_REQUIRE(
            frame->codec == LAM_CODEC_RAW || frame->codec == frame->pixel_bytes, LAM_ERROR_FORMAT,
            "%s: frame %lld has codec %d, which this program does not know for %d-bit pixels: pack it again",
            c->name, (long long)f, frame->codec, 8 * frame->pixel_bytes);
    }
    return LAM_OK;
}

/* Sizes and presence say how many frames there are and of which type each is. */
static lam_status check_images(lam_shard_index *x, const unsigned char *sizes, const char *name) {
    int64_t frame = 0;
    for (int64_t i = 0; i < x->images; i++) {
        uint64_t height = lam_get_le(sizes + 8 * i, 4), width = lam_get_le(sizes + 8 * i + 4, 4);
        LAM_REQUIRE(height >= 1 && width >= 1 && height <= LAM_SHARD_MAX_SIDE && width <= LAM_SHARD_MAX_SIDE,
                    LAM_ERROR_FORMAT, "%s: damaged index: image %lld is %llu x %llu", name, (long long)i,
                    (unsigned long long)height, (unsigned long long)width);
        x->heights[i] = (uint32_t)height;
        x->widths[i] = (uint32_t)width;
        x->first_frame[i] = frame;
        int64_t tiles = lam_shard_tiles((int64_t)height) * lam_shard_tiles((int64_t)width);
        for (int64_t c = 0; c < x->channels; c++) {
            uint8_t bytes = x->present[i * x->channels + c];
            LAM_REQUIRE(bytes <= 2, LAM_ERROR_FORMAT, "%s: damaged index: pixel type %d", name, bytes);
            if (bytes == 0) continue;
            LAM_REQUIRE(tiles <= x->frames - frame, LAM_ERROR_FORMAT, "%s: damaged index: too few frames",
                        name);
            for (int64_t t = 0; t < tiles; t++, frame++)
                LAM_REQUIRE(x->frame[frame].pixel_bytes == bytes, LAM_ERROR_FORMAT,
                            "%s: damaged index: frame %lld is of another pixel type", name, (long long)frame);
        }
    }
    LAM_REQUIRE(frame == x->frames, LAM_ERROR_FORMAT, "%s: damaged index: %lld frames too many", name,
                (long long)(x->frames - frame));
    return LAM_OK;
}

static lam_status take_texts(char **at, const char *end, int64_t count, const char ***out, const char *name) {
    LAM_TRY(lam_alloc_array((void **)out, count, sizeof **out));
    for (int64_t i = 0; i < count; i++) {
        char *stop = *at < end ? memchr(*at, 0, (size_t)(end - *at)) : NULL;
        LAM_REQUIRE(stop != NULL, LAM_ERROR_FORMAT, "%s: damaged index: texts are missing", name);
        (*out)[i] = *at;
        *at = stop + 1;
    }
    return LAM_OK;
}

static lam_status parse_texts(lam_shard_index *x, cursor *c, uint64_t bytes) {
    const unsigned char *from = NULL;
    LAM_TRY(take(c, bytes, 1, &from));
    LAM_REQUIRE(c->at == c->end, LAM_ERROR_FORMAT, "%s: damaged index: bytes after its end", c->name);
    uint64_t wanted = 0;
    LAM_REQUIRE(!__builtin_mul_overflow((uint64_t)x->columns, (uint64_t)x->images, &wanted) &&
                    wanted <= bytes,
                LAM_ERROR_FORMAT, "%s: damaged index: texts are missing", c->name);
    LAM_TRY(lam_alloc((void **)&x->texts, bytes));
    memcpy(x->texts, from, bytes);
    char *at = x->texts, *end = x->texts + bytes;
    LAM_TRY(take_texts(&at, end, x->channels, &x->channel_names, c->name));
    LAM_TRY(take_texts(&at, end, x->columns, &x->column_names, c->name));
    LAM_TRY(take_texts(&at, end, x->plates, &x->plate_names, c->name));
    LAM_TRY(take_texts(&at, end, x->columns * x->images, &x->cells, c->name));
    LAM_REQUIRE(at == end, LAM_ERROR_FORMAT, "%s: damaged index: texts after its end", c->name);
    return LAM_OK;
}

lam_status lam_shard_index_parse_plain(lam_shard_index *out, const unsigned char *plain, size_t size,
                                       uint64_t frames_end, const char *name) {
    cursor c = {plain, plain + size, name};
    const unsigned char *fixed = NULL, *maxima = NULL, *present = NULL, *sizes = NULL, *sums = NULL;
    lam_shard_index *x = out;
    LAM_TRY(take(&c, LAM_SHARD_INDEX_FIXED_BYTES, 1, &fixed));
    uint64_t channels = lam_get_le(fixed, 4), columns = lam_get_le(fixed + 4, 4),
             images = lam_get_le(fixed + 8, 8);
    uint64_t frames = lam_get_le(fixed + 16, 8), plates = lam_get_le(fixed + 24, 8),
             row = lam_get_le(fixed + 32, 8);
    /* No count can exceed the bytes of the index: each counted thing has at least one. */
    LAM_REQUIRE(channels >= 1 && channels <= LAM_SHARD_MAX_CHANNELS && columns <= LAM_SHARD_MAX_COLUMNS &&
                    images >= 1 && images <= size && frames <= size && plates <= size && row <= INT64_MAX / 2,
                LAM_ERROR_FORMAT, "%s: damaged index: %llu images of %llu channels", name,
                (unsigned long long)images, (unsigned long long)channels);
    x->channels = (int64_t)channels;
    x->columns = (int64_t)columns;
    x->images = (int64_t)images;
    x->frames = (int64_t)frames;
    x->plates = (int64_t)plates;
    x->first_row = (int64_t)row;
    x->slice_hash = lam_get_le(fixed + 40, 8);
    LAM_TRY(take(&c, channels, 4, &maxima));
    LAM_TRY(take(&c, images * channels, 1, &present));
    LAM_TRY(take(&c, images, 8, &sizes));
    LAM_TRY(parse_frames(x, &c, frames_end));
    LAM_TRY(take(&c, plates * channels, LAM_SUMS_BYTES, &sums));
    LAM_TRY(parse_texts(x, &c, lam_get_le(fixed + 48, 8)));
    LAM_TRY(lam_alloc_array((void **)&x->channel_maximum, x->channels, sizeof *x->channel_maximum));
    LAM_TRY(lam_alloc_array((void **)&x->present, x->images * x->channels, 1));
    LAM_TRY(lam_alloc_array((void **)&x->heights, x->images, sizeof *x->heights));
    LAM_TRY(lam_alloc_array((void **)&x->widths, x->images, sizeof *x->widths));
    LAM_TRY(lam_alloc_array((void **)&x->first_frame, x->images, sizeof *x->first_frame));
    LAM_TRY(lam_alloc_array((void **)&x->sums, x->plates * x->channels, sizeof *x->sums));
    for (int64_t i = 0; i < x->channels; i++) {
        x->channel_maximum[i] = (uint32_t)lam_get_le(maxima + 4 * i, 4);
        LAM_REQUIRE(x->channel_maximum[i] <= 65535, LAM_ERROR_FORMAT, "%s: damaged index: a pixel of %u",
                    name, x->channel_maximum[i]);
    }
    memcpy(x->present, present, images * channels);
    for (int64_t i = 0; i < x->plates * x->channels; i++)
        lam_sums_load(&x->sums[i], sums + LAM_SUMS_BYTES * i);
    return check_images(x, sizes, name);
}

lam_status lam_shard_index_parse(lam_shard_index *out, const unsigned char *header,
                                 const unsigned char *footer, const unsigned char *packed,
                                 size_t packed_bytes, uint64_t file_bytes, const char *name) {
    uint64_t offset = 0, bytes = 0, plain_bytes = lam_get_le(footer + 16, 8);
    unsigned char *plain = NULL;
    lam_status status = LAM_OK;
    *out = (lam_shard_index){0};
    LAM_TRY(lam_shard_footer_parse(header, footer, file_bytes, name, &offset, &bytes));
    LAM_REQUIRE(bytes == packed_bytes && XXH64(packed, packed_bytes, 0) == lam_get_le(footer + 24, 8),
                LAM_ERROR_FORMAT, "%s: damaged index (its checksum differs): pack it again", name);
    LAM_REQUIRE(plain_bytes <= LAM_SHARD_MAX_INDEX && plain_bytes / MAX_RATIO <= packed_bytes,
                LAM_ERROR_FORMAT, "%s: damaged footer: an index of %llu bytes", name,
                (unsigned long long)plain_bytes);
    LAM_TRY(lam_alloc((void **)&plain, plain_bytes));
    size_t unpacked = ZSTD_decompress(plain, plain_bytes, packed, packed_bytes);
    LAM_REQUIRE_GOTO(!ZSTD_isError(unpacked) && unpacked == plain_bytes, done, LAM_ERROR_FORMAT,
                     "%s: damaged index: %s", name,
                     ZSTD_isError(unpacked) ? ZSTD_getErrorName(unpacked) : "too short");
    LAM_TRY_GOTO(lam_shard_index_parse_plain(out, plain, plain_bytes, offset, name), done);
    out->settings_hash = lam_get_le(header + 16, 8);
    out->hash = lam_get_le(footer + 32, 8);
done:
    lam_free(plain);
    return status;
}

lam_status lam_shard_index_read(lam_shard_index *out, const char *path) {
    unsigned char header[LAM_SHARD_HEADER_BYTES], footer[LAM_SHARD_FOOTER_BYTES], *packed = NULL;
    uint64_t offset = 0, bytes = 0;
    lam_reader *reader = NULL;
    lam_status status = LAM_OK;
    *out = (lam_shard_index){0};
    LAM_TRY(lam_reader_open(&reader, path));
    uint64_t size = lam_reader_size(reader);
    LAM_REQUIRE_GOTO(size >= sizeof header + sizeof footer, done, LAM_ERROR_FORMAT,
                     "%s: not a shard (%llu bytes): pack it again", path, (unsigned long long)size);
    LAM_TRY_GOTO(lam_reader_at(reader, 0, header, sizeof header), done);
    LAM_TRY_GOTO(lam_reader_at(reader, size - sizeof footer, footer, sizeof footer), done);
    LAM_TRY_GOTO(lam_shard_footer_parse(header, footer, size, path, &offset, &bytes), done);
    LAM_TRY_GOTO(lam_alloc((void **)&packed, bytes), done);
    LAM_TRY_GOTO(lam_reader_at(reader, offset, packed, bytes), done);
    LAM_TRY_GOTO(lam_shard_index_parse(out, header, footer, packed, bytes, size, path), done);
done:
    lam_free(packed);
    lam_reader_close(&reader);
    return status;
}

lam_status lam_shard_frames_check(const lam_shard_index *x, const char *path) {
    lam_reader *reader = NULL;
    unsigned char *stored = NULL;
    lam_status status = LAM_OK;
    LAM_TRY(lam_reader_open(&reader, path));
    LAM_TRY_GOTO(lam_alloc((void **)&stored, LAM_SHARD_MAX_FRAME), done);
    for (int64_t f = 0; f < x->frames; f++) {
        LAM_TRY_GOTO(lam_reader_at(reader, x->frame[f].offset, stored, x->frame[f].bytes), done);
        LAM_REQUIRE_GOTO(XXH64(stored, x->frame[f].bytes, 0) == x->frame[f].hash, done, LAM_ERROR_FORMAT,
                         "%s: damaged frame %lld (its checksum differs)", path, (long long)f);
    }
done:
    lam_free(stored);
    lam_reader_close(&reader);
    return status;
}

void lam_shard_index_free(lam_shard_index *x) {
    lam_free(x->channel_maximum);
    lam_free(x->present);
    lam_free(x->heights);
    lam_free(x->widths);
    lam_free(x->first_frame);
    lam_free(x->frame);
    lam_free(x->sums);
    lam_free(x->texts);
    lam_free(x->channel_names);
    lam_free(x->column_names);
    lam_free(x->plate_names);
    lam_free(x->cells);
    *x = (lam_shard_index){0};
}

int lam_plate_column(const lam_table *table) {
    static const char *const names[] = {"plate", "Metadata_Plate", "batch"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        int column = lam_table_column(table, names[i]);
        if (column >= 0) return column;
    }
    return -1;
}

bool lam_group_columns(const lam_table *table, int columns[2]) {
    columns[0] = lam_table_column(table, "plate");
    if (columns[0] < 0) columns[0] = lam_table_column(table, "Metadata_Plate");
    columns[1] = lam_table_column(table, "well");
    if (columns[1] < 0) columns[1] = lam_table_column(table, "Metadata_Well");
    return columns[0] >= 0 && columns[1] >= 0;
}

const lam_shard_frame *lam_shard_frames_of(const lam_shard_index *index, int64_t image, int64_t channel) {
    const uint8_t *present = index->present + image * index->channels;
    int64_t tiles = lam_shard_tiles(index->heights[image]) * lam_shard_tiles(index->widths[image]),
            before = 0;
    for (int64_t c = 0; c < channel; c++) before += present[c] != 0;
    return index->frame + index->first_frame[image] + before * tiles;
}

static void undo_delta8(uint8_t *pixels, int64_t height, int64_t width) {
    for (int64_t y = 0; y < height; y++) {
        uint8_t *row = pixels + y * width;
        for (int64_t x = 1; x < width; x++) row[x] = (uint8_t)(row[x] + row[x - 1]);
    }
}

/* `bytes` holds the low bytes of all folded differences, then the high ones. */
static void undo_delta16(uint16_t *pixels, const uint8_t *bytes, int64_t height, int64_t width) {
    int64_t count = height * width;
    for (int64_t i = 0; i < count; i++) {
        uint32_t folded = (uint32_t)bytes[i] | (uint32_t)bytes[count + i] << 8;
        pixels[i] = (uint16_t)(folded >> 1 ^ (0u - (folded & 1)));
    }
    for (int64_t y = 0; y < height; y++) {
        uint16_t *row = pixels + y * width;
        for (int64_t x = 1; x < width; x++) row[x] = (uint16_t)(row[x] + row[x - 1]);
    }
}

lam_status lam_frame_decode_unchecked(const lam_shard_frame *frame, const void *stored, int64_t height,
                                      int64_t width, void *pixels, void *context, const char *name) {
    size_t wanted = (size_t)height * (size_t)width * frame->pixel_bytes;
    if (frame->codec == LAM_CODEC_RAW) {
        LAM_REQUIRE(frame->bytes == wanted, LAM_ERROR_FORMAT, "%s: a frame of %u bytes where %zu are due",
                    name, frame->bytes, wanted);
        memcpy(pixels, stored, wanted);
        return LAM_OK;
    }
    uint8_t split[LAM_SHARD_MAX_FRAME];
    void *to = frame->codec == LAM_CODEC_DELTA16 ? (void *)split : pixels;
    size_t got = ZSTD_decompressDCtx(context, to, wanted, stored, frame->bytes);
    LAM_REQUIRE(!ZSTD_isError(got) && got == wanted, LAM_ERROR_FORMAT, "%s: damaged frame: %s", name,
                ZSTD_isError(got) ? ZSTD_getErrorName(got) : "too few pixels");
    if (frame->codec == LAM_CODEC_DELTA16)
        undo_delta16(pixels, split, height, width);
    else
        undo_delta8(pixels, height, width);
    return LAM_OK;
}

lam_status lam_frame_decode(const lam_shard_frame *frame, const void *stored, int64_t height, int64_t width,
                            void *pixels, void *context, const char *name) {
    LAM_REQUIRE(XXH64(stored, frame->bytes, 0) == frame->hash, LAM_ERROR_FORMAT,
                "%s: damaged frame (its checksum differs)", name);
    return lam_frame_decode_unchecked(frame, stored, height, width, pixels, context, name);
}
