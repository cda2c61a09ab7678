#include "train/embedder.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/memory.h"
#include "data/sample.h"
#include "train/features.h"

static lam_status open_network(lam_embedder *e, const lam_backend *backend, int64_t block) {
    lam_mae_config *model = &e->network->settings.model;
    LAM_TRY(lam_isa_select());
    model->pixel_type = lam_shards_pixel_type(e->shards) == LAM_PIXEL_U8 ? LAM_U8 : LAM_U16;
    LAM_REQUIRE(block <= model->depth, LAM_ERROR_USAGE,
                "--block %" PRId64 ": the network has %" PRId64 " blocks", block, model->depth);
    LAM_TRY(lam_network_match(e->network, e->shards, e->channel_map));
    LAM_TRY(lam_feeder_create(&e->feeder, e->network, e->shards, e->channel_map));
    LAM_TRY(lam_graph_create(&e->graph, e->network->parameters, backend));
    bool hidden = e->pool == LAM_POOL_HIDDEN;
    if (block == LAM_EVERY_BLOCK) {
        e->blocks = model->depth;
        LAM_TRY(lam_alloc_array((void **)&e->every, e->blocks, sizeof(lam_tensor *)));
        LAM_TRY(lam_mae_build_every_block(e->graph, model, e->batch, hidden, e->every, &e->io));
    } else {
        LAM_TRY(lam_mae_build_encoder(e->graph, model, e->batch, block > 0 ? block : model->depth, hidden,
                                      &e->io));
    }
    LAM_TRY(lam_graph_plan(e->graph));
    e->width = e->blocks * lam_tensor_dim(e->io.tokens, 2) * (e->pool == LAM_POOL_CHANNEL ? e->channels : 1);
    return LAM_OK;
}

static lam_status open_all(lam_embedder *e, const lam_backend *backend, int64_t block) {
    LAM_TRY(lam_alloc_array((void **)&e->channel_map, e->channels, sizeof(int64_t)));
    LAM_TRY(lam_alloc_array((void **)&e->present, e->batch * e->channels, 1));
    LAM_TRY(lam_alloc_array(&e->pixels, e->batch * e->channels,
                            (size_t)(e->crop_size * e->crop_size) * sizeof(uint16_t)));
    for (int64_t c = 0; c < e->channels; c++) e->channel_map[c] = c;
    if (e->network)
        LAM_TRY(open_network(e, backend, block));
    else
        e->width = lam_feature_count(e->handmade, e->channels);
    if (e->views == 1) return LAM_OK;
    LAM_TRY(lam_alloc_array(&e->upright, e->batch * e->channels,
                            (size_t)(e->crop_size * e->crop_size) * sizeof(uint16_t)));
    return lam_alloc_array((void **)&e->view, e->batch * e->width, sizeof(float));
}

lam_status lam_embedder_open(lam_embedder *e, lam_shards *shards, lam_network *network,
                             const lam_backend *backend, bool handmade,
                             int64_t crop_size, int64_t block, lam_pool pool, int64_t batch, int64_t views,
                             bool strict) {
    memset(e, 0, sizeof *e);
    e->shards = shards;
    e->network = network;
    e->handmade = handmade;
    e->crop_size = crop_size;
    e->pool = pool;
    e->batch = batch;
    e->views = views;
    e->blocks = 1;
    lam_status status = network ? lam_network_take_channels(network, shards) : LAM_OK;
    e->channels = network ? network->channels : lam_shards_channels(shards);
    if (status == LAM_OK && !strict) status = lam_alloc_array((void **)&e->damaged, batch, 1);
    if (status == LAM_OK) status = open_all(e, backend, block);
    if (status != LAM_OK) lam_embedder_close(e);
    return status;
}

void lam_embedder_close(lam_embedder *e) {
    lam_graph_free(e->graph);
    lam_feeder_free(&e->feeder);
    lam_free(e->channel_map);
    lam_free(e->every);
    lam_free(e->present);
    lam_free(e->damaged);
    lam_free(e->pixels);
    lam_free(e->upright);
    lam_free(e->view);
    memset(e, 0, sizeof *e);
}

/* ---- a network ---- */

