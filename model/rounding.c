#include <string.h>

#include "base/rng.h"
#include "model/internal.h"

enum { DRAWS = 8 }; /* of 16 bits, in one block of Philox */

/* The upper 16 bits after a uniform number below one unit of them has been added. */
static float round_by(float value, uint32_t random) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if ((bits & 0x7f800000u) == 0x7f800000u) return value;
    bits = (bits + random) & 0xffff0000u;
    memcpy(&value, &bits, sizeof bits);
    return value;
}

void lam_round_at_random(const lam_rounding *r, const float *weights, const float *values, int64_t count,
                         float *to) {
    int64_t first = weights - r->weights;
    lam_rng_key_t key = lam_rng_key(r->seed, LAM_RNG_ROUNDING);
#pragma omp parallel for schedule(static)
    for (int64_t group = first / DRAWS; group <= (first + count - 1) / DRAWS; group++) {
        uint32_t words[4];
        lam_rng_words4(key, r->step, (uint64_t)group, 0, words);
        for (int64_t k = 0; k < DRAWS; k++) {
            int64_t i = group * DRAWS + k - first;
            if (i < 0 || i >= count) continue;
            to[i] = round_by(values[i], words[k / 2] >> (k % 2 * 16) & 0xffffu);
        }
    }
}
