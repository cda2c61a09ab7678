/* What others have written is shown without being obeyed, in messages of failures, too. */
#include "base/utf8.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static void shown_and_not_obeyed(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"plain, \xc2\xb5m and \xe2\x82\xac", "plain, \xc2\xb5m and \xe2\x82\xac"},
        {"\x1b[2Jred", "\\x1b[2Jred"},
        {"two\nlines\r\t\x7f", "two\\x0alines\\x0d\\x09\\x7f"},
        {"\xc2\x9b"
         "31m",
         "\\xc2\\x9b"
         "31m"}, /* CSI in one character */
        {"\x9b"
         "31m",
         "\\x9b"
         "31m"}, /* no UTF-8 */
        {"a\xe2\x80\xae"
         "cba",
         "a\\xe2\\x80\\xae"
         "cba"}, /* from right to left */
        {"cut\xe2\x82", "cut\\xe2\\x82"},
    };
    char out[64];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        lam_utf8_visible(out, sizeof out, cases[i][0]);
        assert_string_equal(out, cases[i][1]);
        assert_int_equal(lam_fail(LAM_ERROR_INPUT, __FILE__, __LINE__, "%s", cases[i][0]), LAM_ERROR_INPUT);
        assert_string_equal(lam_last_error(), cases[i][1]);
        lam_fail(LAM_ERROR_INPUT, __FILE__, __LINE__, "end");
        lam_fail_context(LAM_ERROR_INPUT, "%s", cases[i][0]);
        assert_memory_equal(lam_last_error(), cases[i][1], strlen(cases[i][1]));
    }
}

static void cut_between_characters(void **state) {
    (void)state;
    char out[8];
    lam_utf8_visible(out, 1, "abc");
    assert_string_equal(out, "");
    lam_utf8_visible(out, 4, "ab\x1b");
    assert_string_equal(out, "ab");
    lam_utf8_visible(out, 4, "ab\xc2\xb5");
    assert_string_equal(out, "ab");
    lam_utf8_visible(out, 5, "ab\xc2\xb5");
    assert_string_equal(out, "ab\xc2\xb5");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shown_and_not_obeyed),
        cmocka_unit_test(cut_between_characters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
