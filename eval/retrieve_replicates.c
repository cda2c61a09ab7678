/* `lamella retrieve --by`: mean average precision of replicates, or of a label. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/memory.h"
#include "eval/retrieve_parts.h"
#include "eval/statistics.h"

#define SIGNIFICANT 0.05

typedef struct replicates {
    const lam_retrieve *r;
    lam_columns by;
    bool against_controls;
    lam_space space;
    lam_column_rule positive, negative;
    bool *queries, *compared;       /* [rows]: not the controls; the controls, or not the controls */
    int64_t *group, groups, *first; /* [rows], [groups] a row of the group */
    lam_row_score *rows;
    lam_group_score *scores;
    double *q;
} replicates;

static void close(replicates *t) {
    lam_space_free(&t->space);
    lam_column_rule_free(&t->positive);
    lam_column_rule_free(&t->negative);
    lam_free(t->queries);
    lam_free(t->compared);
    lam_free(t->group);
    lam_free(t->first);
    lam_free(t->rows);
    lam_free(t->scores);
    lam_free(t->q);
}

/* What --by, --plate and --against say, where an option does not say it itself. */
static lam_status find_rule(const replicates *t, const char *option, const lam_columns *usual,
                            lam_columns *out) {
    const lam_arguments *a = t->r->arguments;
    *out = *usual;
    return lam_option_given(a, option)
               ? lam_columns_find(t->r->e->obs, option, lam_option_text(a, option), out)
               : LAM_OK;
}

static lam_status make_rules(replicates *t) {
    const lam_table *obs = t->r->e->obs;
    const lam_columns none = {.count = 0};
    lam_columns plate, same, different, negative_same, negative_different;
    LAM_TRY(lam_columns_find(obs, "plate", lam_option_text(t->r->arguments, "plate"), &plate));
    LAM_TRY(find_rule(t, "positive-same", &t->by, &same));
    LAM_TRY(find_rule(t, "positive-different", &plate, &different));
    LAM_TRY(find_rule(t, "negative-same", t->against_controls ? &plate : &none, &negative_same));
    LAM_TRY(find_rule(t, "negative-different", t->against_controls ? &none : &t->by, &negative_different));
    LAM_REQUIRE(
        !lam_columns_share(&same, &different), LAM_ERROR_USAGE,
        "retrieve: a column is in both --positive-same and --positive-different (where --plate is): no row is a positive");
    LAM_REQUIRE(
        !lam_columns_share(&negative_same, &negative_different), LAM_ERROR_USAGE,
        "retrieve: a column is in both --negative-same and --negative-different (where --by is): no row is a negative");
    LAM_REQUIRE(
        t->against_controls || lam_columns_share(&same, &negative_different) ||
            lam_columns_share(&different, &negative_same),
        LAM_ERROR_USAGE,
        "retrieve: a row could be positive and negative at once: name a column of --positive-same in --negative-different too");
    LAM_TRY(lam_column_rule_make(&t->positive, obs, &same, &different));
    return lam_column_rule_make(&t->negative, obs, &negative_same, &negative_different);
}

static lam_status make_roles(replicates *t) {
    const lam_retrieve *r = t->r;
    LAM_TRY(lam_alloc_array((void **)&t->queries, r->e->rows, sizeof *t->queries));
    LAM_TRY(lam_alloc_array((void **)&t->compared, r->e->rows, sizeof *t->compared));
    for (int64_t i = 0; i < r->e->rows; i++) {
        t->queries[i] = t->space.usable[i] && !r->controls[i];
        t->compared[i] = t->space.usable[i] && r->controls[i] == t->against_controls;
    }
    t->positive.rule.queries = t->negative.rule.queries = t->queries;
    t->positive.rule.candidates = t->queries; /* controls are no replicates of each other */
    t->negative.rule.candidates = t->compared;
    return LAM_OK;
}

