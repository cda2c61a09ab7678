#include "base/table.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/cli.h"
#include "base/memory.h"
#include "base/table_store.h"

lam_status lam_table_store_new(lam_table **out, const char *path) {
    lam_table *table = NULL;
    LAM_TRY(lam_alloc((void **)&table, sizeof *table));
    lam_status status = lam_text_copy(&table->path, path);
    if (status != LAM_OK) {
        lam_free(table);
        return status;
    }
    *out = table;
    return LAM_OK;
}

lam_status lam_table_store_text(lam_table *table, const char *text, size_t length, const char **out) {
    lam_table_text *block = table->texts;
    if (block == NULL || block->size - block->used < length + 1) {
        size_t size = length + 1 > (size_t)1 << 16 ? length + 1 : (size_t)1 << 16;
        LAM_TRY(lam_alloc((void **)&block, sizeof *block + size));
        block->size = size;
        block->next = table->texts;
        table->texts = block;
    }
    char *copy = block->bytes + block->used;
    memcpy(copy, text, length);
    copy[length] = '\0';
    block->used += length + 1;
    *out = copy;
    return LAM_OK;
}

lam_status lam_table_store_origin(lam_table *table, const char *path, const lam_table *lines) {
    char *copy = NULL;
    if (lines != NULL && table->lines == NULL) {
        LAM_TRY(lam_alloc_array((void **)&table->lines, table->rows, sizeof *table->lines));
    }
    LAM_TRY(lam_text_copy(&copy, path));
    lam_free(table->path);
    table->path = copy;
    for (int64_t row = 0; lines != NULL && row < table->rows; row++)
        table->lines[row] = lam_table_line(lines, row);
    return LAM_OK;
}

lam_status lam_table_create(lam_table **out, int64_t rows) {
    LAM_REQUIRE(rows >= 0, LAM_ERROR_INTERNAL, "a table of %lld rows", (long long)rows);
    LAM_TRY(lam_table_store_new(out, "table"));
    (*out)->rows = rows;
    return LAM_OK;
}

void lam_table_free(lam_table *table) {
    if (table == NULL) return;
    for (int column = table->base_columns; column < table->columns; column++) {
        lam_free(table->added[column - table->base_columns]);
    }
    lam_free(table->added);
    lam_free(table->names);
    lam_free(table->base);
    lam_free(table->lines);
    lam_free(table->block);
    while (table->texts != NULL) {
        lam_table_text *next = table->texts->next;
        lam_free(table->texts);
        table->texts = next;
    }
    lam_free(table->path);
    lam_free(table);
}

int64_t lam_table_rows(const lam_table *table) { return table->rows; }
int lam_table_columns(const lam_table *table) { return table->columns; }
const char *lam_table_name(const lam_table *table, int column) { return table->names[column]; }
const char *lam_table_path(const lam_table *table) { return table->path; }
int64_t lam_table_line(const lam_table *table, int64_t row) {
    return table->lines != NULL ? table->lines[row] : row + 2;
}

int lam_table_column(const lam_table *table, const char *name) {
    for (int column = 0; column < table->columns; column++) {
        if (strcmp(table->names[column], name) == 0) return column;
    }
    return -1;
}

lam_status lam_table_require(const lam_table *table, const char *name, int *column) {
    *column = lam_table_column(table, name);
    if (*column >= 0) return LAM_OK;
    char present[400] = "";
    size_t used = 0;
    for (int i = 0; i < table->columns; i++) {
        size_t length = strlen(table->names[i]);
        if (used + length + 8 > sizeof present) {
            memcpy(present + used, ", ...", 6);
            break;
        }
        if (i > 0) {
            memcpy(present + used, ", ", 2);
            used += 2;
        }
        memcpy(present + used, table->names[i], length + 1);
        used += length;
    }
    const char *nearest = lam_nearest_name(name, table->names, table->columns);
    LAM_FAIL(LAM_ERROR_INPUT, "%s: no column '%s'%s%s%s; columns: %s", table->path, name,
             nearest != NULL ? ", did you mean '" : "", nearest != NULL ? nearest : "",
             nearest != NULL ? "'" : "", table->columns ? present : "none");
}

const char *lam_table_cell(const lam_table *table, int64_t row, int column) {
    if (column < table->base_columns) return table->base[row * table->base_columns + column];
    return table->added[column - table->base_columns][row];
}

