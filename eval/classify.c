#include "eval/classify.h"

#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "eval/knn.h"
#include "eval/logistic.h"
#include "eval/standardise.h"

void lam_linear_free(lam_linear *linear) {
    lam_free(linear->mean);
    lam_free(linear->scale);
    lam_free(linear->coefficients);
    memset(linear, 0, sizeof *linear);
}

lam_status lam_balanced_accuracy(const int64_t *label, const int64_t *predicted, int64_t n, int64_t classes,
                                 double *balanced, double *plain) {
    int64_t *right = NULL, all_right = 0, present = 0;
    LAM_TRY(lam_alloc_array((void **)&right, 2 * classes, sizeof *right));
    for (int64_t i = 0; i < n; i++) {
        right[classes + label[i]]++;
        right[label[i]] += predicted[i] == label[i];
        all_right += predicted[i] == label[i];
    }
    double sum = 0;
    for (int64_t k = 0; k < classes; k++)
        if (right[classes + k]) sum += (double)right[k] / (double)right[classes + k], present++;
    *balanced = present ? sum / (double)present : (double)NAN;
    *plain = n ? (double)all_right / (double)n : (double)NAN;
    lam_free(right);
    return LAM_OK;
}

/* ---- logistic regression ---- */

/* What a fit works with: room for the n rows of the design. */
typedef struct rows_of {
    int64_t *train, *test, n_train, n_test;
    int64_t *label; /* of the rows being fitted */
    double *weight;
    int64_t *guess, *truth;
} rows_of;

static void close_rows(rows_of *r) {
    lam_free(r->train);
    lam_free(r->test);
    lam_free(r->label);
    lam_free(r->weight);
    lam_free(r->guess);
    lam_free(r->truth);
}

static lam_status open_rows(rows_of *r, int64_t n) {
    memset(r, 0, sizeof *r);
    LAM_TRY(lam_alloc_array((void **)&r->train, n, sizeof *r->train));
    LAM_TRY(lam_alloc_array((void **)&r->test, n, sizeof *r->test));
    LAM_TRY(lam_alloc_array((void **)&r->label, n, sizeof *r->label));
    LAM_TRY(lam_alloc_array((void **)&r->weight, n, sizeof *r->weight));
    LAM_TRY(lam_alloc_array((void **)&r->guess, n, sizeof *r->guess));
    return lam_alloc_array((void **)&r->truth, n, sizeof *r->truth);
}

/* scikit-learn's class_weight="balanced": n / (classes present * rows of the class). */
static lam_status weigh(const lam_design *design, bool balanced, const int64_t *rows, int64_t n, rows_of *r) {
    int64_t *counts, seen = 0;
    LAM_TRY(lam_alloc_array((void **)&counts, design->classes, sizeof *counts));
    for (int64_t i = 0; i < n; i++) counts[r->label[i] = design->label[rows[i]]]++;
    for (int64_t k = 0; k < design->classes; k++) seen += counts[k] > 0;
    for (int64_t i = 0; i < n; i++)
        r->weight[i] = balanced ? (double)n / ((double)seen * (double)counts[r->label[i]]) : 1;
    lam_free(counts);
    return LAM_OK;
}

/* The mean balanced accuracy of each C over the inner folds. */
static lam_status choose(const lam_design *design, const double *x, int64_t d, const lam_classifier *model,
                         int64_t f, rows_of *r, lam_linear *linear, double *best_c) {
    int64_t *inner = NULL, *fit = NULL, *held = NULL, folds, classes = design->classes;
    double *sums = NULL;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_alloc_array((void **)&inner, r->n_train, sizeof *inner), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&fit, r->n_train, sizeof *fit), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&held, r->n_train, sizeof *held), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&sums, model->c_count, sizeof *sums), done);
    LAM_TRY_GOTO(lam_design_inner(design, f, r->train, r->n_train, inner, &folds), done);
    for (int64_t k = 0; k < folds; k++) {
        int64_t n_fit = 0, n_held = 0;
        for (int64_t i = 0; i < r->n_train; i++) {
            if (inner[i] == k)
                held[n_held++] = r->train[i];
            else
                fit[n_fit++] = r->train[i];
        }
        for (int64_t i = 0; i < n_held; i++) r->truth[i] = design->label[held[i]];
        lam_standardise_fit(x, d, fit, n_fit, linear->mean, linear->scale);
        LAM_TRY_GOTO(weigh(design, model->balanced, fit, n_fit, r), done);
        lam_standardised fitted = {x, d, fit, n_fit, linear->mean, linear->scale},
                         seen_not = {x, d, held, n_held, linear->mean, linear->scale};
        memset(linear->coefficients, 0, (size_t)(classes * (d + 1)) * sizeof(double));
        for (int64_t i = 0; i < model->c_count; i++) { /* each starts from the solution before */
            double balanced, plain;
            LAM_TRY_GOTO(
                lam_logistic_fit(&fitted, r->label, r->weight, classes, model->c[i], linear->coefficients),
                done);
            LAM_TRY_GOTO(lam_logistic_predict(&seen_not, linear->coefficients, classes, r->guess), done);
            LAM_TRY_GOTO(lam_balanced_accuracy(r->truth, r->guess, n_held, classes, &balanced, &plain), done);
            sums[i] += balanced;
        }
    }
    int64_t best = 0;
    for (int64_t i = 1; i < model->c_count; i++)
        if (sums[i] > sums[best] + 1e-12) best = i;
    *best_c = model->c[best];
done:
    lam_free(inner);
    lam_free(fit);
    lam_free(held);
    lam_free(sums);
    return status;
}

