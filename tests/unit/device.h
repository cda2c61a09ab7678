/* The device that the tests of model/ run on: LAMELLA_TEST_DEVICE, the CPU where it is not set. ctest runs them once more with
 * "cuda" and the emulated module (tests/cuda_emulation), a machine with a GPU with the real one. LAMELLA_TEST_FILTER, a pattern, and
 * LAMELLA_TEST_CASE, a name, leave out all other tests and all other cases of tables (tests/cuda_emulation/mutants.sh). Include
 * after cmocka.h. */
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

/* Of a device: the emulated one, not a GPU. */
static inline bool is_emulated(const lam_backend *device) {
    return strstr(lam_backend_device(device), "emulat") != NULL;
}

__attribute__((constructor)) static void choose_tests(void) {
    if (getenv("LAMELLA_TEST_FILTER")) cmocka_set_test_filter(getenv("LAMELLA_TEST_FILTER"));
}

static inline bool is_chosen_case(const char *name) {
    const char *wanted = getenv("LAMELLA_TEST_CASE");
    return !wanted || !strcmp(wanted, name);
}

#endif
