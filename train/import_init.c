#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/cli.h"
#include "base/log.h"
#include "base/memory.h"
#include "train/bias_layout.h"
#include "train/checkpoint.h"
#include "train/foreign_sizes.h"
#include "train/import.h"
#include "train/network_parts.h"

/* What the file says of its network; kept until the weights are taken. */
typedef struct origin {
    lam_foreign file;
    lam_foreign_sizes sizes;
    bool learned;             /* positions */
    lam_config *config;       /* as lamella wrote it; NULL: another program's weights */
    const char *channels;     /* model.channel_tokens of it; NULL: it has no names of channels */
    const char *decoder_left; /* why its decoder is not taken; NULL: it is */
} origin;

/* ---- what the file holds ---- */

static lam_status read_ours(origin *o, const char *text) {
    lam_settings settings;
    LAM_TRY(lam_config_parse(&o->config, lam_train_keys, text, strlen(text), o->file.path));
    LAM_TRY(lam_settings_from(o->config, &settings));
    const lam_mae_config *m = &settings.model;
    o->learned = m->learned_positions;
    o->channels = lam_config_text(o->config, "model.channel_tokens");
    /* What shapes tell is known already, and cannot be wrong. */
    o->sizes.kind = m->kind;
    o->sizes.num_heads = m->num_heads;
    o->sizes.decoder_num_heads = m->decoder_num_heads;
    o->sizes.layer_norm_eps = m->layer_norm_eps;
    return LAM_OK;
}

static lam_status open_origin(origin *o, const lam_network *network, const char *path) {
    char *name = NULL;
    LAM_TRY(lam_checkpoint_weights(path, false, &name));
    lam_status status = lam_foreign_open(&o->file, name);
    lam_free(name);
    LAM_TRY(status);
    LAM_TRY(lam_foreign_sizes_read(&o->file, &o->sizes));
    const char *ours = lam_weights_metadata(o->file.weights, "lamella_config");
    if (ours) return read_ours(o, ours);
    lam_mae_config like = network->settings.model;
    if (like.kind == o->sizes.kind && like.embed_dim == o->sizes.embed_dim &&
        like.patch_size == o->sizes.patch_size)
        return lam_foreign_positions_learned(&o->file, &like, &o->sizes, &o->learned);
    return LAM_OK; /* refused for these, whatever its positions are */
}

static void close_origin(origin *o) {
    lam_foreign_close(&o->file);
    lam_config_free(o->config);
}

/* ---- whether it is the configured network ---- */

static lam_status same_text(const origin *o, const char *key, const char *here, const char *there) {
    LAM_REQUIRE(!strcmp(here, there), LAM_ERROR_CONFIG, "%s is %s, in %s it is %s: set it to that", key, here,
                o->file.path, there);
    return LAM_OK;
}

/* there 0: the file does not say. */
static lam_status same_number(const origin *o, const char *key, double here, double there) {
    char a[32], b[32];
    bool said = there > 0, same = here >= there && here <= there;
    LAM_REQUIRE(!said || same, LAM_ERROR_CONFIG, "%s is %s, in %s it is %s: set it to that", key,
                lam_number_text(a, here), o->file.path, lam_number_text(b, there));
    return LAM_OK;
}

static lam_status check_encoder(const origin *o, const lam_mae_config *m) {
    const lam_foreign_sizes *s = &o->sizes;
    static const char *const positions[] = {"sincos", "learned"};
    LAM_TRY(same_text(o, "model.name", lam_mae_name(m->kind), lam_mae_name(s->kind)));
    LAM_TRY(same_number(o, "model.embed_dim", (double)m->embed_dim, (double)s->embed_dim));
    LAM_TRY(same_number(o, "model.depth", (double)m->depth, (double)s->depth));
    LAM_TRY(same_number(o, "model.num_heads", (double)m->num_heads, (double)s->num_heads));
    LAM_TRY(same_number(o, "model.patch_size", (double)m->patch_size, (double)s->patch_size));
    LAM_TRY(same_number(o, "model.mlp_dim", (double)m->mlp_dim, (double)s->mlp_dim));
    if (m->kind != LAM_MAE_CHANNEL_AGNOSTIC)
        LAM_REQUIRE(m->in_channels == s->in_channels, LAM_ERROR_CONFIG,
                    "the data have %" PRId64 " channels, %s takes %" PRId64
                    ": pack those alone, or take model.name: mae_channel_agnostic",
                    m->in_channels, o->file.path, s->in_channels);
    if (m->kind == LAM_MAE_VIT)
        LAM_TRY(same_number(o, "model.layer_norm_eps", m->layer_norm_eps, s->layer_norm_eps));
    LAM_TRY(same_text(o, "model.positions", positions[m->learned_positions], positions[o->learned]));
    if (m->learned_positions)
        LAM_TRY(same_number(o, "model.image_size", (double)m->image_size, (double)s->image_size));
    return LAM_OK;
}

