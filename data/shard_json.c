#include "data/shard_write_parts.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "base/sealed.h"

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

static void describe(const lam_dataset *d, lam_json *root) {
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
        char hash[17];
        lam_json *one = lam_json_object();
        snprintf(hash, sizeof hash, "%016" PRIx64, d->done[k].hash);
        lam_json_set_text(one, "file", d->done[k].name);
        lam_json_set_int(one, "bytes", (int64_t)d->done[k].bytes);
        lam_json_set_int(one, "images", d->done[k].images);
        lam_json_set_text(one, "hash", hash);
        lam_json_append(shards, one);
    }
    lam_json_set(root, "shards", shards);
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

lam_status lam_dataset_write_json(const lam_dataset *d) {
    lam_json *root = lam_json_object();
    lam_shards *shards = NULL;
    char *path = NULL;
    lam_status status = LAM_OK;
    describe(d, root);
    LAM_TRY_GOTO(lam_shards_open_listed(&shards, d->config.folder, root), done);
    add_statistics(root, shards);
    LAM_TRY_GOTO(lam_path_join(&path, d->config.folder, "dataset.json"), done);
    LAM_TRY_GOTO(lam_sealed_write(path, root), done);
done:
    lam_shards_close(&shards);
    lam_free(path);
    lam_json_free(root);
    return status;
}
