/* Tables of text: what is accepted, what is refused and where the message points, codes, selection, writing.
 */
#include "base/table.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include <cmocka.h>

#include "base/fault.h"
#include "base/files.h"
#include "base/memory.h"

static lam_table *parse(const char *text) {
    lam_table *table = NULL;
    lam_status status = lam_table_parse(&table, text, strlen(text), "t.csv");
    if (status != LAM_OK) fail_msg("%s", lam_last_error());
    return table;
}

static void expect_refused(const char *text, size_t size, lam_status code, const char *message) {
    lam_table *table = NULL;
    assert_int_equal(lam_table_parse(&table, text, size, "t.csv"), code);
    assert_null(table);
    if (strstr(lam_last_error(), message) == NULL) fail_msg("'%s' lacks '%s'", lam_last_error(), message);
    assert_null(strchr(lam_last_error(), '\n'));
}

static void forms_of_csv(void **state) {
    (void)state;
    static const char *const same[] = {
        "a,b\n1,x y\n2,\n",
        "a,b\r\n1,x y\r\n2,\r\n",
        "\xef\xbb\xbf"
        "a,b\n1,x y\n2,",
        "a\tb\n1\tx y\n2\t\n",
        "\"a\",\"b\"\n\"1\",\"x y\"\n2,\"\"",
        "\n\na,b\n\n1,x y\n\r\n2,\n\n",
    };
    for (size_t i = 0; i < sizeof same / sizeof same[0]; i++) {
        lam_table *t = parse(same[i]);
        assert_int_equal(lam_table_rows(t), 2);
        assert_int_equal(lam_table_columns(t), 2);
        assert_string_equal(lam_table_name(t, 0), "a");
        assert_string_equal(lam_table_name(t, 1), "b");
        assert_string_equal(lam_table_cell(t, 0, 0), "1");
        assert_string_equal(lam_table_cell(t, 0, 1), "x y");
        assert_string_equal(lam_table_cell(t, 1, 0), "2");
        assert_string_equal(lam_table_cell(t, 1, 1), "");
        assert_string_equal(lam_table_path(t), "t.csv");
        lam_table_free(t);
    }
}

static void quotes_and_lines(void **state) {
    (void)state;
    lam_table *t =
        parse("n,\"a,\ntext\"\n1,\"say \"\"hi\"\", ok\"\n2,\"two\r\nlines\"\n3,mid\"quote\rreturn\n");
    assert_string_equal(lam_table_name(t, 1), "a,\ntext");
    assert_string_equal(lam_table_cell(t, 0, 1), "say \"hi\", ok");
    assert_string_equal(lam_table_cell(t, 1, 1), "two\r\nlines");
    assert_string_equal(lam_table_cell(t, 2, 1), "mid\"quote\rreturn");
    assert_int_equal(lam_table_line(t, 0), 3);
    assert_int_equal(lam_table_line(t, 1), 4);
    assert_int_equal(lam_table_line(t, 2), 6);
    lam_table_free(t);
    /* A tab inside quotes does not make it tab-separated. */
    t = parse("\"a\tb\",c\n1,2\n");
    assert_int_equal(lam_table_columns(t), 2);
    assert_string_equal(lam_table_name(t, 0), "a\tb");
    lam_table_free(t);
    t = parse("only\n");
    assert_int_equal(lam_table_rows(t), 0);
    lam_table_free(t);
}

/* Lists of known relationships as people keep them: any header, other columns beside, both directions, a gene with
 * itself. The pairs are the first two columns of text. */