static lam_status score(replicates *t) {
    const lam_retrieve *r = t->r;
    int64_t scored = 0;
    LAM_TRY(lam_alloc_array((void **)&t->rows, r->e->rows, sizeof *t->rows));
    LAM_TRY(lam_average_precision_rows(&t->space.u, &t->positive.rule, &t->negative.rule, r->ties, t->rows));
    LAM_TRY(lam_rule_codes(r->e->obs, t->by.at, t->by.count, &t->group, &t->groups));
    LAM_TRY(lam_alloc_array((void **)&t->first, t->groups, sizeof *t->first));
    LAM_TRY(lam_alloc_array((void **)&t->scores, t->groups, sizeof *t->scores));
    LAM_TRY(lam_alloc_array((void **)&t->q, t->groups, sizeof *t->q));
    for (int64_t g = 0; g < t->groups; g++) t->first[g] = -1; /* stays where a group is of controls alone */
    for (int64_t i = r->e->rows - 1; i >= 0; i--) {
        scored += t->group[i] >= 0 && !isnan(t->rows[i].average_precision);
        if (t->group[i] >= 0 && !r->controls[i]) t->first[t->group[i]] = i;
    }
    LAM_REQUIRE(
        scored, LAM_ERROR_INPUT,
        "%s: no row has both a positive and a negative: of each --by value two rows are needed (on two plates with --plate)%s",
        r->path, t->against_controls ? ", and controls on their plate" : ", and of --by two values");
    LAM_TRY(lam_average_precision_groups(t->rows, t->group, r->e->rows, t->groups,
                                         lam_option_int(r->arguments, "permutations"), r->seed, t->scores));
    for (int64_t g = 0; g < t->groups; g++) t->q[g] = t->scores[g].p;
    return lam_benjamini_hochberg(t->q, t->groups, t->q);
}

/* ---- results ---- */

static lam_status add_columns(lam_table *table, const lam_retrieve *r, const lam_columns *by, int count,
                              const char *const *names) {
    for (int k = 0; k < by->count; k++)
        LAM_TRY(lam_table_add(table, lam_table_name(r->e->obs, by->at[k]), NULL));
    for (int k = 0; k < count; k++) LAM_TRY(lam_table_add(table, names[k], NULL));
    return LAM_OK;
}

static lam_status write_rows(const replicates *t) {
    static const char *const names[] = {"average_precision", "positives", "negatives"};
    const lam_retrieve *r = t->r;
    int64_t count = 0;
    lam_table *table;
    for (int64_t i = 0; i < r->e->rows; i++) count += t->queries[i];
    LAM_TRY(lam_table_create(&table, count));
    lam_status status = lam_table_add(table, "profile", NULL);
    if (status == LAM_OK) status = add_columns(table, r, &t->by, 3, names);
    for (int64_t i = 0, row = 0; i < r->e->rows && status == LAM_OK; i++) {
        if (!t->queries[i]) continue;
        int column = 0;
        LAM_TRY_GOTO(lam_table_set(table, row, column++, r->e->index[i]), done);
        for (int k = 0; k < t->by.count; k++)
            LAM_TRY_GOTO(lam_table_set(table, row, column++, lam_table_cell(r->e->obs, i, t->by.at[k])),
                         done);
        LAM_TRY_GOTO(lam_result_number(table, row, column++, t->rows[i].average_precision), done);
        LAM_TRY_GOTO(lam_result_count(table, row, column++, t->rows[i].positives), done);
        LAM_TRY_GOTO(lam_result_count(table, row++, column++, t->rows[i].negatives), done);
    }
    if (status == LAM_OK) lam_results_add(r->results, "average_precision.csv", &table);
done:
    lam_table_free(table);
    return status;
}

/* Means of the scored groups, and shares of those with a small p or q. */
typedef struct summary {
    int64_t groups, rows;
    double mean, chance, share_p, share_q;
} summary;

static summary summarise(const replicates *t) {
    summary s = {0};
    for (int64_t g = 0; g < t->groups; g++) {
        if (!t->scores[g].rows) continue;
        s.groups++;
        s.rows += t->scores[g].rows;
        s.mean += t->scores[g].mean;
        s.chance += t->scores[g].chance;
        s.share_p += t->scores[g].p <= SIGNIFICANT;
        s.share_q += t->q[g] <= SIGNIFICANT;
    }
    double n = (double)s.groups;
    s.mean /= n, s.chance /= n, s.share_p /= n, s.share_q /= n;
    return s;
}

