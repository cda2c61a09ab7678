#include "data/loader.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/memory.h"
#include "data/order.h"
#include "data/sample.h"

/* A ring of batches. Steps are numbered over the run; step s lies in slot s % ring. Workers claim rows in
 * order, so a batch is decoded by all of them, and at most `ring` batches exist: from the one lent to the
 * caller onward. */
typedef struct slot {
    lam_batch batch;
    int64_t step;    /* -1: none begun */
    int64_t pending; /* rows not done */
    int64_t damaged;
    lam_status status;
    char message[512]; /* of the first failure */
} slot;

struct lam_loader {
    lam_loader_config config;
    lam_shards *shards;
    lam_sampler sampler;
    lam_order order;
    int64_t *images, *channels; /* images NULL: all */
    int64_t image_count, channel_count, images_total;
    int64_t first_row, rows; /* of the global batch, on this rank */
    int64_t samples, steps_per_epoch;
    size_t row_bytes;
    const int64_t *plates;
    uint8_t *reported; /* [images of the shards, channels of the shards] a damaged frame is logged once */

    pthread_mutex_t lock;
    pthread_cond_t work;  /* rows may be claimed, or it is time to leave */
    pthread_cond_t ready; /* a batch is whole, or a worker has become idle */
    bool lock_made, work_made, ready_made;
    pthread_t *threads;
    int thread_count;
    slot *slots;
    int ring;
    bool running, stop;
    bool lent;       /* the batch before `deliver` is in the caller's hands */
    int64_t deliver; /* next step to hand out */
    int64_t claim_step, claim_row;
    int64_t active; /* workers inside a row */
    double waited_ms;
    int64_t damaged_samples;
};

static void report_damage(lam_loader *loader, int64_t image, int64_t channel) {
    uint8_t *reported = &loader->reported[image * lam_shards_channels(loader->shards) + channel];
    pthread_mutex_lock(&loader->lock);
    bool first = !*reported;
    *reported = 1;
    pthread_mutex_unlock(&loader->lock);
    if (first) lam_log_warning_here("%s: the image is skipped", lam_last_error());
}

static void fill_unused(lam_loader *loader, lam_batch *batch, int64_t row) {
    memset((char *)batch->pixels + (size_t)row * loader->row_bytes, 0, loader->row_bytes);
    memset(batch->present + row * loader->channel_count, 0, (size_t)loader->channel_count);
    memset(batch->windows + row * 4, 0, 4 * sizeof(int32_t));
    batch->sample_ids[row] = batch->images[row] = batch->plates[row] = -1;
    batch->valid[row] = 0;
}

/* Writes one row; LAM_OK with valid 0 where the frame is damaged and that may be. */
static lam_status fill_row(lam_loader *loader, lam_batch *batch, int64_t row, int64_t pass, int64_t image,
                           void *scratch, bool *damaged) {
    char *pixels = (char *)batch->pixels + (size_t)row * loader->row_bytes;
    int64_t channel = 0;
    *damaged = false;
    batch->sample_ids[row] = pass * loader->images_total + image;
    batch->images[row] = image;
    batch->plates[row] = loader->plates[image];
    for (int64_t c = 0; c < loader->channel_count; c++)
        batch->present[row * loader->channel_count + c] =
            lam_shards_has_channel(loader->shards, image, loader->channels[c]);
    lam_status status = lam_sampler_read(&loader->sampler, batch->epoch, batch->sample_ids[row], image,
                                         scratch, pixels, batch->windows + row * 4, &channel);
    batch->valid[row] = status == LAM_OK;
    if (status == LAM_OK) return LAM_OK;
    memset(pixels, 0, loader->row_bytes);
    memset(batch->windows + row * 4, 0, 4 * sizeof(int32_t));
    if (status != LAM_ERROR_FORMAT || loader->config.strict) return status;
    report_damage(loader, image, channel);
    *damaged = true;
    return LAM_OK;
}

