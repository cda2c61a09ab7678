/* lamella pack: tables of images become a folder of shards. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/cli.h"
#include "base/fault.h"
#include "base/files.h"
#include "base/json.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/signals.h"
#include "base/threads.h"
#include "data/commands.h"
#include "data/pack_image.h"

enum { IMAGES_A_THREAD = 4 };
static const size_t stack_bytes = (size_t)1 << 30; /* arrays kept in memory */

typedef struct packing {
    lam_images_config table;
    char *prefix, *channel_text;
    const char **channel_list;
    lam_images *list;
    char **names; /* [settings.channels] where the table names none */
    double *changed;
    lam_pack_settings settings;
    lam_dataset_config dataset;
    int64_t kept;
} packing;

static const lam_option options[] = {
    {"out", LAM_OPTION_TEXT, "SHARDS", NULL, .help = "folder of the shards", .required = true},
    {"images", LAM_OPTION_TEXT, "DIR", NULL,
     .help = "where relative paths begin (default: the folder of the table)"},
    {"path-prefix", LAM_OPTION_TEXT, "OLD=NEW", NULL,
     .help = "paths that begin with OLD begin with NEW instead"},
    {"bit-depth", LAM_OPTION_CHOICE, "8|10|12|14|16", NULL,
     .help = "bits of a pixel (default: found for each channel)"},
    {"to-uint8", LAM_OPTION_CHOICE, "percentile|linear", NULL,
     .help = "store 8 bits: 0.1 to 99.9 percentile of each plane, or the whole bit depth (16 without "
             "--bit-depth)"},
    {"illumination", LAM_OPTION_FLAG, NULL, NULL,
     .help = "divide by the illumination functions that the table names"},
    {"channels", LAM_OPTION_TEXT, "A,B", NULL,
     .help = "channels to pack, in this order; names those of a column 'file'"},
    {"group", LAM_OPTION_TEXT, "COLUMN", NULL,
     .help = "what training and validation must not share (default: plate with well)"},
    {"project", LAM_OPTION_CHOICE, "max|mean|middle", NULL, .help = "how planes in Z become one"},
    {"shard-size", LAM_OPTION_INT, "MiB", "256", .help = "size at which a shard is closed", .minimum = 1,
     .maximum = 65536},
    {"resume", LAM_OPTION_FLAG, NULL, NULL, .help = "keep the whole shards of a packing that was stopped"},
    {0}};

/* ---- what is asked ---- */

static lam_status split_prefix(packing *p, const char *text) {
    if (text == NULL) return LAM_OK;
    LAM_TRY(lam_text_copy(&p->prefix, text));
    char *equals = strchr(p->prefix, '=');
    LAM_REQUIRE(equals != NULL && equals != p->prefix, LAM_ERROR_USAGE, "--path-prefix %s: OLD=NEW is due",
                text);
    *equals = 0;
    p->table.prefix_old = p->prefix;
    p->table.prefix_new = equals + 1;
    return LAM_OK;
}

static lam_status split_channels(packing *p, const char *text) {
    if (text == NULL) return LAM_OK;
    LAM_TRY(lam_text_copy(&p->channel_text, text));
    LAM_TRY(lam_alloc_array((void **)&p->channel_list, (int64_t)strlen(text) + 1, sizeof *p->channel_list));
    for (char *at = p->channel_text, *comma = at; comma != NULL; at = comma + 1) {
        comma = strchr(at, ',');
        if (comma != NULL) *comma = 0;
        LAM_REQUIRE(at[0] != 0, LAM_ERROR_USAGE, "--channels %s: an empty name", text);
        p->channel_list[p->table.channel_count++] = at;
        if (comma == NULL) break;
    }
    p->table.channels = p->channel_list;
    return LAM_OK;
}

