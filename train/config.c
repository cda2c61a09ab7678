#include "train/config.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/memory.h"
#include "train/step_plan.h"

#define INT(path, fallback, help, low, high)                                                                 \
    { path, LAM_CONFIG_INT, fallback, help, low, high, NULL }
#define FLOAT(path, fallback, help, low, high)                                                               \
    { path, LAM_CONFIG_FLOAT, fallback, help, low, high, NULL }
#define BOOL(path, fallback, help)                                                                           \
    { path, LAM_CONFIG_BOOL, fallback, help, 0, 0, NULL }
#define TEXT(path, fallback, help)                                                                           \
    { path, LAM_CONFIG_TEXT, fallback, help, 0, 0, NULL }
#define NAMES(path, fallback, help)                                                                          \
    { path, LAM_CONFIG_NAMES, fallback, help, 0, 0, NULL }
#define CHOICE(path, fallback, help, choices)                                                                \
    { path, LAM_CONFIG_CHOICE, fallback, help, 0, 0, choices }

/* Choices are in the order of the enumeration that they become, but for networks and update rules, which have their tables. */
const lam_config_key lam_train_keys[] = {
    CHOICE("model.name", "mae_vit", "network", "mae_vit|mae_vit_parallel|mae_channel_agnostic"),
    INT("model.embed_dim", "384", "width of the encoder", 1, 65536),
    INT("model.depth", "12", "transformer blocks of the encoder", 1, 1000),
    INT("model.num_heads", "6", "attention heads of the encoder", 1, 1024),
    INT("model.patch_size", "16", "side of a patch in pixels", 1, 1024),
    INT("model.image_size", "256", "side of a crop in pixels", 1, 8192),
    INT("model.in_channels", "0", "channels of a crop; 0: those of the shards", 0, 1024),
    FLOAT("model.mask_ratio", "0.75", "share of the patches that the encoder does not see", 0, 0.999),
    FLOAT("model.mask_ratio_end", "0",
          "share at the end of the run, reached in five equal stretches; 0: model.mask_ratio throughout", 0,
          0.999),
    CHOICE("model.masking", "random",
           "which patches are hidden: any, rectangles, any in each channel apart, or whole channels",
           "random|block|per_channel|whole_channel"),
    FLOAT("model.decode_ratio", "1", "share of the hidden patches that are decoded and count in the loss",
          0.001, 1),
    CHOICE("model.positions", "sincos", "of the patches: fixed sines and cosines, or learned",
           "sincos|learned"),
    FLOAT("model.mlp_ratio", "4", "hidden width of a block over its width", 0.125, 64),
    INT("model.mlp_dim", "0", "hidden width of a block of the encoder; 0: by mlp_ratio", 0, 1048576),
    INT("model.decoder_embed_dim", "512", "width of the decoder", 1, 65536),
    INT("model.decoder_depth", "8", "transformer blocks of the decoder", 1, 1000),
    INT("model.decoder_num_heads", "16", "attention heads of the decoder", 1, 1024),
    BOOL("model.norm_pix_loss", "false", "targets standardised within each patch"),
    FLOAT(
        "model.drop_path", "0",
        "share of the samples that skip a branch of the encoder's last block; falls linearly to 0 at the first",
        0, 0.9),
    CHOICE("model.decoder", "cross", "of mae_channel_agnostic: blocks for each channel, or one stack for all",
           "cross|shared"),
    INT("model.channels_per_step", "0",
        "channels that a step sees, drawn anew each time (shared decoder); 0: all", 0, LAM_MAX_CHANNELS),
    NAMES("model.channel_tokens", "",
          "channels that the decoder of mae_channel_agnostic knows; none: those of the shards"),
    CHOICE(
        "model.fourier", "none",
        "loss of Fourier amplitudes: of the crop, of each patch, or as the code of Kraus et al. 2024 computes it",
        "none|image|patch|recursion_compat"),
    FLOAT("model.fourier_alpha", "0.01", "its share a: the loss is (1 - a) squares + a Fourier", 0, 0.999),
    CHOICE("model.fourier_norm", "l1", "of the differences of amplitudes: absolute or squared", "l1|l2"),
    FLOAT("model.layer_norm_eps", "1e-6", "added to the variance in the norms of mae_vit", 1e-15, 0.01),
    CHOICE("model.bias_layout", "all",
           "of mae_vit_parallel and mae_channel_agnostic: every bias is trained, or those that export --to "
           "openphenom can write for timm <= 1.0.24 (legacy), or for >= 1.0.25 (fixed)",
           "all|legacy|fixed"),

    TEXT("data.path", NULL, "folder of shards (lamella pack)"),
    INT("data.crops_per_image", "1", "crops drawn from an image in an epoch", 1, 1000000),
    BOOL("data.flips", "true", "random mirrors"),
    BOOL("data.rotations", "true", "random quarter turns"),
    CHOICE("data.normalize", "crop", "pixels standardised by crop, plate or dataset, channel by channel",
           "crop|plate|dataset"),
    CHOICE("data.transform", "none", "of the pixels, before they are standardised", "none|sqrt|log"),
    FLOAT("data.minimum_foreground", "0",
          "crops with a smaller share of bright pixels are drawn again; 0: off", 0, 1),
    TEXT("data.validation_column", "", "metadata column that says which images are for validation"),
    TEXT("data.validation_group", "", "value in that column of the images for validation"),
    FLOAT("data.validation_fraction", "0",
          "share of the groups (pack --group, else plate and well) for validation; 0: none", 0, 0.9),
    BOOL("data.strict", "false", "a damaged image ends the run instead of being skipped"),
    INT("data.threads", "0", "threads that decode; 0: half of --threads", 0, 1024),

    TEXT("train.out", "runs/train", "run folder"),
    TEXT("train.init", "", "CHECKPOINT whose weights the run begins with, lamella's or another program's"),
    INT("train.epochs", "100", "passes over the data, where steps is 0", 1, 1000000000),
    INT("train.steps", "0", "updates of the whole run; 0: by epochs", 0, 1000000000),
    INT("train.global_batch", "256", "crops of one update, over all ranks", 1, 16777216),
    INT("train.micro_batch", "0", "crops in memory at once on a rank; 0: its whole share", 0, 16777216),
    CHOICE("train.precision", "f32", "type of the activations; weights, statistics and sums are f32 in both",
           "f32|bf16"),
    BOOL("train.stochastic_rounding", "false",
         "with bf16: weights rounded at random in each step, not to the nearest"),
    CHOICE("train.recompute", "none", "what the backward pass computes again instead of keeping it",
           "none|norm_gelu|block"),
    TEXT("train.memory_budget", "",
         "such as 8GiB: the least recomputation, from train.recompute on, that fits a rank; empty: no limit"),
    INT("train.seed", "0", "of weights, crops, masks and order", 0, 9007199254740991.0),
    INT("train.checkpoint_every", "1000", "steps between checkpoints; 0: at the end only", 0, 1000000000),
    INT("train.keep_last", "2", "newest checkpoints that are kept", 1, 1000000),
    INT("train.keep_every", "0", "checkpoints of steps divisible by this are kept too; 0: none", 0,
        1000000000),
    INT("train.validate_every", "500", "steps between validations, where validation images are named", 1,
        1000000000),
    INT("train.pictures_every", "0", "steps between pictures of reconstructions; 0: at the end only", 0,
        1000000000),
    INT("train.max_skipped_steps", "10", "non-finite steps in a row that end the run", 1, 1000000),

    CHOICE("optim.name", "adamw", "update rule (schedulefree needs optim.schedule constant)",
           "adamw|lion|lamb|muon|schedulefree"),
    FLOAT("optim.lr", "1.5e-4", "highest learning rate", 0, 1000),
    FLOAT("optim.beta1", "0.9", "first decay of moments (onecycle cycles it between 0.85 and 0.95)", 0,
          0.99999),
    FLOAT("optim.beta2", "0.95", "second decay of moments", 0, 0.9999999),
    FLOAT("optim.momentum", "0.95", "momentum of matrices (muon)", 0, 0.99999),
    FLOAT("optim.eps", "1e-8", "added to the root of the second moment (all but lion)", 1e-15, 1),
    FLOAT("optim.weight_decay", "0.05", "decoupled decay of matrices and tokens", 0, 1000),
    FLOAT("optim.layer_decay", "1", "learning rate of a block over that of the next one; 1: the same for all",
          0.01, 1),
    CHOICE("optim.schedule", "cosine", "of the learning rate", "cosine|onecycle|constant"),
    FLOAT("optim.warmup", "0.05", "share of the steps in which the rate rises", 0, 1),
    FLOAT("optim.min_lr", "0", "learning rate at the end (cosine)", 0, 1000),
    FLOAT("optim.clip_norm", "0", "largest norm of all gradients together; 0: not clipped", 0, 1e30),
    FLOAT("optim.ema", "0",
          "decay of the moving average of weights (embed --ema takes it), as 0.999; 0: no average", 0,
          0.9999999),
    {NULL, LAM_CONFIG_INT, NULL, NULL, 0, 0, NULL}};

