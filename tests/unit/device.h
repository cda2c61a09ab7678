/* The device that the tests of model/ run on: LAMELLA_TEST_DEVICE, the CPU where it is not set. ctest runs them once more with
 * "cuda" and the emulated module (tests/cuda_emulation), a machine with a GPU with the real one. Include after cmocka.h. */
#ifndef LAMELLA_TESTS_DEVICE_H
#define LAMELLA_TESTS_DEVICE_H

#include <stdlib.h>
#include <string.h>

#include "model/backend.h"

static inline bool on_cuda(void) {
    const char *name = getenv("LAMELLA_TEST_DEVICE");
    return name && !strcmp(name, "cuda");
}

static inline const lam_backend *test_backend(void) {
    const lam_backend *backend = NULL;
    if (lam_backend_open(&backend, on_cuda() ? "cuda" : "cpu", 0) != LAM_OK) fail_msg("%s", lam_last_error());
    return backend;
}

#endif
