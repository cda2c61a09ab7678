/* The stand-in for NCCL: collectives of three processes against sums by hand, in place and not, in graphs, with hosts that go
 * different ways; and what it finds. */
#include "emulation.h"

#include <cuda_bf16.h>
#include <nccl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <vector>

void lam_cuda_launched(cudaError_t, const char *) {}

#define REQUIRE(condition)                                                                                   \
    do {                                                                                                     \
        if (!(condition)) {                                                                                  \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);                          \
            _exit(1);                                                                                        \
        }                                                                                                    \
    } while (0)
#define WORKS(call) REQUIRE((call) == cudaSuccess)
#define SUMS(call) REQUIRE((call) == ncclSuccess)

enum { WORLD = 3 };

struct world {
    int rank;
    ncclUniqueId id;
    int pipes[WORLD][2]; /* what a rank reads from, anybody writes to */
    ncclComm_t communicator;
    cudaStream_t stream;
};

static void open_world(world *w) {
    SUMS(ncclCommInitRank(&w->communicator, WORLD, w->id, w->rank));
    WORKS(cudaStreamCreateWithFlags(&w->stream, cudaStreamNonBlocking));
}

static float value_of(int rank, size_t i) {
    return static_cast<float>((i * 7 + static_cast<size_t>(rank) * 13) % 31) - 9.0f;
}

template <typename T> struct kind_of;
template <> struct kind_of<float> { static constexpr ncclDataType_t type = ncclFloat32; };
template <> struct kind_of<double> { static constexpr ncclDataType_t type = ncclFloat64; };
template <> struct kind_of<int64_t> { static constexpr ncclDataType_t type = ncclInt64; };
template <> struct kind_of<__nv_bfloat16> { static constexpr ncclDataType_t type = ncclBfloat16; };

template <typename T> static T *device_values(int rank, size_t count) {
    std::vector<T> values(count);
    for (size_t i = 0; i < count; i++) values[i] = static_cast<T>(value_of(rank, i));
    T *memory;
    WORKS(cudaMalloc(&memory, count * sizeof(T)));
    WORKS(cudaMemcpy(memory, values.data(), count * sizeof(T), cudaMemcpyHostToDevice));
    return memory;
}
template <typename T> static std::vector<T> host(const T *memory, size_t count) {
    std::vector<T> values(count);
    WORKS(cudaMemcpy(values.data(), memory, count * sizeof(T), cudaMemcpyDeviceToHost));
    return values;
}

static float sum_of(size_t i) { return value_of(0, i) + value_of(1, i) + value_of(2, i); }
static float most_of(size_t i) { return fmaxf(fmaxf(value_of(0, i), value_of(1, i)), value_of(2, i)); }

template <typename T> static void check_reduce(world *w, size_t count, bool in_place, ncclRedOp_t operation) {
    T *send = device_values<T>(w->rank, count), *receive = in_place ? send : device_values<T>(0, count);
    SUMS(ncclAllReduce(send, receive, count, kind_of<T>::type, operation, w->communicator, w->stream));
    WORKS(cudaStreamSynchronize(w->stream));
    std::vector<T> got = host(receive, count);
    for (size_t i = 0; i < count; i++)
        REQUIRE(static_cast<float>(got[i]) == (operation == ncclSum ? sum_of(i) : most_of(i)));
}

static void collectives(world *w) {
    open_world(w);
    for (size_t count : {1u, 1000u, 300001u}) {
        check_reduce<float>(w, count, false, ncclSum);
        check_reduce<float>(w, count, true, ncclMax);
    }
    check_reduce<double>(w, 70001, true, ncclSum);
    check_reduce<int64_t>(w, 5, false, ncclMax);
    check_reduce<__nv_bfloat16>(w, 200003, true, ncclSum);

    const size_t count = 70001;
    size_t rank = static_cast<size_t>(w->rank);
    float *all = device_values<float>(w->rank, WORLD * count);
    SUMS(ncclReduceScatter(all, all + rank * count, count, ncclFloat32, ncclSum, w->communicator, w->stream));
    WORKS(cudaStreamSynchronize(w->stream));
    std::vector<float> got = host(all + rank * count, count);
    for (size_t i = 0; i < count; i++) REQUIRE(got[i] == sum_of(rank * count + i));
    SUMS(ncclAllGather(all + rank * count, all, count, ncclFloat32, w->communicator, w->stream));
    WORKS(cudaStreamSynchronize(w->stream));
    got = host(all, WORLD * count);
    for (size_t i = 0; i < WORLD * count; i++) REQUIRE(got[i] == sum_of(i));
    float *one = device_values<float>(w->rank, count);
    SUMS(ncclBroadcast(one, one, count, ncclFloat32, 1, w->communicator, w->stream));
    WORKS(cudaStreamSynchronize(w->stream));
    got = host(one, count);
    for (size_t i = 0; i < count; i++) REQUIRE(got[i] == value_of(1, i));
    SUMS(ncclGroupStart());
    SUMS(ncclAllReduce(one, one, count, ncclFloat32, ncclSum, w->communicator, w->stream));
    SUMS(ncclAllReduce(one, one, 10, ncclFloat32, ncclSum, w->communicator, w->stream));
    SUMS(ncclGroupEnd());
    WORKS(cudaStreamSynchronize(w->stream));
    got = host(one, count);
    REQUIRE(got[9] == 9 * value_of(1, 9) && got[10] == 3 * value_of(1, 10));
    SUMS(ncclCommDestroy(w->communicator));
}

