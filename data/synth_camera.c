#include "data/synth_camera.h"

#include <math.h>
#include <string.h>

#define COUNTS_PER_PHOTON 8.0
#define OFFSET_COUNTS 200.0

typedef struct optics {
    double gain, background, sigma, read_noise;
    double centre_x, centre_y, falloff, tilt_x,
        tilt_y; /* illumination: 1 - falloff r^2 + tilt, image in -1..1 */
} optics;

static optics draw_optics(const lam_synth_screen *screen, const lam_synth_well *well, int64_t index,
                          int64_t site, lam_synth_channel channel) {
    uint64_t seed = screen->config.seed, c = (uint64_t)channel;
    uint64_t image = (uint64_t)(index * screen->config.sites + site);
    lam_rng batch =
        lam_synth_stream(seed, LAM_SYNTH_STREAM_BATCH_CAMERA, (uint64_t)well->batch * LAM_SYNTH_CHANNELS + c);
    lam_rng plate =
        lam_synth_stream(seed, LAM_SYNTH_STREAM_PLATE_CAMERA, (uint64_t)well->plate * LAM_SYNTH_CHANNELS + c);
    /* A well is stained as one; focus is one for all channels of an image. */
    lam_rng one =
        lam_synth_stream(seed, LAM_SYNTH_STREAM_WELL_CAMERA, (uint64_t)index * LAM_SYNTH_CHANNELS + c);
    lam_rng focus = lam_synth_stream(seed, LAM_SYNTH_STREAM_WELL_CAMERA, ((uint64_t)1 << 40) + image);
    optics o;
    o.gain = exp(0.22 * lam_rng_normal(&batch) + 0.14 * lam_rng_normal(&plate) + 0.12 * lam_rng_normal(&one));
    o.background =
        22 * exp(0.30 * lam_rng_normal(&batch) + 0.20 * lam_rng_normal(&plate) + 0.15 * lam_rng_normal(&one));
    o.centre_x = 0.25 * lam_rng_normal(&batch);
    o.centre_y = 0.25 * lam_rng_normal(&batch);
    o.falloff = 0.06 + 0.12 * lam_rng_uniform(&batch);
    o.tilt_x = 0.05 * lam_rng_normal(&plate);
    o.tilt_y = 0.05 * lam_rng_normal(&plate);
    o.sigma = 0.70 + 0.12 * lam_rng_uniform(&batch) + 0.12 * lam_rng_uniform(&plate) +
              0.10 * fabs(lam_rng_normal(&focus));
    o.read_noise = 3 + 2 * lam_rng_uniform(&batch);
    return o;
}

enum { REACH = 5 };

/* out[x] = sum of tap[i] x in[x + i step]: tap by tap, so that it runs along the row. */
static void add_taps(const float *in, int64_t step, float *out, int64_t first, int64_t last,
                     const float tap[2 * REACH + 1]) {
    memset(out + first, 0, sizeof(float) * (size_t)(last - first));
    for (int i = -REACH; i <= REACH; i++) {
        const float *from = in + i * step;
        float weight = tap[i + REACH];
#pragma omp simd
        for (int64_t x = first; x < last; x++) out[x] += weight * from[x];
    }
}

/* Separable Gaussian over the part of the canvas that the image can see. */
static void blur(float *plane, float *scratch, int64_t canvas, double sigma) {
    float tap[2 * REACH + 1], sum = 0;
    for (int i = -REACH; i <= REACH; i++) {
        tap[i + REACH] = (float)exp(-0.5 * i * i / (sigma * sigma));
        sum += tap[i + REACH];
    }
    for (int i = 0; i <= 2 * REACH; i++) tap[i] /= sum;
    int64_t first = LAM_SYNTH_MARGIN - REACH, last = canvas - LAM_SYNTH_MARGIN + REACH;
    for (int64_t y = first; y < last; y++)
        add_taps(plane + y * canvas, 1, scratch + y * canvas, first + REACH, last - REACH, tap);
    for (int64_t y = first + REACH; y < last - REACH; y++)
        add_taps(scratch + y * canvas, canvas, plane + y * canvas, first + REACH, last - REACH, tap);
}

/* Photons and read noise: Poisson by inversion where few photons come; where many do, its normal limit, which
 * makes one normal number of both. */
static double detected(lam_rng *rng, double expected, double read_noise) {
    if (expected > 24) return expected + sqrt(expected + read_noise * read_noise) * lam_rng_normal(rng);
    double left = lam_rng_uniform(rng), probability = exp(-expected);
    int count = 0;
    while (left >= probability && count < 100) {
        left -= probability;
        count++;
        probability *= expected / count;
    }
    return count + read_noise * lam_rng_normal(rng);
}

void lam_synth_photograph(const lam_synth_screen *screen, lam_synth_field *field, int64_t well, int64_t site,
                          lam_synth_channel channel, float *scratch, uint16_t *pixels) {
    int64_t size = screen->config.image_size, canvas = field->canvas;
    optics o = draw_optics(screen, &screen->wells[well], well, site, channel);
    float *plane = lam_synth_field_plane(field, channel);
    uint64_t image = (uint64_t)(well * screen->config.sites + site);
    lam_rng rng = lam_synth_stream(screen->config.seed, LAM_SYNTH_STREAM_NOISE,
                                   image * LAM_SYNTH_CHANNELS + (uint64_t)channel);
    blur(plane, scratch, canvas, o.sigma);
    for (int64_t y = 0; y < size; y++)
        for (int64_t x = 0; x < size; x++) {
            double u = 2 * ((double)x + 0.5) / (double)size - 1, v = 2 * ((double)y + 0.5) / (double)size - 1;
            double du = u - o.centre_x, dv = v - o.centre_y;
            double lamp = fmax(0.2, 1 - o.falloff * (du * du + dv * dv) + o.tilt_x * u + o.tilt_y * v);
            double light = (double)plane[(y + LAM_SYNTH_MARGIN) * canvas + x + LAM_SYNTH_MARGIN] * o.gain;
            double count = detected(&rng, lamp * (light + o.background), o.read_noise);
            double value = floor(OFFSET_COUNTS + COUNTS_PER_PHOTON * count + 0.5);
            pixels[y * size + x] = (uint16_t)(value < 0 ? 0 : value > 65535 ? 65535 : value);
        }
}
