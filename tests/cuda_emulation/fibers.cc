/* The threads of a block as fibers: barriers, exchanges between lanes, shared memory.
 *
 * A fiber is a stack and the place where it was left. It takes threads that have not started one after another, so a
 * kernel without barriers runs on one fiber as a plain loop; a thread that must wait keeps its fiber, and another one goes
 * on. Each warp has the mask of its threads that may run, the block the mask of warps that have any. */
#include "check.h"
#include <dlfcn.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unordered_map>

enum {
    THREADS_MOST = 1024,
    WARPS_MOST = THREADS_MOST / 32,
    STACK_BYTES = LAM_STACK_BYTES,
    GUARD_BYTES = 4 << 10,
    EXCHANGE_BYTES = 128,
    GROUPS = 34, /* of a warp: each lane may still read one and wait in another's */
    COPIES = 256,
};

/* Lanes that meet at one operation. */
struct group {
    unsigned mask, arrived, reading;
    const char *what, *file;
    size_t bytes;
    int line;
    group *next;
    alignas(64) unsigned char given[32 * EXCHANGE_BYTES];
};
struct warp {
    unsigned present, ended, runnable;
    int fresh; /* groups not used yet in this block */
    group *open, *free;
    group groups[GROUPS];
};
struct fiber {
    void *stack_pointer;
    unsigned char *stack;
};
struct later {
    void *target;
    const void *source;
    size_t bytes, source_bytes;
    unsigned committed; /* the number of the group */
};
struct thread {
    fiber *on; /* NULL before the thread starts */
    group *held;
    const char *waits_at, *file;
    int line;
    unsigned index[3];
    unsigned copies, commits;
};

static thread threads[THREADS_MOST];
static warp warps[WARPS_MOST];
static fiber fibers[THREADS_MOST];
static fiber *idle[THREADS_MOST];
static later copies[THREADS_MOST][COPIES];
static int idle_count;
static unsigned char *stacks;

/* The block that runs. */
static const lam_emulated_call *call;
static const void *call_arguments;
static unsigned block_index[3];
static int thread_count, warp_count, alive;
static unsigned runnable_warps;
static int at_barrier, barrier_sum;
static int barrier_result[2];
static unsigned barrier_phase;
static const char *barrier_file;
static int barrier_line;
static fiber *running;
static void *host_stack_pointer;
static bool failed, found;
static lam_emulated_order order;
static uint64_t random_state;

/* Shared memory. */
static unsigned char *arena;
static size_t shared_used, shared_static;
struct limit {
    int dynamic;
    size_t static_bytes;
};
static std::unordered_map<const void *, limit> &limits() {
    static std::unordered_map<const void *, limit> all;
    return all;
}

/* When lanes of a warp last met at a __syncwarp that was not for all of them. */
static uint32_t lanes_met[WARPS_MOST][32][32];
static bool some_lanes_met;

static const char syncwarp[] = "__syncwarp";

const char *lam_emulated_work;

/* Saves the callee's registers of the System V convention on the stack, and goes on where `load` was saved. It returns
 * with `ret`, as it was called: fibers wait at the same place mostly, so the processor foresees that and the returns after it. */
extern "C" void lam_emulated_switch(void **save, void *load);
asm(R"(
.text
.p2align 4
.globl lam_emulated_switch
.hidden lam_emulated_switch
.type lam_emulated_switch, @function
lam_emulated_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size lam_emulated_switch, .-lam_emulated_switch
)");

/* ---- findings ---- */

static void describe(char *text, size_t bytes, int t) {
    snprintf(text, bytes, "thread (%u,%u,%u) of block (%u,%u,%u)", threads[t].index[0], threads[t].index[1],
             threads[t].index[2], block_index[0], block_index[1], block_index[2]);
}

