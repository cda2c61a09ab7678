/* Fault injection: the n-th allocation, read or write fails as the real one would.
 * Armed by a test (lam_fault_arm) or by the environment, LAMELLA_FAULT=alloc:7, read:3 or write:2.
 * lam_fault_hit is called by base/memory.c and base/files.c before the real call; it costs one load
 * where nothing is armed. */
#ifndef LAMELLA_BASE_FAULT_H
#define LAMELLA_BASE_FAULT_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum lam_fault_kind {
    LAM_FAULT_ALLOC,
    LAM_FAULT_READ,
    LAM_FAULT_WRITE,
    LAM_FAULT_KINDS
} lam_fault_kind;

void lam_fault_arm(lam_fault_kind kind, int64_t n); /* the n-th call from now fails (once); n = 0 disarms */
void lam_fault_from_environment(void);
bool lam_fault_hit(lam_fault_kind kind);

#ifdef __cplusplus
}
#endif
#endif
