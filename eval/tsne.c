#include "eval/tsne.h"

#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/memory.h"
#include "base/rng.h"
#include "base/threads.h"
#include "eval/tsne_parts.h"

#define TILE LAM_TSNE_TILE
#define LANES 8   /* wider vectors gain a third with AVX-512 and lose more than half without */
#define SHARES 16 /* of the strips of tiles, each summed by itself: the sums do not depend on threads */
#define FAR 1e20f /* where the rows behind the last one lie: their q is zero */

#define ITERATIONS 1000
#define EXPLORATION 250
#define EXAGGERATION 12.0
#define CHECKED_EVERY 50
#define PATIENCE 300
#define LEAST_GRADIENT 1e-7
#define LEAST_GAIN 0.01
#define SPREAD 1e-4 /* standard deviation at the start */

#define CLONES __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))

const lam_tsne_options lam_tsne_defaults = {.kept_bytes = (int64_t)1 << 30};

double lam_tsne_perplexity(int64_t rows) { return fmin(30, (double)(rows - 1) / 3); }

/* ---- forces ---- */

typedef float lanes __attribute__((vector_size(LANES * sizeof(float)), may_alias));

static float sum_of(const float v[LANES]) {
    float total = 0;
    for (int l = 0; l < LANES; l++) total += v[l];
    return total;
}

enum { ATTRACT_X, ATTRACT_Y, REPEL_X, REPEL_Y, FORCES };

/* One row of a tile: sums of p q (y_i - y_j) and q^2 (y_i - y_j) over j, and of q; on[k][j] gets the forces on i by j with their
 * sign turned, which are those on j. */
CLONES static void row_forces(const float *p, float x, float y, const float *xs, const float *ys,
                              float on[FORCES][TILE], double sums[FORCES + 1]) {
    lanes ax = {0}, ay = {0}, rx = {0}, ry = {0}, z = {0};
    for (int j = 0; j < TILE; j += LANES) {
        lanes dx = x - *(const lanes *)(xs + j), dy = y - *(const lanes *)(ys + j),
              q = 1.0f / (1.0f + dx * dx + dy * dy), pull = *(const lanes *)(p + j) * q, push = q * q;
        z += q;
        lanes pull_x = pull * dx, pull_y = pull * dy, push_x = push * dx, push_y = push * dy;
        ax += pull_x;
        ay += pull_y;
        rx += push_x;
        ry += push_y;
        *(lanes *)(on[ATTRACT_X] + j) -= pull_x;
        *(lanes *)(on[ATTRACT_Y] + j) -= pull_y;
        *(lanes *)(on[REPEL_X] + j) -= push_x;
        *(lanes *)(on[REPEL_Y] + j) -= push_y;
    }
    const lanes all[FORCES + 1] = {ax, ay, rx, ry, z};
    for (int k = 0; k <= FORCES; k++) {
        float values[LANES];
        memcpy(values, &all[k], sizeof values);
        sums[k] = (double)sum_of(values);
    }
}

/* sum of p log(p / (q Z)) over a row of a tile, without log Z, and sum of p. */
static void row_divergence(const float *p, float x, float y, const float *xs, const float *ys,
                           double sums[2]) {
    for (int j = 0; j < TILE; j++) {
        if (!(p[j] > 0)) continue;
        float dx = x - xs[j], dy = y - ys[j];
        sums[0] += (double)(p[j] * logf(p[j] * (1 + dx * dx + dy * dy)));
        sums[1] += (double)p[j];
    }
}

typedef struct descent {
    lam_affinities affinities;
    int64_t rows, padded;
    int shares;
    float *x, *y;                     /* [padded] positions as the tiles take them */
    double *force;                    /* [shares, FORCES, padded] */
    double *sums;                     /* [shares, 3]: Z, and those of the divergence */
    double *update, *gain, *gradient; /* [rows, 2] */
    double normaliser;                /* Z */
} descent;

/* Strip s has blocks - s tiles: shares take them in turn, there and back, so that each has as many tiles. */
static int share_of(int64_t strip, int shares) {
    int64_t k = strip % (2 * shares);
    return (int)(k < shares ? k : 2 * shares - 1 - k);
}

