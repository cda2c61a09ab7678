#include "eval/batch_left.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/rng.h"
#include "base/threads.h"
#include "eval/linalg.h"

#define MAX_ROWS 10000
#define SHRINKAGE 0.1
#define NO_VARIATION 1e-12 /* of the largest deviation: what rounding leaves of a column that was taken off */
#define TILE 64            /* columns that one thread takes at a time */
enum { FOLDS = 5 };

typedef struct chosen {
    int64_t row, batch, fold;
    uint64_t key;
} chosen;

/* What the folds share; rows lie fold by fold. */
typedef struct study {
    int64_t n, d, classes, start[FOLDS + 1];
    double *z;      /* [n, d] */
    int64_t *label; /* [n] */
    double *gram;   /* [FOLDS, d, d] z^T z of each fold, then of all the others */
    int64_t *right; /* [FOLDS, classes] */
} study;

static int by_batch_then_key(const void *a, const void *b) {
    const chosen *x = a, *y = b;
    if (x->batch != y->batch) return x->batch < y->batch ? -1 : 1;
    return (x->key > y->key) - (x->key < y->key);
}

static int by_fold_then_row(const void *a, const void *b) {
    const chosen *x = a, *y = b;
    if (x->fold != y->fold) return x->fold < y->fold ? -1 : 1;
    return (x->row > y->row) - (x->row < y->row);
}

/* The rows that are told apart, by fold; labels become dense. */
static int64_t choose(chosen *rows, int64_t n, int64_t batches, int64_t *classes) {
    int64_t most = MAX_ROWS / batches > FOLDS ? MAX_ROWS / batches : FOLDS, kept = 0;
    qsort(rows, (size_t)n, sizeof *rows, by_batch_then_key);
    *classes = 0;
    for (int64_t from = 0, to = 0; from < n; from = to) {
        while (to < n && rows[to].batch == rows[from].batch) to++;
        if (to - from < 2) continue;
        for (int64_t i = from; i < to && i < from + most; i++) {
            rows[kept] = rows[i];
            rows[kept].batch = *classes;
            rows[kept++].fold = (i - from) % FOLDS;
        }
        ++*classes;
    }
    qsort(rows, (size_t)kept, sizeof *rows, by_fold_then_row);
    return kept;
}

static lam_status standardise(study *s) {
    int64_t n = s->n, d = s->d;
    double *mean, *scale, largest = 0, rounding = 0x1p-52 * (double)n;
    LAM_TRY(lam_alloc_array((void **)&mean, 2 * d, sizeof *mean));
    scale = mean + d;
#pragma omp parallel for schedule(static) num_threads(lam_threads())
    for (int64_t from = 0; from < d; from += TILE) {
        int64_t end = d - from < TILE ? d : from + TILE;
        for (int64_t i = 0; i < n; i++)
            for (int64_t j = from; j < end; j++) mean[j] += s->z[i * d + j] / (double)n;
        for (int64_t i = 0; i < n; i++)
            for (int64_t j = from; j < end; j++)
                scale[j] += (s->z[i * d + j] - mean[j]) * (s->z[i * d + j] - mean[j]) / (double)n;
    }
    for (int64_t j = 0; j < d; j++) largest = fmax(largest, sqrt(scale[j]));
    for (int64_t j = 0; j < d; j++) {
        scale[j] = sqrt(scale[j]);
        if (scale[j] <= fmax(rounding * fabs(mean[j]), NO_VARIATION * largest))
            scale[j] = (double)INFINITY; /* divides to zero */
    }
#pragma omp parallel for schedule(static) num_threads(lam_threads())
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < d; j++) s->z[i * d + j] = (s->z[i * d + j] - mean[j]) / scale[j];
    lam_free(mean);
    return LAM_OK;
}

/* Trains on the other folds, tells the rows of fold f. */
static lam_status tell(study *s, int64_t f) {
    int64_t d = s->d, k = s->classes, from = s->start[f], n = s->start[f + 1] - from;
    double *mean = NULL, *weighted = NULL, *scores = NULL, *covariance = s->gram + f * d * d, trace = 0;
    int64_t *count = NULL;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_alloc_array((void **)&mean, k * d, sizeof *mean), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&weighted, k * d, sizeof *weighted), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&scores, n * k, sizeof *scores), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&count, k, sizeof *count), done);
    for (int64_t i = 0; i < s->n; i++) {
        if (i >= from && i < from + n) continue;
        count[s->label[i]]++;
        for (int64_t j = 0; j < d; j++) mean[s->label[i] * d + j] += s->z[i * d + j];
    }
    for (int64_t c = 0; c < k; c++)
        for (int64_t j = 0; j < d; j++) {
            mean[c * d + j] /= (double)count[c];
            weighted[c * d + j] = -(double)count[c] * mean[c * d + j];
        }
    lam_gemm_f64(true, false, d, d, k, weighted, d, mean, d, 1.0, covariance, d);
    for (int64_t j = 0; j < d; j++) trace += covariance[j * d + j];
    double ridge = SHRINKAGE / (1 - SHRINKAGE) * trace / (double)d; /* a factor on all of S changes nothing */
    for (int64_t j = 0; j < d; j++) covariance[j * d + j] += ridge;
    memcpy(weighted, mean, (size_t)(k * d) * sizeof *mean);
    if (trace >
        1e-12 * (double)(s->n * d)) /* else rows of a batch are all the same: the nearest mean decides */
        LAM_TRY_GOTO(lam_solve_positive(covariance, d, weighted, k), done);
    lam_gemm_f64(false, true, n, k, d, s->z + from * d, d, weighted, d, 0.0, scores, k);
    for (int64_t c = 0; c < k; c++) {
        double half = 0;
        for (int64_t j = 0; j < d; j++) half += 0.5 * mean[c * d + j] * weighted[c * d + j];
        for (int64_t i = 0; i < n; i++) scores[i * k + c] -= half;
    }
    for (int64_t i = 0; i < n; i++) {
        int64_t best = 0;
        for (int64_t c = 1; c < k; c++)
            if (scores[i * k + c] > scores[i * k + best]) best = c;
        s->right[f * k + best] += best == s->label[from + i];
    }
