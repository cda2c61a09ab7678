/* Features without a network, as references for embeddings: of one crop, in a fixed order.
 *
 * intensity, 7 a channel: mean, deviation, percentiles 1, 25, 50, 75, 99 of pixel * scale.
 * handmade, 8 a channel: mean, deviation, median, percentile 99; texture (mean square difference of neighbours over the
 * variance); granularity (share of the variance between the image and its box means of radius 1, 1 and 3, 3 and 7); then
 * Pearson's correlation of every pair of channels. An absent channel gives zeros. */
#ifndef LAMELLA_TRAIN_FEATURES_H
#define LAMELLA_TRAIN_FEATURES_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

int64_t lam_feature_count(bool handmade, int64_t channels);
/* planes [channels, size, size] of pixel * scale; present [channels]. `features` has lam_feature_count elements. */
lam_status lam_crop_features(bool handmade, const float *planes, const uint8_t *present, int64_t channels,
                             int64_t size, float *features);

#ifdef __cplusplus
}
#endif
#endif
