/* Exact sums of pixels, from which mean and deviation of every transform follow.
 *
 *     lam_sums s = {0};
 *     LAM_TRY(lam_sums_add_plane(&s, pixels, count, LAM_PIXEL_U16, &maximum));
 *     lam_sums_finish(&s, 12, LAM_TRANSFORM_SQRT, &mean, &deviation);
 *
 * Sums are integers (fixed point for root and logarithm), so they do not depend on the order of images or on
 * the number of threads. The bit depth of a folder is known only after its last image: the logarithm, which
 * does not scale, is summed for each possible depth. Thread-safe for different lam_sums. */
#ifndef LAMELLA_DATA_STATISTICS_H
#define LAMELLA_DATA_STATISTICS_H

#include <stdint.h>

#include "base/status.h"
#include "data/shard.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { LAM_SUMS_DEPTHS = 5, LAM_SUMS_BYTES = 216 };

__extension__ typedef unsigned __int128 lam_wide;

typedef struct lam_sums {
    uint64_t count;
    lam_wide sum, square, root;
    lam_wide log[LAM_SUMS_DEPTHS], log_square[LAM_SUMS_DEPTHS];
} lam_sums;

/* Adds `count` pixels; *maximum is raised to the largest. */
lam_status lam_sums_add_plane(lam_sums *sums, const void *pixels, int64_t count, lam_pixel_type type,
                              uint32_t *maximum);
void lam_sums_merge(lam_sums *sums, const lam_sums *other);
/* Of transform(v / (2^bits - 1)), v clipped at 1 for the logarithm. No pixels: mean 0, deviation 1. */
void lam_sums_finish(const lam_sums *sums, int bits, lam_transform transform, double *mean,
                     double *deviation);
void lam_sums_store(const lam_sums *sums, unsigned char bytes[LAM_SUMS_BYTES]);
void lam_sums_load(lam_sums *sums, const unsigned char bytes[LAM_SUMS_BYTES]);
/* The smallest of 8, 10, 12, 14, 16 bits that holds `maximum`. */
int lam_bits_for(uint32_t maximum);

#ifdef __cplusplus
}
#endif
#endif
