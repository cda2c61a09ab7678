#include "train/import.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/cli.h"
#include "base/log.h"
#include "base/memory.h"
#include "train/checkpoint.h"
#include "train/foreign.h"
#include "train/network_parts.h"

static bool starts_with(const char *text, const char *start) { return !strncmp(text, start, strlen(start)); }

static bool of_decoder(const char *name) {
    return starts_with(name, "decoder") || starts_with(name, "encoder_decoder");
}

/* ---- sizes ---- */

typedef struct sizes {
    const char *name; /* of the network */
    int64_t embed_dim, depth, num_heads, mlp_dim, patch_size, image_size, in_channels;
    int64_t decoder_embed_dim, decoder_depth, decoder_num_heads, decoder_mlp_dim;
    double mask_ratio, layer_norm_eps;
    bool norm_pix_loss, decoder, shared_decoder;
} sizes;

/* What the families name differently, in our names. */
typedef struct names {
    const char *cls, *positions, *projection, *block, *hidden, *to_decoder, *decoder_block, *decoder_hidden;
} names;

static const names vit = {"vit.embeddings.cls_token",
                          "vit.embeddings.position_embeddings",
                          "vit.embeddings.patch_embeddings.projection.weight",
                          "vit.encoder.layer.%" PRId64 ".output.dense.weight",
                          "vit.encoder.layer.0.output.dense.weight",
                          "decoder.decoder_embed.weight",
                          "decoder.decoder_layers.%" PRId64 ".output.dense.weight",
                          "decoder.decoder_layers.0.output.dense.weight"};
static const names parallel = {"encoder.vit_backbone.cls_token",
                               "encoder.vit_backbone.pos_embed",
                               "encoder.vit_backbone.patch_embed.proj.weight",
                               "encoder.vit_backbone.blocks.%" PRId64 ".mlp_out_proj.weight",
                               "encoder.vit_backbone.blocks.0.mlp_out_proj.weight",
                               "encoder_decoder_proj.weight",
                               "decoder.blocks.%" PRId64 ".mlp.fc2.weight",
                               "decoder.blocks.0.mlp.fc2.weight"};
static const char decoder_of_channel[] = "decoder.decoders.0.%" PRId64 ".mlp.fc2.weight";

/* Dimension `axis` of a tensor that has to be there with this rank. */
static lam_status dimension(const lam_foreign *file, const char *name, int rank, int axis, int64_t *out) {
    lam_foreign_source s;
    LAM_REQUIRE(lam_foreign_find(file, name, &s), LAM_ERROR_INPUT, "%s: lacks the tensor %s%s", file->path,
                file->prefix, name);
    LAM_REQUIRE(s.entry->rank == rank, LAM_ERROR_INPUT, "%s: tensor %s should have %d dimensions", file->path,
                s.entry->name, rank);
    *out = s.entry->shape[axis];
    return LAM_OK;
}

