/* How CUDA kernels run on a CPU in the tests: what the sources of model/cuda see instead of the compiler's own language.
 *
 *     threads     fibers: all threads of a block live on one thread of the operating system and take turns at barriers,
 *                 shuffles and votes; blocks run one after another
 *     memory      the device's memory is a range of its own that host code may not touch (runtime.cc); shared memory is
 *                 filled with 0xff bytes (NaN) when a block starts
 *     streams     work waits in its stream and runs when somebody waits for it, in an order that only events and streams
 *                 restrain (runtime.cc)
 *
 * Included by launch.cuh after cuda_runtime.h. Settings, all from the environment:
 *
 *     LAMELLA_EMULATION_ORDER       forward, reversed or shuffled: the turns of threads, warps and blocks [forward]
 *     LAMELLA_EMULATION_STREAMS     eager, lazy, reversed or shuffled: the order of independent work [reversed]
 *     LAMELLA_EMULATION_SEED        of shuffled orders [1]
 *     LAMELLA_EMULATION_SUMS        forward, reversed or truncating: how ptx.cuh's mma adds [forward]
 *     LAMELLA_EMULATION_MEMORY      bytes of device memory [2147483648]
 *     LAMELLA_EMULATION_PINNED      bytes of the host's memory that can be pinned [all]
 *     LAMELLA_EMULATION_KEEP_GOING  1: a finding fails the launch (cudaErrorLaunchFailure) instead of aborting
 *     LAMELLA_EMULATION_UNINITIALISED  1: device memory that was never written must not be read (checked build)
 *     LAMELLA_EMULATION_LACKS       device, driver (too old), any_driver or kernels (for this device): what cannot be used here
 *
 * Whatever is found prints one line, `cuda emulation: KERNEL: what, thread, where`. */
#ifndef LAMELLA_CUDA_EMULATION_H
#define LAMELLA_CUDA_EMULATION_H

#include <cuda_runtime.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <tuple>
#include <type_traits>

/* ---- what the host bodies of ptx.cuh use; only inside a kernel ---- */

/* Every lane that `mask` names gives `bytes` bytes (at most 128), waits for the others, and gets what all 32 lanes gave,
 * one after another (undefined for lanes outside the mask), valid until the thread's next exchange, barrier or vote.
 * `what` names the operation; lanes that meet at different ones, or with different masks, are an error. */
const void *lam_emulated_exchange(unsigned mask, const void *mine, size_t bytes, const char *what,
                                  const char *file = __builtin_FILE(), int line = __builtin_LINE());
/* Lane of the calling thread in its warp: linear thread index modulo 32. */
unsigned lam_emulated_lane(void) __attribute__((const));
/* Says that the calling thread reads or writes memory, where the compiler's own checks cannot see it: bounds, alignment to
 * `bytes` (a power of two up to 16, else no alignment), use before initialisation, races. */
void lam_emulated_access(const void *address, size_t bytes, bool write);
/* 0 forward, 1 reversed, 2 truncating: the order in which an mma adds its products, which is not documented. */
int lam_emulated_sum_order(void);

/* cp.async: `source_bytes` of `bytes` are copied, the rest is zero. The bytes arrive when the thread waits for the group
 * that they belong to, not before; until then the target holds 0xff bytes. */
void lam_emulated_copy_later(void *target, const void *source, size_t bytes, size_t source_bytes);
void lam_emulated_copies_commit(void);
/* Waits until at most `groups` committed groups of the thread are under way; -1: for all copies, committed or not. */
void lam_emulated_copies_wait(int groups);

/* ---- what the stand-ins of libraries use; only on the host ---- */

/* Enqueues run(argument copied at the call) on a stream, or records it when the stream is being captured. `run` may touch
 * device memory; it says so through lam_emulated_range. At most 4096 bytes of argument. */
cudaError_t lam_emulated_enqueue(cudaStream_t stream, const char *what, void (*run)(void *argument),
                                 const void *argument, size_t bytes);
