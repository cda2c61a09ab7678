/* The emulator's own test: correct kernels give correct results, and each kind of mistake is found. Each case runs in a
 * child; what it prints on stderr is compared. Built twice: as it is, and with the checks of every access (check.cc). */
#include "emulation.h"
#include "model/cuda/launch.cuh"
#include <cuda_bf16.h>
#include <stdio.h>
#include <stdlib.h>
#include <string>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <vector>

#ifdef __SANITIZE_THREAD__
static const bool is_checked = true;
#else
static const bool is_checked = false;
#endif

static cudaError_t launch_error;
void lam_cuda_launched(cudaError_t error, const char *) {
    if (launch_error == cudaSuccess) launch_error = error;
}

#define REQUIRE(condition)                                                                                   \
    do {                                                                                                     \
        if (!(condition)) {                                                                                  \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);                          \
            exit(1);                                                                                         \
        }                                                                                                    \
    } while (0)
#define WORKS(call) REQUIRE((call) == cudaSuccess)

template <typename T> static T *device(size_t count) {
    T *memory = nullptr;
    WORKS(cudaMalloc(&memory, count * sizeof(T)));
    return memory;
}
template <typename T> static T *device(const std::vector<T> &values) {
    T *memory = device<T>(values.size());
    WORKS(cudaMemcpy(memory, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice));
    return memory;
}
template <typename T> static std::vector<T> host(const T *memory, size_t count) {
    std::vector<T> values(count);
    WORKS(cudaMemcpy(values.data(), memory, count * sizeof(T), cudaMemcpyDeviceToHost));
    return values;
}
static std::vector<float> counting(size_t count) {
    std::vector<float> values(count);
    for (size_t i = 0; i < count; i++) values[i] = static_cast<float>(i % 1000);
    return values;
}
static cudaStream_t new_stream(void) {
    cudaStream_t stream;
    WORKS(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    return stream;
}
static cudaEvent_t new_event(void) {
    cudaEvent_t event;
    WORKS(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    return event;
}
static void finish(void) {
    WORKS(cudaDeviceSynchronize());
    WORKS(launch_error);
}

/* ---- kernels ---- */

__device__ static float warp_sum(float value) {
    for (int k = 16; k; k >>= 1) value += __shfl_xor_sync(0xffffffffu, value, k);
    return value;
}

/* One partial sum a block. */
template <typename T>
__global__ void __launch_bounds__(256) partial_sums(const T *x, float *y, int64_t count) {
    LAM_SHARED(float, parts, [32]);
    float sum = 0;
    int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
    for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step)
        sum += lam_load(x + i);
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = sum;
    __syncthreads();
    if (threadIdx.x < 32) {
        sum = warp_sum(threadIdx.x < blockDim.x / 32 ? parts[threadIdx.x] : 0.0f);
        if (threadIdx.x == 0) y[blockIdx.x] = sum;
    }
}

__global__ void transpose(const float *x, float *y, int rows, int columns, bool barrier) {
    LAM_SHARED(float, tile, [16][17]);
    int row = blockIdx.y * 16 + threadIdx.y, column = blockIdx.x * 16 + threadIdx.x;
    if (row < rows && column < columns) tile[threadIdx.y][threadIdx.x] = x[row * columns + column];
    if (barrier) __syncthreads();
    row = blockIdx.y * 16 + threadIdx.x, column = blockIdx.x * 16 + threadIdx.y;
    if (row < rows && column < columns) y[column * rows + row] = tile[threadIdx.x][threadIdx.y];
}

__global__ void reverse_dynamic(float *x, int count) {
    LAM_DYNAMIC_SHARED(float, memory);
    for (int i = threadIdx.x; i < count; i += blockDim.x) memory[i] = x[i];
    __syncthreads();
    for (int i = threadIdx.x; i < count; i += blockDim.x) x[i] = memory[count - 1 - i];
}

/* The documented fragments of mma.m16n8k16, as ptx.cuh has them: d += a b. */
__device__ static void multiply(float d[4], const unsigned a[4], const unsigned b[2]) {
    struct {
        unsigned a[4], b[2];
    } mine, all[32];
    memcpy(mine.a, a, sizeof mine.a);
    memcpy(mine.b, b, sizeof mine.b);
    memcpy(all, lam_emulated_exchange(0xffffffffu, &mine, sizeof mine, "mma"), sizeof all);
    unsigned lane = lam_emulated_lane();
    auto half = [](unsigned pair, unsigned high) {
        return lam_bf16_to_float(static_cast<uint16_t>(pair >> 16 * high));
    };
    for (unsigned i = 0; i < 4; i++) {
        unsigned row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
        for (unsigned k = 0; k < 16; k++) {
            float x = half(all[row % 8 * 4 + k % 8 / 2].a[row / 8 + k / 8 * 2], k % 2);
            float y = half(all[column * 4 + k % 8 / 2].b[k / 8], k % 2);
            d[i] += x * y;
        }
    }
}
__global__ void small_product(const __nv_bfloat16 *a, const __nv_bfloat16 *b,
                              float *c) { /* [16][16] [16][8] */
    unsigned lane = threadIdx.x, group = lane / 4, pair = lane % 4 * 2, fa[4], fb[2];
    float d[4] = {};
    auto two = [](__nv_bfloat16 x, __nv_bfloat16 y) {
        return static_cast<unsigned>(__bfloat16_as_ushort(x)) | static_cast<unsigned>(__bfloat16_as_ushort(y))
                                                                    << 16;
    };
    for (unsigned i = 0; i < 4; i++) {
        unsigned row = group + i % 2 * 8, k = pair + i / 2 * 8;
        fa[i] = two(a[row * 16 + k], a[row * 16 + k + 1]);
    }
    for (unsigned i = 0; i < 2; i++)
        fb[i] = two(b[(pair + i * 8) * 8 + group], b[(pair + i * 8 + 1) * 8 + group]);
    multiply(d, fa, fb);
    for (unsigned i = 0; i < 4; i++) c[(group + i / 2 * 8) * 8 + pair + i % 2] = d[i];
}

__global__ void copies_later(const float *x, float *y, bool waits) {
    LAM_SHARED(float4, tile, [64]);
    const float4 *from = reinterpret_cast<const float4 *>(x);
    lam_emulated_copy_later(&tile[threadIdx.x], from + threadIdx.x, 16, 16);
    lam_emulated_copies_commit();
    lam_emulated_copy_later(&tile[32 + threadIdx.x], from + 32 + threadIdx.x, 16, 16);
    lam_emulated_copies_commit();
    lam_emulated_copies_wait(1);
    __syncthreads();
    float first = tile[31 - threadIdx.x].x;
    if (waits) lam_emulated_copies_wait(0);
    __syncthreads();
    y[threadIdx.x] = first + tile[63 - threadIdx.x].y;
}

__global__ void add_to(float *x, int64_t count, float value) {
    int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i < count) x[i] += value;
}
__global__ void scale_by(float *x, int64_t count, float value) {
    int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i < count) x[i] *= value;
}
__global__ void count_up(int *counter) { atomicAdd(counter, 1); }
__global__ void nothing(void) {}

