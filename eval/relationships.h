/* Files of known relationships as pairs of rows of a map: undirected, no self pairs, each once.
 *
 *     LAM_TRY(lam_relationships_read(paths, path_count, names, rows, &relationships));
 *     relationships.sources[0].pairs ...
 *     lam_relationships_free(&relationships);
 *
 * A table (CSV or TSV, .gz): the columns entity1 and entity2 (EFAAR's form) where they stand, else the first two, which a log
 * line names. Gene sets (.gmt, or a name with _clusters; eval/gene_sets.h): all pairs within a set. */
#ifndef LAMELLA_EVAL_RELATIONSHIPS_H
#define LAMELLA_EVAL_RELATIONSHIPS_H

#include <stdbool.h>

#include "base/status.h"
#include "eval/gene_sets.h"
#include "eval/names.h"
#include "eval/recall.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lam_source {
    char *name; /* the file's name without folder and endings */
    lam_pair *pairs;
    int64_t count; /* pairs that are used */
    /* Pairs listed in the file, and those dropped: an entity with itself, an entity that is not in the map, a pair that stood
     * there before, in either direction. listed = count + self_pairs + unknown + repeated. */
    int64_t listed, self_pairs, unknown, repeated;
} lam_source;

typedef struct lam_relationships {
    lam_source *sources;
    int64_t count;
    bool *named; /* [rows] stands in a pair of some file, whether the other one is in the map or not */
} lam_relationships;

/* The file's name without folder and endings. Caller frees. */
lam_status lam_source_name(const char *path, char **name);
/* The row of a name, of what it is an alias of where the map lacks it; -1: in neither way. aliases NULL: none. */
int64_t lam_entity_find(const lam_names *names, const lam_aliases *aliases, const char *name);

/* `paths`: files, or folders of .txt, .csv, .tsv, .gmt (.gz) files; in a folder, names with _clusters and
 * READMEs are passed over. Says in a log line for each source how many pairs are used, how many are not, and
 * why. Sources without a pair in the map are left out; none left is LAM_ERROR_INPUT. */
lam_status lam_relationships_read(const char *const *paths, int path_count, const lam_names *names,
                                  const lam_aliases *aliases, int64_t rows, lam_relationships *out);
void lam_relationships_free(lam_relationships *relationships);

#ifdef __cplusplus
}
#endif
#endif
