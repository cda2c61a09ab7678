#include "train/commands.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/embeddings.h"
#include "base/files.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/picture.h"
#include "base/records.h"
#include "base/utf8.h"
#include "base/weights_file.h"
#include "train/checkpoint.h"
#include "train/crops.h"
#include "train/metrics.h"

/* Names that others have given. */
static const char *visible(char shown[512], const char *text) {
    lam_utf8_visible(shown, 512, text);
    return shown;
}

/* Text of any length, line by line. */
static lam_status print_lines(const char *text) {
    char *line = NULL, *shown = NULL;
    size_t room = 4 * strlen(text) + 1;
    lam_status status = lam_alloc((void **)&shown, room);
    while (*text && status == LAM_OK) {
        size_t length = strcspn(text, "\n");
        status = lam_text_copy_n(&line, text, length);
        if (status != LAM_OK) break;
        lam_utf8_visible(shown, room, line);
        puts(shown);
        lam_free(line);
        text += length + (text[length] == '\n');
    }
    lam_free(shown);
    return status;
}

/* ---- shards ---- */

enum { PICTURE_COLUMNS = 6, PICTURE_ROWS = 3, PICTURE_SIDE = 192, PICTURE_GAP = 4 };

static int64_t drawn_side(const lam_shards *shards, int64_t image) {
    int64_t height = 0, width = 0;
    lam_shards_image_size(shards, image, &height, &width);
    int64_t size = height < width ? height : width;
    return size < PICTURE_SIDE ? size : PICTURE_SIDE;
}

/* The middle of an image, at most PICTURE_SIDE pixels wide, as planes of floats; absent channels stay 0. */
static lam_status draw_image(lam_picture *picture, lam_shards *shards, int64_t image, int64_t x0,
                             int64_t y0) {
    int64_t height = 0, width = 0, size = drawn_side(shards, image), channels = lam_shards_channels(shards),
            *map = NULL;
    void *pixels = NULL;
    uint8_t *present = NULL;
    float *planes = NULL;
    lam_shards_image_size(shards, image, &height, &width);
    int64_t count = channels * size * size;
    lam_crop crop = {image, (height - size) / 2, (width - size) / 2};
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_alloc_array((void **)&map, channels, sizeof(int64_t)), done);
    LAM_TRY_GOTO(lam_alloc_array(&pixels, count, sizeof(uint16_t)), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&present, channels, 1), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&planes, count, sizeof(float)), done);
    for (int64_t c = 0; c < channels; c++) map[c] = c;
    LAM_TRY_GOTO(lam_crops_read(shards, &crop, 1, size, map, channels, pixels, present, NULL), done);
    bool narrow = lam_shards_pixel_type(shards) == LAM_PIXEL_U8;
    for (int64_t i = 0; i < count; i++)
        planes[i] = narrow ? ((const uint8_t *)pixels)[i] : ((const uint16_t *)pixels)[i];
    LAM_TRY_GOTO(lam_picture_composite(picture, x0, y0, planes, channels, size, size, NULL, NULL), done);
done:
    lam_free(map);
    lam_free(pixels);
    lam_free(present);
    lam_free(planes);
    return status;
}

static lam_status draw_shards(lam_shards *shards, const char *path) {
    int64_t images = lam_shards_images(shards),
            drawn = images < PICTURE_COLUMNS * PICTURE_ROWS ? images : PICTURE_COLUMNS * PICTURE_ROWS;
    int64_t columns = drawn < PICTURE_COLUMNS ? drawn : PICTURE_COLUMNS,
            rows = (drawn + columns - 1) / columns;
    int64_t side = 0; /* of a cell: that of the largest image */
    for (int64_t i = 0; i < drawn; i++) {
        int64_t size = drawn_side(shards, i * images / drawn);
        if (size > side) side = size;
    }
    int64_t pitch = side + PICTURE_GAP;
    lam_picture picture = {0};
    LAM_TRY(
        lam_picture_create(&picture, columns * pitch - PICTURE_GAP, rows * pitch - PICTURE_GAP, 0xFFFFFF));
    lam_status status = LAM_OK;
    /* Spread over the folder, so that several plates are seen. */
    for (int64_t i = 0; i < drawn && status == LAM_OK; i++)
        status = draw_image(&picture, shards, i * images / drawn, i % columns * pitch, i / columns * pitch);
    if (status == LAM_OK) status = lam_picture_write_png(&picture, path);
    lam_picture_free(&picture);
    return status;
}

