/* Safetensors: what is written reads back, every type converts, mistakes and faults leave no file behind. */
#include "base/safetensors.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/fault.h"
#include "base/files.h"
#include "base/memory.h"

static const char *test_path(void) {
    static char path[64];
    snprintf(path, sizeof path, "/tmp/lamella-%ld.safetensors", (long)getpid());
    return path;
}

/* A file with this header and `data` bytes. */
static const char *build(const char *header, const void *data, size_t size) {
    char bytes[4096];
    size_t n = strlen(header);
    for (int i = 0; i < 8; i++) bytes[i] = (char)((uint64_t)n >> 8 * i & 0xff);
    memcpy(bytes + 8, header, n);
    memcpy(bytes + 8 + n, data, size);
    assert_int_equal(lam_file_write(test_path(), bytes, 8 + n + size), LAM_OK);
    return test_path();
}

static void round_trip(void **state) {
    (void)state;
    const float weights[6] = {1.5f, -2, 0, 3e38f, -0.0f, 1e-40f};
    const int64_t steps[1] = {INT64_MIN};
    const int64_t shape[2] = {2, 3}, empty[3] = {4, 0, INT64_MAX};
    lam_safetensors_writer *writer = NULL;
    assert_int_equal(lam_safetensors_writer_open(&writer, test_path()), LAM_OK);
    assert_int_equal(lam_safetensors_writer_metadata(writer, "format", "pt \"\xc2\xb5\""), LAM_OK);
    assert_int_equal(lam_safetensors_writer_declare(writer, "z", "F32", 2, shape), LAM_OK);
    assert_int_equal(lam_safetensors_writer_declare(writer, "none", "F64", 3, empty), LAM_OK);
    assert_int_equal(lam_safetensors_writer_declare(writer, "a\nb", "I64", 0, NULL), LAM_OK);
    /* A tensor in parts; the empty one needs no call. */
    assert_int_equal(lam_safetensors_writer_data(writer, weights, 8), LAM_OK);
    assert_int_equal(lam_safetensors_writer_data(writer, weights + 2, 16), LAM_OK);
    assert_int_equal(lam_safetensors_writer_data(writer, steps, 8), LAM_OK);
    assert_int_equal(lam_safetensors_writer_commit(&writer), LAM_OK);
    assert_null(writer);

    lam_safetensors *file = NULL;
    if (lam_safetensors_open(&file, test_path()) != LAM_OK) fail_msg("%s", lam_last_error());
    assert_int_equal(lam_safetensors_count(file), 3);
    assert_string_equal(lam_safetensors_metadata(file, "format"), "pt \"\xc2\xb5\"");
    assert_null(lam_safetensors_metadata(file, "z"));
    assert_null(lam_safetensors_find(file, "__metadata__"));
    const lam_safetensors_entry *z = lam_safetensors_find(file, "z");
    const lam_safetensors_entry *none = lam_safetensors_find(file, "none");
    const lam_safetensors_entry *a = lam_safetensors_find(file, "a\nb");
    assert_true(z != NULL && none != NULL && a != NULL);
    assert_string_equal(z->dtype, "F32");
    assert_int_equal(z->rank, 2);
    assert_true(z->shape[0] == 2 && z->shape[1] == 3);
    assert_int_equal(none->count, 0);
    assert_true(none->rank == 3 && none->shape[2] == INT64_MAX && none->begin == none->end);
    assert_int_equal(a->count, 1);
    float read[6];
    int64_t step = 0;
    assert_int_equal(lam_safetensors_read_f32(file, z, read), LAM_OK);
    assert_memory_equal(read, weights, sizeof weights); /* bits: the sign of zero, the subnormal */
    assert_int_equal(lam_safetensors_read_raw(file, a, &step), LAM_OK);
    assert_true(step == INT64_MIN);
    lam_safetensors_close(file);
    char *bytes = NULL;
    size_t size = 0;
    assert_int_equal(lam_file_read(test_path(), &bytes, &size), LAM_OK);
    assert_int_equal(bytes[0] & 7, 0); /* the data are aligned to 8 bytes */
    lam_free(bytes);
}

