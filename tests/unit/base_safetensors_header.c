/* Safetensors: every lie of a header is refused with what is wrong, wherever the file is cut. */
#include "base/safetensors.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/files.h"

static const char *test_path(void) {
    static char path[64];
    snprintf(path, sizeof path, "/tmp/lamella-header-%ld.safetensors", (long)getpid());
    return path;
}

/* A file with this header (its length as `length`, or its own where that is 0) and `data` bytes. */
static const char *build(const char *header, uint64_t length, const void *data, size_t size) {
    char bytes[4096];
    size_t n = strlen(header);
    if (length == 0) length = n;
    for (int i = 0; i < 8; i++) bytes[i] = (char)(length >> 8 * i & 0xff);
    memcpy(bytes + 8, header, n);
    if (size) memcpy(bytes + 8 + n, data, size);
    assert_int_equal(lam_file_write(test_path(), bytes, 8 + n + size), LAM_OK);
    return test_path();
}

#define TENSOR(name, shape, offsets)                                                                         \
    "\"" name "\":{\"dtype\":\"U8\",\"shape\":" shape ",\"data_offsets\":" offsets "}"

static void refused(void **state) {
    (void)state;
    static const struct {
        const char *header, *message;
    } cases[] = {
        /* with 8 bytes of data */
        {"{" TENSOR("a", "[4]", "[0,4]") "," TENSOR("b", "[5]", "[3,8]") "}", "'b' overlaps another"},
        {"{" TENSOR("a", "[8]", "[0,8]") "," TENSOR("b", "[8]", "[0,8]") "}", "overlaps another"},
        {"{" TENSOR("a", "[8]", "[0,8]") "," TENSOR("b", "[0]", "[4,4]") "}", "'b' overlaps another"},
        {"{" TENSOR("a", "[3]", "[0,3]") "," TENSOR("b", "[4]", "[4,8]") "}", "leaves a gap"},
        {"{" TENSOR("a", "[7]", "[1,8]") "}", "leaves a gap"},
        {"{" TENSOR("a", "[7]", "[0,7]") "}", "1 bytes after the last tensor"},
        {"{}", "8 bytes after the last tensor"},
        {"{" TENSOR("a", "[9]", "[0,9]") "}", "'a' lies outside the file"},
        {"{" TENSOR("a", "[8]", "[8,0]") "}", "outside"},
        {"{" TENSOR("a", "[8]", "[-8,0]") "}", "outside"},
        {"{" TENSOR("a", "[8]", "[0,9223372036854775807]") "}", "outside"},
        {"{" TENSOR("a", "[8]", "[0,18446744073709551624]") "}", "not valid JSON"},
        {"{" TENSOR("a", "[8]", "[0.0,8.0]") "}", "outside"},
        {"{" TENSOR("a", "[8]", "[0,8,8]") "}", "no data_offsets"},
        {"{" TENSOR("a", "[7]", "[0,8]") "}", "'a' has 8 bytes"},
        {"{" TENSOR("a", "[-1,-8]", "[0,8]") "}", "impossible shape"},
        {"{" TENSOR("a", "[4294967296,4294967296]", "[0,8]") "}", "impossible shape"},
        {"{" TENSOR("a", "[\"8\"]", "[0,8]") "}", "impossible shape"},
        {"{" TENSOR("a", "[8,1,1,1,1,1,1,1,1]", "[0,8]") "}", "at most 8 dimensions"},
        {"{" TENSOR("a", "8", "[0,8]") "}", "no shape"},
        {"{\"a\":{\"dtype\":\"F64\",\"shape\":[2305843009213693953],\"data_offsets\":[0,8]}}",
         "'a' has 8 bytes"},
        {"{\"a\":{\"dtype\":\"F8\",\"shape\":[8],\"data_offsets\":[0,8]}}", "type 'F8'"},
        {"{\"a\":{\"dtype\":7,\"shape\":[8],\"data_offsets\":[0,8]}}", "'a' has type ''"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[8]}}", "no data_offsets"},
        {"{\"a\":8}", "no object"},
        {"{" TENSOR("a", "[4]", "[0,4]") "," TENSOR("a", "[4]", "[4,8]") "}", "duplicate"},
        {"{" TENSOR("a", "[4]", "[0,4]") "," TENSOR("\\u0061", "[4]", "[4,8]") "}", "duplicate"},
        {"{" TENSOR("\xff", "[8]", "[0,8]") "}", "byte 0xff"},
        {"{" TENSOR("\\u0000", "[8]", "[0,8]") "}", "not valid JSON"},
        {"[1]", "no JSON object"},
        {"{} x", "not valid JSON"},
        {"        ", "not valid JSON"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        lam_safetensors *file = NULL;
        lam_status status = lam_safetensors_open(&file, build(cases[i].header, 0, "12345678", 8));
        if (status != LAM_ERROR_FORMAT) fail_msg("accepted: %s", cases[i].header);
        assert_null(file);
        if (strstr(lam_last_error(), cases[i].message) == NULL)
            fail_msg("'%s' lacks '%s'", lam_last_error(), cases[i].message);
        assert_ptr_equal(strstr(lam_last_error(), test_path()), lam_last_error());
        assert_null(strchr(lam_last_error(), '\n'));
    }
}

static void lengths(void **state) {
    (void)state;
    static const uint64_t lies[] = {UINT64_MAX, UINT64_MAX - 7, (uint64_t)1 << 63, (100u << 20) + 1, 300};
    const char *header = "{" TENSOR("a", "[8]", "[0,8]") "}";
    lam_safetensors *file = NULL;
    for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++) {
        build(header, lies[i], "12345678", 8);
        assert_int_equal(lam_safetensors_open(&file, test_path()), LAM_ERROR_FORMAT);
        assert_non_null(strstr(lam_last_error(), "its header should have"));
    }
    /* Cut anywhere, the length included: never accepted. */
    off_t whole = (off_t)(8 + strlen(header) + 8);
    for (off_t cut = whole - 1; cut >= 0; cut--) {
        build(header, 0, "12345678", 8);
        assert_int_equal(truncate(test_path(), cut), 0);
        assert_int_equal(lam_safetensors_open(&file, test_path()), LAM_ERROR_FORMAT);
        assert_null(file);
    }
    assert_int_equal(lam_safetensors_open(&file, build("{}", 0, NULL, 0)), LAM_OK);
    assert_int_equal(lam_safetensors_count(file), 0);
    lam_safetensors_close(file);
    unlink(test_path());
    assert_int_equal(lam_safetensors_open(&file, test_path()), LAM_ERROR_IO);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(refused), cmocka_unit_test(lengths)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
