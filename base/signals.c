#include "base/signals.h"

#include <signal.h>
#include <string.h>
#include <unistd.h>

static volatile sig_atomic_t received;

static void on_signal(int number) {
    if (received) _exit(128 + number);
    received = number;
}

void lam_signals_install(void) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    action.sa_flags = SA_RESTART;
    sigemptyset(&action.sa_mask);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGUSR1, &action, NULL);
}

bool lam_stop_requested(void) { return received != 0; }

const char *lam_stop_signal_name(void) {
    switch (received) {
    case SIGTERM: return "TERM";
    case SIGINT: return "INT";
    case SIGUSR1: return "USR1";
    default: return "";
    }
}
