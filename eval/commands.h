/* The commands of this directory. */
#ifndef LAMELLA_EVAL_COMMANDS_H
#define LAMELLA_EVAL_COMMANDS_H

#include "base/cli.h"

#ifdef __cplusplus
extern "C" {
#endif

extern const lam_command lam_command_map;
extern const lam_command lam_command_relate;
extern const lam_command lam_command_consistency;
extern const lam_command lam_command_retrieve;
extern const lam_command lam_command_probe;
extern const lam_command lam_command_sweep;
extern const lam_command lam_command_report;
extern const lam_command lam_command_bench_relate;

#ifdef __cplusplus
}
#endif
#endif
