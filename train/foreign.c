#include "train/foreign.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/memory.h"

enum { NAME_BYTES = 640 };

/* ---- names ---- */

typedef struct spelling {
    const char *name;
    int part, parts; /* 0 of 0: the whole */
} spelling;

typedef struct row {
    const char *ours; /* without .weight and .bias */
    spelling theirs[4];
} row;

static const row outside[] = {
    {"vit.embeddings.cls_token",
     {{"vit.embeddings.cls_token", 0, 0}, {"embeddings.cls_token", 0, 0}, {"cls_token", 0, 0}}},
    {"vit.embeddings.position_embeddings",
     {{"vit.embeddings.position_embeddings", 0, 0},
      {"embeddings.position_embeddings", 0, 0},
      {"pos_embed", 0, 0}}},
    {"vit.embeddings.patch_embeddings.projection",
     {{"vit.embeddings.patch_embeddings.projection", 0, 0},
      {"embeddings.patch_embeddings.projection", 0, 0},
      {"patch_embed.proj", 0, 0}}},
    {"vit.layernorm", {{"vit.layernorm", 0, 0}, {"layernorm", 0, 0}, {"norm", 0, 0}, {"fc_norm", 0, 0}}},
    {"decoder.decoder_embed", {{"decoder.decoder_embed", 0, 0}, {"decoder_embed", 0, 0}}},
    {"decoder.mask_token", {{"decoder.mask_token", 0, 0}, {"mask_token", 0, 0}}},
    {"decoder.decoder_pos_embed", {{"decoder.decoder_pos_embed", 0, 0}, {"decoder_pos_embed", 0, 0}}},
    {"decoder.decoder_norm", {{"decoder.decoder_norm", 0, 0}, {"decoder_norm", 0, 0}}},
    {"decoder.decoder_pred", {{"decoder.decoder_pred", 0, 0}, {"decoder_pred", 0, 0}}},
};

static const row inside[] = {
    {"layernorm_before", {{"layernorm_before", 0, 0}, {"norm1", 0, 0}}},
    {"attention.attention.query",
     {{"attention.attention.query", 0, 0}, {"attention.q_proj", 0, 0}, {"attn.qkv", 0, 3}}},
    {"attention.attention.key",
     {{"attention.attention.key", 0, 0}, {"attention.k_proj", 0, 0}, {"attn.qkv", 1, 3}}},
    {"attention.attention.value",
     {{"attention.attention.value", 0, 0}, {"attention.v_proj", 0, 0}, {"attn.qkv", 2, 3}}},
    {"attention.output.dense",
     {{"attention.output.dense", 0, 0}, {"attention.o_proj", 0, 0}, {"attn.proj", 0, 0}}},
    {"layernorm_after", {{"layernorm_after", 0, 0}, {"norm2", 0, 0}}},
    {"intermediate.dense", {{"intermediate.dense", 0, 0}, {"mlp.fc1", 0, 0}}},
    {"output.dense", {{"output.dense", 0, 0}, {"mlp.fc2", 0, 0}}},
};

/* Stacks of blocks; the first is ours. */
static const char *const stacks[][6] = {
    {"vit.encoder.layer.", "vit.layers.", "encoder.layer.", "layers.", "blocks.", NULL},
    {"decoder.decoder_layers.", "decoder.decoder_encoder.layer.", "decoder_blocks.", NULL},
};

/* <prefix><stack><number><dot><theirs><ending>, looked up. */
static bool look(const lam_foreign *file, const char *stack, const char *number, const spelling *theirs,
                 const char *ending, lam_foreign_source *source) {
    char name[NAME_BYTES];
    int used = snprintf(name, sizeof name, "%s%s%s%s%s%s", file->prefix, stack, number, *number ? "." : "",
                        theirs->name, ending);
    if (used < 0 || (size_t)used >= sizeof name) return false;
    source->entry = lam_weights_find(file->weights, name);
    source->part = theirs->part;
    source->parts = theirs->parts ? theirs->parts : 1;
    return source->entry != NULL;
}

static const row *row_of(const row *rows, size_t count, const char *stem, size_t length) {
    for (size_t i = 0; i < count; i++)
        if (strlen(rows[i].ours) == length && !memcmp(rows[i].ours, stem, length)) return &rows[i];
    return NULL;
}

