#include "train/network.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cli.h"
#include "base/json.h"
#include "base/memory.h"
#include "base/safetensors.h"
#include "base/weights_file.h"
#include "train/import.h"
#include "train/network_parts.h"

bool lam_network_of_decoder(const char *parameter) {
    return !strncmp(parameter, "decoder", 7) || !strncmp(parameter, "encoder_decoder", 15);
}

lam_status lam_network_add_parameters(lam_network *network, uint64_t seed) {
    const lam_mae_config *model = &network->settings.model;
    LAM_TRY(lam_mae_check_encoder(model));
    LAM_TRY(lam_parameters_create(&network->parameters));
    LAM_TRY(lam_mae_parameters(network->parameters, model));
    LAM_TRY(lam_parameters_layout(network->parameters, seed));
    lam_mae_fill_positions(network->parameters, model);
    return LAM_OK;
}

/* Which of the decoder's channel tokens each channel has. */
lam_status lam_network_add_channel_tokens(lam_network *network) {
    lam_mae_config *model = &network->settings.model;
    if (model->kind != LAM_MAE_CHANNEL_AGNOSTIC) return LAM_OK;
    const char *names = lam_config_text(network->config, "model.channel_tokens");
    LAM_TRY(lam_alloc_array((void **)&network->channel_token, network->channels, sizeof(int32_t)));
    for (int64_t c = 0; c < network->channels; c++) {
        int token = lam_text_place(names, ',', network->channel_names[c]);
        LAM_REQUIRE(token >= 0, LAM_ERROR_CONFIG, "model.channel_tokens lacks the channel %s",
                    network->channel_names[c]);
        network->channel_token[c] = token;
    }
    model->channel_token = network->channel_token;
    return LAM_OK;
}

static lam_status create(lam_network *network, const lam_shards *shards, uint64_t seed) {
    LAM_TRY(lam_settings_from(network->config, &network->settings));
    LAM_TRY(lam_settings_for_shards(network->config, &network->settings, shards));
    LAM_TRY(lam_network_add_channels(network, lam_shards_channels(shards)));
    for (int64_t c = 0; c < network->channels; c++) {
        LAM_TRY(lam_text_copy(&network->channel_names[c], lam_shards_channel_name(shards, c)));
        network->channel_bits[c] = lam_shards_channel_bits(shards, c);
        lam_shards_channel_stats(shards, -1, c, (lam_transform)network->settings.model.transform,
                                 &network->channel_mean[c], &network->channel_deviation[c]);
    }
    LAM_TRY(lam_network_add_channel_tokens(network));
    return lam_network_add_parameters(network, seed);
}

lam_status lam_network_create(lam_network **out, lam_config *config, const lam_shards *shards,
                              uint64_t seed) {
    lam_network *network = NULL;
    *out = NULL;
    lam_status status = lam_alloc((void **)&network, sizeof *network);
    if (status != LAM_OK) {
        lam_config_free(config);
        return status;
    }
    network->config = config;
    status = create(network, shards, seed);
    if (status == LAM_OK)
        *out = network;
    else
        lam_network_free(&network);
    return status;
}

void lam_network_free(lam_network **network) {
    lam_network *n = *network;
    if (!n) return;
    lam_network_free_channels(n);
    lam_parameters_free(n->parameters);
    lam_config_free(n->config);
    lam_free(n);
    *network = NULL;
}

static lam_status read_channels(lam_network *network, const char *text, const char *path) {
    lam_json *json = NULL;
    LAM_TRY(lam_json_parse(&json, text, strlen(text), path));
    lam_status status = LAM_OK;
    LAM_REQUIRE_GOTO(lam_json_is_array(json) && lam_json_size(json) > 0 && lam_json_size(json) <= 1024, done,
                     LAM_ERROR_FORMAT, "%s: lamella_channels is not a list of 1 to 1024 channels", path);
    LAM_TRY_GOTO(lam_network_add_channels(network, (int64_t)lam_json_size(json)), done);
    for (int64_t c = 0; c < network->channels; c++) {
        const lam_json *channel = lam_json_at(json, (size_t)c);
        const char *name = lam_json_text(lam_json_get(channel, "name"), NULL);
        double deviation = lam_json_float(lam_json_get(channel, "deviation"), -1);
        LAM_REQUIRE_GOTO(name && deviation >= 0, done, LAM_ERROR_FORMAT,
                         "%s: channel %" PRId64 " of lamella_channels lacks name or deviation", path, c);
        LAM_TRY_GOTO(lam_text_copy(&network->channel_names[c], name), done);
        network->channel_bits[c] = (int)lam_json_int(lam_json_get(channel, "bits"), 0);
        network->channel_mean[c] = lam_json_float(lam_json_get(channel, "mean"), 0);
        network->channel_deviation[c] = deviation;
    }
done:
    lam_json_free(json);
    return status;
}

