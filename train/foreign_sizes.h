/* How large the network is whose weights a file of another program holds: from the shapes of its tensors, and from config.json
 * where shapes do not tell. */
#ifndef LAMELLA_TRAIN_FOREIGN_SIZES_H
#define LAMELLA_TRAIN_FOREIGN_SIZES_H

#include "model/nets/mae.h"
#include "train/foreign.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lam_foreign_sizes {
    lam_mae_kind kind;
    int64_t embed_dim, depth, mlp_dim, patch_size, image_size, in_channels;
    int64_t num_heads;          /* 0: nothing says how many */
    const char *position_table; /* name of the encoder's, among ours */
    bool has_decoder, shared_decoder;
    int64_t decoder_embed_dim, decoder_depth, decoder_mlp_dim; /* 0 without a decoder */
    int64_t decoder_num_heads;                                 /* 0: nothing says how many */
    double mask_ratio;
    double layer_norm_eps; /* 0: nothing says */
    bool norm_pix_loss;
} lam_foreign_sizes;

/* LAM_ERROR_INPUT: tensors that are absent, empty or of another form; a config.json that says something else than they do. */
lam_status lam_foreign_sizes_read(const lam_foreign *file, lam_foreign_sizes *sizes);

/* Whether the encoder's table of positions is another than the one of sines and cosines: that one was learned, and at another
 * crop size it is interpolated, not computed. `model`: a network that these sizes fit. */
lam_status lam_foreign_positions_learned(lam_foreign *file, const lam_mae_config *model,
                                         const lam_foreign_sizes *sizes, bool *learned);

#ifdef __cplusplus
}
#endif
#endif
