/* Which channels a network takes: its own, those of shards, or those that the user names. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/memory.h"
#include "train/network_parts.h"

void lam_network_free_channels(lam_network *n) {
    for (int64_t c = 0; n->channel_names && c < n->channels; c++) lam_free(n->channel_names[c]);
    lam_free(n->channel_names);
    lam_free(n->channel_bits);
    lam_free(n->channel_mean);
    lam_free(n->channel_deviation);
    lam_free(n->channel_token);
}

lam_status lam_network_add_channels(lam_network *network, int64_t channels) {
    network->channels = channels;
    LAM_TRY(lam_alloc_array((void **)&network->channel_names, channels, sizeof(char *)));
    LAM_TRY(lam_alloc_array((void **)&network->channel_bits, channels, sizeof(int)));
    LAM_TRY(lam_alloc_array((void **)&network->channel_mean, channels, sizeof(double)));
    return lam_alloc_array((void **)&network->channel_deviation, channels, sizeof(double));
}

/* Channel c of `to`: that of the shards as the network knows it from training, or as it is there. */
static lam_status take_channel(lam_network *to, int64_t c, const lam_network *trained,
                               const lam_shards *shards, int64_t there) {
    const char *name = lam_shards_channel_name(shards, there);
    LAM_TRY(lam_text_copy(&to->channel_names[c], name));
    for (int64_t k = 0; k < trained->channels && !trained->unnamed; k++) {
        if (strcmp(trained->channel_names[k], name) != 0) continue;
        to->channel_bits[c] = trained->channel_bits[k];
        to->channel_mean[c] = trained->channel_mean[k];
        to->channel_deviation[c] = trained->channel_deviation[k];
        return LAM_OK;
    }
    to->channel_bits[c] = lam_shards_channel_bits(shards, there);
    lam_shards_channel_stats(shards, -1, there, (lam_transform)trained->settings.model.transform,
                             &to->channel_mean[c], &to->channel_deviation[c]);
    if (trained->unnamed) return LAM_OK;
    lam_log_info("%s: the network was not trained on the channel %s%s", lam_shards_path(shards), name,
                 trained->settings.model.normalize == LAM_NORMALIZE_DATASET
                     ? "; it is standardised by its mean and deviation there"
                     : "");
    return LAM_OK;
}

/* The network's channels become those of `taken`, which is empty then. */
static void replace_channels(lam_network *network, lam_network *taken) {
    lam_network_free_channels(network);
    network->channels = taken->channels;
    network->channel_names = taken->channel_names;
    network->channel_bits = taken->channel_bits;
    network->channel_mean = taken->channel_mean;
    network->channel_deviation = taken->channel_deviation;
    network->channel_token = NULL; /* of the decoder, which may not know these channels */
    network->settings.model.channel_token = NULL;
    network->settings.model.in_channels = taken->channels;
    network->unnamed = false;
}

lam_status lam_network_take_channels(lam_network *network, const lam_shards *shards) {
    if (network->settings.model.kind != LAM_MAE_CHANNEL_AGNOSTIC || network->chosen) return LAM_OK;
    lam_network taken = {0};
    lam_status status = lam_network_add_channels(&taken, lam_shards_channels(shards));
    for (int64_t c = 0; c < taken.channels && status == LAM_OK; c++)
        status = take_channel(&taken, c, network, shards, c);
    if (status == LAM_OK)
        replace_channels(network, &taken);
    else
        lam_network_free_channels(&taken);
    return status;
}

/* Bits 0: nobody knows, as of other programs' weights where it does not matter. */
static void warn_of_scale(const lam_network *network, const lam_shards *shards, int64_t c, int64_t there) {
    int bits = lam_shards_channel_bits(shards, there);
    if (network->channel_bits[c] && bits != network->channel_bits[c])
        lam_log_warning("channel %s has %d bits in %s and had %d in training: another integer scale",
                        lam_shards_channel_name(shards, there), bits, lam_shards_path(shards),
                        network->channel_bits[c]);
}

/* Nothing says what the channels show: theirs are taken in the order of the shards. */
static lam_status match_by_order(const lam_network *network, const lam_shards *shards, int64_t *channel_map) {
    int64_t channels = lam_shards_channels(shards);
    LAM_REQUIRE(channels == network->channels, LAM_ERROR_INPUT,
                "%s: holds %" PRId64 " channels, the network takes %" PRId64
                " that have no names: say which with --channels",
                lam_shards_path(shards), channels, network->channels);
    for (int64_t c = 0; c < channels; c++) {
        channel_map[c] = c;
        warn_of_scale(network, shards, c, c);
        lam_log_info("channel %" PRId64 " of the network: %s", c + 1, lam_shards_channel_name(shards, c));
    }
    return LAM_OK;
}

