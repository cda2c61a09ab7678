/* Weights that other programs have written, seen through the names of our networks.
 *
 *     lam_foreign file;
 *     LAM_TRY(lam_foreign_open(&file, "vit-mae-base/model.safetensors"));
 *     lam_foreign_source source;
 *     if (lam_foreign_find(&file, "vit.encoder.layer.0.attention.attention.query.weight", &source)) ...
 *     lam_foreign_close(&file);
 *
 * Three families, told by the name that the cls token has, with any prefix before it ("module.", "model."):
 *   VITMAE    Hugging Face's ViTMAE: the published names (vit.encoder.layer.0...), those of transformers 5 in memory
 *             (vit.layers.0.attention.q_proj...) and on disk (decoder.decoder_encoder.layer.0...), with "vit." and without
 *   TIMM      timm's and He et al.'s vision transformer (blocks.0.attn.qkv...), decoder_blocks.0... where there is a decoder
 *   PARALLEL  the parallel blocks of Kraus et al. (encoder.vit_backbone.blocks.0.in_proj...), as OpenPhenom is published
 *
 * Trap: the 4 D values of mlp_bias are not where their name says. timm <= 1.0.24 put them behind 3 D zeros on the rows
 * [mlp 4D | q | k | v] of in_proj, so that the trained values reach the last D hidden units, q, k and v; timm >= 1.0.25 puts
 * them on the mlp rows. Published weights are of the old kind; "bias_layout": "fixed" in the config.json beside the file
 * says the new one. Either becomes one in_proj.bias of 7 D. */
#ifndef LAMELLA_TRAIN_FOREIGN_H
#define LAMELLA_TRAIN_FOREIGN_H

#include <stdbool.h>

#include "base/weights_file.h"
#include "model/parameters.h"
#include "train/beside.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum lam_family { LAM_FAMILY_VITMAE, LAM_FAMILY_TIMM, LAM_FAMILY_PARALLEL } lam_family;

typedef struct lam_foreign {
    lam_weights *weights;
    char *path, *prefix;
    lam_family family;
    lam_beside config, preprocessor; /* config.json and preprocessor_config.json */
    bool fixed_bias;                 /* config.json says bias_layout "fixed" */
    bool *used;                      /* of each tensor: it was read */
} lam_foreign;

/* LAM_ERROR_INPUT where no family has such names. */
lam_status lam_foreign_open(lam_foreign *file, const char *path);
void lam_foreign_close(lam_foreign *file);

/* Rows part / parts of a tensor: q, k and v may lie in one. */
typedef struct lam_foreign_source {
    const lam_weights_entry *entry;
    int part, parts;
} lam_foreign_source;
bool lam_foreign_find(const lam_foreign *file, const char *name, lam_foreign_source *source);

/* Fills `values` (parameter->count). *found false: the file lacks it, nothing is written. Absent biases of q, k and v are
 * zeros (qkv_bias false); of a position table with more rows the first are taken (one table repeated for each channel). Another
 * shape is LAM_ERROR_INPUT. */
lam_status lam_foreign_read(lam_foreign *file, const lam_parameter_entry *parameter, float *values,
                            bool *found);

/* The tensor of this parameter is left where it is, on purpose: it does not count as unused. */
void lam_foreign_pass_over(lam_foreign *file, const char *name);

/* Tensors that no parameter has taken: an error where they are part of the encoder, whose outputs would differ; else a line in
 * the log. timm's fc_norm in place of norm is told, too. */
lam_status lam_foreign_check_unused(const lam_foreign *file);

#ifdef __cplusplus
}
#endif
#endif
