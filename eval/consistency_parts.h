/* The rows that `lamella consistency` compares, shared by consistency.c and consistency_screen.c. */
#ifndef LAMELLA_EVAL_CONSISTENCY_PARTS_H
#define LAMELLA_EVAL_CONSISTENCY_PARTS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/cli.h"
#include "base/embeddings.h"
#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lam_screen {
    lam_embeddings *e;
    int64_t *codes;     /* [rows] perturbation, or -1: a control, or a row that is left out */
    const char **names; /* [perturbations], sorted; borrowed from e */
    int64_t perturbations, replicates, nulls;
    bool *null;                       /* [perturbations] */
    int64_t *controls, control_count; /* rows */
    int64_t *batch, batches;          /* [rows] 0..batches-1; NULL: not asked for */
    const char **batch_names;
} lam_screen;

/* Reads EMB and what --where, --controls, --by, --null-where, --null-genes and --batch name. On failure too, lam_screen_free. */
lam_status lam_screen_open(const lam_arguments *arguments, lam_screen *s);
void lam_screen_free(lam_screen *s);

#ifdef __cplusplus
}
#endif
#endif
