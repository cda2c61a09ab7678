/* What the files of the emulated runtime share: memory.cc, streams.cc, graphs.cc, runtime.cc. Everything is called with
 * lam_runtime_lock held. */
#ifndef LAMELLA_CUDA_EMULATION_RUNTIME_PRIVATE_H
#define LAMELLA_CUDA_EMULATION_RUNTIME_PRIVATE_H

#include "emulator.h"
#include <deque>
#include <memory>
#include <mutex>
#include <vector>

std::recursive_mutex &lam_runtime_lock(void);
/* Keeps the error for cudaGetLastError. */
cudaError_t lam_remember(cudaError_t error);
/* What an earlier finding or failed launch has left; a device in that state does nothing any more. */
cudaError_t lam_device_error(void);
void lam_set_device_error(cudaError_t error);

/* Every function of the runtime begins with this. */
#define LAM_ENTER                                                                                            \
    std::lock_guard<std::recursive_mutex> entered(lam_runtime_lock());                                       \
    if (lam_in_host_function()) return lam_remember(cudaErrorNotPermitted);                                  \
    if (lam_device_error() != cudaSuccess) return lam_remember(lam_device_error())
bool lam_in_host_function(void);

/* ---- memory.cc ---- */

struct lam_allocation {
    uintptr_t address;
    size_t bytes;
    unsigned number; /* counted from 1 */
};
cudaError_t lam_device_allocate(void **pointer, size_t bytes);
bool lam_device_free(void *pointer);
void lam_device_memory(size_t *free_bytes, size_t *total_bytes);
bool lam_is_device(const void *address);
/* The allocation that holds the address, or NULL. */
const lam_allocation *lam_device_find(const void *address);
/* "5 bytes past the allocation of 100 bytes (number 3)" */
void lam_device_describe(char *text, size_t bytes, const void *address);
/* Device memory can be touched between open and close, which nest. */
void lam_device_open(void);
void lam_device_close(void);
/* Reports what the running work has written around allocations. */
void lam_device_check_guards(void);

struct lam_pinned {
    uintptr_t address;
    size_t bytes;
    int pending;      /* copies in queues that read or write it */
    uint64_t changes; /* by copies and host functions */
};
cudaError_t lam_pinned_allocate(void **pointer, size_t bytes);
bool lam_pinned_free(void *pointer);
lam_pinned *lam_pinned_find(const void *address);

/* ---- work: what streams and graphs do ---- */

enum lam_work_kind { LAM_KERNEL, LAM_LIBRARY, LAM_HOST, LAM_COPY, LAM_FILL };
struct lam_work {
    lam_work_kind kind;
    const char *name;
    lam_emulated_call call;
    void (*run)(void *argument);
    cudaHostFn_t host;
    void *host_argument;
    unsigned char *target;
    const unsigned char *source;
    size_t width, rows, target_pitch, source_pitch; /* bytes */
    int value;
    bool from_host, to_host;
    int counted;                       /* in `pending` of pinned memory */
    std::vector<unsigned char> staged; /* of pageable memory, which is read at the call */
    bool hashed;                       /* of pinned memory, which must not change before the copy runs */
    uint64_t hash, changes;
    size_t argument_bytes;
    lam_work *next;
    alignas(16) unsigned char arguments[LAM_EMULATED_ARGUMENT_BYTES];
};
/* From a pool, or a copy of `like`. */
lam_work *lam_work_new(lam_work_kind kind, const char *name);
lam_work *lam_work_copy(const lam_work *like);
void lam_work_free(lam_work *work);
void lam_work_run(lam_work *work);
/* When copies are put in a queue: `pending` goes up, targets in pinned memory are filled with 0xff bytes. */
void lam_work_enqueued(lam_work *work, bool in_graph);
void lam_work_done(lam_work *work);

/* ---- graphs.cc ---- */

struct CUgraphNode_st {
    cudaGraphNodeType type;
    CUgraph_st *graph;
    lam_work *work;
    std::vector<CUgraphNode_st *> dependencies;
    cudaConditionalNodeParams conditional;
    std::vector<cudaGraph_t> bodies;
    std::shared_ptr<struct lam_plan> child;
};
struct CUgraph_st {
    std::vector<std::unique_ptr<CUgraphNode_st>> nodes;
    CUgraph_st *parent; /* of the body of a conditional node */
};
struct lam_step {
    cudaGraphNodeType type;
    lam_work *work;
    std::vector<int> dependencies, followers;
    cudaConditionalNodeParams conditional;
    std::vector<std::shared_ptr<struct lam_plan>> bodies;
};
/* An instantiated graph. */
struct lam_plan {
    std::vector<lam_step> steps;
    std::vector<cudaGraphConditionalHandle> handles;
    std::vector<int> waits_for, ready;     /* while it runs */
    std::vector<std::vector<bool>> before; /* [step][other]: `other` is done when `step` begins */
    ~lam_plan();
};
struct CUgraphExec_st {
    std::shared_ptr<lam_plan> plan;
};
CUgraphNode_st *lam_graph_add(CUgraph_st *graph, cudaGraphNodeType type, lam_work *work,
                              const std::vector<CUgraphNode_st *> &dependencies);
void lam_plan_run(lam_plan *plan);
void lam_plan_enqueued(lam_plan *plan);

/* ---- streams.cc ---- */

/* Takes the work over: enqueues it, or records it where the stream is being captured. */
cudaError_t lam_submit(cudaStream_t stream, lam_work *work);
cudaError_t lam_submit_plan(cudaStream_t stream, const std::shared_ptr<lam_plan> &plan);
/* Runs what all streams hold. */
void lam_run_everything(void);
void lam_run_stream(cudaStream_t stream);
bool lam_stream_is_valid(cudaStream_t stream);
/* Whether the stream is being captured. */
bool lam_is_captured(cudaStream_t stream);
/* For calls that must not be made while the calling thread captures: cudaSuccess, or the error, and the capture is over. */
cudaError_t lam_unsafe_call(void);
/* The same for a call that waits for `stream` (NULL: for the legacy stream). */
cudaError_t lam_waiting_call(cudaStream_t stream);

#endif
