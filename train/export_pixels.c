#include "base/log.h"
#include "train/export.h"

void lam_export_warn_of_pixels(const lam_network *network, const char *folder, const char *readers) {
    static const char *const normalize[] = {"crop", "plate", "dataset"}, *const transform[] = {"none", "sqrt",
                                                                                               "log"};
    const lam_mae_config *m = &network->settings.model;
    lam_log_warning(
        "%s: %s, the run has data.normalize: %s, data.transform: %s: do as the run does before the model is "
        "called (docs/weights.md, Pixels)%s",
        folder, readers, normalize[m->normalize], transform[m->transform],
        m->normalize == LAM_NORMALIZE_CROP
            ? ", each crop and channel to mean 0 and variance 1, variance + 1e-5"
            : "; bits, mean and deviation of each channel: lamella_channels in the run's own model.safetensors");
}
