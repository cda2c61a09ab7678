/* The table of sub-commands. Each lives in the directory that does the work. */
#include <stddef.h>

#include "base/cli.h"
#include "base/signals.h"
#include "base/threads.h"
#include "data/commands.h"
#include "eval/commands.h"
#include "train/commands.h"

int main(int argc, char **argv) {
    /* clang-format off */
    static const lam_command *const commands[] = {
        &lam_command_pack,
        &lam_command_synth,
        &lam_command_inspect,
        &lam_command_train,
        &lam_command_embed,
        &lam_command_export,
        &lam_command_map,
        &lam_command_relate,
        &lam_command_consistency,
        &lam_command_retrieve,
        &lam_command_probe,
        &lam_command_sweep,
        &lam_command_report,
        &lam_command_bench_step,
        &lam_command_bench_loader,
        &lam_command_bench_attention,
        &lam_command_bench_scaling,
        &lam_command_bench_relate,
        NULL};
    /* clang-format on */
    lam_signals_hold();
    lam_threads_wait_briefly(argv);
    return lam_cli_main(commands, argc, argv);
}
