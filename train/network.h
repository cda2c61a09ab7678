/* A network with its weights and what is needed to feed it; one model.safetensors holds all of it.
 *
 *     LAM_TRY(lam_network_read(&network, "runs/x/checkpoints/step_00001000/model.safetensors"));
 *     LAM_TRY(lam_network_match(network, shards, channel_map));
 *     LAM_TRY(lam_feeder_create(&feeder, network, shards, channel_map));
 *
 * Metadata of the file: "lamella_config" (YAML as resolved), "lamella_channels" (JSON: name, bits, mean, deviation of
 * each channel over the training images, after data.transform), "lamella_step", "lamella_version". */
#ifndef LAMELLA_TRAIN_NETWORK_H
#define LAMELLA_TRAIN_NETWORK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/config.h"
#include "data/shard.h"
#include "model/parameters.h"
#include "train/config.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lam_network {
    lam_config *config; /* owned */
    lam_settings settings;
    lam_parameters *parameters;
    int64_t channels, step;
    char **channel_names;
    int *channel_bits;
    double *channel_mean, *channel_deviation;
    int32_t *
        channel_token; /* [channels] place in model.channel_tokens; NULL for networks that have no such tokens */
    bool chosen;       /* which channels are taken is said by lam_network_name_channels */
    bool unnamed;      /* channels of another program's weights: taken in the order of the shards */
    bool no_decoder; /* the file held none: the decoder's weights are drawn */
} lam_network;

/* Fresh weights of `seed`, channels of the shards. Takes over `config` in every case. */
lam_status lam_network_create(lam_network **out, lam_config *config, const lam_shards *shards, uint64_t seed);
/* As a file says: weights (drawn anew from *untrained_seed where it is not NULL), config, channels; files of other programs
 * by train/import.h. */
lam_status lam_network_read(lam_network **out, const char *path, const uint64_t *untrained_seed);
/* The same network for crops of another size (lam_mae_resize); the patches stay as large. */
lam_status lam_network_resize(lam_network *network, int64_t image_size);
lam_status lam_network_read_weights(lam_network *network, const char *path);
/* `trained`: the values of all that is trained, [trainable] of the parameters; NULL: parameters->weights. */
lam_status lam_network_write(const lam_network *network, const float *trained, const char *path,
                             int64_t step);
int64_t
lam_network_elements(const lam_network *network); /* of all parameters, without the padding between them */
/* The configuration as files keep it: without train.out, which is no part of a network (two runs that agree in all else write
 * the same bytes) and not known to who reads a model. Caller frees. */
lam_status lam_network_config_text(const lam_network *network, char **text);
void lam_network_free(lam_network **network);

/* Of a network that takes any channels: makes its channels those of the shards, for its encoder. Statistics of channels that
 * it was trained on stay. Does nothing to other networks. */
lam_status lam_network_take_channels(lam_network *network, const lam_shards *shards);

/* Which channels the network takes, in its order, instead of those it names; as many as it has, but for one that takes any.
 * "A,B", each once and known to the shards or to the network. */
lam_status lam_network_name_channels(lam_network *network, const char *names, const lam_shards *shards);

/* Channel of the shards for each of the network's by name, or in order where they are unnamed; -1 where the shards lack it.
 * None at all is an error; another bit depth is a warning. */
lam_status lam_network_match(const lam_network *network, const lam_shards *shards, int64_t *channel_map);

/* Input constants of the network's graphs for one shard folder. */
typedef struct lam_feeder {
    int64_t channels;
    float *scale;       /* [channels] */
    float *mean, *rstd; /* [plates, channels]; for normalize: crop all 0 and 1 */
} lam_feeder;
lam_status lam_feeder_create(lam_feeder *feeder, const lam_network *network, const lam_shards *shards,
                             const int64_t *channel_map);
void lam_feeder_free(lam_feeder *feeder);

#ifdef __cplusplus
}
#endif
#endif
