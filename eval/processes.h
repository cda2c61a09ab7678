/* Commands of this program run as processes of their own, several at once, each after the one whose result it reads.
 *
 *     lam_process jobs[2] = {{.arguments = map_words, .name = "map-1", .after = -1},
 *                        {.arguments = relate_words, .name = "relate-1", .after = 0}};
 *     LAM_TRY(lam_processes_run(jobs, 2, 4, "out/logs"));
 *
 * Standard error of a job goes to FOLDER/NAME.log, standard output to FOLDER/NAME.json. A job whose forerunner failed does not
 * start. Jobs that run end (TERM) when this process does, however it ends. */
#ifndef LAMELLA_EVAL_PROCESSES_H
#define LAMELLA_EVAL_PROCESSES_H

#include <stdbool.h>

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lam_process {
    const char *const *arguments; /* without the program's name; ends with NULL */
    const char *name;
    int after; /* index of an earlier job; -1: none */
    bool done; /* out: it ran and returned 0 */
} lam_process;

/* at_once >= 1. LAM_OK also where jobs failed: see `done`. */
lam_status lam_processes_run(lam_process *jobs, int count, int at_once, const char *folder);

#ifdef __cplusplus
}
#endif
#endif