/* " at file:line" of the access that is being checked, where addr2line can tell. */
static void find_line(char *text, size_t bytes) {
    Dl_info in;
    if (!lam_now.code || !dladdr(lam_now.code, &in) || !in.dli_fname) return;
    char command[600], line[400] = "";
    ptrdiff_t offset = static_cast<char *>(lam_now.code) - static_cast<char *>(in.dli_fbase) - 1;
    snprintf(command, sizeof command, "addr2line -e '%s' 0x%tx 2>/dev/null", in.dli_fname, offset);
    FILE *answer = popen(command, "r");
    if (answer) {
        if (!fgets(line, sizeof line, answer)) *line = 0;
        pclose(answer);
    }
    line[strcspn(line, "\n")] = 0;
    if (*line && *line != '?') snprintf(text, bytes, " at %s", line);
    lam_now.code = nullptr;
}

static void print_finding(const char *format, va_list arguments) {
    char text[1024], where[128] = "", line[400] = "";
    vsnprintf(text, sizeof text, format, arguments);
    if (lam_emulated_on_fiber()) {
        describe(where, sizeof where, lam_now.thread);
        find_line(line, sizeof line);
    }
    fprintf(stderr, "cuda emulation: %s: %s%s%s%s\n", lam_emulated_work ? lam_emulated_work : "host", text,
            *where ? ", " : "", where, line);
    if (!lam_emulated_setting().keep_going) abort();
    failed = found = true;
}

void lam_emulated_report(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    print_finding(format, arguments);
    va_end(arguments);
    if (lam_emulated_on_fiber()) lam_emulated_abandon();
}

bool lam_emulated_has_finding(void) { return found; }
bool lam_emulated_take_finding(void) {
    bool was = found;
    found = false;
    return was;
}

static bool in_stacks(uintptr_t address) { return address - lam_now.stacks < lam_now.stacks_bytes; }
bool lam_emulated_on_fiber(void) { return lam_emulated_is_in_kernel(); }
bool lam_emulated_fault_on_fiber(const void *context) {
    const ucontext_t *at = static_cast<const ucontext_t *>(context);
    return in_stacks(static_cast<uintptr_t>(at->uc_mcontext.gregs[REG_RSP]));
}
bool lam_emulated_in_stack_guard(const void *address) {
    uintptr_t a = reinterpret_cast<uintptr_t>(address);
    return in_stacks(a) &&
           (a - reinterpret_cast<uintptr_t>(stacks)) % (STACK_BYTES + GUARD_BYTES) < GUARD_BYTES;
}
void lam_emulated_describe_thread(char *text, size_t bytes) { describe(text, bytes, lam_now.thread); }
void lam_emulated_describe_thread_of(char *text, size_t bytes, int thread) {
    snprintf(text, bytes, "thread (%u,%u,%u)", threads[thread].index[0], threads[thread].index[1],
             threads[thread].index[2]);
}

/* ---- the turns ---- */

static int pick_bit(unsigned mask) {
    switch (order) {
    case LAM_FORWARD: return __builtin_ctz(mask);
    case LAM_REVERSED: return 31 - __builtin_clz(mask);
    default: {
        unsigned by = lam_emulated_random(&random_state) & 31u,
                 turned = mask >> by | mask << ((32 - by) & 31u);
        return static_cast<int>((static_cast<unsigned>(__builtin_ctz(turned)) + by) & 31u);
    }
    }
}

/* The next thread that may run: of the same warp while there is one, unless turns are shuffled. -1: none. */
static int pick(void) {
    int w = lam_now.thread >> 5;
    if (!warps[w].runnable || order == LAM_SHUFFLED) {
        if (!runnable_warps) return -1;
        w = pick_bit(runnable_warps);
    }
    return w * 32 + pick_bit(warps[w].runnable);
}

static void set_runnable(int w, unsigned lanes) {
    warps[w].runnable |= lanes;
    if (warps[w].runnable) runnable_warps |= 1u << w;
}

static void set_waiting(int t) {
    warp &w = warps[t >> 5];
    w.runnable &= ~(1u << (t & 31));
    if (!w.runnable) runnable_warps &= ~(1u << (t >> 5));
}

static void switch_to(fiber *next) {
    fiber *from = running;
    running = next;
    lam_now.stack = next->stack;
    lam_emulated_switch(&from->stack_pointer, next->stack_pointer);
}