/* Keys that matter beside some choices of another key alone. */
static const struct {
    const char *key, *beside, *choices;
} belongings[] = {{"model.decoder", "model.name", "mae_channel_agnostic"},
                  {"model.layer_norm_eps", "model.name", "mae_vit"},
                  {"model.bias_layout", "model.name", "mae_vit_parallel|mae_channel_agnostic"},
                  {"model.fourier_alpha", "model.fourier", "image|patch|recursion_compat"},
                  {"model.fourier_norm", "model.fourier", "image|patch|recursion_compat"},
                  {"optim.momentum", "optim.name", "muon"},
                  {"optim.eps", "optim.name", "adamw|lamb|muon|schedulefree"},
                  {"optim.beta1", "optim.schedule", "cosine|constant"},
                  {"optim.min_lr", "optim.schedule", "cosine"}};

/* "0.010" is the default "0.01". */
static bool is_default(const lam_config *config, const char *path) {
    const char *text = lam_config_text(config, path);
    for (const lam_config_key *key = lam_train_keys; key->path; key++)
        if (!strcmp(key->path, path))
            return key->type == LAM_CONFIG_FLOAT ? strtod(text, NULL) == strtod(key->default_value, NULL)
                                                 : !strcmp(text, key->default_value);
    return true;
}

