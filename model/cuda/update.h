/* The update of a training step on the device: guard, clipping, rule, average. Nothing waits for the host, so that a whole step
 * can be captured and replayed: what changes from step to step is read from device memory.
 *
 *     const lam_cuda_updates *f = ((lam_cuda_updates_function *)lam_backend_function(backend, "lam_cuda_updates_get"))();
 *     LAM_TRY(f->open(&update, &options));                         // parameters lie on the device: lam_parameters_place
 *     LAM_TRY(f->push(update, optimizer.arena, average, 0, 0, 0)); // or what a checkpoint held
 *     each step:
 *         f->set(update, pinned_input);                            // copied behind what is running
 *         forward, f->add_loss(update, loss), backward             // of each micro-batch
 *         LAM_TRY(f->enqueue(update));
 *         f->outcome(update, pinned_outcome);                      // read it behind an event or a synchronisation
 *     LAM_TRY(f->pull(update, optimizer.arena, average));
 *     f->close(&update);
 *
 * It computes what train/trainer.c and model/optimizer.h say, in the same order: held gradients become zero; the norm of all
 * gradients in double, in fixed blocks; no row, or a loss or a norm that is not finite: the step is skipped, nothing but the
 * counters is written; else updates is counted, the gradient is scaled down to clip_norm, the rule goes one step with t =
 * updates, and the average follows. Bias corrections are computed from updates in double on the device. Moments and weights are
 * float32 and equal those of the CPU to rounding (muon's directions with `bf16`: to that of bfloat16), the same bits every run. */
#ifndef LAMELLA_MODEL_CUDA_UPDATE_H
#define LAMELLA_MODEL_CUDA_UPDATE_H

#include <stdint.h>

#include "model/graph.h"
#include "model/optimizer.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Elements [begin, end) of the gradient arena. */
typedef struct lam_cuda_range {
    int64_t begin, end;
} lam_cuda_range;

typedef struct lam_cuda_update_options {
    const lam_parameters
        *parameters; /* borrowed; lr_scale and decay of the entries are read when it is opened */
    const lam_optimizer *optimizer;
    bool average;               /* of the weights (lam_average_step) */
    const lam_cuda_range *held; /* gradients that are zero (train/bias_layout.h); copied */
    int64_t held_count;
    bool bf16; /* the products of muon are; else float32 */
    /* Planned, on these parameters; borrowed by `open`. Of their maps that only round their weights to bfloat16, to the nearest, the
     * update writes the copies with the weights, from `open` on, where the rule goes element by element: recorded forward
     * passes need it then. Passes that are not recorded make copies of what the weights are at that time; `push` makes them
     * those of the training again. */
    lam_graph *const *graphs;
    int64_t graph_count;
} lam_cuda_update_options;

/* What the host knows of a step; lam_update says which rule reads what. */
typedef struct lam_cuda_update_input {
    double lr, beta1, beta2, eps, weight_decay, momentum, warmup;
    double clip_norm; /* 0: gradients are not clipped */
    double ema;       /* decay of the average */
    int64_t rows;     /* that count, over all ranks; 0: the step is skipped */
} lam_cuda_update_input;

#define LAM_CUDA_NO_ENTRY INT32_MAX
typedef struct lam_cuda_update_outcome {
    double loss;          /* sum of what was added */
    double gradient_norm; /* before clipping */
    double rate;          /* that the rule used; of a skipped step: lr */
    int64_t updates, skipped, skipped_in_row;
    int32_t skipped_now; /* 1: this step was skipped */
    int32_t
        first_non_finite; /* of a skipped step: the first entry of the registry whose gradient is not finite */
} lam_cuda_update_outcome;

typedef struct lam_cuda_update lam_cuda_update;

typedef struct lam_cuda_updates {
    /* LAM_ERROR_MEMORY, LAM_ERROR_EXTERNAL. */
    lam_status (*open)(lam_cuda_update **out, const lam_cuda_update_options *options);
    void (*close)(lam_cuda_update **update);
    /* Of device memory that `open` takes, tables of the graphs' copies aside. */
    int64_t (*bytes)(const lam_cuda_update_options *options);

    /* State from the host to the device and back; arena as lam_optimizer_state, [trainable] each; average may be NULL. Both
     * wait for the device. */
    lam_status (*push)(lam_cuda_update *update, float *const *arena, const float *average, int64_t updates,
                       int64_t skipped, int64_t skipped_in_row);
    lam_status (*pull)(const lam_cuda_update *update, float *const *arena, float *average);

    /* Enqueued on the stream of the graphs, but not captured: the values are those of the call. */
    void (*set)(lam_cuda_update *update, const lam_cuda_update_input *input);
    /* The following are enqueued there, too, and may be captured. */
    void (*add_loss)(lam_cuda_update *update, const float *loss); /* on the device */
    lam_status (*enqueue)(lam_cuda_update *update);
    void (*outcome)(const lam_cuda_update *update, lam_cuda_update_outcome *pinned);

    /* On the device: the sum of losses of the step so far, for the ranks to add up before `enqueue`, which ends it. */
    double *(*loss)(const lam_cuda_update *update);
    /* Makes the plans of the products of `enqueue` (products.h), which can be timed here and not while they are captured, by products
     * of what nobody reads. */
    lam_status (*plan_products)(lam_cuda_update *update);
} lam_cuda_updates;

typedef const lam_cuda_updates *
lam_cuda_updates_function(void); /* the module exports it as lam_cuda_updates_get */

#ifdef __cplusplus
}
#endif
#endif
