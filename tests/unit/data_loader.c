/* Batches: the same for any ranks, threads and after a seek; what an epoch holds; damaged frames; windows and
 * turns. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/fault.h"
#include "base/files.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/rng.h"
#include "base/table.h"
#include "data/loader.h"
#include "data/sample.h"
#include "data/shard_write.h"

enum { IMAGES = 37, CHANNELS = 3, HEIGHT = 40, WIDTH = 48, PLATES = 4 };

typedef struct world {
    char root[32], folder[48], damaged[48];
    lam_shards *shards;
} world;

/* Channel c, pixel (y, x) of an image: told apart by its value. Channel 2 is absent in every fifth image. */
static uint16_t pixel_of(int64_t image, int64_t channel, int64_t y, int64_t x) {
    return (uint16_t)(lam_mix64((uint64_t)(((image * 8 + channel) * 64 + y) * 64 + x)) % 4000);
}

static void write_shards(const char *folder) {
    static const char *const names[CHANNELS] = {"DNA", "ER", "Mito"};
    lam_table *table = NULL;
    lam_dataset *dataset = NULL;
    const char *plates[IMAGES], *wells[IMAGES];
    char texts[IMAGES][2][16];
    for (int i = 0; i < IMAGES; i++) {
        snprintf(texts[i][0], sizeof texts[i][0], "P%d", i * PLATES / IMAGES);
        snprintf(texts[i][1], sizeof texts[i][1], "A%02d", i);
        plates[i] = texts[i][0];
        wells[i] = texts[i][1];
    }
    assert_int_equal(lam_table_create(&table, IMAGES), LAM_OK);
    assert_int_equal(lam_table_add(table, "plate", plates), LAM_OK);
    assert_int_equal(lam_table_add(table, "well", wells), LAM_OK);
    lam_dataset_config config = {
        .folder = folder, .channel_names = names, .channels = CHANNELS, .metadata = table};
    assert_int_equal(lam_dataset_create(&dataset, &config), LAM_OK);
    for (int64_t i = 0; i < IMAGES; i++) {
        static uint16_t planes[CHANNELS][HEIGHT * WIDTH];
        const void *pointers[CHANNELS] = {planes[0], planes[1], i % 5 == 0 ? NULL : planes[2]};
        const lam_pixel_type types[CHANNELS] = {LAM_PIXEL_U16, LAM_PIXEL_U16, LAM_PIXEL_U16};
        lam_encoded_image *encoded = NULL;
        for (int64_t c = 0; c < CHANNELS; c++)
            for (int64_t p = 0; p < HEIGHT * WIDTH; p++) planes[c][p] = pixel_of(i, c, p / WIDTH, p % WIDTH);
        assert_int_equal(lam_encode_image(&encoded, pointers, types, CHANNELS, HEIGHT, WIDTH), LAM_OK);
        assert_int_equal(lam_dataset_add(dataset, encoded), LAM_OK);
        lam_encoded_free(&encoded);
    }
    assert_int_equal(lam_dataset_finish(&dataset), LAM_OK);
    lam_table_free(table);
}

static int setup(void **state) {
    static world w;
    strcpy(w.root, "/tmp/lamella-loader-XXXXXX");
    assert_non_null(mkdtemp(w.root));
    snprintf(w.folder, sizeof w.folder, "%s/good", w.root);
    snprintf(w.damaged, sizeof w.damaged, "%s/damaged", w.root);
    write_shards(w.folder);
    assert_int_equal(lam_shards_open(&w.shards, w.folder), LAM_OK);
    *state = &w;
    return 0;
}
static int teardown(void **state) {
    world *w = *state;
    lam_shards_close(&w->shards);
    return lam_remove_tree(w->root) == LAM_OK ? 0 : -1;
}

static lam_loader_config usual(void) {
    return (lam_loader_config){.global_batch = 8,
                               .crop_size = 16,
                               .crops_per_image = 3,
                               .seed = 11,
                               .world_size = 1,
                               .threads = 2,
                               .flips = true,
                               .rotations = true};
}
static lam_loader *open_loader(lam_shards *shards, const lam_loader_config *config) {
    lam_loader *loader = NULL;
    assert_int_equal(lam_loader_open(&loader, shards, config), LAM_OK);
    return loader;
}
static const lam_batch *next(lam_loader *loader) {
    const lam_batch *batch = NULL;
    assert_int_equal(lam_loader_next(loader, &batch), LAM_OK);
    assert_non_null(batch);
    return batch;
}

