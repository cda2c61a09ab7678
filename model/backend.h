/* Where a graph runs, chosen by name at run time.
 *
 *     const lam_backend *backend;
 *     LAM_TRY(lam_backend_open(&backend, "cuda", local_rank));      // or "cpu"
 *     LAM_TRY(lam_graph_create(&graph, parameters, backend));
 *
 * "cpu" is always there. "cuda" is a module of its own, liblamella_cuda.so beside the executable or in ../lib/lamella, or the
 * file that LAMELLA_CUDA_MODULE names: the same binary starts where there is no driver. LAM_ERROR_USAGE: no such name;
 * LAM_ERROR_EXTERNAL, with what to do: no module, no driver, no device, a device that the module has no kernels for. */
#ifndef LAMELLA_MODEL_BACKEND_H
#define LAMELLA_MODEL_BACKEND_H

#include <stdbool.h>
#include <stddef.h>

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lam_backend lam_backend;
typedef struct lam_recording lam_recording; /* work of a device that is done again at each replay, without the host */

const lam_backend *lam_backend_cpu(void);
/* device: which of several, counted from 0; taken modulo their number. A second call returns the one that is open. */
lam_status lam_backend_open(const lam_backend **out, const char *name, int device);
const char *lam_backend_name(const lam_backend *backend);
/* What it runs on, for people: "NVIDIA H200, CUDA 13.0". */
const char *lam_backend_device(const lam_backend *backend);
/* Free and all bytes of the device's memory; 0, 0 on the CPU. */
void lam_backend_memory(const lam_backend *backend, size_t *free, size_t *total);

/* Between the two calls, work that is given to the device is recorded, not done (model/graph.h, lam_graph_set_recording; nothing
 * may wait for the device meanwhile). A replay is given like any other work: in order, without waiting. Not for the CPU. */
lam_status lam_backend_record(const lam_backend *backend);
lam_status lam_backend_recorded(const lam_backend *backend, lam_recording **out);
lam_status lam_backend_replay(const lam_backend *backend, lam_recording *recording);
void lam_backend_forget(const lam_backend *backend, lam_recording *recording); /* NULL allowed */

/* Memory and kernels of a device (model/cpu/kernels.h has the contracts), for what is timed without a graph. `write` waits;
 * `error` is the first of what was given since the last call. */
struct lam_kernels;
const struct lam_kernels *lam_backend_kernels(const lam_backend *backend, bool bf16);
lam_status lam_backend_allocate(const lam_backend *backend, void **out, size_t bytes); /* LAM_ERROR_MEMORY */
void lam_backend_release(const lam_backend *backend, void *memory);                    /* NULL allowed */
lam_status lam_backend_write(const lam_backend *backend, void *device, const void *host, size_t bytes);
lam_status lam_backend_error(const lam_backend *backend);

/* Host memory that the device copies from and to by itself. LAM_ERROR_MEMORY. */
lam_status lam_backend_allocate_pinned(const lam_backend *backend, void **out, size_t bytes);
void lam_backend_release_pinned(const lam_backend *backend, void *memory); /* NULL allowed */
/* Waits until all that graphs have sent (model/graph.h, lam_graph_send) has left the host. The last of it goes when the work given
 * before that send has begun: the call does not wait for that work's end. */
lam_status lam_backend_sent(const lam_backend *backend);

/* A place in the work given so far, and whether the device has come to it. Slots 0 to LAM_BACKEND_MARKS - 1. */
enum { LAM_BACKEND_MARKS = 4 };
lam_status lam_backend_mark(const lam_backend *backend, int slot);
lam_status lam_backend_reached(const lam_backend *backend, int slot, bool *yes);
lam_status lam_backend_await(const lam_backend *backend, int slot);

/* The CUDA stream that work goes to now. */
void *lam_backend_stream(const lam_backend *backend);
/* A function that the module exports, by name (model/cuda/update.h, dist/nccl.h); NULL: it has none. */
void (*lam_backend_function(const lam_backend *backend, const char *name))(void);

#ifdef __cplusplus
}
#endif
#endif
