#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/memory.h"
#include "base/records.h"
#include "base/threads.h"
#include "eval/clusters.h"
#include "eval/nearest.h"
#include "eval/relate_parts.h"

#define ENRICHED 0.01 /* corrected p that counts, as EFAAR's */

/* ---- clusters ---- */

static int by_row(const void *a, const void *b) {
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

/* Two genes of a set may be one row by their aliases. */
static int64_t rows_of(const lam_gene_set *set, const lam_names *names, const lam_aliases *aliases,
                       int32_t *rows) {
    int64_t found = 0, count = 0;
    for (int64_t g = 0; g < set->count; g++) {
        int64_t row = lam_entity_find(names, aliases, set->genes[g]);
        if (row >= 0) rows[found++] = (int32_t)row;
    }
    if (found) qsort(rows, (size_t)found, sizeof *rows, by_row);
    for (int64_t k = 0; k < found; k++)
        if (!k || rows[k] != rows[count - 1]) rows[count++] = rows[k];
    return count;
}

static lam_status add_file(const char *path, const lam_names *names, const lam_aliases *aliases,
                           int64_t minimum, int64_t maximum, lam_clusters *out) {
    int file = out->files;
    LAM_TRY(lam_source_name(path, &out->sources[file]));
    out->files++;
    for (int f = 0; f < file; f++)
        LAM_REQUIRE(strcmp(out->sources[f], out->sources[file]) != 0, LAM_ERROR_INPUT,
                    "%s: clusters of a source named '%s' were read before; rename one of the files", path,
                    out->sources[file]);
    LAM_TRY(lam_gene_sets_read(path, &out->sets[file], &out->set_counts[file]));
    int64_t sets = out->set_counts[file], few = 0, many = 0;
    LAM_TRY(lam_grow((void **)&out->clusters, (size_t)out->count * sizeof *out->clusters,
                     (size_t)(out->count + sets) * sizeof *out->clusters));
    for (int64_t s = 0; s < sets; s++) {
        const lam_gene_set *set = &out->sets[file][s];
        lam_cluster one = {.source = out->sources[file], .name = set->name, .listed = set->count};
        LAM_TRY(lam_alloc_array((void **)&one.rows, set->count, sizeof *one.rows));
        one.count = rows_of(set, names, aliases, one.rows);
        if (one.count >= minimum && one.count <= maximum) {
            out->clusters[out->count++] = one;
            continue;
        }
        lam_free(one.rows);
        few += one.count < minimum;
        many += one.count > maximum;
    }
    lam_log_info("%s: %lld of %lld sets; %lld have fewer than %lld genes in the map, %lld more than %lld",
                 path, (long long)(sets - few - many), (long long)sets, (long long)few, (long long)minimum,
                 (long long)many, (long long)maximum);
    return LAM_OK;
}

lam_status lam_clusters_read(const char *const *paths, int path_count, const lam_names *names,
                             const lam_aliases *aliases, int64_t rows, int64_t minimum, int64_t maximum,
                             lam_clusters *out) {
    *out = (lam_clusters){0};
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_alloc_array((void **)&out->sets, path_count, sizeof *out->sets), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&out->set_counts, path_count, sizeof *out->set_counts), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&out->sources, path_count, sizeof *out->sources), done);
    if (maximum > rows - 1) maximum = rows - 1; /* a cluster needs a rest to be compared with */
    for (int i = 0; i < path_count; i++)
        LAM_TRY_GOTO(add_file(paths[i], names, aliases, minimum, maximum, out), done);
    LAM_REQUIRE_GOTO(
        out->count, done, LAM_ERROR_INPUT,
        "relate: no cluster has %lld to %lld genes in the map; --min-genes lowers what is asked for",
        (long long)minimum, (long long)maximum);
done:
    if (status != LAM_OK) lam_clusters_free(out);
    return status;
}

void lam_clusters_free(lam_clusters *c) {
    for (int64_t k = 0; k < c->count; k++) lam_free(c->clusters[k].rows);
    for (int f = 0; c->sources && f < c->files; f++) {
        lam_gene_sets_free(c->sets[f], c->set_counts[f]);
        lam_free(c->sources[f]);
    }
    lam_free(c->clusters);
    lam_free(c->sets);
    lam_free(c->set_counts);
    lam_free(c->sources);
    *c = (lam_clusters){0};
}

