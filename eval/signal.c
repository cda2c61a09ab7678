#include "eval/signal.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/memory.h"
#include "base/threads.h"
#include "eval/pairwise.h"

/* Streams of LAM_RNG_SAMPLE. */
#define STREAM_SAME 0x73616D65ull
#define STREAM_DIFFERENT 0x64696666ull
#define STREAM_NULL 0x6E756C6Cull

/* ---- replicates ---- */

double lam_row_length(const double *row, int64_t columns) {
    double squares = 0, largest = 0;
    for (int64_t j = 0; j < columns; j++) squares += row[j] * row[j];
    if ((squares > 0x1p-900 && squares < 0x1p900) || isnan(squares)) return sqrt(squares);
    for (int64_t j = 0; j < columns; j++) largest = fmax(largest, fabs(row[j]));
    if (!(largest > 0) || isinf(largest)) return largest;
    squares = 0;
    for (int64_t j = 0; j < columns; j++) squares += row[j] / largest * (row[j] / largest);
    return largest * sqrt(squares);
}

void lam_replicates_free(lam_replicates *r) {
    lam_free(r->start);
    lam_free(r->row);
    lam_free(r->length);
    memset(r, 0, sizeof *r);
}

lam_status lam_replicates_make(lam_replicates *r, const double *x, int64_t rows, int64_t columns,
                               const int64_t *codes, int64_t groups) {
    *r = (lam_replicates){.x = x, .rows = rows, .columns = columns, .groups = groups};
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_alloc_array((void **)&r->start, groups + 1, sizeof *r->start), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&r->row, rows, sizeof *r->row), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&r->length, rows, sizeof *r->length), done);
    for (int64_t i = 0; i < rows; i++)
        if (codes[i] >= 0) r->start[codes[i] + 1]++;
    for (int64_t g = 0; g < groups; g++) r->start[g + 1] += r->start[g];
    for (int64_t i = 0; i < rows; i++)
        if (codes[i] >= 0) r->row[r->start[codes[i]]++] = i;
    for (int64_t g = groups; g > 0; g--) r->start[g] = r->start[g - 1]; /* each was moved to its end */
    r->start[0] = 0;
#pragma omp parallel for schedule(static) num_threads(lam_threads())
    for (int64_t i = 0; i < rows; i++) r->length[i] = lam_row_length(x + i * columns, columns);
done:
    if (status != LAM_OK) lam_replicates_free(r);
    return status;
}

/* ---- the two measures of a set of rows ---- */

static double mean_cosine(const lam_replicates *r, const int64_t *rows, int64_t n, double *sum) {
    int64_t d = r->columns;
    double own = 0, squares = 0;
    memset(sum, 0, (size_t)d * sizeof *sum);
    for (int64_t i = 0; i < n; i++) {
        double length = r->length[rows[i]], square = 0;
        if (!(length > 0)) continue;
        for (int64_t j = 0; j < d; j++) {
            double value = r->x[rows[i] * d + j] / length;
            sum[j] += value;
            square += value * value;
        }
        own += square;
    }
    for (int64_t j = 0; j < d; j++) squares += sum[j] * sum[j];
    return (squares - own) / ((double)n * (double)(n - 1));
}

static double pairs_of(int64_t n) { return 0.5 * (double)n * (double)(n - 1); }

static lam_pair_space angles(const lam_replicates *r) {
    return (lam_pair_space){.x = r->x, .columns = r->columns, .length = r->length, .measure = LAM_PAIR_ANGLE};
}

lam_status lam_consistency(const lam_replicates *r, lam_consistency_measure measure, double *value) {
    int threads = lam_threads();
    lam_pair_space space = angles(r);
    double *sums = NULL;
    if (measure == LAM_CONSISTENCY_ANGLE)
        LAM_TRY(lam_pair_sums_within(&space, r->start, r->row, r->groups, value));
    else
        LAM_TRY(lam_alloc_array((void **)&sums, threads * r->columns, sizeof *sums));
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
    for (int64_t g = 0; g < r->groups; g++) {
        int64_t n = r->start[g + 1] - r->start[g];
        if (n < 2)
            value[g] = (double)NAN;
        else if (measure == LAM_CONSISTENCY_ANGLE)
            value[g] /= pairs_of(n);
        else
            value[g] = mean_cosine(r, r->row + r->start[g], n, sums + omp_get_thread_num() * r->columns);
    }
    lam_free(sums);
    return LAM_OK;
}

