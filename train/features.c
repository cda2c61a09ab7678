#include "train/features.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

enum { INTENSITY = 7, HANDMADE = 8, RADII = 3 };

int64_t lam_feature_count(bool handmade, int64_t channels) {
    return handmade ? HANDMADE * channels + channels * (channels - 1) / 2 : INTENSITY * channels;
}

static int compare(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static float percentile(const float *sorted, int64_t count, double share) {
    double at = share * (double)(count - 1);
    int64_t low = (int64_t)at, high = low + 1 < count ? low + 1 : low;
    return (float)((double)sorted[low] + (at - (double)low) * ((double)sorted[high] - (double)sorted[low]));
}

static void moments(const float *values, int64_t count, double *mean, double *deviation) {
    double sum = 0, squares = 0;
    for (int64_t i = 0; i < count; i++) sum += (double)values[i];
    *mean = sum / (double)count;
    for (int64_t i = 0; i < count; i++) squares += ((double)values[i] - *mean) * ((double)values[i] - *mean);
    *deviation = sqrt(squares / (double)count);
}

/* Mean over the square of (2 radius + 1) around each pixel, cut at the border, from a table of sums. */
static void box_mean(const float *plane, int64_t size, int64_t radius, double *sums, float *out) {
    int64_t stride = size + 1;
    memset(sums, 0, (size_t)stride * sizeof(double));
    for (int64_t y = 0; y < size; y++) {
        double row = 0;
        sums[(y + 1) * stride] = 0;
        for (int64_t x = 0; x < size; x++) {
            row += (double)plane[y * size + x];
            sums[(y + 1) * stride + x + 1] = sums[y * stride + x + 1] + row;
        }
    }
    for (int64_t y = 0; y < size; y++) {
        int64_t top = y - radius < 0 ? 0 : y - radius, bottom = y + radius + 1 > size ? size : y + radius + 1;
        for (int64_t x = 0; x < size; x++) {
            int64_t left = x - radius < 0 ? 0 : x - radius,
                    right = x + radius + 1 > size ? size : x + radius + 1;
            double sum = sums[bottom * stride + right] - sums[top * stride + right] -
                         sums[bottom * stride + left] + sums[top * stride + left];
            out[y * size + x] = (float)(sum / (double)((bottom - top) * (right - left)));
        }
    }
}

static double mean_square_difference(const float *a, const float *b, int64_t count) {
    double sum = 0;
    for (int64_t i = 0; i < count; i++) sum += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
    return sum / (double)count;
}

static double neighbour_difference(const float *plane, int64_t size) {
    double sum = 0;
    for (int64_t y = 0; y < size; y++) {
        for (int64_t x = 0; x < size; x++) {
            double v = (double)plane[y * size + x];
            if (x + 1 < size)
                sum += (v - (double)plane[y * size + x + 1]) * (v - (double)plane[y * size + x + 1]);
            if (y + 1 < size)
                sum += (v - (double)plane[(y + 1) * size + x]) * (v - (double)plane[(y + 1) * size + x]);
        }
    }
    return size > 1 ? sum / (double)(2 * size * (size - 1)) : 0;
}

typedef struct scratch {
    float *sorted, *fine, *coarse;
    double *sums;
} scratch;

static void granularity(const float *plane, int64_t size, double variance, scratch *s, float *features) {
    static const int64_t radii[RADII] = {1, 3, 7};
    const float *finer = plane;
    for (int i = 0; i < RADII; i++) {
        float *target = i % 2 ? s->coarse : s->fine;
        box_mean(plane, size, radii[i], s->sums, target);
        features[i] = (float)(mean_square_difference(finer, target, size * size) / variance);
        finer = target;
    }
}

static void channel_features(bool handmade, const float *plane, int64_t size, scratch *s, float *f) {
    int64_t count = size * size;
    double mean, deviation;
    moments(plane, count, &mean, &deviation);
    memcpy(s->sorted, plane, (size_t)count * sizeof(float));
    qsort(s->sorted, (size_t)count, sizeof(float), compare);
    f[0] = (float)mean;
    f[1] = (float)deviation;
    if (!handmade) {
        static const double shares[5] = {0.01, 0.25, 0.5, 0.75, 0.99};
        for (int i = 0; i < 5; i++) f[2 + i] = percentile(s->sorted, count, shares[i]);
        return;
    }
    double variance = deviation * deviation + 1e-12; /* a constant channel has no texture */
    f[2] = percentile(s->sorted, count, 0.5);
    f[3] = percentile(s->sorted, count, 0.99);
    f[4] = (float)(neighbour_difference(plane, size) / variance);
    granularity(plane, size, variance, s, f + 5);
}

static float correlation(const float *a, const float *b, int64_t count) {
    double mean_a, mean_b, deviation_a, deviation_b, sum = 0;
    moments(a, count, &mean_a, &deviation_a);
    moments(b, count, &mean_b, &deviation_b);
    for (int64_t i = 0; i < count; i++) sum += ((double)a[i] - mean_a) * ((double)b[i] - mean_b);
    double scale = (double)count * deviation_a * deviation_b;
    return scale > 0 ? (float)(sum / scale) : 0.0f;
}

lam_status lam_crop_features(bool handmade, const float *planes, const uint8_t *present, int64_t channels,
                             int64_t size, float *features) {
    int64_t count = size * size, per_channel = handmade ? HANDMADE : INTENSITY;
    scratch s = {0};
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_alloc_array((void **)&s.sorted, count, sizeof(float)), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&s.fine, count, sizeof(float)), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&s.coarse, count, sizeof(float)), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&s.sums, (size + 1) * (size + 1), sizeof(double)), done);
    memset(features, 0, (size_t)lam_feature_count(handmade, channels) * sizeof(float));
    for (int64_t c = 0; c < channels; c++) {
        if (present[c]) channel_features(handmade, planes + c * count, size, &s, features + c * per_channel);
    }
    float *pair = features + channels * per_channel;
    for (int64_t a = 0; handmade && a < channels; a++) {
        for (int64_t b = a + 1; b < channels; b++, pair++) {
            if (present[a] && present[b]) *pair = correlation(planes + a * count, planes + b * count, count);
        }
    }
done:
    lam_free(s.sorted);
    lam_free(s.fine);
    lam_free(s.coarse);
    lam_free(s.sums);
    return status;
}
