/* The rest of the runtime: errors, the device, memory calls, launches, and how one piece of work is run. */
#include "check.h"
#include "order.h"
#include <algorithm>
#include <stdio.h>

static thread_local cudaError_t last_error;
static cudaError_t device_error;
static thread_local bool is_host_function;
static lam_work *free_work;

std::recursive_mutex &lam_runtime_lock(void) {
    static std::recursive_mutex lock;
    return lock;
}
cudaError_t lam_remember(cudaError_t error) {
    if (error != cudaSuccess && error != cudaErrorNotReady) last_error = error;
    return error;
}
cudaError_t lam_device_error(void) { return device_error; }
void lam_set_device_error(cudaError_t error) {
    if (device_error == cudaSuccess) device_error = error;
}
bool lam_in_host_function(void) { return is_host_function; }

/* ---- work ---- */

lam_work *lam_work_new(lam_work_kind kind, const char *name) {
    lam_work *work = free_work;
    if (work)
        free_work = work->next;
    else
        work = new lam_work();
    work->kind = kind;
    work->name = name;
    work->from_host = work->to_host = work->hashed = false;
    work->counted = 0;
    work->argument_bytes = 0;
    return work;
}

lam_work *lam_work_copy(const lam_work *like) {
    lam_work *work = lam_work_new(like->kind, like->name);
    *work = *like;
    return work;
}

void lam_work_free(lam_work *work) {
    work->staged.clear();
    work->next = free_work;
    free_work = work;
}

static uint64_t hash_rows(const lam_work *work) {
    uint64_t hash = 0x9e3779b97f4a7c15u;
    for (size_t row = 0; row < work->rows; row++) {
        const unsigned char *p = work->source + row * work->source_pitch;
        size_t i = 0;
        for (; i + 8 <= work->width; i += 8) {
            uint64_t eight;
            memcpy(&eight, p + i, 8);
            hash = (hash ^ eight) * 0x9fb21c651e98df25u;
            hash ^= hash >> 29;
        }
        for (; i < work->width; i++) hash = (hash ^ p[i]) * 0x100000001b3u;
    }
    return hash;
}

void lam_work_enqueued(lam_work *work, bool in_graph) {
    if (work->kind != LAM_COPY) return;
    lam_pinned *source = work->from_host && work->staged.empty() ? lam_pinned_find(work->source) : nullptr;
    lam_pinned *target = work->to_host ? lam_pinned_find(work->target) : nullptr;
    if (source && !in_graph) {
        work->hashed = true;
        work->hash = hash_rows(work);
        work->changes = source->changes;
    }
    if (target && !target->pending)
        for (size_t row = 0; row < work->rows; row++)
            memset(work->target + row * work->target_pitch, 0xff, work->width);
    if (source) source->pending++;
    if (target) target->pending++;
    work->counted++;
}

void lam_work_done(lam_work *work) {
    if (!work->counted) return;
    work->counted--;
    lam_pinned *source = work->from_host && work->staged.empty() ? lam_pinned_find(work->source) : nullptr;
    lam_pinned *target = work->to_host ? lam_pinned_find(work->target) : nullptr;
    if (source && source->pending) source->pending--;
    if (target && target->pending) target->pending--;
}

static void copy_rows(lam_work *work) {
    const unsigned char *source = work->staged.empty() ? work->source : work->staged.data();
    size_t pitch = work->staged.empty() ? work->source_pitch : work->width;
    if (work->hashed) {
        const lam_pinned *from = lam_pinned_find(work->source);
        if (!from)
            lam_emulated_report("pinned memory was freed before the copy from it has run");
        else if (from->changes == work->changes && hash_rows(work) != work->hash)
            lam_emulated_report("pinned memory was changed before the copy of %zu bytes from it has run",
                                work->width * work->rows);
    }
    if (work->to_host) {
        lam_pinned *to = lam_pinned_find(work->target);
        if (to) to->changes++;
    }
    for (size_t row = 0; row < work->rows; row++) {
        unsigned char *to = work->target + row * work->target_pitch;
        const unsigned char *from = source + row * pitch;
        if (!work->from_host) lam_emulated_range(from, work->width, false);
        if (!work->to_host) lam_emulated_range(to, work->width, true);
        if (device_error == cudaSuccess) memmove(to, from, work->width);
    }
}

