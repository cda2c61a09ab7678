/* Files of known relationships (columns entity1 and entity2; EFAAR's form) as pairs of rows of a map: undirected, no self pairs, each once. */
#ifndef LAMELLA_EVAL_RELATIONSHIPS_H
#define LAMELLA_EVAL_RELATIONSHIPS_H

#include "base/status.h"
#include "eval/recall.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lam_source {
    char *name; /* the file's name without folder and endings */
    lam_pair *pairs;
    int64_t count;
} lam_source;

/* `paths`: files, or folders of .txt, .csv, .tsv (.gz) files. entities [rows], all different (LAM_ERROR_INPUT that says `lamella map --by`
 * otherwise). Sources without a pair in the map are named in a log line and left out; none left is an error. */
lam_status lam_relationships_read(const char *const *paths, int path_count, const char *const *entities,
                                  int64_t rows, lam_source **sources, int64_t *count);
void lam_relationships_free(lam_source *sources, int64_t count);

#ifdef __cplusplus
}
#endif
#endif
