/* What benchmarks of a training step run: a network by a short name, on pixels drawn at random, with its optimiser.
 *
 *     lam_bench_network n;
 *     LAM_TRY_GOTO(lam_bench_network_open(&n, lam_backend_cpu(), false, "s16", 8, LAM_F32, LAM_RECOMPUTE_NONE, 0), done);
 *     LAM_TRY_GOTO(lam_bench_network_step(&n), done);
 *     done: lam_bench_network_close(&n);                       // also after a failure to open */
#ifndef LAMELLA_TRAIN_BENCH_NETWORK_H
#define LAMELLA_TRAIN_BENCH_NETWORK_H

#include "model/nets/mae.h"
#include "model/optimizer.h"
#include "train/device_step.h"

#ifdef __cplusplus
extern "C" {
#endif

#define LAM_BENCH_MODELS                                                                                                     \
    "size t, s, b, l, h or g and side of a patch 8, 14, 16 or 32, as s16; p-s16: with parallel blocks; ca-s16: a token for " \
    "each channel, one decoder for all"

typedef struct lam_bench_network {
    lam_mae_config model;
    const lam_backend *backend;
    lam_device_step *device; /* NULL: on the CPU */
    lam_parameters *parameters;
    lam_graph *graph;
    lam_mae_io io;
    lam_optimizer_state optimizer;
    int64_t batch, updates;
    int64_t update_bytes;  /* kept by the optimiser */
    double update_seconds; /* of the last step: the optimiser */
} lam_bench_network;

/* The configuration of a name: 6 channels of 256 pixels (252 for patches of 14), three quarters masked, a decoder 512 wide and
 * 8 deep with 16 heads. LAM_ERROR_USAGE where there is no such name. */
lam_status lam_bench_model(const char *name, lam_mae_config *model);

lam_status lam_bench_network_open(lam_bench_network *network, const lam_backend *backend, bool autotune,
                                  const char *name, int64_t batch, lam_dtype activation, lam_recompute recompute, double drop_path);
void lam_bench_network_close(lam_bench_network *network);
/* Forward, backward, AdamW, one step after another; seconds [steps]: what each took. On a device a step is given to it before
 * the one before has been waited for. */
lam_status lam_bench_network_steps(lam_bench_network *network, int64_t steps, double *seconds);
/* Forward, backward and, on a device, the update, waiting for each operation, for lam_graph_op_times. */
lam_status lam_bench_network_profile(lam_bench_network *network);

#ifdef __cplusplus
}
#endif
#endif