done:
    lam_free(mean);
    lam_free(weighted);
    lam_free(scores);
    lam_free(count);
    return status;
}

/* Folds run at once, each by one thread. */
static lam_status run_folds(study *s) {
    int64_t d = s->d;
    lam_status worst = LAM_OK;
#pragma omp parallel num_threads(lam_threads())
    {
#pragma omp for schedule(dynamic)
        for (int64_t f = 0; f < FOLDS; f++)
            lam_gemm_f64(true, false, d, d, s->start[f + 1] - s->start[f], s->z + s->start[f] * d, d,
                         s->z + s->start[f] * d, d, 0.0, s->gram + f * d * d, d);
#pragma omp for schedule(static)
        for (int64_t j = 0; j < d * d; j++) {
            double all = 0;
            for (int f = 0; f < FOLDS; f++) all += s->gram[f * d * d + j];
            for (int f = 0; f < FOLDS; f++) s->gram[f * d * d + j] = all - s->gram[f * d * d + j];
        }
#pragma omp for schedule(dynamic)
        for (int64_t f = 0; f < FOLDS; f++) {
            lam_status one = tell(s, f);
            if (one != LAM_OK) {
#pragma omp atomic write
                worst = one;
            }
        }
    }
    /* The thread that failed kept its message to itself. */
    LAM_REQUIRE(worst == LAM_OK, worst,
                worst == LAM_ERROR_MEMORY ? "no memory to tell the batches apart"
                                          : "the batches cannot be told apart: a covariance is singular");
    return LAM_OK;
}

lam_status lam_batch_left(const double *x, int64_t rows, int64_t columns, const bool *controls,
                          const int64_t *batch, int64_t batches, lam_batch_score *out) {
    study s = {.d = columns};
    chosen *list = NULL;
    int64_t *total = NULL, n = 0;
    lam_status status = LAM_OK;
    *out = (lam_batch_score){.accuracy = (double)NAN};
    LAM_TRY_GOTO(lam_alloc_array((void **)&list, rows, sizeof *list), done);
    for (int64_t i = 0; i < rows; i++)
        if (!controls || controls[i])
            list[n++] = (chosen){.row = i, .batch = batch[i], .key = lam_mix64((uint64_t)i)};
    s.n = choose(list, n, batches, &s.classes);
    out->rows = s.n;
    out->batches = s.classes;
    if (s.classes < 2) goto done;
    LAM_TRY_GOTO(lam_alloc_array((void **)&s.z, s.n * s.d, sizeof *s.z), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&s.label, s.n, sizeof *s.label), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&s.gram, FOLDS * s.d * s.d, sizeof *s.gram), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&s.right, FOLDS * s.classes, sizeof *s.right), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&total, s.classes, sizeof *total), done);
    for (int64_t i = 0; i < s.n; i++) {
        memcpy(s.z + i * s.d, x + list[i].row * s.d, (size_t)s.d * sizeof *s.z);
        s.label[i] = list[i].batch;
        s.start[list[i].fold + 1] = i + 1;
        total[s.label[i]]++;
    }
    for (int f = 1; f <= FOLDS; f++) /* folds without a row */
        if (s.start[f] < s.start[f - 1]) s.start[f] = s.start[f - 1];
    LAM_TRY_GOTO(standardise(&s), done);
    LAM_TRY_GOTO(run_folds(&s), done);
    out->accuracy = 0;
    for (int64_t c = 0; c < s.classes; c++) {
        int64_t right = 0;
        for (int f = 0; f < FOLDS; f++) right += s.right[f * s.classes + c];
        out->accuracy += (double)right / (double)total[c] / (double)s.classes;
    }
done:
    lam_free(list);
    lam_free(total);
    lam_free(s.z);
    lam_free(s.label);
    lam_free(s.gram);
    lam_free(s.right);
    return status;
}
