#include <math.h>
#include <string.h>

#include "model/nets/parts.h"

/* Weights of the four neighbours of a place `t` beyond the second: cubic convolution with a = -0.75, as PyTorch has it. */
static void cubic(double t, double weight[4]) {
    const double a = -0.75;
    for (int k = 0; k < 4; k++) {
        double x = fabs(t + 1 - k);
        weight[k] = x <= 1 ? ((a + 2) * x - (a + 3)) * x * x + 1 : ((a * x - 5 * a) * x + 8 * a) * x - 4 * a;
    }
}

static int64_t inside(int64_t i, int64_t count) { return i < 0 ? 0 : i >= count ? count - 1 : i; }

void lam_positions_resample(const float *from, int64_t from_grid, float *to, int64_t to_grid, int64_t width) {
    double step = (double)from_grid / (double)to_grid;
    memcpy(to, from, (size_t)width * sizeof(float));
    for (int64_t row = 0; row < to_grid; row++)
        for (int64_t column = 0; column < to_grid; column++) {
            double y = ((double)row + 0.5) * step - 0.5, x = ((double)column + 0.5) * step - 0.5, wy[4],
                   wx[4];
            int64_t top = (int64_t)floor(y) - 1, left = (int64_t)floor(x) - 1;
            cubic(y - floor(y), wy);
            cubic(x - floor(x), wx);
            float *out = to + (1 + row * to_grid + column) * width;
            for (int64_t i = 0; i < width; i++) {
                double sum = 0;
                for (int k = 0; k < 16; k++) {
                    int64_t place =
                        inside(top + k / 4, from_grid) * from_grid + inside(left + k % 4, from_grid);
                    sum += wy[k / 4] * wx[k % 4] * (double)from[(1 + place) * width + i];
                }
                out[i] = (float)sum;
            }
        }
}

static bool is_table(const lam_parameter_entry *entry, int64_t grid) {
    return entry->rank == 3 && entry->shape[0] == 1 && entry->shape[1] == 1 + grid * grid;
}

lam_status lam_mae_resize(lam_parameters *to, const lam_mae_config *to_config, const lam_parameters *from,
                          const lam_mae_config *from_config) {
    int64_t to_grid = to_config->image_size / to_config->patch_size,
            from_grid = from_config->image_size / from_config->patch_size;
    for (int64_t i = 0; i < to->entries; i++) {
        const lam_parameter_entry *entry = &to->entry[i], *other = lam_parameters_find(from, entry->name);
        LAM_REQUIRE(other, LAM_ERROR_INTERNAL, "the network has no parameter %s", entry->name);
        float *weights = to->weights + entry->offset;
        if (other->rank == entry->rank && !memcmp(other->shape, entry->shape, sizeof entry->shape)) {
            memcpy(weights, from->weights + other->offset, (size_t)entry->count * sizeof(float));
            continue;
        }
        LAM_REQUIRE(is_table(entry, to_grid) && is_table(other, from_grid) &&
                        entry->shape[2] == other->shape[2],
                    LAM_ERROR_INTERNAL,
                    "parameter %s depends on the size of a crop, and is no position table", entry->name);
        lam_positions_resample(from->weights + other->offset, from_grid, weights, to_grid, entry->shape[2]);
    }
    lam_mae_fill_positions(to, to_config);
    return LAM_OK;
}