static lam_json *shards_json(const lam_shards *shards) {
    lam_json *json = lam_json_object(), *channels = lam_json_array(), *columns = lam_json_array();
    const lam_table *metadata = lam_shards_metadata(shards);
    int64_t plates = 0, groups = 0;
    lam_shards_plates(shards, &plates);
    lam_shards_groups(shards, &groups);
    lam_json_set_text(json, "kind", "shards");
    lam_json_set_int(json, "images", lam_shards_images(shards));
    lam_json_set_int(json, "plates", plates);
    lam_json_set_int(json, "groups", groups);
    lam_json_set_int(json, "bytes_per_pixel", lam_shards_pixel_type(shards));
    for (int64_t c = 0; c < lam_shards_channels(shards); c++) {
        lam_json *channel = lam_json_object();
        double mean = 0, deviation = 0;
        int64_t present = 0;
        for (int64_t i = 0; i < lam_shards_images(shards); i++)
            present += lam_shards_has_channel(shards, i, c);
        lam_shards_channel_stats(shards, -1, c, LAM_TRANSFORM_NONE, &mean, &deviation);
        lam_json_set_text(channel, "name", lam_shards_channel_name(shards, c));
        lam_json_set_int(channel, "bits", lam_shards_channel_bits(shards, c));
        lam_json_set_int(channel, "images", present);
        lam_json_set_float(channel, "mean", mean);
        lam_json_set_float(channel, "deviation", deviation);
        lam_json_set_text(channel, "colour", lam_channel_colour_name(c, lam_shards_channels(shards)));
        lam_json_append(channels, channel);
    }
    for (int k = 0; k < lam_table_columns(metadata); k++)
        lam_json_append_text(columns, lam_table_name(metadata, k));
    lam_json_set(json, "channels", channels);
    lam_json_set(json, "columns", columns);
    return json;
}

static void sizes_of(const lam_shards *shards, int64_t low[2], int64_t high[2]) {
    for (int64_t i = 0; i < lam_shards_images(shards); i++) {
        int64_t size[2];
        lam_shards_image_size(shards, i, &size[0], &size[1]);
        for (int a = 0; a < 2; a++) {
            if (i == 0 || size[a] < low[a]) low[a] = size[a];
            if (i == 0 || size[a] > high[a]) high[a] = size[a];
        }
    }
}

