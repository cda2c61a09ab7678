/* What `lamella probe` leaves behind. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/files.h"
#include "base/json.h"
#include "base/memory.h"
#include "base/table.h"
#include "eval/probe_parts.h"

void lam_probe_summary(const lam_fold_score *scores, int64_t folds, double *mean, double *deviation) {
    double sum = 0, squares = 0;
    int64_t n = 0;
    for (int64_t f = 0; f < folds; f++)
        if (!isnan(scores[f].score)) sum += scores[f].score, n++;
    *mean = n > 0 ? sum / (double)n : (double)NAN;
    for (int64_t f = 0; f < folds; f++)
        if (!isnan(scores[f].score)) squares += (scores[f].score - *mean) * (scores[f].score - *mean);
    *deviation = n > 1 ? sqrt(squares / (double)(n - 1)) : (double)NAN;
}

static int rising(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

lam_status lam_probe_median(const double *values, int64_t count, double *median) {
    double *sorted;
    int64_t n = 0;
    LAM_TRY(lam_alloc_array((void **)&sorted, count, sizeof *sorted));
    for (int64_t i = 0; i < count; i++)
        if (!isnan(values[i])) sorted[n++] = values[i];
    qsort(sorted, (size_t)n, sizeof *sorted, rising);
    *median = n == 0 ? (double)NAN : (sorted[(n - 1) / 2] + sorted[n / 2]) / 2;
    lam_free(sorted);
    return LAM_OK;
}

/* ---- tables ---- */

static const char *metric(const lam_probe_settings *s) { return s->ridge ? "r2" : "balanced_accuracy"; }
static const char *setting(const lam_probe_settings *s) {
    return s->ridge ? "alpha" : s->classifier.neighbours > 0 ? "k" : "c";
}

static lam_status add_columns(lam_table *table, const char *const *names) {
    for (; *names; names++) LAM_TRY(lam_table_add(table, *names, NULL));
    return LAM_OK;
}

/* Undefined is an empty cell. */
static lam_status set_number(lam_table *table, int64_t row, int column, double value) {
    char text[40] = "";
    if (!isnan(value)) snprintf(text, sizeof text, "%.17g", value);
    return lam_table_set(table, row, column, text);
}

static lam_status set_count(lam_table *table, int64_t row, int column, int64_t value) {
    char text[24];
    snprintf(text, sizeof text, "%lld", (long long)value);
    return lam_table_set(table, row, column, text);
}

static lam_status write_table(const lam_table *table, const char *out, const char *name) {
    char *path;
    LAM_TRY(lam_path_join(&path, out, name));
    lam_status status = lam_table_write(table, path);
    lam_free(path);
    return status;
}

static lam_status fold_row(lam_table *table, int64_t row, const lam_probe_settings *s,
                           const lam_probe_outcome *o, const char *fold, const lam_fold_score *score) {
    LAM_TRY(lam_table_set(table, row, 0, s->label));
    LAM_TRY(lam_table_set(table, row, 1, s->group ? s->group : ""));
    LAM_TRY(lam_table_set(table, row, 2, fold));
    LAM_TRY(set_number(table, row, 3, score->score));
    LAM_TRY(set_count(table, row, 4, score->n_train));
    LAM_TRY(set_count(table, row, 5, score->n_test));
    LAM_TRY(set_number(table, row, 6, score->setting));
    LAM_TRY(lam_table_set(table, row, 7, o->block));
    return s->ridge ? LAM_OK : set_number(table, row, 8, score->accuracy);
}

