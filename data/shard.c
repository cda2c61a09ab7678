#include "data/shard.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/files.h"
#include "base/json.h"
#include "base/memory.h"
#include "base/sealed.h"
#include "data/shard_parts.h"

/* What dataset.json says of `what` (a shard, a channel; NULL: the folder) is what the shards themselves say. */
static lam_status expect_text(const lam_shards *s, const char *what, const char *key, const lam_json *entry,
                              const char *expected) {
    const char *text = lam_json_text(lam_json_get(entry, key), NULL);
    LAM_REQUIRE(text != NULL && strcmp(text, expected) == 0, LAM_ERROR_FORMAT,
                "%s/dataset.json: %s%s%s is '%s', where '%s' is due: pack again", s->path,
                what != NULL ? what : "", what != NULL ? ": " : "", key, text != NULL ? text : "no text",
                expected);
    return LAM_OK;
}

static lam_status expect_int(const lam_shards *s, const char *what, const char *key, const lam_json *entry,
                             int64_t expected) {
    int64_t number = lam_json_int(lam_json_get(entry, key), -1);
    LAM_REQUIRE(number == expected, LAM_ERROR_FORMAT,
                "%s/dataset.json: %s%s%s is %lld, where %lld is due: pack again", s->path,
                what != NULL ? what : "", what != NULL ? ": " : "", key, (long long)number,
                (long long)expected);
    return LAM_OK;
}

static lam_status open_shard(lam_shards *s, int64_t i, const lam_json *entry) {
    shard_file *shard = &s->shard[i];
    const char *name = lam_json_text(lam_json_get(entry, "file"), "");
    char hash[17];
    LAM_REQUIRE(name[0] != 0 && strchr(name, '/') == NULL, LAM_ERROR_FORMAT,
                "%s/dataset.json: shard %lld has no file name", s->path, (long long)i);
    LAM_TRY(lam_path_join(&shard->path, s->path, name));
    shard->name = strrchr(shard->path, '/') + 1;
    LAM_TRY(lam_shard_index_read(&shard->index, shard->path));
    LAM_TRY(lam_reader_open(&shard->reader, shard->path));
    snprintf(hash, sizeof hash, "%016" PRIx64, shard->index.hash);
    LAM_TRY(expect_text(s, name, "hash", entry, hash));
    LAM_TRY(expect_int(s, name, "images", entry, shard->index.images));
    LAM_TRY(expect_int(s, name, "bytes", entry, (int64_t)lam_reader_size(shard->reader)));
    const lam_shard_index *x = &shard->index, *first = &s->shard[0].index;
    bool same = x->channels == first->channels && x->columns == first->columns;
    for (int64_t c = 0; same && c < x->channels; c++)
        same = strcmp(x->channel_names[c], first->channel_names[c]) == 0;
    for (int64_t c = 0; same && c < x->columns; c++)
        same = strcmp(x->column_names[c], first->column_names[c]) == 0;
    LAM_REQUIRE(same, LAM_ERROR_FORMAT,
                "%s: its channels or columns are not those of %s: pack again with --force", shard->path,
                s->shard[0].name);
    LAM_REQUIRE(x->first_row == s->images, LAM_ERROR_FORMAT, "%s: begins at image %lld where %lld is due",
                shard->path, (long long)x->first_row, (long long)s->images);
    shard->first = s->images;
    s->images += x->images;
    return LAM_OK;
}

static lam_status read_channels(lam_shards *s, const lam_json *list) {
    const lam_shard_index *first = &s->shard[0].index;
    s->channels = first->channels;
    LAM_REQUIRE(lam_json_is_array(list) && (int64_t)lam_json_size(list) == s->channels, LAM_ERROR_FORMAT,
                "%s/dataset.json: %zu channels, but the shards have %lld", s->path, lam_json_size(list),
                (long long)s->channels);
    LAM_TRY(lam_alloc_array((void **)&s->bits, s->channels, sizeof *s->bits));
    for (int64_t c = 0; c < s->channels; c++) {
        const lam_json *one = lam_json_at(list, (size_t)c);
        const char *name = first->channel_names[c];
        int64_t bits = lam_json_int(lam_json_get(one, "bits"), 0);
        uint32_t maximum = 0;
        for (int64_t k = 0; k < s->shards; k++)
            if (s->shard[k].index.channel_maximum[c] > maximum)
                maximum = s->shard[k].index.channel_maximum[c];
        LAM_TRY(expect_text(s, name, "name", one, name));
        LAM_TRY(expect_int(s, name, "maximum", one, maximum));
        bool known = bits == 8 || bits == 10 || bits == 12 || bits == 14 || bits == 16;
        LAM_REQUIRE(known && bits >= lam_bits_for(maximum) && (s->type == LAM_PIXEL_U16 || bits == 8),
                    LAM_ERROR_FORMAT,
                    "%s/dataset.json: %s: bits is %lld, for pixels up to %u of %d bytes: pack again", s->path,
                    name, (long long)bits, maximum, (int)s->type);
        s->bits[c] = (int)bits;
    }
    return LAM_OK;
}

