/* The configuration of a training run: the table of its keys, and what they resolve to.
 *
 *     LAM_TRY(lam_config_read(&config, lam_train_keys, "train.yaml"));
 *     LAM_TRY(lam_settings_from(config, &settings));
 *
 * lam_settings borrows its texts from the config. */
#ifndef LAMELLA_TRAIN_CONFIG_H
#define LAMELLA_TRAIN_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/config.h"
#include "data/shard.h"
#include "model/nets/mae.h"
#include "model/optimizer.h"
#include "train/schedule.h"

#ifdef __cplusplus
extern "C" {
#endif

extern const lam_config_key lam_train_keys[];

/* In the order of the choices of model.bias_layout. */
typedef enum lam_bias_layout { LAM_BIAS_ALL, LAM_BIAS_LEGACY, LAM_BIAS_FIXED } lam_bias_layout;

typedef struct lam_settings {
    lam_mae_config model;        /* in_channels 0 and pixel_type unset until the shards are known */
    double mask_ratio_end;       /* 0: the model's throughout */
    lam_bias_layout bias_layout; /* train/bias_layout.h */
    const char *path;
    int64_t crops_per_image;
    bool flips, rotations, strict;
    double minimum_foreground;
    const char *validation_column, *validation_group;
    double validation_fraction;
    int loader_threads;
    const char *out, *init;
    int64_t epochs, steps, global_batch, micro_batch;
    uint64_t seed;
    int64_t checkpoint_every, keep_last, keep_every, validate_every, pictures_every, max_skipped_steps;
    bool bf16, stochastic_rounding; /* of activations; of the weights that they meet */
    lam_recompute recompute;        /* at least */
    int64_t memory_budget;          /* bytes; 0: none */
    const lam_optimizer *optimizer;
    double beta2, eps, weight_decay, clip_norm, momentum, layer_decay;
    double ema;            /* 0: none */
    lam_schedule schedule; /* steps: set when the shards are known */
    /* Share of the steps in which a rule that follows no schedule raises its rate by itself. */
    double own_warmup;
} lam_settings;

/* One warning for each key that was given another value than its default and that the other keys leave without effect. No error:
 * checkpoints and sweeps may hold such keys. */
void lam_config_warn_unused(const lam_config *config);
lam_status lam_settings_from(const lam_config *config, lam_settings *settings);
/* Completes the model with what the shards say: pixel type, and the channels where the config leaves them open. */
lam_status lam_settings_for_shards(lam_config *config, lam_settings *settings, const lam_shards *shards);

/* How many names a list as lam_config_text gives it has; lam_text_place says where one stands. */
int64_t lam_name_count(const char *names);

#ifdef __cplusplus
}
#endif
#endif
