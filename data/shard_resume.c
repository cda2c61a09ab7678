#include "data/shard_write_parts.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/sealed.h"

void lam_shard_name(char name[LAM_SHARD_NAME_BYTES], int64_t shard, bool other) {
    snprintf(name, LAM_SHARD_NAME_BYTES, "shard_%05lld%s.lam", (long long)shard, other ? "b" : "");
}

/* The number in a name of ours; -1: none. */
static int64_t shard_number(const char *name) {
    char ours[LAM_SHARD_NAME_BYTES];
    if (strncmp(name, "shard_", 6) != 0) return -1;
    long long number = strtoll(name + 6, NULL, 10);
    for (int other = 0; other < 2 && number >= 0; other++) {
        lam_shard_name(ours, number, other);
        if (strcmp(name, ours) == 0) return number;
    }
    return -1;
}

static lam_status remove_file(const char *path) {
    LAM_REQUIRE(unlink(path) == 0 || errno == ENOENT, LAM_ERROR_IO, "%s: cannot be removed: %s", path,
                strerror(errno));
    return LAM_OK;
}

lam_status lam_dataset_remove_others(const lam_dataset *d, bool listed) {
    char **names = NULL;
    int64_t count = 0;
    lam_status status = LAM_OK;
    LAM_TRY(lam_list_folder(d->config.folder, "", &names, &count));
    for (int64_t i = 0; i < count && status == LAM_OK; i++) {
        char *path = NULL;
        int64_t n = shard_number(names[i]);
        bool partial = (strncmp(names[i], "shard_", 6) == 0 || strncmp(names[i], "dataset.json", 12) == 0) &&
                       strstr(names[i], ".partial-") != NULL;
        if (n < 0 && !partial) continue;
        if (n >= 0 && n < d->shards && strcmp(names[i], d->done[n].name) == 0) continue;
        if (n >= 0 && listed && n < d->listed_count && strcmp(names[i], d->listed[n]) == 0) continue;
        status = lam_path_join(&path, d->config.folder, names[i]);
        if (status == LAM_OK) status = remove_file(path);
        lam_free(path);
    }
    lam_free_texts(names, count);
    return status;
}

static lam_status link_plain(const lam_dataset *d, const char *name, int64_t shard, bool *linked) {
    char plain[LAM_SHARD_NAME_BYTES], *from = NULL, *to = NULL;
    lam_shard_name(plain, shard, false);
    if (strcmp(plain, name) == 0) return LAM_OK;
    lam_status status = lam_path_join(&from, d->config.folder, name);
    if (status == LAM_OK) status = lam_path_join(&to, d->config.folder, plain);
    if (status == LAM_OK) *linked = !lam_fault_hit(LAM_FAULT_WRITE) && link(from, to) == 0;
    lam_free(from);
    lam_free(to);
    return status;
}

lam_status lam_dataset_settle_names(lam_dataset *d) {
    bool all = true, other = false;
    for (int64_t i = 0; i < d->shards && all; i++) {
        other = other || strstr(d->done[i].name, "b.lam") != NULL;
        LAM_TRY(link_plain(d, d->done[i].name, i, &all));
    }
    if (!other) return LAM_OK;
    if (all) {
        for (int64_t i = 0; i < d->shards; i++) lam_shard_name(d->done[i].name, i, false);
        LAM_TRY(lam_dataset_write_json(d));
    }
    return lam_dataset_remove_others(d, false);
}

/* ---- what is there ---- */

/* The files of a dataset.json that is whole; one that is damaged is removed, and counts as none. */
static lam_status read_listed(lam_dataset *d, char **group) {
    char *path = NULL;
    lam_json *json = NULL;
    LAM_TRY(lam_path_join(&path, d->config.folder, "dataset.json"));
    lam_status status = LAM_OK;
    if (!lam_path_exists(path)) goto done;
    status = lam_sealed_read(&json, path);
    if (status == LAM_ERROR_FORMAT) status = remove_file(path);
    if (status != LAM_OK || json == NULL) goto done;
    const lam_json *shards = lam_json_get(json, "shards");
    const char *text = lam_json_text(lam_json_get(json, "group"), NULL);
    int64_t count = lam_json_is_array(shards) ? (int64_t)lam_json_size(shards) : 0;
    LAM_TRY_GOTO(lam_alloc_array((void **)&d->listed, count, sizeof *d->listed), done);
    for (; d->listed_count < count; d->listed_count++) {
        const lam_json *file = lam_json_get(lam_json_at(shards, (size_t)d->listed_count), "file");
        LAM_TRY_GOTO(lam_text_copy(&d->listed[d->listed_count], lam_json_text(file, "")), done);
    }
    if (text != NULL) LAM_TRY_GOTO(lam_text_copy(group, text), done);
done:
    lam_json_free(json);
    lam_free(path);
    return status;
}

