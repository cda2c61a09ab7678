#include "eval/recall.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

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
    LAM_TRY(lam_order_statistics(u, ranks, 2 * count, &lam_order_defaults, values, histogram));
    for (int t = 0; t < count; t++) tails[t].below = values[2 * t], tails[t].above = values[2 * t + 1];
    return LAM_OK;
}

void lam_recall_cosines(const lam_directions *u, const lam_pair *pairs, int64_t count, double *cosine) {
#pragma omp parallel for schedule(static) num_threads(lam_threads())
    for (int64_t k = 0; k < count; k++) cosine[k] = lam_directions_cosine(u, pairs[k].i, pairs[k].j);
}

lam_status lam_recall_bootstrap(const lam_pair *pairs, const bool *recovered, int64_t count, int64_t rows,
                                int64_t draws, uint64_t seed, double *share) {
    int threads = lam_threads();
    int32_t *weights;
    LAM_TRY(lam_alloc_array((void **)&weights, threads * rows, sizeof *weights));
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t draw = 0; draw < draws; draw++) {
        int32_t *w = weights + omp_get_thread_num() * rows;
        memset(w, 0, (size_t)rows * sizeof *w);
        lam_rng r = lam_rng_stream(seed, LAM_RNG_BOOTSTRAP, (uint64_t)draw);
        for (int64_t i = 0; i < rows; i++) w[lam_rng_below(&r, (uint32_t)rows)]++;
        int64_t total = 0, hit = 0;
        for (int64_t k = 0; k < count; k++) {
            int64_t weight = (int64_t)w[pairs[k].i] * w[pairs[k].j];
            total += weight;
            hit += recovered[k] ? weight : 0;
        }
        share[draw] = total ? (double)hit / (double)total : (double)NAN;
    }
    lam_free(weights);
    return LAM_OK;
}

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
