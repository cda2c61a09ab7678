#include <math.h>
#include <omp.h>
#include <stdbool.h>
#include <string.h>

#include "base/memory.h"
#include "base/threads.h"
#include "eval/linalg.h"
#include "eval/tsne_parts.h"

#define TILE LAM_TSNE_TILE
#define LANES 4        /* numbers taken together, whatever the width of the machine's vectors */
#define SEARCH_ROWS 32 /* whose distances to all rows are in memory at once */
#define SEARCH_STEPS 200
#define ENTROPY_ERROR 1e-10
#define FLAT 1e-12  /* the entropy has stopped changing with beta */
#define LEAST 1e-30 /* affinities below are zero: subnormal numbers are slow */
#define LEAST_EXPONENT (-700.0)

#define CLONES __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))

typedef double lanes __attribute__((vector_size(LANES * sizeof(double)), may_alias));
typedef int64_t bits __attribute__((vector_size(LANES * sizeof(int64_t)), may_alias));

#define EVERY(value) ((lanes){value, value, value, value})

static inline __attribute__((always_inline)) void at_least(lanes *x, double least) {
    bits below = *x < EVERY(least);
    *x = (lanes)((below & (bits)EVERY(least)) | (~below & (bits)*x));
}

/* exp(x) for x <= 0, to 2 units in the last place: x = k ln 2 + r with |r| <= ln 2 / 2, the series of exp(r) to r^12, and k added
 * to the exponent. The sum with 1.5 * 2^52 leaves k in the low bits. */
static inline __attribute__((always_inline)) void exp_negative(lanes *x) {
    static const double series[] = {
        1.0 / 39916800, 1.0 / 3628800, 1.0 / 362880, 1.0 / 40320, 1.0 / 5040, 1.0 / 720,
        1.0 / 120,      1.0 / 24,      1.0 / 6,      1.0 / 2,     1,          1};
    at_least(x, LEAST_EXPONENT);
    lanes t = *x * 1.4426950408889634 + 0x1.8p52, k = t - 0x1.8p52,
          r = (*x - k * 0x1.62e42fee00000p-1) - k * 0x1.a39ef35793c76p-33, e = EVERY(1.0 / 479001600);
    for (size_t i = 0; i < sizeof series / sizeof *series; i++) e = e * r + series[i];
    *x = (lanes)((bits)e + ((bits)t << 52));
}

/* ---- the width of each row's Gaussian ---- */

typedef struct moments {
    double weight, mean, variance;
} moments;

/* Of the distances beyond the nearest, weighed by exp(-beta distance). */
CLONES static moments weigh(const double *distance, int64_t n, double beta) {
    lanes weight = {0}, first = {0}, second = {0};
    for (int64_t j = 0; j < n; j += LANES) {
        lanes d = {0}, live = {0};
        int64_t count = n - j < LANES ? n - j : LANES;
        memcpy(&d, distance + j, (size_t)count * sizeof *distance);
        if (count == LANES)
            live += 1;
        else
            for (int64_t l = 0; l < count; l++) live[l] = 1;
        lanes e = -beta * d;
        exp_negative(&e);
        e *= live;
        weight += e;
        first += e * d;
        second += e * d * d;
    }
    moments m = {0, 0, 0};
    for (int l = 0; l < LANES; l++) {
        m.weight += weight[l];
        m.mean += first[l];
        m.variance += second[l];
    }
    m.mean /= m.weight;
    m.variance = fmax(0, m.variance / m.weight - m.mean * m.mean);
    return m;
}

/* Newton's method in log beta, held inside what is known to enclose the root. H = log(weight) + beta mean falls with beta:
 * dH / d log beta = -beta^2 variance. */
static void find_beta(const double *distance, int64_t n, double target, double *beta, double *scale) {
    double total = 0, below = -INFINITY, above = INFINITY;
    for (int64_t j = 0; j < n; j++) total += distance[j];
    double t = total > 0 ? log((double)n) - log(total) : 0;
    for (int step = 0; step < SEARCH_STEPS; step++) {
        *beta = exp(t);
        moments m = weigh(distance, n, *beta);
        *scale = 1 / m.weight;
        double miss = log(m.weight) + *beta * m.mean - target, slope = *beta * *beta * m.variance;
        if (fabs(miss) <= ENTROPY_ERROR || !(slope > FLAT)) return;
        if (miss > 0)
            below = t;
        else
            above = t;
        double next = t + fmax(-2, fmin(2, miss / slope));
        t = next > below && next < above ? next : (below + above) / 2;
    }
}

static void search_block(lam_affinities *a, int64_t from, double target, double *distance) {
    int64_t n = a->rows - from < SEARCH_ROWS ? a->rows - from : SEARCH_ROWS;
    lam_gemm_f64(false, true, n, a->rows, a->columns, a->x + from * a->columns, a->columns, a->x, a->columns,
                 0.0, distance, a->rows);
    for (int64_t i = 0; i < n; i++) {
        double *d = distance + i * a->rows, least = INFINITY;
        int64_t row = from + i, others = 0;
        for (int64_t j = 0; j < a->rows; j++) {
            if (j == row) continue;
            double square = fmax(0, a->square[row] + a->square[j] - 2 * d[j]);
            least = fmin(least, square);
            d[others++] = square;
        }
        for (int64_t j = 0; j < others; j++) d[j] -= least;
        a->nearest[row] = least;
        find_beta(d, others, target, &a->beta[row], &a->scale[row]);
    }
}

