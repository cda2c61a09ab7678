#include "train/device.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/log.h"
#include "base/threads.h"
#include "model/graph.h"

/* Loading the module takes a while: not where there can be no GPU. */
static bool may_have_gpu(void) {
    const char *module = getenv("LAMELLA_CUDA_MODULE");
    return (module && *module) || access("/dev/nvidiactl", F_OK) == 0 || access("/dev/dxg", F_OK) == 0;
}

static lam_status choose(const char *name, int local_rank, const lam_backend **backend) {
    if (name) return lam_backend_open(backend, name, local_rank);
    *backend = lam_backend_cpu();
    if (!may_have_gpu() || lam_backend_open(backend, "cuda", local_rank) == LAM_OK) return LAM_OK;
    lam_log_info("computing on the CPU: %s", lam_last_error());
    *backend = lam_backend_cpu();
    return LAM_OK;
}

lam_status lam_device_open(const lam_arguments *a, int local_rank, lam_device *device) {
    *device = (lam_device){0};
    return choose(lam_option_text(a, "device"), local_rank, &device->backend);
}

lam_status lam_device_open_to_train(const lam_arguments *a, int local_rank, lam_device *device) {
    LAM_TRY(lam_device_open(a, local_rank, device));
    device->autotune = lam_option_flag(a, "autotune");
    LAM_REQUIRE(!device->autotune || device->backend != lam_backend_cpu(), LAM_ERROR_USAGE,
                "--autotune is for a GPU; add --device cuda");
    return LAM_OK;
}

void lam_device_describe(const lam_backend *backend, char *text, size_t size) {
    if (backend == lam_backend_cpu())
        snprintf(text, size, "cpu, %s, %d threads", lam_isa_name(), lam_threads());
    else
        snprintf(text, size, "%s, %s", lam_backend_name(backend), lam_backend_device(backend));
}
