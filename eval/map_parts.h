/* The inside of `lamella map`: eval/map.c reads, filters, aggregates and writes; map_align.c aligns; map_genes.c does what tables of
 * genes ask for. */
#ifndef LAMELLA_EVAL_MAP_PARTS_H
#define LAMELLA_EVAL_MAP_PARTS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/cli.h"
#include "base/embeddings.h"
#include "base/json.h"

typedef struct lam_map_work {
    const lam_arguments *arguments;
    lam_embeddings *e;
    bool *controls;    /* [rows] or NULL: none named */
    lam_json *results; /* what was found: for --json and uns['lamella'] */
} lam_map_work;

/* Options that contradict each other: LAM_ERROR_USAGE, before anything is read. */
lam_status lam_map_check_align(const lam_arguments *arguments);
lam_status lam_map_check_genes(const lam_arguments *arguments);

/* work->controls by --controls. */
lam_status lam_map_find_controls(lam_map_work *work);
/* --min-controls, --align or --transform, --save-transform; the batch that is left. Rows may leave. */
lam_status lam_map_align(lam_map_work *work);
/* --expressed and --arm, on the aggregated map. */
lam_status lam_map_genes(lam_map_work *work);

#endif
