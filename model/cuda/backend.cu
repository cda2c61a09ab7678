/* The CUDA backend: memory, streams, errors, and the tables of kernels and operations (model/internal.h, lam_backend).
 *
 * One process drives one device. Work goes to one stream; what is sent from pinned memory has a stream of its own, so that the
 * inputs of the next step arrive behind the running one. Its kernels set single numbers: one thread, at most 32 registers. */
#include <string.h>

#include <cstdio>

#include "model/cuda/backend.cuh"

struct lam_recording {
    cudaGraphExec_t executable;
};

namespace {

enum { MOST_CHOICES = 8 };

struct state {
    int device;
    cudaDeviceProp properties;
    cudaStream_t stream, copies, alternative;
    cudaStream_t current; /* stream, or while an alternative of a recording is given, that */
    cudaGraph_t bodies[MOST_CHOICES];
    bool in_body;
    cudaEvent_t marks[LAM_BACKEND_MARKS];
    cudaEvent_t sent, taken; /* inputs have left the host; have been taken from where they arrive */
    int64_t *step;
    void *workspace;
    cudaError_t error;
    char failed[256];
    char name[320];
} the;

const size_t WORKSPACE_BYTES = (size_t)32 << 20; /* what NVIDIA recommends for cuBLAS on Hopper */

lam_status failed(cudaError_t error, const char *what) {
    cudaGetLastError();
    LAM_FAIL(error == cudaErrorMemoryAllocation ? LAM_ERROR_MEMORY : LAM_ERROR_EXTERNAL, "CUDA: %s: %s", what,
             cudaGetErrorString(error));
}

#define TRY_CUDA(call)                                                                                       \
    do {                                                                                                     \
        cudaError_t try_error = (call);                                                                      \
        if (try_error != cudaSuccess) return failed(try_error, #call);                                       \
    } while (0)

/* ---- memory ---- */

lam_status allocate(void **out, size_t bytes) {
    *out = NULL;
    cudaError_t error = cudaMalloc(out, bytes ? bytes : 1);
    if (error == cudaSuccess) return LAM_OK;
    size_t free = 0, total = 0;
    cudaGetLastError();
    if (error != cudaErrorMemoryAllocation) return failed(error, "cudaMalloc");
    cudaMemGetInfo(&free, &total);
    LAM_FAIL(LAM_ERROR_MEMORY, "%s has %.1f MiB of %.1f MiB free, %.1f MiB are asked for", the.properties.name,
             (double)free / 1048576, (double)total / 1048576, (double)bytes / 1048576);
}

void release(void *memory) { cudaFree(memory); }

lam_status allocate_pinned(void **out, size_t bytes) {
    *out = NULL;
    cudaError_t error = cudaMallocHost(out, bytes);
    if (error == cudaSuccess) return LAM_OK;
    cudaGetLastError();
    if (error != cudaErrorMemoryAllocation) return failed(error, "cudaMallocHost");
    LAM_FAIL(LAM_ERROR_MEMORY, "the host has no %.1f MiB that %s can copy from (pinned memory)",
             (double)bytes / 1048576, the.properties.name);
}

void release_pinned(void *memory) { cudaFreeHost(memory); }

lam_status read(void *host, const void *device, size_t bytes) {
    TRY_CUDA(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, the.stream));
    TRY_CUDA(cudaStreamSynchronize(the.stream));
    return LAM_OK;
}

lam_status write(void *device, const void *host, size_t bytes) {
    TRY_CUDA(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, the.stream));
    TRY_CUDA(cudaStreamSynchronize(the.stream)); /* pinned bytes would be read later */
    return LAM_OK;
}

lam_status send(void *device, const void *pinned, size_t bytes) {
    TRY_CUDA(cudaStreamWaitEvent(the.copies, the.taken, 0));
    TRY_CUDA(cudaMemcpyAsync(device, pinned, bytes, cudaMemcpyHostToDevice, the.copies));
    TRY_CUDA(cudaEventRecord(the.sent, the.copies));
    TRY_CUDA(cudaStreamWaitEvent(the.stream, the.sent, 0));
    return LAM_OK;
}

