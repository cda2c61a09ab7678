/* One view of weights: the kind is told by the bytes, sharded files are one list. */
#include "base/weights_file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/files.h"
#include "base/memory.h"
#include "base/safetensors.h"
#include "base/torch_file.h"

static char folder[64];

static const char *in(const char *name) {
    static char path[4][160];
    static int next = 0;
    next = (next + 1) % 4;
    snprintf(path[next], sizeof path[next], "%s/%s", folder, name);
    return path[next];
}

static int set_up(void **state) {
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/lamella-weights-%ld", (long)getpid());
    return lam_make_folders(folder) == LAM_OK ? 0 : 1;
}

static int tear_down(void **state) {
    (void)state;
    return lam_remove_tree(folder) == LAM_OK ? 0 : 1;
}

static void write_tensors(const char *path, const char *name, float value) {
    lam_safetensors_writer *writer = NULL;
    assert_int_equal(lam_safetensors_writer_open(&writer, path), LAM_OK);
    assert_int_equal(lam_safetensors_writer_metadata(writer, "kind", name), LAM_OK);
    assert_int_equal(lam_safetensors_writer_declare(writer, name, "F32", 1, (int64_t[]){1}), LAM_OK);
    assert_int_equal(lam_safetensors_writer_data(writer, &value, sizeof value), LAM_OK);
    assert_int_equal(lam_safetensors_writer_commit(&writer), LAM_OK);
}

static float read_one(lam_weights *w, const char *name) {
    float value = 0;
    const lam_weights_entry *e = lam_weights_find(w, name);
    assert_non_null(e);
    assert_true(e->count == 1 && e->rank == 1 && !strcmp(e->dtype, "F32"));
    assert_int_equal(lam_weights_read_f32(w, e, &value), LAM_OK);
    return value;
}

static void told_by_the_bytes(void **state) {
    (void)state;
    lam_weights *w = NULL;
    float value = 5;
    write_tensors(in("model.bin"), "t", 4);
    assert_int_equal(lam_weights_open(&w, in("model.bin")), LAM_OK);
    assert_false(lam_weights_is_torch(w));
    assert_string_equal(lam_weights_metadata(w, "kind"), "t");
    assert_true(read_one(w, "t") == 4);
    lam_weights_close(w);
    lam_torch_tensor tensor = {"t", 1, (int64_t[]){1}, &value};
    assert_int_equal(lam_torch_write(in("model.safetensors"), &tensor, 1, true), LAM_OK);
    assert_int_equal(lam_weights_open(&w, in("model.safetensors")), LAM_OK);
    assert_true(lam_weights_is_torch(w));
    assert_null(lam_weights_metadata(w, "kind"));
    assert_true(read_one(w, "t") == 5);
    lam_weights_close(w);
    assert_int_equal(lam_file_write(in("old.pth"), "\x80\x02\x8a\x0al\xfc\x9c", 7), LAM_OK);
    assert_int_equal(lam_weights_open(&w, in("old.pth")), LAM_ERROR_FORMAT);
    assert_non_null(strstr(lam_last_error(), "PyTorch 1.6"));
    assert_int_equal(lam_file_write(in("text"), "hello", 5), LAM_OK);
    assert_int_equal(lam_weights_open(&w, in("text")), LAM_ERROR_FORMAT);
    assert_int_equal(lam_weights_open(&w, in("absent")), LAM_ERROR_IO);
    assert_null(w);
}