static lam_status read_weights(lam_network *network, lam_safetensors *file, const char *path) {
    for (int64_t i = 0; i < network->parameters->entries; i++) {
        const lam_parameter_entry *p = &network->parameters->entry[i];
        const lam_safetensors_entry *e = lam_safetensors_find(file, p->name);
        LAM_REQUIRE(e, LAM_ERROR_INPUT, "%s: lacks the tensor %s of the configured network", path, p->name);
        bool same = e->rank == p->rank;
        for (int a = 0; same && a < p->rank; a++) same = e->shape[a] == p->shape[a];
        LAM_REQUIRE(same && e->count == p->count, LAM_ERROR_INPUT,
                    "%s: tensor %s has another shape than the configured network: the model section differs",
                    path, p->name);
        LAM_TRY(lam_safetensors_read_f32(file, e, network->parameters->weights + p->offset));
    }
    return LAM_OK;
}

lam_status lam_network_read_weights(lam_network *network, const char *path) {
    lam_safetensors *file = NULL;
    LAM_TRY(lam_safetensors_open(&file, path));
    lam_status status = read_weights(network, file, path);
    lam_safetensors_close(file);
    return status;
}

static lam_status read(lam_network *network, lam_safetensors *file, const char *path,
                       const uint64_t *untrained_seed) {
    const char *config = lam_safetensors_metadata(file, "lamella_config");
    const char *channels = lam_safetensors_metadata(file, "lamella_channels");
    const char *step = lam_safetensors_metadata(file, "lamella_step");
    LAM_REQUIRE(
        config && channels, LAM_ERROR_FORMAT,
        "%s: holds no configuration of a network (metadata lamella_config): it was not written by lamella train",
        path);
    LAM_TRY(lam_config_parse(&network->config, lam_train_keys, config, strlen(config), path));
    LAM_TRY(lam_config_check(network->config));
    LAM_TRY(lam_settings_from(network->config, &network->settings));
    LAM_TRY(read_channels(network, channels, path));
    LAM_REQUIRE(network->settings.model.in_channels == network->channels, LAM_ERROR_FORMAT,
                "%s: the configuration says %" PRId64 " channels, lamella_channels lists %" PRId64, path,
                network->settings.model.in_channels, network->channels);
    LAM_TRY(lam_network_add_channel_tokens(network));
    network->step = step ? strtoll(step, NULL, 10) : 0;
    network->settings.model.pixel_type = LAM_U8; /* until shards say otherwise; no weight depends on it */
    LAM_TRY(lam_network_add_parameters(network, untrained_seed ? *untrained_seed : 0));
    if (untrained_seed) {
        network->step = 0;
        return LAM_OK;
    }
    return read_weights(network, file, path);
}

static lam_status is_ours(const char *path, bool *ours) {
    lam_weights *weights = NULL;
    LAM_TRY(lam_weights_open(&weights, path));
    *ours = lam_weights_metadata(weights, "lamella_config") != NULL;
    lam_weights_close(weights);
    return LAM_OK;
}

lam_status lam_network_read(lam_network **out, const char *path, const uint64_t *untrained_seed) {
    lam_network *network = NULL;
    lam_safetensors *file = NULL;
    bool ours = false;
    *out = NULL;
    LAM_TRY(is_ours(path, &ours));
    if (!ours) return lam_import_network(out, path, untrained_seed);
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_safetensors_open(&file, path), done);
    LAM_TRY_GOTO(lam_alloc((void **)&network, sizeof *network), done);
    LAM_TRY_GOTO(read(network, file, path, untrained_seed), done);
    *out = network;
    network = NULL;
done:
    lam_safetensors_close(file);
    lam_network_free(&network);
    return status;
}

lam_status lam_network_resize(lam_network *network, int64_t image_size) {
    lam_mae_config before = network->settings.model;
    if (image_size == before.image_size) return LAM_OK;
    LAM_REQUIRE(image_size >= before.patch_size && image_size % before.patch_size == 0, LAM_ERROR_USAGE,
                "crops of %" PRId64 " pixels cannot be cut into the network's patches of %" PRId64
                "; take a multiple",
                image_size, before.patch_size);
    lam_parameters *old = network->parameters;
    network->parameters = NULL;
    network->settings.model.image_size = image_size;
    lam_status status = lam_network_add_parameters(network, 0);
    if (status == LAM_OK)
        status = lam_mae_resize(network->parameters, &network->settings.model, old, &before);
    lam_parameters_free(old);
    return status;
}

int64_t lam_network_elements(const lam_network *network) {
    const lam_parameters *p = network->parameters;
    int64_t elements = 0;
    for (int64_t i = 0; i < p->entries; i++) elements += p->entry[i].count;
    return elements;
}

