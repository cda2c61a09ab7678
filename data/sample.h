/* One sample: where its window lies, read and turned.
 *
 * Draws are Philox LAM_RNG_CROP, counted by (epoch, sample id, draw): draw 0 gives the window and the turn,
 * draws 1..8 the windows tried after it where the foreground is too small. A window is first mirrored left to
 * right, then turned counter-clockwise by quarter turns. */
#ifndef LAMELLA_DATA_SAMPLE_H
#define LAMELLA_DATA_SAMPLE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/rng.h"
#include "data/loader.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { LAM_SAMPLE_REDRAWS = 8 };

typedef struct lam_sampler {
    lam_shards *shards;
    const int64_t *channels; /* borrowed */
    int64_t channel_count, crop_size;
    size_t pixel_bytes;
    bool flips, rotations, center;
    double minimum_foreground;
    double *thresholds; /* [plates, channels] in pixel values: foreground lies above; NULL where it is off */
    const int64_t *plates;
    lam_rng_key_t key;
} lam_sampler;

/* Borrows `channels` and `shards`. lam_sampler_free frees the rest. */
lam_status lam_sampler_init(lam_sampler *sampler, lam_shards *shards, const int64_t *channels,
                            int64_t channel_count, const lam_loader_config *config);
void lam_sampler_free(lam_sampler *sampler);

/* pixels [channels, crop, crop] and window [4] are written; `scratch` holds lam_sampler_scratch_bytes. On
 * failure `channel` is the one that could not be read. */
lam_status lam_sampler_read(const lam_sampler *sampler, int64_t epoch, int64_t sample_id, int64_t image,
                            void *scratch, void *pixels, int32_t window[4], int64_t *channel);
size_t lam_sampler_scratch_bytes(const lam_sampler *sampler);

/* out[i, j] = pixel of `in` [size, size] after mirroring and turning. */
void lam_turn(const void *in, void *out, int64_t size, size_t pixel_bytes, bool mirrored, int quarter_turns);

#ifdef __cplusplus
}
#endif
#endif
