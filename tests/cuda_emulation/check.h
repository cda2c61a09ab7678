/* What check.cc knows of the work that runs, and what it is told. */
#ifndef LAMELLA_CUDA_EMULATION_CHECK_H
#define LAMELLA_CUDA_EMULATION_CHECK_H

#include "emulator.h"

enum { LAM_STACK_BYTES = 64 << 10, LAM_ARRAYS_MOST = 64 };

struct lam_emulated_array {
    const unsigned char *from, *to;
    const char *name;
};
/* Written by fibers.cc and streams.cc. Times are of the block: they count barriers and exchanges from 1. */
struct lam_emulated_state {
    const unsigned char *stack; /* of the thread */
    int thread;
    uint32_t block, first_block; /* number of the block in this process; of the first block of the launch */
    uint32_t time, barrier_time;
    uint32_t warp_time[32]; /* of the last __syncwarp of the whole warp */
    lam_emulated_array arrays[LAM_ARRAYS_MOST];
    int array_count;
    const unsigned char *arena;
    uintptr_t arguments, stacks;
    size_t stacks_bytes;
    uint32_t ordered_block; /* what blocks up to here have done is known to be done */
    bool is_library;        /* a copy or a library, not a kernel */
    void *code;             /* what was checked last */
};
extern lam_emulated_state lam_now __attribute__((visibility("hidden")));

/* lam_emulated_on_fiber, for where it is asked often. */
static inline bool lam_emulated_is_in_kernel(void) {
    return reinterpret_cast<uintptr_t>(__builtin_frame_address(0)) - lam_now.stacks < lam_now.stacks_bytes;
}
bool lam_emulated_is_checked(void);
/* Whether __syncwarp has brought the lane of the running thread's warp and the thread together after `time`. */
bool lam_emulated_warp_orders(int lane, uint32_t time);
void lam_emulated_describe_thread_of(char *text, size_t bytes, int thread);
void lam_emulated_copy_begins(const void *target, size_t bytes, const void *source, size_t source_bytes);
void lam_emulated_copy_arrives(const void *target, size_t bytes);

#endif