void lam_work_run(lam_work *work) {
    const char *before = lam_emulated_work;
    lam_emulated_work = work->name;
    if (lam_emulated_is_checked()) lam_order_begin_work(work->name);
    if (work->kind != LAM_KERNEL) { /* one thread of one block */
        lam_now.block++;
        lam_now.thread = 0;
        lam_now.time = lam_now.barrier_time = 1;
        lam_now.is_library = true;
    }
    switch (work->kind) {
    case LAM_KERNEL:
        if (!lam_emulated_run(&work->call, work->arguments))
            lam_set_device_error(cudaErrorLaunchFailure);
        else
            lam_device_check_guards();
        break;
    case LAM_LIBRARY:
        work->run(work->arguments);
        lam_device_check_guards();
        break;
    case LAM_HOST: {
        lam_device_close();
        is_host_function = true;
        work->host(work->host_argument);
        is_host_function = false;
        lam_device_open();
        break;
    }
    case LAM_COPY: copy_rows(work); break;
    case LAM_FILL:
        lam_emulated_range(work->target, work->width, true);
        if (device_error == cudaSuccess) memset(work->target, work->value, work->width);
        break;
    }
    lam_emulated_work = before;
    if (lam_emulated_take_finding()) lam_set_device_error(cudaErrorLaunchFailure);
}

void lam_emulated_range(const void *address, size_t bytes, bool write) {
    if (!bytes) return;
    const lam_allocation *in = lam_device_find(address);
    uintptr_t a = reinterpret_cast<uintptr_t>(address);
    if (in && a + bytes <= in->address + in->bytes) {
        lam_emulated_memory_used(address, bytes, write);
        return;
    }
    char where[200];
    lam_device_describe(where, sizeof where, address);
    if (!in && !lam_is_device(address)) snprintf(where, sizeof where, "which is no device memory");
    lam_emulated_report("out of bounds: %s %zu bytes at %p, %s", write ? "writes" : "reads", bytes, address,
                        where);
}

/* ---- launches ---- */

/* Blocks in the third dimension: fewer than the 65,535 of a GPU, so that what goes there in several launches is tested. */
const int64_t GRID_DEPTH = 12;

cudaError_t lam_emulated_launch(const lam_emulated_call *call, const void *arguments, size_t bytes) {
    LAM_ENTER;
    static const int64_t grid_most[3] = {0x7fffffff, 65535, GRID_DEPTH}, block_most[3] = {1024, 1024, 64};
    const int64_t *g = call->grid, *b = call->block;
    for (int i = 0; i < 3; i++)
        if (g[i] < 1 || g[i] > grid_most[i] || b[i] < 1 || b[i] > block_most[i])
            return lam_remember(cudaErrorInvalidConfiguration);
    if (b[0] * b[1] * b[2] > 1024) return lam_remember(cudaErrorInvalidConfiguration);
    int limit = lam_emulated_shared_limit(call->function),
        most = limit ? limit : static_cast<int>(LAM_SHARED_DEFAULT);
    if (call->shared_bytes > static_cast<size_t>(most)) return lam_remember(cudaErrorInvalidValue);
    if (!lam_stream_is_valid(call->stream)) return lam_remember(cudaErrorInvalidResourceHandle);
    if (lam_emulated_setting().lacks == LAM_LACKS_KERNELS)
        return lam_remember(cudaErrorNoKernelImageForDevice);
    lam_work *work = lam_work_new(LAM_KERNEL, call->name);
    work->call = *call;
    work->argument_bytes = bytes;
    memcpy(work->arguments, arguments, bytes);
    return lam_remember(lam_submit(call->stream, work));
}

cudaError_t lam_emulated_enqueue(cudaStream_t stream, const char *what, void (*run)(void *),
                                 const void *argument, size_t bytes) {
    LAM_ENTER;
    if (bytes > LAM_EMULATED_ARGUMENT_BYTES) return lam_remember(cudaErrorInvalidValue);
    if (!lam_stream_is_valid(stream)) return lam_remember(cudaErrorInvalidResourceHandle);
    lam_work *work = lam_work_new(LAM_LIBRARY, what);
    work->run = run;
    work->argument_bytes = bytes;
    memcpy(work->arguments, argument, bytes);
    return lam_remember(lam_submit(stream, work));
}

