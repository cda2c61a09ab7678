/* TERM, INT and USR1. A command that can stop (it has --resume) has them set a flag: it stops at its next checkpoint; one
 * that comes within a second of the first is the same request, a later one ends the process at once, with a line that says so
 * (128 + signal). Any other command ends by TERM and INT as usual, but files that it
 * is writing are removed first (base/files.h), and USR1, which asks for a checkpoint, does nothing.
 *
 * A thread of its own waits for them, and every other thread has them blocked. A handler would run on the stack of whatever
 * thread it interrupts, and generated matrix kernels (oneDNN's sgemm) point the stack register into a heap block: the kernel's
 * signal frame, some kilobytes with AVX-512 state, would then overwrite the heap before it. */
#ifndef LAMELLA_BASE_SIGNALS_H
#define LAMELLA_BASE_SIGNALS_H

#include <stdbool.h>

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* First thing in main: blocks them until one of the calls below, so that a signal that comes while the program loads is not
 * lost and does not end it; a limit on the size of files (XFSZ) makes writes fail instead of ending the process. */
void lam_signals_hold(void);
/* Before the process starts other threads. A second call, of either, does nothing. LAM_ERROR_EXTERNAL. */
lam_status lam_signals_install(void);
lam_status lam_signals_end_cleanly(void);
bool lam_stop_requested(void);
const char *lam_stop_signal_name(void); /* "USR1"; "" where none came */

#ifdef __cplusplus
}
#endif
#endif