static void test_permutation_is_a_bijection(void **state) {
    (void)state;
    for (uint64_t n = 1; n <= 300; n++) {
        unsigned char seen[300] = {0};
        for (uint64_t i = 0; i < n; i++) {
            uint64_t p = lam_permute(7, n, n, i);
            assert_true(p < n);
            assert_int_equal(seen[p]++, 0);
        }
    }
    /* Far elements at once, and keyed by seed and by stream. */
    uint64_t n = (uint64_t)1 << 40, same = 0;
    for (uint64_t i = 0; i < 64; i++) {
        uint64_t at = n - 1 - i * 977;
        assert_true(lam_permute(1, 2, n, at) < n);
        same += lam_permute(1, 2, n, at) == lam_permute(2, 2, n, at);
        same += lam_permute(1, 2, n, at) == lam_permute(1, 3, n, at);
    }
    assert_int_equal(same, 0);
    /* Every place is taken by every element about as often: chi-square of 12 x 12 places over 6000
     * permutations. */
    double chi = 0;
    int counts[12][12] = {{0}};
    for (uint64_t stream = 0; stream < 6000; stream++)
        for (uint64_t i = 0; i < 12; i++) counts[i][lam_permute(5, stream, 12, i)]++;
    for (int i = 0; i < 12; i++)
        for (int j = 0; j < 12; j++) chi += pow(counts[i][j] - 500, 2) / 500;
    assert_true(chi < 190); /* 121 degrees of freedom: p = 6e-5 */
}

static void test_epoch_holds_every_sample_once(void **state) {
    world *w = *state;
    static const int64_t batches[] = {1, 5, 8, 19, 36, 37};
    for (size_t b = 0; b < sizeof batches / sizeof *batches; b++) {
        lam_loader_config config = usual();
        config.global_batch = batches[b];
        config.crops_per_image = 4;
        lam_loader *loader = open_loader(w->shards, &config);
        int64_t steps = (4 * IMAGES - 1) / batches[b] + 1;
        assert_int_equal(lam_loader_steps_per_epoch(loader), steps);
        uint64_t orders[2] = {0};
        for (int64_t epoch = 0; epoch < 2; epoch++) {
            int seen[4 * IMAGES] = {0};
            for (int64_t k = 0; k < steps; k++) {
                const lam_batch *batch = next(loader);
                int in_batch[IMAGES] = {0};
                assert_int_equal(batch->step, epoch * steps + k);
                assert_int_equal(batch->epoch, epoch);
                assert_int_equal(batch->rows, batches[b]);
                assert_int_equal(batch->global_rows,
                                 k < steps - 1 ? batches[b] : 4 * IMAGES - (steps - 1) * batches[b]);
                for (int64_t r = 0; r < batch->rows; r++) {
                    if (r >= batch->global_rows) {
                        assert_int_equal(batch->sample_ids[r], -1);
                        assert_int_equal(batch->images[r], -1);
                        assert_int_equal(batch->plates[r], -1);
                        assert_int_equal(batch->valid[r], 0);
                        const uint16_t *row = (const uint16_t *)batch->pixels + r * CHANNELS * 256;
                        for (int i = 0; i < CHANNELS * 256; i++) assert_int_equal(row[i], 0);
                        continue;
                    }
                    assert_int_equal(batch->valid[r], 1);
                    assert_int_equal(batch->sample_ids[r] % IMAGES, batch->images[r]);
                    assert_int_equal(seen[batch->sample_ids[r]]++, 0);
                    assert_int_equal(in_batch[batch->images[r]]++, 0); /* an image at most once a batch */
                    orders[epoch] = lam_mix64(orders[epoch] ^ (uint64_t)batch->sample_ids[r]);
                }
            }
        }
        assert_true(orders[0] != orders[1]);
        lam_loader_close(&loader);
    }
}

