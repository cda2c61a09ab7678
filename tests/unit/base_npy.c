/* NumPy arrays: every type and form, damaged headers, what is written byte by byte. */
#include "base/npy.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include <cmocka.h>

#include "base/fault.h"
#include "base/files.h"
#include "base/memory.h"

/* A version-1 file with this dict and `data` bytes counting from 1. */
static size_t build(char *out, int version, const char *dict, size_t data) {
    size_t length = strlen(dict), start = version == 1 ? 10 : 12;
    memcpy(out, "\x93NUMPY", 6);
    out[6] = (char)version;
    out[7] = 0;
    memset(out + 8, 0, 4);
    out[8] = (char)(length & 0xff);
    out[9] = (char)(length >> 8);
    memcpy(out + start, dict, length);
    for (size_t i = 0; i < data; i++) out[start + length + i] = (char)(i + 1);
    return start + length + data;
}

static void accepted(void **state) {
    (void)state;
    static const struct {
        int version;
        const char *dict, *type;
        int rank;
        int64_t shape[3];
        size_t bytes;
    } cases[] = {
        {1, "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }   \n", "f4", 2, {2, 3}, 24},
        {2, "{'shape': (3,), 'descr': '<f8', 'fortran_order': False}\n", "f8", 1, {3}, 24},
        {3, "{\"fortran_order\": False, \"shape\": (), \"descr\": \"<i8\"}", "i8", 0, {0}, 8},
        {1, "{'descr':'|u1','fortran_order':False,'shape':(2,2,2)}", "u1", 3, {2, 2, 2}, 8},
        {1, "{'descr': '<u2', 'fortran_order': False, 'shape': (5,), }", "u2", 1, {5}, 10},
        {1, "{'descr': '<i4', 'fortran_order': False, 'shape': (0, 7), }", "i4", 2, {0, 7}, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char bytes[256];
        size_t size = build(bytes, cases[i].version, cases[i].dict, cases[i].bytes);
        lam_npy array;
        if (lam_npy_parse(&array, bytes, size, "a.npy") != LAM_OK) fail_msg("%s", lam_last_error());
        assert_string_equal(array.type, cases[i].type);
        assert_int_equal(array.rank, cases[i].rank);
        int64_t count = 1;
        for (int d = 0; d < array.rank; d++) {
            assert_int_equal(array.shape[d], cases[i].shape[d]);
            count *= array.shape[d];
        }
        assert_int_equal(array.count, count);
        assert_int_equal(array.item_bytes * (size_t)array.count, cases[i].bytes);
        for (size_t k = 0; k < cases[i].bytes; k++) assert_int_equal(((char *)array.data)[k], k + 1);
        lam_npy_free(&array);
        assert_null(array.data);
        /* Any byte short or over is refused. */
        assert_int_equal(lam_npy_parse(&array, bytes, size - 1, "a.npy"), LAM_ERROR_FORMAT);
        assert_int_equal(lam_npy_parse(&array, bytes, size + 1, "a.npy"), LAM_ERROR_FORMAT);
        assert_null(array.data);
    }
}

static void refused(void **state) {
    (void)state;
    static const struct {
        const char *dict, *message;
    } cases[] = {
        {"{'descr': '>f4', 'fortran_order': False, 'shape': (2,), }", "big-endian"},
        {"{'descr': '<f4', 'fortran_order': True, 'shape': (2,), }", "Fortran order"},
        {"{'descr': '<f2', 'fortran_order': False, 'shape': (4,), }", "type '<f2'"},
        {"{'descr': '|f4', 'fortran_order': False, 'shape': (2,), }", "type '|f4'"},
        {"{'descr': '|b1', 'fortran_order': False, 'shape': (8,), }", "type '|b1'"},
        {"{'descr': [('x', '<f4')], 'fortran_order': False, 'shape': (2,), }", "record"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (2), }", "no tuple"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': 2, }", "no tuple"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (-2,), }", "no number"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (2 1), }", "comma"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (2,", "dimension is no number"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,), }", "too large"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296), }", "too large"},
        {"{'descr': '<f8', 'fortran_order': False, 'shape': (2305843009213693952,), }", "too large"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1,1,2), }", "dimensions"},
        {"{'descr': '<f4', 'fortran_order': 0, 'shape': (2,), }", "fortran_order"},
        {"{'descr': '<f4', 'fortran_order': False, }", "missing"},
        {"{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (2,)}", "unexpected key"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (2,), 'x': 1}", "unexpected key 'x'"},
        {"{'descr': '<f4' 'fortran_order': False, 'shape': (2,)}", "key"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (2,)} x", "text after"},
        {"{'descr': '<f4", "record"},
        {"", "no dict"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char bytes[256];
        size_t size = build(bytes, 1, cases[i].dict, 8);
        lam_npy array;
        assert_int_equal(lam_npy_parse(&array, bytes, size, "a.npy"), LAM_ERROR_FORMAT);
        if (strstr(lam_last_error(), cases[i].message) == NULL) {
            fail_msg("'%s' lacks '%s'", lam_last_error(), cases[i].message);
        }
        assert_non_null(strstr(lam_last_error(), "a.npy: "));
    }
    lam_npy array;
    char bytes[64];
    size_t size = build(bytes, 4, "{}", 0);
    assert_int_equal(lam_npy_parse(&array, bytes, size, "a.npy"), LAM_ERROR_FORMAT);
    assert_non_null(strstr(lam_last_error(), "version 4"));
    build(bytes, 2, "{}", 0);
    bytes[11] = 0x7f;
    assert_int_equal(lam_npy_parse(&array, bytes, 40, "a.npy"), LAM_ERROR_FORMAT);
    for (size_t cut = 0; cut < 12; cut++) {
        assert_int_equal(lam_npy_parse(&array, bytes, cut, "a.npy"), LAM_ERROR_FORMAT);
    }
}

