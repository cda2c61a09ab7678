#include "train/import.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/cli.h"
#include "base/log.h"
#include "base/memory.h"
#include "train/foreign.h"
#include "train/foreign_sizes.h"
#include "train/network_parts.h"

/* ---- what nothing says ---- */

/* The published decoders have 16 heads, the encoders heads of 64. */
static lam_status complete(lam_foreign_sizes *s, const lam_foreign *file) {
    if (!s->has_decoder) { /* drawn, and used by nothing but a training from here */
        s->decoder_embed_dim = 16;
        s->decoder_depth = 1;
        s->decoder_num_heads = 1;
        s->decoder_mlp_dim = (int64_t)(16.0 * (double)s->mlp_dim / (double)s->embed_dim + 0.5);
    }
    if (!s->decoder_num_heads) s->decoder_num_heads = 16;
    if (s->layer_norm_eps <= 0) s->layer_norm_eps = 1e-6;
    if (s->num_heads) return LAM_OK;
    LAM_REQUIRE(s->embed_dim % 64 == 0, LAM_ERROR_INPUT,
                "%s: nothing says how many heads %" PRId64
                " wide blocks have: put a config.json with num_attention_heads beside it",
                file->path, s->embed_dim);
    s->num_heads = s->embed_dim / 64;
    lam_log_info("%s: no config.json says the heads of the encoder: %" PRId64 " of 64", file->path,
                 s->num_heads);
    return LAM_OK;
}

/* ---- configuration ---- */

/* Values of the file, set as if a configuration said them. */
typedef struct target {
    lam_config *config;
    const char *file;
} target;

static lam_status set_text(const target *t, const char *key, const char *value) {
    char *assignment = NULL;
    LAM_TRY(lam_text_format(&assignment, "%s=%s", key, value));
    lam_status status = lam_config_set_from(t->config, t->file, assignment);
    lam_free(assignment);
    return status == LAM_ERROR_CONFIG ? LAM_ERROR_INPUT : status; /* no configuration of the user's */
}

static lam_status set_int(const target *t, const char *key, int64_t value) {
    char number[32];
    snprintf(number, sizeof number, "%" PRId64, value);
    return set_text(t, key, number);
}

static lam_status set_float(const target *t, const char *key, double value) {
    char number[32];
    return set_text(t, key, lam_number_text(number, value));
}

/* channel_1, channel_2, ...: nothing in the file says what its channels show. */
static lam_status set_channel_tokens(const target *t, int64_t channels) {
    char *list = NULL;
    lam_status status = lam_text_copy(&list, "");
    for (int64_t c = 0; c < channels && status == LAM_OK; c++) {
        char *longer = NULL;
        status = lam_text_format(&longer, "%s%schannel_%" PRId64, list, c ? "," : "", c + 1);
        lam_free(list);
        list = longer;
    }
    if (status == LAM_OK) status = set_text(t, "model.channel_tokens", list);
    lam_free(list);
    return status;
}

static lam_status configure(const target *t, const lam_foreign_sizes *s) {
    double ratio = (double)s->mlp_dim / (double)s->embed_dim,
           decoder_ratio = (double)s->decoder_mlp_dim / (double)s->decoder_embed_dim;
    if (s->has_decoder && ratio != decoder_ratio) { /* the ratio is the decoder's */
        LAM_TRY(set_int(t, "model.mlp_dim", s->mlp_dim));
        ratio = decoder_ratio;
    }
    LAM_TRY(set_text(t, "model.name", lam_mae_name(s->kind)));
    LAM_TRY(set_int(t, "model.embed_dim", s->embed_dim));
    LAM_TRY(set_int(t, "model.depth", s->depth));
    LAM_TRY(set_int(t, "model.num_heads", s->num_heads));
    LAM_TRY(set_int(t, "model.patch_size", s->patch_size));
    LAM_TRY(set_int(t, "model.image_size", s->image_size));
    LAM_TRY(set_int(t, "model.in_channels", s->in_channels));
    LAM_TRY(set_float(t, "model.mlp_ratio", ratio));
    LAM_TRY(set_float(t, "model.mask_ratio", s->mask_ratio));
    LAM_TRY(set_float(t, "model.layer_norm_eps", s->layer_norm_eps));
    LAM_TRY(set_int(t, "model.decoder_embed_dim", s->decoder_embed_dim));
    LAM_TRY(set_int(t, "model.decoder_depth", s->decoder_depth));
    LAM_TRY(set_int(t, "model.decoder_num_heads", s->decoder_num_heads));
    if (s->kind == LAM_MAE_CHANNEL_AGNOSTIC) {
        LAM_TRY(set_text(t, "model.decoder", s->shared_decoder ? "shared" : "cross"));
        LAM_TRY(set_channel_tokens(t, s->in_channels));
    }
    LAM_TRY(set_text(t, "model.norm_pix_loss", s->norm_pix_loss ? "true" : "false"));
    return set_text(t, "data.path", "shards"); /* no key may be open; a network does not depend on it */
}

