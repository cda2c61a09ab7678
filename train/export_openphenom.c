#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/files.h"
#include "base/json.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/staged.h"
#include "base/torch_file.h"
#include "train/bias_layout.h"
#include "train/export.h"

#define MAX_IN_CHANS 11 /* of the published encoder's table */

typedef struct list {
    lam_arena arena;
    lam_torch_tensor *tensors;
    int64_t count, known_channels; /* 0: a network whose tokens hold all channels */
    lam_bias_layout layout;
} list;

static void add(list *l, const char *name, int rank, const int64_t *shape, const float *values) {
    l->tensors[l->count++] = (lam_torch_tensor){name, rank, shape, values};
}

/* [1, 1 + N, D] -> [1, 1 + times N, D]: the row of cls, and the others again and again. */
static lam_status add_table(list *l, const lam_parameter_entry *p, const float *values, int64_t times) {
    int64_t width = p->shape[2], block = (p->shape[1] - 1) * width, *shape = NULL;
    float *table = NULL;
    LAM_TRY(lam_arena_alloc(&l->arena, (void **)&shape, 3 * sizeof *shape));
    LAM_TRY(lam_arena_alloc(&l->arena, (void **)&table, (size_t)(width + times * block) * sizeof *table));
    memcpy(table, values, (size_t)width * sizeof *table);
    for (int64_t t = 0; t < times; t++)
        memcpy(table + width + t * block, values + width, (size_t)block * sizeof *table);
    memcpy(shape, (int64_t[]){1, 1 + times * (p->shape[1] - 1), width}, 3 * sizeof *shape);
    add(l, p->name, 3, shape, table);
    return LAM_OK;
}

/* The values of mlp_bias inside in_proj.bias, rows [mlp | q | k | v]; the rest is zero. */
static lam_status add_mlp_bias(list *l, const lam_parameter_entry *p, const float *values, int64_t width) {
    int64_t others = 3 * width, *shape = NULL;
    char *name = NULL;
    LAM_TRY(lam_arena_text(&l->arena, &name, p->name, strlen(p->name)));
    strcpy(name + strlen(name) - strlen("in_proj.bias"), "mlp_bias");
    LAM_TRY(lam_arena_alloc(&l->arena, (void **)&shape, sizeof *shape));
    *shape = p->count - others;
    add(l, name, 1, shape, l->layout == LAM_BIAS_LEGACY ? values + others : values);
    return LAM_OK;
}

static lam_status check_biases(const lam_network *network, lam_bias_layout layout) {
    static const char *const layouts[] = {"all", "legacy", "fixed"};
    int64_t element = 0, embed_dim = network->settings.model.embed_dim;
    lam_bias_layout other = layout == LAM_BIAS_LEGACY ? LAM_BIAS_FIXED : LAM_BIAS_LEGACY;
    const lam_parameter_entry *p = lam_bias_stray(network->parameters, embed_dim, layout, &element);
    if (!p) return LAM_OK;
    float value = network->parameters->weights[p->offset + element];
    int64_t unused = 0;
    bool fits = !lam_bias_stray(network->parameters, embed_dim, other, &unused);
    LAM_REQUIRE(!fits, LAM_ERROR_INPUT,
                "--bias-layout %s: %s has %g at element %" PRId64 ", where this layout has zeros: take %s",
                layouts[layout], p->name, (double)value, element, layouts[other]);
    LAM_FAIL(
        LAM_ERROR_INPUT,
        "--to openphenom: %s has %g at element %" PRId64
        ", where a file of OpenPhenom's form has no place: train with model.bias_layout: legacy (or fixed), "
        "or keep lamella's own file",
        p->name, (double)value, element);
}

static lam_status add_placeholder(list *l, int64_t width) {
    int64_t *shape = NULL;
    float *zeros = NULL;
    LAM_TRY(lam_arena_alloc(&l->arena, (void **)&shape, 3 * sizeof *shape));
    LAM_TRY(lam_arena_alloc(&l->arena, (void **)&zeros, (size_t)width * sizeof *zeros));
    memcpy(shape, (int64_t[]){1, 1, width}, 3 * sizeof *shape);
    add(l, "decoder.placeholder", 3, shape, zeros);
    return LAM_OK;
}

static lam_status fill(list *l, const lam_network *network) {
    const lam_parameters *p = network->parameters;
    const lam_mae_config *m = &network->settings.model;
    int64_t table = l->known_channels > MAX_IN_CHANS ? l->known_channels : MAX_IN_CHANS;
    LAM_TRY(lam_alloc_array((void **)&l->tensors, p->entries + 1, sizeof *l->tensors));
    for (int64_t i = 0; i < p->entries; i++) {
        const lam_parameter_entry *e = &p->entry[i];
        const float *values = p->weights + e->offset;
        if (network->no_decoder && strncmp(e->name, "encoder.", 8) != 0) continue;
        if (lam_bias_is_layout(e))
            LAM_TRY(add_mlp_bias(l, e, values, m->embed_dim));
        else if (l->known_channels && lam_text_ends_with(e->name, ".pos_embed"))
            LAM_TRY(add_table(l, e, values, table));
        else if (l->known_channels && lam_text_ends_with(e->name, ".pos_embeddings"))
            LAM_TRY(add_table(l, e, values, l->known_channels));
        else
            add(l, e->name, e->rank, e->shape, values);
    }
    return l->known_channels && !network->no_decoder ? add_placeholder(l, m->decoder_embed_dim) : LAM_OK;
}