static int64_t shards_channel(const lam_shards *shards, const char *name) {
    for (int64_t c = 0; c < lam_shards_channels(shards); c++)
        if (!strcmp(lam_shards_channel_name(shards, c), name)) return c;
    return -1;
}

static int64_t network_channel(const lam_network *network, const char *name) {
    for (int64_t c = 0; c < network->channels && !network->unnamed; c++)
        if (!strcmp(network->channel_names[c], name)) return c;
    return -1;
}

/* Of the shards, then what the network alone knows. */
static void list_known(char *text, size_t size, const lam_network *network, const lam_shards *shards) {
    size_t used = 0;
    int64_t there = lam_shards_channels(shards);
    text[0] = 0;
    for (int64_t c = 0; c < there + network->channels && used < size; c++) {
        bool own = c >= there;
        const char *name = own ? network->channel_names[c - there] : lam_shards_channel_name(shards, c);
        if (own && (network->unnamed || shards_channel(shards, name) >= 0)) continue;
        int written = snprintf(text + used, size - used, "%s%s", used ? ", " : "", name);
        used += written > 0 ? (size_t)written : 0;
    }
}

/* One that takes any channels has what it knows of a channel by its name; of another its place says what a channel is. */
static lam_status take_named(lam_network *to, int64_t c, const char *name, const lam_network *network,
                             const lam_shards *shards) {
    char known[400];
    int64_t there = shards_channel(shards, name), from = network_channel(network, name);
    LAM_REQUIRE(*name, LAM_ERROR_USAGE, "--channels: channel %" PRId64 " has no name; give A,B", c + 1);
    for (int64_t k = 0; k < c; k++)
        LAM_REQUIRE(strcmp(to->channel_names[k], name) != 0, LAM_ERROR_USAGE,
                    "--channels: '%s' is there twice", name);
    if (there < 0 && from < 0) {
        list_known(known, sizeof known, network, shards);
        LAM_FAIL(LAM_ERROR_USAGE, "--channels: neither %s nor the network has a channel '%s'; there are: %s",
                 lam_shards_path(shards), name, known);
    }
    bool by_name = network->settings.model.kind == LAM_MAE_CHANNEL_AGNOSTIC;
    if (by_name && there >= 0) return take_channel(to, c, network, shards, there);
    if (!by_name) from = c;
    to->channel_bits[c] = network->channel_bits[from];
    to->channel_mean[c] = network->channel_mean[from];
    to->channel_deviation[c] = network->channel_deviation[from];
    return lam_text_copy(&to->channel_names[c], name);
}

lam_status lam_network_name_channels(lam_network *network, const char *names, const lam_shards *shards) {
    int64_t count = 1;
    for (const char *p = names; *p; p++) count += *p == ',';
    LAM_REQUIRE(count == network->channels || network->settings.model.kind == LAM_MAE_CHANNEL_AGNOSTIC,
                LAM_ERROR_USAGE, "--channels: '%s' names %" PRId64 " channels, the network takes %" PRId64,
                names, count, network->channels);
    lam_network taken = {0};
    lam_status status = lam_network_add_channels(&taken, count);
    for (int64_t c = 0; c < count && status == LAM_OK; c++) {
        char *name = NULL;
        size_t length = strcspn(names, ",");
        status = lam_text_copy_n(&name, names, length);
        if (status == LAM_OK) status = take_named(&taken, c, name, network, shards);
        lam_free(name);
        names += length + (names[length] == ',');
    }
    if (status == LAM_OK)
        replace_channels(network, &taken);
    else
        lam_network_free_channels(&taken);
    network->chosen = status == LAM_OK;
    return status;
}

lam_status lam_network_match(const lam_network *network, const lam_shards *shards, int64_t *channel_map) {
    int64_t found = 0;
    if (network->unnamed) return match_by_order(network, shards, channel_map);
    for (int64_t c = 0; c < network->channels; c++) {
        channel_map[c] = -1;
        for (int64_t s = 0; s < lam_shards_channels(shards); s++) {
            if (!strcmp(network->channel_names[c], lam_shards_channel_name(shards, s))) channel_map[c] = s;
        }
        if (channel_map[c] < 0) {
            lam_log_warning("%s lacks the channel %s: it counts as absent", lam_shards_path(shards),
                            network->channel_names[c]);
            continue;
        }
        found++;
        warn_of_scale(network, shards, c, channel_map[c]);
    }
    LAM_REQUIRE(found > 0, LAM_ERROR_INPUT,
                "%s: holds none of the network's channels (the first is %s, there %s); name them in "
                "pack as in training",
                lam_shards_path(shards), network->channel_names[0], lam_shards_channel_name(shards, 0));
    return LAM_OK;
}
