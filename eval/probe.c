/* `lamella probe`: what a simple model reads out of embeddings, in folds that keep groups whole. */
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/embeddings.h"
#include "base/files.h"
#include "base/log.h"
#include "base/memory.h"
#include "eval/commands.h"
#include "eval/probe_parts.h"

/* ---- what was asked for ---- */

static int rising(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Distinct numbers above 0 and at most `largest`, separated by commas; sorted. */
static lam_status read_numbers(const lam_arguments *arguments, const char *option, double largest,
                               double **out, int64_t *count) {
    const char *text = lam_option_text(arguments, option);
    int64_t room = 1;
    for (const char *p = text; *p; p++) room += *p == ',';
    LAM_TRY(lam_alloc_array((void **)out, room, sizeof **out));
    bool good = true;
    for (const char *p = text; good; p++) {
        char *end;
        double value = strtod(p, &end);
        good = end != p && (*end == ',' || *end == 0) && *p != ' ' && value > 0 && value <= largest;
        if (good) (*out)[(*count)++] = value;
        p = end;
        if (*end == 0) break;
    }
    qsort(*out, (size_t)*count, sizeof **out, rising);
    for (int64_t i = 1; i < *count; i++) good = good && (*out)[i] > (*out)[i - 1];
    LAM_REQUIRE(good, LAM_ERROR_USAGE,
                "probe: --%s is '%s': different numbers above 0, at most %g, separated by commas are needed",
                option, text, largest);
    return LAM_OK;
}

static lam_status check_options(const lam_arguments *a) {
    bool knn = lam_option_given(a, "knn"), ridge = lam_option_flag(a, "ridge");
    LAM_REQUIRE(!knn || !ridge, LAM_ERROR_USAGE, "probe: --knn and --ridge are two models: give one");
    static const char *const of_logistic[] = {"c", "class-weight"};
    for (size_t i = 0; i < 2; i++)
        LAM_REQUIRE(!(knn || ridge) || !lam_option_given(a, of_logistic[i]), LAM_ERROR_USAGE,
                    "probe: --%s is of logistic regression: leave it out with --%s", of_logistic[i],
                    knn ? "knn" : "ridge");
    LAM_REQUIRE(ridge || !lam_option_given(a, "alpha"), LAM_ERROR_USAGE, "probe: --alpha is of --ridge");
    LAM_REQUIRE(!lam_option_given(a, "blocks") || !lam_option_given(a, "key"), LAM_ERROR_USAGE,
                "probe: --blocks and --key both name matrices: give one");
    LAM_REQUIRE(lam_option_given(a, "group") || !lam_option_flag(a, "leave-one-group-out"), LAM_ERROR_USAGE,
                "probe: --leave-one-group-out needs --group COLUMN");
    LAM_REQUIRE(!lam_option_given(a, "folds") || !lam_option_flag(a, "leave-one-group-out"), LAM_ERROR_USAGE,
                "probe: --folds and --leave-one-group-out both say how many folds there are: give one");
    return LAM_OK;
}

static lam_status read_settings(const lam_arguments *a, lam_probe_settings *s) {
    LAM_TRY(check_options(a));
    s->path = lam_positional(a, 0);
    s->label = lam_option_text(a, "label");
    s->group = lam_option_text(a, "group");
    s->ridge = lam_option_flag(a, "ridge");
    s->leave_one_out = lam_option_flag(a, "leave-one-group-out");
    LAM_TRY(read_numbers(a, "c", 1e12, &s->c, &s->c_count));
    LAM_TRY(read_numbers(a, "alpha", 1e15, &s->alpha, &s->alpha_count));
    if (lam_option_given(a, "learning-curve"))
        LAM_TRY(read_numbers(a, "learning-curve", 1, &s->shares, &s->share_count));
    bool several = s->ridge ? s->alpha_count > 1 : !lam_option_given(a, "knn") && s->c_count > 1;
    LAM_REQUIRE(several || !lam_option_given(a, "inner-folds"), LAM_ERROR_USAGE,
                "probe: --inner-folds chooses between several values of --c or --alpha: none are given");
    s->classifier = (lam_classifier){.neighbours = lam_option_int(a, "knn"),
                                     .c = s->c,
                                     .c_count = s->c_count,
                                     .balanced = !strcmp(lam_option_text(a, "class-weight"), "balanced")};
    return LAM_OK;
}

static void close_settings(lam_probe_settings *s) {
    lam_free(s->c);
    lam_free(s->alpha);
    lam_free(s->shares);
}

/* ---- scores ---- */

static lam_status score_regression(const lam_probe_rows *r, const lam_regression *g, lam_fold_score *scores) {
    int64_t targets = r->targets.count;
    double *r2 = NULL;
    LAM_TRY(lam_alloc_array((void **)&r2, targets, sizeof *r2));
    lam_status status = LAM_OK;
    for (int64_t f = 0; f < r->design.folds && status == LAM_OK; f++) {
        scores[f] = (lam_fold_score){.accuracy = (double)NAN};
        for (int64_t c = 0; c < targets; c++) {
            int64_t at = f * targets + c;
            r2[c] = g->total[at] > 0 ? 1 - g->sse[at] / g->total[at] : (double)NAN;
            if (g->n_train[at] > scores[f].n_train) scores[f].n_train = g->n_train[at];
            if (g->n_test[at] > scores[f].n_test) scores[f].n_test = g->n_test[at];
        }
        status = lam_probe_median(r2, targets, &scores[f].score);
        if (status == LAM_OK) status = lam_probe_median(g->alpha + f * targets, targets, &scores[f].setting);
    }
    lam_free(r2);
    return status;
}

/* One share of the training parts. predicted and regression: room for them, and of the last call. */
static lam_status score_share(const lam_probe_settings *s, const lam_probe_rows *r, const double *x,
                              int64_t d, double share, lam_jobs *jobs, lam_fold_score *scores,
                              int64_t *predicted, lam_regression *regression) {
    if (!s->ridge) return lam_classify(&r->design, x, d, &s->classifier, share, jobs, scores, predicted);
    LAM_TRY(lam_regress(&r->design, x, d, &r->targets, s->alpha, s->alpha_count, share, jobs, regression));
    return score_regression(r, regression, scores);
}

static lam_status score_block(const lam_probe_settings *s, const lam_probe_rows *r, const double *x,
                              int64_t d, lam_jobs *jobs, lam_probe_outcome *o) {
    int64_t folds = r->design.folds, *unused = NULL;
    lam_status status = LAM_OK;
    o->columns = d;
    LAM_TRY(lam_alloc_array((void **)&o->scores, folds, sizeof *o->scores));
    LAM_TRY(lam_alloc_array((void **)&o->predicted, r->design.n, sizeof *o->predicted));
    LAM_TRY(lam_alloc_array((void **)&o->curve, s->share_count * folds, sizeof *o->curve));
    LAM_TRY(score_share(s, r, x, d, 1, jobs, o->scores, o->predicted, &o->regression));
    LAM_TRY(lam_alloc_array((void **)&unused, r->design.n, sizeof *unused));
    for (int64_t i = 0; i < s->share_count && status == LAM_OK; i++) {
        lam_regression regression = {0};
        if (s->shares[i] < 1)
            status = score_share(s, r, x, d, s->shares[i], jobs, o->curve + i * folds, unused, &regression);
        else
            memcpy(o->curve + i * folds, o->scores, (size_t)folds * sizeof *o->scores);
        lam_regression_free(&regression);
    }
    lam_free(unused);
    return status;
}

static lam_status score_all(lam_probe_blocks *b, const lam_arguments *arguments, const lam_probe_settings *s,
                            const lam_probe_rows *r, lam_probe_outcome *outcomes) {
    int64_t jobs_each = r->design.folds, runs = 1;
    for (int64_t i = 0; i < s->share_count; i++) runs += s->shares[i] < 1;
    if (s->ridge) LAM_TRY(lam_regress_jobs(&r->design, &r->targets, &jobs_each));
    lam_jobs jobs = {.progress = lam_progress_start("probe", b->count * runs * jobs_each, "folds")};
    lam_status status = LAM_OK;
    for (int64_t i = 0; i < b->count && status == LAM_OK; i++) {
        outcomes[i].block = b->names ? b->names[i] : lam_option_text(arguments, "key");
        if (!outcomes[i].block) outcomes[i].block = "X";
        status = lam_probe_block_read(b, arguments, i);
        if (status != LAM_OK) break;
        int64_t d = b->e->columns;
        for (int64_t k = 0; k < r->design.n; k++)
            memmove(b->e->values + k * d, b->e->values + b->rows[k] * d, (size_t)d * sizeof(double));
        status = score_block(s, r, b->e->values, d, &jobs, &outcomes[i]);
    }
    lam_progress_finish(jobs.progress);
    return status;
}

/* ---- the command ---- */

static lam_status tell(const lam_arguments *arguments, const lam_probe_settings *s, const lam_probe_rows *r,
                       const lam_probe_outcome *outcomes, int64_t count) {
    bool sweep = lam_option_given(arguments, "blocks");
    int64_t best = 0;
    double highest = (double)NAN, mean, deviation;
    for (int64_t i = 0; i < count; i++) {
        lam_probe_summary(outcomes[i].scores, r->design.folds, &mean, &deviation);
        if (mean > highest || (isnan(highest) && !isnan(mean))) highest = mean, best = i;
    }
    LAM_TRY(lam_probe_write(lam_option_text(arguments, "out"), s, r, outcomes, count, sweep, best));
    if (s->ridge) {
        LAM_TRY(lam_probe_median_r2(r, &outcomes[best], &highest));
        lam_log_info("probe: R^2 %.4f over %lld folds, %lld rows, median of %lld columns", highest,
                     (long long)r->design.folds, (long long)r->design.n, (long long)r->targets.count);
    } else
        lam_log_info("probe: balanced accuracy %.4f over %lld folds, %lld rows, %lld classes", highest,
                     (long long)r->design.folds, (long long)r->design.n, (long long)r->design.classes);
    if (sweep)
        lam_log_info("probe: best of %lld blocks: %s; chosen on these folds, so its score is a little high",
                     (long long)count, outcomes[best].block);
    return lam_option_json(arguments) ? lam_probe_print(s, r, outcomes, count, sweep, best) : LAM_OK;
}

static lam_status probe(const lam_arguments *arguments, const lam_probe_settings *s) {
    lam_probe_blocks b = {.count = 1};
    lam_probe_rows r = {0};
    lam_probe_outcome *outcomes = NULL;
    const char *glob = lam_option_text(arguments, "blocks");
    lam_status status = LAM_OK;
    if (glob) LAM_TRY(lam_embeddings_matrices(s->path, glob, &b.names, &b.count));
    LAM_TRY_GOTO(lam_alloc_array((void **)&outcomes, b.count, sizeof *outcomes), done);
    LAM_TRY_GOTO(lam_probe_rows_choose(&b, arguments, s, &r), done);
    LAM_TRY_GOTO(score_all(&b, arguments, s, &r, outcomes), done);
    LAM_TRY_GOTO(tell(arguments, s, &r, outcomes, b.count), done);
done:
    for (int64_t i = 0; outcomes && i < b.count; i++) {
        lam_free(outcomes[i].scores);
        lam_free(outcomes[i].curve);
        lam_free(outcomes[i].predicted);
        lam_regression_free(&outcomes[i].regression);
    }
    lam_free(outcomes);
    lam_probe_rows_close(&r);
    lam_probe_blocks_close(&b);
    return status;
}

static lam_status run(const lam_arguments *arguments) {
    lam_probe_settings s = {0};
    lam_status status = read_settings(arguments, &s);
    if (status == LAM_OK)
        status = lam_require_new_folder(lam_option_text(arguments, "out"), lam_option_force(arguments));
    if (status == LAM_OK) status = probe(arguments, &s);
    close_settings(&s);
    return status;
}

static const lam_option options[] = {
    {"label", LAM_OPTION_TEXT, "COLUMN", NULL,
     "what is predicted (--ridge: a numeric column or a glob of them); rows where it is empty are left out",
     0, 0, true},
    {"out", LAM_OPTION_TEXT, "DIR", NULL,
     "folder for scores.csv, confusion.csv or ridge.csv, blocks.csv, curve.csv", 0, 0, true},
    {"group", LAM_OPTION_TEXT, "COLUMN", NULL, "rows of one value stay on one side of a fold", 0, 0, false},
    {"leave-one-group-out", LAM_OPTION_FLAG, NULL, NULL, "a fold for each group", 0, 0, false},
    {"folds", LAM_OPTION_INT, "K", "5", "stratified folds (default: fewer where there are fewer groups)", 2,
     1000, false},
    {"c", LAM_OPTION_TEXT, "C[,C...]", "1",
     "weight of the data against the L2 penalty, as scikit-learn's C; of several the best on inner folds", 0,
     0, false},
    {"class-weight", LAM_OPTION_CHOICE, "none|balanced", "balanced", "balanced: every class counts the same",
     0, 0, false},
    {"knn", LAM_OPTION_INT, "K", NULL, "K nearest neighbours by cosine in place of logistic regression", 1,
     100000, false},
    {"ridge", LAM_OPTION_FLAG, NULL, NULL, "ridge regression of numbers: R^2 of each column", 0, 0, false},
    {"alpha", LAM_OPTION_TEXT, "A[,A...]", "0.1,1,10,100,1000,10000,100000",
     "penalty of --ridge; of several the best on inner folds, for each column", 0, 0, false},
    {"inner-folds", LAM_OPTION_INT, "K", "3",
     "folds within a training part (groups kept whole) that choose between several --c or --alpha", 2, 1000,
     false},
    {"learning-curve", LAM_OPTION_TEXT, "SHARE[,SHARE...]", NULL,
     "also train on these shares of each training part (of its groups where --group is given)", 0, 0, false},
    {"blocks", LAM_OPTION_TEXT, "GLOB", NULL, "score each matrix of obsm that matches and name the best", 0,
     0, false},
    {"seed", LAM_OPTION_INT, "N", "0", "of the folds", 0, 9e15, false},
    {"key", LAM_OPTION_TEXT, "NAME", NULL, "matrix of the .h5ad: X (default), a layer or an obsm", 0, 0,
     false},
    {"features", LAM_OPTION_TEXT, "GLOB", NULL,
     "columns of a table that are features (default: d0, d1, ..., else every numeric one)", 0, 0, false},
    {0}};

const lam_command lam_command_probe = {
    "probe",
    "logistic regression, neighbours or ridge regression on embeddings, in grouped folds",
    "EMB",
    1,
    1,
    options,
    "lamella probe embeddings.h5ad --label gene --group plate --out probe\n"
    "lamella probe embeddings.h5ad --label gene --c 0.01,0.1,1 --learning-curve 0.1,0.5,1 --out curve",
    run};