static void strip_forces(descent *d, int64_t first, int share, int thread) {
    double *force = d->force + (int64_t)share * FORCES * d->padded, *z = d->sums + 3 * share;
    int64_t rows = d->rows - first * TILE < TILE ? d->rows - first * TILE : TILE;
    for (int64_t second = first; second < d->affinities.blocks; second++) {
        const float *p = lam_affinities_tile(&d->affinities, first, second, thread);
        bool twice = first != second; /* a tile on the diagonal holds both directions */
        float on[FORCES][TILE] __attribute__((aligned(64))) = {{0}};
        for (int64_t i = 0; i < rows; i++) {
            double sums[FORCES + 1];
            int64_t at = first * TILE + i;
            row_forces(p + i * TILE, d->x[at], d->y[at], d->x + second * TILE, d->y + second * TILE, on,
                       sums);
            for (int k = 0; k < FORCES; k++) force[k * d->padded + at] += sums[k];
            z[0] += twice ? 2 * sums[FORCES] : sums[FORCES] - 1; /* without q_ii */
        }
        for (int k = 0; twice && k < FORCES; k++)
            for (int64_t j = 0; j < TILE; j++) force[k * d->padded + second * TILE + j] += (double)on[k][j];
    }
}

static void strip_divergence(descent *d, int64_t first, int share, int thread) {
    int64_t rows = d->rows - first * TILE < TILE ? d->rows - first * TILE : TILE;
    for (int64_t second = first; second < d->affinities.blocks; second++) {
        const float *p = lam_affinities_tile(&d->affinities, first, second, thread);
        double sums[2] = {0}, times = first != second ? 2 : 1;
        for (int64_t i = 0; i < rows; i++)
            row_divergence(p + i * TILE, d->x[first * TILE + i], d->y[first * TILE + i], d->x + second * TILE,
                           d->y + second * TILE, sums);
        d->sums[3 * share + 1] += times * sums[0];
        d->sums[3 * share + 2] += times * sums[1];
    }
}

static void sweep(descent *d, void (*strip)(descent *, int64_t, int, int)) {
    int threads = d->affinities.threads < d->shares ? d->affinities.threads : d->shares;
    memset(d->sums, 0, (size_t)d->shares * 3 * sizeof *d->sums);
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
    for (int share = 0; share < d->shares; share++) {
        memset(d->force + (int64_t)share * FORCES * d->padded, 0,
               (size_t)(FORCES * d->padded) * sizeof *d->force);
        for (int64_t first = 0; first < d->affinities.blocks; first++)
            if (share_of(first, d->shares) == share) strip(d, first, share, omp_get_thread_num());
    }
}

static double total_of(const descent *d, int which) {
    double total = 0;
    for (int share = 0; share < d->shares; share++) total += d->sums[3 * share + which];
    return total;
}

/* ---- descent ---- */

/* gradient_i = 4 sum_j (exaggeration p_ij - q_ij) (y_i - y_j) / (1 + |y_i - y_j|^2) (equation 5); returns its length. */
static double find_gradient(descent *d, double exaggeration) {
    sweep(d, strip_forces);
    d->normaliser = total_of(d, 0);
    double squares = 0;
    for (int64_t i = 0; i < d->rows; i++)
        for (int c = 0; c < 2; c++) {
            double pull = 0, push = 0;
            for (int share = 0; share < d->shares; share++) {
                const double *force = d->force + (int64_t)share * FORCES * d->padded;
                pull += force[(ATTRACT_X + c) * d->padded + i];
                push += force[(REPEL_X + c) * d->padded + i];
            }
            double g = 4 * (exaggeration * pull - push / d->normaliser);
            d->gradient[2 * i + c] = g;
            squares += g * g;
        }
    return sqrt(squares);
}

static double find_divergence(descent *d) {
    sweep(d, strip_divergence);
    return total_of(d, 1) + log(d->normaliser) * total_of(d, 2);
}

static void move_to(descent *d, const double *y) {
    for (int64_t i = 0; i < d->padded; i++) {
        d->x[i] = i < d->rows ? (float)y[2 * i] : FAR;
        d->y[i] = i < d->rows ? (float)y[2 * i + 1] : FAR;
    }
}

static void step(descent *d, double *y, double momentum, double rate) {
    for (int64_t k = 0; k < 2 * d->rows; k++) {
        bool onward = d->update[k] * d->gradient[k] < 0;
        d->gain[k] = fmax(LEAST_GAIN, onward ? d->gain[k] + 0.2 : d->gain[k] * 0.8);
        d->update[k] = momentum * d->update[k] - rate * d->gain[k] * d->gradient[k];
        y[k] += d->update[k];
    }
}

static void rest(descent *d) {
    for (int64_t k = 0; k < 2 * d->rows; k++) {
        d->update[k] = 0;
        d->gain[k] = 1;
    }
}

/* The bar of a descent that needs less than all iterations would look broken off. */
static void tell_convergence(lam_progress *progress, int iterations) {
    char text[48];
    snprintf(text, sizeof text, "converged after %d", iterations);
    lam_progress_update(progress, iterations, text);
}

