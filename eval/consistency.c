/* `lamella consistency`: which perturbations leave a signal, by the agreement of their replicates and their distance from controls. */
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/files.h"
#include "base/json.h"
#include "base/log.h"
#include "base/memory.h"
#include "eval/commands.h"
#include "eval/consistency_parts.h"
#include "eval/energy.h"
#include "eval/signal.h"
#include "eval/statistics.h"

#define LEVEL 0.05             /* of p and q that counts as significant */
#define MAGNITUDE_REPLICATES 5 /* fewer: no magnitude */
#define SHUFFLE_REPLICATES 10  /* fewer: no label shuffle as published */

typedef struct settings {
    lam_consistency_measure measure;
    bool null_named;         /* null perturbations */
    bool null_used;          /* by the consistency: else permutations */
    bool label_shuffle;      /* of the magnitude: else null perturbations */
    int64_t shuffle_minimum; /* replicates */
    int64_t permutations;
    uint64_t seed;
} settings;

/* One metric of all perturbations. */
typedef struct metric {
    const char *name, *label; /* of columns; of log lines */
    int64_t minimum;          /* replicates that a p value needs */
    double *value, *p, *q;
    int64_t tested, below_p, below_q; /* of the perturbations with a p value */
    int64_t null_size;                /* null perturbations with a value, or draws */
    double mean;                      /* of the perturbations that are not null */
    bool as_published;                /* p is k / n */
} metric;

static void metric_free(metric *m) {
    lam_free(m->value);
    lam_free(m->p);
    lam_free(m->q);
}

/* ---- options ---- */

static lam_status read_settings(const lam_arguments *arguments, settings *s) {
    const char *null_where = lam_option_text(arguments, "null-where"),
               *null_genes = lam_option_text(arguments, "null-genes"),
               *magnitude = lam_option_text(arguments, "magnitude-null");
    bool angular = !strcmp(lam_option_text(arguments, "method"), "angular");
    LAM_REQUIRE(!null_where || !null_genes, LAM_ERROR_USAGE,
                "consistency: --null-where and --null-genes both name the null perturbations: give one");
    *s = (settings){.measure = angular ? LAM_CONSISTENCY_ANGLE : LAM_CONSISTENCY_COSINE,
                    .null_named = null_where || null_genes,
                    .permutations = lam_option_int(arguments, "permutations"),
                    .seed = (uint64_t)lam_option_int(arguments, "seed")};
    s->null_used = s->null_named && !angular;
    s->shuffle_minimum = magnitude ? SHUFFLE_REPLICATES : MAGNITUDE_REPLICATES;
    s->label_shuffle = magnitude ? !strcmp(magnitude, "label-shuffle") : !s->null_named;
    LAM_REQUIRE(s->null_named || s->label_shuffle, LAM_ERROR_USAGE,
                "consistency: --magnitude-null perturbations needs --null-where or --null-genes");
    LAM_REQUIRE(
        !s->null_named || s->null_used || !s->label_shuffle, LAM_ERROR_USAGE,
        "consistency: with --method angular and --magnitude-null label-shuffle nothing is compared with the null "
        "perturbations: leave out --null-where and --null-genes");
    LAM_REQUIRE(
        !lam_option_text(arguments, "batch") || !s->null_used, LAM_ERROR_USAGE,
        "consistency: --batch belongs to the permutation null: --method angular, or no null perturbations");
    return LAM_OK;
}

/* ---- tests ---- */

static lam_status metric_make(metric *m, const char *name, const char *label, int64_t minimum,
                              int64_t count) {
    m->name = name;
    m->label = label;
    m->minimum = minimum;
    LAM_TRY(lam_alloc_array((void **)&m->value, count, sizeof(double)));
    LAM_TRY(lam_alloc_array((void **)&m->p, count, sizeof(double)));
    return lam_alloc_array((void **)&m->q, count, sizeof(double));
}