static lam_status search(lam_affinities *a, double perplexity) {
    double *distance;
    LAM_TRY(
        lam_alloc_array((void **)&distance, (int64_t)a->threads * SEARCH_ROWS * a->rows, sizeof *distance));
#pragma omp parallel for schedule(dynamic, 1) num_threads(a->threads)
    for (int64_t from = 0; from < a->rows; from += SEARCH_ROWS)
        search_block(a, from, log(perplexity), distance + omp_get_thread_num() * SEARCH_ROWS * a->rows);
    lam_free(distance);
    return LAM_OK;
}

/* ---- tiles ---- */

CLONES static void fill_row(const lam_affinities *a, int64_t i, int64_t second, const double *product,
                            float *out) {
    double share = 0.5 / (double)a->rows, my_square = a->square[i], my_nearest = a->nearest[i],
           my_beta = -a->beta[i], my_scale = a->scale[i];
    for (int j = 0; j < TILE; j += LANES) {
        int64_t at = second * TILE + j;
        lanes d = my_square + *(const lanes *)(a->square + at) - 2 * *(const lanes *)(product + j),
              mine = d - my_nearest, theirs = d - *(const lanes *)(a->nearest + at);
        at_least(&mine, 0);
        at_least(&theirs, 0);
        mine *= my_beta;
        theirs *= -*(const lanes *)(a->beta + at);
        exp_negative(&mine);
        exp_negative(&theirs);
        lanes p = share * (my_scale * mine + *(const lanes *)(a->scale + at) * theirs);
        p = (lanes)((bits)p & (bits)(p > EVERY(LEAST)));
        for (int l = 0; l < LANES; l++) out[j + l] = (float)p[l];
    }
}

static void fill(const lam_affinities *a, int64_t first, int64_t second, double *product, float *out) {
    int64_t rows = a->rows - first * TILE < TILE ? a->rows - first * TILE : TILE,
            columns = a->rows - second * TILE < TILE ? a->rows - second * TILE : TILE;
    lam_gemm_f64(false, true, TILE, TILE, a->columns, a->x + first * TILE * a->columns, a->columns,
                 a->x + second * TILE * a->columns, a->columns, 0.0, product, TILE);
    for (int64_t i = 0; i < rows; i++) {
        fill_row(a, first * TILE + i, second, product + i * TILE, out + i * TILE);
        if (first == second) out[i * TILE + i] = 0;
        for (int64_t j = columns; j < TILE; j++) out[i * TILE + j] = 0;
    }
}

static int64_t tile_number(const lam_affinities *a, int64_t first, int64_t second) {
    return first * a->blocks - first * (first - 1) / 2 + second - first;
}

const float *lam_affinities_tile(const lam_affinities *a, int64_t first, int64_t second, int thread) {
    int64_t number = tile_number(a, first, second);
    if (number < a->kept) return a->tiles + number * TILE * TILE;
    float *out = a->tile + (int64_t)thread * TILE * TILE;
    fill(a, first, second, a->product + (int64_t)thread * TILE * TILE, out);
    return out;
}

static void keep_tiles(lam_affinities *a) {
#pragma omp parallel for schedule(dynamic, 1) num_threads(a->threads)
    for (int64_t first = 0; first < a->blocks; first++)
        for (int64_t second = first; second < a->blocks; second++) {
            int64_t number = tile_number(a, first, second);
            if (number < a->kept)
                fill(a, first, second, a->product + (int64_t)omp_get_thread_num() * TILE * TILE,
                     a->tiles + number * TILE * TILE);
        }
}

/* ---- all ---- */

static void centre(lam_affinities *a, const double *x) {
    for (int64_t j = 0; j < a->columns; j++) {
        double mean = 0;
        for (int64_t i = 0; i < a->rows; i++) mean += x[i * a->columns + j] / (double)a->rows;
        for (int64_t i = 0; i < a->rows; i++) a->x[i * a->columns + j] = x[i * a->columns + j] - mean;
    }
    for (int64_t i = 0; i < a->rows; i++)
        for (int64_t j = 0; j < a->columns; j++)
            a->square[i] += a->x[i * a->columns + j] * a->x[i * a->columns + j];
}

lam_status lam_affinities_make(lam_affinities *a, const double *x, int64_t rows, int64_t columns,
                               double perplexity, int64_t kept_bytes) {
    int64_t blocks = (rows + TILE - 1) / TILE, tiles = blocks * (blocks + 1) / 2,
            room = kept_bytes / (int64_t)(TILE * TILE * sizeof(float));
    *a = (lam_affinities){.rows = rows,
                          .columns = columns,
                          .blocks = blocks,
                          .kept = tiles < room ? tiles : room,
                          .threads = lam_threads()};
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_alloc_array((void **)&a->x, blocks * TILE * columns, sizeof *a->x), done);
    double **const of_rows[] = {&a->square, &a->beta, &a->nearest, &a->scale};
    for (size_t k = 0; k < sizeof of_rows / sizeof *of_rows; k++)
        LAM_TRY_GOTO(lam_alloc_array((void **)of_rows[k], blocks * TILE, sizeof(double)), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&a->tiles, a->kept * TILE * TILE, sizeof *a->tiles), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&a->product, a->threads * TILE * TILE, sizeof *a->product), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&a->tile, a->threads * TILE * TILE, sizeof *a->tile), done);
    centre(a, x);
    LAM_TRY_GOTO(search(a, perplexity), done);
    keep_tiles(a);
done:
    if (status != LAM_OK) lam_affinities_free(a);
    return status;
}

void lam_affinities_free(lam_affinities *a) {
    lam_free(a->x);
    lam_free(a->square);
    lam_free(a->beta);
    lam_free(a->nearest);
    lam_free(a->scale);
    lam_free(a->tiles);
    lam_free(a->product);
    lam_free(a->tile);
    memset(a, 0, sizeof *a);
}
