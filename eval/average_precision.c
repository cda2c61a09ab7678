#include "eval/average_precision.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/threads.h"

/* ---- one ranking ---- */

static int negatives_first(const void *a, const void *b) {
    const lam_ranked *x = a, *y = b;
    if (x->score != y->score) return x->score < y->score ? 1 : -1;
    return (int)x->positive - (int)y->positive;
}

static int positives_first(const void *a, const void *b) {
    const lam_ranked *x = a, *y = b;
    if (x->score != y->score) return x->score < y->score ? 1 : -1;
    return (int)y->positive - (int)x->positive;
}

double lam_average_precision(lam_ranked *items, int64_t count, lam_ties ties) {
    qsort(items, (size_t)count, sizeof *items,
          ties == LAM_TIES_POSITIVES_FIRST ? positives_first : negatives_first);
    double sum = 0;
    int64_t found = 0;
    for (int64_t k = 0; k < count; k++)
        if (items[k].positive) sum += (double)++found / (double)(k + 1);
    return found ? sum / (double)found : (double)NAN;
}

double lam_roc_auc(lam_ranked *items, int64_t count) {
    qsort(items, (size_t)count, sizeof *items, negatives_first);
    int64_t positives = 0, negatives = 0;
    double above = 0; /* pairs with the positive above; halves are exact */
    for (int64_t k = 0; k < count;) {
        int64_t p = 0, n = 0;
        double score = items[k].score;
        for (; k < count && items[k].score == score; k++) {
            p += items[k].positive;
            n += !items[k].positive;
        }
        above += (double)n * ((double)positives + 0.5 * (double)p);
        positives += p;
        negatives += n;
    }
    return positives && negatives ? above / ((double)positives * (double)negatives) : (double)NAN;
}

/* ---- rows ---- */

/* The positives of one query, their cosines falling, and how many negatives stand before each of them but not before
 * the one above it; the last number counts those behind all. */
typedef struct ranking {
    int64_t positives, negatives, capacity;
    double *cosine;
    int64_t *above;
} ranking;

typedef struct job {
    const lam_directions *u;
    const lam_rule *positive, *negative;
    lam_rule_blocks partners; /* by the positive rule */
    lam_ties ties;
    double slack;
    ranking *rankings; /* [threads, LAM_RULE_QUERIES] */
    lam_row_score *scores;
} job;

static int falling(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x < y) - (x > y);
}

static void partners_of(const job *t, int64_t i, const int64_t **rows, int64_t *count) {
    *count = 0;
    if (!lam_rule_complete(t->positive, i)) return;
    int64_t block = t->positive->same ? t->positive->same[i] : 0;
    *rows = t->partners.rows + t->partners.start[block];
    *count = t->partners.start[block + 1] - t->partners.start[block];
}

static int64_t count_positives(const job *t, int64_t i) {
    const int64_t *rows;
    int64_t count, positives = 0;
    partners_of(t, i, &rows, &count);
    for (int64_t k = 0; k < count; k++) positives += lam_rule_differs(t->positive, i, rows[k]);
    return positives;
}

static lam_status begin(const job *t, int64_t i, ranking *r) {
    const int64_t *rows;
    int64_t count;
    r->positives = r->negatives = 0;
    if (t->scores[i].positives > r->capacity) {
        r->capacity = 0;
        lam_free(r->cosine);
        lam_free(r->above);
        r->cosine = NULL;
        r->above = NULL;
        LAM_TRY(lam_alloc_array((void **)&r->cosine, t->scores[i].positives, sizeof *r->cosine));
        LAM_TRY(lam_alloc_array((void **)&r->above, t->scores[i].positives + 1, sizeof *r->above));
        r->capacity = t->scores[i].positives;
    }
    partners_of(t, i, &rows, &count);
    for (int64_t k = 0; k < count; k++)
        if (lam_rule_differs(t->positive, i, rows[k]))
            r->cosine[r->positives++] = lam_directions_cosine(t->u, i, rows[k]);
    if (r->positives) {
        qsort(r->cosine, (size_t)r->positives, sizeof *r->cosine, falling);
        memset(r->above, 0, (size_t)(r->positives + 1) * sizeof *r->above);
    }
    return LAM_OK;
}

