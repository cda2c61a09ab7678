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

/* Weights for a network that is configured and drawn (train.init), from `path`: CHECKPOINT of the commands, ours or another
 * program's; train/import_init.c.
 *
 * The encoder must be the configured one: name, sizes, heads, layer_norm_eps, kind of positions, as far as the file says
 * them; else LAM_ERROR_CONFIG names the key, its value and the file's. So must the decoder, which is taken as a whole; it
 * stays as drawn where the file has none, or where that of mae_channel_agnostic is of the other kind or for other channels.
 * Computed position tables are computed anew for another crop size. One line of the log says what was taken. */
lam_status lam_import_weights(lam_network *network, const char *path);
/* The same without reading a weight: what would be refused for its sizes or its name is refused at once. */
lam_status lam_import_weights_check(lam_network *network, const char *path);

#ifdef __cplusplus
}
#endif
#endif
