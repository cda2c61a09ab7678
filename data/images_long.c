#include "data/images_long.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/memory.h"
#include "data/shard_format.h"

static const char *const key_names[] = {"plate",         "Metadata_Plate", "batch",         "set",   "well",
                                        "Metadata_Well", "site",           "Metadata_Site", "field", "fov",
                                        "timepoint",     "image"};
enum { KEYS = sizeof key_names / sizeof key_names[0] };

typedef struct joiner {
    const lam_table *table;
    int64_t rows;
    int keys[KEYS], key_count, file, channel;
    int64_t *code; /* [rows] channel among `names` */
    char **names;  /* distinct channels in the order of their first rows */
    int64_t channels;
    int64_t *image; /* [rows] */
    int64_t images;
} joiner;

static uint64_t key_hash(const joiner *j, int64_t row) {
    uint64_t hash = 0;
    for (int k = 0; k < j->key_count; k++) {
        const char *cell = lam_table_cell(j->table, row, j->keys[k]);
        hash = XXH64(cell, strlen(cell) + 1, hash);
    }
    return hash;
}

static bool same_key(const joiner *j, int64_t a, int64_t b) {
    for (int k = 0; k < j->key_count; k++)
        if (strcmp(lam_table_cell(j->table, a, j->keys[k]), lam_table_cell(j->table, b, j->keys[k])) != 0)
            return false;
    return true;
}

static lam_status find_channels(joiner *j) {
    LAM_TRY(lam_alloc_array((void **)&j->code, j->rows, sizeof *j->code));
    for (int64_t i = 0; i < j->rows; i++) {
        const char *name = lam_table_cell(j->table, i, j->channel);
        LAM_REQUIRE(name[0] != 0, LAM_ERROR_INPUT, "%s:%lld: column channel is empty",
                    lam_table_path(j->table), (long long)lam_table_line(j->table, i));
        int64_t c = 0;
        while (c < j->channels && strcmp(j->names[c], name) != 0) c++;
        if (c == j->channels) {
            LAM_REQUIRE(c < LAM_SHARD_MAX_CHANNELS, LAM_ERROR_INPUT,
                        "%s: more than %d different texts in column channel", lam_table_path(j->table),
                        LAM_SHARD_MAX_CHANNELS);
            LAM_TRY(lam_grow((void **)&j->names, (size_t)c * sizeof *j->names,
                             (size_t)(c + 1) * sizeof *j->names));
            LAM_TRY(lam_text_copy(&j->names[c], name));
            j->channels++;
        }
        j->code[i] = c;
    }
    return LAM_OK;
}

/* Whether two rows of one channel are told apart by what else the table says of them. */
static bool differ_in_metadata(const joiner *j, int64_t a, int64_t b) {
    for (int c = 0; c < lam_table_columns(j->table); c++) {
        if (c == j->file) continue;
        if (strcmp(lam_table_cell(j->table, a, c), lam_table_cell(j->table, b, c)) != 0) return true;
    }
    return false;
}

typedef struct group {
    int64_t first_row, image,
        next; /* next: another image of the same key, or of the same hash bucket; -1: none */
} group;

/* Gives each row its image: the first one of its key that lacks its channel. */
static lam_status join_rows(joiner *j, int64_t *split) {
    int64_t buckets = 16, *bucket = NULL, *taken = NULL;
    group *groups = NULL;
    lam_status status = LAM_OK;
    while (buckets < 2 * j->rows) buckets *= 2;
    LAM_TRY(lam_alloc_array((void **)&j->image, j->rows, sizeof *j->image));
    LAM_TRY_GOTO(lam_alloc_array((void **)&bucket, buckets, sizeof *bucket), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&groups, j->rows, sizeof *groups), done);
    /* Row that gave (image, channel), 1 + row; 0: none. Images are at most the rows. */
    LAM_TRY_GOTO(lam_alloc_array((void **)&taken, j->rows * j->channels, sizeof *taken), done);
    for (int64_t b = 0; b < buckets; b++) bucket[b] = -1;
    for (int64_t i = 0; i < j->rows; i++) {
        int64_t *link = &bucket[key_hash(j, i) & (uint64_t)(buckets - 1)], found = -1;
        bool another = false;
        for (; *link >= 0 && found < 0; link = &groups[*link].next) {
            group *g = &groups[*link];
            if (!same_key(j, g->first_row, i)) continue;
            int64_t before = taken[g->image * j->channels + j->code[i]];
            if (before == 0)
                found = g->image;
            else
                LAM_REQUIRE_GOTO(
                    differ_in_metadata(j, before - 1, i), done, LAM_ERROR_INPUT,
                    "%s: lines %lld and %lld are the same image and channel (%s); remove one or add a column "
                    "plate, well or site that tells them apart",
                    lam_table_path(j->table), (long long)lam_table_line(j->table, before - 1),
                    (long long)lam_table_line(j->table, i), j->names[j->code[i]]);
            another = true;
        }
        if (found < 0) {
            found = j->images;
            groups[found] = (group){i, found, -1};
            *link = found;
            j->images++;
            *split += another;
        }
        taken[found * j->channels + j->code[i]] = i + 1;
        j->image[i] = found;
    }