static lam_status write_scores(const char *out, const lam_probe_settings *s, const lam_probe_rows *r,
                               const lam_probe_outcome *outcomes, int64_t count) {
    const char *names[] = {"label",    "group",   "fold",
                           metric(s),  "n_train", "n_test",
                           setting(s), "block",   s->ridge ? NULL : "accuracy",
                           NULL};
    int64_t folds = r->design.folds, row = 0;
    lam_table *table = NULL;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_table_create(&table, count * (folds + 1)), done);
    LAM_TRY_GOTO(add_columns(table, names), done);
    for (int64_t b = 0; b < count; b++) {
        const lam_probe_outcome *o = &outcomes[b];
        double mean, deviation, accuracy = 0;
        for (int64_t f = 0; f < folds; f++) {
            char number[24];
            snprintf(number, sizeof number, "%lld", (long long)f);
            LAM_TRY_GOTO(
                fold_row(table, row++, s, o, s->leave_one_out ? r->group_names[f] : number, &o->scores[f]),
                done);
            if (o->scores[f].n_test)
                accuracy += o->scores[f].accuracy * (double)o->scores[f].n_test / (double)r->design.n;
        }
        lam_probe_summary(o->scores, folds, &mean, &deviation);
        lam_fold_score whole = {mean, accuracy, (double)NAN, r->design.n, r->design.n};
        LAM_TRY_GOTO(fold_row(table, row++, s, o, "mean", &whole), done);
    }
    status = write_table(table, out, "scores.csv");
done:
    lam_table_free(table);
    return status;
}

static lam_status write_confusion(const char *out, const lam_probe_rows *r, const lam_probe_outcome *o) {
    int64_t classes = r->design.classes, *counts = NULL;
    lam_table *table = NULL;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_alloc_array((void **)&counts, classes * classes, sizeof *counts), done);
    for (int64_t i = 0; i < r->design.n; i++) counts[r->label[i] * classes + o->predicted[i]]++;
    LAM_TRY_GOTO(lam_table_create(&table, classes), done);
    LAM_TRY_GOTO(lam_table_add(table, "label", r->class_names), done);
    for (int64_t k = 0; k < classes; k++) {
        LAM_TRY_GOTO(lam_table_add(table, r->class_names[k], NULL), done);
        for (int64_t t = 0; t < classes; t++)
            LAM_TRY_GOTO(set_count(table, t, (int)k + 1, counts[t * classes + k]), done);
    }
    status = write_table(table, out, "confusion.csv");
done:
    lam_table_free(table);
    lam_free(counts);
    return status;
}

static lam_status write_blocks(const char *out, const lam_probe_settings *s, const lam_probe_rows *r,
                               const lam_probe_outcome *outcomes, int64_t count, int64_t best) {
    const char *names[] = {"block", metric(s), "standard_deviation", "columns", "best", NULL};
    lam_table *table = NULL;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_table_create(&table, count), done);
    LAM_TRY_GOTO(add_columns(table, names), done);
    for (int64_t b = 0; b < count; b++) {
        double mean, deviation;
        lam_probe_summary(outcomes[b].scores, r->design.folds, &mean, &deviation);
        LAM_TRY_GOTO(lam_table_set(table, b, 0, outcomes[b].block), done);
        LAM_TRY_GOTO(set_number(table, b, 1, mean), done);
        LAM_TRY_GOTO(set_number(table, b, 2, deviation), done);
        LAM_TRY_GOTO(set_count(table, b, 3, outcomes[b].columns), done);
        LAM_TRY_GOTO(set_count(table, b, 4, b == best), done);
    }
    status = write_table(table, out, "blocks.csv");
done:
    lam_table_free(table);
    return status;
}

static double mean_train(const lam_fold_score *scores, int64_t folds) {
    double sum = 0;
    for (int64_t f = 0; f < folds; f++) sum += (double)scores[f].n_train / (double)folds;
    return sum;
}

