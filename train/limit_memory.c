#include "base/log.h"
#include "base/memory.h"
#include "train/limit.h"

#define FEWEST_RUNS 3 /* one run may meet another program */

__attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4"))) static void
triad(float *restrict a, const float *restrict b, const float *restrict c, int64_t count) {
    for (int64_t i = 0; i < count; i++) a[i] = b[i] + 0.5f * c[i];
}

__attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4"))) static void
triad_in_place(float *restrict a, const float *restrict b, int64_t count) {
    for (int64_t i = 0; i < count; i++) a[i] = b[i] + 0.5f * a[i];
}

/* On all threads, in place without c. */
static double seconds_of(float *a, const float *b, const float *c, int64_t count) {
    enum { PART = 1 << 14 };
    double start = lam_now();
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < count; i += PART) {
        int64_t part = count - i < PART ? count - i : PART;
        if (c)
            triad(a + i, b + i, c + i, part);
        else
            triad_in_place(a + i, b + i, part);
    }
    return lam_now() - start;
}

lam_status lam_memory_limit(size_t bytes, double seconds, double *bytes_per_s) {
    int64_t count = (int64_t)(bytes / (3 * sizeof(float)));
    float *memory;
    LAM_TRY(lam_alloc_array((void **)&memory, 3 * count, sizeof *memory));
    float *a = memory, *b = memory + count, *c = memory + 2 * count;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < count; i++) b[i] = c[i] = 0.001f * (float)(i % 997);
    seconds_of(a, b, c, count);
    double begin = lam_now(), best = 1e30;
    for (int run = 0; run < FEWEST_RUNS || lam_now() - begin < seconds; run++) {
        double apart = seconds_of(a, b, c, count), in_place = seconds_of(a, b, NULL, count);
        best = apart < best ? apart : best;
        best = in_place < best ? in_place : best;
    }
    *bytes_per_s = 3.0 * (double)count * sizeof(float) / best;
    lam_free(memory);
    return LAM_OK;
}
