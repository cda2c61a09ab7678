#include "data/shard_write.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>
#include <zstd.h>

#include "base/files.h"
#include "base/json.h"
#include "base/log.h"
#include "base/memory.h"
#include "data/shard_encode.h"
#include "data/shard_format.h"

enum { INDEX_LEVEL = 9, DEFAULT_SHARD_BYTES = 256 << 20 };

typedef struct plate_sums {
    const char *name;
    lam_sums *sums; /* [channels] */
} plate_sums;

/* What the shard being written will say in its index. */
typedef struct open_shard {
    lam_writer *writer;
    int64_t first_row, images, frames, frame_capacity, image_capacity;
    uint8_t *present;
    uint32_t *sizes; /* [images, 2] */
    uint32_t *maximum;
    lam_shard_frame *frame;
    plate_sums *plates;
    int64_t plate_count;
} open_shard;

typedef struct done_shard {
    uint64_t bytes, hash;
    int64_t images;
} done_shard;

struct lam_dataset {
    lam_dataset_config config;
    int64_t images, shards;
    int plate_column;
    open_shard open;
    done_shard *done;
    uint32_t *maximum; /* [channels] over all */
    lam_pixel_type type;
    uint64_t stored_bytes, pixel_bytes;
};

static lam_status shard_path(const lam_dataset *d, int64_t shard, char **out) {
    char name[32];
    snprintf(name, sizeof name, "shard_%05lld.lam", (long long)shard);
    return lam_path_join(out, d->config.folder, name);
}

static uint64_t slice_hash(const lam_dataset *d, int64_t first, int64_t count) {
    if (d->config.row_hashes == NULL) return 0;
    return XXH64(d->config.row_hashes + first, (size_t)count * sizeof(uint64_t), 0);
}

static lam_status note_done(lam_dataset *d, done_shard shard) {
    LAM_TRY(lam_grow((void **)&d->done, (size_t)d->shards * sizeof *d->done,
                     (size_t)(d->shards + 1) * sizeof *d->done));
    d->done[d->shards++] = shard;
    d->stored_bytes += shard.bytes;
    return LAM_OK;
}

static void note_image(lam_dataset *d, const uint8_t *present, const uint32_t *maximum, int64_t height,
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
    LAM_TRY(shard_path(d, d->shards, &path));
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
    LAM_TRY(put_le(b, slice_hash(d, o->first_row, o->images), 8));
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
    LAM_TRY_GOTO(note_done(d, done), done);
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
    note_image(d, image->present, image->maximum, image->height, image->width);
    o->images++;
    d->images++;
    if (lam_writer_position(o->writer) >= (uint64_t)d->config.shard_bytes) return end_shard(d);
    return LAM_OK;
}

/* ---- the folder ---- */

static lam_status remove_file(const char *path) {
    LAM_REQUIRE(unlink(path) == 0 || errno == ENOENT, LAM_ERROR_IO, "%s: cannot be removed: %s", path,
                strerror(errno));
    return LAM_OK;
}

static lam_status remove_listed(const lam_dataset *d, const char *suffix, int64_t keep) {
    char **names = NULL;
    int64_t count = 0;
    lam_status status = LAM_OK;
    LAM_TRY(lam_list_folder(d->config.folder, suffix, &names, &count));
    for (int64_t i = 0; i < count && status == LAM_OK; i++) {
        char *path = NULL;
        long long number = 0;
        if (strncmp(names[i], "shard_", 6) != 0 && strncmp(names[i], "dataset.json.partial-", 21) != 0)
            continue;
        bool partial = strstr(names[i], ".partial-") != NULL;
        if (!partial &&
            (suffix[0] == 0 || (sscanf(names[i], "shard_%lld.lam", &number) == 1 && number < keep)))
            continue;
        status = lam_path_join(&path, d->config.folder, names[i]);
        if (status == LAM_OK) status = remove_file(path);
        lam_free(path);
    }
    lam_free_texts(names, count);
    return status;
}

