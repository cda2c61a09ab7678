#include "eval/matching.h"

#include <math.h>
#include <stdbool.h>

typedef struct job {
    const lam_directions *u;
    const lam_rule *rule;
    const int64_t *label;
    double slack;
    lam_neighbour *nearest;
} job;

static bool is_nearer(const job *t, int64_t i, int64_t j, double cosine) {
    const lam_neighbour *best = &t->nearest[i];
    if (best->row < 0 || cosine != best->cosine) return best->row < 0 || cosine > best->cosine;
    bool right = t->label[j] == t->label[i], was_right = t->label[best->row] == t->label[i];
    return right != was_right ? was_right : j < best->row;
}

static lam_status visit(void *context, int thread, const lam_rule_tile *tile) {
    const job *t = context;
    (void)thread;
    for (int64_t q = 0; q < tile->query_count; q++) {
        int64_t i = tile->queries[q];
        const float *near = tile->near + q * LAM_TILE_COLUMNS;
        for (int64_t c = 0; c < tile->candidate_count; c++) {
            int64_t j = tile->candidates[c];
            if ((double)near[c] + t->slack < t->nearest[i].cosine || !lam_rule_differs(t->rule, i, j))
                continue;
            double cosine = lam_directions_cosine(t->u, i, j);
            if (is_nearer(t, i, j, cosine)) t->nearest[i] = (lam_neighbour){j, cosine};
        }
    }
    return LAM_OK;
}

lam_status lam_match_nearest(const lam_directions *u, const lam_rule *rule, const int64_t *label,
                             lam_neighbour *nearest) {
    job t = {u, rule, label, 1.01 * u->bound, nearest};
    for (int64_t i = 0; i < u->rows; i++) nearest[i] = (lam_neighbour){-1, (double)-INFINITY};
    LAM_TRY(lam_rule_scan(u, rule, "match", visit, &t));
    for (int64_t i = 0; i < u->rows; i++)
        if (nearest[i].row < 0) nearest[i].cosine = (double)NAN;
    return LAM_OK;
}
