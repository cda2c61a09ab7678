/* Pages: text is escaped, tags close, odd numbers draw nothing outside the figure, CSV beside, the first failure is told. */
#include "base/page.h"

#include <ctype.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/fault.h"
#include "base/files.h"
#include "base/memory.h"

static char folder[] = "/tmp/lamella_page_XXXXXX";

static int enter(void **state) {
    (void)state;
    return mkdtemp(folder) && chdir(folder) == 0 ? 0 : -1;
}

static int leave(void **state) {
    (void)state;
    return chdir("/") == 0 && lam_remove_tree(folder) == LAM_OK ? 0 : -1;
}

static char *text_of(const char *path) {
    char *bytes;
    size_t size;
    if (lam_file_read(path, &bytes, &size) != LAM_OK) fail_msg("%s", lam_last_error());
    return bytes;
}

/* Every element that opens closes, in order; a bare '<' or '&' in text fails here. */
static void well_formed(const char *html) {
    char open[64][16];
    int depth = 0;
    for (const char *p = html; *p; p++) {
        if (*p == '&') {
            static const char *const entities[] = {"&lt;", "&gt;", "&amp;", "&quot;", "&#39;"};
            bool known = false;
            for (size_t i = 0; i < 5; i++) known |= !strncmp(p, entities[i], strlen(entities[i]));
            assert_true(known);
        }
        if (*p != '<' || p[1] == '!') continue;
        bool closing = p[1] == '/';
        const char *name = p + 1 + closing, *end = strchr(p, '>');
        assert_non_null(end);
        size_t length = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789");
        assert_in_range(length, 1, 15);
        if (closing) {
            assert_true(depth > 0);
            depth--;
            if (strlen(open[depth]) != length || strncmp(open[depth], name, length))
                fail_msg("%s closed by %.*s", open[depth], (int)length, name);
        } else if (end[-1] != '/' && strncmp(name, "meta", 4) && strncmp(name, "img", 3)) {
            assert_true(depth < 64);
            snprintf(open[depth++], 16, "%.*s", (int)length, name);
        }
        p = end;
    }
    assert_int_equal(depth, 0);
}

static void fill(lam_page *page) {
    static const char *const names[] = {"a <b>", "n & m"}, *const cells[] = {"x", "1.5", "\"q\", r", "-2"};
    static const char *const labels[] = {"<script>", "b", "c"}, *const kinds[] = {"one", "", "two"};
    static const double values[] = {0.5, -0.25, 1}, low[] = {0.4, -0.5, NAN}, high[] = {0.6, 0, NAN},
                        bad[] = {NAN, INFINITY, 2}, away[] = {NAN, 1, -INFINITY};
    static const double square[] = {1, 0, 0.25, 0.75};
    lam_page_heading(page, "H & M");
    lam_page_paragraph(page, "%d < %s", 3, "'4'");
    lam_page_verdict(page, "won");
    lam_page_table(page, "T", 2, names, 2, cells);
    lam_page_png(page, "picture", "\x89PNG", 4);
    lam_page_bars(page, &(lam_bars){"bars", "x (%)", 3, labels, values, low, high, 0.1, "chance"});
    lam_page_bars(page, &(lam_bars){"no bars", "x", 0, labels, values, NULL, NULL, NAN, NULL});
    lam_series series[] = {{"s", 3, values, bad}, {"t", 0, values, values}, {"u", 3, values, high}};
    lam_page_lines(page, "lines", "x", "y", 3, series);
    lam_page_scatter(page,
                     &(lam_scatter){"scatter", "x", "y", 3, values, low, labels, kinds, false, 0, NULL});
    lam_page_scatter(page,
                     &(lam_scatter){"plain", "x", "y", 3, values, values, labels, NULL, false, 0, NULL});
    lam_page_scatter(page, &(lam_scatter){"holes", "x", "y", 3, values, away, labels, kinds, false, 0, NULL});
    lam_page_bars(page, &(lam_bars){"no value", "x", 3, labels, away, low, high, NAN, NULL});
    lam_page_heat(page, "heat", "true", "told", 2, names, square);
    static const double cosines[] = {1, -0.004, -0.87, NAN};
    lam_page_heat_signed(page, "signed", 2, names, cosines);
    lam_guide guides[] = {{0.3, "left <"}, {9, "outside"}};
    lam_page_lines_guided(page, "guided", "x", "y", 1, series, 2, guides);
    lam_page_scatter(page,
                     &(lam_scatter){"named", "x", "y", 3, values, values, labels, kinds, true, 2, guides});
    static const char *const numbers[] = {"0.12345678901234567", "12345678901"};
    lam_page_table(page, "long numbers", 2, names, 1, numbers);
    static const char *const tall[] = {
        "a name that has a line of its own above its bar",
        "a very long name that would run out of the figure at its right end even there, over its bar"};
    lam_page_bars(page, &(lam_bars){"long label", "x", 2, tall, values, NULL, NULL, NAN, NULL});
}

