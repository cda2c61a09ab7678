/* Reconstructions as a picture: one column a crop; rows: input, what the encoder saw, and the visible patches completed by
 * the prediction (what is not decoded stays grey). All three rows of a crop share one window of intensities. */
#ifndef LAMELLA_TRAIN_PICTURES_H
#define LAMELLA_TRAIN_PICTURES_H

#include <stdint.h>

#include "model/nets/mae.h"

#ifdef __cplusplus
extern "C" {
#endif

/* From the graph's outputs after a forward pass; the first `crops` rows. */
lam_status lam_draw_reconstructions(const lam_mae_config *model, const lam_mae_io *io, int64_t crops,
                                    const char *path);

#ifdef __cplusplus
}
#endif
#endif
