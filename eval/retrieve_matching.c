/* `lamella retrieve --match`: the label of the nearest profile of another compound (and batch). */
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/memory.h"
#include "eval/matching.h"
#include "eval/retrieve_parts.h"

typedef struct matching {
    const lam_retrieve *r;
    const lam_embeddings *e; /* rows as given, or merged */
    lam_embeddings *merged;
    bool *labelled; /* [rows] */
    int column;     /* of the label */
    lam_columns not_same, treatment;
    lam_column_rule rule;
    lam_space space;
    int64_t *label, classes, asked, right;
    const char **classes_names;
    lam_neighbour *nearest;
} matching;

static void close(matching *t) {
    lam_embeddings_free(t->merged);
    lam_free(t->labelled);
    lam_column_rule_free(&t->rule);
    lam_space_free(&t->space);
    lam_free(t->label);
    lam_free(t->classes_names);
    lam_free(t->nearest);
}

/* Wells of one treatment become one profile; controls, wells without a treatment and such as are not finite are left out. */
static lam_status merge(matching *t) {
    const lam_embeddings *e = t->r->e;
    int64_t *codes, levels = 0, kept = 0;
    LAM_TRY(lam_rule_codes(e->obs, t->treatment.at, t->treatment.count, &codes, &levels));
    lam_status status = LAM_OK;
    int64_t *seen = NULL;
    LAM_TRY_GOTO(lam_alloc_array((void **)&seen, levels, sizeof *seen), done);
    for (int64_t i = 0; i < e->rows; i++) {
        if (t->r->controls[i] || !lam_row_is_finite(e, i)) codes[i] = -1;
        if (codes[i] >= 0) seen[codes[i]] = 1;
    }
    for (int64_t g = 0; g < levels; g++) kept += seen[g], seen[g] = kept - 1;
    for (int64_t i = 0; i < e->rows; i++)
        if (codes[i] >= 0) codes[i] = seen[codes[i]];
    LAM_REQUIRE_GOTO(kept, done, LAM_ERROR_INPUT, "%s: no row has a treatment", t->r->path);
    const char *aggregate = lam_option_text(t->r->arguments, "aggregate");
    LAM_TRY_GOTO(lam_rows_merge(e, codes, kept, !strcmp(aggregate, "median"), &t->merged), done);
    t->e = t->merged;
done:
    lam_free(seen);
    lam_free(codes);
    return status;
}

static lam_status match(matching *t) {
    const lam_columns none = {.count = 0};
    int64_t rows = t->e->rows, labelled = 0;
    LAM_TRY(lam_column_rule_make(&t->rule, t->e->obs, &none, &t->not_same));
    LAM_TRY(lam_space_make(&t->space, t->e, t->r->centred));
    LAM_TRY(lam_table_codes(t->e->obs, t->column, &t->label, &t->classes_names, &t->classes));
    LAM_TRY(lam_alloc_array((void **)&t->labelled, rows, sizeof *t->labelled));
    LAM_TRY(lam_alloc_array((void **)&t->nearest, rows, sizeof *t->nearest));
    for (int64_t i = 0; i < rows; i++) {
        bool control = !t->merged && t->r->controls[i];
        t->labelled[i] = t->space.usable[i] && !control && *lam_table_cell(t->e->obs, i, t->column);
        labelled += t->labelled[i];
    }
    t->rule.rule.queries = t->rule.rule.candidates = t->labelled;
    LAM_TRY(lam_match_nearest(&t->space.u, &t->rule.rule, t->label, t->nearest));
    for (int64_t i = 0; i < rows; i++) {
        if (t->nearest[i].row < 0) continue;
        t->asked++;
        t->right += t->label[i] == t->label[t->nearest[i].row];
    }
    LAM_REQUIRE(t->asked, LAM_ERROR_INPUT,
                "%s: no profile has a neighbour that differs in all of --not-same and has a label",
                t->r->path);
    if (t->asked < labelled)
        lam_log_info(
            "retrieve: %lld of %lld labelled profiles have no neighbour that differs in all of --not-same; they do not count",
            (long long)(labelled - t->asked), (long long)labelled);
    return LAM_OK;
}

/* ---- results ---- */

/* What a reader knows a profile by: the cells of its treatment, or its index. */
static lam_status name_of(const matching *t, int64_t row, char **out) {
    LAM_TRY(lam_text_copy(out, t->merged ? "" : t->e->index[row]));
    for (int k = 0; t->merged && k < t->treatment.count; k++) {
        char *longer = NULL;
        lam_status status = lam_text_format(&longer, "%s%s%s", *out, k ? " " : "",
                                            lam_table_cell(t->e->obs, row, t->treatment.at[k]));
        lam_free(*out);
        *out = longer;
        LAM_TRY(status);
    }
    return LAM_OK;
}