static void test_more_rows_than_images(void **state) {
    world *w = *state;
    int64_t few[3] = {4, 9, 30};
    lam_loader_config config = usual();
    config.images = few;
    config.image_count = 3;
    lam_loader *loader = open_loader(w->shards, &config);
    few[0] = 1; /* copied */
    assert_int_equal(lam_loader_steps_per_epoch(loader), 2);
    int seen[3 * IMAGES] = {0};
    for (int k = 0; k < 2; k++) {
        const lam_batch *batch = next(loader);
        assert_int_equal(batch->global_rows, k ? 1 : 8);
        for (int64_t r = 0; r < batch->global_rows; r++) seen[batch->sample_ids[r]]++;
    }
    for (int i = 0; i < 3 * IMAGES; i++)
        assert_int_equal(seen[i], i % IMAGES == 4 || i % IMAGES == 9 || i % IMAGES == 30);
    lam_loader_close(&loader);
}

/* A digest of rows of the global batches of `steps` steps, put together from every rank. */
static uint64_t digest(lam_shards *shards, lam_loader_config config, int world_size, int threads,
                       int64_t first, int64_t steps) {
    uint64_t sum = 0;
    config.world_size = world_size;
    config.threads = threads;
    config.ring = 2 + threads % 3;
    for (config.rank = 0; config.rank < world_size; config.rank++) {
        lam_loader *loader = open_loader(shards, &config);
        if (first > 0) assert_int_equal(lam_loader_seek(loader, first), LAM_OK);
        int64_t offset = config.global_batch * config.rank / world_size;
        for (int64_t k = first; k < first + steps; k++) {
            const lam_batch *batch = next(loader);
            assert_int_equal(batch->rows, config.global_batch * (config.rank + 1) / world_size - offset);
            for (int64_t r = 0; r < batch->rows; r++) {
                uint64_t row = lam_mix64((uint64_t)(k * 1000 + offset + r));
                row = lam_mix64(row ^ (uint64_t)batch->sample_ids[r]);
                row = lam_mix64(row ^ (uint64_t)batch->plates[r]);
                row = lam_mix64(row ^ batch->valid[r]);
                for (int i = 0; i < 4; i++) row = lam_mix64(row ^ (uint64_t)batch->windows[r * 4 + i]);
                for (int i = 0; i < CHANNELS; i++) row = lam_mix64(row ^ batch->present[r * CHANNELS + i]);
                const uint16_t *pixels = (const uint16_t *)batch->pixels + r * CHANNELS * 256;
                for (int i = 0; i < CHANNELS * 256; i++) row = lam_mix64(row ^ pixels[i]);
                sum += row;
            }
        }
        lam_loader_close(&loader);
        assert_null(loader);
    }
    return sum;
}

static void test_same_for_ranks_threads_and_seeks(void **state) {
    world *w = *state;
    lam_loader_config config = usual();
    uint64_t whole = digest(w->shards, config, 1, 1, 0, 30), later = digest(w->shards, config, 1, 1, 17, 13);
    for (int threads = 1; threads <= 8; threads++)
        assert_true(digest(w->shards, config, 1, threads, 0, 30) == whole);
    static const int worlds[] = {2, 3, 5, 11}; /* 11: ranks without rows */
    for (size_t i = 0; i < 4; i++) {
        assert_true(digest(w->shards, config, worlds[i], 2, 0, 30) == whole);
        assert_true(digest(w->shards, config, worlds[i], 3, 17, 13) == later);
    }
    assert_true(digest(w->shards, config, 1, 2, 0, 17) + later == whole);
    lam_loader_config other = config;
    other.seed++;
    assert_true(digest(w->shards, other, 1, 2, 0, 30) != whole);
}

