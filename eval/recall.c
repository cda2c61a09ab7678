#include "eval/recall.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/rng.h"
#include "base/threads.h"
#include "eval/linalg.h"

#define TILE_ROWS 256
#define GRID 65536 /* cells over -1..1 that a value looks up its place among the query values in */

void lam_ranks_free(lam_ranks *ranks) {
    lam_free(ranks->cosine);
    lam_free(ranks->left);
    lam_free(ranks->right);
    memset(ranks, 0, sizeof *ranks);
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static lam_status normalise(const double *x, int64_t rows, int64_t columns, double **unit) {
    LAM_TRY(lam_alloc_array((void **)unit, rows * columns, sizeof **unit));
    for (int64_t i = 0; i < rows; i++) {
        double squares = 0;
        for (int64_t j = 0; j < columns; j++) squares += x[i * columns + j] * x[i * columns + j];
        if (!(squares > 0) || !isfinite(squares)) {
            lam_free(*unit);
            *unit = NULL;
            LAM_FAIL(LAM_ERROR_INPUT,
                     "row %lld of the map is zero or not finite: it has no direction to compare",
                     (long long)i + 1);
        }
        double norm = sqrt(squares);
        for (int64_t j = 0; j < columns; j++) (*unit)[i * columns + j] = x[i * columns + j] / norm;
    }
    return LAM_OK;
}

/* Rows [start, start + n) against all rows from `start` on. */
static void tile(const double *unit, int64_t rows, int64_t columns, int64_t start, int64_t n, double *out) {
    lam_gemm_f64(false, true, n, rows - start, columns, unit + start * columns, columns,
                 unit + start * columns, columns, 0.0, out, rows - start);
}

static int cell_of(double value) {
    double at = (value + 1.0) * 0.5 * GRID;
    return at < 0 ? 0 : at >= GRID ? GRID - 1 : (int)at;
}

typedef struct order {
    double *values; /* distinct query values, rising */
    int64_t count;
    int64_t *first; /* [GRID + 1] index of the first value whose cell is at least c */
} order;

static lam_status make_order(const double *cosine, int64_t count, order *o) {
    LAM_TRY(lam_alloc_array((void **)&o->values, count, sizeof(double)));
    LAM_TRY(lam_alloc_array((void **)&o->first, GRID + 1, sizeof(int64_t)));
    memcpy(o->values, cosine, (size_t)count * sizeof(double));
    if (count) qsort(o->values, (size_t)count, sizeof(double), by_value);
    for (int64_t i = 0; i < count; i++)
        if (!o->count || o->values[i] > o->values[o->count - 1]) o->values[o->count++] = o->values[i];
    int64_t at = 0;
    for (int c = 0; c <= GRID; c++) {
        while (at < o->count && cell_of(o->values[at]) < c) at++;
        o->first[c] = at;
    }
    return LAM_OK;
}

/* Adds one row of null values: between[k] counts those in (values[k - 1], values[k]), equal[k] those equal to values[k]. */
static void count_row(const order *o, const double *row, int64_t n, int64_t *between, int64_t *equal,
                      int64_t *histogram) {
    for (int64_t j = 0; j < n; j++) {
        double v = row[j];
        int cell = cell_of(v);
        int64_t k = o->first[cell], end = o->first[cell + 1];
        while (end - k > 8) { /* crowded cell */
            int64_t middle = (k + end) / 2;
            if (o->values[middle] < v)
                k = middle + 1;
            else
                end = middle;
        }
        while (k < end && o->values[k] < v) k++;
        if (k < o->count && o->values[k] <= v)
            equal[k]++;
        else
            between[k]++;
        int bin = (int)((v + 1.0) * 0.5 * LAM_RECALL_BINS);
        histogram[bin < 0 ? 0 : bin >= LAM_RECALL_BINS ? LAM_RECALL_BINS - 1 : bin]++;
    }
}

typedef struct scan {
    const double *unit;
    int64_t rows, columns;
    double *tile;
} scan;

/* Pairs of each tile, listed by their first row. */
static lam_status read_queries(const scan *s, const lam_pair *pairs, int64_t count, double *cosine) {
    int64_t *start, *list;
    LAM_TRY(lam_alloc_array((void **)&start, s->rows + 1, sizeof *start));
    lam_status status = lam_alloc_array((void **)&list, count, sizeof *list);
    if (status == LAM_OK) {
        for (int64_t k = 0; k < count; k++) start[pairs[k].i + 1]++;
        for (int64_t i = 0; i < s->rows; i++) start[i + 1] += start[i];
        for (int64_t k = 0; k < count; k++)
            list[start[pairs[k].i]++] = k; /* start[i] is now the end of row i */
        for (int64_t from = 0; from < s->rows; from += TILE_ROWS) {
            int64_t n = s->rows - from < TILE_ROWS ? s->rows - from : TILE_ROWS;
            tile(s->unit, s->rows, s->columns, from, n, s->tile);
            for (int64_t q = from ? start[from - 1] : 0; q < start[from + n - 1]; q++) {
                const lam_pair *p = &pairs[list[q]];
                cosine[list[q]] = s->tile[(p->i - from) * (s->rows - from) + p->j - from];
            }
        }
    }
    lam_free(start);
    lam_free(list);
    return status;
}

static lam_status count_null(const scan *s, const order *o, int64_t *between, int64_t *equal,
                             int64_t *histogram) {
    int threads = lam_threads();
    int64_t each = 2 * (o->count + 1) + LAM_RECALL_BINS, *all;
    LAM_TRY(lam_alloc_array((void **)&all, threads * each, sizeof *all));
    for (int64_t from = 0; from < s->rows; from += TILE_ROWS) {
        int64_t n = s->rows - from < TILE_ROWS ? s->rows - from : TILE_ROWS, stride = s->rows - from;
        tile(s->unit, s->rows, s->columns, from, n, s->tile);
#pragma omp parallel for schedule(dynamic, 8) num_threads(threads)
        for (int64_t r = 0; r < n; r++) {
            int64_t *mine = all + omp_get_thread_num() * each;
            count_row(o, s->tile + r * stride + r + 1, stride - r - 1, mine, mine + o->count + 1,
                      mine + 2 * (o->count + 1));
        }
    }
    for (int t = 0; t < threads; t++) {
        const int64_t *mine = all + t * each;
        for (int64_t k = 0; k <= o->count; k++) between[k] += mine[k], equal[k] += mine[o->count + 1 + k];
        for (int b = 0; b < LAM_RECALL_BINS; b++) histogram[b] += mine[2 * (o->count + 1) + b];
    }
    lam_free(all);
    return LAM_OK;
}

lam_status lam_recall_rank(const double *x, int64_t rows, int64_t columns, const lam_pair *pairs,
                           int64_t count, lam_ranks *ranks) {
    memset(ranks, 0, sizeof *ranks);
    double *unit = NULL, *block = NULL;
    int64_t *between = NULL, *equal = NULL;
    order o = {0};
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(normalise(x, rows, columns, &unit), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&block, TILE_ROWS * rows, sizeof *block), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&ranks->cosine, count, sizeof(double)), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&ranks->left, count, sizeof(double)), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&ranks->right, count, sizeof(double)), done);
    scan s = {unit, rows, columns, block};
    LAM_TRY_GOTO(read_queries(&s, pairs, count, ranks->cosine), done);
    LAM_TRY_GOTO(make_order(ranks->cosine, count, &o), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&between, o.count + 1, sizeof *between), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&equal, o.count + 1, sizeof *equal), done);
    LAM_TRY_GOTO(count_null(&s, &o, between, equal, ranks->null_histogram), done);
    ranks->null_size = rows * (rows - 1) / 2;
    for (int64_t k = 0, below = 0; k < o.count; k++) { /* between becomes the count below values[k] */
        below += between[k];
        between[k] = below;
        below += equal[k];
    }
    for (int64_t k = 0; k < count; k++) {
        const double *found = bsearch(&ranks->cosine[k], o.values, (size_t)o.count, sizeof(double), by_value);
        int64_t at = found - o.values;
        ranks->left[k] = (double)between[at] / (double)ranks->null_size;
        ranks->right[k] = (double)(between[at] + equal[at]) / (double)ranks->null_size;
    }
done:
    lam_free(unit);
    lam_free(block);
    lam_free(between);
    lam_free(equal);
    lam_free(o.values);
    lam_free(o.first);
    if (status != LAM_OK) lam_ranks_free(ranks);
    return status;
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