static void written(void **state) {
    (void)state;
    char path[128], packed[160];
    snprintf(path, sizeof path, "/tmp/lamella-npy-%ld.npy", (long)getpid());
    snprintf(packed, sizeof packed, "%s.gz", path);
    float values[6] = {0.5f, -1, 2, 3, 4, 1e30f};
    int64_t shape[2] = {2, 3};
    assert_int_equal(lam_npy_write(path, "f4", 2, shape, values), LAM_OK);
    char *bytes = NULL;
    size_t size = 0;
    assert_int_equal(lam_file_read(path, &bytes, &size), LAM_OK);
    /* As NumPy writes it: the data begin at a multiple of 64. */
    const char *header =
        "\x93NUMPY\x01\x00\x76\x00{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }";
    assert_int_equal(size, 128 + 24);
    assert_memory_equal(bytes, header, 10 + strlen(header + 10));
    assert_int_equal(bytes[127], '\n');
    assert_int_equal(bytes[126], ' ');
    assert_memory_equal(bytes + 128, values, 24);

    lam_npy array;
    assert_int_equal(lam_npy_read(&array, path), LAM_OK);
    assert_memory_equal(array.data, values, 24);
    lam_npy_free(&array);
    gzFile file = gzopen(packed, "wb");
    gzwrite(file, bytes, (unsigned)size);
    gzclose(file);
    assert_int_equal(lam_npy_read(&array, packed), LAM_OK);
    assert_memory_equal(array.data, values, 24);
    lam_npy_free(&array);
    lam_free(bytes);

    static const char *const types[] = {"u1", "u2", "i4", "i8", "f4", "f8"};
    static const size_t sizes[] = {1, 2, 4, 8, 4, 8};
    char data[8 * 24];
    for (size_t i = 0; i < sizeof data; i++) data[i] = (char)i;
    for (int type = 0; type < 6; type++) {
        for (int rank = 0; rank <= 4; rank++) {
            int64_t dims[4] = {2, 3, 1, 4}, count = 1;
            for (int d = 0; d < rank; d++) count *= dims[d];
            assert_int_equal(lam_npy_write(path, types[type], rank, dims, data), LAM_OK);
            if (lam_npy_read(&array, path) != LAM_OK) fail_msg("%s", lam_last_error());
            assert_string_equal(array.type, types[type]);
            assert_int_equal(array.count, count);
            assert_memory_equal(array.data, data, sizes[type] * (size_t)count);
            lam_npy_free(&array);
        }
    }
    assert_int_equal(lam_npy_write(path, "f2", 1, shape, values), LAM_ERROR_INTERNAL);
    assert_int_equal(lam_npy_write(path, "f4", 9, shape, values), LAM_ERROR_INTERNAL);
    assert_int_equal(truncate(path, 20), 0);
    assert_int_equal(lam_npy_read(&array, path), LAM_ERROR_FORMAT);
    unlink(path);
    unlink(packed);
    assert_int_equal(lam_npy_read(&array, path), LAM_ERROR_IO);
}

