#include "eval/regress.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "eval/ridge.h"

void lam_regression_free(lam_regression *r) {
    lam_free(r->sse);
    lam_free(r->total);
    lam_free(r->alpha);
    lam_free(r->n_train);
    lam_free(r->n_test);
    memset(r, 0, sizeof *r);
}

/* ---- patterns: targets that miss the same rows ---- */

typedef struct pattern {
    int64_t *members, count; /* members: borrowed */
    double *y;               /* [n, count] */
    bool *used;              /* [n] */
} pattern;

static bool same_rows(const lam_targets *t, int64_t a, int64_t b) {
    for (int64_t i = 0; i < t->n; i++)
        if (isnan(t->y[i * t->count + a]) != isnan(t->y[i * t->count + b])) return false;
    return true;
}

/* of [count]: the pattern of each target, numbered in the order of their first targets. A hash of the missing rows spares
 * most comparisons row by row. */
static lam_status find_patterns(const lam_targets *t, int64_t *of, int64_t *patterns) {
    int64_t *first = NULL;
    uint64_t *hash = NULL;
    lam_status status = LAM_OK;
    *patterns = 0;
    LAM_TRY_GOTO(lam_alloc_array((void **)&first, t->count, sizeof *first), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&hash, t->count, sizeof *hash), done);
    for (int64_t i = 0; i < t->n; i++)
        for (int64_t c = 0; c < t->count; c++)
            if (isnan(t->y[i * t->count + c])) hash[c] += (uint64_t)(i + 1) * (uint64_t)(i + 1) * 2654435761u;
    for (int64_t c = 0; c < t->count; c++) {
        int64_t p = 0;
        while (p < *patterns && (hash[first[p]] != hash[c] || !same_rows(t, first[p], c))) p++;
        if (p == *patterns) first[(*patterns)++] = c;
        of[c] = p;
    }
done:
    lam_free(first);
    lam_free(hash);
    return status;
}

lam_status lam_regress_jobs(const lam_design *design, const lam_targets *targets, int64_t *jobs) {
    int64_t *of, patterns;
    LAM_TRY(lam_alloc_array((void **)&of, targets->count, sizeof *of));
    lam_status status = find_patterns(targets, of, &patterns);
    *jobs = patterns * design->folds;
    lam_free(of);
    return status;
}

static void close_pattern(pattern *p) {
    lam_free(p->members);
    lam_free(p->y);
    lam_free(p->used);
    memset(p, 0, sizeof *p);
}

static lam_status open_pattern(pattern *p, const lam_targets *t, const int64_t *of, int64_t number) {
    memset(p, 0, sizeof *p);
    LAM_TRY(lam_alloc_array((void **)&p->members, t->count, sizeof *p->members));
    for (int64_t c = 0; c < t->count; c++)
        if (of[c] == number) p->members[p->count++] = c;
    LAM_TRY(lam_alloc_array((void **)&p->used, t->n, sizeof *p->used));
    LAM_TRY(lam_alloc_array((void **)&p->y, t->n * p->count, sizeof *p->y));
    for (int64_t i = 0; i < t->n; i++) {
        p->used[i] = !isnan(t->y[i * t->count + p->members[0]]);
        for (int64_t c = 0; c < p->count; c++) p->y[i * p->count + c] = t->y[i * t->count + p->members[c]];
    }
    return LAM_OK;
}

/* ---- a fold ---- */

typedef struct work {
    lam_design design; /* with the rows of the pattern */
    const double *x, *alpha;
    int64_t d, alphas, targets;
    const pattern *p;
    double share;
    lam_regression *out;
} work;

/* Decomposes the rows `fit` and sums errors over the rows `held`, for alpha [count, targets of the pattern]. */
static lam_status try_alphas(const work *w, const int64_t *fit, int64_t n_fit, const int64_t *held,
                             int64_t n_held, const double *alpha, int64_t count, double *sse) {
    double *mean = NULL, *scale = NULL;
    lam_ridge ridge = {0};
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_alloc_array((void **)&mean, w->d, sizeof *mean), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&scale, w->d, sizeof *scale), done);
    lam_standardise_fit(w->x, w->d, fit, n_fit, mean, scale);
    lam_standardised fitted = {w->x, w->d, fit, n_fit, mean, scale},
                     others = {w->x, w->d, held, n_held, mean, scale};
    LAM_TRY_GOTO(lam_ridge_decompose(&ridge, &fitted, w->p->y, w->p->count), done);
    LAM_TRY_GOTO(lam_ridge_errors(&ridge, &others, w->p->y, alpha, count, sse), done);
done:
    lam_ridge_free(&ridge);
    lam_free(mean);
    lam_free(scale);
    return status;
}