/* The fields that every version has come first: what another version says of the rest is not known here. */
static lam_status check_kind(const lam_shards *s, const lam_json *json) {
    LAM_TRY(expect_text(s, NULL, "format", json, "lamella shards"));
    const lam_json *version = lam_json_get(json, "version");
    LAM_REQUIRE(lam_json_is_integer(version), LAM_ERROR_FORMAT,
                "%s/dataset.json: version is no number: pack again", s->path);
    LAM_REQUIRE(lam_json_int(version, 0) == LAM_SHARD_VERSION, LAM_ERROR_FORMAT,
                "%s/dataset.json: version %lld; this program reads version %d", s->path,
                (long long)lam_json_int(version, 0), LAM_SHARD_VERSION);
    const lam_json *group = lam_json_get(json, "group");
    LAM_REQUIRE(lam_json_is_null(group) || lam_json_is_text(group), LAM_ERROR_FORMAT,
                "%s/dataset.json: group is neither a column nor null: pack again", s->path);
    return LAM_OK;
}

static lam_status gather_metadata(lam_shards *s) {
    const char **values = NULL;
    lam_status status = LAM_OK;
    LAM_TRY(lam_table_create(&s->metadata, s->images));
    LAM_TRY(lam_alloc_array((void **)&values, s->images, sizeof *values));
    LAM_TRY_GOTO(lam_alloc_array((void **)&s->shard_of, s->images, sizeof *s->shard_of), done);
    for (int64_t c = 0; c < s->shard[0].index.columns; c++) {
        for (int64_t k = 0; k < s->shards; k++) {
            const lam_shard_index *x = &s->shard[k].index;
            memcpy(values + s->shard[k].first, x->cells + c * x->images, (size_t)x->images * sizeof *values);
        }
        LAM_TRY_GOTO(lam_table_add(s->metadata, s->shard[0].index.column_names[c], values), done);
    }
    s->type = LAM_PIXEL_U8;
    for (int64_t k = 0; k < s->shards; k++) {
        lam_shard_index *x = &s->shard[k].index;
        for (int64_t i = 0; i < x->images; i++) s->shard_of[s->shard[k].first + i] = (int32_t)k;
        for (int64_t i = 0; i < x->images * x->channels; i++)
            if (x->present[i] == LAM_PIXEL_U16) s->type = LAM_PIXEL_U16;
        /* The table holds the cells now. */
        lam_free(x->cells);
        x->cells = NULL;
    }
done:
    lam_free(values);
    return status;
}