void lam_config_warn_unused(const lam_config *config) {
    for (size_t i = 0; i < sizeof belongings / sizeof *belongings; i++) {
        const char *key = belongings[i].key, *beside = belongings[i].beside,
                   *choice = lam_config_text(config, beside);
        if (is_default(config, key) || lam_text_place(belongings[i].choices, '|', choice) >= 0) continue;
        lam_log_warning("%s: %s has no effect with %s: %s; it belongs to %s", key,
                        lam_config_text(config, key), beside, choice, belongings[i].choices);
    }
}

int64_t lam_name_count(const char *names) {
    int64_t count = names[0] != 0;
    for (; *names; names++) count += *names == ',';
    return count;
}

static int64_t round_positive(double value) { return (int64_t)(value + 0.5); }

/* What the rule and the other keys of the section do not allow together. */
static lam_status check_optimizer(const lam_settings *s, const char *name, const char *schedule) {
    if (!s->optimizer->averaged) return LAM_OK;
    LAM_REQUIRE(
        s->schedule.kind == LAM_SCHEDULE_CONSTANT, LAM_ERROR_CONFIG,
        "optim.schedule: %s, but optim.name %s averages weights instead of lowering the rate; take constant",
        schedule, name);
    LAM_REQUIRE(s->schedule.beta1 > 0, LAM_ERROR_CONFIG,
                "optim.beta1: 0, but optim.name %s trains between its average and its last weights; take 0.9",
                name);
    LAM_REQUIRE(s->ema == 0, LAM_ERROR_CONFIG,
                "optim.ema: %g, but optim.name %s averages weights by itself; take 0", s->ema, name);
    return LAM_OK;
}

static lam_status optimizer_settings(const lam_config *c, lam_settings *s) {
    const char *name = lam_config_text(c, "optim.name"), *schedule = lam_config_text(c, "optim.schedule");
    s->optimizer = lam_optimizer_find(name);
    LAM_REQUIRE(s->optimizer, LAM_ERROR_INTERNAL, "optim.name: no rule %s", name);
    s->beta2 = lam_config_float(c, "optim.beta2");
    s->eps = lam_config_float(c, "optim.eps");
    s->weight_decay = lam_config_float(c, "optim.weight_decay");
    s->clip_norm = lam_config_float(c, "optim.clip_norm");
    s->momentum = lam_config_float(c, "optim.momentum");
    s->layer_decay = lam_config_float(c, "optim.layer_decay");
    s->ema = lam_config_float(c, "optim.ema");
    double warmup = lam_config_float(c, "optim.warmup");
    s->own_warmup = s->optimizer->averaged ? warmup : 0;
    s->schedule = (lam_schedule){.kind = (lam_schedule_kind)lam_config_choice(c, "optim.schedule"),
                                 .warmup = s->optimizer->averaged ? 0 : warmup,
                                 .lr = lam_config_float(c, "optim.lr"),
                                 .min_lr = lam_config_float(c, "optim.min_lr"),
                                 .beta1 = lam_config_float(c, "optim.beta1")};
    return check_optimizer(s, name, schedule);
}