/* Sizes, and what the file cannot tell to who reads it next. */
static lam_status write_config(const lam_network *network, const list *l, lam_staged *staged) {
    const lam_mae_config *m = &network->settings.model;
    char *text = NULL;
    const char *path = NULL;
    lam_json *json = lam_json_object();
    lam_json_set_text(json, "format",
                      "OpenPhenom: model.safetensors is a torch.save file of {\"state_dict\": ...}");
    lam_json_set_text(json, "bias_layout", l->layout == LAM_BIAS_LEGACY ? "timm_legacy" : "fixed");
    lam_json_set_int(json, "image_size", m->image_size);
    lam_json_set_int(json, "patch_size", m->patch_size);
    lam_json_set_int(json, "embed_dim", m->embed_dim);
    lam_json_set_int(json, "depth", m->depth);
    lam_json_set_int(json, "num_attention_heads", m->num_heads);
    lam_json_set_int(json, "decoder_embed_dim", m->decoder_embed_dim);
    lam_json_set_int(json, "decoder_depth", m->decoder_depth);
    lam_json_set_int(json, "decoder_num_attention_heads", m->decoder_num_heads);
    lam_json_set_float(json, "mask_ratio", m->mask_ratio);
    lam_status status = lam_json_dump(json, true, &text);
    lam_json_free(json);
    if (status == LAM_OK) status = lam_staged_add(staged, "config.json", &path);
    if (status == LAM_OK) status = lam_file_write(path, text, strlen(text));
    lam_free(text);
    return status;
}

/* ---- the second name ---- */

static const char second_name[] = "pytorch_model.bin", first_name[] = "model.safetensors";

/* Whether something has the second name, and whether it is the link that an export makes. */
static lam_status look_at_link(const char *folder, bool *there, bool *ours) {
    char *path = NULL, target[sizeof first_name + 1];
    struct stat info;
    LAM_TRY(lam_path_join(&path, folder, second_name));
    *there = lstat(path, &info) == 0;
    ssize_t length = *there && S_ISLNK(info.st_mode) ? readlink(path, target, sizeof target) : -1;
    *ours = length == (ssize_t)sizeof first_name - 1 && !memcmp(target, first_name, (size_t)length);
    lam_free(path);
    return LAM_OK;
}

lam_status lam_export_drop_link(const char *folder) {
    bool there = false, ours = false;
    LAM_TRY(look_at_link(folder, &there, &ours));
    return ours ? lam_remove_files(folder, (const char *const[]){second_name}, 1) : LAM_OK;
}

/* What lies in the folder already, is not replaced, and would be taken for a part of this network. */
static lam_status refuse_strangers(const char *folder) {
    static const char preprocessor[] = "preprocessor_config.json";
    bool there = false, ours = false;
    char *path = NULL;
    LAM_TRY(look_at_link(folder, &there, &ours));
    LAM_REQUIRE(!there || ours, LAM_ERROR_USAGE,
                "%s/%s: lamella has not written it and does not replace it: move it, or choose another --out",
                folder, second_name);
    LAM_TRY(lam_path_join(&path, folder, preprocessor));
    there = lam_path_exists(path);
    lam_free(path);
    LAM_REQUIRE(
        !there, LAM_ERROR_USAGE,
        "%s/%s: belongs to other weights and would be applied to these: move it, or choose another --out",
        folder, preprocessor);
    return LAM_OK;
}

/* Newer torch.load takes a name that ends in .safetensors for that format, published loaders ask for that name: the file has
 * both. */
static lam_status add_second_name(lam_staged *staged) {
    const char *path = NULL;
    LAM_TRY(lam_staged_add(staged, second_name, &path));
    if (symlink(first_name, path) != 0)
        lam_log_warning("the link %s cannot be made (%s): rename %s where torch.load refuses it for its name",
                        second_name, lam_why(errno), first_name);
    return LAM_OK;
}

static lam_status write_all(const lam_network *network, const list *l, lam_staged *staged) {
    const char *path = NULL;
    LAM_TRY(lam_staged_add(staged, first_name, &path));
    LAM_TRY(lam_torch_write(path, l->tensors, l->count, true));
    LAM_TRY(add_second_name(staged));
    LAM_TRY(write_config(network, l, staged));
    return lam_staged_commit(staged);
}

lam_status lam_export_openphenom(const lam_network *network, const char *folder, lam_bias_layout layout) {
    const char *name = lam_mae_name(network->settings.model.kind);
    list l = {.layout = layout};
    lam_staged *staged = NULL;
    char key[64];
    bool agnostic = !strcmp(name, "mae_channel_agnostic");
    LAM_REQUIRE(agnostic || !strcmp(name, "mae_vit_parallel"), LAM_ERROR_INPUT,
                "--to openphenom: takes mae_channel_agnostic and mae_vit_parallel, not %s", name);
    LAM_REQUIRE(!agnostic || lam_parameters_find(network->parameters, "decoder.cross_attention.q.weight"),
                LAM_ERROR_INPUT, "--to openphenom: takes the decoder cross, not shared");
    for (; agnostic; l.known_channels++) {
        snprintf(key, sizeof key, "decoder.modality_tokens.%" PRId64, l.known_channels);
        if (!lam_parameters_find(network->parameters, key)) break;
    }
    lam_status status = LAM_OK;
    LAM_TRY(refuse_strangers(folder));
    LAM_TRY(check_biases(network, layout));
    LAM_TRY_GOTO(fill(&l, network), done);
    LAM_TRY_GOTO(lam_staged_open(&staged, folder), done);
    LAM_TRY_GOTO(write_all(network, &l, staged), done);
    const lam_mae_config *m = &network->settings.model;
    if (m->normalize != LAM_NORMALIZE_CROP || m->transform != 0)
        lam_export_warn_of_pixels(network, folder,
                                  "readers of this form standardise each crop and channel by itself");
done:
    lam_staged_close(&staged);
    lam_free(l.tensors);
    lam_arena_free(&l.arena);
    return status;
}
