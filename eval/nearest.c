#include "eval/nearest.h"

int64_t lam_directions_nearest(const lam_directions *u, int64_t row, int64_t most, lam_nearest *found) {
    int64_t count = 0;
    for (int64_t other = 0; other < u->rows && most > 0; other++) {
        if (other == row) continue;
        if (count == most && (double)lam_directions_near(u, row, other) + u->bound < found[most - 1].cosine)
            continue;
        double cosine = lam_directions_cosine(u, row, other);
        if (count == most && cosine <= found[most - 1].cosine) continue;
        int64_t at = count < most ? count++ : most - 1;
        for (; at > 0 && found[at - 1].cosine < cosine; at--) found[at] = found[at - 1];
        found[at] = (lam_nearest){cosine, (int32_t)other};
    }
    return count;
}
