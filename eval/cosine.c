#include "eval/cosine.h"

#include <math.h>
#include <omp.h>
#include <stdbool.h>
#include <string.h>

#include "base/gemm.h"
#include "base/memory.h"
#include "base/threads.h"
#include "eval/jobs.h"

#define LANES 8 /* partial sums: one order for every vector width */

#define PART_BLOCKS 16 /* blocks of rows that one task goes through */

#define CLONES __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))

CLONES static double dot_f64(const double *a, const double *b, int64_t n) {
    double sum[LANES] = {0};
    int64_t j = 0;
    for (; j + LANES <= n; j += LANES)
        for (int l = 0; l < LANES; l++) sum[l] += a[j + l] * b[j + l];
    for (; j < n; j++) sum[j % LANES] += a[j] * b[j];
    return ((sum[0] + sum[1]) + (sum[2] + sum[3])) + ((sum[4] + sum[5]) + (sum[6] + sum[7]));
}

CLONES static float dot_f32(const float *a, const float *b, int64_t n) {
    float sum[2 * LANES] = {0}, total = 0;
    int64_t j = 0;
    for (; j + 2 * LANES <= n; j += 2 * LANES)
        for (int l = 0; l < 2 * LANES; l++) sum[l] += a[j + l] * b[j + l];
    for (; j < n; j++) total += a[j] * b[j];
    for (int l = 0; l < 2 * LANES; l++) total += sum[l];
    return total;
}

double lam_directions_cosine(const lam_directions *u, int64_t i, int64_t j) {
    return dot_f64(u->exact + i * u->columns, u->exact + j * u->columns, u->columns);
}

float lam_directions_near(const lam_directions *u, int64_t i, int64_t j) {
    return dot_f32(u->rounded + i * u->columns, u->rounded + j * u->columns, u->columns);
}

void lam_directions_free(lam_directions *u) {
    lam_free(u->exact);
    lam_free(u->rounded);
    memset(u, 0, sizeof *u);
}

lam_status lam_directions_make(lam_directions *u, const double *x, int64_t rows, int64_t columns) {
    *u = (lam_directions){.rows = rows, .columns = columns};
    int64_t bad = rows;
    double rounding = 0x1p-24;
    u->bound = ((double)columns + 4) * rounding / (1 - ((double)columns + 4) * rounding);
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_alloc_array((void **)&u->exact, rows * columns, sizeof(double)), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&u->rounded, rows * columns, sizeof(float)), done);
#pragma omp parallel for schedule(static) num_threads(lam_threads()) reduction(min : bad)
    for (int64_t i = 0; i < rows; i++) {
        const double *from = x + i * columns;
        double largest = 0, squares = 0, norm;
        for (int64_t j = 0; j < columns; j++) squares += from[j] * from[j];
        norm = sqrt(squares);
        /* Where squares leave the range of a double the row is scaled first. */
        double scale = 1;
        if (!(squares > 0x1p-900 && squares < 0x1p900)) {
            for (int64_t j = 0; j < columns; j++) largest = fmax(largest, fabs(from[j]));
            bool finite = true;
            for (int64_t j = 0; j < columns; j++) finite = finite && isfinite(from[j]);
            if (!finite || largest == 0) {
                bad = i < bad ? i : bad;
                continue;
            }
            scale = largest;
            squares = 0;
            for (int64_t j = 0; j < columns; j++) squares += from[j] / scale * (from[j] / scale);
            norm = sqrt(squares);
        }
        for (int64_t j = 0; j < columns; j++) {
            double value = from[j] / scale / norm;
            u->exact[i * columns + j] = value;
            u->rounded[i * columns + j] = (float)value;
        }
    }
    LAM_REQUIRE_GOTO(bad == rows, done, LAM_ERROR_INPUT,
                     "row %lld of the map is zero or not finite: it has no direction to compare",
                     (long long)bad + 1);
done:
    if (status != LAM_OK) lam_directions_free(u);
    return status;
}