static int compare_codes(const void *a, const void *b) {
    const int64_t *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

/* Pairs of codes made dense, in the order of their values. */
static lam_status join_codes(int64_t *codes, const int64_t *other, int64_t levels, int64_t count,
                             int64_t *groups) {
    int64_t *sorted = NULL, distinct = 0;
    LAM_TRY(lam_alloc_array((void **)&sorted, count, sizeof *sorted));
    for (int64_t i = 0; i < count; i++) sorted[i] = codes[i] = codes[i] * levels + other[i];
    qsort(sorted, (size_t)count, sizeof *sorted, compare_codes);
    for (int64_t i = 0; i < count; i++)
        if (i == 0 || sorted[i] != sorted[i - 1]) sorted[distinct++] = sorted[i];
    for (int64_t i = 0; i < count; i++) {
        const int64_t *at = bsearch(&codes[i], sorted, (size_t)distinct, sizeof *sorted, compare_codes);
        codes[i] = at - sorted;
    }
    lam_free(sorted);
    *groups = distinct;
    return LAM_OK;
}

static lam_status make_groups(lam_shards *s, const char *named) {
    int columns[2] = {-1, -1};
    int64_t *other = NULL, levels = 0;
    const char **names = NULL;
    if (named != NULL) {
        columns[0] = lam_table_column(s->metadata, named);
        LAM_REQUIRE(columns[0] >= 0, LAM_ERROR_FORMAT,
                    "%s/dataset.json: group column '%s' is not in the shards", s->path, named);
    } else if (!lam_group_columns(s->metadata, columns)) {
        LAM_TRY(lam_alloc_array((void **)&s->group_codes, s->images, sizeof *s->group_codes));
        for (int64_t i = 0; i < s->images; i++) s->group_codes[i] = i;
        s->groups = s->images;
        return LAM_OK;
    }
    LAM_TRY(lam_table_codes(s->metadata, columns[0], &s->group_codes, &names, &s->groups));
    lam_free(names);
    if (columns[1] < 0) return LAM_OK;
    LAM_TRY(lam_table_codes(s->metadata, columns[1], &other, &names, &levels));
    lam_free(names);
    lam_status status = join_codes(s->group_codes, other, levels, s->images, &s->groups);
    lam_free(other);
    return status;
}

static lam_status merge_plates(lam_shards *s, const char **names, lam_sums *sums) {
    for (int64_t k = 0; k < s->shards; k++) {
        const lam_shard_index *x = &s->shard[k].index;
        for (int64_t p = 0; p < x->plates; p++) {
            int64_t low = 0, high = s->plates - 1, found = -1;
            while (names != NULL && low <= high && found < 0) {
                int64_t middle = (low + high) / 2;
                int order = strcmp(names[middle], x->plate_names[p]);
                if (order == 0) found = middle;
                if (order < 0) low = middle + 1;
                if (order > 0) high = middle - 1;
            }
            if (names == NULL) found = 0;
            LAM_REQUIRE(found >= 0, LAM_ERROR_FORMAT, "%s: statistics of plate '%s', which no image names",
                        s->shard[k].path, x->plate_names[p]);
            for (int64_t c = 0; c < s->channels; c++) {
                lam_sums_merge(&sums[found * s->channels + c], &x->sums[p * s->channels + c]);
                lam_sums_merge(&sums[s->plates * s->channels + c], &x->sums[p * s->channels + c]);
            }
        }
    }
    return LAM_OK;
}

static lam_status make_plates(lam_shards *s) {
    int column = lam_plate_column(s->metadata);
    const char **names = NULL;
    lam_sums *sums = NULL;
    lam_status status = LAM_OK;
    s->plates = 1;
    if (column >= 0) {
        LAM_TRY(lam_table_codes(s->metadata, column, &s->plate_codes, &names, &s->plates));
    } else {
        LAM_TRY(lam_alloc_array((void **)&s->plate_codes, s->images, sizeof *s->plate_codes));
    }
    int64_t count = (s->plates + 1) * s->channels;
    LAM_TRY_GOTO(lam_alloc_array((void **)&sums, count, sizeof *sums), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&s->stats, count * LAM_TRANSFORMS * 2, sizeof *s->stats), done);
    LAM_TRY_GOTO(merge_plates(s, names, sums), done);
    for (int64_t i = 0; i < count; i++) {
        int bits = s->type == LAM_PIXEL_U8 ? 8 : s->bits[i % s->channels];
        for (int t = 0; t < LAM_TRANSFORMS; t++) {
            double *at = &s->stats[(i * LAM_TRANSFORMS + t) * 2];
            lam_sums_finish(&sums[i], bits, (lam_transform)t, at, at + 1);
        }
    }
done:
    lam_free(sums);
    lam_free(names);
    return status;
}

static lam_status open_shards(lam_shards *s, const lam_json *list) {
    XXH64_state_t *hash = XXH64_createState();
    lam_status status = LAM_OK;
    LAM_REQUIRE(hash != NULL, LAM_ERROR_MEMORY, "out of memory for a hash");
    XXH64_reset(hash, 0);
    for (int64_t i = 0; i < s->shards && status == LAM_OK; i++) {
        unsigned char bytes[8];
        status = open_shard(s, i, lam_json_at(list, (size_t)i));
        lam_put_le(bytes, s->shard[i].index.hash, 8);
        XXH64_update(hash, bytes, sizeof bytes);
    }
    s->hash = XXH64_digest(hash);
    XXH64_freeState(hash);
    return status;
}

static lam_status open_listed(lam_shards *s, const char *folder, const lam_json *json) {
    const lam_json *list = lam_json_get(json, "shards");
    int64_t shards = (int64_t)lam_json_size(list);
    LAM_TRY(lam_text_copy(&s->path, folder));
    LAM_TRY(check_kind(s, json));
    LAM_REQUIRE(lam_json_is_array(list) && shards >= 1, LAM_ERROR_FORMAT,
                "%s/dataset.json: it names no shards", folder);
    LAM_TRY(lam_alloc_array((void **)&s->shard, shards, sizeof *s->shard));
    s->shards = shards;
    LAM_TRY(open_shards(s, list));
    LAM_TRY(expect_int(s, NULL, "images", json, s->images));
    LAM_TRY(gather_metadata(s));
    LAM_TRY(expect_text(s, NULL, "pixel_type", json, s->type == LAM_PIXEL_U8 ? "uint8" : "uint16"));
    LAM_TRY(read_channels(s, lam_json_get(json, "channels")));
    LAM_TRY(make_groups(s, lam_json_text(lam_json_get(json, "group"), NULL)));
    return make_plates(s);
}