static lam_status inspect_shards(const lam_arguments *a, const char *path) {
    lam_shards *shards = NULL;
    LAM_TRY(lam_shards_open(&shards, path));
    const char *image = lam_option_text(a, "image");
    lam_status status = LAM_OK;
    if (image) {
        LAM_REQUIRE_GOTO(lam_text_ends_with(image, ".png"), done, LAM_ERROR_USAGE,
                         "--image %s: pictures are written as PNG; end the name in .png", image);
        LAM_TRY_GOTO(lam_require_new_file(image, lam_option_force(a)), done);
        LAM_TRY_GOTO(draw_shards(shards, image), done);
    }
    lam_json *json = shards_json(shards);
    if (lam_option_json(a)) {
        status = lam_records_print(json, true);
        lam_json_free(json);
        goto done;
    }
    int64_t low[2] = {0, 0}, high[2] = {0, 0};
    sizes_of(shards, low, high);
    printf("shards: %" PRId64 " images of %" PRId64 " plates, %" PRId64
           " groups, %d bits a pixel in memory\n",
           lam_shards_images(shards), lam_json_int(lam_json_get(json, "plates"), 0),
           lam_json_int(lam_json_get(json, "groups"), 0), 8 * (int)lam_shards_pixel_type(shards));
    printf("height %" PRId64 " to %" PRId64 ", width %" PRId64 " to %" PRId64 " pixels\n\n", low[0], high[0],
           low[1], high[1]);
    printf("%-24s %5s %9s %10s %10s%s\n", "channel", "bits", "images", "mean", "deviation",
           image ? "  colour in the picture" : "");
    const lam_json *channels = lam_json_get(json, "channels");
    char shown[512];
    for (size_t c = 0; c < lam_json_size(channels); c++) {
        const lam_json *channel = lam_json_at(channels, c);
        printf("%-24s %5d %9" PRId64 " %10.6f %10.6f%s%s\n",
               visible(shown, lam_json_text(lam_json_get(channel, "name"), "")),
               (int)lam_json_int(lam_json_get(channel, "bits"), 0),
               lam_json_int(lam_json_get(channel, "images"), 0),
               lam_json_float(lam_json_get(channel, "mean"), 0),
               lam_json_float(lam_json_get(channel, "deviation"), 0), image ? "  " : "",
               image ? lam_json_text(lam_json_get(channel, "colour"), "") : "");
    }
    printf("\nmetadata:");
    const lam_table *metadata = lam_shards_metadata(shards);
    for (int k = 0; k < lam_table_columns(metadata); k++)
        printf(" %s", visible(shown, lam_table_name(metadata, k)));
    printf("\n");
    lam_json_free(json);
done:
    lam_shards_close(&shards);
    return status;
}

/* ---- the other kinds ---- */

static lam_status holds(const char *folder, const char *name, bool *found) {
    char *path = NULL;
    LAM_TRY(lam_path_join(&path, folder, name));
    *found = lam_path_exists(path);
    lam_free(path);
    return LAM_OK;
}

static lam_status holds_weights(const char *folder, bool *found) {
    char *path = NULL;
    LAM_TRY(lam_weights_file(folder, &path));
    *found = path != NULL;
    lam_free(path);
    return LAM_OK;
}

/* Of a run folder; steps stays 0 for what has no metrics. */
static lam_status read_progress(const char *path, lam_metrics_end *end) {
    char *metrics = NULL;
    bool run = false;
    if (lam_path_is_folder(path)) LAM_TRY(holds(path, "metrics.jsonl", &run));
    if (!run) return LAM_OK;
    LAM_TRY(lam_path_join(&metrics, path, "metrics.jsonl"));
    lam_status status = lam_metrics_read_end(metrics, end);
    lam_free(metrics);
    return status;
}

static void print_progress(const lam_metrics_end *end) {
    printf("last line of metrics: step %" PRId64 ", loss %.5g", end->step, end->loss);
    if (end->validation_step)
        printf(", validation loss %.5g (step %" PRId64 ")", end->validation_loss, end->validation_step);
    printf("; last %" PRId64 " steps: %.1f crops/s\n", end->steps, end->crops_per_s);
}

static lam_json *progress_json(const lam_metrics_end *end) {
    lam_json *json = lam_json_object();
    lam_json_set_int(json, "step", end->step);
    lam_json_set_float(json, "loss", end->loss);
    if (end->validation_step) {
        lam_json_set_int(json, "validation_step", end->validation_step);
        lam_json_set_float(json, "validation_loss", end->validation_loss);
    }
    lam_json_set_float(json, "crops_per_s", end->crops_per_s);
    return json;
}