[[noreturn]] static void to_host(void) {
    void *unused;
    lam_emulated_switch(&unused, host_stack_pointer);
    __builtin_unreachable();
}

/* Nobody can run: says who waits for what. */
static void explain_standstill(void) {
    char text[160];
    int waits = -1, elsewhere = -1;
    for (int t = 0; t < thread_count; t++) {
        if (!threads[t].waits_at) continue;
        bool barrier = strcmp(threads[t].waits_at, "__syncthreads") == 0;
        if (barrier && waits < 0) waits = t;
        if (!barrier && elsewhere < 0) elsewhere = t;
    }
    if (elsewhere >= 0) {
        const thread &other = threads[elsewhere];
        group *g = other.held;
        describe(text, sizeof text, elsewhere);
        unsigned missing = g->mask & ~g->arrived;
        int absent = (elsewhere & ~31) + __builtin_ctz(missing ? missing : 1u);
        const char *state = warps[elsewhere >> 5].ended >> (absent & 31) & 1u ? "has ended"
                            : threads[absent].waits_at                        ? threads[absent].waits_at
                                                                              : "does not come";
        lam_emulated_report(
            "%s: not met by all lanes of mask 0x%08x: lanes 0x%08x are missing (lane %d: %s), %s waits at %s:%d",
            other.waits_at, g->mask, missing, absent & 31, state, text, other.file, other.line);
    } else if (waits >= 0) {
        describe(text, sizeof text, waits);
        lam_emulated_report("barrier not met by all threads: %d of %d came, %s waits at %s:%d", at_barrier,
                            alive, text, threads[waits].file, threads[waits].line);
    }
}

static fiber *fiber_for(int t) {
    if (threads[t].on) return threads[t].on;
    return threads[t].on = idle[--idle_count];
}

/* The current thread waits until it is made runnable. */
static void wait_turn(const char *at, const char *file, int line) {
    thread &me = threads[lam_now.thread];
    int mine = lam_now.thread;
    me.waits_at = at, me.file = file, me.line = line;
    set_waiting(mine);
    int next = pick();
    if (next < 0) {
        explain_standstill();
        lam_emulated_abandon();
    }
    lam_now.thread = next;
    switch_to(fiber_for(next));
    lam_now.thread = mine;
    me.waits_at = nullptr;
}

static void release_group(int t) {
    thread &me = threads[t];
    if (!me.held) return;
    group *g = me.held;
    me.held = nullptr;
    g->reading &= ~(1u << (t & 31));
    if (!g->reading) {
        warp &w = warps[t >> 5];
        g->next = w.free;
        w.free = g;
    }
}

static void open_barrier(void) {
    barrier_result[barrier_phase & 1u] = barrier_sum;
    barrier_phase++;
    barrier_sum = at_barrier = 0;
    lam_now.barrier_time = ++lam_now.time;
    for (int w = 0; w < warp_count; w++) set_runnable(w, warps[w].present & ~warps[w].ended);
}

/* __syncwarp orders the memory accesses of its lanes. */
static void order_lanes(int w, unsigned mask) {
    lam_now.time++;
    if (!(warps[w].present & ~mask)) {
        lam_now.warp_time[w] = lam_now.time;
        return;
    }
    if (!some_lanes_met) memset(lanes_met, 0, sizeof lanes_met);
    some_lanes_met = true;
    for (unsigned i = 0; i < 32; i++)
        for (unsigned j = 0; j < 32; j++)
            if (mask >> i & mask >> j & 1u) lanes_met[w][i][j] = lam_now.time;
}

bool lam_emulated_warp_orders(int lane, uint32_t time) {
    int w = lam_now.thread >> 5;
    return lam_now.warp_time[w] > time || (some_lanes_met && lanes_met[w][lane][lam_now.thread & 31] > time);
}

static void finish_group(int w, group *g) {
    if (g->what == syncwarp) order_lanes(w, g->mask);
    for (group **link = &warps[w].open; *link; link = &(*link)->next)
        if (*link == g) {
            *link = g->next;
            break;
        }
    set_runnable(w, g->arrived);
}

