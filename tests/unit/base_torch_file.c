/* Files of torch.save: those that PyTorch has written are read, ours are the same each time, and every lie is refused. */
#include "base/torch_file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zip.h>

#include <cmocka.h>

#include "base/fault.h"
#include "base/files.h"
#include "base/memory.h"

static const char *test_path(void) {
    static char path[64];
    snprintf(path, sizeof path, "/tmp/lamella-torch-%ld.pt", (long)getpid());
    return path;
}

static lam_torch_file *open_or_fail(const char *path) {
    lam_torch_file *file = NULL;
    if (lam_torch_open(&file, path) != LAM_OK) fail_msg("%s", lam_last_error());
    return file;
}

static void expect(lam_torch_file *file, const char *name, const char *dtype, int rank, const int64_t *shape,
                   const float *expected) {
    const lam_torch_entry *e = lam_torch_find(file, name);
    float values[16];
    if (!e) fail_msg("%s: absent", name);
    assert_string_equal(e->tensor->dtype, dtype);
    assert_int_equal(e->tensor->rank, rank);
    for (int i = 0; i < rank; i++) assert_true(e->tensor->shape[i] == shape[i]);
    assert_in_range(e->count, 0, 16);
    if (lam_torch_read_f32(file, e, values) != LAM_OK) fail_msg("%s: %s", name, lam_last_error());
    for (int64_t i = 0; i < e->count; i++)
        if (memcmp(&values[i], &expected[i], sizeof(float)) != 0)
            fail_msg("%s[%d]: %g, not %g", name, (int)i, (double)values[i], (double)expected[i]);
}

static void as_pytorch_wrote_them(void **state) {
    (void)state;
    static const struct {
        const char *name, *dtype;
        int rank;
        int64_t shape[2];
        float expected[6];
    } cases[] = {
        {"f64", "F64", 1, {2}, {1.5f, -2}},
        {"f32", "F32", 2, {1, 2}, {1.5f, -2}},
        {"f16", "F16", 1, {2}, {1.5f, 65504}},
        {"bf16", "BF16", 1, {2}, {1.5f, -2}},
        {"i64", "I64", 1, {2}, {-2, 0x1p40f}},
        {"i32", "I32", 1, {2}, {-2, 3}},
        {"i16", "I16", 1, {2}, {-2, 3}},
        {"i8", "I8", 1, {2}, {-2, 3}},
        {"u8", "U8", 1, {2}, {2, 255}},
        {"bool", "BOOL", 1, {2}, {1, 0}},
        {"scalar", "F32", 0, {0}, {7}},
        {"empty", "F32", 2, {0, 3}, {0}},
        {"parameter", "F32", 1, {2}, {1, 2}},
        {"transposed", "F32", 2, {3, 2}, {0, 3, 1, 4, 2, 5}},
        {"every_third", "F32", 1, {4}, {1, 4, 7, 10}},
        {"tail", "F32", 1, {4}, {8, 9, 10, 11}},
        {"nested.list.0", "F32", 1, {1}, {1}},
        {"nested.list.1.x", "F32", 1, {1}, {2}},
        {"nested.5", "F32", 1, {1}, {3}},
    };
    lam_torch_file *file = open_or_fail(LAM_TEST_GOLDEN "/torch/types.pt");
    assert_int_equal(lam_torch_count(file), sizeof cases / sizeof *cases);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        expect(file, cases[i].name, cases[i].dtype, cases[i].rank, cases[i].shape, cases[i].expected);
    assert_null(lam_torch_find(file, "f"));
    lam_torch_close(file);
    /* The wrapping and what stands beside it are gone: optimiser, numbers, argparse.Namespace. */
    file = open_or_fail(LAM_TEST_GOLDEN "/torch/run.pth");
    assert_int_equal(lam_torch_count(file), 2);
    expect(file, "weight", "F32", 2, (int64_t[]){1, 2}, (float[]){1, 2});
    expect(file, "bias", "F32", 1, (int64_t[]){1}, (float[]){3});
    lam_torch_close(file);
    file = open_or_fail(LAM_TEST_GOLDEN "/torch/protocol_4.bin");
    assert_int_equal(lam_torch_count(file), 1);
    expect(file, "w", "F32", 1, (int64_t[]){1}, (float[]){4});
    lam_torch_close(file);
}

static const float numbers[300] = {1, -0.0f, 0x1p-140f, 4, 5, 6};
static const lam_torch_tensor tensors[] = {
    {"a.weight", 2, (const int64_t[]){2, 3}, numbers},
    {"scalar", 0, NULL, numbers + 3},
    {"long", 3, (const int64_t[]){300, 1, 1}, numbers},
};

