#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/memory.h"
#include "base/records.h"
#include "base/table.h"
#include "eval/relate_parts.h"
#include "eval/strata.h"

#define LOW_QUANTILE 0.025
#define HIGH_QUANTILE 0.975

lam_status lam_scored_map_make(const double *x, int64_t rows, int64_t columns, const lam_relationships *r,
                               const lam_relate_settings *s, lam_scored_map *m) {
    *m = (lam_scored_map){0};
    int64_t total = 0;
    for (int64_t i = 0; i < r->count; i++) total += r->sources[i].count;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_directions_make(&m->directions, x, rows, columns), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&m->cosine, total, sizeof *m->cosine), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&m->known, r->count, sizeof *m->known), done);
    memcpy(m->tails, s->tails, sizeof m->tails);
    m->null_size = rows * (rows - 1) / 2;
    LAM_TRY_GOTO(lam_recall_cuts(&m->directions, m->tails, s->thresholds, &m->null), done);
    for (int64_t i = 0, at = 0; i < r->count; at += r->sources[i++].count) {
        m->known[i] = (lam_known){r->sources[i].pairs, m->cosine + at, r->sources[i].count};
        lam_recall_cosines(&m->directions, r->sources[i].pairs, r->sources[i].count, m->cosine + at);
    }
    m->problem = (lam_recall_problem){m->known, r->count, m->tails, s->thresholds};
    LAM_TRY_GOTO(lam_alloc_array((void **)&m->share, lam_recall_results(&m->problem), sizeof *m->share),
                 done);
    lam_recall_shares(&m->problem, m->share);
done:
    if (status != LAM_OK) lam_scored_map_free(m);
    return status;
}

void lam_scored_map_free(lam_scored_map *m) {
    lam_directions_free(&m->directions);
    lam_free(m->cosine);
    lam_free(m->known);
    lam_free(m->share);
    *m = (lam_scored_map){0};
}

/* ---- scores ---- */

/* What one threshold and side is called in a column: "0.05_0.95", "left_0.05", "right_0.95". */
static const char *suffix(const lam_tails *t, int side, char text[64]) {
    if (side == LAM_RECALL_BOTH)
        snprintf(text, 64, "%g_%g", t->left, t->right);
    else
        snprintf(text, 64, side == LAM_RECALL_LEFT ? "left_%g" : "right_%g",
                 side == LAM_RECALL_LEFT ? t->left : t->right);
    return text;
}

static void put(lam_json *record, const char *prefix, const lam_tails *t, int side, double value) {
    char key[128], end[64];
    snprintf(key, sizeof key, "%s_%s", prefix, suffix(t, side, end));
    lam_json_set_float(record, key, value);
}

/* What goes with each result beside the share itself. */
typedef struct extras {
    double *low, *high; /* NULL: no bootstrap */
    double *p;          /* NULL: no permutations */
} extras;

static void free_extras(extras *e) {
    lam_free(e->low);
    lam_free(e->high);
    lam_free(e->p);
}

/* 95 % interval of each result of `problem`, of its difference to the same result of `other` where that is given: quantiles of the
 * bootstrap, their distance from the observed value times lam_recall_spread. */
