/* An update of the weights on the device, without the host: guard, clipping, rule, average. The formulas are those of
 * model/optimizer.h; whether a step counts is decided where its gradients are.
 *
 *     lam_device_update *u;
 *     LAM_TRY(backend->update->open(&u, parameters, optimizer, average, held, held_count));
 *     LAM_TRY(backend->update->push(u, arenas, average, &counts));           // of a checkpoint; open: zeros, rule's start
 *     ... record ...
 *     LAM_TRY(backend->update->begin(u));                                     // loss = 0
 *     LAM_TRY(backend->update->add_loss(u, loss));                            // of each micro-batch
 *     ... the loss (backend->update->loss(u)) and the gradients are summed over ranks ...
 *     LAM_TRY(backend->update->give(u));                                      // everything below
 *     ... recorded; then for every step ...
 *     LAM_TRY(backend->update->set(u, &terms));                               // before the replay
 *     LAM_TRY(backend->update->report(u, &ticket));                           // after it: the outcome leaves the device
 *     LAM_TRY(backend->update->outcome(u, ticket, &outcome));                 // waits for it
 *
 * give: zeros in the held ranges of the gradients; sum of squares of all gradients in double over fixed blocks; the step is
 * skipped, and nothing is written, where terms.rows is 0 or the loss or the norm is not finite; gradients are multiplied by
 * clip_norm / norm where that is less than 1 (clip_norm 0: never) as they are read; the rule with t = updates + 1, its factors
 * from t in double; average = as lam_average_step with decay `ema`. All on lam_cuda_stream(), no host, no allocation. C and CUDA. */
#ifndef LAMELLA_MODEL_CUDA_UPDATE_H
#define LAMELLA_MODEL_CUDA_UPDATE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "model/optimizer.h"
#include "model/parameters.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lam_device_update lam_device_update;

/* What a step says. */
typedef struct lam_device_terms {
    double lr, beta1, beta2, eps, weight_decay, momentum, warmup, clip_norm, ema;
    int64_t rows; /* valid crops over all ranks */
} lam_device_terms;

typedef struct lam_device_counts {
    int64_t updates, skipped, skipped_in_row;
} lam_device_counts;

typedef struct lam_device_outcome {
    lam_device_counts counts; /* after the step */
    double loss, gradient_norm, rate; /* rate: lr, or what the rule made of it */
    int32_t skipped;          /* 1: this step was */
    int32_t non_finite;       /* of a skipped step: index of the first parameter (entry) with a gradient that is not finite; -1: none */
} lam_device_outcome;

/* Elements of the gradient arena. */
typedef struct lam_held_range {
    int64_t begin, count;
} lam_held_range;

typedef struct lam_update_interface {
    /* average: one of the weights is kept. Parameters and optimizer are borrowed; held is copied. */
    lam_status (*open)(lam_device_update **out, const lam_parameters *parameters, const lam_optimizer *optimizer,
                       bool average, const lam_held_range *held, int64_t held_count);
    void (*close)(lam_device_update *update); /* NULL allowed */
    /* From and to the host: arenas [optimizer->arenas][trainable], average [trainable] (NULL: none), counts. */
    lam_status (*push)(lam_device_update *update, float *const *arenas, const float *average,
                       const lam_device_counts *counts);
    lam_status (*pull)(lam_device_update *update, float *const *arenas, float *average);
    lam_status (*begin)(lam_device_update *update);
    lam_status (*add_loss)(lam_device_update *update, const float *loss);
    float *(*loss)(lam_device_update *update); /* one element on the device */
    lam_status (*give)(lam_device_update *update);
    lam_status (*set)(lam_device_update *update, const lam_device_terms *terms);
    /* At most LAM_DEVICE_REPORTS are under way. */
    lam_status (*report)(lam_device_update *update, int64_t *ticket);
    lam_status (*outcome)(lam_device_update *update, int64_t ticket, lam_device_outcome *out);
    int64_t (*bytes)(const lam_parameters *parameters, const lam_optimizer *optimizer, bool average);
} lam_update_interface;

enum { LAM_DEVICE_REPORTS = 4 };

#ifdef __cplusplus
}
#endif
#endif