/* ---- what must work ---- */

static void sums(void) {
    for (int64_t count : {1, 31, 257, 10001}) {
        std::vector<float> x = counting(static_cast<size_t>(count)), y;
        std::vector<__nv_bfloat16> narrow;
        double want = 0, got = 0, want_narrow = 0, got_narrow = 0;
        for (float v : x) {
            narrow.push_back(v);
            want += static_cast<double>(v);
            want_narrow += static_cast<double>(static_cast<float>(narrow.back()));
        }
        float *d_x = device(x), *d_y = device<float>(14);
        __nv_bfloat16 *d_narrow = device(narrow);
        LAM_LAUNCH((partial_sums<float>), 7, 96, 0, nullptr, d_x, d_y, count);
        LAM_LAUNCH((partial_sums<__nv_bfloat16>), dim3(7), dim3(256), 0, nullptr, d_narrow, d_y + 7, count);
        y = host(d_y, 14);
        for (int i = 0; i < 7; i++)
            got += static_cast<double>(y[i]), got_narrow += static_cast<double>(y[7 + i]);
        REQUIRE(fabs(got - want) <= 1e-5 * want && fabs(got_narrow - want_narrow) <= 1e-5 * want_narrow);
        WORKS(cudaFree(d_x));
    }
    finish();
}

static void transposes(void) {
    int rows = 37, columns = 50;
    std::vector<float> x = counting(static_cast<size_t>(rows * columns));
    float *d_x = device(x), *d_y = device<float>(x.size());
    LAM_LAUNCH((transpose), dim3(4, 3), dim3(16, 16), 0, nullptr, d_x, d_y, rows, columns, true);
    std::vector<float> y = host(d_y, x.size());
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < columns; c++) REQUIRE(y[c * rows + r] == x[r * columns + c]);
    finish();
}

static void dynamic_shared(void) {
    std::vector<float> x = counting(20000);
    float *d_x = device(x);
    WORKS(cudaFuncSetAttribute(reverse_dynamic, cudaFuncAttributeMaxDynamicSharedMemorySize, 80000));
    LAM_LAUNCH((reverse_dynamic), 1, 64, 80000, nullptr, d_x, 20000);
    std::vector<float> y = host(d_x, x.size());
    for (size_t i = 0; i < x.size(); i++) REQUIRE(y[i] == x[x.size() - 1 - i]);
    finish();
}

static void products(void) {
    std::vector<__nv_bfloat16> a, b;
    for (int i = 0; i < 256; i++) a.push_back(static_cast<float>(i % 13 - 6));
    for (int i = 0; i < 128; i++) b.push_back(static_cast<float>(i % 7 - 3));
    float *c = device<float>(128);
    LAM_LAUNCH((small_product), 1, 32, 0, nullptr, device(a), device(b), c);
    std::vector<float> got = host(c, 128);
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 8; j++) {
            float want = 0;
            for (int k = 0; k < 16; k++)
                want += static_cast<float>(a[i * 16 + k]) * static_cast<float>(b[k * 8 + j]);
            REQUIRE(got[i * 8 + j] == want);
        }
    finish();
}

static void asynchronous_copies(void) {
    std::vector<float> x = counting(256);
    float *y = device<float>(32);
    LAM_LAUNCH((copies_later), 1, 32, 0, nullptr, device(x), y, true);
    std::vector<float> got = host(y, 32);
    for (int i = 0; i < 32; i++) REQUIRE(got[i] == x[(31 - i) * 4] + x[(63 - i) * 4 + 1]);
    finish();
}
static void copy_not_waited_for(void) {
    float *y = device<float>(32);
    LAM_LAUNCH((copies_later), 1, 32, 0, nullptr, device(counting(256)), y, false);
    REQUIRE(isnan(host(y, 32)[0]));
}

static void refused_launches(void) {
    float *x = device<float>(8);
    const struct {
        int64_t grid, block;
        size_t shared;
        cudaError_t error;
    } cases[] = {{0, 32, 0, cudaErrorInvalidConfiguration},
                 {1, 0, 0, cudaErrorInvalidConfiguration},
                 {1, 1025, 0, cudaErrorInvalidConfiguration},
                 {int64_t(1) << 31, 32, 0, cudaErrorInvalidConfiguration},
                 {1, 32, (48 << 10) + 4, cudaErrorInvalidValue}};
    for (const auto &each : cases) {
        LAM_LAUNCH((add_to), each.grid, each.block, each.shared, nullptr, x, 8, 1.0f);
        REQUIRE(launch_error == each.error);
        launch_error = cudaSuccess;
    }
    LAM_LAUNCH((add_to), dim3(1, 65536), 32, 0, nullptr, x, 8, 1.0f);
    REQUIRE(launch_error == cudaErrorInvalidConfiguration && cudaGetLastError() == launch_error);
    REQUIRE(cudaGetLastError() == cudaSuccess);
    REQUIRE(cudaFuncSetAttribute(add_to, cudaFuncAttributeMaxDynamicSharedMemorySize, (227 << 10) + 1) ==
            cudaErrorInvalidValue);
    void *memory;
    REQUIRE(cudaMalloc(&memory, size_t(1) << 40) == cudaErrorMemoryAllocation);
    REQUIRE(cudaMemcpy(x, x, 4, cudaMemcpyHostToDevice) == cudaErrorInvalidValue);
}