lam_status lam_shards_open_listed(lam_shards **out, const char *folder, const lam_json *dataset) {
    lam_shards *s = NULL;
    *out = NULL;
    LAM_TRY(lam_alloc((void **)&s, sizeof *s));
    pthread_mutex_init(&s->mutex, NULL);
    lam_status status = open_listed(s, folder, dataset);
    if (status == LAM_OK)
        *out = s;
    else
        lam_shards_close(&s);
    return status;
}

lam_status lam_shards_open(lam_shards **out, const char *folder) {
    char *path = NULL;
    lam_json *json = NULL;
    lam_status status = LAM_OK;
    *out = NULL;
    LAM_REQUIRE(lam_path_is_folder(folder), LAM_ERROR_IO,
                "%s: no such folder; name a folder made by lamella pack", folder);
    LAM_TRY(lam_path_join(&path, folder, "dataset.json"));
    LAM_REQUIRE_GOTO(lam_path_exists(path), done, LAM_ERROR_INPUT,
                     "%s: not a complete shard folder (no dataset.json): run pack again with --resume",
                     folder);
    LAM_TRY_GOTO(lam_sealed_read(&json, path), done);
    LAM_TRY_GOTO(lam_shards_open_listed(out, folder, json), done);
done:
    lam_json_free(json);
    lam_free(path);
    return status;
}

lam_status lam_shards_unfinished(const char *folder, bool *unfinished) {
    char **names = NULL;
    int64_t count = 0;
    bool begun = false, finished = false;
    LAM_TRY(lam_list_folder(folder, "", &names, &count));
    for (int64_t i = 0; i < count; i++) {
        begun = begun || strncmp(names[i], "shard_", 6) == 0;
        finished = finished || strcmp(names[i], "dataset.json") == 0;
    }
    lam_free_texts(names, count);
    *unfinished = begun && !finished;
    return LAM_OK;
}

void lam_shards_close(lam_shards **shards) {
    lam_shards *s = *shards;
    *shards = NULL;
    if (s == NULL) return;
    for (int64_t i = 0; s->shard != NULL && i < s->shards; i++) {
        lam_reader_close(&s->shard[i].reader);
        lam_shard_index_free(&s->shard[i].index);
        lam_free(s->shard[i].path);
    }
    lam_shards_free_scratch(s);
    pthread_mutex_destroy(&s->mutex);
    lam_table_free(s->metadata);
    lam_free(s->shard);
    lam_free(s->path);
    lam_free(s->bits);
    lam_free(s->shard_of);
    lam_free(s->plate_codes);
    lam_free(s->group_codes);
    lam_free(s->stats);
    lam_free(s);
}

const char *lam_shards_path(const lam_shards *s) { return s->path; }
int64_t lam_shards_images(const lam_shards *s) { return s->images; }
int64_t lam_shards_channels(const lam_shards *s) { return s->channels; }
const char *lam_shards_channel_name(const lam_shards *s, int64_t channel) {
    return s->shard[0].index.channel_names[channel];
}
int lam_shards_channel_bits(const lam_shards *s, int64_t channel) { return s->bits[channel]; }
double lam_shards_channel_scale(const lam_shards *s, int64_t channel) {
    return 1.0 / (s->type == LAM_PIXEL_U8 ? 255.0 : (double)((1 << s->bits[channel]) - 1));
}
lam_pixel_type lam_shards_pixel_type(const lam_shards *s) { return s->type; }
const lam_table *lam_shards_metadata(const lam_shards *s) { return s->metadata; }
uint64_t lam_shards_hash(const lam_shards *s) { return s->hash; }

void lam_shards_image_size(const lam_shards *s, int64_t image, int64_t *height, int64_t *width) {
    const shard_file *shard = &s->shard[s->shard_of[image]];
    *height = shard->index.heights[image - shard->first];
    *width = shard->index.widths[image - shard->first];
}

bool lam_shards_has_channel(const lam_shards *s, int64_t image, int64_t channel) {
    const shard_file *shard = &s->shard[s->shard_of[image]];
    return shard->index.present[(image - shard->first) * s->channels + channel] != 0;
}

const int64_t *lam_shards_groups(const lam_shards *s, int64_t *groups) {
    if (groups != NULL) *groups = s->groups;
    return s->group_codes;
}

const int64_t *lam_shards_plates(const lam_shards *s, int64_t *plates) {
    if (plates != NULL) *plates = s->plates;
    return s->plate_codes;
}

void lam_shards_channel_stats(const lam_shards *s, int64_t plate, int64_t channel, lam_transform transform,
                              double *mean, double *deviation) {
    int64_t row = plate < 0 ? s->plates : plate;
    const double *at = &s->stats[((row * s->channels + channel) * LAM_TRANSFORMS + (int64_t)transform) * 2];
    *mean = at[0];
    *deviation = at[1];
}