static void whole(void **state) {
    (void)state;
    lam_page *page;
    assert_int_equal(lam_page_create(&page, "a <title>", "data"), LAM_OK);
    fill(page);
    assert_int_equal(lam_page_write(&page, "page.html"), LAM_OK);
    assert_null(page);
    char *html = text_of("page.html");
    well_formed(html);
    assert_non_null(strstr(html, "a &lt;title&gt;"));
    assert_non_null(strstr(html, "3 &lt; &#39;4&#39;"));
    assert_null(strstr(html, "<script"));
    assert_non_null(strstr(html, "data:image/png;base64,iVBORw==\""));
    assert_non_null(strstr(html, ">-87</text>")); /* signed cells */
    assert_non_null(strstr(html, ">0</text>"));
    assert_null(strstr(html, ">-0</text>"));
    assert_non_null(strstr(html, ">left &lt;</text>"));
    assert_null(strstr(html, ">outside</text>"));
    assert_non_null(strstr(html, ">&lt;script&gt;</text>")); /* a named point */
    assert_non_null(strstr(html, "<td class=\"n\">0.1235</td><td class=\"n\">12345678901</td>"));
    assert_non_null(strstr(html, ">a name that has a line of its own above its bar</text>"));
    assert_non_null(
        strstr(html, ">a very long name that would run out of the figure at its right e\xE2\x80\xA6</text>"));
    assert_non_null(strstr(html, "over its bar</title>")); /* cut, whole in the tool tip */
    for (char *p = html; (p = strstr(p, "=\"")); p++) {    /* no coordinate is a NaN */
        assert_int_not_equal(strncmp(p + 2, "nan", 3), 0);
        assert_int_not_equal(strncmp(p + 2, "-nan", 4), 0);
        assert_int_not_equal(strncmp(p + 2, "inf", 3), 0);
        assert_int_not_equal(strncmp(p + 2, "-inf", 4), 0);
    }
    lam_free(html);
    html = text_of("data/01_t.csv");
    assert_string_equal(html, "a <b>,n & m\nx,1.5\n\"\"\"q\"\", r\",-2\n");
    lam_free(html);
    html = text_of("data/02_bars.csv");
    assert_string_equal(
        html,
        "label,x (%),low,high\n<script>,0.5,0.40000000000000002,0.59999999999999998\nb,-0.25,-0.5,0\nc,1,,\n");
    lam_free(html);
    html = text_of("data/10_signed.csv");
    assert_string_equal(html, "name,a <b>,n & m\na <b>,1,-0.0040000000000000001\nn & m,-0.87,\n");
    lam_free(html);
    html = text_of("data/13_long_numbers.csv");
    assert_string_equal(html, "a <b>,n & m\n0.12345678901234567,12345678901\n");
    lam_free(html);
    html = text_of("data/05_scatter.csv");
    assert_non_null(strstr(html, "label,category,x,y\n<script>,one,0.5,0.4"));
    lam_free(html);
}

/* Whatever fails first is what lam_page_write returns; no broken page is left. */
static void failures(void **state) {
    (void)state;
    static const lam_fault_kind kinds[] = {LAM_FAULT_ALLOC, LAM_FAULT_WRITE};
    for (int k = 0; k < 2; k++) {
        int64_t n = 1;
        for (;; n++) {
            lam_page *page = NULL;
            unlink("broken.html");
            assert_int_equal(lam_remove_tree("data2"), LAM_OK);
            lam_fault_arm(kinds[k], n);
            lam_status status = lam_page_create(&page, "t", "data2");
            if (status == LAM_OK) {
                fill(page);
                status = lam_page_write(&page, "broken.html");
            }
            lam_fault_arm(kinds[k], 0);
            assert_null(page);
            assert_int_equal(lam_path_exists("broken.html"), status == LAM_OK);
            assert_int_equal(lam_path_exists("data2"), status == LAM_OK);
            if (status == LAM_OK) break;
            assert_int_equal(status, kinds[k] == LAM_FAULT_ALLOC ? LAM_ERROR_MEMORY : LAM_ERROR_IO);
        }
        assert_true(n > 10);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(whole), cmocka_unit_test(failures)};
    return cmocka_run_group_tests(tests, enter, leave);
}
