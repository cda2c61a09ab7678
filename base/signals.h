/* TERM, INT and USR1 set a flag; a second signal ends the process at once (128 + signal).
 *
 * A thread of its own waits for them, and every thread started after lam_signals_install has them blocked. A handler would run on
 * the stack of whatever thread it interrupts, and generated matrix kernels (oneDNN's sgemm) point the stack register into a heap
 * block: the kernel's signal frame, some kilobytes with AVX-512 state, would then overwrite the heap before it. */
#ifndef LAMELLA_BASE_SIGNALS_H
#define LAMELLA_BASE_SIGNALS_H

#include <stdbool.h>

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Before the process starts other threads. A second call does nothing. LAM_ERROR_EXTERNAL. */
lam_status lam_signals_install(void);
bool lam_stop_requested(void);
const char *lam_stop_signal_name(void); /* "USR1"; "" where none came */

#ifdef __cplusplus
}
#endif
#endif