lam_status lam_table_add(lam_table *table, const char *name, const char *const *values) {
    LAM_REQUIRE(lam_table_column(table, name) < 0, LAM_ERROR_INPUT, "%s: column '%s' is there already",
                table->path, name);
    LAM_REQUIRE(table->columns < INT_MAX, LAM_ERROR_INPUT, "%s: too many columns", table->path);
    const char *kept_name = NULL, **cells = NULL;
    size_t columns = (size_t)table->columns, added = (size_t)(table->columns - table->base_columns);
    lam_status status = LAM_OK;
    LAM_TRY(lam_alloc_array((void **)&cells, table->rows, sizeof *cells));
    LAM_TRY_GOTO(lam_table_store_text(table, name, strlen(name), &kept_name), failed);
    for (int64_t row = 0; row < table->rows; row++) {
        cells[row] = "";
        if (values == NULL || values[row] == NULL || values[row][0] == '\0') continue;
        /* Neighbours are often the same text (plate, site): keep it once. */
        if (row > 0 && strcmp(cells[row - 1], values[row]) == 0) {
            cells[row] = cells[row - 1];
            continue;
        }
        LAM_TRY_GOTO(lam_table_store_text(table, values[row], strlen(values[row]), &cells[row]), failed);
    }
    LAM_TRY_GOTO(lam_grow((void **)&table->names, columns * sizeof *table->names,
                          (columns + 1) * sizeof *table->names),
                 failed);
    LAM_TRY_GOTO(
        lam_grow((void **)&table->added, added * sizeof *table->added, (added + 1) * sizeof *table->added),
        failed);
    table->names[columns] = kept_name;
    table->added[added] = cells;
    table->columns++;
    return LAM_OK;
failed:
    lam_free(cells);
    return status;
}

lam_status lam_table_set(lam_table *table, int64_t row, int column, const char *value) {
    LAM_REQUIRE(row >= 0 && row < table->rows && column >= 0 && column < table->columns, LAM_ERROR_INTERNAL,
                "%s: cell %lld, %d is outside the table", table->path, (long long)row, column);
    const char *kept = NULL;
    LAM_TRY(lam_table_store_text(table, value, strlen(value), &kept));
    if (column < table->base_columns) {
        table->base[row * table->base_columns + column] = kept;
    } else {
        table->added[column - table->base_columns][row] = kept;
    }
    return LAM_OK;
}

lam_status lam_table_select(const lam_table *table, const int64_t *rows, int64_t count, lam_table **out) {
    lam_table *chosen = NULL;
    lam_status status = LAM_OK;
    int columns = table->columns;
    LAM_TRY(lam_table_store_new(&chosen, table->path));
    LAM_REQUIRE_GOTO(columns == 0 || count <= INT64_MAX / columns, failed, LAM_ERROR_MEMORY,
                     "%s: too many cells", table->path);
    LAM_TRY_GOTO(lam_alloc_array((void **)&chosen->names, columns, sizeof *chosen->names), failed);
    LAM_TRY_GOTO(lam_alloc_array((void **)&chosen->base, count * columns, sizeof *chosen->base), failed);
    LAM_TRY_GOTO(lam_alloc_array((void **)&chosen->lines, count, sizeof *chosen->lines), failed);
    chosen->rows = count;
    chosen->columns = chosen->base_columns = columns;
    for (int column = 0; column < columns; column++) {
        const char *name = table->names[column];
        LAM_TRY_GOTO(lam_table_store_text(chosen, name, strlen(name), &chosen->names[column]), failed);
    }
    for (int64_t i = 0; i < count; i++) {
        LAM_REQUIRE_GOTO(rows[i] >= 0 && rows[i] < table->rows, failed, LAM_ERROR_INTERNAL,
                         "%s: row %lld is outside the table", table->path, (long long)rows[i]);
        chosen->lines[i] = lam_table_line(table, rows[i]);
        for (int column = 0; column < columns; column++) {
            const char *cell = lam_table_cell(table, rows[i], column);
            const char **place = &chosen->base[i * columns + column];
            LAM_TRY_GOTO(lam_table_store_text(chosen, cell, strlen(cell), place), failed);
        }
    }
    *out = chosen;
    return LAM_OK;
failed:
    lam_table_free(chosen);
    return status;
}