static void round_trip(void **state) {
    (void)state;
    char *first = NULL, *second = NULL;
    size_t first_size = 0, second_size = 0;
    for (int wrapped = 0; wrapped < 2; wrapped++) {
        if (lam_torch_write(test_path(), tensors, 3, wrapped) != LAM_OK) fail_msg("%s", lam_last_error());
        lam_torch_file *file = open_or_fail(test_path());
        assert_int_equal(lam_torch_count(file), 3);
        expect(file, "a.weight", "F32", 2, tensors[0].shape, numbers);
        expect(file, "scalar", "F32", 0, NULL, numbers + 3);
        assert_int_equal(lam_torch_find(file, "long")->count, 300);
        lam_torch_close(file);
    }
    assert_int_equal(lam_file_read(test_path(), &first, &first_size), LAM_OK);
    assert_int_equal(lam_torch_write(test_path(), tensors, 3, true), LAM_OK);
    assert_int_equal(lam_file_read(test_path(), &second, &second_size), LAM_OK);
    assert_int_equal(first_size, second_size);
    assert_memory_equal(first, second, first_size);
    lam_free(first);
    lam_free(second);
    assert_int_equal(lam_torch_write(test_path(), NULL, 0, true), LAM_OK);
    lam_torch_file *file = open_or_fail(test_path());
    assert_int_equal(lam_torch_count(file), 0);
    lam_torch_close(file);
    unlink(test_path());
}

/* ---- lies ---- */

#define PROTOCOL "\x80\x02"
#define KEY(letter) "X\1\0\0\0" letter
#define STORAGE(type, key, count)                                                                            \
    "(X\7\0\0\0storagectorch\n" type "\nX\1\0\0\0" key "X\3\0\0\0cpuK" count "tQ"
#define REBUILT "ctorch._utils\n_rebuild_tensor_v2\n("
#define END                                                                                                  \
    "\x89"                                                                                                   \
    "ccollections\nOrderedDict\n)RtR"
#define TENSOR(key, count, offset, shape, stride)                                                            \
    REBUILT STORAGE("FloatStorage", key, count) "K" offset shape stride END

/* A zip with this data.pkl and a data/0 of 16 bytes. */
static void build(const char *pickle, size_t size, int method, const char *order) {
    int code = 0;
    zip_t *zip = zip_open(test_path(), ZIP_CREATE | ZIP_TRUNCATE, &code);
    assert_non_null(zip);
    const struct {
        const char *name;
        const void *bytes;
        size_t size;
        int method;
    } files[] = {{"x/data.pkl", pickle, size, ZIP_CM_STORE},
                 {"x/data/0", "0123456789abcdef", 16, method},
                 {"x/byteorder", order, strlen(order), ZIP_CM_STORE}};
    for (int i = 0; i < 3; i++) {
        zip_int64_t at =
            zip_file_add(zip, files[i].name, zip_source_buffer(zip, files[i].bytes, files[i].size, 0), 0);
        assert_true(at >= 0 && zip_set_file_compression(zip, (zip_uint64_t)at, files[i].method, 0) == 0);
    }
    assert_int_equal(zip_close(zip), 0);
}

static void refuse(const char *what) {
    lam_torch_file *file = NULL;
    lam_status status = lam_torch_open(&file, test_path());
    if (status != LAM_ERROR_FORMAT) fail_msg("accepted (%d): %s", status, what);
    assert_null(file);
    if (!strstr(lam_last_error(), what) || !strstr(lam_last_error(), test_path()))
        fail_msg("'%s' lacks '%s'", lam_last_error(), what);
}

