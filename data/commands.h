/* The commands of this directory. */
#ifndef LAMELLA_DATA_COMMANDS_H
#define LAMELLA_DATA_COMMANDS_H

#include "base/cli.h"

#ifdef __cplusplus
extern "C" {
#endif

extern const lam_command lam_command_pack;
extern const lam_command lam_command_synth;

#ifdef __cplusplus
}
#endif
#endif