bool lam_text_is_number(const char *text, double *value) {
    static const double powers[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                    1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    const char *at = text;
    bool negative = *at == '-';
    if (*at == '-' || *at == '+') at++;
    uint64_t mantissa = 0;
    int digits = 0, after_point = 0;
    bool point = false;
    for (;; at++) {
        if (*at >= '0' && *at <= '9') {
            digits++;
            if (digits <= 18) mantissa = mantissa * 10 + (uint64_t)(*at - '0');
            after_point += point;
        } else if (*at == '.' && !point) {
            point = true;
        } else {
            break;
        }
    }
    if (digits == 0) return false;
    int exponent = 0;
    bool has_exponent = *at == 'e' || *at == 'E';
    if (has_exponent) {
        at++;
        bool down = *at == '-';
        if (*at == '-' || *at == '+') at++;
        if (*at < '0' || *at > '9') return false;
        for (; *at >= '0' && *at <= '9'; at++) {
            if (exponent < 100000) exponent = exponent * 10 + (*at - '0');
        }
        if (down) exponent = -exponent;
    }
    if (*at != '\0') return false;
    /* Both factors are exact doubles, so one rounding gives the nearest (Clinger 1990, section 4). */
    int scale = exponent - after_point;
    double number;
    if (digits <= 18 && mantissa <= (uint64_t)1 << 53 && scale >= -22 && scale <= 22) {
        number = scale < 0 ? (double)mantissa / powers[-scale] : (double)mantissa * powers[scale];
        if (negative) number = -number;
    } else {
        number = strtod(text, NULL);
        if (!isfinite(number)) return false;
    }
    if (value != NULL) *value = number;
    return true;
}

bool lam_table_is_numeric(const lam_table *table, int column) {
    bool some = false;
    for (int64_t row = 0; row < table->rows; row++) {
        const char *cell = lam_table_cell(table, row, column);
        if (cell[0] == '\0') continue;
        if (!lam_text_is_number(cell, NULL)) return false;
        some = true;
    }
    return some;
}

typedef struct level {
    const char *name;
    int64_t first; /* code by first appearance */
} level;

static int compare_levels(const void *a, const void *b) {
    return strcmp(((const level *)a)->name, ((const level *)b)->name);
}

lam_status lam_table_codes(const lam_table *table, int column, int64_t **codes, const char ***level_names,
                           int64_t *levels) {
    int64_t *code = NULL, *slots = NULL, *rank = NULL, found = 0;
    const char **names = NULL;
    level *seen = NULL;
    size_t capacity = 64, seen_capacity = 64;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_alloc_array((void **)&code, table->rows, sizeof *code), done);
    LAM_TRY_GOTO(lam_alloc(((void **)&slots), capacity * sizeof *slots), done);
    LAM_TRY_GOTO(lam_alloc(((void **)&seen), seen_capacity * sizeof *seen), done);
    for (int64_t row = 0; row < table->rows; row++) {
        const char *cell = lam_table_cell(table, row, column);
        if (row > 0 && strcmp(cell, seen[code[row - 1]].name) == 0) {
            code[row] = code[row - 1];
            continue;
        }
        size_t slot = (size_t)XXH3_64bits(cell, strlen(cell)) & (capacity - 1);
        while (slots[slot] != 0 && strcmp(seen[slots[slot] - 1].name, cell) != 0)
            slot = (slot + 1) & (capacity - 1);
        if (slots[slot] == 0) {
            if ((size_t)found == seen_capacity) {
                LAM_TRY_GOTO(
                    lam_grow((void **)&seen, seen_capacity * sizeof *seen, seen_capacity * 2 * sizeof *seen),
                    done);
                seen_capacity *= 2;
            }
            seen[found] = (level){cell, found};
            found++;
            slots[slot] = found;
        }
        code[row] = slots[slot] - 1;
        if ((size_t)found * 2 > capacity) {
            lam_free(slots);
            slots = NULL;
            capacity *= 4;
            LAM_TRY_GOTO(lam_alloc((void **)&slots, capacity * sizeof *slots), done);
            for (int64_t i = 0; i < found; i++) {
                slot = (size_t)XXH3_64bits(seen[i].name, strlen(seen[i].name)) & (capacity - 1);
                while (slots[slot] != 0) slot = (slot + 1) & (capacity - 1);
                slots[slot] = i + 1;
            }
        }
    }
    LAM_TRY_GOTO(lam_alloc_array((void **)&names, found, sizeof *names), done);
    LAM_TRY_GOTO(lam_alloc_array((void **)&rank, found, sizeof *rank), done);
    qsort(seen, (size_t)found, sizeof *seen, compare_levels);
    for (int64_t i = 0; i < found; i++) {
        names[i] = seen[i].name;
        rank[seen[i].first] = i;
    }
    for (int64_t row = 0; row < table->rows; row++) code[row] = rank[code[row]];
    *codes = code;
    *level_names = names;
    *levels = found;
    code = NULL;
    names = NULL;
done:
    lam_free(code);
    lam_free(slots);
    lam_free(seen);
    lam_free(rank);
    lam_free(names);
    return status;
}