static void feed(lam_embedder *e, const lam_crop *crops, int64_t count, const int64_t *plates) {
    size_t row_bytes =
        (size_t)(e->channels * e->crop_size * e->crop_size) * (size_t)lam_shards_pixel_type(e->shards);
    const lam_mae_pixels *in = &e->io.input;
    char *pixels = lam_tensor_data(in->pixels);
    float *present = lam_tensor_data(in->present);
    memcpy(pixels, e->pixels, (size_t)count * row_bytes);
    memset(pixels + (size_t)count * row_bytes, 0, (size_t)(e->batch - count) * row_bytes);
    memcpy(lam_tensor_data(in->scale), e->feeder.scale, (size_t)e->channels * sizeof(float));
    for (int64_t i = 0; i < e->batch; i++) {
        int64_t plate = i < count ? plates[crops[i].image] : 0;
        for (int64_t c = 0; c < e->channels; c++) {
            int64_t at = i * e->channels + c;
            present[at] = i < count && e->present[at] ? 1.0f : 0.0f;
            if (in->mean) ((float *)lam_tensor_data(in->mean))[at] = e->feeder.mean[plate * e->channels + c];
            if (in->rstd) ((float *)lam_tensor_data(in->rstd))[at] = e->feeder.rstd[plate * e->channels + c];
        }
    }
}

/* Mean of the tokens of one channel; zero where it is absent. channel -1: of all channels that are there. */
static void mean_token(const lam_embedder *e, const float *row, const uint8_t *present, int64_t channel,
                       float *out) {
    int64_t tokens = lam_tensor_dim(e->io.tokens, 1), dim = lam_tensor_dim(e->io.tokens, 2),
            per_channel = e->io.tokens_per_channel;
    for (int64_t d = 0; d < dim; d++) {
        double sum = 0;
        int64_t used = 0;
        for (int64_t t = 1; t < tokens; t++) {
            int64_t c = per_channel ? (t - 1) / per_channel : 0;
            if (per_channel && (!present[c] || (channel >= 0 && c != channel))) continue;
            sum += (double)row[t * dim + d];
            used++;
        }
        out[d] = used ? (float)(sum / (double)used) : 0;
    }
}

/* One vector a crop, as long as a token, e->width elements apart. */
static void pool_tokens(const lam_embedder *e, const lam_tensor *of, int64_t count, int64_t channel,
                        float *vectors) {
    int64_t tokens = lam_tensor_dim(of, 1), dim = lam_tensor_dim(of, 2);
    const float *all = lam_tensor_data(of);
    for (int64_t i = 0; i < count; i++) {
        const float *row = all + i * tokens * dim;
        float *out = vectors + i * e->width;
        if (e->pool == LAM_POOL_CLS) {
            memcpy(out, row, (size_t)dim * sizeof(float));
            continue;
        }
        mean_token(e, row, e->present + i * e->channels, channel, out);
    }
}

static lam_status embed_batch(lam_embedder *e, const lam_crop *crops, int64_t count, float *vectors) {
    int64_t plate_count = 0, passes = e->pool == LAM_POOL_CHANNEL ? e->channels : 1;
    int64_t dim = lam_tensor_dim(e->io.tokens, 2);
    feed(e, crops, count, lam_shards_plates(e->shards, &plate_count));
    for (int64_t c = 0; c < passes; c++) {
        if (e->io.only_channel)
            *(int64_t *)lam_tensor_data(e->io.only_channel) = e->pool == LAM_POOL_CHANNEL ? c : -1;
        if (c == 0 || e->io.only_channel) LAM_TRY(lam_graph_forward(e->graph));
        lam_graph_hold_weights(e->graph, true);
        for (int64_t b = 0; b < e->blocks; b++)
            pool_tokens(e, e->every ? e->every[b] : e->io.tokens, count, e->pool == LAM_POOL_CHANNEL ? c : -1,
                        vectors + (b * passes + c) * dim);
    }
    return LAM_OK;
}

/* ---- features ---- */

static lam_status crop_features(const lam_embedder *e, int64_t row, float *vector) {
    int64_t plane = e->crop_size * e->crop_size;
    bool narrow = lam_shards_pixel_type(e->shards) == LAM_PIXEL_U8;
    float *planes = NULL;
    LAM_TRY(lam_alloc_array((void **)&planes, e->channels * plane, sizeof(float)));
    for (int64_t c = 0; c < e->channels; c++) {
        double scale = lam_shards_channel_scale(e->shards, c);
        int64_t at = (row * e->channels + c) * plane;
        for (int64_t i = 0; i < plane; i++) {
            double pixel =
                narrow ? ((const uint8_t *)e->pixels)[at + i] : ((const uint16_t *)e->pixels)[at + i];
            planes[c * plane + i] = (float)(pixel * scale);
        }
    }
    lam_status status = lam_crop_features(e->handmade, planes, e->present + row * e->channels, e->channels,
                                          e->crop_size, vector);
    lam_free(planes);
    return status;
}