static lam_status intervals(const lam_scored_map *m, const lam_scored_map *other,
                            const lam_relate_settings *s, double *low, double *high) {
    const lam_recall_problem *problem = &m->problem;
    int64_t results = lam_recall_results(problem), rows = m->directions.rows, most = 0;
    double *shares = NULL, *others = NULL, *residual = NULL, *work = NULL;
    lam_status status = LAM_OK;
    for (int64_t i = 0; i < problem->sources; i++)
        most = problem->known[i].count > most ? problem->known[i].count : most;
    LAM_TRY_GOTO(lam_alloc_array((void **)&shares, results * s->draws, sizeof *shares), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&residual, most, sizeof *residual), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&work, rows, sizeof *work), done);
    LAM_TRY_GOTO(lam_recall_bootstrap(problem, rows, s->draws, s->seed, shares), done);
    if (other) { /* the same seed: the same genes are drawn for both maps */
        LAM_TRY_GOTO(lam_alloc_array((void **)&others, results * s->draws, sizeof *others), done);
        LAM_TRY_GOTO(lam_recall_bootstrap(&other->problem, rows, s->draws, s->seed, others), done);
        for (int64_t k = 0; k < results * s->draws; k++) shares[k] -= others[k];
    }
    for (int64_t r = 0; r < results; r++) {
        int64_t source = r / (s->thresholds * LAM_RECALL_SIDES), t = r / LAM_RECALL_SIDES % s->thresholds;
        lam_recall_side side = (lam_recall_side)(r % LAM_RECALL_SIDES);
        const lam_known *known = &m->known[source];
        double observed = m->share[r] - (other ? other->share[r] : 0);
        for (int64_t k = 0; k < known->count; k++) {
            double hit = lam_recovered(&m->tails[t], side, known->cosine[k]);
            if (other) hit -= lam_recovered(&other->tails[t], side, other->known[source].cosine[k]);
            residual[k] = hit - observed;
        }
        bool varies = false; /* all pairs recovered or none: nothing to tell an interval from */
        for (int64_t k = 0; k < known->count && !varies; k++) varies = residual[k] < 0 || residual[k] > 0;
        double spread = lam_recall_spread(known->pairs, residual, known->count, rows, work);
        lam_interval(shares + r * s->draws, s->draws, LOW_QUANTILE, HIGH_QUANTILE, &low[r], &high[r]);
        low[r] = observed + spread * (low[r] - observed);
        high[r] = observed + spread * (high[r] - observed);
        if (!varies) low[r] = high[r] = (double)NAN;
    }
done:
    lam_free(shares);
    lam_free(others);
    lam_free(residual);
    lam_free(work);
    return status;
}

static void tell(const lam_source *source, const lam_scored_map *m, int64_t at, const extras *e) {
    char interval[80] = "", chance[64] = "";
    if (e->low && isfinite(e->low[at]))
        snprintf(interval, sizeof interval, ", 95 %% %.3f to %.3f", e->low[at], e->high[at]);
    if (e->p) snprintf(chance, sizeof chance, ", p %.2g", e->p[at]);
    lam_log_info("relate: %s: recall %.3f of %lld pairs (%g/%g%s%s)", source->name, m->share[at],
                 (long long)source->count, m->tails[0].left, m->tails[0].right, interval, chance);
}

lam_status lam_relate_scores(const char *out, const lam_relationships *relationships, const lam_scored_map *m,
                             const lam_relate_settings *s, lam_json **records) {
    extras e = {0};
    lam_status status = LAM_OK;
    *records = lam_json_array();
    if (s->draws) {
        LAM_TRY_GOTO(lam_alloc_array((void **)&e.low, lam_recall_results(&m->problem), sizeof *e.low), done);
        LAM_TRY_GOTO(lam_alloc_array((void **)&e.high, lam_recall_results(&m->problem), sizeof *e.high),
                     done);
        LAM_TRY_GOTO(intervals(m, NULL, s, e.low, e.high), done);
    }
    if (s->permutations) {
        LAM_TRY_GOTO(lam_alloc_array((void **)&e.p, lam_recall_results(&m->problem), sizeof *e.p), done);
        LAM_TRY_GOTO(
            lam_recall_permutation(&m->directions, &m->problem, s->labelled, s->permutations, s->seed, e.p),
            done);
    }
    for (int64_t i = 0; i < relationships->count; i++) {
        const lam_source *source = &relationships->sources[i];
        lam_json *record = lam_json_object();
        lam_json_append(*records, record);
        lam_json_set_text(record, "source", source->name);
        lam_json_set_int(record, "null_distribution_size", m->null_size);
        lam_json_set_int(record, "query_distribution_size", source->count);
        int64_t first = i * s->thresholds * LAM_RECALL_SIDES;
        /* EFAAR's columns come first. */
        for (int t = 0; t < s->thresholds; t++)
            put(record, "recall", &m->tails[t], LAM_RECALL_BOTH, m->share[first + t * LAM_RECALL_SIDES]);
        for (int t = 0; t < s->thresholds; t++) {
            for (int side = 0; side < LAM_RECALL_SIDES; side++) {
                int64_t at = first + t * LAM_RECALL_SIDES + side;
                if (side != LAM_RECALL_BOTH) put(record, "recall", &m->tails[t], side, m->share[at]);
                if (e.low) put(record, "recall_low", &m->tails[t], side, e.low[at]);
                if (e.high) put(record, "recall_high", &m->tails[t], side, e.high[at]);
                if (e.p) put(record, "p_permutation", &m->tails[t], side, e.p[at]);
            }
            put(record, "cut", &m->tails[t], LAM_RECALL_LEFT, m->tails[t].below);
            put(record, "cut", &m->tails[t], LAM_RECALL_RIGHT, m->tails[t].above);
        }
        lam_json_set_int(record, "pairs_listed", source->listed);
        lam_json_set_int(record, "pairs_not_in_map", source->unknown);
        lam_json_set_int(record, "pairs_repeated", source->repeated);
        lam_json_set_int(record, "pairs_with_itself", source->self_pairs);
        tell(source, m, first, &e);
    }
    status = lam_records_write(*records, out, "scores.csv");
done:
    free_extras(&e);
    return status;
}

