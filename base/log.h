/* Log and progress, both to standard error. Results go to standard output and not through here.
 *
 *     lam_log_info("packed %lld images", n);
 *     lam_progress *p = lam_progress_start("pack", total, "images");
 *     lam_progress_update(p, done, "1.2 GB/s");
 *     lam_progress_finish(p);
 *
 * On a terminal a progress bar with rate and ETA; otherwise a plain line at most every ten seconds and one at
 * the end. Safe on any thread. Only rank 0 prints: others call lam_log_set_silent(true). */
#ifndef LAMELLA_BASE_LOG_H
#define LAMELLA_BASE_LOG_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

void lam_log_set_quiet(bool quiet);   /* --quiet: warnings and errors only */
void lam_log_set_silent(bool silent); /* ranks other than 0: nothing but lam_log_warning_here */
void lam_log_info(const char *format, ...) __attribute__((format(printf, 1, 2)));
void lam_log_warning(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Of what only this process sees, such as a damaged frame that it read: printed on silent ranks too. */
void lam_log_warning_here(const char *format, ...) __attribute__((format(printf, 1, 2)));
void lam_log_error(const char *format, ...) __attribute__((format(printf, 1, 2)));

typedef struct lam_progress lam_progress;
/* total <= 0: unknown. Never fails: returns NULL where memory is out, and the others accept NULL. */
lam_progress *lam_progress_start(const char *label, int64_t total, const char *unit);
void lam_progress_begin_at(lam_progress *progress,
                           int64_t done); /* resumed work: what was done before counts for no rate */
void lam_progress_update(lam_progress *progress, int64_t done, const char *detail); /* detail may be NULL */
void lam_progress_finish(lam_progress *progress);

/* Seconds from a monotonic clock. */
double lam_now(void);

#ifdef __cplusplus
}
#endif
#endif