/* With the lock held: prepares the slot of a step whose first row is claimed. */
static void begin_step(lam_loader *loader, int64_t step) {
    slot *s = &loader->slots[step % loader->ring];
    int64_t epoch = step / loader->steps_per_epoch,
            first = step % loader->steps_per_epoch * loader->config.global_batch;
    int64_t left = loader->samples - first;
    s->step = step;
    s->pending = loader->rows;
    s->damaged = 0;
    s->status = LAM_OK;
    s->batch.step = step;
    s->batch.epoch = epoch;
    s->batch.global_rows = left < loader->config.global_batch ? left : loader->config.global_batch;
    s->batch.rows = loader->rows;
}

static bool can_claim(const lam_loader *loader) {
    return loader->running && loader->claim_step < loader->deliver - (loader->lent ? 1 : 0) + loader->ring;
}

static void *worker_main(void *context) {
    lam_loader *loader = context;
    void *scratch = NULL;
    lam_status memory = lam_alloc(&scratch, lam_sampler_scratch_bytes(&loader->sampler));
    pthread_mutex_lock(&loader->lock);
    for (;;) {
        while (!loader->stop && !can_claim(loader)) pthread_cond_wait(&loader->work, &loader->lock);
        if (loader->stop) break;
        slot *s = &loader->slots[loader->claim_step % loader->ring];
        if (loader->claim_row == 0) begin_step(loader, loader->claim_step);
        int64_t row = loader->claim_row, pass = 0, image = -1, global_row = loader->first_row + row;
        if (row < loader->rows && global_row < s->batch.global_rows) {
            int64_t first = s->step % loader->steps_per_epoch * loader->config.global_batch;
            lam_order_sample(&loader->order, s->batch.epoch, first + global_row, &pass, &image);
            if (loader->images) image = loader->images[image];
        }
        if (++loader->claim_row >= loader->rows) {
            loader->claim_row = 0;
            loader->claim_step++;
        }
        if (loader->rows == 0) { /* more ranks than rows: batches without rows are whole at once */
            pthread_cond_broadcast(&loader->ready);
            continue;
        }
        loader->active++;
        pthread_mutex_unlock(&loader->lock);

        bool damaged = false;
        lam_status status = memory;
        if (image < 0 || memory != LAM_OK) fill_unused(loader, &s->batch, row);
        if (image < 0)
            status = LAM_OK;
        else if (memory == LAM_OK)
            status = fill_row(loader, &s->batch, row, pass, image, scratch, &damaged);

        pthread_mutex_lock(&loader->lock);
        if (status != LAM_OK && s->status == LAM_OK) {
            s->status = status;
            snprintf(s->message, sizeof s->message, "%s", lam_last_error());
        }
        s->damaged += damaged;
        s->pending--;
        loader->active--;
        if (s->pending == 0 || loader->active == 0) pthread_cond_broadcast(&loader->ready);
    }
    pthread_mutex_unlock(&loader->lock);
    lam_free(scratch);
    return NULL;
}

/* ---- opening ---- */

static lam_status check_config(const lam_loader_config *c, int64_t images, int64_t channels) {
    LAM_REQUIRE(c->global_batch >= 1, LAM_ERROR_CONFIG, "a batch of %lld rows: at least 1",
                (long long)c->global_batch);
    LAM_REQUIRE(c->crop_size >= 1, LAM_ERROR_CONFIG, "a crop of %lld pixels: at least 1",
                (long long)c->crop_size);
    LAM_REQUIRE(c->crops_per_image >= 1, LAM_ERROR_CONFIG, "%lld crops an image: at least 1",
                (long long)c->crops_per_image);
    LAM_REQUIRE(c->threads >= 1, LAM_ERROR_CONFIG, "%d decode threads: at least 1", c->threads);
    LAM_REQUIRE(c->ring == 0 || c->ring >= 2, LAM_ERROR_CONFIG, "a ring of %d batches: at least 2", c->ring);
    LAM_REQUIRE(c->world_size >= 1 && c->rank >= 0 && c->rank < c->world_size, LAM_ERROR_INTERNAL,
                "rank %d of %d ranks does not exist", c->rank, c->world_size);
    LAM_REQUIRE((c->allocate == NULL) == (c->release == NULL) && (c->allocate == NULL) == (c->settle == NULL),
                LAM_ERROR_INTERNAL, "allocate, release and settle come together");
    LAM_REQUIRE(c->minimum_foreground >= 0 && c->minimum_foreground <= 1, LAM_ERROR_CONFIG,
                "a minimum foreground of %g: a share from 0 to 1", c->minimum_foreground);
    for (int64_t i = 0; c->images && i < c->image_count; i++)
        LAM_REQUIRE(c->images[i] >= 0 && c->images[i] < images, LAM_ERROR_INTERNAL,
                    "image %lld of %lld does not exist", (long long)c->images[i], (long long)images);
    for (int64_t i = 0; c->channels && i < c->channel_count; i++)
        LAM_REQUIRE(c->channels[i] >= 0 && c->channels[i] < channels, LAM_ERROR_INTERNAL,
                    "channel %lld of %lld does not exist", (long long)c->channels[i], (long long)channels);
    return LAM_OK;
}

