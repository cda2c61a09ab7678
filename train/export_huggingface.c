#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/files.h"
#include "base/json.h"
#include "base/memory.h"
#include "base/safetensors.h"
#include "base/staged.h"
#include "train/export.h"

static lam_status write_json(lam_staged *staged, const char *name, lam_json *json) {
    char *text = NULL;
    const char *path = NULL;
    lam_status status = lam_json_dump(json, true, &text);
    lam_json_free(json);
    if (status == LAM_OK) status = lam_staged_add(staged, name, &path);
    if (status == LAM_OK) status = lam_file_write(path, text, strlen(text));
    lam_free(text);
    return status;
}

/* Keys of transformers' ViTMAEConfig. */
static lam_status write_config(const lam_network *network, lam_staged *staged) {
    const lam_mae_config *m = &network->settings.model;
    lam_json *json = lam_json_object(), *architectures = lam_json_array();
    lam_json_append_text(architectures, network->no_decoder ? "ViTMAEModel" : "ViTMAEForPreTraining");
    lam_json_set(json, "architectures", architectures);
    lam_json_set_text(json, "model_type", "vit_mae");
    lam_json_set_int(json, "hidden_size", m->embed_dim);
    lam_json_set_int(json, "num_hidden_layers", m->depth);
    lam_json_set_int(json, "num_attention_heads", m->num_heads);
    lam_json_set_int(json, "intermediate_size", m->mlp_dim);
    lam_json_set_text(json, "hidden_act", "gelu");
    lam_json_set_bool(json, "qkv_bias", true);
    lam_json_set_float(json, "layer_norm_eps", m->layer_norm_eps);
    lam_json_set_float(json, "hidden_dropout_prob", 0);
    lam_json_set_float(json, "attention_probs_dropout_prob", 0);
    lam_json_set_float(json, "initializer_range", 0.02);
    lam_json_set_int(json, "image_size", m->image_size);
    lam_json_set_int(json, "patch_size", m->patch_size);
    lam_json_set_int(json, "num_channels", m->in_channels);
    lam_json_set_int(json, "decoder_hidden_size", m->decoder_embed_dim);
    lam_json_set_int(json, "decoder_num_hidden_layers", m->decoder_depth);
    lam_json_set_int(json, "decoder_num_attention_heads", m->decoder_num_heads);
    lam_json_set_int(json, "decoder_intermediate_size", m->decoder_mlp_dim);
    lam_json_set_float(json, "mask_ratio", m->mask_ratio);
    lam_json_set_bool(json, "norm_pix_loss", m->norm_pix_loss);
    lam_json_set_text(json, "torch_dtype", "float32");
    return write_json(staged, "config.json", json);
}

/* transformers knows one mean and deviation a channel, nothing that depends on the crop or the plate. */
static lam_status write_preprocessor(const lam_network *network, const char *folder, lam_staged *staged) {
    const lam_mae_config *m = &network->settings.model;
    bool same_scale = true;
    for (int64_t c = 1; c < network->channels; c++)
        same_scale = same_scale && network->channel_bits[c] == network->channel_bits[0];
    bool expressible = m->normalize == LAM_NORMALIZE_DATASET && m->transform == 0 && same_scale;
    lam_json *json = lam_json_object(), *size = lam_json_object(), *mean = lam_json_array(),
             *deviation = lam_json_array();
    lam_json_set_int(size, "height", m->image_size);
    lam_json_set_int(size, "width", m->image_size);
    for (int64_t c = 0; c < network->channels; c++) {
        double d = network->channel_deviation[c];
        lam_json_append_float(mean, network->channel_mean[c]);
        lam_json_append_float(deviation, sqrt(d * d + 1e-5));
    }
    lam_json_set_text(json, "image_processor_type", "ViTImageProcessor");
    lam_json_set_bool(json, "do_resize", false);
    lam_json_set(json, "size", size);
    lam_json_set_bool(json, "do_rescale", expressible);
    lam_json_set_bool(json, "do_normalize", expressible);
    if (expressible) {
        lam_json_set_float(json, "rescale_factor", 1 / (ldexp(1, network->channel_bits[0]) - 1));
        lam_json_set(json, "image_mean", mean);
        lam_json_set(json, "image_std", deviation);
    } else {
        lam_json_free(mean);
        lam_json_free(deviation);
        lam_export_warn_of_pixels(network, folder,
                                  "preprocessor_config.json knows one mean and deviation a channel");
    }
    return write_json(staged, "preprocessor_config.json", json);
}

static bool of_decoder(const char *name) { return !strncmp(name, "decoder.", 8); }

/* Tensors and nothing of ours; without a decoder the encoder's, under the names that ViTMAEModel has: without "vit.". */
static lam_status write_tensors(const lam_network *network, const char *path) {
    const lam_parameters *p = network->parameters;
    lam_safetensors_writer *writer = NULL;
    size_t prefix = network->no_decoder ? strlen("vit.") : 0;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_safetensors_writer_open(&writer, path), done);
    LAM_TRY_GOTO(lam_safetensors_writer_metadata(writer, "format", "pt"), done);
    for (int64_t i = 0; i < p->entries; i++) {
        const lam_parameter_entry *e = &p->entry[i];
        if (network->no_decoder && of_decoder(e->name)) continue;
        LAM_TRY_GOTO(lam_safetensors_writer_declare(writer, e->name + prefix, "F32", e->rank, e->shape),
                     done);
    }
    for (int64_t i = 0; i < p->entries; i++) {
        const lam_parameter_entry *e = &p->entry[i];
        if (network->no_decoder && of_decoder(e->name)) continue;
        LAM_TRY_GOTO(
            lam_safetensors_writer_data(writer, p->weights + e->offset, (size_t)e->count * sizeof(float)),
            done);
    }
    return lam_safetensors_writer_commit(&writer);
done:
    lam_safetensors_writer_abort(&writer);
    return status;
}

static lam_status write_all(const lam_network *network, const char *folder, lam_staged *staged) {
    const char *path = NULL;
    /* With our metadata, where there is something to tell, lamella reads its channels again. */
    bool plain = network->unnamed || network->no_decoder;
    LAM_TRY(lam_staged_add(staged, "model.safetensors", &path));
    LAM_TRY(plain ? write_tensors(network, path) : lam_network_write(network, NULL, path, network->step));
    LAM_TRY(write_preprocessor(network, folder, staged));
    LAM_TRY(write_config(network, staged));
    return lam_staged_commit(staged);
}

lam_status lam_export_huggingface(const lam_network *network, const char *folder) {
    lam_staged *staged = NULL;
    LAM_REQUIRE(network->settings.model.kind == LAM_MAE_VIT, LAM_ERROR_INPUT,
                "--to huggingface: transformers has no %s, only mae_vit",
                lam_mae_name(network->settings.model.kind));
    LAM_TRY(lam_staged_open(&staged, folder));
    lam_status status = write_all(network, folder, staged);
    lam_staged_close(&staged);
    return status == LAM_OK ? lam_export_drop_link(folder) : status;
}
