#include "train/commands.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/embeddings.h"
#include "base/files.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/provenance.h"
#include "base/records.h"
#include "train/checkpoint.h"
#include "train/device.h"
#include "train/embedder.h"
#include "train/import.h"
#include "train/levels.h"

/* What the first argument names. */
typedef struct source {
    bool features, handmade, untrained, average;
    uint64_t seed;
    lam_network *network;
    char *file; /* of the weights; NULL for a config or features */
} source;

static int64_t crop_size(const source *s, const lam_arguments *a) {
    return s->network && !lam_option_given(a, "crop-size") ? s->network->settings.model.image_size
                                                           : lam_option_int(a, "crop-size");
}

static lam_status open_config(source *s, const char *path, const lam_shards *shards) {
    lam_config *config = NULL;
    char *assignment = NULL;
    LAM_REQUIRE(s->untrained, LAM_ERROR_USAGE,
                "%s: a configuration has no weights: add --untrained SEED, or name a checkpoint", path);
    LAM_TRY(lam_config_read(&config, lam_train_keys, path));
    lam_status status = lam_text_format(&assignment, "data.path=%s", lam_shards_path(shards));
    if (status == LAM_OK) status = lam_config_set(config, assignment);
    if (status == LAM_OK) status = lam_config_check(config);
    lam_free(assignment);
    if (status != LAM_OK) {
        lam_config_free(config);
        return status;
    }
    return lam_network_create(&s->network, config, shards, s->seed);
}

static lam_status open_source(source *s, const lam_arguments *a, const lam_shards *shards) {
    const char *path = lam_positional(a, 0);
    s->handmade = !strcmp(path, "handmade");
    s->features = s->handmade || !strcmp(path, "intensity");
    s->untrained = lam_option_given(a, "untrained");
    s->seed = (uint64_t)lam_option_int(a, "untrained");
    s->average = lam_option_flag(a, "ema");
    LAM_REQUIRE(!s->average || !(s->features || s->untrained), LAM_ERROR_USAGE,
                "--ema: only a trained network has an average of weights");
    if (s->features) {
        LAM_REQUIRE(!s->untrained, LAM_ERROR_USAGE, "--untrained: %s has no weights", path);
        LAM_REQUIRE(!lam_option_given(a, "channels"), LAM_ERROR_USAGE,
                    "--channels: %s takes all channels of the shards", path);
        return LAM_OK;
    }
    if (lam_text_ends_with(path, ".yaml") || lam_text_ends_with(path, ".yml")) {
        LAM_TRY(open_config(s, path, shards));
    } else {
        LAM_TRY(lam_checkpoint_weights(path, s->average, &s->file));
        LAM_TRY(lam_network_read(&s->network, s->file, s->untrained ? &s->seed : NULL));
        if (!s->untrained) LAM_TRY(lam_import_check(s->network, s->file));
    }
    const char *channels = lam_option_text(a, "channels");
    if (channels) LAM_TRY(lam_network_name_channels(s->network, channels, shards));
    return lam_network_resize(s->network, crop_size(s, a));
}

/* A number, or all. */
static lam_status block_of(const lam_arguments *a, int64_t *block) {
    const char *text = lam_option_given(a, "block") ? lam_option_text(a, "block") : NULL;
    char *end = NULL;
    *block = !text ? 0 : !strcmp(text, "all") ? LAM_EVERY_BLOCK : strtoll(text, &end, 10);
    LAM_REQUIRE(!end || (end != text && !*end && *block >= 1), LAM_ERROR_USAGE,
                "--block %s: give the number of a block, from 1 on, or all", text);
    const char *out = lam_option_text(a, "out");
    LAM_REQUIRE(*block != LAM_EVERY_BLOCK || lam_text_ends_with(out, ".h5ad"), LAM_ERROR_USAGE,
                "--block all: %s holds one matrix; end the name of --out in .h5ad", out);
    return LAM_OK;
}

static lam_status provenance(const source *s, const lam_arguments *a, const lam_shards *shards, char **text) {
    char hash[24], *config = NULL;
    uint64_t model = 0;
    lam_json *json = lam_provenance(lam_command_line(a));
    lam_status status = LAM_OK;
    lam_json_set_text(json, "level", lam_option_text(a, "level"));
    snprintf(hash, sizeof hash, "%016" PRIx64, lam_shards_hash(shards));
    lam_json_set_text(json, "shards_hash", hash);
    lam_json_set_int(json, "views", lam_option_int(a, "views"));
    lam_json_set_int(json, "crop_size", crop_size(s, a));
    if (s->features) {
        lam_json_set_text(json, "features", s->handmade ? "handmade" : "intensity");
    } else {
        LAM_TRY_GOTO(lam_network_config_text(s->network, &config), done);
        lam_json_set_text(json, "config", config);
        lam_json_set_text(json, "pool", lam_option_text(a, "pool"));
        int64_t block = 0;
        LAM_TRY_GOTO(block_of(a, &block), done);
        if (block == LAM_EVERY_BLOCK)
            lam_json_set_text(json, "block", "all");
        else
            lam_json_set_int(json, "block", block ? block : s->network->settings.model.depth);
        if (s->untrained) {
            lam_json_set_int(json, "untrained_seed", (int64_t)s->seed);
        } else {
            LAM_TRY_GOTO(lam_file_hash(s->file, &model), done);
            snprintf(hash, sizeof hash, "%016" PRIx64, model);
            lam_json_set_text(json, "model_hash", hash);
            lam_json_set_int(json, "model_step", s->network->step);
            if (s->average) lam_json_set_text(json, "weights", "ema");
        }
    }
    LAM_TRY_GOTO(lam_json_dump(json, false, text), done);
done:
    lam_free(config);
    lam_json_free(json);
    return status;
}

