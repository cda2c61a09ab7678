#include "eval/knn.h"

#include <math.h>
#include <omp.h>
#include <string.h>

#include "base/gemm.h"
#include "base/memory.h"
#include "base/threads.h"
#include "eval/jobs.h"

typedef struct neighbour {
    double cosine;
    int64_t row;
} neighbour;

/* What a thread works with. */
typedef struct bench {
    float *tile;        /* [LAM_TILE_ROWS, LAM_TILE_COLUMNS] */
    neighbour *nearest; /* [LAM_TILE_ROWS, k], falling cosine, then rising row */
    int64_t *held;      /* [LAM_TILE_ROWS] */
    int64_t *votes;     /* [classes] */
    double *distance;   /* [classes] */
} bench;

typedef struct search {
    const lam_directions *u;
    const int64_t *label, *fold;
    const bool *taken;
    int64_t classes, k;
    int64_t *predicted;
    bench *benches; /* [threads] */
} search;

static void insert(neighbour *list, int64_t *held, int64_t k, neighbour found) {
    int64_t at = *held < k ? (*held)++ : k - 1;
    /* Rows come in rising order, so an equal cosine stays behind those that are there. */
    for (; at > 0 && list[at - 1].cosine < found.cosine; at--) list[at] = list[at - 1];
    list[at] = found;
}

static void take_tile(const search *s, const bench *b, int64_t row, int64_t rows, int64_t column) {
    int64_t n = s->u->rows, columns = n - column < LAM_TILE_COLUMNS ? n - column : LAM_TILE_COLUMNS;
    for (int64_t r = 0; r < rows; r++) {
        const float *near = b->tile + r * LAM_TILE_COLUMNS;
        neighbour *list = b->nearest + r * s->k;
        int64_t i = row + r, own = s->fold[i];
        const bool *taken = s->taken ? s->taken + own * n : NULL;
        double least = -(double)INFINITY; /* what a float32 product must reach to be looked at */
        if (b->held[r] == s->k) least = list[s->k - 1].cosine - s->u->bound;
        for (int64_t c = 0; c < columns; c++) {
            int64_t j = column + c;
            if ((double)near[c] < least || s->fold[j] == own || (taken && !taken[j])) continue;
            double cosine = lam_directions_cosine(s->u, i, j);
            if (b->held[r] == s->k && cosine <= list[s->k - 1].cosine) continue;
            insert(list, &b->held[r], s->k, (neighbour){cosine, j});
            if (b->held[r] == s->k) least = list[s->k - 1].cosine - s->u->bound;
        }
    }
}

static int64_t vote(const search *s, const bench *b, const neighbour *list) {
    memset(b->votes, 0, (size_t)s->classes * sizeof *b->votes);
    memset(b->distance, 0, (size_t)s->classes * sizeof *b->distance);
    for (int64_t i = 0; i < s->k; i++) {
        int64_t label = s->label[list[i].row];
        b->votes[label]++;
        b->distance[label] += 1 - list[i].cosine;
    }
    int64_t best = 0;
    for (int64_t c = 1; c < s->classes; c++)
        if (b->votes[c] > b->votes[best] ||
            (b->votes[c] == b->votes[best] && b->distance[c] < b->distance[best]))
            best = c;
    return best;
}

static lam_status classify_strip(void *of, int64_t strip) {
    const search *s = of;
    const bench *b = &s->benches[omp_get_thread_num()];
    const lam_directions *u = s->u;
    int64_t row = strip * LAM_TILE_ROWS;
    int64_t rows = u->rows - row < LAM_TILE_ROWS ? u->rows - row : LAM_TILE_ROWS;
    memset(b->held, 0, LAM_TILE_ROWS * sizeof *b->held);
    for (int64_t column = 0; column < u->rows; column += LAM_TILE_COLUMNS) {
        int64_t left = u->rows - column, columns = left < LAM_TILE_COLUMNS ? left : LAM_TILE_COLUMNS;
        LAM_TRY(lam_gemm_f32(false, true, rows, columns, u->columns, u->rounded + row * u->columns,
                             u->columns, u->rounded + column * u->columns, u->columns, 0.0f, b->tile,
                             LAM_TILE_COLUMNS));
        take_tile(s, b, row, rows, column);
    }
    for (int64_t r = 0; r < rows; r++) s->predicted[row + r] = vote(s, b, b->nearest + r * s->k);
    return LAM_OK;
}

static lam_status check_sizes(const search *s, int64_t folds) {
    int64_t n = s->u->rows, *own = NULL;
    lam_status status = LAM_OK;
    LAM_TRY(lam_alloc_array((void **)&own, folds, sizeof *own));
    for (int64_t i = 0; i < n; i++) own[s->fold[i]]++;
    for (int64_t f = 0; f < folds; f++) {
        int64_t others = n - own[f];
        if (s->taken) {
            others = 0;
            for (int64_t j = 0; j < n; j++) others += s->taken[f * n + j] && s->fold[j] != f;
        }
        LAM_REQUIRE_GOTO(
            others >= s->k || own[f] == 0, done, LAM_ERROR_INPUT,
            "fold %lld has %lld rows to compare with, but %lld neighbours are asked for: lower --knn",
            (long long)f, (long long)others, (long long)s->k);
    }
done:
    lam_free(own);
    return status;
}

static void close_benches(bench *benches, int threads) {
    for (int t = 0; benches && t < threads; t++) {
        lam_free(benches[t].tile);
        lam_free(benches[t].nearest);
        lam_free(benches[t].held);
        lam_free(benches[t].votes);
        lam_free(benches[t].distance);
    }
    lam_free(benches);
}

lam_status lam_knn_classify(const lam_directions *u, const int64_t *label, int64_t classes,
                            const int64_t *fold, int64_t folds, const bool *taken, int64_t k,
                            int64_t *predicted) {
    search s = {u, label, fold, taken, classes, k, predicted, NULL};
    int threads = lam_threads();
    lam_status status = LAM_OK;
    LAM_TRY(check_sizes(&s, folds));
    LAM_TRY_GOTO(lam_alloc_array((void **)&s.benches, threads, sizeof *s.benches), done);
    for (int t = 0; t < threads; t++) {
        bench *b = &s.benches[t];
        LAM_TRY_GOTO(lam_alloc_array((void **)&b->tile, LAM_TILE_ROWS * LAM_TILE_COLUMNS, sizeof *b->tile),
                     done);
        LAM_TRY_GOTO(lam_alloc_array((void **)&b->nearest, LAM_TILE_ROWS * k, sizeof *b->nearest), done);
        LAM_TRY_GOTO(lam_alloc_array((void **)&b->held, LAM_TILE_ROWS, sizeof *b->held), done);
        LAM_TRY_GOTO(lam_alloc_array((void **)&b->votes, classes, sizeof *b->votes), done);
        LAM_TRY_GOTO(lam_alloc_array((void **)&b->distance, classes, sizeof *b->distance), done);
    }
    status =
        lam_jobs_run(&(lam_jobs){0}, (u->rows + LAM_TILE_ROWS - 1) / LAM_TILE_ROWS, 1, classify_strip, &s);
done:
    close_benches(s.benches, threads);
    return status;
}
