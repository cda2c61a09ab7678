#include "eval/pairwise.h"

#include <math.h>
#include <omp.h>
#include <string.h>

#include "base/memory.h"
#include "base/threads.h"
#include "eval/linalg.h"

#define LANES 8    /* partial sums: one order for every vector width */
#define CLOSE 1e-4 /* of |x|^2 + |y|^2: below, the product has lost too many digits */

#define CLONES __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))

typedef struct tile {
    double *a, *b, *squares_a, *squares_b; /* gathered rows and their squared lengths */
    double *values;                        /* [LAM_PAIR_BLOCK, LAM_PAIR_BLOCK] */
    double *sums;                          /* [LAM_PAIR_BLOCK] */
} tile;

int64_t lam_pair_work(int64_t columns) {
    return 2 * LAM_PAIR_BLOCK * (columns + 1) + LAM_PAIR_BLOCK * (LAM_PAIR_BLOCK + 1);
}

static tile carve(double *work, int64_t columns) {
    tile t;
    t.a = work;
    t.b = t.a + LAM_PAIR_BLOCK * columns;
    t.squares_a = t.b + LAM_PAIR_BLOCK * columns;
    t.squares_b = t.squares_a + LAM_PAIR_BLOCK;
    t.values = t.squares_b + LAM_PAIR_BLOCK;
    t.sums = t.values + LAM_PAIR_BLOCK * LAM_PAIR_BLOCK;
    return t;
}

static void gather(const lam_pair_space *s, const int64_t *rows, int64_t count, double *to, double *squares) {
    int64_t d = s->columns;
    for (int64_t i = 0; i < count; i++) {
        const double *from = s->x + rows[i] * d;
        double *row = to + i * d, sum = 0;
        if (s->measure == LAM_PAIR_DISTANCE) {
            for (int64_t j = 0; j < d; j++) {
                row[j] = from[j] - s->origin[j];
                sum += row[j] * row[j];
            }
        } else {
            double length = s->length[rows[i]];
            for (int64_t j = 0; j < d; j++) row[j] = length > 0 ? from[j] / length : 0;
        }
        squares[i] = sum;
    }
}

CLONES static int squared_distances(double *values, double square, const double *squares, int64_t n) {
    int close = 0;
    for (int64_t j = 0; j < n; j++) {
        double both = square + squares[j], value = both - 2 * values[j];
        close |= value < CLOSE * both;
        values[j] = value;
    }
    return close;
}

static void recompute_close(const double *a, const double *b, int64_t d, double *values, double square,
                            const double *squares, int64_t n) {
    for (int64_t j = 0; j < n; j++) {
        if (!(values[j] < CLOSE * (square + squares[j]))) continue;
        double sum = 0;
        for (int64_t k = 0; k < d; k++) sum += (a[k] - b[j * d + k]) * (a[k] - b[j * d + k]);
        values[j] = sum;
    }
}

CLONES static void roots(double *values, int64_t n) {
    for (int64_t j = 0; j < n; j++) values[j] = sqrt(values[j]);
}

static double total(const double *values, int64_t n) {
    double sum[LANES] = {0};
    for (int64_t j = 0; j < n; j++) sum[j % LANES] += values[j];
    return ((sum[0] + sum[1]) + (sum[2] + sum[3])) + ((sum[4] + sum[5]) + (sum[6] + sum[7]));
}

/* values [count_a, LAM_PAIR_BLOCK] of the gathered rows. */
static void fill(const lam_pair_space *s, const tile *t, int64_t count_a, int64_t count_b) {
    int64_t d = s->columns;
    lam_gemm_f64(false, true, count_a, count_b, d, t->a, d, t->b, d, 0.0, t->values, LAM_PAIR_BLOCK);
    for (int64_t i = 0; i < count_a; i++) {
        double *values = t->values + i * LAM_PAIR_BLOCK;
        if (s->measure == LAM_PAIR_ANGLE) {
            for (int64_t j = 0; j < count_b; j++) values[j] = acos(fmin(fmax(values[j], -1), 1));
            continue;
        }
        if (squared_distances(values, t->squares_a[i], t->squares_b, count_b))
            recompute_close(t->a + i * d, t->b, d, values, t->squares_a[i], t->squares_b, count_b);
        roots(values, count_b);
    }
}

void lam_pair_sums(const lam_pair_space *s, const int64_t *a, int64_t count_a, const int64_t *b,
                   int64_t count_b, bool triangle, double *sums, double *work) {
    tile t = carve(work, s->columns);
    gather(s, a, count_a, t.a, t.squares_a);
    memset(sums, 0, (size_t)count_a * sizeof *sums);
    for (int64_t from = 0; from < count_b; from += LAM_PAIR_BLOCK) {
        int64_t n = count_b - from < LAM_PAIR_BLOCK ? count_b - from : LAM_PAIR_BLOCK;
        gather(s, b + from, n, t.b, t.squares_b);
        fill(s, &t, count_a, n);
        for (int64_t i = 0; i < count_a; i++) {
            int64_t first = triangle && from == 0 ? i + 1 : 0;
            if (first < n) sums[i] += total(t.values + i * LAM_PAIR_BLOCK + first, n - first);
        }
    }
}