/* ---- null of other perturbations ---- */

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* How many of the sorted numbers are smaller than `value` (right: not larger): numpy's searchsorted. */
static int64_t rank_of(const double *sorted, int64_t count, double value, bool right) {
    int64_t low = 0, high = count;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (sorted[middle] < value || (right && sorted[middle] <= value))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

lam_status lam_null_p(const double *null, int64_t null_count, const double *value, int64_t count, bool right,
                      double *p, int64_t *kept) {
    double *sorted;
    int64_t n = 0;
    LAM_TRY(lam_alloc_array((void **)&sorted, null_count, sizeof *sorted));
    for (int64_t i = 0; i < null_count; i++)
        if (!isnan(null[i])) sorted[n++] = null[i];
    qsort(sorted, (size_t)n, sizeof *sorted, by_value);
    for (int64_t i = 0; i < count; i++)
        p[i] = isnan(value[i]) || n == 0 ? (double)NAN
                                         : 1 - (double)rank_of(sorted, n, value[i], right) / (double)n;
    *kept = n;
    lam_free(sorted);
    return LAM_OK;
}

/* ---- permutation null ---- */

static int by_index(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

void lam_draw_distinct(lam_rng *rng, int64_t pool, int64_t count, int64_t *out, bool *taken) {
    for (int64_t k = 0, top = pool - count; k < count; k++, top++) {
        int64_t drawn = lam_rng_below(rng, (uint32_t)(top + 1));
        if (taken[drawn]) drawn = top;
        taken[drawn] = true;
        out[k] = drawn;
    }
    for (int64_t k = 0; k < count; k++) taken[out[k]] = false;
    qsort(out, (size_t)count, sizeof *out, by_index);
}

/* Rows of all groups by batch, and how many each group has in each: what a drawn set must match. */
typedef struct pools {
    int64_t batches, *start, *row; /* rows of batch b: row[start[b]] on, rising */
    int64_t *counts;               /* [batches] of the profile at work */
    uint64_t *profile;             /* [groups] a hash of the group's numbers of rows by batch */
} pools;

static void pools_free(pools *p) {
    lam_free(p->start);
    lam_free(p->row);
    lam_free(p->counts);
    lam_free(p->profile);
    memset(p, 0, sizeof *p);
}

static lam_status pools_make(pools *p, const lam_replicates *r, const int64_t *batch, int64_t batches) {
    *p = (pools){.batches = batch ? batches : 1};
    int64_t rows = r->start[r->groups];
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_alloc_array((void **)&p->start, p->batches + 1, sizeof *p->start), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&p->row, rows, sizeof *p->row), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&p->counts, p->batches, sizeof *p->counts), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&p->profile, r->groups, sizeof *p->profile), done);
    memcpy(p->row, r->row, (size_t)rows * sizeof *p->row);
    qsort(p->row, (size_t)rows, sizeof *p->row, by_index);
    if (batch) { /* a stable counting sort by batch; r->row of each group stays as it is */
        int64_t *sorted;
        LAM_TRY_GOTO(lam_alloc_array((void **)&sorted, rows, sizeof *sorted), done);
        for (int64_t i = 0; i < rows; i++) p->start[batch[p->row[i]] + 1]++;
        for (int64_t b = 0; b < batches; b++) p->start[b + 1] += p->start[b];
        for (int64_t i = 0; i < rows; i++) sorted[p->start[batch[p->row[i]]]++] = p->row[i];
        for (int64_t b = batches; b > 0; b--) p->start[b] = p->start[b - 1];
        p->start[0] = 0;
        lam_free(p->row);
        p->row = sorted;
    } else {
        p->start[1] = rows;
    }
    for (int64_t g = 0; g < r->groups; g++) {
        for (int64_t k = r->start[g]; k < r->start[g + 1]; k++) p->counts[batch ? batch[r->row[k]] : 0]++;
        /* Batches that hold a row of the group add to the hash in any order. */
        uint64_t hash = 0;
        for (int64_t k = r->start[g]; k < r->start[g + 1]; k++) {
            int64_t b = batch ? batch[r->row[k]] : 0;
            if (p->counts[b]) hash += lam_mix64(lam_mix64((uint64_t)b + 1) ^ (uint64_t)p->counts[b]);
            p->counts[b] = 0;
        }
        p->profile[g] = hash;
    }
done:
    if (status != LAM_OK) pools_free(p);
    return status;
}