static void lies(void **state) {
    (void)state;
#define CASE(text, message)                                                                                  \
    { text, sizeof text - 1, message }
    static const struct {
        const char *pickle;
        size_t size;
        const char *message;
    } cases[] = {
        CASE(PROTOCOL "cposix\nsystem\nX\4\0\0\0true\x85R.", "posix.system"),
        CASE("\x80\x04\x8c\5posix\x8c\6system\x93)R.", "posix.system"),
        CASE(PROTOCOL "cbuiltins\neval\n)R.", "builtins.eval"),
        CASE(PROTOCOL "(iposix\nsystem\n.", "opcode 0x69"),
        CASE(PROTOCOL "(cposix\nsystem\no.", "posix.system"),
        CASE(PROTOCOL "}\x82\1.", "opcode 0x82"),
        CASE(PROTOCOL "I1\n.", "opcode 0x49"),
        CASE("}.", "protocol"),
        CASE("\x80\x06}.", "protocol"),
        CASE(PROTOCOL "}", "ends too early"),
        CASE(PROTOCOL "X\xff\xff\xff\xff"
                      "a.",
             "ends too early"),
        CASE("\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\xff"
             "a.",
             "ends too early"),
        CASE("\x80\x04\x95\xff\0\0\0\0\0\0\0}.", "frame"),
        CASE(PROTOCOL ".", "one value"),
        CASE(PROTOCOL "}}.", "one value"),
        CASE(PROTOCOL "}(.", "one value"),
        CASE(PROTOCOL "0.", "empty stack"),
        CASE(PROTOCOL "}(\x85.", "empty stack"),
        CASE(PROTOCOL "t.", "closes a mark"),
        CASE(PROTOCOL "}h\1.", "recalls"),
        CASE(PROTOCOL "}r\0\0\x10\0.", "memo"),
        CASE(PROTOCOL "q\0.", "remembers nothing"),
        CASE(PROTOCOL "](" KEY("a") "u.", "no container"),
        CASE(PROTOCOL "}(" KEY("a") "u.", "key without a value"),
        CASE(PROTOCOL "}(a.", "no container"),
        CASE(PROTOCOL "K\1.", "no dict"),
        CASE(PROTOCOL "K\1K\2b.", "gives a state"),
        CASE(PROTOCOL "ccollections\nOrderedDict\nK\1\x85R.", "OrderedDict"),
        CASE(PROTOCOL "ctorch\nfloat32\n)R.", "cannot be called"),
        CASE(PROTOCOL "ccollections\nOrderedDict\n)\x81.", "unknown kind"),
        CASE(PROTOCOL "K\1Q.", "storage of an unknown form"),
        CASE(PROTOCOL "}" KEY("\0") "Ns.", "zero byte"),
        CASE(PROTOCOL "}" KEY("\xff") STORAGE("FloatStorage", "0", "\4") "s.", "UTF-8"),
        CASE(PROTOCOL "}" KEY("a") REBUILT STORAGE("OddStorage", "0", "\4") "K\0)) " END "s.",
             "torch.OddStorage"),
        CASE(PROTOCOL "}" KEY("a") TENSOR("7", "\4", "\0", "K\4\x85", "K\1\x85") "s.", "lacks data/7"),
        CASE(PROTOCOL "}" KEY("a") TENSOR("0", "\5", "\0", "K\4\x85", "K\1\x85") "s.", "has 16 bytes"),
        CASE(PROTOCOL "}" KEY("a") TENSOR("0", "\4", "\1", "K\4\x85", "K\1\x85") "s.", "outside"),
        CASE(PROTOCOL "}" KEY("a") TENSOR("0", "\4", "\0", "K\2\x85", "K\4\x85") "s.", "outside"),
        CASE(PROTOCOL "}" KEY("a") TENSOR("0", "\4", "\4", ")", ")") "s.", "outside"),
        CASE(PROTOCOL "}" KEY("a") TENSOR("0", "\4", "\0", "J\xff\xff\xff\xff\x85", "K\1\x85") "s.",
             "impossible"),
        CASE(PROTOCOL "}" KEY("a") TENSOR("0", "\4", "\0", "K\4\x85", "J\xff\xff\xff\xff\x85") "s.",
             "impossible"),
        CASE(PROTOCOL "}" KEY("a") TENSOR("0", "\4", "\0", "K\4\x85", ")") "s.", "strides"),
        CASE(PROTOCOL "}" KEY("a") TENSOR("0", "\4", "\0", "K\x09\x85", "K\0\x85") "s.", "expanded"),
        CASE(PROTOCOL "}" KEY("a") TENSOR("0", "\4", "\0", "(NNNNNNNNNt", ")") "s.", "8 dimensions"),
        CASE(PROTOCOL "}" KEY("a")
                 TENSOR("0", "\4", "\0", "\x8a\x08\0\0\0\0\0\0\0\x40\x8a\x08\0\0\0\0\0\0\0\x40\x86",
                        "K\0K\0\x86") "s.",
             "outside"),
        CASE(PROTOCOL "}" KEY("a") TENSOR("0", "\4", "\0", "K\4\x85", "K\1\x85") "q\1s" KEY("a") "h\1s.",
             "twice"),
        CASE(PROTOCOL "}q\1" KEY("a") "h\1s.", "deeper"),
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        build(cases[i].pickle, cases[i].size, ZIP_CM_STORE, "little");
        refuse(cases[i].message);
    }
    static const char good[] = PROTOCOL "}" KEY("a") TENSOR("0", "\4", "\0", "K\4\x85", "K\1\x85") "s.";
    build(good, sizeof good - 1, ZIP_CM_STORE, "big");
    refuse("little-endian");
    build(good, sizeof good - 1, ZIP_CM_DEFLATE, "little");
    refuse("compressed");
    build(good, sizeof good - 1, ZIP_CM_STORE, "little");
    zip_t *zip = zip_open(test_path(), 0, NULL);
    assert_non_null(zip);
    assert_int_equal(zip_file_set_encryption(zip, 1, ZIP_EM_TRAD_PKWARE, "secret"), 0);
    assert_int_equal(zip_close(zip), 0);
    refuse("encrypted");
    build(good, sizeof good - 1, ZIP_CM_STORE, "little");
    lam_torch_close(open_or_fail(test_path()));
    unlink(test_path());
}

