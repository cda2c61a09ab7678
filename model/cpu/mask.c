/* Masks in the arithmetic of the C standard alone: no fused operations, no exponentials, so that a mask is the same on every
 * machine and instruction set. */
#include <math.h>
#include <stdlib.h>

#include "base/rng.h"
#include "model/cpu/kernels.h"

#define RECTANGLE_DRAWS 0x80000000u
#define CHANNEL_DRAWS 0x40000000u
#define STALE_LIMIT 10 /* rectangles in a row that hide nothing new; the rest is then hidden place by place */

typedef struct ranked {
    float noise;
    int32_t index;
} ranked;

static int by_noise(const void *a, const void *b) {
    const ranked *x = a, *y = b;
    if (x->noise < y->noise) return -1;
    if (x->noise > y->noise) return 1;
    return (x->index > y->index) - (x->index < y->index);
}

static void rank(const float *noise, int64_t count, ranked *order) {
    for (int64_t i = 0; i < count; i++) order[i] = (ranked){noise[i], (int32_t)i};
    qsort(order, (size_t)count, sizeof *order, by_noise);
}

size_t lam_cpu_mask_workspace(int64_t batch, int64_t tokens) {
    return (size_t)(batch * tokens) * (sizeof(ranked) + 1);
}

static void draw(lam_rng_key_t key, uint32_t step, uint64_t id, uint32_t first, float *to, int64_t count) {
    for (int64_t n = 0; n < count; n += 4) {
        float u[4];
        lam_rng_uniform4(key, step, id, first + (uint32_t)(n / 4), u);
        for (int64_t k = 0; k < 4 && n + k < count; k++) to[n + k] = u[k];
    }
}

static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

static int64_t side_of(double length, int64_t grid) {
    int64_t side = (int64_t)(length + 0.5);
    return side < 1 ? 1 : side > grid ? grid : side;
}

/* Hides rectangles of places until `wanted` are hidden. */
static void hide_rectangles(lam_rng_key_t key, uint32_t step, uint64_t id, const float *noise,
                            uint8_t *hidden, int64_t grid, int64_t wanted) {
    int64_t places = grid * grid, count = 0, smallest = places / 12 < 16 ? places / 12 : 16;
    if (smallest < 1) smallest = 1;
    for (int64_t i = 0; i < places; i++) hidden[i] = 0;
    int stale = 0;
    for (uint32_t r = 0; count < wanted && stale < STALE_LIMIT; r++) {
        float u[4];
        lam_rng_uniform4(key, step, id, RECTANGLE_DRAWS + r, u);
        int64_t left = wanted - count, low = smallest < left ? smallest : left;
        double area = (double)(low + (int64_t)((double)u[0] * (double)(left - low + 1)));
        double turn = 2 * (double)u[1] - 1, ratio = 1 + fabs(turn) * 7 / 3;
        int64_t longer = side_of(sqrt(area * ratio), grid), shorter = side_of(sqrt(area / ratio), grid);
        int64_t height = turn < 0 ? longer : shorter, width = turn < 0 ? shorter : longer;
        /* Rectangles may hang over the edges: placed inside, they would nearly always hide the middle and never a corner. */
        int64_t bottom = 1 + (int64_t)((double)u[2] * (double)(grid + height - 1)),
                right = 1 + (int64_t)((double)u[3] * (double)(grid + width - 1)), before = count;
        for (int64_t y = larger(bottom - height, 0); y < bottom && y < grid; y++)
            for (int64_t x = larger(right - width, 0); x < right && x < grid && count < wanted; x++) {
                count += !hidden[y * grid + x];
                hidden[y * grid + x] = 1;
            }
        stale = count > before ? 0 : stale + 1;
    }
    for (; count < wanted; count++) {
        int64_t next = -1;
        for (int64_t i = 0; i < places; i++)
            if (!hidden[i] && (next < 0 || noise[i] < noise[next])) next = i;
        hidden[next] = 1;
    }
}

static void structure(const lam_mask *how, lam_rng_key_t key, uint32_t step, uint64_t id, float *noise,
                      ranked *order, uint8_t *hidden) {
    int64_t places = how->grid * how->grid, channels = how->channels, tokens = channels * places;
    switch (how->masking) {
    case LAM_MASKING_RANDOM: return;
    case LAM_MASKING_BLOCK:
        hide_rectangles(key, step, id, noise, hidden, how->grid, places - how->keep / channels);
        for (int64_t t = places; t < tokens; t++) hidden[t] = hidden[t % places];
        break;
    case LAM_MASKING_PER_CHANNEL:
        for (int64_t c = 0; c < channels; c++) {
            rank(noise + c * places, places, order);
            for (int64_t i = 0; i < places; i++)
                hidden[c * places + order[i].index] = i >= how->keep / channels;
        }
        break;
    case LAM_MASKING_WHOLE_CHANNEL:
        for (int64_t c = 0; c < channels; c += 4) {
            float u[4];
            lam_rng_uniform4(key, step, id, CHANNEL_DRAWS + (uint32_t)(c / 4), u);
            for (int64_t k = c; k < c + 4 && k < channels; k++) order[k] = (ranked){u[k - c], (int32_t)k};
        }
        qsort(order, (size_t)channels, sizeof *order, by_noise);
        for (int64_t i = 0; i < channels; i++)
            for (int64_t n = 0; n < places; n++)
                hidden[order[i].index * places + n] = i >= how->keep / places;
        break;
    }
    for (int64_t t = 0; t < tokens; t++) noise[t] = 0.5f * noise[t] + (hidden[t] ? 0.5f : 0.0f);
}

void lam_cpu_mask_noise(const lam_mask *how, uint32_t step, const int64_t *sample_ids, float *noise,
                        void *workspace, int64_t batch) {
    lam_rng_key_t key = lam_rng_key(how->seed, LAM_RNG_MASK);
    int64_t tokens = how->channels * how->grid * how->grid;
    ranked *order = workspace;
    uint8_t *hidden = (uint8_t *)(order + batch * tokens);
#pragma omp parallel for schedule(static)
    for (int64_t b = 0; b < batch; b++) {
        draw(key, step, (uint64_t)sample_ids[b], 0, noise + b * tokens, tokens);
        structure(how, key, step, (uint64_t)sample_ids[b], noise + b * tokens, order + b * tokens,
                  hidden + b * tokens);
    }
}

void lam_cpu_mask_plan(const float *noise, int32_t *ids_keep, int32_t *ids_restore, float *mask,
                       void *workspace, int64_t batch, int64_t tokens, int64_t keep) {
#pragma omp parallel for schedule(static)
    for (int64_t b = 0; b < batch; b++) {
        ranked *order = (ranked *)workspace + b * tokens;
        rank(noise + b * tokens, tokens, order);
        for (int64_t r = 0; r < tokens; r++) {
            int32_t n = order[r].index;
            ids_restore[b * tokens + n] = (int32_t)r;
            mask[b * tokens + n] = r >= keep ? 1.0f : 0.0f;
            if (r < keep) ids_keep[b * keep + r] = n;
        }
    }
}

void lam_cpu_decode_plan(const int32_t *ids_restore, int32_t *ids, float *mask, int64_t batch, int64_t tokens,
                         int64_t keep, int64_t decoded) {
#pragma omp parallel for schedule(static)
    for (int64_t b = 0; b < batch; b++)
        for (int64_t n = 0; n < tokens; n++) {
            int32_t r = ids_restore[b * tokens + n];
            mask[b * tokens + n] = r >= keep && r < decoded ? 1.0f : 0.0f;
            if (r < decoded) ids[b * decoded + r] = (int32_t)n;
        }
}