static lam_status inspect_weights(const lam_arguments *a, const char *path) {
    char *model = NULL;
    lam_weights *file = NULL;
    lam_metrics_end end = {0};
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_checkpoint_weights(path, false, &model), done);
    LAM_TRY_GOTO(read_progress(path, &end), done);
    LAM_TRY_GOTO(lam_weights_open(&file, model), done);
    const char *config = lam_weights_metadata(file, "lamella_config"),
               *step = lam_weights_metadata(file, "lamella_step");
    int64_t total = 0;
    for (int64_t i = 0; i < lam_weights_count(file); i++) total += lam_weights_at(file, i)->count;
    if (lam_option_json(a)) {
        lam_json *json = lam_json_object(), *tensors = lam_json_object();
        for (int64_t i = 0; i < lam_weights_count(file); i++) {
            const lam_weights_entry *e = lam_weights_at(file, i);
            lam_json *shape = lam_json_array();
            for (int k = 0; k < e->rank; k++) lam_json_append_int(shape, e->shape[k]);
            lam_json_set(tensors, e->name, shape);
        }
        lam_json_set_text(json, "kind", "weights");
        lam_json_set_text(json, "file", model);
        lam_json_set_text(json, "step", step);
        if (end.steps) lam_json_set(json, "last", progress_json(&end));
        lam_json_set_int(json, "elements", total);
        lam_json_set_text(json, "config", config);
        lam_json_set(json, "tensors", tensors);
        status = lam_records_print(json, true);
        lam_json_free(json);
        goto done;
    }
    char shown[512];
    printf("weights: %s\n", visible(shown, model));
    if (step) printf("step %s\n", visible(shown, step));
    if (end.steps) print_progress(&end);
    if (config) {
        printf("\n");
        LAM_TRY_GOTO(print_lines(config), done);
        printf("\n");
    }
    for (int64_t i = 0; i < lam_weights_count(file); i++) {
        const lam_weights_entry *e = lam_weights_at(file, i);
        printf("%-60s %-5s", visible(shown, e->name), e->dtype);
        for (int k = 0; k < e->rank; k++) printf("%s%" PRId64, k ? " x " : " ", e->shape[k]);
        printf("\n");
    }
    printf("%" PRId64 " tensors, %" PRId64 " elements\n", lam_weights_count(file), total);
done:
    lam_weights_close(file);
    lam_free(model);
    return status;
}

static lam_json *obs_names(const lam_embeddings *e) {
    lam_json *names = lam_json_array();
    for (int k = 0; k < lam_table_columns(e->obs); k++)
        lam_json_append_text(names, lam_table_name(e->obs, k));
    return names;
}

/* What else the file holds by name: group after group, those that hold something. */
static lam_status add_groups(lam_json *json, const char *path) {
    static const char *const groups[] = {"obsm", "layers", "uns"};
    for (size_t g = 0; g < sizeof groups / sizeof *groups; g++) {
        char **names = NULL;
        int64_t count = 0;
        LAM_TRY(lam_embeddings_names(path, groups[g], &names, &count));
        lam_json *list = lam_json_array();
        for (int64_t i = 0; i < count; i++) lam_json_append_text(list, names[i]);
        if (count)
            lam_json_set(json, groups[g], list);
        else
            lam_json_free(list);
        lam_free(names);
    }
    return LAM_OK;
}

static void print_names(const lam_json *groups) {
    for (const char *key = NULL; (key = lam_json_key_after(groups, key));) {
        const lam_json *names = lam_json_get(groups, key);
        printf("%s:", key);
        char shown[512];
        for (size_t i = 0; i < lam_json_size(names); i++)
            printf(" %s", visible(shown, lam_json_text(lam_json_at(names, i), "")));
        printf("\n");
    }
}

static lam_status inspect_embeddings(const lam_arguments *a, const char *path) {
    lam_embeddings *e = NULL;
    LAM_TRY(lam_embeddings_read(&e, path, NULL, NULL));
    lam_json *json = lam_json_object();
    lam_status status = LAM_OK;
    if (lam_option_json(a)) {
        lam_json_set_text(json, "kind", "embeddings");
        lam_json_set_int(json, "rows", e->rows);
        lam_json_set_int(json, "columns", e->columns);
        lam_json_set_text(json, "type", e->was_float32 ? "float32" : "float64");
    }
    lam_json_set(json, "obs", obs_names(e));
    LAM_TRY_GOTO(add_groups(json, path), done);
    if (lam_option_json(a)) {
        lam_json_set_text(json, "provenance", e->provenance);
        status = lam_records_print(json, true);
    } else {
        printf("embeddings: %" PRId64 " rows, %" PRId64 " columns, %s\n", e->rows, e->columns,
               e->was_float32 ? "float32" : "float64");
        print_names(json);
        if (e->provenance) {
            printf("made by: ");
            status = print_lines(e->provenance);
        }
    }
done:
    lam_json_free(json);
    lam_embeddings_free(e);
    return status;
}