static void every_type(void **state) {
    (void)state;
    static const struct {
        const char *dtype;
        size_t bytes;
        unsigned char data[16];
        double expected[2];
    } cases[] = {
        {"F64", 8, {0, 0, 0, 0, 0, 0, 0xf8, 0x3f, 0, 0, 0, 0, 0, 0, 0, 0xc0}, {1.5, -2}},
        {"F32", 4, {0, 0, 0xc0, 0x3f, 0, 0, 0, 0xc0}, {1.5, -2}},
        {"F16", 2, {0x01, 0x00, 0xff, 0xfb}, {0x1p-24, -65504}},
        {"F16", 2, {0xff, 0x83, 0x00, 0x04}, {-1023 * 0x1p-24, 0x1p-14}},
        {"F16", 2, {0x00, 0xfc, 0x00, 0x3c}, {-INFINITY, 1}},
        {"BF16", 2, {0xc0, 0x3f, 0x80, 0xff}, {1.5, -INFINITY}},
        {"I64", 8, {0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1}, {-2, 0x1p40}},
        {"I32", 4, {0, 0, 0, 0x80, 3}, {-2147483648.0, 3}},
        {"I16", 2, {0, 0x80, 0xff, 0x7f}, {-32768, 32767}},
        {"I8", 1, {0x80, 0x7f}, {-128, 127}},
        {"U8", 1, {0x80, 0xff}, {128, 255}},
        {"U16", 2, {0, 0x80, 0xff, 0xff}, {32768, 65535}},
        {"BOOL", 1, {0, 1}, {0, 1}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char header[128];
        snprintf(header, sizeof header, "{\"x\":{\"dtype\":\"%s\",\"shape\":[2],\"data_offsets\":[0,%zu]}}",
                 cases[i].dtype, 2 * cases[i].bytes);
        lam_safetensors *file = NULL;
        if (lam_safetensors_open(&file, build(header, cases[i].data, 2 * cases[i].bytes)) != LAM_OK)
            fail_msg("%s", lam_last_error());
        float singles[2];
        double doubles[2];
        assert_int_equal(lam_safetensors_read_f32(file, lam_safetensors_at(file, 0), singles), LAM_OK);
        assert_int_equal(lam_safetensors_read_f64(file, lam_safetensors_at(file, 0), doubles), LAM_OK);
        for (int k = 0; k < 2; k++) {
            float single = (float)cases[i].expected[k];
            if (memcmp(&doubles[k], &cases[i].expected[k], 8) != 0 || memcmp(&singles[k], &single, 4) != 0)
                fail_msg("%s %d: %g, %g", cases[i].dtype, k, doubles[k], (double)singles[k]);
        }
        lam_safetensors_close(file);
    }
}

static void writer_mistakes(void **state) {
    (void)state;
    const int64_t two[1] = {2}, negative[2] = {-1, -2}, huge[2] = {INT64_MAX, 1};
    const int64_t ones[9] = {1, 1, 1, 1, 1, 1, 1, 1, 1};
    unlink(test_path());
    lam_safetensors_writer *writer = NULL;
    assert_int_equal(lam_safetensors_writer_open(&writer, test_path()), LAM_OK);
    assert_int_equal(lam_safetensors_writer_declare(writer, "a", "F32", 1, two), LAM_OK);
    assert_int_equal(lam_safetensors_writer_declare(writer, "a", "F32", 1, two), LAM_ERROR_INTERNAL);
    assert_int_equal(lam_safetensors_writer_declare(writer, "b", "F8", 1, two), LAM_ERROR_INTERNAL);
    assert_int_equal(lam_safetensors_writer_declare(writer, "b", "F32", 2, negative), LAM_ERROR_INTERNAL);
    assert_int_equal(lam_safetensors_writer_declare(writer, "b", "F32", 2, huge), LAM_ERROR_INTERNAL);
    assert_int_equal(lam_safetensors_writer_declare(writer, "b", "U8", 2, huge), LAM_ERROR_INTERNAL);
    assert_int_equal(lam_safetensors_writer_declare(writer, "b", "F32", 9, ones), LAM_ERROR_INTERNAL);
    assert_int_equal(lam_safetensors_writer_declare(writer, "\xff", "F32", 1, two), LAM_ERROR_INTERNAL);
    assert_int_equal(lam_safetensors_writer_declare(writer, "__metadata__", "F32", 1, two),
                     LAM_ERROR_INTERNAL);
    assert_int_equal(lam_safetensors_writer_data(writer, "123456789", 9), LAM_ERROR_INTERNAL);
    assert_int_equal(lam_safetensors_writer_data(writer, "1234567", 7), LAM_OK);
    assert_int_equal(lam_safetensors_writer_declare(writer, "c", "F32", 1, two), LAM_ERROR_INTERNAL);
    assert_int_equal(lam_safetensors_writer_metadata(writer, "k", "v"), LAM_ERROR_INTERNAL);
    assert_int_equal(lam_safetensors_writer_commit(&writer), LAM_ERROR_INTERNAL);
    assert_non_null(strstr(lam_last_error(), "less data"));
    assert_null(writer);
    assert_false(lam_path_exists(test_path()));
}

static lam_status write_and_read(const char *path, float *values) {
    const int64_t shape[1] = {4};
    lam_safetensors_writer *writer = NULL;
    lam_safetensors *file = NULL;
    LAM_TRY(lam_safetensors_writer_open(&writer, path));
    lam_status status = lam_safetensors_writer_declare(writer, "a", "I16", 1, shape);
    if (status == LAM_OK) status = lam_safetensors_writer_data(writer, "\1\0\2\0\3\0\4", 8);
    if (status != LAM_OK) {
        lam_safetensors_writer_abort(&writer);
        return status;
    }
    LAM_TRY(lam_safetensors_writer_commit(&writer));
    LAM_TRY(lam_safetensors_open(&file, path));
    status = lam_safetensors_read_f32(file, lam_safetensors_at(file, 0), values);
    lam_safetensors_close(file);
    return status;
}

static void every_fault(void **state) {
    (void)state;
    static const lam_status expected[] = {LAM_ERROR_MEMORY, LAM_ERROR_IO, LAM_ERROR_IO};
    float values[4];
    assert_int_equal(write_and_read(test_path(), values), LAM_OK);
    assert_true(values[0] == 1 && values[3] == 4);
    for (int kind = 0; kind < LAM_FAULT_KINDS; kind++) {
        int64_t n = 1;
        for (;; n++) {
            lam_fault_arm((lam_fault_kind)kind, n);
            lam_status status = write_and_read(test_path(), values);
            lam_fault_arm((lam_fault_kind)kind, 0);
            if (status == LAM_OK) break;
            if (status != expected[kind]) fail_msg("kind %d, n %d: %s", kind, (int)n, lam_last_error());
            /* The file of before is whole. */
            lam_safetensors *file = NULL;
            assert_int_equal(lam_safetensors_open(&file, test_path()), LAM_OK);
            lam_safetensors_close(file);
        }
        assert_true(n > 1);
    }
    unlink(test_path());
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip),
        cmocka_unit_test(every_type),
        cmocka_unit_test(writer_mistakes),
        cmocka_unit_test(every_fault),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
