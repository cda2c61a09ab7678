/* The rows that `lamella probe` scores: labels or targets, folds, and the blocks of the file one after another. */
#include <fnmatch.h>
#include <math.h>
#include <string.h>

#include "base/log.h"
#include "base/memory.h"
#include "eval/probe_parts.h"

/* ---- targets of a regression ---- */

/* A number; NaN where there is none, infinity counted as such. *good false: text. */
static double target_value(const char *cell, bool *good) {
    static const char *const gaps[] = {"", "nan", "NaN", "NAN", "NA", "N/A", "null", "None", "inf", "-inf"};
    double value;
    if (lam_text_is_number(cell, &value)) return value;
    for (size_t i = 0; i < sizeof gaps / sizeof *gaps; i++)
        if (!strcmp(cell, gaps[i])) return (double)NAN;
    *good = false;
    return (double)NAN;
}

/* Fills column `place` of y [rows, width]; false where the column holds text or no number. */
static bool take_target(const lam_table *obs, int column, double *y, int64_t width, int64_t place) {
    bool good = true, some = false;
    for (int64_t i = 0; i < lam_table_rows(obs) && good; i++) {
        y[i * width + place] = target_value(lam_table_cell(obs, i, column), &good);
        some = some || !isnan(y[i * width + place]);
    }
    return good && some;
}

/* y [rows, *count] of the numeric columns that the label names: a column, or a glob of columns. */
static lam_status read_targets(const lam_table *obs, const char *label, double **y, const char ***names,
                               int64_t *count) {
    int columns = lam_table_columns(obs), exact = lam_table_column(obs, label), matched = 0;
    int64_t rows = lam_table_rows(obs), kept = 0;
    double *all = NULL;
    lam_status status = LAM_OK;
    LAM_TRY(lam_alloc_array((void **)names, columns + 1, sizeof **names));
    for (int c = 0; c < columns; c++)
        matched += exact >= 0 ? c == exact : fnmatch(label, lam_table_name(obs, c), 0) == 0;
    if (matched == 0) return lam_table_require(obs, label, &exact);
    LAM_TRY(lam_alloc_array((void **)&all, rows * matched, sizeof *all));
    for (int c = 0; c < columns; c++) {
        if (exact >= 0 ? c != exact : fnmatch(label, lam_table_name(obs, c), 0) != 0) continue;
        if (take_target(obs, c, all, matched, kept)) (*names)[kept++] = lam_table_name(obs, c);
    }
    LAM_REQUIRE_GOTO(kept > 0, done, LAM_ERROR_INPUT,
                     "%s: '%s' names no numeric column: --ridge predicts numbers", lam_table_path(obs),
                     label);
    if (kept < matched)
        lam_log_info("probe: %lld of %d columns that match '%s' hold no numbers and are left out",
                     (long long)(matched - kept), matched, label);
    for (int64_t i = 0; i < rows; i++) /* to the front: row i moves to lower places only */
        for (int64_t c = 0; c < kept; c++) all[i * kept + c] = all[i * matched + c];
    *y = all;
    *count = kept;
    return LAM_OK;
done:
    lam_free(all);
    return status;
}

/* ---- rows ---- */

/* Rows of a block that can be compared: finite, and for neighbours with a direction. */
static void keep_comparable(const lam_embeddings *e, bool direction, bool *keep) {
    for (int64_t i = 0; i < e->rows; i++) {
        bool finite = true, some = !direction;
        for (int64_t j = 0; j < e->columns; j++) {
            double value = e->values[i * e->columns + j];
            finite = finite && isfinite(value);
            some = some || value < 0 || value > 0;
        }
        keep[i] = keep[i] && finite && some;
    }
}

static lam_status keep_labelled(const lam_table *obs, const lam_probe_settings *s, const lam_probe_rows *r,
                                bool *keep) {
    int column = -1;
    if (!s->ridge) LAM_TRY(lam_table_require(obs, s->label, &column));
    for (int64_t i = 0; i < lam_table_rows(obs); i++) {
        bool some = !s->ridge && *lam_table_cell(obs, i, column) != 0;
        for (int64_t c = 0; c < r->targets.count && !some; c++) some = !isnan(r->y[i * r->targets.count + c]);
        keep[i] = keep[i] && some;
    }
    return LAM_OK;
}

/* --folds, or 5, or as many as there are groups where nobody asked for more. Rows that stand alone are groups of one. */
static lam_status count_folds(const lam_design *design, const lam_arguments *arguments,
                              const lam_probe_settings *s, int64_t *folds) {
    bool given = lam_option_given(arguments, "folds");
    long long groups = (long long)design->groups;
    LAM_REQUIRE(groups >= 2 || s->group, LAM_ERROR_INPUT, "%s: a single row is left: nothing can be held out",
                s->path);
    LAM_REQUIRE(groups >= 2, LAM_ERROR_INPUT,
                "%s: the group column '%s' has a single value: nothing can be left out", s->path, s->group);
    *folds = s->leave_one_out ? design->groups : lam_option_int(arguments, "folds");
    LAM_REQUIRE(!given || *folds <= groups, LAM_ERROR_INPUT,
                "%s: %lld %s cannot be dealt to %lld folds: ask for fewer with --folds%s", s->path, groups,
                s->group ? "groups" : "rows", (long long)*folds,
                s->group ? ", or for a fold each with --leave-one-group-out" : "");
    if (*folds <= groups) return LAM_OK;
    lam_log_info("probe: %lld %s: %lld folds in place of %lld%s", groups, s->group ? "groups" : "rows",
                 groups, (long long)*folds, s->group ? ", each leaves one group out" : "");
    *folds = design->groups;
    return LAM_OK;
}