/* A Zstandard file with a raw block, byte by byte (RFC 8878, section 3.1.1). */
static void zstd_frame(void **state) {
    (void)state;
    char plain[256], frame[300] = "\x28\xb5\x2f\xfd";
    size_t size = build(plain, 1, "{'descr': '<i4', 'fortran_order': False, 'shape': (4,), }", 16);
    assert_true(size < 256);
    frame[4] = 0x20; /* single segment, content size in one byte */
    frame[5] = (char)size;
    frame[6] = (char)((size << 3 | 1) & 0xff); /* last block, raw */
    frame[7] = (char)(size >> 5);
    frame[8] = 0;
    memcpy(frame + 9, plain, size);
    lam_npy array;
    if (lam_npy_parse(&array, frame, 9 + size, "a.npy.zst") != LAM_OK) fail_msg("%s", lam_last_error());
    assert_int_equal(array.count, 4);
    lam_npy_free(&array);
    assert_int_equal(lam_npy_parse(&array, frame, 9 + size - 3, "a.npy.zst"), LAM_ERROR_FORMAT);
    assert_non_null(strstr(lam_last_error(), "cut short"));
}

static void every_fault(void **state) {
    (void)state;
    static const lam_status expected[] = {LAM_ERROR_MEMORY, LAM_ERROR_IO, LAM_ERROR_IO};
    char path[128];
    snprintf(path, sizeof path, "/tmp/lamella-npy-fault-%ld.npy", (long)getpid());
    double values[4] = {1, 2, 3, 4};
    int64_t shape[2] = {2, 2};
    assert_int_equal(lam_npy_write(path, "f8", 2, shape, values), LAM_OK);
    for (int kind = 0; kind < LAM_FAULT_KINDS; kind++) {
        int64_t n = 1;
        for (;; n++) {
            lam_npy array = {0};
            lam_fault_arm((lam_fault_kind)kind, n);
            lam_status status = lam_npy_write(path, "f8", 2, shape, values);
            if (status == LAM_OK) status = lam_npy_read(&array, path);
            lam_fault_arm((lam_fault_kind)kind, 0);
            if (status == LAM_OK) {
                lam_npy_free(&array);
                break;
            }
            assert_null(array.data);
            if (status != expected[kind]) fail_msg("kind %d, n %d: %s", kind, (int)n, lam_last_error());
            /* The file of before is whole. */
            assert_int_equal(lam_npy_read(&array, path), LAM_OK);
            lam_npy_free(&array);
        }
        assert_true(n > 1);
    }
    unlink(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(accepted),   cmocka_unit_test(refused),     cmocka_unit_test(written),
        cmocka_unit_test(zstd_frame), cmocka_unit_test(every_fault),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