/* Whether a shard with this index was packed from these rows of this table, with these settings. */
static bool same_packing(const lam_dataset *d, const lam_shard_index *x, int64_t first_row) {
    const lam_dataset_config *c = &d->config;
    bool same = x->settings_hash == c->settings_hash && x->channels == c->channels &&
                x->first_row == first_row && x->images <= lam_table_rows(c->metadata) - first_row &&
                x->slice_hash == lam_dataset_slice_hash(d, x->first_row, x->images) &&
                x->columns == lam_table_columns(c->metadata);
    for (int64_t i = 0; same && i < x->channels; i++)
        same = strcmp(x->channel_names[i], c->channel_names[i]) == 0;
    for (int i = 0; same && i < x->columns; i++)
        same = strcmp(x->column_names[i], lam_table_name(c->metadata, i)) == 0;
    return same;
}

/* A finished dataset is not taken apart by a --resume that was meant for another. */
static lam_status refuse_other_packing(const lam_dataset *d, const char *group) {
    const char *wanted = d->config.group;
    bool same = wanted == NULL || group == NULL ? wanted == group : strcmp(wanted, group) == 0;
    int64_t row = 0;
    for (int64_t i = 0; i < d->listed_count && same; i++) {
        char *path = NULL;
        lam_shard_index index = {0};
        LAM_TRY(lam_path_join(&path, d->config.folder, d->listed[i]));
        lam_status read = lam_shard_index_read(&index, path);
        if (read == LAM_OK) same = same_packing(d, &index, row);
        row += index.images;
        lam_shard_index_free(&index);
        lam_free(path);
        if (read == LAM_ERROR_MEMORY) return read;
        if (read != LAM_OK) break; /* damaged: which rows follow is not known; it is packed again */
    }
    LAM_REQUIRE(
        same, LAM_ERROR_USAGE,
        "'%s' holds a finished dataset of another table or of other settings: choose another name, or give "
        "--force to replace it",
        d->config.folder);
    return LAM_OK;
}

/* ---- what is kept ---- */

static lam_status check_shard(const lam_dataset *d, const lam_shard_index *x, const char *path,
                              double written) {
    const lam_dataset_config *c = &d->config;
    LAM_REQUIRE(same_packing(d, x, d->images), LAM_ERROR_INPUT,
                "%s: packed from another table or with other settings", path);
    for (int64_t i = 0; c->row_changed != NULL && i < x->images; i++)
        LAM_REQUIRE(c->row_changed[x->first_row + i] <= written, LAM_ERROR_INPUT,
                    "%s: an image has changed since it was packed", path);
    return lam_shard_frames_check(x, path);
}

/* Keeps the next shard where the file `name` is it; *kept says so. */
static lam_status keep(lam_dataset *d, const char *name, bool *kept) {
    char *path = NULL;
    lam_shard_index index = {0};
    struct stat info;
    LAM_TRY(lam_path_join(&path, d->config.folder, name));
    lam_status status = LAM_OK;
    if (stat(path, &info) != 0) goto done;
    double written = (double)info.st_mtim.tv_sec + 1e-9 * (double)info.st_mtim.tv_nsec;
    status = lam_shard_index_read(&index, path);
    if (status == LAM_OK) status = check_shard(d, &index, path, written);
    if (status != LAM_OK) {
        if (status != LAM_ERROR_MEMORY) {
            lam_log_info("packed again from here: %s", lam_last_error());
            status = LAM_OK;
        }
        goto done;
    }
    done_shard done = {.bytes = (uint64_t)info.st_size, .hash = index.hash, .images = index.images};
    snprintf(done.name, sizeof done.name, "%s", name);
    LAM_TRY_GOTO(lam_dataset_note_done(d, &done), done);
    for (int64_t i = 0; i < index.images; i++)
        lam_dataset_note_image(d, index.present + i * index.channels, index.channel_maximum, index.heights[i],
                               index.widths[i]);
    d->images += index.images;
    *kept = true;
done:
    lam_shard_index_free(&index);
    lam_free(path);
    return status;
}

static lam_status resume(lam_dataset *d) {
    lam_progress *progress = NULL;
    lam_status status = LAM_OK;
    for (bool kept = true; kept && status == LAM_OK && d->images < lam_table_rows(d->config.metadata);) {
        char name[LAM_SHARD_NAME_BYTES];
        kept = false;
        for (int other = 0; other < 2 && !kept && status == LAM_OK; other++) {
            lam_shard_name(name, d->shards, other);
            status = keep(d, name, &kept);
        }
        if (kept && progress == NULL)
            progress = lam_progress_start("check", lam_table_rows(d->config.metadata), "packed images");
        lam_progress_update(progress, d->images, NULL);
    }
    lam_progress_finish(progress);
    return status;
}

lam_status lam_dataset_prepare(lam_dataset *d) {
    char *group = NULL;
    LAM_TRY(lam_make_folders(d->config.folder));
    lam_status status = read_listed(d, &group);
    if (status == LAM_OK && d->listed_count > 0 && d->config.resume && !d->config.force)
        status = refuse_other_packing(d, group);
    lam_free(group);
    if (status == LAM_OK && d->config.resume) status = resume(d);
    return status == LAM_OK ? lam_dataset_remove_others(d, true) : status;
}
