/* Checks of every access of a kernel. The compiler calls what stands here: sources compiled with -fsanitize=thread call
 * __tsan_read4(address) and its kin before each access to memory, with -fsanitize=alignment,bounds and others a handler for
 * what is wrong already; neither library of these is linked. Found are, for each byte:
 *
 *     addresses that belong to no allocation, shared array or variable of the thread
 *     shared memory that is read before it was written in the block; device memory that was never written, where
 *     LAMELLA_EMULATION_UNINITIALISED=1 asks for it
 *     races in a block: two threads, one of them writes, and no barrier in between (for threads of one warp __syncwarp is
 *     enough; shuffles and votes do not order memory)
 *     races between blocks of a launch: one writes, and not both are atomic
 *     races between streams: one piece of work writes, and no event or synchronisation orders the two
 *
 * For the last three each byte has a cell: who wrote it last, and two of those that have read it since, so that some races
 * of three threads and more are missed, but none of two. A kernel whose last block reads what others have written behind
 * __threadfence and an atomic is reported: nothing here follows that order. */
#include "check.h"
#include "order.h"
#include "runtime.h"
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

lam_emulated_state lam_now;

/* ---- cells ---- */

/* A time of the block, a thread of it, and two flags; 0: nobody. */
typedef uint32_t stamp;
static const stamp FLAG_1 = 1, FLAG_2 = 2, NOBODY = FLAG_1 | FLAG_2;
static stamp make_stamp(uint32_t time, int thread) {
    return (time < 0xfffff ? time : 0xfffff) << 12 | static_cast<uint32_t>(thread) << 2;
}
static int thread_of(stamp s) { return static_cast<int>(s >> 2 & 1023u); }
static uint32_t time_of(stamp s) { return s >> 12; }

struct cell {
    uint32_t block;      /* whose access it was; the highest bit: written since cudaMalloc */
    stamp writer;        /* FLAG_1: atomic; FLAG_2: an asynchronous copy that has not arrived */
    stamp reader, other; /* reader FLAG_1: read, FLAG_2: written by an earlier block of the launch;
                            other FLAG_1: written by one, and not by an atomic */
    uint32_t unordered;  /* a block of earlier work of another stream that has read it, 0 for none */
};
static const uint32_t WRITTEN = 0x80000000u;
/* Four bytes that are read and written together have one cell; others are split, and have one each. */
static const uint32_t SPLIT = 0x40000000u;
struct shadow {
    const unsigned char *first;
    cell *words, (*bytes)[4];
};

static bool is_on;
static unsigned char *heap_first;
static size_t heap_size;
static shadow of_heap, of_shared;
static uint32_t *heap_granules; /* index of the allocation of each 256 bytes, 0 for none */
static std::vector<lam_allocation> known = {{0, 0, 0}};
static bool asks_for_written;

static void *reserve(size_t bytes) {
    void *memory =
        mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
        fprintf(stderr,
                "cuda emulation: no addresses for %zu bytes of checks; lower LAMELLA_EMULATION_MEMORY\n",
                bytes);
        abort();
    }
    return memory;
}

static shadow make_shadow(const void *first, size_t bytes) {
    return {static_cast<const unsigned char *>(first), static_cast<cell *>(reserve(bytes / 4 * sizeof(cell))),
            static_cast<cell(*)[4]>(reserve(bytes * sizeof(cell)))};
}

void lam_emulated_heap_made(void *first, size_t bytes) {
    heap_first = static_cast<unsigned char *>(first);
    heap_size = bytes;
    asks_for_written = lam_emulated_setting().uninitialised;
    if (!is_on) return;
    of_heap = make_shadow(first, bytes);
    heap_granules = static_cast<uint32_t *>(reserve(bytes / 256 * sizeof(uint32_t)));
}

void lam_emulated_memory_allocated(void *address, size_t bytes) {
    if (!of_heap.words) return;
    known.push_back({reinterpret_cast<uintptr_t>(address), bytes, 0});
    size_t first = static_cast<size_t>(static_cast<unsigned char *>(address) - heap_first) / 256;
    for (size_t i = 0; i < (bytes + 255) / 256; i++)
        heap_granules[first + i] = static_cast<uint32_t>(known.size() - 1);
    memset(of_heap.words + first * 64, 0, (bytes + 3) / 4 * sizeof(cell));
}

void lam_emulated_memory_freed(void *address, size_t bytes) {
    if (!of_heap.words) return;
    size_t first = static_cast<size_t>(static_cast<unsigned char *>(address) - heap_first) / 256;
    memset(heap_granules + first, 0, (bytes + 255) / 256 * sizeof(uint32_t));
}