lam_status taken(void) {
    TRY_CUDA(cudaEventRecord(the.taken, the.stream));
    return LAM_OK;
}

lam_status sent(void) {
    TRY_CUDA(cudaEventSynchronize(the.sent));
    return LAM_OK;
}

/* As an argument: a copy from memory that is not pinned may wait for the stream. */
__global__ void set_number(int64_t *to, int64_t value) { *to = value; }
void set_step(int64_t step) { LAM_LAUNCH((set_number), 1, 1, 0, the.stream, the.step, step); }

lam_status mark(int slot) {
    TRY_CUDA(cudaEventRecord(the.marks[slot], the.stream));
    return LAM_OK;
}

lam_status reached(int slot, bool *yes) {
    cudaError_t error = cudaEventQuery(the.marks[slot]);
    *yes = error == cudaSuccess;
    return *yes || error == cudaErrorNotReady ? LAM_OK : failed(error, "a step");
}

lam_status await(int slot) {
    TRY_CUDA(cudaEventSynchronize(the.marks[slot]));
    return LAM_OK;
}

void *stream(void) { return the.current; }

/* ---- errors ---- */

lam_status synchronise(void) {
    TRY_CUDA(cudaStreamSynchronize(the.stream));
    return LAM_OK;
}

lam_status take_error(void) {
    if (the.error == cudaSuccess) return LAM_OK;
    cudaError_t error = the.error;
    the.error = cudaSuccess;
    return failed(error, the.failed);
}

/* ---- kernels ---- */

void fill(void *to, int byte, size_t bytes) {
    lam_cuda_launched(cudaMemsetAsync(to, byte, bytes, the.current), "memset");
}
void copy(void *to, const void *from, size_t bytes) {
    lam_cuda_launched(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, the.current), "memcpy");
}

__global__ void set_one(float *to, float value) { *to = value; }
void set(float *to, float value) { LAM_LAUNCH((set_one), 1, 1, 0, the.current, to, value); }

/* ---- recordings ---- */

lam_status record(void) {
    TRY_CUDA(cudaStreamBeginCapture(the.stream, cudaStreamCaptureModeThreadLocal));
    return LAM_OK;
}

lam_status recorded(lam_recording **out) {
    cudaGraph_t graph;
    *out = NULL;
    TRY_CUDA(cudaStreamEndCapture(the.stream, &graph));
    lam_recording *made = new lam_recording();
    cudaError_t error = cudaGraphInstantiate(&made->executable, graph, 0);
    cudaGraphDestroy(graph);
    if (error == cudaSuccess) error = cudaGraphUpload(made->executable, the.stream);
    if (error != cudaSuccess) {
        delete made;
        return failed(error, "cudaGraphInstantiate");
    }
    *out = made;
    return take_error();
}

lam_status replay(lam_recording *recording) {
    TRY_CUDA(cudaGraphLaunch(recording->executable, the.stream));
    return LAM_OK;
}

void forget(lam_recording *recording) {
    cudaStreamSynchronize(the.stream);
    cudaGraphExecDestroy(recording->executable);
    delete recording;
}

struct limits_of_choices {
    int64_t limit[MOST_CHOICES];
    int count;
};

__global__ void choose_alternative(const int64_t *value, limits_of_choices limits,
                                   cudaGraphConditionalHandle handle) {
    int k = 0;
    while (k < limits.count - 1 && limits.limit[k] < *value) k++;
    cudaGraphSetConditional(handle, (unsigned)k);
}