static lam_level level_of(const lam_arguments *a) {
    const char *name = lam_option_text(a, "level");
    return !strcmp(name, "crop") ? LAM_LEVEL_CROP : !strcmp(name, "well") ? LAM_LEVEL_WELL : LAM_LEVEL_IMAGE;
}

static lam_status write_rows(const source *s, const lam_arguments *a, const lam_shards *shards,
                             const lam_crop *crops, int64_t count, const float *vectors,
                             const lam_embedder *e) {
    const char *name = lam_option_text(a, "level"), *out = lam_option_text(a, "out");
    int64_t width = e->width / e->blocks;
    lam_rows rows = {0};
    char *text = NULL, **blocks = NULL;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_rows_create(&rows, level_of(a), shards, crops, count, vectors, e->width), done);
    LAM_TRY_GOTO(provenance(s, a, shards, &text), done);
    if (e->every) {
        LAM_TRY_GOTO(lam_alloc_array((void **)&blocks, e->blocks, sizeof *blocks), done);
        for (int64_t b = 0; b < e->blocks; b++)
            LAM_TRY_GOTO(lam_text_format(&blocks[b], "block_%" PRId64, b + 1), done);
        status = lam_embeddings_write_matrices(out, rows.count, width, rows.values, e->blocks,
                                               (const char *const *)blocks, rows.obs,
                                               (const char *const *)rows.index, text);
    } else {
        status = lam_embeddings_write(out, rows.count, width, rows.values, true, rows.obs,
                                      (const char *const *)rows.index, NULL, text);
    }
    if (status != LAM_OK) goto done;
    lam_log_info("%s: %" PRId64 " rows (%s), %" PRId64 " columns, from %" PRId64 " crops", out, rows.count,
                 name, width, count);
    if (lam_option_json(a)) {
        lam_json *result = lam_json_object();
        lam_json_set_text(result, "out", out);
        lam_json_set_text(result, "level", name);
        lam_json_set_int(result, "rows", rows.count);
        lam_json_set_int(result, "columns", width);
        lam_json_set_int(result, "crops", count);
        status = lam_records_print(result, false);
        lam_json_free(result);
    }
done:
    for (int64_t b = 0; blocks && b < e->blocks; b++) lam_free(blocks[b]);
    lam_free(blocks);
    lam_rows_free(&rows);
    lam_free(text);
    return status;
}

static lam_status open_all(const lam_arguments *a, int local_rank, lam_shards **shards, source *s,
                           lam_embedder *e, lam_crop **crops, int64_t *count) {
    lam_device on = {lam_backend_cpu(), false};
    char device[160];
    const char *pool_name = lam_option_text(a, "pool");
    lam_pool pool = !strcmp(pool_name, "cls")       ? LAM_POOL_CLS
                    : !strcmp(pool_name, "channel") ? LAM_POOL_CHANNEL
                    : !strcmp(pool_name, "hidden")  ? LAM_POOL_HIDDEN
                                                    : LAM_POOL_MEAN;
    int64_t block = 0;
    LAM_TRY(block_of(a, &block));
    LAM_TRY(lam_embeddings_require_new(lam_option_text(a, "out"), lam_option_force(a)));
    LAM_TRY(lam_shards_open(shards, lam_positional(a, 1)));
    LAM_TRY(lam_level_check(level_of(a), *shards));
    LAM_TRY(open_source(s, a, *shards));
    LAM_REQUIRE(!s->features || (!lam_option_given(a, "block") && !lam_option_given(a, "pool")),
                LAM_ERROR_USAGE, "--block and --pool belong to a network, not to %s", lam_positional(a, 0));
    int64_t size = crop_size(s, a);
    LAM_TRY(lam_crops_list(*shards, size, lam_option_int(a, "crops"), (uint64_t)lam_option_int(a, "seed"),
                           crops, count));
    LAM_REQUIRE(s->network || !lam_option_given(a, "device") || !strcmp(lam_option_text(a, "device"), "cpu"), LAM_ERROR_USAGE,
                "%s is computed on the CPU; leave out --device cuda", lam_positional(a, 0));
    if (s->network) {
        LAM_TRY(lam_device_open(a, local_rank, &on));
        lam_device_describe(on.backend, device, sizeof device);
    }
    LAM_TRY(lam_embedder_open(e, *shards, s->network, on.backend, s->handmade, size, block, pool,
                              lam_option_int(a, "batch"), lam_option_int(a, "views"),
                              lam_option_flag(a, "strict")));
    if (s->network) lam_log_info("embedding on %s", device);
    return LAM_OK;
}