/* What a thread works with: the rows of one block of columns turned, zeros behind the last, and a tile. */
typedef struct worker {
    float *turned; /* [columns, LAM_TILE_COLUMNS] */
    float *values; /* [LAM_TILE_ROWS, LAM_TILE_COLUMNS] */
} worker;

static void turn(const lam_directions *u, int64_t from, int64_t n, float *to) {
    for (int64_t k = 0; k < u->columns; k += LANES) {
        int64_t end = k + LANES < u->columns ? k + LANES : u->columns;
        for (int64_t i = 0; i < n; i++)
            for (int64_t j = k; j < end; j++)
                to[j * LAM_TILE_COLUMNS + i] = u->rounded[(from + i) * u->columns + j];
        for (int64_t j = k; j < end; j++)
            for (int64_t i = n; i < LAM_TILE_COLUMNS; i++) to[j * LAM_TILE_COLUMNS + i] = 0;
    }
}

/* Tiles of one block of columns with the strips of rows first, first + 1, ... last - 1. */
static lam_status run_block(const lam_directions *u, int64_t column, int64_t first, int64_t last,
                            const worker *w, int thread, lam_tile_visit visit, void *context) {
    lam_tile tile = {.column = column, .values = w->values};
    tile.columns = u->rows - column < LAM_TILE_COLUMNS ? u->rows - column : LAM_TILE_COLUMNS;
    turn(u, column, tile.columns, w->turned);
    for (int64_t strip = first; strip < last; strip++) {
        tile.row = strip * LAM_TILE_ROWS;
        tile.rows = u->rows - tile.row < LAM_TILE_ROWS ? u->rows - tile.row : LAM_TILE_ROWS;
        LAM_TRY(lam_gemm_f32(false, false, tile.rows, tile.columns, u->columns,
                             u->rounded + tile.row * u->columns, u->columns, w->turned, LAM_TILE_COLUMNS,
                             0.0f, w->values, LAM_TILE_COLUMNS));
        LAM_TRY(visit(context, thread, &tile));
    }
    return LAM_OK;
}

/* Each job takes a part of the strips of one block; the last blocks, which have the most, come first. */
typedef struct tiling {
    const lam_directions *u;
    float *memory; /* of each thread: what its worker has */
    int64_t blocks, parts;
    lam_tile_visit visit;
    void *context;
} tiling;

static int64_t worker_floats(const lam_directions *u) {
    return (u->columns + LAM_TILE_ROWS) * LAM_TILE_COLUMNS;
}

static lam_status run_part(void *of, int64_t index) {
    const tiling *t = of;
    int thread = omp_get_thread_num();
    float *mine = t->memory + thread * worker_floats(t->u);
    worker w = {mine, mine + t->u->columns * LAM_TILE_COLUMNS};
    int64_t per_block = LAM_TILE_COLUMNS / LAM_TILE_ROWS, block = t->blocks - 1 - index / t->parts,
            part = index % t->parts, first = part * PART_BLOCKS * per_block,
            last = (part + 1) * PART_BLOCKS * per_block, end = (block + 1) * per_block,
            strips = (t->u->rows + LAM_TILE_ROWS - 1) / LAM_TILE_ROWS;
    if (end > strips) end = strips;
    if (last > end) last = end;
    if (first >= last) return LAM_OK;
    return run_block(t->u, block * LAM_TILE_COLUMNS, first, last, &w, thread, t->visit, t->context);
}

lam_status lam_directions_tiles(const lam_directions *u, lam_tile_visit visit, void *context) {
    tiling t = {.u = u,
                .blocks = (u->rows + LAM_TILE_COLUMNS - 1) / LAM_TILE_COLUMNS,
                .visit = visit,
                .context = context};
    t.parts = (t.blocks + PART_BLOCKS - 1) / PART_BLOCKS;
    LAM_TRY(lam_alloc_array((void **)&t.memory, lam_threads() * worker_floats(u), sizeof *t.memory));
    lam_status status = lam_jobs_run(&(lam_jobs){0}, t.blocks * t.parts, 1, run_part, &t);
    lam_free(t.memory);
    return status;
}
