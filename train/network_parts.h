/* Steps in which a lam_network is put together, for who reads one from a file (network.c, network_channels.c, import.c). */
#ifndef LAMELLA_TRAIN_NETWORK_PARTS_H
#define LAMELLA_TRAIN_NETWORK_PARTS_H

#include "train/network.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Room for `channels` channels, without names yet. */
lam_status lam_network_add_channels(lam_network *network, int64_t channels);
void lam_network_free_channels(lam_network *network);
/* Channel-agnostic networks: which of model.channel_tokens each channel has. */
lam_status lam_network_add_channel_tokens(lam_network *network);
/* Whether a parameter of this name belongs to the decoder, of any net. */
bool lam_network_of_decoder(const char *parameter);
/* The registry of network->settings.model, weights drawn from `seed`. */
lam_status lam_network_add_parameters(lam_network *network, uint64_t seed);

#ifdef __cplusplus
}
#endif
#endif