static lam_status run(const lam_arguments *a) {
    lam_dist *dist = NULL;
    lam_shards *shards = NULL;
    source s = {0};
    lam_embedder embedder = {0};
    lam_crop *crops = NULL;
    int64_t count = 0;
    float *vectors = NULL;
    LAM_TRY(lam_dist_open(&dist));
    bool first = lam_dist_rank(dist) == 0;
    if (!first) lam_log_set_silent(true);
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_dist_agree(dist, open_all(a, lam_dist_local_rank(dist), &shards, &s, &embedder, &crops, &count)), done);
    LAM_TRY_GOTO(lam_embed_crops(&embedder, dist, crops, count, &vectors), done);
    if (first) status = write_rows(&s, a, shards, crops, count, vectors, &embedder);
    status = lam_dist_agree(dist, status);
done:
    lam_embedder_close(&embedder);
    lam_network_free(&s.network);
    lam_free(s.file);
    lam_free(crops);
    lam_free(vectors);
    lam_shards_close(&shards);
    lam_dist_close(&dist);
    return status;
}

static const lam_option options[] = {
    {"out", LAM_OPTION_TEXT, "FILE", NULL, "where the embeddings go: .h5ad, or .npy with .csv beside it",
     .required = true},
    {"level", LAM_OPTION_CHOICE, "crop|image|well", "image", "one row a crop, an image, or a well",
     .required = false},
    {"block", LAM_OPTION_TEXT, "K|all", NULL,
     "block whose output is taken, without it the last, normalised; all: each as obsm/block_K (probe --blocks)",
     .required = false},
    {"pool", LAM_OPTION_CHOICE, "mean|cls|channel|hidden", "mean",
     "mean of the patch tokens; cls token; a mean for each channel (seen alone, but by mae_channel_agnostic together); mean of the hidden units of the block's MLP",
     .required = false},
    {"crops", LAM_OPTION_INT, "N", "0", "crops drawn from an image; 0: tiled over it", .minimum = 0,
     .maximum = 100000},
    {"views", LAM_OPTION_INT, "N", "1",
     "the mean over N views of each crop: four quarter turns, then the same mirrored", .minimum = 1,
     .maximum = 8},
    {"seed", LAM_OPTION_INT, "N", "0", "of the crops that are drawn", .minimum = 0,
     .maximum = 9007199254740991.0},
    {"crop-size", LAM_OPTION_INT, "PIXELS", "64",
     "side of a crop; left out: a network's own (model.image_size), of plain features", .minimum = 8,
     .maximum = 8192},
    {"channels", LAM_OPTION_TEXT, "A,B", NULL,
     "channels that the network takes, in its order (weights of other programs name none)",
     .required = false},
    {"untrained", LAM_OPTION_INT, "SEED", NULL, "the same network with fresh weights, as a reference",
     .minimum = 0, .maximum = 9007199254740991.0},
    {"ema", LAM_OPTION_FLAG, NULL, NULL,
     "the moving average of the weights (optim.ema) instead of the last ones", .required = false},
    {"batch", LAM_OPTION_INT, "N", "32", "crops that go through the network at once", .minimum = 1,
     .maximum = 65536},
    LAM_DEVICE_OPTION,
    {"strict", LAM_OPTION_FLAG, NULL, NULL, "a damaged image ends the command instead of being left out",
     .required = false},
    {.name = NULL}};

const lam_command lam_command_embed = {
    "embed",
    "embed images of shards with a trained network or plain features",
    "CHECKPOINT|CONFIG.yaml|intensity|handmade SHARDS",
    2,
    2,
    options,
    "lamella embed runs/first shards --level well --out embeddings.h5ad\n"
    "lamella embed runs/first shards --untrained 0 --out untrained.h5ad\n"
    "lamella embed runs/first shards --block all --out blocks.h5ad\n"
    "lamella embed runs/first shards --channels DNA,ER,RNA,AGP,Mito --out named.h5ad\n"
    "lamella embed vit-mae-base shards --channels AGP,ER,DNA --out rgb.h5ad\n"
    "lamella embed openphenom shards --pool channel --out channels.h5ad\n"
    "lamella embed handmade shards --out handmade.h5ad",
    run};