static lam_status read_options(packing *p, const lam_arguments *a) {
    const char *bits = lam_option_text(a, "bit-depth"), *narrow = lam_option_text(a, "to-uint8");
    const char *project = lam_option_text(a, "project");
    p->table.path = lam_positional(a, 0);
    p->table.folder = lam_option_text(a, "images");
    LAM_TRY(split_prefix(p, lam_option_text(a, "path-prefix")));
    LAM_TRY(split_channels(p, lam_option_text(a, "channels")));
    p->settings.bit_depth = bits == NULL ? 0 : bits[1] == 0 ? 8 : 10 + bits[1] - '0';
    p->settings.to_uint8 = narrow == NULL                      ? LAM_TO_UINT8_OFF
                           : strcmp(narrow, "percentile") == 0 ? LAM_TO_UINT8_PERCENTILE
                                                               : LAM_TO_UINT8_LINEAR;
    p->settings.projection = project == NULL                ? LAM_PROJECT_NONE
                             : strcmp(project, "max") == 0  ? LAM_PROJECT_MAX
                             : strcmp(project, "mean") == 0 ? LAM_PROJECT_MEAN
                                                            : LAM_PROJECT_MIDDLE;
    p->settings.illumination = lam_option_flag(a, "illumination");
    p->dataset.folder = lam_option_text(a, "out");
    p->dataset.group = lam_option_text(a, "group");
    p->dataset.shard_bytes = lam_option_int(a, "shard-size") << 20;
    p->dataset.resume = lam_option_flag(a, "resume");
    p->dataset.force = lam_option_force(a);
    return LAM_OK;
}

/* ---- what is there ---- */

/* Every file that the table names, before anything is written; when it changed last. */
static lam_status check_files(packing *p) {
    const lam_images *list = p->list;
    int64_t sources = list->one_file ? 1 : list->channels;
    LAM_TRY(lam_alloc_array((void **)&p->changed, list->images, sizeof *p->changed));
    for (int64_t k = 0; k < list->images * sources; k++) {
        const lam_source *s = &list->sources[k];
        const char *paths[2] = {s->path, p->settings.illumination ? s->illumination : NULL};
        for (int i = 0; i < 2; i++) {
            struct stat info;
            if (paths[i] == NULL) continue;
            /* Rows of one stack follow each other. */
            if (i == 0 && k > 0 && list->one_file && strcmp(paths[0], list->sources[k - 1].path) == 0) {
                p->changed[k] = p->changed[k - 1];
                continue;
            }
            int failed = lam_fault_hit(LAM_FAULT_READ) ? (errno = EIO, -1) : stat(paths[i], &info);
            LAM_REQUIRE(failed == 0 && S_ISREG(info.st_mode), LAM_ERROR_IO, "%s:%lld: %s%s: %s%s",
                        lam_table_path(list->table),
                        (long long)lam_table_line(list->table, list->rows[k / sources]),
                        list->one_file ? "file" : "channel ",
                        list->one_file ? "" : list->channel_names[k % sources], paths[i],
                        failed == 0 && S_ISDIR(info.st_mode) ? ": a folder"
                        : failed == 0                        ? ": not a regular file"
                        : errno == ENOENT                    ? ": no such file"
                                                             : ": cannot be read");
            double when = (double)info.st_mtim.tv_sec + 1e-9 * (double)info.st_mtim.tv_nsec;
            if (when > p->changed[k / sources]) p->changed[k / sources] = when;
        }
    }
    return LAM_OK;
}

/* Names and number of the channels; a file that holds all of them says how many. */
static lam_status settle_channels(packing *p) {
    lam_images *list = p->list;
    if (!list->one_file) {
        p->settings.channels = list->channels;
        p->settings.channel_names = (const char *const *)list->channel_names;
        return LAM_OK;
    }
    lam_image first = {0};
    LAM_TRY(lam_pack_read(&p->settings, &list->sources[0], &first));
    int64_t channels = first.channels;
    const char *path = list->sources[0].path;
    lam_image_free(&first);
    LAM_REQUIRE(!list->named || list->channels == channels, LAM_ERROR_INPUT,
                "--channels names %lld channels, but %s has %lld", (long long)list->channels, path,
                (long long)channels);
    p->settings.channels = channels;
    LAM_TRY(lam_alloc_array((void **)&p->names, channels, sizeof *p->names));
    for (int64_t c = 0; c < channels; c++) {
        if (list->named)
            LAM_TRY(lam_text_copy(&p->names[c], list->channel_names[c]));
        else
            LAM_TRY(lam_text_format(&p->names[c], "ch%lld", (long long)c + 1));
    }
    p->settings.channel_names = (const char *const *)p->names;
    return LAM_OK;
}

