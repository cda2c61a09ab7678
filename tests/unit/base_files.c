/* Files: the old one stays whole until the new one is, whichever write fails; folders, names, reading past an end. */
#include "base/files.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/fault.h"
#include "base/memory.h"

static char folder[] = "/tmp/lamella_files_XXXXXX";

static int enter(void **state) {
    (void)state;
    return mkdtemp(folder) && chdir(folder) == 0 ? 0 : -1;
}

static int leave(void **state) {
    (void)state;
    return chdir("/") == 0 && lam_remove_tree(folder) == LAM_OK ? 0 : -1;
}

static void is(const char *path, const char *expected) {
    char *bytes = NULL;
    size_t size = 0;
    assert_int_equal(lam_file_read(path, &bytes, &size), LAM_OK);
    assert_int_equal(size, strlen(expected));
    assert_string_equal(bytes, expected); /* the zero byte that follows */
    lam_free(bytes);
}

static int64_t entries(const char *path) {
    char **names = NULL;
    int64_t count = 0;
    assert_int_equal(lam_list_folder(path, "", &names, &count), LAM_OK);
    lam_free_texts(names, count);
    return count;
}

static lam_status write_in_parts(void) {
    lam_status status = LAM_OK;
    lam_writer *writer = NULL;
    LAM_TRY(lam_writer_open(&writer, "parts"));
    LAM_TRY_GOTO(lam_writer_append(writer, "0000", 4), fail);
    LAM_TRY_GOTO(lam_writer_printf(writer, "-%d-%s", 42, "end"), fail);
    LAM_TRY_GOTO(lam_writer_patch(writer, 1, "12", 2), fail);
    assert_int_equal(lam_writer_position(writer), 11);
    LAM_TRY_GOTO(lam_writer_append(writer, "!", 1), fail); /* at the end, not after the patch */
    return lam_writer_commit(&writer);
fail:
    lam_writer_abort(&writer);
    return status;
}

static void replaced_whole_or_not_at_all(void **state) {
    (void)state;
    int failures = 0;
    for (int64_t n = 1;; n++) {
        assert_int_equal(lam_file_write("parts", "old", 3), LAM_OK);
        lam_fault_arm(LAM_FAULT_WRITE, n);
        lam_status status = write_in_parts();
        lam_fault_arm(LAM_FAULT_WRITE, 0);
        assert_int_equal(entries("."), 1); /* nothing partial is left */
        if (status == LAM_OK) break;
        assert_int_equal(status, LAM_ERROR_IO);
        assert_non_null(strstr(lam_last_error(), "parts: cannot be written: Input/output error"));
        is("parts", "old");
        failures++;
    }
    assert_int_equal(failures, 6); /* open, append, printf, patch, append, commit */
    is("parts", "0120-42-end!");
    for (int64_t n = 1; n < 20; n++) {
        lam_fault_arm(LAM_FAULT_ALLOC, n);
        if (write_in_parts() == LAM_OK) break;
        is("parts", "0120-42-end!");
        assert_int_equal(entries("."), 1);
    }
    lam_fault_arm(LAM_FAULT_ALLOC, 0);
    assert_int_equal(lam_remove_tree("parts"), LAM_OK);
}

static void refused(void **state) {
    (void)state;
    lam_writer *writer = NULL;
    assert_int_equal(lam_writer_open(&writer, "absent/x"), LAM_ERROR_IO);
    assert_null(writer);
    assert_int_equal(lam_make_folders("taken"), LAM_OK);
    assert_int_equal(lam_file_write("taken", "x", 1),
                     LAM_ERROR_IO); /* a folder has the name: the rename fails */
    assert_non_null(strstr(lam_last_error(), "taken: cannot be put in place"));
    assert_int_equal(entries("."), 1);
    assert_int_equal(lam_writer_open(&writer, "x"), LAM_OK);
    assert_int_equal(lam_writer_append(writer, "abc", 3), LAM_OK);
    assert_int_equal(lam_writer_patch(writer, 2, "xy", 2), LAM_ERROR_INTERNAL);
    assert_int_equal(lam_writer_patch(writer, UINT64_MAX, "xy", 2), LAM_ERROR_INTERNAL);
    lam_writer_abort(&writer);
    assert_null(writer);
    lam_writer_abort(&writer);
    assert_false(lam_path_exists("x"));
    char *bytes = NULL;
    size_t size;
    assert_int_equal(lam_file_read("absent", &bytes, &size), LAM_ERROR_IO);
    assert_non_null(strstr(lam_last_error(), "absent"));
    assert_int_equal(lam_file_read("taken", &bytes, &size), LAM_ERROR_IO);
    assert_int_equal(lam_require_absent("taken", false), LAM_ERROR_USAGE);
    assert_non_null(strstr(lam_last_error(), "--force"));
    assert_int_equal(lam_require_absent("taken", true), LAM_OK);
    assert_int_equal(lam_require_absent("free", false), LAM_OK);
    assert_int_equal(lam_require_new_file("free", false), LAM_OK);
    assert_int_equal(lam_require_new_file("taken", false), LAM_ERROR_USAGE);
    assert_int_equal(lam_require_new_file("taken", true), LAM_ERROR_USAGE);
    assert_non_null(strstr(lam_last_error(), "is a folder"));
    assert_int_equal(lam_require_new_file("absent/file", false), LAM_ERROR_IO);
    assert_int_equal(lam_require_new_file("/dev/null/file", false), LAM_ERROR_IO);
    assert_int_equal(lam_require_new_in_folder("absent/deep/file", false), LAM_OK);
    assert_int_equal(lam_require_new_in_folder("taken", false), LAM_ERROR_USAGE);
    assert_int_equal(lam_require_new_in_folder("/dev/null/deep/file", false), LAM_ERROR_IO);
    assert_int_equal(lam_require_new_folder("absent/deep", false), LAM_OK);
    assert_int_equal(lam_require_new_folder("absent/deep/", false), LAM_OK);
    assert_int_equal(lam_require_new_folder("taken", false), LAM_ERROR_USAGE);
    assert_int_equal(lam_require_new_folder("taken", true), LAM_OK);
    assert_int_equal(lam_require_new_folder("/dev/null/deep", false), LAM_ERROR_IO);
    assert_int_equal(lam_require_new_folder("/dev/null", true), LAM_ERROR_USAGE);
    assert_int_equal(lam_require_new_file("/dev/null", true), LAM_ERROR_USAGE);
    assert_non_null(strstr(lam_last_error(), "neither a file nor a folder"));
    assert_false(lam_path_exists("absent"));
    assert_int_equal(lam_remove_tree("taken"), LAM_OK);
}

