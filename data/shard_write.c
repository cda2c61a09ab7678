#include "data/shard_write.h"

#include <string.h>
#include <xxhash.h>
#include <zstd.h>

#include "base/memory.h"
#include "data/shard_write_parts.h"

enum { INDEX_LEVEL = 9, DEFAULT_SHARD_BYTES = 256 << 20 };

static bool is_listed(const lam_dataset *d, const char *name) {
    for (int64_t i = 0; i < d->listed_count; i++)
        if (strcmp(d->listed[i], name) == 0) return true;
    return false;
}

uint64_t lam_dataset_slice_hash(const lam_dataset *d, int64_t first, int64_t count) {
    if (d->config.row_hashes == NULL) return 0;
    return XXH64(d->config.row_hashes + first, (size_t)count * sizeof(uint64_t), 0);
}

lam_status lam_dataset_note_done(lam_dataset *d, const done_shard *shard) {
    LAM_TRY(lam_grow((void **)&d->done, (size_t)d->shards * sizeof *d->done,
                     (size_t)(d->shards + 1) * sizeof *d->done));
    d->done[d->shards++] = *shard;
    d->stored_bytes += shard->bytes;
    return LAM_OK;
}

void lam_dataset_note_image(lam_dataset *d, const uint8_t *present, const uint32_t *maximum, int64_t height,
                            int64_t width) {
    for (int64_t c = 0; c < d->config.channels; c++) {
        d->pixel_bytes += (uint64_t)(height * width) * present[c];
        if (present[c] == LAM_PIXEL_U16) d->type = LAM_PIXEL_U16;
        if (maximum != NULL && maximum[c] > d->maximum[c]) d->maximum[c] = maximum[c];
    }
}

/* ---- a shard ---- */

static void open_shard_free(open_shard *o) {
    lam_writer_abort(&o->writer);
    lam_free(o->present);
    lam_free(o->sizes);
    lam_free(o->maximum);
    lam_free(o->frame);
    for (int64_t p = 0; p < o->plate_count; p++) lam_free(o->plates[p].sums);
    lam_free(o->plates);
    *o = (open_shard){0};
}

static lam_status begin_shard(lam_dataset *d) {
    unsigned char header[LAM_SHARD_HEADER_BYTES] = {0};
    char *path = NULL;
    open_shard *o = &d->open;
    memcpy(header, lam_shard_magic, 8);
    lam_put_le(header + 8, LAM_SHARD_VERSION, 4);
    lam_put_le(header + 12, LAM_SHARD_HEADER_BYTES, 4);
    lam_put_le(header + 16, d->config.settings_hash, 8);
    o->first_row = d->images;
    LAM_TRY(lam_alloc_array((void **)&o->maximum, d->config.channels, sizeof *o->maximum));
    lam_shard_name(o->name, d->shards, false);
    if (is_listed(d, o->name)) lam_shard_name(o->name, d->shards, true);
    LAM_TRY(lam_path_join(&path, d->config.folder, o->name));
    lam_status status = lam_writer_open(&o->writer, path);
    lam_free(path);
    if (status != LAM_OK) return status;
    return lam_writer_append(o->writer, header, sizeof header);
}

static lam_status reserve(open_shard *o, int64_t channels, int64_t frames) {
    if (o->images == o->image_capacity) {
        int64_t old = o->image_capacity, larger = old < 64 ? 64 : old * 2;
        LAM_TRY(lam_grow((void **)&o->present, (size_t)(old * channels), (size_t)(larger * channels)));
        LAM_TRY(lam_grow((void **)&o->sizes, (size_t)old * 8, (size_t)larger * 8));
        o->image_capacity = larger;
    }
    if (o->frames + frames > o->frame_capacity) {
        int64_t old = o->frame_capacity, larger = old * 2 > o->frames + frames ? old * 2 : o->frames + frames;
        LAM_TRY(
            lam_grow((void **)&o->frame, (size_t)old * sizeof *o->frame, (size_t)larger * sizeof *o->frame));
        o->frame_capacity = larger;
    }
    return LAM_OK;
}

static lam_status plate_of(lam_dataset *d, const char *name, lam_sums **out) {
    open_shard *o = &d->open;
    /* Rows of a plate mostly stand together: the last one first. */
    for (int64_t p = o->plate_count - 1; p >= 0; p--) {
        if (strcmp(o->plates[p].name, name) == 0) {
            *out = o->plates[p].sums;
            return LAM_OK;
        }
    }
    LAM_TRY(lam_grow((void **)&o->plates, (size_t)o->plate_count * sizeof *o->plates,
                     (size_t)(o->plate_count + 1) * sizeof *o->plates));
    plate_sums *fresh = &o->plates[o->plate_count];
    LAM_TRY(lam_alloc_array((void **)&fresh->sums, d->config.channels, sizeof *fresh->sums));
    fresh->name = name;
    o->plate_count++;
    *out = fresh->sums;
    return LAM_OK;
}

typedef struct bytes {
    unsigned char *at;
    size_t size, capacity;
} bytes;

