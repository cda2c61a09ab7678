/* What the tests of graphs share: a small network with its graph and inputs. Include after cmocka.h. */
#ifndef LAMELLA_TESTS_GRAPH_CHECK_H
#define LAMELLA_TESTS_GRAPH_CHECK_H

#include <math.h>

#include "model/graph.h"
#include "model/nets/mae.h"
#include "tests/unit/device.h"

static inline void ok(lam_status status) {
    if (status != LAM_OK) fail_msg("%s", lam_last_error());
}

static const lam_mae_config config = {.image_size = 16,
                                      .patch_size = 4,
                                      .in_channels = 2,
                                      .embed_dim = 20,
                                      .depth = 3,
                                      .num_heads = 2,
                                      .decoder_embed_dim = 12,
                                      .decoder_depth = 2,
                                      .decoder_num_heads = 3,
                                      .mask_ratio = 0.6,
                                      .pixel_type = LAM_F32,
                                      .noise_input = true};

typedef struct net {
    lam_parameters *p;
    lam_graph *g;
    lam_mae_io io;
} net;

static inline net make_net_as(bool backward, lam_dtype activation, lam_recompute recompute) {
    net n = {0};
    ok(lam_parameters_create(&n.p));
    ok(lam_mae_parameters(n.p, &config));
    ok(lam_parameters_layout(n.p, 8));
    lam_mae_fill_positions(n.p, &config);
    ok(lam_graph_create(&n.g, n.p, test_backend()));
    lam_graph_set_activation(n.g, activation);
    lam_graph_set_recompute(n.g, recompute);
    ok(lam_mae_build(n.g, &config, 3, &n.io));
    if (backward) ok(lam_graph_differentiate(n.g, n.io.loss));
    ok(lam_graph_plan(n.g));
    for (int64_t i = 0; i < lam_tensor_count(n.io.input.pixels); i++)
        ((float *)lam_tensor_data(n.io.input.pixels))[i] = (float)sin(0.77 * (double)i);
    for (int64_t i = 0; i < lam_tensor_count(n.io.noise); i++)
        ((float *)lam_tensor_data(n.io.noise))[i] = (float)fabs(sin(5.3 * (double)i));
    for (int64_t i = 0; i < 3; i++) ((float *)lam_tensor_data(n.io.sample_weight))[i] = 1.0f / 3.0f;
    return n;
}

static inline net make_net(bool backward) { return make_net_as(backward, LAM_F32, LAM_RECOMPUTE_NONE); }

static inline void drop_net(net *n) {
    lam_graph_free(n->g);
    lam_parameters_free(n->p);
}

#endif
