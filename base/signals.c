#include "base/signals.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/files.h"

/* GNU timeout signals its child and then the group that the child is in; a scheduler and a launcher may both pass one on. */
#define SAME_STOP_NANOSECONDS 1000000000

static atomic_int received;
static _Atomic int64_t first_came; /* CLOCK_MONOTONIC in nanoseconds; 0: none yet */
static bool installed;

static const char *name_of(int number) {
    switch (number) {
    case SIGTERM: return "TERM";
    case SIGINT: return "INT";
    case SIGUSR1: return "USR1";
    default: return "";
    }
}

static void wanted(sigset_t *set) {
    sigemptyset(set);
    sigaddset(set, SIGTERM);
    sigaddset(set, SIGINT);
    sigaddset(set, SIGUSR1);
}

/* May run as a handler: only what is safe in one. */
static void say(const char *text) {
    ssize_t written = write(STDERR_FILENO, text, strlen(text));
    (void)written; /* the process ends, whether or not anyone reads it */
}

static void count(int number) {
    struct timespec clock;
    clock_gettime(CLOCK_MONOTONIC, &clock);
    int64_t now = (int64_t)clock.tv_sec * 1000000000 + clock.tv_nsec + 1, first = 0;
    if (atomic_compare_exchange_strong(&first_came, &first, now)) {
        atomic_store(&received, number);
        return;
    }
    if (now - first < SAME_STOP_NANOSECONDS) return;
    say("\nlamella: second ");
    say(name_of(number));
    say(": ending without a checkpoint\n");
    _exit(128 + number);
}

static void *wait_to_stop(void *unused) {
    (void)unused;
    sigset_t set;
    wanted(&set);
    for (int number; sigwait(&set, &number) == 0;) count(number);
    return NULL;
}

/* Ends the process by the signal itself, so that a shell or scheduler sees which it was. */
static void *wait_to_end(void *unused) {
    (void)unused;
    sigset_t set;
    int number;
    wanted(&set);
    while (sigwait(&set, &number) == 0 && number == SIGUSR1) continue;
    lam_partials_remove();
    signal(number, SIG_DFL);
    sigemptyset(&set);
    sigaddset(&set, number);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    raise(number);
    return NULL;
}

static lam_status start(void *(*wait)(void *)) {
    sigset_t set;
    pthread_t thread;
    wanted(&set);
    LAM_REQUIRE(pthread_sigmask(SIG_BLOCK, &set, NULL) == 0 && pthread_create(&thread, NULL, wait, NULL) == 0,
                LAM_ERROR_EXTERNAL, "cannot start a thread that waits for signals");
    pthread_detach(thread);
    installed = true;
    return LAM_OK;
}

void lam_signals_hold(void) {
    sigset_t set;
    wanted(&set);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    signal(SIGXFSZ, SIG_IGN);
}

lam_status lam_signals_install(void) {
    if (installed) return LAM_OK;
    /* A library's thread that is older than this call may get the signal instead: there the handler counts it. */
    struct sigaction action = {.sa_handler = count, .sa_flags = SA_RESTART};
    wanted(&action.sa_mask);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGUSR1, &action, NULL);
    return start(wait_to_stop);
}

lam_status lam_signals_end_cleanly(void) { return installed ? LAM_OK : start(wait_to_end); }

bool lam_stop_requested(void) { return atomic_load_explicit(&received, memory_order_relaxed) != 0; }

const char *lam_stop_signal_name(void) { return name_of(atomic_load(&received)); }
