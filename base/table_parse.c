#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/files.h"
#include "base/memory.h"
#include "base/table.h"
#include "base/table_store.h"
#include "base/unpack.h"

/* RFC 4180, in place: a cell is never longer than its text in the file, so each is moved to where it began
 * and gets its zero byte over the delimiter. */
typedef struct reader {
    char *at, *end; /* *end is a zero byte of the block */
    char delimiter;
    int64_t line;
    const char *name;
} reader;

typedef enum cell_end { CELL_MORE, CELL_ROW_DONE } cell_end;

static lam_status fail_nul(const reader *r) {
    LAM_FAIL(LAM_ERROR_FORMAT, "%s:%lld: a zero byte in the text; is it a text table (CSV or TSV)?", r->name,
             (long long)r->line);
}

/* After the cell's text: what ends it at r->at. Steps over it. */
static cell_end step_over_end(reader *r, char *zero) {
    char ending = r->at < r->end ? *r->at : '\0';
    bool row_done = true;
    if (r->at < r->end) {
        row_done = ending != r->delimiter;
        if (ending == '\r') {
            r->at++;
            ending = r->at < r->end ? *r->at : '\0';
        }
        if (r->at < r->end) r->at++;
        if (ending == '\n') r->line++;
    }
    *zero = '\0';
    return row_done ? CELL_ROW_DONE : CELL_MORE;
}

/* True at a delimiter, a line end or the end of the text; a lone carriage return is text. */
static bool at_end_of_cell(const reader *r) {
    if (r->at >= r->end || *r->at == r->delimiter || *r->at == '\n') return true;
    return *r->at == '\r' && (r->at + 1 >= r->end || r->at[1] == '\n');
}

static lam_status read_cell(reader *r, const char **cell, cell_end *ended) {
    char *start = r->at;
    *cell = start;
    if (r->at < r->end && *r->at == '"') {
        int64_t opened = r->line;
        char *write = start;
        r->at++;
        for (;;) {
            LAM_REQUIRE(r->at < r->end, LAM_ERROR_FORMAT, "%s:%lld: a quote opens here and is never closed",
                        r->name, (long long)opened);
            char c = *r->at++;
            if (c == '"') {
                if (r->at >= r->end || *r->at != '"') break;
                r->at++;
            } else if (c == '\n') {
                r->line++;
            } else if (c == '\0') {
                return fail_nul(r);
            }
            *write++ = c;
        }
        LAM_REQUIRE(at_end_of_cell(r), LAM_ERROR_FORMAT,
                    "%s:%lld: text after a closing quote; write a quote inside a quoted cell twice", r->name,
                    (long long)r->line);
        *ended = step_over_end(r, write);
        return LAM_OK;
    }
    char delimiter = r->delimiter, *at = start, *end = r->end;
    for (;;) {
        while (at < end && *at != delimiter && *at != '\n' && *at != '\r' && *at != '\0') at++;
        r->at = at;
        if (at >= end || at_end_of_cell(r)) break;
        if (*at == '\0') return fail_nul(r);
        at++;
    }
    *ended = step_over_end(r, at);
    return LAM_OK;
}

static bool at_blank_line(const reader *r) {
    if (r->at >= r->end) return false;
    return *r->at == '\n' || (*r->at == '\r' && (r->at + 1 >= r->end || r->at[1] == '\n'));
}

static void skip_blank_lines(reader *r) {
    while (at_blank_line(r)) {
        if (*r->at == '\r') r->at++;
        if (r->at < r->end) r->at++;
        r->line++;
    }
}

static char delimiter_of_header(const char *text, const char *end) {
    bool quoted = false;
    for (const char *at = text; at < end && (quoted || *at != '\n'); at++) {
        if (*at == '"') quoted = !quoted;
        if (*at == '\t' && !quoted) return '\t';
    }
    return ',';
}

