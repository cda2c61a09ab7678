#include "train/pictures.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/picture.h"

enum { GAP = 2, MASK_GREY = 0x60 };

static int compare(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* 1st and 99.8th percentile of each plane. */
static lam_status windows(const float *planes, int64_t channels, int64_t pixels, float *low, float *high) {
    float *sorted = NULL;
    LAM_TRY(lam_alloc_array((void **)&sorted, pixels, sizeof(float)));
    for (int64_t c = 0; c < channels; c++) {
        memcpy(sorted, planes + c * pixels, (size_t)pixels * sizeof(float));
        qsort(sorted, (size_t)pixels, sizeof(float), compare);
        low[c] = sorted[pixels / 100];
        high[c] = sorted[pixels - 1 - pixels / 500];
        if (!(high[c] > low[c])) high[c] = low[c] + 1;
    }
    lam_free(sorted);
    return LAM_OK;
}

/* norm_pix targets are standardised within the patch: back to the scale of the input. */
static void patch_scale(const lam_mae_config *model, const float *target, int64_t width, double *mean,
                        double *deviation) {
    *mean = 0;
    *deviation = 1;
    if (!model->norm_pix_loss) return;
    double sum = 0, squares = 0;
    for (int64_t k = 0; k < width; k++) sum += (double)target[k];
    *mean = sum / (double)width;
    for (int64_t k = 0; k < width; k++) squares += ((double)target[k] - *mean) * ((double)target[k] - *mean);
    *deviation = sqrt(squares / (double)(width > 1 ? width - 1 : 1) + 1e-6);
}

/* Patches [tokens, P*P*C] (row, column, channel fastest), or by channel [C * tokens, P*P], to planes [C, S, S]. */
static void unpatch(const lam_mae_config *m, int64_t per_channel, int64_t tokens, int64_t channels,
                    const float *target, const float *prediction, const float *mask, float *input,
                    float *completed) {
    int64_t side = m->image_size / m->patch_size, p = m->patch_size,
            width = p * p * (per_channel ? 1 : channels);
    for (int64_t t = 0; t < tokens; t++) {
        double mean, deviation;
        int64_t n = t % (side * side);
        patch_scale(m, target + t * width, width, &mean, &deviation);
        for (int64_t k = 0; k < width; k++) {
            int64_t c = per_channel ? t / per_channel : k % channels, pixel = per_channel ? k : k / channels;
            int64_t at =
                (c * m->image_size + n / side * p + pixel / p) * m->image_size + n % side * p + pixel % p;
            input[at] = target[t * width + k];
            completed[at] =
                mask[t] > 0.5f ? (float)((double)prediction[t * width + k] * deviation + mean) : input[at];
        }
    }
}

/* Masked places of each plane become its darkest value. */
static void darken_masked(const lam_mae_config *m, int64_t per_channel, int64_t channels, const float *mask,
                          const float *low, float *planes) {
    int64_t side = m->image_size / m->patch_size, size = m->image_size;
    for (int64_t i = 0; i < channels * size * size; i++) {
        int64_t c = i / (size * size), y = i / size % size, x = i % size;
        if (mask[c * per_channel + y / m->patch_size * side + x / m->patch_size] > 0.5f) planes[i] = low[c];
    }
}

/* Greys what is masked but not `shown` (NULL: nothing is). */
static void grey_masked(const lam_mae_config *m, lam_picture *picture, int64_t x0, int64_t y0,
                        const float *mask, const float *shown) {
    int64_t side = m->image_size / m->patch_size;
    for (int64_t y = 0; y < m->image_size; y++) {
        for (int64_t x = 0; x < m->image_size; x++) {
            int64_t n = y / m->patch_size * side + x / m->patch_size;
            if (mask[n] > 0.5f && !(shown && shown[n] > 0.5f))
                memset(picture->rgb + ((y0 + y) * picture->width + x0 + x) * 3, MASK_GREY, 3);
        }
    }
}

lam_status lam_draw_reconstructions(const lam_mae_config *m, const lam_mae_io *io, int64_t crops,
                                    const char *path) {
    int64_t size = m->image_size, pixels = size * size, tokens = lam_tensor_dim(io->mask, 1),
            patches = lam_tensor_count(io->target) / lam_tensor_dim(io->target, 0),
            channels = patches / pixels;
    float *logits = NULL, *input = NULL, *completed = NULL, *low = NULL, *high = NULL;
    lam_picture picture = {0};
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_alloc_array((void **)&logits, lam_tensor_count(io->logits), sizeof(float)), done);
    lam_tensor_read(io->logits, logits);
    LAM_TRY_GOTO(lam_alloc_array((void **)&input, channels * pixels, sizeof(float)), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&completed, channels * pixels, sizeof(float)), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&low, channels, sizeof(float)), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&high, channels, sizeof(float)), done);
    LAM_TRY_GOTO(lam_picture_create(&picture, crops * (size + GAP) - GAP, 3 * (size + GAP) - GAP, 0xFFFFFF),
                 done);
    for (int64_t i = 0; i < crops; i++) {
        const float *mask = (const float *)lam_tensor_data(io->mask) + i * tokens,
                    *decoded = (const float *)lam_tensor_data(io->loss_mask) + i * tokens;
        int64_t x = i * (size + GAP), step = size + GAP;
        unpatch(m, io->tokens_per_channel, tokens, channels,
                (const float *)lam_tensor_data(io->target) + i * patches, logits + i * patches, mask, input,
                completed);
        LAM_TRY_GOTO(windows(input, channels, pixels, low, high), done);
        LAM_TRY_GOTO(lam_picture_composite(&picture, x, 0, input, channels, size, size, low, high), done);
        if (io->tokens_per_channel) darken_masked(m, io->tokens_per_channel, channels, mask, low, input);
        LAM_TRY_GOTO(lam_picture_composite(&picture, x, step, input, channels, size, size, low, high), done);
        if (!io->tokens_per_channel) grey_masked(m, &picture, x, step, mask, NULL);
        LAM_TRY_GOTO(lam_picture_composite(&picture, x, 2 * step, completed, channels, size, size, low, high),
                     done);
        if (!io->tokens_per_channel) grey_masked(m, &picture, x, 2 * step, mask, decoded);
    }
    LAM_TRY_GOTO(lam_picture_write_png(&picture, path), done);
done:
    lam_picture_free(&picture);
    lam_free(logits);
    lam_free(input);
    lam_free(completed);
    lam_free(low);
    lam_free(high);
    return status;
}
