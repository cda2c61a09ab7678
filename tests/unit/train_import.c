/* Weights of other programs: every naming gives the same parameters, bit for bit, and what would compute something else is
 * refused; exported files are read again as they were. */
#include "train/import.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/fault.h"
#include "base/files.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/torch_file.h"
#include "base/weights_file.h"
#include "train/export.h"

static char folder[64];

static const char *in(const char *name) {
    static char path[4][160];
    static int next = 0;
    next = (next + 1) % 4;
    snprintf(path[next], sizeof path[next], "%s/%s", folder, name);
    return path[next];
}

static int set_up(void **state) {
    (void)state;
    lam_log_set_silent(true);
    snprintf(folder, sizeof folder, "/tmp/lamella-import-%ld", (long)getpid());
    return lam_make_folders(folder) == LAM_OK ? 0 : 1;
}

static int tear_down(void **state) {
    (void)state;
    return lam_remove_tree(folder) == LAM_OK ? 0 : 1;
}

static void must(lam_status status) {
    if (status != LAM_OK) fail_msg("%s", lam_last_error());
}

/* ---- the tensors of a golden file, under names of our choice ---- */

typedef struct set {
    lam_torch_tensor tensor[256];
    char name[256][160];
    int64_t shape[256][4];
    float *values[256];
    int count;
} set;

static void add(set *s, const char *name, int rank, const int64_t *shape, const float *values) {
    int i = s->count++;
    int64_t count = 1;
    for (int a = 0; a < rank; a++) count *= s->shape[i][a] = shape[a];
    snprintf(s->name[i], sizeof s->name[i], "%s", name);
    must(lam_alloc_array((void **)&s->values[i], count, sizeof(float)));
    memcpy(s->values[i], values, (size_t)count * sizeof(float));
    s->tensor[i] = (lam_torch_tensor){s->name[i], rank, s->shape[i], s->values[i]};
}

static set *golden(const char *file) {
    set *s = NULL;
    lam_weights *weights = NULL;
    char path[256];
    snprintf(path, sizeof path, LAM_TEST_GOLDEN "/%s", file);
    must(lam_alloc((void **)&s, sizeof *s));
    must(lam_weights_open(&weights, path));
    for (int64_t i = 0; i < lam_weights_count(weights); i++) {
        const lam_weights_entry *e = lam_weights_at(weights, i);
        float *values = NULL;
        if (strncmp(e->name, "param.", 6) != 0) continue;
        must(lam_alloc_array((void **)&values, e->count, sizeof *values));
        must(lam_weights_read_f32(weights, e, values));
        add(s, e->name + 6, e->rank, e->shape, values);
        lam_free(values);
    }
    lam_weights_close(weights);
    return s;
}

static void free_set(set *s) {
    for (int i = 0; i < s->count; i++) lam_free(s->values[i]);
    lam_free(s);
}

static void drop(set *s, int i) {
    lam_free(s->values[i]);
    for (int k = i; k + 1 < s->count; k++) {
        memcpy(s->name[k], s->name[k + 1], sizeof s->name[k]);
        memcpy(s->shape[k], s->shape[k + 1], sizeof s->shape[k]);
        s->values[k] = s->values[k + 1];
        s->tensor[k] = (lam_torch_tensor){s->name[k], s->tensor[k + 1].rank, s->shape[k], s->values[k]};
    }
    s->count--;
}

/* Each `from` inside a name becomes `to`. */
static void rename_all(set *s, const char *from, const char *to) {
    for (int i = 0; i < s->count; i++) {
        char *at = strstr(s->name[i], from), rest[160];
        if (!at) continue;
        snprintf(rest, sizeof rest, "%s", at + strlen(from));
        snprintf(at, sizeof s->name[i] - (size_t)(at - s->name[i]), "%s%s", to, rest);
    }
}

static int find(const set *s, const char *name) {
    for (int i = 0; i < s->count; i++)
        if (!strcmp(s->name[i], name)) return i;
    return -1;
}

static void drop_named(set *s, const char *part) {
    for (int i = s->count - 1; i >= 0; i--)
        if (strstr(s->name[i], part)) drop(s, i);
}

static void write_config(const char *text) { must(lam_file_write(in("config.json"), text, strlen(text))); }