/* p of every perturbation against those of the null. */
static lam_status against_null(metric *m, const lam_screen *s, bool right) {
    double *null;
    int64_t count = 0;
    LAM_TRY(lam_alloc_array((void **)&null, s->nulls, sizeof *null));
    for (int64_t g = 0; g < s->perturbations; g++)
        if (s->null[g]) null[count++] = m->value[g];
    m->as_published = true;
    lam_status status = lam_null_p(null, count, m->value, s->perturbations, right, m->p, &m->null_size);
    if (m->null_size && 1 / (1 + (double)m->null_size) > LEVEL)
        lam_log_warning("with %lld null perturbations no q value of %s can reach %g: name more",
                        (long long)m->null_size, m->label, LEVEL);
    if (m->null_size < count)
        lam_log_info(
            "consistency: %lld of %lld null perturbations have too few replicates for %s and are left "
            "out of its null",
            (long long)(count - m->null_size), (long long)count, m->label);
    lam_free(null);
    return status;
}

static lam_status finish_metric(metric *m, const lam_screen *s) {
    int64_t valued = 0;
    for (int64_t g = 0; g < s->perturbations; g++)
        if (s->null[g] || isnan(m->value[g])) m->p[g] = (double)NAN; /* null ones are what is compared with */
    /* EFAAR's p = k / n may be 0, which no number of tests would correct: q is of (1 + k) / (1 + n). */
    double n = (double)m->null_size;
    for (int64_t g = 0; g < s->perturbations; g++)
        m->q[g] = m->as_published ? (1 + m->p[g] * n) / (1 + n) : m->p[g];
    LAM_TRY(lam_benjamini_hochberg(m->q, s->perturbations, m->q));
    for (int64_t g = 0; g < s->perturbations; g++) {
        if (!s->null[g] && !isnan(m->value[g])) m->mean += m->value[g], valued++;
        if (isnan(m->p[g])) continue;
        m->tested++;
        m->below_p += m->p[g] <= LEVEL;
        m->below_q += m->q[g] <= LEVEL;
    }
    m->mean = valued ? m->mean / (double)valued : (double)NAN;
    if (!m->tested) {
        lam_log_warning("no %sperturbation has the %lld replicates that p values of %s need",
                        m->null_size ? "" : "null ", (long long)m->minimum, m->label);
        return LAM_OK;
    }
    lam_log_info(
        "consistency: %s: p <= %g for %lld of %lld perturbations (%.1f %%), q <= %g for %lld (%.1f %%)",
        m->label, LEVEL, (long long)m->below_p, (long long)m->tested,
        100 * (double)m->below_p / (double)m->tested, LEVEL, (long long)m->below_q,
        100 * (double)m->below_q / (double)m->tested);
    return LAM_OK;
}

static lam_status test_consistency(const lam_screen *s, const settings *how, const lam_replicates *r,
                                   metric *m) {
    LAM_TRY(metric_make(m, "consistency", "replicate consistency", 2, s->perturbations));
    LAM_TRY(lam_consistency(r, how->measure, m->value));
    if (how->null_used) {
        LAM_TRY(against_null(m, s, false));
        LAM_REQUIRE(
            m->null_size > 0, LAM_ERROR_INPUT,
            "none of the %lld null perturbations has two replicates: there is no null to compare with",
            (long long)s->nulls);
    } else {
        m->null_size = how->permutations;
        m->as_published = how->measure == LAM_CONSISTENCY_ANGLE;
        LAM_TRY(lam_consistency_permutation(r, how->measure, s->batch, s->batches, how->permutations,
                                            how->seed, m->value, m->p));
    }
    return finish_metric(m, s);
}

static lam_status test_magnitude(const lam_screen *s, const settings *how, const lam_replicates *r,
                                 int64_t *controls_used, metric *m) {
    int64_t controls[LAM_ENERGY_ROWS];
    LAM_TRY(metric_make(m, "magnitude", "magnitude",
                        how->label_shuffle ? how->shuffle_minimum : MAGNITUDE_REPLICATES, s->perturbations));
    LAM_TRY(lam_energy_sample(s->controls, s->control_count, how->seed, controls, controls_used));
    LAM_TRY(lam_energy_distances(r, controls, *controls_used, MAGNITUDE_REPLICATES, m->value));
    if (how->label_shuffle) {
        m->null_size = how->permutations;
        LAM_TRY(lam_energy_shuffle(r, controls, *controls_used, how->shuffle_minimum, how->permutations,
                                   how->seed, m->p));
    } else {
        LAM_TRY(against_null(m, s, true));
    }
    return finish_metric(m, s);
}