/* chosen [targets of the pattern] */
static lam_status choose(const work *w, int64_t f, const int64_t *train, int64_t n_train, double *chosen) {
    int64_t *inner = NULL, *fit = NULL, *held = NULL, folds, t = w->p->count;
    double *grid = NULL, *sse = NULL, *total = NULL, *sums = NULL;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_alloc_array((void **)&inner, n_train, sizeof *inner), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&fit, n_train, sizeof *fit), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&held, n_train, sizeof *held), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&grid, w->alphas * t, sizeof *grid), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&sse, w->alphas * t, sizeof *sse), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&sums, w->alphas * t, sizeof *sums), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&total, t, sizeof *total), done);
    for (int64_t i = 0; i < w->alphas * t; i++) grid[i] = w->alpha[i / t];
    LAM_TRY_GOTO(lam_design_inner(&w->design, f, train, n_train, inner, &folds), done);
    for (int64_t k = 0; k < folds; k++) {
        int64_t n_fit = 0, n_held = 0;
        for (int64_t i = 0; i < n_train; i++) {
            if (inner[i] == k)
                held[n_held++] = train[i];
            else
                fit[n_fit++] = train[i];
        }
        LAM_TRY_GOTO(try_alphas(w, fit, n_fit, held, n_held, grid, w->alphas, sse), done);
        LAM_TRY_GOTO(lam_ridge_totals(w->p->y, t, held, n_held, total), done);
        for (int64_t i = 0; i < w->alphas * t; i++)
            if (total[i % t] > 0) sums[i] -= sse[i] / total[i % t];
    }
    for (int64_t c = 0; c < t; c++) {
        int64_t best = w->alphas - 1;
        for (int64_t a = best - 1; a >= 0; a--)
            if (sums[a * t + c] > sums[best * t + c] + 1e-12) best = a;
        chosen[c] = w->alpha[best];
    }
done:
    lam_free(inner);
    lam_free(fit);
    lam_free(held);
    lam_free(grid);
    lam_free(sse);
    lam_free(sums);
    lam_free(total);
    return status;
}

static lam_status fit_fold(void *context, int64_t f) {
    const work *w = context;
    int64_t *train = NULL, *test = NULL, n_train, n_test, t = w->p->count;
    double *alpha = NULL, *sse = NULL, *total = NULL;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_alloc_array((void **)&train, w->design.n, sizeof *train), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&test, w->design.n, sizeof *test), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&alpha, t, sizeof *alpha), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&sse, t, sizeof *sse), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&total, t, sizeof *total), done);
    LAM_TRY_GOTO(lam_design_split(&w->design, f, w->share, train, &n_train, test, &n_test), done);
    LAM_REQUIRE_GOTO(n_train >= 2, done, LAM_ERROR_INPUT,
                     "fold %lld leaves %lld rows with a value to train on: 2 are needed", (long long)f,
                     (long long)n_train);
    for (int64_t c = 0; c < t; c++) alpha[c] = w->alpha[0];
    if (w->alphas > 1) LAM_TRY_GOTO(choose(w, f, train, n_train, alpha), done);
    LAM_TRY_GOTO(try_alphas(w, train, n_train, test, n_test, alpha, 1, sse), done);
    LAM_TRY_GOTO(lam_ridge_totals(w->p->y, t, test, n_test, total), done);
    for (int64_t c = 0; c < t; c++) {
        int64_t at = f * w->targets + w->p->members[c];
        w->out->sse[at] = sse[c];
        w->out->total[at] = total[c];
        w->out->alpha[at] = alpha[c];
        w->out->n_train[at] = n_train;
        w->out->n_test[at] = n_test;
    }
done:
    lam_free(train);
    lam_free(test);
    lam_free(alpha);
    lam_free(sse);
    lam_free(total);
    return status;
}

lam_status lam_regress(const lam_design *design, const double *x, int64_t d, const lam_targets *targets,
                       const double *alpha, int64_t alphas, double share, lam_jobs *jobs,
                       lam_regression *out) {
    int64_t *of = NULL, patterns = 0, size = design->folds * targets->count;
    lam_status status = LAM_OK;
    memset(out, 0, sizeof *out);
    LAM_TRY_GOTO(lam_alloc_array((void **)&out->sse, size, sizeof(double)), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&out->total, size, sizeof(double)), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&out->alpha, size, sizeof(double)), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&out->n_train, size, sizeof(int64_t)), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&out->n_test, size, sizeof(int64_t)), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&of, targets->count, sizeof *of), done);
    LAM_TRY_GOTO(find_patterns(targets, of, &patterns), done);
    for (int64_t i = 0; i < patterns && status == LAM_OK; i++) {
        pattern p;
        status = open_pattern(&p, targets, of, i);
        if (status == LAM_OK) {
            work w = {*design, x, alpha, d, alphas, targets->count, &p, share, out};
            w.design.used = p.used;
            /* A job uses one thread: what BLAS and LAPACK round then is the same on any number. */
            status = lam_jobs_run(jobs, design->folds, 1, fit_fold, &w);
        }
        close_pattern(&p);
    }
done:
    lam_free(of);
    return status;
}
