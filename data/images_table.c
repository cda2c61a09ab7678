#include "data/images_table.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/cli.h"
#include "base/files.h"
#include "base/memory.h"
#include "data/images_long.h"
#include "data/shard_format.h"

static bool begins(const char *text, const char *prefix) {
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

lam_status lam_images_resolve(const lam_images_config *config, const char *path_cell, const char *file_cell,
                              char **out, uint64_t *cells_hash) {
    char *joined = NULL, *folder = NULL;
    lam_status status = LAM_OK;
    const char *base = config->folder;
    if (path_cell != NULL) *cells_hash = XXH64(path_cell, strlen(path_cell) + 1, *cells_hash);
    *cells_hash = XXH64(file_cell, strlen(file_cell) + 1, *cells_hash);
    if (path_cell != NULL && path_cell[0] != 0)
        LAM_TRY(lam_path_join(&joined, path_cell, file_cell));
    else
        LAM_TRY(lam_text_copy(&joined, file_cell));
    if (config->prefix_old != NULL && begins(joined, config->prefix_old)) {
        char *replaced = NULL;
        LAM_TRY_GOTO(
            lam_text_format(&replaced, "%s%s", config->prefix_new, joined + strlen(config->prefix_old)),
            done);
        lam_free(joined);
        joined = replaced;
    }
    if (base == NULL) {
        const char *slash = strrchr(config->path, '/');
        if (slash != NULL)
            LAM_TRY_GOTO(lam_text_copy_n(&folder, config->path, (size_t)(slash - config->path)), done);
        base = slash == NULL ? "." : slash == config->path ? "/" : folder;
    }
    status = strcmp(base, ".") == 0 ? lam_text_copy(out, joined) : lam_path_join(out, base, joined);
done:
    lam_free(joined);
    lam_free(folder);
    return status;
}

/* ---- channels ---- */

typedef struct channel_columns {
    char *name;
    int file, path, illumination_file, illumination_path; /* -1: none */
} channel_columns;

static int prefixed_column(const lam_table *table, const char *prefix, const char *channel) {
    for (int c = 0; c < lam_table_columns(table); c++) {
        const char *name = lam_table_name(table, c);
        if (begins(name, prefix) && strcmp(name + strlen(prefix), channel) == 0) return c;
    }
    return -1;
}

/* Of one channel. `file`, which holds every channel, is metadata too: with `row` it leads back to the image. */
static bool is_file_column(const char *name) {
    return begins(name, "file_") || begins(name, "PathName_") || begins(name, "FileName_");
}

/* Channels that the columns name, in the order of the columns. */
static lam_status find_channels(const lam_table *table, channel_columns **out, int64_t *count) {
    int columns = lam_table_columns(table);
    LAM_TRY(lam_alloc_array((void **)out, columns, sizeof **out));
    for (int c = 0; c < columns; c++) {
        const char *name = lam_table_name(table, c);
        const char *channel = begins(name, "file_")           ? name + 5
                              : begins(name, "FileName_Orig") ? name + 13
                                                              : NULL;
        if (channel == NULL) continue;
        LAM_REQUIRE(channel[0] != 0, LAM_ERROR_INPUT, "%s: column '%s' names no channel",
                    lam_table_path(table), name);
        channel_columns *k = &(*out)[(*count)++];
        k->file = c;
        k->path = begins(name, "file_") ? -1 : prefixed_column(table, "PathName_Orig", channel);
        k->illumination_file = prefixed_column(table, "FileName_Illum", channel);
        k->illumination_path = prefixed_column(table, "PathName_Illum", channel);
        LAM_TRY(lam_text_copy(&k->name, channel));
    }
    return LAM_OK;
}

lam_status lam_images_pick(const lam_images_config *config, const char *const *names, int64_t count,
                           int64_t **picked, int64_t *picked_count) {
    *picked_count = config->channels != NULL ? config->channel_count : count;
    LAM_TRY(lam_alloc_array((void **)picked, *picked_count, sizeof **picked));
    for (int64_t i = 0; i < *picked_count; i++) {
        (*picked)[i] = config->channels != NULL ? -1 : i;
        for (int64_t k = 0; config->channels != NULL && k < count; k++)
            if (strcmp(names[k], config->channels[i]) == 0) (*picked)[i] = k;
        for (int64_t k = 0; config->channels != NULL && k < i; k++)
            LAM_REQUIRE(strcmp(config->channels[k], config->channels[i]) != 0, LAM_ERROR_USAGE,
                        "--channels: channel %s twice", config->channels[i]);
        if ((*picked)[i] >= 0) continue;
        const char *near = lam_nearest_name(config->channels[i], names, (int)count);
        char list[400] = "";
        for (int64_t k = 0; k < count && strlen(list) + strlen(names[k]) + 3 < sizeof list; k++) {
            if (k > 0) strcat(list, ", ");
            strcat(list, names[k]);
        }
        LAM_FAIL(LAM_ERROR_INPUT, "%s: no channel '%s'; there are: %s%s%s%s", config->path,
                 config->channels[i], list, near != NULL ? "; did you mean " : "", near != NULL ? near : "",
                 near != NULL ? "?" : "");
    }
    return LAM_OK;
}

static lam_status take_names(lam_images *list, const char *const *names, const int64_t *picked,
                             int64_t count) {
    LAM_TRY(lam_alloc_array((void **)&list->channel_names, count, sizeof *list->channel_names));
    list->channels = count;
    list->named = true;
    for (int64_t i = 0; i < count; i++)
        LAM_TRY(lam_text_copy(&list->channel_names[i], names[picked != NULL ? picked[i] : i]));
    return LAM_OK;
}

lam_status lam_images_take_names(lam_images *list, const char *const *names, const int64_t *picked,
                                 int64_t count) {
    return take_names(list, names, picked, count);
}

/* ---- tables with one row an image ---- */

static lam_status read_row_number(const lam_table *table, int64_t row, int column, int64_t *out) {
    const char *text = lam_table_cell(table, row, column);
    double value = 0.0;
    LAM_REQUIRE(lam_text_is_number(text, &value) && value >= 0.0 && value < 1e15 &&
                    value == (double)(int64_t)value,
                LAM_ERROR_INPUT, "%s:%lld: row '%s' of the stack: a whole number, 0 or more, is needed",
                lam_table_path(table), (long long)lam_table_line(table, row), text);
    *out = (int64_t)value;
    return LAM_OK;
}

static lam_status read_one_file(lam_images *list, const lam_images_config *config) {
    const lam_table *table = list->table;
    int file = lam_table_column(table, "file"), row_column = lam_table_column(table, "row");
    list->one_file = true;
    LAM_TRY(lam_alloc_array((void **)&list->sources, list->images, sizeof *list->sources));
    for (int64_t i = 0; i < list->images; i++) {
        lam_source *s = &list->sources[i];
        const char *cell = lam_table_cell(table, i, file);
        s->row = -1;
        LAM_REQUIRE(cell[0] != 0, LAM_ERROR_INPUT, "%s:%lld: column file is empty", lam_table_path(table),
                    (long long)lam_table_line(table, i));
        LAM_TRY(lam_images_resolve(config, NULL, cell, &s->path, &s->cells_hash));
        if (row_column >= 0 && lam_table_cell(table, i, row_column)[0] != 0)
            LAM_TRY(read_row_number(table, i, row_column, &s->row));
    }
    if (config->channels != NULL) return take_names(list, config->channels, NULL, config->channel_count);
    return LAM_OK;
}

static lam_status fill_wide(lam_images *list, const lam_images_config *config,
                            const channel_columns *channels, const int64_t *picked) {
    const lam_table *table = list->table;
    LAM_TRY(lam_alloc_array((void **)&list->sources, list->images * list->channels, sizeof *list->sources));
    for (int64_t i = 0; i < list->images; i++) {
        bool any = false;
        for (int64_t c = 0; c < list->channels; c++) {
            const channel_columns *k = &channels[picked[c]];
            lam_source *s = &list->sources[i * list->channels + c];
            const char *cell = lam_table_cell(table, i, k->file);
            s->row = -1;
            if (cell[0] == 0) continue;
            any = true;
            LAM_TRY(lam_images_resolve(config, k->path >= 0 ? lam_table_cell(table, i, k->path) : NULL, cell,
                                       &s->path, &s->cells_hash));
            const char *light =
                k->illumination_file >= 0 ? lam_table_cell(table, i, k->illumination_file) : "";
            if (light[0] == 0) continue;
            list->has_illumination = true;
            LAM_TRY(lam_images_resolve(
                config, k->illumination_path >= 0 ? lam_table_cell(table, i, k->illumination_path) : NULL,
                light, &s->illumination, &s->cells_hash));
        }
        LAM_REQUIRE(any, LAM_ERROR_INPUT, "%s:%lld: no channel has a file", lam_table_path(table),
                    (long long)lam_table_line(table, i));
    }
    return LAM_OK;
}

static lam_status read_wide(lam_images *list, const lam_images_config *config, channel_columns *channels,
                            int64_t count) {
    const char **names = NULL;
    int64_t *picked = NULL, picked_count = 0;
    lam_status status = LAM_OK;
    LAM_TRY(lam_alloc_array((void **)&names, count, sizeof *names));
    for (int64_t c = 0; c < count; c++) names[c] = channels[c].name;
    for (int64_t c = 0; c < count; c++)
        for (int64_t k = 0; k < c; k++)
            LAM_REQUIRE_GOTO(strcmp(names[c], names[k]) != 0, done, LAM_ERROR_INPUT,
                             "%s: two columns name the files of channel %s", lam_table_path(list->table),
                             names[c]);
    LAM_TRY_GOTO(lam_images_pick(config, names, count, &picked, &picked_count), done);
    LAM_TRY_GOTO(take_names(list, names, picked, picked_count), done);
    LAM_TRY_GOTO(fill_wide(list, config, channels, picked), done);
done:
    lam_free(names);
    lam_free(picked);
    return status;
}

/* Every column but those of files of one channel. */
static lam_status copy_metadata(lam_images *list) {
    const char **values = NULL;
    lam_status status = LAM_OK;
    LAM_TRY(lam_table_create(&list->metadata, list->images));
    LAM_TRY(lam_alloc_array((void **)&values, list->images, sizeof *values));
    for (int c = 0; c < lam_table_columns(list->table); c++) {
        const char *name = lam_table_name(list->table, c);
        if (is_file_column(name)) continue;
        for (int64_t i = 0; i < list->images; i++) values[i] = lam_table_cell(list->table, i, c);
        LAM_TRY_GOTO(lam_table_add(list->metadata, name, values), done);
    }
done:
    lam_free(values);
    return status;
}

/* ---- all tables ---- */

static void hash_text(XXH64_state_t *state, const char *text) {
    XXH64_update(state, text != NULL ? text : "", (text != NULL ? strlen(text) : 0) + (text != NULL));
    XXH64_update(state, text != NULL ? "+" : "-", 1);
}

/* Of the cells as they stand in the table: a folder that moved still fits. */
static lam_status hash_images(lam_images *list) {
    XXH64_state_t *state = XXH64_createState();
    LAM_REQUIRE(state != NULL, LAM_ERROR_MEMORY, "out of memory for a hash");
    lam_status status = lam_alloc_array((void **)&list->hashes, list->images, sizeof *list->hashes);
    for (int64_t i = 0; status == LAM_OK && i < list->images; i++) {
        XXH64_reset(state, 0);
        for (int c = 0; c < lam_table_columns(list->metadata); c++)
            hash_text(state, lam_table_cell(list->metadata, i, c));
        int64_t sources = list->one_file ? 1 : list->channels;
        for (int64_t c = 0; c < sources; c++) {
            const lam_source *s = &list->sources[i * sources + c];
            XXH64_update(state, &s->cells_hash, sizeof s->cells_hash);
            XXH64_update(state, &s->row, sizeof s->row);
        }
        list->hashes[i] = XXH64_digest(state);
    }
    XXH64_freeState(state);
    return status;
}

typedef struct identity {
    uint64_t hash;
    int64_t image;
} identity;

static int compare_identities(const void *a, const void *b) {
    const identity *x = a, *y = b;
    if (x->hash != y->hash) return x->hash < y->hash ? -1 : 1;
    return (x->image > y->image) - (x->image < y->image);
}

static bool same_pixels(const lam_images *list, int64_t a, int64_t b) {
    int64_t sources = list->one_file ? 1 : list->channels;
    for (int64_t c = 0; c < sources; c++) {
        const lam_source *x = &list->sources[a * sources + c], *y = &list->sources[b * sources + c];
        if ((x->path == NULL) != (y->path == NULL) || x->row != y->row) return false;
        if (x->path != NULL && strcmp(x->path, y->path) != 0) return false;
    }
    return true;
}

static lam_status refuse_duplicates(const lam_images *list) {
    identity *all = NULL;
    int64_t sources = list->one_file ? 1 : list->channels;
    lam_status status = LAM_OK;
    LAM_TRY(lam_alloc_array((void **)&all, list->images, sizeof *all));
    for (int64_t i = 0; i < list->images; i++) {
        uint64_t hash = 0;
        for (int64_t c = 0; c < sources; c++) {
            const lam_source *s = &list->sources[i * sources + c];
            hash = XXH64(s->path != NULL ? s->path : "", s->path != NULL ? strlen(s->path) : 0, hash + 1);
            hash = XXH64(&s->row, sizeof s->row, hash);
        }
        all[i] = (identity){hash, i};
    }
    qsort(all, (size_t)list->images, sizeof *all, compare_identities);
    for (int64_t i = 1; i < list->images && status == LAM_OK; i++) {
        if (all[i].hash != all[i - 1].hash || !same_pixels(list, all[i].image, all[i - 1].image)) continue;
        status = lam_fail(LAM_ERROR_INPUT, __FILE__, __LINE__,
                          "%s: duplicate rows: lines %lld and %lld name the same pixels; remove one",
                          lam_table_path(list->table),
                          (long long)lam_table_line(list->table, list->rows[all[i - 1].image]),
                          (long long)lam_table_line(list->table, list->rows[all[i].image]));
    }
    lam_free(all);
    return status;
}

/* The columns as a list, cut with "..." where it grows long. */
static void list_columns(const lam_table *table, char *list, size_t room) {
    size_t used = 0;
    list[0] = 0;
    for (int c = 0; c < lam_table_columns(table); c++) {
        const char *name = lam_table_name(table, c);
        if (used + strlen(name) + sizeof ", , ..." > room) {
            snprintf(list + used, room - used, ", ...");
            return;
        }
        used += (size_t)snprintf(list + used, room - used, "%s%s", c > 0 ? ", " : "", name);
    }
}

static lam_status read_kind(lam_images *list, const lam_images_config *config, channel_columns *channels,
                            int64_t count) {
    const lam_table *table = list->table;
    bool file = lam_table_column(table, "file") >= 0;
    LAM_REQUIRE(lam_table_columns(table) > 1 || strchr(lam_table_name(table, 0), ';') == NULL,
                LAM_ERROR_INPUT,
                "%s: a single column, '%s': is the separator ';'? Save the table with commas or tabs",
                lam_table_path(table), lam_table_name(table, 0));
    LAM_REQUIRE(!file || count == 0, LAM_ERROR_INPUT,
                "%s: a column file and a column %s: one file for all channels or one a channel, not both",
                lam_table_path(table), lam_table_name(table, channels[0].file));
    char columns[400];
    list_columns(table, columns, sizeof columns);
    LAM_REQUIRE(
        file || count > 0, LAM_ERROR_INPUT,
        "%s: no column says where the images are: a column 'file', a column 'file_<channel>' for each "
        "channel, or FileName_Orig<channel> with PathName_Orig<channel> is needed; there are: %s",
        lam_table_path(table), columns);
    if (file && lam_table_column(table, "channel") >= 0) return lam_images_read_long(list, config);
    list->images = lam_table_rows(table);
    LAM_TRY(lam_alloc_array((void **)&list->rows, list->images, sizeof *list->rows));
    for (int64_t i = 0; i < list->images; i++) list->rows[i] = i;
    LAM_TRY(copy_metadata(list));
    return file ? read_one_file(list, config) : read_wide(list, config, channels, count);
}

lam_status lam_images_read(lam_images **out, const lam_images_config *config) {
    lam_images *list = NULL;
    channel_columns *channels = NULL;
    int64_t count = 0;
    lam_status status = LAM_OK;
    *out = NULL;
    LAM_TRY(lam_alloc((void **)&list, sizeof *list));
    LAM_TRY_GOTO(lam_table_read(&list->table, config->path), done);
    LAM_REQUIRE_GOTO(lam_table_rows(list->table) > 0, done, LAM_ERROR_INPUT, "%s: no rows below the header",
                     config->path);
    LAM_TRY_GOTO(find_channels(list->table, &channels, &count), done);
    LAM_TRY_GOTO(read_kind(list, config, channels, count), done);
    LAM_REQUIRE_GOTO(list->channels <= LAM_SHARD_MAX_CHANNELS &&
                         lam_table_columns(list->metadata) <= LAM_SHARD_MAX_COLUMNS,
                     done, LAM_ERROR_INPUT,
                     "%s: %lld channels and %d columns; at most %d and %d can be packed", config->path,
                     (long long)list->channels, lam_table_columns(list->metadata), LAM_SHARD_MAX_CHANNELS,
                     LAM_SHARD_MAX_COLUMNS);
    LAM_TRY_GOTO(refuse_duplicates(list), done);
    LAM_TRY_GOTO(hash_images(list), done);
done:
    for (int64_t c = 0; c < count; c++) lam_free(channels[c].name);
    lam_free(channels);
    if (status != LAM_OK) lam_images_free(&list);
    *out = list;
    return status;
}

void lam_images_free(lam_images **images) {
    lam_images *list = *images;
    *images = NULL;
    if (list == NULL) return;
    int64_t sources = list->images * (list->one_file ? 1 : list->channels);
    for (int64_t i = 0; list->sources != NULL && i < sources; i++) {
        lam_free(list->sources[i].path);
        lam_free(list->sources[i].illumination);
    }
    for (int64_t c = 0; list->channel_names != NULL && c < list->channels; c++)
        lam_free(list->channel_names[c]);
    lam_free(list->channel_names);
    lam_free(list->sources);
    lam_free(list->rows);
    lam_free(list->hashes);
    lam_table_free(list->table);
    lam_table_free(list->metadata);
    lam_free(list);
}

const lam_source *lam_images_source(const lam_images *images, int64_t image, int64_t channel) {
    return images->one_file ? &images->sources[image] : &images->sources[image * images->channels + channel];
}
