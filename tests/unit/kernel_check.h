/* What the tests of kernels share (model_kernels_<family>.c): the kernels of a device against those of the CPU, every entry of the
 * table that the operations call, for both storage types, at sizes that fill vectors, warps and blocks and at sizes that do not,
 * and twice: the second time gives the same bits. Nothing outside the arguments is written. Runs where LAMELLA_TEST_DEVICE names a
 * device.
 *
 *     static void run_gelu(bench *b, const lam_kernels *k) { k->gelu(AT(0), AT(1), b->n[0]); }
 *
 *     b->n[0] = count;                      // sizes, which messages show
 *     add_array(b, REAL, READ, count);      // argument 0
 *     add_array(b, REAL, WRITTEN, count);   // argument 1
 *     run(b, "gelu", run_gelu);
 *
 * Include after cmocka.h. */
#ifndef LAMELLA_TESTS_KERNEL_CHECK_H
#define LAMELLA_TESTS_KERNEL_CHECK_H

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/bf16.h"
#include "base/rng.h"
#include "model/internal.h"
#include "tests/unit/device.h"

enum { ARRAYS = 20, GUARD = 64, GUARD_BYTE = 0x5a };
typedef enum kind { REAL, FLOATS, INTS } kind; /* of the storage type, float32, int32 */
typedef enum role { READ, ADDED, WRITTEN, SCRATCH } role;

typedef struct array {
    kind kind;
    role role;
    int64_t count;
    void *start;  /* before the call, as the guards behind it */
    void *result; /* of the CPU */
    void *at;     /* in the memory of whoever runs */
} array;

typedef struct bench {
    const lam_backend *device;
    bool bf16, on_device;
    const char *name;
    array a[ARRAYS];
    int count;
    int64_t n[8]; /* sizes */
    lam_rng stream;
} bench;

static inline size_t bytes_of(const bench *b, const array *a) {
    return (size_t)a->count * (a->kind == REAL && b->bf16 ? 2 : 4);
}

static inline float uniform(bench *b) { return 2 * (float)lam_rng_uniform(&b->stream) - 1; }

/* An argument of random values in [-1, 1); what is only written starts as NaN. */
static inline array *add_array(bench *b, kind type, role use, int64_t count) {
    array *a = &b->a[b->count++];
    assert_true(b->count <= ARRAYS);
    *a = (array){.kind = type, .role = use, .count = count};
    size_t bytes = bytes_of(b, a);
    a->start = malloc(bytes + GUARD);
    memset(a->start, 0xff, bytes);
    memset((char *)a->start + bytes, GUARD_BYTE, GUARD);
    for (int64_t i = 0; i < count && (use == READ || use == ADDED) && type != INTS; i++) {
        float value = uniform(b);
        if (type == REAL && b->bf16)
            ((uint16_t *)a->start)[i] = lam_bf16_from_float(value);
        else
            ((float *)a->start)[i] = value;
    }
    return a;
}

/* Order of all tokens of each of `batch` samples. */
static inline void add_restore(bench *b, int64_t batch, int64_t tokens) {
    int32_t *ids = add_array(b, INTS, READ, batch * tokens)->start;
    for (int64_t s = 0; s < batch; s++, ids += tokens)
        for (int64_t i = 0; i < tokens; i++) {
            int64_t j = (int64_t)(lam_rng_uniform(&b->stream) * (double)(i + 1));
            if (j > i) j = i;
            ids[i] = ids[j];
            ids[j] = (int32_t)i;
        }
}

static inline float value_of(const bench *b, const array *a, const void *values, int64_t i) {
    return a->kind == REAL && b->bf16 ? lam_bf16_to_float(((const uint16_t *)values)[i])
                                      : ((const float *)values)[i];
}