static const char rgb_config[] =
    "{\"num_attention_heads\": 3, \"decoder_num_attention_heads\": 4, \"norm_pix_loss\": true, "
    "\"layer_norm_eps\": 1e-6, \"hidden_act\": \"gelu\"}";

static lam_network *import(const set *s) {
    lam_network *network = NULL;
    must(lam_torch_write(in("model.pth"), s->tensor, s->count, false));
    must(lam_import_network(&network, in("model.pth"), NULL));
    return network;
}

static void expect_same(const lam_network *network, const set *s, bool decoder) {
    const lam_parameters *p = network->parameters;
    for (int64_t i = 0; i < p->entries; i++) {
        const lam_parameter_entry *e = &p->entry[i];
        if (!decoder && !strncmp(e->name, "decoder.", 8)) continue;
        int k = find(s, e->name);
        if (k < 0) fail_msg("%s: not in the golden file", e->name);
        if (memcmp(p->weights + e->offset, s->values[k], (size_t)e->count * sizeof(float)) != 0)
            fail_msg("%s: other values", e->name);
    }
    for (int k = 0; k < s->count; k++)
        if (decoder && !lam_parameters_find(p, s->name[k])) fail_msg("%s: left out", s->name[k]);
}

/* ---- namings ---- */

static void in_memory(set *s) {
    rename_all(s, "vit.encoder.layer.", "vit.layers.");
    rename_all(s, "attention.attention.query", "attention.q_proj");
    rename_all(s, "attention.attention.key", "attention.k_proj");
    rename_all(s, "attention.attention.value", "attention.v_proj");
    rename_all(s, "attention.output.dense", "attention.o_proj");
    rename_all(s, "intermediate.dense", "mlp.fc1");
    rename_all(s, "output.dense", "mlp.fc2");
}

static void as_saved_by_5(set *s) {
    rename_all(s, "decoder.decoder_layers.", "decoder.decoder_encoder.layer.");
}

/* q, k, v of a block become attn.qkv. */
static void fuse(set *s, const char *block, const char *end) {
    static const char *const parts[] = {"query", "key", "value"};
    char name[160];
    float joined[3 * 48 * 48];
    int64_t count = 0, shape[2] = {0, 0};
    int rank = 0;
    for (int part = 0; part < 3; part++) {
        snprintf(name, sizeof name, "%sattention.attention.%s.%s", block, parts[part], end);
        int i = find(s, name);
        assert_true(i >= 0);
        rank = s->tensor[i].rank;
        int64_t n = s->shape[i][0] * (rank == 2 ? s->shape[i][1] : 1);
        memcpy(joined + count, s->values[i], (size_t)n * sizeof(float));
        count += n;
        shape[0] += s->shape[i][0];
        shape[1] = s->shape[i][1];
        drop(s, i);
    }
    snprintf(name, sizeof name, "%sattn.qkv.%s", block, end);
    add(s, name, rank, shape, joined);
}

static void as_timm(set *s) {
    char block[64];
    for (int i = 0; i < 2; i++) {
        for (int decoder = 0; decoder < 2; decoder++) {
            snprintf(block, sizeof block, "%s.%d.", decoder ? "decoder.decoder_layers" : "vit.encoder.layer",
                     i);
            fuse(s, block, "weight");
            fuse(s, block, "bias");
        }
    }
    rename_all(s, "vit.embeddings.cls_token", "cls_token");
    rename_all(s, "vit.embeddings.position_embeddings", "pos_embed");
    rename_all(s, "vit.embeddings.patch_embeddings.projection", "patch_embed.proj");
    rename_all(s, "vit.encoder.layer.", "blocks.");
    rename_all(s, "vit.layernorm", "norm");
    rename_all(s, "decoder.decoder_layers.", "decoder_blocks.");
    rename_all(s, "decoder.", "");
    rename_all(s, "layernorm_before", "norm1");
    rename_all(s, "layernorm_after", "norm2");
    rename_all(s, "attention.output.dense", "attn.proj");
    rename_all(s, "intermediate.dense", "mlp.fc1");
    rename_all(s, "output.dense", "mlp.fc2");
}

