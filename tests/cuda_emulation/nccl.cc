/* A stand-in for NCCL between processes of one host, through shared memory that the unique identifier names.
 *
 * A collective runs when its stream comes to it, piece by piece: every rank puts its piece into its room, waits for the
 * others', takes what it needs in the order of the ranks, and waits until all have done so. The result has the same bits
 * every time.
 *
 * A device works on while its host does something else; the emulator only does while a host waits for it. A thread of each
 * communicator therefore lets everything that is enqueued run when another rank has waited for this one for a while: hosts
 * that go different ways between two collectives get on, as they do with GPUs.
 *
 * Found: ranks that meet in different collectives or counts, a communicator that is used after its end, ranks that do not
 * come within two minutes. A rank that is gone or has aborted ends the collective and shows in ncclCommGetAsyncError. */
#include "runtime.h"

#include <algorithm>
#include <atomic>
#include <cuda_bf16.h>
#include <fcntl.h>
#include <nccl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <thread>
#include <time.h>
#include <unistd.h>

namespace {

constexpr int RANKS = 64;
constexpr size_t PIECE = 1 << 18;
constexpr int64_t PATIENCE_MS = 20, MOST_MS = 120000;

struct meeting { /* what a rank is about to do */
    int32_t kind, type, operation, root;
    uint64_t count;
};

struct rank_state {
    std::atomic<uint64_t> posted, taken; /* pieces so far */
    std::atomic<int64_t> waits_since;    /* milliseconds; 0: it does not wait */
    std::atomic<uint64_t> waits_for;     /* pieces that it waits for */
    std::atomic<int32_t> taken_by, gone; /* by the process */
    meeting now;
    alignas(64) unsigned char room[PIECE];
};
struct shared_state {
    std::atomic<int32_t> arrived, world;
    rank_state rank[RANKS];
};
static_assert(std::atomic<uint64_t>::is_always_lock_free && std::atomic<int32_t>::is_always_lock_free,
              "atomics between processes");

thread_local char last_error[256];
int groups;

int64_t milliseconds() {
    timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return static_cast<int64_t>(t.tv_sec) * 1000 + t.tv_nsec / 1000000 + 1;
}

void pause_for(int64_t turn) {
    if (turn < 64)
        sched_yield();
    else
        usleep(turn < 1000 ? 20 : 500);
}

ncclResult_t refuse(ncclResult_t result, const char *what) {
    snprintf(last_error, sizeof last_error, "%s", what);
    return result;
}

size_t bytes_of(ncclDataType_t type) { return type == ncclFloat32 ? 4 : type == ncclBfloat16 ? 2 : 8; }
bool is_known(ncclDataType_t type) {
    return type == ncclFloat32 || type == ncclBfloat16 || type == ncclFloat64 || type == ncclInt64;
}

} // namespace

struct ncclComm {
    shared_state *shared; /* NULL: destroyed; the structure stays, for graphs that still name it */
    int rank, ranks, file;
    uint64_t pieces; /* that this rank has finished */
    std::atomic<int> error;
    std::atomic<bool> ends;
    std::thread helper;
};

