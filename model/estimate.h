/* What a step should take on a GPU, from the graph alone: arithmetic, exponentials and bytes of each operation against what the
 * device is known to reach. Needs no GPU and no plan; what is measured is compared with it, so that the first minutes on a real
 * one go to the largest difference.
 *
 *     const lam_device_limits *limits = lam_device_limits_find("NVIDIA H200");
 *     lam_op_estimate rows[128];
 *     int64_t count = lam_graph_estimate(graph, limits, rows, 128);     // after lam_graph_differentiate
 *
 * An operation takes the longest of its parts: products at `product_share` of the rate that large ones reach; attention's
 * products by mma.sync and its exponentials, each at what the chip has; memory, each tensor read and written once, at
 * `memory_share` of the bandwidth; and one launch in a recorded step. The bound of the same takes all shares as 1. */
#ifndef LAMELLA_MODEL_ESTIMATE_H
#define LAMELLA_MODEL_ESTIMATE_H

#include "model/cpu/attention.h"
#include "model/graph.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lam_device_limits {
    const char *name;                          /* in the name of the device */
    double bf16_flops_per_s, f32_flops_per_s;  /* large products reach */
    double attention_flops_per_s;              /* bf16, by mma.sync */
    double exponentials_per_s, bytes_per_s;
    double memory_bytes;   /* that nvidia-smi names */
    double launch_seconds; /* between two kernels of a recorded step */
    double product_share, attention_share, memory_share;
} lam_device_limits;

/* By what lam_backend_device says, or "H100", "H200" (boards with SXM sockets); NULL: not known. */
const lam_device_limits *lam_device_limits_find(const char *device);

typedef struct lam_op_estimate {
    const char *op;
    bool backward, again;
    int64_t calls;
    double flops, exponentials, bytes;
    double bound_seconds, seconds; /* all calls together */
} lam_op_estimate;

/* One row an operation and pass, as lam_graph_op_times, and in bfloat16 "prepare", which scales weights of linear maps, or rounds
 * them at random; returns how many. The update of the weights is not part of the graph; *copied: bytes that one writes beside
 * the weights, an element at a time: copies in bfloat16. */
int64_t lam_graph_estimate(lam_graph *graph, const lam_device_limits *limits, lam_op_estimate *rows, int64_t maximum,
                           double *copied);
/* Attention by itself, all samples in one call. */
lam_op_estimate lam_estimate_attention(const lam_device_limits *limits, const lam_attention_shape *shape, bool bf16,
                                       bool backward);
/* An update that reads and writes `bytes`. */
lam_op_estimate lam_estimate_update(const lam_device_limits *limits, double bytes);

#ifdef __cplusplus
}
#endif
#endif