static void prefixed(set *s) {
    for (int i = 0; i < s->count; i++) {
        char name[160];
        snprintf(name, sizeof name, "module.%.140s", s->name[i]);
        memcpy(s->name[i], name, sizeof name);
    }
}

static void as_published(set *s) { (void)s; }

static void every_naming(void **state) {
    (void)state;
    void (*const namings[])(set *) = {as_published, in_memory, as_saved_by_5, as_timm, prefixed};
    set *truth = golden("vit_mae_rgb.safetensors");
    write_config(rgb_config);
    for (size_t i = 0; i < sizeof namings / sizeof *namings; i++) {
        set *s = golden("vit_mae_rgb.safetensors");
        namings[i](s);
        lam_network *network = import(s);
        expect_same(network, truth, true);
        const lam_mae_config *m = &network->settings.model;
        assert_int_equal(m->kind, LAM_MAE_VIT);
        assert_true(m->embed_dim == 48 && m->depth == 2 && m->num_heads == 3 && m->mlp_dim == 192);
        assert_true(m->decoder_embed_dim == 32 && m->decoder_depth == 2 && m->decoder_num_heads == 4);
        assert_true(m->image_size == 32 && m->patch_size == 8 && m->in_channels == 3 && m->norm_pix_loss);
        assert_true(network->unnamed && !network->no_decoder && !m->learned_positions);
        lam_network_free(&network);
        free_set(s);
    }
    free_set(truth);
}

static void an_encoder_alone(void **state) {
    (void)state;
    set *truth = golden("vit_mae_rgb.safetensors"), *s = golden("vit_mae_rgb.safetensors");
    drop_named(s, "decoder.");
    rename_all(s, "vit.", "");
    lam_network *network = import(s), *again = NULL;
    assert_true(network->no_decoder);
    expect_same(network, truth, false);
    must(lam_make_folders(in("encoder")));
    must(lam_export_huggingface(network, in("encoder")));
    must(lam_import_network(&again, in("encoder/model.safetensors"), NULL));
    assert_true(again->no_decoder && again->settings.model.num_heads == 3);
    expect_same(again, truth, false);
    lam_network_free(&again);
    lam_network_free(&network);
    free_set(s);
    free_set(truth);
}

static void exported_and_read_again(void **state) {
    (void)state;
    static const char statistics[] =
        "{\"do_normalize\": true, \"image_mean\": [0.25, 0.5, 0.75], \"image_std\": [0.5, 0.25, 0.125]}";
    set *truth = golden("vit_mae_rgb.safetensors");
    must(lam_file_write(in("preprocessor_config.json"), statistics, strlen(statistics)));
    lam_network *network = import(truth), *again = NULL;
    assert_int_equal(network->settings.model.normalize, LAM_NORMALIZE_DATASET);
    must(lam_make_folders(in("exported")));
    must(lam_export_huggingface(network, in("exported")));
    must(lam_import_network(&again, in("exported/model.safetensors"), NULL));
    expect_same(again, truth, true);
    assert_int_equal(again->settings.model.normalize, LAM_NORMALIZE_DATASET);
    for (int c = 0; c < 3; c++) {
        assert_true(again->channel_mean[c] == 0.25 * (c + 1));
        double d = again->channel_deviation[c];
        assert_true(fabs(d * d + 1e-5 - 0.25 / (1 << 2 * c)) < 1e-12); /* what the feeder divides by */
    }
    assert_int_equal(lam_export_openphenom(network, in("exported"), LAM_BIAS_LEGACY), LAM_ERROR_INPUT);
    lam_network_free(&again);
    lam_network_free(&network);
    must(lam_remove_tree(in("preprocessor_config.json")));
    free_set(truth);
}

/* Bytes of the files of an export, one after the other; counts what lies there. */
static char *export_bytes(const char *of, size_t *size, int64_t *files) {
    static const char *const parts[] = {"model.safetensors", "config.json"};
    char *all = NULL, **names = NULL;
    *size = 0;
    must(lam_list_folder(of, "", &names, files));
    lam_free_texts(names, *files);
    for (int i = 0; i < 2; i++) {
        char *path = NULL, *bytes = NULL;
        size_t length = 0;
        must(lam_path_join(&path, of, parts[i]));
        must(lam_file_read(path, &bytes, &length));
        must(lam_grow((void **)&all, *size, *size + length));
        memcpy(all + *size, bytes, length);
        *size += length;
        lam_free(path);
        lam_free(bytes);
    }
    return all;
}