/* ---- copies ---- */

static cudaError_t copy(void *target, size_t target_pitch, const void *source, size_t source_pitch,
                        size_t width, size_t rows, cudaMemcpyKind kind, cudaStream_t stream, bool blocks) {
    bool from_host = !lam_is_device(source), to_host = !lam_is_device(target);
    bool fits = kind == cudaMemcpyDefault ||
                (from_host == (kind == cudaMemcpyHostToDevice || kind == cudaMemcpyHostToHost) &&
                 to_host == (kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyHostToHost));
    if (!fits || width > target_pitch || width > source_pitch) return cudaErrorInvalidValue;
    if (!lam_stream_is_valid(stream)) return cudaErrorInvalidResourceHandle;
    if (blocks) {
        cudaError_t error = lam_waiting_call(stream);
        if (error != cudaSuccess) return error;
    }
    if (!width || !rows) return cudaSuccess;
    lam_work *work = lam_work_new(LAM_COPY, to_host     ? "copy from the device"
                                            : from_host ? "copy to the device"
                                                        : "copy on the device");
    work->target = static_cast<unsigned char *>(target);
    work->source = static_cast<const unsigned char *>(source);
    work->target_pitch = target_pitch;
    work->source_pitch = source_pitch;
    work->width = width;
    work->rows = rows;
    work->from_host = from_host;
    work->to_host = to_host;
    bool captured = lam_is_captured(stream);
    if (from_host && !captured && !lam_pinned_find(source)) {
        work->staged.resize(width * rows);
        for (size_t row = 0; row < rows; row++)
            memcpy(work->staged.data() + row * width, work->source + row * source_pitch, width);
    }
    /* A copy to pageable memory returns when it is done. */
    blocks = blocks || (to_host && !captured && !lam_pinned_find(target));
    cudaError_t error = lam_submit(stream, work);
    if (error == cudaSuccess && blocks) {
        lam_run_stream(stream);
        error = device_error;
    }
    return error;
}

static cudaError_t fill(void *target, int value, size_t bytes, cudaStream_t stream) {
    if (!lam_is_device(target)) return cudaErrorInvalidValue;
    if (!lam_stream_is_valid(stream)) return cudaErrorInvalidResourceHandle;
    if (!bytes) return cudaSuccess;
    lam_work *work = lam_work_new(LAM_FILL, "fill of device memory");
    work->target = static_cast<unsigned char *>(target);
    work->width = bytes;
    work->value = value;
    return lam_submit(stream, work);
}

