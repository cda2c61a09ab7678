/* The sums run on a stream of their own: an event lets them begin after what was given before, another lets what follows
 * begin after them. Both events exist once: a stream that waits for an event waits for its last record at that time. */
#include "dist/nccl.h"

#include <cuda_runtime.h>
#include <nccl.h>

#include <cstdio>
#include <cstring>


namespace {

struct state {
    ncclComm_t communicator;
    cudaStream_t stream;
    cudaEvent_t given, summed;
    bool waiting; /* sums were started since the last wait */
} the;

lam_status failed(ncclResult_t result, const char *what) {
    LAM_FAIL(LAM_ERROR_EXTERNAL, "NCCL: %s: %s (%s); NCCL_DEBUG=INFO says more", what, ncclGetErrorString(result),
             ncclGetLastError(the.communicator));
}

#define TRY_NCCL(call)                                                                                       \
    do {                                                                                                     \
        ncclResult_t try_result = (call);                                                                    \
        if (try_result != ncclSuccess) return failed(try_result, #call);                                     \
    } while (0)
#define TRY_CUDA(call)                                                                                       \
    do {                                                                                                     \
        cudaError_t try_error = (call);                                                                      \
        if (try_error != cudaSuccess)                                                                        \
            LAM_FAIL(LAM_ERROR_EXTERNAL, "CUDA: %s: %s", #call, cudaGetErrorString(try_error));              \
    } while (0)

lam_status make_id(lam_nccl_id *id) {
    static_assert(sizeof(ncclUniqueId) == sizeof *id, "NCCL's identifier");
    ncclUniqueId made;
    TRY_NCCL(ncclGetUniqueId(&made));
    memcpy(id, &made, sizeof made);
    return LAM_OK;
}

lam_status open(const lam_nccl_id *id, int rank, int world_size) {
    ncclUniqueId made;
    memcpy(&made, id, sizeof made);
    TRY_NCCL(ncclCommInitRank(&the.communicator, world_size, made, rank));
    TRY_CUDA(cudaStreamCreateWithFlags(&the.stream, cudaStreamNonBlocking));
    TRY_CUDA(cudaEventCreateWithFlags(&the.given, cudaEventDisableTiming));
    TRY_CUDA(cudaEventCreateWithFlags(&the.summed, cudaEventDisableTiming));
    return LAM_OK;
}

void close(void) {
    if (!the.communicator) return;
    ncclCommDestroy(the.communicator);
    cudaStreamDestroy(the.stream);
    cudaEventDestroy(the.given);
    cudaEventDestroy(the.summed);
    the = state();
}

lam_status start_sum(void *values, int64_t count, ncclDataType_t type, void *stream) {
    TRY_CUDA(cudaEventRecord(the.given, (cudaStream_t)stream));
    TRY_CUDA(cudaStreamWaitEvent(the.stream, the.given, 0));
    TRY_NCCL(ncclAllReduce(values, values, (size_t)count, type, ncclSum, the.communicator, the.stream));
    the.waiting = true;
    return LAM_OK;
}

lam_status start_sum_f32(float *values, int64_t count, void *stream) {
    return start_sum(values, count, ncclFloat32, stream);
}
lam_status start_sum_f64(double *values, int64_t count, void *stream) {
    return start_sum(values, count, ncclFloat64, stream);
}

lam_status wait(void *stream) {
    if (!the.waiting) return LAM_OK;
    the.waiting = false;
    TRY_CUDA(cudaEventRecord(the.summed, the.stream));
    TRY_CUDA(cudaStreamWaitEvent((cudaStream_t)stream, the.summed, 0));
    return LAM_OK;
}

lam_status check(void) {
    ncclResult_t result = ncclSuccess;
    TRY_NCCL(ncclCommGetAsyncError(the.communicator, &result));
    return result == ncclSuccess || result == ncclInProgress ? LAM_OK : failed(result, "another rank or a link");
}

const char *library(void) {
    static char name[32];
    int version = 0;
    if (!name[0] && ncclGetVersion(&version) == ncclSuccess)
        snprintf(name, sizeof name, "NCCL %d.%d.%d", version / 10000, version % 10000 / 100, version % 100);
    return name;
}

} // namespace

extern "C" const lam_nccl *lam_nccl_table(void) {
    static const lam_nccl table = {make_id, open, close, start_sum_f32, start_sum_f64, wait, check, library};
    return &table;
}