namespace {

/* ---- meeting the others ---- */

/* Each process holds a lock on the byte of its rank, which ends with it, even before its parent has asked after it. */
struct flock lock_of(int rank) {
    struct flock lock = {};
    lock.l_type = F_WRLCK;
    lock.l_whence = SEEK_SET;
    lock.l_start = rank;
    lock.l_len = 1;
    return lock;
}

bool is_gone(const ncclComm *c, int rank) {
    struct flock lock = lock_of(rank);
    return c->shared->rank[rank].gone.load() ||
           (fcntl(c->file, F_GETLK, &lock) == 0 && lock.l_type == F_UNLCK);
}

enum counter { POSTED, TAKEN };

/* Until every rank's counter has come to `pieces`; false: one is gone. */
bool wait_for_all(ncclComm *c, counter which, uint64_t pieces) {
    rank_state &mine = c->shared->rank[c->rank];
    int64_t begin = milliseconds();
    mine.waits_for.store(pieces);
    mine.waits_since.store(begin);
    bool all = true;
    for (int r = 0; r < c->ranks && all; r++) {
        rank_state &other = c->shared->rank[r];
        std::atomic<uint64_t> &reached = which == POSTED ? other.posted : other.taken;
        for (int64_t turn = 0; reached.load(std::memory_order_acquire) < pieces; turn++) {
            pause_for(turn);
            all = c->error.load() == ncclSuccess; /* aborted by another thread */
            if (!all) break;
            if (turn % 256 != 255) continue;
            /* It may have done its part before it ended. */
            if (is_gone(c, r) && reached.load(std::memory_order_acquire) < pieces) {
                c->error = ncclRemoteError;
                all = false;
                break;
            }
            if (milliseconds() - begin < MOST_MS) continue;
            lam_emulated_report("rank %d waits for rank %d", c->rank, r);
            c->error = ncclSystemError;
            all = false;
            break;
        }
    }
    mine.waits_since.store(0);
    return all;
}

/* Lets the device of a rank that others wait for work on. */
void help(ncclComm *c) {
    while (!c->ends.load()) {
        usleep(static_cast<useconds_t>(PATIENCE_MS) * 500);
        rank_state &mine = c->shared->rank[c->rank];
        bool wanted = false;
        for (int r = 0; r < c->ranks; r++) {
            const rank_state &other = c->shared->rank[r];
            int64_t since = other.waits_since.load();
            if (r != c->rank && since && milliseconds() - since > PATIENCE_MS)
                wanted |= mine.posted.load() < other.waits_for.load();
        }
        if (!wanted || !lam_runtime_lock().try_lock()) continue;
        lam_run_everything();
        lam_runtime_lock().unlock();
    }
}

/* ---- collectives ---- */

enum kind { ALL_REDUCE, REDUCE_SCATTER, ALL_GATHER, BROADCAST };
const char *const names[] = {"ncclAllReduce", "ncclReduceScatter", "ncclAllGather", "ncclBroadcast"};

struct collective {
    ncclComm *communicator;
    const unsigned char *send;
    unsigned char *receive;
    size_t count;
    ncclDataType_t type;
    ncclRedOp_t operation;
    kind what;
    int root;
};

template <typename T> T combined(T a, T b, ncclRedOp_t operation) {
    return operation == ncclMax ? (a < b ? b : a) : a + b;
}

template <typename T>
void reduce(const ncclComm *c, unsigned char *to, size_t elements, ncclRedOp_t operation) {
    for (size_t i = 0; i < elements; i++) {
        T sum = reinterpret_cast<const T *>(c->shared->rank[0].room)[i];
        for (int r = 1; r < c->ranks; r++)
            sum = combined(sum, reinterpret_cast<const T *>(c->shared->rank[r].room)[i], operation);
        reinterpret_cast<T *>(to)[i] = sum;
    }
}

/* Sums in float32, rounded at the end. */
void reduce_bf16(const ncclComm *c, unsigned char *to, size_t elements, ncclRedOp_t operation) {
    for (size_t i = 0; i < elements; i++) {
        float sum = __bfloat162float(reinterpret_cast<const __nv_bfloat16 *>(c->shared->rank[0].room)[i]);
        for (int r = 1; r < c->ranks; r++)
            sum = combined(
                sum, __bfloat162float(reinterpret_cast<const __nv_bfloat16 *>(c->shared->rank[r].room)[i]),
                operation);
        reinterpret_cast<__nv_bfloat16 *>(to)[i] = __float2bfloat16_rn(sum);
    }
}

void reduce_rooms(const collective &w, unsigned char *to, size_t elements) {
    switch (w.type) {
    case ncclFloat32: reduce<float>(w.communicator, to, elements, w.operation); break;
    case ncclFloat64: reduce<double>(w.communicator, to, elements, w.operation); break;
    case ncclInt64: reduce<int64_t>(w.communicator, to, elements, w.operation); break;
    default: reduce_bf16(w.communicator, to, elements, w.operation); break;
    }
}

/* One piece of every rank; give: NULL, this rank has none. Before `use` all rooms are filled, after it they may change. */
template <typename Use> bool exchange(const collective &w, const unsigned char *give, size_t bytes, Use use) {
    ncclComm *c = w.communicator;
    rank_state &mine = c->shared->rank[c->rank];
    mine.now = {w.what, w.type, w.operation, w.root, w.count};
    if (give) memcpy(mine.room, give, bytes);
    uint64_t piece = ++c->pieces;
    mine.posted.store(piece, std::memory_order_release);
    if (!wait_for_all(c, POSTED, piece)) return false;
    for (int r = 0; r < c->ranks; r++)
        if (memcmp(&c->shared->rank[r].now, &mine.now, sizeof mine.now) != 0) {
            lam_emulated_report("rank %d meets rank %d, which does %s of %llu elements", c->rank, r,
                                names[c->shared->rank[r].now.kind],
                                static_cast<unsigned long long>(c->shared->rank[r].now.count));
            c->error = ncclInvalidUsage;
            return false;
        }
    use();
    mine.taken.store(piece, std::memory_order_release);
    return wait_for_all(c, TAKEN, piece);
}

void run(void *argument) {
    const collective &w = *static_cast<const collective *>(argument);
    ncclComm *c = w.communicator;
    if (!c->shared) {
        lam_emulated_report("the communicator has been destroyed");
        return;
    }
    if (c->error.load() != ncclSuccess) return;
    size_t size = bytes_of(w.type), ranks = static_cast<size_t>(c->ranks),
           rank = static_cast<size_t>(c->rank);
    size_t blocks_sent = w.what == REDUCE_SCATTER ? ranks : 1,
           blocks_received = w.what == ALL_GATHER ? ranks : 1;
    bool sends = w.what != BROADCAST || c->rank == w.root;
    if (sends) lam_emulated_range(w.send, w.count * size * blocks_sent, false);
    lam_emulated_range(w.receive, w.count * size * blocks_received, true);
    for (size_t first = 0; first < w.count; first += PIECE / size) {
        size_t elements = std::min(PIECE / size, w.count - first), bytes = elements * size, at = first * size;
        for (size_t block = 0; block < blocks_sent; block++) {
            const unsigned char *give = sends ? w.send + block * w.count * size + at : nullptr;
            bool done = exchange(w, give, bytes, [&] {
                if (w.what == ALL_REDUCE) reduce_rooms(w, w.receive + at, elements);
                if (w.what == REDUCE_SCATTER && block == rank) reduce_rooms(w, w.receive + at, elements);
                if (w.what == BROADCAST) memcpy(w.receive + at, c->shared->rank[w.root].room, bytes);
                for (size_t r = 0; w.what == ALL_GATHER && r < ranks; r++)
                    memcpy(w.receive + r * w.count * size + at, c->shared->rank[r].room, bytes);
            });
            if (!done) return;
        }
    }
}

ncclResult_t start(const collective &w, cudaStream_t stream) {
    if (!w.communicator || !w.communicator->shared) return refuse(ncclInvalidArgument, "no communicator");
    if (!is_known(w.type) || (w.operation != ncclSum && w.operation != ncclMax))
        return refuse(ncclInvalidArgument,
                      "the stand-in knows sums and maxima of float32, bfloat16, float64 and int64");
    if (w.root < 0 || w.root >= w.communicator->ranks) return refuse(ncclInvalidArgument, "no such root");
    if (w.count && (!w.send || !w.receive)) return refuse(ncclInvalidArgument, "a pointer is NULL");
    int error = w.communicator->error.load();
    if (error != ncclSuccess) return static_cast<ncclResult_t>(error);
    return lam_emulated_enqueue(stream, names[w.what], run, &w, sizeof w) == cudaSuccess
               ? ncclSuccess
               : ncclUnhandledCudaError;
}

/* The shared memory of this name, with the rank's lock; *file is to stay open. */
shared_state *attach(const char *name, int rank, int *file) {
    *file = shm_open(name, O_CREAT | O_RDWR, 0600);
    if (*file < 0) return nullptr;
    struct flock lock = lock_of(rank);
    void *memory = MAP_FAILED;
    if (ftruncate(*file, sizeof(shared_state)) == 0 && fcntl(*file, F_SETLK, &lock) == 0)
        memory = mmap(nullptr, sizeof(shared_state), PROT_READ | PROT_WRITE, MAP_SHARED, *file, 0);
    if (memory == MAP_FAILED) close(*file);
    return memory == MAP_FAILED ? nullptr : static_cast<shared_state *>(memory);
}

void detach(shared_state *shared, int file) {
    munmap(shared, sizeof *shared);
    close(file);
}

void end(ncclComm *c) {
    c->ends = true;
    c->helper.join();
    c->shared->rank[c->rank].gone.store(1);
    shared_state *shared = c->shared;
    c->shared = nullptr;
    detach(shared, c->file);
}

} // namespace