static void random_access(void **state) {
    (void)state;
    assert_int_equal(lam_file_write("ten", "0123456789", 10), LAM_OK);
    lam_reader *reader = NULL;
    assert_int_equal(lam_reader_open(&reader, "ten"), LAM_OK);
    assert_int_equal(lam_reader_size(reader), 10);
    char bytes[11] = {0};
    assert_int_equal(lam_reader_at(reader, 3, bytes, 7), LAM_OK);
    assert_string_equal(bytes, "3456789");
    assert_int_equal(lam_reader_at(reader, 10, bytes, 0), LAM_OK);
    assert_int_not_equal(lam_reader_at(reader, 4, bytes, 7),
                         LAM_OK); /* truncated under us, or a lying header */
    assert_int_not_equal(lam_reader_at(reader, UINT64_MAX - 2, bytes, 7), LAM_OK);
    lam_fault_arm(LAM_FAULT_READ, 1);
    assert_int_equal(lam_reader_at(reader, 0, bytes, 1), LAM_ERROR_IO);
    lam_fault_arm(LAM_FAULT_READ, 0);
    lam_reader_close(&reader);
    assert_null(reader);
    assert_int_equal(lam_reader_open(&reader, "absent"), LAM_ERROR_IO);
    assert_int_equal(lam_remove_tree("ten"), LAM_OK);
}

static void folders(void **state) {
    (void)state;
    assert_int_equal(lam_make_folders("a/b//c/"), LAM_OK);
    assert_int_equal(lam_make_folders("a/b/c"), LAM_OK);
    assert_int_equal(lam_file_write("a/b/z.png", "", 0), LAM_OK);
    assert_int_equal(lam_file_write("a/b/m.png", "x", 1), LAM_OK);
    assert_int_equal(lam_file_write("a/b/m.txt", "x", 1), LAM_OK);
    assert_int_equal(symlink("/", "a/b/link"), 0); /* removed, not followed */
    assert_true(lam_path_is_folder("a/b") && !lam_path_is_folder("a/b/m.txt") && !lam_path_exists("a/x"));
    char **names;
    int64_t count;
    assert_int_equal(lam_list_folder("a/b", ".png", &names, &count), LAM_OK);
    assert_int_equal(count, 2);
    assert_string_equal(names[0], "m.png");
    assert_string_equal(names[1], "z.png");
    lam_free_texts(names, count);
    assert_int_equal(entries("a/b"), 5);
    assert_int_equal(lam_list_folder("a/x", "", &names, &count), LAM_ERROR_IO);
    assert_int_equal(lam_make_folders("a/b/m.txt/d"), LAM_ERROR_IO);
    assert_non_null(strstr(lam_last_error(), "m.txt: the folder cannot be made"));
    assert_int_equal(lam_remove_tree("a/b/m.txt/d"),
                     LAM_ERROR_IO); /* neither there nor absent: its folder is a file */
    assert_int_equal(lam_remove_tree("a"), LAM_OK);
    assert_int_equal(lam_remove_tree("a"), LAM_OK); /* absent is done */
    assert_false(lam_path_exists("a"));
}

static void joined(void **state) {
    (void)state;
    static const char *const cases[][3] = {
        {"a", "b", "a/b"}, {"a/", "b", "a/b"}, {"", "b", "b"}, {"a", "/b", "/b"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *path;
        assert_int_equal(lam_path_join(&path, cases[i][0], cases[i][1]), LAM_OK);
        assert_string_equal(path, cases[i][2]);
        lam_free(path);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(replaced_whole_or_not_at_all),
        cmocka_unit_test(refused),
        cmocka_unit_test(random_access),
        cmocka_unit_test(folders),
        cmocka_unit_test(joined),
    };
    return cmocka_run_group_tests(tests, enter, leave);
}
