#include "base/fault.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

static atomic_llong remaining[LAM_FAULT_KINDS];

void lam_fault_arm(lam_fault_kind kind, int64_t n) { atomic_store(&remaining[kind], n); }

void lam_fault_from_environment(void) {
    static const char *const names[LAM_FAULT_KINDS] = {"alloc:", "read:", "write:"};
    const char *text = getenv("LAMELLA_FAULT");
    if (!text) return;
    for (int kind = 0; kind < LAM_FAULT_KINDS; kind++) {
        size_t length = strlen(names[kind]);
        if (!strncmp(text, names[kind], length)) lam_fault_arm((lam_fault_kind)kind, atoll(text + length));
    }
}

bool lam_fault_hit(lam_fault_kind kind) {
    if (atomic_load_explicit(&remaining[kind], memory_order_relaxed) <= 0) return false;
    return atomic_fetch_sub(&remaining[kind], 1) == 1;
}