done:
    lam_free(bucket);
    lam_free(groups);
    lam_free(taken);
    return status;
}

/* One column where the rows of every image agree, else one a channel. */
static lam_status add_column(joiner *j, lam_images *list, int column, const char **values) {
    const char *name = lam_table_name(j->table, column);
    bool agrees = true;
    for (int64_t i = 0; i < list->images; i++) values[i] = NULL;
    for (int64_t i = 0; i < j->rows && agrees; i++) {
        const char *cell = lam_table_cell(j->table, i, column), **value = &values[j->image[i]];
        if (*value == NULL) *value = cell;
        agrees = strcmp(*value, cell) == 0;
    }
    if (agrees) return lam_table_add(list->metadata, name, values);
    for (int64_t c = 0; c < j->channels; c++) {
        char *joined = NULL;
        for (int64_t i = 0; i < list->images; i++) values[i] = "";
        for (int64_t i = 0; i < j->rows; i++)
            if (j->code[i] == c) values[j->image[i]] = lam_table_cell(j->table, i, column);
        LAM_TRY(lam_text_format(&joined, "%s_%s", name, j->names[c]));
        lam_status status = lam_table_add(list->metadata, joined, values);
        lam_free(joined);
        LAM_TRY(status);
    }
    return LAM_OK;
}

static lam_status fill_list(joiner *j, lam_images *list, const lam_images_config *config) {
    int64_t *picked = NULL, picked_count = 0;
    const char **values = NULL;
    lam_status status = LAM_OK;
    list->images = j->images;
    LAM_TRY_GOTO(lam_images_pick(config, (const char *const *)j->names, j->channels, &picked, &picked_count),
                 done);
    LAM_TRY_GOTO(lam_images_take_names(list, (const char *const *)j->names, picked, picked_count), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&list->sources, list->images * picked_count, sizeof *list->sources),
                 done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&list->rows, list->images, sizeof *list->rows), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&values, list->images, sizeof *values), done);
    for (int64_t i = 0; i < list->images * picked_count; i++) list->sources[i].row = -1;
    for (int64_t i = j->rows - 1; i >= 0; i--) {
        const char *cell = lam_table_cell(j->table, i, j->file);
        LAM_REQUIRE_GOTO(cell[0] != 0, done, LAM_ERROR_INPUT, "%s:%lld: column file is empty",
                         lam_table_path(j->table), (long long)lam_table_line(j->table, i));
        list->rows[j->image[i]] = i;
        for (int64_t c = 0; c < picked_count; c++) {
            if (picked[c] != j->code[i]) continue;
            lam_source *s = &list->sources[j->image[i] * picked_count + c];
            LAM_TRY_GOTO(lam_images_resolve(config, NULL, cell, &s->path, &s->cells_hash), done);
        }
    }
    for (int64_t i = 0; i < list->images; i++) {
        bool any = false;
        for (int64_t c = 0; c < picked_count; c++)
            any = any || list->sources[i * picked_count + c].path != NULL;
        LAM_REQUIRE_GOTO(any, done, LAM_ERROR_INPUT, "%s:%lld: this image has none of the channels asked for",
                         lam_table_path(j->table), (long long)lam_table_line(j->table, list->rows[i]));
    }
    LAM_TRY_GOTO(lam_table_create(&list->metadata, list->images), done);
    for (int c = 0; c < lam_table_columns(j->table); c++)
        if (c != j->file && c != j->channel) LAM_TRY_GOTO(add_column(j, list, c, values), done);
done:
    lam_free(picked);
    lam_free(values);
    return status;
}

lam_status lam_images_read_long(lam_images *list, const lam_images_config *config) {
    joiner j = {.table = list->table, .rows = lam_table_rows(list->table)};
    lam_status status = LAM_OK;
    j.file = lam_table_column(j.table, "file");
    j.channel = lam_table_column(j.table, "channel");
    for (int k = 0; k < KEYS; k++) {
        int column = lam_table_column(j.table, key_names[k]);
        if (column >= 0) j.keys[j.key_count++] = column;
    }
    LAM_REQUIRE(
        j.key_count > 0, LAM_ERROR_INPUT,
        "%s: one row a channel, but no column plate, well, site or image says which rows are one image",
        lam_table_path(j.table));
    LAM_REQUIRE(lam_table_column(j.table, "row") < 0, LAM_ERROR_INPUT,
                "%s: a column row (of stacks) and a column channel: stacks hold all channels of an image, so "
                "give one row "
                "an image",
                lam_table_path(j.table));
    LAM_TRY_GOTO(find_channels(&j), done);
    LAM_TRY_GOTO(join_rows(&j, &list->split_images), done);
    LAM_TRY_GOTO(fill_list(&j, list, config), done);
done:
    for (int64_t c = 0; c < j.channels; c++) lam_free(j.names[c]);
    lam_free(j.names);
    lam_free(j.code);
    lam_free(j.image);
    return status;
}