static lam_status write_curve(const char *out, const lam_probe_settings *s, const lam_probe_rows *r,
                              const lam_probe_outcome *outcomes, int64_t count) {
    const char *names[] = {"share", metric(s), "standard_deviation", "n_train", "block", NULL};
    int64_t folds = r->design.folds, row = 0;
    lam_table *table = NULL;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_table_create(&table, count * s->share_count), done);
    LAM_TRY_GOTO(add_columns(table, names), done);
    for (int64_t b = 0; b < count; b++)
        for (int64_t i = 0; i < s->share_count; i++, row++) {
            const lam_fold_score *scores = outcomes[b].curve + i * folds;
            double mean, deviation;
            lam_probe_summary(scores, folds, &mean, &deviation);
            LAM_TRY_GOTO(set_number(table, row, 0, s->shares[i]), done);
            LAM_TRY_GOTO(set_number(table, row, 1, mean), done);
            LAM_TRY_GOTO(set_number(table, row, 2, deviation), done);
            LAM_TRY_GOTO(set_number(table, row, 3, mean_train(scores, folds)), done);
            LAM_TRY_GOTO(lam_table_set(table, row, 4, outcomes[b].block), done);
        }
    status = write_table(table, out, "curve.csv");
done:
    lam_table_free(table);
    return status;
}

/* ---- ridge.csv ---- */

/* R^2 of all predictions of a target together, each made by the fold that did not see its row. */
static double pooled(const lam_targets *targets, const lam_regression *g, int64_t folds, int64_t c,
                     int64_t *rows) {
    double sse = 0, mean = 0, total = 0;
    *rows = 0;
    for (int64_t f = 0; f < folds; f++) sse += g->sse[f * targets->count + c];
    for (int64_t i = 0; i < targets->n; i++)
        if (!isnan(targets->y[i * targets->count + c])) mean += targets->y[i * targets->count + c], ++*rows;
    mean /= (double)*rows;
    for (int64_t i = 0; i < targets->n; i++) {
        double value = targets->y[i * targets->count + c];
        if (!isnan(value)) total += (value - mean) * (value - mean);
    }
    return total > 0 ? 1 - sse / total : (double)NAN;
}

static lam_status write_ridge(const char *out, const lam_probe_rows *r, const lam_probe_outcome *outcomes,
                              int64_t count) {
    const char *names[] = {"column", "r2", "standard_deviation", "r2_pooled", "alpha", "rows", "block", NULL};
    int64_t folds = r->design.folds, targets = r->targets.count, row = 0;
    lam_table *table = NULL;
    lam_fold_score *scores = NULL;
    double *r2 = NULL, *all = NULL, *alpha = NULL, deviation, middle;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_alloc_array((void **)&scores, folds, sizeof *scores), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&r2, targets, sizeof *r2), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&all, targets, sizeof *all), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&alpha, folds, sizeof *alpha), done);
    LAM_TRY_GOTO(lam_table_create(&table, count * (targets + 1)), done);
    LAM_TRY_GOTO(add_columns(table, names), done);
    for (int64_t b = 0; b < count; b++) {
        const lam_regression *g = &outcomes[b].regression;
        for (int64_t c = 0; c < targets; c++, row++) {
            int64_t rows;
            for (int64_t f = 0; f < folds; f++) {
                int64_t at = f * targets + c;
                scores[f].score = g->total[at] > 0 ? 1 - g->sse[at] / g->total[at] : (double)NAN;
                alpha[f] = g->alpha[at];
            }
            lam_probe_summary(scores, folds, &r2[c], &deviation);
            all[c] = pooled(&r->targets, g, folds, c, &rows);
            LAM_TRY_GOTO(lam_probe_median(alpha, folds, &middle), done);
            LAM_TRY_GOTO(lam_table_set(table, row, 0, r->target_names[c]), done);
            LAM_TRY_GOTO(set_number(table, row, 1, r2[c]), done);
            LAM_TRY_GOTO(set_number(table, row, 2, deviation), done);
            LAM_TRY_GOTO(set_number(table, row, 3, all[c]), done);
            LAM_TRY_GOTO(set_number(table, row, 4, middle), done);
            LAM_TRY_GOTO(set_count(table, row, 5, rows), done);
            LAM_TRY_GOTO(lam_table_set(table, row, 6, outcomes[b].block), done);
        }
        LAM_TRY_GOTO(lam_table_set(table, row, 0, "median"), done);
        LAM_TRY_GOTO(lam_probe_median(r2, targets, &middle), done);
        LAM_TRY_GOTO(set_number(table, row, 1, middle), done);
        LAM_TRY_GOTO(lam_probe_median(all, targets, &middle), done);
        LAM_TRY_GOTO(set_number(table, row, 3, middle), done);
        LAM_TRY_GOTO(set_count(table, row, 5, r->design.n), done);
        LAM_TRY_GOTO(lam_table_set(table, row++, 6, outcomes[b].block), done);
    }
    status = write_table(table, out, "ridge.csv");
