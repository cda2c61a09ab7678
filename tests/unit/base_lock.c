/* A lock is held once, given back by release and by the death of its process, and not needed where there are none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/files.h"
#include "base/lock.h"
#include "base/log.h"

static void test_one_holder(void **state) {
    (void)state;
    lam_lock *first = NULL, *second = NULL;
    char holder[64];
    snprintf(holder, sizeof holder, "held by process %ld on ", (long)getpid());
    assert_int_equal(lam_lock_take(&first, "lock"), LAM_OK);
    assert_int_equal(lam_lock_take(&second, "lock"), LAM_ERROR_IO);
    assert_null(second);
    assert_non_null(strstr(lam_last_error(), holder));
    lam_lock_release(&first);
    assert_int_equal(lam_lock_take(&second, "lock"), LAM_OK);
    lam_lock_release(&second);
    lam_lock_release(&second);
    assert_int_equal(lam_lock_take(&first, "nowhere/lock"), LAM_ERROR_IO);
}

static void test_killed_holder(void **state) {
    (void)state;
    int ready[2];
    char byte;
    lam_lock *lock = NULL;
    assert_int_equal(pipe(ready), 0);
    pid_t child = fork();
    if (child == 0) {
        if (lam_lock_take(&lock, "lock") != LAM_OK || write(ready[1], "x", 1) != 1) _exit(1);
        pause();
        _exit(2);
    }
    assert_int_equal(read(ready[0], &byte, 1), 1);
    assert_int_equal(lam_lock_take(&lock, "lock"), LAM_ERROR_IO);
    kill(child, SIGKILL);
    assert_true(waitpid(child, NULL, 0) == child);
    assert_int_equal(lam_lock_take(&lock, "lock"), LAM_OK);
    lam_lock_release(&lock);
    close(ready[0]);
    close(ready[1]);
}

static void test_no_locks(void **state) {
    (void)state;
    lam_lock *lock = NULL;
    lam_log_set_silent(true);
    lam_fault_arm(LAM_FAULT_WRITE, 2);
    assert_int_equal(lam_lock_take(&lock, "lock"), LAM_OK);
    lam_fault_arm(LAM_FAULT_WRITE, 0);
    lam_lock_release(&lock);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_one_holder),
                                       cmocka_unit_test(test_killed_holder), cmocka_unit_test(test_no_locks)};
    char folder[] = "/tmp/lamella_lock.XXXXXX";
    if (!mkdtemp(folder) || chdir(folder) != 0) return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    lam_remove_tree(folder);
    return failed;
}
