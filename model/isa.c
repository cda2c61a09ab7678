#include <stdlib.h>
#include <string.h>

#include "base/gemm.h"
#include "model/cpu/kernels.h"
#include "model/graph.h"

static const lam_kernels *current;

static bool has(const lam_kernels *kernels) {
    if (kernels == lam_kernels_avx512)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
               __builtin_cpu_supports("avx512cd");
    if (kernels == lam_kernels_avx2)
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
               __builtin_cpu_supports("bmi2");
    return true;
}

lam_status lam_isa_select(void) {
    static const lam_kernels *const all[] = {lam_kernels_avx512, lam_kernels_avx2, lam_kernels_baseline};
    const char *forced = getenv("LAMELLA_ISA");
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        if (forced && *forced ? strcmp(forced, all[i]->name) != 0 : !has(all[i])) continue;
        LAM_REQUIRE(has(all[i]), LAM_ERROR_USAGE, "LAMELLA_ISA=%s: this CPU does not have it", forced);
        current = all[i];
        lam_gemm_limit_isa(current->name);
        return LAM_OK;
    }
    LAM_FAIL(LAM_ERROR_USAGE, "LAMELLA_ISA=%s: allowed are baseline, avx2, avx512", forced);
}

const lam_kernels *lam_kernels_current(bool bf16) {
    if (!current && lam_isa_select() != LAM_OK) current = lam_kernels_baseline;
    return current + bf16;
}

const char *lam_isa_name(void) { return lam_kernels_current(false)->name; }
