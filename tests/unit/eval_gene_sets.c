/* Gene sets as GMT and as EFAAR's clusters, aliases; what is wrong with them, by line. */
#include "eval/gene_sets.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/fault.h"
#include "base/files.h"
#include "base/memory.h"
#include "base/table.h"

static char folder[64];

static char *in_folder(const char *name) {
    static char path[160];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static void write_text(const char *path, const char *text) {
    assert_int_equal(lam_file_write(path, text, strlen(text)), LAM_OK);
}

/* "name: gene gene; name: gene" */
static void expect_sets(const char *name, const char *text, const char *expected) {
    lam_gene_set *sets = NULL;
    int64_t count = 0;
    char found[1000] = "";
    size_t used = 0;
    if (lam_gene_sets_parse(text, strlen(text), name, &sets, &count) != LAM_OK)
        fail_msg("%s", lam_last_error());
    for (int64_t i = 0; i < count; i++) {
        used += (size_t)snprintf(found + used, sizeof found - used, "%s%s:", i > 0 ? "; " : "", sets[i].name);
        for (int64_t k = 0; k < sets[i].count; k++)
            used += (size_t)snprintf(found + used, sizeof found - used, " %s", sets[i].genes[k]);
    }
    assert_string_equal(found, expected);
    lam_gene_sets_free(sets, count);
}

static void gmt(void **state) {
    (void)state;
    expect_sets("a.gmt", "S1\thttp://x y\tTP53\tMDM2\nS2\t\tA\n", "S1: TP53 MDM2; S2: A");
    /* CRLF, a mark of UTF-8, blank lines, no newline at the end, tabs at the end of lines, as Enrichr writes. */
    expect_sets("a.txt", "\xef\xbb\xbf\r\nS1\tdesc\tB\tA\t\r\n \t \r\n\r\nS 2 \t\t C \t\tD\t\t\r\nS3\td\tE",
                "S1: B A; S 2: C D; S3: E");
    /* A gene again counts once, where it stood first; case and blanks inside matter. */
    expect_sets("a.gmt", "S\td\tB\tA\tB\ta\tA\tHLA A\tB\n", "S: B A a HLA A");
    /* One gene makes three cells: GMT whatever the name. */
    expect_sets("sets", "S1\td\tA\nS2\td\tB\n", "S1: A; S2: B");
    expect_sets("a.gmt.gz", "S\td\tA", "S: A");
}

static void clusters(void **state) {
    (void)state;
    expect_sets("X_clusters.tsv", "(A.B) complex\tG1 G2  G1 \r\n\nB, \"unquoted\" complex\tG3\n",
                "(A.B) complex: G1 G2; B, \"unquoted\" complex: G3");
    expect_sets("X_clusters.tsv", "one\tG1\t\n", "one: G1");
}

static void packed_files(void **state) {
    (void)state;
    /* printf 'S1\td\tA\tB\n' | gzip -n */
    static const unsigned char packed[] = {0x1f, 0x8b, 0x08, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x03,
                                           0x0b, 0x36, 0xe4, 0x4c, 0xe1, 0x74, 0xe4, 0x74, 0xe2, 0x02,
                                           0x00, 0x5e, 0x90, 0xbf, 0xe1, 0x09, 0x00, 0x00, 0x00};
    lam_gene_set *sets = NULL;
    int64_t count = 0;
    char *path = in_folder("s.gmt.gz");
    assert_int_equal(lam_file_write(path, packed, sizeof packed), LAM_OK);
    if (lam_gene_sets_read(path, &sets, &count) != LAM_OK) fail_msg("%s", lam_last_error());
    assert_int_equal(count, 1);
    assert_int_equal(sets[0].count, 2);
    assert_string_equal(sets[0].genes[1], "B");
    lam_gene_sets_free(sets, count);
    assert_int_equal(lam_file_write(path, packed, sizeof packed - 9), LAM_OK);
    assert_int_equal(lam_gene_sets_read(path, &sets, &count), LAM_ERROR_FORMAT);
    assert_non_null(strstr(lam_last_error(), "s.gmt.gz: "));
    assert_int_equal(lam_gene_sets_read(in_folder("none.gmt"), &sets, &count), LAM_ERROR_IO);
    assert_non_null(strstr(lam_last_error(), "none.gmt: "));
}

static void damaged_sets(void **state) {
    (void)state;
    static const struct {
        const char *name, *text, *message;
        lam_status status;
        size_t size; /* 0: strlen */
    } cases[] = {
        {"a.gmt", "", "a.gmt: no gene sets", LAM_ERROR_INPUT, 0},
        {"a.gmt", "\n \t\r\n", "a.gmt: no gene sets", LAM_ERROR_INPUT, 0},
        {"a.gmt", "S\td\tA\nT\td\n", "a.gmt:2: 'T' has no genes behind its description", LAM_ERROR_INPUT, 0},
        {"a.tsv", "S\td\tA\n\nT\td \t\t\n", "a.tsv:3: 'T' has no genes behind", LAM_ERROR_INPUT, 0},
        {"a.tsv", "S\tA\nentity1,entity2\n", "a.tsv:2: 'entity1,entity2' has no genes; a line of",
         LAM_ERROR_INPUT, 0},
        {"a.tsv", "\n\tA B\n", "a.tsv:2: the set has no name", LAM_ERROR_INPUT, 0},
        {"a.tsv", "S\tA\nT\tB\nS\tA\n", "a.tsv:3: a set 'S' is there already, in line 1", LAM_ERROR_INPUT, 0},
        {"a.gmt", "S\td\tA\nT\0\td\tB\n", "a.gmt:2: a zero byte", LAM_ERROR_FORMAT, 13},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        lam_gene_set *sets = NULL;
        int64_t count = 0;
        size_t size = cases[i].size > 0 ? cases[i].size : strlen(cases[i].text);
        assert_int_equal(lam_gene_sets_parse(cases[i].text, size, cases[i].name, &sets, &count),
                         cases[i].status);
        assert_null(sets);
        if (strstr(lam_last_error(), cases[i].message) == NULL)
            fail_msg("'%s' lacks '%s'", lam_last_error(), cases[i].message);
    }
}

static void aliases(void **state) {
    (void)state;
    lam_aliases *a = NULL;
    char *path = in_folder("aliases.csv");
    /* Any header; further columns; a chain p53 -> TRP53 -> TP53; the same twice; a name that stays; no alias. */
    write_text(
        path,
        "old,new,note\r\np53,TRP53,\r\nTRP53,TP53,x\r\np53,TRP53,again\r\nTP53,TP53,\r\n,KRAS,\r\n\"H,1\",H1,\r\n");
    if (lam_aliases_read(path, &a) != LAM_OK) fail_msg("%s", lam_last_error());
    assert_string_equal(lam_aliases_find(a, "p53"), "TP53");
    assert_string_equal(lam_aliases_find(a, "TRP53"), "TP53");
    assert_string_equal(lam_aliases_find(a, "H,1"), "H1");
    assert_null(lam_aliases_find(a, "TP53"));
    assert_null(lam_aliases_find(a, "KRAS"));
    assert_null(lam_aliases_find(a, ""));
    assert_null(lam_aliases_find(a, "P53"));
    lam_aliases_free(a);
    write_text(path, "alias\tname\n");
    assert_int_equal(lam_aliases_read(path, &a), LAM_OK);
    assert_null(lam_aliases_find(a, "alias"));
    lam_aliases_free(a);
    /* A long chain in every order: all lead to its end. */
    enum { LINKS = 300 };
    lam_table *table = NULL;
    char text[LINKS][2][8];
    const char *columns[2][LINKS];
    for (int i = 0; i < LINKS; i++) {
        int link = i * 7 % LINKS;
        snprintf(text[i][0], sizeof text[i][0], "g%d", link);
        snprintf(text[i][1], sizeof text[i][1], "g%d", link + 1);
        for (int k = 0; k < 2; k++) columns[k][i] = text[i][k];
    }
    assert_int_equal(lam_table_create(&table, LINKS), LAM_OK);
    assert_int_equal(lam_table_add(table, "a", columns[0]), LAM_OK);
    assert_int_equal(lam_table_add(table, "b", columns[1]), LAM_OK);
    assert_int_equal(lam_table_write(table, path), LAM_OK);
    lam_table_free(table);
    assert_int_equal(lam_aliases_read(path, &a), LAM_OK);
    for (int i = 0; i < LINKS; i++) assert_string_equal(lam_aliases_find(a, text[i][0]), "g300");
    lam_aliases_free(a);
}

static void damaged_aliases(void **state) {
    (void)state;
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"alias\nA\n", "al.csv: one column; aliases need two"},
        {"alias,name\nA,B\n\nC,\n", "al.csv:4: the alias 'C' stands for no name"},
        {"alias,name\nA,B\nX,Y\nA,C\n", "al.csv:4: the alias 'A' stands for 'C' here and for 'B' in line 2"},
        {"alias,name\nA,A\nA,C\n", "al.csv:3: the alias 'A' stands for 'C' here and for 'A' in line 2"},
        {"alias,name\nX,A\nA,B\nB,A\n", "back to itself through"},
        {"alias,name\nA,B\nB,C\nC,A\n", "al.csv:2: the alias 'A' leads back to itself through 'B'"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        lam_aliases *a = NULL;
        write_text(in_folder("al.csv"), cases[i].text);
        assert_int_equal(lam_aliases_read(in_folder("al.csv"), &a), LAM_ERROR_INPUT);
        assert_null(a);
        if (strstr(lam_last_error(), cases[i].message) == NULL)
            fail_msg("'%s' lacks '%s'", lam_last_error(), cases[i].message);
    }
}

