#include "dist/internal.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"

static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    pthread_t thread;
    bool running, stop;
    int rank;
    double limit_seconds, entered;
    const char *collective; /* NULL: not in one */
} watchdog = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static void *watch(void *unused) {
    (void)unused;
    pthread_mutex_lock(&watchdog.lock);
    while (!watchdog.stop) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_sec += 1;
        pthread_cond_timedwait(&watchdog.changed, &watchdog.lock, &until);
        if (watchdog.stop || !watchdog.collective) continue;
        double waited = lam_now() - watchdog.entered;
        if (waited < watchdog.limit_seconds) continue;
        /* Nothing can return to the caller, who is inside MPI: say it and end. */
        fprintf(stderr,
                "error: rank %d has waited %.0f s in %s: another rank did not come "
                "(LAMELLA_COLLECTIVE_TIMEOUT sets the limit in seconds)\n",
                watchdog.rank, waited, watchdog.collective);
        fflush(stderr);
        _exit(1);
    }
    pthread_mutex_unlock(&watchdog.lock);
    return NULL;
}

lam_status lam_watchdog_start(int rank) {
    watchdog.limit_seconds = 600;
    const char *text = getenv("LAMELLA_COLLECTIVE_TIMEOUT");
    if (text && text[0]) {
        char *end = NULL;
        errno = 0;
        double limit = strtod(text, &end);
        LAM_REQUIRE(errno == 0 && *end == 0 && limit > 0 && limit < 1e9, LAM_ERROR_USAGE,
                    "LAMELLA_COLLECTIVE_TIMEOUT is \"%s\": give a number of seconds above 0", text);
        watchdog.limit_seconds = limit;
    }
    watchdog.rank = rank;
    watchdog.stop = false;
    watchdog.collective = NULL;
    LAM_REQUIRE(pthread_create(&watchdog.thread, NULL, watch, NULL) == 0, LAM_ERROR_EXTERNAL,
                "cannot start a thread for the watchdog of collectives");
    watchdog.running = true;
    return LAM_OK;
}

void lam_watchdog_stop(void) {
    if (!watchdog.running) return;
    pthread_mutex_lock(&watchdog.lock);
    watchdog.stop = true;
    pthread_cond_signal(&watchdog.changed);
    pthread_mutex_unlock(&watchdog.lock);
    pthread_join(watchdog.thread, NULL);
    watchdog.running = false;
}

void lam_watchdog_enter(const char *collective) {
    pthread_mutex_lock(&watchdog.lock);
    watchdog.collective = collective;
    watchdog.entered = lam_now();
    pthread_mutex_unlock(&watchdog.lock);
}

void lam_watchdog_leave(void) {
    pthread_mutex_lock(&watchdog.lock);
    watchdog.collective = NULL;
    pthread_mutex_unlock(&watchdog.lock);
}
