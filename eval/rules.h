/* Which rows are compared with which: rules over metadata columns, and the cosines of all pairs that a rule may allow,
 * tile by tile.
 *
 *     lam_rule rule = {.rows = rows, .same = plate, .different = {gene}, .differences = 1};
 *     LAM_TRY(lam_rule_scan(&u, &rule, "compare", visit, &context));   // float32 cosines, with the bound of u
 *
 * A pair (i, j), i != j, holds where both rows agree in `same` and differ in each of `different`: sameby and diffby of
 * copairs (Kalinin et al. 2024). A row whose cell is empty in one of these columns forms no pair: nobody knows whether
 * it agrees. No matrix of all pairs is stored: LAM_RULE_QUERIES x LAM_TILE_COLUMNS cosines a thread. */
#ifndef LAMELLA_EVAL_RULES_H
#define LAMELLA_EVAL_RULES_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "base/table.h"
#include "eval/cosine.h"

#ifdef __cplusplus
extern "C" {
#endif

#define LAM_RULE_COLUMNS 8   /* that one rule may differ in */
#define LAM_RULE_QUERIES 128 /* rows of a tile */

typedef struct lam_rule {
    int64_t rows;
    const int64_t *same;                        /* [rows] 0.., -1: empty; NULL: pairs need not agree */
    const int64_t *different[LAM_RULE_COLUMNS]; /* [rows] each, as `same` */
    int differences;
    const bool *queries,
        *candidates; /* [rows] which rows ask and which are compared with them; NULL: every row */
} lam_rule;

/* Codes 0..levels-1 of the rows' cells in `columns` (at least one) together, in sorted order column by column; -1 where a cell is
 * empty. The caller frees them. */
lam_status lam_rule_codes(const lam_table *table, const int *columns, int count, int64_t **codes,
                          int64_t *levels);

/* Row i has all cells that the rule looks at. */
static inline bool lam_rule_complete(const lam_rule *rule, int64_t i) {
    bool complete = !rule->same || rule->same[i] >= 0;
    for (int k = 0; k < rule->differences; k++) complete &= rule->different[k][i] >= 0;
    return complete;
}
/* i and j are two rows that differ in every column of `different`; both are complete. */
static inline bool lam_rule_differs(const lam_rule *rule, int64_t i, int64_t j) {
    bool differs = i != j;
    for (int k = 0; k < rule->differences; k++) differs &= rule->different[k][i] != rule->different[k][j];
    return differs;
}

/* The complete candidates of each value of `same`. */
typedef struct lam_rule_blocks {
    int64_t blocks, *start, *rows; /* rows[start[b]..start[b + 1]) rise */
} lam_rule_blocks;
lam_status lam_rule_blocks_make(lam_rule_blocks *out, const lam_rule *rule);
void lam_rule_blocks_free(lam_rule_blocks *blocks);

/* near[q * LAM_TILE_COLUMNS + c]: float32 cosine of queries[q] and candidates[c]; pairs that do not differ are among
 * them. All tiles of some queries come one after the other, on one thread: `first` and `last` mark the ends. */
typedef struct lam_rule_tile {
    const int64_t *queries, *candidates;
    int64_t query_count, candidate_count;
    const float *near;
    bool first, last;
} lam_rule_tile;
/* `thread` in 0..lam_threads() - 1. */
typedef lam_status (*lam_rule_visit)(void *context, int thread, const lam_rule_tile *tile);
/* Complete queries in whose block there is at least one candidate; each is in the tiles of one thread only. The first
 * status that is not LAM_OK comes back. `label` names the work where it shows progress. */
lam_status lam_rule_scan(const lam_directions *u, const lam_rule *rule, const char *label,
                         lam_rule_visit visit, void *context);

#ifdef __cplusplus
}
#endif
#endif