/* ---- messages ---- */

static const char *verb(bool write) { return write ? "writes" : "reads"; }

static void describe(char *text, size_t bytes, const void *address) {
    const unsigned char *a = static_cast<const unsigned char *>(address);
    const lam_emulated_array *in = nullptr;
    for (int i = 0; i < lam_now.array_count; i++)
        if (a >= lam_now.arrays[i].from && a < lam_now.arrays[i].to) in = &lam_now.arrays[i];
    if (in)
        snprintf(text, bytes, "byte %td of shared array %s", a - in->from, in->name);
    else
        lam_device_describe(text, bytes, address);
}

static void report_thread_race(const void *address, bool write, stamp earlier, bool earlier_wrote) {
    char where[200], other[128];
    describe(where, sizeof where, address);
    lam_emulated_describe_thread_of(other, sizeof other, thread_of(earlier));
    lam_emulated_report("race: %s %p, %s, which %s %s with no barrier in between", verb(write), address,
                        where, other, earlier_wrote ? "writes" : "reads");
}

static void report_block_race(const void *address, bool write, bool earlier_wrote) {
    char where[200];
    describe(where, sizeof where, address);
    lam_emulated_report("race between blocks: %s %p, %s, which another block %s", verb(write), address, where,
                        earlier_wrote ? "writes" : "reads");
}

static void report_stream_race(const void *address, bool write, uint32_t block, bool earlier_wrote) {
    char where[200];
    describe(where, sizeof where, address);
    lam_emulated_report("race between streams: %s %p, %s, which %s %s with no event in between", verb(write),
                        address, where, lam_order_name(block), earlier_wrote ? "writes" : "reads");
}

/* ---- the rules ---- */

/* Whether a barrier lies between the access and now, or both are the same thread's. */
static bool is_ordered(stamp earlier) {
    int thread = thread_of(earlier);
    if (thread == lam_now.thread || lam_now.barrier_time > time_of(earlier)) return true;
    return thread >> 5 == lam_now.thread >> 5 && lam_emulated_warp_orders(thread & 31, time_of(earlier));
}

/* The cell's block is not the one that runs. */
static void turn_over(cell *c, const void *address, bool write) {
    uint32_t block = c->block & ~WRITTEN;
    stamp kept = 0, kept_other = 0;
    if (block >= lam_now.first_block) {
        if ((c->reader | c->other) & ~NOBODY || c->reader & FLAG_1) kept |= FLAG_1;
        if (c->writer || c->reader & FLAG_2) kept |= FLAG_2;
        if ((c->writer && !(c->writer & FLAG_1)) || c->other & FLAG_1) kept_other |= FLAG_1;
    } else if (block > lam_now.ordered_block && !lam_order_known(block)) {
        if (c->writer || write) report_stream_race(address, write, block, c->writer != 0);
        c->unordered = block;
    }
    c->block = lam_now.block | (c->block & WRITTEN);
    c->writer = 0;
    c->reader = kept;
    c->other = kept_other;
}

enum access_kind { READ, WRITE, ATOMIC, ARRIVES_LATER };

template <bool shared> static void check_cell(cell *c, const void *address, access_kind kind) {
    bool write = kind != READ;
    if ((c->block & ~WRITTEN) != lam_now.block) {
        if (shared)
            *c = {lam_now.block, 0, 0, 0, 0};
        else
            turn_over(c, address, write);
    }
    if (!write && !lam_now.is_library) {
        if (shared && !c->writer) {
            char where[200];
            describe(where, sizeof where, address);
            lam_emulated_report("reads shared memory that is not initialised: %s", where);
        }
        if (!shared && asks_for_written && !(c->block & WRITTEN)) {
            char where[200];
            describe(where, sizeof where, address);
            lam_emulated_report("reads device memory that was never written: %p, %s", address, where);
        }
        if (c->writer & FLAG_2) {
            char where[200];
            describe(where, sizeof where, address);
            lam_emulated_report("reads what an asynchronous copy has not brought yet: %s", where);
        }
    }
    if (!shared && !lam_now.is_library) {
        bool read_before = c->reader & FLAG_1, written_before = c->reader & FLAG_2,
             plainly = c->other & FLAG_1;
        if (written_before && (kind != ATOMIC || plainly)) report_block_race(address, write, true);
        if (write && read_before) report_block_race(address, write, false);
    }
    if (!shared && write && c->unordered) {
        if (!lam_order_known(c->unordered)) report_stream_race(address, true, c->unordered, false);
        c->unordered = 0;
    }
    if (c->writer && !(kind == ATOMIC && c->writer & FLAG_1) && !is_ordered(c->writer))
        report_thread_race(address, write, c->writer, true);
    stamp mine = make_stamp(lam_now.time, lam_now.thread);
    if (write) {
        if (c->reader & ~NOBODY && !is_ordered(c->reader))
            report_thread_race(address, true, c->reader, false);
        if (c->other & ~NOBODY && !is_ordered(c->other)) report_thread_race(address, true, c->other, false);
        c->writer = mine | (kind == ATOMIC ? FLAG_1 : 0) | (kind == ARRIVES_LATER ? FLAG_2 : 0);
        c->reader &= NOBODY;
        c->other &= NOBODY;
        c->block |= WRITTEN;
        return;
    }
    stamp last = c->reader & ~NOBODY;
    if (last && thread_of(last) != lam_now.thread) {
        /* The one that is dropped should be of the same warp as the one that stays. */
        stamp second = c->other & ~NOBODY;
        if (!second || thread_of(second) == lam_now.thread || thread_of(last) >> 5 != lam_now.thread >> 5)
            c->other = last | (c->other & NOBODY);
    }
    c->reader = mine | (c->reader & NOBODY);
}