/* Whether y, which the stream `second` makes from x, has seen what `first` has done. */
static bool ordered(bool forth, bool back) {
    size_t count = 1000;
    cudaStream_t first = new_stream(), second = new_stream();
    cudaEvent_t made = new_event(), taken = new_event();
    std::vector<float> ones(count, 1.0f);
    float *x = device(ones), *y = device<float>(count);
    LAM_LAUNCH((scale_by), 4, 256, 0, first, x, 1000, 3.0f);
    WORKS(cudaEventRecord(made, first));
    if (forth) WORKS(cudaStreamWaitEvent(second, made, 0));
    WORKS(cudaMemcpyAsync(y, x, count * 4, cudaMemcpyDeviceToDevice, second));
    WORKS(cudaEventRecord(taken, second));
    if (back) WORKS(cudaStreamWaitEvent(first, taken, 0));
    LAM_LAUNCH((scale_by), 4, 256, 0, first, x, 1000, 5.0f);
    WORKS(cudaStreamSynchronize(first));
    WORKS(cudaStreamSynchronize(second));
    return host(y, count)[count - 1] == 3.0f;
}
static void ordered_streams(void) {
    REQUIRE(ordered(true, true));
    finish();
}
/* Which event is missing shows under reversed order in one case, under lazy order in the other. */
static void missing_event_forth(void) { REQUIRE(ordered(false, true)); }
static void missing_event_back(void) { REQUIRE(ordered(true, false)); }

static void events(void) {
    cudaStream_t stream = new_stream();
    cudaEvent_t start, end;
    float *x = device(std::vector<float>(8, 0.0f)), elapsed = -1;
    WORKS(cudaEventCreate(&start));
    WORKS(cudaEventCreate(&end));
    WORKS(cudaEventRecord(start, stream));
    LAM_LAUNCH((add_to), 1, 8, 0, stream, x, 8, 1.0f);
    WORKS(cudaEventRecord(end, stream));
    REQUIRE(cudaEventQuery(end) == cudaErrorNotReady);
    while (cudaEventQuery(end) == cudaErrorNotReady) {}
    WORKS(cudaEventElapsedTime(&elapsed, start, end));
    REQUIRE(elapsed >= 0 && host(x, 8)[7] == 1.0f);
    finish();
}

static void legacy_stream(void) {
    cudaStream_t blocking;
    WORKS(cudaStreamCreate(&blocking));
    float *x = device(std::vector<float>(8, 1.0f));
    LAM_LAUNCH((scale_by), 1, 8, 0, nullptr, x, 8, 3.0f);
    LAM_LAUNCH((add_to), 1, 8, 0, blocking, x, 8, 1.0f);
    LAM_LAUNCH((scale_by), 1, 8, 0, nullptr, x, 8, 5.0f);
    REQUIRE(host(x, 8)[0] == 20.0f);
    finish();
}

static void set_to_seven(void *value) { *static_cast<int *>(value) = 7; }
static void host_functions(void) {
    static int value;
    cudaStream_t stream = new_stream();
    WORKS(cudaLaunchHostFunc(stream, set_to_seven, &value));
    REQUIRE(value == 0);
    WORKS(cudaStreamSynchronize(stream));
    REQUIRE(value == 7);
}

static void pageable_and_pinned(void) {
    cudaStream_t stream = new_stream();
    std::vector<float> pageable(8, 1.0f);
    float *x = device<float>(8), *pinned;
    WORKS(cudaMemcpyAsync(x, pageable.data(), 32, cudaMemcpyHostToDevice, stream));
    pageable.assign(8, 2.0f);
    WORKS(cudaMallocHost(&pinned, 32));
    WORKS(cudaMemcpyAsync(pinned, x, 32, cudaMemcpyDeviceToHost, stream));
    REQUIRE(isnan(pinned[0]));
    WORKS(cudaStreamSynchronize(stream));
    REQUIRE(pinned[0] == 1.0f && pinned[7] == 1.0f);
    WORKS(cudaMemcpyAsync(pageable.data(), x, 32, cudaMemcpyDeviceToHost, stream));
    REQUIRE(pageable[7] == 1.0f);
    WORKS(cudaFreeHost(pinned));
}
static void pinned_overwritten(void) {
    cudaStream_t stream = new_stream();
    float *x = device<float>(8), *pinned;
    WORKS(cudaMallocHost(&pinned, 32));
    memset(pinned, 0, 32);
    WORKS(cudaMemcpyAsync(x, pinned, 32, cudaMemcpyHostToDevice, stream));
    pinned[3] = 5.0f;
    WORKS(cudaStreamSynchronize(stream));
}

