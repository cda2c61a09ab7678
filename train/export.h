/* Networks as files of other programs.
 *
 *     LAM_TRY(lam_export_huggingface(network, "out"));
 *     LAM_TRY(lam_export_openphenom(network, "out", LAM_BIAS_LEGACY));
 *
 * huggingface (mae_vit): model.safetensors, config.json, preprocessor_config.json, as ViTMAEForPreTraining.from_pretrained takes
 * them; a network without a decoder is written for ViTMAEModel. The names in the file are those published for facebook/vit-mae-*.
 *
 * openphenom (mae_channel_agnostic with the cross decoder, mae_vit_parallel): model.safetensors, which is a torch.save zip of
 * {"state_dict": {...}} as published, pytorch_model.bin (a link to it: torch.load of PyTorch 2.15 refuses the first name), and
 * config.json with the sizes. Position tables are repeated for max_in_chans = 11
 * channels (at least the network's) in the encoder, for each channel in the decoder; decoder.placeholder is zero.
 *
 * The bias of in_proj has 7 D values here and 4 D there (train/foreign.h), so one of the two layouts has to hold it: the
 * other 3 D must be zero, else LAM_ERROR_INPUT names model.bias_layout, which keeps them so in training.
 * LEGACY: the first 3 D are zero, for timm <= 1.0.24. FIXED: the last 3 D are zero, for timm >= 1.0.25.
 *
 * `folder` is there already; files are replaced, all of them at the end (base/staged.h). A pytorch_model.bin that is no such
 * link, or a preprocessor_config.json beside openphenom's weights, is LAM_ERROR_USAGE. */
#ifndef LAMELLA_TRAIN_EXPORT_H
#define LAMELLA_TRAIN_EXPORT_H

#include "train/network.h"

#ifdef __cplusplus
extern "C" {
#endif

lam_status lam_export_huggingface(const lam_network *network, const char *folder);
/* Of an exported file that cannot say how the run standardises pixels: names data.normalize and data.transform, and where what is
 * needed is found. `readers`: what is done to pixels without it, "transformers ...". */
void lam_export_warn_of_pixels(const lam_network *network, const char *folder, const char *readers);
/* Removes the link that lam_export_openphenom has made; nothing else of that name. */
lam_status lam_export_drop_link(const char *folder);
lam_status lam_export_openphenom(const lam_network *network, const char *folder, lam_bias_layout layout);

#ifdef __cplusplus
}
#endif
#endif