static lam_status prepare(packing *p) {
    LAM_TRY(lam_images_read(&p->list, &p->table));
    const lam_images *list = p->list;
    if (p->dataset.group != NULL && lam_table_column(list->metadata, p->dataset.group) < 0) {
        int column = 0;
        LAM_TRY(lam_table_require(list->table, p->dataset.group, &column));
        LAM_FAIL(LAM_ERROR_INPUT, "--group %s: this column is no metadata of whole images in %s",
                 p->dataset.group, p->table.path);
    }
    LAM_TRY(check_files(p));
    LAM_TRY(lam_stacks_create(&p->settings.stacks, stack_bytes));
    p->settings.list = list;
    LAM_TRY(settle_channels(p));
    if (list->split_images > 0)
        lam_log_info(
            "%s: %lld images more than plate, well and site tell apart: rows with the same channel and other "
            "metadata are images of their own",
            p->table.path, (long long)list->split_images);
    if (list->has_illumination && !p->settings.illumination)
        lam_log_info("%s names illumination functions: not applied (--illumination applies them)",
                     p->table.path);
    int64_t numbers[] = {p->settings.channels,   p->settings.bit_depth,    p->settings.to_uint8,
                         p->settings.projection, p->settings.illumination, p->dataset.shard_bytes};
    uint64_t hash = XXH64(numbers, sizeof numbers, 1);
    for (int64_t c = 0; c < p->settings.channels; c++)
        hash = XXH64(p->settings.channel_names[c], strlen(p->settings.channel_names[c]) + 1, hash);
    p->dataset.settings_hash = hash;
    p->dataset.channel_names = p->settings.channel_names;
    p->dataset.channels = p->settings.channels;
    p->dataset.metadata = list->metadata;
    p->dataset.row_hashes = list->hashes;
    p->dataset.row_changed = p->changed;
    p->dataset.bit_depth = p->settings.to_uint8 == LAM_TO_UINT8_OFF ? p->settings.bit_depth : 0;
    return LAM_OK;
}

/* ---- packing ---- */

typedef struct slot {
    lam_encoded_image *encoded;
    lam_status status;
    char message[1024];
    bool alpha_dropped;
    lam_pixel_type *types; /* [channels] as the files have them; 0: absent */
} slot;

/* Whether the files of a channel agree in their depth; one scale is taken for all of them. */
typedef struct depths {
    lam_pixel_type *types; /* [channels] of the first file; 0: none yet */
    const char **files;
    bool warned;
} depths;

static void check_depths(const packing *p, depths *d, int64_t image, const lam_pixel_type *types) {
    /* --bit-depth 8 refuses larger values: then an 8-bit and a 16-bit file do have one scale. */
    if (d->warned || p->settings.bit_depth == 8) return;
    for (int64_t c = 0; c < p->settings.channels; c++) {
        if (types[c] == 0 || types[c] == d->types[c]) continue;
        const char *path = lam_images_source(p->list, image, p->list->one_file ? 0 : c)->path;
        if (d->types[c] != 0) {
            lam_log_warning(
                "channel %s: %s has %d-bit pixels, %s has %d-bit ones: their integers are taken as one scale; "
                "pack the two kinds into folders of their own, or convert one of them",
                p->settings.channel_names[c], path, 8 * (int)types[c], d->files[c], 8 * (int)d->types[c]);
            d->warned = true;
            return;
        }
        d->types[c] = types[c];
        d->files[c] = path;
    }
}