static lam_status set_name(const matching *t, lam_table *table, int64_t row, int column, int64_t profile) {
    char *name;
    LAM_TRY(name_of(t, profile, &name));
    lam_status status = lam_table_set(table, row, column, name);
    lam_free(name);
    return status;
}

static lam_status write_matching(const matching *t) {
    static const char *const names[] = {"profile",       "label",  "nearest_profile",
                                        "nearest_label", "cosine", "same"};
    lam_table *table;
    LAM_TRY(lam_table_create(&table, t->asked));
    lam_status status = LAM_OK;
    for (int k = 0; k < 6; k++) LAM_TRY_GOTO(lam_table_add(table, names[k], NULL), done);
    for (int64_t i = 0, row = 0; i < t->e->rows; i++) {
        int64_t j = t->nearest[i].row;
        if (j < 0) continue;
        LAM_TRY_GOTO(set_name(t, table, row, 0, i), done);
        LAM_TRY_GOTO(lam_table_set(table, row, 1, t->classes_names[t->label[i]]), done);
        LAM_TRY_GOTO(set_name(t, table, row, 2, j), done);
        LAM_TRY_GOTO(lam_table_set(table, row, 3, t->classes_names[t->label[j]]), done);
        LAM_TRY_GOTO(lam_result_number(table, row, 4, t->nearest[i].cosine), done);
        LAM_TRY_GOTO(lam_result_count(table, row++, 5, t->label[i] == t->label[j]), done);
    }
    lam_results_add(t->r->results, "matching.csv", &table);
done:
    lam_table_free(table);
    return status;
}

/* Rows: the label; columns: the label of the nearest. Labels that no asked profile has, and nobody is nearest with, are
 * left out. */
static lam_status write_confusion(const matching *t) {
    int64_t *counts = NULL, *place = NULL, shown = 0;
    const char **names = NULL;
    lam_table *table = NULL;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_alloc_array((void **)&place, t->classes, sizeof *place), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&names, t->classes, sizeof *names), done);
    for (int64_t i = 0; i < t->e->rows; i++)
        if (t->nearest[i].row >= 0) place[t->label[i]] = place[t->label[t->nearest[i].row]] = 1;
    for (int64_t k = 0; k < t->classes; k++) {
        if (!place[k]) continue;
        names[shown] = t->classes_names[k];
        place[k] = shown++;
    }
    LAM_TRY_GOTO(lam_alloc_array((void **)&counts, shown * shown, sizeof *counts), done);
    for (int64_t i = 0; i < t->e->rows; i++)
        if (t->nearest[i].row >= 0) counts[place[t->label[i]] * shown + place[t->label[t->nearest[i].row]]]++;
    LAM_TRY_GOTO(lam_table_create(&table, shown), done);
    LAM_TRY_GOTO(lam_table_add(table, "label", names), done);
    for (int64_t k = 0; k < shown; k++) {
        LAM_TRY_GOTO(lam_table_add(table, names[k], NULL), done);
        for (int64_t l = 0; l < shown; l++)
            LAM_TRY_GOTO(lam_result_count(table, l, (int)k + 1, counts[l * shown + k]), done);
    }
    lam_results_add(t->r->results, "confusion.csv", &table);
done:
    lam_table_free(table);
    lam_free(counts);
    lam_free(place);
    lam_free(names);
    return status;
}

lam_status lam_retrieve_matching(const lam_retrieve *r, lam_json *result) {
    const lam_arguments *a = r->arguments;
    const lam_table *obs = r->e->obs;
    matching t = {.r = r, .e = r->e};
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_table_require(obs, lam_option_text(a, "match"), &t.column), done);
    LAM_TRY_GOTO(lam_columns_find(obs, "not-same", lam_option_text(a, "not-same"), &t.not_same), done);
    LAM_TRY_GOTO(lam_columns_find(obs, "treatment", lam_option_text(a, "treatment"), &t.treatment), done);
    if (t.treatment.count) LAM_TRY_GOTO(merge(&t), done);
    LAM_TRY_GOTO(match(&t), done);
    LAM_TRY_GOTO(write_matching(&t), done);
    LAM_TRY_GOTO(write_confusion(&t), done);
    double accuracy = (double)t.right / (double)t.asked;
    lam_log_info("retrieve: %lld of %lld profiles (%.4f) lie nearest to one of their label",
                 (long long)t.right, (long long)t.asked, accuracy);
    lam_json *record = lam_json_object();
    lam_json_set_float(record, "accuracy", accuracy);
    lam_json_set_int(record, "right", t.right);
    lam_json_set_int(record, "profiles", t.asked);
    lam_json_set(result, "matching", record);
done:
    close(&t);
    return status;
}