static void thread_ends(int t) {
    warp &w = warps[t >> 5];
    if (threads[t].copies) lam_emulated_copies_wait(-1);
    release_group(t);
    set_waiting(t);
    w.ended |= 1u << (t & 31);
    alive--;
    for (group *g = w.open, *next; g; g = next) {
        next = g->next;
        if (g->what == syncwarp && !(g->mask & ~g->arrived & ~w.ended)) finish_group(t >> 5, g);
    }
    if (alive && at_barrier == alive) open_barrier();
}

static void fiber_main(void) {
    for (;;) {
        fiber *self = running;
        int t = lam_now.thread;
        threads[t].on = self;
        call->run(call->function, call_arguments);
        lam_now.thread = t;
        thread_ends(t);
        int next = pick();
        if (next < 0) {
            if (alive) explain_standstill();
            idle[idle_count++] = self;
            if (alive) lam_emulated_abandon();
            lam_emulated_switch(&self->stack_pointer, host_stack_pointer);
            continue;
        }
        lam_now.thread = next;
        if (threads[next].on) {
            idle[idle_count++] = self;
            switch_to(threads[next].on);
        }
    }
}

/* Every fiber at its beginning. The tops of the stacks are apart by a few lines, or they would share the same lines of
 * the cache. */
static void reset_fibers(void) {
    idle_count = 0;
    for (int i = THREADS_MOST; i-- > 0;) {
        fiber &f = fibers[i];
        f.stack = stacks + static_cast<size_t>(i) * (STACK_BYTES + GUARD_BYTES) + GUARD_BYTES;
        unsigned char *top = f.stack + STACK_BYTES - (i * 5 % 32) * 128;
        void **frame = reinterpret_cast<void **>(top) - 1; /* a return address would make it 16 bytes apart */
        *frame = nullptr;
        *--frame = reinterpret_cast<void *>(fiber_main);
        frame -= 6;
        memset(frame, 0, 6 * sizeof(void *));
        f.stack_pointer = frame;
        idle[idle_count++] = &f;
    }
}

void lam_emulated_abandon(void) {
    failed = true;
    to_host();
}