static int compare_names(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static lam_status read_header(lam_table *table, reader *r) {
    size_t capacity = 0;
    cell_end ended = CELL_MORE;
    bool all_numbers = true;
    long long header_line = (long long)r->line;
    while (ended == CELL_MORE) {
        if ((size_t)table->columns == capacity) {
            size_t larger = capacity == 0 ? 16 : capacity * 2;
            LAM_REQUIRE(larger < INT_MAX, LAM_ERROR_FORMAT, "%s:%lld: more than 2^30 columns", r->name,
                        header_line);
            LAM_TRY(lam_grow((void **)&table->names, capacity * sizeof *table->names,
                             larger * sizeof *table->names));
            capacity = larger;
        }
        LAM_TRY(read_cell(r, &table->names[table->columns], &ended));
        all_numbers = all_numbers && lam_text_is_number(table->names[table->columns], NULL);
        table->columns++;
        table->base_columns++;
    }
    LAM_REQUIRE(!all_numbers, LAM_ERROR_INPUT,
                "%s:%lld: no header: every cell of the first line is a number; put the column names there",
                r->name, header_line);
    const char **sorted = NULL;
    lam_status status = LAM_OK;
    LAM_TRY(lam_alloc_array((void **)&sorted, table->columns, sizeof *sorted));
    memcpy(sorted, table->names, (size_t)table->columns * sizeof *sorted);
    qsort(sorted, (size_t)table->columns, sizeof *sorted, compare_names);
    for (int i = 1; i < table->columns; i++) {
        LAM_REQUIRE_GOTO(strcmp(sorted[i - 1], sorted[i]) != 0, done, LAM_ERROR_INPUT,
                         "%s:%lld: column '%s' is there twice; rename one", r->name, header_line, sorted[i]);
    }
done:
    lam_free(sorted);
    return status;
}

/* Consumes the row to its end so that the message can say how many cells there are. */
static lam_status fail_row_width(reader *r, int64_t line, int cells, cell_end ended, int columns) {
    const char *cell = NULL;
    while (ended == CELL_MORE) {
        LAM_TRY(read_cell(r, &cell, &ended));
        cells++;
    }
    LAM_FAIL(LAM_ERROR_INPUT, "%s:%lld: %d cells, but the header has %d columns", r->name, (long long)line,
             cells, columns);
}

static lam_status read_rows(lam_table *table, reader *r) {
    /* Neither line ends nor cell ends can be fewer than what the rows need: a bound before anything is
     * allocated. */
    int64_t line_ends = 0, cell_ends = 0;
    for (const char *at = r->at; at < r->end; at++) {
        line_ends += *at == '\n';
        cell_ends += *at == r->delimiter;
    }
    int64_t columns = table->columns, bound = (cell_ends + line_ends + 1) / columns + 1;
    if (line_ends + 1 < bound) bound = line_ends + 1;
    LAM_TRY(lam_alloc_array((void **)&table->base, bound * columns, sizeof *table->base));
    LAM_TRY(lam_alloc_array((void **)&table->lines, bound, sizeof *table->lines));
    for (skip_blank_lines(r); r->at < r->end; skip_blank_lines(r)) {
        int64_t line = r->line;
        cell_end ended = CELL_MORE;
        LAM_REQUIRE(table->rows < bound, LAM_ERROR_INTERNAL, "%s: row bound %lld", r->name, (long long)bound);
        const char **cells = table->base + table->rows * columns;
        for (int column = 0; column < table->columns; column++) {
            if (ended == CELL_ROW_DONE) return fail_row_width(r, line, column, ended, table->columns);
            LAM_TRY(read_cell(r, &cells[column], &ended));
        }
        if (ended == CELL_MORE) return fail_row_width(r, line, table->columns, ended, table->columns);
        table->lines[table->rows++] = line;
    }
    return LAM_OK;
}

/* Takes `block` (size bytes and a zero byte) over in every case. */
static lam_status parse_block(lam_table **out, char *block, size_t size, const char *name) {
    lam_table *table = NULL;
    lam_status status = lam_table_store_new(&table, name);
    if (status != LAM_OK) {
        lam_free(block);
        return status;
    }
    table->block = block;
    reader r = {block, block + size, ',', 1, name};
    if (size >= 3 && memcmp(block, "\xef\xbb\xbf", 3) == 0) r.at += 3;
    skip_blank_lines(&r);
    LAM_REQUIRE_GOTO(r.at < r.end, failed, LAM_ERROR_INPUT,
                     "%s: the table is empty; its first line must name the "
                     "columns",
                     name);
    r.delimiter = delimiter_of_header(r.at, r.end);
    LAM_TRY_GOTO(read_header(table, &r), failed);
    LAM_TRY_GOTO(read_rows(table, &r), failed);
    *out = table;
    return LAM_OK;
failed:
    lam_table_free(table);
    return status;
}

lam_status lam_table_parse(lam_table **out, const char *text, size_t size, const char *name) {
    char *block = NULL;
    size_t block_size = 0;
    LAM_TRY(lam_unpack_copy(&block, &block_size, text, size, name));
    return parse_block(out, block, block_size, name);
}

lam_status lam_table_read(lam_table **out, const char *path) {
    char *block = NULL;
    size_t size = 0;
    LAM_TRY(lam_file_read(path, &block, &size));
    lam_status status = lam_unpack(&block, &size, path);
    if (status != LAM_OK) {
        lam_free(block);
        return status;
    }
    return parse_block(out, block, size, path);
}
