/* What the command table says in words: overview, --help, man page, completion; to standard output. */
#ifndef LAMELLA_BASE_CLI_TEXT_H
#define LAMELLA_BASE_CLI_TEXT_H

#include <stdio.h>

#include "base/cli.h"

#ifdef __cplusplus
extern "C" {
#endif

extern const lam_option lam_common_options[]; /* ended by {0} */

void lam_cli_print_overview(FILE *to, const lam_command *const *commands);
void lam_cli_print_help(const lam_command *command);
void lam_cli_print_man(const lam_command *const *commands);        /* roff */
void lam_cli_print_completion(const lam_command *const *commands); /* bash */

#ifdef __cplusplus
}
#endif
#endif