static lam_status copy_choice(lam_loader *loader) {
    const lam_loader_config *c = &loader->config;
    loader->image_count = c->images ? c->image_count : loader->images_total;
    loader->channel_count = c->channels ? c->channel_count : lam_shards_channels(loader->shards);
    LAM_REQUIRE(loader->image_count > 0, LAM_ERROR_INPUT, "%s: no images to draw from",
                lam_shards_path(loader->shards));
    LAM_REQUIRE(loader->channel_count > 0, LAM_ERROR_INPUT, "%s: no channels to read",
                lam_shards_path(loader->shards));
    LAM_REQUIRE(loader->image_count <= INT64_MAX / 2 / c->crops_per_image, LAM_ERROR_CONFIG,
                "%lld crops an image are too many", (long long)c->crops_per_image);
    if (c->images) {
        LAM_TRY(lam_alloc_array((void **)&loader->images, loader->image_count, sizeof(int64_t)));
        memcpy(loader->images, c->images, sizeof(int64_t) * (size_t)loader->image_count);
    }
    LAM_TRY(lam_alloc_array((void **)&loader->channels, loader->channel_count, sizeof(int64_t)));
    for (int64_t i = 0; i < loader->channel_count; i++)
        loader->channels[i] = c->channels ? c->channels[i] : i;
    /* The caller's arrays may go away. */
    loader->config.images = loader->images;
    loader->config.channels = loader->channels;
    for (int64_t i = 0; i < loader->image_count; i++) {
        int64_t image = loader->images ? loader->images[i] : i, height = 0, width = 0;
        lam_shards_image_size(loader->shards, image, &height, &width);
        LAM_REQUIRE(
            height >= c->crop_size && width >= c->crop_size, LAM_ERROR_INPUT,
            "%s: image %lld is %lld x %lld pixels, smaller than the crop of %lld: choose a smaller crop "
            "(train: model.image_size, embed: --crop-size), or pack without it",
            lam_shards_path(loader->shards), (long long)image, (long long)height, (long long)width,
            (long long)c->crop_size);
    }
    return LAM_OK;
}