/* A disk that is full at any moment leaves the export that was there as it was. */
static void replaced_whole_or_not_at_all(void **state) {
    (void)state;
    set *vit = golden("vit_mae_rgb.safetensors"), *block = golden("vit_parallel_block.safetensors");
    for (int kind = 0; kind < 2; kind++) {
        write_config(kind ? "{}" : rgb_config);
        lam_network *network = import(kind ? block : vit);
        const char *out = kind ? "full_phenom" : "full_hf";
        size_t size = 0, now = 0;
        int64_t files = 0, left = 0, last_whole = 0, failures = 0;
        must(lam_make_folders(in(out)));
        must(kind ? lam_export_openphenom(network, in(out), LAM_BIAS_LEGACY)
                  : lam_export_huggingface(network, in(out)));
        char *before = export_bytes(in(out), &size, &files);
        network->parameters->weights[0] = 0.5f;
        network->settings.model.mask_ratio = 0.125; /* another config.json, too */
        for (int64_t n = 1;; n++, failures++) {
            lam_fault_arm(LAM_FAULT_WRITE, n);
            lam_status status = kind ? lam_export_openphenom(network, in(out), LAM_BIAS_LEGACY)
                                     : lam_export_huggingface(network, in(out));
            lam_fault_arm(LAM_FAULT_WRITE, 0);
            char *after = export_bytes(in(out), &now, &left);
            bool same = now == size && !memcmp(before, after, size);
            lam_free(after);
            assert_int_equal(left, files); /* nothing temporary */
            if (status == LAM_OK) {
                assert_false(same);
                break;
            }
            assert_int_equal(status, LAM_ERROR_IO);
            if (same) last_whole = n;
        }
        assert_true(failures > 6 && failures - last_whole <= 2); /* those of the renames after the first */
        lam_free(before);
        lam_network_free(&network);
    }
    free_set(vit);
    free_set(block);
}

static void strangers_stay(void **state) {
    (void)state;
    set *truth = golden("vit_parallel_block.safetensors");
    write_config("{}");
    lam_network *network = import(truth);
    char *bytes = NULL;
    size_t size = 0;
    must(lam_make_folders(in("strange")));
    must(lam_file_write(in("strange/pytorch_model.bin"), "theirs", 6));
    assert_int_equal(lam_export_openphenom(network, in("strange"), LAM_BIAS_LEGACY), LAM_ERROR_USAGE);
    assert_non_null(strstr(lam_last_error(), "pytorch_model.bin: lamella has not written it"));
    must(lam_file_read(in("strange/pytorch_model.bin"), &bytes, &size));
    assert_true(size == 6 && !memcmp(bytes, "theirs", 6));
    lam_free(bytes);
    must(lam_export_drop_link(in("strange")));
    assert_true(lam_path_exists(in("strange/pytorch_model.bin")));
    must(lam_remove_tree(in("strange/pytorch_model.bin")));
    assert_int_equal(symlink("elsewhere", in("strange/pytorch_model.bin")), 0);
    assert_int_equal(lam_export_openphenom(network, in("strange"), LAM_BIAS_LEGACY), LAM_ERROR_USAGE);
    must(lam_remove_tree(in("strange/pytorch_model.bin")));
    must(lam_file_write(in("strange/preprocessor_config.json"), "{}", 2));
    assert_int_equal(lam_export_openphenom(network, in("strange"), LAM_BIAS_LEGACY), LAM_ERROR_USAGE);
    assert_non_null(strstr(lam_last_error(), "preprocessor_config.json: belongs to other weights"));
    must(lam_remove_tree(in("strange/preprocessor_config.json")));
    for (int twice = 0; twice < 2; twice++) /* its own link is replaced */
        must(lam_export_openphenom(network, in("strange"), LAM_BIAS_LEGACY));
    must(lam_export_drop_link(in("strange")));
    assert_false(lam_path_exists(in("strange/pytorch_model.bin")));
    lam_network_free(&network);
    free_set(truth);
}

