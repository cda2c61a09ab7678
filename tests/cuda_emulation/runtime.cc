/* The runtime: memory, streams, events, launches. */
#include "emulator.h"
#include <stdio.h>
#include <stdlib.h>

static cudaError_t last_error;
static cudaError_t remember(cudaError_t error) {
    if (error != cudaSuccess) last_error = error;
    return error;
}

cudaError_t lam_emulated_launch(const lam_emulated_call *call, const void *arguments, size_t) {
    const int64_t *g = call->grid, *b = call->block;
    static const int64_t grid_most[3] = {0x7fffffff, 65535, 65535}, block_most[3] = {1024, 1024, 64};
    for (int i = 0; i < 3; i++)
        if (g[i] < 1 || g[i] > grid_most[i] || b[i] < 1 || b[i] > block_most[i])
            return remember(cudaErrorInvalidConfiguration);
    if (b[0] * b[1] * b[2] > 1024) return remember(cudaErrorInvalidConfiguration);
    int limit = lam_emulated_shared_limit(call->function), most = limit ? limit : static_cast<int>(LAM_SHARED_DEFAULT);
    if (call->shared_bytes > static_cast<size_t>(most)) return remember(cudaErrorInvalidValue);
    return lam_emulated_run(call, arguments) ? cudaSuccess : remember(cudaErrorLaunchFailure);
}

cudaError_t lam_emulated_enqueue(cudaStream_t, const char *what, void (*run)(void *), const void *argument,
                                 size_t bytes) {
    alignas(16) unsigned char copy[LAM_EMULATED_ARGUMENT_BYTES];
    if (bytes > sizeof copy) return remember(cudaErrorInvalidValue);
    memcpy(copy, argument, bytes);
    lam_emulated_work = what;
    run(copy);
    lam_emulated_work = nullptr;
    return cudaSuccess;
}
void lam_emulated_range(const void *, size_t, bool) {}

extern "C" {

const char *cudaGetErrorName(cudaError_t) { return "cudaError"; }
const char *cudaGetErrorString(cudaError_t) { return "error of the emulated runtime"; }
cudaError_t cudaGetLastError(void) {
    cudaError_t error = last_error;
    last_error = cudaSuccess;
    return error;
}
cudaError_t cudaPeekAtLastError(void) { return last_error; }

cudaError_t cudaGetDeviceCount(int *count) { return *count = 1, cudaSuccess; }
cudaError_t cudaSetDevice(int device) { return device ? remember(cudaErrorInvalidDevice) : cudaSuccess; }
cudaError_t cudaGetDevice(int *device) { return *device = 0, cudaSuccess; }
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int) {
    memset(p, 0, sizeof *p);
    snprintf(p->name, sizeof p->name, "emulated device");
    p->major = 9, p->multiProcessorCount = 4, p->totalGlobalMem = lam_emulated_setting().memory;
    p->warpSize = 32, p->sharedMemPerBlock = LAM_SHARED_DEFAULT, p->sharedMemPerBlockOptin = LAM_SHARED_MOST;
    return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize(void) { return cudaSuccess; }
cudaError_t cudaDriverGetVersion(int *version) { return *version = CUDART_VERSION, cudaSuccess; }
cudaError_t cudaRuntimeGetVersion(int *version) { return *version = CUDART_VERSION, cudaSuccess; }
cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total) {
    return *free_bytes = *total = lam_emulated_setting().memory, cudaSuccess;
}

cudaError_t cudaMalloc(void **pointer, size_t bytes) {
    *pointer = aligned_alloc(256, (bytes + 255) / 256 * 256);
    memset(*pointer, 0xff, bytes);
    return cudaSuccess;
}
cudaError_t cudaFree(void *pointer) { return free(pointer), cudaSuccess; }
cudaError_t cudaMallocHost(void **pointer, size_t bytes) { return cudaMalloc(pointer, bytes); }
cudaError_t cudaHostAlloc(void **pointer, size_t bytes, unsigned) { return cudaMalloc(pointer, bytes); }
cudaError_t cudaFreeHost(void *pointer) { return cudaFree(pointer); }
cudaError_t cudaMemcpy(void *target, const void *source, size_t bytes, cudaMemcpyKind) {
    return memcpy(target, source, bytes), cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void *target, const void *source, size_t bytes, cudaMemcpyKind, cudaStream_t) {
    return memcpy(target, source, bytes), cudaSuccess;
}
cudaError_t cudaMemset(void *target, int value, size_t bytes) { return memset(target, value, bytes), cudaSuccess; }
cudaError_t cudaMemsetAsync(void *target, int value, size_t bytes, cudaStream_t) {
    return memset(target, value, bytes), cudaSuccess;
}

cudaError_t cudaStreamCreate(cudaStream_t *stream) { return *stream = reinterpret_cast<cudaStream_t>(16), cudaSuccess; }
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned) { return cudaStreamCreate(stream); }
cudaError_t cudaStreamCreateWithPriority(cudaStream_t *stream, unsigned, int) { return cudaStreamCreate(stream); }
cudaError_t cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }
cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned) { return cudaSuccess; }
cudaError_t cudaLaunchHostFunc(cudaStream_t, cudaHostFn_t function, void *argument) { return function(argument), cudaSuccess; }
cudaError_t cudaEventCreate(cudaEvent_t *event) { return *event = reinterpret_cast<cudaEvent_t>(16), cudaSuccess; }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned) { return cudaEventCreate(event); }
cudaError_t cudaEventDestroy(cudaEvent_t) { return cudaSuccess; }
cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t) { return cudaSuccess; }
cudaError_t cudaEventQuery(cudaEvent_t) { return cudaSuccess; }
cudaError_t cudaEventSynchronize(cudaEvent_t) { return cudaSuccess; }
cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t, cudaEvent_t) { return *milliseconds = 1, cudaSuccess; }
cudaError_t cudaFuncSetAttribute(const void *function, cudaFuncAttribute attribute, int value) {
    if (attribute == cudaFuncAttributeMaxDynamicSharedMemorySize) {
        if (value < 0 || value + lam_emulated_static_shared(function) > LAM_SHARED_MOST) return remember(cudaErrorInvalidValue);
        lam_emulated_set_shared_limit(function, value);
    }
    return cudaSuccess;
}
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes *attributes, const void *function) {
    memset(attributes, 0, sizeof *attributes);
    attributes->sharedSizeBytes = lam_emulated_static_shared(function);
    attributes->maxThreadsPerBlock = 1024;
    attributes->binaryVersion = attributes->ptxVersion = 90;
    return cudaSuccess;
}
}
