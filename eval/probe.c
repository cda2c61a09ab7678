/* `lamella probe`: what a linear classifier reads out of embeddings. */
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
#include "eval/folds.h"
#include "eval/logistic.h"

typedef struct probe {
    double *x; /* [n, d], borrowed from the embeddings after rows without label are gone */
    int64_t n, d, classes, groups, folds;
    int64_t *label, *group, *fold, *predicted;
    const char **class_names, **group_names;
    double *accuracy; /* [folds] */
    double c;
    bool balanced;
} probe;

/* Mean and deviation of the training rows alone, so that nothing of the test fold is seen. */
static void standardise(const probe *p, int64_t f, double *train, double *test) {
    for (int64_t j = 0; j < p->d; j++) {
        double sum = 0, squares = 0;
        int64_t n = 0, at_train = 0, at_test = 0;
        for (int64_t i = 0; i < p->n; i++)
            if (p->fold[i] != f) sum += p->x[i * p->d + j], n++;
        double mean = sum / (double)n;
        for (int64_t i = 0; i < p->n; i++)
            if (p->fold[i] != f) squares += (p->x[i * p->d + j] - mean) * (p->x[i * p->d + j] - mean);
        double deviation = sqrt(squares / (double)n);
        if (!(deviation > 0)) deviation = 1;
        for (int64_t i = 0; i < p->n; i++) {
            double value = (p->x[i * p->d + j] - mean) / deviation;
            if (p->fold[i] != f)
                train[at_train++ * p->d + j] = value;
            else
                test[at_test++ * p->d + j] = value;
        }
    }
}

static lam_status run_fold(probe *p, int64_t f) {
    int64_t n_test = 0, n_train, seen = 0;
    for (int64_t i = 0; i < p->n; i++) n_test += p->fold[i] == f;
    n_train = p->n - n_test;
    double *train = NULL, *test = NULL, *weight = NULL, *w = NULL;
    int64_t *label = NULL, *guess = NULL, *counts = NULL, *right = NULL;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_alloc_array((void **)&train, n_train * p->d, sizeof *train), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&test, n_test * p->d, sizeof *test), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&weight, n_train, sizeof *weight), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&w, p->classes * (p->d + 1), sizeof *w), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&label, n_train, sizeof *label), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&guess, n_test, sizeof *guess), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&counts, p->classes, sizeof *counts), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&right, 2 * p->classes, sizeof *right), done);
    standardise(p, f, train, test);
    for (int64_t i = 0, at = 0; i < p->n; i++)
        if (p->fold[i] != f) counts[label[at++] = p->label[i]]++;
    for (int64_t k = 0; k < p->classes; k++) seen += counts[k] > 0;
    for (int64_t i = 0; i < n_train; i++)
        weight[i] = p->balanced ? (double)n_train / ((double)seen * (double)counts[label[i]]) : 1;
    LAM_TRY_GOTO(lam_logistic_fit(train, n_train, p->d, label, weight, p->classes, p->c, w), done);
    lam_logistic_predict(test, n_test, p->d, w, p->classes, guess);
    for (int64_t i = 0, at = 0; i < p->n; i++) {
        if (p->fold[i] != f) continue;
        p->predicted[i] = guess[at++];
        right[p->classes + p->label[i]]++;
        right[p->label[i]] += p->predicted[i] == p->label[i];
    }
    double sum = 0;
    int64_t present = 0;
    for (int64_t k = 0; k < p->classes; k++)
        if (right[p->classes + k]) sum += (double)right[k] / (double)right[p->classes + k], present++;
    p->accuracy[f] = present ? sum / (double)present : (double)NAN;
done:
    lam_free(train);
    lam_free(test);
    lam_free(weight);
    lam_free(w);
    lam_free(label);
    lam_free(guess);
    lam_free(counts);
    lam_free(right);
    return status;
}

/* ---- rows ---- */

static lam_status usable_rows(lam_embeddings *e, int column, const char *path) {
    int64_t *rows = NULL, n = 0;
    lam_table *obs = NULL;
    LAM_TRY(lam_alloc_array((void **)&rows, e->rows, sizeof *rows));
    lam_status status = LAM_OK;
    for (int64_t i = 0; i < e->rows; i++) {
        bool good = *lam_table_cell(e->obs, i, column) != 0;
        for (int64_t j = 0; j < e->columns; j++) good &= isfinite(e->values[i * e->columns + j]) != 0;
        if (good) rows[n++] = i;
    }
    if (n < e->rows)
        lam_log_info("probe: %lld rows without a label or with values that are not finite are left out",
                     (long long)(e->rows - n));
    LAM_REQUIRE_GOTO(n > 0, done, LAM_ERROR_INPUT, "%s: no row has a label and finite features", path);
    LAM_TRY_GOTO(lam_table_select(e->obs, rows, n, &obs), done);
    for (int64_t k = 0; k < n; k++)
        memmove(e->values + k * e->columns, e->values + rows[k] * e->columns,
                (size_t)e->columns * sizeof(double));
    lam_table_free(e->obs);
    e->obs = obs;
    e->rows = n;
done:
    lam_free(rows);
    return status;
}