static bool is_same(const cell &a, const cell &b) { return memcmp(&a, &b, sizeof a) == 0; }

/* Neighbours are mostly in the same state, which is judged once. */
template <bool shared> struct judge {
    access_kind kind;
    bool some;
    cell before, after;

    void operator()(cell *c, const unsigned char *address) {
        if (!some || !is_same(*c, before)) {
            before = after = *c;
            check_cell<shared>(&after, address, kind);
            some = true;
        }
        *c = after;
    }
};

template <bool shared>
static void check_cells(const shadow &of, const unsigned char *address, size_t bytes, access_kind kind) {
    judge<shared> check_one = {kind, false, {}, {}};
    for (size_t n; bytes; bytes -= n, address += n) {
        size_t offset = static_cast<size_t>(address - of.first), within = offset % 4;
        n = 4 - within < bytes ? 4 - within : bytes;
        cell *word = of.words + offset / 4;
        if (shared && (word->block & ~(WRITTEN | SPLIT)) != lam_now.block)
            *word = {lam_now.block, 0, 0, 0, 0};
        if (n == 4 && !(word->block & SPLIT)) {
            check_one(word, address);
        } else {
            cell *each = of.bytes[offset / 4];
            if (!(word->block & SPLIT)) {
                for (int k = 0; k < 4; k++) each[k] = *word;
                word->block |= SPLIT;
            }
            for (size_t k = 0; k < n; k++) check_one(each + within + k, address + k);
            if (n == 4 && kind != READ && is_same(each[0], each[1]) && is_same(each[0], each[2]) &&
                is_same(each[0], each[3]))
                *word = each[0];
        }
        if (lam_emulated_has_finding()) return;
    }
}

/* ---- addresses ---- */

struct range {
    uintptr_t from, to;
};
static std::vector<range> static_data;
static int add_module(dl_phdr_info *info, size_t, void *) {
    for (int i = 0; i < info->dlpi_phnum; i++)
        if (info->dlpi_phdr[i].p_type == PT_LOAD) {
            uintptr_t from = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
            static_data.push_back({from, from + info->dlpi_phdr[i].p_memsz});
        }
    return 0;
}
static bool is_static(uintptr_t a) {
    static range last;
    if (a >= last.from && a < last.to) return true;
    for (int round = 0; round < 2; round++) {
        for (const range &one : static_data)
            if (a >= one.from && a < one.to) return last = one, true;
        if (round) break;
        static_data.clear();
        dl_iterate_phdr(add_module, nullptr);
    }
    return false;
}

static void report_outside(const void *address, size_t bytes, bool write) {
    char where[200];
    if (lam_is_device(address))
        lam_device_describe(where, sizeof where, address);
    else
        snprintf(where, sizeof where, "which is memory of the host or of another thread");
    lam_emulated_report("out of bounds: %s %zu bytes at %p, %s", verb(write), bytes, address, where);
}