typedef struct draw_scratch {
    int64_t *rows;
    bool *taken;
    double *work;
} draw_scratch;

/* One set: as many rows of each batch as `counts` says, rising within a batch, so that equal sets give equal bits. */
static double draw(const lam_replicates *r, const pools *p, lam_consistency_measure measure, uint64_t seed,
                   uint64_t profile, int64_t number, const draw_scratch *s) {
    lam_rng rng =
        lam_rng_stream(seed, LAM_RNG_SAMPLE, lam_mix64(STREAM_NULL ^ profile ^ lam_mix64((uint64_t)number)));
    int64_t n = 0;
    for (int64_t b = 0; b < p->batches; b++) {
        if (!p->counts[b]) continue;
        lam_draw_distinct(&rng, p->start[b + 1] - p->start[b], p->counts[b], s->rows + n, s->taken);
        for (int64_t k = 0; k < p->counts[b]; k++) s->rows[n + k] = p->row[p->start[b] + s->rows[n + k]];
        n += p->counts[b];
    }
    if (p->batches > 1) qsort(s->rows, (size_t)n, sizeof *s->rows, by_index);
    lam_pair_space space = angles(r);
    return measure == LAM_CONSISTENCY_ANGLE ? lam_pair_sum_within(&space, s->rows, n, s->work) / pairs_of(n)
                                            : mean_cosine(r, s->rows, n, s->work);
}

typedef struct profiled {
    uint64_t profile;
    int64_t size, group;
} profiled;

static int by_profile(const void *a, const void *b) {
    const profiled *x = a, *y = b;
    if (x->size != y->size) return x->size < y->size ? -1 : 1;
    if (x->profile != y->profile) return x->profile < y->profile ? -1 : 1;
    return (x->group > y->group) - (x->group < y->group);
}

lam_status lam_consistency_permutation(const lam_replicates *r, lam_consistency_measure measure,
                                       const int64_t *batch, int64_t batches, int64_t draws, uint64_t seed,
                                       const double *value, double *p) {
    int threads = lam_threads();
    int64_t rows = r->start[r->groups], largest = 0,
            size = measure == LAM_CONSISTENCY_ANGLE ? lam_pair_work(r->columns) : r->columns;
    bool angle = measure == LAM_CONSISTENCY_ANGLE;
    pools pool = {0};
    profiled *order = NULL;
    double *null = NULL, *work = NULL;
    int64_t *drawn = NULL;
    bool *taken = NULL;
    lam_progress *progress = NULL;
    lam_status status = LAM_OK;
    for (int64_t g = 0; g < r->groups; g++)
        if (r->start[g + 1] - r->start[g] > largest) largest = r->start[g + 1] - r->start[g];
    LAM_TRY_GOTO(pools_make(&pool, r, batch, batches), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&order, r->groups, sizeof *order), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&null, draws, sizeof *null), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&work, threads * size, sizeof *work), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&drawn, threads * largest, sizeof *drawn), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&taken, threads * rows, sizeof *taken), done);
    for (int64_t g = 0; g < r->groups; g++)
        order[g] = (profiled){pool.profile[g], r->start[g + 1] - r->start[g], g};
    qsort(order, (size_t)r->groups, sizeof *order, by_profile);
    progress = lam_progress_start("consistency null", r->groups, "perturbations");
    for (int64_t from = 0, to; from < r->groups; from = to) {
        const profiled *first = &order[from];
        for (to = from;
             to < r->groups && order[to].size == first->size && order[to].profile == first->profile;)
            to++;
        if (first->size < 2) {
            for (int64_t k = from; k < to; k++) p[order[k].group] = (double)NAN;
            continue;
        }
        memset(pool.counts, 0, (size_t)pool.batches * sizeof *pool.counts);
        for (int64_t k = r->start[first->group]; k < r->start[first->group + 1]; k++)
            pool.counts[batch ? batch[r->row[k]] : 0]++;
#pragma omp parallel for schedule(dynamic, 16) num_threads(threads)
        for (int64_t k = 0; k < draws; k++) {
            int thread = omp_get_thread_num();
            draw_scratch s = {drawn + thread * largest, taken + thread * rows, work + thread * size};
            null[k] = draw(r, &pool, measure, seed, first->profile, k, &s);
        }
        qsort(null, (size_t)draws, sizeof *null, by_value);
        for (int64_t k = from; k < to; k++) {
            int64_t below = rank_of(null, draws, value[order[k].group], false);
            p[order[k].group] =
                angle ? (double)below / (double)draws : (double)(1 + draws - below) / (double)(1 + draws);
        }
        lam_progress_update(progress, to, NULL);
    }
