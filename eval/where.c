#include "eval/where.h"

#include <ctype.h>
#include <string.h>

#include "base/memory.h"

#define WORD_BYTES 256
#define MAX_NESTING 64

typedef struct parser {
    const lam_table *table;
    const char *text, *at;
    int64_t row;
    int nesting;
    lam_status status;
} parser;

static bool fail(parser *p, const char *what) {
    if (p->status == LAM_OK)
        p->status = lam_fail(LAM_ERROR_USAGE, __FILE__, __LINE__, "--where: %s at position %d of '%s'", what,
                             (int)(p->at - p->text) + 1, p->text);
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

lam_status lam_where(const lam_table *table, const char *expression, bool **keep) {
    LAM_TRY(lam_alloc_array((void **)keep, lam_table_rows(table), sizeof **keep));
    for (int64_t row = 0; row < lam_table_rows(table); row++) {
        parser p = {table, expression, expression, row, 0, LAM_OK};
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
