#include "model/backend.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/memory.h"
#include "model/internal.h"

/* ---- the CPU: device memory is host memory ---- */

static lam_status host_allocate(void **out, size_t bytes) { return lam_alloc(out, bytes); }
static lam_status host_copy(void *to, const void *from, size_t bytes) {
    memcpy(to, from, bytes);
    return LAM_OK;
}
static lam_status nothing(void) { return LAM_OK; }

const lam_backend *lam_backend_cpu(void) {
    static const lam_backend cpu = {.name = "cpu",
                                    .on_host = true,
                                    .alignment = 64,
                                    .kernels = lam_kernels_current,
                                    .allocate = host_allocate,
                                    .release = lam_free,
                                    .allocate_pinned = host_allocate,
                                    .release_pinned = lam_free,
                                    .read = host_copy,
                                    .write = host_copy,
                                    .synchronise = nothing,
                                    .error = nothing,
                                    .sent = nothing};
    return &cpu;
}

/* ---- CUDA ---- */

static bool is_file(const char *path) { return access(path, R_OK) == 0; }

static void find_module(char *path, size_t size) {
    const char *named = getenv("LAMELLA_CUDA_MODULE");
    char program[2048];
    if (named && *named) {
        snprintf(path, size, "%s", named);
        return;
    }
    ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
    program[length > 0 ? length : 0] = '\0';
    char *slash = strrchr(program, '/');
    if (slash) *slash = '\0';
    snprintf(path, size, "%s/../lib/lamella/liblamella_cuda.so", program);
    if (!is_file(path)) snprintf(path, size, "%s/liblamella_cuda.so", program);
}

static void *module;

static lam_status open_cuda(const lam_backend **out, int device) {
    static const lam_backend *opened;
    char path[2200];
    if (!opened) {
        find_module(path, sizeof path);
        LAM_REQUIRE(is_file(path), LAM_ERROR_EXTERNAL,
                    "--device cuda: there is no %s; build where CMake finds a CUDA toolkit, or use --device cpu",
                    path);
        module = dlopen(path, RTLD_NOW | RTLD_LOCAL);
        LAM_REQUIRE(module, LAM_ERROR_EXTERNAL, "--device cuda: %s", dlerror());
        lam_cuda_open_function *open = (lam_cuda_open_function *)(uintptr_t)dlsym(module, "lam_cuda_open");
        LAM_REQUIRE(open, LAM_ERROR_EXTERNAL, "--device cuda: %s is not a module of this program", path);
        LAM_TRY(open(&opened, device));
    }
    *out = opened;
    return LAM_OK;
}

lam_status lam_backend_open(const lam_backend **out, const char *name, int device) {
    *out = lam_backend_cpu();
    if (!strcmp(name, "cpu")) return LAM_OK;
    LAM_REQUIRE(!strcmp(name, "cuda"), LAM_ERROR_USAGE, "--device %s: it is cpu or cuda", name);
    return open_cuda(out, device);
}

const char *lam_backend_name(const lam_backend *backend) { return backend->name; }
const char *lam_backend_device(const lam_backend *backend) {
    return backend->device ? backend->device() : lam_isa_name();
}
void lam_backend_memory(const lam_backend *backend, size_t *free, size_t *total) {
    *free = *total = 0;
    if (backend->memory) backend->memory(free, total);
}

lam_status lam_backend_record(const lam_backend *backend) { return backend->record(); }
lam_status lam_backend_recorded(const lam_backend *backend, lam_recording **out) {
    return backend->recorded(out);
}
lam_status lam_backend_replay(const lam_backend *backend, lam_recording *recording) {
    return backend->replay(recording);
}
void lam_backend_forget(const lam_backend *backend, lam_recording *recording) {
    if (recording) backend->forget(recording);
}

const lam_kernels *lam_backend_kernels(const lam_backend *backend, bool bf16) { return backend->kernels(bf16); }
lam_status lam_backend_allocate(const lam_backend *backend, void **out, size_t bytes) {
    return backend->allocate(out, bytes);
}
void lam_backend_release(const lam_backend *backend, void *memory) {
    if (memory) backend->release(memory);
}
lam_status lam_backend_write(const lam_backend *backend, void *device, const void *host, size_t bytes) {
    return backend->write(device, host, bytes);
}
lam_status lam_backend_error(const lam_backend *backend) { return backend->error(); }

lam_status lam_backend_allocate_pinned(const lam_backend *backend, void **out, size_t bytes) {
    return backend->allocate_pinned(out, bytes);
}
void lam_backend_release_pinned(const lam_backend *backend, void *memory) {
    if (memory) backend->release_pinned(memory);
}
lam_status lam_backend_sent(const lam_backend *backend) { return backend->sent(); }
lam_status lam_backend_mark(const lam_backend *backend, int slot) { return backend->mark(slot); }
lam_status lam_backend_reached(const lam_backend *backend, int slot, bool *yes) {
    return backend->reached(slot, yes);
}
lam_status lam_backend_await(const lam_backend *backend, int slot) { return backend->await(slot); }
void *lam_backend_stream(const lam_backend *backend) { return backend->stream(); }

void (*lam_backend_function(const lam_backend *backend, const char *name))(void) {
    return backend->on_host ? NULL : (void (*)(void))(uintptr_t)dlsym(module, name);
}