static void learned_positions(void **state) {
    (void)state;
    set *s = golden("vit_mae_rgb.safetensors");
    int table = find(s, "vit.embeddings.position_embeddings");
    assert_true(table >= 0);
    s->values[table][48 * 5 + 3] += 0.25f;
    lam_network *network = import(s);
    assert_true(network->settings.model.learned_positions);
    expect_same(network, s, true);
    lam_network_free(&network);
    free_set(s);
}

/* ---- parallel blocks ---- */

static void parallel_blocks(void **state) {
    (void)state;
    set *truth = golden("vit_parallel_block.safetensors");
    int bias = find(truth, "encoder.vit_backbone.blocks.1.mlp_bias");
    assert_true(bias >= 0 && truth->shape[bias][0] == 256);
    for (int fixed = 0; fixed < 2; fixed++) {
        write_config(fixed ? "{\"bias_layout\": \"fixed\"}" : "{}");
        lam_network *network = import(truth), *again = NULL;
        const lam_mae_config *m = &network->settings.model;
        assert_int_equal(m->kind, LAM_MAE_CHANNEL_AGNOSTIC); /* its table is repeated for 6 channels */
        assert_true(m->embed_dim == 64 && m->depth == 3 && m->num_heads == 2 && m->mlp_dim == 256);
        assert_true(m->image_size == 32 && m->patch_size == 8 && network->no_decoder);
        assert_int_equal(network->settings.bias_layout, fixed ? LAM_BIAS_FIXED : LAM_BIAS_LEGACY);
        const lam_parameter_entry *p =
            lam_parameters_find(network->parameters, "encoder.vit_backbone.blocks.1.in_proj.bias");
        const float *values = network->parameters->weights + p->offset;
        assert_int_equal(p->count, 7 * 64);
        assert_memory_equal(values + (fixed ? 0 : 192), truth->values[bias], 256 * sizeof(float));
        for (int i = 0; i < 192; i++) assert_true(values[(fixed ? 256 : 0) + i] == 0.0f);
        must(lam_make_folders(in("phenom")));
        assert_int_equal(
            lam_export_openphenom(network, in("phenom"), fixed ? LAM_BIAS_LEGACY : LAM_BIAS_FIXED),
            LAM_ERROR_INPUT);
        assert_non_null(strstr(lam_last_error(), "--bias-layout"));
        must(lam_export_openphenom(network, in("phenom"), fixed ? LAM_BIAS_FIXED : LAM_BIAS_LEGACY));
        must(lam_import_network(&again, in("phenom/pytorch_model.bin"), NULL));
        assert_int_equal(again->parameters->entries, network->parameters->entries);
        for (int64_t i = 0; i < again->parameters->entries; i++) {
            const lam_parameter_entry *e = &again->parameters->entry[i];
            if (strncmp(e->name, "encoder.", 8) != 0) continue;
            assert_memory_equal(again->parameters->weights + e->offset,
                                network->parameters->weights + e->offset, (size_t)e->count * sizeof(float));
        }
        assert_int_equal(lam_export_huggingface(network, in("phenom")), LAM_ERROR_INPUT);
        lam_network_free(&again);
        lam_network_free(&network);
    }
    free_set(truth);
}

/* ---- refusals ---- */

static void refuse(const set *s, const char *what) {
    lam_network *network = NULL;
    must(lam_torch_write(in("model.pth"), s->tensor, s->count, false));
    lam_status status = lam_import_network(&network, in("model.pth"), NULL);
    if (status != LAM_ERROR_INPUT && status != LAM_ERROR_CONFIG) fail_msg("accepted: %s", what);
    if (!strstr(lam_last_error(), what)) fail_msg("'%s' lacks '%s'", lam_last_error(), what);
}

