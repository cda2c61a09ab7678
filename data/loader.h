/* Batches of crops from shards: deterministic, seekable, decoded by threads into a ring.
 *
 *     lam_loader_config c = {.global_batch = 64, .crop_size = 64, .crops_per_image = 1, .seed = 1, .world_size = 1, .threads = 2,
 *                            .flips = true, .rotations = true};
 *     LAM_TRY(lam_loader_open(&l, shards, &c));
 *     LAM_TRY(lam_loader_seek(l, step));                 // O(1)
 *     const lam_batch *b;
 *     LAM_TRY(lam_loader_next(l, &b));                   // valid until the next call
 *
 * Order: an epoch holds images x crops_per_image samples, ordered by a keyed permutation (Feistel with cycle walking) of
 * the images, drawn anew for each of the crops_per_image passes, so that an image comes at most once in a batch while
 * images >= batch. Batch k of epoch e is a function of (seed, e, k) alone; rank r of w gets rows
 * [G*r/w, G*(r+1)/w) of the G rows. The last batch of an epoch that does not divide it is short (drop_last false: it has
 * fewer valid rows, the step still counts) — steps_per_epoch = ceil(samples / global_batch).
 * Step s (counted from 0 over the run) is batch s % steps_per_epoch of epoch s / steps_per_epoch. */
#ifndef LAMELLA_DATA_LOADER_H
#define LAMELLA_DATA_LOADER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "data/shard.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lam_loader_config {
    const int64_t *images; /* images to draw from (indices into the shards; copied); NULL: all */
    int64_t image_count;
    const int64_t *channels; /* channels to read, in this order (copied); NULL: all */
    int64_t channel_count;
    int64_t global_batch;    /* rows over all ranks */
    int64_t crop_size;       /* pixels; images must not be smaller (LAM_ERROR_INPUT naming one) */
    int64_t crops_per_image; /* samples of an image in an epoch, >= 1 */
    bool flips, rotations;   /* random mirror; random quarter turns */
    bool center;             /* the middle window, no augmentation (validation) */
    double
        minimum_foreground; /* 0: off; else windows are redrawn up to 8 times until this share of their pixels exceeds
                                  the channel mean of the plate plus one deviation, in any channel; the best one is kept */
    uint64_t seed;
    int rank, world_size;
    int threads; /* decode threads, >= 1 */
    int ring;    /* batches decoded ahead, >= 2 (0: 3) */
    bool strict; /* a damaged frame is an error, not a skipped sample */
    /* Memory of the ring's pixels that a device copies from by itself (pinned): all three functions, or none (lam_alloc). They are
     * called by the thread that calls the loader. `settle` returns when nobody reads the pixels of the lent batch any more: next,
     * seek and close call it before they take that batch back; where it fails, next and seek do, and the batch stays lent. */
    lam_status (*allocate)(void **out, size_t bytes, void *context);
    void (*release)(void *block, void *context);
    lam_status (*settle)(void *context);
    void *allocator_context;
} lam_loader_config;

typedef struct lam_batch {
    int64_t step, epoch;
    int64_t global_rows; /* valid rows over all ranks before damaged ones are taken off */
    int64_t rows;        /* capacity of this rank's part: its share of global_batch */
    void *pixels; /* [rows, channels, crop_size, crop_size] of the shards' pixel type; unused rows are zero */
    bool pinned;  /* pixels are memory of the configuration's `allocate` */
    int64_t *
        sample_ids; /* [rows] pass * images_of_the_shards + image: names the sample within its epoch; -1: unused row */
    int64_t *images;  /* [rows] index into the shards; -1: unused row */
    int64_t *plates;  /* [rows] plate code; -1: unused row */
    uint8_t *valid;   /* [rows] 0: unused row or damaged sample */
    uint8_t *present; /* [rows, channels] 0: the image lacks the channel */
    int32_t *windows; /* [rows, 4] y, x, mirrored, quarter turns */
} lam_batch;

typedef struct lam_loader lam_loader;

lam_status lam_loader_open(lam_loader **out, lam_shards *shards, const lam_loader_config *config);
int64_t lam_loader_steps_per_epoch(const lam_loader *loader);
lam_status lam_loader_seek(lam_loader *loader, int64_t step);
lam_status lam_loader_next(lam_loader *loader, const lam_batch **batch);
double lam_loader_waited_ms(const lam_loader *loader);        /* by callers of next, in all */
int64_t lam_loader_damaged_samples(const lam_loader *loader); /* skipped on this rank, in all */
void lam_loader_close(lam_loader **loader);

/* i-th element of a keyed permutation of 0..n-1 (n >= 1), O(1) in n. */
uint64_t lam_permute(uint64_t seed, uint64_t stream, uint64_t n, uint64_t i);

#ifdef __cplusplus
}
#endif
#endif
