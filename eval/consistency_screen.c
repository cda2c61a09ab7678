#include "eval/consistency_parts.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/memory.h"
#include "eval/signal.h"
#include "eval/where.h"

void lam_screen_free(lam_screen *s) {
    lam_embeddings_free(s->e);
    lam_free(s->codes);
    lam_free(s->names);
    lam_free(s->null);
    lam_free(s->controls);
    lam_free(s->batch);
    lam_free(s->batch_names);
}

/* ---- rows ---- */

/* use [rows]: the rows that --where keeps and whose values (and their length) are finite. */
static lam_status usable_rows(const lam_embeddings *e, const char *expression, const char *path, bool **use) {
    *use = NULL;
    int64_t kept = 0, bad = 0, zero = 0;
    if (expression)
        LAM_TRY(lam_where(e->obs, expression, use));
    else
        LAM_TRY(lam_alloc_array((void **)use, e->rows, sizeof **use));
    for (int64_t i = 0; i < e->rows; i++) {
        if (expression && !(*use)[i]) continue;
        double length = lam_row_length(e->values + i * e->columns, e->columns);
        (*use)[i] = isfinite(length) != 0;
        kept += (*use)[i];
        bad += !(*use)[i];
        zero += length <= 0;
    }
    if (zero)
        lam_log_warning("%s: %lld rows are zero in every column; their cosines count as 0", path,
                        (long long)zero);
    if (kept && bad)
        lam_log_warning("%s: %lld of %lld rows hold values that are not finite; they are left out", path,
                        (long long)bad, (long long)e->rows);
    if (!kept) {
        lam_free(*use);
        *use = NULL;
        LAM_REQUIRE(!bad, LAM_ERROR_INPUT, "%s: every row holds a value that is not finite", path);
        LAM_REQUIRE(!expression, LAM_ERROR_INPUT, "%s: no row is left after --where '%s'", path, expression);
        LAM_FAIL(LAM_ERROR_INPUT, "%s: has no rows", path);
    }
    return LAM_OK;
}

/* Takes the controls out of `use`. */
static lam_status find_controls(lam_screen *s, const char *text, bool *use) {
    bool *controls;
    int64_t count;
    LAM_TRY(lam_alloc_array((void **)&controls, s->e->rows, sizeof *controls));
    lam_status status = lam_where_controls(s->e->obs, text, controls, &count);
    if (status == LAM_OK) status = lam_alloc_array((void **)&s->controls, count, sizeof *s->controls);
    for (int64_t i = 0; i < s->e->rows && status == LAM_OK; i++) {
        if (!use[i] || !controls[i]) continue;
        s->controls[s->control_count++] = i;
        use[i] = false;
    }
    lam_free(controls);
    LAM_TRY(status);
    LAM_REQUIRE(s->control_count > 0, LAM_ERROR_INPUT, "there are no controls: no usable row has %s", text);
    return LAM_OK;
}

/* Perturbations are the values of the --by column that usable rows have, in sorted order. */
static lam_status find_perturbations(lam_screen *s, const char *by, const bool *use) {
    int column;
    int64_t levels, unnamed = 0, *code_of = NULL;
    LAM_TRY(lam_table_require(s->e->obs, by, &column));
    LAM_TRY(lam_table_codes(s->e->obs, column, &s->codes, &s->names, &levels));
    LAM_TRY(lam_alloc_array((void **)&code_of, levels, sizeof *code_of));
    for (int64_t i = 0; i < s->e->rows; i++) {
        bool named = s->names[s->codes[i]][0] != 0;
        unnamed += use[i] && !named;
        if (!use[i] || !named)
            s->codes[i] = -1;
        else
            code_of[s->codes[i]] = 1, s->replicates++;
    }
    for (int64_t k = 0; k < levels; k++) {
        if (!code_of[k]) continue;
        s->names[s->perturbations] = s->names[k];
        code_of[k] = s->perturbations++;
    }
    for (int64_t i = 0; i < s->e->rows; i++)
        if (s->codes[i] >= 0) s->codes[i] = code_of[s->codes[i]];
    lam_free(code_of);
    if (unnamed) lam_log_info("consistency: %lld rows with an empty %s are left out", (long long)unnamed, by);
    LAM_REQUIRE(s->perturbations > 0, LAM_ERROR_INPUT, "every row is a control or has no %s: nothing to test",
                by);
    return LAM_OK;
}

