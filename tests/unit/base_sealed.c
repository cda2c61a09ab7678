/* A sealed file is read back; every byte that changes, and every length it is cut to, is an error. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/files.h"
#include "base/memory.h"
#include "base/sealed.h"

static const char *path = "sealed.json";

static void read_back(const char *text, size_t size, lam_status expected) {
    lam_json *json = NULL;
    assert_int_equal(lam_file_write(path, text, size), LAM_OK);
    lam_status status = lam_sealed_read(&json, path);
    if (status != expected) fail_msg("status %d, not %d: %.*s", (int)status, (int)expected, (int)size, text);
    if (status != LAM_OK) {
        assert_null(json);
        assert_non_null(strstr(lam_last_error(), "sealed.json"));
    }
    lam_json_free(json);
}

static void test_damage(void **state) {
    (void)state;
    lam_json *json = lam_json_object();
    char *text = NULL;
    size_t size = 0;
    lam_json_set_text(json, "xxh64", "a decoy \"xxh64\": \"0123456789abcdef\"");
    lam_json_set_float(json, "mean", 0.1);
    lam_json_set_text(json, "name", "DNA");
    assert_int_equal(lam_sealed_write(path, json), LAM_OK);
    assert_int_equal(lam_sealed_write(path, json), LAM_OK); /* a second time too */
    lam_json_free(json);
    assert_int_equal(lam_sealed_read(&json, path), LAM_OK);
    assert_string_equal(lam_json_text(lam_json_get(json, "name"), ""), "DNA");
    lam_json_free(json);
    assert_int_equal(lam_file_read(path, &text, &size), LAM_OK);
    for (size_t i = 0; i < size; i++) {
        text[i] ^= 1;
        read_back(text, size, LAM_ERROR_FORMAT);
        text[i] ^= 1;
        read_back(text, i, LAM_ERROR_FORMAT);
    }
    read_back(text, size, LAM_OK);
    lam_free(text);
    read_back("{\"step\": 1}", 11, LAM_ERROR_FORMAT);
    read_back("{\"xxh64\": \"0\"}", 14, LAM_ERROR_FORMAT);
    read_back("[1]", 3, LAM_ERROR_FORMAT);
    assert_int_equal(lam_sealed_read(&json, "nowhere.json"), LAM_ERROR_IO);
    unlink(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_damage)};
    char folder[] = "/tmp/lamella_sealed.XXXXXX";
    if (!mkdtemp(folder) || chdir(folder) != 0) return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    lam_remove_tree(folder);
    return failed;
}
