/* JSON: what is built reads back, numbers to the last bit, wrong types fall back, bad text is refused. */
#include "base/json.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"

static lam_json *parse(const char *text) {
    lam_json *json = NULL;
    if (lam_json_parse(&json, text, strlen(text), "a.json") != LAM_OK) fail_msg("%s", lam_last_error());
    return json;
}

static void built(void **state) {
    (void)state;
    lam_json *root = lam_json_object(), *list = lam_json_array(), *inner = lam_json_object();
    lam_json_set_int(root, "step", INT64_MIN);
    lam_json_set_float(root, "loss", 0.5);
    lam_json_set_float(root, "bad", NAN);
    lam_json_set_bool(root, "done", true);
    lam_json_set_text(root, "name", "a\"\\\n\x01\xc2\xb5");
    lam_json_set_text(root, "none", NULL);
    lam_json_append_int(list, 1);
    lam_json_append_float(list, -INFINITY);
    lam_json_append_text(list, "x");
    lam_json_append(list, inner);
    lam_json_set(root, "list", list);
    lam_json_set_int(root, "step", 7); /* replaced, and in its place */
    char *text = NULL, *indented = NULL, *again = NULL;
    assert_int_equal(lam_json_dump(root, false, &text), LAM_OK);
    assert_string_equal(
        text, "{\"step\":7,\"loss\":0.5,\"bad\":null,\"done\":true,\"name\":\"a\\\"\\\\\\n\\u0001\xc2\xb5\","
              "\"none\":null,\"list\":[1,null,\"x\",{}]}");
    assert_int_equal(lam_json_dump(root, true, &indented), LAM_OK);
    assert_non_null(strstr(indented, "\n  \"loss\": 0.5,\n"));
    lam_json *copy = parse(indented);
    assert_int_equal(lam_json_dump(copy, false, &again), LAM_OK);
    assert_string_equal(again, text);
    lam_free(text);
    lam_free(indented);
    lam_free(again);
    lam_json_free(copy);
    lam_json_free(root);
}

static void numbers(void **state) {
    (void)state;
    static const double values[] = {0.1,       1.0 / 3, DBL_MAX, DBL_MIN,
                                    0x1p-1074, -0.0,    1e22,    123456789012345678.0};
    static const int64_t integers[] = {INT64_MIN, INT64_MAX, 0, -1, 9007199254740993};
    lam_json *list = lam_json_array();
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) lam_json_append_float(list, values[i]);
    for (size_t i = 0; i < sizeof integers / sizeof integers[0]; i++) lam_json_append_int(list, integers[i]);
    char *text = NULL;
    assert_int_equal(lam_json_dump(list, false, &text), LAM_OK);
    lam_json *copy = parse(text);
    size_t at = 0;
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        double value = lam_json_float(lam_json_at(copy, at++), NAN);
        if (memcmp(&value, &values[i], sizeof value) != 0) fail_msg("%.17g became %.17g", values[i], value);
    }
    for (size_t i = 0; i < sizeof integers / sizeof integers[0]; i++)
        assert_true(lam_json_int(lam_json_at(copy, at++), 5) == integers[i]);
    assert_int_equal(lam_json_size(copy), at);
    lam_free(text);
    lam_json_free(copy);
    lam_json_free(list);
}

static void reading(void **state) {
    (void)state;
    lam_json *json = parse(" {\"z\": 1, \"a\": 2.0, \"t\": \"3\", \"b\": false, \"n\": null, \"l\": [4]} \n");
    assert_int_equal(lam_json_size(json), 6);
    /* In the order of the text. */
    const char *key = NULL, *const keys[] = {"z", "a", "t", "b", "n", "l"};
    for (size_t i = 0; i < 6; i++) assert_string_equal(key = lam_json_key_after(json, key), keys[i]);
    assert_null(lam_json_key_after(json, key));
    assert_null(lam_json_key_after(NULL, NULL));
    assert_null(lam_json_at(json, 0));
    assert_int_equal(lam_json_int(lam_json_at(lam_json_get(json, "l"), 0), 0), 4);
    assert_null(lam_json_at(lam_json_get(json, "l"), 1));
    /* A number with a point is no integer, an integer is a number; text is neither. */
    assert_int_equal(lam_json_int(lam_json_get(json, "a"), -1), -1);
    assert_true(lam_json_float(lam_json_get(json, "z"), -1) == 1);
    assert_int_equal(lam_json_int(lam_json_get(json, "t"), -1), -1);
    assert_true(lam_json_float(lam_json_get(json, "t"), -1) == -1);
    assert_string_equal(lam_json_text(lam_json_get(json, "z"), "fallback"), "fallback");
    assert_false(lam_json_bool(lam_json_get(json, "b"), true));
    assert_true(lam_json_bool(lam_json_get(json, "n"), true));
    assert_true(lam_json_is_text(lam_json_get(json, "t")) && lam_json_is_array(lam_json_get(json, "l")));
    assert_true(lam_json_is_number(lam_json_get(json, "a")) && !lam_json_is_number(lam_json_get(json, "b")));
    /* What is absent, and children of what is no object. */
    assert_null(lam_json_get(json, "absent"));
    assert_null(lam_json_get(NULL, "z"));
    assert_null(lam_json_get(lam_json_get(json, "t"), "z"));
    assert_null(lam_json_at(lam_json_get(json, "t"), 0));
    assert_int_equal(lam_json_size(NULL), 0);
    assert_false(lam_json_is_object(NULL));
    assert_null(lam_json_text(NULL, NULL));
    lam_json_free(json);
    lam_json_free(NULL);
}