static lam_status write_numbers(lam_table *table, int64_t row, int column, int64_t rows, double mean,
                                double chance, double p, double q) {
    LAM_TRY(lam_result_count(table, row, column, rows));
    LAM_TRY(lam_result_number(table, row, column + 1, mean));
    LAM_TRY(lam_result_number(table, row, column + 2, chance));
    LAM_TRY(lam_result_number(table, row, column + 3, p));
    return lam_result_number(table, row, column + 4, q);
}

static lam_status write_groups(const replicates *t, const summary *s) {
    static const char *const names[] = {"rows", "mean_average_precision", "chance", "p", "q"};
    const lam_retrieve *r = t->r;
    int64_t count = 0, row = 0;
    int column = t->by.count;
    lam_table *table;
    for (int64_t g = 0; g < t->groups; g++) count += t->first[g] >= 0;
    LAM_TRY(lam_table_create(&table, count + 1));
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(add_columns(table, r, &t->by, 5, names), done);
    for (int64_t g = 0; g < t->groups; g++) {
        const lam_group_score *one = &t->scores[g];
        if (t->first[g] < 0) continue;
        for (int k = 0; k < t->by.count; k++)
            LAM_TRY_GOTO(lam_table_set(table, row, k, lam_table_cell(r->e->obs, t->first[g], t->by.at[k])),
                         done);
        LAM_TRY_GOTO(write_numbers(table, row++, column, one->rows, one->mean, one->chance, one->p, t->q[g]),
                     done);
    }
    LAM_TRY_GOTO(lam_table_set(table, row, 0, "summary"), done);
    LAM_TRY_GOTO(write_numbers(table, row, column, s->rows, s->mean, s->chance, s->share_p, s->share_q),
                 done);
    lam_results_add(r->results, "scores.csv", &table);
done:
    lam_table_free(table);
    return status;
}

static lam_status report(const replicates *t, lam_json *result) {
    summary s = summarise(t);
    LAM_TRY(write_rows(t));
    LAM_TRY(write_groups(t, &s));
    lam_log_info(
        "retrieve: mean average precision %.4f (chance %.4f) of %lld values of --by, p <= 0.05 in %.1f %%, q <= 0.05 in %.1f %%",
        s.mean, s.chance, (long long)s.groups, 100 * s.share_p, 100 * s.share_q);
    lam_json_set_float(result, "mean_average_precision", s.mean);
    lam_json_set_float(result, "chance", s.chance);
    lam_json_set_int(result, "groups", s.groups);
    lam_json_set_int(result, "rows", s.rows);
    lam_json_set_float(result, "share_p_0.05", s.share_p);
    lam_json_set_float(result, "share_q_0.05", s.share_q);
    return LAM_OK;
}

lam_status lam_retrieve_replicates(const lam_retrieve *r, lam_json *result) {
    const char *against = lam_option_text(r->arguments, "against");
    bool controls = lam_option_text(r->arguments, "controls") != NULL;
    replicates t = {.r = r, .against_controls = against ? !strcmp(against, "controls") : controls};
    LAM_REQUIRE(controls || !t.against_controls, LAM_ERROR_USAGE,
                "retrieve: --against controls needs --controls 'column=value'");
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_columns_find(r->e->obs, "by", lam_option_text(r->arguments, "by"), &t.by), done);
    LAM_REQUIRE_GOTO(t.by.count, done, LAM_ERROR_USAGE, "retrieve: --by is empty: name a column");
    LAM_TRY_GOTO(make_rules(&t), done);
    LAM_TRY_GOTO(lam_space_make(&t.space, r->e, r->centred), done);
    LAM_TRY_GOTO(make_roles(&t), done);
    LAM_TRY_GOTO(score(&t), done);
    LAM_TRY_GOTO(report(&t, result), done);
done:
    close(&t);
    return status;
}