static lam_status make_folds(probe *p, const lam_arguments *arguments, const lam_table *obs) {
    const char *group = lam_option_text(arguments, "group");
    bool leave_one_out = lam_option_flag(arguments, "leave-one-group-out");
    LAM_REQUIRE(group || !leave_one_out, LAM_ERROR_USAGE,
                "probe: --leave-one-group-out needs --group COLUMN");
    LAM_TRY(lam_alloc_array((void **)&p->fold, p->n, sizeof *p->fold));
    p->folds = lam_option_int(arguments, "folds");
    if (group) {
        int column;
        LAM_TRY(lam_table_require(obs, group, &column));
        LAM_TRY(lam_table_codes(obs, column, &p->group, &p->group_names, &p->groups));
    } else {
        LAM_TRY(lam_alloc_array((void **)&p->group, p->n, sizeof *p->group));
        for (int64_t i = 0; i < p->n; i++) p->group[i] = i;
        p->groups = p->n;
    }
    if (leave_one_out) {
        LAM_REQUIRE(p->groups >= 2, LAM_ERROR_INPUT,
                    "the group column has a single value: nothing can be left out");
        p->folds = p->groups;
        memcpy(p->fold, p->group, (size_t)p->n * sizeof *p->fold);
        return LAM_OK;
    }
    return lam_folds_stratified(p->label, p->classes, p->group, p->groups, p->n, p->folds,
                                (uint64_t)lam_option_int(arguments, "seed"), p->fold);
}

/* ---- results ---- */

static lam_status write_scores(const probe *p, const char *out, const char *label, const char *group,
                               bool leave_one_out, double *mean) {
    char *path;
    LAM_TRY(lam_path_join(&path, out, "scores.csv"));
    lam_writer *writer = NULL;
    lam_status status = lam_writer_open(&writer, path);
    lam_free(path);
    LAM_TRY(status);
    int64_t counted = 0;
    *mean = 0;
    LAM_TRY_GOTO(lam_writer_printf(writer, "label,group,fold,balanced_accuracy,n_train,n_test\n"), done);
    for (int64_t f = 0; f < p->folds; f++) {
        int64_t n_test = 0;
        for (int64_t i = 0; i < p->n; i++) n_test += p->fold[i] == f;
        char number[24];
        snprintf(number, sizeof number, "%lld", (long long)f);
        LAM_TRY_GOTO(lam_writer_printf(writer, "\"%s\",\"%s\",\"%s\",%.17g,%lld,%lld\n", label,
                                       group ? group : "", leave_one_out ? p->group_names[f] : number,
                                       p->accuracy[f], (long long)(p->n - n_test), (long long)n_test),
                     done);
        if (isfinite(p->accuracy[f])) *mean += p->accuracy[f], counted++;
    }
    *mean /= (double)counted;
    LAM_TRY_GOTO(lam_writer_printf(writer, "\"%s\",\"%s\",mean,%.17g,%lld,%lld\n", label, group ? group : "",
                                   *mean, (long long)p->n, (long long)p->n),
                 done);
    status = lam_writer_commit(&writer);
done:
    lam_writer_abort(&writer);
    return status;
}

static lam_status write_confusion(const probe *p, const char *out) {
    char *path;
    lam_table *table = NULL;
    LAM_TRY(lam_path_join(&path, out, "confusion.csv"));
    lam_status status = LAM_OK;
    int64_t *counts = NULL;
    LAM_TRY_GOTO(lam_alloc_array((void **)&counts, p->classes * p->classes, sizeof *counts), done);
    for (int64_t i = 0; i < p->n; i++) counts[p->label[i] * p->classes + p->predicted[i]]++;
    LAM_TRY_GOTO(lam_table_create(&table, p->classes), done);
    LAM_TRY_GOTO(lam_table_add(table, "label", p->class_names), done);
    for (int64_t k = 0; k < p->classes; k++) {
        LAM_TRY_GOTO(lam_table_add(table, p->class_names[k], NULL), done);
        for (int64_t t = 0; t < p->classes; t++) {
            char text[24];
            snprintf(text, sizeof text, "%lld", (long long)counts[t * p->classes + k]);
            LAM_TRY_GOTO(lam_table_set(table, t, (int)k + 1, text), done);
        }
    }
    status = lam_table_write(table, path);
done:
    lam_table_free(table);
    lam_free(counts);
    lam_free(path);
    return status;
}