/* Whether the shard at `path` is the next one of this packing. */
static bool shard_fits(const lam_dataset *d, const lam_shard_index *x, double written) {
    const lam_dataset_config *c = &d->config;
    bool fits = x->settings_hash == c->settings_hash && x->channels == c->channels &&
                x->first_row == d->images && x->images <= lam_table_rows(c->metadata) - d->images &&
                x->slice_hash == slice_hash(d, x->first_row, x->images) &&
                x->columns == lam_table_columns(c->metadata);
    for (int64_t i = 0; fits && i < x->channels; i++)
        fits = strcmp(x->channel_names[i], c->channel_names[i]) == 0;
    for (int i = 0; fits && i < x->columns; i++)
        fits = strcmp(x->column_names[i], lam_table_name(c->metadata, i)) == 0;
    for (int64_t i = 0; fits && c->row_changed != NULL && i < x->images; i++)
        fits = c->row_changed[x->first_row + i] <= written;
    return fits;
}

static lam_status resume(lam_dataset *d) {
    for (bool more = true; more && d->images < lam_table_rows(d->config.metadata);) {
        char *path = NULL;
        lam_shard_index index = {0};
        struct stat stat_of;
        LAM_TRY(shard_path(d, d->shards, &path));
        more = stat(path, &stat_of) == 0;
        lam_status status = LAM_OK;
        if (more) {
            lam_status read = lam_shard_index_read(&index, path);
            double written = (double)stat_of.st_mtim.tv_sec + 1e-9 * (double)stat_of.st_mtim.tv_nsec;
            more = read == LAM_OK && shard_fits(d, &index, written);
            if (read == LAM_ERROR_MEMORY)
                status = read;
            else if (!more)
                lam_log_info("%s does not fit this packing any more: packed again from there", path);
        }
        if (more) {
            for (int64_t i = 0; i < index.images; i++)
                note_image(d, index.present + i * index.channels, index.channel_maximum, index.heights[i],
                           index.widths[i]);
            d->images += index.images;
            status = note_done(d, (done_shard){(uint64_t)stat_of.st_size, index.hash, index.images});
        }
        lam_shard_index_free(&index);
        lam_free(path);
        if (status != LAM_OK) return status;
    }
    return LAM_OK;
}