static const struct {
    cudaError_t error;
    const char *name, *text;
} errors[] = {
#define LAM_ERROR_NAME(name, text)                                                                           \
    { name, #name, text }
    LAM_ERROR_NAME(cudaSuccess, "no error"),
    LAM_ERROR_NAME(cudaErrorInvalidValue, "invalid argument"),
    LAM_ERROR_NAME(cudaErrorMemoryAllocation, "out of memory"),
    LAM_ERROR_NAME(cudaErrorInitializationError, "initialization error"),
    LAM_ERROR_NAME(cudaErrorInvalidConfiguration, "invalid configuration argument"),
    LAM_ERROR_NAME(cudaErrorInvalidSymbol, "invalid device symbol"),
    LAM_ERROR_NAME(cudaErrorInvalidMemcpyDirection, "invalid copy direction for memcpy"),
    LAM_ERROR_NAME(cudaErrorInsufficientDriver,
                   "CUDA driver version is insufficient for CUDA runtime version"),
    LAM_ERROR_NAME(cudaErrorInvalidDeviceFunction, "invalid device function"),
    LAM_ERROR_NAME(cudaErrorNoDevice, "no CUDA-capable device is detected"),
    LAM_ERROR_NAME(cudaErrorInvalidDevice, "invalid device ordinal"),
    LAM_ERROR_NAME(cudaErrorInvalidKernelImage, "device kernel image is invalid"),
    LAM_ERROR_NAME(cudaErrorNoKernelImageForDevice,
                   "no kernel image is available for execution on the device"),
    LAM_ERROR_NAME(cudaErrorUnsupportedPtxVersion,
                   "the provided PTX was compiled with an unsupported toolchain."),
    LAM_ERROR_NAME(cudaErrorInvalidResourceHandle, "invalid resource handle"),
    LAM_ERROR_NAME(cudaErrorIllegalState, "the operation cannot be performed in the present state"),
    LAM_ERROR_NAME(cudaErrorNotReady, "device not ready"),
    LAM_ERROR_NAME(cudaErrorIllegalAddress, "an illegal memory access was encountered"),
    LAM_ERROR_NAME(cudaErrorLaunchOutOfResources, "too many resources requested for launch"),
    LAM_ERROR_NAME(cudaErrorMisalignedAddress, "misaligned address"),
    LAM_ERROR_NAME(cudaErrorLaunchFailure, "unspecified launch failure"),
    LAM_ERROR_NAME(cudaErrorNotPermitted, "operation not permitted"),
    LAM_ERROR_NAME(cudaErrorNotSupported, "operation not supported"),
    LAM_ERROR_NAME(cudaErrorSystemDriverMismatch,
                   "system has unsupported display driver / cuda driver combination"),
    LAM_ERROR_NAME(cudaErrorCompatNotSupportedOnDevice,
                   "forward compatibility was attempted on non supported HW"),
    LAM_ERROR_NAME(cudaErrorStreamCaptureUnsupported, "operation not permitted when stream is capturing"),
    LAM_ERROR_NAME(cudaErrorStreamCaptureInvalidated,
                   "operation failed due to a previous error during capture"),
    LAM_ERROR_NAME(cudaErrorStreamCaptureMerge,
                   "operation would result in a merge of separate capture sequences"),
    LAM_ERROR_NAME(cudaErrorStreamCaptureUnmatched, "capture was not ended in the same stream as it began"),
    LAM_ERROR_NAME(cudaErrorStreamCaptureUnjoined, "capturing stream has unjoined work"),
    LAM_ERROR_NAME(cudaErrorStreamCaptureIsolation,
                   "dependency created on uncaptured work in another stream"),
    LAM_ERROR_NAME(cudaErrorStreamCaptureImplicit,
                   "operation would make the legacy stream depend on a capturing blocking stream"),
    LAM_ERROR_NAME(cudaErrorCapturedEvent,
                   "operation not permitted on an event last recorded in a capturing stream"),
    LAM_ERROR_NAME(cudaErrorStreamCaptureWrongThread,
                   "attempt to terminate a thread-local capture sequence from another thread"),
    LAM_ERROR_NAME(cudaErrorUnknown, "unknown error"),
};

extern "C" {

const char *cudaGetErrorName(cudaError_t error) {
    for (const auto &one : errors)
        if (one.error == error) return one.name;
    return "unrecognized error code";
}
const char *cudaGetErrorString(cudaError_t error) {
    for (const auto &one : errors)
        if (one.error == error) return one.text;
    return "unrecognized error code";
}
/* An error of the device stays, as it does on a GPU until the process ends. */
cudaError_t cudaGetLastError(void) {
    cudaError_t error = last_error;
    last_error = cudaSuccess;
    return error;
}
cudaError_t cudaPeekAtLastError(void) { return last_error; }

cudaError_t cudaMalloc(void **pointer, size_t bytes) {
    LAM_ENTER;
    cudaError_t error = lam_unsafe_call();
    return lam_remember(error != cudaSuccess ? error : lam_device_allocate(pointer, bytes));
}
cudaError_t cudaFree(void *pointer) {
    LAM_ENTER;
    cudaError_t error = lam_unsafe_call();
    if (error != cudaSuccess || !pointer) return lam_remember(error);
    lam_run_everything();
    if (device_error != cudaSuccess) return lam_remember(device_error);
    return lam_remember(lam_device_free(pointer) ? cudaSuccess : cudaErrorInvalidValue);
}
cudaError_t cudaHostAlloc(void **pointer, size_t bytes, unsigned) {
    LAM_ENTER;
    cudaError_t error = lam_unsafe_call();
    return lam_remember(error != cudaSuccess ? error : lam_pinned_allocate(pointer, bytes));
}
cudaError_t cudaMallocHost(void **pointer, size_t bytes) {
    return cudaHostAlloc(pointer, bytes, cudaHostAllocDefault);
}
cudaError_t cudaFreeHost(void *pointer) {
    LAM_ENTER;
    cudaError_t error = lam_unsafe_call();
    if (error != cudaSuccess || !pointer) return lam_remember(error);
    lam_run_everything();
    return lam_remember(lam_pinned_free(pointer) ? cudaSuccess : cudaErrorInvalidValue);
}
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes *attributes, const void *pointer) {
    LAM_ENTER;
    memset(attributes, 0, sizeof *attributes);
    void *address = const_cast<void *>(pointer);
    if (lam_device_find(pointer))
        attributes->type = cudaMemoryTypeDevice, attributes->devicePointer = address;
    else if (lam_pinned_find(pointer))
        attributes->type = cudaMemoryTypeHost, attributes->devicePointer = attributes->hostPointer = address;
    else
        attributes->hostPointer = address, attributes->device = -2;
    return cudaSuccess;
}

cudaError_t cudaMemcpy(void *target, const void *source, size_t bytes, cudaMemcpyKind kind) {
    LAM_ENTER;
    return lam_remember(copy(target, bytes, source, bytes, bytes, 1, kind, nullptr, true));
}
cudaError_t cudaMemcpyAsync(void *target, const void *source, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
    LAM_ENTER;
    return lam_remember(copy(target, bytes, source, bytes, bytes, 1, kind, stream, false));
}
cudaError_t cudaMemcpy2DAsync(void *target, size_t target_pitch, const void *source, size_t source_pitch,
                              size_t width, size_t rows, cudaMemcpyKind kind, cudaStream_t stream) {
    LAM_ENTER;
    return lam_remember(copy(target, target_pitch, source, source_pitch, width, rows, kind, stream, false));
}
cudaError_t cudaMemset(void *target, int value, size_t bytes) {
    LAM_ENTER;
    cudaError_t error = lam_waiting_call(nullptr);
    return lam_remember(error != cudaSuccess ? error : fill(target, value, bytes, nullptr));
}
cudaError_t cudaMemsetAsync(void *target, int value, size_t bytes, cudaStream_t stream) {
    LAM_ENTER;
    return lam_remember(fill(target, value, bytes, stream));
}

/* ---- the device: a small one of compute capability 9.0 ---- */

cudaError_t cudaGetDeviceCount(int *count) {
    const lam_emulated_lack lacks = lam_emulated_setting().lacks;
    bool none = lacks == LAM_LACKS_DEVICE, unusable = lacks == LAM_LACKS_DRIVER || lacks == LAM_LACKS_ANY_DRIVER;
    *count = none || unusable ? 0 : 1;
    return lam_remember(unusable ? cudaErrorInsufficientDriver : none ? cudaErrorNoDevice : cudaSuccess);
}
cudaError_t cudaSetDevice(int device) { return lam_remember(device ? cudaErrorInvalidDevice : cudaSuccess); }
cudaError_t cudaGetDevice(int *device) { return *device = 0, cudaSuccess; }
cudaError_t cudaDeviceReset(void) {
    std::lock_guard<std::recursive_mutex> entered(lam_runtime_lock());
    device_error = cudaSuccess;
    return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int device) {
    if (device) return lam_remember(cudaErrorInvalidDevice);
    memset(p, 0, sizeof *p);
    snprintf(p->name, sizeof p->name, "emulated device");
    p->totalGlobalMem = lam_emulated_setting().memory;
    p->sharedMemPerBlock = LAM_SHARED_DEFAULT;
    p->regsPerBlock = p->regsPerMultiprocessor = 65536;
    p->warpSize = 32;
    p->memPitch = 0x7fffffff;
    p->maxThreadsPerBlock = 1024;
    p->maxThreadsDim[0] = p->maxThreadsDim[1] = 1024, p->maxThreadsDim[2] = 64;
    p->maxGridSize[0] = 0x7fffffff, p->maxGridSize[1] = 65535, p->maxGridSize[2] = GRID_DEPTH;
    p->totalConstMem = 65536;
    p->major = 9;
    p->multiProcessorCount = 4;
    p->canMapHostMemory = p->concurrentKernels = p->unifiedAddressing = p->streamPrioritiesSupported = 1;
    p->asyncEngineCount = 2;
    p->memoryBusWidth = 5120;
    p->l2CacheSize = 1 << 20;
    p->maxThreadsPerMultiProcessor = 2048;
    p->sharedMemPerMultiprocessor = 228 << 10;
    p->sharedMemPerBlockOptin = LAM_SHARED_MOST;
    return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int device) {
    if (device) return lam_remember(cudaErrorInvalidDevice);
    switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock: *value = 1024; break;
    case cudaDevAttrMaxSharedMemoryPerBlock: *value = LAM_SHARED_DEFAULT; break;
    case cudaDevAttrWarpSize: *value = 32; break;
    case cudaDevAttrClockRate: *value = 1000000; break;
    case cudaDevAttrMultiProcessorCount: *value = 4; break;
    case cudaDevAttrMemoryClockRate: *value = 1000000; break;
    case cudaDevAttrGlobalMemoryBusWidth: *value = 5120; break;
    case cudaDevAttrL2CacheSize: *value = 1 << 20; break;
    case cudaDevAttrMaxThreadsPerMultiProcessor: *value = 2048; break;
    case cudaDevAttrComputeCapabilityMajor: *value = 9; break;
    case cudaDevAttrComputeCapabilityMinor: *value = 0; break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor: *value = 228 << 10; break;
    case cudaDevAttrMaxRegistersPerMultiprocessor: *value = 65536; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = LAM_SHARED_MOST; break;
    default: return lam_remember(cudaErrorInvalidValue);
    }
    return cudaSuccess;
}
cudaError_t cudaDeviceGetPCIBusId(char *text, int bytes, int device) {
    if (device) return lam_remember(cudaErrorInvalidDevice);
    snprintf(text, static_cast<size_t>(bytes), "0000:00:00.0");
    return cudaSuccess;
}
cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest) {
    return *least = 0, *greatest = -5, cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int *version) {
    const lam_emulated_lack lacks = lam_emulated_setting().lacks;
    *version = lacks == LAM_LACKS_ANY_DRIVER ? 0 : lacks == LAM_LACKS_DRIVER ? 11040 : CUDART_VERSION;
    return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int *version) { return *version = CUDART_VERSION, cudaSuccess; }
cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total_bytes) {
    LAM_ENTER;
    lam_device_memory(free_bytes, total_bytes);
    return cudaSuccess;
}

cudaError_t cudaFuncSetAttribute(const void *function, cudaFuncAttribute attribute, int value) {
    LAM_ENTER;
    if (attribute == cudaFuncAttributePreferredSharedMemoryCarveout)
        return lam_remember(value < -1 || value > 100 ? cudaErrorInvalidValue : cudaSuccess);
    if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize || value < 0 ||
        static_cast<size_t>(value) + lam_emulated_static_shared(function) > LAM_SHARED_MOST)
        return lam_remember(cudaErrorInvalidValue);
    lam_emulated_set_shared_limit(function, value);
    return cudaSuccess;
}
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes *attributes, const void *function) {
    LAM_ENTER;
    memset(attributes, 0, sizeof *attributes);
    if (lam_emulated_setting().lacks == LAM_LACKS_KERNELS)
        return lam_remember(cudaErrorNoKernelImageForDevice);
    int limit = lam_emulated_shared_limit(function);
    attributes->sharedSizeBytes = lam_emulated_static_shared(function);
    attributes->maxThreadsPerBlock = 1024;
    attributes->numRegs = 32;
    attributes->binaryVersion = attributes->ptxVersion = 90;
    attributes->maxDynamicSharedSizeBytes = limit ? limit : static_cast<int>(LAM_SHARED_DEFAULT);
    return cudaSuccess;
}
/* By threads and shared memory alone: there are no registers here. */
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, const void *function, int block_size,
                                                          size_t shared_bytes) {
    LAM_ENTER;
    if (block_size < 1 || block_size > 1024) return lam_remember(cudaErrorInvalidValue);
    size_t shared = shared_bytes + lam_emulated_static_shared(function) + 1024;
    *blocks = static_cast<int>(
        std::min<size_t>(std::min(32, 2048 / ((block_size + 31) / 32 * 32)), (228u << 10) / shared));
    return cudaSuccess;
}
}
