/* Signals: none reaches a computing thread, the first sets the flag, the second ends the process. */
#include "base/signals.h"

#include <omp.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
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
    kill(getpid(), second);
    for (int i = 0; i < 5000; i++) nap();
    _exit(6); /* the second signal did not end us */
}

static void first_and_second(void **state) {
    (void)state;
    static const struct {
        int first, second;
        const char *name;
    } cases[] = {{SIGUSR1, SIGUSR1, "USR1"}, {SIGTERM, SIGINT, "TERM"}, {SIGINT, SIGTERM, "INT"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) child(cases[i].first, cases[i].name, cases[i].second);
        int status = 0;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 128 + cases[i].second);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(first_and_second)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