/* ---- null perturbations ---- */

static lam_status null_by_expression(lam_screen *s, const char *expression) {
    bool *inside;
    int64_t *matching = NULL, *all = NULL;
    LAM_TRY(lam_where(s->e->obs, expression, &inside));
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_alloc_array((void **)&matching, s->perturbations, sizeof *matching), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&all, s->perturbations, sizeof *all), done);
    for (int64_t i = 0; i < s->e->rows; i++)
        if (s->codes[i] >= 0) matching[s->codes[i]] += inside[i], all[s->codes[i]]++;
    for (int64_t g = 0; g < s->perturbations; g++) {
        LAM_REQUIRE_GOTO(
            matching[g] == 0 || matching[g] == all[g], done, LAM_ERROR_INPUT,
            "--null-where '%s' holds for %lld of the %lld rows of '%s': it must hold for all rows of a "
            "perturbation or for none",
            expression, (long long)matching[g], (long long)all[g], s->names[g]);
        s->null[g] = matching[g] > 0;
    }
done:
    lam_free(inside);
    lam_free(matching);
    lam_free(all);
    return status;
}

static int by_text(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

/* The names stand in the column called as --by, else in the first. */
static lam_status null_by_table(lam_screen *s, const char *path, const char *by) {
    lam_table *table;
    int64_t found = 0;
    LAM_TRY(lam_table_read(&table, path));
    int column = lam_table_column(table, by) >= 0 ? lam_table_column(table, by) : 0;
    for (int64_t i = 0; i < lam_table_rows(table); i++) {
        const char *name = lam_table_cell(table, i, column);
        const char **at = bsearch(&name, s->names, (size_t)s->perturbations, sizeof *s->names, by_text);
        if (at) s->null[at - s->names] = true, found++;
    }
    if (found < lam_table_rows(table))
        lam_log_info("consistency: %lld of the %lld names of %s are perturbations here", (long long)found,
                     (long long)lam_table_rows(table), path);
    lam_table_free(table);
    return LAM_OK;
}

static lam_status find_nulls(lam_screen *s, const lam_arguments *arguments) {
    const char *expression = lam_option_text(arguments, "null-where"),
               *path = lam_option_text(arguments, "null-genes");
    LAM_TRY(lam_alloc_array((void **)&s->null, s->perturbations, sizeof *s->null));
    if (!expression && !path) return LAM_OK;
    LAM_TRY(expression ? null_by_expression(s, expression)
                       : null_by_table(s, path, lam_option_text(arguments, "by")));
    for (int64_t g = 0; g < s->perturbations; g++) s->nulls += s->null[g];
    LAM_REQUIRE(s->nulls > 0, LAM_ERROR_INPUT, "there are no null perturbations: %s%s names none of the %lld",
                expression ? "--null-where " : "", expression ? expression : path,
                (long long)s->perturbations);
    LAM_REQUIRE(s->nulls < s->perturbations, LAM_ERROR_INPUT,
                "every perturbation is a null perturbation: none is left to test");
    return LAM_OK;
}

lam_status lam_screen_open(const lam_arguments *arguments, lam_screen *s) {
    const char *path = lam_positional(arguments, 0), *batch = lam_option_text(arguments, "batch");
    bool *use = NULL;
    lam_status status = LAM_OK;
    LAM_TRY(lam_embeddings_read(&s->e, path, lam_option_text(arguments, "key"),
                                lam_option_text(arguments, "features")));
    LAM_TRY(lam_embeddings_require_range(s->e, path));
    LAM_TRY(usable_rows(s->e, lam_option_text(arguments, "where"), path, &use));
    LAM_TRY_GOTO(find_controls(s, lam_option_text(arguments, "controls"), use), done);
    LAM_TRY_GOTO(find_perturbations(s, lam_option_text(arguments, "by"), use), done);
    LAM_TRY_GOTO(find_nulls(s, arguments), done);
    if (batch) {
        int column;
        LAM_TRY_GOTO(lam_table_require(s->e->obs, batch, &column), done);
        LAM_TRY_GOTO(lam_table_codes(s->e->obs, column, &s->batch, &s->batch_names, &s->batches), done);
    }
    lam_log_info("consistency: %lld perturbations with %lld rows (%lld of them null), %lld control rows",
                 (long long)s->perturbations, (long long)s->replicates, (long long)s->nulls,
                 (long long)s->control_count);
done:
    lam_free(use);
    return status;
}
