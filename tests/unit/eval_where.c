/* Expressions over the metadata: precedence, numbers and texts, quotes, and errors with their position; tables of expressed genes. */
#include "eval/where.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/fault.h"
#include "base/files.h"
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

static void expressed(void **state) {
    (void)state;
    static const char *const genes[] = {"A", "B", "C", "D", ""};
    static const struct {
        const char *text, *expression, *column, *expected; /* a digit of lam_expression for each gene */
        lam_status status;
    } cases[] = {
        {"gene,zfpkm\nA,-2\nB,-3.5\nB,-4\nC,-9\nC,-3\n", "zfpkm >= -3", "symbol", "21200", LAM_OK},
        {"symbol,gene,zfpkm\nA,x,-2\nB,y,nan\nC,z,\n", "zfpkm >= -3", "symbol", "21100", LAM_OK},
        {"gene\nA\nC\n", NULL, "gene", "21211", LAM_OK}, /* a list: what is not in it is not expressed */
        {"gene,tpm\nA,1\n", "tpm >", "gene", "--expressed-where", LAM_ERROR_USAGE},
        {"gene,tpm\nA,1\n", "tmp > 0", "gene", "tpm", LAM_ERROR_INPUT},
        {"name,tpm\nA,1\n", "tpm > 0", "symbol", "gene", LAM_ERROR_INPUT},
        {"gene,tpm\n", "tpm > 0", "gene", "no rows", LAM_ERROR_INPUT},
    };
    char path[] = "/tmp/lamella_expressed_XXXXXX";
    int file = mkstemp(path);
    assert_true(file >= 0);
    close(file);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        lam_expression out[5];
        assert_int_equal(lam_file_write(path, cases[i].text, strlen(cases[i].text)), LAM_OK);
        assert_int_equal(lam_expressed(path, cases[i].expression, cases[i].column, genes, 5, out),
                         cases[i].status);
        if (cases[i].status != LAM_OK && !strstr(lam_last_error(), cases[i].expected))
            fail_msg("%s", lam_last_error());
        for (int g = 0; cases[i].status == LAM_OK && g < 5; g++)
            assert_int_equal(out[g], cases[i].expected[g] - '0');
    }
    unlink(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(kept), cmocka_unit_test(refused),
                                       cmocka_unit_test(expressed)};
    return cmocka_run_group_tests(tests, enter, leave);
}