lam_status lam_relate_clusters(const char *out, const lam_scored_map *m, const lam_clusters *c) {
    lam_cluster_test *tests = NULL;
    double *p = NULL, *q = NULL;
    int64_t below = 0, done_count = 0;
    lam_json *records = lam_json_array();
    lam_status status = LAM_OK, worst = LAM_OK;
    LAM_TRY_GOTO(lam_alloc_array((void **)&tests, c->count, sizeof *tests), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&p, c->count, sizeof *p), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&q, c->count, sizeof *q), done);
    /* As many at once as their cosines, with the sorted copies of two tests, take a gigabyte of. */
    double most = 1;
    for (int64_t k = 0; k < c->count; k++)
        most = fmax(most, 24.0 * (double)c->clusters[k].count *
                              (double)(m->directions.rows - c->clusters[k].count));
    int threads = (int)fmax(1, fmin((double)lam_threads(), 1e9 / most));
    lam_progress *progress = lam_progress_start("clusters", c->count, "clusters");
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
    for (int64_t k = 0; k < c->count; k++) {
        int64_t seen;
        lam_status one =
            lam_cluster_compare(&m->directions, c->clusters[k].rows, c->clusters[k].count, &tests[k]);
        if (one != LAM_OK) {
#pragma omp critical(lam_relate_clusters_failed)
            worst = one;
        }
#pragma omp atomic capture
        seen = ++done_count;
        lam_progress_update(progress, seen, NULL);
    }
    lam_progress_finish(progress);
    LAM_REQUIRE_GOTO(worst == LAM_OK, done, worst,
                     "relate: no memory for the cosines of a cluster with all rows");
    for (int64_t k = 0; k < c->count; k++) p[k] = tests[k].ks.p;
    LAM_TRY_GOTO(lam_benjamini_hochberg(p, c->count, q), done);
    for (int64_t k = 0; k < c->count; k++) {
        const lam_cluster *one = &c->clusters[k];
        lam_json *record = lam_json_object();
        lam_json_append(records, record);
        lam_json_set_text(record, "source", one->source);
        lam_json_set_text(record, "cluster", one->name);
        lam_json_set_int(record, "genes", one->count);
        lam_json_set_float(record, "within_mean", tests[k].within_mean);
        lam_json_set_float(record, "between_mean", tests[k].between_mean);
        lam_json_set_float(record, "ks", tests[k].ks.statistic);
        lam_json_set_float(record, "ks_p", tests[k].ks.p);
        lam_json_set_float(record, "ks_q", q[k]);
        lam_json_set_float(record, "cvm", tests[k].cvm.statistic);
        lam_json_set_float(record, "cvm_p", tests[k].cvm.p);
        lam_json_set_int(record, "genes_listed", one->listed);
        below += p[k] <= ENRICHED;
    }
    lam_log_info("relate: %lld of %lld clusters have other cosines within than with the rest (KS, p <= %g)",
                 (long long)below, (long long)c->count, ENRICHED);
    status = lam_records_write(records, out, "clusters.csv");
done:
    lam_json_free(records);
    lam_free(tests);
    lam_free(p);
    lam_free(q);
    return status;
}

/* ---- neighbours ---- */

static void add_enrichments(lam_json *records, const char *query, const lam_nearest *found, int64_t count,
                            int32_t *drawn, int64_t population, const lam_clusters *c) {
    for (int64_t k = 0; k < count; k++) drawn[k] = found[k].row;
    for (int64_t k = 0; k < c->count; k++) {
        const lam_cluster *one = &c->clusters[k];
        lam_enrichment e = lam_cluster_enrichment(one->rows, one->count, drawn, count, population);
        if (!e.hits) continue;
        lam_json *record = lam_json_object();
        double corrected = fmin(1, e.p * (double)c->count);
        lam_json_append(records, record);
        lam_json_set_text(record, "query", query);
        lam_json_set_text(record, "source", one->source);
        lam_json_set_text(record, "cluster", one->name);
        lam_json_set_int(record, "hits", e.hits);
        lam_json_set_int(record, "genes", one->count);
        lam_json_set_int(record, "drawn", count);
        lam_json_set_float(record, "p", e.p);
        lam_json_set_float(record, "p_bonferroni", corrected);
        lam_json_set_float(record, "jaccard", e.jaccard);
        if (corrected <= ENRICHED)
            lam_log_info("relate: near %s lie %lld of %lld of %s (corrected p %.2g)", query,
                         (long long)e.hits, (long long)one->count, one->name, corrected);
    }
}

lam_status lam_relate_neighbours(const char *out, const lam_scored_map *m, const char *const *entities,
                                 const lam_names *names, const char *const *queries, int query_count,
                                 int64_t top, const lam_clusters *clusters) {
    lam_nearest *found = NULL;
    int32_t *drawn = NULL;
    lam_json *records = lam_json_array(), *enriched = lam_json_array();
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_alloc_array((void **)&found, top, sizeof *found), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&drawn, top, sizeof *drawn), done);
    for (int q = 0; q < query_count; q++) {
        int64_t row = lam_names_find(names, queries[q]);
        int64_t count = lam_directions_nearest(&m->directions, row, top, found);
        for (int64_t k = 0; k < count; k++) {
            lam_json *record = lam_json_object();
            lam_json_append(records, record);
            lam_json_set_text(record, "query", queries[q]);
            lam_json_set_int(record, "rank", k + 1);
            lam_json_set_text(record, "neighbour", entities[found[k].row]);
            lam_json_set_float(record, "cosine", found[k].cosine);
        }
        lam_log_info("relate: nearest to %s: %s (%.3f)", queries[q], entities[found[0].row], found[0].cosine);
        if (clusters)
            add_enrichments(enriched, queries[q], found, count, drawn, m->directions.rows, clusters);
    }
    LAM_TRY_GOTO(lam_records_write(records, out, "neighbours.csv"), done);
    if (lam_json_size(enriched)) status = lam_records_write(enriched, out, "enrichment.csv");
done:
    lam_json_free(records);
    lam_json_free(enriched);
    lam_free(found);
    lam_free(drawn);
    return status;
}