static void lists_of_relationships(void **state) {
    (void)state;
    static const char *const lists[] = {
        "entity1,entity2\nTP53,MDM2\nMDM2,TP53\nA-1,A-1\n\"H,2\",C\n",
        "Gene A,Gene B\r\nTP53,MDM2\r\n\r\nMDM2,TP53\r\nA-1,A-1\r\n\"H,2\",C",
        "#a\tb\tscore\nTP53\tMDM2\t0.9\nMDM2\tTP53\t0.9\nA-1\tA-1\t1\nH,2\tC\t\n",
        "\"\",\"protein 1\",\"n\",\"protein 2\"\n\"1\",\"TP53\",1,\"MDM2\"\n\"2\",\"MDM2\",2,\"TP53\"\n"
        "\"3\",\"A-1\",3,\"A-1\"\n\"4\",\"H,2\",4,\"C\"\n", /* R's write.csv: row names without a name */
        "\xef\xbb\xbfsource;1,target\nTP53,MDM2\nMDM2,TP53\nA-1,A-1\n\"H,2\",C\n",
    };
    static const char *const pairs[4][2] = {{"TP53", "MDM2"}, {"MDM2", "TP53"}, {"A-1", "A-1"}, {"H,2", "C"}};
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) {
        lam_table *t = parse(lists[i]);
        int texts[2] = {-1, -1}, found = 0;
        for (int column = 0; column < lam_table_columns(t) && found < 2; column++) {
            if (!lam_table_is_numeric(t, column)) texts[found++] = column;
        }
        assert_int_equal(found, 2);
        assert_int_equal(lam_table_rows(t), 4);
        for (int64_t row = 0; row < 4; row++) {
            for (int k = 0; k < 2; k++) assert_string_equal(lam_table_cell(t, row, texts[k]), pairs[row][k]);
        }
        lam_table_free(t);
    }
}

