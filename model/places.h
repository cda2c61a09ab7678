/* What the name and the shape of a parameter say of its place in the network: how deep it lies, and whether it is a
 * matrix between hidden units. One grammar for all networks (model/nets):
 *
 *     vit.encoder.layer.3.output.dense.weight        encoder.vit_backbone.blocks.3.in_proj.weight
 *     vit.embeddings.cls_token                       encoder.vit_backbone.patch_embed.proj.weight
 *     decoder.decoder_layers.0.output.dense.weight   decoder_pred.weight, encoder_decoder_proj.weight */
#ifndef LAMELLA_MODEL_PLACES_H
#define LAMELLA_MODEL_PLACES_H

#include <stdint.h>

#include "base/status.h"
#include "model/parameters.h"

#ifdef __cplusplus
extern "C" {
#endif

/* 0: tokens, positions and the patch projection; i + 1: block i of the encoder; depth + 1: everything behind its
 * blocks (last norm, decoder, heads). */
int64_t lam_parameter_layer(const char *name, int64_t depth);

/* Layer-wise decay of the learning rate (Clark et al. 2020; Bao et al. 2022, BEiT): lr_scale = decay^(depth + 1 - layer) of
 * each parameter. decay 1: the same rate everywhere. */
void lam_layer_decay(lam_parameters *parameters, int64_t depth, double decay);

#define LAM_MATRIX_PARTS 4
/* The matrices [rows[k], columns], one below the other, that a parameter consists of and that map hidden units to hidden
 * units; returns their number, 0 where it is none. Not counted: vectors; tokens and tables, which are looked up and
 * not multiplied with; the patch projection and the prediction head, whose other side are pixels. Such parameters
 * have no spectrum worth evening out: a row or column is one thing by itself (Jordan et al. 2024).
 * Query, key and value are three matrices even where they share a tensor: the last three times `columns` rows of
 * in_proj ([mlp | q | k | v] or [q | k | v]) and of qkv. */
int lam_parameter_matrices(const lam_parameter_entry *entry, int64_t rows[LAM_MATRIX_PARTS],
                           int64_t *columns);

#ifdef __cplusplus
}
#endif
#endif
