#include "eval/recall.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/memory.h"
#include "base/rng.h"
#include "base/threads.h"

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* right rank <= left means that the count of null values up to the cosine is at most m, the largest integer with m / size <= left:
 * the cosine is below the null's value of rank m (from 0). left rank >= right means that m values or more are below it, m the
 * smallest with m / size >= right: it is above the value of rank m - 1. */
static int64_t rank_below(double left, int64_t size) {
    int64_t m = (int64_t)(left * (double)size);
    while ((double)m / (double)size > left) m--;
    while ((double)(m + 1) / (double)size <= left) m++;
    return m;
}

static int64_t rank_above(double right, int64_t size) {
    int64_t m = (int64_t)(right * (double)size);
    while ((double)m / (double)size < right) m++;
    while ((double)(m - 1) / (double)size >= right) m--;
    return m - 1;
}

lam_status lam_recall_cuts(const lam_directions *u, lam_tails *tails, int count,
                           lam_cosine_histogram *histogram) {
    int64_t size = u->rows * (u->rows - 1) / 2, ranks[LAM_ORDER_MAXIMUM] = {0};
    double values[LAM_ORDER_MAXIMUM];
    LAM_REQUIRE(2 * count <= LAM_ORDER_MAXIMUM, LAM_ERROR_INTERNAL, "%d pairs of thresholds at once", count);
    for (int t = 0; t < count; t++) {
        ranks[2 * t] = rank_below(tails[t].left, size);
        ranks[2 * t + 1] = rank_above(tails[t].right, size);
    }
    lam_order_options options = lam_order_defaults(size);
    LAM_TRY(lam_order_statistics(u, ranks, 2 * count, &options, values, histogram));
    for (int t = 0; t < count; t++) tails[t].below = values[2 * t], tails[t].above = values[2 * t + 1];
    return LAM_OK;
}

void lam_recall_cosines(const lam_directions *u, const lam_pair *pairs, int64_t count, double *cosine) {
#pragma omp parallel for schedule(static) num_threads(lam_threads())
    for (int64_t k = 0; k < count; k++) cosine[k] = lam_directions_cosine(u, pairs[k].i, pairs[k].j);
}

int64_t lam_recall_results(const lam_recall_problem *p) {
    return p->sources * p->thresholds * LAM_RECALL_SIDES;
}

void lam_recall_shares(const lam_recall_problem *p, double *share) {
    for (int64_t s = 0; s < p->sources; s++) {
        const lam_known *known = &p->known[s];
        for (int t = 0; t < p->thresholds; t++)
            for (int side = 0; side < LAM_RECALL_SIDES; side++) {
                int64_t hits = 0;
                for (int64_t k = 0; k < known->count; k++)
                    hits += lam_recovered(&p->tails[t], (lam_recall_side)side, known->cosine[k]);
                *share++ = (double)hits / (double)known->count;
            }
    }
}

/* ---- cells: pairs of one source that lie on the same side of every cut ---- */

typedef struct celled {
    uint64_t mask; /* bit 2t: below the cut of tails t, bit 2t + 1: above */
    lam_pair pair;
} celled;

typedef struct cell {
    uint64_t mask;
    int64_t source, end; /* pairs up to here, from the end of the cell before */
} cell;

typedef struct cells {
    lam_pair *pairs; /* of all sources, cell after cell */
    cell *cells;
    int64_t count;
} cells;

static uint64_t mask_of(const lam_recall_problem *p, double cosine) {
    uint64_t mask = 0;
    for (int t = 0; t < p->thresholds; t++)
        mask |= (uint64_t)(cosine < p->tails[t].below) << (2 * t) | (uint64_t)(cosine > p->tails[t].above)
                                                                        << (2 * t + 1);
    return mask;
}

static bool in_side(uint64_t mask, int threshold, int side) {
    uint64_t two = mask >> (2 * threshold) & 3;
    return side == LAM_RECALL_BOTH ? two != 0 : side == LAM_RECALL_LEFT ? (two & 1) != 0 : (two & 2) != 0;
}

static int by_mask(const void *a, const void *b) {
    const celled *x = a, *y = b;
    if (x->mask != y->mask) return x->mask < y->mask ? -1 : 1;
    if (x->pair.i != y->pair.i) return x->pair.i < y->pair.i ? -1 : 1;
    return (x->pair.j > y->pair.j) - (x->pair.j < y->pair.j);
}

static void free_cells(cells *c) {
    lam_free(c->pairs);
    lam_free(c->cells);
}

