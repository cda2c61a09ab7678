#include "data/sample.h"

#include <string.h>

#include "base/memory.h"

lam_status lam_sampler_init(lam_sampler *sampler, lam_shards *shards, const int64_t *channels,
                            int64_t channel_count, const lam_loader_config *config) {
    int64_t plate_count = 0;
    *sampler = (lam_sampler){.shards = shards,
                             .channels = channels,
                             .channel_count = channel_count,
                             .crop_size = config->crop_size,
                             .pixel_bytes = (size_t)lam_shards_pixel_type(shards),
                             .flips = config->flips && !config->center,
                             .rotations = config->rotations && !config->center,
                             .center = config->center,
                             .minimum_foreground = config->center ? 0 : config->minimum_foreground,
                             .plates = lam_shards_plates(shards, &plate_count),
                             .key = lam_rng_key(config->seed, LAM_RNG_CROP)};
    if (sampler->minimum_foreground <= 0) return LAM_OK;
    LAM_TRY(
        lam_alloc_array((void **)&sampler->thresholds, plate_count, sizeof(double) * (size_t)channel_count));
    for (int64_t plate = 0; plate < plate_count; plate++)
        for (int64_t c = 0; c < channel_count; c++) {
            double mean = 0, deviation = 0;
            lam_shards_channel_stats(shards, plate, channels[c], LAM_TRANSFORM_NONE, &mean, &deviation);
            sampler->thresholds[plate * channel_count + c] =
                (mean + deviation) / lam_shards_channel_scale(shards, channels[c]);
        }
    return LAM_OK;
}

void lam_sampler_free(lam_sampler *sampler) {
    lam_free(sampler->thresholds);
    sampler->thresholds = NULL;
}

size_t lam_sampler_scratch_bytes(const lam_sampler *sampler) {
    size_t plane = (size_t)(sampler->crop_size * sampler->crop_size);
    return plane * sampler->pixel_bytes * (size_t)sampler->channel_count + plane;
}

void lam_turn(const void *in, void *out, int64_t size, size_t pixel_bytes, bool mirrored, int quarter_turns) {
    /* A pixel of the output lies at first + i x down + j x across in the input. */
    int64_t last = size - 1, y = 0, x = 0, y_i = 0, x_i = 0, y_j = 0, x_j = 0;
    switch (quarter_turns & 3) {
    case 0: y_i = 1, x_j = 1; break;
    case 1: x = last, x_i = -1, y_j = 1; break;
    case 2: y = last, x = last, y_i = -1, x_j = -1; break;
    default: y = last, y_j = -1, x_i = 1; break;
    }
    if (mirrored) x = last - x, x_i = -x_i, x_j = -x_j;
    int64_t first = y * size + x, down = y_i * size + x_i, across = y_j * size + x_j;
    if (pixel_bytes == 1) {
        const uint8_t *from = in;
        uint8_t *to = out;
        for (int64_t i = 0; i < size; i++)
            for (int64_t j = 0; j < size; j++) to[i * size + j] = from[first + i * down + j * across];
    } else {
        const uint16_t *from = in;
        uint16_t *to = out;
        for (int64_t i = 0; i < size; i++)
            for (int64_t j = 0; j < size; j++) to[i * size + j] = from[first + i * down + j * across];
    }
}

static lam_status read_channels(const lam_sampler *s, int64_t image, int64_t y, int64_t x, char *planes,
                                int64_t *channel) {
    size_t plane = (size_t)(s->crop_size * s->crop_size) * s->pixel_bytes;
    for (int64_t c = 0; c < s->channel_count; c++) {
        *channel = s->channels[c];
        LAM_TRY(lam_shards_read_window(s->shards, image, s->channels[c], y, x, s->crop_size, s->crop_size,
                                       planes + (size_t)c * plane));
    }
    return LAM_OK;
}

/* Share of the window's pixels that are bright in any channel. */
static double foreground(const lam_sampler *s, int64_t image, const void *planes, uint8_t *bright) {
    int64_t plane = s->crop_size * s->crop_size, count = 0;
    memset(bright, 0, (size_t)plane);
    for (int64_t c = 0; c < s->channel_count; c++) {
        if (!lam_shards_has_channel(s->shards, image, s->channels[c])) continue;
        double threshold = s->thresholds[s->plates[image] * s->channel_count + c];
        if (s->pixel_bytes == 1) {
            const uint8_t *values = (const uint8_t *)planes + c * plane;
            for (int64_t i = 0; i < plane; i++) bright[i] |= (double)values[i] > threshold;
        } else {
            const uint16_t *values = (const uint16_t *)planes + c * plane;
            for (int64_t i = 0; i < plane; i++) bright[i] |= (double)values[i] > threshold;
        }
    }
    for (int64_t i = 0; i < plane; i++) count += bright[i];
    return (double)count / (double)plane;
}

lam_status lam_sampler_read(const lam_sampler *s, int64_t epoch, int64_t sample_id, int64_t image,
                            void *scratch, void *pixels, int32_t window[4], int64_t *channel) {
    int64_t height = 0, width = 0, best_y = 0, best_x = 0, y = 0, x = 0;
    size_t plane = (size_t)(s->crop_size * s->crop_size) * s->pixel_bytes;
    uint8_t *bright = (uint8_t *)scratch + plane * (size_t)s->channel_count;
    double best = -1;
    uint32_t turn = 0;
    lam_shards_image_size(s->shards, image, &height, &width);
    for (uint32_t draw = 0; draw <= LAM_SAMPLE_REDRAWS; draw++) {
        uint32_t words[4];
        lam_rng_words4(s->key, (uint32_t)epoch, (uint64_t)sample_id, draw, words);
        if (draw == 0) turn = words[2];
        y = s->center ? (height - s->crop_size) / 2
                      : (int64_t)lam_word_below(words[0], (uint32_t)(height - s->crop_size + 1));
        x = s->center ? (width - s->crop_size) / 2
                      : (int64_t)lam_word_below(words[1], (uint32_t)(width - s->crop_size + 1));
        LAM_TRY(read_channels(s, image, y, x, scratch, channel));
        double share = s->thresholds ? foreground(s, image, scratch, bright) : 1;
        if (share > best) {
            best = share;
            best_y = y;
            best_x = x;
        }
        if (best >= s->minimum_foreground) break;
    }
    if (y != best_y || x != best_x) LAM_TRY(read_channels(s, image, best_y, best_x, scratch, channel));
    bool mirrored = s->flips && (turn & 1);
    int quarter_turns = s->rotations ? (int)(turn >> 1 & 3) : 0;
    for (int64_t c = 0; c < s->channel_count; c++)
        lam_turn((const char *)scratch + (size_t)c * plane, (char *)pixels + (size_t)c * plane, s->crop_size,
                 s->pixel_bytes, mirrored, quarter_turns);
    window[0] = (int32_t)best_y;
    window[1] = (int32_t)best_x;
    window[2] = mirrored;
    window[3] = quarter_turns;
    return LAM_OK;
}
