/* One table of commands makes the parser, --help, the man page and the completion.
 *
 *     static const lam_option options[] = {
 *         {"out", LAM_OPTION_TEXT, "FILE", NULL, "where the map goes", .required = true},
 *         {"align", LAM_OPTION_CHOICE, "none|center|tvn", "none", "how batches are aligned"},
 *         {0}};
 *     const lam_command lam_command_map = {"map", "align and aggregate embeddings", "EMB", 1, 1, options,
 *                                          "lamella map embeddings.h5ad --out map.h5ad", run_map};
 *
 * The common options --threads N, --quiet, --json, --force, --help are parsed for every command.
 * Ownership: lam_arguments owns its strings until the command returns. */
#ifndef LAMELLA_BASE_CLI_H
#define LAMELLA_BASE_CLI_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum lam_option_kind {
    LAM_OPTION_FLAG,
    LAM_OPTION_TEXT,
    LAM_OPTION_INT,
    LAM_OPTION_FLOAT,
    LAM_OPTION_CHOICE, /* value_name lists the choices: "a|b|c" */
    LAM_OPTION_LIST    /* one or more values up to the next --option; may be repeated */
} lam_option_kind;

typedef struct lam_option {
    const char *name; /* without the dashes */
    lam_option_kind kind;
    const char *value_name;
    const char *default_value; /* NULL: none; LIST: separated by commas */
    const char *help;
    double minimum, maximum; /* INT and FLOAT; both 0: no bound */
    bool required;
} lam_option;

typedef struct lam_arguments lam_arguments;

typedef struct lam_command {
    const char *name;    /* one word, or two ("bench step"): a family, each of which has options of its own */
    const char *summary; /* one line, lower case, no full stop */
    const char *positionals;                      /* "IMAGES.csv", "CONFIG.yaml [key.path=value ...]" */
    int minimum_positionals, maximum_positionals; /* maximum -1: any */
    const lam_option *options;                    /* ended by {0} */
    const char *example;                          /* one or more lines that work as they are */
    /* With an option "resume", TERM, INT and USR1 stop it at a checkpoint; else they end it (base/signals.h). */
    lam_status (*run)(const lam_arguments *arguments);
} lam_command;

int lam_positional_count(const lam_arguments *arguments);
const char *lam_positional(const lam_arguments *arguments, int index);
/* The option must be in the command's table (assert). */
bool lam_option_given(const lam_arguments *arguments, const char *name);
bool lam_option_flag(const lam_arguments *arguments, const char *name);
const char *lam_option_text(const lam_arguments *arguments,
                            const char *name); /* NULL: not given, no default */
int64_t lam_option_int(const lam_arguments *arguments, const char *name);
double lam_option_float(const lam_arguments *arguments, const char *name);
const char *const *lam_option_list(const lam_arguments *arguments, const char *name, int *count);
/* Common ones. */
bool lam_option_json(const lam_arguments *arguments);
bool lam_option_force(const lam_arguments *arguments);
/* The command line as typed, for provenance. */
const char *lam_command_line(const lam_arguments *arguments);

/* Parses and runs; prints help or the one-line error; returns the exit code. `commands` ends with NULL. */
int lam_cli_main(const lam_command *const *commands, int argc, char **argv);
/* The option of a command by its name; NULL: it has none of that name. Common options are not among them. */
const lam_option *lam_option_find(const lam_command *command, const char *name);
/* LAM_ERROR_USAGE "command: --name is ..." where the option would refuse the text as its value. */
lam_status lam_option_check(const lam_command *command, const lam_option *option, const char *text);
/* The shortest text that reads back as this number, whole ones in full: "1000000", "0.9999999". */
const char *lam_number_text(char text[32], double number);
/* The name of `names` (count) nearest to `name` by edit distance; NULL where none is near. */
const char *lam_nearest_name(const char *name, const char *const *names, int count);

extern const char lam_version[]; /* "0.1.0" */

#ifdef __cplusplus
}
#endif
#endif
