#include "eval/where.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

#define WORD_BYTES 256
#define MAX_NESTING 64

typedef struct parser {
    const lam_table *table;
    const char *option, *text, *at;
    int64_t row;
    int nesting;
    lam_status status;
} parser;

static bool fail(parser *p, const char *what) {
    if (p->status == LAM_OK)
        p->status = lam_fail(LAM_ERROR_USAGE, __FILE__, __LINE__, "%s: %s at position %d of '%s'", p->option,
                             what, (int)(p->at - p->text) + 1, p->text);
    return false;
}

static void skip(parser *p) {
    while (isspace((unsigned char)*p->at)) p->at++;
}

static bool take(parser *p, const char *symbol) {
    skip(p);
    size_t n = strlen(symbol);
    if (strncmp(p->at, symbol, n) != 0) return false;
    if (isalpha((unsigned char)symbol[0]) && (isalnum((unsigned char)p->at[n]) || p->at[n] == '_'))
        return false;
    p->at += n;
    return true;
}

static bool word(parser *p, char *out, const char *stops) {
    skip(p);
    size_t n = 0;
    char quote = *p->at == '"' || *p->at == '\'' ? *p->at++ : 0;
    while (*p->at && n < WORD_BYTES - 1 &&
           (quote ? *p->at != quote : !isspace((unsigned char)*p->at) && !strchr(stops, *p->at)))
        out[n++] = *p->at++;
    out[n] = 0;
    if (quote && *p->at++ != quote) {
        p->at--;
        return fail(p, "a quote is not closed");
    }
    return n || quote ? true : fail(p, "a name or value is missing");
}

static bool compare(const char *cell, const char *operation, const char *value) {
    double a, b;
    bool numbers = lam_text_is_number(cell, &a) && lam_text_is_number(value, &b);
    int order = numbers ? (a > b) - (a < b) : strcmp(cell, value);
    if (!strcmp(operation, "==")) return order == 0;
    if (!strcmp(operation, "!=")) return order != 0;
    if (!numbers) return false; /* an order of texts or of missing numbers is no answer */
    if (!strcmp(operation, "<=")) return order <= 0;
    if (!strcmp(operation, ">=")) return order >= 0;
    return operation[0] == '<' ? order < 0 : order > 0;
}

static bool either(parser *p);

static bool comparison(parser *p) {
    static const char *const operations[] = {"==", "!=", "<=", ">=", "<", ">"};
    char name[WORD_BYTES], value[WORD_BYTES];
    int column;
    if (!word(p, name, "=!<>()|")) return false;
    lam_status found = lam_table_require(p->table, name, &column);
    if (found != LAM_OK) {
        if (p->status == LAM_OK) p->status = found;
        return false;
    }
    const char *cell = lam_table_cell(p->table, p->row, column);
    if (take(p, "in")) {
        if (!take(p, "(")) return fail(p, "'(' is missing");
        bool result = false;
        do {
            if (!word(p, value, "|)")) return false;
            result |= compare(cell, "==", value);
        } while (take(p, "|"));
        return take(p, ")") ? result : fail(p, "')' is missing");
    }
    for (size_t i = 0; i < sizeof operations / sizeof *operations; i++)
        if (take(p, operations[i])) return word(p, value, "()=<>!|") && compare(cell, operations[i], value);
    return fail(p, "==, !=, <, <=, >, >= or in is missing");
}

static bool single(parser *p) {
    if (take(p, "not")) return !single(p) && p->status == LAM_OK;
    if (!take(p, "(")) return comparison(p);
    if (++p->nesting > MAX_NESTING) return fail(p, "too many parentheses");
    bool result = either(p);
    p->nesting--;
    return take(p, ")") ? result : fail(p, "')' is missing");
}

static bool both(parser *p) {
    bool result = single(p);
    while (p->status == LAM_OK && take(p, "and")) result = single(p) && result;
    return result;
}

