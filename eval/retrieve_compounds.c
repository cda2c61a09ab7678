/* `lamella retrieve --pairs`: the genes that compounds act on, ranked by |cosine|. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/memory.h"
#include "eval/compound_gene.h"
#include "eval/retrieve_parts.h"

/* A row of the truth table whose compound and gene the file holds. */
typedef struct measured {
    int64_t compound, gene; /* places among the names of the file */
    double value;           /* nM */
} measured;

typedef struct names {
    const char **texts; /* sorted */
    int64_t count;
} names;

typedef struct screen {
    const lam_retrieve *r;
    lam_columns columns;    /* of the file: compound, gene, concentration */
    lam_embeddings *merged; /* one row a gene, one a compound and concentration */
    lam_space space;
    names compounds, genes; /* that the file and the truth table share */
    measured *truth;        /* sorted by compound, gene, value */
    int64_t truth_count;
    int64_t *gene_row;              /* [genes] of merged, -1: it has no direction */
    int64_t *dose_start, *dose_row; /* [compounds + 1], rows of merged in the order of concentrations */
    int64_t *lists;                 /* of genes, compound after compound: targets, then the pool */
    lam_compound *scored;
    int64_t *of_scored, scored_count, entries; /* [scored] place among compounds */
    double *scores;                            /* [entries, seeds, measures] */
    int64_t seeds;
} screen;

static void close(screen *s) {
    lam_embeddings_free(s->merged);
    lam_space_free(&s->space);
    lam_free(s->compounds.texts);
    lam_free(s->genes.texts);
    lam_free(s->truth);
    lam_free(s->gene_row);
    lam_free(s->dose_start);
    lam_free(s->dose_row);
    lam_free(s->lists);
    lam_free(s->scored);
    lam_free(s->of_scored);
    lam_free(s->scores);
}

/* ---- names ---- */