static void test_seek_to_and_fro(void **state) {
    world *w = *state;
    lam_loader_config config = usual();
    lam_loader *loader = open_loader(w->shards, &config);
    static const int64_t steps[] = {0, 9, 3, 3, 100000, 13, 0};
    int64_t ids[8], known = -1;
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        if (i > 0) assert_int_equal(lam_loader_seek(loader, steps[i]), LAM_OK);
        const lam_batch *batch = next(loader);
        assert_int_equal(batch->step, steps[i]);
        assert_int_equal(batch->epoch, steps[i] / lam_loader_steps_per_epoch(loader));
        if (steps[i] == 3 && known == 3) assert_memory_equal(ids, batch->sample_ids, sizeof ids);
        memcpy(ids, batch->sample_ids, sizeof ids);
        known = steps[i];
    }
    assert_int_equal(lam_loader_seek(loader, -1), LAM_ERROR_INTERNAL);
    assert_true(lam_loader_waited_ms(loader) > 0);
    lam_loader_close(&loader);
    for (int i = 0; i < 50; i++) { /* closing in the middle of decoding, and before anything began */
        loader = open_loader(w->shards, &config);
        if (i % 2) (void)next(loader);
        if (i % 4 == 3) assert_int_equal(lam_loader_seek(loader, i), LAM_OK);
        lam_loader_close(&loader);
    }
}

/* pixels of a row = the window that the row names, mirrored first and then turned counter-clockwise. */
static void test_rows_are_the_windows_they_name(void **state) {
    world *w = *state;
    lam_loader_config config = usual();
    int64_t channels[2] = {2, 0};
    config.channels = channels;
    config.channel_count = 2;
    config.crop_size = 5;
    lam_loader *loader = open_loader(w->shards, &config);
    int turned[8] = {0}, low = 0, high = 0;
    for (int k = 0; k < 42; k++) {
        const lam_batch *batch = next(loader);
        for (int64_t r = 0; r < batch->rows; r++) {
            if (!batch->valid[r]) continue;
            const int32_t *window = batch->windows + r * 4;
            int64_t image = batch->images[r];
            assert_true(window[0] >= 0 && window[0] <= HEIGHT - 5 && window[1] >= 0 &&
                        window[1] <= WIDTH - 5);
            low += window[0] == 0 || window[1] == 0;
            high += window[0] == HEIGHT - 5 || window[1] == WIDTH - 5;
            turned[window[2] * 4 + window[3]]++;
            assert_int_equal(batch->present[r * 2], image % 5 != 0);
            assert_int_equal(batch->present[r * 2 + 1], 1);
            for (int c = 0; c < 2; c++) {
                uint16_t square[25], mirrored[25];
                for (int i = 0; i < 25; i++)
                    square[i] = c == 0 && image % 5 == 0
                                    ? 0
                                    : pixel_of(image, channels[c], window[0] + i / 5, window[1] + i % 5);
                for (int i = 0; i < 25; i++)
                    mirrored[i] = window[2] ? square[i / 5 * 5 + 4 - i % 5] : square[i];
                for (int turn = 0; turn < window[3]; turn++) {
                    uint16_t before[25];
                    memcpy(before, mirrored, sizeof before);
                    for (int i = 0; i < 5; i++)
                        for (int j = 0; j < 5; j++) mirrored[i * 5 + j] = before[j * 5 + 4 - i];
                }
                assert_memory_equal((const uint16_t *)batch->pixels + (r * 2 + c) * 25, mirrored,
                                    sizeof mirrored);
            }
        }
    }
    for (int i = 0; i < 8; i++) assert_true(turned[i] > 10); /* about 39 each */
    assert_true(low > 0 && high > 0);                        /* the edges are reached */
    lam_loader_close(&loader);

    config.center = true;
    loader = open_loader(w->shards, &config);
    const lam_batch *batch = next(loader);
    for (int64_t r = 0; r < batch->rows; r++) {
        const int32_t expected[4] = {(HEIGHT - 5) / 2, (WIDTH - 5) / 2, 0, 0};
        assert_memory_equal(batch->windows + r * 4, expected, sizeof expected);
    }
    lam_loader_close(&loader);
}

/* Plates of the first third of each batch of 8 are as frequent as in the whole: chi-square over many epochs.
 */