static lam_status prepare_folder(lam_dataset *d) {
    char *path = NULL;
    LAM_TRY(lam_make_folders(d->config.folder));
    LAM_TRY(lam_path_join(&path, d->config.folder, "dataset.json"));
    lam_status status = remove_file(path);
    lam_free(path);
    if (status != LAM_OK) return status;
    if (d->config.resume) LAM_TRY(resume(d));
    LAM_TRY(remove_listed(d, ".lam", d->shards));
    return remove_listed(d, "", 0);
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
    if (status == LAM_OK) status = prepare_folder(d);
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

static const char *const transform_names[LAM_TRANSFORMS] = {"none", "sqrt", "log"};

static lam_json *statistics_json(const lam_shards *s, int64_t plate, int64_t channel) {
    lam_json *all = lam_json_object();
    for (int t = 0; t < LAM_TRANSFORMS; t++) {
        double mean = 0.0, deviation = 0.0;
        lam_json *one = lam_json_object();
        lam_shards_channel_stats(s, plate, channel, (lam_transform)t, &mean, &deviation);
        lam_json_set_float(one, "mean", mean);
        lam_json_set_float(one, "deviation", deviation);
        lam_json_set(all, transform_names[t], one);
    }
    return all;
}

static lam_status dataset_json(const lam_dataset *d, lam_json *root) {
    lam_json *channels = lam_json_array(), *shards = lam_json_array();
    lam_json_set_text(root, "format", "lamella shards");
    lam_json_set_int(root, "version", LAM_SHARD_VERSION);
    lam_json_set_int(root, "images", d->images);
    lam_json_set_text(root, "pixel_type", d->type == LAM_PIXEL_U8 ? "uint8" : "uint16");
    lam_json_set_text(root, "group", d->config.group);
    for (int64_t c = 0; c < d->config.channels; c++) {
        lam_json *one = lam_json_object();
        int bits = d->config.bit_depth > 0 ? d->config.bit_depth : lam_bits_for(d->maximum[c]);
        lam_json_set_text(one, "name", d->config.channel_names[c]);
        lam_json_set_int(one, "bits", d->type == LAM_PIXEL_U8 ? 8 : bits);
        lam_json_set_int(one, "maximum", d->maximum[c]);
        lam_json_append(channels, one);
    }
    lam_json_set(root, "channels", channels);
    for (int64_t k = 0; k < d->shards; k++) {
        char name[32], hash[17];
        lam_json *one = lam_json_object();
        snprintf(name, sizeof name, "shard_%05lld.lam", (long long)k);
        snprintf(hash, sizeof hash, "%016" PRIx64, d->done[k].hash);
        lam_json_set_text(one, "file", name);
        lam_json_set_int(one, "bytes", (int64_t)d->done[k].bytes);
        lam_json_set_int(one, "images", d->done[k].images);
        lam_json_set_text(one, "hash", hash);
        lam_json_append(shards, one);
    }
    lam_json_set(root, "shards", shards);
    return LAM_OK;
}

/* Statistics are for people and other programs: lam_shards_open makes them from the sums of the shards. */
static void add_statistics(lam_json *root, const lam_shards *s) {
    int64_t plates = 0, channels = lam_shards_channels(s), images = lam_shards_images(s);
    const int64_t *codes = lam_shards_plates(s, &plates);
    const lam_table *table = lam_shards_metadata(s);
    int column = lam_plate_column(table);
    lam_json *list = lam_json_array();
    for (int64_t c = 0; c < channels; c++)
        lam_json_set(lam_json_at(lam_json_get(root, "channels"), (size_t)c), "statistics",
                     statistics_json(s, -1, c));
    for (int64_t p = 0; p < plates && column >= 0; p++) {
        int64_t row = 0;
        while (row < images - 1 && codes[row] != p) row++;
        lam_json *one = lam_json_object(), *of = lam_json_object();
        lam_json_set_text(one, "plate", lam_table_cell(table, row, column));
        for (int64_t c = 0; c < channels; c++)
            lam_json_set(of, lam_shards_channel_name(s, c), statistics_json(s, p, c));
        lam_json_set(one, "channels", of);
        lam_json_append(list, one);
    }
    lam_json_set(root, "plates", list);
}

static lam_status write_dataset_json(const lam_dataset *d) {
    lam_json *root = lam_json_object();
    lam_shards *shards = NULL;
    char *text = NULL, *path = NULL;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(dataset_json(d, root), done);
    LAM_TRY_GOTO(lam_shards_open_listed(&shards, d->config.folder, root), done);
    add_statistics(root, shards);
    LAM_TRY_GOTO(lam_json_dump(root, true, &text), done);
    LAM_TRY_GOTO(lam_path_join(&path, d->config.folder, "dataset.json"), done);
    LAM_TRY_GOTO(lam_file_write(path, text, strlen(text)), done);
done:
    lam_shards_close(&shards);
    lam_free(path);
    lam_free(text);
    lam_json_free(root);
    return status;
}

lam_status lam_dataset_finish(lam_dataset **dataset) {
    lam_dataset *d = *dataset;
    lam_status status = LAM_OK;
    LAM_REQUIRE_GOTO(d->images == lam_table_rows(d->config.metadata) && d->images > 0, done,
                     LAM_ERROR_INTERNAL, "%s: %lld images for %lld rows", d->config.folder,
                     (long long)d->images, (long long)lam_table_rows(d->config.metadata));
    if (d->open.writer != NULL) LAM_TRY_GOTO(end_shard(d), done);
    LAM_TRY_GOTO(write_dataset_json(d), done);
done:
    lam_dataset_abort(dataset);
    return status;
}

void lam_dataset_abort(lam_dataset **dataset) {
    lam_dataset *d = *dataset;
    *dataset = NULL;
    if (d == NULL) return;
    open_shard_free(&d->open);
    lam_free(d->done);
    lam_free(d->maximum);
    lam_free(d);
}