static void what_cannot_be_computed(void **state) {
    (void)state;
    static const float few[64] = {1};
    static const struct {
        const char *drop, *add, *config, *message;
    } cases[] = {
        {"layer.1.layernorm_after.bias", NULL, rgb_config, "vit.encoder.layer.1.layernorm_after.bias"},
        {"cls_token", NULL, rgb_config, "no network that is known"},
        {"patch_embeddings", NULL, rgb_config, "patch_embeddings.projection.weight"},
        {"decoder_norm", NULL, rgb_config, "decoder.decoder_norm.weight"},
        {NULL, "vit.encoder.layer.0.layer_scale", rgb_config, "which no network here has"},
        {NULL, NULL, "{}", "put a config.json"},
        {NULL, NULL, "{\"num_attention_heads\": 5}", "model.num_heads"},
        {NULL, NULL, "{\"num_attention_heads\": 3, \"hidden_act\": \"relu\"}", "hidden_act is \"relu\""},
        {"layer.1.layernorm_after.weight", "vit.encoder.layer.1.layernorm_after.weight", rgb_config,
         "another shape"},
        {"position", "vit.embeddings.position_embeddings", rgb_config, "no square image"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        set *s = golden("vit_mae_rgb.safetensors");
        bool table = cases[i].add && strstr(cases[i].add, "position");
        if (cases[i].drop) drop_named(s, cases[i].drop);
        if (cases[i].add)
            add(s, cases[i].add, table ? 3 : 1, table ? (int64_t[]){1, 4, 16} : (int64_t[]){64}, few);
        write_config(cases[i].config);
        refuse(s, cases[i].message);
        free_set(s);
    }
    write_config(rgb_config);
}

/* A value that cannot be is told with its file and key, never replaced by a default. */
static void what_files_beside_say(void **state) {
    (void)state;
    static const char heads[] = "\"num_attention_heads\": 3, \"decoder_num_attention_heads\": 4";
    static const char statistics[] = "\"image_mean\": [0.5, 0.5, 0.5], \"image_std\": [0.5, 0.5, 0.5]";
    static const struct {
        const char *file, *with, *value, *message;
    } cases[] = {
        {"config.json", "", "\"num_attention_heads\": 2.5",
         "num_attention_heads is 2.5, due is a whole number from 1 to 1024"},
        {"config.json", "", "\"num_attention_heads\": -3", "num_attention_heads is -3, due"},
        {"config.json", "", "\"num_attention_heads\": \"3\"", "num_attention_heads is \"3\", due"},
        {"config.json", "", "\"num_attention_heads\": [3]", "num_attention_heads is a list of 1, due"},
        {"config.json", heads, "\"layer_norm_eps\": 0.5",
         "layer_norm_eps is 0.5, due is a number from 1e-15"},
        {"config.json", heads, "\"mask_ratio\": 1.5", "mask_ratio is 1.5, due"},
        {"config.json", heads, "\"norm_pix_loss\": \"yes\"",
         "norm_pix_loss is \"yes\", due is true or false"},
        {"config.json", heads, "\"norm_pix_loss\": 1", "norm_pix_loss is 1, due is true or false"},
        {"config.json", heads, "\"hidden_act\": true", "hidden_act is true, due is gelu"},
        {"config.json", heads, "\"hidden_size\": 64", "hidden_size is 64, the tensors of"},
        {"config.json", heads, "\"num_hidden_layers\": 12", "num_hidden_layers is 12, the tensors of"},
        {"config.json", heads, "\"bias_layout\": \"new\"",
         "bias_layout is \"new\", due is timm_legacy|fixed"},
        {"preprocessor_config.json", "", "\"image_mean\": [0.5], \"image_std\": [0.5]",
         "image_mean is a list of 1, due is a list of 3"},
        {"preprocessor_config.json", "", "\"image_mean\": 0.5, \"image_std\": 0.5",
         "image_mean is 0.5, due is a list"},
        {"preprocessor_config.json", "", "\"image_mean\": [0.5, 0.5, 0.5]",
         "has image_mean without image_std"},
        {"preprocessor_config.json", "", "\"image_mean\": [0.5, 0.5, 0.5], \"image_std\": [0.5, -0.5, 0.5]",
         "image_std[1] is -0.5, due"},
        {"preprocessor_config.json", "", "\"image_mean\": [0.5, 0.5, 0.5], \"image_std\": [0.5, 0.5, 0]",
         "image_std[2] is 0, due"},
        {"preprocessor_config.json", "", "\"image_mean\": [0.5, \"x\", 0.5], \"image_std\": [0.5, 0.5, 0.5]",
         "image_mean[1] is \"x\", due is a number"},
        {"preprocessor_config.json", statistics, "\"do_normalize\": \"false\"",
         "do_normalize is \"false\", due"},
        {"preprocessor_config.json", statistics, "\"rescale_factor\": 2", "rescale_factor is 2, due"},
        {"preprocessor_config.json", statistics, "\"rescale_factor\": 0.3",
         "rescale_factor is 0.3, due is one over"},
        {"preprocessor_config.json", statistics, "\"rescale_factor\": null", NULL},
    };
    set *truth = golden("vit_mae_rgb.safetensors");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[512];
        int n = snprintf(text, sizeof text, "{%s%s%s}", cases[i].with, *cases[i].with ? ", " : "",
                         cases[i].value);
        write_config(rgb_config);
        must(lam_file_write(in(cases[i].file), text, (size_t)n));
        if (cases[i].message) {
            refuse(truth, cases[i].message);
            if (!strstr(lam_last_error(), in(cases[i].file)) || strstr(lam_last_error(), "command line"))
                fail_msg("'%s' does not name the file", lam_last_error());
        } else {
            lam_network *network = import(truth);
            assert_true(network->channel_bits[0] == 8 && network->channel_mean[2] == 0.5);
            lam_network_free(&network);
        }
        must(lam_remove_tree(in("preprocessor_config.json")));
    }
    write_config(rgb_config);
    free_set(truth);
}