/* ---- the command ---- */

static lam_status score(probe *p, lam_embeddings *e, const lam_arguments *arguments) {
    const char *path = lam_positional(arguments, 0), *label = lam_option_text(arguments, "label"),
               *out = lam_option_text(arguments, "out");
    int column;
    LAM_TRY(lam_table_require(e->obs, label, &column));
    LAM_TRY(usable_rows(e, column, path));
    p->x = e->values;
    p->n = e->rows;
    p->d = e->columns;
    p->c = lam_option_float(arguments, "c");
    p->balanced = !strcmp(lam_option_text(arguments, "class-weight"), "balanced");
    LAM_TRY(lam_table_codes(e->obs, column, &p->label, &p->class_names, &p->classes));
    LAM_REQUIRE(p->classes >= 2, LAM_ERROR_INPUT,
                "%s: label column '%s' has a single class: nothing can be told apart", path, label);
    LAM_TRY(make_folds(p, arguments, e->obs));
    LAM_TRY(lam_alloc_array((void **)&p->predicted, p->n, sizeof *p->predicted));
    LAM_TRY(lam_alloc_array((void **)&p->accuracy, p->folds, sizeof *p->accuracy));
    lam_progress *progress = lam_progress_start("probe", p->folds, "folds");
    lam_status status = LAM_OK;
    for (int64_t f = 0; f < p->folds && status == LAM_OK; f++) {
        status = run_fold(p, f);
        lam_progress_update(progress, f + 1, NULL);
    }
    lam_progress_finish(progress);
    LAM_TRY(status);
    double mean;
    LAM_TRY(lam_make_folders(out));
    LAM_TRY(write_scores(p, out, label, lam_option_text(arguments, "group"),
                         lam_option_flag(arguments, "leave-one-group-out"), &mean));
    LAM_TRY(write_confusion(p, out));
    lam_log_info("probe: balanced accuracy %.4f over %lld folds, %lld rows, %lld classes", mean,
                 (long long)p->folds, (long long)p->n, (long long)p->classes);
    if (lam_option_json(arguments))
        printf("{\"balanced_accuracy\": %.17g, \"folds\": %lld}\n", mean, (long long)p->folds);
    return LAM_OK;
}

static lam_status run(const lam_arguments *arguments) {
    LAM_TRY(lam_require_absent(lam_option_text(arguments, "out"), lam_option_force(arguments)));
    lam_embeddings *e;
    LAM_TRY(lam_embeddings_read(&e, lam_positional(arguments, 0), lam_option_text(arguments, "key"),
                                lam_option_text(arguments, "features")));
    probe p = {0};
    lam_status status = score(&p, e, arguments);
    lam_free(p.label);
    lam_free(p.group);
    lam_free(p.fold);
    lam_free(p.predicted);
    lam_free(p.accuracy);
    lam_free(p.class_names);
    lam_free(p.group_names);
    lam_embeddings_free(e);
    return status;
}

static const lam_option options[] = {
    {"label", LAM_OPTION_TEXT, "COLUMN", NULL, "what is predicted; rows where it is empty are left out", 0, 0,
     true},
    {"out", LAM_OPTION_TEXT, "DIR", NULL, "folder for scores.csv and confusion.csv", 0, 0, true},
    {"group", LAM_OPTION_TEXT, "COLUMN", NULL, "rows of one value stay on one side of a fold", 0, 0, false},
    {"leave-one-group-out", LAM_OPTION_FLAG, NULL, NULL, "a fold for each group", 0, 0, false},
    {"folds", LAM_OPTION_INT, "K", "5", "stratified folds", 2, 1000, false},
    {"c", LAM_OPTION_FLOAT, "C", "1", "weight of the data against the L2 penalty, as scikit-learn's C", 1e-12,
     1e12, false},
    {"class-weight", LAM_OPTION_CHOICE, "none|balanced", "balanced", "balanced: every class counts the same",
     0, 0, false},
    {"seed", LAM_OPTION_INT, "N", "0", "of the folds", 0, 9e15, false},
    {"key", LAM_OPTION_TEXT, "NAME", NULL, "matrix of the .h5ad: X (default), a layer or an obsm", 0, 0,
     false},
    {"features", LAM_OPTION_TEXT, "GLOB", NULL,
     "columns of a table that are features (default: d0, d1, ..., else every numeric one)", 0, 0, false},
    {0}};

const lam_command lam_command_probe = {"probe",
                                       "logistic regression on embeddings in grouped folds",
                                       "EMB",
                                       1,
                                       1,
                                       options,
                                       "lamella probe embeddings.h5ad --label gene --group plate --out probe",
                                       run};