static int by_text(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int64_t find(const names *n, const char *text) {
    const char **at = n->count ? bsearch(&text, n->texts, (size_t)n->count, sizeof *n->texts, by_text) : NULL;
    return at ? at - n->texts : -1;
}

/* The different cells of a column, the empty one left out. */
static lam_status names_of(const lam_table *table, int column, names *out) {
    int64_t rows = lam_table_rows(table), n = 0;
    LAM_TRY(lam_alloc_array((void **)&out->texts, rows, sizeof *out->texts));
    for (int64_t i = 0; i < rows; i++)
        if (*lam_table_cell(table, i, column)) out->texts[n++] = lam_table_cell(table, i, column);
    qsort(out->texts, (size_t)n, sizeof *out->texts, by_text);
    for (int64_t k = 0; k < n; k++)
        if (!k || strcmp(out->texts[k], out->texts[k - 1]) != 0) out->texts[out->count++] = out->texts[k];
    return LAM_OK;
}

/* ---- truth ---- */

static int by_pair(const void *a, const void *b) {
    const measured *x = a, *y = b;
    if (x->compound != y->compound) return x->compound < y->compound ? -1 : 1;
    if (x->gene != y->gene) return x->gene < y->gene ? -1 : 1;
    return (x->value > y->value) - (x->value < y->value);
}

/* Of several values of a pair the strongest counts. */
static lam_status read_truth(screen *s, const lam_table *table, const lam_columns *columns) {
    int64_t rows = lam_table_rows(table), n = 0;
    LAM_TRY(lam_alloc_array((void **)&s->truth, rows, sizeof *s->truth));
    for (int64_t i = 0; i < rows; i++) {
        measured m = {find(&s->compounds, lam_table_cell(table, i, columns->at[0])),
                      find(&s->genes, lam_table_cell(table, i, columns->at[1])), 0};
        const char *text = lam_table_cell(table, i, columns->at[2]);
        if (!*text) continue;
        LAM_REQUIRE(lam_text_is_number(text, &m.value) && m.value >= 0, LAM_ERROR_INPUT,
                    "%s:%lld: %s is '%s', a number of nM is needed", lam_table_path(table),
                    (long long)lam_table_line(table, i), lam_table_name(table, columns->at[2]), text);
        if (m.compound >= 0 && m.gene >= 0) s->truth[n++] = m;
    }
    qsort(s->truth, (size_t)n, sizeof *s->truth, by_pair);
    for (int64_t k = 0; k < n; k++)
        if (!k || s->truth[k].compound != s->truth[k - 1].compound ||
            s->truth[k].gene != s->truth[k - 1].gene)
            s->truth[s->truth_count++] = s->truth[k];
    return LAM_OK;
}

/* Names that both sides hold; all others are of no use to the ranking. */
static void intersect(names *mine, const names *others) {
    int64_t kept = 0;
    for (int64_t k = 0; k < mine->count; k++)
        if (find(others, mine->texts[k]) >= 0) mine->texts[kept++] = mine->texts[k];
    mine->count = kept;
}

/* ---- rows of the file ---- */

/* A row that names a compound of the truth table is that compound at its concentration; else one that names a gene of it
 * is that gene. Rows of the same are averaged. */
static lam_status merge(screen *s, const char *aggregate) {
    const lam_embeddings *e = s->r->e;
    int64_t *codes = NULL, *dose = NULL, *seen = NULL, doses, kept = 0, levels;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_alloc_array((void **)&codes, e->rows, sizeof *codes), done);
    LAM_TRY_GOTO(lam_rule_codes(e->obs, (const int[]){s->columns.at[0], s->columns.at[2]}, 2, &dose, &doses),
                 done);
    levels = s->genes.count + doses;
    LAM_TRY_GOTO(lam_alloc_array((void **)&seen, levels, sizeof *seen), done);
    for (int64_t i = 0; i < e->rows; i++) {
        int64_t gene = find(&s->genes, lam_table_cell(e->obs, i, s->columns.at[1]));
        bool compound = find(&s->compounds, lam_table_cell(e->obs, i, s->columns.at[0])) >= 0;
        LAM_REQUIRE_GOTO(!compound || dose[i] >= 0, done, LAM_ERROR_INPUT,
                         "%s: row %lld is compound '%s' without a %s", s->r->path, (long long)i + 1,
                         lam_table_cell(e->obs, i, s->columns.at[0]),
                         lam_table_name(e->obs, s->columns.at[2]));
        codes[i] = compound ? s->genes.count + dose[i] : gene;
        if (s->r->controls[i] || !lam_row_is_finite(e, i)) codes[i] = -1;
        if (codes[i] >= 0) seen[codes[i]] = 1;
    }
    for (int64_t g = 0; g < levels; g++) kept += seen[g], seen[g] = kept - 1;
    for (int64_t i = 0; i < e->rows; i++)
        if (codes[i] >= 0) codes[i] = seen[codes[i]];
    LAM_REQUIRE_GOTO(kept, done, LAM_ERROR_INPUT, "%s: no row is a compound or a gene of --pairs",
                     s->r->path);
    status = lam_rows_merge(e, codes, kept, !strcmp(aggregate, "median"), &s->merged);
done:
    lam_free(codes);
    lam_free(dose);
    lam_free(seen);
    return status;
}

typedef struct dosed {
    int64_t compound, row;
    double number;
    const char *text;
} dosed;

/* Numbers by size and before words. */
static int by_dose(const void *a, const void *b) {
    const dosed *x = a, *y = b;
    if (x->compound != y->compound) return x->compound < y->compound ? -1 : 1;
    if (x->number != y->number) return x->number < y->number ? -1 : 1;
    return strcmp(x->text, y->text);
}