/* The decoder of mae_channel_agnostic knows which channel is which: by name, or from another program by number alone. */
static const char *other_decoder(const origin *o, const lam_network *network) {
    const lam_mae_config *m = &network->settings.model;
    if (!o->sizes.has_decoder) return "it has none";
    if (m->kind != LAM_MAE_CHANNEL_AGNOSTIC) return NULL;
    if ((m->decoder == LAM_DECODER_SHARED) != o->sizes.shared_decoder)
        return o->sizes.shared_decoder ? "it has a shared one" : "it has blocks for each channel";
    bool same = o->channels ? !strcmp(o->channels, lam_config_text(network->config, "model.channel_tokens"))
                            : o->sizes.in_channels == m->channel_tokens;
    return same ? NULL : "it has one for other channels";
}

static lam_status check_decoder(const origin *o, const lam_mae_config *m) {
    const lam_foreign_sizes *s = &o->sizes;
    LAM_TRY(same_number(o, "model.decoder_embed_dim", (double)m->decoder_embed_dim,
                        (double)s->decoder_embed_dim));
    LAM_TRY(same_number(o, "model.decoder_depth", (double)m->decoder_depth, (double)s->decoder_depth));
    LAM_TRY(same_number(o, "model.decoder_num_heads", (double)m->decoder_num_heads,
                        (double)s->decoder_num_heads));
    return same_number(o, "model.mlp_ratio", (double)m->decoder_mlp_dim / (double)m->decoder_embed_dim,
                       (double)s->decoder_mlp_dim / (double)s->decoder_embed_dim);
}

static lam_status check(origin *o, const lam_network *network) {
    LAM_TRY(check_encoder(o, &network->settings.model));
    o->decoder_left = other_decoder(o, network);
    return o->decoder_left ? LAM_OK : check_decoder(o, &network->settings.model);
}

/* ---- the weights ---- */

/* Position tables of another crop size: those of this size are computed already. */
static bool is_other_table(const origin *o, const lam_parameter_entry *p) {
    lam_foreign_source s;
    return p->init == LAM_INIT_FROZEN && p->rank == 3 && lam_foreign_find(&o->file, p->name, &s) &&
           s.entry->rank == 3 && s.entry->shape[1] != p->shape[1];
}

static lam_status take(lam_network *network, origin *o) {
    lam_parameters *parameters = network->parameters;
    int64_t taken = 0, drawn = 0, computed = 0;
    bool other_size = o->sizes.image_size != network->settings.model.image_size;
    for (int64_t i = 0; i < parameters->entries; i++) {
        const lam_parameter_entry *p = &parameters->entry[i];
        bool found = false;
        if (o->decoder_left && lam_network_of_decoder(p->name)) {
            if (p->init == LAM_INIT_FROZEN)
                computed++;
            else
                drawn++;
            continue;
        }
        if (other_size && is_other_table(o, p)) {
            lam_foreign_pass_over(&o->file, p->name);
            computed++;
            continue;
        }
        LAM_TRY(lam_foreign_read(&o->file, p, parameters->weights + p->offset, &found));
        LAM_REQUIRE(found || p->init == LAM_INIT_FROZEN, LAM_ERROR_INPUT, "%s: lacks the tensor %s%s",
                    o->file.path, o->file.prefix, p->name);
        taken += found;
        computed += !found;
    }
    LAM_TRY(lam_foreign_check_unused(&o->file));
    char of_drawn[160] = "", of_computed[96] = "";
    if (drawn)
        snprintf(of_drawn, sizeof of_drawn, "; the %" PRId64 " of the decoder begin at random: %s", drawn,
                 o->decoder_left);
    if (computed) snprintf(of_computed, sizeof of_computed, "; %" PRId64 " tables are computed", computed);
    lam_log_info("train.init: %" PRId64 " of %" PRId64 " tensors are those of %s%s%s", taken,
                 parameters->entries, o->file.path, of_drawn, of_computed);
    return LAM_OK;
}

/* What the recipe holds at zero must begin there. */
static lam_status check_biases(const lam_network *network, const origin *o) {
    const lam_settings *s = &network->settings;
    int64_t element = 0;
    const lam_parameter_entry *p =
        lam_bias_stray(network->parameters, s->model.embed_dim, s->bias_layout, &element);
    LAM_REQUIRE(!p, LAM_ERROR_CONFIG,
                "model.bias_layout is %s, but %s of %s has %g at element %" PRId64
                ", where that layout has zeros: set it to all",
                lam_config_text(network->config, "model.bias_layout"), p->name, o->file.path,
                (double)network->parameters->weights[p->offset + element], element);
    return LAM_OK;
}

static lam_status begin(lam_network *network, const char *path, bool weights) {
    origin o = {0};
    lam_status status = open_origin(&o, network, path);
    if (status == LAM_OK) status = check(&o, network);
    if (status == LAM_OK && weights) status = take(network, &o);
    if (status == LAM_OK && weights) status = check_biases(network, &o);
    close_origin(&o);
    return status == LAM_OK ? LAM_OK : lam_fail_context(status, "train.init");
}

lam_status lam_import_weights(lam_network *network, const char *path) { return begin(network, path, true); }
lam_status lam_import_weights_check(lam_network *network, const char *path) {
    return begin(network, path, false);
}