/* Replicate against non-replicate cosines over the whole screen. Pairs share rows, so the p values are nominal; the statistics are
 * what models are compared by. */
typedef struct contrast {
    int64_t same, different;
    lam_test_result ks, cvm;
} contrast;

static lam_status test_cosines(const lam_replicates *r, uint64_t seed, contrast *c) {
    double *same, *different;
    lam_status status = lam_pair_cosines(r, seed, &same, &c->same, &different, &c->different);
    LAM_TRY_GOTO(status, done);
    LAM_TRY_GOTO(lam_ks_two_sample(same, c->same, different, c->different, LAM_P_AUTO, &c->ks), done);
    LAM_TRY_GOTO(lam_cvm_two_sample(same, c->same, different, c->different, LAM_P_AUTO, &c->cvm), done);
    if (isnan(c->cvm.statistic))
        lam_log_warning(
            "the cosines of replicates are not compared: %lld pairs of replicates, %lld other pairs",
            (long long)c->same, (long long)c->different);
    else
        lam_log_info(
            "consistency: cosines of %lld replicate pairs against %lld others: Kolmogorov-Smirnov %.4f, "
            "Cramer-von Mises %.4g",
            (long long)c->same, (long long)c->different, c->ks.statistic, c->cvm.statistic);
done:
    lam_free(same);
    lam_free(different);
    return status;
}

/* ---- results ---- */

static double share(int64_t part, int64_t of) { return of ? (double)part / (double)of : (double)NAN; }

static lam_status write_number(lam_writer *writer, double value) {
    return isnan(value) ? lam_writer_printf(writer, ",nan") : lam_writer_printf(writer, ",%.17g", value);
}

static lam_status write_name(lam_writer *writer, const char *name) {
    LAM_TRY(lam_writer_append(writer, "\"", 1));
    for (const char *c = name; *c; c++) LAM_TRY(lam_writer_printf(writer, *c == '"' ? "\"\"" : "%c", *c));
    return lam_writer_append(writer, "\"", 1);
}

/* One row a perturbation; the row `summary` holds means of the values and shares of p and q at most LEVEL. */
static lam_status write_table(const lam_screen *s, const lam_replicates *r, const metric *metrics,
                              const char *out) {
    char *path;
    LAM_TRY(lam_path_join(&path, out, "consistency.csv"));
    lam_writer *writer = NULL;
    lam_status status = lam_writer_open(&writer, path);
    lam_free(path);
    LAM_TRY(status);
    LAM_TRY_GOTO(lam_writer_printf(writer, "perturbation,replicates,consistency,consistency_p,consistency_q,"
                                           "magnitude,magnitude_p,magnitude_q\n"),
                 done);
    for (int64_t g = 0; g < s->perturbations; g++) {
        LAM_TRY_GOTO(write_name(writer, s->names[g]), done);
        LAM_TRY_GOTO(lam_writer_printf(writer, ",%lld", (long long)(r->start[g + 1] - r->start[g])), done);
        for (int k = 0; k < 2; k++) {
            LAM_TRY_GOTO(write_number(writer, metrics[k].value[g]), done);
            LAM_TRY_GOTO(write_number(writer, metrics[k].p[g]), done);
            LAM_TRY_GOTO(write_number(writer, metrics[k].q[g]), done);
        }
        LAM_TRY_GOTO(lam_writer_append(writer, "\n", 1), done);
    }
    LAM_TRY_GOTO(lam_writer_printf(writer, "summary,%lld", (long long)s->replicates), done);
    for (int k = 0; k < 2; k++) {
        LAM_TRY_GOTO(write_number(writer, metrics[k].mean), done);
        LAM_TRY_GOTO(write_number(writer, share(metrics[k].below_p, metrics[k].tested)), done);
        LAM_TRY_GOTO(write_number(writer, share(metrics[k].below_q, metrics[k].tested)), done);
    }
    LAM_TRY_GOTO(lam_writer_append(writer, "\n", 1), done);
    status = lam_writer_commit(&writer);
done:
    lam_writer_abort(&writer);
    return status;
}