static void every_fault(void **state) {
    (void)state;
    static const lam_status expected[] = {LAM_ERROR_MEMORY, LAM_ERROR_IO};
    char sets_path[160], aliases_path[160];
    snprintf(sets_path, sizeof sets_path, "%s", in_folder("f.gmt"));
    snprintf(aliases_path, sizeof aliases_path, "%s", in_folder("f.csv"));
    write_text(sets_path, "S\td\tA\tB\nT\td\tC\n");
    write_text(aliases_path, "alias,name\nA,B\nB,C\n");
    for (int which = 0; which < 2; which++) {
        for (int kind = 0; kind < LAM_FAULT_WRITE; kind++) {
            for (int64_t n = 1;; n++) {
                lam_gene_set *sets = NULL;
                int64_t count = 0;
                lam_aliases *a = NULL;
                lam_fault_arm((lam_fault_kind)kind, n);
                lam_status status = which == 0 ? lam_gene_sets_read(sets_path, &sets, &count)
                                               : lam_aliases_read(aliases_path, &a);
                lam_fault_arm((lam_fault_kind)kind, 0);
                lam_gene_sets_free(sets, count);
                lam_aliases_free(a);
                if (status == LAM_OK) {
                    assert_true(n > 1);
                    break;
                }
                assert_int_equal(status, expected[kind]);
            }
        }
    }
}

