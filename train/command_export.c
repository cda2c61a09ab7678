#include <inttypes.h>
#include <string.h>

#include "base/files.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/records.h"
#include "train/checkpoint.h"
#include "train/commands.h"
#include "train/export.h"
#include "train/import.h"

/* As the option says, else as the network was trained or read. */
static lam_bias_layout layout_of(const lam_network *network, const lam_arguments *a) {
    lam_bias_layout own = network->settings.bias_layout;
    if (!lam_option_given(a, "bias-layout")) return own == LAM_BIAS_ALL ? LAM_BIAS_LEGACY : own;
    return strcmp(lam_option_text(a, "bias-layout"), "fixed") ? LAM_BIAS_LEGACY : LAM_BIAS_FIXED;
}

static lam_status write(const lam_network *network, const lam_arguments *a) {
    const char *out = lam_option_text(a, "out");
    bool openphenom = !strcmp(lam_option_text(a, "to"), "openphenom");
    LAM_REQUIRE(openphenom || !lam_option_given(a, "bias-layout"), LAM_ERROR_USAGE,
                "--bias-layout: is a matter of openphenom alone");
    LAM_TRY(lam_make_folders(out));
    if (!openphenom) return lam_export_huggingface(network, out);
    return lam_export_openphenom(network, out, layout_of(network, a));
}

/* The network that is read must not be what is written over. */
static lam_status refuse_source(const char *out, const char *source, const char *file) {
    const char *slash = strrchr(file, '/');
    char *folder = NULL, *written = NULL;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_text_copy_n(&folder, slash ? file : ".", slash ? (size_t)(slash - file + 1) : 1), done);
    LAM_TRY_GOTO(lam_path_join(&written, out, "model.safetensors"), done);
    LAM_REQUIRE_GOTO(
        !lam_path_same(out, source) && !lam_path_same(out, folder) && !lam_path_same(written, file), done,
        LAM_ERROR_USAGE, "--out %s: is where the network itself lies: choose another folder", out);
done:
    lam_free(folder);
    lam_free(written);
    return status;
}

static lam_status run(const lam_arguments *a) {
    const char *out = lam_option_text(a, "out"), *to = lam_option_text(a, "to");
    char *file = NULL;
    lam_network *network = NULL;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_require_absent(out, lam_option_force(a)), done);
    LAM_TRY_GOTO(lam_checkpoint_weights(lam_positional(a, 0), lam_option_flag(a, "ema"), &file), done);
    LAM_TRY_GOTO(refuse_source(out, lam_positional(a, 0), file), done);
    LAM_TRY_GOTO(lam_network_read(&network, file, NULL), done);
    LAM_TRY_GOTO(lam_import_check(network, file), done);
    bool existed = lam_path_exists(out);
    status = write(network, a);
    if (status != LAM_OK && !existed) lam_remove_tree(out); /* half a network is of use to nobody */
    if (status != LAM_OK) goto done;
    lam_log_info("%s: %s for %s, %" PRId64 " elements%s", out, lam_mae_name(network->settings.model.kind), to,
                 lam_network_elements(network), network->no_decoder ? ", the encoder alone" : "");
    if (lam_option_json(a)) {
        lam_json *json = lam_json_object();
        lam_json_set_text(json, "out", out);
        lam_json_set_text(json, "to", to);
        lam_json_set_text(json, "model", lam_mae_name(network->settings.model.kind));
        lam_json_set_bool(json, "decoder", !network->no_decoder);
        status = lam_records_print(json, false);
        lam_json_free(json);
    }
done:
    lam_network_free(&network);
    lam_free(file);
    return status;
}

static const lam_option options[] = {
    {"to", LAM_OPTION_CHOICE, "huggingface|openphenom", NULL,
     "whose program reads it; huggingface takes mae_vit; openphenom mae_vit_parallel and mae_channel_agnostic with model.bias_layout legacy or fixed",
     .required = true},
    {"out", LAM_OPTION_TEXT, "DIR", NULL, "folder for weights and configuration", .required = true},
    {"ema", LAM_OPTION_FLAG, NULL, NULL,
     "the moving average of the weights (optim.ema) instead of the last ones", .required = false},
    {"bias-layout", LAM_OPTION_CHOICE, "legacy|fixed", NULL,
     "where the biases of parallel blocks lie: timm <= 1.0.24 (published weights), or >= 1.0.25; else as in "
     "training (model.bias_layout)",
     .required = false},
    {.name = NULL}};

const lam_command lam_command_export = {
    "export",
    "write a network as a file of other programs",
    "CHECKPOINT",
    1,
    1,
    options,
    "lamella export runs/first --to huggingface --out vit_mae\n"
    "lamella train configs/ca_s16.yaml data.path=shards train.out=runs/ca "
    "model.bias_layout=legacy\n"
    "lamella export runs/ca --to openphenom --out phenom\n"
    "lamella export openphenom --to openphenom --out again",
    run};
