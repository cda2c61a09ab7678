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
#include "eval/ridge.h"

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

/* ---- columns of a ridge regression ---- */

typedef struct column_score {
    double r2, deviation; /* over the folds */
    double pooled;        /* of all predictions together, each made by the fold that did not see its row */
    double alpha;         /* median of the folds */
    int64_t rows;
} column_score;

/* What score_columns works with. */
typedef struct column_room {
    lam_fold_score *scores;
    double *alpha, *values;
    int64_t *rows;
} column_room;

static lam_status score_column(const lam_probe_rows *r, const lam_regression *g, int64_t c,
                               const column_room *room, column_score *out) {
    int64_t folds = r->design.folds, targets = r->targets.count;
    double sse = 0, total;
    out->rows = 0;
    for (int64_t f = 0; f < folds; f++) {
        int64_t at = f * targets + c;
        room->scores[f].score = g->total[at] > 0 ? 1 - g->sse[at] / g->total[at] : (double)NAN;
        room->alpha[f] = g->alpha[at];
        sse += g->sse[at];
    }
    lam_probe_summary(room->scores, folds, &out->r2, &out->deviation);
    for (int64_t i = 0; i < r->targets.n; i++) {
        room->values[i] = r->targets.y[i * targets + c];
        if (!isnan(room->values[i])) room->rows[out->rows++] = i;
    }
    LAM_TRY(lam_ridge_totals(room->values, 1, room->rows, out->rows, &total));
    out->pooled = total > 0 ? 1 - sse / total : (double)NAN;
    return lam_probe_median(room->alpha, folds, &out->alpha);
}

/* *out [targets], and the medians of R^2 and pooled R^2 behind them as column number `targets`. The caller frees. */
static lam_status score_columns(const lam_probe_rows *r, const lam_regression *g, column_score **out) {
    int64_t targets = r->targets.count;
    column_room room = {0};
    double *medians = NULL;
    *out = NULL;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_alloc_array((void **)out, targets + 1, sizeof **out), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&room.scores, r->design.folds, sizeof *room.scores), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&room.alpha, r->design.folds, sizeof *room.alpha), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&room.values, r->targets.n, sizeof *room.values), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&room.rows, r->targets.n, sizeof *room.rows), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&medians, targets, sizeof *medians), done);
    for (int64_t c = 0; c < targets; c++) LAM_TRY_GOTO(score_column(r, g, c, &room, &(*out)[c]), done);
    column_score *whole = &(*out)[targets];
    *whole = (column_score){.deviation = (double)NAN, .alpha = (double)NAN, .rows = r->design.n};
    for (int64_t c = 0; c < targets; c++) medians[c] = (*out)[c].r2;
    LAM_TRY_GOTO(lam_probe_median(medians, targets, &whole->r2), done);
    for (int64_t c = 0; c < targets; c++) medians[c] = (*out)[c].pooled;
    LAM_TRY_GOTO(lam_probe_median(medians, targets, &whole->pooled), done);
done:
    lam_free(room.scores);
    lam_free(room.alpha);
    lam_free(room.values);
    lam_free(room.rows);
    lam_free(medians);
    return status;
}

lam_status lam_probe_median_r2(const lam_probe_rows *r, const lam_probe_outcome *o, double *median) {
    column_score *columns;
    lam_status status = score_columns(r, &o->regression, &columns);
    if (status == LAM_OK) *median = columns[r->targets.count].r2;
    lam_free(columns);
    return status;
}

static lam_status write_ridge(const char *out, const lam_probe_rows *r, const lam_probe_outcome *outcomes,
                              int64_t count) {
    const char *names[] = {"column", "r2", "standard_deviation", "r2_pooled", "alpha", "rows", "block", NULL};
    int64_t targets = r->targets.count, row = 0;
    lam_table *table = NULL;
    column_score *columns = NULL;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_table_create(&table, count * (targets + 1)), done);
    LAM_TRY_GOTO(add_columns(table, names), done);
    for (int64_t b = 0; b < count; b++) {
        lam_free(columns);
        LAM_TRY_GOTO(score_columns(r, &outcomes[b].regression, &columns), done);
        for (int64_t c = 0; c <= targets; c++, row++) {
            LAM_TRY_GOTO(lam_table_set(table, row, 0, c < targets ? r->target_names[c] : "median"), done);
            LAM_TRY_GOTO(set_number(table, row, 1, columns[c].r2), done);
            LAM_TRY_GOTO(set_number(table, row, 2, columns[c].deviation), done);
            LAM_TRY_GOTO(set_number(table, row, 3, columns[c].pooled), done);
            LAM_TRY_GOTO(set_number(table, row, 4, columns[c].alpha), done);
            LAM_TRY_GOTO(set_count(table, row, 5, columns[c].rows), done);
            LAM_TRY_GOTO(lam_table_set(table, row, 6, outcomes[b].block), done);
        }
    }
    status = write_table(table, out, "ridge.csv");