static bool find_spelled(const lam_foreign *file, const char *name, lam_foreign_source *source) {
    const char *ending = strrchr(name, '.');
    if (!ending || (strcmp(ending, ".weight") != 0 && strcmp(ending, ".bias") != 0))
        ending = name + strlen(name);
    for (size_t s = 0; s < sizeof stacks / sizeof *stacks; s++) {
        size_t root = strlen(stacks[s][0]);
        if (strncmp(name, stacks[s][0], root) != 0) continue;
        char number[24] = "";
        size_t digits = strspn(name + root, "0123456789");
        if (digits == 0 || digits >= sizeof number || name[root + digits] != '.') return false;
        memcpy(number, name + root, digits);
        const char *stem = name + root + digits + 1;
        const row *r = row_of(inside, sizeof inside / sizeof *inside, stem, (size_t)(ending - stem));
        for (int k = 0; r && stacks[s][k]; k++)
            for (int i = 0; i < 4 && r->theirs[i].name; i++)
                if (look(file, stacks[s][k], number, &r->theirs[i], ending, source)) return true;
        return false;
    }
    const row *r = row_of(outside, sizeof outside / sizeof *outside, name, (size_t)(ending - name));
    for (int i = 0; r && i < 4 && r->theirs[i].name; i++)
        if (look(file, "", "", &r->theirs[i], ending, source)) return true;
    return false;
}

bool lam_foreign_find(const lam_foreign *file, const char *name, lam_foreign_source *source) {
    if (file->family != LAM_FAMILY_PARALLEL) return find_spelled(file, name, source);
    return look(file, "", "", &(spelling){name, 0, 0}, "", source);
}

/* ---- opening ---- */

/* The shortest prefix under which a family's cls token stands: a copy of the network inside another is not taken. */
static lam_status find_family(lam_foreign *file) {
    static const struct {
        const char *name;
        lam_family family;
    } tokens[] = {{"encoder.vit_backbone.cls_token", LAM_FAMILY_PARALLEL},
                  {"vit.embeddings.cls_token", LAM_FAMILY_VITMAE},
                  {"embeddings.cls_token", LAM_FAMILY_VITMAE},
                  {"cls_token", LAM_FAMILY_TIMM}};
    for (size_t t = 0; t < sizeof tokens / sizeof *tokens; t++) {
        const char *best = NULL;
        for (int64_t i = 0; i < lam_weights_count(file->weights); i++) {
            const char *name = lam_weights_at(file->weights, i)->name;
            if (lam_text_ends_with(name, tokens[t].name) && (!best || strlen(name) < strlen(best)))
                best = name;
        }
        if (!best) continue;
        file->family = tokens[t].family;
        return lam_text_copy_n(&file->prefix, best, strlen(best) - strlen(tokens[t].name));
    }
    LAM_FAIL(
        LAM_ERROR_INPUT,
        "%s: holds no network that is known here (%" PRId64
        " tensors, none of them a cls_token): it takes weights of lamella, Hugging Face ViTMAE, timm's vision transformers "
        "and OpenPhenom",
        file->path, lam_weights_count(file->weights));
}

/* Of parallel blocks; legacy, as model.bias_layout says it, is timm_legacy, and what published files have. */
static lam_status read_bias_layout(lam_foreign *file) {
    static const char choices[] = "timm_legacy|legacy|fixed";
    int layout = 0;
    LAM_TRY(lam_beside_choice(&file->config, "bias_layout", choices, &layout));
    file->fixed_bias = layout == lam_text_place(choices, '|', "fixed");
    return LAM_OK;
}

lam_status lam_foreign_open(lam_foreign *file, const char *path) {
    *file = (lam_foreign){0};
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_text_copy(&file->path, path), fail);
    LAM_TRY_GOTO(lam_weights_open(&file->weights, path), fail);
    LAM_TRY_GOTO(find_family(file), fail);
    LAM_TRY_GOTO(lam_beside_open(&file->config, path, "config.json"), fail);
    LAM_TRY_GOTO(lam_beside_open(&file->preprocessor, path, "preprocessor_config.json"), fail);
    LAM_TRY_GOTO(read_bias_layout(file), fail);
    LAM_TRY_GOTO(lam_alloc_array((void **)&file->used, lam_weights_count(file->weights), sizeof(bool)), fail);
    return LAM_OK;
fail:
    lam_foreign_close(file);
    return status;
}

void lam_foreign_close(lam_foreign *file) {
    lam_weights_close(file->weights);
    lam_beside_close(&file->config);
    lam_beside_close(&file->preprocessor);
    lam_free(file->used);
    lam_free(file->prefix);
    lam_free(file->path);
    *file = (lam_foreign){0};
}

/* ---- values ---- */

static void mark_used(lam_foreign *file, const lam_weights_entry *entry) {
    file->used[entry - lam_weights_at(file->weights, 0)] = true;
}

static lam_status fail_shape(const lam_foreign *file, const lam_weights_entry *entry,
                             const lam_parameter_entry *p) {
    LAM_FAIL(LAM_ERROR_INPUT,
             "%s: tensor %s has another shape than the network's %s: the model section differs", file->path,
             entry->name, p->name);
}

/* Rows [skip, skip + p->count / width) of the file's tensor, all of it read. */
static lam_status read_rows(lam_foreign *file, const lam_weights_entry *entry, int64_t skip,
                            const lam_parameter_entry *p, float *values) {
    if (entry->count == p->count) return lam_weights_read_f32(file->weights, entry, values);
    float *whole = NULL;
    LAM_TRY(lam_alloc_array((void **)&whole, entry->count, sizeof *whole));
    lam_status status = lam_weights_read_f32(file->weights, entry, whole);
    if (status == LAM_OK) memcpy(values, whole + skip, (size_t)p->count * sizeof *values);
    lam_free(whole);
    return status;
}