static lam_status make_cells(const lam_recall_problem *p, cells *c) {
    int64_t most = 0, total = 0;
    for (int64_t s = 0; s < p->sources; s++) {
        total += p->known[s].count;
        if (p->known[s].count > most) most = p->known[s].count;
    }
    celled *sorted;
    LAM_TRY(lam_alloc_array((void **)&sorted, most, sizeof *sorted));
    /* The sorted cuts leave 2 thresholds + 1 intervals and as many values that lie on a cut. */
    lam_status status =
        lam_alloc_array((void **)&c->cells, p->sources * (4 * p->thresholds + 1), sizeof *c->cells);
    if (status == LAM_OK) status = lam_alloc_array((void **)&c->pairs, total, sizeof *c->pairs);
    int64_t at = 0;
    for (int64_t s = 0; s < p->sources && status == LAM_OK; s++) {
        const lam_known *known = &p->known[s];
        for (int64_t k = 0; k < known->count; k++)
            sorted[k] = (celled){mask_of(p, known->cosine[k]), known->pairs[k]};
        qsort(sorted, (size_t)known->count, sizeof *sorted, by_mask);
        for (int64_t k = 0; k < known->count; k++) {
            if (!k || sorted[k].mask != sorted[k - 1].mask)
                c->cells[c->count++] = (cell){sorted[k].mask, s, at};
            c->pairs[at++] = sorted[k].pair;
            c->cells[c->count - 1].end = at;
        }
    }
    lam_free(sorted);
    return status;
}

/* ---- bootstrap ---- */

__attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4"))) static int64_t
weight_of(const lam_pair *pairs, int64_t count, const int32_t *w) {
    int64_t sum = 0;
    for (int64_t k = 0; k < count; k++) sum += (int64_t)w[pairs[k].i] * w[pairs[k].j];
    return sum;
}

static void draw_weights(int64_t rows, uint64_t seed, int64_t draw, int32_t *w) {
    memset(w, 0, (size_t)rows * sizeof *w);
    lam_rng r = lam_rng_stream(seed, LAM_RNG_BOOTSTRAP, (uint64_t)draw);
    for (int64_t i = 0; i < rows; i++) w[lam_rng_below(&r, (uint32_t)rows)]++;
}

/* hits [results], totals [sources]. */
static void weigh(const lam_recall_problem *p, const cells *c, const int32_t *w, int64_t *hits,
                  int64_t *totals) {
    memset(hits, 0, (size_t)lam_recall_results(p) * sizeof *hits);
    memset(totals, 0, (size_t)p->sources * sizeof *totals);
    for (int64_t k = 0, begin = 0; k < c->count; begin = c->cells[k++].end) {
        const cell *one = &c->cells[k];
        int64_t weight = weight_of(c->pairs + begin, one->end - begin, w);
        totals[one->source] += weight;
        int64_t *to = hits + one->source * p->thresholds * LAM_RECALL_SIDES;
        for (int t = 0; t < p->thresholds; t++)
            for (int side = 0; side < LAM_RECALL_SIDES; side++, to++)
                if (in_side(one->mask, t, side)) *to += weight;
    }
}

lam_status lam_recall_bootstrap(const lam_recall_problem *p, int64_t rows, int64_t draws, uint64_t seed,
                                double *share) {
    int threads = lam_threads();
    int64_t results = lam_recall_results(p), per_source = results / p->sources, done = 0;
    int32_t *weights = NULL;
    int64_t *hits = NULL;
    cells c = {0};
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(make_cells(p, &c), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&weights, threads * rows, sizeof *weights), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&hits, threads * (results + p->sources), sizeof *hits), done);
    lam_progress *progress = lam_progress_start("bootstrap", draws, "draws");
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t draw = 0; draw < draws; draw++) {
        int thread = omp_get_thread_num();
        int32_t *w = weights + thread * rows;
        int64_t *mine = hits + thread * (results + p->sources), *totals = mine + results, seen;
        draw_weights(rows, seed, draw, w);
        weigh(p, &c, w, mine, totals);
        for (int64_t r = 0; r < results; r++) {
            int64_t total = totals[r / per_source];
            share[r * draws + draw] = total ? (double)mine[r] / (double)total : (double)NAN;
        }
#pragma omp atomic capture
        seen = ++done;
        lam_progress_update(progress, seen, NULL);
    }
    lam_progress_finish(progress);
done:
    free_cells(&c);
    lam_free(weights);
    lam_free(hits);
    return status;
}

double lam_recall_spread(const lam_pair *pairs, const double *residual, int64_t count, int64_t rows,
                         double *work) {
    double own = 0, genes = 0;
    memset(work, 0, (size_t)rows * sizeof *work);
    for (int64_t k = 0; k < count; k++) {
        own += residual[k] * residual[k];
        work[pairs[k].i] += residual[k];
        work[pairs[k].j] += residual[k];
    }
    for (int64_t i = 0; i < rows; i++)
        genes += work[i] * work[i]; /* each pair's own square twice, others once */
    return own > 0 ? sqrt(fmax(genes - own, own) / (genes + own)) : 1;
}

