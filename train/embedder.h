/* What turns crops into vectors: the encoder of a network, or features without a network.
 *
 * Crops go through in batches of fixed composition, whatever the number of ranks; a short batch is filled with zeros. */
#ifndef LAMELLA_TRAIN_EMBEDDER_H
#define LAMELLA_TRAIN_EMBEDDER_H

#include "dist/dist.h"
#include "train/crops.h"
#include "train/network.h"

#ifdef __cplusplus
extern "C" {
#endif

/* CHANNEL: the mean token of each channel, one after another; a channel that the crop lacks gives zeros. Where tokens mix the
 * channels each channel is seen alone; where channels have tokens of their own they are seen together. */
typedef enum lam_pool { LAM_POOL_MEAN, LAM_POOL_CLS, LAM_POOL_CHANNEL, LAM_POOL_HIDDEN } lam_pool;

typedef struct lam_embedder {
    lam_shards *shards;                 /* borrowed */
    lam_network *network;               /* borrowed; NULL: features */
    bool handmade;                      /* without a network: which features */
    int64_t crop_size, channels, width; /* width: elements of a vector, of all its blocks */
    int64_t blocks;                     /* parts of a vector: 1, or each block of the network */
    lam_tensor **every;                 /* with several blocks their tokens */
    int64_t batch;
    int64_t views; /* 1 to 8: turned, then mirrored and turned copies of a crop whose vectors are averaged */
    lam_pool pool;
    int64_t *channel_map;
    lam_feeder feeder;
    lam_graph *graph;
    lam_mae_encoder_io io;
    void *pixels;  /* [batch, channels, crop_size, crop_size] as they are fed */
    void *upright; /* the same before it is turned */
    float *view;   /* [batch, width]: the vectors of one view */
    uint8_t *present;
    uint8_t *damaged; /* [batch]; NULL: a damaged frame is an error */
} lam_embedder;

enum { LAM_EVERY_BLOCK = -1 };
/* Set network or handmade, pool, batch and views by the arguments. block 0: the last; LAM_EVERY_BLOCK: all,
 * side by side. strict: a damaged frame is
 * LAM_ERROR_FORMAT; else the crop's vector is NaN. */
lam_status lam_embedder_open(lam_embedder *embedder, lam_shards *shards, lam_network *network,
                             const lam_backend *backend, bool handmade,
                             int64_t crop_size, int64_t block, lam_pool pool, int64_t batch, int64_t views,
                             bool strict);
void lam_embedder_close(lam_embedder *embedder);
/* Collective: vectors [count, width] of all crops on rank 0 (NULL elsewhere). Caller frees. */
lam_status lam_embed_crops(lam_embedder *embedder, lam_dist *dist, const lam_crop *crops, int64_t count,
                           float **vectors);

#ifdef __cplusplus
}
#endif
#endif
