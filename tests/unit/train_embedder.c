/* The mean over views does not depend on how a cell lies; a channel-agnostic network embeds whatever channels there are. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/files.h"
#include "base/memory.h"
#include "base/rng.h"
#include "base/table.h"
#include "base/threads.h"
#include "data/sample.h"
#include "data/shard_write.h"
#include "train/embedder.h"

enum { SIZE = 16, CHANNELS = 2, IMAGES = 8 };

static void ok(lam_status status) {
    if (status != LAM_OK) fail_msg("%s", lam_last_error());
}

static const char *const channel_names[] = {"DNA", "ER", "RNA"};

/* Image v: image 0 turned by v quarter turns, from 4 on mirrored first; of the channels `which`. Image `lacking` (-1: none)
 * lacks the last of them. */
static void write_channels(const char *folder, const int *which, int channels, int lacking) {
    const char *names[3];
    for (int c = 0; c < channels; c++) names[c] = channel_names[which[c]];
    lam_table *table = NULL;
    lam_dataset *dataset = NULL;
    const char *plates[IMAGES];
    for (int i = 0; i < IMAGES; i++) plates[i] = "P";
    ok(lam_table_create(&table, IMAGES));
    ok(lam_table_add(table, "plate", plates));
    lam_dataset_config config = {
        .folder = folder, .channel_names = names, .channels = channels, .metadata = table};
    ok(lam_dataset_create(&dataset, &config));
    for (int v = 0; v < IMAGES; v++) {
        uint16_t upright[SIZE * SIZE], planes[3][SIZE * SIZE];
        const void *pointers[3] = {planes[0], planes[1], planes[2]};
        if (v == lacking) pointers[channels - 1] = NULL;
        const lam_pixel_type types[3] = {LAM_PIXEL_U16, LAM_PIXEL_U16, LAM_PIXEL_U16};
        lam_encoded_image *encoded = NULL;
        for (int c = 0; c < channels; c++) {
            for (int p = 0; p < SIZE * SIZE; p++)
                upright[p] = (uint16_t)(lam_mix64((uint64_t)(which[c] * SIZE * SIZE + p)) % 900 +
                                        (unsigned)(p % SIZE * 50));
            lam_turn(upright, planes[c], SIZE, sizeof(uint16_t), v >= 4, v & 3);
        }
        ok(lam_encode_image(&encoded, pointers, types, channels, SIZE, SIZE));
        ok(lam_dataset_add(dataset, encoded));
        lam_encoded_free(&encoded);
    }
    ok(lam_dataset_finish(&dataset));
    lam_table_free(table);
}

static void write_shards(const char *folder) { write_channels(folder, (const int[]){0, 1}, CHANNELS, -1); }

/* Largest distance of an image's vector from that of image 0, as a share of that one's largest element. */
static void distances(lam_shards *shards, lam_network *network, lam_pool pool, int64_t views,
                      double *distance) {
    lam_embedder e;
    lam_dist *dist = NULL;
    lam_crop *crops = NULL;
    int64_t count = 0;
    float *vectors = NULL;
    ok(lam_dist_open(&dist));
    ok(lam_crops_list(shards, SIZE, 0, 0, &crops, &count));
    assert_int_equal(count, IMAGES);
    ok(lam_embedder_open(&e, shards, network, lam_backend_cpu(), true, SIZE, 0, pool, 3, views, true));
    ok(lam_embed_crops(&e, dist, crops, count, &vectors));
    double largest = 0;
    for (int64_t j = 0; j < e.width; j++) largest = fmax(largest, fabs((double)vectors[j]));
    for (int64_t i = 0; i < IMAGES; i++) {
        distance[i] = 0;
        for (int64_t j = 0; j < e.width; j++)
            distance[i] =
                fmax(distance[i], fabs((double)vectors[i * e.width + j] - (double)vectors[j]) / largest);
    }
    lam_embedder_close(&e);
    lam_free(vectors);
    lam_free(crops);
    lam_dist_close(&dist);
}