static void refusals(void **state) {
    (void)state;
    static const struct {
        const char *text;
        lam_status code;
        const char *message;
    } cases[] = {
        {"", LAM_ERROR_INPUT, "t.csv: the table is empty"},
        {"\n\r\n", LAM_ERROR_INPUT, "empty"},
        {"a,b,a\n1,2,3\n", LAM_ERROR_INPUT, "t.csv:1: column 'a' is there twice"},
        {"a,b\n1,2\n3\n", LAM_ERROR_INPUT, "t.csv:3: 1 cells, but the header has 2 columns"},
        {"a,b\n1,2\n\n3,4,5,6\n", LAM_ERROR_INPUT, "t.csv:4: 4 cells"},
        {"a,b\n1,\"open\n5,6\n", LAM_ERROR_FORMAT, "t.csv:2: a quote opens here"},
        {"a,b\n1,\"x\"y\n", LAM_ERROR_FORMAT, "t.csv:2: text after a closing quote"},
        {"1,2.5,-3e4\n1,2,3\n", LAM_ERROR_INPUT, "t.csv:1: no header"},
        {"\x1f\x8b\x08nonsense", LAM_ERROR_FORMAT, "t.csv: damaged gzip"},
        {"\x28\xb5\x2f\xfdnonsense", LAM_ERROR_FORMAT, "zstd"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        expect_refused(cases[i].text, strlen(cases[i].text), cases[i].code, cases[i].message);
    }
    expect_refused("a,b\n1,x\0y\n", 10, LAM_ERROR_FORMAT, "t.csv:2: a zero byte");
    expect_refused("a,b\n1,\"x\0y\"\n", 12, LAM_ERROR_FORMAT, "t.csv:2: a zero byte");
    expect_refused("a,b\n1,2\0", 8, LAM_ERROR_FORMAT, "t.csv:2: a zero byte");
    lam_table *t = NULL;
    assert_int_equal(lam_table_read(&t, "/nonexistent/t.csv"), LAM_ERROR_IO);
    assert_non_null(strstr(lam_last_error(), "/nonexistent/t.csv"));
}

static void required_column(void **state) {
    (void)state;
    lam_table *t = parse("plate,well\nP1,A01\n");
    int column = -2;
    assert_int_equal(lam_table_require(t, "well", &column), LAM_OK);
    assert_int_equal(column, 1);
    assert_int_equal(lam_table_require(t, "wel", &column), LAM_ERROR_INPUT);
    assert_non_null(strstr(lam_last_error(), "t.csv: no column 'wel', did you mean 'well'"));
    assert_non_null(strstr(lam_last_error(), "plate, well"));
    assert_int_equal(lam_table_column(t, "gene"), -1);
    lam_table_free(t);
}

static void numbers(void **state) {
    (void)state;
    static const char *const good[] = {"0",
                                       "-0",
                                       "1",
                                       "+1",
                                       "1.5",
                                       ".5",
                                       "5.",
                                       "1e5",
                                       "1E-5",
                                       "-2.5e+10",
                                       "0.1",
                                       "123456789012345678901234567890",
                                       "2.2250738585072014e-308",
                                       "5e-324",
                                       "1.7976931348623157e308",
                                       "0.30000000000000004",
                                       "9007199254740993",
                                       "1e22",
                                       "1e23",
                                       "8.5e-23",
                                       "0000000000000000000001"};
    static const char *const bad[] = {"",     " ",  "nan", "inf", "-",     ".",     "e5",  "1e", "1e+",
                                      "0x10", "1 ", " 1",  "1,5", "1e999", "1.2.3", "--1", "1f", "infinity"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        double value = -1;
        if (!lam_text_is_number(good[i], &value)) fail_msg("'%s' is a number", good[i]);
        double expected = strtod(good[i], NULL);
        assert_memory_equal(&value, &expected, sizeof value);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        if (lam_text_is_number(bad[i], NULL)) fail_msg("'%s' is no number", bad[i]);
    }
    /* Against strtod on many decimal texts. */
    unsigned long long seed = 1;
    for (int i = 0; i < 20000; i++) {
        char text[64];
        seed = seed * 6364136223846793005ull + 1442695040888963407ull;
        snprintf(text, sizeof text, "%.*fe%d", (int)(seed >> 60), (double)(seed >> 20) * 1e-9,
                 (int)(seed % 60) - 30);
        double value = 0, expected = strtod(text, NULL);
        assert_true(lam_text_is_number(text, &value));
        assert_memory_equal(&value, &expected, sizeof value);
    }
    lam_table *t = parse("a,b,c\n1,,x\n,,2\n");
    assert_true(lam_table_is_numeric(t, 0));
    assert_false(lam_table_is_numeric(t, 1));
    assert_false(lam_table_is_numeric(t, 2));
    lam_table_free(t);
}

static void added_and_selected(void **state) {
    (void)state;
    lam_table *t = parse("a,b\n1,x\n2,y\n3,z\n");
    const char *values[] = {"p", NULL, "r"};
    assert_int_equal(lam_table_add(t, "c", values), LAM_OK);
    assert_int_equal(lam_table_add(t, "d", NULL), LAM_OK);
    assert_int_equal(lam_table_add(t, "c", values), LAM_ERROR_INPUT);
    assert_int_equal(lam_table_set(t, 1, 2, "q"), LAM_OK);
    assert_int_equal(lam_table_set(t, 0, 0, "one"), LAM_OK);
    assert_int_equal(lam_table_set(t, 3, 0, "x"), LAM_ERROR_INTERNAL);
    assert_string_equal(lam_table_cell(t, 1, 2), "q");
    assert_string_equal(lam_table_cell(t, 2, 3), "");
    int64_t rows[] = {2, 0, 2};
    lam_table *s = NULL;
    assert_int_equal(lam_table_select(t, rows, 3, &s), LAM_OK);
    lam_table_free(t);
    assert_int_equal(lam_table_rows(s), 3);
    assert_int_equal(lam_table_columns(s), 4);
    assert_string_equal(lam_table_cell(s, 0, 1), "z");
    assert_string_equal(lam_table_cell(s, 1, 0), "one");
    assert_string_equal(lam_table_cell(s, 2, 2), "r");
    assert_int_equal(lam_table_line(s, 0), 4);
    assert_int_equal(lam_table_add(s, "e", NULL), LAM_OK);
    int64_t outside[] = {3};
    assert_int_equal(lam_table_select(s, outside, 1, &t), LAM_ERROR_INTERNAL);
    lam_table_free(s);
}

static void codes(void **state) {
    (void)state;
    /* 5000 levels in a scattered order, each four times, against the order of strcmp. */
    enum { LEVELS = 5000, ROWS = 20000 };
    lam_table *t = NULL;
    const char **values = NULL;
    char *text = NULL;
    assert_int_equal(lam_table_create(&t, ROWS), LAM_OK);
    assert_int_equal(lam_alloc_array((void **)&values, ROWS, sizeof *values), LAM_OK);
    assert_int_equal(lam_alloc_array((void **)&text, ROWS, 16), LAM_OK);
    for (int i = 0; i < ROWS; i++) {
        snprintf(text + i * 16, 16, "g%d", (int)((i * 7919ll) % LEVELS));
        values[i] = text + i * 16;
    }
    assert_int_equal(lam_table_add(t, "gene", values), LAM_OK);
    int64_t *code = NULL, levels = 0;
    const char **names = NULL;
    assert_int_equal(lam_table_codes(t, 0, &code, &names, &levels), LAM_OK);
    assert_int_equal(levels, LEVELS);
    for (int64_t i = 1; i < levels; i++) assert_true(strcmp(names[i - 1], names[i]) < 0);
    for (int i = 0; i < ROWS; i++) assert_string_equal(names[code[i]], values[i]);
    lam_free(code);
    lam_free(names);
    lam_free(values);
    lam_free(text);
    lam_table_free(t);
    assert_int_equal(lam_table_create(&t, 0), LAM_OK);
    assert_int_equal(lam_table_add(t, "x", NULL), LAM_OK);
    assert_int_equal(lam_table_codes(t, 0, &code, &names, &levels), LAM_OK);
    assert_int_equal(levels, 0);
    lam_free(code);
    lam_free(names);
    lam_table_free(t);
}

static void written_and_read_again(void **state) {
    (void)state;
    static const char *const ends[] = {".csv", ".tsv", ".csv.gz", ".tsv.gz"};
    const char *text = "a,\"b\tc\",\"d\"\"q\"\n1,\"x,y\",\n\"two\nlines\",\"\r\",\"say \"\"hi\"\"\"\n";
    for (size_t i = 0; i < 4; i++) {
        char path[128];
        snprintf(path, sizeof path, "/tmp/lamella-table-%ld%s", (long)getpid(), ends[i]);
        lam_table *t = parse(text), *again = NULL;
        assert_int_equal(lam_table_write(t, path), LAM_OK);
        char *bytes = NULL;
        size_t size = 0;
        assert_int_equal(lam_file_read(path, &bytes, &size), LAM_OK);
        assert_int_equal((unsigned char)bytes[0] == 0x1f, i >= 2);
        if (i == 0) assert_string_equal(bytes, text);
        if (i == 1) assert_memory_equal(bytes, "a\t\"b", 4);
        lam_free(bytes);
        assert_int_equal(lam_table_read(&again, path), LAM_OK);
        assert_int_equal(lam_table_rows(again), lam_table_rows(t));
        for (int column = 0; column < 3; column++) {
            assert_string_equal(lam_table_name(again, column), lam_table_name(t, column));
            for (int64_t row = 0; row < 2; row++) {
                assert_string_equal(lam_table_cell(again, row, column), lam_table_cell(t, row, column));
            }
        }
        lam_table_free(t);
        lam_table_free(again);
        unlink(path);
    }
    /* One column with empty cells must not become blank lines. */
    char path[128];
    snprintf(path, sizeof path, "/tmp/lamella-table-%ld.csv", (long)getpid());
    lam_table *t = parse("a\n\"\"\nx\n"), *again = NULL;
    assert_int_equal(lam_table_rows(t), 2);
    assert_int_equal(lam_table_write(t, path), LAM_OK);
    assert_int_equal(lam_table_read(&again, path), LAM_OK);
    assert_int_equal(lam_table_rows(again), 2);
    lam_table_free(t);
    lam_table_free(again);
    unlink(path);
    /* Nor must the first name be taken for the mark of a file's kind. */
    t = parse("\xef\xbb\xbf\"\xef\xbb\xbf"
              "a\",b\n1,2\n");
    assert_int_equal(lam_table_write(t, path), LAM_OK);
    assert_int_equal(lam_table_read(&again, path), LAM_OK);
    assert_string_equal(lam_table_name(again, 0), "\xef\xbb\xbf"
                                                  "a");
    lam_table_free(t);
    lam_table_free(again);
    unlink(path);
    assert_int_equal(lam_table_create(&t, 3), LAM_OK);
    assert_int_equal(lam_table_write(t, path), LAM_ERROR_INPUT);
    lam_table_free(t);
}

/* Several gzip members are one text, and a large table comes back whole. */
static void gzip_members(void **state) {
    (void)state;
    char path[128];
    snprintf(path, sizeof path, "/tmp/lamella-members-%ld.csv.gz", (long)getpid());
    for (int part = 0; part < 2; part++) {
        gzFile file = gzopen(path, part == 0 ? "wb" : "ab");
        assert_non_null(file);
        if (part == 0) gzputs(file, "n,text\n");
        for (int i = 0; i < 50000; i++) gzprintf(file, "%d,row\n", part * 50000 + i);
        gzclose(file);
    }
    lam_table *t = NULL;
    assert_int_equal(lam_table_read(&t, path), LAM_OK);
    assert_int_equal(lam_table_rows(t), 100000);
    assert_string_equal(lam_table_cell(t, 99999, 0), "99999");
    lam_table_free(t);
    assert_int_equal(truncate(path, 20000), 0);
    assert_int_equal(lam_table_read(&t, path), LAM_ERROR_FORMAT);
    unlink(path);
}

static lam_status all_operations(const char *path) {
    const char *text = "a,b\n1,x\n2,y\n1,z\n";
    lam_table *t = NULL, *chosen = NULL, *read = NULL;
    int64_t *code = NULL, levels = 0, rows[] = {1, 0};
    const char **names = NULL, *values[] = {"p", "q", "r"};
    lam_status status = LAM_OK;
    LAM_TRY_GOTO(lam_table_parse(&t, text, strlen(text), "t.csv"), done);
    LAM_TRY_GOTO(lam_table_add(t, "c", values), done);
    LAM_TRY_GOTO(lam_table_set(t, 0, 0, "9"), done);
    LAM_TRY_GOTO(lam_table_codes(t, 0, &code, &names, &levels), done);
    LAM_TRY_GOTO(lam_table_select(t, rows, 2, &chosen), done);
    LAM_TRY_GOTO(lam_table_write(chosen, path), done);
    LAM_TRY_GOTO(lam_table_read(&read, path), done);
done:
    lam_free(code);
    lam_free(names);
    lam_table_free(t);
    lam_table_free(chosen);
    lam_table_free(read);
    return status;
}

static void every_fault(void **state) {
    (void)state;
    static const lam_status expected[] = {LAM_ERROR_MEMORY, LAM_ERROR_IO, LAM_ERROR_IO};
    char path[128];
    snprintf(path, sizeof path, "/tmp/lamella-fault-%ld.csv.gz", (long)getpid());
    assert_int_equal(all_operations(path), LAM_OK);
    for (int kind = 0; kind < LAM_FAULT_KINDS; kind++) {
        int64_t n = 1;
        for (;; n++) {
            lam_fault_arm((lam_fault_kind)kind, n);
            lam_status status = all_operations(path);
            lam_fault_arm((lam_fault_kind)kind, 0);
            if (status == LAM_OK) break;
            if (status != expected[kind]) fail_msg("kind %d, n %d: %s", kind, (int)n, lam_last_error());
        }
        assert_true(n > 1);
    }
    unlink(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forms_of_csv),
        cmocka_unit_test(quotes_and_lines),
        cmocka_unit_test(lists_of_relationships),
        cmocka_unit_test(refusals),
        cmocka_unit_test(required_column),
        cmocka_unit_test(numbers),
        cmocka_unit_test(added_and_selected),
        cmocka_unit_test(codes),
        cmocka_unit_test(written_and_read_again),
        cmocka_unit_test(gzip_members),
        cmocka_unit_test(every_fault),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