static void check_shared(const unsigned char *address, size_t bytes, access_kind kind) {
    for (int i = 0; i < lam_now.array_count; i++) {
        const lam_emulated_array &one = lam_now.arrays[i];
        if (address < one.from || address + bytes > one.to) continue;
        if (!of_shared.words) of_shared = make_shadow(lam_now.arena, LAM_SHARED_ARENA);
        check_cells<true>(of_shared, address, bytes, kind);
        return;
    }
    const lam_emulated_array *near = nullptr;
    for (int i = 0; i < lam_now.array_count; i++)
        if (lam_now.arrays[i].from <= address) near = &lam_now.arrays[i];
    if (near)
        lam_emulated_report(
            "out of bounds: %s %zu bytes, %td bytes after the start of shared array %s of %td bytes",
            verb(kind != READ), bytes, address - near->from, near->name, near->to - near->from);
    else
        lam_emulated_report("out of bounds: %s %zu bytes of shared memory that no array has",
                            verb(kind != READ), bytes);
}

static void check_device(const unsigned char *address, size_t bytes, access_kind kind) {
    const lam_allocation &in = known[heap_granules[static_cast<size_t>(address - heap_first) / 256]];
    uintptr_t a = reinterpret_cast<uintptr_t>(address);
    if (a < in.address || a + bytes > in.address + in.bytes) {
        report_outside(address, bytes, kind != READ);
        return;
    }
    check_cells<false>(of_heap, address, bytes, kind);
}

static void check(const void *memory, size_t bytes, access_kind kind) {
    const unsigned char *address = static_cast<const unsigned char *>(memory);
    if (static_cast<size_t>(address - lam_now.stack) < LAM_STACK_BYTES) return;
    if (static_cast<size_t>(address - heap_first) < heap_size) return check_device(address, bytes, kind);
    if (static_cast<size_t>(address - lam_now.arena) < LAM_SHARED_ARENA)
        return check_shared(address, bytes, kind);
    uintptr_t a = reinterpret_cast<uintptr_t>(memory);
    if (a - lam_now.arguments < LAM_EMULATED_ARGUMENT_BYTES || is_static(a) || lam_pinned_find(memory))
        return;
    report_outside(memory, bytes, kind != READ);
}

/* ---- who asks ---- */

static bool is_misaligned(const void *address, size_t bytes) {
    return bytes <= 16 && !(bytes & (bytes - 1)) && reinterpret_cast<uintptr_t>(address) % bytes;
}

void lam_emulated_access(const void *address, size_t bytes, bool write) {
    lam_now.code = __builtin_return_address(0);
    if (is_misaligned(address, bytes))
        lam_emulated_report("misaligned access of %zu bytes at %p", bytes, address);
    if (is_on) check(address, bytes, write ? WRITE : READ);
    lam_now.code = nullptr;
}
void lam_emulated_atomic(const void *address, size_t bytes) {
    if (is_misaligned(address, bytes))
        lam_emulated_report("misaligned atomic of %zu bytes at %p", bytes, address);
    if (is_on) check(address, bytes, ATOMIC);
}
void lam_emulated_copy_begins(const void *target, size_t bytes, const void *source, size_t source_bytes) {
    if (!is_on) return;
    if (source_bytes) check(source, source_bytes, READ);
    check(target, bytes, ARRIVES_LATER);
}
void lam_emulated_copy_arrives(const void *target, size_t bytes) {
    if (is_on) check(target, bytes, WRITE);
}

/* A copy or a library reads or writes a range: as one thread of one block. */
void lam_emulated_memory_used(const void *address, size_t bytes, bool write) {
    if (!is_on || !of_heap.words) return;
    check_cells<false>(of_heap, static_cast<const unsigned char *>(address), bytes, write ? WRITE : READ);
}

bool lam_emulated_is_checked(void) { return is_on; }

/* Where the checked code called from, for the message. */
#define CHECK(address, bytes, kind)                                                                          \
    do {                                                                                                     \
        if (!lam_emulated_is_in_kernel()) return;                                                            \
        lam_now.code = __builtin_return_address(0);                                                          \
        check(address, bytes, kind);                                                                         \
        lam_now.code = nullptr;                                                                              \
    } while (0)

