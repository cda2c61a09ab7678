/* YAML configuration through one schema table (libyaml's document API).
 *
 *     static const lam_config_key keys[] = {
 *         {"model.depth", LAM_CONFIG_INT, "12", "transformer blocks of the encoder", 1, 1000},
 *         {"optim.name", LAM_CONFIG_CHOICE, "adamw", "update rule", .choices = "adamw|lion"},
 *         {0}};
 *     LAM_TRY(lam_config_read(&config, keys, "train.yaml"));
 *     LAM_TRY(lam_config_set(config, "model.depth=6"));
 *     int64_t depth = lam_config_int(config, "model.depth");
 *
 * Unknown or duplicate key, wrong type, 3.5 or 3abc for an integer, out of range, tab, anchor, alias, tag, empty
 * file, a list where a value is due: LAM_ERROR_CONFIG with "file:line: key: what is allowed", nearest name for an
 * unknown key. Ownership: the config owns every string it returns. */
#ifndef LAMELLA_BASE_CONFIG_H
#define LAMELLA_BASE_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum lam_config_type {
    LAM_CONFIG_INT = 1,
    LAM_CONFIG_FLOAT,
    LAM_CONFIG_BOOL,
    LAM_CONFIG_TEXT,
    LAM_CONFIG_CHOICE,
    LAM_CONFIG_NAMES /* [a, b] or a,b: names without commas, in their order; lam_config_text gives a,b */
} lam_config_type;

typedef struct lam_config_key {
    const char *path; /* "section.key" */
    lam_config_type type;
    const char *default_value; /* NULL: must be given */
    const char *help;
    double minimum, maximum; /* numbers; both 0: no bound */
    const char *choices;     /* "a|b|c" */
} lam_config_key;

typedef struct lam_config lam_config;

lam_status lam_config_read(lam_config **out, const lam_config_key *keys, const char *path);
/* The same from memory; `name` stands for the path in messages. */
lam_status lam_config_parse(lam_config **out, const lam_config_key *keys, const char *text, size_t size,
                            const char *name);
lam_status lam_config_set(lam_config *config, const char *assignment); /* "key.path=value" */
/* The same for a value that `where`, a file, says and no command line. */
lam_status lam_config_set_from(lam_config *config, const char *where, const char *assignment);
/* After file and overrides: every key without default must be there. */
lam_status lam_config_check(const lam_config *config);
void lam_config_free(lam_config *config);

int64_t lam_config_int(const lam_config *config, const char *path);
double lam_config_float(const lam_config *config, const char *path);
bool lam_config_bool(const lam_config *config, const char *path);
const char *lam_config_text(const lam_config *config, const char *path);
/* Where the value stands among the key's choices, from 0 on: the enumerator, where they are in the order of an enumeration. */
int lam_config_choice(const lam_config *config, const char *path);
bool lam_config_given(const lam_config *config, const char *path); /* by file or override, not by default */

/* As resolved: YAML text with every key written out; reading it back gives the same values. Caller frees. */
lam_status lam_config_write(const lam_config *config, char **text);
/* The text of --help-config. Caller frees. */
lam_status lam_config_help(const lam_config_key *keys, char **text);

#ifdef __cplusplus
}
#endif
#endif