static lam_status fit_rows(const lam_design *design, const double *x, int64_t d, const lam_classifier *model,
                           int64_t f, rows_of *r, lam_linear *out) {
    int64_t classes = design->classes;
    LAM_TRY(lam_alloc_array((void **)&out->mean, d, sizeof(double)));
    LAM_TRY(lam_alloc_array((void **)&out->scale, d, sizeof(double)));
    LAM_TRY(lam_alloc_array((void **)&out->coefficients, classes * (d + 1), sizeof(double)));
    out->c = model->c[0];
    if (model->c_count > 1) LAM_TRY(choose(design, x, d, model, f, r, out, &out->c));
    lam_standardise_fit(x, d, r->train, r->n_train, out->mean, out->scale);
    LAM_TRY(weigh(design, model->balanced, r->train, r->n_train, r));
    lam_standardised rows = {x, d, r->train, r->n_train, out->mean, out->scale};
    memset(out->coefficients, 0, (size_t)(classes * (d + 1)) * sizeof(double));
    return lam_logistic_fit(&rows, r->label, r->weight, classes, out->c, out->coefficients);
}

lam_status lam_classify_fit(const lam_design *design, const double *x, int64_t d, const lam_classifier *model,
                            double share, int64_t f, lam_linear *out) {
    rows_of r;
    *out = (lam_linear){0};
    lam_status status = open_rows(&r, design->n);
    if (status == LAM_OK) status = lam_design_split(design, f, share, r.train, &r.n_train, r.test, &r.n_test);
    if (status == LAM_OK) status = fit_rows(design, x, d, model, f, &r, out);
    if (status != LAM_OK) lam_linear_free(out);
    close_rows(&r);
    return status;
}

typedef struct work {
    const lam_design *design;
    const double *x;
    int64_t d;
    const lam_classifier *model;
    double share;
    lam_fold_score *scores;
    int64_t *predicted;
} work;

static lam_status fit_fold(void *context, int64_t f) {
    const work *w = context;
    const lam_design *design = w->design;
    lam_fold_score *score = &w->scores[f];
    rows_of r;
    lam_linear linear = {0};
    lam_status status = open_rows(&r, design->n);
    LAM_TRY_GOTO(status, done);
    LAM_TRY_GOTO(lam_design_split(design, f, w->share, r.train, &r.n_train, r.test, &r.n_test), done);
    LAM_TRY_GOTO(fit_rows(design, w->x, w->d, w->model, f, &r, &linear), done);
    lam_standardised test = {w->x, w->d, r.test, r.n_test, linear.mean, linear.scale};
    LAM_TRY_GOTO(lam_logistic_predict(&test, linear.coefficients, design->classes, r.guess), done);
    for (int64_t i = 0; i < r.n_test; i++) {
        r.truth[i] = design->label[r.test[i]];
        w->predicted[r.test[i]] = r.guess[i];
    }
    *score = (lam_fold_score){.setting = linear.c, .n_train = r.n_train, .n_test = r.n_test};
    LAM_TRY_GOTO(
        lam_balanced_accuracy(r.truth, r.guess, r.n_test, design->classes, &score->score, &score->accuracy),
        done);
done:
    lam_linear_free(&linear);
    close_rows(&r);
    return status;
}

/* ---- neighbours ---- */

static lam_status by_neighbours(const work *w) {
    const lam_design *design = w->design;
    lam_directions u = {0};
    bool *taken = NULL;
    rows_of r;
    lam_status status = open_rows(&r, design->n);
    LAM_TRY_GOTO(status, done);
    LAM_TRY_GOTO(lam_directions_make(&u, w->x, design->n, w->d), done);
    if (w->share < 1)
        LAM_TRY_GOTO(lam_alloc_array((void **)&taken, design->folds * design->n, sizeof *taken), done);
    for (int64_t f = 0; f < design->folds; f++) {
        LAM_TRY_GOTO(lam_design_split(design, f, w->share, r.train, &r.n_train, r.test, &r.n_test), done);
        w->scores[f] = (lam_fold_score){
            .setting = (double)w->model->neighbours, .n_train = r.n_train, .n_test = r.n_test};
        for (int64_t i = 0; taken && i < r.n_train; i++) taken[f * design->n + r.train[i]] = true;
    }
    LAM_TRY_GOTO(lam_knn_classify(&u, design->label, design->classes, design->fold, design->folds, taken,
                                  w->model->neighbours, w->predicted),
                 done);
    for (int64_t f = 0; f < design->folds; f++) {
        int64_t n = 0;
        for (int64_t i = 0; i < design->n; i++)
            if (design->fold[i] == f) r.truth[n] = design->label[i], r.guess[n++] = w->predicted[i];
        LAM_TRY_GOTO(lam_balanced_accuracy(r.truth, r.guess, n, design->classes, &w->scores[f].score,
                                           &w->scores[f].accuracy),
                     done);
    }
done:
    lam_free(taken);
    lam_directions_free(&u);
    close_rows(&r);
    return status;
}

lam_status lam_classify(const lam_design *design, const double *x, int64_t d, const lam_classifier *model,
                        double share, lam_jobs *jobs, lam_fold_score *scores, int64_t *predicted) {
    work w = {design, x, d, model, share, scores, predicted};
    if (model->neighbours == 0)
        return lam_jobs_run(jobs, design->folds, lam_logistic_pieces(design->n), fit_fold, &w);
    LAM_TRY(by_neighbours(&w));
    jobs->done += design->folds;
    lam_progress_update(jobs->progress, jobs->done, NULL);
    return LAM_OK;
}
