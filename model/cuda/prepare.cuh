/* Weights and biases as products want them: rounded to bfloat16, scaled, side by side; for all maps of a graph in a few launches
 * before its forward pass, 64 weights and biases each.
 *
 *     lam_status linear_prepare(lam_node *node) {      // of lam_op_functions
 *         lam_cuda_prepare_weights(node, w, NULL, node->packed[0]);
 *         ...
 *     }
 *
 * What is only rounded to the nearest can be written with the weights by their update (update.cu), which asks for the pieces. */
#ifndef LAMELLA_MODEL_CUDA_PREPARE_CUH
#define LAMELLA_MODEL_CUDA_PREPARE_CUH

#include <vector>

#include "model/cuda/backend.cuh"

/* scale (from + also) for each of `width` elements; also, scale NULL: 0 and 1. The first is number `first` of the arena; -1: not
 * rounded at random. */
struct lam_cuda_piece {
    const float *from, *also, *scale;
    void *to;
    int64_t count, first;
    int32_t width;
    uint32_t end; /* blocks of this one and those before */
};

/* From `prepare` of a node. Times scale[row]; NULL: as they are. */
void lam_cuda_prepare_weights(const lam_node *node, const lam_tensor *w, const float *scale, void *to);
/* scale (from + also) */
void lam_cuda_prepare_biases(const lam_node *node, const lam_tensor *b, const float *also, const float *scale,
                             void *to);

/* What `prepare` of the node makes, without making it. */
lam_status lam_cuda_pieces(lam_node *node, std::vector<lam_cuda_piece> *pieces);

#endif