lam_status lam_network_config_text(const lam_network *network, char **text) {
    LAM_TRY(lam_config_write(network->config, text));
    char *line = strstr(*text, "\n  out:");
    size_t length = line ? 1 + strcspn(line + 1, "\n") : 0;
    if (line) memmove(line, line + length, strlen(line + length) + 1);
    return LAM_OK;
}

static lam_status write_metadata(const lam_network *network, lam_safetensors_writer *writer, int64_t step) {
    char *config = NULL, *channels = NULL, number[32];
    lam_json *json = lam_json_array();
    for (int64_t c = 0; c < network->channels; c++) {
        lam_json *channel = lam_json_object();
        lam_json_set_text(channel, "name", network->channel_names[c]);
        lam_json_set_int(channel, "bits", network->channel_bits[c]);
        lam_json_set_float(channel, "mean", network->channel_mean[c]);
        lam_json_set_float(channel, "deviation", network->channel_deviation[c]);
        lam_json_append(json, channel);
    }
    snprintf(number, sizeof number, "%" PRId64, step);
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_json_dump(json, false, &channels), done);
    LAM_TRY_GOTO(lam_network_config_text(network, &config), done);
    LAM_TRY_GOTO(lam_safetensors_writer_metadata(writer, "format", "pt"), done);
    LAM_TRY_GOTO(lam_safetensors_writer_metadata(writer, "lamella_config", config), done);
    LAM_TRY_GOTO(lam_safetensors_writer_metadata(writer, "lamella_channels", channels), done);
    LAM_TRY_GOTO(lam_safetensors_writer_metadata(writer, "lamella_step", number), done);
    LAM_TRY_GOTO(lam_safetensors_writer_metadata(writer, "lamella_version", lam_version), done);
done:
    lam_json_free(json);
    lam_free(channels);
    lam_free(config);
    return status;
}

lam_status lam_network_write(const lam_network *network, const float *trained, const char *path,
                             int64_t step) {
    const lam_parameters *p = network->parameters;
    lam_safetensors_writer *writer = NULL;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_safetensors_writer_open(&writer, path), done);
    LAM_TRY_GOTO(write_metadata(network, writer, step), done);
    for (int64_t i = 0; i < p->entries; i++) {
        LAM_TRY_GOTO(lam_safetensors_writer_declare(writer, p->entry[i].name, "F32", p->entry[i].rank,
                                                    p->entry[i].shape),
                     done);
    }
    for (int64_t i = 0; i < p->entries; i++) {
        const float *values = trained && p->entry[i].offset < p->trainable ? trained : p->weights;
        LAM_TRY_GOTO(lam_safetensors_writer_data(writer, values + p->entry[i].offset,
                                                 (size_t)p->entry[i].count * sizeof(float)),
                     done);
    }
    return lam_safetensors_writer_commit(&writer);
done:
    lam_safetensors_writer_abort(&writer);
    return status;
}

lam_status lam_feeder_create(lam_feeder *feeder, const lam_network *network, const lam_shards *shards,
                             const int64_t *channel_map) {
    const lam_mae_config *model = &network->settings.model;
    int64_t plates = 0, channels = network->channels;
    memset(feeder, 0, sizeof *feeder);
    feeder->channels = channels;
    lam_shards_plates(shards, &plates);
    LAM_TRY(lam_alloc_array((void **)&feeder->scale, channels, sizeof(float)));
    LAM_TRY(lam_alloc_array((void **)&feeder->mean, plates * channels, sizeof(float)));
    LAM_TRY(lam_alloc_array((void **)&feeder->rstd, plates * channels, sizeof(float)));
    for (int64_t c = 0; c < channels; c++) {
        feeder->scale[c] =
            channel_map[c] < 0 ? 1.0f : (float)lam_shards_channel_scale(shards, channel_map[c]);
        for (int64_t p = 0; p < plates; p++) {
            double mean = network->channel_mean[c], deviation = network->channel_deviation[c];
            if (model->normalize == LAM_NORMALIZE_PLATE && channel_map[c] >= 0)
                lam_shards_channel_stats(shards, p, channel_map[c], (lam_transform)model->transform, &mean,
                                         &deviation);
            bool used = model->normalize != LAM_NORMALIZE_CROP;
            feeder->mean[p * channels + c] = used ? (float)mean : 0.0f;
            feeder->rstd[p * channels + c] = used ? (float)(1 / sqrt(deviation * deviation + 1e-5)) : 1.0f;
        }
    }
    return LAM_OK;
}

void lam_feeder_free(lam_feeder *feeder) {
    lam_free(feeder->scale);
    lam_free(feeder->mean);
    lam_free(feeder->rstd);
    memset(feeder, 0, sizeof *feeder);
}
