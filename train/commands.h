/* The commands of this directory. */
#ifndef LAMELLA_TRAIN_COMMANDS_H
#define LAMELLA_TRAIN_COMMANDS_H

#include "base/cli.h"

#ifdef __cplusplus
extern "C" {
#endif

extern const lam_command lam_command_train;
extern const lam_command lam_command_embed;
extern const lam_command lam_command_export;
extern const lam_command lam_command_inspect;
extern const lam_command lam_command_bench_step;
extern const lam_command lam_command_bench_attention;
extern const lam_command lam_command_bench_loader;
extern const lam_command lam_command_bench_scaling;

#ifdef __cplusplus
}
#endif
#endif