done:
    lam_progress_finish(progress);
    pools_free(&pool);
    lam_free(order);
    lam_free(null);
    lam_free(work);
    lam_free(drawn);
    lam_free(taken);
    return status;
}

/* ---- cosines of pairs ---- */

static double cosine(const lam_replicates *r, int64_t i, int64_t j) {
    double lengths = r->length[i], other = r->length[j], sum = 0;
    if (!(lengths > 0) || !(other > 0)) return 0;
    for (int64_t k = 0; k < r->columns; k++)
        sum += r->x[i * r->columns + k] / lengths * (r->x[j * r->columns + k] / other);
    return sum;
}

/* A number on [0, total) that depends on (seed, stream, k) alone. */
static int64_t draw_below(uint64_t seed, uint64_t stream, int64_t k, int64_t total) {
    lam_rng rng = lam_rng_stream(seed, LAM_RNG_SAMPLE, lam_mix64(stream ^ lam_mix64((uint64_t)k)));
    uint64_t word = (uint64_t)lam_rng_word(&rng) << 32;
    word |= lam_rng_word(&rng);
    return (int64_t)(((unsigned __int128)word * (uint64_t)total) >> 64);
}

/* The group that holds number t where before[g] numbers belong to earlier groups. */
static int64_t group_of(const int64_t *before, int64_t groups, int64_t t) {
    int64_t low = 0, high = groups;
    while (high - low > 1) {
        int64_t middle = low + (high - low) / 2;
        if (before[middle] <= t)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* Pair number t of the ordered pairs of n things, (a, b) with a < b each once, b by b. */
static void unrank(int64_t t, int64_t *a, int64_t *b) {
    int64_t high = (int64_t)((1 + sqrt(1 + 8 * (double)t)) / 2);
    while (high * (high - 1) / 2 > t) high--;
    while ((high + 1) * high / 2 <= t) high++;
    *b = high;
    *a = t - high * (high - 1) / 2;
}

lam_status lam_pair_cosines(const lam_replicates *r, uint64_t seed, double **same, int64_t *same_count,
                            double **different, int64_t *different_count) {
    int64_t groups = r->groups, rows = r->start[groups], *pairs = NULL, *ordered = NULL;
    lam_status status = LAM_OK;
    *same = *different = NULL;
    LAM_TRY_GOTO(lam_alloc_array((void **)&pairs, groups + 1, sizeof *pairs), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&ordered, groups + 1, sizeof *ordered), done);
    for (int64_t g = 0; g < groups; g++) {
        int64_t n = r->start[g + 1] - r->start[g];
        pairs[g + 1] = pairs[g] + n * (n - 1) / 2;
        ordered[g + 1] = ordered[g] + n * (rows - r->start[g + 1]); /* with rows of later groups */
    }
    int64_t all_same = pairs[groups], all_different = ordered[groups];
    *same_count = all_same < LAM_COSINE_SAMPLE ? all_same : LAM_COSINE_SAMPLE;
    *different_count = all_different < LAM_COSINE_SAMPLE ? all_different : LAM_COSINE_SAMPLE;
    LAM_TRY_GOTO(lam_alloc_array((void **)same, *same_count, sizeof **same), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)different, *different_count, sizeof **different), done);
#pragma omp parallel num_threads(lam_threads())
    {
#pragma omp for schedule(static)
        for (int64_t k = 0; k < *same_count; k++) {
            int64_t t = all_same > *same_count ? draw_below(seed, STREAM_SAME, k, all_same) : k,
                    g = group_of(pairs, groups, t), a, b;
            unrank(t - pairs[g], &a, &b);
            (*same)[k] = cosine(r, r->row[r->start[g] + a], r->row[r->start[g] + b]);
        }
#pragma omp for schedule(static)
        for (int64_t k = 0; k < *different_count; k++) {
            int64_t t = all_different > *different_count
                            ? draw_below(seed, STREAM_DIFFERENT, k, all_different)
                            : k,
                    g = group_of(ordered, groups, t), later = rows - r->start[g + 1];
            t -= ordered[g];
            (*different)[k] = cosine(r, r->row[r->start[g] + t / later], r->row[r->start[g + 1] + t % later]);
        }
    }
done:
    lam_free(pairs);
    lam_free(ordered);
    return status;
}