static lam_json *metric_json(const metric *m, const char *measure, const char *null) {
    lam_json *j = lam_json_object();
    lam_json_set_text(j, "measure", measure);
    lam_json_set_text(j, "null", null);
    lam_json_set_int(j, "null_size", m->null_size);
    lam_json_set_float(j, "mean", m->mean);
    lam_json_set_int(j, "tested", m->tested);
    lam_json_set_int(j, "p_at_most_0.05", m->below_p);
    lam_json_set_float(j, "share_p_at_most_0.05", share(m->below_p, m->tested));
    lam_json_set_int(j, "q_at_most_0.05", m->below_q);
    lam_json_set_float(j, "share_q_at_most_0.05", share(m->below_q, m->tested));
    return j;
}

static lam_json *summary_json(const lam_screen *s, const settings *how, const metric *metrics,
                              const contrast *c, int64_t controls_used) {
    lam_json *j = lam_json_object(), *cosines = lam_json_object();
    lam_json_set_int(j, "perturbations", s->perturbations);
    lam_json_set_int(j, "null_perturbations", s->nulls);
    lam_json_set_int(j, "replicates", s->replicates);
    lam_json_set_int(j, "controls", s->control_count);
    lam_json_set_int(j, "controls_compared", controls_used);
    lam_json_set(j, "consistency",
                 metric_json(&metrics[0],
                             how->measure == LAM_CONSISTENCY_ANGLE ? "mean angle" : "mean cosine",
                             how->null_used ? "null perturbations" : "permutations"));
    lam_json_set(j, "magnitude",
                 metric_json(&metrics[1], "energy distance",
                             how->label_shuffle ? "label shuffle" : "null perturbations"));
    lam_json_set_int(cosines, "replicate_pairs", c->same);
    lam_json_set_int(cosines, "other_pairs", c->different);
    lam_json_set_float(cosines, "kolmogorov_smirnov", c->ks.statistic);
    lam_json_set_float(cosines, "kolmogorov_smirnov_p", c->ks.p);
    lam_json_set_float(cosines, "cramer_von_mises", c->cvm.statistic);
    lam_json_set_float(cosines, "cramer_von_mises_p", c->cvm.p);
    lam_json_set(j, "replicate_cosines", cosines);
    return j;
}

static void append_rows(lam_json *j, const lam_screen *s, const lam_replicates *r, const metric *metrics) {
    lam_json *rows = lam_json_array();
    for (int64_t g = 0; g < s->perturbations; g++) {
        lam_json *row = lam_json_object();
        lam_json_set_text(row, "perturbation", s->names[g]);
        lam_json_set_int(row, "replicates", r->start[g + 1] - r->start[g]);
        for (int k = 0; k < 2; k++) {
            char key[32];
            lam_json_set_float(row, metrics[k].name, metrics[k].value[g]);
            snprintf(key, sizeof key, "%s_p", metrics[k].name);
            lam_json_set_float(row, key, metrics[k].p[g]);
            snprintf(key, sizeof key, "%s_q", metrics[k].name);
            lam_json_set_float(row, key, metrics[k].q[g]);
        }
        lam_json_append(rows, row);
    }
    lam_json_set(j, "rows", rows);
}

static lam_status write_summary(lam_json *j, const char *out) {
    char *path, *text = NULL;
    LAM_TRY(lam_path_join(&path, out, "summary.json"));
    lam_status status = lam_json_dump(j, true, &text);
    if (status == LAM_OK) status = lam_file_write(path, text, strlen(text));
    lam_free(text);
    lam_free(path);
    return status;
}

/* ---- the command ---- */

