/* Device memory: a range of addresses of its own, closed to host code. Around each allocation lie guard bytes, and what is
 * freed is not given out again soon. */
#include "runtime.h"
#include <map>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum { ALIGNMENT = 256, GUARD = 256, GUARD_CHECKED = 64, GUARD_BYTE = 0xa5 };
static const size_t HUGE = static_cast<size_t>(2) << 20; /* a page */
static const size_t REUSED_AFTER = static_cast<size_t>(32) << 20;
static const size_t POISON_MOST = static_cast<size_t>(256) << 20;

static unsigned char *heap;
static size_t heap_bytes, heap_next, heap_high, heap_used;
static std::map<uintptr_t, lam_allocation> &allocations(void) {
    static std::map<uintptr_t, lam_allocation> all;
    return all;
}
static std::map<uintptr_t, lam_pinned> &pinned(void) {
    static std::map<uintptr_t, lam_pinned> all;
    return all;
}
static unsigned allocation_count;
static int open_count;
static struct sigaction before_fault;

static size_t round_up(size_t bytes, size_t to) { return (bytes + to - 1) / to * to; }

template <typename M> static typename M::mapped_type *holder(M &all, const void *address) {
    uintptr_t a = reinterpret_cast<uintptr_t>(address);
    auto after = all.upper_bound(a);
    if (after == all.begin()) return nullptr;
    typename M::mapped_type &one = std::prev(after)->second;
    return a < one.address + one.bytes ? &one : nullptr;
}

void lam_device_describe(char *text, size_t bytes, const void *address) {
    uintptr_t a = reinterpret_cast<uintptr_t>(address);
    const lam_allocation *near = nullptr;
    size_t distance = SIZE_MAX;
    for (const auto &entry : allocations()) {
        const lam_allocation &one = entry.second;
        size_t d = a < one.address               ? one.address - a
                   : a < one.address + one.bytes ? 0
                                                 : a - one.address - one.bytes;
        if (d < distance) near = &one, distance = d;
    }
    if (!near)
        snprintf(text, bytes, "no device memory is allocated");
    else if (a < near->address)
        snprintf(text, bytes, "%zu bytes before the allocation of %zu bytes (number %u)", near->address - a,
                 near->bytes, near->number);
    else if (a < near->address + near->bytes)
        snprintf(text, bytes, "%zu bytes into the allocation of %zu bytes (number %u)", a - near->address,
                 near->bytes, near->number);
    else
        snprintf(text, bytes, "%zu bytes past the end of the allocation of %zu bytes (number %u)",
                 a - near->address - near->bytes, near->bytes, near->number);
}

/* One clear line for a fault that the emulator can explain; others go to whoever was there before. */
static void explain_fault(int signal, siginfo_t *info, void *context) {
    char where[200];
    const char *work = lam_emulated_work ? lam_emulated_work : "host";
    if (signal == SIGSEGV && info->si_code == SEGV_ACCERR && !open_count && lam_is_device(info->si_addr)) {
        lam_device_describe(where, sizeof where, info->si_addr);
        fprintf(stderr, "cuda emulation: host: host code touches device memory at %p, %s\n", info->si_addr,
                where);
        abort();
    }
    if (lam_emulated_fault_on_fiber(context)) {
        char thread[128];
        lam_emulated_describe_thread(thread, sizeof thread);
        if (lam_emulated_in_stack_guard(info->si_addr))
            fprintf(stderr, "cuda emulation: %s: the stack of a thread is full, %s\n", work, thread);
        else if (info->si_code == SI_KERNEL)
            fprintf(stderr, "cuda emulation: %s: misaligned vector access, or an address that is none, %s\n",
                    work, thread);
        else {
            lam_device_describe(where, sizeof where, info->si_addr);
            fprintf(stderr, "cuda emulation: %s: out of bounds: touches %p, %s, %s\n", work, info->si_addr,
                    thread, where);
        }
        abort();
    }
    sigaction(signal, &before_fault, nullptr);
}

static void start(void) {
    heap_bytes = round_up(lam_emulated_setting().memory, HUGE) * 2 + 32 * HUGE;
    void *memory =
        mmap(nullptr, heap_bytes + HUGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
        fprintf(stderr, "cuda emulation: no addresses for device memory\n");
        abort();
    }
    heap = reinterpret_cast<unsigned char *>(round_up(reinterpret_cast<uintptr_t>(memory), HUGE));
    madvise(heap, heap_bytes, MADV_HUGEPAGE);
    lam_emulated_heap_made(heap, heap_bytes);
}

/* Again whenever the memory is closed: test programs put handlers of their own in between. */
static void watch_faults(void) {
    struct sigaction now, action = {};
    if (sigaction(SIGSEGV, nullptr, &now) == 0 && now.sa_sigaction == explain_fault) return;
    action.sa_sigaction = explain_fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigaction(SIGSEGV, &action, &before_fault);
}

/* The whole range that was ever used, to whole huge pages: then each call is short. */
static void protect(int protection) { mprotect(heap, round_up(heap_high, HUGE), protection); }

void lam_device_open(void) {
    if (open_count++ || !heap_high) return;
    watch_faults();
    protect(PROT_READ | PROT_WRITE);
}

void lam_device_close(void) {
    if (--open_count || !heap_high) return;
    watch_faults();
    protect(PROT_NONE);
}

