/* Files of known relationships as pairs of rows of a map: undirected, no self pairs, each once.
 *
 *     LAM_TRY(lam_relationships_read(paths, path_count, names, rows, &relationships));
 *     relationships.sources[0].pairs ...
 *     lam_relationships_free(&relationships);
 *
 * A table (CSV or TSV, .gz): the columns entity1 and entity2 (EFAAR's form) where they stand, else the first two, which a log
 * line names. */
#ifndef LAMELLA_EVAL_RELATIONSHIPS_H
#define LAMELLA_EVAL_RELATIONSHIPS_H

#include <stdbool.h>

#include "base/status.h"
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

/* `paths`: files, or folders of .txt, .csv, .tsv (.gz) files. Says in a log line for each source how many pairs are used, how many are not,
 * and why. Sources without a pair in the map are left out; none left is LAM_ERROR_INPUT. */
lam_status lam_relationships_read(const char *const *paths, int path_count, const lam_names *names,
                                  int64_t rows, lam_relationships *out);
void lam_relationships_free(lam_relationships *relationships);

#ifdef __cplusplus
}
#endif
#endif