done:
    lam_table_free(table);
    lam_free(columns);
    return status;
}

/* Where --force writes over another result, what this one does not have must not stay beside it. */
static lam_status remove_others(const char *out) {
    static const char *const names[] = {"confusion.csv", "ridge.csv", "blocks.csv", "curve.csv"};
    return lam_remove_files(out, names, sizeof names / sizeof *names);
}

lam_status lam_probe_write(const char *out, const lam_probe_settings *s, const lam_probe_rows *r,
                           const lam_probe_outcome *outcomes, int64_t count, bool sweep, int64_t best) {
    LAM_TRY(lam_make_folders(out));
    LAM_TRY(remove_others(out));
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

/* The folds and the curve of a block. */
static void put_block(lam_json *object, const lam_probe_settings *s, const lam_probe_rows *r,
                      const lam_probe_outcome *o) {
    int64_t folds = r->design.folds;
    lam_json *scores = lam_json_array();
    lam_json_set_text(object, "block", o->block);
    put_score(object, s, o->scores, folds);
    for (int64_t f = 0; f < folds; f++) {
        lam_json *fold = lam_json_object();
        if (s->leave_one_out)
            lam_json_set_text(fold, "fold", r->group_names[f]);
        else
            lam_json_set_int(fold, "fold", f);
        lam_json_set_float(fold, metric(s), o->scores[f].score);
        lam_json_set_int(fold, "n_train", o->scores[f].n_train);
        lam_json_set_int(fold, "n_test", o->scores[f].n_test);
        if (s->classifier.neighbours > 0)
            lam_json_set_int(fold, setting(s), s->classifier.neighbours);
        else
            lam_json_set_float(fold, setting(s), o->scores[f].setting);
        lam_json_append(scores, fold);
    }
    lam_json_set(object, "scores", scores);
    put_curve(object, s, o, folds);
}

static lam_status put_columns(lam_json *object, const lam_probe_rows *r, const lam_probe_outcome *o) {
    int64_t targets = r->targets.count;
    column_score *columns;
    lam_status status = score_columns(r, &o->regression, &columns);
    lam_json *list = lam_json_array();
    for (int64_t c = 0; c < targets && status == LAM_OK; c++) {
        lam_json *column = lam_json_object();
        lam_json_set_text(column, "column", r->target_names[c]);
        lam_json_set_float(column, "r2", columns[c].r2);
        lam_json_set_float(column, "r2_pooled", columns[c].pooled);
        lam_json_set_float(column, "alpha", columns[c].alpha);
        lam_json_set_int(column, "rows", columns[c].rows);
        lam_json_append(list, column);
    }
    lam_json_set(object, "columns", list);
    if (status == LAM_OK) {
        lam_json_set_float(object, "median_r2", columns[targets].r2);
        lam_json_set_float(object, "median_r2_pooled", columns[targets].pooled);
    }
    lam_free(columns);
    return status;
}

lam_status lam_probe_print(const lam_probe_settings *s, const lam_probe_rows *r,
                           const lam_probe_outcome *outcomes, int64_t count, bool sweep, int64_t best) {
    char *text = NULL;
    lam_status status = LAM_OK;
    lam_json *result = lam_json_object();
    put_block(result, s, r, &outcomes[best]);
    lam_json_set_int(result, "folds", r->design.folds);
    lam_json_set_int(result, "rows", r->design.n);
    if (s->ridge)
        status = put_columns(result, r, &outcomes[best]);
    else
        lam_json_set_int(result, "classes", r->design.classes);
    if (sweep) {
        lam_json *blocks = lam_json_array();
        for (int64_t b = 0; b < count; b++) {
            lam_json *block = lam_json_object();
            put_block(block, s, r, &outcomes[b]);
            lam_json_append(blocks, block);
        }
        lam_json_set(result, "blocks", blocks);
    }
    if (status == LAM_OK) status = lam_json_dump(result, false, &text);
    lam_json_free(result);
    LAM_TRY(status);
    printf("%s\n", text);
    lam_free(text);
    return LAM_OK;
}
