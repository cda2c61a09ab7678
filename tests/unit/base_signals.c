/* Signals: none reaches a computing thread, the first sets the flag, one right after it is the same, a later one ends the
 * process. */
#include "base/signals.h"

#include "base/files.h"

#include <omp.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static void nap(void) { nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL); }

static bool all_blocked(void) {
    sigset_t mask;
    pthread_sigmask(SIG_BLOCK, NULL, &mask);
    return sigismember(&mask, SIGTERM) && sigismember(&mask, SIGINT) && sigismember(&mask, SIGUSR1);
}

/* In a child: exits with a code of its own where something is wrong. */
static void child(int first, const char *name, int second) {
    if (lam_signals_install() != LAM_OK || lam_signals_install() != LAM_OK) _exit(1);
    if (!all_blocked()) _exit(2);
    int free_threads = 0;
#pragma omp parallel num_threads(3) reduction(+ : free_threads)
    free_threads += !all_blocked();
    if (free_threads) _exit(3);
    if (lam_stop_requested() || strcmp(lam_stop_signal_name(), "")) _exit(4);
    kill(getpid(), first);
    for (int i = 0; i < 5000 && !lam_stop_requested(); i++) nap();
    if (!lam_stop_requested() || strcmp(lam_stop_signal_name(), name)) _exit(5);
    kill(getpid(),
         second == SIGTERM ? SIGINT : SIGTERM); /* too soon to be another request: does not end us */
    for (int i = 0; i < 1000; i++) nap();
    kill(getpid(), second);
    for (int i = 0; i < 5000; i++) nap();
    _exit(6);
}

static void first_and_second(void **state) {
    (void)state;
    static const struct {
        int first, second;
        const char *name, *line;
    } cases[] = {{SIGUSR1, SIGUSR1, "USR1", "second USR1: ending without a checkpoint"},
                 {SIGTERM, SIGINT, "TERM", "second INT: ending without a checkpoint"},
                 {SIGINT, SIGTERM, "INT", "second TERM: ending without a checkpoint"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int said[2], status = 0;
        char text[128] = "";
        size_t length = 0;
        assert_int_equal(pipe(said), 0);
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            if (dup2(said[1], STDERR_FILENO) < 0) _exit(7);
            child(cases[i].first, cases[i].name, cases[i].second);
        }
        close(said[1]);
        for (ssize_t got; (got = read(said[0], text + length, sizeof text - 1 - length)) > 0;)
            length += (size_t)got;
        close(said[0]);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 128 + cases[i].second);
        if (!strstr(text, cases[i].line)) fail_msg("said '%s', expected '%s'", text, cases[i].line);
    }
}

/* Held while it loads; then USR1 does nothing, TERM and INT remove what is being written and end the process. */
static void ending_child(int number, int go) {
    lam_writer *writer;
    lam_signals_hold();
    kill(getpid(), SIGUSR1);
    if (lam_signals_end_cleanly() != LAM_OK || lam_writer_open(&writer, "half.csv") != LAM_OK) _exit(1);
    if (lam_writer_printf(writer, "a,b\n") != LAM_OK) _exit(2);
    kill(getpid(), SIGUSR1);
    for (int i = 0; i < 50; i++) nap();
    if (write(go, "x", 1) != 1) _exit(3);
    kill(getpid(), number);
    for (int i = 0; i < 5000; i++) nap();
    _exit(4);
}

static void ends_cleanly(void **state) {
    (void)state;
    char folder[] = "/tmp/lamella_signals.XXXXXX";
    assert_true(mkdtemp(folder) && chdir(folder) == 0);
    const int numbers[] = {SIGTERM, SIGINT};
    for (size_t i = 0; i < 2; i++) {
        int go[2], status = 0;
        char byte;
        assert_int_equal(pipe(go), 0);
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) ending_child(numbers[i], go[1]);
        close(go[1]);
        assert_int_equal(read(go[0], &byte, 1), 1); /* USR1 did not end it */
        close(go[0]);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFSIGNALED(status));
        assert_int_equal(WTERMSIG(status), numbers[i]);
        char **names;
        int64_t count;
        assert_int_equal(lam_list_folder(".", "", &names, &count), LAM_OK);
        assert_int_equal(count, 0);
        lam_free_texts(names, count);
    }
    assert_int_equal(lam_remove_tree(folder), LAM_OK);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(first_and_second), cmocka_unit_test(ends_cleanly)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