static bool same_shape(const lam_weights_entry *entry, const lam_parameter_entry *p, int rows_axis,
                       int64_t rows) {
    bool same = entry->rank == p->rank;
    for (int a = 0; same && a < p->rank; a++) same = entry->shape[a] == (a == rows_axis ? rows : p->shape[a]);
    return same;
}

/* in_proj.bias of a parallel block, out of mlp_bias. */
static lam_status read_mlp_bias(lam_foreign *file, const lam_parameter_entry *p, float *values, bool *found) {
    char name[NAME_BYTES];
    lam_foreign_source source, gamma;
    size_t stem = strlen(p->name) - strlen("in_proj.bias");
    snprintf(name, sizeof name, "%.*sls.gamma", (int)stem, p->name);
    if (!lam_foreign_find(file, name, &gamma)) return LAM_OK;
    snprintf(name, sizeof name, "%.*smlp_bias", (int)stem, p->name);
    *found = lam_foreign_find(file, name, &source);
    if (!*found) return LAM_OK;
    int64_t width = gamma.entry->count, hidden = p->count - 3 * width;
    if (hidden <= 0 || source.entry->count != hidden) return fail_shape(file, source.entry, p);
    memset(values, 0, (size_t)p->count * sizeof *values);
    mark_used(file, source.entry);
    return lam_weights_read_f32(file->weights, source.entry, values + (file->fixed_bias ? 0 : 3 * width));
}

lam_status lam_foreign_read(lam_foreign *file, const lam_parameter_entry *p, float *values, bool *found) {
    lam_foreign_source s;
    *found = lam_foreign_find(file, p->name, &s);
    if (!*found && lam_text_ends_with(p->name, ".in_proj.bias")) return read_mlp_bias(file, p, values, found);
    if (!*found && lam_text_ends_with(p->name, ".bias") && strstr(p->name, ".attention.attention.")) {
        char weight[NAME_BYTES];
        snprintf(weight, sizeof weight, "%.*sweight", (int)(strlen(p->name) - 4), p->name);
        *found = lam_foreign_find(file, weight, &s);
        if (*found) memset(values, 0, (size_t)p->count * sizeof *values);
        return LAM_OK;
    }
    if (!*found) return LAM_OK;
    mark_used(file, s.entry);
    bool table =
        p->init == LAM_INIT_FROZEN && p->rank == 3 && s.entry->rank == 3 && s.entry->shape[1] > p->shape[1];
    if (!(table ? same_shape(s.entry, p, 1, s.entry->shape[1])
                : same_shape(s.entry, p, 0, p->shape[0] * s.parts)))
        return fail_shape(file, s.entry, p);
    return read_rows(file, s.entry, s.part * p->count, p, values);
}

void lam_foreign_pass_over(lam_foreign *file, const char *name) {
    lam_foreign_source s;
    if (lam_foreign_find(file, name, &s)) mark_used(file, s.entry);
}

static void warn_of_fc_norm(const lam_foreign *file) {
    lam_foreign_source norm;
    if (file->family == LAM_FAMILY_TIMM && lam_foreign_find(file, "vit.layernorm.weight", &norm) &&
        strstr(norm.entry->name, "fc_norm"))
        lam_log_warning(
            "%s: norms the mean of its tokens (fc_norm), here each token is normed before the mean: "
            "embeddings differ from timm's",
            file->path);
}

lam_status lam_foreign_check_unused(const lam_foreign *file) {
    static const char *const parts[] = {
        "vit.encoder.layer.",    "vit.layers.",  "encoder.layer.", "layers.",  "blocks.",
        "encoder.vit_backbone.", "patch_embed.", "norm_pre.",      "reg_token"};
    const char *first = NULL;
    int64_t unused = 0;
    warn_of_fc_norm(file);
    for (int64_t i = 0; i < lam_weights_count(file->weights); i++) {
        const char *name = lam_weights_at(file->weights, i)->name, *after = name + strlen(file->prefix);
        if (file->used[i]) continue;
        bool inside_encoder = false;
        for (size_t k = 0;
             k < sizeof parts / sizeof *parts && !strncmp(name, file->prefix, strlen(file->prefix)); k++)
            inside_encoder = inside_encoder || !strncmp(after, parts[k], strlen(parts[k]));
        LAM_REQUIRE(!inside_encoder, LAM_ERROR_INPUT,
                    "%s: its encoder has %s, which no network here has: it cannot be computed", file->path,
                    name);
        if (!unused++) first = name;
    }
    if (unused)
        lam_log_info("%s: %" PRId64 " of its %" PRId64 " tensors are not used here, the first is %s",
                     file->path, unused, lam_weights_count(file->weights), first);
    return LAM_OK;
}