void lam_pair_values(const lam_pair_space *s, const int64_t *a, int64_t count_a, const int64_t *b,
                     int64_t count_b, double *out, int64_t stride, double *work) {
    tile t = carve(work, s->columns);
    gather(s, a, count_a, t.a, t.squares_a);
    for (int64_t from = 0; from < count_b; from += LAM_PAIR_BLOCK) {
        int64_t n = count_b - from < LAM_PAIR_BLOCK ? count_b - from : LAM_PAIR_BLOCK;
        gather(s, b + from, n, t.b, t.squares_b);
        fill(s, &t, count_a, n);
        for (int64_t i = 0; i < count_a; i++)
            memcpy(out + i * stride + from, t.values + i * LAM_PAIR_BLOCK, (size_t)n * sizeof *out);
    }
}

/* Of the block that begins at `from`, with the rows after it. */
static double block_within(const lam_pair_space *s, const int64_t *rows, int64_t n, int64_t from,
                           double *work) {
    double *sums = carve(work, s->columns).sums;
    int64_t count = n - from < LAM_PAIR_BLOCK ? n - from : LAM_PAIR_BLOCK;
    lam_pair_sums(s, rows + from, count, rows + from, n - from, true, sums, work);
    return total(sums, count);
}

double lam_pair_sum_within(const lam_pair_space *s, const int64_t *rows, int64_t n, double *work) {
    double sum = 0;
    for (int64_t from = 0; from < n; from += LAM_PAIR_BLOCK) sum += block_within(s, rows, n, from, work);
    return sum;
}

typedef struct block {
    int64_t group, from; /* from: of the group's rows */
} block;

/* Large groups in several blocks, so that they are shared among threads; the sums are added in order at the end. */
lam_status lam_pair_sums_within(const lam_pair_space *s, const int64_t *start, const int64_t *row,
                                int64_t groups, double *within) {
    int threads = lam_threads();
    int64_t blocks = 0, size = lam_pair_work(s->columns);
    for (int64_t g = 0; g < groups; g++)
        blocks += (start[g + 1] - start[g] + LAM_PAIR_BLOCK - 1) / LAM_PAIR_BLOCK;
    block *list = NULL;
    double *work = NULL, *partial = NULL;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_alloc_array((void **)&list, blocks, sizeof *list), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&partial, blocks, sizeof *partial), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&work, threads * size, sizeof *work), done);
    blocks = 0;
    for (int64_t g = 0; g < groups; g++)
        for (int64_t from = 0; from < start[g + 1] - start[g]; from += LAM_PAIR_BLOCK)
            list[blocks++] = (block){g, from};
#pragma omp parallel for schedule(dynamic, 4) num_threads(threads)
    for (int64_t k = 0; k < blocks; k++) {
        int64_t g = list[k].group;
        partial[k] = block_within(s, row + start[g], start[g + 1] - start[g], list[k].from,
                                  work + omp_get_thread_num() * size);
    }
    memset(within, 0, (size_t)groups * sizeof *within);
    for (int64_t k = 0; k < blocks; k++) within[list[k].group] += partial[k];
done:
    lam_free(list);
    lam_free(partial);
    lam_free(work);
    return status;
}

/* Blocks of rows without regard to groups: small groups would spend their time on gathering `others`. */
lam_status lam_pair_sums_between(const lam_pair_space *s, const int64_t *start, const int64_t *row,
                                 int64_t groups, const int64_t *others, int64_t other_count, double *between,
                                 lam_progress *progress) {
    int threads = lam_threads();
    int64_t rows = start[groups], size = lam_pair_work(s->columns), finished = 0;
    double *work = NULL, *sums = NULL;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_alloc_array((void **)&sums, rows, sizeof *sums), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&work, threads * size, sizeof *work), done);
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
    for (int64_t from = 0; from < rows; from += LAM_PAIR_BLOCK) {
        int64_t count = rows - from < LAM_PAIR_BLOCK ? rows - from : LAM_PAIR_BLOCK, seen;
        lam_pair_sums(s, row + from, count, others, other_count, false, sums + from,
                      work + omp_get_thread_num() * size);
#pragma omp atomic capture
        seen = finished += count;
        lam_progress_update(progress, seen, NULL);
    }
    for (int64_t g = 0; g < groups; g++) between[g] = total(sums + start[g], start[g + 1] - start[g]);
done:
    lam_free(sums);
    lam_free(work);
    return status;
}