/* ---- permutations ---- */

static uint64_t mask_between(const lam_directions *u, const lam_recall_problem *p, int64_t i, int64_t j) {
    double near = (double)lam_directions_near(u, i, j);
    for (int t = 0; t < p->thresholds; t++)
        if (fabs(near - p->tails[t].below) <= u->bound || fabs(near - p->tails[t].above) <= u->bound)
            return mask_of(p, lam_directions_cosine(u, i, j));
    return mask_of(p, near);
}

/* order [rows]: the rows that `places` lists are dealt anew among them, the others stay. */
static void shuffle(int64_t rows, const int32_t *places, int64_t count, uint64_t seed, int64_t permutation,
                    int32_t *order) {
    lam_rng r = lam_rng_stream(seed, LAM_RNG_PERMUTATION, (uint64_t)permutation);
    for (int64_t i = 0; i < rows; i++) order[i] = (int32_t)i;
    for (int64_t i = count - 1; i > 0; i--) {
        int64_t k = lam_rng_below(&r, (uint32_t)(i + 1));
        int32_t t = order[places[i]];
        order[places[i]] = order[places[k]];
        order[places[k]] = t;
    }
}

lam_status lam_recall_permutation(const lam_directions *u, const lam_recall_problem *p, const bool *labelled,
                                  int64_t permutations, uint64_t seed, double *out) {
    int threads = lam_threads();
    int64_t results = lam_recall_results(p), per_source = results / p->sources, done = 0, count = 0;
    int32_t *orders = NULL, *places = NULL;
    int64_t *hits = NULL, *as_many = NULL;
    double *observed = NULL;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_alloc_array((void **)&orders, threads * u->rows, sizeof *orders), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&hits, threads * results, sizeof *hits), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&as_many, results, sizeof *as_many), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&observed, results, sizeof *observed), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&places, u->rows, sizeof *places), done);
    for (int64_t i = 0; i < u->rows; i++)
        if (!labelled || labelled[i]) places[count++] = (int32_t)i;
    lam_recall_shares(p, observed);
    lam_progress *progress = lam_progress_start("permute", permutations, "permutations");
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
    for (int64_t permutation = 0; permutation < permutations; permutation++) {
        int32_t *order = orders + omp_get_thread_num() * u->rows;
        int64_t *mine = hits + omp_get_thread_num() * results, seen;
        shuffle(u->rows, places, count, seed, permutation, order);
        memset(mine, 0, (size_t)results * sizeof *mine);
        for (int64_t s = 0; s < p->sources; s++) {
            const lam_known *known = &p->known[s];
            for (int64_t k = 0; k < known->count; k++) {
                uint64_t mask = mask_between(u, p, order[known->pairs[k].i], order[known->pairs[k].j]);
                int64_t *to = mine + s * per_source;
                for (int t = 0; mask && t < p->thresholds; t++)
                    for (int side = 0; side < LAM_RECALL_SIDES; side++)
                        to[t * LAM_RECALL_SIDES + side] += in_side(mask, t, side);
            }
        }
        for (int64_t r = 0; r < results; r++) {
            if ((double)mine[r] / (double)p->known[r / per_source].count < observed[r]) continue;
#pragma omp atomic
            as_many[r]++;
        }
#pragma omp atomic capture
        seen = ++done;
        lam_progress_update(progress, seen, NULL);
    }
    lam_progress_finish(progress);
    for (int64_t r = 0; r < results; r++) out[r] = (double)(1 + as_many[r]) / (double)(1 + permutations);
done:
    lam_free(orders);
    lam_free(places);
    lam_free(hits);
    lam_free(as_many);
    lam_free(observed);
    return status;
}

/* ---- intervals ---- */

static double quantile(const double *sorted, int64_t n, double q) {
    double at = q * (double)(n - 1);
    int64_t i = (int64_t)at;
    return i + 1 < n ? sorted[i] + (at - (double)i) * (sorted[i + 1] - sorted[i]) : sorted[n - 1];
}

void lam_interval(double *values, int64_t count, double from, double to, double *low, double *high) {
    int64_t n = 0;
    for (int64_t i = 0; i < count; i++)
        if (isfinite(values[i])) values[n++] = values[i];
    *low = *high = (double)NAN;
    if (!n) return;
    qsort(values, (size_t)n, sizeof *values, by_value);
    *low = quantile(values, n, from);
    *high = quantile(values, n, to);
}
