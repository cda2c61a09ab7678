#include "base/config.h"
#include "base/log.h"
#include "train/export.h"

void lam_export_warn_of_pixels(const lam_network *network, const char *folder, const char *readers) {
    lam_normalize how = network->settings.model.normalize;
    lam_log_warning(
        "%s: %s, the run has data.normalize: %s, data.transform: %s: do as the run does before the model is "
        "called (docs/weights.md, Pixels)%s",
        folder, readers, lam_config_text(network->config, "data.normalize"),
        lam_config_text(network->config, "data.transform"),
        how == LAM_NORMALIZE_CROP
            ? ", each crop and channel to mean 0 and variance 1, variance + 1e-5"
            : "; bits, mean and deviation of each channel: lamella_channels in the run's own model.safetensors");
}