static lam_status make_folds(lam_probe_rows *r, const lam_arguments *arguments, const lam_probe_settings *s,
                             const lam_table *obs) {
    lam_design *design = &r->design;
    int64_t n = design->n;
    design->inner_folds = lam_option_int(arguments, "inner-folds");
    design->seed = (uint64_t)lam_option_int(arguments, "seed");
    LAM_TRY(lam_alloc_array((void **)&r->fold, n, sizeof *r->fold));
    if (s->group) {
        int column;
        LAM_TRY(lam_table_require(obs, s->group, &column));
        LAM_TRY(lam_table_codes(obs, column, &r->group, &r->group_names, &design->groups));
    } else {
        LAM_TRY(lam_alloc_array((void **)&r->group, n, sizeof *r->group));
        for (int64_t i = 0; i < n; i++) r->group[i] = i;
        design->groups = n;
    }
    design->label = r->label;
    design->group = r->group;
    design->fold = r->fold;
    LAM_TRY(count_folds(design, arguments, s, &design->folds));
    if (!s->leave_one_out)
        return lam_folds_stratified(r->label, design->classes, r->group, design->groups, n, design->folds,
                                    design->seed, r->fold);
    memcpy(r->fold, r->group, (size_t)n * sizeof *r->fold);
    return LAM_OK;
}

/* Labels (a single class for ridge), targets and folds of the rows of obs. */
static lam_status describe_rows(lam_probe_rows *r, const lam_arguments *arguments,
                                const lam_probe_settings *s, const lam_table *obs) {
    r->design.n = lam_table_rows(obs);
    if (s->ridge) {
        r->design.classes = 1;
        LAM_TRY(lam_alloc_array((void **)&r->label, r->design.n, sizeof *r->label));
    } else {
        int column;
        LAM_TRY(lam_table_require(obs, s->label, &column));
        LAM_TRY(lam_table_codes(obs, column, &r->label, &r->class_names, &r->design.classes));
        LAM_REQUIRE(r->design.classes >= 2, LAM_ERROR_INPUT,
                    "%s: label column '%s' has a single class: nothing can be told apart", s->path, s->label);
    }
    return make_folds(r, arguments, s, obs);
}

void lam_probe_rows_close(lam_probe_rows *r) {
    lam_free(r->label);
    lam_free(r->group);
    lam_free(r->fold);
    lam_free(r->class_names);
    lam_free(r->group_names);
    lam_free(r->y);
    lam_free(r->target_names);
}

/* ---- blocks ---- */

lam_status lam_probe_block_read(lam_probe_blocks *b, const lam_arguments *arguments, int64_t i) {
    if (b->e && b->at == i) return LAM_OK;
    char *key = NULL;
    lam_embeddings_free(b->e);
    b->e = NULL;
    if (b->names) LAM_TRY(lam_text_format(&key, "obsm/%s", b->names[i]));
    lam_status status = lam_embeddings_read(&b->e, lam_positional(arguments, 0),
                                            b->names ? key : lam_option_text(arguments, "key"),
                                            lam_option_text(arguments, "features"));
    if (status == LAM_OK) status = lam_embeddings_require_range(b->e, lam_positional(arguments, 0));
    b->at = i;
    lam_free(key);
    return status;
}

lam_status lam_probe_rows_choose(lam_probe_blocks *b, const lam_arguments *arguments,
                                 const lam_probe_settings *s, lam_probe_rows *r) {
    bool *keep = NULL;
    int64_t n = 0, all = 0;
    lam_status status = LAM_OK;
    for (int64_t i = b->count - 1; i >= 0; i--) { /* ends with the first, whose turn is next */
        LAM_TRY_GOTO(lam_probe_block_read(b, arguments, i), done);
        if (!keep) {
            all = b->e->rows;
            LAM_TRY_GOTO(lam_alloc_array((void **)&keep, all, sizeof *keep), done);
            memset(keep, true, (size_t)all * sizeof *keep);
        }
        keep_comparable(b->e, s->classifier.neighbours > 0, keep);
    }
    if (s->ridge)
        LAM_TRY_GOTO(read_targets(b->e->obs, s->label, &r->y, &r->target_names, &r->targets.count), done);
    LAM_TRY_GOTO(keep_labelled(b->e->obs, s, r, keep), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&b->rows, all, sizeof *b->rows), done);
    for (int64_t i = 0; i < all; i++)
        if (keep[i]) b->rows[n++] = i;
    if (n < all)
        lam_log_info("probe: %lld rows without a label or with values that are not finite%s are left out",
                     (long long)(all - n), s->classifier.neighbours > 0 ? " or all zero" : "");
    LAM_REQUIRE_GOTO(n > 0, done, LAM_ERROR_INPUT, "%s: no row has a label and finite features", s->path);
    LAM_TRY_GOTO(lam_table_select(b->e->obs, b->rows, n, &b->obs), done);
    for (int64_t k = 0; s->ridge && k < n; k++)
        memmove(r->y + k * r->targets.count, r->y + b->rows[k] * r->targets.count,
                (size_t)r->targets.count * sizeof *r->y);
    for (int64_t c = 0; c < r->targets.count; c++) /* until here borrowed from the whole table */
        r->target_names[c] = lam_table_name(b->obs, lam_table_column(b->obs, r->target_names[c]));
    r->targets = (lam_targets){n, r->targets.count, r->y};
    status = describe_rows(r, arguments, s, b->obs);
done:
    lam_free(keep);
    return status;
}

void lam_probe_blocks_close(lam_probe_blocks *b) {
    lam_free(b->names);
    lam_free(b->rows);
    lam_embeddings_free(b->e);
    lam_table_free(b->obs);
}