static void views(void **state) {
    (void)state;
    char root[] = "/tmp/lamella-views-XXXXXX", folder[64], file[64];
    assert_non_null(mkdtemp(root));
    snprintf(folder, sizeof folder, "%s/shards", root);
    snprintf(file, sizeof file, "%s/net.yaml", root);
    write_shards(folder);
    lam_shards *shards = NULL;
    lam_config *config = NULL;
    lam_network *network = NULL;
    ok(lam_shards_open(&shards, folder));
    FILE *yaml = fopen(file, "w");
    assert_non_null(yaml);
    fprintf(
        yaml,
        "model: {name: mae_vit, embed_dim: 16, depth: 2, num_heads: 2, patch_size: 4, image_size: %d, decoder_embed_dim: 16,\n"
        "        decoder_depth: 1, decoder_num_heads: 2}\n"
        "data: {path: %s, normalize: crop}\n"
        "train: {steps: 1, global_batch: 2}\n",
        SIZE, folder);
    assert_int_equal(fclose(yaml), 0);
    ok(lam_config_read(&config, lam_train_keys, file));
    ok(lam_network_create(&network, config, shards, 1));
    static const lam_pool pools[] = {LAM_POOL_MEAN, LAM_POOL_CLS, LAM_POOL_CHANNEL, LAM_POOL_HIDDEN};
    double d[IMAGES];
    for (int p = 0; p < 5; p++) {
        lam_network *net = p < 4 ? network : NULL; /* the last: hand-made features */
        lam_pool pool = p < 4 ? pools[p] : LAM_POOL_MEAN;
        distances(shards, net, pool, 8, d);
        for (int i = 0; i < IMAGES; i++)
            if (!(d[i] < 1e-5)) fail_msg("pool %d, eight views, image %d: %g", p, i, d[i]);
        if (!net) continue; /* texture features hardly change with the turn anyway */
        distances(shards, net, pool, 4, d);
        for (int i = 0; i < IMAGES; i++)
            if (i < 4 ? !(d[i] < 1e-5) : !(d[i] > 1e-4))
                fail_msg("pool %d, four views, image %d: %g", p, i, d[i]);
        distances(shards, net, pool, 1, d);
        for (int i = 1; i < IMAGES; i++)
            if (!(d[i] > 1e-4)) fail_msg("pool %d, one view, image %d: %g", p, i, d[i]);
    }
    lam_network_free(&network);
    lam_shards_close(&shards);
    assert_int_equal(lam_remove_tree(root), LAM_OK);
}

/* Vectors of all images of a shard folder by the network in a file; the caller frees. */
static float *embed(const char *file, const char *folder, lam_pool pool, int64_t width) {
    lam_shards *shards = NULL;
    lam_network *network = NULL;
    lam_embedder e;
    lam_dist *dist = NULL;
    lam_crop *crops = NULL;
    int64_t count = 0;
    float *vectors = NULL;
    ok(lam_shards_open(&shards, folder));
    ok(lam_network_read(&network, file, NULL));
    ok(lam_dist_open(&dist));
    ok(lam_crops_list(shards, SIZE, 0, 0, &crops, &count));
    ok(lam_embedder_open(&e, shards, network, lam_backend_cpu(), false, SIZE, 0, pool, 3, 1, true));
    assert_int_equal(e.width, width);
    ok(lam_embed_crops(&e, dist, crops, count, &vectors));
    lam_embedder_close(&e);
    lam_free(crops);
    lam_network_free(&network);
    lam_shards_close(&shards);
    lam_dist_close(&dist);
    return vectors;
}

static void same(const float *x, const float *y, int64_t count) {
    for (int64_t i = 0; i < count; i++)
        if (!(fabsf(x[i] - y[i]) < 1e-5f)) fail_msg("%g and %g", (double)x[i], (double)y[i]);
}

