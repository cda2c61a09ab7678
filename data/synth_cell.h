/* Draws one simulated field of cells: five channels of light before the microscope.
 *
 *     lam_synth_field field = {0};
 *     LAM_TRY(lam_synth_field_draw(&field, screen, well, site));
 *     const float *dna = lam_synth_field_plane(&field, LAM_SYNTH_DNA);   // [canvas, canvas]
 *     lam_synth_field_free(&field);
 *
 * The canvas is larger than the image by LAM_SYNTH_MARGIN pixels on each side, so that cells cut by the
 * image's edge carry light like the others. A parameter changes the arrangement of a channel's light in a
 * cell, not its amount: every layer is scaled to an amount that follows the cell's area (concentrations
 * stay), so that plain intensity says little. Units: pixels, photons. One field may be used by one thread;
 * buffers are kept between draws. */
#ifndef LAMELLA_DATA_SYNTH_CELL_H
#define LAMELLA_DATA_SYNTH_CELL_H

#include <stdint.h>

#include "data/synth_screen.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum lam_synth_channel {
    LAM_SYNTH_DNA,
    LAM_SYNTH_ER,
    LAM_SYNTH_RNA,
    LAM_SYNTH_AGP, /* actin, Golgi, plasma membrane */
    LAM_SYNTH_MITO,
    LAM_SYNTH_CHANNELS
} lam_synth_channel;

extern const char *const lam_synth_channel_names[LAM_SYNTH_CHANNELS];

enum { LAM_SYNTH_MARGIN = 40 };

typedef struct lam_synth_field {
    int64_t canvas;  /* width and height */
    int64_t cells;   /* drawn, those outside the image too */
    float *planes;   /* [LAM_SYNTH_CHANNELS, canvas, canvas] */
    float *layer;    /* [canvas, canvas] one layer of one cell */
    float *edge;     /* [canvas, canvas] 0..1, how far inside its cell a pixel lies */
    float *reach;    /* [canvas, canvas] distance to the owner's centre over its radius there */
    int16_t *owners; /* [canvas, canvas] cell, -1: none */
    struct lam_synth_cell *list;
    int64_t list_capacity;
} lam_synth_field;

/* {0} is an empty field. */
lam_status lam_synth_field_draw(lam_synth_field *field, const lam_synth_screen *screen, int64_t well,
                                int64_t site);
float *lam_synth_field_plane(const lam_synth_field *field, lam_synth_channel channel);
void lam_synth_field_free(lam_synth_field *field);

#ifdef __cplusplus
}
#endif
#endif