static lam_status feature_batch(const lam_embedder *e, int64_t count, float *vectors) {
    bool failed = false;
#pragma omp parallel for schedule(dynamic) reduction(|| : failed)
    for (int64_t i = 0; i < count; i++)
        failed = crop_features(e, i, vectors + i * e->width) != LAM_OK || failed;
    LAM_REQUIRE(!failed, LAM_ERROR_MEMORY, "no memory for the features of a crop of %" PRId64 " pixels",
                e->crop_size);
    return LAM_OK;
}

/* ---- all crops ---- */

static void turn(lam_embedder *e, int64_t count, int64_t view) {
    size_t bytes = (size_t)lam_shards_pixel_type(e->shards),
           plane = (size_t)(e->crop_size * e->crop_size) * bytes;
#pragma omp parallel for
    for (int64_t i = 0; i < count * e->channels; i++)
        lam_turn((const char *)e->upright + (size_t)i * plane, (char *)e->pixels + (size_t)i * plane,
                 e->crop_size, bytes, view >= 4, (int)(view & 3));
}

/* Vectors of the crops in `pixels`; with several views the mean over them, summed in their order. */
static lam_status embed_views(lam_embedder *e, const lam_crop *crops, int64_t count, float *vectors) {
    if (e->views == 1)
        return e->network ? embed_batch(e, crops, count, vectors) : feature_batch(e, count, vectors);
    void *read = e->pixels;
    e->pixels = e->upright;
    e->upright = read;
    memset(vectors, 0, (size_t)(count * e->width) * sizeof(float));
    for (int64_t v = 0; v < e->views; v++) {
        turn(e, count, v);
        LAM_TRY(e->network ? embed_batch(e, crops, count, e->view) : feature_batch(e, count, e->view));
        for (int64_t i = 0; i < count * e->width; i++) vectors[i] += e->view[i] / (float)e->views;
    }
    return LAM_OK;
}

/* The progress is that of rank 0: the ranks meet at the end only. */
static lam_status embed_range(lam_embedder *e, const lam_crop *crops, int64_t count, int world,
                              float *vectors) {
    char label[48] = "embed";
    if (world > 1) snprintf(label, sizeof label, "embed, rank 0 of %d", world);
    lam_progress *progress = lam_progress_start(label, count, "crops");
    lam_status status = LAM_OK;
    for (int64_t at = 0; at < count && status == LAM_OK; at += e->batch) {
        int64_t rows = count - at < e->batch ? count - at : e->batch;
        status = lam_crops_read(e->shards, crops + at, rows, e->crop_size, e->channel_map, e->channels,
                                e->pixels, e->present, e->damaged);
        if (status != LAM_OK) break;
        status = embed_views(e, crops + at, rows, vectors + at * e->width);
        for (int64_t i = 0; i < rows * e->width && e->damaged; i++)
            if (e->damaged[i / e->width]) vectors[at * e->width + i] = NAN;
        lam_progress_update(progress, at + rows, NULL);
    }
    lam_progress_finish(progress);
    return status;
}

lam_status lam_embed_crops(lam_embedder *e, lam_dist *dist, const lam_crop *crops, int64_t count,
                           float **vectors) {
    int rank = lam_dist_rank(dist), world = lam_dist_world_size(dist);
    int64_t batches = (count + e->batch - 1) / e->batch, *sizes = NULL, begin = 0, rows = 0;
    float *mine = NULL, *all = NULL;
    *vectors = NULL;
    lam_status status = lam_alloc_array((void **)&sizes, world, sizeof(int64_t));
    for (int r = 0; r < world && status == LAM_OK; r++) {
        int64_t first = batches * r / world * e->batch, last = batches * (r + 1) / world * e->batch;
        if (last > count) last = count;
        sizes[r] = (last - first) * e->width * (int64_t)sizeof(float);
        if (r != rank) continue;
        begin = first;
        rows = last - first;
    }
    if (status == LAM_OK) status = lam_alloc_array((void **)&mine, rows * e->width, sizeof(float));
    if (status == LAM_OK && rank == 0)
        status = lam_alloc_array((void **)&all, count * e->width, sizeof(float));
    if (status == LAM_OK) status = embed_range(e, crops + begin, rows, world, mine);
    status = lam_dist_agree(dist, status);
    if (status == LAM_OK) status = lam_dist_gather(dist, mine, sizes, all);
    lam_free(sizes);
    lam_free(mine);
    if (status == LAM_OK)
        *vectors = all;
    else
        lam_free(all);
    return status;
}