static lam_status put(bytes *b, const void *from, size_t size) {
    if (b->size + size > b->capacity) {
        size_t larger = b->capacity * 2 > b->size + size ? b->capacity * 2 : b->size + size + 4096;
        LAM_TRY(lam_grow((void **)&b->at, b->capacity, larger));
        b->capacity = larger;
    }
    if (size > 0) memcpy(b->at + b->size, from, size);
    b->size += size;
    return LAM_OK;
}

static lam_status put_le(bytes *b, uint64_t value, int size) {
    unsigned char le[8];
    lam_put_le(le, value, size);
    return put(b, le, (size_t)size);
}

static lam_status put_text(bytes *b, const char *text) { return put(b, text, strlen(text) + 1); }

static lam_status put_texts(bytes *b, const lam_dataset *d) {
    const lam_table *table = d->config.metadata;
    const open_shard *o = &d->open;
    for (int64_t c = 0; c < d->config.channels; c++) LAM_TRY(put_text(b, d->config.channel_names[c]));
    for (int c = 0; c < lam_table_columns(table); c++) LAM_TRY(put_text(b, lam_table_name(table, c)));
    for (int64_t p = 0; p < o->plate_count; p++) LAM_TRY(put_text(b, o->plates[p].name));
    for (int c = 0; c < lam_table_columns(table); c++)
        for (int64_t i = 0; i < o->images; i++)
            LAM_TRY(put_text(b, lam_table_cell(table, o->first_row + i, c)));
    return LAM_OK;
}

static lam_status build_index(bytes *b, const lam_dataset *d) {
    const open_shard *o = &d->open;
    int64_t channels = d->config.channels;
    LAM_TRY(put_le(b, (uint64_t)channels, 4));
    LAM_TRY(put_le(b, (uint64_t)lam_table_columns(d->config.metadata), 4));
    LAM_TRY(put_le(b, (uint64_t)o->images, 8));
    LAM_TRY(put_le(b, (uint64_t)o->frames, 8));
    LAM_TRY(put_le(b, (uint64_t)o->plate_count, 8));
    LAM_TRY(put_le(b, (uint64_t)o->first_row, 8));
    LAM_TRY(put_le(b, lam_dataset_slice_hash(d, o->first_row, o->images), 8));
    LAM_TRY(put_le(b, 0, 8)); /* bytes of the texts, below */
    for (int64_t c = 0; c < channels; c++) LAM_TRY(put_le(b, o->maximum[c], 4));
    LAM_TRY(put(b, o->present, (size_t)(o->images * channels)));
    for (int64_t i = 0; i < 2 * o->images; i++) LAM_TRY(put_le(b, o->sizes[i], 4));
    for (int64_t f = 0; f < o->frames; f++) {
        const lam_shard_frame *frame = &o->frame[f];
        LAM_TRY(put_le(b, frame->offset, 8));
        LAM_TRY(put_le(b, frame->bytes, 4));
        LAM_TRY(put_le(b, frame->codec, 1));
        LAM_TRY(put_le(b, frame->pixel_bytes, 1));
        LAM_TRY(put_le(b, 0, 2));
        LAM_TRY(put_le(b, frame->hash, 8));
    }
    for (int64_t p = 0; p < o->plate_count; p++) {
        for (int64_t c = 0; c < channels; c++) {
            unsigned char stored[LAM_SUMS_BYTES];
            lam_sums_store(&o->plates[p].sums[c], stored);
            LAM_TRY(put(b, stored, sizeof stored));
        }
    }
    size_t before = b->size;
    LAM_TRY(put_texts(b, d));
    lam_put_le(b->at + 48, b->size - before, 8);
    LAM_REQUIRE(b->size <= LAM_SHARD_MAX_INDEX, LAM_ERROR_INPUT,
                "%s: a shard with an index over 2 GiB: choose a smaller --shard-size", d->config.folder);
    return LAM_OK;
}

static lam_status end_shard(lam_dataset *d) {
    bytes plain = {0};
    unsigned char *packed = NULL, guarded[LAM_SHARD_HEADER_BYTES + 32] = {0}, footer[LAM_SHARD_FOOTER_BYTES];
    open_shard *o = &d->open;
    done_shard done = {.images = o->images};
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(build_index(&plain, d), done);
    size_t bound = ZSTD_compressBound(plain.size);
    LAM_TRY_GOTO(lam_alloc((void **)&packed, bound), done);
    size_t size = ZSTD_compress(packed, bound, plain.at, plain.size, INDEX_LEVEL);
    LAM_REQUIRE_GOTO(!ZSTD_isError(size), done, LAM_ERROR_EXTERNAL, "%s: Zstandard: %s", d->config.folder,
                     ZSTD_getErrorName(size));
    memcpy(guarded, lam_shard_magic, 8);
    lam_put_le(guarded + 8, LAM_SHARD_VERSION, 4);
    lam_put_le(guarded + 12, LAM_SHARD_HEADER_BYTES, 4);
    lam_put_le(guarded + 16, d->config.settings_hash, 8);
    lam_put_le(footer, lam_writer_position(o->writer), 8);
    lam_put_le(footer + 8, size, 8);
    lam_put_le(footer + 16, plain.size, 8);
    lam_put_le(footer + 24, XXH64(packed, size, 0), 8);
    memcpy(guarded + LAM_SHARD_HEADER_BYTES, footer, 32);
    done.hash = XXH64(guarded, sizeof guarded, 0);
    lam_put_le(footer + 32, done.hash, 8);
    memcpy(footer + 40, lam_shard_magic, 8);
    LAM_TRY_GOTO(lam_writer_append(o->writer, packed, size), done);
    LAM_TRY_GOTO(lam_writer_append(o->writer, footer, sizeof footer), done);
    done.bytes = lam_writer_position(o->writer);
    LAM_TRY_GOTO(lam_writer_commit(&o->writer), done);
    memcpy(done.name, o->name, sizeof done.name);
    LAM_TRY_GOTO(lam_dataset_note_done(d, &done), done);
    open_shard_free(o);
done:
    lam_free(plain.at);
    lam_free(packed);
    return status;
}

