#include "eval/energy.h"

#include <math.h>
#include <omp.h>
#include <string.h>

#include "base/log.h"
#include "base/memory.h"
#include "base/threads.h"
#include "eval/pairwise.h"

/* Streams of LAM_RNG_SAMPLE. */
#define STREAM_CONTROLS 0x636F6E74ull
#define STREAM_REPLICATES 0x7265706Cull
#define STREAM_SHUFFLE 0x73687566ull

#define TIE 1e-12

/* taken [count]: as of lam_draw_distinct. */
static int64_t sample(const int64_t *rows, int64_t count, uint64_t seed, uint64_t stream, int64_t *chosen,
                      bool *taken) {
    if (count <= LAM_ENERGY_ROWS) {
        memcpy(chosen, rows, (size_t)count * sizeof *chosen);
        return count;
    }
    lam_rng rng = lam_rng_stream(seed, LAM_RNG_SAMPLE, lam_mix64(stream));
    lam_draw_distinct(&rng, count, LAM_ENERGY_ROWS, chosen, taken);
    for (int64_t k = 0; k < LAM_ENERGY_ROWS; k++) chosen[k] = rows[chosen[k]];
    return LAM_ENERGY_ROWS;
}

lam_status lam_energy_sample(const int64_t *rows, int64_t count, uint64_t seed, int64_t *chosen,
                             int64_t *chosen_count) {
    bool *taken;
    LAM_TRY(lam_alloc_array((void **)&taken, count, sizeof *taken));
    *chosen_count = sample(rows, count, seed, STREAM_CONTROLS, chosen, taken);
    lam_free(taken);
    return LAM_OK;
}

/* Rows are counted from the mean of the controls. */
static lam_status distances(const lam_replicates *r, const int64_t *controls, int64_t count, double **origin,
                            lam_pair_space *space) {
    LAM_TRY(lam_alloc_array((void **)origin, r->columns, sizeof **origin));
    for (int64_t k = 0; k < count; k++)
        for (int64_t j = 0; j < r->columns; j++)
            (*origin)[j] += r->x[controls[k] * r->columns + j] / (double)count;
    *space =
        (lam_pair_space){.x = r->x, .columns = r->columns, .origin = *origin, .measure = LAM_PAIR_DISTANCE};
    return LAM_OK;
}

lam_status lam_energy_distances(const lam_replicates *r, const int64_t *controls, int64_t count,
                                int64_t minimum, double *value) {
    double *origin = NULL, *within = NULL, *between = NULL, among = 0;
    const int64_t ends[2] = {0, count};
    lam_pair_space space;
    lam_progress *progress = NULL;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(distances(r, controls, count, &origin, &space), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&within, r->groups, sizeof *within), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&between, r->groups, sizeof *between), done);
    LAM_TRY_GOTO(lam_pair_sums_within(&space, ends, controls, 1, &among), done);
    LAM_TRY_GOTO(lam_pair_sums_within(&space, r->start, r->row, r->groups, within), done);
    progress = lam_progress_start("magnitude", r->start[r->groups], "rows");
    LAM_TRY_GOTO(
        lam_pair_sums_between(&space, r->start, r->row, r->groups, controls, count, between, progress), done);
    double m = (double)count;
    for (int64_t g = 0; g < r->groups; g++) {
        int64_t size = r->start[g + 1] - r->start[g];
        double n = (double)size; /* pairs i < j stand for two of the n^2 */
        value[g] = size < minimum ? (double)NAN
                                  : 2 * between[g] / (n * m) - 2 * within[g] / (n * n) - 2 * among / (m * m);
    }
done:
    lam_progress_finish(progress);
    lam_free(origin);
    lam_free(within);
    lam_free(between);
    return status;
}

/* ---- label shuffle ---- */

/* All distances among the controls and the replicates of one perturbation. */
typedef struct pooled {
    double
        *distance; /* [stride, stride]: controls first; their part stays from one perturbation to the next */
    double *sum;   /* [stride] of a row */
    int64_t stride, controls, rows;
} pooled;

/* Energy distance between the members (place in the pool) and all others. */
static double energy_of_split(const pooled *p, const int64_t *member, int64_t n, double everything,
                              double *between) {
    double own = 0, all = 0, a = (double)n, b = (double)(p->rows - n);
    for (int64_t i = 0; i < n; i++) {
        const double *row = p->distance + member[i] * p->stride;
        for (int64_t j = 0; j < i; j++) own += row[member[j]];
        all += p->sum[member[i]];
    }
    own *= 2;
    double across = all - own;
    *between = across / (a * b);
    return 2 * *between - own / (a * a) - (everything - own - 2 * across) / (b * b);
}

static void fill_controls(const lam_pair_space *space, const int64_t *controls, pooled *p, double *work) {
    for (int64_t from = 0; from < p->controls; from += LAM_PAIR_BLOCK) {
        int64_t n = p->controls - from < LAM_PAIR_BLOCK ? p->controls - from : LAM_PAIR_BLOCK;
        lam_pair_values(space, controls + from, n, controls, p->controls, p->distance + from * p->stride,
                        p->stride, work);
    }
    for (int64_t i = 0; i < p->controls; i++) p->distance[i * p->stride + i] = 0;
}