static void shards(void **state) {
    (void)state;
    static const char index[] =
        "{\"metadata\": {}, \"weight_map\": {\"b\": \"2.safetensors\", \"a\": \"1.safetensors\"}}";
    lam_weights *w = NULL;
    char *file = NULL;
    assert_int_equal(lam_remove_tree(in("model.safetensors")), LAM_OK);
    assert_int_equal(lam_weights_file(folder, &file), LAM_OK);
    assert_null(file);
    write_tensors(in("1.safetensors"), "a", 1);
    write_tensors(in("2.safetensors"), "b", 2);
    assert_int_equal(lam_file_write(in("model.safetensors.index.json"), index, sizeof index - 1), LAM_OK);
    assert_int_equal(lam_weights_file(folder, &file), LAM_OK);
    assert_non_null(file);
    assert_int_equal(lam_weights_open(&w, file), LAM_OK);
    lam_free(file);
    assert_int_equal(lam_weights_count(w), 2);
    assert_string_equal(lam_weights_at(w, 0)->name, "a");
    assert_true(read_one(w, "a") == 1 && read_one(w, "b") == 2);
    lam_weights_close(w);
    write_tensors(in("2.safetensors"), "a", 2);
    assert_int_equal(lam_weights_open(&w, in("model.safetensors.index.json")), LAM_ERROR_FORMAT);
    assert_non_null(strstr(lam_last_error(), "'a' twice"));
    static const char *const bad[][2] = {
        {"{\"weight_map\": {\"a\": \"../1.safetensors\"}}", "no file beside it"},
        {"{\"weight_map\": {\"a\": \"/etc/passwd\"}}", "no file beside it"},
        {"{\"weight_map\": {\"a\": 1}}", "no file beside it"},
        {"{\"weight_map\": {}}", "no weight_map"},
        {"{}", "no weight_map"},
        {"[", "not valid JSON"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(lam_file_write(in("bad.index.json"), bad[i][0], strlen(bad[i][0])), LAM_OK);
        assert_int_equal(lam_weights_open(&w, in("bad.index.json")), LAM_ERROR_FORMAT);
        if (!strstr(lam_last_error(), bad[i][1])) fail_msg("'%s' lacks '%s'", lam_last_error(), bad[i][1]);
    }
}

/* Weights are finite numbers of a floating type. */
static void what_is_no_weight(void **state) {
    (void)state;
    static const struct {
        const char *dtype, *message;
        size_t bytes;
        unsigned char value[8];
    } cases[] = {
        {"F32", "tensor t is nan at element 1", 4, {0, 0, 0xc0, 0x7f}},
        {"F32", "tensor t is -inf at element 1", 4, {0, 0, 0x80, 0xff}},
        {"F16", "tensor t is inf at element 1", 2, {0, 0x7c}},
        {"F64", "tensor t is inf at element 1", 8, {0, 0, 0, 0, 0, 0, 0xf0, 0x7e}}, /* no float is as large */
        {"I64", "tensor t is of type I64", 8, {1}},
        {"U8", "tensor t is of type U8", 1, {1}},
        {"BOOL", "tensor t is of type BOOL", 1, {1}},
        {"BF16", NULL, 2, {0x80, 0x3f}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        unsigned char bytes[16] = {0};
        float values[2];
        lam_safetensors_writer *writer = NULL;
        lam_weights *w = NULL;
        memcpy(bytes + cases[i].bytes, cases[i].value, cases[i].bytes);
        assert_int_equal(lam_safetensors_writer_open(&writer, in("odd")), LAM_OK);
        assert_int_equal(lam_safetensors_writer_declare(writer, "t", cases[i].dtype, 1, (int64_t[]){2}),
                         LAM_OK);
        assert_int_equal(lam_safetensors_writer_data(writer, bytes, 2 * cases[i].bytes), LAM_OK);
        assert_int_equal(lam_safetensors_writer_commit(&writer), LAM_OK);
        assert_int_equal(lam_weights_open(&w, in("odd")), LAM_OK);
        lam_status status = lam_weights_read_f32(w, lam_weights_at(w, 0), values);
        lam_weights_close(w);
        assert_int_equal(status, cases[i].message ? LAM_ERROR_INPUT : LAM_OK);
        if (!cases[i].message) continue;
        if (!strstr(lam_last_error(), cases[i].message) || !strstr(lam_last_error(), in("odd")))
            fail_msg("'%s' lacks '%s'", lam_last_error(), cases[i].message);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(told_by_the_bytes), cmocka_unit_test(shards),
                                       cmocka_unit_test(what_is_no_weight)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
