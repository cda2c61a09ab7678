/* Where the attributes of an operation lie in lam_node.integers, for those whose functions on another backend read them too. */
#ifndef LAMELLA_MODEL_OPS_ATTRIBUTES_H
#define LAMELLA_MODEL_OPS_ATTRIBUTES_H

/* patches: AT_* are the places of inputs, 0: not given; mean is followed by rstd */
enum lam_patches_attributes {
    LAM_PATCHES_SIZE,
    LAM_PATCHES_TRANSFORM,
    LAM_PATCHES_BY_CROP,
    LAM_PATCHES_AT_SCALE,
    LAM_PATCHES_AT_MEAN,
    LAM_PATCHES_AT_PRESENT,
    LAM_PATCHES_AT_ONLY,
    LAM_PATCHES_AT_IDS
};
#define LAM_PATCHES_CROP_EPS 1e-5 /* InstanceNorm2d's, of Kraus et al. */

enum lam_fourier_attributes {
    LAM_FOURIER_AT_FORM,
    LAM_FOURIER_AT_SQUARED,
    LAM_FOURIER_AT_NORM_PIX,
    LAM_FOURIER_AT_PATCH_SIZE,
    LAM_FOURIER_AT_CHANNELS
};

#define LAM_NORM_PIX_EPS 1e-6 /* of masked_loss and fourier_loss */

#endif
