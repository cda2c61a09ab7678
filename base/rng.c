#include "base/rng.h"

#include <math.h>

double lam_rng_normal(lam_rng *r) {
    double u = 1.0 - lam_rng_uniform(r), v = lam_rng_uniform(r); /* u in (0, 1] */
    return sqrt(-2.0 * log(u)) * cos(6.283185307179586476925 * v);
}