/* A graph that sums in place, replayed: three times as much each time. */
static void replayed(world *w) {
    open_world(w);
    float *values = device_values<float>(w->rank, 1000);
    cudaGraph_t graph;
    cudaGraphExec_t executable;
    WORKS(cudaStreamBeginCapture(w->stream, cudaStreamCaptureModeThreadLocal));
    SUMS(ncclAllReduce(values, values, 1000, ncclFloat32, ncclSum, w->communicator, w->stream));
    WORKS(cudaStreamEndCapture(w->stream, &graph));
    WORKS(cudaGraphInstantiate(&executable, graph));
    for (int i = 0; i < 4; i++) WORKS(cudaGraphLaunch(executable, w->stream));
    WORKS(cudaStreamSynchronize(w->stream));
    std::vector<float> got = host(values, 1000);
    for (size_t i = 0; i < 1000; i++) REQUIRE(got[i] == 27 * sum_of(i));
    SUMS(ncclCommDestroy(w->communicator));
}

/* Rank 0 waits for its device, the others for rank 0: their devices work on all the same. */
static void hosts_apart(world *w) {
    open_world(w);
    float *values = device_values<float>(w->rank, 1000);
    SUMS(ncclAllReduce(values, values, 1000, ncclFloat32, ncclSum, w->communicator, w->stream));
    char byte = 1;
    if (w->rank > 0) REQUIRE(read(w->pipes[w->rank][0], &byte, 1) == 1);
    std::vector<float> got;
    WORKS(cudaStreamSynchronize(w->stream));
    got = host(values, 1000);
    for (size_t i = 0; i < 1000; i++) REQUIRE(got[i] == sum_of(i));
    for (int r = 1; w->rank == 0 && r < WORLD; r++) REQUIRE(write(w->pipes[r][1], &byte, 1) == 1);
    SUMS(ncclCommDestroy(w->communicator));
}

static void rank_is_gone(world *w) {
    open_world(w);
    if (w->rank == 1) _exit(0);
    float *values = device_values<float>(w->rank, 1000);
    ncclResult_t error = ncclSuccess;
    SUMS(ncclAllReduce(values, values, 1000, ncclFloat32, ncclSum, w->communicator, w->stream));
    WORKS(cudaStreamSynchronize(w->stream));
    SUMS(ncclCommGetAsyncError(w->communicator, &error));
    REQUIRE(error == ncclRemoteError);
    REQUIRE(ncclAllReduce(values, values, 1, ncclFloat32, ncclSum, w->communicator, w->stream) ==
            ncclRemoteError);
    SUMS(ncclCommAbort(w->communicator));
}

static void aborted(world *w) {
    open_world(w);
    float *values = device_values<float>(w->rank, 1000);
    if (w->rank < 2) {
        SUMS(ncclAllReduce(values, values, 1000, ncclFloat32, ncclSum, w->communicator, w->stream));
        std::thread watchdog([w] {
            usleep(200000);
            ncclCommAbort(w->communicator);
        });
        WORKS(cudaStreamSynchronize(w->stream));
        watchdog.join();
    } else {
        usleep(400000);
        SUMS(ncclCommAbort(w->communicator));
    }
}

static void counts_differ(world *w) {
    open_world(w);
    float *values = device_values<float>(w->rank, 1000);
    SUMS(ncclAllReduce(values, values, w->rank == 2 ? 999 : 1000, ncclFloat32, ncclSum, w->communicator,
                       w->stream));
    WORKS(cudaStreamSynchronize(w->stream));
}

