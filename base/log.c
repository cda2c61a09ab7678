#include "base/log.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/utf8.h"

#define PLAIN_INTERVAL_SECONDS 10.0
#define BAR_INTERVAL_SECONDS 0.1
#define BAR_CELLS 24

struct lam_progress {
    char label[64], unit[32], detail[160];
    int64_t total, done, first; /* first: done before the start */
    double start, last_drawn;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static bool quiet, silent, bar_on_screen;

double lam_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

void lam_log_set_quiet(bool value) { quiet = value; }
void lam_log_set_silent(bool value) { silent = value; }

static void write_line(const char *prefix, const char *format, va_list arguments) {
    char said[2048], text[4096];
    vsnprintf(said, sizeof said, format, arguments);
    lam_utf8_visible(text, sizeof text, said);
    pthread_mutex_lock(&lock);
    /* A bar that stands on the line is wiped first; it is drawn again at its next update. */
    fprintf(stderr, "%s%s%s\n", bar_on_screen ? "\r\033[K" : "", prefix, text);
    bar_on_screen = false;
    pthread_mutex_unlock(&lock);
}

void lam_log_info(const char *format, ...) {
    if (quiet || silent) return;
    va_list arguments;
    va_start(arguments, format);
    write_line("", format, arguments);
    va_end(arguments);
}

void lam_log_warning(const char *format, ...) {
    if (silent) return;
    va_list arguments;
    va_start(arguments, format);
    write_line("warning: ", format, arguments);
    va_end(arguments);
}

void lam_log_warning_here(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    write_line("warning: ", format, arguments);
    va_end(arguments);
}

void lam_log_error(const char *format, ...) {
    if (silent) return;
    va_list arguments;
    va_start(arguments, format);
    write_line("lamella: ", format, arguments);
    va_end(arguments);
}

static void format_seconds(char *text, size_t size, double seconds) {
    long long s = (long long)(seconds + 0.5);
    if (s < 60)
        snprintf(text, size, "%llds", s);
    else if (s < 3600)
        snprintf(text, size, "%lldm%02llds", s / 60, s % 60);
    else
        snprintf(text, size, "%lldh%02lldm", s / 3600, s / 60 % 60);
}

static void draw(lam_progress *p, bool last) {
    double elapsed = lam_now() - p->start, rate = elapsed > 0 ? (double)(p->done - p->first) / elapsed : 0;
    char spent[32], left[48] = "", head[128];
    format_seconds(spent, sizeof spent, elapsed);
    if (!last && p->total > 0 && rate > 0) {
        char eta[32];
        format_seconds(eta, sizeof eta, (double)(p->total - p->done) / rate);
        snprintf(left, sizeof left, ", ETA %s", eta);
    }
    if (p->total > 0)
        snprintf(head, sizeof head, "%lld/%lld %s", (long long)p->done, (long long)p->total, p->unit);
    else
        snprintf(head, sizeof head, "%lld %s", (long long)p->done, p->unit);
    const char *separator = p->detail[0] ? ", " : "";
    if (isatty(STDERR_FILENO)) {
        char bar[BAR_CELLS + 1];
        int64_t filled = p->total > 0 ? p->done * BAR_CELLS / p->total : 0;
        for (int i = 0; i < BAR_CELLS; i++) bar[i] = i < filled ? '#' : '.';
        bar[BAR_CELLS] = 0;
        fprintf(stderr, "\r\033[K%s [%s] %s, %.4g/s%s%s%s%s%s", p->label, bar, head, rate, separator,
                p->detail, last ? ", " : "", last ? spent : left, last ? "\n" : "");
        bar_on_screen = !last;
        fflush(stderr);
    } else {
        fprintf(stderr, "%s: %s, %.4g/s%s%s, %s%s\n", p->label, head, rate, separator, p->detail, spent,
                left);
    }
}

lam_progress *lam_progress_start(const char *label, int64_t total, const char *unit) {
    if (quiet || silent) return NULL;
    lam_progress *p = calloc(1, sizeof *p);
    if (!p) return NULL;
    snprintf(p->label, sizeof p->label, "%s", label);
    snprintf(p->unit, sizeof p->unit, "%s", unit);
    p->total = total;
    p->start = p->last_drawn = lam_now();
    return p;
}

void lam_progress_begin_at(lam_progress *p, int64_t done) {
    if (p) p->first = p->done = done;
}

void lam_progress_update(lam_progress *p, int64_t done, const char *detail) {
    if (!p) return;
    pthread_mutex_lock(&lock);
    double now = lam_now();
    p->done = done;
    if (detail) snprintf(p->detail, sizeof p->detail, "%s", detail);
    if (now - p->last_drawn >= (isatty(STDERR_FILENO) ? BAR_INTERVAL_SECONDS : PLAIN_INTERVAL_SECONDS)) {
        p->last_drawn = now;
        draw(p, false);
    }
    pthread_mutex_unlock(&lock);
}

void lam_progress_finish(lam_progress *p) {
    if (!p) return;
    pthread_mutex_lock(&lock);
    draw(p, true);
    pthread_mutex_unlock(&lock);
    free(p);
}