static void refused(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"", "a.json:1:0: not valid JSON: "},
        {"{\n\"a\": 1,\n\"b\" 2}", "a.json:3:"},
        {"{\"a\": 1, \"a\": 2}", "duplicate"},
        {"{\"a\": 1} x", "end of file expected"},
        {"{\"a\": 1,}", "not valid JSON"},
        {"{'a': 1}", "not valid JSON"},
        {"[NaN]", "not valid JSON"},
        {"[01]", "not valid JSON"},
        {"[1e999]", "overflow"},
        {"[9223372036854775808]", "too big integer"},
        {"[\"\xff\"]", "byte 0xff"},
        {"[\"\\ud800\"]", "not valid JSON"},
        {"[\"\\u0000\"]", "not valid JSON"},
        {"[\"a\nb\"]", "not valid JSON"},
        {"[\"a", "not valid JSON"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        lam_json *json = NULL;
        if (lam_json_parse(&json, cases[i][0], strlen(cases[i][0]), "a.json") != LAM_ERROR_FORMAT)
            fail_msg("accepted: %s", cases[i][0]);
        assert_null(json);
        if (strstr(lam_last_error(), cases[i][1]) == NULL)
            fail_msg("'%s' lacks '%s'", lam_last_error(), cases[i][1]);
        assert_ptr_equal(strstr(lam_last_error(), "a.json:"), lam_last_error());
        assert_null(strchr(lam_last_error(), '\n'));
    }
    /* `size` counts, not a zero byte; nesting without end is refused before the stack is. */
    lam_json *json = NULL;
    assert_int_equal(lam_json_parse(&json, "[1]]", 3, "a.json"), LAM_OK);
    lam_json_free(json);
    assert_int_equal(lam_json_parse(&json, "[1]\0", 4, "a.json"), LAM_ERROR_FORMAT);
    char *deep = NULL;
    assert_int_equal(lam_alloc((void **)&deep, 1000000), LAM_OK);
    memset(deep, '[', 1000000);
    assert_int_equal(lam_json_parse(&json, deep, 1000000, "a.json"), LAM_ERROR_FORMAT);
    lam_free(deep);
}

/* A child that could not be allocated is reported by the dump, whatever the tree's own texts say. */
static void lost_memory(void **state) {
    (void)state;
    static const char *const texts[] = {"out of memory", "\x01out of memory", "\\u0000out of memory",
                                        "\"\\u0000out of memory"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        lam_json *root = lam_json_object(), *list = lam_json_array();
        char *text = NULL;
        lam_json_set_text(root, texts[i], texts[i]);
        lam_json_append_text(list, texts[i]);
        lam_json_set(root, "list", list);
        if (lam_json_dump(root, false, &text) != LAM_OK) fail_msg("%s: %s", texts[i], lam_last_error());
        lam_json *copy = parse(text);
        assert_string_equal(lam_json_text(lam_json_get(copy, texts[i]), ""), texts[i]);
        assert_string_equal(lam_json_text(lam_json_at(lam_json_get(copy, "list"), 0), ""), texts[i]);
        lam_json_free(copy);
        lam_free(text);
        if (i % 2 == 0)
            lam_json_append(list, NULL);
        else
            lam_json_set(root, "child", NULL);
        assert_int_equal(lam_json_dump(root, i < 2, &text), LAM_ERROR_MEMORY);
        assert_null(text);
        lam_json_free(root);
    }
    char *text = NULL;
    lam_json_set_int(NULL, "a", 1);
    lam_json_append_int(NULL, 1);
    assert_int_equal(lam_json_dump(NULL, false, &text), LAM_ERROR_MEMORY);
    /* File names may hold any bytes: kept readable. */
    lam_json *list = lam_json_array();
    lam_json_append_text(list, "pl\xe4te");
    assert_int_equal(lam_json_dump(list, false, &text), LAM_OK);
    assert_string_equal(text, "[\"pl?te\"]");
    lam_free(text);
    lam_json_free(list);
    lam_json *root = lam_json_object();
    lam_json_set_int(root, "pl\xe4te", 1);
    assert_int_equal(lam_json_dump(root, false, &text), LAM_OK);
    assert_string_equal(text, "{\"pl?te\":1}");
    lam_free(text);
    lam_json_free(root);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(built), cmocka_unit_test(numbers),
                                       cmocka_unit_test(reading), cmocka_unit_test(refused),
                                       cmocka_unit_test(lost_memory)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