/* Shapes whose product is nothing may have any dimensions; sums and products of them must not be made. */
static void impossible_dimensions(void **state) {
    (void)state;
    static const char header[] =
        "{\"cls_token\":{\"dtype\":\"F32\",\"shape\":[0,1,9223372036854775807],\"data_offsets\":[0,0]},"
        "\"pos_embed\":{\"dtype\":\"F32\",\"shape\":[0,9223372036854775807,1],\"data_offsets\":[0,0]},"
        "\"patch_embed.proj.weight\":{\"dtype\":\"F32\",\"shape\":[0,1,9223372036854775807,9223372036854775807],"
        "\"data_offsets\":[0,0]},"
        "\"blocks.0.mlp.fc2.weight\":{\"dtype\":\"F32\",\"shape\":[0,9223372036854775807],\"data_offsets\":[0,0]}}";
    char file[sizeof header + 8] = {0};
    size_t length = sizeof header - 1;
    lam_network *network = NULL;
    memcpy(file, &length, sizeof length);
    memcpy(file + 8, header, length);
    must(lam_file_write(in("huge.safetensors"), file, 8 + length));
    write_config("{\"num_attention_heads\": 3}");
    assert_int_equal(lam_import_network(&network, in("huge.safetensors"), NULL), LAM_ERROR_INPUT);
    assert_non_null(strstr(lam_last_error(), "tensor cls_token should have 3 dimensions, none of them 0"));
    write_config(rgb_config);
}

/* ---- weights to begin with ---- */