/* x = (x + 1) * 3 on one stream, y the sum of both on another one, captured and replayed. */
static void graphs(void) {
    cudaStream_t first = new_stream(), second = new_stream();
    cudaEvent_t fork = new_event(), join = new_event();
    float *x = device(std::vector<float>(100, 1.0f)), *y = device(std::vector<float>(100, 0.0f));
    cudaGraph_t graph;
    cudaGraphExec_t executable;
    size_t count = 0;
    WORKS(cudaStreamBeginCapture(first, cudaStreamCaptureModeThreadLocal));
    LAM_LAUNCH((add_to), 1, 100, 0, first, x, 100, 1.0f);
    WORKS(cudaEventRecord(fork, first));
    WORKS(cudaStreamWaitEvent(second, fork, 0));
    LAM_LAUNCH((add_to), 1, 100, 0, second, y, 100, 1.0f);
    LAM_LAUNCH((scale_by), 1, 100, 0, first, x, 100, 3.0f);
    WORKS(cudaEventRecord(join, second));
    WORKS(cudaStreamWaitEvent(first, join, 0));
    LAM_LAUNCH((scale_by), 1, 100, 0, first, y, 100, 2.0f);
    WORKS(cudaStreamEndCapture(first, &graph));
    WORKS(cudaGraphGetNodes(graph, nullptr, &count));
    REQUIRE(count == 4);
    WORKS(cudaGraphInstantiate(&executable, graph, 0));
    WORKS(cudaGraphDestroy(graph));
    REQUIRE(host(x, 100)[0] == 1.0f);
    for (int i = 0; i < 2; i++) WORKS(cudaGraphLaunch(executable, first));
    WORKS(cudaStreamSynchronize(first));
    WORKS(cudaGraphExecDestroy(executable));
    REQUIRE(host(x, 100)[99] == 21.0f && host(y, 100)[99] == 6.0f);
    finish();
}

static void refused_captures(void) {
    cudaStream_t first = new_stream(), second = new_stream();
    cudaEvent_t event = new_event();
    cudaGraph_t graph;
    void *memory;
    float *x = device<float>(8);
    REQUIRE(cudaStreamBeginCapture(nullptr, cudaStreamCaptureModeGlobal) ==
            cudaErrorStreamCaptureUnsupported);
    WORKS(cudaStreamBeginCapture(first, cudaStreamCaptureModeGlobal));
    REQUIRE(cudaStreamSynchronize(first) == cudaErrorStreamCaptureUnsupported);
    REQUIRE(cudaStreamEndCapture(first, &graph) == cudaErrorStreamCaptureInvalidated && !graph);
    WORKS(cudaStreamBeginCapture(first, cudaStreamCaptureModeThreadLocal));
    REQUIRE(cudaMalloc(&memory, 8) == cudaErrorStreamCaptureUnsupported);
    REQUIRE(cudaStreamEndCapture(first, &graph) == cudaErrorStreamCaptureInvalidated);
    WORKS(cudaStreamBeginCapture(first, cudaStreamCaptureModeThreadLocal));
    float value;
    REQUIRE(cudaMemcpy(&value, x, 4, cudaMemcpyDeviceToHost) != cudaSuccess);
    REQUIRE(cudaStreamEndCapture(first, &graph) == cudaErrorStreamCaptureInvalidated);
    WORKS(cudaStreamBeginCapture(first, cudaStreamCaptureModeRelaxed));
    WORKS(cudaMalloc(&memory, 8));
    WORKS(cudaEventRecord(event, first));
    WORKS(cudaStreamWaitEvent(second, event, 0));
    LAM_LAUNCH((add_to), 1, 8, 0, second, x, 8, 1.0f);
    REQUIRE(cudaEventSynchronize(event) == cudaErrorCapturedEvent);
    REQUIRE(cudaStreamEndCapture(second, &graph) == cudaErrorStreamCaptureUnmatched);
    REQUIRE(cudaStreamEndCapture(first, &graph) == cudaErrorStreamCaptureInvalidated);
    WORKS(cudaStreamBeginCapture(first, cudaStreamCaptureModeRelaxed));
    WORKS(cudaEventRecord(event, first));
    WORKS(cudaStreamWaitEvent(second, event, 0));
    LAM_LAUNCH((add_to), 1, 8, 0, second, x, 8, 1.0f);
    REQUIRE(cudaStreamEndCapture(first, &graph) == cudaErrorStreamCaptureUnjoined);
    WORKS(cudaEventRecord(event, second));
    WORKS(cudaStreamBeginCapture(first, cudaStreamCaptureModeRelaxed));
    REQUIRE(cudaStreamWaitEvent(first, event, 0) == cudaErrorStreamCaptureIsolation);
    REQUIRE(cudaStreamEndCapture(first, &graph) == cudaErrorStreamCaptureInvalidated);
}