static double fill_replicates(const lam_pair_space *space, const int64_t *controls, const int64_t *rows,
                              int64_t n, pooled *p, double *work) {
    double everything = 0;
    int64_t m = p->controls, stride = p->stride;
    p->rows = m + n;
    for (int64_t from = 0; from < n; from += LAM_PAIR_BLOCK) {
        int64_t count = n - from < LAM_PAIR_BLOCK ? n - from : LAM_PAIR_BLOCK;
        double *to = p->distance + (m + from) * stride;
        lam_pair_values(space, rows + from, count, controls, m, to, stride, work);
        lam_pair_values(space, rows + from, count, rows, n, to + m, stride, work);
    }
    for (int64_t i = m; i < p->rows; i++) {
        p->distance[i * stride + i] = 0;
        for (int64_t j = 0; j < m; j++) p->distance[j * stride + i] = p->distance[i * stride + j];
        for (int64_t j = m; j < i; j++) p->distance[j * stride + i] = p->distance[i * stride + j];
    }
    for (int64_t i = 0; i < p->rows; i++) {
        p->sum[i] = 0;
        for (int64_t j = 0; j < p->rows; j++) p->sum[i] += p->distance[i * stride + j];
        everything += p->sum[i];
    }
    return everything;
}

/* The drawn members are the smaller of the two sides: the energy distance is the same from either. */
static double shuffle_p(const pooled *p, int64_t n, double everything, int64_t draws, uint64_t seed,
                        int64_t *member, bool *taken) {
    int64_t size = n < p->controls ? n : p->controls, larger = 0;
    double between, ignored;
    for (int64_t k = 0; k < size; k++) member[k] = n < p->controls ? p->controls + k : k;
    double observed = energy_of_split(p, member, size, everything, &between);
    for (int64_t k = 0; k < draws; k++) {
        lam_rng rng = lam_rng_stream(seed, LAM_RNG_SAMPLE,
                                     lam_mix64(STREAM_SHUFFLE ^ lam_mix64((uint64_t)n << 32 | (uint64_t)k)));
        lam_draw_distinct(&rng, p->rows, size, member, taken);
        larger += energy_of_split(p, member, size, everything, &ignored) >= observed - TIE * between;
    }
    return (double)(1 + larger) / (double)(1 + draws);
}

typedef struct shuffler {
    pooled pool;
    int64_t *rows, *member;
    bool *taken;
    double *work;
} shuffler;

static void shuffler_free(shuffler *s) {
    lam_free(s->pool.distance);
    lam_free(s->pool.sum);
    lam_free(s->rows);
    lam_free(s->member);
    lam_free(s->taken);
    lam_free(s->work);
}

static lam_status shuffler_make(shuffler *s, const lam_pair_space *space, const int64_t *controls,
                                int64_t count, int64_t largest) {
    int64_t stride = count + (largest < LAM_ENERGY_ROWS ? largest : LAM_ENERGY_ROWS);
    *s = (shuffler){.pool = {.stride = stride, .controls = count}};
    LAM_TRY(lam_alloc_array((void **)&s->pool.distance, stride * stride, sizeof(double)));
    LAM_TRY(lam_alloc_array((void **)&s->pool.sum, stride, sizeof(double)));
    LAM_TRY(lam_alloc_array((void **)&s->rows, LAM_ENERGY_ROWS, sizeof(int64_t)));
    LAM_TRY(lam_alloc_array((void **)&s->member, stride, sizeof(int64_t)));
    LAM_TRY(lam_alloc_array((void **)&s->taken, largest + stride, sizeof(bool)));
    LAM_TRY(lam_alloc_array((void **)&s->work, lam_pair_work(space->columns), sizeof(double)));
    fill_controls(space, controls, &s->pool, s->work);
    return LAM_OK;
}

lam_status lam_energy_shuffle(const lam_replicates *r, const int64_t *controls, int64_t count,
                              int64_t minimum, int64_t draws, uint64_t seed, double *p) {
    int threads = lam_threads();
    int64_t largest = 0, finished = 0;
    double *origin = NULL;
    shuffler *shufflers = NULL;
    lam_pair_space space;
    lam_progress *progress = NULL;
    lam_status status = LAM_OK;
    for (int64_t g = 0; g < r->groups; g++)
        if (r->start[g + 1] - r->start[g] > largest) largest = r->start[g + 1] - r->start[g];
    LAM_TRY_GOTO(distances(r, controls, count, &origin, &space), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&shufflers, threads, sizeof *shufflers), done);
    for (int t = 0; t < threads; t++)
        LAM_TRY_GOTO(shuffler_make(&shufflers[t], &space, controls, count, largest), done);
    progress = lam_progress_start("label shuffle", r->groups, "perturbations");
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
    for (int64_t g = 0; g < r->groups; g++) {
        shuffler *s = &shufflers[omp_get_thread_num()];
        int64_t n = r->start[g + 1] - r->start[g], seen;
        p[g] = (double)NAN;
        if (n >= minimum) {
            n = sample(r->row + r->start[g], n, seed, STREAM_REPLICATES, s->rows, s->taken);
            double everything = fill_replicates(&space, controls, s->rows, n, &s->pool, s->work);
            p[g] = shuffle_p(&s->pool, n, everything, draws, seed, s->member, s->taken);
        }
#pragma omp atomic capture
        seen = ++finished;
        lam_progress_update(progress, seen, NULL);
    }
done:
    lam_progress_finish(progress);
    for (int t = 0; shufflers && t < threads; t++) shuffler_free(&shufflers[t]);
    lam_free(shufflers);
    lam_free(origin);
    return status;
}
