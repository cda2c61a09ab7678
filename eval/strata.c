#include "eval/strata.h"

#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "base/threads.h"

static void count(const lam_recall_problem *p, double cosine, lam_stratum_share *to) {
    to->pairs++;
    for (int t = 0; t < p->thresholds; t++)
        for (int side = 0; side < LAM_RECALL_SIDES; side++)
            to->hits[t][side] += lam_recovered(&p->tails[t], (lam_recall_side)side, cosine);
}

static void add(lam_stratum_share *to, const lam_stratum_share *from, int thresholds) {
    to->pairs += from->pairs;
    for (int t = 0; t < thresholds; t++)
        for (int side = 0; side < LAM_RECALL_SIDES; side++) to->hits[t][side] += from->hits[t][side];
}

typedef struct pass {
    const lam_directions *directions;
    const lam_recall_problem *problem;
    const int32_t *arm;
    float inner_low, inner_high;   /* between them no cut lies, nor within the bound of float32 */
    lam_stratum_share *of_threads; /* [threads, LAM_STRATA] */
} pass;

/* The float32 cosine where it is on a sure side of every cut, else the float64 one. */
static double sure(const pass *p, float near, int64_t i, int64_t j) {
    double value = (double)near, bound = p->directions->bound;
    for (int t = 0; t < p->problem->thresholds; t++)
        if (fabs(value - p->problem->tails[t].below) <= bound ||
            fabs(value - p->problem->tails[t].above) <= bound)
            return lam_directions_cosine(p->directions, i, j);
    return value;
}

static lam_status visit(void *context, int thread, const lam_tile *tile) {
    const pass *p = context;
    lam_stratum_share *mine = p->of_threads + (int64_t)thread * LAM_STRATA;
    for (int64_t r = 0; r < tile->rows; r++) {
        int64_t i = tile->row + r, first = i + 1 > tile->column ? i + 1 - tile->column : 0;
        if (p->arm[i] < 0) continue;
        const float *values = tile->values + r * LAM_TILE_COLUMNS;
        for (int64_t c = first; c < tile->columns; c++) {
            int64_t j = tile->column + c;
            if (p->arm[j] < 0) continue;
            lam_stratum_share *to = &mine[p->arm[i] == p->arm[j] ? LAM_STRATUM_WITHIN : LAM_STRATUM_BETWEEN];
            if (values[c] > p->inner_low && values[c] < p->inner_high)
                to->pairs++;
            else
                count(p->problem, sure(p, values[c], i, j), to);
        }
    }
    return LAM_OK;
}

lam_status lam_strata_shares(const lam_directions *u, const lam_recall_problem *problem, const int32_t *arm,
                             lam_stratum_share *known, lam_stratum_share *null) {
    int threads = lam_threads();
    pass p = {
        .directions = u, .problem = problem, .arm = arm, .inner_low = -INFINITY, .inner_high = INFINITY};
    memset(known, 0, (size_t)(problem->sources * LAM_STRATA) * sizeof *known);
    memset(null, 0, LAM_STRATA * sizeof *null);
    for (int64_t s = 0; s < problem->sources; s++)
        for (int64_t k = 0; k < problem->known[s].count; k++) {
            int32_t a = arm[problem->known[s].pairs[k].i], b = arm[problem->known[s].pairs[k].j];
            if (a < 0 || b < 0) continue;
            count(problem, problem->known[s].cosine[k],
                  &known[s * LAM_STRATA + (a == b ? LAM_STRATUM_WITHIN : LAM_STRATUM_BETWEEN)]);
        }
    for (int t = 0; t < problem->thresholds; t++) {
        p.inner_low =
            fmaxf(p.inner_low, nextafterf((float)(problem->tails[t].below + 2 * u->bound), INFINITY));
        p.inner_high =
            fminf(p.inner_high, nextafterf((float)(problem->tails[t].above - 2 * u->bound), -INFINITY));
    }
    LAM_TRY(lam_alloc_array((void **)&p.of_threads, (int64_t)threads * LAM_STRATA, sizeof *p.of_threads));
    lam_status status = lam_directions_tiles(u, visit, &p);
    for (int t = 0; t < threads && status == LAM_OK; t++)
        for (int s = 0; s < LAM_STRATA; s++)
            add(&null[s], &p.of_threads[t * LAM_STRATA + s], problem->thresholds);
    lam_free(p.of_threads);
    return status;
}
