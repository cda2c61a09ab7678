/* TERM, INT and USR1 set a flag; a second signal ends the process at once (128 + signal). */
#ifndef LAMELLA_BASE_SIGNALS_H
#define LAMELLA_BASE_SIGNALS_H

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

void lam_signals_install(void);
bool lam_stop_requested(void);
const char *lam_stop_signal_name(void); /* "USR1"; "" where none came */

#ifdef __cplusplus
}
#endif
#endif