static lam_status score(const lam_arguments *arguments, const settings *how, const lam_screen *s) {
    const char *out = lam_option_text(arguments, "out");
    lam_replicates r = {0};
    metric metrics[2] = {{0}};
    contrast c = {0};
    int64_t controls_used = 0;
    lam_json *j = NULL;
    char *text = NULL;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_replicates_make(&r, s->e->values, s->e->rows, s->e->columns, s->codes, s->perturbations),
                 done);
    LAM_TRY_GOTO(test_consistency(s, how, &r, &metrics[0]), done);
    LAM_TRY_GOTO(test_magnitude(s, how, &r, &controls_used, &metrics[1]), done);
    LAM_TRY_GOTO(test_cosines(&r, how->seed, &c), done);
    LAM_TRY_GOTO(lam_make_folders(out), done);
    LAM_TRY_GOTO(write_table(s, &r, metrics, out), done);
    j = summary_json(s, how, metrics, &c, controls_used);
    LAM_TRY_GOTO(write_summary(j, out), done);
    if (lam_option_json(arguments)) {
        append_rows(j, s, &r, metrics);
        LAM_TRY_GOTO(lam_json_dump(j, false, &text), done);
        printf("%s\n", text);
    }
done:
    lam_free(text);
    lam_json_free(j);
    for (int k = 0; k < 2; k++) metric_free(&metrics[k]);
    lam_replicates_free(&r);
    return status;
}

static lam_status run(const lam_arguments *arguments) {
    settings how;
    lam_screen s = {0};
    LAM_TRY(read_settings(arguments, &how));
    LAM_TRY(lam_require_new_folder(lam_option_text(arguments, "out"), lam_option_force(arguments)));
    lam_status status = lam_screen_open(arguments, &s);
    if (status == LAM_OK) status = score(arguments, &how, &s);
    lam_screen_free(&s);
    return status;
}

static const lam_option options[] = {
    {"by", LAM_OPTION_TEXT, "COLUMN", NULL, "rows of one value are replicates of a perturbation", 0, 0, true},
    {"controls", LAM_OPTION_TEXT, "COLUMN=VALUE", NULL,
     "rows that magnitude is measured from (1,000 of them, by --seed); no perturbation", 0, 0, true},
    {"out", LAM_OPTION_TEXT, "DIR", NULL,
     "folder for consistency.csv (row summary: means, shares of p and q <= 0.05) and summary.json", 0, 0,
     true},
    {"where", LAM_OPTION_TEXT, "EXPR", NULL, "rows that stay, as of lamella map", 0, 0, false},
    {"null-where", LAM_OPTION_TEXT, "EXPR", NULL,
     "null perturbations: those whose rows all satisfy it, e.g. 'expression < -3'", 0, 0, false},
    {"null-genes", LAM_OPTION_TEXT, "TABLE", NULL,
     "null perturbations by name: column --by of a table, else its first", 0, 0, false},
    {"method", LAM_OPTION_CHOICE, "cosine|angular", "cosine",
     "cosine: mean cosine of replicates, p against the null perturbations (none named: permutations over all rows but "
     "controls, (1 + k) / (1 + P)); angular: mean angle, p = k / P of permutations, as first published",
     0, 0, false},
    {"magnitude-null", LAM_OPTION_CHOICE, "perturbations|label-shuffle", NULL,
     "p of magnitude: against the null perturbations (default where named), or labels of replicates and controls "
     "exchanged (default else, 5 replicates or more; given by name 10, as first published)",
     0, 0, false},
    {"permutations", LAM_OPTION_INT, "P", "5000", "draws of a permutation null or label shuffle", 1, 1e7,
     false},
    {"batch", LAM_OPTION_TEXT, "COLUMN", NULL,
     "a permutation takes as many rows of each batch as the perturbation has there", 0, 0, false},
    {"seed", LAM_OPTION_INT, "N", "0", "of all draws", 0, 9e15, false},
    {"key", LAM_OPTION_TEXT, "NAME", NULL, "matrix of the .h5ad: X (default), a layer or an obsm", 0, 0,
     false},
    {"features", LAM_OPTION_TEXT, "GLOB", NULL,
     "columns of a table that are features (default: d0, d1, ..., else every numeric one)", 0, 0, false},
    {0}};

const lam_command lam_command_consistency = {
    "consistency",
    "replicate consistency and magnitude of perturbations",
    "EMB",
    1,
    1,
    options,
    "lamella consistency embeddings.h5ad --by gene --controls gene=non-targeting --out consistency",
    run};