/* A recipe that differs in one key from the weights: told by its name and both values, before a weight is read. */
static void begin_with_another_recipe(void **state) {
    (void)state;
    set *truth = golden("vit_mae_rgb.safetensors");
    lam_network *network = import(truth);
    lam_mae_config *m = &network->settings.model, recipe = *m;
    must(lam_import_weights_check(network, in("model.pth")));
    for (int key = 0;; key++) {
        const char *message = NULL;
        *m = recipe;
        switch (key) {
        case 0: m->num_heads = 6, message = "train.init: model.num_heads is 6, in "; break;
        case 1: m->depth = 1, message = "model.depth is 1, in "; break;
        case 2: m->layer_norm_eps = 1e-5, message = "model.layer_norm_eps is 1e-05, in "; break;
        case 3: m->learned_positions = true, message = "model.positions is learned, in "; break;
        case 4: m->embed_dim = 24, message = "model.embed_dim is 24, in "; break;
        case 5: m->mlp_dim = 96, message = "model.mlp_dim is 96, in "; break;
        case 6: m->in_channels = 5, message = "the data have 5 channels, "; break;
        case 7: m->patch_size = 16, message = "model.patch_size is 16, in "; break;
        case 8: m->kind = LAM_MAE_VIT_PARALLEL, message = "model.name is mae_vit_parallel, in "; break;
        case 9: m->decoder_depth = 1, message = "model.decoder_depth is 1, in "; break;
        case 10: m->decoder_num_heads = 2, message = "model.decoder_num_heads is 2, in "; break;
        case 11: m->decoder_embed_dim = 16, message = "model.decoder_embed_dim is 16, in "; break;
        default: break;
        }
        if (!message) break;
        assert_int_equal(lam_import_weights_check(network, in("model.pth")), LAM_ERROR_CONFIG);
        if (!strstr(lam_last_error(), message)) fail_msg("'%s' lacks '%s'", lam_last_error(), message);
    }
    /* Positions that were learned are none of sines and cosines. */
    int table = find(truth, "vit.embeddings.position_embeddings");
    truth->values[table][48 * 5 + 3] += 0.25f;
    must(lam_torch_write(in("learned.pth"), truth->tensor, truth->count, false));
    assert_int_equal(lam_import_weights_check(network, in("learned.pth")), LAM_ERROR_CONFIG);
    assert_non_null(strstr(lam_last_error(), "model.positions is sincos, in "));
    truth->values[table][48 * 5 + 3] -= 0.25f;
    /* What no network here has stays no part of one. */
    add(truth, "vit.encoder.layer.0.layer_scale", 1, (int64_t[]){1}, (float[]){1});
    must(lam_torch_write(in("scaled.pth"), truth->tensor, truth->count, false));
    assert_int_equal(lam_import_weights(network, in("scaled.pth")), LAM_ERROR_INPUT);
    assert_non_null(strstr(lam_last_error(), "which no network here has"));
    /* Nothing says the heads: the recipe does. */
    write_config("{}");
    m->num_heads = 6;
    must(lam_import_weights_check(network, in("model.pth")));
    write_config(rgb_config);
    lam_network_free(&network);
    free_set(truth);
}

static void weights_to_begin_with(void **state) {
    (void)state;
    set *truth = golden("vit_mae_rgb.safetensors"), *s = golden("vit_mae_rgb.safetensors");
    uint64_t seed = 7;
    drop_named(s, "decoder.");
    must(lam_torch_write(in("encoder.pth"), s->tensor, s->count, true));
    lam_network *network = NULL, *drawn = NULL;
    must(lam_torch_write(in("model.pth"), truth->tensor, truth->count, true));
    must(lam_import_network(&network, in("model.pth"), &seed));
    must(lam_import_network(&drawn, in("model.pth"), &seed));
    const lam_parameter_entry *norm = lam_parameters_find(network->parameters, "vit.layernorm.weight");
    assert_true(network->parameters->weights[norm->offset] == 1.0f); /* drawn, not read */
    must(lam_import_weights(network, in("encoder.pth")));
    expect_same(network, truth, false);
    for (int64_t i = 0; i < drawn->parameters->entries; i++) {
        const lam_parameter_entry *e = &drawn->parameters->entry[i];
        if (!strncmp(e->name, "decoder.", 8))
            assert_memory_equal(network->parameters->weights + e->offset,
                                drawn->parameters->weights + e->offset, (size_t)e->count * sizeof(float));
    }
    must(lam_import_weights(network, in("model.pth")));
    expect_same(network, truth, true);
    drop_named(s, "layer.0.layernorm_after");
    must(lam_torch_write(in("encoder.pth"), s->tensor, s->count, true));
    assert_int_equal(lam_import_weights(network, in("encoder.pth")), LAM_ERROR_INPUT);
    assert_non_null(strstr(lam_last_error(), "train.init"));
    lam_network_free(&drawn);
    lam_network_free(&network);
    free_set(s);
    free_set(truth);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_naming),
        cmocka_unit_test(an_encoder_alone),
        cmocka_unit_test(exported_and_read_again),
        cmocka_unit_test(learned_positions),
        cmocka_unit_test(parallel_blocks),
        cmocka_unit_test(replaced_whole_or_not_at_all),
        cmocka_unit_test(strangers_stay),
        cmocka_unit_test(what_cannot_be_computed),
        cmocka_unit_test(what_files_beside_say),
        cmocka_unit_test(impossible_dimensions),
        cmocka_unit_test(begin_with_another_recipe),
        cmocka_unit_test(weights_to_begin_with),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
