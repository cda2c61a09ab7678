/* Gene sets and other names of genes, as `relate` reads them.
 *
 *     lam_gene_set *sets = NULL;
 *     int64_t count = 0;
 *     LAM_TRY(lam_gene_sets_read("complexes.gmt.gz", &sets, &count));
 *     lam_gene_sets_free(sets, count);
 *
 * Two forms, plain or packed (gzip, Zstandard), LF or CRLF, blank lines skipped, no header:
 *     GMT (Broad Institute)   name TAB description TAB gene TAB gene ...
 *     clusters (EFAAR)        name TAB gene BLANK gene ...
 * A file named .gmt (.gz, .zst) is GMT; another one is GMT where some line has three cells or more. Empty cells of
 * genes are skipped, blanks around names dropped. Errors name file and line: no tab, no name, no genes, a name of a
 * set twice, a zero byte. Threading: any thread. */
#ifndef LAMELLA_EVAL_GENE_SETS_H
#define LAMELLA_EVAL_GENE_SETS_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lam_gene_set {
    char *name;
    int64_t count; /* 1 or more */
    char **genes;  /* [count], all different, in the order of the file; one block */
} lam_gene_set;

/* Sets in the order of the file; at least one. *sets and *count are set only on success. */
lam_status lam_gene_sets_read(const char *path, lam_gene_set **sets, int64_t *count);
/* The same of bytes; `name` is the file that errors name. */
lam_status lam_gene_sets_parse(const char *text, size_t size, const char *name, lam_gene_set **sets,
                               int64_t *count);
void lam_gene_sets_free(lam_gene_set *sets, int64_t count);

/* A table of other names (base/table.h: CSV or TSV with a header): the first column an alias, the second the
 * name in use. An alias may lead to another alias; what is found is the end of the way. A row without an alias
 * is skipped, one whose two names are equal says that the name stays. Errors name file and line: fewer than two
 * columns, an alias without a name, an alias of two names, aliases that lead back to themselves. */
typedef struct lam_aliases lam_aliases;

lam_status lam_aliases_read(const char *path, lam_aliases **out);
void lam_aliases_free(lam_aliases *aliases);
/* The name in use, owned by `aliases`; NULL where `name` is no alias. */
const char *lam_aliases_find(const lam_aliases *aliases, const char *name);

#ifdef __cplusplus
}
#endif
#endif