/* EFAAR's clusters of CORUM, where they are beside the tree: 2,696 sets of 1 to 139 genes, 171 of ten or more. */
static void published_clusters(void **state) {
    (void)state;
    const char *shared = getenv("LAMELLA_SHARED");
    char path[600];
    snprintf(path, sizeof path, "%s/data/gene_relationships/CORUM_clusters.tsv.gz",
             shared != NULL ? shared : LAM_TEST_GOLDEN "/../../../shared");
    if (!lam_path_exists(path)) skip();
    lam_gene_set *sets = NULL;
    int64_t count = 0, large = 0, largest = 0;
    assert_int_equal(lam_gene_sets_read(path, &sets, &count), LAM_OK);
    for (int64_t i = 0; i < count; i++) {
        large += sets[i].count >= 10;
        if (sets[i].count > largest) largest = sets[i].count;
    }
    assert_int_equal(count, 2696);
    assert_int_equal(large, 171);
    assert_int_equal(largest, 139);
    assert_string_equal(sets[1].name, "12S U11 snRNP");
    assert_string_equal(sets[1].genes[2], "TOE1");
    lam_gene_sets_free(sets, count);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gmt),          cmocka_unit_test(clusters),
        cmocka_unit_test(packed_files), cmocka_unit_test(damaged_sets),
        cmocka_unit_test(aliases),      cmocka_unit_test(damaged_aliases),
        cmocka_unit_test(every_fault),  cmocka_unit_test(published_clusters),
    };
    snprintf(folder, sizeof folder, "/tmp/lamella-gene-sets-%ld", (long)getpid());
    if (lam_make_folders(folder) != LAM_OK) return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    if (lam_remove_tree(folder) != LAM_OK) return 1;
    return failed;
}