lam_status lam_dataset_add(lam_dataset *d, const lam_encoded_image *image) {
    open_shard *o = &d->open;
    lam_sums *sums = NULL;
    LAM_REQUIRE(image->channels == d->config.channels && d->images < lam_table_rows(d->config.metadata),
                LAM_ERROR_INTERNAL, "%s: an image of %lld channels as number %lld", d->config.folder,
                (long long)image->channels, (long long)d->images);
    if (o->writer == NULL) LAM_TRY(begin_shard(d));
    LAM_TRY(reserve(o, image->channels, image->frames));
    LAM_TRY(plate_of(
        d, d->plate_column < 0 ? "" : lam_table_cell(d->config.metadata, d->images, d->plate_column), &sums));
    uint64_t base = lam_writer_position(o->writer);
    LAM_TRY(lam_writer_append(o->writer, image->bytes, image->size));
    for (int64_t f = 0; f < image->frames; f++) {
        o->frame[o->frames] = image->frame[f];
        o->frame[o->frames++].offset += base;
    }
    for (int64_t c = 0; c < image->channels; c++) {
        lam_sums_merge(&sums[c], &image->sums[c]);
        if (image->maximum[c] > o->maximum[c]) o->maximum[c] = image->maximum[c];
    }
    memcpy(o->present + o->images * image->channels, image->present, (size_t)image->channels);
    o->sizes[2 * o->images] = (uint32_t)image->height;
    o->sizes[2 * o->images + 1] = (uint32_t)image->width;
    lam_dataset_note_image(d, image->present, image->maximum, image->height, image->width);
    o->images++;
    d->images++;
    if (lam_writer_position(o->writer) >= (uint64_t)d->config.shard_bytes) return end_shard(d);
    return LAM_OK;
}

lam_status lam_dataset_create(lam_dataset **out, const lam_dataset_config *config) {
    lam_dataset *d = NULL;
    *out = NULL;
    LAM_TRY(lam_alloc((void **)&d, sizeof *d));
    d->config = *config;
    if (d->config.shard_bytes <= 0) d->config.shard_bytes = DEFAULT_SHARD_BYTES;
    d->plate_column = lam_plate_column(config->metadata);
    d->type = LAM_PIXEL_U8;
    lam_status status = lam_alloc_array((void **)&d->maximum, config->channels, sizeof *d->maximum);
    if (status == LAM_OK) status = lam_dataset_prepare(d);
    if (status != LAM_OK) {
        lam_dataset_abort(&d);
        return status;
    }
    *out = d;
    return LAM_OK;
}

int64_t lam_dataset_images(const lam_dataset *d) { return d->images; }

void lam_dataset_totals(const lam_dataset *d, uint64_t *stored_bytes, uint64_t *pixel_bytes) {
    *stored_bytes = d->stored_bytes + (d->open.writer != NULL ? lam_writer_position(d->open.writer) : 0);
    *pixel_bytes = d->pixel_bytes;
}

lam_status lam_dataset_finish(lam_dataset **dataset) {
    lam_dataset *d = *dataset;
    lam_status status = LAM_OK;
    LAM_REQUIRE_GOTO(d->images == lam_table_rows(d->config.metadata) && d->images > 0, done,
                     LAM_ERROR_INTERNAL, "%s: %lld images for %lld rows", d->config.folder,
                     (long long)d->images, (long long)lam_table_rows(d->config.metadata));
    if (d->open.writer != NULL) LAM_TRY_GOTO(end_shard(d), done);
    LAM_TRY_GOTO(lam_dataset_write_json(d), done);
    LAM_TRY_GOTO(lam_dataset_remove_others(d, false), done);
    LAM_TRY_GOTO(lam_dataset_settle_names(d), done);
done:
    lam_dataset_abort(dataset);
    return status;
}

void lam_dataset_abort(lam_dataset **dataset) {
    lam_dataset *d = *dataset;
    *dataset = NULL;
    if (d == NULL) return;
    open_shard_free(&d->open);
    lam_free_texts(d->listed, d->listed_count);
    lam_free(d->done);
    lam_free(d->maximum);
    lam_free(d);
}