/* ---- how images were standardised ---- */

/* The feeder divides by sqrt(deviation^2 + 1e-5), other programs by the deviation. */
#define LEAST_DEVIATION 3.16e-3
static double deviation_of_feeder(double deviation) { return sqrt(fmax(deviation * deviation - 1e-5, 0)); }

static lam_status take_statistics(lam_network *network, const lam_beside *from, const char *mean,
                                  const char *deviation, bool *known) {
    bool means = false, deviations = false;
    LAM_TRY(lam_beside_numbers(from, mean, network->channels, -INFINITY, INFINITY, network->channel_mean,
                               &means));
    LAM_TRY(lam_beside_numbers(from, deviation, network->channels, LEAST_DEVIATION, 1e6,
                               network->channel_deviation, &deviations));
    LAM_REQUIRE(means == deviations, LAM_ERROR_INPUT, "%s: has %s without %s", from->path,
                means ? mean : deviation, means ? deviation : mean);
    for (int64_t c = 0; c < network->channels && means; c++)
        network->channel_deviation[c] = deviation_of_feeder(network->channel_deviation[c]);
    *known = means;
    return LAM_OK;
}

static void take_imagenet(lam_network *network) {
    static const double mean[3] = {0.485, 0.456, 0.406}, deviation[3] = {0.229, 0.224, 0.225};
    for (int c = 0; c < 3; c++) {
        network->channel_mean[c] = mean[c];
        network->channel_deviation[c] = deviation_of_feeder(deviation[c]);
    }
}

/* rescale_factor = 1 / (2^bits - 1). */
static lam_status read_bits(const lam_beside *from, int *bits) {
    double unit = 1.0 / 255;
    LAM_TRY(lam_beside_number(from, "rescale_factor", 1e-6, 1, &unit));
    double exact = log2(1 / unit + 1);
    *bits = (int)lround(exact);
    LAM_REQUIRE(*bits >= 1 && *bits <= 16 && fabs(exact - *bits) < 1e-3, LAM_ERROR_INPUT,
                "%s: rescale_factor is %g, due is one over the largest pixel, as 1/255 or 1/65535",
                from->path, unit);
    return LAM_OK;
}

static lam_status set_standardisation(lam_network *network, const lam_foreign *file) {
    bool known = false, normalized = true;
    int bits = 8;
    LAM_TRY(lam_beside_truth(&file->preprocessor, "do_normalize", &normalized));
    LAM_TRY(read_bits(&file->preprocessor, &bits));
    if (file->preprocessor.json && normalized) {
        LAM_TRY(take_statistics(network, &file->preprocessor, "image_mean", "image_std", &known));
    } else if (!file->preprocessor.json && file->family == LAM_FAMILY_TIMM) {
        LAM_TRY(take_statistics(network, &file->config, "pretrained_cfg.mean", "pretrained_cfg.std", &known));
        if (!known && network->channels == 3) {
            take_imagenet(network);
            known = true;
        }
    }
    for (int64_t c = 0; c < network->channels && known; c++) network->channel_bits[c] = bits;
    LAM_TRY(set_text(&(target){network->config, file->path}, "data.normalize", known ? "dataset" : "crop"));
    lam_log_info("%s: %s", file->path,
                 known ? "pixels are standardised by the mean and deviation of its training images"
                       : "pixels are standardised by crop and channel");
    return LAM_OK;
}

/* ---- weights ---- */