lam_status lam_relate_histogram(const char *out, const lam_relationships *relationships,
                                const lam_scored_map *m) {
    lam_json *records = lam_json_array();
    for (int64_t i = 0; i < relationships->count; i++) {
        int64_t query[LAM_HISTOGRAM_BINS] = {0};
        for (int64_t k = 0; k < m->known[i].count; k++) query[lam_histogram_bin(m->known[i].cosine[k])]++;
        for (int b = 0; b < LAM_HISTOGRAM_BINS; b++) {
            lam_json *record = lam_json_object();
            lam_json_append(records, record);
            lam_json_set_text(record, "source", relationships->sources[i].name);
            lam_json_set_float(record, "bin_low", 2.0 * b / LAM_HISTOGRAM_BINS - 1);
            lam_json_set_float(record, "bin_high", 2.0 * (b + 1) / LAM_HISTOGRAM_BINS - 1);
            lam_json_set_int(record, "null_count", m->null.count[b]);
            lam_json_set_int(record, "query_count", query[b]);
        }
    }
    lam_status status = lam_records_write(records, out, "histogram.csv");
    lam_json_free(records);
    return status;
}

/* ---- two maps ---- */

lam_status lam_relate_against(const char *out, const lam_relationships *relationships,
                              const lam_scored_map *a, const lam_scored_map *b,
                              const lam_relate_settings *s) {
    int64_t results = lam_recall_results(&a->problem);
    double *lows = NULL, *highs = NULL;
    lam_json *records = lam_json_array();
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_alloc_array((void **)&lows, results, sizeof *lows), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&highs, results, sizeof *highs), done);
    LAM_TRY_GOTO(intervals(a, b, s, lows, highs), done);
    for (int64_t i = 0; i < relationships->count; i++) {
        lam_json *record = lam_json_object();
        lam_json_append(records, record);
        lam_json_set_text(record, "source", relationships->sources[i].name);
        for (int t = 0; t < s->thresholds; t++) {
            for (int side = 0; side < LAM_RECALL_SIDES; side++) {
                int64_t at = (i * s->thresholds + t) * LAM_RECALL_SIDES + side;
                double difference = a->share[at] - b->share[at], low = lows[at], high = highs[at];
                if (!t && side == LAM_RECALL_BOTH) { /* the headline, by plain names */
                    lam_json_set_float(record, "recall", a->share[at]);
                    lam_json_set_float(record, "recall_other", b->share[at]);
                    lam_json_set_float(record, "difference", difference);
                    lam_json_set_float(record, "low", low);
                    lam_json_set_float(record, "high", high);
                    lam_log_info(
                        "relate: %s: recall %.3f against %.3f, difference %+.3f (95 %% %+.3f to %+.3f)",
                        relationships->sources[i].name, a->share[at], b->share[at], difference, low, high);
                    continue;
                }
                put(record, "difference", &a->tails[t], side, difference);
                put(record, "low", &a->tails[t], side, low);
                put(record, "high", &a->tails[t], side, high);
            }
        }
    }
    status = lam_records_write(records, out, "against.csv");
