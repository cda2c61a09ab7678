/* The microscope of the simulated screen: what differs between batches, plates and wells without any biology.
 *
 *     lam_synth_photograph(screen, &field, well, site, LAM_SYNTH_DNA, scratch, pixels);
 *
 * light = blur(plane, sigma) x illumination x gain + background;  count = 200 + 8 x (Poisson(light) + read
 * noise), 16 bits. Gain, background, illumination, blur and read noise are drawn by batch and plate, gain,
 * background and focus also by well (focus by image). Deterministic: a function of (seed, well, site,
 * channel). */
#ifndef LAMELLA_DATA_SYNTH_CAMERA_H
#define LAMELLA_DATA_SYNTH_CAMERA_H

#include <stdint.h>

#include "data/synth_cell.h"

#ifdef __cplusplus
extern "C" {
#endif

/* `scratch` [canvas, canvas]; `pixels` [image_size, image_size] written. The field's plane is left blurred.
 */
void lam_synth_photograph(const lam_synth_screen *screen, lam_synth_field *field, int64_t well, int64_t site,
                          lam_synth_channel channel, float *scratch, uint16_t *pixels);

#ifdef __cplusplus
}
#endif
#endif