static inline void compare(const bench *b, int k, const void *got) {
    const array *a = &b->a[k];
    size_t bytes = bytes_of(b, a);
    for (int i = 0; i < GUARD; i++)
        if (((const unsigned char *)got)[bytes + (size_t)i] != GUARD_BYTE)
            fail_msg("%s: argument %d is written behind its end", b->name, k);
    if (a->role == READ && memcmp(got, a->start, bytes) != 0)
        fail_msg("%s: argument %d is written", b->name, k);
    if (a->role == READ || a->role == SCRATCH) return;
    double squares = 0;
    for (int64_t i = 0; i < a->count; i++) {
        float want = value_of(b, a, a->result, i);
        if (isfinite(want)) squares += (double)want * (double)want;
    }
    double size = sqrt(squares / (double)a->count), allowed = a->kind == REAL && b->bf16 ? 1.0 / 128 : 1e-5;
    for (int64_t i = 0; i < a->count; i++) {
        float want = value_of(b, a, a->result, i), is = value_of(b, a, got, i);
        double off = fabs((double)is - (double)want);
        if (isnan(want) ? !isnan(is) : !(off <= allowed * (fabs((double)want) + 0.1 * size)))
            fail_msg("%s, %s: argument %d[%lld] is %g, not %g; sizes %lld %lld %lld %lld %lld", b->name,
                     b->bf16 ? "bf16" : "f32", k, (long long)i, (double)is, (double)want, (long long)b->n[0],
                     (long long)b->n[1], (long long)b->n[2], (long long)b->n[3], (long long)b->n[4]);
    }
}

typedef void run_kernel(bench *b, const lam_kernels *k);

static inline void ok(lam_status status) {
    if (status != LAM_OK) fail_msg("%s", lam_last_error());
}

/* Once on the CPU, twice on the device; frees the arrays. */
static inline void run(bench *b, const char *name, run_kernel *kernel) {
    void *before[ARRAYS] = {NULL};
    b->name = name;
    b->on_device = false;
    for (int k = 0; k < b->count; k++) {
        array *a = &b->a[k];
        size_t bytes = bytes_of(b, a) + GUARD;
        a->result = a->at = aligned_alloc(64, (bytes + 63) / 64 * 64);
        memcpy(a->at, a->start, bytes);
    }
    kernel(b, lam_kernels_current(b->bf16));
    b->on_device = true;
    for (int k = 0; k < b->count; k++) ok(b->device->allocate(&b->a[k].at, bytes_of(b, &b->a[k]) + GUARD));
    for (int again = 0; again < 2; again++) {
        for (int k = 0; k < b->count; k++)
            ok(b->device->write(b->a[k].at, b->a[k].start, bytes_of(b, &b->a[k]) + GUARD));
        kernel(b, b->device->kernels(b->bf16));
        ok(b->device->error());
        for (int k = 0; k < b->count; k++) {
            array *a = &b->a[k];
            size_t bytes = bytes_of(b, a) + GUARD;
            void *got = malloc(bytes);
            ok(b->device->read(got, a->at, bytes));
            compare(b, k, got);
            if (again && a->role != SCRATCH && memcmp(got, before[k], bytes) != 0)
                fail_msg("%s: argument %d differs from run to run", name, k);
            free(before[k]);
            before[k] = got;
        }
    }
    for (int k = 0; k < b->count; k++) {
        b->device->release(b->a[k].at);
        free(before[k]);
        free(b->a[k].start);
        free(b->a[k].result);
    }
    b->count = 0;
}

static inline bench make_bench(bool bf16) {
    return (bench){.device = test_backend(), .bf16 = bf16, .stream = lam_rng_stream(3, LAM_RNG_TEST, bf16)};
}

/* Of run_kernel: the memory of an argument. */
#define AT(k) (b->a[k].at)

static inline void both_types(void (*family)(bench *)) {
    if (!on_cuda()) skip(); /* the CPU against itself */
    for (int bf16 = 0; bf16 < 2; bf16++) {
        bench b = make_bench(bf16);
        family(&b);
    }
}

#endif