lam_status lam_settings_from(const lam_config *c, lam_settings *s) {
    memset(s, 0, sizeof *s);
    lam_mae_config *m = &s->model;
    double mlp_ratio = lam_config_float(c, "model.mlp_ratio");
    LAM_TRY(lam_mae_kind_of(lam_config_text(c, "model.name"), &m->kind));
    m->image_size = lam_config_int(c, "model.image_size");
    m->patch_size = lam_config_int(c, "model.patch_size");
    m->in_channels = lam_config_int(c, "model.in_channels");
    m->embed_dim = lam_config_int(c, "model.embed_dim");
    m->depth = lam_config_int(c, "model.depth");
    m->num_heads = lam_config_int(c, "model.num_heads");
    m->mlp_dim = lam_config_int(c, "model.mlp_dim");
    if (!m->mlp_dim) m->mlp_dim = round_positive(mlp_ratio * (double)m->embed_dim);
    m->decoder_embed_dim = lam_config_int(c, "model.decoder_embed_dim");
    m->decoder_depth = lam_config_int(c, "model.decoder_depth");
    m->decoder_num_heads = lam_config_int(c, "model.decoder_num_heads");
    m->decoder_mlp_dim = round_positive(mlp_ratio * (double)m->decoder_embed_dim);
    LAM_REQUIRE(m->mlp_dim > 0 && m->decoder_mlp_dim > 0, LAM_ERROR_CONFIG,
                "model.mlp_ratio: %g leaves no hidden width; take a larger one", mlp_ratio);
    m->mask_ratio = lam_config_float(c, "model.mask_ratio");
    s->mask_ratio_end = lam_config_float(c, "model.mask_ratio_end");
    m->masking = (lam_masking)lam_config_choice(c, "model.masking");
    m->decode_ratio = lam_config_float(c, "model.decode_ratio");
    m->learned_positions = lam_config_choice(c, "model.positions") == 1;
    m->norm_pix_loss = lam_config_bool(c, "model.norm_pix_loss");
    m->drop_path = lam_config_float(c, "model.drop_path");
    m->decoder = (lam_decoder)lam_config_choice(c, "model.decoder");
    m->channels_per_step = lam_config_int(c, "model.channels_per_step");
    m->channel_tokens = lam_name_count(lam_config_text(c, "model.channel_tokens"));
    LAM_REQUIRE(m->kind == LAM_MAE_CHANNEL_AGNOSTIC || (m->channels_per_step == 0 && m->channel_tokens == 0),
                LAM_ERROR_CONFIG,
                "model.channels_per_step and model.channel_tokens are for mae_channel_agnostic");
    m->fourier = (lam_fourier_form)lam_config_choice(c, "model.fourier");
    m->fourier_alpha = lam_config_float(c, "model.fourier_alpha");
    m->fourier_squared = lam_config_choice(c, "model.fourier_norm") == 1;
    m->layer_norm_eps = lam_config_float(c, "model.layer_norm_eps");
    s->bias_layout =
        m->kind == LAM_MAE_VIT ? LAM_BIAS_ALL : (lam_bias_layout)lam_config_choice(c, "model.bias_layout");
    m->normalize = (lam_normalize)lam_config_choice(c, "data.normalize");
    m->transform = lam_config_choice(c, "data.transform");

    s->path = lam_config_text(c, "data.path");
    s->crops_per_image = lam_config_int(c, "data.crops_per_image");
    s->flips = lam_config_bool(c, "data.flips");
    s->rotations = lam_config_bool(c, "data.rotations");
    s->strict = lam_config_bool(c, "data.strict");
    s->minimum_foreground = lam_config_float(c, "data.minimum_foreground");
    s->validation_column = lam_config_text(c, "data.validation_column");
    s->validation_group = lam_config_text(c, "data.validation_group");
    s->validation_fraction = lam_config_float(c, "data.validation_fraction");
    s->loader_threads = (int)lam_config_int(c, "data.threads");
    LAM_REQUIRE(s->validation_column[0] == 0 || s->validation_fraction == 0, LAM_ERROR_CONFIG,
                "data.validation_column and data.validation_fraction are both given: take one");
    LAM_REQUIRE((s->validation_column[0] == 0) == (s->validation_group[0] == 0), LAM_ERROR_CONFIG,
                "data.validation_column and data.validation_group belong together: give both or none");

    s->out = lam_config_text(c, "train.out");
    s->init = lam_config_text(c, "train.init");
    s->epochs = lam_config_int(c, "train.epochs");
    s->steps = lam_config_int(c, "train.steps");
    s->global_batch = lam_config_int(c, "train.global_batch");
    s->micro_batch = lam_config_int(c, "train.micro_batch");
    s->bf16 = lam_config_choice(c, "train.precision") == 1;
    s->stochastic_rounding = lam_config_bool(c, "train.stochastic_rounding");
    LAM_REQUIRE(s->bf16 || !s->stochastic_rounding, LAM_ERROR_CONFIG,
                "train.stochastic_rounding: f32 rounds no weights; it belongs to train.precision: bf16");
    s->recompute = (lam_recompute)lam_config_choice(c, "train.recompute");
    const char *budget = lam_config_text(c, "train.memory_budget");
    if (budget[0]) LAM_TRY(lam_bytes_parse(budget, "train.memory_budget", &s->memory_budget));
    s->seed = (uint64_t)lam_config_int(c, "train.seed");
    m->seed = s->seed;
    s->checkpoint_every = lam_config_int(c, "train.checkpoint_every");
    s->keep_last = lam_config_int(c, "train.keep_last");
    s->keep_every = lam_config_int(c, "train.keep_every");
    s->validate_every = lam_config_int(c, "train.validate_every");
    s->pictures_every = lam_config_int(c, "train.pictures_every");
    s->max_skipped_steps = lam_config_int(c, "train.max_skipped_steps");
    LAM_REQUIRE(s->out[0], LAM_ERROR_CONFIG, "train.out is empty: name the run folder");

    return optimizer_settings(c, s);
}

