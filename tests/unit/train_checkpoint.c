/* Which checkpoints a run keeps, by their numbers; damage is tested by tests/train/checkpoints.sh. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/files.h"
#include "base/log.h"
#include "base/memory.h"
#include "train/checkpoint.h"

static char run[64];

static void make(const char *name) {
    char path[256];
    snprintf(path, sizeof path, "%s/checkpoints/%s", run, name);
    assert_int_equal(lam_make_folders(path), LAM_OK);
}

static void expect(const char *expected) {
    char path[256], all[512] = "", **names;
    int64_t count;
    snprintf(path, sizeof path, "%s/checkpoints", run);
    assert_int_equal(lam_list_folder(path, "", &names, &count), LAM_OK);
    for (int64_t i = 0; i < count; i++) strcat(strcat(all, i ? " " : ""), names[i]);
    lam_free_texts(names, count);
    assert_string_equal(all, expected);
}

/* Names sort as text, steps do not. */
static void test_prune(void **state) {
    (void)state;
    const char *const names[] = {"step_00000100",     "step_00000150",  "step_99999998",
                                 "step_99999999",     "step_100000000", "step_00000100.partial",
                                 "step_40.my_backup", "step_40"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) make(names[i]);
    assert_int_equal(lam_checkpoint_prune(run, 100000000, 2, 0), LAM_OK);
    expect("step_100000000 step_40 step_40.my_backup step_99999999");
    assert_int_equal(lam_checkpoint_prune(run, 100000000, 1, 3), LAM_OK);
    expect("step_100000000 step_40 step_40.my_backup step_99999999");
    assert_int_equal(lam_checkpoint_prune(run, 100000000, 1, 0), LAM_OK);
    expect("step_100000000 step_40 step_40.my_backup");
    /* Whatever lies there of later steps: the one just written stays. */
    make("step_00000050");
    assert_int_equal(lam_checkpoint_prune(run, 50, 1, 0), LAM_OK);
    expect("step_00000050 step_100000000 step_40 step_40.my_backup");
}

static void test_go_on_from(void **state) {
    (void)state;
    char path[256], *text;
    size_t size;
    lam_log_set_quiet(true);
    make("step_00000060");
    make("step_00000060.aside/old");
    assert_int_equal(lam_checkpoint_go_on_from(run, 50), LAM_OK);
    expect("latest step_00000050 step_00000060.aside step_100000000.aside step_40 step_40.my_backup");
    snprintf(path, sizeof path, "%s/checkpoints/latest", run);
    assert_int_equal(lam_file_read(path, &text, &size), LAM_OK);
    assert_string_equal(text, "step_00000050\n");
    lam_free(text);
    assert_int_equal(lam_checkpoint_prune(run, 50, 1, 0), LAM_OK);
    expect("latest step_00000050 step_40 step_40.my_backup");
}

int main(void) {
    snprintf(run, sizeof run, "/tmp/lamella_checkpoint.XXXXXX");
    if (!mkdtemp(run)) return 1;
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_prune), cmocka_unit_test(test_go_on_from)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    lam_remove_tree(run);
    return failed;
}