static lam_status read_weights(lam_network *network, lam_foreign *file) {
    lam_parameters *parameters = network->parameters;
    for (int64_t i = 0; i < parameters->entries; i++) {
        const lam_parameter_entry *p = &parameters->entry[i];
        bool found = false, table = p->init == LAM_INIT_FROZEN;
        LAM_TRY(lam_foreign_read(file, p, parameters->weights + p->offset, &found));
        LAM_REQUIRE(found || table || (network->no_decoder && lam_network_of_decoder(p->name)),
                    LAM_ERROR_INPUT, "%s: lacks the tensor %s%s", file->path, file->prefix, p->name);
    }
    return lam_foreign_check_unused(file);
}

/* What the networks here can be. */
static lam_status settle(lam_network *network, const char *path) {
    lam_status status = lam_config_check(network->config);
    if (status == LAM_OK) status = lam_settings_from(network->config, &network->settings);
    if (status == LAM_OK) status = lam_mae_check_encoder(&network->settings.model);
    return status == LAM_ERROR_CONFIG ? lam_fail_context(LAM_ERROR_INPUT, "%s", path) : status;
}

static lam_status import(lam_network *network, lam_foreign *file, const uint64_t *untrained_seed) {
    lam_foreign_sizes s;
    bool learned = false;
    LAM_TRY(lam_foreign_sizes_read(file, &s));
    LAM_TRY(complete(&s, file));
    LAM_TRY(lam_config_parse(&network->config, lam_train_keys, "{}", 2, file->path));
    LAM_TRY(configure(&(target){network->config, file->path}, &s));
    if (lam_foreign_find(file, "encoder.vit_backbone.blocks.0.mlp_bias", &(lam_foreign_source){0}))
        LAM_TRY(set_text(&(target){network->config, file->path}, "model.bias_layout",
                         file->fixed_bias ? "fixed" : "legacy"));
    LAM_TRY(lam_network_add_channels(network, s.in_channels));
    for (int64_t c = 0; c < s.in_channels; c++)
        LAM_TRY(lam_text_format(&network->channel_names[c], "channel_%" PRId64, c + 1));
    LAM_TRY(set_standardisation(network, file));
    LAM_TRY(settle(network, file->path));
    LAM_TRY(lam_foreign_positions_learned(file, &network->settings.model, &s, &learned));
    if (learned) {
        LAM_TRY(set_text(&(target){network->config, file->path}, "model.positions", "learned"));
        network->settings.model.learned_positions = true;
    }
    LAM_TRY(lam_network_add_channel_tokens(network));
    network->settings.model.pixel_type = LAM_U8; /* until shards say otherwise; no weight depends on it */
    network->unnamed = true;
    network->no_decoder = !s.has_decoder;
    LAM_TRY(lam_network_add_parameters(network, untrained_seed ? *untrained_seed : 0));
    return untrained_seed ? LAM_OK : read_weights(network, file);
}

lam_status lam_import_network(lam_network **out, const char *path, const uint64_t *untrained_seed) {
    lam_network *network = NULL;
    lam_foreign file = {0};
    *out = NULL;
    LAM_TRY(lam_foreign_open(&file, path));
    lam_status status = lam_alloc((void **)&network, sizeof *network);
    if (status == LAM_OK) status = import(network, &file, untrained_seed);
    if (status == LAM_OK)
        *out = network;
    else
        lam_network_free(&network);
    lam_foreign_close(&file);
    return status;
}

lam_status lam_import_check(const lam_network *network, const char *path) {
    const lam_parameters *parameters = network->parameters;
    lam_weights *weights = NULL;
    lam_status status = LAM_OK;
    LAM_TRY(lam_weights_open(&weights, path));
    for (int64_t i = 0; i < parameters->entries; i++) {
        const lam_parameter_entry *p = &parameters->entry[i];
        const lam_weights_entry *entry = lam_weights_find(weights, p->name);
        if (entry) LAM_TRY_GOTO(lam_weights_check_type(weights, entry), done);
        LAM_TRY_GOTO(lam_weights_check_values(path, p->name, parameters->weights + p->offset, p->count),
                     done);
    }
done:
    lam_weights_close(weights);
    return status;
}
