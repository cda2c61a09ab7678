/* What the files of the emulator share; kernels and stand-ins of libraries see include/emulation.h instead. */
#ifndef LAMELLA_CUDA_EMULATION_EMULATOR_H
#define LAMELLA_CUDA_EMULATION_EMULATOR_H

#include "emulation.h"
#include <stddef.h>

/* ---- settings.cc ---- */

enum lam_emulated_order { LAM_FORWARD, LAM_REVERSED, LAM_SHUFFLED };
enum lam_emulated_stream_order {
    LAM_STREAMS_EAGER,
    LAM_STREAMS_LAZY,
    LAM_STREAMS_REVERSED,
    LAM_STREAMS_SHUFFLED
};
enum lam_emulated_lack { LAM_LACKS_NOTHING, LAM_LACKS_DEVICE, LAM_LACKS_DRIVER, LAM_LACKS_ANY_DRIVER, LAM_LACKS_KERNELS };
struct lam_emulated_settings {
    lam_emulated_order order;
    lam_emulated_stream_order streams;
    int sums;
    uint64_t seed;
    size_t memory, pinned;
    bool keep_going, uninitialised;
    lam_emulated_lack lacks;
};
/* Read from the environment once. */
const lam_emulated_settings &lam_emulated_setting(void);
/* A sequence that the seed fixes. */
uint32_t lam_emulated_random(uint64_t *state);

/* ---- fibers.cc ---- */

/* Runs all blocks. False when something was found and LAMELLA_EMULATION_KEEP_GOING is set. */
bool lam_emulated_run(const lam_emulated_call *call, const void *arguments);
/* Dynamic shared memory that a kernel may be launched with. */
enum { LAM_SHARED_DEFAULT = 48 << 10, LAM_SHARED_MOST = 227 << 10, LAM_SHARED_ARENA = 512 << 10 };
void lam_emulated_set_shared_limit(const void *function, int bytes);
int lam_emulated_shared_limit(const void *function);
/* Static shared memory of a kernel as far as launches have shown it. */
size_t lam_emulated_static_shared(const void *function);

/* Name of the work under way, for messages; NULL on the host. */
extern const char *lam_emulated_work;
/* Whether the caller, or the code that a signal came from, runs on the stack of a kernel's thread. */
bool lam_emulated_on_fiber(void);
bool lam_emulated_fault_on_fiber(const void *context);
bool lam_emulated_in_stack_guard(const void *address);
/* "thread (0,0,0) of block (0,0,0)" */
void lam_emulated_describe_thread(char *text, size_t bytes);
/* Whether something was reported since the last question. */
bool lam_emulated_take_finding(void);
bool lam_emulated_has_finding(void);
/* Leaves the block that the caller is a thread of; the launch has failed. */
[[noreturn]] void lam_emulated_abandon(void);

/* ---- check.cc ---- */

void lam_emulated_heap_made(void *first, size_t bytes);
void lam_emulated_memory_allocated(void *address, size_t bytes);
void lam_emulated_memory_freed(void *address, size_t bytes);
/* By a copy or a library. */
void lam_emulated_memory_used(const void *address, size_t bytes, bool write);

#endif