static lam_status inspect_config(const lam_arguments *a, const char *path) {
    lam_config *config = NULL;
    char *text = NULL;
    LAM_TRY(lam_config_read(&config, lam_train_keys, path));
    lam_status status = lam_config_write(config, &text);
    if (status == LAM_OK && lam_option_json(a)) {
        lam_json *json = lam_json_object();
        lam_json_set_text(json, "kind", "config");
        lam_json_set_text(json, "config", text);
        status = lam_records_print(json, true);
        lam_json_free(json);
    } else if (status == LAM_OK) {
        printf("configuration, every default written out:\n");
        status = print_lines(text);
    }
    lam_free(text);
    lam_config_free(config);
    return status;
}

static bool may_be_weights(const char *path) {
    static const char *const ends[] = {".safetensors", ".index.json", ".pt", ".pth", ".bin", ".ckpt"};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        if (lam_text_ends_with(path, ends[i])) return true;
    return false;
}

/* Embeddings by the end of their name; their reader tells what it knows of them (and how Parquet is converted). */
static bool may_be_embeddings(const char *path) {
    static const char *const ends[] = {".h5ad", ".h5", ".npy", ".csv",    ".tsv",
                                       ".txt",  ".gz", ".zst", ".parquet"};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        if (lam_text_ends_with(path, ends[i])) return true;
    return false;
}

static lam_status unknown_kind(const char *path) {
    LAM_FAIL(
        LAM_ERROR_INPUT,
        "%s: nothing that inspect knows; it takes a folder of shards, a run or step folder, a "
        ".safetensors or torch.save file, embeddings or another table (.h5ad, .npy with .csv, .csv, .tsv, .gz) or a config "
        "(.yaml); results of relate, probe and the others are shown by lamella report",
        path);
}

static lam_status run(const lam_arguments *a) {
    const char *path = lam_positional(a, 0);
    LAM_REQUIRE(
        lam_path_exists(path), LAM_ERROR_IO,
        "%s: no such file or folder; name a run, checkpoint or weights file, shards, embeddings or a configuration",
        path);
    bool folder = lam_path_is_folder(path), shards = false, begun = false, step = false, run_folder = false;
    if (folder) {
        LAM_TRY(holds(path, "dataset.json", &shards));
        LAM_TRY(lam_shards_unfinished(path, &begun));
        LAM_TRY(holds_weights(path, &step));
        LAM_TRY(holds(path, "config.yaml", &run_folder));
        if (!run_folder) LAM_TRY(holds(path, "checkpoints", &run_folder));
    }
    if (shards || begun) return inspect_shards(a, path); /* which says what an unfinished packing lacks */
    LAM_REQUIRE(!lam_option_given(a, "image"), LAM_ERROR_USAGE, "--image: %s is not a folder of shards",
                path);
    if (folder && !step && !run_folder) return unknown_kind(path);
    if (folder || may_be_weights(path)) return inspect_weights(a, path);
    if (lam_text_ends_with(path, ".yaml") || lam_text_ends_with(path, ".yml")) return inspect_config(a, path);
    return may_be_embeddings(path) ? inspect_embeddings(a, path) : unknown_kind(path);
}

static const lam_option options[] = {
    {"image", LAM_OPTION_TEXT, "FILE.png", NULL, "draw samples of a folder of shards", .required = false},
    {.name = NULL}};

const lam_command lam_command_inspect = {
    "inspect",
    "say what a shard folder, run, checkpoint, embedding file or configuration holds",
    "PATH",
    1,
    1,
    options,
    "lamella inspect shards --image samples.png\nlamella inspect runs/first",
    run};