static bool either(parser *p) {
    bool result = both(p);
    while (p->status == LAM_OK && take(p, "or")) result = both(p) || result;
    return result;
}

static lam_status evaluate(const lam_table *table, const char *option, const char *expression, bool **keep) {
    LAM_TRY(lam_alloc_array((void **)keep, lam_table_rows(table), sizeof **keep));
    for (int64_t row = 0; row < lam_table_rows(table); row++) {
        parser p = {table, option, expression, expression, row, 0, LAM_OK};
        (*keep)[row] = either(&p);
        skip(&p);
        if (p.status == LAM_OK && *p.at) fail(&p, "something is left over");
        if (p.status != LAM_OK) {
            lam_free(*keep);
            *keep = NULL;
            return p.status;
        }
    }
    return LAM_OK;
}

lam_status lam_where(const lam_table *table, const char *expression, bool **keep) {
    return evaluate(table, "--where", expression, keep);
}

typedef struct entry {
    const char *name;
    bool keep;
} entry;

static int by_name(const void *a, const void *b) {
    return strcmp(((const entry *)a)->name, ((const entry *)b)->name);
}

static lam_status look_up(const lam_table *table, int column, const bool *keep, const char *const *genes,
                          int64_t count, lam_expression *out) {
    int64_t n = lam_table_rows(table), unique = 0;
    entry *entries;
    LAM_TRY(lam_alloc_array((void **)&entries, n, sizeof *entries));
    for (int64_t i = 0; i < n; i++) entries[i] = (entry){lam_table_cell(table, i, column), !keep || keep[i]};
    qsort(entries, (size_t)n, sizeof *entries, by_name);
    for (int64_t i = 0; i < n; i++) {
        if (unique && !strcmp(entries[unique - 1].name, entries[i].name))
            entries[unique - 1].keep |= entries[i].keep;
        else
            entries[unique++] = entries[i];
    }
    for (int64_t i = 0; i < count; i++) {
        entry key = {genes[i], false};
        const entry *found = bsearch(&key, entries, (size_t)unique, sizeof *entries, by_name);
        if (found)
            out[i] = found->keep ? LAM_EXPRESSED : LAM_UNEXPRESSED;
        else
            out[i] = keep ? LAM_EXPRESSION_UNKNOWN : LAM_UNEXPRESSED;
    }
    lam_free(entries);
    return LAM_OK;
}

lam_status lam_expressed(const char *path, const char *expression, const char *gene_column,
                         const char *const *genes, int64_t count, lam_expression *out) {
    lam_table *table = NULL;
    bool *keep = NULL;
    int column;
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_table_read(&table, path), done);
    column = lam_table_column(table, gene_column);
    if (column < 0) LAM_TRY_GOTO(lam_table_require(table, "gene", &column), done);
    LAM_REQUIRE_GOTO(lam_table_rows(table) > 0, done, LAM_ERROR_INPUT, "%s: has no rows", path);
    if (expression) LAM_TRY_GOTO(evaluate(table, "--expressed-where", expression, &keep), done);
    status = look_up(table, column, keep, genes, count, out);
done:
    lam_free(keep);
    lam_table_free(table);
    return status;
}

lam_status lam_where_controls(const lam_table *table, const char *text, bool *keep, int64_t *count) {
    const char *equals = strchr(text, '=');
    LAM_REQUIRE(equals && equals != text, LAM_ERROR_USAGE, "--controls is '%s', column=value is needed",
                text);
    char *name;
    int column;
    LAM_TRY(lam_text_copy_n(&name, text, (size_t)(equals - text)));
    lam_status status = lam_table_require(table, name, &column);
    lam_free(name);
    LAM_TRY(status);
    *count = 0;
    for (int64_t i = 0; i < lam_table_rows(table); i++)
        *count += keep[i] = !strcmp(lam_table_cell(table, i, column), equals + 1);
    LAM_REQUIRE(*count > 0, LAM_ERROR_INPUT, "there are no controls: no row has %s", text);
    return LAM_OK;
}