__global__ void choose(cudaGraphConditionalHandle branch, cudaGraphConditionalHandle loop, const int *which) {
    cudaGraphSetConditional(branch, static_cast<unsigned>(*which));
    cudaGraphSetConditional(loop, static_cast<unsigned>(*which));
}
__global__ void step_down(cudaGraphConditionalHandle loop, int *left) {
    *left -= 1;
    cudaGraphSetConditional(loop, *left > 0);
}
/* A switch of two bodies and a loop, both decided on the device. */
static void conditional_graphs(void) {
    cudaStream_t stream = new_stream(), inner = new_stream();
    float *x = device(std::vector<float>(8, 1.0f));
    int *which = device(std::vector<int>{1});
    cudaGraph_t graph, captured;
    cudaGraphExec_t executable;
    cudaGraphConditionalHandle branch, loop;
    cudaStreamCaptureStatus status;
    const cudaGraphNode_t *dependencies;
    size_t count;
    WORKS(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    WORKS(cudaStreamGetCaptureInfo(stream, &status, nullptr, &graph, nullptr, nullptr, nullptr));
    WORKS(cudaGraphConditionalHandleCreate(&branch, graph, 0, 0));
    WORKS(cudaGraphConditionalHandleCreate(&loop, graph, 1, cudaGraphCondAssignDefault));
    LAM_LAUNCH((choose), 1, 1, 0, stream, branch, loop, which);
    for (int k = 0; k < 2; k++) {
        cudaGraphNodeParams parameters = {};
        cudaGraphNode_t node;
        parameters.type = cudaGraphNodeTypeConditional;
        parameters.conditional.handle = k ? loop : branch;
        parameters.conditional.type = k ? cudaGraphCondTypeWhile : cudaGraphCondTypeSwitch;
        parameters.conditional.size = k ? 1 : 2;
        WORKS(cudaStreamGetCaptureInfo(stream, &status, nullptr, &graph, &dependencies, nullptr, &count));
        WORKS(cudaGraphAddNode(&node, graph, dependencies, nullptr, count, &parameters));
        for (unsigned body = 0; body < parameters.conditional.size; body++) {
            WORKS(cudaStreamBeginCaptureToGraph(inner, parameters.conditional.phGraph_out[body], nullptr,
                                                nullptr, 0, cudaStreamCaptureModeThreadLocal));
            LAM_LAUNCH((add_to), 1, 8, 0, inner, x, 8, k ? 100.0f : body ? 10.0f : 1.0f);
            if (k) LAM_LAUNCH((step_down), 1, 1, 0, inner, loop, which);
            WORKS(cudaStreamEndCapture(inner, &captured));
        }
        WORKS(
            cudaStreamUpdateCaptureDependencies(stream, &node, nullptr, 1, cudaStreamSetCaptureDependencies));
    }
    WORKS(cudaStreamEndCapture(stream, &graph));
    WORKS(cudaGraphInstantiate(&executable, graph, 0));
    for (int value : {1, 0, 3}) {
        WORKS(cudaMemcpy(which, &value, sizeof value, cudaMemcpyHostToDevice));
        WORKS(cudaGraphLaunch(executable, stream));
        WORKS(cudaStreamSynchronize(stream));
    }
    /* 1: the second body, once round; 0: the first body, no round; 3: no body, three rounds. */
    REQUIRE(host(x, 8)[0] == 1.0f + 10.0f + 100.0f + 1.0f + 300.0f);
    finish();
}

/* ---- mistakes that every build finds ---- */

__global__ void divergent_barrier(int half) {
    if (static_cast<int>(threadIdx.x) < half)
        __syncthreads();
    else
        __syncwarp();
    __shfl_sync(0xffffffffu, 1, 0);
}
static void barrier_not_met(void) {
    LAM_LAUNCH((divergent_barrier), 1, 64, 0, nullptr, 16);
    cudaDeviceSynchronize();
}
__global__ void two_barriers(void) {
    if (threadIdx.x < 32)
        __syncthreads();
    else
        __syncthreads();
}
static void different_barriers(void) {
    LAM_LAUNCH((two_barriers), 1, 64, 0, nullptr);
    cudaDeviceSynchronize();
}
__global__ void lane_stays_away(void) {
    if (threadIdx.x != 5)
        __shfl_sync(0xffffffffu, 1, 0);
    else
        __syncthreads();
}
static void missing_lane(void) {
    LAM_LAUNCH((lane_stays_away), 1, 64, 0, nullptr);
    cudaDeviceSynchronize();
}
__global__ void masks(void) { __shfl_sync(threadIdx.x < 16 ? 0xffffffffu : 0xffff0000u, 1, 16); }
static void different_masks(void) {
    LAM_LAUNCH((masks), 1, 32, 0, nullptr);
    cudaDeviceSynchronize();
}
static void write_past_the_end(void) {
    float *x = device<float>(100);
    WORKS(cudaMemset(x, 0, 400));
    LAM_LAUNCH((add_to), 1, 128, 0, nullptr, x, 101, 1.0f);
    cudaDeviceSynchronize();
}
__global__ void much_shared(float *y) {
    LAM_SHARED(float, big, [12000]);
    LAM_SHARED(float, more, [300]);
    big[threadIdx.x] = more[threadIdx.x] = 1;
    __syncthreads();
    y[threadIdx.x] = big[threadIdx.x] + more[threadIdx.x];
}
static void too_much_shared(void) {
    LAM_LAUNCH((much_shared), 1, 32, 0, nullptr, device<float>(32));
    cudaDeviceSynchronize();
}
static void host_reads_device(void) {
    volatile float *x = device(std::vector<float>(8, 1.0f));
    printf("%g\n", static_cast<double>(x[2]));
}
__global__ void vector_copy(float *y, const float *x) {
    reinterpret_cast<float4 *>(y)[threadIdx.x] = reinterpret_cast<const float4 *>(x)[threadIdx.x];
}
static void misaligned(void) {
    LAM_LAUNCH((vector_copy), 1, 4, 0, nullptr, device<float>(16), device(counting(40)) + 1);
    cudaDeviceSynchronize();
}
__global__ void deep(float *y, int depth) {
    volatile float local[4096];
    for (int i = 0; i < 4096; i++) local[i] = static_cast<float>(depth);
    if (depth) deep(y, depth - 1);
    y[threadIdx.x] = local[threadIdx.x];
}
static void stack_full(void) {
    LAM_LAUNCH((deep), 1, 32, 0, nullptr, device<float>(32), 10);
    cudaDeviceSynchronize();
}
static void copy_too_long(void) {
    float *x = device<float>(8);
    char bytes[64] = "";
    cudaMemcpy(x, bytes, 64, cudaMemcpyHostToDevice);
}
static void handle_not_set(void) {
    cudaGraph_t graph;
    cudaGraphNode_t node;
    cudaGraphExec_t executable;
    cudaGraphNodeParams parameters = {};
    parameters.type = cudaGraphNodeTypeConditional;
    parameters.conditional.type = cudaGraphCondTypeIf;
    parameters.conditional.size = 1;
    WORKS(cudaGraphCreate(&graph, 0));
    WORKS(cudaGraphConditionalHandleCreate(&parameters.conditional.handle, graph, 0, 0));
    WORKS(cudaGraphAddNode(&node, graph, nullptr, nullptr, 0, &parameters));
    WORKS(cudaGraphInstantiate(&executable, graph, 0));
    WORKS(cudaGraphLaunch(executable, nullptr));
    cudaDeviceSynchronize();
}
static void keeps_going(void) {
    LAM_LAUNCH((two_barriers), 1, 64, 0, nullptr);
    REQUIRE(cudaDeviceSynchronize() == cudaErrorLaunchFailure &&
            cudaDeviceSynchronize() == cudaErrorLaunchFailure);
    WORKS(cudaDeviceReset());
    cudaGetLastError();
    sums();
}

/* ---- mistakes that only the checked build finds, or finds better ---- */

static void missing_barrier(void) {
    float *x = device(counting(1024)), *y = device<float>(1024);
    LAM_LAUNCH((transpose), dim3(2, 2), dim3(16, 16), 0, nullptr, x, y, 32, 32, false);
    cudaDeviceSynchronize();
}
__global__ void reads_unwritten(float *y) {
    LAM_SHARED(float, tile, [64]);
    if (threadIdx.x) tile[threadIdx.x] = 1;
    __syncthreads();
    y[threadIdx.x] = tile[63 - threadIdx.x];
}
static void uninitialised_shared(void) {
    LAM_LAUNCH((reads_unwritten), 1, 64, 0, nullptr, device<float>(64));
    cudaDeviceSynchronize();
}
__global__ void shared_overrun(float *y, int index) {
    LAM_SHARED(float, first, [32]);
    LAM_SHARED(float, second, [32]);
    first[threadIdx.x] = second[threadIdx.x] = 1;
    __syncthreads();
    const float *all = first;
    y[threadIdx.x] = all[index] + second[0];
}
static void past_a_shared_array(void) {
    LAM_LAUNCH((shared_overrun), 1, 32, 0, nullptr, device<float>(32), 33);
    cudaDeviceSynchronize();
}
__global__ void row_overrun(float *y, int column) {
    LAM_SHARED(float, tile, [4][8]);
    tile[threadIdx.x / 8][threadIdx.x % 8] = 1;
    __syncthreads();
    y[threadIdx.x] = tile[0][column];
}
static void past_a_row(void) {
    LAM_LAUNCH((row_overrun), 1, 32, 0, nullptr, device<float>(32), 8);
    cudaDeviceSynchronize();
}
static void past_dynamic_shared(void) {
    LAM_LAUNCH((reverse_dynamic), 1, 32, 396, nullptr, device(counting(100)), 100);
    cudaDeviceSynchronize();
}
__global__ void sum_before(float *y, const float *x) {
    y[threadIdx.x] = x[static_cast<int>(threadIdx.x) - 1];
}
static void before_the_start(void) {
    LAM_LAUNCH((sum_before), 1, 32, 0, nullptr, device<float>(32), device(counting(32)));
    cudaDeviceSynchronize();
}
static void use_after_free(void) {
    float *x = device(counting(32)), *y = device<float>(32);
    WORKS(cudaFree(x));
    LAM_LAUNCH((sum_before), 1, 32, 0, nullptr, y, x + 1);
    cudaDeviceSynchronize();
}
static void host_pointer(void) {
    std::vector<float> x = counting(64);
    LAM_LAUNCH((sum_before), 1, 32, 0, nullptr, device<float>(32), x.data() + 1);
    cudaDeviceSynchronize();
}
__global__ void same_place(float *y, int blocks_apart) {
    y[blockIdx.x * blocks_apart] = static_cast<float>(blockIdx.x);
}
static void blocks_collide(void) {
    LAM_LAUNCH((same_place), 3, 1, 0, nullptr, device<float>(4), 0);
    cudaDeviceSynchronize();
}
__global__ void neighbour(float *x) { x[blockIdx.x] = x[(blockIdx.x + 1) % gridDim.x] + 1; }
static void blocks_read_others(void) {
    LAM_LAUNCH((neighbour), 4, 1, 0, nullptr, device(counting(4)));
    cudaDeviceSynchronize();
}
__global__ void everyone_writes(float *y) { y[threadIdx.x % 32] = 1; }
static void warps_collide(void) {
    LAM_LAUNCH((everyone_writes), 1, 64, 0, nullptr, device<float>(32));
    cudaDeviceSynchronize();
}
/* Neighbours in a warp change places through shared memory. */
__global__ void through_shared(float *y, unsigned mask) {
    LAM_SHARED(float, tile, [32]);
    tile[threadIdx.x] = static_cast<float>(threadIdx.x);
    if (mask == 1)
        __shfl_sync(0xffffffffu, 1, 0);
    else if (mask == 2)
        __syncwarp(3u << (threadIdx.x & 30u));
    else
        __syncwarp();
    y[threadIdx.x] = tile[threadIdx.x ^ 1];
}
static void lanes_collide(void) {
    LAM_LAUNCH((through_shared), 1, 32, 0, nullptr, device<float>(32), 1u);
    cudaDeviceSynchronize();
}
static void lanes_in_order(void) {
    float *y = device<float>(32);
    for (unsigned mask : {2u, 0u}) {
        LAM_LAUNCH((through_shared), 1, 32, 0, nullptr, y, mask);
        REQUIRE(host(y, 32)[6] == 7.0f);
    }
    finish();
}
__global__ void counts_and_reads(int *counter, int *y) {
    atomicAdd(counter, 1);
    y[threadIdx.x] = *counter;
}
static void atomic_and_plain(void) {
    LAM_LAUNCH((counts_and_reads), 1, 32, 0, nullptr, device(std::vector<int>(1)), device<int>(32));
    cudaDeviceSynchronize();
}
static void atomics(void) {
    int *counter = device(std::vector<int>(1));
    LAM_LAUNCH((count_up), 5, 40, 0, nullptr, counter);
    REQUIRE(host(counter, 1)[0] == 200);
    finish();
}
static void never_written(void) {
    LAM_LAUNCH((scale_by), 1, 8, 0, nullptr, device<float>(8), 8, 2.0f);
    cudaDeviceSynchronize();
}
/* Two branches of a graph that both change x. */
static void graph_without_edge(void) {
    cudaStream_t first = new_stream(), second = new_stream();
    cudaEvent_t fork = new_event(), join = new_event();
    float *x = device(std::vector<float>(8, 1.0f));
    cudaGraph_t graph;
    cudaGraphExec_t executable;
    WORKS(cudaStreamBeginCapture(first, cudaStreamCaptureModeThreadLocal));
    WORKS(cudaEventRecord(fork, first));
    WORKS(cudaStreamWaitEvent(second, fork, 0));
    LAM_LAUNCH((add_to), 1, 8, 0, second, x, 8, 1.0f);
    LAM_LAUNCH((scale_by), 1, 8, 0, first, x, 8, 3.0f);
    WORKS(cudaEventRecord(join, second));
    WORKS(cudaStreamWaitEvent(first, join, 0));
    WORKS(cudaStreamEndCapture(first, &graph));
    WORKS(cudaGraphInstantiate(&executable, graph, 0));
    WORKS(cudaGraphLaunch(executable, first));
    cudaDeviceSynchronize();
}

/* ---- the list ---- */

struct test_case {
    const char *name;
    void (*run)(void);
    const char *says; /* part of what stderr must hold, NULL: nothing, and the child succeeds */
    const char *variable, *value;
    int builds; /* bit 0: as it is, bit 1: checked */
};
static const test_case cases[] = {
    {"sums", sums, nullptr, nullptr, nullptr, 3},
    {"sums", sums, nullptr, "LAMELLA_EMULATION_ORDER", "reversed", 3},
    {"sums", sums, nullptr, "LAMELLA_EMULATION_ORDER", "shuffled", 3},
    {"transposes", transposes, nullptr, nullptr, nullptr, 3},
    {"transposes", transposes, nullptr, "LAMELLA_EMULATION_ORDER", "shuffled", 3},
    {"dynamic shared memory", dynamic_shared, nullptr, nullptr, nullptr, 3},
    {"products", products, nullptr, nullptr, nullptr, 3},
    {"products", products, nullptr, "LAMELLA_EMULATION_ORDER", "shuffled", 3},
    {"refused launches", refused_launches, nullptr, nullptr, nullptr, 3},
    {"ordered streams", ordered_streams, nullptr, nullptr, nullptr, 3},
    {"ordered streams", ordered_streams, nullptr, "LAMELLA_EMULATION_STREAMS", "lazy", 3},
    {"ordered streams", ordered_streams, nullptr, "LAMELLA_EMULATION_STREAMS", "shuffled", 3},
    {"ordered streams", ordered_streams, nullptr, "LAMELLA_EMULATION_STREAMS", "eager", 3},
    {"events", events, nullptr, nullptr, nullptr, 3},
    {"legacy stream", legacy_stream, nullptr, nullptr, nullptr, 3},
    {"host functions", host_functions, nullptr, nullptr, nullptr, 3},
    {"pageable and pinned memory", pageable_and_pinned, nullptr, nullptr, nullptr, 3},
    {"graphs", graphs, nullptr, nullptr, nullptr, 3},
    {"graphs", graphs, nullptr, "LAMELLA_EMULATION_STREAMS", "shuffled", 3},
    {"refused captures", refused_captures, nullptr, nullptr, nullptr, 3},
    {"conditional graphs", conditional_graphs, nullptr, nullptr, nullptr, 3},
    {"keeps going", keeps_going, "two_barriers): barrier not met", "LAMELLA_EMULATION_KEEP_GOING", "1", 3},
    {"barrier not met", barrier_not_met, "lanes 0x0000ffff are missing (lane 0: __syncthreads)", nullptr,
     nullptr, 3},
    {"different barriers", different_barriers, "barrier not met by all threads: some wait at", nullptr,
     nullptr, 3},
    {"missing lane", missing_lane, "__shfl_sync: not met by all lanes of mask 0xffffffff: lanes 0x00000020",
     nullptr, nullptr, 3},
    {"different masks", different_masks, "lanes give different masks", nullptr, nullptr, 3},
    {"write past the end", write_past_the_end, "past the end of the allocation of 400 bytes", nullptr,
     nullptr, 3},
    {"too much shared memory", too_much_shared, "static shared memory with more, more than 48 KiB", nullptr,
     nullptr, 3},
    {"host reads device memory", host_reads_device, "host code touches device memory", nullptr, nullptr, 3},
    {"misaligned", misaligned, "(vector_copy): misaligned", nullptr, nullptr, 3},
    {"stack full", stack_full, "the stack of a thread is full", nullptr, nullptr, 3},
    {"copy too long", copy_too_long, "copy to the device: out of bounds: writes 64 bytes", nullptr, nullptr,
     3},
    {"handle not set", handle_not_set, "reads a handle that no kernel has set", nullptr, nullptr, 3},
    {"pinned memory overwritten", pinned_overwritten, "pinned memory was changed before the copy", nullptr,
     nullptr, 3},
    {"asynchronous copies", asynchronous_copies, nullptr, nullptr, nullptr, 3},
    {"missing event, read too early", missing_event_forth, "not so: ordered(false, true)", nullptr, nullptr,
     1},
    {"missing event, written too early", missing_event_back, "not so: ordered(true, false)",
     "LAMELLA_EMULATION_STREAMS", "lazy", 1},
    {"missing event, read too early", missing_event_forth, "race between streams: writes", nullptr, nullptr,
     2},
    {"missing event, read too early", missing_event_forth, "race between streams: reads",
     "LAMELLA_EMULATION_STREAMS", "eager", 2},
    {"missing event, written too early", missing_event_back, "race between streams", nullptr, nullptr, 2},
    {"missing event, written too early", missing_event_back, "race between streams",
     "LAMELLA_EMULATION_STREAMS", "lazy", 2},
    {"graph without edge", graph_without_edge, "race between streams", nullptr, nullptr, 2},
    {"copy not waited for", copy_not_waited_for, nullptr, nullptr, nullptr, 1},
    {"copy not waited for", copy_not_waited_for, "an asynchronous copy has not brought yet", nullptr, nullptr,
     2},
    {"missing barrier", missing_barrier, "not initialised: byte", nullptr, nullptr, 2},
    {"uninitialised shared memory", uninitialised_shared,
     "reads shared memory that is not initialised: byte 0 of shared array tile", nullptr, nullptr, 2},
    {"past a shared array", past_a_shared_array,
     "132 bytes after the start of shared array first of 128 bytes", nullptr, nullptr, 2},
    {"past a row", past_a_row, "out of bounds: index 8 of", nullptr, nullptr, 2},
    {"past dynamic shared memory", past_dynamic_shared,
     "396 bytes after the start of shared array of dynamic size", nullptr, nullptr, 2},
    {"before the start", before_the_start, "4 bytes before the allocation of 128 bytes", nullptr, nullptr, 2},
    {"use after free", use_after_free, "out of bounds: reads 4 bytes", nullptr, nullptr, 2},
    {"host pointer", host_pointer, "which is memory of the host", nullptr, nullptr, 2},
    {"blocks collide", blocks_collide, "race between blocks: writes", nullptr, nullptr, 2},
    {"blocks read what others write", blocks_read_others, "race between blocks", nullptr, nullptr, 2},
    {"warps collide", warps_collide, "race: writes", nullptr, nullptr, 2},
    {"lanes collide", lanes_collide, "race: reads", nullptr, nullptr, 2},
    {"lanes in order", lanes_in_order, nullptr, nullptr, nullptr, 3},
    {"atomic and plain", atomic_and_plain, "race: ", nullptr, nullptr, 2},
    {"atomics", atomics, nullptr, nullptr, nullptr, 3},
    {"never written", never_written, "was never written", "LAMELLA_EMULATION_UNINITIALISED", "1", 2},
    {"never written", never_written, nullptr, nullptr, nullptr, 3},
};

/* What the child writes to stderr; its status. */
static std::string child(const test_case &one, int *status) {
    int ends[2];
    if (pipe(ends)) abort();
    fflush(stdout);
    pid_t pid = fork();
    if (!pid) {
        dup2(ends[1], 2);
        close(ends[0]);
        if (one.variable) setenv(one.variable, one.value, 1);
        one.run();
        exit(0);
    }
    close(ends[1]);
    std::string text;
    char buffer[4096];
    for (ssize_t got; (got = read(ends[0], buffer, sizeof buffer)) > 0;)
        text.append(buffer, static_cast<size_t>(got));
    close(ends[0]);
    waitpid(pid, status, 0);
    return text;
}

static double now(void) { /* of this process alone: others may be busy */
    timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

__global__ void many_barriers(int count) {
    for (int i = 0; i < count; i++) __syncthreads();
}
__global__ void many_shuffles(float *y, int count) {
    float value = static_cast<float>(threadIdx.x);
    for (int i = 0; i < count; i++) value += __shfl_xor_sync(0xffffffffu, value, 1);
    y[threadIdx.x] = value;
}
/* What the emulation itself costs. */
static void measure(void) {
    float *y = device<float>(1024);
    double start = now();
    LAM_LAUNCH((many_barriers), 1, 256, 0, nullptr, 10000);
    finish();
    printf("barrier     %6.1f ns a thread (256 threads)\n", (now() - start) / 2.56e6 * 1e9);
    start = now();
    LAM_LAUNCH((many_shuffles), 1, 256, 0, nullptr, y, 10000);
    finish();
    printf("shuffle     %6.1f ns a thread (256 threads)\n", (now() - start) / 2.56e6 * 1e9);
    start = now();
    LAM_LAUNCH((nothing), 10000, 256, 0, nullptr);
    finish();
    printf("thread      %6.1f ns (256 a block, no barriers)\n", (now() - start) / 2.56e6 * 1e9);
    start = now();
    for (int i = 0; i < 100000; i++) LAM_LAUNCH((nothing), 1, 1, 0, nullptr);
    finish();
    printf("launch      %6.1f ns (one thread)\n", (now() - start) / 1e5 * 1e9);
    float *x = device(std::vector<float>(1 << 20, 1.0f));
    start = now();
    LAM_LAUNCH((scale_by), 4096, 256, 0, nullptr, x, 1 << 20, 2.0f);
    finish();
    printf("x *= 2      %6.1f ns an element\n", (now() - start) / (1 << 20) * 1e9);
    start = now();
    for (int i = 0; i < 10000; i++) {
        LAM_LAUNCH((nothing), 1, 1, 0, nullptr);
        WORKS(cudaStreamSynchronize(nullptr));
    }
    printf("synchronise %6.1f ns (with a launch)\n", (now() - start) / 1e4 * 1e9);
}

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "measure") == 0) return measure(), 0;
    int failed = 0, count = 0;
    for (const test_case &one : cases) {
        if (!(one.builds & (is_checked ? 2 : 1)) || (argc > 1 && strcmp(argv[1], one.name) != 0)) continue;
        int status = 0;
        std::string text = child(one, &status);
        bool good = one.says ? text.find(one.says) != std::string::npos : text.empty() && status == 0;
        count++;
        if (good) continue;
        failed++;
        printf("%s%s%s: %s, status %d, stderr: %s\n", one.name, one.value ? ", " : "",
               one.value ? one.value : "", one.says ? one.says : "not right", status, text.c_str());
    }
    printf("%d of %d cases of the emulator%s\n", count - failed, count,
           is_checked ? ", every access checked" : "");
    return failed != 0;
}
