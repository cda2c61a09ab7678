#include "train/foreign_sizes.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "model/parameters.h"

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
    LAM_REQUIRE(s.entry->rank == rank && s.entry->count > 0, LAM_ERROR_INPUT,
                "%s: tensor %s should have %d dimensions, none of them 0", file->path, s.entry->name, rank);
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

static lam_status read_grid(const lam_foreign *file, const names *n, lam_foreign_sizes *s) {
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
    int64_t side = tokens > 0 ? (int64_t)(sqrt((double)tokens) + 0.5) : 0, square = 0;
    LAM_REQUIRE(tokens > 0 && !__builtin_mul_overflow(side, side, &square) && square == tokens,
                LAM_ERROR_INPUT,
                "%s: has positions for %" PRId64 " patches, which are no square image and one cls token",
                file->path, tokens);
    LAM_REQUIRE(!__builtin_mul_overflow(side, s->patch_size, &s->image_size), LAM_ERROR_INPUT,
                "%s: %" PRId64 " patches of %" PRId64 " pixels are larger than any image", file->path, side,
                s->patch_size);
    return LAM_OK;
}

/* The channel-agnostic networks have one projection for all channels; their decoder tells how many it was trained on. */
static lam_status find_channels(const lam_foreign *file, lam_foreign_sizes *s) {
    char name[64];
    lam_foreign_source source;
    int64_t modalities = 0;
    for (;; modalities++) {
        snprintf(name, sizeof name, "decoder.modality_tokens.%" PRId64, modalities);
        if (!lam_foreign_find(file, name, &source)) break;
        LAM_REQUIRE(modalities < LAM_MAX_CHANNELS, LAM_ERROR_INPUT,
                    "%s: its decoder knows more than %d channels", file->path, LAM_MAX_CHANNELS);
    }
    bool repeated =
        lam_foreign_find(file, parallel.positions, &source) && s->in_channels == 1 &&
        source.entry->shape[1] - 1 > (s->image_size / s->patch_size) * (s->image_size / s->patch_size);
    if (modalities == 0 && !repeated) return LAM_OK;
    s->kind = LAM_MAE_CHANNEL_AGNOSTIC;
    s->in_channels = modalities ? modalities : 1;
    s->shared_decoder = lam_foreign_find(file, "decoder.blocks.0.norm1.weight", &source);
    return LAM_OK;
}

/* What config.json says is said of the file it lies beside, or of another one. */
static lam_status check_size(const lam_foreign *file, const char *key, int64_t size) {
    int64_t said = size;
    LAM_TRY(lam_beside_whole(&file->config, key, 1, INT32_MAX, &said));
    LAM_REQUIRE(said == size, LAM_ERROR_INPUT,
                "%s: %s is %" PRId64 ", the tensors of %s make it %" PRId64
                ": it belongs to other weights, put theirs in its place",
                file->config.path, key, said, file->path, size);
    return LAM_OK;
}

