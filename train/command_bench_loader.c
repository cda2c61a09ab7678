#include <inttypes.h>
#include <stdio.h>

#include "base/log.h"
#include "base/records.h"
#include "base/threads.h"
#include "data/loader.h"
#include "train/bench_record.h"
#include "train/commands.h"

static lam_status bench_loader(const lam_arguments *a) {
    const char *path = lam_positional(a, 0);
    lam_shards *shards = NULL;
    lam_loader *loader = NULL;
    const lam_batch *batch = NULL;
    int64_t steps = lam_option_int(a, "steps"), rows = 0, size = lam_option_int(a, "crop-size");
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_shards_open(&shards, path), done);
    lam_loader_config config = {.global_batch = lam_option_int(a, "batch"),
                                .crop_size = size,
                                .crops_per_image = 1,
                                .seed = 1,
                                .world_size = 1,
                                .threads = lam_threads(),
                                .flips = true,
                                .rotations = true};
    LAM_TRY_GOTO(lam_loader_open(&loader, shards, &config), done);
    LAM_TRY_GOTO(lam_loader_next(loader, &batch), done);
    double start = lam_now();
    for (int64_t i = 0; i < steps; i++) {
        LAM_TRY_GOTO(lam_loader_next(loader, &batch), done);
        for (int64_t r = 0; r < batch->rows; r++) rows += batch->valid[r] != 0;
    }
    double seconds = lam_now() - start, crops = (double)rows / seconds;
    double bytes =
        crops * (double)(lam_shards_channels(shards) * size * size) * (double)lam_shards_pixel_type(shards);
    if (lam_option_json(a)) {
        lam_json *record = lam_json_object();
        lam_json_set_text(record, "bench", "loader");
        lam_json_set_int(record, "batch", config.global_batch);
        lam_json_set_int(record, "crop_size", size);
        lam_json_set_int(record, "threads", lam_threads());
        lam_json_set_text(record, "device", "cpu");
        lam_json_set_float(record, "crops_per_s", crops);
        lam_json_set_float(record, "bytes_per_s", bytes);
        lam_json_set_float(record, "peak_MiB", lam_peak_mebibytes());
        status = lam_records_print(record, false);
        lam_json_free(record);
    } else {
        printf("loader: %.1f crops/s of %" PRId64 " pixels, %.1f MB/s of pixels, %d threads\n", crops, size,
               bytes / 1e6, lam_threads());
    }
done:
    lam_loader_close(&loader);
    lam_shards_close(&shards);
    return status;
}

static const lam_option options[] = {
    {"batch", LAM_OPTION_INT, "N", "8", "crops at once", .minimum = 1, .maximum = 65536},
    {"steps", LAM_OPTION_INT, "N", "5", "batches that are timed", .minimum = 1, .maximum = 1000000},
    {"crop-size", LAM_OPTION_INT, "PIXELS", "64", "side of a crop", .minimum = 1, .maximum = 8192},
    {.name = NULL}};

const lam_command lam_command_bench_loader = {
    "bench loader", "speed at which batches of crops come from shards", "SHARDS",    1, 1,
    options,        "lamella bench loader shards --crop-size 64",       bench_loader};
