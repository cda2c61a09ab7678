#include "model/nets/mae.h"

#include <string.h>

#include "model/nets/parts.h"

static const lam_mae_net *const nets[] = {[LAM_MAE_VIT] = &lam_mae_vit,
                                          [LAM_MAE_VIT_PARALLEL] = &lam_mae_vit_parallel,
                                          [LAM_MAE_CHANNEL_AGNOSTIC] = &lam_mae_channel_agnostic};

const char *lam_mae_name(lam_mae_kind kind) { return nets[kind]->name; }

lam_status lam_mae_kind_of(const char *name, lam_mae_kind *kind) {
    for (size_t i = 0; i < sizeof nets / sizeof *nets; i++)
        if (!strcmp(nets[i]->name, name)) {
            *kind = (lam_mae_kind)i;
            return LAM_OK;
        }
    LAM_FAIL(LAM_ERROR_CONFIG, "model.name: there is no network %s", name);
}

static lam_status check_mask(const lam_mae_config *c) {
    bool by_channel = nets[c->kind]->channel_tokens;
    int64_t seen = lam_mae_channels_seen(c), tokens = lam_mae_patches(c) * (by_channel ? seen : 1),
            kept = lam_mae_kept(c, tokens);
    LAM_REQUIRE(
        by_channel || (c->masking != LAM_MASKING_PER_CHANNEL && c->masking != LAM_MASKING_WHOLE_CHANNEL),
        LAM_ERROR_CONFIG,
        "model.masking hides channels apart, but a token of %s holds all of them: take random or block",
        nets[c->kind]->name);
    LAM_REQUIRE(
        c->masking != LAM_MASKING_WHOLE_CHANNEL || seen > 1, LAM_ERROR_CONFIG,
        "model.masking is whole_channel, which needs two channels at least, one to see and one to hide; "
        "%s is %lld",
        c->channels_per_step ? "model.channels_per_step" : "model.in_channels", (long long)seen);
    LAM_REQUIRE(c->mask_ratio > 0 && c->mask_ratio < 1 && kept >= 1 && kept < tokens, LAM_ERROR_CONFIG,
                "model.mask_ratio is %g: of %lld patches at least one must be kept and one masked",
                c->mask_ratio, (long long)lam_mae_patches(c));
    LAM_REQUIRE(c->decode_ratio >= 0 && c->decode_ratio <= 1, LAM_ERROR_CONFIG,
                "model.decode_ratio is %g: it is a share of the masked patches", c->decode_ratio);
    bool partial = lam_mae_decoded(c, tokens) < tokens;
    LAM_REQUIRE(!partial || (!by_channel && c->fourier != LAM_FOURIER_RECURSION), LAM_ERROR_CONFIG,
                "model.decode_ratio is %g: %s needs every patch decoded; leave it at 1", c->decode_ratio,
                by_channel ? nets[c->kind]->name : "model.fourier recursion_compat");
    LAM_REQUIRE(c->fourier_alpha >= 0 && c->fourier_alpha < 1, LAM_ERROR_CONFIG,
                "model.fourier_alpha is %g: it must be less than 1", c->fourier_alpha);
    return LAM_OK;
}