static void start(void) {
    size_t bytes = static_cast<size_t>(THREADS_MOST) * (STACK_BYTES + GUARD_BYTES);
    void *memory =
        mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    arena = static_cast<unsigned char *>(mmap(nullptr, LAM_SHARED_ARENA, PROT_READ | PROT_WRITE,
                                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    if (memory == MAP_FAILED || arena == MAP_FAILED) {
        fprintf(stderr, "cuda emulation: no memory for stacks\n");
        abort();
    }
    stacks = static_cast<unsigned char *>(memory);
    lam_now.stacks = reinterpret_cast<uintptr_t>(memory);
    lam_now.stacks_bytes = bytes;
    for (int i = 0; i < THREADS_MOST; i++)
        mprotect(stacks + static_cast<size_t>(i) * (STACK_BYTES + GUARD_BYTES), GUARD_BYTES, PROT_NONE);
    order = lam_emulated_setting().order;
    random_state = lam_emulated_setting().seed;
    reset_fibers();
}

static void run_block(void) {
    lam_now.block++;
    lam_now.time = lam_now.barrier_time = 1;
    memset(lam_now.warp_time, 0, sizeof lam_now.warp_time);
    some_lanes_met = false;
    lam_now.array_count = 0;
    shared_used = shared_static = 0;
    if (call->shared_bytes) {
        lam_now.arrays[lam_now.array_count++] = {arena, arena + call->shared_bytes, "of dynamic size"};
        memset(arena, 0xff, call->shared_bytes);
        shared_used = (call->shared_bytes + 127) / 128 * 128 + 128;
    }
    alive = thread_count;
    at_barrier = barrier_sum = 0;
    runnable_warps = 0;
    for (int w = 0; w < warp_count; w++) {
        int lanes = thread_count - w * 32;
        warp &each = warps[w];
        each.present = lanes >= 32 ? 0xffffffffu : (1u << lanes) - 1u;
        each.ended = each.runnable = 0;
        each.open = nullptr;
        each.free = nullptr;
        each.fresh = 0;
        set_runnable(w, each.present);
    }
    for (int t = 0; t < thread_count; t++) {
        thread &each = threads[t];
        each.on = nullptr;
        each.held = nullptr;
        each.waits_at = nullptr;
        each.copies = each.commits = 0;
    }
    lam_now.thread = 0;
    lam_now.thread = pick();
    running = fiber_for(lam_now.thread);
    lam_now.stack = running->stack;
    lam_emulated_switch(&host_stack_pointer, running->stack_pointer);
    if (failed) reset_fibers();
}

/* Signals need a stack of their own: that of a fiber is small, and may be what has run out. */
static void set_signal_stack(void) {
    static thread_local bool done;
    if (done) return;
    done = true;
    stack_t stack = {};
    stack.ss_size = 64 << 10;
    stack.ss_sp = malloc(stack.ss_size);
    sigaltstack(&stack, nullptr);
}

bool lam_emulated_run(const lam_emulated_call *launch, const void *arguments) {
    if (!stacks) start();
    set_signal_stack();
    call = launch;
    call_arguments = arguments;
    lam_now.arguments = reinterpret_cast<uintptr_t>(arguments);
    lam_now.arena = arena;
    lam_now.is_library = false;
    failed = false;
    thread_count = static_cast<int>(call->block[0] * call->block[1] * call->block[2]);
    warp_count = (thread_count + 31) / 32;
    for (int t = 0; t < thread_count; t++) {
        int x = static_cast<int>(call->block[0]), y = static_cast<int>(call->block[1]);
        threads[t].index[0] = static_cast<unsigned>(t % x);
        threads[t].index[1] = static_cast<unsigned>(t / x % y);
        threads[t].index[2] = static_cast<unsigned>(t / x / y);
    }
    const char *before = lam_emulated_work;
    lam_emulated_work = call->name;
    int64_t blocks = call->grid[0] * call->grid[1] * call->grid[2];
    /* Shuffled: steps that have no factor in common with the count visit every block once. */
    int64_t step = 1, first = 0;
    if (order == LAM_SHUFFLED) {
        auto common = [](int64_t a, int64_t b) {
            while (b) {
                int64_t rest = a % b;
                a = b, b = rest;
            }
            return a;
        };
        first = lam_emulated_random(&random_state) % blocks;
        step = lam_emulated_random(&random_state) % blocks + 1;
        while (common(step, blocks) != 1) step++;
    }
    for (int64_t i = 0; i < blocks && !failed; i++) {
        int64_t b = order == LAM_REVERSED ? blocks - 1 - i : (first + i * step) % blocks;
        block_index[0] = static_cast<unsigned>(b % call->grid[0]);
        block_index[1] = static_cast<unsigned>(b / call->grid[0] % call->grid[1]);
        block_index[2] = static_cast<unsigned>(b / call->grid[0] / call->grid[1]);
        run_block();
    }
    lam_emulated_work = before;
    return !failed;
}

/* ---- what kernels call ---- */

unsigned lam_emulated_thread_index(int axis) { return threads[lam_now.thread].index[axis]; }
unsigned lam_emulated_block_index(int axis) { return block_index[axis]; }
unsigned lam_emulated_block_size(int axis) { return static_cast<unsigned>(call->block[axis]); }
unsigned lam_emulated_grid_size(int axis) { return static_cast<unsigned>(call->grid[axis]); }
unsigned lam_emulated_lane(void) { return static_cast<unsigned>(lam_now.thread) & 31u; }

static int barrier(int value, const char *file, int line) {
    release_group(lam_now.thread);
    if (!at_barrier) {
        barrier_file = file, barrier_line = line;
    } else if (barrier_line != line || (barrier_file != file && strcmp(barrier_file, file) != 0)) {
        lam_emulated_report("barrier not met by all threads: some wait at %s:%d, others at %s:%d",
                            barrier_file, barrier_line, file, line);
    }
    at_barrier++;
    barrier_sum += value;
    unsigned phase = barrier_phase;
    if (at_barrier == alive)
        open_barrier();
    else
        wait_turn("__syncthreads", file, line);
    return barrier_result[phase & 1u];
}

void __syncthreads(const char *file, int line) { barrier(0, file, line); }
int __syncthreads_count(int predicate, const char *file, int line) {
    return barrier(predicate != 0, file, line);
}
int __syncthreads_and(int predicate, const char *file, int line) {
    return barrier(predicate == 0, file, line) == 0;
}
int __syncthreads_or(int predicate, const char *file, int line) {
    return barrier(predicate != 0, file, line) != 0;
}

const void *lam_emulated_exchange(unsigned mask, const void *mine, size_t bytes, const char *what,
                                  const char *file, int line) {
    int t = lam_now.thread;
    unsigned bit = 1u << (t & 31);
    warp &w = warps[t >> 5];
    bool forgives = what == syncwarp; /* threads that have ended need not come to it */
    release_group(t);
    if (bytes > EXCHANGE_BYTES) lam_emulated_report("%s: %zu bytes a lane are too many", what, bytes);
    if (!(mask & bit))
        lam_emulated_report("%s: mask 0x%08x does not name the lane itself, %s:%d", what, mask, file, line);
    if (!forgives && mask & (w.ended | ~w.present))
        lam_emulated_report(
            "%s: not met by all lanes of mask 0x%08x: lanes 0x%08x have ended or are not there, %s:%d", what,
            mask, mask & (w.ended | ~w.present), file, line);
    group *g = w.open;
    for (; g; g = g->next) {
        if (!(g->mask & mask)) continue;
        if (g->mask != mask)
            lam_emulated_report("%s: lanes give different masks, 0x%08x at %s:%d and 0x%08x at %s:%d", what,
                                g->mask, g->file, g->line, mask, file, line);
        if (g->bytes != bytes || (g->what != what && strcmp(g->what, what) != 0))
            lam_emulated_report("%s at %s:%d: other lanes of mask 0x%08x are at %s, %s:%d", what, file, line,
                                mask, g->what, g->file, g->line);
        break;
    }
    if (!g) {
        g = w.free ? w.free : &w.groups[w.fresh++];
        w.free = w.free ? w.free->next : nullptr;
        g->mask = mask, g->arrived = 0, g->reading = 0, g->what = what, g->bytes = bytes, g->file = file,
        g->line = line;
        g->next = w.open;
        w.open = g;
    }
    memcpy(g->given + static_cast<size_t>(t & 31) * bytes, mine, bytes);
    g->arrived |= bit;
    g->reading |= bit;
    threads[t].held = g;
    unsigned expected = forgives ? mask & w.present & ~w.ended : mask;
    if (!(expected & ~g->arrived))
        finish_group(t >> 5, g);
    else
        wait_turn(what, file, line);
    return g->given;
}

void __syncwarp(unsigned mask, const char *file, int line) {
    char nothing = 0;
    lam_emulated_exchange(mask, &nothing, 0, syncwarp, file, line);
}

unsigned __ballot_sync(unsigned mask, int predicate, const char *file, int line) {
    unsigned char mine = predicate != 0;
    const unsigned char *all =
        static_cast<const unsigned char *>(lam_emulated_exchange(mask, &mine, 1, "vote", file, line));
    unsigned result = 0;
    for (unsigned lane = 0; lane < 32; lane++)
        if (mask >> lane & 1u && all[lane]) result |= 1u << lane;
    return result;
}

uint64_t lam_emulated_shuffle(unsigned mask, uint64_t value, unsigned bytes, int kind, unsigned other,
                              int width, const char *file, int line) {
    static const char *const names[] = {"__shfl_sync", "__shfl_up_sync", "__shfl_down_sync",
                                        "__shfl_xor_sync"};
    (void)bytes;
    if (width < 1 || width > 32 || (width & (width - 1)))
        lam_emulated_report("%s: width %d is not a power of two up to 32, %s:%d", names[kind], width, file,
                            line);
    const uint64_t *all = static_cast<const uint64_t *>(
        lam_emulated_exchange(mask, &value, sizeof value, names[kind], file, line));
    unsigned lane = lam_emulated_lane(), w = static_cast<unsigned>(width), first = lane & ~(w - 1u),
             source = lane;
    switch (kind) {
    case 0: source = first + (other & (w - 1u)); break;
    case 1: source = lane - first >= other ? lane - other : lane; break;
    case 2: source = other < w && lane + other < first + w ? lane + other : lane; break;
    default: source = (lane ^ other) < first + w ? lane ^ other : lane; break;
    }
    if (source > 31 || !(mask >> source & 1u))
        lam_emulated_report("%s: reads lane %u, which mask 0x%08x does not name, %s:%d", names[kind], source,
                            mask, file, line);
    return all[source];
}

void *lam_emulated_shared(lam_emulated_shared_site *site, const char *name) {
    if (site->block == lam_now.block) return site->address;
    size_t room = (site->bytes + 127) / 128 * 128 + 128; /* 128 bytes of guard between arrays */
    shared_static += site->bytes;
    limit &known = limits()[call->function];
    if (shared_static > known.static_bytes) known.static_bytes = shared_static;
    if (shared_static > LAM_SHARED_DEFAULT)
        lam_emulated_report("%zu bytes of static shared memory with %s, more than 48 KiB", shared_static,
                            name);
    if (shared_static + call->shared_bytes > LAM_SHARED_MOST ||
        (!known.dynamic && shared_static + call->shared_bytes > LAM_SHARED_DEFAULT))
        lam_emulated_report("too much shared memory: %zu bytes static with %s and %zu dynamic", shared_static,
                            name, call->shared_bytes);
    site->block = lam_now.block;
    site->address = arena + shared_used;
    memset(site->address, 0xff, room);
    if (lam_now.array_count == LAM_ARRAYS_MOST)
        lam_emulated_report("more than %d shared arrays", LAM_ARRAYS_MOST);
    lam_now.arrays[lam_now.array_count++] = {arena + shared_used, arena + shared_used + site->bytes, name};
    shared_used += room;
    return site->address;
}

void *lam_emulated_dynamic_shared(void) { return arena; }

void lam_emulated_set_shared_limit(const void *function, int bytes) { limits()[function].dynamic = bytes; }
int lam_emulated_shared_limit(const void *function) { return limits()[function].dynamic; }
size_t lam_emulated_static_shared(const void *function) { return limits()[function].static_bytes; }

void __threadfence(void) {}
void __threadfence_block(void) {}
void __threadfence_system(void) {}
void __trap(void) { lam_emulated_report("trap"); }

/* ---- cp.async ---- */

void lam_emulated_copy_later(void *target, const void *source, size_t bytes, size_t source_bytes) {
    thread &me = threads[lam_now.thread];
    if (reinterpret_cast<uintptr_t>(target) % bytes || reinterpret_cast<uintptr_t>(source) % bytes)
        lam_emulated_report("misaligned asynchronous copy of %zu bytes from %p to %p", bytes, source, target);
    if (me.copies == COPIES) lam_emulated_report("more than %d asynchronous copies under way", COPIES);
    lam_emulated_copy_begins(target, bytes, source, source_bytes);
    memset(target, 0xff, bytes);
    copies[lam_now.thread][me.copies++] = {target, source, bytes, source_bytes, me.commits};
}

void lam_emulated_copies_commit(void) { threads[lam_now.thread].commits++; }

void lam_emulated_copies_wait(int groups) {
    thread &me = threads[lam_now.thread];
    later *mine = copies[lam_now.thread];
    unsigned kept = 0;
    for (unsigned i = 0; i < me.copies; i++) {
        const later each = mine[i];
        if (groups >= 0 && each.committed + static_cast<unsigned>(groups) >= me.commits) {
            mine[kept++] = each;
            continue;
        }
        lam_emulated_copy_arrives(each.target, each.bytes);
        memcpy(each.target, each.source, each.source_bytes);
        memset(static_cast<unsigned char *>(each.target) + each.source_bytes, 0,
               each.bytes - each.source_bytes);
    }
    me.copies = kept;
}