static lam_status make_slots(lam_loader *loader) {
    const lam_loader_config *c = &loader->config;
    size_t plane =
        (size_t)c->crop_size * (size_t)c->crop_size * (size_t)lam_shards_pixel_type(loader->shards);
    int64_t rows = loader->rows;
    LAM_REQUIRE(c->crop_size <= 65536 && loader->channel_count <= 65536 &&
                    (uint64_t)rows <= (UINT64_MAX >> 2) / (plane * (size_t)loader->channel_count),
                LAM_ERROR_CONFIG, "a batch of %lld crops of %lld pixels does not fit into memory",
                (long long)c->global_batch, (long long)c->crop_size);
    loader->row_bytes = plane * (size_t)loader->channel_count;
    LAM_TRY(lam_alloc_array((void **)&loader->slots, loader->ring, sizeof *loader->slots));
    for (int i = 0; i < loader->ring; i++) {
        slot *s = &loader->slots[i];
        size_t bytes = loader->row_bytes * (size_t)(rows > 0 ? rows : 1);
        s->step = -1;
        s->batch.pinned = c->allocate != NULL;
        lam_status status = c->allocate ? c->allocate(&s->batch.pixels, bytes, c->allocator_context)
                                        : lam_alloc(&s->batch.pixels, bytes);
        if (status != LAM_OK)
            return lam_fail_context(status,
                                    "crops are decoded into %d batches of %.1f MiB: a smaller batch "
                                    "(train.global_batch, of bench --batch) or more ranks need less",
                                    loader->ring, (double)bytes / 1048576.0);
        LAM_TRY(lam_alloc_array((void **)&s->batch.sample_ids, rows, sizeof(int64_t)));
        LAM_TRY(lam_alloc_array((void **)&s->batch.images, rows, sizeof(int64_t)));
        LAM_TRY(lam_alloc_array((void **)&s->batch.plates, rows, sizeof(int64_t)));
        LAM_TRY(lam_alloc_array((void **)&s->batch.valid, rows, 1));
        LAM_TRY(lam_alloc_array((void **)&s->batch.present, rows, (size_t)loader->channel_count));
        LAM_TRY(lam_alloc_array((void **)&s->batch.windows, rows, 4 * sizeof(int32_t)));
    }
    return LAM_OK;
}

static lam_status start_threads(lam_loader *loader) {
    loader->lock_made = pthread_mutex_init(&loader->lock, NULL) == 0;
    loader->work_made = pthread_cond_init(&loader->work, NULL) == 0;
    loader->ready_made = pthread_cond_init(&loader->ready, NULL) == 0;
    LAM_REQUIRE(loader->lock_made && loader->work_made && loader->ready_made, LAM_ERROR_EXTERNAL,
                "the system has no lock for the loader");
    LAM_TRY(lam_alloc_array((void **)&loader->threads, loader->config.threads, sizeof(pthread_t)));
    for (int i = 0; i < loader->config.threads; i++) {
        LAM_REQUIRE(pthread_create(&loader->threads[i], NULL, worker_main, loader) == 0, LAM_ERROR_EXTERNAL,
                    "decode thread %d of %d could not be started: choose fewer", i + 1,
                    loader->config.threads);
        loader->thread_count++;
    }
    return LAM_OK;
}

lam_status lam_loader_open(lam_loader **out, lam_shards *shards, const lam_loader_config *config) {
    *out = NULL;
    LAM_TRY(check_config(config, lam_shards_images(shards), lam_shards_channels(shards)));
    lam_loader *loader = NULL;
    lam_status status = LAM_OK;
    LAM_TRY(lam_alloc((void **)&loader, sizeof *loader));
    loader->config = *config;
    loader->shards = shards;
    loader->images_total = lam_shards_images(shards);
    loader->ring = config->ring == 0 ? 3 : config->ring;
    int64_t plate_count = 0, world = config->world_size, batch = config->global_batch;
    loader->plates = lam_shards_plates(shards, &plate_count);
    /* batch x rank / world without overflow of the product */
    loader->first_row = batch / world * config->rank + batch % world * config->rank / world;
    loader->rows =
        batch / world * (config->rank + 1) + batch % world * (config->rank + 1) / world - loader->first_row;
    LAM_TRY_GOTO(copy_choice(loader), failed);
    loader->samples = loader->image_count * config->crops_per_image;
    loader->steps_per_epoch = (loader->samples - 1) / batch + 1;
    LAM_TRY_GOTO(lam_alloc_array((void **)&loader->reported, loader->images_total,
                                 (size_t)lam_shards_channels(shards)),
                 failed);
    LAM_TRY_GOTO(lam_sampler_init(&loader->sampler, shards, loader->channels, loader->channel_count, config),
                 failed);
    LAM_TRY_GOTO(
        lam_order_init(&loader->order, config->seed, loader->image_count, config->crops_per_image, batch),
        failed);
    LAM_TRY_GOTO(make_slots(loader), failed);
    LAM_TRY_GOTO(start_threads(loader), failed);
    *out = loader;
    return LAM_OK;
failed:
    lam_loader_close(&loader);
    return status;
}

