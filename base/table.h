/* A table of text: CSV, TSV (by content of the header line), plain or gzip; RFC 4180 quotes, CRLF, UTF-8 BOM.
 *
 *     LAM_TRY(lam_table_read(&t, "images.csv"));
 *     int column = lam_table_column(t, "plate");          // -1: absent
 *     const char *plate = lam_table_cell(t, row, column); // "" where empty
 *
 * Errors name file and line: empty file, no rows where required, duplicate column name, row with another number of
 * cells, open quote, NUL byte. Ownership: the table owns its strings. */
#ifndef LAMELLA_BASE_TABLE_H
#define LAMELLA_BASE_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lam_table lam_table;

lam_status lam_table_read(lam_table **out, const char *path);
lam_status lam_table_parse(lam_table **out, const char *text, size_t size, const char *name);
lam_status lam_table_create(lam_table **out, int64_t rows); /* no columns yet */
void lam_table_free(lam_table *table);

int64_t lam_table_rows(const lam_table *table);
int lam_table_columns(const lam_table *table);
const char *lam_table_name(const lam_table *table, int column);
int lam_table_column(const lam_table *table, const char *name); /* -1: absent */
/* As lam_table_column, but absent is LAM_ERROR_INPUT naming the file, what is there and the nearest name. */
lam_status lam_table_require(const lam_table *table, const char *name, int *column);
const char *lam_table_cell(const lam_table *table, int64_t row, int column);
const char *lam_table_path(const lam_table *table);
int64_t lam_table_line(const lam_table *table, int64_t row); /* line of the file where the row begins */

/* Adds a column at the end (values copied; NULL = all empty) or replaces a cell. */
lam_status lam_table_add(lam_table *table, const char *name, const char *const *values);
lam_status lam_table_set(lam_table *table, int64_t row, int column, const char *value);
/* New table with the rows listed, in that order. */
lam_status lam_table_select(const lam_table *table, const int64_t *rows, int64_t count, lam_table **out);

bool lam_text_is_number(const char *text, double *value); /* the whole text; not nan, inf or empty */
bool lam_table_is_numeric(const lam_table *table, int column);
/* Dense codes 0..levels-1 of a column in sorted order of its distinct texts; names borrowed. Caller frees both. */
lam_status lam_table_codes(const lam_table *table, int column, int64_t **codes, const char ***level_names,
                           int64_t *levels);

lam_status lam_table_write(const lam_table *table,
                           const char *path); /* CSV, or TSV by the name; quotes where needed */

#ifdef __cplusplus
}
#endif
#endif