static void beyond_the_end(world *w) {
    open_world(w);
    float *values = device_values<float>(w->rank, 1000);
    SUMS(ncclAllReduce(values, values, 1001, ncclFloat32, ncclSum, w->communicator, w->stream));
    WORKS(cudaStreamSynchronize(w->stream));
}

static void after_the_end(world *w) {
    open_world(w);
    float *values = device_values<float>(w->rank, 1000);
    cudaGraph_t graph;
    cudaGraphExec_t executable;
    WORKS(cudaStreamBeginCapture(w->stream, cudaStreamCaptureModeThreadLocal));
    SUMS(ncclAllReduce(values, values, 1000, ncclFloat32, ncclSum, w->communicator, w->stream));
    WORKS(cudaStreamEndCapture(w->stream, &graph));
    WORKS(cudaGraphInstantiate(&executable, graph));
    SUMS(ncclCommDestroy(w->communicator));
    WORKS(cudaGraphLaunch(executable, w->stream));
    WORKS(cudaStreamSynchronize(w->stream));
}

static void misused(world *w) {
    ncclComm_t none;
    ncclConfig_t config = {};
    REQUIRE(ncclCommInitRank(&none, WORLD, w->id, WORLD) == ncclInvalidArgument && none == nullptr);
    REQUIRE(ncclCommInitRankConfig(&none, WORLD, w->id, w->rank, &config) == ncclInvalidArgument);
    REQUIRE(ncclGroupEnd() == ncclInvalidUsage);
    open_world(w);
    float *values = device_values<float>(w->rank, 10);
    REQUIRE(ncclAllReduce(values, values, 10, ncclFloat32, ncclProd, w->communicator, w->stream) ==
            ncclInvalidArgument);
    REQUIRE(ncclBroadcast(values, values, 10, ncclFloat32, WORLD, w->communicator, w->stream) ==
            ncclInvalidArgument);
    REQUIRE(ncclAllReduce(nullptr, values, 10, ncclFloat32, ncclSum, w->communicator, w->stream) ==
            ncclInvalidArgument);
    REQUIRE(strlen(ncclGetLastError(w->communicator)) > 0);
    SUMS(ncclCommDestroy(w->communicator));
    REQUIRE(ncclCommDestroy(w->communicator) == ncclInvalidArgument);
}

static const struct test_case {
    const char *name;
    void (*run)(world *);
    const char *says; /* NULL: nothing */
} cases[] = {{"collectives", collectives, nullptr},
             {"replayed", replayed, nullptr},
             {"hosts apart", hosts_apart, nullptr},
             {"a rank is gone", rank_is_gone, nullptr},
             {"aborted", aborted, nullptr},
             {"misused", misused, nullptr},
             {"counts differ", counts_differ, "meets rank"},
             {"beyond the end", beyond_the_end, "ncclAllReduce"},
             {"after the end", after_the_end, "destroyed"}};

/* What the ranks print; *failed: one did not end well. */
static std::string run_case(const test_case &one, bool *failed) {
    world w = {};
    int output[2];
    pid_t ranks[WORLD];
    ncclGetUniqueId(&w.id);
    if (pipe(output) != 0) exit(1);
    for (auto &ends : w.pipes)
        if (pipe(ends) != 0) exit(1);
    for (int r = 0; r < WORLD; r++) {
        ranks[r] = fork();
        if (ranks[r] != 0) continue;
        dup2(output[1], 2);
        close(output[0]);
        w.rank = r;
        one.run(&w);
        _exit(0);
    }
    close(output[1]);
    std::string text;
    char buffer[4096];
    for (ssize_t got; (got = read(output[0], buffer, sizeof buffer)) > 0;)
        text.append(buffer, static_cast<size_t>(got));
    *failed = false;
    for (int r = 0, status; r < WORLD; r++) *failed |= waitpid(ranks[r], &status, 0) < 0 || status != 0;
    close(output[0]);
    for (auto &ends : w.pipes) close(ends[0]), close(ends[1]);
    return text;
}

int main(int argc, char **argv) {
    int failed = 0, count = 0;
    for (const test_case &one : cases) {
        if (argc > 1 && strcmp(argv[1], one.name) != 0) continue;
        bool ended_badly;
        std::string text = run_case(one, &ended_badly);
        bool good =
            one.says ? text.find(one.says) != std::string::npos && ended_badly : text.empty() && !ended_badly;
        count++;
        if (good) continue;
        failed++;
        printf("%s: not right: %s\n", one.name, text.c_str());
    }
    printf("%d of %d cases of NCCL's stand-in\n", count - failed, count);
    return failed != 0;
}