/* Before the lent batch may be written. */
static lam_status settle(const lam_loader *loader) {
    const lam_loader_config *c = &loader->config;
    return loader->lent && c->settle ? c->settle(c->allocator_context) : LAM_OK;
}

void lam_loader_close(lam_loader **address) {
    lam_loader *loader = *address;
    if (!loader) return;
    *address = NULL;
    settle(loader); /* where it fails nothing copies any more */
    if (loader->thread_count > 0) {
        pthread_mutex_lock(&loader->lock);
        loader->stop = true;
        pthread_cond_broadcast(&loader->work);
        pthread_mutex_unlock(&loader->lock);
        for (int i = 0; i < loader->thread_count; i++) pthread_join(loader->threads[i], NULL);
    }
    if (loader->lock_made) pthread_mutex_destroy(&loader->lock);
    if (loader->work_made) pthread_cond_destroy(&loader->work);
    if (loader->ready_made) pthread_cond_destroy(&loader->ready);
    for (int i = 0; loader->slots && i < loader->ring; i++) {
        lam_batch *batch = &loader->slots[i].batch;
        if (batch->pixels && loader->config.release)
            loader->config.release(batch->pixels, loader->config.allocator_context);
        else
            lam_free(batch->pixels);
        lam_free(batch->sample_ids);
        lam_free(batch->images);
        lam_free(batch->plates);
        lam_free(batch->valid);
        lam_free(batch->present);
        lam_free(batch->windows);
    }
    lam_free(loader->slots);
    lam_free(loader->threads);
    lam_free(loader->reported);
    lam_free(loader->images);
    lam_free(loader->channels);
    lam_sampler_free(&loader->sampler);
    lam_order_free(&loader->order);
    lam_free(loader);
}

/* ---- running ---- */

int64_t lam_loader_steps_per_epoch(const lam_loader *loader) { return loader->steps_per_epoch; }
double lam_loader_waited_ms(const lam_loader *loader) { return loader->waited_ms; }
int64_t lam_loader_damaged_samples(const lam_loader *loader) { return loader->damaged_samples; }

lam_status lam_loader_seek(lam_loader *loader, int64_t step) {
    LAM_REQUIRE(step >= 0, LAM_ERROR_INTERNAL, "step %lld does not exist", (long long)step);
    LAM_TRY(settle(loader));
    pthread_mutex_lock(&loader->lock);
    loader->running =
        false; /* nothing more is claimed; rows in work are waited for, they write into the ring */
    while (loader->active > 0) pthread_cond_wait(&loader->ready, &loader->lock);
    for (int i = 0; i < loader->ring; i++) loader->slots[i].step = -1;
    loader->deliver = loader->claim_step = step;
    loader->claim_row = 0;
    loader->lent = false;
    loader->running = true;
    pthread_cond_broadcast(&loader->work);
    pthread_mutex_unlock(&loader->lock);
    return LAM_OK;
}

lam_status lam_loader_next(lam_loader *loader, const lam_batch **batch) {
    *batch = NULL;
    LAM_TRY(settle(loader));
    double started = lam_now();
    pthread_mutex_lock(&loader->lock);
    loader->running = true;
    loader->lent = false;
    pthread_cond_broadcast(&loader->work);
    slot *s = &loader->slots[loader->deliver % loader->ring];
    while (s->step != loader->deliver || s->pending > 0) pthread_cond_wait(&loader->ready, &loader->lock);
    lam_status status = s->status;
    if (status == LAM_OK) {
        loader->deliver++;
        loader->lent = true;
        loader->damaged_samples += s->damaged;
        *batch = &s->batch;
    }
    loader->waited_ms += (lam_now() - started) * 1000;
    pthread_mutex_unlock(&loader->lock);
    /* A batch that failed stays: calling again fails again, a seek decodes it anew. */
    if (status != LAM_OK) LAM_FAIL(status, "%s", s->message);
    return LAM_OK;
}