static lam_status find_rows(screen *s) {
    const lam_table *obs = s->merged->obs;
    int64_t n = 0;
    dosed *all;
    LAM_TRY(lam_alloc_array((void **)&s->gene_row, s->genes.count, sizeof *s->gene_row));
    LAM_TRY(lam_alloc_array((void **)&s->dose_start, s->compounds.count + 1, sizeof *s->dose_start));
    LAM_TRY(lam_alloc_array((void **)&s->dose_row, s->merged->rows, sizeof *s->dose_row));
    LAM_TRY(lam_alloc_array((void **)&all, s->merged->rows, sizeof *all));
    for (int64_t g = 0; g < s->genes.count; g++) s->gene_row[g] = -1;
    for (int64_t i = 0; i < s->merged->rows; i++) {
        if (!s->space.usable[i]) continue;
        dosed one = {find(&s->compounds, lam_table_cell(obs, i, s->columns.at[0])), i, (double)INFINITY,
                     lam_table_cell(obs, i, s->columns.at[2])};
        if (one.compound < 0) {
            s->gene_row[find(&s->genes, lam_table_cell(obs, i, s->columns.at[1]))] = i;
            continue;
        }
        if (!lam_text_is_number(one.text, &one.number)) one.number = (double)INFINITY;
        all[n++] = one;
        s->dose_start[one.compound + 1]++;
    }
    qsort(all, (size_t)n, sizeof *all, by_dose);
    for (int64_t k = 0; k < n; k++) s->dose_row[k] = all[k].row;
    for (int64_t c = 0; c < s->compounds.count; c++) s->dose_start[c + 1] += s->dose_start[c];
    lam_free(all);
    return LAM_OK;
}

/* Targets and pool of every compound that has both: the pool is all genes but those that it acts on below 10 uM. */
static lam_status make_compounds(screen *s) {
    int64_t used = 0, at = 0, *near;
    LAM_TRY(lam_alloc_array((void **)&s->scored, s->compounds.count, sizeof *s->scored));
    LAM_TRY(lam_alloc_array((void **)&s->of_scored, s->compounds.count, sizeof *s->of_scored));
    LAM_TRY(lam_alloc_array((void **)&s->lists, s->compounds.count * s->genes.count, sizeof *s->lists));
    LAM_TRY(lam_alloc_array((void **)&near, s->genes.count, sizeof *near));
    for (int64_t c = 0; c < s->compounds.count; c++) {
        lam_compound one = {.rows = s->dose_row + s->dose_start[c],
                            .doses = s->dose_start[c + 1] - s->dose_start[c]};
        int64_t *list = s->lists + used;
        for (int64_t g = 0; g < s->genes.count; g++) near[g] = 0;
        for (; at < s->truth_count && s->truth[at].compound == c; at++) {
            const measured *m = &s->truth[at];
            near[m->gene] = m->value <= LAM_INACTIVE_NM;
            if (m->value <= LAM_ACTIVE_NM && s->gene_row[m->gene] >= 0)
                list[one.active_count++] = s->gene_row[m->gene];
        }
        for (int64_t g = 0; g < s->genes.count; g++)
            if (!near[g] && s->gene_row[g] >= 0) list[one.active_count + one.pool_count++] = s->gene_row[g];
        if (!one.doses || !one.active_count || !one.pool_count) continue;
        one.active = list;
        one.pool = list + one.active_count;
        used += one.active_count + one.pool_count;
        s->of_scored[s->scored_count] = c;
        s->scored[s->scored_count++] = one;
        s->entries += one.doses + 1;
    }
    lam_free(near);
    LAM_REQUIRE(
        s->scored_count, LAM_ERROR_INPUT,
        "%s: no compound of --pairs has rows here, a gene at %g nM or below and a gene to compare it with",
        s->r->path, LAM_ACTIVE_NM);
    return LAM_OK;
}

/* ---- results ---- */

static const char *const MEASURES[] = {"average_precision", "auc", "random_average_precision", "random_auc"};
static const struct {
    const char *name;
    double quantile; /* < 0: the mean */
} STATISTICS[] = {{"mean", -1}, {"quantile_0.5", 0.5}, {"quantile_0.75", 0.75}, {"quantile_0.95", 0.95}};
enum { STATISTIC_COUNT = 4, FIRST_MEASURE = 4 };

static double mean_of(const double *values, int64_t count, int64_t stride) {
    double sum = 0;
    for (int64_t k = 0; k < count; k++) sum += values[k * stride];
    return sum / (double)count;
}

