/* Expressions over the metadata: precedence, numbers and texts, quotes, and errors with their position. */
#include "eval/where.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/fault.h"
#include "base/memory.h"

static lam_table *table;

static int enter(void **state) {
    (void)state;
    static const char *const gene[] = {"TP53", "BRCA1", "non-targeting", "and", ""};
    static const char *const dose[] = {"0.5", "10", "9", "", "x"};
    static const char *const plate[] = {"p 1", "p 1", "p2", "p(3)", "01"};
    if (lam_table_create(&table, 5) != LAM_OK) return -1;
    return lam_table_add(table, "gene", gene) == LAM_OK && lam_table_add(table, "dose", dose) == LAM_OK &&
                   lam_table_add(table, "plate name", plate) == LAM_OK
               ? 0
               : -1;
}

static int leave(void **state) {
    (void)state;
    lam_table_free(table);
    return 0;
}

static void kept(void **state) {
    (void)state;
    static const struct {
        const char *expression, *keep;
    } cases[] = {
        {"gene == TP53", "10000"},
        {"gene=='TP53'", "10000"},
        {"gene != non-targeting", "11011"},
        {"gene == ''", "00001"},
        {"gene == \"and\"", "00010"},
        {"dose < 10", "10100"}, /* numbers, not texts; an empty cell and a word are on no side */
        {"dose >= 9", "01100"},
        {"dose > 0.5", "01100"},
        {"dose <= 5e-1", "10000"},
        {"dose == 10.0", "01000"},
        {"dose != 9", "11011"},
        {"dose == x", "00001"},
        {"'plate name' == 'p 1'", "11000"},
        {"'plate name' == 'p(3)'", "00010"},
        {"'plate name' == 1", "00001"},
        {"gene in (TP53|BRCA1)", "11000"},
        {"gene in ( TP53 | 'and' )", "10010"},
        {"not gene in (TP53|BRCA1)", "00111"},
        {"gene == TP53 or gene == BRCA1 and dose > 100", "10000"}, /* and binds tighter */
        {"(gene == TP53 or gene == BRCA1) and dose > 1", "01000"},
        {"not gene == TP53 and dose > 1", "01100"}, /* not binds tightest */
        {"not (gene == TP53 or dose > 1)", "00011"},
        {"not not gene == TP53", "10000"},
        {"  gene==TP53  ", "10000"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        bool *keep = NULL;
        if (lam_where(table, cases[i].expression, &keep) != LAM_OK)
            fail_msg("%s: %s", cases[i].expression, lam_last_error());
        for (int r = 0; r < 5; r++)
            if (keep[r] != (cases[i].keep[r] == '1')) fail_msg("%s: row %d", cases[i].expression, r);
        lam_free(keep);
    }
}

static void refused(void **state) {
    (void)state;
    enum { SYNTAX = 13 };
    static const struct {
        const char *expression, *message;
    } cases[] = {
        {"", "position 1"},
        {"gene", "position 5"},
        {"gene =", "position 6"},
        {"gene = TP53", "position 6"},
        {"gene ==", "position 8"},
        {"gene == 'TP53", "a quote is not closed"},
        {"(gene == TP53", "position 14"},
        {"gene == TP53)", "position 13"},
        {"gene == TP53 and", "position 17"},
        {"gene == TP53 dose == 1", "position 14"},
        {"gene in TP53", "position 9"},
        {"gene in (TP53", "position 14"},
        {"gene in ()", "position 10"},
        {"genes == TP53", "gene"}, /* the nearest name */
        {"dose > 1 and nothing == 2", "nothing"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        bool *keep = (bool *)&keep;
        lam_status expected =
            i < SYNTAX ? LAM_ERROR_USAGE : LAM_ERROR_INPUT; /* the rest are right, but not for this table */
        if (lam_where(table, cases[i].expression, &keep) != expected)
            fail_msg("'%s' was taken", cases[i].expression);
        if (expected == LAM_ERROR_USAGE) assert_null(keep);
        if (!strstr(lam_last_error(), cases[i].message))
            fail_msg("'%s': %s", cases[i].expression, lam_last_error());
    }
    char deep[400];
    memset(deep, '(', 200);
    strcpy(deep + 200, "gene == A");
    bool *keep;
    assert_int_equal(lam_where(table, deep, &keep), LAM_ERROR_USAGE);
    memset(deep, 'x', 300);
    strcpy(deep + 300, " == A"); /* a name longer than any */
    assert_int_not_equal(lam_where(table, deep, &keep), LAM_OK);
    lam_fault_arm(LAM_FAULT_ALLOC, 1);
    assert_int_equal(lam_where(table, "gene == A", &keep), LAM_ERROR_MEMORY);
    lam_fault_arm(LAM_FAULT_ALLOC, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(kept), cmocka_unit_test(refused)};
    return cmocka_run_group_tests(tests, enter, leave);
}