done:
    lam_table_free(table);
    lam_free(scores);
    lam_free(r2);
    lam_free(all);
    lam_free(alpha);
    return status;
}

lam_status lam_probe_write(const char *out, const lam_probe_settings *s, const lam_probe_rows *r,
                           const lam_probe_outcome *outcomes, int64_t count, bool sweep, int64_t best) {
    LAM_TRY(lam_make_folders(out));
    LAM_TRY(write_scores(out, s, r, outcomes, count));
    if (sweep) LAM_TRY(write_blocks(out, s, r, outcomes, count, best));
    if (s->share_count > 0) LAM_TRY(write_curve(out, s, r, outcomes, count));
    return s->ridge ? write_ridge(out, r, outcomes, count) : write_confusion(out, r, &outcomes[best]);
}

/* ---- --json ---- */

static void put_score(lam_json *object, const lam_probe_settings *s, const lam_fold_score *scores,
                      int64_t folds) {
    double mean, deviation;
    lam_probe_summary(scores, folds, &mean, &deviation);
    lam_json_set_float(object, metric(s), mean);
    lam_json_set_float(object, "standard_deviation", deviation);
}

static void put_curve(lam_json *object, const lam_probe_settings *s, const lam_probe_outcome *o,
                      int64_t folds) {
    if (s->share_count == 0) return;
    lam_json *curve = lam_json_array();
    for (int64_t i = 0; i < s->share_count; i++) {
        lam_json *point = lam_json_object();
        lam_json_set_float(point, "share", s->shares[i]);
        put_score(point, s, o->curve + i * folds, folds);
        lam_json_set_float(point, "n_train", mean_train(o->curve + i * folds, folds));
        lam_json_append(curve, point);
    }
    lam_json_set(object, "learning_curve", curve);
}

lam_status lam_probe_print(const lam_probe_settings *s, const lam_probe_rows *r,
                           const lam_probe_outcome *outcomes, int64_t count, bool sweep, int64_t best) {
    int64_t folds = r->design.folds;
    lam_json *result = lam_json_object();
    put_score(result, s, outcomes[best].scores, folds);
    lam_json_set_int(result, "folds", folds);
    lam_json_set_int(result, "rows", r->design.n);
    if (s->ridge)
        lam_json_set_int(result, "columns", r->targets.count);
    else
        lam_json_set_int(result, "classes", r->design.classes);
    lam_json_set_text(result, "block", outcomes[best].block);
    put_curve(result, s, &outcomes[best], folds);
    if (sweep) {
        lam_json *blocks = lam_json_array();
        for (int64_t b = 0; b < count; b++) {
            lam_json *block = lam_json_object();
            lam_json_set_text(block, "block", outcomes[b].block);
            put_score(block, s, outcomes[b].scores, folds);
            put_curve(block, s, &outcomes[b], folds);
            lam_json_append(blocks, block);
        }
        lam_json_set(result, "blocks", blocks);
    }
    char *text;
    lam_status status = lam_json_dump(result, false, &text);
    lam_json_free(result);
    LAM_TRY(status);
    printf("%s\n", text);
    lam_free(text);
    return LAM_OK;
}