static lam_status write_compounds(const screen *s, lam_table *table) {
    const lam_table *obs = s->merged->obs;
    int64_t row = 0, stride = s->seeds * LAM_COMPOUND_MEASURES;
    for (int64_t k = 0; k < s->scored_count; k++) {
        const lam_compound *c = &s->scored[k];
        for (int64_t d = 0; d <= c->doses; d++, row++) {
            LAM_TRY(lam_table_set(table, row, 0, s->compounds.texts[s->of_scored[k]]));
            LAM_TRY(lam_table_set(table, row, 1,
                                  d < c->doses ? lam_table_cell(obs, c->rows[d], s->columns.at[2]) : "max"));
            LAM_TRY(lam_result_count(table, row, 2, c->active_count));
            LAM_TRY(lam_result_count(table, row, 3, c->pool_count));
            for (int m = 0; m < LAM_COMPOUND_MEASURES; m++)
                LAM_TRY(lam_result_number(
                    table, row, FIRST_MEASURE + m,
                    mean_of(s->scores + row * stride + m, s->seeds, LAM_COMPOUND_MEASURES)));
        }
    }
    return LAM_OK;
}

/* Of the largest |cosine| over doses: of[STATISTIC_COUNT, MEASURES, seeds], mean and quantiles over compounds. */
static lam_status find_statistics(const screen *s, double *of) {
    double *values;
    LAM_TRY(lam_alloc_array((void **)&values, s->scored_count, sizeof *values));
    for (int64_t seed = 0; seed < s->seeds; seed++) {
        for (int m = 0; m < LAM_COMPOUND_MEASURES; m++) {
            int64_t entry = -1;
            for (int64_t k = 0; k < s->scored_count; k++) {
                entry += s->scored[k].doses + 1;
                values[k] = s->scores[(entry * s->seeds + seed) * LAM_COMPOUND_MEASURES + m];
            }
            for (int i = 0; i < STATISTIC_COUNT; i++)
                of[(i * LAM_COMPOUND_MEASURES + m) * s->seeds + seed] =
                    STATISTICS[i].quantile < 0
                        ? mean_of(values, s->scored_count, 1)
                        : lam_quantile(values, s->scored_count, STATISTICS[i].quantile);
        }
    }
    lam_free(values);
    return LAM_OK;
}

/* Divided by seeds - 1. */
static double deviation_of(const double *values, int64_t count) {
    double mean = mean_of(values, count, 1), squares = 0;
    for (int64_t k = 0; k < count; k++) squares += (values[k] - mean) * (values[k] - mean);
    return count > 1 ? sqrt(squares / (double)(count - 1)) : (double)NAN;
}

/* Their means over the seeds, and the deviation of the mean over compounds: how far a draw of negatives moves it. */
static lam_status write_statistics(const screen *s, const double *of, lam_table *table, lam_json *record) {
    for (int i = 0; i <= STATISTIC_COUNT; i++) {
        bool deviation = i == STATISTIC_COUNT;
        const char *name = deviation ? "deviation_of_mean" : STATISTICS[i].name;
        lam_json *part = lam_json_object();
        lam_json_set(record, name, part);
        LAM_TRY(lam_table_set(table, s->entries + i, 0, name));
        LAM_TRY(lam_table_set(table, s->entries + i, 1, "max"));
        for (int m = 0; m < LAM_COMPOUND_MEASURES; m++) {
            const double *values = of + ((deviation ? 0 : i) * LAM_COMPOUND_MEASURES + m) * s->seeds;
            double value = deviation ? deviation_of(values, s->seeds) : mean_of(values, s->seeds, 1);
            lam_json_set_float(part, MEASURES[m], value);
            LAM_TRY(lam_result_number(table, s->entries + i, FIRST_MEASURE + m, value));
        }
    }
    lam_log_info(
        "retrieve: %lld compounds: mean AP %.4f (random %.4f), mean AUC %.4f (random %.4f), %lld seeds",
        (long long)s->scored_count, mean_of(of, s->seeds, 1), mean_of(of + 2 * s->seeds, s->seeds, 1),
        mean_of(of + s->seeds, s->seeds, 1), mean_of(of + 3 * s->seeds, s->seeds, 1), (long long)s->seeds);
    return LAM_OK;
}

