#include "eval/logistic.h"

#include <limits.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include <lbfgs.h>

#include "base/memory.h"
#include "base/threads.h"
#include "eval/linalg.h"

#define MAX_ITERATIONS 5000
#define GRADIENT_TOLERANCE 1e-7 /* |g| / max(1, |x|) */
#define MAX_PIECES 16           /* each has a gradient of its own, whatever the number of threads */

typedef struct problem {
    const lam_standardised *rows;
    const double *weight;
    const int64_t *label; /* 0..classes-1, every class with rows */
    int64_t classes, pieces;
    double c, penalty;
    double *blocks;    /* [pieces, LAM_STANDARDISED_BLOCK, d] */
    double *scores;    /* [pieces, LAM_STANDARDISED_BLOCK, classes] */
    double *gradients; /* [pieces, classes, d + 1] */
    double *losses;    /* [pieces] */
} problem;

int64_t lam_logistic_pieces(int64_t n) {
    int64_t blocks = (n + LAM_STANDARDISED_BLOCK - 1) / LAM_STANDARDISED_BLOCK;
    return blocks < MAX_PIECES ? blocks : MAX_PIECES;
}

static void score(const double *x, int64_t n, int64_t d, const double *w, int64_t classes, double *scores) {
    lam_gemm_f64(false, true, n, classes, d, x, d, w, d + 1, 0.0, scores, classes);
    for (int64_t i = 0; i < n; i++)
        for (int64_t k = 0; k < classes; k++) scores[i * classes + k] += w[k * (d + 1) + d];
}

/* scores[i] -> weighted residuals (probability minus target); returns the weighted loss. */
static double residuals(const problem *p, int64_t first, int64_t n, double *scores) {
    double loss = 0;
    for (int64_t i = 0; i < n; i++) {
        double *s = scores + i * p->classes, largest = s[0], sum = 0, weight = p->weight[first + i];
        int64_t label = p->label[first + i];
        for (int64_t k = 1; k < p->classes; k++) largest = fmax(largest, s[k]);
        double own = s[label] - largest;
        for (int64_t k = 0; k < p->classes; k++) sum += s[k] = exp(s[k] - largest);
        loss += weight * (log(sum) - own);
        for (int64_t k = 0; k < p->classes; k++) s[k] = weight * (s[k] / sum - (k == label));
    }
    return loss;
}

static void evaluate_piece(const problem *p, int64_t piece, const double *w) {
    int64_t d = p->rows->d, size = p->classes * (d + 1),
            blocks = (p->rows->n + LAM_STANDARDISED_BLOCK - 1) / LAM_STANDARDISED_BLOCK;
    double *block = p->blocks + piece * LAM_STANDARDISED_BLOCK * d,
           *scores = p->scores + piece * LAM_STANDARDISED_BLOCK * p->classes,
           *g = p->gradients + piece * size;
    memset(g, 0, (size_t)size * sizeof *g);
    p->losses[piece] = 0;
    for (int64_t b = blocks * piece / p->pieces; b < blocks * (piece + 1) / p->pieces; b++) {
        int64_t first = b * LAM_STANDARDISED_BLOCK, left = p->rows->n - first,
                n = left < LAM_STANDARDISED_BLOCK ? left : LAM_STANDARDISED_BLOCK;
        lam_standardised_block(p->rows, first, n, block);
        score(block, n, d, w, p->classes, scores);
        p->losses[piece] += residuals(p, first, n, scores);
        lam_gemm_f64(true, false, p->classes, d, n, scores, p->classes, block, d, 1.0, g, d + 1);
        for (int64_t i = 0; i < n; i++)
            for (int64_t k = 0; k < p->classes; k++) g[k * (d + 1) + d] += scores[i * p->classes + k];
    }
}

static lbfgsfloatval_t evaluate(void *instance, const lbfgsfloatval_t *w, lbfgsfloatval_t *g, const int size,
                                const lbfgsfloatval_t step) {
    (void)step;
    const problem *p = instance;
    /* Inside a parallel region every product runs on one thread, so its rounding is the same for any number. */
#pragma omp parallel for schedule(dynamic, 1) num_threads(lam_threads())
    for (int64_t piece = 0; piece < p->pieces; piece++) evaluate_piece(p, piece, w);
    double value = 0;
    memset(g, 0, (size_t)size * sizeof *g);
    for (int64_t piece = 0; piece < p->pieces; piece++) {
        value += p->losses[piece];
        for (int i = 0; i < size; i++) g[i] += p->gradients[piece * size + i];
    }
    value *= p->c;
    int64_t d = p->rows->d;
    for (int64_t k = 0; k < p->classes; k++)
        for (int64_t j = 0; j <= d; j++) {
            int64_t at = k * (d + 1) + j;
            g[at] *= p->c;
            if (j == d) continue;
            value += 0.5 * p->penalty * w[at] * w[at];
            g[at] += p->penalty * w[at];
        }
    return value;
}

