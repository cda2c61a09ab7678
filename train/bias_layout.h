/* Biases of parallel blocks that OpenPhenom's file can hold (train/foreign.h says where its 4 D of 7 D lie). A run with
 * model.bias_layout legacy or fixed keeps the other 3 D of each in_proj.bias at zero, where they begin: their gradients are
 * zero, so no update rule moves them, and what it learns can be exported.
 *
 *     lam_bias_hold(network->parameters, embed_dim, layout);       // after the gradients are summed
 *
 * LEGACY: rows [0, 3 D) are held, the first hidden units of the MLP (with mlp_ratio below 3 those of q and k, too); FIXED: the
 * last 3 D, those of q, k and v. */
#ifndef LAMELLA_TRAIN_BIAS_LAYOUT_H
#define LAMELLA_TRAIN_BIAS_LAYOUT_H

#include "model/parameters.h"
#include "train/config.h"

#ifdef __cplusplus
extern "C" {
#endif

bool lam_bias_is_layout(const lam_parameter_entry *entry); /* an in_proj.bias */
/* Its held elements are [first, first + 3 embed_dim). `layout` is not ALL. */
int64_t lam_bias_held_first(const lam_parameter_entry *entry, int64_t embed_dim, lam_bias_layout layout);
/* Zeroes the gradients of the held elements; ALL: nothing. */
void lam_bias_hold(lam_parameters *parameters, int64_t embed_dim, lam_bias_layout layout);
/* The first parameter that has something else than zero there, and at which element; NULL: none, or ALL. */
const lam_parameter_entry *lam_bias_stray(const lam_parameters *parameters, int64_t embed_dim,
                                          lam_bias_layout layout, int64_t *element);

#ifdef __cplusplus
}
#endif
#endif