/* The names of the shards' channels where none are given; else each of them must be there. */
static lam_status complete_channel_tokens(lam_config *config, lam_settings *s, const lam_shards *shards) {
    const char *names = lam_config_text(config, "model.channel_tokens");
    char *assignment = NULL;
    lam_status status = lam_text_copy(&assignment, "model.channel_tokens=");
    for (int64_t c = 0; c < lam_shards_channels(shards) && status == LAM_OK; c++) {
        const char *name = lam_shards_channel_name(shards, c);
        LAM_REQUIRE_GOTO(
            !strchr(name, ',') && *name, done, LAM_ERROR_CONFIG,
            "%s: the channel '%s' cannot be named in model.channel_tokens: pack it without a comma",
            lam_shards_path(shards), name);
        LAM_REQUIRE_GOTO(!names[0] || lam_text_place(names, ',', name) >= 0, done, LAM_ERROR_CONFIG,
                         "model.channel_tokens: lacks the channel %s of %s; add it, or leave the key out",
                         name, lam_shards_path(shards));
        char *longer = NULL;
        status = lam_text_format(&longer, "%s%s%s", assignment, c ? "," : "", name);
        lam_free(assignment);
        assignment = longer;
    }
    if (status == LAM_OK && !names[0]) {
        status = lam_config_set(config, assignment);
        if (status == LAM_OK) status = lam_settings_from(config, s);
    }
done:
    lam_free(assignment);
    return status;
}

lam_status lam_settings_for_shards(lam_config *config, lam_settings *s, const lam_shards *shards) {
    int64_t channels = lam_shards_channels(shards);
    if (s->model.in_channels == 0) {
        char assignment[64];
        snprintf(assignment, sizeof assignment, "model.in_channels=%" PRId64, channels);
        LAM_TRY(lam_config_set(config, assignment));
        LAM_TRY(lam_settings_from(config, s));
    }
    LAM_REQUIRE(s->model.in_channels == channels, LAM_ERROR_CONFIG,
                "model.in_channels: %" PRId64 ", but %s holds %" PRId64
                " channels; leave the key out to take them all",
                s->model.in_channels, lam_shards_path(shards), channels);
    LAM_REQUIRE(s->schedule.min_lr <= s->schedule.lr, LAM_ERROR_CONFIG,
                "optim.min_lr: %g, where the rate ends, but the highest, optim.lr, is %g; take a smaller one",
                s->schedule.min_lr, s->schedule.lr);
    LAM_REQUIRE(s->model.channels_per_step < channels, LAM_ERROR_CONFIG,
                "model.channels_per_step: %" PRId64 ", but %s holds %" PRId64 " channels; 0 takes them all",
                s->model.channels_per_step, lam_shards_path(shards), channels);
    if (s->model.kind == LAM_MAE_CHANNEL_AGNOSTIC) LAM_TRY(complete_channel_tokens(config, s, shards));
    s->model.pixel_type = lam_shards_pixel_type(shards) == LAM_PIXEL_U8 ? LAM_U8 : LAM_U16;
    return lam_mae_check(&s->model);
}