static void test_plates_are_mixed(void **state) {
    world *w = *state;
    lam_loader_config config = usual();
    config.crops_per_image = 1;
    lam_loader *loader = open_loader(w->shards, &config);
    double share[PLATES] = {0}, chi = 0;
    int64_t counts[5][PLATES] = {{0}}, plate_count = 0;
    const int64_t *plates = lam_shards_plates(w->shards, &plate_count);
    assert_int_equal(plate_count, PLATES);
    for (int i = 0; i < IMAGES; i++) share[plates[i]] += 1.0 / IMAGES;
    const int epochs = 400;
    for (int k = 0; k < 5 * epochs; k++) {
        const lam_batch *batch = next(loader);
        for (int64_t r = 0; r < batch->global_rows; r++) counts[k % 5][batch->plates[r]]++;
    }
    for (int k = 0; k < 5; k++)
        for (int p = 0; p < PLATES; p++) {
            double expected = epochs * (k < 4 ? 8 : 5) * share[p];
            chi += pow((double)counts[k][p] - expected, 2) / expected;
        }
    assert_true(
        chi <
        39.3); /* under 15 degrees of freedom: p < 6e-4; sampling without replacement makes it smaller */
    lam_loader_close(&loader);
}

/* Flips a byte of the frames of the shard: some frames no longer fit their checksum. */
static void damage(const char *folder) {
    char **names = NULL, *path = NULL, *bytes = NULL;
    int64_t count = 0;
    size_t size = 0;
    assert_int_equal(lam_list_folder(folder, ".lam", &names, &count), LAM_OK);
    assert_int_equal(count, 1);
    assert_int_equal(lam_path_join(&path, folder, names[0]), LAM_OK);
    assert_int_equal(lam_file_read(path, &bytes, &size), LAM_OK);
    for (size_t at = 20000; at < 20004; at++) bytes[at] = (char)~bytes[at];
    assert_int_equal(lam_file_write(path, bytes, size), LAM_OK);
    free(bytes);
    free(path);
    lam_free_texts(names, count);
}

static void test_damaged_frames(void **state) {
    world *w = *state;
    write_shards(w->damaged);
    damage(w->damaged);
    lam_shards *shards = NULL;
    assert_int_equal(lam_shards_open(&shards, w->damaged), LAM_OK);
    lam_loader_config config = usual();
    lam_loader *loader = open_loader(shards, &config);
    int64_t steps = lam_loader_steps_per_epoch(loader), bad_rows = 0, bad_image = -1;
    for (int64_t k = 0; k < 2 * steps; k++) {
        const lam_batch *batch = next(loader);
        for (int64_t r = 0; r < batch->global_rows; r++) {
            if (batch->valid[r]) continue;
            assert_true(batch->sample_ids[r] >= 0);
            if (bad_image >= 0) assert_int_equal(batch->images[r], bad_image);
            bad_image = batch->images[r];
            const uint16_t *pixels = (const uint16_t *)batch->pixels + r * CHANNELS * 256;
            for (int i = 0; i < CHANNELS * 256; i++) assert_int_equal(pixels[i], 0);
            bad_rows++;
        }
    }
    assert_int_equal(bad_rows, 6); /* one image, three crops, two epochs */
    assert_int_equal(lam_loader_damaged_samples(loader), 6);
    lam_loader_close(&loader);

    config.strict = true;
    loader = open_loader(shards, &config);
    lam_status status = LAM_OK;
    const lam_batch *batch = NULL;
    for (int64_t k = 0; k < steps && status == LAM_OK; k++) status = lam_loader_next(loader, &batch);
    assert_int_equal(status, LAM_ERROR_FORMAT);
    assert_null(batch);
    assert_non_null(strstr(lam_last_error(), "shard_00000.lam"));
    assert_int_equal(lam_loader_next(loader, &batch), LAM_ERROR_FORMAT); /* it does not go away */
    lam_loader_close(&loader);
    lam_shards_close(&shards);
}

