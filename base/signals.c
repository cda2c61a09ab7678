#include "base/signals.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

static atomic_int received;
static bool installed;

static void wanted(sigset_t *set) {
    sigemptyset(set);
    sigaddset(set, SIGTERM);
    sigaddset(set, SIGINT);
    sigaddset(set, SIGUSR1);
}

static void count(int number) {
    if (atomic_exchange(&received, number)) _exit(128 + number);
}

static void *wait_for_signals(void *unused) {
    (void)unused;
    sigset_t set;
    wanted(&set);
    for (int number; sigwait(&set, &number) == 0;) count(number);
    return NULL;
}

lam_status lam_signals_install(void) {
    if (installed) return LAM_OK;
    sigset_t set;
    pthread_t thread;
    /* A library's thread that is older than this call may get the signal instead: there the handler counts it. */
    struct sigaction action = {.sa_handler = count, .sa_flags = SA_RESTART};
    wanted(&set);
    action.sa_mask = set;
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGUSR1, &action, NULL);
    LAM_REQUIRE(pthread_sigmask(SIG_BLOCK, &set, NULL) == 0 &&
                    pthread_create(&thread, NULL, wait_for_signals, NULL) == 0,
                LAM_ERROR_EXTERNAL, "cannot start a thread that waits for signals");
    pthread_detach(thread);
    installed = true;
    return LAM_OK;
}

bool lam_stop_requested(void) { return atomic_load_explicit(&received, memory_order_relaxed) != 0; }

const char *lam_stop_signal_name(void) {
    switch (atomic_load(&received)) {
    case SIGTERM: return "TERM";
    case SIGINT: return "INT";
    case SIGUSR1: return "USR1";
    default: return "";
    }
}