/* Thirteen lists, each of twenty times the one before: 20^13 names out of 900 bytes. */
static void laughs(void **state) {
    (void)state;
    char pickle[2048];
    size_t at = (size_t)sprintf(pickle, PROTOCOL "]q%c0", 1);
    for (int level = 2; level <= 14; level++) {
        at += (size_t)sprintf(pickle + at, "]q%c(", level);
        for (int i = 0; i < 20; i++) at += (size_t)sprintf(pickle + at, "h%c", level - 1);
        at += (size_t)sprintf(pickle + at, "e0");
    }
    static const char end[] = "}"
                              "X\1\0\0\0a"
                              "h\16s.";
    memcpy(pickle + at, end, sizeof end - 1);
    build(pickle, at + sizeof end - 1, ZIP_CM_STORE, "little");
    refuse("2^20 values");
    unlink(test_path());
}

static void damage(void **state) {
    (void)state;
    char *bytes = NULL;
    size_t size = 0;
    assert_int_equal(lam_torch_write(test_path(), tensors, 3, true), LAM_OK);
    assert_int_equal(lam_file_read(test_path(), &bytes, &size), LAM_OK);
    for (size_t cut = 0; cut < size; cut += 1 + size / 97) {
        lam_torch_file *file = NULL;
        assert_int_equal(lam_file_write(test_path(), bytes, cut), LAM_OK);
        assert_int_equal(lam_torch_open(&file, test_path()), LAM_ERROR_FORMAT);
    }
    /* One bit of the elements: the checksum tells, when they are read. */
    char *data = memmem(bytes, size, numbers, 24);
    assert_non_null(data);
    data[2] ^= 4;
    assert_int_equal(lam_file_write(test_path(), bytes, size), LAM_OK);
    lam_torch_file *file = open_or_fail(test_path());
    float values[6];
    assert_int_equal(lam_torch_read_f32(file, lam_torch_find(file, "a.weight"), values), LAM_ERROR_FORMAT);
    assert_non_null(strstr(lam_last_error(), "other bytes"));
    lam_torch_close(file);
    lam_free(bytes);
    unlink(test_path());
}

static lam_status write_and_read(void) {
    lam_torch_file *file = NULL;
    float values[6];
    LAM_TRY(lam_torch_write(test_path(), tensors, 3, true));
    LAM_TRY(lam_torch_open(&file, test_path()));
    lam_status status = lam_torch_read_f32(file, lam_torch_find(file, "a.weight"), values);
    lam_torch_close(file);
    return status;
}

static void every_fault(void **state) {
    (void)state;
    static const lam_status expected[] = {LAM_ERROR_MEMORY, LAM_ERROR_IO, LAM_ERROR_IO};
    assert_int_equal(write_and_read(), LAM_OK);
    for (int kind = 0; kind < LAM_FAULT_KINDS; kind++) {
        int64_t n = 1;
        for (;; n++) {
            lam_fault_arm((lam_fault_kind)kind, n);
            lam_status status = write_and_read();
            lam_fault_arm((lam_fault_kind)kind, 0);
            if (status == LAM_OK) break;
            if (status != expected[kind]) fail_msg("kind %d, n %d: %s", kind, (int)n, lam_last_error());
            lam_torch_close(open_or_fail(test_path())); /* the file of before is whole */
        }
        assert_true(n > 2);
    }
    unlink(test_path());
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(as_pytorch_wrote_them),
        cmocka_unit_test(round_trip),
        cmocka_unit_test(lies),
        cmocka_unit_test(laughs),
        cmocka_unit_test(damage),
        cmocka_unit_test(every_fault),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