extern "C" {

void __tsan_init(void) { is_on = true; }
void __tsan_func_entry(void *) {}
void __tsan_func_exit(void) {}
void __tsan_read1(void *p) { CHECK(p, 1, READ); }
void __tsan_read2(void *p) { CHECK(p, 2, READ); }
void __tsan_read4(void *p) { CHECK(p, 4, READ); }
void __tsan_read8(void *p) { CHECK(p, 8, READ); }
void __tsan_read16(void *p) { CHECK(p, 16, READ); }
void __tsan_write1(void *p) { CHECK(p, 1, WRITE); }
void __tsan_write2(void *p) { CHECK(p, 2, WRITE); }
void __tsan_write4(void *p) { CHECK(p, 4, WRITE); }
void __tsan_write8(void *p) { CHECK(p, 8, WRITE); }
void __tsan_write16(void *p) { CHECK(p, 16, WRITE); }
void __tsan_unaligned_read2(void *p) { CHECK(p, 2, READ); }
void __tsan_unaligned_read4(void *p) { CHECK(p, 4, READ); }
void __tsan_unaligned_read8(void *p) { CHECK(p, 8, READ); }
void __tsan_unaligned_read16(void *p) { CHECK(p, 16, READ); }
void __tsan_unaligned_write2(void *p) { CHECK(p, 2, WRITE); }
void __tsan_unaligned_write4(void *p) { CHECK(p, 4, WRITE); }
void __tsan_unaligned_write8(void *p) { CHECK(p, 8, WRITE); }
void __tsan_unaligned_write16(void *p) { CHECK(p, 16, WRITE); }
void __tsan_read_range(void *p, unsigned long bytes) { CHECK(p, bytes, READ); }
void __tsan_write_range(void *p, unsigned long bytes) { CHECK(p, bytes, WRITE); }
void __tsan_vptr_update(void *, void *) {}
void __tsan_vptr_read(void *) {}

/* Atomics of the language: those of kernels have announced themselves through lam_emulated_atomic. */
#define ATOMICS(bits)                                                                                        \
    uint##bits##_t __tsan_atomic##bits##_load(const volatile uint##bits##_t *p, int) {                       \
        return __atomic_load_n(p, __ATOMIC_SEQ_CST);                                                         \
    }                                                                                                        \
    void __tsan_atomic##bits##_store(volatile uint##bits##_t *p, uint##bits##_t value, int) {                \
        __atomic_store_n(p, value, __ATOMIC_SEQ_CST);                                                        \
    }                                                                                                        \
    uint##bits##_t __tsan_atomic##bits##_exchange(volatile uint##bits##_t *p, uint##bits##_t value, int) {   \
        return __atomic_exchange_n(p, value, __ATOMIC_SEQ_CST);                                              \
    }                                                                                                        \
    uint##bits##_t __tsan_atomic##bits##_fetch_add(volatile uint##bits##_t *p, uint##bits##_t value, int) {  \
        return __atomic_fetch_add(p, value, __ATOMIC_SEQ_CST);                                               \
    }                                                                                                        \
    uint##bits##_t __tsan_atomic##bits##_fetch_sub(volatile uint##bits##_t *p, uint##bits##_t value, int) {  \
        return __atomic_fetch_sub(p, value, __ATOMIC_SEQ_CST);                                               \
    }                                                                                                        \
    int __tsan_atomic##bits##_compare_exchange_strong(volatile uint##bits##_t *p, uint##bits##_t *expected,  \
                                                      uint##bits##_t value, int, int) {                      \
        return __atomic_compare_exchange_n(p, expected, value, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);   \
    }
ATOMICS(8)
ATOMICS(16)
ATOMICS(32)
ATOMICS(64)

/* ---- -fsanitize=alignment,bounds,shift,...: called where something is wrong ---- */

struct place {
    const char *file;
    uint32_t line, column;
};
struct type_name {
    uint16_t kind, info;
    char name[1];
};
struct wrong_type {
    place at;
    const type_name *type;
    unsigned char log_alignment, kind;
};
struct wrong_index {
    place at;
    const type_name *array, *index;
};

void __ubsan_handle_type_mismatch_v1(wrong_type *data, void *address) {
    lam_emulated_report("misaligned access of %s at %p, which needs %u bytes, %s:%u", data->type->name,
                        address, 1u << data->log_alignment, data->at.file, data->at.line);
}
void __ubsan_handle_out_of_bounds(wrong_index *data, uintptr_t index) {
    lam_emulated_report("out of bounds: index %td of %s, %s:%u", static_cast<ptrdiff_t>(index),
                        data->array->name, data->at.file, data->at.line);
}
#define WRONG(name, text)                                                                                    \
    void __ubsan_handle_##name(place *at) { lam_emulated_report("%s, %s:%u", text, at->file, at->line); }
WRONG(add_overflow, "a sum of integers overflows")
WRONG(sub_overflow, "a difference of integers overflows")
WRONG(mul_overflow, "a product of integers overflows")
WRONG(negate_overflow, "a negated integer overflows")
WRONG(divrem_overflow, "division of integers by zero")
WRONG(shift_out_of_bounds, "a shift by too many bits")
}