lam_status choose(const int64_t *value, const int64_t *limits, int count) {
    cudaStreamCaptureStatus status;
    cudaGraph_t graph;
    const cudaGraphNode_t *before;
    size_t how_many;
    cudaGraphConditionalHandle handle;
    cudaGraphNode_t node;
    limits_of_choices all = {{0}, count};
    memcpy(all.limit, limits, (size_t)count * sizeof *limits);
    TRY_CUDA(cudaStreamGetCaptureInfo(the.stream, &status, NULL, &graph, NULL, NULL, NULL));
    TRY_CUDA(cudaGraphConditionalHandleCreate(&handle, graph, 0, 0));
    LAM_LAUNCH((choose_alternative), 1, 1, 0, the.stream, value, all, handle);
    TRY_CUDA(cudaStreamGetCaptureInfo(the.stream, &status, NULL, &graph, &before, NULL, &how_many));
    cudaGraphNodeParams conditional = {};
    conditional.type = cudaGraphNodeTypeConditional;
    conditional.conditional.handle = handle;
    conditional.conditional.type = cudaGraphCondTypeSwitch;
    conditional.conditional.size = (unsigned)count;
    TRY_CUDA(cudaGraphAddNode(&node, graph, before, NULL, how_many, &conditional));
    for (int k = 0; k < count; k++) the.bodies[k] = conditional.conditional.phGraph_out[k];
    TRY_CUDA(cudaStreamUpdateCaptureDependencies(the.stream, &node, NULL, 1, cudaStreamSetCaptureDependencies));
    return LAM_OK;
}

lam_status chosen(void) {
    cudaGraph_t body;
    the.current = the.stream;
    if (the.in_body) TRY_CUDA(cudaStreamEndCapture(the.alternative, &body));
    the.in_body = false;
    return LAM_OK;
}

lam_status choice(int k) {
    LAM_TRY(chosen());
    TRY_CUDA(cudaStreamBeginCaptureToGraph(the.alternative, the.bodies[k], NULL, NULL, 0,
                                           cudaStreamCaptureModeThreadLocal));
    the.in_body = true;
    the.current = the.alternative;
    return LAM_OK;
}

/* ---- tables ---- */

lam_kernels tables[2];

const lam_kernels *kernels(bool bf16) { return &tables[bf16]; }

void fill_tables(void) {
    static lam_cuda_fill *const fills[] = {lam_cuda_fill_elementwise, lam_cuda_fill_norm,     lam_cuda_fill_tokens,
                                            lam_cuda_fill_partial,     lam_cuda_fill_channels,
                                            lam_cuda_fill_attention,   NULL};
    for (lam_kernels &table : tables) {
        table.name = "cuda";
        table.fill = fill;
        table.copy = copy;
        table.set = set;
    }
    for (int i = 0; fills[i]; i++) fills[i](&tables[0], &tables[1]);
}

const lam_op_functions *find(const char *op) {
    static const lam_op_functions *const lists[] = {lam_cuda_linear_ops, lam_cuda_patches_ops, lam_cuda_mask_ops,
                                                    lam_cuda_loss_ops, lam_cuda_fourier_ops, lam_cuda_depth_ops, lam_cuda_attention_ops, lam_cuda_norm_ops,
                                                    NULL};
    for (int i = 0; lists[i]; i++)
        for (const lam_op_functions *one = lists[i]; one->name; one++)
            if (!strcmp(one->name, op)) return one;
    return NULL;
}

/* ---- the device ---- */

const char *device_name(void) { return the.name; }
void memory(size_t *free, size_t *total) { cudaMemGetInfo(free, total); }