/* Inside such a `run`: the range will be read or written; out of bounds is found. */
void lam_emulated_range(const void *address, size_t bytes, bool write);
/* Prints `cuda emulation: KERNEL: ...` and aborts, or fails the running work when LAMELLA_EMULATION_KEEP_GOING is set. */
void lam_emulated_report(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* ---- the three macros ---- */

struct lam_emulated_shared_site {
    size_t bytes;
    uint64_t block;
    void *address;
};
void *lam_emulated_shared(lam_emulated_shared_site *site, const char *name);
void *lam_emulated_dynamic_shared(void);

/* One array a declaration and block, as `__shared__` has it: the first thread that comes by gets it from the arena. */
#define LAM_SHARED(type, name, dimensions)                                                                   \
    using name##_shared_type = type dimensions;                                                              \
    static lam_emulated_shared_site name##_shared_site = {sizeof(name##_shared_type), 0, nullptr};           \
    name##_shared_type &name =                                                                               \
        *static_cast<name##_shared_type *>(lam_emulated_shared(&name##_shared_site, #name))
#define LAM_DYNAMIC_SHARED(type, name) type *name = static_cast<type *>(lam_emulated_dynamic_shared())

#define LAM_EMULATED_ARGUMENT_BYTES 4096
struct lam_emulated_call {
    const char *name;
    const void *function;
    void (*run)(const void *function, const void *arguments);
    int64_t grid[3], block[3];
    size_t shared_bytes;
    cudaStream_t stream;
};
cudaError_t lam_emulated_launch(const lam_emulated_call *call, const void *arguments, size_t bytes);
void lam_cuda_launched(cudaError_t error, const char *what);

template <typename... P> struct lam_emulated_launcher {
    lam_emulated_call call;

    static void run(const void *function, const void *arguments) {
        std::apply(reinterpret_cast<void (*)(P...)>(const_cast<void *>(function)),
                   *static_cast<const std::tuple<P...> *>(arguments));
    }
    template <typename... A> void operator()(A &&...given) {
        static_assert((std::is_trivially_copyable_v<P> && ...), "kernel arguments are copied byte by byte");
        static_assert(sizeof(std::tuple<P...>) <= LAM_EMULATED_ARGUMENT_BYTES,
                      "too many bytes of kernel arguments");
        const std::tuple<P...> arguments(static_cast<P>(given)...);
        call.run = run;
        lam_cuda_launched(lam_emulated_launch(&call, &arguments, sizeof arguments), call.name);
    }
};

/* A grid of int64_t is not cut to 32 bits in silence. */
static inline void lam_emulated_size(int64_t size[3], int64_t count) {
    size[0] = count, size[1] = size[2] = 1;
}
static inline void lam_emulated_size(int64_t size[3], dim3 count) {
    size[0] = count.x, size[1] = count.y, size[2] = count.z;
}
template <typename G, typename B, typename... P>
lam_emulated_launcher<P...> lam_emulated_prepare(const char *name, void (*kernel)(P...), G grid, B block,
                                                 size_t shared_bytes, cudaStream_t stream) {
    lam_emulated_launcher<P...> launcher = {};
    launcher.call.name = name;
    launcher.call.function = reinterpret_cast<const void *>(kernel);
    launcher.call.shared_bytes = shared_bytes;
    launcher.call.stream = stream;
    lam_emulated_size(launcher.call.grid, grid);
    lam_emulated_size(launcher.call.block, block);
    return launcher;
}

#define LAM_KERNEL_NAME(kernel) LAM_WITHOUT_PARENTHESES kernel
#define LAM_WITHOUT_PARENTHESES(...) __VA_ARGS__
#define LAM_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                                           \
    lam_emulated_prepare(#kernel, LAM_KERNEL_NAME(kernel), (grid), (block), (shared_bytes),                  \
                         (stream))(__VA_ARGS__)

#endif