/* Image 1 of two: dark but for a bright corner. Windows with the corner are preferred. */
static void test_minimum_foreground(void **state) {
    world *w = *state;
    char folder[64];
    snprintf(folder, sizeof folder, "%s/corner", w->root);
    static const char *const names[1] = {"DNA"};
    lam_table *table = NULL;
    lam_dataset *dataset = NULL;
    lam_shards *shards = NULL;
    assert_int_equal(lam_table_create(&table, 1), LAM_OK);
    assert_int_equal(lam_table_add(table, "plate", NULL), LAM_OK);
    lam_dataset_config dataset_config = {
        .folder = folder, .channel_names = names, .channels = 1, .metadata = table};
    assert_int_equal(lam_dataset_create(&dataset, &dataset_config), LAM_OK);
    static uint8_t plane[64 * 64];
    for (int i = 0; i < 64 * 64; i++) plane[i] = i / 64 < 20 && i % 64 < 20 ? 200 : 10;
    const void *planes[1] = {plane};
    const lam_pixel_type types[1] = {LAM_PIXEL_U8};
    lam_encoded_image *encoded = NULL;
    assert_int_equal(lam_encode_image(&encoded, planes, types, 1, 64, 64), LAM_OK);
    assert_int_equal(lam_dataset_add(dataset, encoded), LAM_OK);
    lam_encoded_free(&encoded);
    assert_int_equal(lam_dataset_finish(&dataset), LAM_OK);
    lam_table_free(table);
    assert_int_equal(lam_shards_open(&shards, folder), LAM_OK);
    double bright[2] = {0};
    for (int on = 0; on < 2; on++) {
        lam_loader_config config = usual();
        config.global_batch = 1;
        config.crops_per_image = 200;
        config.minimum_foreground = on ? 0.25 : 0;
        lam_loader *loader = open_loader(shards, &config);
        for (int k = 0; k < 200; k++) {
            const uint8_t *pixels = next(loader)->pixels;
            int count = 0;
            for (int i = 0; i < 256; i++) count += pixels[i] == 200;
            bright[on] += count >= 64;
        }
        lam_loader_close(&loader);
    }
    assert_true(bright[0] < 40); /* by chance about 8 % */
    assert_true(bright[1] > 70); /* 1 - 0.92^9 = 0.53 of 200 */
    lam_shards_close(&shards);
}

/* Memory that somebody reads after the batch was given out, until `settle_reader` returns. */
typedef struct reader {
    const lam_batch *batch; /* that is being read; NULL: none */
    uint16_t seen[8 * CHANNELS * 256];
    int blocks, settled;
    bool fails;
} reader;
static lam_status allocate_read(void **out, size_t bytes, void *context) {
    ((reader *)context)->blocks++;
    return lam_alloc(out, bytes);
}
static void release_read(void *block, void *context) {
    reader *r = context;
    assert_null(r->batch);
    r->blocks--;
    lam_free(block);
}
static lam_status settle_reader(void *context) {
    reader *r = context;
    if (r->fails) LAM_FAIL(LAM_ERROR_EXTERNAL, "the reader has failed");
    assert_non_null(r->batch);
    usleep(20000); /* decode threads would write meanwhile */
    assert_memory_equal(r->batch->pixels, r->seen, sizeof r->seen);
    r->batch = NULL;
    r->settled++;
    return LAM_OK;
}
static lam_status no_memory(void **out, size_t bytes, void *context) {
    (void)context;
    *out = NULL;
    LAM_FAIL(LAM_ERROR_MEMORY, "%d bytes are too many", (int)bytes);
}
static void read_next(lam_loader *loader, reader *r, int64_t step) {
    const lam_batch *batch = next(loader);
    assert_int_equal(batch->step, step);
    assert_true(batch->pinned);
    memcpy(r->seen, batch->pixels, sizeof r->seen);
    r->batch = batch;
}

static lam_loader_config usual_read_by(reader *r) {
    lam_loader_config config = usual();
    config.allocate = allocate_read;
    config.release = release_read;
    config.settle = settle_reader;
    config.allocator_context = r;
    return config;
}

/* The batch that is read stays as it is until the reader is done: in next, seek and close. */
static void test_lent_batch_is_settled(void **state) {
    world *w = *state;
    reader r = {0};
    const lam_batch *batch = NULL;
    lam_loader_config config = usual_read_by(&r);
    config.ring = 2;
    lam_loader *loader = open_loader(w->shards, &config);
    assert_int_equal(lam_loader_seek(loader, 3), LAM_OK);
    for (int64_t k = 3; k < 9; k++) read_next(loader, &r, k);
    assert_int_equal(r.settled, 5);
    assert_int_equal(lam_loader_seek(loader, 1), LAM_OK);
    assert_int_equal(r.settled, 6);
    read_next(loader, &r, 1);
    r.fails = true;
    assert_int_equal(lam_loader_next(loader, &batch), LAM_ERROR_EXTERNAL);
    assert_null(batch);
    assert_int_equal(lam_loader_seek(loader, 5), LAM_ERROR_EXTERNAL);
    r.fails = false;
    read_next(loader, &r, 2);
    assert_int_equal(r.settled, 7);
    lam_loader_close(&loader);
    assert_int_equal(r.settled, 8);
    assert_int_equal(r.blocks, 0);
}

