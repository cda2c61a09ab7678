/* What a device does by itself is done in the right order: inputs that arrive behind a running step, alternatives of a recording,
 * sums between devices. With the checked module (tests/cuda_emulation) a missing wait is found whatever the order was. Runs where
 * LAMELLA_TEST_DEVICE names a device. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "dist/nccl.h"
#include "model/internal.h"
#include "tests/unit/device.h"

enum { COUNT = 1000, STEPS = 6 };

static const lam_backend *device;

static void ok(lam_status status) {
    if (status != LAM_OK) fail_msg("%s", lam_last_error());
}

static void *take(size_t bytes) {
    void *memory;
    ok(device->allocate(&memory, bytes));
    device->kernels(false)->fill(memory, 0, bytes);
    return memory;
}

/* What a test has taken; and nothing of it has failed. */
static void release(void *const *memory, int count) {
    for (int i = 0; i < count; i++) device->release(memory[i]);
    ok(device->error());
}

static void all_are(const float *memory, float wanted) {
    float values[COUNT];
    ok(device->read(values, memory, sizeof values));
    for (int i = 0; i < COUNT; i++)
        if (values[i] != wanted) fail_msg("element %d is %g, not %g", i, (double)values[i], (double)wanted);
}

/* Each step's inputs are written while the steps before may still run. */
static void inputs_of_steps(void **state) {
    (void)state;
    if (!on_cuda()) skip();
    device = test_backend();
    const lam_kernels *kernels = device->kernels(false);
    size_t bytes = COUNT * sizeof(float);
    float *pinned, *input = take(bytes), *sum = take(bytes), wanted = 0;
    void *incoming;
    lam_recording *step;
    ok(device->allocate(&incoming, bytes));
    ok(lam_backend_allocate_pinned(device, (void **)&pinned, bytes));
    ok(lam_backend_record(device));
    for (int i = 0; i < 3; i++) kernels->accumulate(sum, input, COUNT);
    ok(lam_backend_recorded(device, &step));
    for (int i = 1; i <= STEPS; i++) {
        ok(device->sent());
        for (int k = 0; k < COUNT; k++) pinned[k] = (float)i;
        ok(device->send(incoming, pinned, bytes));
        kernels->copy(input, incoming, bytes);
        ok(device->taken());
        ok(lam_backend_replay(device, step));
        wanted += (float)(3 * i);
    }
    all_are(sum, wanted);
    /* What `write` has taken may change at once. */
    for (int k = 0; k < COUNT; k++) pinned[k] = 5;
    ok(device->write(input, pinned, bytes));
    memset(pinned, 0xff, bytes);
    all_are(input, 5);
    ok(device->read(pinned, sum, bytes)); /* pinned memory is not waited for by itself */
    assert_true(pinned[0] == wanted && pinned[COUNT - 1] == wanted);
    lam_backend_forget(device, step);
    lam_backend_release_pinned(device, pinned);
    release((void *[]){incoming, input, sum}, 3);
}

/* Two choices in one recording, with work before, between and behind. */
static void choices(void **state) {
    (void)state;
    if (!on_cuda()) skip();
    static const int64_t limits[2][3] = {{1, 3, 8}, {4, 5, 6}};
    device = test_backend();
    const lam_kernels *kernels = device->kernels(false);
    size_t bytes = COUNT * sizeof(float);
    int64_t *value = take(sizeof *value);
    float *taken[2] = {take(sizeof(float)), take(sizeof(float))}, *ones = take(bytes), *sum = take(bytes);
    float values[COUNT];
    for (int i = 0; i < COUNT; i++) values[i] = 1;
    ok(device->write(ones, values, bytes));
    lam_recording *recording;
    ok(lam_backend_record(device));
    kernels->fill(sum, 0, bytes);
    for (int c = 0; c < 2; c++) {
        ok(device->choose(value, limits[c], 3));
        for (int k = 0; k < 3; k++) {
            ok(device->choice(k));
            kernels->set(taken[c], (float)k);
            for (int i = 0; i <= k; i++) kernels->accumulate(sum, ones, COUNT);
        }
        ok(device->chosen());
        kernels->accumulate(sum, ones, COUNT);
    }
    ok(lam_backend_recorded(device, &recording));
    for (int64_t n = 0; n < 11; n++) {
        float got[2], wanted = 0;
        ok(device->write(value, &n, sizeof n));
        ok(lam_backend_replay(device, recording));
        for (int c = 0; c < 2; c++) {
            int k = 0;
            while (k < 2 && limits[c][k] < n) k++;
            ok(device->read(&got[c], taken[c], sizeof(float)));
            if (got[c] != (float)k) fail_msg("%lld rows: alternative %g, not %d", (long long)n, (double)got[c], k);
            wanted += (float)(k + 2);
        }
        all_are(sum, wanted);
    }
    lam_backend_forget(device, recording);
    release((void *[]){value, taken[0], taken[1], ones, sum}, 5);
}

/* Of one device: the sums change nothing, but their order is that of several. */
static void sums(void **state) {
    (void)state;
    if (!on_cuda()) skip();
    device = test_backend();
    lam_nccl_table_function *table =
        (lam_nccl_table_function *)(uintptr_t)lam_backend_function(device, "lam_nccl_table");
    if (!table) skip(); /* a module without NCCL */
    const lam_nccl *nccl = table();
    const lam_kernels *kernels = device->kernels(false);
    size_t bytes = COUNT * sizeof(float);
    float *ones = take(bytes), *first = take(bytes), *second = take(bytes), values[COUNT];
    double *number = take(sizeof *number);
    for (int i = 0; i < COUNT; i++) values[i] = 1;
    ok(device->write(ones, values, bytes));
    lam_nccl_id id;
    ok(nccl->make_id(&id));
    ok(nccl->open(&id, 0, 1));
    assert_non_null(strstr(nccl->library(), "NCCL"));
    lam_recording *step = NULL;
    for (int recorded = 0; recorded < 2; recorded++) {
        if (recorded) ok(lam_backend_record(device));
        kernels->fill(first, 0, bytes);
        kernels->fill(second, 0, bytes);
        kernels->fill(number, 0, sizeof *number);
        kernels->accumulate(first, ones, COUNT);
        ok(nccl->start_sum_f32(first, COUNT, lam_backend_stream(device)));
        kernels->accumulate(second, ones, COUNT); /* beside the sum */
        kernels->accumulate(second, ones, COUNT);
        ok(nccl->start_sum_f32(second, COUNT, lam_backend_stream(device)));
        ok(nccl->start_sum_f64(number, 1, lam_backend_stream(device)));
        ok(nccl->wait(lam_backend_stream(device)));
        ok(nccl->wait(lam_backend_stream(device))); /* for nothing more */
        kernels->accumulate(first, second, COUNT);
        kernels->fill(number, 0, sizeof *number);
        if (recorded) ok(lam_backend_recorded(device, &step));
        for (int k = 0; recorded && k < 3; k++) ok(lam_backend_replay(device, step));
        all_are(first, 3);
        ok(nccl->check());
    }
    lam_backend_forget(device, step);
    nccl->close();
    nccl->close();
    release((void *[]){ones, first, second, number}, 4);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(inputs_of_steps), cmocka_unit_test(choices),
                                       cmocka_unit_test(sums)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