/* Blocks 0, 1, ... as far as they are there. */
static int64_t count_blocks(const lam_foreign *file, const char *format) {
    char name[160];
    lam_foreign_source s;
    int64_t count = 0;
    for (;; count++) {
        /* The format is one of the constants above. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        snprintf(name, sizeof name, format, count);
#pragma GCC diagnostic pop
        if (!lam_foreign_find(file, name, &s)) return count;
    }
}

static int64_t number_of(const lam_foreign *file, const char *key) {
    return lam_json_int(lam_json_get(file->config, key), 0);
}

/* Tokens of one channel: a table that is repeated for each channel begins anew where its second row comes again. */
static lam_status tokens_of_table(const lam_foreign *file, const char *name, int64_t *tokens) {
    lam_foreign_source s;
    int64_t width = 0;
    float *table = NULL;
    LAM_TRY(dimension(file, name, 3, 2, &width));
    lam_foreign_find(file, name, &s);
    int64_t rows = s.entry->shape[1];
    LAM_REQUIRE(rows >= 2 && s.entry->shape[0] == 1 && width > 0, LAM_ERROR_INPUT,
                "%s: tensor %s is no table of positions", file->path, s.entry->name);
    LAM_TRY(lam_alloc_array((void **)&table, s.entry->count, sizeof *table));
    lam_status status = lam_weights_read_f32(file->weights, s.entry, table);
    *tokens = rows - 1;
    for (int64_t r = 2; r < rows && status == LAM_OK; r++) {
        if (memcmp(table + width, table + r * width, (size_t)width * sizeof *table) != 0) continue;
        *tokens = r - 1;
        break;
    }
    lam_free(table);
    return status;
}

static lam_status read_grid(const lam_foreign *file, const names *n, sizes *s) {
    int64_t tokens = 0, width = 0;
    LAM_TRY(dimension(file, n->projection, 4, 3, &width));
    LAM_TRY(dimension(file, n->projection, 4, 2, &s->patch_size));
    LAM_TRY(dimension(file, n->projection, 4, 1, &s->in_channels));
    LAM_REQUIRE(width == s->patch_size, LAM_ERROR_INPUT, "%s: its patches are not square", file->path);
    if (s->in_channels == 1 && file->family == LAM_FAMILY_PARALLEL)
        LAM_TRY(tokens_of_table(file, n->positions, &tokens));
    else {
        LAM_TRY(dimension(file, n->positions, 3, 1, &tokens));
        tokens--;
    }
    int64_t side = (int64_t)(sqrt((double)tokens) + 0.5);
    LAM_REQUIRE(tokens > 0 && side * side == tokens, LAM_ERROR_INPUT,
                "%s: has positions for %" PRId64 " patches, which are no square image and one cls token",
                file->path, tokens);
    s->image_size = side * s->patch_size;
    return LAM_OK;
}

/* The channel-agnostic networks have one projection for all channels; their decoder tells how many it was trained on. */
static void find_channels(const lam_foreign *file, sizes *s) {
    char name[64];
    lam_foreign_source source;
    int64_t modalities = 0;
    for (;; modalities++) {
        snprintf(name, sizeof name, "decoder.modality_tokens.%" PRId64, modalities);
        if (!lam_foreign_find(file, name, &source)) break;
    }
    bool repeated =
        lam_foreign_find(file, parallel.positions, &source) && s->in_channels == 1 &&
        source.entry->shape[1] - 1 > (s->image_size / s->patch_size) * (s->image_size / s->patch_size);
    if (modalities == 0 && !repeated) return;
    s->name = "mae_channel_agnostic";
    s->in_channels = modalities ? modalities : 1;
    s->shared_decoder = lam_foreign_find(file, "decoder.blocks.0.norm1.weight", &source);
}

static lam_status read_heads(const lam_foreign *file, sizes *s) {
    lam_foreign_source q_norm;
    int64_t decoder_heads = number_of(file, "decoder_num_attention_heads");
    s->num_heads = number_of(file, "num_attention_heads");
    if (file->family == LAM_FAMILY_PARALLEL &&
        lam_foreign_find(file, "encoder.vit_backbone.blocks.0.q_norm.weight", &q_norm) &&
        q_norm.entry->count > 0)
        s->num_heads = s->embed_dim / q_norm.entry->count;
    if (!s->num_heads) {
        LAM_REQUIRE(s->embed_dim % 64 == 0, LAM_ERROR_INPUT,
                    "%s: nothing says how many heads %" PRId64
                    " wide blocks have: put a config.json with num_attention_heads beside it",
                    file->path, s->embed_dim);
        s->num_heads = s->embed_dim / 64;
        lam_log_info("%s: no config.json says the heads of the encoder: %" PRId64 " of 64", file->path,
                     s->num_heads);
    }
    s->decoder_num_heads = decoder_heads ? decoder_heads : 16;
    return LAM_OK;
}

/* A decoder of no weight in the sense of the word: drawn, and used by nothing but a training from here. */
static void invent_decoder(sizes *s) {
    s->decoder_embed_dim = 16;
    s->decoder_depth = 1;
    s->decoder_num_heads = 1;
    s->decoder_mlp_dim = (int64_t)(16.0 * (double)s->mlp_dim / (double)s->embed_dim + 0.5);
}

static lam_status read_sizes(const lam_foreign *file, sizes *s) {
    const names *n = file->family == LAM_FAMILY_PARALLEL ? &parallel : &vit;
    lam_foreign_source source;
    const char *activation = lam_json_text(lam_json_get(file->config, "hidden_act"), "gelu");
    LAM_REQUIRE(!strcmp(activation, "gelu"), LAM_ERROR_INPUT,
                "%s: config.json says hidden_act %s; the networks here have gelu", file->path, activation);
    s->name = file->family == LAM_FAMILY_PARALLEL ? "mae_vit_parallel" : "mae_vit";
    LAM_TRY(dimension(file, n->cls, 3, 2, &s->embed_dim));
    LAM_TRY(dimension(file, n->hidden, 2, 1, &s->mlp_dim));
    LAM_TRY(read_grid(file, n, s));
    if (file->family == LAM_FAMILY_PARALLEL) find_channels(file, s);
    s->depth = count_blocks(file, n->block);
    LAM_TRY(read_heads(file, s));
    s->mask_ratio = lam_json_float(lam_json_get(file->config, "mask_ratio"), 0.75);
    if (!(s->mask_ratio > 0 && s->mask_ratio < 1)) s->mask_ratio = 0.75; /* published for inference with 0 */
    s->norm_pix_loss = lam_json_bool(lam_json_get(file->config, "norm_pix_loss"), false);
    s->layer_norm_eps = lam_json_float(lam_json_get(file->config, "layer_norm_eps"), 1e-6);
    s->decoder = lam_foreign_find(file, n->to_decoder, &source);
    if (!s->decoder) {
        invent_decoder(s);
        return LAM_OK;
    }
    bool cross = !strcmp(s->name, "mae_channel_agnostic") && !s->shared_decoder;
    LAM_TRY(dimension(file, n->to_decoder, 2, 0, &s->decoder_embed_dim));
    s->decoder_depth = count_blocks(file, cross ? decoder_of_channel : n->decoder_block);
    return dimension(file, cross ? "decoder.mlp.fc2.weight" : n->decoder_hidden, 2, 1, &s->decoder_mlp_dim);
}

/* ---- configuration ---- */

static lam_status set_int(lam_config *config, const char *key, int64_t value) {
    char assignment[96];
    snprintf(assignment, sizeof assignment, "%s=%" PRId64, key, value);
    return lam_config_set(config, assignment);
}

static lam_status set_float(lam_config *config, const char *key, double value) {
    char assignment[96], number[32];
    snprintf(assignment, sizeof assignment, "%s=%s", key, lam_number_text(number, value));
    return lam_config_set(config, assignment);
}

static lam_status set_text(lam_config *config, const char *key, const char *value) {
    char *assignment = NULL;
    LAM_TRY(lam_text_format(&assignment, "%s=%s", key, value));
    lam_status status = lam_config_set(config, assignment);
    lam_free(assignment);
    return status;
}

/* channel_1, channel_2, ...: nothing in the file says what its channels show. */
static lam_status set_channel_tokens(lam_config *config, int64_t channels) {
    char *list = NULL;
    lam_status status = lam_text_copy(&list, "");
    for (int64_t c = 0; c < channels && status == LAM_OK; c++) {
        char *longer = NULL;
        status = lam_text_format(&longer, "%s%schannel_%" PRId64, list, c ? "," : "", c + 1);
        lam_free(list);
        list = longer;
    }
    if (status == LAM_OK) status = set_text(config, "model.channel_tokens", list);
    lam_free(list);
    return status;
}

static lam_status configure(lam_config *config, const sizes *s, const char *path) {
    double ratio = (double)s->mlp_dim / (double)s->embed_dim,
           decoder_ratio = (double)s->decoder_mlp_dim / (double)s->decoder_embed_dim;
    LAM_REQUIRE(
        !s->decoder || ratio == decoder_ratio, LAM_ERROR_INPUT,
        "%s: its decoder has an MLP of %g times its width, its encoder of %g: the networks here have one ratio",
        path, decoder_ratio, ratio);
    LAM_TRY(set_text(config, "model.name", s->name));
    LAM_TRY(set_int(config, "model.embed_dim", s->embed_dim));
    LAM_TRY(set_int(config, "model.depth", s->depth));
    LAM_TRY(set_int(config, "model.num_heads", s->num_heads));
    LAM_TRY(set_int(config, "model.patch_size", s->patch_size));
    LAM_TRY(set_int(config, "model.image_size", s->image_size));
    LAM_TRY(set_int(config, "model.in_channels", s->in_channels));
    LAM_TRY(set_float(config, "model.mlp_ratio", ratio));
    LAM_TRY(set_float(config, "model.mask_ratio", s->mask_ratio));
    LAM_TRY(set_float(config, "model.layer_norm_eps", s->layer_norm_eps));
    LAM_TRY(set_int(config, "model.decoder_embed_dim", s->decoder_embed_dim));
    LAM_TRY(set_int(config, "model.decoder_depth", s->decoder_depth));
    LAM_TRY(set_int(config, "model.decoder_num_heads", s->decoder_num_heads));
    if (!strcmp(s->name, "mae_channel_agnostic")) {
        LAM_TRY(set_text(config, "model.decoder", s->shared_decoder ? "shared" : "cross"));
        LAM_TRY(set_channel_tokens(config, s->in_channels));
    }
    LAM_TRY(set_text(config, "model.norm_pix_loss", s->norm_pix_loss ? "true" : "false"));
    return set_text(config, "data.path", "shards"); /* no key may be open; a network does not depend on it */
}

/* ---- how images were standardised ---- */

static bool take_statistics(lam_network *network, const lam_json *mean, const lam_json *deviation) {
    if (!lam_json_is_array(mean) || !lam_json_is_array(deviation) ||
        (int64_t)lam_json_size(mean) != network->channels ||
        (int64_t)lam_json_size(deviation) != network->channels)
        return false;
    for (int64_t c = 0; c < network->channels; c++) {
        double d = lam_json_float(lam_json_at(deviation, (size_t)c), 0);
        network->channel_mean[c] = lam_json_float(lam_json_at(mean, (size_t)c), 0);
        /* The feeder divides by sqrt(deviation^2 + 1e-5), other programs by the deviation. */
        network->channel_deviation[c] = sqrt(fmax(d * d - 1e-5, 0));
    }
    return true;
}

static bool take_imagenet(lam_network *network) {
    static const double mean[3] = {0.485, 0.456, 0.406}, deviation[3] = {0.229, 0.224, 0.225};
    for (int c = 0; c < 3; c++) {
        network->channel_mean[c] = mean[c];
        network->channel_deviation[c] = sqrt(deviation[c] * deviation[c] - 1e-5);
    }
    return true;
}

static lam_status set_standardisation(lam_network *network, const lam_foreign *file) {
    const lam_json *timm = lam_json_get(file->config, "pretrained_cfg");
    bool known = false;
    if (file->preprocessor)
        known = lam_json_bool(lam_json_get(file->preprocessor, "do_normalize"), true) &&
                take_statistics(network, lam_json_get(file->preprocessor, "image_mean"),
                                lam_json_get(file->preprocessor, "image_std"));
    else if (file->family == LAM_FAMILY_TIMM)
        known = take_statistics(network, lam_json_get(timm, "mean"), lam_json_get(timm, "std")) ||
                (network->channels == 3 && take_imagenet(network));
    double unit = lam_json_float(lam_json_get(file->preprocessor, "rescale_factor"), 1.0 / 255);
    int bits = unit > 1e-6 && unit < 1 ? (int)lround(log2(1 / unit + 1)) : 8;
    for (int64_t c = 0; c < network->channels && known; c++) network->channel_bits[c] = bits;
    LAM_TRY(set_text(network->config, "data.normalize", known ? "dataset" : "crop"));
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
        LAM_REQUIRE(found || table || (network->no_decoder && of_decoder(p->name)), LAM_ERROR_INPUT,
                    "%s: lacks the tensor %s%s", file->path, file->prefix, p->name);
    }
    lam_foreign_source norm;
    if (file->family == LAM_FAMILY_TIMM && lam_foreign_find(file, "vit.layernorm.weight", &norm) &&
        strstr(norm.entry->name, "fc_norm"))
        lam_log_warning(
            "%s: norms the mean of its tokens (fc_norm), here each token is normed before the mean: "
            "embeddings differ from timm's",
            file->path);
    return lam_foreign_check_unused(file);
}

/* A table other than the one of sines and cosines was learned: at another crop size it is interpolated, not computed. */
static lam_status find_positions(lam_network *network, lam_foreign *file) {
    const char *name = file->family == LAM_FAMILY_PARALLEL ? parallel.positions : vit.positions;
    const lam_parameter_entry *p = lam_parameters_find(network->parameters, name);
    const float *computed = network->parameters->weights + p->offset;
    float *table = NULL;
    bool found = false, learned = false;
    LAM_TRY(lam_alloc_array((void **)&table, p->count, sizeof *table));
    lam_status status = lam_foreign_read(file, p, table, &found);
    for (int64_t i = 0; i < p->count && found && status == LAM_OK; i++)
        learned = learned || !(fabsf(table[i] - computed[i]) < 1e-3f);
    lam_free(table);
    if (status != LAM_OK || !learned) return status;
    LAM_TRY(set_text(network->config, "model.positions", "learned"));
    network->settings.model.learned_positions = true;
    lam_parameters_free(network->parameters);
    network->parameters = NULL;
    return LAM_OK;
}

static lam_status import(lam_network *network, lam_foreign *file, const uint64_t *untrained_seed) {
    sizes s = {0};
    LAM_TRY(read_sizes(file, &s));
    LAM_TRY(lam_config_parse(&network->config, lam_train_keys, "{}", 2, file->path));
    LAM_TRY(configure(network->config, &s, file->path));
    LAM_TRY(lam_network_add_channels(network, s.in_channels));
    for (int64_t c = 0; c < s.in_channels; c++)
        LAM_TRY(lam_text_format(&network->channel_names[c], "channel_%" PRId64, c + 1));
    LAM_TRY(set_standardisation(network, file));
    LAM_TRY(lam_config_check(network->config));
    LAM_TRY(lam_settings_from(network->config, &network->settings));
    LAM_TRY(lam_network_add_channel_tokens(network));
    network->settings.model.pixel_type = LAM_U8; /* until shards say otherwise; no weight depends on it */
    network->unnamed = true;
    network->no_decoder = !s.decoder;
    uint64_t seed = untrained_seed ? *untrained_seed : 0;
    LAM_TRY(lam_network_add_parameters(network, seed));
    LAM_TRY(find_positions(network, file));
    if (!network->parameters) LAM_TRY(lam_network_add_parameters(network, seed));
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

/* ---- weights to begin with ---- */

static lam_status begin_with(lam_network *network, lam_foreign *file) {
    lam_parameters *parameters = network->parameters;
    int64_t fresh = 0;
    for (int64_t i = 0; i < parameters->entries; i++) {
        const lam_parameter_entry *p = &parameters->entry[i];
        bool found = false;
        lam_foreign_source s;
        /* Position tables of another image size: those of this size are computed already. */
        if (p->init == LAM_INIT_FROZEN &&
            !(lam_foreign_find(file, p->name, &s) && s.entry->rank == p->rank && s.entry->count == p->count))
            continue;
        LAM_TRY(lam_foreign_read(file, p, parameters->weights + p->offset, &found));
        LAM_REQUIRE(
            found || of_decoder(p->name), LAM_ERROR_INPUT,
            "%s: lacks the tensor %s of the configured network: train.init needs weights of the same model.name",
            file->path, p->name);
        fresh += !found;
    }
    if (fresh)
        lam_log_info("%s: lacks %" PRId64 " tensors of the decoder, which begin as drawn", file->path, fresh);
    return LAM_OK;
}

lam_status lam_import_weights(lam_network *network, const char *path) {
    char *name = NULL;
    lam_foreign file = {0};
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_checkpoint_weights(path, false, &name), done);
    LAM_TRY_GOTO(lam_foreign_open(&file, name), done);
    LAM_TRY_GOTO(begin_with(network, &file), done);
done:
    if (status != LAM_OK) status = lam_fail_context(status, "train.init");
    lam_foreign_close(&file);
    lam_free(name);
    return status;
}