static void test_memory_of_the_ring(void **state) {
    world *w = *state;
    reader r = {0};
    lam_loader_config config = usual_read_by(&r);
    config.ring = 4;
    lam_loader *loader = open_loader(w->shards, &config);
    assert_int_equal(r.blocks, 4);
    lam_loader_close(&loader);
    assert_int_equal(r.blocks, 0);
    config.allocate = no_memory;
    config.global_batch = 1024;
    assert_int_equal(lam_loader_open(&loader, w->shards, &config), LAM_ERROR_MEMORY);
    assert_null(loader);
    assert_non_null(strstr(lam_last_error(), "4 batches of 1.5 MiB: a smaller batch"));
    assert_non_null(strstr(lam_last_error(), "1572864 bytes are too many"));
    config = usual();
    loader = open_loader(w->shards, &config);
    assert_false(next(loader)->pinned);
    lam_loader_close(&loader);
    for (int64_t n = 1;; n++) { /* the n-th allocation fails */
        lam_fault_arm(LAM_FAULT_ALLOC, n);
        lam_status status = lam_loader_open(&loader, w->shards, &config);
        if (status == LAM_OK) break;
        assert_int_equal(status, LAM_ERROR_MEMORY);
        assert_null(loader);
        assert_true(n < 200);
    }
    lam_fault_arm(LAM_FAULT_ALLOC, 0);
    lam_loader_close(&loader);
    lam_loader_close(&loader);
}

static void test_impossible_configurations(void **state) {
    world *w = *state;
    lam_loader *loader = NULL;
    lam_loader_config config = usual();
    config.crop_size = 41;
    assert_int_equal(lam_loader_open(&loader, w->shards, &config), LAM_ERROR_INPUT);
    assert_non_null(strstr(lam_last_error(), "image 0 is 40 x 48"));
    config = usual();
    config.global_batch = 0;
    assert_int_equal(lam_loader_open(&loader, w->shards, &config), LAM_ERROR_CONFIG);
    config = usual();
    config.threads = 0;
    assert_int_equal(lam_loader_open(&loader, w->shards, &config), LAM_ERROR_CONFIG);
    config = usual();
    config.ring = 1;
    assert_int_equal(lam_loader_open(&loader, w->shards, &config), LAM_ERROR_CONFIG);
    config = usual();
    config.crops_per_image = INT64_MAX;
    assert_int_equal(lam_loader_open(&loader, w->shards, &config), LAM_ERROR_CONFIG);
    config = usual();
    config.allocate = allocate_read;
    config.release = release_read;
    assert_int_equal(lam_loader_open(&loader, w->shards, &config), LAM_ERROR_INTERNAL);
    config = usual();
    int64_t image = IMAGES;
    config.images = &image;
    config.image_count = 1;
    assert_int_equal(lam_loader_open(&loader, w->shards, &config), LAM_ERROR_INTERNAL);
    config.image_count = 0;
    assert_int_equal(lam_loader_open(&loader, w->shards, &config), LAM_ERROR_INPUT);
    assert_null(loader);
}

int main(void) {
    lam_log_set_silent(true);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_permutation_is_a_bijection),
        cmocka_unit_test(test_epoch_holds_every_sample_once),
        cmocka_unit_test(test_more_rows_than_images),
        cmocka_unit_test(test_same_for_ranks_threads_and_seeks),
        cmocka_unit_test(test_seek_to_and_fro),
        cmocka_unit_test(test_rows_are_the_windows_they_name),
        cmocka_unit_test(test_plates_are_mixed),
        cmocka_unit_test(test_damaged_frames),
        cmocka_unit_test(test_minimum_foreground),
        cmocka_unit_test(test_lent_batch_is_settled),
        cmocka_unit_test(test_memory_of_the_ring),
        cmocka_unit_test(test_impossible_configurations),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