lam_status choose(int device) {
    int count = 0, driver = 0, runtime = 0;
    TRY_CUDA(cudaDriverGetVersion(&driver));
    TRY_CUDA(cudaRuntimeGetVersion(&runtime));
    if (!driver)
        LAM_FAIL(LAM_ERROR_EXTERNAL, "--device cuda: no GPU can be used here: there is no NVIDIA driver (libcuda.so.1); "
                                     "use --device cpu");
    if (driver < runtime)
        LAM_FAIL(LAM_ERROR_EXTERNAL,
                 "--device cuda: the driver knows CUDA %d.%d, this build needs %d.%d; update the driver or use --device cpu",
                 driver / 1000, driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
    cudaError_t error = cudaGetDeviceCount(&count);
    if (error != cudaSuccess || count == 0) {
        cudaGetLastError();
        LAM_FAIL(LAM_ERROR_EXTERNAL, "--device cuda: no GPU can be used here: %s; use --device cpu",
                 error == cudaSuccess ? "there is none" : cudaGetErrorString(error));
    }
    the.device = device % count;
    TRY_CUDA(cudaSetDevice(the.device));
    TRY_CUDA(cudaGetDeviceProperties(&the.properties, the.device));
    cudaFuncAttributes attributes;
    error = cudaFuncGetAttributes(&attributes, (const void *)set_one);
    if (error != cudaSuccess) {
        cudaGetLastError();
        LAM_FAIL(LAM_ERROR_EXTERNAL,
                 "--device cuda: this build has no kernels for %s (compute capability %d.%d); build it with "
                 "-DLAM_CUDA_ARCHITECTURES=%d%d or use --device cpu",
                 the.properties.name, the.properties.major, the.properties.minor, the.properties.major,
                 the.properties.minor);
    }
    snprintf(the.name, sizeof the.name, "%s, CUDA %d.%d", the.properties.name, runtime / 1000,
             runtime % 1000 / 10);
    return LAM_OK;
}

lam_status open(void) {
    TRY_CUDA(cudaStreamCreateWithFlags(&the.stream, cudaStreamNonBlocking));
    TRY_CUDA(cudaStreamCreateWithFlags(&the.copies, cudaStreamNonBlocking));
    TRY_CUDA(cudaStreamCreateWithFlags(&the.alternative, cudaStreamNonBlocking));
    the.current = the.stream;
    TRY_CUDA(cudaEventCreateWithFlags(&the.sent, cudaEventDisableTiming));
    TRY_CUDA(cudaEventCreateWithFlags(&the.taken, cudaEventDisableTiming));
    for (cudaEvent_t &event : the.marks)
        TRY_CUDA(cudaEventCreateWithFlags(&event, cudaEventDisableTiming | cudaEventBlockingSync));
    TRY_CUDA(cudaMalloc((void **)&the.step, sizeof *the.step));
    TRY_CUDA(cudaMemsetAsync(the.step, 0, sizeof *the.step, the.stream));
    LAM_TRY(allocate(&the.workspace, WORKSPACE_BYTES));
    fill_tables();
    return LAM_OK;
}

} // namespace

void lam_cuda_launched(cudaError_t error, const char *what) {
    if (error == cudaSuccess || the.error != cudaSuccess) return;
    the.error = error;
    snprintf(the.failed, sizeof the.failed, "%s", what);
}

cudaStream_t lam_cuda_stream(void) { return the.current; }
const int64_t *lam_cuda_step(void) { return the.step; }
const cudaDeviceProp *lam_cuda_properties(void) { return &the.properties; }
void *lam_cuda_workspace(size_t *bytes) {
    *bytes = WORKSPACE_BYTES;
    return the.workspace;
}

extern "C" lam_status lam_cuda_open(const lam_backend **out, int device) {
    static lam_backend backend;
    LAM_TRY(choose(device));
    LAM_TRY(open());
    backend.name = "cuda";
    backend.alignment = 256;
    backend.kernels = kernels;
    backend.find = find;
    backend.allocate = allocate;
    backend.release = release;
    backend.allocate_pinned = allocate_pinned;
    backend.release_pinned = release_pinned;
    backend.read = read;
    backend.write = write;
    backend.synchronise = synchronise;
    backend.error = take_error;
    backend.send = send;
    backend.taken = taken;
    backend.sent = sent;
    backend.record = record;
    backend.recorded = recorded;
    backend.replay = replay;
    backend.forget = forget;
    backend.stream = stream;
    backend.mark = mark;
    backend.reached = reached;
    backend.await = await;
    backend.choose = choose;
    backend.choice = choice;
    backend.chosen = chosen;
    backend.set_step = set_step;
    backend.prepare = lam_cuda_prepare;
    backend.device = device_name;
    backend.memory = memory;
    *out = &backend;
    return LAM_OK;
}
