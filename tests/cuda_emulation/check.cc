#include "emulator.h"
void lam_emulated_memory_allocated(void *, size_t) {}
void lam_emulated_memory_freed(void *, size_t) {}
void lam_emulated_memory_used(const void *, size_t, bool) {}