static void any_channels(void **state) {
    (void)state;
    char root[] = "/tmp/lamella-channels-XXXXXX", one[64], two[64], turned[64], three[64], lacking[64],
         file[64], yaml[64];
    assert_non_null(mkdtemp(root));
    snprintf(two, sizeof two, "%s/two", root);
    snprintf(turned, sizeof turned, "%s/turned", root);
    snprintf(three, sizeof three, "%s/three", root);
    snprintf(yaml, sizeof yaml, "%s/net.yaml", root);
    snprintf(file, sizeof file, "%s/model.safetensors", root);
    snprintf(one, sizeof one, "%s/one", root);
    snprintf(lacking, sizeof lacking, "%s/lacking", root);
    write_channels(one, (const int[]){0}, 1, -1);
    write_channels(two, (const int[]){0, 1}, 2, -1);
    write_channels(turned, (const int[]){1, 0}, 2, -1);
    write_channels(three, (const int[]){2, 0, 1}, 3, -1);
    write_channels(lacking, (const int[]){0, 1}, 2, 5);
    FILE *text = fopen(yaml, "w");
    assert_non_null(text);
    fprintf(
        text,
        "model: {name: mae_channel_agnostic, embed_dim: 8, depth: 2, num_heads: 2, patch_size: 4, image_size: %d,\n"
        "        decoder_embed_dim: 16, decoder_depth: 1, decoder_num_heads: 2, channel_tokens: [RNA, ER, DNA]}\n"
        "data: {path: %s, normalize: dataset, transform: sqrt}\n"
        "train: {steps: 1, global_batch: 2}\n",
        SIZE, two);
    assert_int_equal(fclose(text), 0);
    lam_shards *shards = NULL;
    lam_config *config = NULL;
    lam_network *network = NULL;
    ok(lam_shards_open(&shards, two));
    ok(lam_config_read(&config, lam_train_keys, yaml));
    ok(lam_network_create(&network, config, shards, 1));
    assert_non_null(lam_parameters_find(network->parameters, "decoder.modality_tokens.2"));
    assert_int_equal(network->channel_token[0], 2); /* DNA */
    assert_int_equal(network->channel_token[1], 1);
    /* At the start channels have next to nothing to do with each other. */
    for (int64_t i = 0; i < network->parameters->entries; i++) {
        const lam_parameter_entry *entry = &network->parameters->entry[i];
        for (int64_t k = 0; k < entry->count; k++) {
            float *w = &network->parameters->weights[entry->offset + k];
            *w = strstr(entry->name, "gamma") ? 0.5f : entry->decay ? *w * 10 : *w;
        }
    }
    ok(lam_network_write(network, NULL, file, 3));
    lam_network_free(&network);

    float *x = embed(file, two, LAM_POOL_CHANNEL, 16), *y = embed(file, turned, LAM_POOL_CHANNEL, 16),
          *z = embed(file, three, LAM_POOL_CHANNEL, 24), *mean = embed(file, two, LAM_POOL_MEAN, 8),
          *mean_turned = embed(file, turned, LAM_POOL_MEAN, 8);
    bool differ = false;
    for (int v = 0; v < IMAGES; v++) {
        float half[8];
        same(x + v * 16, y + v * 16 + 8, 8);
        same(x + v * 16 + 8, y + v * 16, 8);
        for (int d = 0; d < 8; d++) half[d] = 0.5f * (x[v * 16 + d] + x[v * 16 + 8 + d]);
        same(half, mean + v * 8, 8);
        same(mean_turned + v * 8, mean + v * 8, 8);
        for (int d = 0; d < 8; d++) differ |= fabsf(x[v * 16 + d] - z[v * 24 + 8 + d]) > 1e-3f;
    }
    assert_true(differ); /* the third channel is seen */
    /* An image that lacks a channel is embedded as if there were no such channel. */
    float *x1 = embed(file, one, LAM_POOL_MEAN, 8), *x2 = embed(file, lacking, LAM_POOL_MEAN, 8),
          *x3 = embed(file, lacking, LAM_POOL_CHANNEL, 16);
    for (int v = 0; v < IMAGES; v++) {
        same(x2 + v * 8, v == 5 ? x1 + v * 8 : mean + v * 8, 8);
        same(x3 + v * 16, v == 5 ? x1 + v * 8 : x + v * 16, v == 5 ? 8 : 16);
        for (int d = 0; d < 8; d++) assert_true(v != 5 || x3[v * 16 + 8 + d] == 0);
    }
    lam_free(x1);
    lam_free(x2);
    lam_free(x3);
    lam_free(x);
    lam_free(y);
    lam_free(z);
    lam_free(mean);
    lam_free(mean_turned);

    /* A channel that the decoder is not to know. */
    ok(lam_config_read(&config, lam_train_keys, yaml));
    ok(lam_config_set(config, "model.channel_tokens=DNA,AGP"));
    assert_int_equal(lam_network_create(&network, config, shards, 1), LAM_ERROR_CONFIG);
    assert_non_null(strstr(lam_last_error(), "model.channel_tokens: lacks the channel ER"));
    ok(lam_config_read(&config, lam_train_keys, yaml));
    ok(lam_config_set(config, "model.channels_per_step=2"));
    ok(lam_config_set(config, "model.decoder=shared"));
    assert_int_equal(lam_network_create(&network, config, shards, 1), LAM_ERROR_CONFIG);
    assert_non_null(strstr(lam_last_error(), "model.channels_per_step: 2"));
    ok(lam_config_read(&config, lam_train_keys, yaml));
    ok(lam_config_set(config, "model.name=mae_vit"));
    assert_int_equal(lam_network_create(&network, config, shards, 1), LAM_ERROR_CONFIG);
    assert_non_null(strstr(lam_last_error(), "are for mae_channel_agnostic"));
    lam_shards_close(&shards);
    assert_int_equal(lam_remove_tree(root), LAM_OK);
}

int main(void) {
    lam_threads_set(2);
    const struct CMUnitTest tests[] = {cmocka_unit_test(views), cmocka_unit_test(any_channels)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