/* Encodes `count` images from `first` on all threads; they are stored in their order by the caller. */
static void encode_batch(const lam_pack_settings *settings, int64_t first, int64_t count, slot *slots) {
#pragma omp parallel for schedule(dynamic, 1) num_threads(lam_threads())
    for (int64_t i = 0; i < count; i++) {
        slots[i] = (slot){.types = slots[i].types};
        memset(slots[i].types, 0, (size_t)settings->channels * sizeof *slots[i].types);
        slots[i].status =
            lam_pack_image(settings, first + i, &slots[i].encoded, slots[i].types, &slots[i].alpha_dropped);
        /* The message belongs to this thread: it is carried to the caller's. */
        if (slots[i].status != LAM_OK)
            snprintf(slots[i].message, sizeof slots[i].message, "%s", lam_last_error());
    }
}

static lam_status store_batch(lam_dataset *d, slot *slots, int64_t count, bool *alpha_dropped) {
    for (int64_t i = 0; i < count; i++) {
        if (slots[i].status != LAM_OK) LAM_FAIL(slots[i].status, "%s", slots[i].message);
        LAM_TRY(lam_dataset_add(d, slots[i].encoded));
        lam_encoded_free(&slots[i].encoded);
        *alpha_dropped = *alpha_dropped || slots[i].alpha_dropped;
    }
    return LAM_OK;
}

static lam_status pack_images(packing *p, lam_dataset *d, lam_progress *progress, bool *alpha_dropped) {
    int64_t batch = (int64_t)lam_threads() * IMAGES_A_THREAD, images = p->list->images;
    int64_t channels = p->settings.channels;
    slot *slots = NULL;
    lam_pixel_type *types = NULL;
    depths seen = {0};
    lam_status status = LAM_OK;
    double start = lam_now();
    LAM_TRY_GOTO(lam_alloc_array((void **)&slots, batch, sizeof *slots), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&types, batch * channels, sizeof *types), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&seen.types, channels, sizeof *seen.types), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&seen.files, channels, sizeof *seen.files), done);
    for (int64_t i = 0; i < batch; i++) slots[i].types = types + i * channels;
    for (int64_t first = p->kept; first < images && status == LAM_OK; first += batch) {
        int64_t count = images - first < batch ? images - first : batch;
        uint64_t stored = 0, pixels = 0;
        char rate[48];
        LAM_REQUIRE_GOTO(!lam_stop_requested(), done, LAM_STOPPED,
                         "stopped by %s after %lld of %lld images: run again with --resume%s",
                         lam_stop_signal_name(), (long long)first, (long long)images,
                         p->dataset.force ? " --force" : "");
        encode_batch(&p->settings, first, count, slots);
        status = store_batch(d, slots, count, alpha_dropped);
        for (int64_t i = 0; i < count && status == LAM_OK; i++)
            check_depths(p, &seen, first + i, slots[i].types);
        for (int64_t i = 0; i < count; i++) lam_encoded_free(&slots[i].encoded);
        lam_dataset_totals(d, &stored, &pixels);
        snprintf(rate, sizeof rate, "%.1f MB/s", (double)pixels / 1e6 / (lam_now() - start + 1e-9));
        lam_progress_update(progress, first + count, rate);
    }
done:
    lam_free(slots);
    lam_free(types);
    lam_free(seen.types);
    lam_free(seen.files);
    return status;
}

