/* Lists of a sweep: what comes out of sections, lists and lists in lists, and what is refused, with its line. */
#include "base/config_lists.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static lam_status parse(lam_config_lists **lists, const char *text) {
    return lam_config_lists_parse(lists, text, strlen(text), "s.yaml");
}

static void read_back(void **state) {
    (void)state;
    lam_config_lists *l;
    if (parse(
            &l,
            "embeddings: a.h5ad\nmap:\n  align: [none, 'tvn x']\n  by: gene\nrelate: {relationships: [[a, b], c]}\n") !=
        LAM_OK)
        fail_msg("%s", lam_last_error());
    assert_int_equal(l->count, 4);
    static const struct {
        const char *section, *key, *first;
        int line, count;
    } expected[] = {{"", "embeddings", "a.h5ad", 1, 1},
                    {"map", "align", "none", 3, 2},
                    {"map", "by", "gene", 4, 1},
                    {"relate", "relationships", "a", 5, 2}};
    for (int k = 0; k < 4; k++) {
        const lam_config_list *one = &l->items[k];
        assert_string_equal(one->section, expected[k].section);
        assert_string_equal(one->key, expected[k].key);
        assert_int_equal(one->line, expected[k].line);
        assert_int_equal(one->count, expected[k].count);
        assert_string_equal(one->values[0].texts[0], expected[k].first);
    }
    assert_string_equal(l->items[1].values[1].texts[0], "tvn x");
    assert_int_equal(l->items[3].values[0].count, 2);
    assert_string_equal(l->items[3].values[0].texts[1], "b");
    assert_int_equal(l->items[3].values[1].count, 1);
    lam_config_lists_free(l);
    lam_config_lists_free(NULL);
}

static void refused(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"", "s.yaml: the file is empty"},
        {"a", "s.yaml:1: the file is no section"},
        {"a: b\na: c\n", "s.yaml:2: duplicate key a: it stands in line 1 already"},
        {"m: {a: 1}\nm: {b: 2}\n", "s.yaml:2: duplicate key m"},
        {"m:\n  a: []\n", "s.yaml:2: a is an empty list"},
        {"m:\n  a: [[]]\n", "s.yaml:2: an empty list"},
        {"m:\n  a: [[[b]]]\n", "s.yaml:2: a key or value must be plain text"},
        {"m:\n  a: {b: {c: d}}\n", "s.yaml:2: a key or value must be plain text"},
        {"m:\n  [a]: b\n", "s.yaml:2: a key or value must be plain text"},
        {"m: &x {a: b}\n", "s.yaml:1: 'x' is an anchor or alias"},
        {"m:\n\ta: b\n", "a tab"},
    };
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        lam_config_lists *l = (lam_config_lists *)&l;
        assert_int_equal(parse(&l, cases[k][0]), LAM_ERROR_CONFIG);
        assert_null(l);
        if (!strstr(lam_last_error(), cases[k][1]))
            fail_msg("'%s' lacks '%s'", lam_last_error(), cases[k][1]);
    }
    lam_config_lists *l;
    assert_int_equal(lam_config_lists_read(&l, "no/such.yaml"), LAM_ERROR_IO);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(read_back), cmocka_unit_test(refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
