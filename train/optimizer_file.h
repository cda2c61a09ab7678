/* optimizer.safetensors: the arenas of an update rule, a tensor "<arena>.<parameter>" for each parameter that the arena holds
 * anything of; where the rule trains at other weights than inference uses, those too, under its trained_name. Metadata:
 * "optimizer", the rule, and "updates". */
#ifndef LAMELLA_TRAIN_OPTIMIZER_FILE_H
#define LAMELLA_TRAIN_OPTIMIZER_FILE_H

#include <stdint.h>

#include "model/optimizer.h"

#ifdef __cplusplus
extern "C" {
#endif

lam_status lam_optimizer_file_write(const char *path, const lam_parameters *parameters,
                                    const lam_optimizer_state *state, int64_t updates);
/* Into the arenas, and into parameters->weights where the rule has a trained_name. LAM_ERROR_CONFIG: of another rule;
 * LAM_ERROR_INPUT: a tensor is missing or has another size. */
lam_status lam_optimizer_file_read(const char *path, const lam_parameters *parameters,
                                   const lam_optimizer_state *state);

#ifdef __cplusplus
}
#endif
#endif