static lam_status print_result(const packing *p, uint64_t stored, uint64_t pixels, double seconds,
                               bool json) {
    double ratio = (double)pixels / (double)stored, rate = (double)pixels / 1e6 / seconds;
    if (!json) {
        lam_log_info(
            "%s: %lld images of %lld channels, %.1f MB of pixels in %.1f MB (%.2f to 1), %.1f s, %.1f MB/s",
            p->dataset.folder, (long long)p->list->images, (long long)p->settings.channels,
            (double)pixels / 1e6, (double)stored / 1e6, ratio, seconds, rate);
        return LAM_OK;
    }
    lam_json *root = lam_json_object();
    char *text = NULL;
    lam_json_set_text(root, "out", p->dataset.folder);
    lam_json_set_int(root, "images", p->list->images);
    lam_json_set_int(root, "images_kept", p->kept);
    lam_json_set_int(root, "channels", p->settings.channels);
    lam_json_set_int(root, "pixel_bytes", (int64_t)pixels);
    lam_json_set_int(root, "stored_bytes", (int64_t)stored);
    lam_json_set_float(root, "ratio", ratio);
    lam_json_set_float(root, "seconds", seconds);
    lam_json_set_float(root, "mb_per_s", rate);
    lam_status status = lam_json_dump(root, false, &text);
    if (status == LAM_OK) printf("%s\n", text);
    lam_free(text);
    lam_json_free(root);
    return status;
}

static lam_status pack_all(packing *p, bool json) {
    lam_dataset *d = NULL;
    bool alpha_dropped = false, was_there = lam_path_exists(p->dataset.folder);
    uint64_t stored = 0, pixels = 0;
    double start = lam_now();
    lam_progress *progress = NULL;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_dataset_create(&d, &p->dataset), done);
    p->kept = lam_dataset_images(d);
    if (p->kept > 0)
        lam_log_info("%s: %lld images are packed already", p->dataset.folder, (long long)p->kept);
    progress = lam_progress_start("pack", p->list->images, "images");
    LAM_TRY_GOTO(pack_images(p, d, progress, &alpha_dropped), done);
    lam_dataset_totals(d, &stored, &pixels);
    LAM_TRY_GOTO(lam_dataset_finish(&d), done);
    lam_progress_finish(progress);
    progress = NULL;
    if (alpha_dropped) lam_log_info("%s: opacity (alpha) channels were left out", p->table.path);
    LAM_TRY_GOTO(print_result(p, stored, pixels, lam_now() - start, json), done);
done:
    lam_progress_finish(progress);
    lam_dataset_abort(&d);
    /* A folder of ours without a whole shard in it is of no use; one with shards can be resumed and stays. */
    if (status != LAM_OK && !was_there) rmdir(p->dataset.folder);
    return status;
}

/* A folder that is there needs --force, or --resume where a packing was stopped in it. */
static lam_status require_new_or_chosen(const lam_dataset_config *c) {
    bool unfinished = false;
    if (c->resume || c->force || !lam_path_is_folder(c->folder))
        return lam_require_new_folder(c->folder, c->resume || c->force);
    LAM_TRY(lam_shards_unfinished(c->folder, &unfinished));
    LAM_REQUIRE(!unfinished, LAM_ERROR_USAGE,
                "'%s' holds a packing that was stopped: --resume goes on with it, --force begins anew",
                c->folder);
    return lam_require_new_folder(c->folder, false);
}

static lam_status run_pack(const lam_arguments *arguments) {
    packing p = {0};
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(read_options(&p, arguments), done);
    LAM_TRY_GOTO(require_new_or_chosen(&p.dataset), done);
    LAM_TRY_GOTO(prepare(&p), done);
    LAM_TRY_GOTO(pack_all(&p, lam_option_json(arguments)), done);
done:
    for (int64_t c = 0; p.names != NULL && c < p.settings.channels; c++) lam_free(p.names[c]);
    lam_free(p.names);
    lam_stacks_free(&p.settings.stacks);
    lam_images_free(&p.list);
    lam_free(p.changed);
    lam_free(p.prefix);
    lam_free(p.channel_text);
    lam_free(p.channel_list);
    return status;
}

const lam_command lam_command_pack = {"pack",
                                      "images and their table to shards",
                                      "IMAGES.csv",
                                      1,
                                      1,
                                      options,
                                      "lamella pack screen/images.csv --out shards",
                                      run_pack};