/* The first positive that a negative of this cosine stands before; r->positives: it is behind all. There is at least
 * one. Without branches: which way a search turns cannot be foreseen. */
static int64_t place(const ranking *r, double cosine, lam_ties ties) {
    const double *at = r->cosine;
    int64_t left = r->positives;
    if (ties == LAM_TIES_POSITIVES_FIRST) {
        for (; left > 1; left -= left / 2) at += at[left / 2 - 1] >= cosine ? left / 2 : 0;
        return at - r->cosine + (*at >= cosine);
    }
    for (; left > 1; left -= left / 2) at += at[left / 2 - 1] > cosine ? left / 2 : 0;
    return at - r->cosine + (*at > cosine);
}

static void compare(const job *t, int64_t i, const lam_rule_tile *tile, const float *near, ranking *r) {
    int32_t negatives[LAM_TILE_COLUMNS]; /* of the tile */
    int64_t count = 0;
    for (int64_t c = 0; c < tile->candidate_count; c++) {
        negatives[count] = (int32_t)c;
        count += lam_rule_differs(t->negative, i, tile->candidates[c]);
    }
    r->negatives += count;
    for (int64_t n = 0; n < count && r->positives; n++) {
        double cosine = (double)near[negatives[n]];
        int64_t k = place(r, cosine, t->ties);
        bool near_above = k > 0 && r->cosine[k - 1] <= cosine + t->slack,
             near_below = k < r->positives && r->cosine[k] >= cosine - t->slack;
        if (near_above || near_below)
            k = place(r, lam_directions_cosine(t->u, i, tile->candidates[negatives[n]]), t->ties);
        r->above[k]++;
    }
}

static void end(const ranking *r, lam_row_score *score) {
    int64_t before = 0;
    double sum = 0;
    for (int64_t k = 0; k < r->positives; k++) {
        before += r->above[k];
        sum += (double)(k + 1) / (double)(k + 1 + before);
    }
    score->negatives = r->negatives;
    if (r->positives && r->negatives) score->average_precision = sum / (double)r->positives;
}

static lam_status visit(void *context, int thread, const lam_rule_tile *tile) {
    const job *t = context;
    for (int64_t q = 0; q < tile->query_count; q++) {
        int64_t i = tile->queries[q];
        ranking *r = &t->rankings[(int64_t)thread * LAM_RULE_QUERIES + q];
        if (tile->first) LAM_TRY(begin(t, i, r));
        compare(t, i, tile, tile->near + q * LAM_TILE_COLUMNS, r);
        if (tile->last) end(r, &t->scores[i]);
    }
    return LAM_OK;
}

lam_status lam_average_precision_rows(const lam_directions *u, const lam_rule *positive,
                                      const lam_rule *negative, lam_ties ties, lam_row_score *scores) {
    int64_t rankings = (int64_t)lam_threads() * LAM_RULE_QUERIES;
    job t = {u, positive, negative, .ties = ties, .slack = 1.01 * u->bound, .scores = scores};
    LAM_TRY(lam_rule_blocks_make(&t.partners, positive));
    lam_status status = lam_alloc_array((void **)&t.rankings, rankings, sizeof *t.rankings);
    if (status == LAM_OK) {
#pragma omp parallel for schedule(dynamic, 64) num_threads(lam_threads())
        for (int64_t i = 0; i < u->rows; i++) {
            bool asks = !positive->queries || positive->queries[i];
            scores[i] = (lam_row_score){(double)NAN, asks ? count_positives(&t, i) : 0, 0};
        }
        status = lam_rule_scan(u, negative, "average precision", visit, &t);
    }
    for (int64_t k = 0; t.rankings && k < rankings; k++) {
        lam_free(t.rankings[k].cosine);
        lam_free(t.rankings[k].above);
    }
    lam_free(t.rankings);
    lam_rule_blocks_free(&t.partners);
    return status;
}