done:
    lam_json_free(records);
    lam_free(lows);
    lam_free(highs);
    return status;
}

/* ---- chromosome arms ---- */

/* Codes of the arms; *placed: rows that have one. */
static lam_status code_arms(const char *const *entities, int64_t rows, const lam_arms *arms, int32_t *code,
                            int64_t *placed) {
    lam_table *table = NULL;
    int64_t *codes = NULL, levels = 0;
    const char **names = NULL, **cells = NULL;
    lam_status status = LAM_OK;
    *placed = 0;
    LAM_TRY_GOTO(lam_alloc_array((void **)&cells, rows, sizeof *cells), done);
    for (int64_t i = 0; i < rows; i++) *placed += *(cells[i] = lam_arms_of(arms, entities[i])) != 0;
    LAM_TRY_GOTO(lam_table_create(&table, rows), done);
    LAM_TRY_GOTO(lam_table_add(table, "arm", cells), done);
    LAM_TRY_GOTO(lam_table_codes(table, 0, &codes, &names, &levels), done);
    for (int64_t i = 0; i < rows; i++) code[i] = *cells[i] ? (int32_t)codes[i] : -1;
done:
    lam_table_free(table);
    lam_free(codes);
    lam_free(names);
    lam_free(cells);
    return status;
}

static double share_of(const lam_stratum_share *s, int threshold, int side) {
    return s->pairs ? (double)s->hits[threshold][side] / (double)s->pairs : (double)NAN;
}

lam_status lam_relate_arms(const char *out, const lam_relationships *relationships, const lam_scored_map *m,
                           const char *const *entities, const lam_arms *arms) {
    static const char *const names[LAM_STRATA] = {"within_arm", "between_arms"};
    int64_t rows = m->directions.rows, placed;
    int32_t *code = NULL;
    lam_stratum_share *known = NULL, null[LAM_STRATA];
    lam_json *records = lam_json_array();
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_alloc_array((void **)&code, rows, sizeof *code), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&known, relationships->count * LAM_STRATA, sizeof *known), done);
    LAM_TRY_GOTO(code_arms(entities, rows, arms, code, &placed), done);
    LAM_REQUIRE_GOTO(placed, done, LAM_ERROR_INPUT, "relate: --arm: no row of the map has a chromosome arm");
    LAM_TRY_GOTO(lam_strata_shares(&m->directions, &m->problem, code, known, null), done);
    for (int64_t i = 0; i < relationships->count; i++)
        for (int s = 0; s < LAM_STRATA; s++) {
            const lam_stratum_share *one = &known[i * LAM_STRATA + s];
            lam_json *record = lam_json_object();
            lam_json_append(records, record);
            lam_json_set_text(record, "source", relationships->sources[i].name);
            lam_json_set_text(record, "stratum", names[s]);
            lam_json_set_int(record, "null_distribution_size", null[s].pairs);
            lam_json_set_int(record, "query_distribution_size", one->pairs);
            for (int t = 0; t < m->problem.thresholds; t++)
                for (int side = 0; side < LAM_RECALL_SIDES; side++) {
                    put(record, "recall", &m->tails[t], side, share_of(one, t, side));
                    put(record, "null", &m->tails[t], side, share_of(&null[s], t, side));
                }
            lam_log_info("relate: %s, %s: recall %.3f of %lld pairs; %.3f of all such pairs",
                         relationships->sources[i].name,
                         s == LAM_STRATUM_WITHIN ? "on one arm" : "on two arms",
                         share_of(one, 0, LAM_RECALL_BOTH), (long long)one->pairs,
                         share_of(&null[s], 0, LAM_RECALL_BOTH));
        }
    lam_log_info("relate: %lld of %lld rows have a chromosome arm", (long long)placed, (long long)rows);
    status = lam_records_write(records, out, "arms.csv");
done:
    lam_json_free(records);
    lam_free(code);
    lam_free(known);
    return status;
}
