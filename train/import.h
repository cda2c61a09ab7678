/* Networks out of other programs' weights (train/foreign.h), and weights to begin a training with.
 *
 *     LAM_TRY(lam_import_network(&network, "vit-mae-base/model.safetensors", NULL));
 *
 * Sizes come from the shapes of the tensors; what shapes cannot tell from the config.json beside them, else: encoder heads
 * of 64, 16 decoder heads, mask ratio 0.75. Images are standardised as preprocessor_config.json (or timm's pretrained_cfg)
 * says; without one, by ImageNet's mean and deviation where timm's names have three channels (so trained He et al.), else each
 * crop and channel by itself (so did Kraus et al.). The channels have no names: embed takes them in the order of
 * the shards, or by --channels. A file without a decoder gives a network with no_decoder set. */
#ifndef LAMELLA_TRAIN_IMPORT_H
#define LAMELLA_TRAIN_IMPORT_H

#include "train/network.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Weights drawn anew from *untrained_seed where it is not NULL. */
lam_status lam_import_network(lam_network **out, const char *path, const uint64_t *untrained_seed);

/* Of a network that was read from `path`: its tensors are of a floating type and finite, else LAM_ERROR_INPUT. An embedding or
 * an export of others would be of no use to anybody. */
lam_status lam_import_check(const lam_network *network, const char *path);

/* Weights for a network that is configured and drawn: of `path` (as CHECKPOINT of the commands, ours or another program's) what
 * the encoder needs must be there in the same shapes; what is absent of the decoder stays as drawn, and position tables of
 * another image size stay computed. */
lam_status lam_import_weights(lam_network *network, const char *path);

#ifdef __cplusplus
}
#endif
#endif
