/* How a table is kept: shared by the sources of tables and embeddings only.
 *
 * The cells that were parsed or selected are one row-major array of pointers into the text blocks; columns
 * added later have an array of their own. Text is never freed before the table. */
#ifndef LAMELLA_BASE_TABLE_STORE_H
#define LAMELLA_BASE_TABLE_STORE_H

#include "base/table.h"

typedef struct lam_table_text {
    struct lam_table_text *next;
    size_t used, size;
    char bytes[];
} lam_table_text;

struct lam_table {
    char *path;
    int64_t rows;
    int columns, base_columns;
    const char **names;  /* [columns] */
    const char **base;   /* [rows, base_columns] */
    const char ***added; /* [columns - base_columns][rows] */
    int64_t *lines;      /* [rows]; NULL: row + 2 */
    char *block;         /* the parsed text */
    lam_table_text *texts;
};

lam_status lam_table_store_new(lam_table **out, const char *path);
/* A copy of `length` bytes with a zero byte, kept as long as the table. */
lam_status lam_table_store_text(lam_table *table, const char *text, size_t length, const char **out);
/* What errors name: the file, and the lines of `lines` (same rows; NULL: none). */
lam_status lam_table_store_origin(lam_table *table, const char *path, const lam_table *lines);

#endif