static lam_status report(const screen *s, lam_json *result) {
    static const char *const columns[] = {"compound", "concentration", "active", "pool"};
    lam_table *table;
    double *statistics = NULL;
    lam_json *record = lam_json_object();
    lam_json_set(result, "compound_gene", record);
    lam_json_set_int(record, "compounds", s->scored_count);
    lam_json_set_int(record, "seeds", s->seeds);
    LAM_TRY(lam_table_create(&table, s->entries + STATISTIC_COUNT + 1));
    lam_status status = LAM_OK;
    for (int k = 0; k < FIRST_MEASURE; k++) LAM_TRY_GOTO(lam_table_add(table, columns[k], NULL), done);
    for (int m = 0; m < LAM_COMPOUND_MEASURES; m++)
        LAM_TRY_GOTO(lam_table_add(table, MEASURES[m], NULL), done);
    LAM_TRY_GOTO(write_compounds(s, table), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&statistics, STATISTIC_COUNT * LAM_COMPOUND_MEASURES * s->seeds,
                                 sizeof *statistics),
                 done);
    LAM_TRY_GOTO(find_statistics(s, statistics), done);
    LAM_TRY_GOTO(write_statistics(s, statistics, table, record), done);
    lam_results_add(s->r->results, "compound_gene.csv", &table);
done:
    lam_free(statistics);
    lam_table_free(table);
    return status;
}

/* ---- the part ---- */

static lam_status find_columns(screen *s, const lam_table *truth, lam_columns *columns) {
    static const char *const options[] = {"compound", "gene", "concentration"};
    const lam_arguments *a = s->r->arguments;
    for (int k = 0; k < 3; k++)
        LAM_TRY(lam_table_require(s->r->e->obs, lam_option_text(a, options[k]), &s->columns.at[k]));
    s->columns.count = 3;
    const char *text = lam_option_text(a, "pair-columns");
    LAM_TRY(lam_columns_find(truth, "pair-columns", text, columns));
    LAM_REQUIRE(columns->count == 3, LAM_ERROR_USAGE,
                "retrieve: --pair-columns is '%s', COMPOUND,GENE,VALUE is needed", text);
    return LAM_OK;
}

lam_status lam_retrieve_compounds(const lam_retrieve *r, lam_json *result) {
    const lam_arguments *a = r->arguments;
    screen s = {.r = r, .seeds = lam_option_int(a, "seeds")};
    lam_columns columns;
    lam_table *truth = NULL;
    names compounds = {0}, genes = {0};
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_table_read(&truth, lam_option_text(a, "pairs")), done);
    LAM_TRY_GOTO(find_columns(&s, truth, &columns), done);
    LAM_TRY_GOTO(names_of(truth, columns.at[0], &compounds), done);
    LAM_TRY_GOTO(names_of(truth, columns.at[1], &genes), done);
    LAM_TRY_GOTO(names_of(r->e->obs, s.columns.at[0], &s.compounds), done);
    LAM_TRY_GOTO(names_of(r->e->obs, s.columns.at[1], &s.genes), done);
    intersect(&s.compounds, &compounds);
    intersect(&s.genes, &genes);
    LAM_TRY_GOTO(read_truth(&s, truth, &columns), done);
    LAM_TRY_GOTO(merge(&s, lam_option_text(a, "aggregate")), done);
    LAM_TRY_GOTO(lam_space_make(&s.space, s.merged, r->centred), done);
    LAM_TRY_GOTO(find_rows(&s), done);
    LAM_TRY_GOTO(make_compounds(&s), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&s.scores, s.entries,
                                 (size_t)s.seeds * LAM_COMPOUND_MEASURES * sizeof *s.scores),
                 done);
    LAM_TRY_GOTO(lam_compound_gene(&s.space.u, s.scored, s.scored_count, s.seeds, r->seed, r->ties, s.scores),
                 done);
    status = report(&s, result);
done:
    lam_table_free(truth);
    lam_free(compounds.texts);
    lam_free(genes.texts);
    close(&s);
    return status;
}