extern "C" {

ncclResult_t ncclGetVersion(int *version) {
    *version = NCCL_VERSION_CODE;
    return ncclSuccess;
}

ncclResult_t ncclGetUniqueId(ncclUniqueId *id) {
    static int made;
    timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    memset(id, 0, sizeof *id);
    snprintf(id->internal, sizeof id->internal, "/lamella_nccl_%d_%d_%llx", getpid(), made++,
             static_cast<unsigned long long>(t.tv_sec) << 30 | static_cast<unsigned long long>(t.tv_nsec));
    return ncclSuccess;
}

ncclResult_t ncclCommInitRank(ncclComm_t *communicator, int ranks, ncclUniqueId id, int rank) {
    *communicator = nullptr;
    if (ranks < 1 || ranks > RANKS || rank < 0 || rank >= ranks || id.internal[0] != '/')
        return refuse(ncclInvalidArgument, "a rank, a number of ranks or an identifier that cannot be");
    id.internal[sizeof id.internal - 1] = 0;
    int file;
    shared_state *shared = attach(id.internal, rank, &file);
    if (!shared) return refuse(ncclSystemError, "no shared memory, or another process has this rank");
    int32_t world = 0;
    bool alone = shared->world.compare_exchange_strong(world, ranks) || world == ranks;
    if (!alone || shared->rank[rank].taken_by.exchange(getpid())) {
        detach(shared, file);
        return refuse(ncclInvalidArgument,
                      alone ? "a rank comes twice" : "ranks count themselves differently");
    }
    shared->arrived++;
    int64_t begin = milliseconds();
    for (int64_t turn = 0; shared->arrived.load() < ranks; turn++) {
        pause_for(turn);
        if (milliseconds() - begin < MOST_MS) continue;
        detach(shared, file);
        return refuse(ncclSystemError, "not all ranks have come");
    }
    if (rank == 0) shm_unlink(id.internal); /* mapped by all */
    ncclComm *c = new ncclComm();
    c->shared = shared;
    c->rank = rank;
    c->ranks = ranks;
    c->file = file;
    c->helper = std::thread(help, c);
    *communicator = c;
    return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t *communicator, int ranks, ncclUniqueId id, int rank,
                                    ncclConfig_t *config) {
    if (config && (config->size != sizeof *config || config->magic != 0xcafebeef))
        return refuse(ncclInvalidArgument, "the configuration is not NCCL_CONFIG_INITIALIZER");
    if (config && config->blocking != NCCL_CONFIG_UNDEF_INT && !config->blocking)
        return refuse(ncclInvalidUsage, "the stand-in blocks");
    return ncclCommInitRank(communicator, ranks, id, rank);
}

ncclResult_t ncclCommFinalize(ncclComm_t communicator) {
    if (!communicator || !communicator->shared) return refuse(ncclInvalidArgument, "no communicator");
    return cudaDeviceSynchronize() == cudaSuccess ? ncclSuccess : ncclUnhandledCudaError;
}

ncclResult_t ncclCommDestroy(ncclComm_t communicator) {
    if (!communicator || !communicator->shared) return refuse(ncclInvalidArgument, "no communicator");
    cudaDeviceSynchronize();
    end(communicator);
    return ncclSuccess;
}

ncclResult_t ncclCommAbort(ncclComm_t communicator) {
    if (!communicator || !communicator->shared) return refuse(ncclInvalidArgument, "no communicator");
    communicator->error = ncclInvalidUsage; /* what is enqueued does nothing */
    cudaDeviceSynchronize();
    end(communicator);
    return ncclSuccess;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t communicator, ncclResult_t *error) {
    if (!communicator || !communicator->shared) return refuse(ncclInvalidArgument, "no communicator");
    *error = static_cast<ncclResult_t>(communicator->error.load());
    return ncclSuccess;
}
ncclResult_t ncclCommCount(const ncclComm_t communicator, int *count) {
    *count = communicator->ranks;
    return ncclSuccess;
}
ncclResult_t ncclCommUserRank(const ncclComm_t communicator, int *rank) {
    *rank = communicator->rank;
    return ncclSuccess;
}

const char *ncclGetErrorString(ncclResult_t result) {
    switch (result) {
    case ncclSuccess: return "no error";
    case ncclUnhandledCudaError: return "unhandled cuda error";
    case ncclSystemError: return "unhandled system error";
    case ncclInvalidArgument: return "invalid argument";
    case ncclInvalidUsage: return "invalid usage";
    case ncclRemoteError: return "remote process exited or there was a network error";
    case ncclInProgress: return "NCCL operation in progress";
    default: return "internal error";
    }
}
const char *ncclGetLastError(ncclComm_t) { return last_error; }

ncclResult_t ncclAllReduce(const void *send, void *receive, size_t count, ncclDataType_t type,
                           ncclRedOp_t operation, ncclComm_t communicator, cudaStream_t stream) {
    return start({communicator, static_cast<const unsigned char *>(send),
                  static_cast<unsigned char *>(receive), count, type, operation, ALL_REDUCE, 0},
                 stream);
}
ncclResult_t ncclReduceScatter(const void *send, void *receive, size_t count, ncclDataType_t type,
                               ncclRedOp_t operation, ncclComm_t communicator, cudaStream_t stream) {
    return start({communicator, static_cast<const unsigned char *>(send),
                  static_cast<unsigned char *>(receive), count, type, operation, REDUCE_SCATTER, 0},
                 stream);
}
ncclResult_t ncclAllGather(const void *send, void *receive, size_t count, ncclDataType_t type,
                           ncclComm_t communicator, cudaStream_t stream) {
    return start({communicator, static_cast<const unsigned char *>(send),
                  static_cast<unsigned char *>(receive), count, type, ncclSum, ALL_GATHER, 0},
                 stream);
}
ncclResult_t ncclBroadcast(const void *send, void *receive, size_t count, ncclDataType_t type, int root,
                           ncclComm_t communicator, cudaStream_t stream) {
    return start({communicator, static_cast<const unsigned char *>(send),
                  static_cast<unsigned char *>(receive), count, type, ncclSum, BROADCAST, root},
                 stream);
}

/* What is called between them is enqueued at once: no order between streams is promised for either. */
ncclResult_t ncclGroupStart(void) {
    groups++;
    return ncclSuccess;
}
ncclResult_t ncclGroupEnd(void) {
    if (groups < 1) return refuse(ncclInvalidUsage, "ncclGroupEnd without ncclGroupStart");
    groups--;
    return ncclSuccess;
}
}