lam_status lam_mae_check_encoder(const lam_mae_config *c) {
    LAM_REQUIRE(c->patch_size >= 1 && c->image_size >= c->patch_size && c->image_size % c->patch_size == 0,
                LAM_ERROR_CONFIG, "model.patch_size is %lld: it must divide model.image_size, %lld",
                (long long)c->patch_size, (long long)c->image_size);
    LAM_REQUIRE(c->in_channels >= 1 && c->in_channels <= LAM_MAX_CHANNELS, LAM_ERROR_CONFIG,
                "model.in_channels is %lld: 1 to %d are possible", (long long)c->in_channels,
                LAM_MAX_CHANNELS);
    LAM_REQUIRE(c->num_heads >= 1 && c->embed_dim % c->num_heads == 0 && c->embed_dim % 4 == 0,
                LAM_ERROR_CONFIG,
                "model.embed_dim is %lld: it must be a multiple of 4 and of model.num_heads, %lld",
                (long long)c->embed_dim, (long long)c->num_heads);
    LAM_REQUIRE(
        c->decoder_num_heads >= 1 && c->decoder_embed_dim % c->decoder_num_heads == 0 &&
            c->decoder_embed_dim % 4 == 0,
        LAM_ERROR_CONFIG,
        "model.decoder_embed_dim is %lld: it must be a multiple of 4 and of model.decoder_num_heads, %lld",
        (long long)c->decoder_embed_dim, (long long)c->decoder_num_heads);
    LAM_REQUIRE(c->depth >= 1 && c->decoder_depth >= 1, LAM_ERROR_CONFIG,
                "model.depth and model.decoder_depth must be at least 1");
    LAM_REQUIRE(c->drop_path >= 0 && c->drop_path <= 0.9, LAM_ERROR_CONFIG,
                "model.drop_path is %g: allowed are 0 to 0.9", c->drop_path);
    return nets[c->kind]->check ? nets[c->kind]->check(c) : LAM_OK;
}

lam_status lam_mae_check(const lam_mae_config *c) {
    LAM_TRY(lam_mae_check_encoder(c));
    return check_mask(c);
}

lam_status lam_mae_parameters(lam_parameters *parameters, const lam_mae_config *c) {
    LAM_TRY(lam_mae_check_encoder(c));
    return nets[c->kind]->parameters(parameters, c);
}

void lam_mae_fill_positions(lam_parameters *parameters, const lam_mae_config *c) {
    nets[c->kind]->fill_positions(parameters, c);
}

lam_status lam_mae_build(lam_graph *g, const lam_mae_config *c, int64_t batch, lam_mae_io *io) {
    LAM_TRY(lam_mae_check(c));
    *io = (lam_mae_io){0};
    nets[c->kind]->build(g, c, batch, io);
    return LAM_OK;
}

lam_status lam_mae_build_encoder(lam_graph *g, const lam_mae_config *c, int64_t batch, int64_t block,
                                 bool hidden, lam_mae_encoder_io *io) {
    LAM_TRY(lam_mae_check_encoder(c));
    LAM_REQUIRE(block >= 1 && block <= c->depth, LAM_ERROR_USAGE,
                "block %lld does not exist: the network has blocks 1 to %lld", (long long)block,
                (long long)c->depth);
    *io = (lam_mae_encoder_io){0};
    nets[c->kind]->build_encoder(g, c, batch, block, hidden, io);
    return LAM_OK;
}

lam_status lam_mae_build_every_block(lam_graph *g, const lam_mae_config *c, int64_t batch, bool hidden,
                                     lam_tensor **every, lam_mae_encoder_io *io) {
    LAM_TRY(lam_mae_check_encoder(c));
    *io = (lam_mae_encoder_io){.every = every};
    nets[c->kind]->build_encoder(g, c, batch, c->depth, hidden, io);
    every[c->depth - 1] = io->tokens;
    return LAM_OK;
}

double lam_mae_step_flops(const lam_mae_config *c) { return nets[c->kind]->step_flops(c); }

double lam_mae_kept_share(const lam_mae_config *c, int64_t batch) {
    lam_mae_config without_blocks = *c;
    double all = lam_mae_step_flops(c), rates = 0;
    without_blocks.depth = 0;
    double block = (all - lam_mae_step_flops(&without_blocks)) / (double)c->depth;
    for (int64_t i = 0; i < c->depth; i++) rates += lam_mae_drop_rate(c, i);
    bool by_channel = nets[c->kind]->channel_tokens;
    int64_t tokens = lam_mae_patches(c) * (by_channel ? lam_mae_channels_seen(c) : 1),
            length = c->patch_size * c->patch_size * (by_channel ? 1 : c->in_channels);
    return 1 - (block * rates + lam_mae_saved_flops(c, batch, tokens, length)) / all;
}