cudaError_t lam_device_allocate(void **pointer, size_t bytes) {
    if (!heap) start();
    *pointer = nullptr;
    if (!bytes) return cudaSuccess;
    size_t total = lam_emulated_setting().memory, payload = round_up(bytes, ALIGNMENT);
    if (bytes > total || heap_used + payload > total) return cudaErrorMemoryAllocation;
    size_t room = GUARD + payload + GUARD;
    /* The next gap that is wide enough, from where the last one was found; twice round at most. Starting over now and then
     * keeps the pages few. */
    size_t at = heap_next > 2 * heap_used + REUSED_AFTER ? 0 : heap_next;
    for (int round = 0; round < 2; round++, at = 0) {
        uintptr_t base = reinterpret_cast<uintptr_t>(heap);
        auto next = allocations().lower_bound(base + at);
        if (next != allocations().begin()) {
            const lam_allocation &previous = std::prev(next)->second;
            size_t end = previous.address - base + round_up(previous.bytes, ALIGNMENT) + GUARD;
            if (end > at) at = end;
        }
        for (; next != allocations().end() && at + room > next->second.address - base - GUARD; ++next)
            at = next->second.address - base + round_up(next->second.bytes, ALIGNMENT) + GUARD;
        if (at + room <= heap_bytes) break;
    }
    if (at + room > heap_bytes) return cudaErrorMemoryAllocation;
    heap_next = at + room;
    unsigned char *memory = heap + at + GUARD;
    if (at + room > heap_high) heap_high = at + room;
    lam_device_open();
    protect(PROT_READ | PROT_WRITE);
    memset(heap + at, GUARD_BYTE, GUARD);
    memset(memory, 0xff, bytes < POISON_MOST ? bytes : POISON_MOST);
    memset(memory + bytes, GUARD_BYTE, payload - bytes + GUARD);
    lam_device_close();
    lam_allocation one = {reinterpret_cast<uintptr_t>(memory), bytes, ++allocation_count};
    allocations()[one.address] = one;
    heap_used += payload;
    lam_emulated_memory_allocated(memory, bytes);
    *pointer = memory;
    return cudaSuccess;
}

bool lam_device_free(void *pointer) {
    auto found = allocations().find(reinterpret_cast<uintptr_t>(pointer));
    if (found == allocations().end()) return false;
    size_t payload = round_up(found->second.bytes, ALIGNMENT);
    lam_emulated_memory_freed(pointer, found->second.bytes);
    heap_used -= payload;
    allocations().erase(found);
    size_t first = round_up(static_cast<size_t>(static_cast<unsigned char *>(pointer) - heap), HUGE);
    size_t last = (static_cast<size_t>(static_cast<unsigned char *>(pointer) - heap) + payload) / HUGE * HUGE;
    if (last > first && last - first > REUSED_AFTER) madvise(heap + first, last - first, MADV_DONTNEED);
    return true;
}

void lam_device_memory(size_t *free_bytes, size_t *total_bytes) {
    *total_bytes = lam_emulated_setting().memory;
    *free_bytes = *total_bytes - heap_used;
}

bool lam_is_device(const void *address) {
    const unsigned char *a = static_cast<const unsigned char *>(address);
    return heap && a >= heap && a < heap + heap_bytes;
}

const lam_allocation *lam_device_find(const void *address) { return holder(allocations(), address); }

void lam_device_check_guards(void) {
    static unsigned char clean[GUARD_CHECKED];
    if (!clean[0]) memset(clean, GUARD_BYTE, sizeof clean);
    for (const auto &entry : allocations()) {
        unsigned char *from = reinterpret_cast<unsigned char *>(entry.second.address),
                      *to = from + entry.second.bytes;
        if (memcmp(from - GUARD_CHECKED, clean, GUARD_CHECKED) == 0 && memcmp(to, clean, GUARD_CHECKED) == 0)
            continue;
        unsigned char *wrong = to;
        for (unsigned char *p = from - GUARD_CHECKED; p < from; p++)
            if (*p != GUARD_BYTE) wrong = p;
        while (wrong >= to && *wrong == GUARD_BYTE) wrong++;
        char where[200];
        lam_device_describe(where, sizeof where, wrong);
        memcpy(from - GUARD_CHECKED, clean, GUARD_CHECKED);
        memcpy(to, clean, GUARD_CHECKED);
        lam_emulated_report("out of bounds: has written %s", where);
    }
}

/* ---- pinned memory of the host ---- */

cudaError_t lam_pinned_allocate(void **pointer, size_t bytes) {
    *pointer = nullptr;
    if (!bytes) return cudaSuccess;
    size_t used = 0;
    for (const auto &one : pinned()) used += one.second.bytes;
    if (bytes > lam_emulated_setting().pinned - std::min(used, lam_emulated_setting().pinned))
        return cudaErrorMemoryAllocation;
    void *memory = aligned_alloc(4096, round_up(bytes, 4096));
    if (!memory) return cudaErrorMemoryAllocation;
    memset(memory, 0xff, bytes);
    lam_pinned one = {reinterpret_cast<uintptr_t>(memory), bytes, 0, 0};
    pinned()[one.address] = one;
    *pointer = memory;
    return cudaSuccess;
}

bool lam_pinned_free(void *pointer) {
    if (!pinned().erase(reinterpret_cast<uintptr_t>(pointer))) return false;
    free(pointer);
    return true;
}

lam_pinned *lam_pinned_find(const void *address) { return holder(pinned(), address); }