static lam_status descend(descent *d, double *y, double *divergence) {
    double rate = fmax((double)d->rows / EXAGGERATION / 4, 50), best = INFINITY, length = 0;
    int best_at = EXPLORATION;
    lam_progress *progress = lam_progress_start("t-SNE", ITERATIONS, "iterations");
    for (int i = 0; i < ITERATIONS; i++) {
        bool exploring = i < EXPLORATION, checked = (i + 1) % CHECKED_EVERY == 0;
        if (i == 0 || i == EXPLORATION) rest(d);
        move_to(d, y);
        length = find_gradient(d, exploring ? EXAGGERATION : 1);
        if (!isfinite(length)) break;
        if (checked && !exploring) {
            double now = find_divergence(d);
            if (now < best) {
                best = now;
                best_at = i;
            } else if (i - best_at > PATIENCE) {
                tell_convergence(progress, i + 1);
                break;
            }
        }
        step(d, y, exploring ? 0.5 : 0.8, rate);
        lam_progress_update(progress, i + 1, NULL);
        if (checked && length <= LEAST_GRADIENT) {
            if (!exploring) {
                tell_convergence(progress, i + 1);
                break;
            }
            i = EXPLORATION - 1;
        }
    }
    lam_progress_finish(progress);
    LAM_REQUIRE(isfinite(length), LAM_ERROR_NUMERIC, "t-SNE: the positions left the range of numbers");
    move_to(d, y);
    find_gradient(d, 1); /* Z of the last positions */
    if (divergence) *divergence = find_divergence(d);
    return LAM_OK;
}

static lam_status start(const double *x, int64_t rows, int64_t columns, const lam_tsne_options *options,
                        double *y) {
    if (options->random_start) {
        for (int64_t i = 0; i < rows; i++) {
            lam_rng r = lam_rng_stream(options->seed, LAM_RNG_INIT, (uint64_t)i);
            for (int c = 0; c < 2; c++) y[2 * i + c] = SPREAD * lam_rng_normal(&r);
        }
        return LAM_OK;
    }
    LAM_TRY(lam_principal_plane(x, rows, columns, y));
    double squares = 0; /* the mean of a component is zero */
    for (int64_t i = 0; i < rows; i++) squares += y[2 * i] * y[2 * i];
    double factor = squares > 0 ? SPREAD / sqrt(squares / (double)rows) : 0;
    for (int64_t k = 0; k < 2 * rows; k++) y[k] *= factor;
    return LAM_OK;
}

static void descent_free(descent *d) {
    lam_affinities_free(&d->affinities);
    lam_free(d->x);
    lam_free(d->y);
    lam_free(d->force);
    lam_free(d->sums);
    lam_free(d->update);
    lam_free(d->gain);
    lam_free(d->gradient);
}

lam_status lam_tsne(const double *x, int64_t rows, int64_t columns, const lam_tsne_options *options,
                    double *y, double *divergence) {
    double perplexity = options->perplexity != 0 ? options->perplexity : lam_tsne_perplexity(rows);
    LAM_REQUIRE(rows >= LAM_TSNE_MINIMUM_ROWS, LAM_ERROR_INPUT,
                "t-SNE needs at least %d rows, there are %lld", LAM_TSNE_MINIMUM_ROWS, (long long)rows);
    LAM_REQUIRE(perplexity >= 1 && perplexity <= (double)(rows - 1), LAM_ERROR_USAGE,
                "the perplexity of t-SNE is %g: 1 to %lld (rows - 1) is possible, 5 to 50 usual", perplexity,
                (long long)rows - 1);
    for (int64_t k = 0; k < rows * columns; k++)
        LAM_REQUIRE(isfinite(x[k]), LAM_ERROR_INPUT, "row %lld holds a value that is not finite",
                    (long long)(k / columns + 1));
    int64_t blocks = (rows + TILE - 1) / TILE;
    descent d = {.rows = rows, .padded = blocks * TILE, .shares = (int)(blocks < SHARES ? blocks : SHARES)};
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_affinities_make(&d.affinities, x, rows, columns, perplexity, options->kept_bytes), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&d.x, d.padded, sizeof *d.x), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&d.y, d.padded, sizeof *d.y), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&d.force, d.shares * FORCES * d.padded, sizeof *d.force), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&d.sums, d.shares * 3, sizeof *d.sums), done);
    double **const of_rows[] = {&d.update, &d.gain, &d.gradient};
    for (size_t k = 0; k < sizeof of_rows / sizeof *of_rows; k++)
        LAM_TRY_GOTO(lam_alloc_array((void **)of_rows[k], 2 * rows, sizeof(double)), done);
    LAM_TRY_GOTO(start(x, rows, columns, options, y), done);
    LAM_TRY_GOTO(descend(&d, y, divergence), done);
done:
    descent_free(&d);
    return status;
}