static lam_status minimise(problem *p, lbfgsfloatval_t *w, int size) {
    lam_status status = LAM_OK;
    int64_t d = p->rows->d, block = p->pieces * LAM_STANDARDISED_BLOCK;
    LAM_TRY_GOTO(lam_alloc_array((void **)&p->blocks, block * d, sizeof(double)), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&p->scores, block * p->classes, sizeof(double)), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&p->gradients, p->pieces * size, sizeof(double)), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&p->losses, p->pieces, sizeof(double)), done);
    lbfgs_parameter_t parameters;
    lbfgs_parameter_init(&parameters);
    parameters.m = 10;
    parameters.epsilon = GRADIENT_TOLERANCE;
    parameters.max_iterations = MAX_ITERATIONS;
    parameters.linesearch = LBFGS_LINESEARCH_BACKTRACKING_STRONG_WOLFE;
    int code = lbfgs(size, w, NULL, evaluate, NULL, p, &parameters);
    /* The line search may end at the limit of rounding just before the tolerance; the point is as good as it gets. */
    bool good = code == LBFGS_SUCCESS || code == LBFGS_ALREADY_MINIMIZED || code == LBFGSERR_ROUNDING_ERROR ||
                code == LBFGSERR_MAXIMUMLINESEARCH || code == LBFGSERR_MINIMUMSTEP ||
                code == LBFGSERR_MAXIMUMITERATION;
    LAM_REQUIRE_GOTO(good, done, LAM_ERROR_NUMERIC, "the probe did not converge (liblbfgs: %d)", code);
done:
    lam_free(p->blocks);
    lam_free(p->scores);
    lam_free(p->gradients);
    lam_free(p->losses);
    return status;
}

lam_status lam_logistic_fit(const lam_standardised *rows, const int64_t *label, const double *weight,
                            int64_t classes, double c, double *coefficients) {
    int64_t *code = NULL, *seen = NULL, *dense = NULL, width = rows->d + 1, count = 0;
    lbfgsfloatval_t *w = NULL;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_alloc_array((void **)&code, classes, sizeof *code), done); /* class -> 1 + place in w */
    LAM_TRY_GOTO(lam_alloc_array((void **)&seen, classes, sizeof *seen), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&dense, rows->n, sizeof *dense), done);
    for (int64_t i = 0; i < rows->n; i++) code[label[i]] = 1;
    for (int64_t k = 0; k < classes; k++)
        if (code[k]) seen[count] = k, code[k] = ++count;
    LAM_REQUIRE_GOTO(count <= INT_MAX / width, done, LAM_ERROR_INPUT,
                     "a probe of %lld classes and %lld columns has too many coefficients", (long long)count,
                     (long long)rows->d);
    for (int64_t i = 0; i < rows->n; i++) dense[i] = code[label[i]] - 1;
    w = lbfgs_malloc((int)(count * width));
    LAM_REQUIRE_GOTO(w, done, LAM_ERROR_MEMORY, "out of memory: a probe of %lld coefficients",
                     (long long)(count * width));
    for (int64_t s = 0; s < count; s++)
        for (int64_t j = 0; j < width; j++) {
            double start = coefficients[seen[s] * width + j];
            w[s * width + j] = isfinite(start) ? start : 0;
        }
    problem p = {.rows = rows,
                 .weight = weight,
                 .label = dense,
                 .classes = count,
                 .pieces = lam_logistic_pieces(rows->n),
                 .c = c,
                 .penalty = count == 2 ? 2 : 1};
    if (count > 1) LAM_TRY_GOTO(minimise(&p, w, (int)(count * width)), done);
    memset(coefficients, 0, (size_t)(classes * width) * sizeof *coefficients);
    for (int64_t k = 0; k < classes; k++) {
        if (code[k])
            memcpy(coefficients + k * width, w + (code[k] - 1) * width, (size_t)width * sizeof *w);
        else
            coefficients[k * width + width - 1] = -(double)INFINITY;
    }
done:
    lbfgs_free(w);
    lam_free(code);
    lam_free(seen);
    lam_free(dense);
    return status;
}

static void predict_piece(const lam_standardised *rows, int64_t piece, int64_t pieces, const double *w,
                          int64_t classes, double *block, double *scores, int64_t *predicted) {
    int64_t blocks = (rows->n + LAM_STANDARDISED_BLOCK - 1) / LAM_STANDARDISED_BLOCK;
    for (int64_t b = blocks * piece / pieces; b < blocks * (piece + 1) / pieces; b++) {
        int64_t first = b * LAM_STANDARDISED_BLOCK, left = rows->n - first,
                n = left < LAM_STANDARDISED_BLOCK ? left : LAM_STANDARDISED_BLOCK;
        lam_standardised_block(rows, first, n, block);
        score(block, n, rows->d, w, classes, scores);
        for (int64_t i = 0; i < n; i++) {
            int64_t best = 0;
            for (int64_t k = 1; k < classes; k++)
                if (scores[i * classes + k] > scores[i * classes + best]) best = k;
            predicted[first + i] = best;
        }
    }
}

lam_status lam_logistic_predict(const lam_standardised *rows, const double *coefficients, int64_t classes,
                                int64_t *predicted) {
    int64_t pieces = lam_logistic_pieces(rows->n), size = LAM_STANDARDISED_BLOCK;
    double *blocks = NULL, *scores = NULL;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_alloc_array((void **)&blocks, pieces * size * rows->d, sizeof *blocks), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&scores, pieces * size * classes, sizeof *scores), done);
#pragma omp parallel for schedule(dynamic, 1) num_threads(lam_threads())
    for (int64_t piece = 0; piece < pieces; piece++)
        predict_piece(rows, piece, pieces, coefficients, classes, blocks + piece * size * rows->d,
                      scores + piece * size * classes, predicted);
done:
    lam_free(blocks);
    lam_free(scores);
    return status;
}
