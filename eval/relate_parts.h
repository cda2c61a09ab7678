/* Between the sources of `lamella relate`: a map that is scored, and the tables that come out. */
#ifndef LAMELLA_EVAL_RELATE_PARTS_H
#define LAMELLA_EVAL_RELATE_PARTS_H

#include <stdint.h>

#include "base/json.h"
#include "base/status.h"
#include "eval/arms.h"
#include "eval/recall.h"
#include "eval/relationships.h"

#define LAM_RELATE_THRESHOLDS (LAM_ORDER_MAXIMUM / 2)

typedef struct lam_relate_settings {
    lam_tails tails[LAM_RELATE_THRESHOLDS]; /* the shares that were asked for */
    int thresholds;
    int64_t draws, permutations; /* 0: none */
    const bool *labelled;        /* rows whose names are shuffled; NULL: all */
    uint64_t seed;
} lam_relate_settings;

/* One map's side: the cuts of its null and the cosines of all known pairs, source after source. */
typedef struct lam_scored_map {
    lam_directions directions;
    lam_tails tails[LAM_RELATE_THRESHOLDS];
    double *cosine;   /* of all sources */
    lam_known *known; /* [sources]; points into cosine and the relationships */
    int64_t null_size;
    lam_cosine_histogram null;
    lam_recall_problem problem;
    double *share; /* [results of the problem] */
} lam_scored_map;

/* x [rows, columns]; the relationships must outlive the result. */
lam_status lam_scored_map_make(const double *x, int64_t rows, int64_t columns,
                               const lam_relationships *relationships, const lam_relate_settings *settings,
                               lam_scored_map *out);
void lam_scored_map_free(lam_scored_map *map);

/* scores.csv, histogram.csv and against.csv of folder `out`. *records: what scores.csv holds, for the caller to free. */
lam_status lam_relate_scores(const char *out, const lam_relationships *relationships,
                             const lam_scored_map *map, const lam_relate_settings *settings,
                             lam_json **records);
lam_status lam_relate_histogram(const char *out, const lam_relationships *relationships,
                                const lam_scored_map *map);
lam_status lam_relate_against(const char *out, const lam_relationships *relationships,
                              const lam_scored_map *map, const lam_scored_map *other,
                              const lam_relate_settings *settings);

/* arms.csv: recall of pairs on one chromosome arm and on two, beside the share of all such pairs that the cuts take. */
lam_status lam_relate_arms(const char *out, const lam_relationships *relationships, const lam_scored_map *map,
                           const char *const *entities, const lam_arms *arms);

/* ---- what lies near what ---- */

/* Sets of genes, as far as they are in the map. */
typedef struct lam_cluster {
    const char *source, *name; /* borrowed from the sets */
    int64_t listed, count;     /* genes of the set; of these in the map */
    int32_t *rows;             /* [count], rising */
} lam_cluster;

typedef struct lam_clusters {
    lam_gene_set **sets; /* one list a file */
    int64_t *set_counts;
    char **sources; /* the files' names without folder and endings */
    int files;
    lam_cluster *clusters; /* those with minimum to maximum genes in the map */
    int64_t count;
} lam_clusters;

/* LAM_ERROR_INPUT where no set has so many genes in the map. */
lam_status lam_clusters_read(const char *const *paths, int path_count, const lam_names *names,
                             const lam_aliases *aliases, int64_t rows, int64_t minimum, int64_t maximum,
                             lam_clusters *out);
void lam_clusters_free(lam_clusters *clusters);

/* clusters.csv: each cluster's cosines within against those between it and the rest (lam_cluster_compare), q over all of them. */
lam_status lam_relate_clusters(const char *out, const lam_scored_map *map, const lam_clusters *clusters);
/* neighbours.csv: the `top` rows nearest to each of the queries, which are in the map; with clusters enrichment.csv: those in
 * which these rows lie more often than by chance (EFAAR: hypergeometric, Bonferroni over the clusters). entities [rows]. */
lam_status lam_relate_neighbours(const char *out, const lam_scored_map *map, const char *const *entities,
                                 const lam_names *names, const char *const *queries, int query_count,
                                 int64_t top, const lam_clusters *clusters);

#endif