/* A decoder that the file lacks may be described all the same. */
static lam_status check_config(const lam_foreign *file, const lam_foreign_sizes *s) {
    const struct {
        lam_family family;
        bool of_decoder;
        const char *key;
        int64_t size;
    } sizes[] = {{LAM_FAMILY_VITMAE, false, "hidden_size", s->embed_dim},
                 {LAM_FAMILY_VITMAE, false, "num_hidden_layers", s->depth},
                 {LAM_FAMILY_VITMAE, false, "intermediate_size", s->mlp_dim},
                 {LAM_FAMILY_VITMAE, false, "patch_size", s->patch_size},
                 {LAM_FAMILY_VITMAE, false, "image_size", s->image_size},
                 {LAM_FAMILY_VITMAE, false, "num_channels", s->in_channels},
                 {LAM_FAMILY_VITMAE, true, "decoder_hidden_size", s->decoder_embed_dim},
                 {LAM_FAMILY_VITMAE, true, "decoder_num_hidden_layers", s->decoder_depth},
                 {LAM_FAMILY_VITMAE, true, "decoder_intermediate_size", s->decoder_mlp_dim},
                 {LAM_FAMILY_PARALLEL, false, "embed_dim", s->embed_dim}, /* as export writes them */
                 {LAM_FAMILY_PARALLEL, false, "depth", s->depth},
                 {LAM_FAMILY_PARALLEL, false, "patch_size", s->patch_size},
                 {LAM_FAMILY_PARALLEL, false, "image_size", s->image_size},
                 {LAM_FAMILY_PARALLEL, true, "decoder_embed_dim", s->decoder_embed_dim},
                 {LAM_FAMILY_PARALLEL, true, "decoder_depth", s->decoder_depth}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (file->family == sizes[i].family && (s->has_decoder || !sizes[i].of_decoder))
            LAM_TRY(check_size(file, sizes[i].key, sizes[i].size));
    return LAM_OK;
}

static lam_status read_heads(const lam_foreign *file, lam_foreign_sizes *s) {
    lam_foreign_source q_norm;
    LAM_TRY(lam_beside_whole(&file->config, "decoder_num_attention_heads", 1, 1024, &s->decoder_num_heads));
    if (file->family != LAM_FAMILY_PARALLEL ||
        !lam_foreign_find(file, "encoder.vit_backbone.blocks.0.q_norm.weight", &q_norm) ||
        q_norm.entry->count <= 0)
        return lam_beside_whole(&file->config, "num_attention_heads", 1, 1024, &s->num_heads);
    s->num_heads = s->embed_dim / q_norm.entry->count;
    return check_size(file, "num_attention_heads", s->num_heads);
}

/* The decoder's sizes; 0 where there is none. */
static lam_status read_decoder(const lam_foreign *file, const names *n, lam_foreign_sizes *s) {
    lam_foreign_source source;
    bool cross = s->kind == LAM_MAE_CHANNEL_AGNOSTIC && !s->shared_decoder;
    s->has_decoder = lam_foreign_find(file, n->to_decoder, &source);
    if (!s->has_decoder) return LAM_OK;
    LAM_TRY(dimension(file, n->to_decoder, 2, 0, &s->decoder_embed_dim));
    s->decoder_depth = count_blocks(file, cross ? decoder_of_channel : n->decoder_block);
    return dimension(file, cross ? "decoder.mlp.fc2.weight" : n->decoder_hidden, 2, 1, &s->decoder_mlp_dim);
}

static lam_status read_settings(const lam_foreign *file, lam_foreign_sizes *s) {
    int activation = 0;
    LAM_TRY(lam_beside_choice(&file->config, "hidden_act", "gelu", &activation));
    s->mask_ratio = 0.75;
    LAM_TRY(lam_beside_number(&file->config, "mask_ratio", 0, 0.999, &s->mask_ratio));
    if (s->mask_ratio <= 0) s->mask_ratio = 0.75; /* published for inference with 0 */
    LAM_TRY(lam_beside_truth(&file->config, "norm_pix_loss", &s->norm_pix_loss));
    return lam_beside_number(&file->config, "layer_norm_eps", 1e-15, 0.01, &s->layer_norm_eps);
}

lam_status lam_foreign_sizes_read(const lam_foreign *file, lam_foreign_sizes *s) {
    const names *n = file->family == LAM_FAMILY_PARALLEL ? &parallel : &vit;
    *s = (lam_foreign_sizes){.kind = file->family == LAM_FAMILY_PARALLEL ? LAM_MAE_VIT_PARALLEL : LAM_MAE_VIT,
                             .position_table = n->positions};
    LAM_TRY(dimension(file, n->cls, 3, 2, &s->embed_dim));
    LAM_TRY(dimension(file, n->hidden, 2, 1, &s->mlp_dim));
    LAM_TRY(read_grid(file, n, s));
    if (file->family == LAM_FAMILY_PARALLEL) LAM_TRY(find_channels(file, s));
    s->depth = count_blocks(file, n->block);
    LAM_TRY(read_settings(file, s));
    LAM_TRY(read_heads(file, s));
    LAM_TRY(read_decoder(file, n, s));
    return check_config(file, s);
}

static lam_status compare_table(lam_foreign *file, const lam_parameters *computed, const char *name,
                                bool *learned) {
    const lam_parameter_entry *p = lam_parameters_find(computed, name);
    const float *values = computed->weights + p->offset;
    float *table = NULL;
    bool found = false;
    LAM_TRY(lam_alloc_array((void **)&table, p->count, sizeof *table));
    lam_status status = lam_foreign_read(file, p, table, &found);
    for (int64_t i = 0; i < p->count && found && status == LAM_OK; i++)
        *learned = *learned || !(fabsf(table[i] - values[i]) < 1e-3f);
    lam_free(table);
    return status;
}

lam_status lam_foreign_positions_learned(lam_foreign *file, const lam_mae_config *model,
                                         const lam_foreign_sizes *sizes, bool *learned) {
    lam_mae_config small = *model; /* the table alone counts */
    lam_parameters *computed = NULL;
    small.image_size = sizes->image_size;
    small.depth = small.decoder_depth = 1;
    small.learned_positions = false;
    *learned = false;
    LAM_TRY(lam_parameters_create(&computed));
    lam_status status = lam_mae_parameters(computed, &small);
    if (status == LAM_OK) status = lam_parameters_layout(computed, 0);
    if (status == LAM_OK) {
        lam_mae_fill_positions(computed, &small);
        status = compare_table(file, computed, sizes->position_table, learned);
    }
    lam_parameters_free(computed);
    return status;
}
